//! Questions about rows, beside the log: a few rows of a table, and the answer to a query.
//!
//! Each has a connection of its own, whose session only reads, and for a bounded time. It is dropped with what is left
//! unread: a result that is too large is not read to its end.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::{Field, Schema};
use logweir_core::{
    ChangeBatch, ChangeType, Clock as _, Error, LogPosition, MemoryPermit, MetadataBuilder, QueryLimit, RelationName, Result, SourcePlace,
    SystemClock, TableFilter,
};
use mysql_async::prelude::Queryable;
use mysql_async::{Column, Conn, Row, Value};
use tokio::time::timeout;

use crate::answer::{self, AnswerColumn};
use crate::column::{ColumnPlan, Kind};
use crate::failure::{code, failure};
use crate::options::MysqlOptions;
use crate::server::{Facts, Flavour, Server};
use crate::step::Scratch;
use crate::value::ValueError;
use crate::{carried, catalog_query};

/// How rows of a sample were read: `_metadata_read_method`.
const READ_METHOD: &str = "mysql-sample";

/// A few rows of a table that is not locked come at once.
const SAMPLE_MAX: Duration = Duration::from_secs(10);

/// Rows of a sample may be enormous each: those read first will do.
const SAMPLE_BYTES_MAX: usize = 32 << 20;

/// The server gives up by itself; this long after that nothing is waited for any more.
const GRACE: Duration = Duration::from_secs(5);

/// Bytes that a value takes beside its own.
const VALUE_BYTES: usize = 8;

/// Server errors of a running query whose words tell of limits, privileges and transactions, never of values. Those of others are
/// cut where a value may begin.
const WITHOUT_VALUES: [u16; 8] = [
    1142, // no privilege on the table
    1205, // waited too long for a lock
    1213, // deadlock
    1242, // a subquery has more than one row
    1317, // interrupted
    READ_ONLY, 1969, // took too long (MariaDB)
    3024, // took too long (MySQL)
];

/// The transaction may only read.
const READ_ONLY: u16 = 1792;

/// A function of somebody's says this, in words of its own.
const SIGNAL: u16 = 1644;

/// A query, or one like it, may be asked again later: the server took too long over it.
const TOOK_TOO_LONG: [u16; 2] = [1969, 3024];

/// Up to `rows_max` rows of a table, as changes; `None` if there is no such table or it is not followed.
pub(crate) async fn sample(
    options: &Arc<MysqlOptions>,
    filter: &TableFilter,
    name: &RelationName,
    rows_max: usize,
) -> Result<Option<ChangeBatch>> {
    let mut server = Server::new(Arc::clone(options));
    let facts = server.facts().await?;
    if !filter.accepts(name) || catalog_query::is_system_schema(&name.schema) {
        return Ok(None);
    }
    // A view has a shape, too.
    if !catalog_query::tables(&mut server, filter).await?.iter().any(|table| table.name == *name) {
        return Ok(None);
    }
    let Some(shape) = catalog_query::shape(&mut server, &facts, name).await? else { return Ok(None) };
    let mut plans = carried::plans(name, &shape, filter)?;
    if plans.is_empty() {
        return Ok(None);
    }
    let names: Vec<String> = plans.iter().map(|(_, plan)| identifier(&plan.name)).collect();
    let sql = format!("SELECT {} FROM {}.{} LIMIT {rows_max}", names.join(", "), identifier(&name.schema), identifier(&name.table));
    let limit = QueryLimit { bytes_max: SAMPLE_BYTES_MAX, rows_max, timeout: SAMPLE_MAX };
    let about = |error: Error| error.context("relation", name);
    let Answer { columns: sent, mut rows, .. } = in_time(limit, put(&server, &facts, &sql, limit)).await.map_err(about)?;
    let read_time = SystemClock.now();

    // Of geometries the log has one reference system at a time, which its values tell where the table does not.
    for (index, (_, plan)) in plans.iter_mut().enumerate() {
        if let ColumnPlan { kind: Kind::Geometry { srid }, .. } = plan {
            *srid = rows.iter().find_map(|row| answer::srid(row.get(index)?)).unwrap_or(*srid);
            let declared = *srid;
            rows.retain(|row| row.get(index).and_then(answer::srid).is_none_or(|found| found == declared));
        }
    }
    let kinds: Vec<&Kind> = plans.iter().map(|(_, plan)| &plan.kind).collect();
    let mut columns = build(&kinds, &sent, &rows).map_err(about)?;
    let mut metadata = MetadataBuilder::new(READ_METHOD);
    for row in 1..=rows.len() as u64 {
        let place = SourcePlace { log_position: 0, log_file: None, transaction: None };
        metadata.push(read_time, LogPosition::new(0, 0, 0, row, true), ChangeType::Read, read_time, place);
    }
    let last = metadata.last_position().unwrap_or(LogPosition::MIN);
    columns.extend(metadata.finish());
    let relation = Arc::new(carried::relation_of(name, &shape, &plans));
    let records = together(Arc::clone(relation.schema()), columns, rows.len()).map_err(about)?;
    let memory = Arc::new(MemoryPermit::uncounted());
    Ok(Some(ChangeBatch { relation, records, unchanged: None, before: None, last, memory }))
}

/// The answer to a query.
pub(crate) async fn query(options: &Arc<MysqlOptions>, sql: &str, limit: QueryLimit) -> Result<RecordBatch> {
    let mut server = Server::new(Arc::clone(options));
    let facts = server.facts().await?;
    let Answer { columns: sent, rows, larger } = in_time(limit, put(&server, &facts, sql, limit)).await?;
    if let Some(larger) = larger {
        return Err(larger);
    }
    let mut names = HashSet::new();
    let mut fields = Vec::with_capacity(sent.len());
    let mut kinds = Vec::with_capacity(sent.len());
    for (index, column) in sent.iter().enumerate() {
        let name = column.name_str().into_owned();
        let mut kind = answer::kind(column).map_err(|problem| Error::config(problem).context("column", &name))?;
        if let Kind::Geometry { srid } = &mut kind {
            *srid = rows.iter().find_map(|row| answer::srid(row.get(index)?)).unwrap_or(0);
        }
        if !names.insert(name.clone()) {
            return Err(Error::config("two columns of the query have the same name")
                .context("column", name)
                .remedy("give one of them another name with AS"));
        }
        fields.push(Field::new(name, kind.data_type(), true));
        kinds.push(kind);
    }
    let columns = build(&kinds.iter().collect::<Vec<_>>(), &sent, &rows)?;
    together(Arc::new(Schema::new(fields)), columns, rows.len())
}

/// What a server answered.
struct Answer {
    columns: Vec<Column>,
    rows: Vec<Vec<Value>>,
    /// The error of an answer that is larger than its limit, if it is: rows up to there are here.
    larger: Option<Error>,
}

/// Puts a query over a connection of its own.
async fn put(server: &Server, facts: &Facts, sql: &str, limit: QueryLimit) -> Result<Answer> {
    let mut connection = server.connect().await?;
    for statement in session(facts, limit.timeout) {
        connection.query_drop(statement).await.map_err(|error| failure("could not begin to read on the server", error))?;
    }
    // A statement that can be prepared is one statement; and before it is run it is known whether it has rows.
    let statement = connection.prep(sql).await.map_err(|error| match code(&error) {
        Some(READ_ONLY) => running(error),
        _ => failure("the server does not understand the query", error),
    })?;
    if statement.num_columns() == 0 {
        return Err(Error::config("the query has no rows to read").remedy("write a SELECT"));
    }
    if statement.num_params() > 0 {
        return Err(Error::config("the query has placeholders").remedy("write values in the place of each ?"));
    }
    for column in statement.columns().iter() {
        answer::kind(column).map_err(|problem| Error::config(problem).context("column", column.name_str()))?;
    }
    let answer = read(&mut connection, &statement, limit).await.map_err(running)?;
    Ok(answer)
}

async fn read(connection: &mut Conn, statement: &mysql_async::Statement, limit: QueryLimit) -> mysql_async::Result<Answer> {
    let mut result = connection.exec_iter(statement, ()).await?;
    let columns = result.columns_ref().to_vec();
    let (mut rows, mut bytes) = (Vec::new(), 0usize);
    let mut larger = None;
    while let Some(row) = result.next().await? {
        if rows.len() >= limit.rows_max {
            larger = Some(too_large("rows", limit.rows_max));
            break;
        }
        let values = Row::unwrap(row);
        bytes = bytes.saturating_add(values.iter().map(value_bytes).sum());
        if bytes > limit.bytes_max {
            larger = Some(too_large("bytes", limit.bytes_max));
            break;
        }
        rows.push(values);
    }
    Ok(Answer { columns, rows, larger })
}

fn too_large(what: &'static str, limit: usize) -> Error {
    Error::config(format!("the answer to a query has more {what} than it may"))
        .context("limit", limit)
        .remedy("let the query select less, or raise the limit")
}

/// What makes a session one that reads, for so long at most, and that says of its values what the log says.
fn session(facts: &Facts, timeout: Duration) -> Vec<String> {
    let seconds = timeout.as_secs().max(1);
    let mut statements = vec![
        "SET NAMES utf8mb4".to_owned(),
        // Text comes in its column's character set, and a CHAR without the spaces at its end, as in the log.
        format!(
            "SET SESSION character_set_results = NULL, time_zone = '+00:00', lock_wait_timeout = {seconds}, \
             sql_mode = REPLACE(@@SESSION.sql_mode, 'PAD_CHAR_TO_FULL_LENGTH', '')"
        ),
    ];
    match facts.flavour {
        Flavour::Mariadb => statements.push(format!("SET SESSION max_statement_time = {}", timeout.as_secs_f64())),
        Flavour::Mysql if facts.version >= (5, 7, 8) => {
            statements.push(format!("SET SESSION max_execution_time = {}", timeout.as_millis().max(1)));
        }
        Flavour::Mysql => {}
    }
    statements.push("START TRANSACTION READ ONLY".to_owned());
    statements
}

/// The error of a query that was understood and then failed. What the server says may quote a value of a row.
fn running(error: mysql_async::Error) -> Error {
    const DOING: &str = "the query failed on the server";
    let mysql_async::Error::Server(server) = &error else { return failure(DOING, error) };
    let number = server.code;
    let error = if WITHOUT_VALUES.contains(&number) {
        failure(DOING, error)
    } else {
        let words = match number {
            SIGNAL => String::new(),
            _ => server.message.split(['\'', '"', '`', ':', '(']).next().unwrap_or_default().trim().to_owned(),
        };
        Error::new(failure(DOING, error).kind(), DOING).context("server", words).context("code", number)
    };
    match number {
        number if TOOK_TOO_LONG.contains(&number) => took_too_long(),
        READ_ONLY => error.remedy("write a SELECT that changes nothing"),
        _ => error,
    }
}

fn took_too_long() -> Error {
    Error::transient("the server took too long over the query").remedy("let the query read less, or give it more time")
}

/// Waits no longer than the server may take, and a little.
async fn in_time(limit: QueryLimit, reading: impl Future<Output = Result<Answer>>) -> Result<Answer> {
    match timeout(limit.timeout.saturating_add(GRACE), reading).await {
        Ok(answer) => answer,
        Err(_) => Err(took_too_long()),
    }
}

fn value_bytes(value: &Value) -> usize {
    VALUE_BYTES
        + match value {
            Value::Bytes(bytes) => bytes.len(),
            _ => 0,
        }
}

/// The columns of an answer.
fn build(kinds: &[&Kind], sent: &[Column], rows: &[Vec<Value>]) -> Result<Vec<ArrayRef>> {
    let mut scratch = Scratch::default();
    let mut columns = Vec::with_capacity(kinds.len());
    for (index, (kind, sent)) in kinds.iter().zip(sent).enumerate() {
        let at = |error: Error| error.context("column", sent.name_str());
        let mut column = AnswerColumn::new(kind, sent).map_err(|problem| at(Error::config(problem)))?;
        for row in rows {
            let value = row.get(index).unwrap_or(&Value::NULL);
            column.append(value, &mut scratch).map_err(|error: ValueError| at(Error::data(error.reason())))?;
        }
        columns.extend(column.finish());
    }
    Ok(columns)
}

fn together(schema: Arc<Schema>, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema, columns, &options)
        .map_err(|error| Error::internal("could not put an answer together").source(error))
}

/// A name in a statement.
fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use mysql_async::ServerError;

    use super::*;

    #[test]
    fn what_the_server_says_of_values_is_cut_off() {
        let server = |code, message: &str| mysql_async::Error::Server(ServerError { code, message: message.into(), state: "HY000".into() });
        for (code, message, kept) in [
            (1411, "Incorrect string value: '4012888888881881' for function uuid_to_bin", "Incorrect string value"),
            (1690, "BIGINT value is out of range in '(4012888888881881 * 9)'", "BIGINT value is out of range in"),
            (1644, "card 4012888888881881 is bad", "the query failed on the server"),
            (1292, "Truncated incorrect DOUBLE value: 'ada@example.com'", "Truncated incorrect DOUBLE value"),
        ] {
            let report = running(server(code, message)).report();
            assert!(report.contains(kept) && !report.contains("4012") && !report.contains("ada@"), "{report}");
        }
        let read_only = running(server(1792, "Cannot execute statement in a READ ONLY transaction."));
        assert!(read_only.report().contains("READ ONLY"), "{}", read_only.report());
        assert!(running(server(3024, "Query execution was interrupted")).is_transient());
    }

    #[test]
    fn names_are_quoted() {
        assert_eq!(identifier("a`b"), "`a``b`");
    }
}
