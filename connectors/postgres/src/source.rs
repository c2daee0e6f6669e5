//! The live source: a PostgreSQL server.

use std::sync::{Arc, OnceLock};

use arrow_array::RecordBatch;
use async_trait::async_trait;
use logweir_core::{
    ChangeBatch, Error, Finding, LogMark, LogReader, LogStart, QueryLimit, Relation, RelationName, Result, Source, TableFilter,
};

use crate::catalog::ask;
use crate::live::LiveReader;
use crate::options::PostgresOptions;
use crate::publication::Publication;
use crate::quote::literal;
use crate::slots::Slot;
use crate::watch::Watcher;
use crate::wire::{Connection, Mode};
use crate::{catalog, check, questions};

/// A live PostgreSQL server, or one that speaks its protocol.
#[derive(Debug)]
pub struct PostgresSource {
    options: Arc<PostgresOptions>,
    /// From the first time that the log is opened.
    watcher: OnceLock<Option<Watcher>>,
}

/// What became of something that was to be dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is gone.
    Dropped,
    /// It was not there.
    NotThere,
    /// It is still there, for this reason.
    Kept(&'static str),
}

/// What [`PostgresSource::drop_slot`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// The replication slot.
    pub slot: Fate,
    /// The publication.
    pub publication: Fate,
}

impl PostgresSource {
    /// A source over a server; nothing is opened yet.
    pub fn new(options: PostgresOptions) -> Self {
        PostgresSource { options: Arc::new(options), watcher: OnceLock::new() }
    }

    /// How the server is reached, and what is used there.
    pub fn options(&self) -> &PostgresOptions {
        &self.options
    }

    /// Drops the replication slot, and the publication if it was made by logweir. An error if the slot is in use; then nothing
    /// was dropped. What was not there, or is not ours, is no error.
    pub async fn drop_slot(&self) -> Result<Dropped> {
        if !self.options.create {
            const OTHERS: Fate = Fate::Kept("because the source's profile says create: false, so it is somebody else's");
            return Ok(Dropped { slot: OTHERS, publication: OTHERS });
        }
        let mut connection = Connection::connect(&self.options, Mode::Query).await?;
        let slot = self.drop_only_slot(&mut connection).await?;
        let publication = drop_publication(&mut connection, &self.options.publication).await;
        connection.close().await;
        let publication = publication.map_err(|error| match slot {
            Fate::Dropped => error.context("slot", "dropped"),
            _ => error,
        })?;
        Ok(Dropped { slot, publication })
    }

    async fn drop_only_slot(&self, connection: &mut Connection) -> Result<Fate> {
        let slots = Slot::all(connection).await?;
        let Some(slot) = slots.iter().find(|slot| slot.slot_name == self.options.slot) else { return Ok(Fate::NotThere) };
        if slot.plugin.as_deref() != Some("pgoutput") {
            return Ok(Fate::Kept("because it is not of pgoutput, so it is somebody else's"));
        }
        if slot.database.as_deref() != Some(self.options.database.as_str()) {
            return Ok(Fate::Kept("because it is of another database, so it is somebody else's"));
        }
        if let Some(process) = slot.active_pid.filter(|_| slot.active) {
            return Err(Error::config("the replication slot is in use")
                .context("slot", &slot.slot_name)
                .context("process", process)
                .remedy(format!(
                    "stop the stream first; if that is a connection that is gone, run SELECT pg_terminate_backend({process})"
                )));
        }
        let statement = format!("SELECT pg_catalog.pg_drop_replication_slot({})", literal(&slot.slot_name));
        ask(connection, "the end of the replication slot", &statement).await?;
        Ok(Fate::Dropped)
    }
}

async fn drop_publication(connection: &mut Connection, name: &str) -> Result<Fate> {
    let Some(publication) = Publication::find(connection, name).await? else { return Ok(Fate::NotThere) };
    if !publication.ours {
        return Ok(Fate::Kept("because it was not made by logweir"));
    }
    let statement = format!("DROP PUBLICATION {}", publication.quoted);
    let dropped = ask(connection, "the end of the publication", &statement).await;
    dropped.map_err(|error| error.remedy(format!("run {statement} as its owner")))?;
    Ok(Fate::Dropped)
}

#[async_trait]
impl Source for PostgresSource {
    async fn check(&self, tables: &TableFilter, resume: Option<&LogMark>) -> Result<Vec<Finding>> {
        check::check(&self.options, tables, resume).await
    }

    async fn relations(&self, tables: &TableFilter) -> Result<Vec<Relation>> {
        let mut connection = Connection::connect(&self.options, Mode::Query).await?;
        let relations = catalog::relations(&mut connection, &self.options, tables).await?;
        connection.close().await;
        Ok(relations)
    }

    async fn sample(&self, tables: &TableFilter, table: &RelationName, rows_max: usize) -> Result<Option<ChangeBatch>> {
        questions::sample(&self.options, tables, table, rows_max).await
    }

    async fn query(&self, sql: &str, limit: QueryLimit) -> Result<RecordBatch> {
        questions::query(&self.options, sql, limit).await
    }

    async fn open_log(&self, start: LogStart) -> Result<Box<dyn LogReader>> {
        let watcher = self.watcher.get_or_init(|| Watcher::start(&self.options));
        let detached = watcher.as_ref().map(Watcher::detached).unwrap_or_default();
        Ok(Box::new(LiveReader::open(Arc::clone(&self.options), start, detached).await?))
    }
}
