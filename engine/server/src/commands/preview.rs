//! `logweir preview`: rows of a table as they are, and what a stream makes of them.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::json::writer::{JsonArray, Writer, WriterBuilder};
use arrow::util::display::FormatOptions;
use arrow::util::pretty::pretty_format_batches_with_options;
use logweir_core::{ChangeBatch, ChangeType, Column, Error, MetadataColumn, Relation, RelationName, Result, Transform};
use logweir_runtime::checkpoint::CheckpointDocument;
use logweir_sql::{BadValue, SqlProblem, SqlTransform, printable};

use crate::cli::TextOrJson;
use crate::config::{Loaded, OnBadValue, Stream};
use crate::failure::{Failure, WORK_FAILED};
use crate::landed;
use crate::references;
use crate::registry::table_filter;
use crate::text::{count, print};

/// Stands for a value that is not shown.
const MASKED: &str = "(masked)";

/// Rows on their way through the transforms of a stream.
struct Rows {
    /// What they are, or would be.
    relations: Vec<Arc<Relation>>,
    batches: Vec<ChangeBatch>,
}

impl Rows {
    fn share(&self) -> Rows {
        Rows { relations: self.relations.clone(), batches: self.batches.iter().map(ChangeBatch::share).collect() }
    }

    /// What a transform makes of them.
    fn through(self, transform: &mut dyn Transform) -> Result<Rows> {
        let mut made = Rows { relations: Vec::new(), batches: Vec::new() };
        for relation in &self.relations {
            made.relations.extend(transform.output(relation)?);
        }
        for batch in self.batches {
            made.batches.extend(transform.apply(batch)?);
        }
        Ok(made)
    }
}

/// What rows become.
struct After {
    table: RelationName,
    /// The destination, if it has transforms of its own.
    destination: Option<String>,
    records: RecordBatch,
}

/// What is shown.
struct Preview {
    stream: String,
    table: RelationName,
    before: RecordBatch,
    after: Vec<After>,
    /// Changes that were set aside, by the destination that does, or by the stream.
    aside: Vec<(Option<String>, RecordBatch)>,
    /// They would stop the stream.
    aside_stops: bool,
    /// Nothing in the stream is for the table.
    untouched: bool,
}

/// Runs the command.
pub(crate) async fn run(loaded: &Loaded, table: &str, stream: Option<&str>, limit: usize, format: TextOrJson) -> Result<ExitCode, Failure> {
    let Some((schema, name)) = table.split_once('.').filter(|(schema, name)| !schema.is_empty() && !name.is_empty()) else {
        return Err(Failure::Usage(format!("`--table {table}` is not schema.table")));
    };
    let table = RelationName::new(schema, name);
    let stream_name = stream_of(loaded, &table, stream)?;
    let stream = loaded.stream(&stream_name)?;
    let filter = table_filter(stream);
    let Some(batch) = loaded.source(&stream_name)?.sample(&filter, &table, limit).await? else {
        return Err(Failure::Usage(format!(
            "the source of stream {stream_name} shows no table {table}; `logweir discover {} {}` lists those that there are",
            loaded.name, stream.source
        )));
    };
    match preview(loaded, &stream_name, stream, batch).await? {
        Ok(preview) => {
            let shown = match format {
                TextOrJson::Text => text(&preview),
                TextOrJson::Json => json(&preview),
            };
            print(&shown.map_err(|error| error.context("table", &table))?)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(problems) => {
            eprint!("{problems}");
            Ok(ExitCode::from(WORK_FAILED))
        }
    }
}

/// The stream that follows the table.
fn stream_of(loaded: &Loaded, table: &RelationName, stream: Option<&str>) -> Result<String, Failure> {
    let streams = &loaded.config().streams;
    let names = |names: &[&str]| names.join(", ");
    if let Some(name) = stream {
        let known: Vec<&str> = streams.keys().map(|name| name.0.as_str()).collect();
        if !known.contains(&name) {
            return Err(Failure::Usage(format!("there is no stream `{name}` in {}; streams are: {}", loaded.name, names(&known))));
        }
    }
    let candidates = streams.iter().filter(|(name, _)| stream.is_none_or(|wanted| wanted == name.0));
    let following: Vec<&str> =
        candidates.filter(|(_, stream)| table_filter(stream).accepts(table)).map(|(name, _)| name.0.as_str()).collect();
    match following.as_slice() {
        [only] => Ok((*only).to_owned()),
        [] => {
            let of = stream.map_or_else(|| "no stream".to_owned(), |name| format!("stream {name} does not"));
            let follows = if stream.is_some() { "follow" } else { "follows" };
            Err(Failure::Usage(format!("{of} {follows} {table}; see `tables` in {}", loaded.name)))
        }
        several => Err(Failure::Usage(format!("{table} is followed by several streams: choose one with --stream: {}", names(several)))),
    }
}

/// Sends rows through what the stream has for them. What is wrong with its SQL comes back as text, each problem at its place.
async fn preview(loaded: &Loaded, name: &str, stream: &Stream, batch: ChangeBatch) -> Result<Result<Preview, String>> {
    let relation = Arc::clone(&batch.relation);
    let shown = batch.records.clone();
    let mut rows = Rows { relations: vec![Arc::clone(&relation)], batches: vec![batch] };
    let mut hidden = Vec::new();
    // For each table that it becomes the column of the source that each column is as it is.
    let mut origins: Vec<Vec<Option<usize>>> = vec![(0..relation.columns().len()).map(Some).collect()];
    if let Some(mut mask) = loaded.mask(stream)? {
        rows = rows.through(&mut mask)?;
        hidden = mask.masked_columns(&relation);
    }
    if let Some(udf) = loaded.udf(stream)? {
        rows = rows.through(&mut udf.with_bad_value(BadValue::Quarantine))?;
        // A function is said nothing of; what it leaves has its name.
        let named = |column: &Column| relation.columns().iter().position(|source| source.name() == column.name());
        origins = rows.relations.iter().map(|made| made.columns().iter().map(named).collect()).collect();
    }
    let references = references::load(loaded, name).await?;
    let known = references::known(loaded, name).await?;
    if let Some(sql) = loaded.sql(stream, &references, &known)? {
        let mut sql = sql.with_bad_value(BadValue::Quarantine);
        if let Some(document) = loaded.state(name)?.peek().await? {
            for relation in landed::recalled(loaded, stream, &CheckpointDocument::from_bytes(&document)?)? {
                sql.recall(&relation);
            }
        }
        if let Err(problems) = plan(loaded, name, None, &mut sql, &rows.relations) {
            return Ok(Err(problems));
        }
        let before = rows.relations.clone();
        rows = rows.through(&mut sql)?;
        let mut made_of = Vec::with_capacity(rows.relations.len());
        for target in &rows.relations {
            let mut of = vec![None; target.columns().len()];
            for (source, origins) in before.iter().zip(&origins) {
                let passed = sql.passed_columns(source, target.name());
                let found = passed.into_iter().map(|index| origins.get(index?).copied().flatten());
                of.iter_mut().zip(found).for_each(|(of, found)| *of = of.or(found));
            }
            made_of.push(of);
        }
        for (source, origins) in before.iter().zip(&origins) {
            hidden.extend(sql.masked_columns(source).into_iter().filter_map(|index| origins.get(index).copied().flatten()));
        }
        origins = made_of;
    }
    let is_itself = |rows: &Rows| matches!(rows.relations.as_slice(), [only] if Arc::ptr_eq(only, &relation));
    let of_stream_alone = is_itself(&rows);
    // What lands where: the same in all destinations that have nothing of their own for it.
    let mut landing: Vec<(Option<String>, Rows)> = Vec::new();
    let quarantine = RelationName::new(RelationName::OWN_SCHEMA, "quarantine");
    let mut hidden_everywhere: Option<BTreeSet<usize>> = None;
    for (index, destination) in stream.destinations.iter().enumerate() {
        let Some(sql) = loaded.destination_sql(stream, destination, &references)? else {
            hidden_everywhere = Some(BTreeSet::new());
            continue;
        };
        let mut sql = sql.with_bad_value(BadValue::Quarantine);
        if let Err(problems) = plan(loaded, name, Some(index), &mut sql, &rows.relations) {
            return Ok(Err(problems));
        }
        let mut shared = rows.share();
        // What the stream sets aside is shown once.
        shared.batches.retain(|batch| *batch.relation.name() != quarantine);
        let made = shared.through(&mut sql)?;
        let of = |(source, origins): (&Arc<Relation>, &Vec<Option<usize>>)| {
            sql.masked_columns(source).into_iter().filter_map(|index| origins.get(index).copied().flatten()).collect::<Vec<_>>()
        };
        let masked: BTreeSet<usize> = rows.relations.iter().zip(&origins).flat_map(of).collect();
        hidden_everywhere = Some(match hidden_everywhere {
            Some(others) => others.intersection(&masked).copied().collect(),
            None => masked,
        });
        let same =
            made.relations.len() == rows.relations.len() && made.relations.iter().zip(&rows.relations).all(|(a, b)| Arc::ptr_eq(a, b));
        if !same {
            landing.push((Some(destination.name().to_owned()), made));
        }
    }
    hidden.extend(hidden_everywhere.into_iter().flatten());
    let untouched = of_stream_alone && landing.is_empty();
    let set_aside = |rows: &Rows| -> Result<Option<RecordBatch>> {
        let Some(relation) = rows.relations.iter().find(|relation| *relation.name() == quarantine) else { return Ok(None) };
        let batches = rows.batches.iter().filter(|batch| *batch.relation.name() == quarantine).map(|batch| &batch.records);
        let records = concat_batches(relation.schema(), batches).map_err(unexpected)?;
        if records.num_rows() == 0 { Ok(None) } else { columns(&records, relation, &[], false).map(Some) }
    };
    let mut aside: Vec<(Option<String>, RecordBatch)> = set_aside(&rows)?.map(|records| (None, records)).into_iter().collect();
    for (destination, rows) in &landing {
        aside.extend(set_aside(rows)?.map(|records| (destination.clone(), records)));
    }
    if landing.len() < stream.destinations.len() {
        landing.insert(0, (None, rows));
    }
    let with_types = types_differ(&shown, &relation);
    let mut after: Vec<After> = Vec::new();
    for (destination, rows) in landing {
        let mut seen = std::collections::HashSet::new();
        for relation in &rows.relations {
            if *relation.name() == quarantine || !seen.insert(relation.name()) {
                continue;
            }
            let is_this = |batch: &&ChangeBatch| batch.relation.name() == relation.name();
            let batches: Vec<_> = rows.batches.iter().filter(is_this).map(|batch| &batch.records).collect();
            let records = concat_batches(relation.schema(), batches).map_err(unexpected)?;
            let records = columns(&records, relation, &[], with_types)?;
            after.push(After { table: relation.name().clone(), destination: destination.clone(), records });
        }
    }
    let before = columns(&shown, &relation, &hidden, with_types)?;
    let aside_stops = matches!(stream.on_bad_value, OnBadValue::Fail);
    Ok(Ok(Preview { stream: name.to_owned(), table: relation.name().clone(), before, after, aside, aside_stops, untouched }))
}

/// Plans all tables: the error is what is wrong with the SQL, as it is shown.
fn plan(
    loaded: &Loaded,
    stream: &str,
    destination: Option<usize>,
    sql: &mut SqlTransform,
    relations: &[Arc<Relation>],
) -> Result<(), String> {
    let mut shown = String::new();
    let mut add = |severity: &str, problem: &SqlProblem| {
        shown.push_str(&format!("{severity}: transform {} of stream {stream}: {}\n", problem.rule + 1, problem.message));
        if let Some((_, _, place)) = loaded.sql_place(stream, destination, problem) {
            shown.push_str(&place);
        }
        if let Some(help) = &problem.help {
            shown.push_str(&format!("  → {help}\n"));
        }
    };
    let mut fits = true;
    for relation in relations {
        if let Err(problems) = sql.plan(relation) {
            fits = false;
            problems.iter().for_each(|problem| add("error", problem));
        }
    }
    if fits { Ok(()) } else { Err(shown) }
}

/// True if there is a change that is not just a row that is there.
fn types_differ(records: &RecordBatch, relation: &Relation) -> bool {
    use arrow::array::AsArray as _;
    let column = records.column(relation.columns().len() + MetadataColumn::ChangeType as usize);
    let codes = column.as_dictionary::<arrow::datatypes::Int8Type>();
    codes.keys().values().iter().any(|code| *code != ChangeType::Read.code())
}

/// The columns of a table, without those of `hidden`, and the types of changes if they say something.
fn columns(records: &RecordBatch, relation: &Relation, hidden: &[usize], with_types: bool) -> Result<RecordBatch> {
    let count = relation.columns().len();
    let mut fields = Vec::with_capacity(count + 1);
    let mut arrays: Vec<ArrayRef> = Vec::with_capacity(count + 1);
    let schema = records.schema();
    for index in 0..count {
        if hidden.contains(&index) {
            fields.push(Arc::new(Field::new(schema.field(index).name(), DataType::Utf8, true)));
            arrays.push(Arc::new(StringArray::from(vec![MASKED; records.num_rows()])));
        } else {
            fields.push(Arc::clone(&schema.fields()[index]));
            arrays.push(Arc::clone(records.column(index)));
        }
    }
    if with_types {
        let index = count + MetadataColumn::ChangeType as usize;
        fields.push(Arc::clone(&schema.fields()[index]));
        arrays.push(Arc::clone(records.column(index)));
    }
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(records.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options).map_err(unexpected)
}

fn unexpected(_: arrow::error::ArrowError) -> Error {
    // Its text may quote a value.
    Error::internal("rows of a preview cannot be shown")
}

fn plural(number: usize) -> String {
    format!("{} row{}", count(number as u64), if number == 1 { "" } else { "s" })
}

fn pretty(records: &RecordBatch) -> Result<String> {
    let table = pretty_format_batches_with_options(&[printable(records)?], &FormatOptions::default()).map_err(unexpected)?;
    Ok(table.to_string())
}

fn text(preview: &Preview) -> Result<String> {
    let Preview { stream, table, before, after, aside, aside_stops, untouched } = preview;
    let rows = before.num_rows();
    let mut text = format!("{table} in stream {stream}, before: {}\n{}\n", plural(rows), pretty(before)?);
    if *untouched {
        text.push_str("\nIt lands as it is: no mask, function or transform is for this table.\n");
        return Ok(text);
    }
    for After { table, destination, records } in after {
        let place = destination.as_ref().map(|destination| format!(" in {destination}")).unwrap_or_default();
        // With rows set aside the count would be of both.
        let counts = aside.iter().all(|(place, _)| place.is_some() && place != destination);
        let left = if counts && records.num_rows() < rows { format!(" of {rows}") } else { String::new() };
        text.push_str(&format!("\n{table}{place}, after: {}{left}\n{}\n", plural(records.num_rows()), pretty(records)?));
    }
    for (destination, aside) in aside {
        let becomes = if *aside_stops {
            "cannot be carried, and would stop the stream (on_bad_value: fail)"
        } else {
            "cannot be carried, and would go to logweir.quarantine"
        };
        let place = destination.as_ref().map(|destination| format!(" in {destination}")).unwrap_or_default();
        text.push_str(&format!("\n{} {becomes}{place}\n{}\n", plural(aside.num_rows()), pretty(aside)?));
    }
    Ok(text)
}

/// The same for programs.
fn json(preview: &Preview) -> Result<String> {
    // Spliced, so that no number passes through a type that holds fewer digits.
    let text = |text: &str| serde_json::Value::from(text).to_string();
    let after: Vec<String> = preview
        .after
        .iter()
        .map(|After { table, destination, records }| {
            let destination = destination.as_ref().map_or_else(|| "null".to_owned(), |destination| text(destination));
            let rows = rows_as_json(records)?;
            Ok(format!("{{\"table\":{},\"destination\":{destination},\"rows\":{rows}}}", text(&table.to_string())))
        })
        .collect::<Result<_>>()?;
    let aside = preview.aside.iter().map(|(_, records)| rows_as_json(records)).collect::<Result<Vec<_>>>()?;
    let aside: Vec<&str> = aside.iter().map(|rows| rows.trim_start_matches('[').trim_end_matches(']')).collect();
    Ok(format!(
        "{{\"stream\":{},\"table\":{},\"before\":{},\"after\":[{}],\"bad\":[{}]}}\n",
        text(&preview.stream),
        text(&preview.table.to_string()),
        rows_as_json(&preview.before)?,
        after.join(","),
        aside.join(",")
    ))
}

fn rows_as_json(records: &RecordBatch) -> Result<String> {
    let mut writer: Writer<_, JsonArray> = WriterBuilder::new().with_explicit_nulls(true).build(Vec::new());
    writer.write(&printable(records)?).map_err(unexpected)?;
    writer.finish().map_err(unexpected)?;
    let bytes = writer.into_inner();
    // Without a row nothing is written.
    let text = String::from_utf8(bytes).map_err(|_| Error::internal("rows of a preview are no text"))?;
    Ok(if text.is_empty() { "[]".to_owned() } else { text })
}
