//! The names that queries use: streams as catalogs, and in them for each source schema its current state and its changes.
//!
//! ```text
//! <stream>.<schema>.<table>             what is there now
//! <stream>.<schema>_changes.<table>     what happened
//! <stream>.logweir.tables               what was landed, of all streams; snapshot: where the query sees them; and what the process adds
//! "<stream>/<destination>".…            the same, where a stream has several destinations
//! ```
//!
//! A catalog is made for one query: all its references to a table see the same files. Files are looked at when a query names
//! their table, so a query over one table of a thousand costs one listing. An unquoted name is in lower case, as SQL has
//! it; where no such table is, one that differs in case alone is taken.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array};
use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, SchemaProvider, TableProvider};
use datafusion::common::Result as DataFusionResult;
use datafusion::datasource::{MemTable, TableType, ViewTable};
use datafusion::execution::object_store::ObjectStoreUrl;
use futures::{StreamExt, TryStreamExt};
use logweir_core::{Error, LogPosition, RelationName, Result, TimestampMicros};
use tokio::sync::OnceCell;

use super::LandedTable;
use super::error::wrap;
use super::follow::Behind;
use super::form::CHANGES_SUFFIX;
use super::inventory::{Inventory, Landed};
use super::keys::Refused;
use super::plan::TablePlans;
use super::tail::TailSpan;

/// The schema of what the engine says about itself.
pub(super) const SYSTEM_SCHEMA: &str = RelationName::OWN_SCHEMA;
/// Its table of tables.
const TABLES: &str = "tables";
/// Where the query sees each log.
const SNAPSHOT: &str = "snapshot";
/// Tables looked at at a time, where a query asks about all of them.
pub(super) const INVENTORIES_MAX: usize = 4;

/// A table as one query sees it.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) landed: Arc<Landed>,
    pub(super) store: ObjectStoreUrl,
    /// Where the query sees the log; shared by all tables of one.
    span: Arc<OnceCell<TailSpan>>,
    as_of: Option<TimestampMicros>,
    /// Set if its changes are to be followed.
    follow: Option<Arc<Behind>>,
    inventory: OnceCell<Option<Inventory>>,
}

impl Opened {
    pub(super) fn new(
        landed: Arc<Landed>,
        store: ObjectStoreUrl,
        span: Arc<OnceCell<TailSpan>>,
        as_of: Option<TimestampMicros>,
        follow: Option<Arc<Behind>>,
    ) -> Self {
        Opened { landed, store, span, as_of, follow, inventory: OnceCell::new() }
    }

    /// The part of the log that the query sees beside the files, asked for once; `None` if there is none.
    async fn span(&self) -> Result<Option<TailSpan>> {
        match &self.landed.table.tail {
            Some(tail) => self.span.get_or_try_init(|| tail.span()).await.map(|span| Some(*span)),
            None => Ok(None),
        }
    }

    /// What lies there; looked at once.
    pub(super) async fn inventory(&self) -> Result<Option<&Inventory>> {
        let look = || async {
            let tail = match (&self.landed.table.tail, self.span().await?) {
                (Some(tail), Some(span)) => Some((span, tail.read(&self.landed.table.name, &span).await?)),
                _ => None,
            };
            self.landed.inventory(tail).await
        };
        self.inventory.get_or_try_init(look).await.map(Option::as_ref)
    }
}

/// Which of its two faces a table shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Face {
    State,
    Changes,
}

/// A catalog: a stream, or a stream in one of its destinations.
#[derive(Debug)]
pub(super) struct StreamCatalog {
    schemas: BTreeMap<String, Arc<StreamSchema>>,
    system: Arc<SystemSchema>,
}

#[derive(Debug, Default)]
pub(super) struct StreamSchema {
    tables: BTreeMap<String, (Face, Arc<Opened>)>,
}

impl StreamCatalog {
    /// A catalog of `tables`; of two with one name the first is taken.
    pub(super) fn new(tables: impl Iterator<Item = Arc<Opened>> + Clone, system: &Arc<SystemSchema>) -> Self {
        let mut schemas: BTreeMap<String, StreamSchema> = BTreeMap::new();
        // The states first: a source schema that is itself called something_changes keeps its own name.
        for face in [Face::State, Face::Changes] {
            for table in tables.clone() {
                let name = &table.landed.table.name;
                let schema = match face {
                    Face::State => name.schema.clone(),
                    Face::Changes => format!("{}{CHANGES_SUFFIX}", name.schema),
                };
                schemas.entry(schema).or_default().tables.entry(name.table.clone()).or_insert((face, table));
            }
        }
        let schemas = schemas.into_iter().map(|(name, schema)| (name, Arc::new(schema))).collect();
        StreamCatalog { schemas, system: Arc::clone(system) }
    }

    /// The only source schema, if there is one only.
    pub(super) fn only_schema(&self) -> Option<&str> {
        let own = |name: &str| name == SYSTEM_SCHEMA;
        let mut states =
            self.schemas.iter().filter(|(name, schema)| !own(name) && schema.tables.values().any(|(face, _)| *face == Face::State));
        match (states.next(), states.next()) {
            (Some((name, _)), None) => Some(name),
            _ => None,
        }
    }

    /// Every `schema.table`.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        let landed = self.schemas.iter().flat_map(|(schema, tables)| tables.tables.keys().map(move |table| format!("{schema}.{table}")));
        landed.chain(self.system.names().into_iter().map(|name| format!("{SYSTEM_SCHEMA}.{name}")))
    }

    /// Every schema, table, and whether the table is one of ours.
    pub(super) fn objects(&self) -> Vec<(String, String, bool)> {
        let landed =
            self.schemas.iter().flat_map(|(schema, tables)| tables.tables.keys().map(|table| (schema.clone(), table.clone(), false)));
        landed.chain(self.system.names().into_iter().map(|name| (SYSTEM_SCHEMA.to_owned(), name, true))).collect()
    }

    fn landed_schema(&self, name: &str) -> Option<&Arc<StreamSchema>> {
        by_name(&self.schemas, name)
    }

    /// The table of this name; `Some(None)` for one of ours.
    pub(super) fn find(&self, schema: &str, table: &str) -> Option<Option<&Arc<Opened>>> {
        let landed = self.landed_schema(schema).and_then(|tables| by_name(&tables.tables, table)).map(|(_, table)| Some(table));
        landed.or((schema == SYSTEM_SCHEMA && self.system.holds(table)).then_some(None))
    }
}

/// The entry of exactly this name, else the only one that differs in case.
fn by_name<'a, T>(map: &'a BTreeMap<String, T>, name: &str) -> Option<&'a T> {
    map.get(name).or_else(|| {
        let mut similar = map.iter().filter(|(key, _)| key.to_lowercase() == name.to_lowercase());
        match (similar.next(), similar.next()) {
            (Some((_, value)), None) => Some(value),
            _ => None,
        }
    })
}

impl CatalogProvider for StreamCatalog {
    fn schema_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.schemas.keys().cloned().collect();
        if !self.schemas.contains_key(SYSTEM_SCHEMA) {
            names.push(SYSTEM_SCHEMA.to_owned());
        }
        names
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        let landed = self.landed_schema(name).map(Arc::clone);
        if name == SYSTEM_SCHEMA {
            return Some(Arc::new(OwnSchema { system: Arc::clone(&self.system), landed }));
        }
        landed.map(|schema| schema as Arc<dyn SchemaProvider>)
    }
}

#[async_trait]
impl SchemaProvider for StreamSchema {
    fn table_names(&self) -> Vec<String> {
        self.tables.keys().cloned().collect()
    }

    async fn table(&self, name: &str) -> DataFusionResult<Option<Arc<dyn TableProvider>>> {
        let Some((face, table)) = by_name(&self.tables, name) else { return Ok(None) };
        let Some(inventory) = table.inventory().await.map_err(wrap)? else { return Ok(None) };
        let plans = TablePlans { name: &table.landed.table.name, store: &table.store, inventory, as_of: table.as_of };
        let plan = match face {
            Face::State => plans.state()?,
            Face::Changes => match (&table.follow, &table.landed.table.tail, table.span().await.map_err(wrap)?) {
                (Some(behind), Some(tail), Some(span)) => return Ok(Some(Arc::new(plans.followed(tail, span.through, behind)?))),
                (Some(_), ..) => {
                    let schema = Arc::clone(plans.changes()?.schema().inner());
                    let error = Error::config(
                        "the changes of the table cannot be followed: there is no change log on disk that the rules of now have made",
                    );
                    let error = error.context("table", &table.landed.table.name);
                    let error = error.remedy("add `change_log` to the stream, or take back logweir.follow");
                    return Ok(Some(Arc::new(Refused { schema, error })));
                }
                (None, ..) => plans.changes()?,
            },
        };
        // One that cannot be read does not keep the others from being described.
        if let Some(error) = plans.refusal() {
            return Ok(Some(Arc::new(Refused { schema: Arc::clone(plan.schema().inner()), error })));
        }
        Ok(Some(Arc::new(ViewTable::new(plan, None))))
    }

    async fn table_type(&self, name: &str) -> DataFusionResult<Option<TableType>> {
        // Known without looking at files: SHOW TABLES is to be quick.
        Ok(by_name(&self.tables, name).map(|(face, _)| match face {
            Face::State => TableType::View,
            Face::Changes => TableType::Base,
        }))
    }

    fn table_exist(&self, name: &str) -> bool {
        by_name(&self.tables, name).is_some()
    }
}

/// What the engine says about itself, and what it has landed under its own name: the quarantine.
#[derive(Debug)]
struct OwnSchema {
    system: Arc<SystemSchema>,
    landed: Option<Arc<StreamSchema>>,
}

#[async_trait]
impl SchemaProvider for OwnSchema {
    fn table_names(&self) -> Vec<String> {
        let landed = self.landed.iter().flat_map(|landed| landed.table_names());
        landed.chain(self.system.table_names()).collect()
    }

    async fn table(&self, name: &str) -> DataFusionResult<Option<Arc<dyn TableProvider>>> {
        match &self.landed {
            Some(landed) if landed.table_exist(name) => landed.table(name).await,
            _ => self.system.table(name).await,
        }
    }

    async fn table_type(&self, name: &str) -> DataFusionResult<Option<TableType>> {
        match &self.landed {
            Some(landed) if landed.table_exist(name) => landed.table_type(name).await,
            _ => self.system.table_type(name).await,
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        self.landed.as_ref().is_some_and(|landed| landed.table_exist(name)) || self.system.table_exist(name)
    }
}

/// What the engine says about itself.
pub(super) struct SystemSchema {
    tables: Vec<Arc<Opened>>,
    /// What whoever made the engine knows.
    given: Vec<(String, RecordBatch)>,
}

impl SystemSchema {
    pub(super) fn new(tables: Vec<Arc<Opened>>, given: Vec<(String, RecordBatch)>) -> Self {
        SystemSchema { tables, given }
    }

    fn names(&self) -> Vec<String> {
        let own = [TABLES, SNAPSHOT].map(str::to_owned);
        own.into_iter().chain(self.given.iter().map(|(name, _)| name.clone())).collect()
    }

    fn holds(&self, name: &str) -> bool {
        [TABLES, SNAPSHOT].contains(&name) || self.given.iter().any(|(given, _)| given == name)
    }

    /// A row per stream and destination: up to where the query sees the log, and up to where it sees files.
    async fn snapshot(&self) -> Result<RecordBatch> {
        let mut places: Vec<(&LandedTable, Option<TailSpan>)> = Vec::new();
        for table in &self.tables {
            let landed = &table.landed.table;
            if !places.iter().any(|(known, _)| (&known.stream, &known.destination) == (&landed.stream, &landed.destination)) {
                places.push((landed, table.span().await?));
            }
        }
        let spans = || places.iter().map(|(_, span)| span.as_ref());
        let position = |place: fn(&TailSpan) -> LogPosition| -> ArrayRef {
            Arc::new(spans().map(|span| span.map(|span| place(span).to_string())).collect::<StringArray>())
        };
        let times = spans().map(|span| span.and_then(|span| span.commit_time).map(|time| time.0));
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("stream", Arc::new(StringArray::from_iter_values(places.iter().map(|(table, _)| &table.stream)))),
            ("destination", Arc::new(StringArray::from_iter_values(places.iter().map(|(table, _)| &table.destination)))),
            ("position", position(|span| span.through)),
            ("commit_time", Arc::new(times.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))),
            ("files_position", position(|span| span.after)),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
            .map_err(|error| Error::internal("could not build logweir.snapshot").source(error))
    }

    /// A row per table and destination.
    async fn tables(&self) -> Result<RecordBatch> {
        let looks: Vec<_> = self.tables.iter().map(|table| table.inventory()).collect();
        let inventories: Vec<Option<&Inventory>> = futures::stream::iter(looks).buffered(INVENTORIES_MAX).try_collect().await?;
        let rows = || self.tables.iter().map(|table| &table.landed.table).zip(&inventories);
        let text = |value: fn(&LandedTable) -> String| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(rows().map(|(table, _)| value(table))))
        };
        let count = |value: &dyn Fn(&Inventory) -> u64| -> ArrayRef {
            let counts = inventories.iter().map(|inventory| inventory.map_or(0, value));
            Arc::new(Int64Array::from_iter_values(counts.map(|count| i64::try_from(count).unwrap_or(i64::MAX))))
        };
        let versions = inventories.iter().map(|inventory| inventory.map(|inventory| inventory.newest().version));
        // NULL: nothing is known; an empty text: it has no key.
        let keys = inventories.iter().map(|inventory| inventory.map(|inventory| inventory.newest().key.join(", ")));
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("stream", text(|table| table.stream.clone())),
            ("destination", text(|table| table.destination.clone())),
            ("schema", text(|table| table.name.schema.clone())),
            ("table", text(|table| table.name.table.clone())),
            ("version", Arc::new(versions.collect::<UInt32Array>())),
            ("key", Arc::new(keys.collect::<StringArray>())),
            ("files", count(&|inventory| inventory.groups.iter().map(|group| group.files.len() as u64).sum())),
            ("rows", count(&|inventory| inventory.groups.iter().map(|group| group.rows()).sum())),
            ("bytes", count(&|inventory| inventory.groups.iter().map(|group| group.bytes()).sum())),
            ("rows_in_flight", count(&|inventory| inventory.groups.iter().map(|group| group.rows_in_flight()).sum())),
            ("location", text(location)),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
            .map_err(|error| Error::internal("could not build logweir.tables").source(error))
    }
}

/// Where a table lies, as a person writes it.
fn location(table: &LandedTable) -> String {
    let mut url = table.store_url.clone();
    url.set_path(table.prefix.as_ref());
    url.set_query(None);
    url.into()
}

#[async_trait]
impl SchemaProvider for SystemSchema {
    fn table_names(&self) -> Vec<String> {
        self.names()
    }

    async fn table(&self, name: &str) -> DataFusionResult<Option<Arc<dyn TableProvider>>> {
        let batch = match name {
            TABLES => self.tables().await.map_err(wrap)?,
            SNAPSHOT => self.snapshot().await.map_err(wrap)?,
            _ => match self.given.iter().find(|(given, _)| given == name) {
                Some((_, batch)) => batch.clone(),
                None => return Ok(None),
            },
        };
        Ok(Some(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?)))
    }

    async fn table_type(&self, name: &str) -> DataFusionResult<Option<TableType>> {
        Ok(self.holds(name).then_some(TableType::View))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.holds(name)
    }
}

impl fmt::Debug for SystemSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SystemSchema({} tables)", self.tables.len())
    }
}
