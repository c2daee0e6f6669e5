//! What there is: streams as catalogs, their schemas, and their tables.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray as _, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema};
use logweir_core::{Error, Pattern, Result};
use logweir_sql::{ClientSession, QueryEngine};

use crate::server::Shared;

/// A schema of a catalog.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SchemaName {
    pub(crate) catalog: String,
    pub(crate) schema: String,
}

/// A table of a schema.
#[derive(Debug, Clone)]
pub(crate) struct TableName {
    pub(crate) schema: SchemaName,
    pub(crate) table: String,
    /// As Flight SQL calls it: [`TABLE_TYPES`].
    pub(crate) kind: &'static str,
}

/// The kinds of tables.
pub(crate) const TABLE_TYPES: [&str; 2] = ["TABLE", "SYSTEM TABLE"];

/// Schemas that are the system's, ours among them.
const SYSTEM_SCHEMAS: [&str; 3] = ["information_schema", "logweir", "pg_catalog"];

/// What a user sees, of one catalog or all.
pub(crate) struct Catalog {
    shared: Arc<Shared>,
    engine: QueryEngine,
    client: ClientSession,
}

impl Catalog {
    pub(crate) async fn open(shared: &Arc<Shared>, schemas: &[Pattern], client: ClientSession) -> Result<Self> {
        let engine = shared.database.engine(schemas).await?;
        Ok(Catalog { shared: Arc::clone(shared), engine, client })
    }

    fn catalogs(&self, wanted: Option<&str>) -> Vec<String> {
        let names = self.shared.database.names().into_iter();
        names.filter(|name| wanted.is_none_or(|wanted| wanted == name)).collect()
    }

    fn client(&self, catalog: &str) -> ClientSession {
        ClientSession { database: Some(catalog.to_owned()), ..self.client.clone() }
    }

    /// Two or more columns of text of `sql`, in `catalog`.
    async fn texts(&self, catalog: &str, sql: &str) -> Result<Vec<Vec<String>>> {
        let batches = self.engine.prepare(sql, &self.client(catalog)).await?.run().await?.collect().await?;
        let mut rows = Vec::new();
        for batch in batches {
            rows.extend(text_rows(&batch)?);
        }
        Ok(rows)
    }

    /// The schemas, in order.
    pub(crate) async fn schemas(&self, wanted: Option<&str>) -> Result<Vec<SchemaName>> {
        let mut found = Vec::new();
        for catalog in self.catalogs(wanted) {
            for row in self.texts(&catalog, "SELECT nspname FROM pg_catalog.pg_namespace").await? {
                found.extend(row.into_iter().map(|schema| SchemaName { catalog: catalog.clone(), schema }));
            }
        }
        found.sort();
        found.dedup();
        Ok(found)
    }

    /// The tables that there are.
    pub(crate) async fn tables(&self, wanted: Option<&str>) -> Result<Vec<TableName>> {
        const SQL: &str = "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                           WHERE c.relkind IN ('r', 'v', 'm', 'f', 'p') ORDER BY n.nspname, c.relname";
        let mut found = Vec::new();
        for catalog in self.catalogs(wanted) {
            for row in self.texts(&catalog, SQL).await? {
                let Ok([schema, table]) = <[String; 2]>::try_from(row) else { continue };
                let kind = TABLE_TYPES[usize::from(SYSTEM_SCHEMAS.contains(&schema.as_str()))];
                found.push(TableName { schema: SchemaName { catalog: catalog.clone(), schema }, table, kind });
            }
        }
        Ok(found)
    }

    /// The columns of a table; none if it has no files yet.
    pub(crate) async fn columns(&self, table: &TableName) -> Result<Arc<Schema>> {
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let sql = format!("SELECT * FROM {}.{}", quoted(&table.schema.schema), quoted(&table.table));
        match self.engine.prepare(&sql, &self.client(&table.schema.catalog)).await {
            Ok(query) => Ok(query.schema()),
            // Nothing was landed yet.
            Err(error) if logweir_sql::sqlstate(&error) == "55000" => Ok(Arc::new(Schema::empty())),
            Err(error) => Err(error),
        }
    }
}

fn text_rows(batch: &RecordBatch) -> Result<Vec<Vec<String>>> {
    let text = |column: &ArrayRef| cast(column, &DataType::Utf8).map_err(|error| Error::internal("a name is no text").source(error));
    let columns = batch.columns().iter().map(text).collect::<Result<Vec<_>>>()?;
    let columns: Vec<_> = columns.iter().map(|column| column.as_string::<i32>()).collect();
    Ok((0..batch.num_rows()).map(|row| columns.iter().map(|column| column.value(row).to_owned()).collect()).collect())
}
