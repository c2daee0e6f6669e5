//! `logweir sql`: queries over what was landed.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use arrow::csv::WriterBuilder;
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::json::LineDelimitedWriter;
use arrow::util::display::FormatOptions;
use arrow::util::pretty::pretty_format_batches_with_options;
use chrono::DateTime;
use futures::StreamExt as _;
use logweir_core::{BeforeImages, Error, LogPosition, Pattern, Relation, RelationName, Result, TimestampMicros};
use logweir_files::layout::PathTemplate;
use logweir_runtime::checkpoint::CheckpointDocument;
use logweir_sql::{LandedTable, QueryEngine, QueryResult, References, Tail, begin_query, printable};

use crate::cli::SqlFormat;
use crate::config::{Destination, Loaded, Stream};
use crate::failure::Failure;
use crate::landed;
use crate::live::{self, Process};
use crate::references::Wanted;
use crate::registry::before_images;
use crate::system::SystemTables;
use crate::tail::{LogTail, extent};

/// Of the memory, what is on its way is held up to this part, and of one table up to that. The rest is read when it is asked for.
const HELD_FRACTION: usize = 8;
const HELD_OF_TABLE_FRACTION: usize = 32;

/// Runs the command.
pub(crate) async fn run(loaded: &Arc<Loaded>, query: &str, as_of: Option<&str>, format: SqlFormat) -> Result<ExitCode, Failure> {
    let mut reach = Reach::everything(loaded);
    if let Some(http) = &loaded.config().http {
        reach.process = Process::ask(http.listen).await;
    }
    let moment = as_of.map(|as_of| {
        let moment = DateTime::parse_from_rfc3339(as_of);
        moment.map_err(|_| Failure::Usage(format!("`{as_of}` is no time: write it as 2026-11-20T10:00:00Z")))
    });
    let moment = moment.transpose()?.map(|moment| TimestampMicros(moment.timestamp_micros()));
    let reach = &reach;
    let result = begin_query(|| async move {
        let engine = engine(loaded, reach).await?;
        let engine = moment.into_iter().fold(engine, QueryEngine::as_of);
        engine.sql(query).await
    });
    let result = result.await?;
    let stdout = io::BufWriter::with_capacity(1 << 16, io::stdout().lock());
    write(result, format, stdout).await?;
    Ok(ExitCode::SUCCESS)
}

/// What a query may reach for.
pub(crate) struct Reach<'a> {
    /// Memory of the query.
    pub(crate) memory_bytes: usize,
    /// The schemas that are to be seen; all if `None`.
    pub(crate) schemas: Option<&'a [Pattern]>,
    /// What the process says that runs the streams, if one was asked.
    pub(crate) process: Option<Process>,
    /// The reference tables of the streams that this process runs.
    pub(crate) references: Option<&'a BTreeMap<String, References>>,
}

impl Reach<'_> {
    /// Everything there is.
    pub(crate) fn everything(loaded: &Loaded) -> Self {
        let memory_bytes = usize::try_from(loaded.config().memory.0).unwrap_or(usize::MAX);
        Reach { memory_bytes, schemas: None, process: None, references: None }
    }

    fn shows(&self, schema: &str) -> bool {
        self.schemas.is_none_or(|patterns| patterns.iter().any(|pattern| pattern.matches(schema)))
    }
}

/// An engine over every table that the checkpoints know of and `reach` shows.
pub(crate) async fn engine(loaded: &Arc<Loaded>, reach: &Reach<'_>) -> Result<QueryEngine> {
    let mut tables = Vec::new();
    let mut hidden = Vec::new();
    let mut streams = Vec::new();
    let mut unlanded = Vec::new();
    let mut system = SystemTables::default();
    let bytes_left = Arc::new(AtomicUsize::new(reach.memory_bytes / HELD_FRACTION));
    for (name, stream) in &loaded.config().streams {
        let state = loaded.state(&name.0)?;
        let names = databases(&name.0, stream);
        streams.extend(names.clone());
        let Some(document) = state.peek().await? else {
            unlanded.extend(names);
            continue;
        };
        let document = CheckpointDocument::from_bytes(&document).map_err(|error| error.context("checkpoint", state.location()))?;
        let live = reach.process.as_ref().and_then(|process| process.stream(&name.0));
        let log = match loaded.change_log(&name.0)? {
            Some(log) => extent(&log).await,
            None => Ok(None),
        };
        system.add(&document, log, live, &|schema| reach.shows(schema))?;
        let running = reach.references.and_then(|references| references.get(&name.0)).cloned();
        let references = Arc::new(Wanted::new(loaded, &name.0, running)?);
        let at_hand = references.at_hand();
        let landed_by_stream = landed::tables(loaded, stream, &document, &at_hand)?;
        let images = before_images(stream);
        for destination in &stream.destinations {
            let landed = landed::in_destination(loaded, stream, destination, &landed_by_stream, &at_hand)?;
            let (store_url, store, root) = loaded.landed_store(destination)?;
            let tail = tail(loaded, reach, &name.0, destination, &document, &landed_by_stream.recalled, (&references, &bytes_left))?;
            for table in &landed {
                if !reach.shows(&table.name.schema) {
                    hidden.extend([table.name.schema.clone(), format!("{}_changes", table.name.schema)]);
                    continue;
                }
                let table = LandedTable {
                    stream: name.0.clone(),
                    destination: destination.name().to_owned(),
                    name: table.name.clone(),
                    store_url: store_url.clone(),
                    store: Arc::clone(&store),
                    prefix: prefix(&root, &name.0, &table.name, destination)?,
                    relation: table.relation.as_deref().cloned(),
                    before_images: table.relation.as_ref().is_some_and(|relation| BeforeImages::are_kept(&images, relation)),
                    tail: tail.clone(),
                };
                // Of several versions the last is the newest.
                tables.retain(|other: &LandedTable| {
                    (&other.stream, &other.destination, &other.name) != (&table.stream, &table.destination, &table.name)
                });
                tables.push(table);
            }
        }
    }
    let engine = QueryEngine::new(tables, reach.memory_bytes)?.with_hidden_schemas(hidden).with_streams(streams, unlanded);
    let engine = system.tables()?.into_iter().fold(engine, |engine, (name, rows)| engine.with_system_table(name, rows));
    // Who asks over the network holds no key: neither are tokens turned back for them nor values guessed.
    if reach.schemas.is_some() {
        return Ok(engine);
    }
    Ok(engine.with_masks(&loaded.mask_keys()?))
}

/// The catalogs of a stream: its own, and one for each destination where there are several.
pub(crate) fn databases(name: &str, stream: &Stream) -> Vec<String> {
    let of_destinations = stream.destinations.iter().filter(|_| stream.destinations.len() > 1);
    std::iter::once(name.to_owned()).chain(of_destinations.map(|destination| format!("{name}/{}", destination.name()))).collect()
}

/// What is on its way to a destination, where changes are kept on disk and it has a place in them.
fn tail(
    loaded: &Loaded,
    reach: &Reach<'_>,
    stream: &str,
    destination: &Destination,
    document: &CheckpointDocument,
    recalled: &[Arc<Relation>],
    (references, bytes_left): (&Arc<Wanted>, &Arc<AtomicUsize>),
) -> Result<Option<Arc<dyn Tail>>> {
    let (Some(log), Some(logged), Some(part)) = (loaded.change_log(stream)?, &document.log, document.consumers.get(destination.name()))
    else {
        return Ok(None);
    };
    // What older rules made of changes does not land by those of now, and is not shown by them.
    if logged.rules != loaded.rules(stream, loaded.stream(stream)?).ok() {
        return Ok(None);
    }
    let sql = loaded.destination_rules(loaded.stream(stream)?, destination)?.map(|sql| (sql, Arc::clone(references)));
    Ok(Some(Arc::new(LogTail {
        log: log.segments.place(),
        visible: part.visible().max(committed(reach, stream, destination).unwrap_or(LogPosition::MIN)),
        logged: logged.mark.position,
        sql,
        before_images: before_images(loaded.stream(stream)?),
        recalled: recalled.to_vec(),
        bytes_max: reach.memory_bytes / HELD_OF_TABLE_FRACTION,
        bytes_left: Arc::clone(bytes_left),
    })))
}

/// What this process itself has made visible in a destination: the checkpoint says so with the next one only, which an idle stream does not make.
fn committed(reach: &Reach<'_>, stream: &str, destination: &Destination) -> Option<LogPosition> {
    // Who asks over the network asks the process that runs the streams.
    let process = reach.process.as_ref().filter(|_| reach.schemas.is_some())?;
    let consumer = live::consumer(process.stream(stream)?, destination.name())?;
    serde_json::from_value(consumer["position"].clone()).ok()
}

/// The directory below which all files of a table lie, whatever their time: the leading part of the path that no time is in.
fn prefix(
    root: &object_store::path::Path,
    stream: &str,
    table: &RelationName,
    destination: &Destination,
) -> Result<object_store::path::Path> {
    let folder = PathTemplate::parse(&destination.path)?.common_folder(stream, table)?;
    let path = if root.as_ref().is_empty() { folder } else { format!("{root}/{folder}") };
    object_store::path::Path::parse(path.trim_end_matches('/'))
        .map_err(|error| Error::config("the table's directory cannot be named in the store").context("table", table).source(error))
}

/// Writes a result as it comes; a table waits for all of it, because its columns are as wide as their widest value.
async fn write(mut result: QueryResult, format: SqlFormat, mut output: impl Write) -> Result<()> {
    match format {
        SqlFormat::Table => {
            let text = pretty(result).await?;
            done(writeln!(output, "{text}").map_err(ArrowError::from))?;
        }
        SqlFormat::Csv => {
            let nested = result.schema.fields().iter().filter(|field| field.data_type().is_nested()).map(|field| field.name().as_str());
            let nested: Vec<&str> = nested.collect();
            if !nested.is_empty() {
                return Err(unfit().context("columns", nested.join(", ")));
            }
            let mut header = true;
            let empty = arrow::array::RecordBatch::new_empty(Arc::clone(&result.schema));
            while let Some(batch) = result.batches.next().await {
                let mut writer = WriterBuilder::new().with_header(header).build(&mut output);
                done(writer.write(&printable(&batch?)?))?;
                header = false;
            }
            if header {
                done(WriterBuilder::new().with_header(true).build(&mut output).write(&empty))?;
            }
        }
        SqlFormat::Json => {
            let mut writer = LineDelimitedWriter::new(&mut output);
            while let Some(batch) = result.batches.next().await {
                done(writer.write(&printable(&batch?)?))?;
            }
            done(writer.finish())?;
        }
        SqlFormat::Arrow => {
            let mut writer = StreamWriter::try_new(&mut output, &result.schema).map_err(|error| failed(&error))?;
            while let Some(batch) = result.batches.next().await {
                done(writer.write(&batch?))?;
            }
            done(writer.finish())?;
        }
    }
    done(output.flush().map_err(ArrowError::from))
}

/// A result as a table for people.
pub(crate) async fn pretty(result: QueryResult) -> Result<String> {
    let schema = Arc::clone(&result.schema);
    let mut batches = result.collect().await?;
    if batches.is_empty() {
        batches.push(arrow::array::RecordBatch::new_empty(schema));
    }
    let batches = batches.iter().map(printable).collect::<Result<Vec<_>>>()?;
    let table = pretty_format_batches_with_options(&batches, &FormatOptions::default()).map_err(|error| failed(&error))?;
    Ok(table.to_string())
}

/// Whoever closed standard output has had enough: that is no error, and the end.
fn done(outcome: Result<(), ArrowError>) -> Result<()> {
    match outcome {
        Err(ArrowError::IoError(_, error)) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(failed(&error)),
        Ok(()) => Ok(()),
    }
}

fn failed(error: &ArrowError) -> Error {
    // Only its kind of trouble: the text of an Arrow error may quote a value.
    match error {
        ArrowError::IoError(_, error) => Error::transient("could not write the result").source(io::Error::from(error.kind())),
        _ => unfit(),
    }
}

fn unfit() -> Error {
    Error::data("the result has a type that this format cannot hold").remedy("choose another --format, or cast the column to text")
}
