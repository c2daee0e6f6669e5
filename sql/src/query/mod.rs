//! SQL over what was landed, read-only and within a memory limit.
//!
//! The files are the truth: their footers say what they hold, so a query needs neither a checkpoint nor a running process.
//! What is visible when a query is planned is what it sees.

mod amounts;
mod catalog;
mod error;
mod floor;
mod follow;
mod form;
mod guard;
mod inventory;
mod keys;
mod pg;
mod plan;
mod prepare;
mod scan;
mod state;
pub(crate) mod suggest;
mod tail;
mod twins;
mod unchanged;
mod unify;
mod weight;

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::TableReference;
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::ScalarUDF;
use datafusion::prelude::{SQLOptions, SessionConfig, SessionContext};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{Query, SetExpr, TableFactor, Visit as _, VisitMut as _, Visitor, VisitorMut};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use logweir_core::{Error, ErrorKind, Relation, RelationName, Result, TimestampMicros};
use object_store::ObjectStore;
use tokio::sync::OnceCell;
use url::Url;

use crate::mask::{MaskKeys, query_functions};
use crate::numbers::analyzer_rules;
use crate::transform::spelling::distinct_as_meant;
use catalog::{Opened, StreamCatalog, SystemSchema};
pub(crate) use error::unwrap;
use error::words;
pub(crate) use error::wrap;
use follow::{AtOnce, Behind};
use guard::Guarded;
pub use inventory::FooterCache;
use inventory::Landed;
pub use pg::{item_oid, type_oid};
pub use prepare::{CaughtUp, ClientSession, PreparedQuery};
pub use state::{begin_query, sqlstate};
pub use tail::{CUT_OFF, Tail, TailBatch, TailPart, TailRows, TailSpan};

/// Consumers of memory that are named when it runs out.
const CONSUMERS_NAMED: NonZeroUsize = NonZeroUsize::new(3).expect("three is not zero");

/// Memory a query must have for each row of a batch; from 64 MiB on batches are as long as DataFusion likes them.
const BATCH_ROW_MEMORY_BYTES: usize = 8192;
const BATCH_ROWS_MIN: usize = 256;
const BATCH_ROWS_MAX: usize = 8192;

/// The schema that unqualified names are looked up in where a stream follows several; there is none of this name.
const NO_SCHEMA: &str = "public";

/// A table in a destination: where its files lie, and what is known about it beside them.
#[derive(Debug, Clone)]
pub struct LandedTable {
    /// The stream: the catalog of the table.
    pub stream: String,
    /// The destination, by its name in the stream.
    pub destination: String,
    /// The table.
    pub name: RelationName,
    /// Where the destination is, for messages.
    pub store_url: Url,
    /// Where the files are read from.
    pub store: Arc<dyn ObjectStore>,
    /// The directory in `store` below which every data file of this table lies. Files of other tables and streams may lie
    /// there too and are told by their footers.
    pub prefix: object_store::path::Path,
    /// The newest version as it is landed (after masks and transforms), if a checkpoint knows it. With it a table that has no
    /// files yet is an empty table.
    pub relation: Option<Relation>,
    /// True if what is landed from now on says what updated rows were before.
    pub before_images: bool,
    /// What is on its way there; `None` if only the files are looked at. Tables of one destination share it.
    pub tail: Option<Arc<dyn Tail>>,
}

/// The result of a query, as it comes.
pub struct QueryResult {
    /// The columns.
    pub schema: SchemaRef,
    /// The rows. Dropping it cancels the query.
    pub batches: BoxStream<'static, Result<RecordBatch>>,
}

impl QueryResult {
    /// The same with batches that have the names of the result.
    fn renamed(self) -> Self {
        let QueryResult { schema, batches } = self;
        let to = Arc::clone(&schema);
        let renamed = move |batch: Result<RecordBatch>| {
            let batch = batch?;
            if batch.schema_ref().fields().iter().zip(to.fields()).all(|(was, is)| was.name() == is.name()) {
                return Ok(batch);
            }
            let (fields, columns, rows) = (batch.schema(), batch.columns().to_vec(), batch.num_rows());
            let fields = fields.fields().iter().zip(to.fields());
            let fields: Vec<_> = fields.map(|(was, is)| was.as_ref().clone().with_name(is.name())).collect();
            let schema = Arc::new(Schema::new_with_metadata(fields, batch.schema_ref().metadata().clone()));
            let options = RecordBatchOptions::new().with_row_count(Some(rows));
            RecordBatch::try_new_with_options(schema, columns, &options).map_err(|error| unwrap(error.into()))
        };
        QueryResult { schema, batches: batches.map(renamed).boxed() }
    }

    /// Waits for all of it.
    pub async fn collect(self) -> Result<Vec<RecordBatch>> {
        self.batches.try_collect().await
    }
}

impl fmt::Debug for QueryResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QueryResult({} columns)", self.schema.fields().len())
    }
}

/// Answers SQL over landed tables. Cheap to make; files are looked at when a query names their table.
///
/// The first stream is the default catalog and, where it follows one schema only, that schema is the default too.
#[derive(Debug)]
pub struct QueryEngine {
    tables: Vec<(Arc<Landed>, ObjectStoreUrl)>,
    runtime: Arc<RuntimeEnv>,
    memory_bytes: usize,
    sort_spill_bytes: usize,
    batch_rows: usize,
    functions: Vec<Arc<ScalarUDF>>,
    as_of: Option<TimestampMicros>,
    follow: bool,
    system: Vec<(String, RecordBatch)>,
    hidden: Vec<String>,
    streams: Vec<String>,
    unlanded: Vec<String>,
}

impl QueryEngine {
    /// An engine over `tables`, in the order of their streams and destinations, whose queries hold at most `memory_bytes`
    /// together; sorts and aggregates spill to the system's temporary directory beyond that.
    pub fn new(tables: Vec<LandedTable>, memory_bytes: usize) -> Result<Self> {
        let pool = TrackConsumersPool::new(FairSpillPool::new(memory_bytes), CONSUMERS_NAMED);
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(pool)).build_arc().map_err(unwrap)?;
        let tables = tables
            .into_iter()
            .enumerate()
            .map(|(i, table)| {
                // A name of our own: two destinations may be one bucket under two credentials.
                let url = ObjectStoreUrl::parse(format!("landed://table-{i}")).map_err(unwrap)?;
                runtime.register_object_store(url.as_ref(), Arc::clone(&table.store));
                Ok((Arc::new(Landed::new(table)), url))
            })
            .collect::<Result<Vec<_>>>()?;
        // What a sort keeps back for merging its spills, per partition; by default more than a small limit has.
        let sort_spill_bytes = (memory_bytes / 16).min(10 << 20);
        // A sort cannot spill less than a batch, and there are several in a plan.
        let batch_rows = (memory_bytes / BATCH_ROW_MEMORY_BYTES).clamp(BATCH_ROWS_MIN, BATCH_ROWS_MAX);
        Ok(QueryEngine {
            tables,
            runtime,
            memory_bytes,
            sort_spill_bytes,
            batch_rows,
            functions: Vec::new(),
            as_of: None,
            follow: false,
            system: Vec::new(),
            hidden: Vec::new(),
            streams: Vec::new(),
            unlanded: Vec::new(),
        })
    }

    /// The same engine, which keeps what footers of files say in `cache` and takes it from there.
    #[must_use]
    pub fn with_footers(mut self, cache: &FooterCache) -> Self {
        self.tables = self.tables.into_iter().map(|(landed, url)| (Arc::new(landed.sharing(cache)), url)).collect();
        self
    }

    /// The same engine with a table `logweir.name` of these rows.
    #[must_use]
    pub fn with_system_table(mut self, name: &str, rows: RecordBatch) -> Self {
        self.system.push((name.to_owned(), rows));
        self
    }

    /// The same engine, which says of these schemas that they are not for the one who asks. They have no tables in it.
    #[must_use]
    pub fn with_hidden_schemas(mut self, schemas: Vec<String>) -> Self {
        self.hidden = schemas;
        self
    }

    /// The same engine, which knows that there are these streams, of which the `unlanded` have no tables yet.
    #[must_use]
    pub fn with_streams(mut self, streams: Vec<String>, unlanded: Vec<String>) -> Self {
        (self.streams, self.unlanded) = (streams, unlanded);
        self
    }

    /// The same engine, whose queries see nothing that was committed in the source after `moment`.
    #[must_use]
    pub fn as_of(mut self, moment: TimestampMicros) -> Self {
        self.as_of = Some(moment);
        self
    }

    /// The same engine, whose queries spill at most so many bytes to the system's temporary directory.
    pub fn with_spill(self, bytes: u64) -> Result<Self> {
        self.runtime.disk_manager.set_max_temp_directory_size(bytes).map_err(unwrap)?;
        Ok(self)
    }

    /// The same engine, in which `<schema>_changes.<table>` does not end: behind the changes that there are come those that the log gets.
    #[must_use]
    pub fn following(mut self) -> Self {
        self.follow = true;
        self
    }

    /// The same engine, whose queries may use the masks with `keys`, and `unmask`.
    #[must_use]
    pub fn with_masks(mut self, keys: &MaskKeys) -> Self {
        self.functions = query_functions(keys);
        self
    }

    /// Plans one read-only statement and begins to run it.
    ///
    /// An error of kind `Config` is for the person who wrote the query: a name that does not exist, a statement that
    /// writes, more memory needed than there is.
    pub async fn sql(&self, text: &str) -> Result<QueryResult> {
        let session = Session::new(self, None)?;
        let state = session.context.state();
        let dialect = state.config_options().sql_parser.dialect;
        let mut statement = state.sql_to_statement(text, &dialect).map_err(unwrap)?;
        as_meant(&mut statement);
        if !reads_only(&statement) {
            return Err(more_than_read());
        }
        for reference in state.resolve_table_references(&statement).map_err(unwrap)? {
            session.check(reference).await?;
        }
        let planned = twins::plan(&state, statement).await.map_err(unwrap)?;
        let read_only = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        // Whatever a query may hide: a COPY or an INSERT below an EXPLAIN.
        read_only.verify_plan(&planned.plan).map_err(|error| more_than_read().source(words(&error)))?;
        let frame = session.context.execute_logical_plan(planned.plan.clone()).await.map_err(unwrap)?;
        let stream = frame.execute_stream().await.map_err(unwrap)?;
        let schema = planned.numbered(&stream.schema());
        Ok(QueryResult { schema, batches: stream.map_err(unwrap).boxed() }.renamed())
    }
}

/// The statement as it is meant: `logweir.snapshot()` is the table of that name, and so are its kin; IS DISTINCT FROM takes in what it does in
/// PostgreSQL.
fn as_meant(statement: &mut Statement) {
    match statement {
        Statement::Statement(sql) => {
            let _ = sql.visit(&mut OwnCalls);
            distinct_as_meant(sql.as_mut());
        }
        Statement::Explain(explain) => as_meant(&mut explain.statement),
        _ => {}
    }
}

struct OwnCalls;

impl VisitorMut for OwnCalls {
    type Break = ();

    fn pre_visit_table_factor(&mut self, table: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, args, .. } = table
            && args.as_ref().is_some_and(|args| args.args.is_empty())
            && let [.., schema, _] = name.0.as_slice()
            && schema.as_ident().is_some_and(|schema| schema.value.eq_ignore_ascii_case(catalog::SYSTEM_SCHEMA))
        {
            *args = None;
        }
        ControlFlow::Continue(())
    }
}

/// True for the kinds of statement that an analyst has use for.
fn reads_only(statement: &Statement) -> bool {
    use datafusion::sql::sqlparser::ast::Statement as Sql;
    match statement {
        Statement::Statement(sql) => {
            matches!(
                sql.as_ref(),
                Sql::Query(_)
                    | Sql::Explain { .. }
                    | Sql::ExplainTable { .. }
                    | Sql::ShowTables { .. }
                    | Sql::ShowColumns { .. }
                    | Sql::ShowSchemas { .. }
                    | Sql::ShowFunctions { .. }
                    | Sql::ShowVariable { .. }
            ) && sql.visit(&mut Writes).is_continue()
        }
        Statement::Explain(explain) => reads_only(&explain.statement),
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => false,
    }
}

/// Stops at a query that writes: `WITH … INSERT`, `WITH x AS (DELETE …)`, `SELECT … INTO`.
struct Writes;

impl Visitor for Writes {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        fn writes(body: &SetExpr) -> bool {
            match body {
                SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => true,
                SetExpr::Select(select) => select.into.is_some(),
                SetExpr::SetOperation { left, right, .. } => writes(left) || writes(right),
                SetExpr::Query(_) | SetExpr::Values(_) | SetExpr::Table(_) => false,
            }
        }
        if writes(&query.body) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

fn more_than_read() -> Error {
    Error::config(state::MORE_THAN_READ).remedy("use SELECT, SHOW, DESCRIBE or EXPLAIN")
}

/// One query's view of the tables.
struct Session {
    context: SessionContext,
    catalogs: Vec<(String, Arc<StreamCatalog>)>,
    hidden: Vec<String>,
    unlanded: Vec<String>,
    behind: Option<Arc<Behind>>,
}

impl Session {
    /// For a client of the endpoint there is a `pg_catalog` too, and its place is where it connected to.
    fn new(engine: &QueryEngine, client: Option<&ClientSession>) -> Result<Self> {
        if engine.follow && engine.as_of.is_some() {
            return Err(Error::config("what comes cannot be seen as of a time").remedy("take back logweir.follow or logweir.as_of"));
        }
        let behind = engine.follow.then(|| Arc::new(Behind::default()));
        let mut spans: HashMap<*const (), Arc<OnceCell<TailSpan>>> = HashMap::new();
        let opened: Vec<Arc<Opened>> = engine
            .tables
            .iter()
            .map(|(landed, url)| {
                let tail = landed.table.tail.as_ref().map_or(std::ptr::null(), |tail| Arc::as_ptr(tail).cast::<()>());
                let span = Arc::clone(spans.entry(tail).or_default());
                Arc::new(Opened::new(Arc::clone(landed), url.clone(), span, engine.as_of, behind.clone()))
            })
            .collect();
        let system = Arc::new(SystemSchema::new(opened.clone(), engine.system.clone()));
        let mut catalogs: Vec<(String, Arc<StreamCatalog>)> = Vec::new();
        let add = |catalogs: &mut Vec<(String, Arc<StreamCatalog>)>, name: String, holds: &dyn Fn(&LandedTable) -> bool| {
            if !catalogs.iter().any(|(known, _)| *known == name) {
                let tables = opened.iter().filter(|table| holds(&table.landed.table)).map(Arc::clone);
                catalogs.push((name, Arc::new(StreamCatalog::new(tables, &system))));
            }
        };
        for table in engine.tables.iter().map(|(landed, _)| &landed.table) {
            add(&mut catalogs, table.stream.clone(), &|other| other.stream == table.stream);
        }
        for table in engine.tables.iter().map(|(landed, _)| &landed.table) {
            if !engine.tables.iter().any(|(other, _)| other.table.stream == table.stream && other.table.destination != table.destination) {
                continue;
            }
            let name = format!("{}/{}", table.stream, table.destination);
            add(&mut catalogs, name, &|other| other.stream == table.stream && other.destination == table.destination);
        }
        for name in &engine.streams {
            add(&mut catalogs, name.clone(), &|_| false);
        }
        if catalogs.is_empty() {
            catalogs.push((catalog::SYSTEM_SCHEMA.to_owned(), Arc::new(StreamCatalog::new(std::iter::empty(), &system))));
        }

        let (catalog, streams) = match client.and_then(|client| client.database.as_deref()) {
            None => &catalogs[0],
            Some(database) => catalogs.iter().find(|(name, _)| name == database).ok_or_else(|| {
                let names: Vec<&str> = catalogs.iter().map(|(name, _)| name.as_str()).collect();
                Error::config(state::NO_DATABASE).context("database", database).remedy(format!("there is {}", names.join(", ")))
            })?,
        };
        let schema = client.and_then(|client| client.schema.as_deref()).or(streams.only_schema()).unwrap_or(NO_SCHEMA);
        let mut config = SessionConfig::new()
            .with_information_schema(true)
            .with_batch_size(engine.batch_rows)
            .with_create_default_catalog_and_schema(false)
            .with_default_catalog_and_schema(catalog, schema);
        // In DataFusion 55 the rule takes a column of a union of projections for another one (a test holds it).
        config.options_mut().optimizer.enable_leaf_expression_pushdown = false;
        // A number with a point is what it says, and not the double next to it.
        config.options_mut().sql_parser.parse_float_as_decimal = true;
        config.options_mut().execution.sort_spill_reservation_bytes = engine.sort_spill_bytes;
        if client.is_some() {
            // Without one `timestamptz` would be a time of no zone.
            config.options_mut().execution.time_zone = Some("UTC".to_owned());
        }
        if engine.follow {
            // Between partitions rows are gathered too.
            config.options_mut().execution.target_partitions = 1;
        }
        let mut state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(Arc::clone(&engine.runtime))
            .with_default_features()
            .with_analyzer_rules(analyzer_rules())
            .with_physical_optimizer_rule(Arc::new(Guarded));
        if engine.follow {
            state = state.with_physical_optimizer_rule(Arc::new(AtOnce));
        }
        let context = SessionContext::new_with_state(state.build());
        amounts::register(&context, engine.memory_bytes);
        for function in &engine.functions {
            context.register_udf((**function).clone());
        }
        for (name, catalog) in &catalogs {
            context.register_catalog(name, Arc::clone(catalog) as _);
        }
        if let Some(client) = client {
            pg::register(&context, client, &catalogs, catalog, schema);
        }
        Ok(Session { context, catalogs, hidden: engine.hidden.clone(), unlanded: engine.unlanded.clone(), behind })
    }

    /// Looks at a table that the query names, so that a mistake in the name is answered in the words of this house.
    async fn check(&self, reference: TableReference) -> Result<()> {
        let asked = reference.to_string();
        let state = self.context.state();
        // generate_series(…) and its kin are named where tables are.
        let is_function = matches!(&reference, TableReference::Bare { table } if state.table_functions().contains_key(&**table));
        let defaults = &state.config_options().catalog;
        let reference = reference.resolve(&defaults.default_catalog, &defaults.default_schema);
        if &*reference.schema == "information_schema" {
            return Ok(());
        }
        let Some((_, catalog)) = self.catalogs.iter().find(|(name, _)| **name == *reference.catalog) else {
            let streams: Vec<&str> = self.catalogs.iter().map(|(name, _)| name.as_str()).collect();
            return Err(Error::config(state::NO_STREAM)
                .context("stream", &reference.catalog)
                .remedy(format!("there is {}", streams.join(", "))));
        };
        match catalog.find(&reference.schema, &reference.table) {
            Some(Some(table)) if table.inventory().await?.is_none() => {
                let landed = &table.landed.table;
                Err(Error::config(state::NOTHING_LANDED)
                    .context("table", &landed.name)
                    .context("destination", &landed.store_url)
                    .remedy("start the stream with logweir run, and wait for its first checkpoint"))
            }
            Some(_) => Ok(()),
            None if is_function => Ok(()),
            None if self.hidden.iter().any(|hidden| *hidden == *reference.schema) => {
                Err(Error::new(ErrorKind::Denied, state::SCHEMA_DENIED).context("schema", &reference.schema))
            }
            None if self.unlanded.iter().any(|stream| *stream == *reference.catalog) => Err(Error::config(state::NO_CHECKPOINT)
                .context("stream", &reference.catalog)
                .context("table", asked)
                .remedy("run the stream first, with logweir run, and wait for its first checkpoint")),
            None => Err(self.unknown_table(&asked, catalog)),
        }
    }

    fn unknown_table(&self, asked: &str, catalog: &StreamCatalog) -> Error {
        let error = Error::config(state::NO_TABLE).context("table", asked);
        let names: Vec<String> = catalog.names().collect();
        let last_words = names.iter().filter_map(|name| name.rsplit('.').next());
        let probable = suggest::nearest(asked, names.iter().map(String::as_str)).map(str::to_owned).or_else(|| {
            let table = asked.rsplit('.').next().unwrap_or(asked);
            let table = suggest::nearest(table, last_words)?;
            names.iter().find(|name| name.rsplit('.').next() == Some(table)).cloned()
        });
        match probable {
            Some(name) => error.remedy(format!("did you mean {name}? SHOW TABLES lists all")),
            None => error.remedy("SHOW TABLES lists all there are"),
        }
    }
}
