//! What PostgreSQL's clients ask when they connect, and what psql's `\d` asks: a `pg_catalog` over the streams.
//!
//! ```text
//! statement ── rewrite (syntax that DataFusion lacks) ── plan over tables (made when asked for) with functions
//! ```
//!
//! A database is a stream, a schema a schema, a relation a table. Their numbers are made of their names, so they are the same in every
//! query. Of what we do not have (indexes, triggers, policies, …) there are empty tables, so that whoever asks learns that there is none.

mod functions;
mod names;
mod objects;
mod rewrite;
mod tables;

use std::sync::Arc;

use datafusion::catalog::{CatalogProvider, SchemaProvider};
use datafusion::prelude::SessionContext;

use super::catalog::StreamCatalog;
use super::prepare::ClientSession;
pub(super) use names::Names;
use objects::Objects;
pub(super) use rewrite::{oid_lists, rewrite};
use tables::PgSchema;
pub(super) use tables::oid_list;
pub use tables::{item_oid, type_oid};

/// The schema's name.
pub(super) const PG_CATALOG: &str = "pg_catalog";

/// What a client takes us for: a version whose catalogs have the columns of ours.
const SERVER_VERSION: &str = "15.0";

/// Adds `pg_catalog` to every catalog, and its functions.
pub(super) fn register(
    context: &SessionContext,
    client: &ClientSession,
    catalogs: &[(String, Arc<StreamCatalog>)],
    database: &str,
    schema: &str,
) {
    let Some((_, current)) = catalogs.iter().find(|(name, _)| name == database) else { return };
    let databases = catalogs.iter().map(|(name, _)| name.clone()).collect();
    let objects = Arc::new(Objects::new(database, schema, databases, current, client));
    for function in functions::all(&objects) {
        context.register_udf(function);
    }
    for (name, catalog) in catalogs {
        let pg = Arc::new(PgSchema { objects: Arc::clone(&objects), current: Arc::clone(current) });
        context.register_catalog(name, Arc::new(WithPgCatalog { inner: Arc::clone(catalog), pg }));
    }
}

/// A catalog and its `pg_catalog`.
#[derive(Debug)]
struct WithPgCatalog {
    inner: Arc<StreamCatalog>,
    pg: Arc<PgSchema>,
}

impl CatalogProvider for WithPgCatalog {
    fn schema_names(&self) -> Vec<String> {
        // Not listed: information_schema would ask every table of it for its columns.
        self.inner.schema_names()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        if name == PG_CATALOG { Some(Arc::clone(&self.pg) as _) } else { self.inner.schema(name) }
    }
}
