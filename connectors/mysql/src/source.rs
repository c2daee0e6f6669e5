//! The live source: a MySQL or MariaDB server.

use std::sync::Arc;

use arrow_array::RecordBatch;
use async_trait::async_trait;
use logweir_core::{ChangeBatch, Finding, LogMark, LogReader, LogStart, QueryLimit, Relation, RelationName, Result, Source, TableFilter};

use crate::live::LiveReader;
use crate::options::MysqlOptions;
use crate::server::Server;
use crate::stream::Replica;
use crate::{carried, catalog_query, check, questions};

/// A live MySQL or MariaDB server.
///
/// Without a configured `server_id` a source takes one at random when it is made and keeps it as long as it lives, so that
/// a reconnect replaces the old dump on the server instead of standing beside it.
#[derive(Debug)]
pub struct MysqlSource {
    options: Arc<MysqlOptions>,
    replica: Replica,
}

impl MysqlSource {
    /// A source over a server; nothing is opened yet.
    pub fn new(options: MysqlOptions) -> Self {
        let replica = Replica::new(options.server_id);
        MysqlSource { options: Arc::new(options), replica }
    }
}

#[async_trait]
impl Source for MysqlSource {
    async fn check(&self, tables: &TableFilter, resume: Option<&LogMark>) -> Result<Vec<Finding>> {
        check::check(&mut Server::new(Arc::clone(&self.options)), &self.replica, tables, resume).await
    }

    async fn relations(&self, tables: &TableFilter) -> Result<Vec<Relation>> {
        let mut server = Server::new(Arc::clone(&self.options));
        let facts = server.facts().await?;
        let mut relations = Vec::new();
        for table in catalog_query::tables(&mut server, tables).await? {
            // A table dropped in between has no shape any more.
            if let Some(shape) = catalog_query::shape(&mut server, &facts, &table.name).await? {
                relations.push(carried::relation(&table.name, &shape, tables)?);
            }
        }
        Ok(relations)
    }

    async fn sample(&self, tables: &TableFilter, table: &RelationName, rows_max: usize) -> Result<Option<ChangeBatch>> {
        questions::sample(&self.options, tables, table, rows_max).await
    }

    async fn query(&self, sql: &str, limit: QueryLimit) -> Result<RecordBatch> {
        questions::query(&self.options, sql, limit).await
    }

    async fn open_log(&self, start: LogStart) -> Result<Box<dyn LogReader>> {
        Ok(Box::new(LiveReader::open(Arc::clone(&self.options), self.replica.clone(), start).await?))
    }
}
