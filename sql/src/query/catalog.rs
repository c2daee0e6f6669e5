//! The names that queries use: streams as catalogs, and in them for each source schema its current state and its changes.
//!
//! ```text
//! <stream>.<schema>.<table>             what is there now
//! <stream>.<schema>_changes.<table>     what happened
//! <stream>.logweir.tables               what was landed, of all streams
//! "<stream>/<destination>".…            the same, where a stream has several destinations
//! ```
//!
//! A catalog is made for one query: all its references to a table see the same files. Files are looked at when a query names
//! their table, so a query over one table of a thousand costs one listing. An unquoted name is in lower case, as SQL has
//! it; where no such table is, one that differs in case alone is taken.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, UInt32Array};
use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, SchemaProvider, TableProvider};
use datafusion::common::Result as DataFusionResult;
use datafusion::datasource::{MemTable, TableType, ViewTable};
use datafusion::execution::object_store::ObjectStoreUrl;
use futures::{StreamExt, TryStreamExt};
use logweir_core::{Error, Result};
use tokio::sync::OnceCell;

use super::LandedTable;
use super::error::wrap;
use super::form::CHANGES_SUFFIX;
use super::inventory::{Inventory, Landed};
use super::plan::TablePlans;

/// The schema of what the engine says about itself.
pub(super) const SYSTEM_SCHEMA: &str = "logweir";
/// Its table of tables.
const TABLES: &str = "tables";
/// Tables looked at at a time for [`TABLES`].
const INVENTORIES_MAX: usize = 4;

/// A table as one query sees it.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) landed: Arc<Landed>,
    pub(super) store: ObjectStoreUrl,
    inventory: OnceCell<Option<Inventory>>,
}

impl Opened {
    pub(super) fn new(landed: Arc<Landed>, store: ObjectStoreUrl) -> Self {
        Opened { landed, store, inventory: OnceCell::new() }
    }

    /// What lies there; looked at once.
    pub(super) async fn inventory(&self) -> Result<Option<&Inventory>> {
        self.inventory.get_or_try_init(|| self.landed.inventory()).await.map(Option::as_ref)
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
        landed.chain([format!("{SYSTEM_SCHEMA}.{TABLES}")])
    }

    fn landed_schema(&self, name: &str) -> Option<&Arc<StreamSchema>> {
        by_name(&self.schemas, name)
    }

    /// The table of this name; `Some(None)` for one of ours.
    pub(super) fn find(&self, schema: &str, table: &str) -> Option<Option<&Arc<Opened>>> {
        let landed = self.landed_schema(schema).and_then(|tables| by_name(&tables.tables, table)).map(|(_, table)| Some(table));
        landed.or((schema == SYSTEM_SCHEMA && table == TABLES).then_some(None))
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
        let plans = TablePlans { name: &table.landed.table.name, store: &table.store, inventory };
        let plan = match face {
            Face::State => plans.state()?,
            Face::Changes => plans.changes()?,
        };
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
}

impl SystemSchema {
    pub(super) fn new(tables: Vec<Arc<Opened>>) -> Self {
        SystemSchema { tables }
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
        vec![TABLES.to_owned()]
    }

    async fn table(&self, name: &str) -> DataFusionResult<Option<Arc<dyn TableProvider>>> {
        if name != TABLES {
            return Ok(None);
        }
        let batch = self.tables().await.map_err(wrap)?;
        Ok(Some(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?)))
    }

    async fn table_type(&self, name: &str) -> DataFusionResult<Option<TableType>> {
        Ok((name == TABLES).then_some(TableType::View))
    }

    fn table_exist(&self, name: &str) -> bool {
        name == TABLES
    }
}

impl fmt::Debug for SystemSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SystemSchema({} tables)", self.tables.len())
    }
}
