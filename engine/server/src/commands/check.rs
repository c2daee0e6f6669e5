//! `logweir check`: everything that would stop a stream later, with the step that mends it.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use logweir_core::{Column, Error, ErrorKind, Finding, LogMark, LogPosition, Relation, Result, Severity, Sink, Transform as _};
use logweir_files::free_bytes;
use logweir_runtime::Acknowledge;
use logweir_runtime::changelog::segment::{Locate, SegmentCursor};
use logweir_runtime::checkpoint::CheckpointDocument;
use logweir_sql::{MASK, References, SqlProblem, SqlTransform};
use serde::Serialize;

use crate::cli::TextOrJson;
use crate::config::{Loaded, SqlRule, Stream};
use crate::failure::{Failure, WORK_FAILED};
use crate::landed;
use crate::references;
use crate::registry::{before_images, table_filter};
use crate::tail::{blocking, locate};
use crate::text::{bytes, print};

/// A finding, and where it was made.
#[derive(Debug, Serialize)]
struct Found {
    stream: String,
    /// `source shop-db`, `destination lake`, `state`, `mask`.
    at: String,
    #[serde(flatten)]
    finding: Finding,
    /// Where in the configuration it lies, if it is about a place there.
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<FilePlace>,
}

/// A place in the configuration.
#[derive(Debug, Serialize)]
struct FilePlace {
    file: String,
    line: usize,
    column: usize,
    /// The line with a caret under it.
    #[serde(skip)]
    shown: String,
}

impl FilePlace {
    /// A place from its line, its column and how it is shown.
    fn new(loaded: &Loaded, (line, column, shown): (usize, usize, String)) -> Self {
        FilePlace { file: loaded.name.clone(), line, column, shown }
    }
}

impl Found {
    fn new(stream: &str, at: &str, finding: Finding) -> Self {
        Found { stream: stream.to_owned(), at: at.to_owned(), finding, place: None }
    }
}

/// Runs the command.
pub(crate) async fn run(loaded: &Loaded, format: TextOrJson) -> Result<ExitCode, Failure> {
    let mut found = Vec::new();
    for (name, stream) in &loaded.config().streams {
        let mut add = |at: String, findings: Result<Vec<Finding>>| {
            let findings = findings.unwrap_or_else(|error| vec![unreachable(&error)]);
            found.extend(findings.into_iter().map(|finding| Found::new(&name.0, &at, finding)));
        };
        add(format!("source {}", stream.source), check_source(loaded, &name.0, stream).await);
        let (masked, masks) = masked(loaded, &name.0, stream).await.unwrap_or_else(|error| {
            let found = Found::new(&name.0, "mask", unreachable(&error));
            (Vec::new(), vec![found])
        });
        let (masked, udf) = match through_functions(loaded, stream, masked) {
            Ok((made, findings)) => (made, Ok(findings)),
            Err(error) => (Vec::new(), Err(error)),
        };
        let (transformed, transforms) = transformed(loaded, &name.0, stream, masked).await;
        let mut of_destinations = Vec::new();
        for (index, destination) in stream.destinations.iter().enumerate() {
            let (landed, transforms) = transformed_by(loaded, &name.0, stream, index, &transformed).await;
            of_destinations.extend(transforms);
            let findings = match loaded.sink(&name.0, destination) {
                Ok(sink) => sink.check().await.map(|findings| findings.into_iter().chain(refused(sink.as_ref(), &landed)).collect()),
                Err(error) => Err(error),
            };
            add(format!("destination {}", destination.name()), findings);
        }
        add("state".to_owned(), check_state(loaded, &name.0).await.map(|()| Vec::new()));
        add("change_log".to_owned(), check_change_log(loaded, &name.0, stream).await);
        add("udf".to_owned(), udf);
        found.extend(masks);
        found.extend(transforms);
        found.extend(of_destinations);
    }
    found.sort_by_key(|found| std::cmp::Reverse(found.finding.severity));
    let errors = found.iter().filter(|found| found.finding.severity == Severity::Error).count();
    match format {
        TextOrJson::Json => {
            let report = serde_json::json!({ "errors": errors, "warnings": found.len() - errors, "findings": found });
            print(&format!("{report:#}\n"))?;
        }
        TextOrJson::Text => print(&render(&found, errors))?,
    }
    Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::from(WORK_FAILED) })
}

fn render(found: &[Found], errors: usize) -> String {
    let mut text = String::new();
    for Found { stream, at, finding, place } in found {
        let severity = match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        text.push_str(&format!("{severity}[{}] stream {stream}, {at}: {}\n", finding.code, finding.message));
        if let Some(place) = place {
            text.push_str(&place.shown);
        }
        if !finding.remedy.is_empty() {
            text.push_str(&format!("  → {}\n", finding.remedy));
        }
    }
    let warnings = found.len() - errors;
    text.push_str(&match (errors, warnings) {
        (0, 0) => "everything is fine\n".to_owned(),
        _ => format!("{errors} error{}, {warnings} warning{}\n", plural(errors), plural(warnings)),
    });
    text
}

fn plural(number: usize) -> &'static str {
    if number == 1 { "" } else { "s" }
}

async fn check_source(loaded: &Loaded, name: &str, stream: &Stream) -> Result<Vec<Finding>> {
    let source = loaded.source(name)?;
    let mut mark = resume(loaded, name).await;
    loop {
        let findings = source.check(&table_filter(stream), mark.as_ref()).await?;
        if findings.iter().all(|finding| finding.code != Finding::CHECKPOINT) {
            return Ok(findings);
        }
        // While the stream runs the log may have gone on behind the checkpoint that was looked at.
        let now = resume(loaded, name).await;
        if now == mark {
            return Ok(findings);
        }
        mark = now;
    }
}

/// Where the stream goes on.
async fn resume(loaded: &Loaded, name: &str) -> Option<LogMark> {
    checkpoint(loaded, name).await?.resume().cloned()
}

/// Tables with the columns that they have lost, which transforms may still name.
async fn recalled(loaded: &Loaded, name: &str, stream: &Stream) -> Vec<Arc<Relation>> {
    let document = checkpoint(loaded, name).await;
    document.and_then(|document| landed::recalled(loaded, stream, &document).ok()).unwrap_or_default()
}

/// The same behind the stream's own SQL.
async fn recalled_by_stream(loaded: &Loaded, name: &str, stream: &Stream, references: &References) -> Vec<Arc<Relation>> {
    let recalled = recalled(loaded, name, stream).await;
    match loaded.sql(stream, references, &[]) {
        Ok(Some(mut sql)) => recalled.iter().flat_map(|relation| sql.recall(relation)).collect(),
        _ => recalled,
    }
}

/// The checkpoint. One that cannot be read is found elsewhere.
async fn checkpoint(loaded: &Loaded, name: &str) -> Option<CheckpointDocument> {
    let bytes = loaded.state(name).ok()?.peek().await.ok()??;
    CheckpointDocument::from_bytes(&bytes).ok()
}

/// An endpoint that could not be looked at is a finding itself.
fn unreachable(error: &Error) -> Finding {
    Finding::of_error(Severity::Error, error.kind().as_str(), error, "")
}

/// The checkpoint must be readable, and its place writable.
async fn check_state(loaded: &Loaded, stream: &str) -> Result<()> {
    let state = loaded.state(stream)?;
    if let Some(document) = state.peek().await? {
        CheckpointDocument::from_bytes(&document).map_err(|error| error.context("checkpoint", state.location()))?;
    }
    match loaded.state_directory() {
        Some(directory) => probe(&directory, "state"),
        None => Ok(()),
    }
}

/// Whether changes can be kept where they are to be, and what does not fit together.
async fn check_change_log(loaded: &Loaded, name: &str, stream: &Stream) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let Some(log) = loaded.change_log(name)? else {
        if stream.destinations.len() > 1 {
            findings.push(Finding {
                severity: Severity::Warning,
                code: "change_log_in_memory",
                message: "changes are kept in memory only, so the slowest destination holds up the others".to_owned(),
                remedy: "keep them on disk: change_log: { dir: … }".to_owned(),
            });
        }
        return Ok(findings);
    };
    probe(&log.segments.directory, "change_log.dir")?;
    if let Some(probe) = loaded.change_log_probe(name)? {
        let found = probe.check().await?.into_iter().map(|finding| Finding { code: "change_log_store", ..finding });
        findings.extend(found);
        if findings.iter().any(|finding| finding.severity == Severity::Error) {
            return Ok(findings);
        }
    }
    let in_store = log.segments.store.is_some();
    let there = log.segments.directory.ancestors().find(|folder| folder.is_dir());
    let held = SegmentCursor::bytes(log.segments.directory.as_path())?;
    let wanted = if in_store { log.segments.cache_bytes.min(log.segments.retain_bytes) } else { log.segments.retain_bytes };
    if let Some(free) = there.and_then(free_bytes)
        && free.saturating_add(held) < wanted
    {
        findings.push(Finding {
            severity: Severity::Warning,
            code: "change_log_disk_space",
            message: format!(
                "the change log may grow to {}, and where it lies {} are free: a full disk holds up the stream",
                bytes(wanted),
                bytes(free)
            ),
            remedy: if in_store {
                "free some space, or let the directory hold less: change_log: { cache: … }".to_owned()
            } else {
                "free some space, or let it keep less: change_log: { retain: { size: … } }".to_owned()
            },
        });
    }
    if log.acknowledge == Acknowledge::Log && loaded.state_directory().is_none() && !in_store {
        findings.push(Finding {
            severity: Severity::Warning,
            code: "change_log_on_this_machine",
            message: "the source may forget what only the disk of this machine holds, while the checkpoint is in a bucket".to_owned(),
            remedy: "keep the change log in a bucket, too (change_log: { url: … }), or its directory on a disk that moves with the stream; or use \
                     acknowledge: destination"
                .to_owned(),
        });
    }
    if log.acknowledge == Acknowledge::Log && loaded.state_directory().is_some() && in_store {
        findings.push(Finding {
            severity: Severity::Warning,
            code: "state_on_this_machine",
            message: "the change log is in a store, while the checkpoint, without which it begins anew, is on this machine only".to_owned(),
            remedy: "keep the state in the store, too: state: { url: … }".to_owned(),
        });
    }
    if let Some(document) = loaded.state(name)?.peek().await?
        && let Some(mark) = CheckpointDocument::from_bytes(&document)?.log.map(|log| log.mark.position)
    {
        let held = match locate(&log, Locate::Position(LogPosition::MAX)).await {
            Ok(last) => last.position >= mark,
            Err(error) if matches!(error.kind(), ErrorKind::LogGone | ErrorKind::Corrupt) => false,
            Err(error) => return Err(error),
        };
        if !held {
            let place = log.segments.place();
            let is_empty = blocking(move || SegmentCursor::at(&place, 0).is_empty()).await?;
            let stops = log.acknowledge == Acknowledge::Log && !is_empty;
            let place = loaded.change_log_url(name).map_or_else(|| log.segments.directory.display().to_string(), str::to_owned);
            findings.push(Finding {
                severity: if stops { Severity::Error } else { Severity::Warning },
                code: "change_log_lost",
                message: format!("the change log in {place} does not hold what the checkpoint says"),
                remedy: "bring it back if it was moved; without it the stream reads again from its source, where the slowest destination is, if the source \
                         still has that"
                    .to_owned(),
            });
        }
    }
    Ok(findings)
}

/// Writes and removes a file where a directory of ours is or will be made.
fn probe(directory: &Path, key: &'static str) -> Result<()> {
    let existing = directory.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    let path = existing.join(format!(".logweir-probe-{}", std::process::id()));
    let write = || {
        std::fs::File::create(&path)?.write_all(b"probe")?;
        std::fs::remove_file(&path)
    };
    write().map_err(|error| {
        let _ = std::fs::remove_file(&path);
        Error::denied("could not write to the directory")
            .context("directory", existing.display())
            .remedy(format!("give this user the right to write there, or choose another `{key}`"))
            .source(error)
    })
}

/// Tables that a destination cannot take.
fn refused(sink: &dyn Sink, landed: &[Arc<Relation>]) -> Vec<Finding> {
    let refused = landed.iter().filter_map(|relation| sink.check_relation(relation).err());
    refused.map(|error| Finding::of_error(Severity::Error, "table", &error, "exclude the table")).collect()
}

/// The tables as the masks leave them, and what is wrong with these: a rule that cannot be, or that fits nothing.
async fn masked(loaded: &Loaded, name: &str, stream: &Stream) -> Result<(Vec<Arc<Relation>>, Vec<Found>)> {
    let mask = loaded.mask(stream)?;
    // A source that cannot be looked at is found elsewhere.
    let Ok(source) = loaded.source(name) else { return Ok(Default::default()) };
    let Ok(relations) = source.relations(&table_filter(stream)).await else { return Ok(Default::default()) };
    let (mut followed, mut found) = (Vec::new(), Vec::new());
    for relation in relations {
        match relation.name().check_source() {
            Ok(()) => followed.push(Arc::new(relation)),
            Err(error) => {
                let finding = Finding::of_error(Severity::Error, "table", &error, "exclude the table");
                found.push(Found::new(name, "mask", finding));
            }
        }
    }
    let wanted = before_images(stream);
    let without_table = wanted.iter().filter(|pattern| !followed.iter().any(|relation| pattern.matches(&relation.name().to_string())));
    for pattern in without_table.filter(|_| !followed.is_empty()) {
        let finding = Finding {
            severity: Severity::Warning,
            code: "before_images_match_nothing",
            message: format!("no followed table fits the pattern {} of before_images", pattern.as_str()),
            remedy: "correct the pattern if a table should have them now; tables that come later are still caught".to_owned(),
        };
        found.push(Found::new(name, "before_images", finding));
    }
    let Some(mut mask) = mask else { return Ok((followed, found)) };
    let of_rule = |finding, rule: Option<usize>, pattern: Option<&str>| {
        let place = loaded.mask_place(name, rule, pattern).map(|place| FilePlace::new(loaded, place));
        Found { place, ..Found::new(name, "mask", finding) }
    };
    let mut masked = Vec::new();
    for relation in followed {
        // What follows is planned over what its masks leave of it, whether or not all of them can be.
        let (output, problems) = mask.plan(&relation);
        masked.push(output);
        found.extend(problems.into_iter().map(|problem| of_rule(unreachable(&problem.error), problem.rule, None)));
    }
    let merged = masked.iter().filter_map(|relation| merged_by_masks(relation));
    found.extend(merged.map(|finding| Found::new(name, "mask", finding)));
    let looked_at = !masked.is_empty();
    for (rule, pattern) in mask.unmatched().into_iter().filter(|_| looked_at) {
        let finding = Finding {
            severity: Severity::Warning,
            code: "mask_matches_nothing",
            message: format!("no column of the followed tables fits the mask pattern {pattern}"),
            remedy: "correct the pattern if a column should be masked now; columns that are added later are still caught".to_owned(),
        };
        found.push(of_rule(finding, Some(rule), Some(&pattern)));
    }
    Ok((masked, found))
}

/// A table without a key of which masks may make different rows equal.
fn merged_by_masks(relation: &Relation) -> Option<Finding> {
    if relation.key_declared() {
        return None;
    }
    let merges = |column: &&Column| {
        let mask = column.field.metadata().get(MASK);
        mask.is_some_and(|mask| !matches!(mask.as_str(), "hash" | "tokenize" | "keep"))
    };
    let columns: Vec<&str> = relation.columns().iter().filter(merges).map(Column::name).collect();
    (!columns.is_empty()).then(|| Finding {
        severity: Severity::Warning,
        code: "mask_merges_rows",
        message: format!(
            "{} has no key, so all its columns are one, and masks may make rows equal by {}: their current state cannot tell them apart; its changes are complete",
            relation.name(),
            columns.join(", ")
        ),
        remedy: "give the table a primary key, or mask with hash or tokenize, which keep values apart".to_owned(),
    })
}

/// The tables as the functions leave them, and what is wrong with these.
fn through_functions(loaded: &Loaded, stream: &Stream, masked: Vec<Arc<Relation>>) -> Result<(Vec<Arc<Relation>>, Vec<Finding>)> {
    let Some(mut udf) = loaded.udf(stream)? else { return Ok((masked, Vec::new())) };
    let looked_at = !masked.is_empty();
    let (mut made, mut findings) = (Vec::<Arc<Relation>>::new(), Vec::new());
    for relation in masked {
        let outputs = udf.output(&relation).unwrap_or_else(|error| {
            findings.push(unreachable(&error));
            Vec::new()
        });
        for output in outputs {
            // All of them may send rows to one: the quarantine.
            if !made.iter().any(|other| other.name() == output.name()) {
                made.push(output);
            }
        }
    }
    // Without tables there is nothing that a rule could be for.
    let unmatched = udf.unmatched().into_iter().filter(|_| looked_at).map(|pattern| Finding {
        severity: Severity::Warning,
        code: "udf_matches_nothing",
        message: format!("no followed table fits the UDF for {pattern}"),
        remedy: "correct the pattern, or follow the table; a table that is made later is still caught".to_owned(),
    });
    findings.extend(unmatched);
    Ok((made, findings))
}

/// The tables as they would be landed, and what is wrong with the SQL on the way, each at its place in the file.
async fn transformed(loaded: &Loaded, name: &str, stream: &Stream, masked: Vec<Arc<Relation>>) -> (Vec<Arc<Relation>>, Vec<Found>) {
    let references = match references::load(loaded, name).await {
        Ok(references) => references,
        Err(error) => return (Vec::new(), vec![Found::new(name, "references", unreachable(&error))]),
    };
    let mut sql = match loaded.sql(stream, &references, &masked) {
        Ok(Some(sql)) => sql,
        Ok(None) => return (masked, Vec::new()),
        Err(error) => return (Vec::new(), vec![Found::new(name, "transforms", unreachable(&error))]),
    };
    for relation in recalled(loaded, name, stream).await {
        sql.recall(&relation);
    }
    planned(loaded, name, None, sql, &stream.transforms, &masked)
}

/// The same for the SQL of a destination, by its index.
async fn transformed_by(
    loaded: &Loaded,
    name: &str,
    stream: &Stream,
    index: usize,
    transformed: &[Arc<Relation>],
) -> (Vec<Arc<Relation>>, Vec<Found>) {
    let destination = &stream.destinations[index];
    let problem = |error: &Error| vec![Found::new(name, &format!("destination {}", destination.name()), unreachable(error))];
    if destination.transforms.is_empty() {
        return (transformed.to_vec(), Vec::new());
    }
    // That they cannot be loaded was found with the stream's own SQL.
    let Ok(references) = references::load(loaded, name).await else { return (Vec::new(), Vec::new()) };
    match loaded.destination_sql(stream, destination, &references) {
        Ok(Some(mut sql)) => {
            for relation in recalled_by_stream(loaded, name, stream, &references).await {
                sql.recall(&relation);
            }
            planned(loaded, name, Some(index), sql, &destination.transforms, transformed)
        }
        Ok(None) => (transformed.to_vec(), Vec::new()),
        Err(error) => (Vec::new(), problem(&error)),
    }
}

fn planned(
    loaded: &Loaded,
    name: &str,
    destination: Option<usize>,
    mut sql: SqlTransform,
    rules: &[SqlRule],
    relations: &[Arc<Relation>],
) -> (Vec<Arc<Relation>>, Vec<Found>) {
    let looked_at = !relations.is_empty();
    let (mut landed, mut found) = (Vec::new(), Vec::new());
    for relation in relations {
        let (severity, code, problems) = match sql.plan(relation) {
            Ok((targets, warnings)) => {
                landed.extend(targets);
                (Severity::Warning, "transform", warnings)
            }
            Err(problems) => (Severity::Error, "transform", problems),
        };
        for problem in problems {
            found.push(of_sql(loaded, name, destination, severity, code, &problem, Some(relation)));
        }
    }
    // Without tables there is nothing that a rule could be for.
    for rule in sql.unmatched().into_iter().filter(|_| looked_at) {
        let problem = SqlProblem {
            rule,
            place: None,
            message: format!("no followed table fits the rule for {}", rules[rule].table.0),
            help: Some("correct the pattern, or follow the table; a table that is made later is still caught".to_owned()),
        };
        found.push(of_sql(loaded, name, destination, Severity::Warning, "transform_matches_nothing", &problem, None));
    }
    (landed, found)
}

fn of_sql(
    loaded: &Loaded,
    stream: &str,
    destination: Option<usize>,
    severity: Severity,
    code: &'static str,
    problem: &SqlProblem,
    table: Option<&Relation>,
) -> Found {
    let message = match table {
        Some(table) => format!("{}: {}", table.name(), problem.message),
        None => problem.message.clone(),
    };
    let finding = Finding { severity, code, message, remedy: problem.help.clone().unwrap_or_default() };
    let place = loaded.sql_place(stream, destination, problem).map(|place| FilePlace::new(loaded, place));
    Found { place, ..Found::new(stream, "transforms", finding) }
}
