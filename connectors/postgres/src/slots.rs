//! Replication slots, as the server lists them.

use logweir_core::{Error, Result};
use serde::Deserialize;

use crate::catalog::{ask, rows};
use crate::lsn::Lsn;
use crate::wire::Connection;

/// A row of `pg_replication_slots`; every version has more columns.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Slot {
    pub(crate) slot_name: String,
    /// Of a logical one.
    pub(crate) plugin: Option<String>,
    /// `logical` or `physical`.
    pub(crate) slot_type: String,
    pub(crate) database: Option<String>,
    pub(crate) temporary: bool,
    pub(crate) active: bool,
    pub(crate) active_pid: Option<i32>,
    pub(crate) restart_lsn: Option<Lsn>,
    pub(crate) confirmed_flush_lsn: Option<Lsn>,
    /// From 13 on: `reserved`, `extended`, `unreserved` or `lost`.
    pub(crate) wal_status: Option<String>,
    /// From 13 on: bytes that may still be written before log is thrown away that the slot needs; without a bound there is none.
    pub(crate) safe_wal_size: Option<i64>,
    /// From 14 on.
    pub(crate) two_phase: bool,
    /// From 16 on.
    pub(crate) conflicting: Option<bool>,
    /// From 17 on.
    pub(crate) invalidation_reason: Option<String>,
    /// From 17 on: kept in step on standbys.
    pub(crate) failover: bool,
    /// Bytes of log that are there for it and could go otherwise.
    #[serde(skip)]
    pub(crate) retained: u64,
}

impl Slot {
    /// All slots of the server, of all databases.
    pub(crate) async fn all(connection: &mut Connection) -> Result<Vec<Slot>> {
        const ABOUT: &str = "the replication slots";
        let end = log_end(connection).await?;
        let answer =
            ask(connection, ABOUT, "SELECT pg_catalog.row_to_json(s) FROM pg_catalog.pg_replication_slots s ORDER BY 1::text").await?;
        let slot = |text| {
            let mut slot: Slot = serde_json::from_str(text)
                .map_err(|error| Error::corrupt("the server describes a replication slot in a way not known here").source(error))?;
            slot.retained = slot.restart_lsn.map_or(0, |kept| end.0.saturating_sub(kept.0));
            Ok(slot)
        };
        rows(&answer, ABOUT).map(|row| slot(row.text(0)?)).collect()
    }

    /// True if the server has thrown away what the slot needs, or will not serve it for another reason.
    pub(crate) fn is_lost(&self) -> bool {
        self.wal_status.as_deref() == Some("lost") || self.invalidation_reason.is_some() || self.conflicting == Some(true)
    }
}

/// Where the server's log ends now; on a standby, where it was replayed up to.
pub(crate) async fn log_end(connection: &mut Connection) -> Result<Lsn> {
    const ABOUT: &str = "the end of the log";
    let answer = ask(
        connection,
        ABOUT,
        "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_lsn() END",
    )
    .await?;
    // A standby that has replayed nothing yet has no place.
    rows(&answer, ABOUT).next().and_then(|row| row.get(0)).map_or(Ok(Lsn::default()), str::parse)
}
