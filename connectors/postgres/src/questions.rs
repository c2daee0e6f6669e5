//! Questions about rows, beside the log: a few rows of a table, and the answer to a query.
//!
//! Both are a COPY, read by what reads the rows of a backfill, so that values are the same. Each has a connection of its own and a
//! transaction that may only read, for a bounded time; a connection with an answer that is too large is dropped.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::{Field, Schema};
use logweir_core::{
    ChangeBatch, ChangeType, Clock as _, Error, LogPosition, MemoryPermit, MetadataBuilder, QueryLimit, Relation, RelationName, Result,
    SourcePlace, SystemClock, TableFilter,
};
use tokio::time::timeout;

use crate::backfill::{CopyDecoder, CopyError, PendingPart, copied, plan_tables};
use crate::carried::column_type_of;
use crate::catalog::{self, Kind, Table};
use crate::decoder::{DecoderOptions, Described, PgoutputDecoder};
use crate::lsn::Lsn;
use crate::options::PostgresOptions;
use crate::publication::Publication;
use crate::quote::relation;
use crate::server;
use crate::types::{ColumnType, TypeCatalog, TypeOptions};
use crate::wire::{Connection, Mode, sqlstate};

/// How rows of a sample were read: `_metadata_read_method`.
const READ_METHOD: &str = "postgresql-sample";

/// A few rows of a table that is not locked come at once. Where few rows pass the publication's filter, they may not.
const SAMPLE_MAX: Duration = Duration::from_secs(10);

/// Rows of a sample may be enormous each: those read first will do.
const SAMPLE_BYTES_MAX: usize = 32 << 20;

/// The server gives up by itself; this long after that nothing is waited for any more.
const GRACE: Duration = Duration::from_secs(5);

/// The class of errors that functions raise by themselves.
const RAISED: &str = "P0";

/// Query cancelled, here by a timeout.
const CANCELLED: &str = "57014";

/// Up to `rows_max` rows of a table, as changes; `None` if there is no such table or it is not followed.
pub(crate) async fn sample(
    options: &PostgresOptions,
    filter: &TableFilter,
    name: &RelationName,
    rows_max: usize,
) -> Result<Option<ChangeBatch>> {
    if !filter.accepts(name) {
        return Ok(None);
    }
    let mut connection = Connection::connect(options, Mode::Query).await?;
    let publication = Publication::find(&mut connection, &options.publication).await?;
    let table = catalog::tables(&mut connection, filter).await?.into_iter().find(|table| table.name == *name);
    let Some(table) = table.filter(|table| table.is_followable() && table.arrives(publication.as_ref())) else {
        connection.close().await;
        return Ok(None);
    };
    let about = |error: Error| error.context("relation", name);
    let Carried { relation: carried, types, filter: condition } = match published(&mut connection, options, filter, &table).await? {
        Some(carried) => carried,
        None => unpublished(&mut connection, options, filter, &table, publication.as_ref()).await?,
    };
    if types.is_empty() {
        connection.close().await;
        return Ok(None);
    }
    let columns: Vec<String> = carried.columns().iter().zip(&types).map(|(column, kind)| copied(column.name(), kind)).collect();
    let only = if table.kind == Kind::Partitioned { "" } else { "ONLY " };
    let condition = condition.map_or_else(String::new, |condition| format!(" WHERE ({condition})"));
    let select = format!("SELECT {} FROM {only}{}{condition} LIMIT {rows_max}", columns.join(", "), relation(name));
    let limit = QueryLimit { bytes_max: SAMPLE_BYTES_MAX, rows_max, timeout: SAMPLE_MAX };
    let reading = async {
        begin(&mut connection, limit.timeout, "").await?;
        copy(&mut connection, &select, &types, limit).await
    };
    let Copied { mut columns, rows, .. } =
        in_time(limit, reading).await.map_err(|error| about(of_server(read_error(error, carried.columns()))))?;
    connection.close().await;
    let read_time = SystemClock.now();
    let mut metadata = MetadataBuilder::new(READ_METHOD);
    for row in 1..=rows as u64 {
        let place = SourcePlace { log_position: 0, log_file: None, transaction: None };
        metadata.push(read_time, LogPosition::new(0, 0, 0, row, true), ChangeType::Read, read_time, place);
    }
    let last = metadata.last_position().unwrap_or(LogPosition::MIN);
    columns.extend(metadata.finish());
    let records = together(Arc::clone(carried.schema()), columns, rows).map_err(about)?;
    let memory = Arc::new(MemoryPermit::uncounted());
    Ok(Some(ChangeBatch { relation: carried, records, unchanged: None, before: None, last, memory }))
}

/// A table as it is carried, and which of its rows are.
struct Carried {
    relation: Arc<Relation>,
    types: Vec<ColumnType>,
    filter: Option<String>,
}

/// A table as a backfill would read it; `None` if it is not published, or nothing is yet.
async fn published(connection: &mut Connection, options: &PostgresOptions, filter: &TableFilter, table: &Table) -> Result<Option<Carried>> {
    let facts = server::facts(connection).await?;
    let part = PendingPart::new(table.oid, table.oid, false);
    let mut shapes = plan_tables(connection, &facts, &options.publication, &[part]).await?;
    let Some(shape) = shapes.tables.remove(&table.oid) else { return Ok(None) };
    let mut decoder = PgoutputDecoder::new(DecoderOptions {
        tables: filter.clone(),
        before_images: Vec::new(),
        incarnation: 0,
        from: Lsn::default(),
        changed: Lsn::default(),
        commit_time: None,
        relations: Vec::new(),
        resume: None,
        types: TypeOptions { arrays: options.arrays, money_scale: facts.money_scale },
        flush_bytes: 0,
        flush_bytes_max: 0,
    });
    decoder.learn(&[], shapes.types);
    let key = (shape.shape.replica_identity == b'f').then_some(shape.key.as_slice());
    loop {
        match decoder.describe(&shape.shape, key, shape.cut)? {
            Described::Known { relation, types, .. } => return Ok(Some(Carried { relation, types, filter: shape.filter })),
            // The catalog was asked for all of them: what it does not know is gone.
            Described::Ask(question) => decoder.learn(&question.types, Vec::new()),
        }
    }
}

/// A table as it would be carried if it were published.
async fn unpublished(
    connection: &mut Connection,
    options: &PostgresOptions,
    filter: &TableFilter,
    table: &Table,
    publication: Option<&Publication>,
) -> Result<Carried> {
    let shape = catalog::shapes(connection, [table.oid]).await?.remove(&table.oid).unwrap_or_default();
    let mut types = TypeCatalog::new();
    catalog::learn_types(connection, &mut types, shape.columns.iter().map(|column| column.type_oid)).await?;
    let type_options = catalog::type_options(connection, options.arrays).await?;
    let generated = publication.map_or(connection.version() >= 180_000, |publication| publication.generated);
    let relation = Arc::new(catalog::relation(table, &shape, &types, type_options, filter, generated));
    let decided = relation.columns().iter().map(|column| column_type_of(column).map(|(_, _, _, column_type)| column_type));
    let types = decided.collect::<Option<Vec<_>>>().ok_or_else(|| Error::internal("a column does not say how it is carried"))?;
    Ok(Carried { relation, types, filter: None })
}

/// The answer to a query.
pub(crate) async fn query(options: &PostgresOptions, sql: &str, limit: QueryLimit) -> Result<RecordBatch> {
    let mut connection = Connection::connect(options, Mode::Query).await?;
    let answer = in_time(limit, ask(&mut connection, options, sql, limit)).await.map_err(of_server)?;
    connection.close().await;
    Ok(answer)
}

async fn ask(connection: &mut Connection, options: &PostgresOptions, sql: &str, limit: QueryLimit) -> Result<RecordBatch> {
    let type_options = catalog::type_options(connection, options.arrays).await?;
    // Names mean what they mean to a person with a prompt.
    begin(connection, limit.timeout, "\"$user\", public").await?;
    // Understood by itself it is one statement, and what stands around it below stays around it.
    let sql = sql.trim_end_matches(|c: char| c == ';' || c.is_whitespace());
    let Some(described) = connection.describe(sql).await?.filter(|columns| !columns.is_empty()) else {
        return Err(Error::config("the query has no rows to read").remedy("write a SELECT"));
    };
    let mut names = HashSet::new();
    if let Some(twice) = described.iter().find(|column| !names.insert(column.name.as_str())) {
        return Err(Error::config("two columns of the query have the same name")
            .context("column", &twice.name)
            .remedy("give one of them another name with AS"));
    }
    let mut catalog = TypeCatalog::new();
    catalog::learn_types(connection, &mut catalog, described.iter().map(|column| column.type_oid)).await?;
    let types: Vec<ColumnType> = described.iter().map(|column| catalog.column_type(column.type_oid, column.typmod, type_options)).collect();
    let places: Vec<String> = (0..types.len()).map(|index| format!("c{index}")).collect();
    let columns: Vec<String> = places.iter().zip(&types).map(|(place, kind)| copied(place, kind)).collect();
    let places: Vec<String> = places.iter().map(|place| crate::quote::identifier(place)).collect();
    // A comment may be the last thing in it.
    let select = format!("SELECT {} FROM (\n{sql}\n) AS query ({})", columns.join(", "), places.join(", "));
    let fields: Vec<Field> = described
        .iter()
        .zip(&types)
        .map(|(column, kind)| Field::new(&column.name, kind.data_type(), true).with_metadata(kind.metadata()))
        .collect();
    let copied = copy(connection, &select, &types, limit).await.map_err(|error| match error {
        CopyError::Format(error) => error,
        CopyError::Value(column, value) => {
            let name = described.get(column).map(|column| column.name.as_str()).unwrap_or_default();
            Error::data(value.problem).context("column", name)
        }
    })?;
    match copied.larger {
        Some(larger) => Err(larger),
        None => together(Arc::new(Schema::new(fields)), copied.columns, copied.rows),
    }
}

/// Begins a transaction that may only read. A name without a schema is looked for in `search_path`.
async fn begin(connection: &mut Connection, timeout: Duration, search_path: &str) -> Result<()> {
    let millis = timeout.as_millis().max(1);
    let search_path = if search_path.is_empty() { String::new() } else { format!("; SET LOCAL search_path = {search_path}") };
    let begun = connection
        .query(&format!(
            "BEGIN TRANSACTION READ ONLY; SET LOCAL statement_timeout = {millis}; SET LOCAL lock_timeout = {millis}{search_path}"
        ))
        .await;
    begun.map(|_| ())
}

/// Rows of a COPY.
struct Copied {
    columns: Vec<ArrayRef>,
    rows: usize,
    /// The error of an answer that is larger than its limit, if it is: rows up to there are here.
    larger: Option<Error>,
}

/// Copies the rows of a query whose columns are of these types, all of them in a form that can be read.
async fn copy(connection: &mut Connection, select: &str, types: &[ColumnType], limit: QueryLimit) -> Result<Copied, CopyError> {
    let mut decoder = CopyDecoder::new(types);
    let mut copy = connection.copy_out(&format!("COPY ({select}) TO STDOUT (FORMAT binary)")).await?;
    // What is left of a row that did not come whole. No server sends one like that.
    let mut pending = Vec::new();
    while let Some(arrived) = copy.next().await? {
        let bytes = if pending.is_empty() {
            arrived
        } else {
            pending.extend_from_slice(arrived);
            &pending
        };
        // One more than may be, to know that there is more.
        let taken = decoder.decode(bytes, limit.bytes_max.saturating_add(1))?;
        let larger = if decoder.bytes() > limit.bytes_max {
            Some(too_large("bytes", limit.bytes_max))
        } else if decoder.rows() > limit.rows_max {
            Some(too_large("rows", limit.rows_max))
        } else {
            None
        };
        if larger.is_some() {
            let (columns, rows) = decoder.finish();
            return Ok(Copied { columns, rows, larger });
        }
        pending = bytes.get(taken..).unwrap_or_default().to_vec();
    }
    if !decoder.is_ended() {
        return Err(Error::transient("the rows of an answer ended in the middle").into());
    }
    let (columns, rows) = decoder.finish();
    Ok(Copied { columns, rows, larger: None })
}

fn too_large(what: &'static str, limit: usize) -> Error {
    Error::config(format!("the answer to a query has more {what} than it may"))
        .context("limit", limit)
        .remedy("let the query select less, or raise the limit")
}

fn read_error(error: CopyError, columns: &[logweir_core::Column]) -> Error {
    match error {
        CopyError::Format(error) => error,
        CopyError::Value(index, value) => {
            let column = columns.get(index);
            let error = Error::data(value.problem)
                .context("column", column.map(|column| column.name()).unwrap_or_default())
                .context("type", column.map(|column| column.source_type.as_str()).unwrap_or_default());
            match value.remedy {
                Some(remedy) => error.remedy(remedy),
                None => error.remedy("leave the column out with exclude_columns, or correct the row"),
            }
        }
    }
}

/// Waits no longer than the server may take, and a little.
async fn in_time<T, E: From<Error>>(limit: QueryLimit, reading: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    match timeout(limit.timeout.saturating_add(GRACE), reading).await {
        Ok(read) => read,
        Err(_) => Err(took_too_long().into()),
    }
}

/// The error of what the server gave up after its time says so; and what a function of somebody's says is left out, for it may be a
/// value of a row.
fn of_server(error: Error) -> Error {
    match sqlstate(&error) {
        Some(CANCELLED) => took_too_long(),
        Some(code) if code.starts_with(RAISED) => Error::config("the query failed on the server").context("sqlstate", code),
        _ => error,
    }
}

fn took_too_long() -> Error {
    Error::transient("the server took too long over the query").remedy("let the query read less, or give it more time")
}

fn together(schema: Arc<Schema>, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema, columns, &options)
        .map_err(|error| Error::internal("could not put an answer together").source(error))
}
