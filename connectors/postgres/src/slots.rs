//! Replication slots: as the server lists them, what makes one unfit, and how one is made.

use std::time::Duration;

use logweir_core::{Error, Result};
use serde::Deserialize;

use crate::catalog::{ask, rows};
use crate::lsn::Lsn;
use crate::options::PostgresOptions;
use crate::quote::{identifier, literal};
use crate::server::Facts;
use crate::wire::Connection;

/// Creating a slot waits for every transaction that is under way; longer than this is not waited for in one go.
const CREATE_SLOT_MAX: Duration = Duration::from_secs(600);
/// After this long it is said what is waited for.
const CREATE_SLOT_PATIENCE: Duration = Duration::from_secs(10);

/// How to begin again when the log is gone.
pub(crate) const START_ANEW: &str = "remove what was landed and the stream's checkpoint; with backfill: all the next start reads every table \
                          anew";

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
        Self::select(connection, "ORDER BY s.slot_name").await
    }

    /// The slot of this name, if there is one.
    pub(crate) async fn named(connection: &mut Connection, name: &str) -> Result<Option<Slot>> {
        Ok(Self::select(connection, &format!("WHERE s.slot_name = {}", literal(name))).await?.pop())
    }

    async fn select(connection: &mut Connection, which: &str) -> Result<Vec<Slot>> {
        const ABOUT: &str = "the replication slots";
        let end = log_end(connection).await?;
        let sql = format!("SELECT pg_catalog.row_to_json(s) FROM pg_catalog.pg_replication_slots s {which}");
        let answer = ask(connection, ABOUT, &sql).await?;
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

    /// Says what is wrong with a slot that is to be read.
    pub(crate) fn verify(&self, options: &PostgresOptions) -> Result<()> {
        let named = |error: Error| error.context("slot", &options.slot);
        if self.plugin.as_deref() != Some("pgoutput") {
            return Err(named(Error::config("the replication slot is of another plugin"))
                .context("plugin", self.plugin.as_deref().unwrap_or("none: it is a physical slot"))
                .remedy("name another slot: in the source's profile"));
        }
        if self.database.as_deref() != Some(options.database.as_str()) {
            return Err(named(Error::config("the replication slot is of another database"))
                .context("database", self.database.as_deref().unwrap_or_default())
                .remedy("name another slot: in the source's profile"));
        }
        if self.is_lost() {
            // On 16, which does not say why, a standby removed rows of the catalog that the slot needed.
            let conflict = self.conflicting.filter(|conflicting| *conflicting).map(|_| "rows_removed");
            return Err(named(Error::log_gone("the replication slot can no longer be read: the server took it out of use"))
                .context(
                    "reason",
                    match self.invalidation_reason.as_deref().or(conflict) {
                        None | Some("wal_removed") => "the log that it needs is removed, which max_slot_wal_keep_size allows",
                        Some(reason) => reason,
                    },
                )
                .remedy(format!("drop it: SELECT pg_drop_replication_slot({}); {START_ANEW}", literal(&options.slot))));
        }
        Ok(())
    }
}

/// Where the server's log ends now; on a standby, where it was replayed up to.
async fn log_end(connection: &mut Connection) -> Result<Lsn> {
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

/// A slot that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Created {
    /// Everything that commits behind this place is sent; everything else is in the snapshot.
    pub(crate) consistent: Lsn,
    /// Can be imported while the walsender's connection does nothing else.
    pub(crate) snapshot: Option<String>,
}

/// Makes a slot. Waits until every transaction that was under way has ended.
pub(crate) async fn create(
    walsender: &mut Connection,
    query: &mut Connection,
    facts: &Facts,
    name: &str,
    options: SlotOptions,
) -> Result<Created> {
    let statement = create_statement(facts, name, options);
    let creating = walsender.query(&statement);
    tokio::pin!(creating);
    let rows = match tokio::time::timeout(CREATE_SLOT_PATIENCE, &mut creating).await {
        Ok(rows) => rows?,
        Err(_) => {
            let holders = holders(query).await.unwrap_or_default();
            if facts.in_recovery {
                tracing::warn!(
                    slot = name,
                    "creating the replication slot waits until the primary writes which transactions are under way: run SELECT pg_log_standby_snapshot() there"
                );
            } else {
                tracing::warn!(slot = name, holders, "creating the replication slot waits for transactions that are under way");
            }
            match tokio::time::timeout(CREATE_SLOT_MAX, &mut creating).await {
                Ok(rows) => rows?,
                Err(_) => {
                    return Err(Error::transient("could not create the replication slot while older transactions are under way")
                        .context("slot", name)
                        .context("transactions", holders)
                        .remedy(if facts.in_recovery {
                            "run SELECT pg_log_standby_snapshot() on the primary, and wait for its older transactions"
                        } else {
                            "end them, or wait for them; a prepared one ends with COMMIT PREPARED or ROLLBACK PREPARED"
                        }));
                }
            }
        }
    };
    let consistent = rows.get(0, 1).and_then(|text| text.parse().ok());
    let consistent = consistent.ok_or_else(|| Error::corrupt("the server did not say where the new slot begins"))?;
    Ok(Created { consistent, snapshot: rows.get(0, 2).filter(|name| !name.is_empty()).map(str::to_owned) })
}

/// How a slot is made.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SlotOptions {
    pub(crate) temporary: bool,
    pub(crate) export_snapshot: bool,
    pub(crate) two_phase: bool,
    pub(crate) failover: bool,
}

fn create_statement(facts: &Facts, name: &str, options: SlotOptions) -> String {
    let temporary = if options.temporary { " TEMPORARY" } else { "" };
    let name = identifier(name);
    if facts.version < 150_000 {
        let snapshot = if options.export_snapshot { "EXPORT_SNAPSHOT" } else { "NOEXPORT_SNAPSHOT" };
        return format!("CREATE_REPLICATION_SLOT {name}{temporary} LOGICAL pgoutput {snapshot}");
    }
    let mut settings = vec![if options.export_snapshot { "SNAPSHOT 'export'" } else { "SNAPSHOT 'nothing'" }];
    if options.two_phase {
        settings.push("TWO_PHASE true");
    }
    if options.failover && facts.version >= 170_000 {
        settings.push("FAILOVER true");
    }
    format!("CREATE_REPLICATION_SLOT {name}{temporary} LOGICAL pgoutput ({})", settings.join(", "))
}

/// What the creation of a slot waits for: transactions that have an id, prepared ones among them. Whose they are is shown to
/// who may see it.
async fn holders(query: &mut Connection) -> Result<String> {
    let rows = query
        .query(
            "SELECT pg_catalog.string_agg(who || ' since ' || since::text, ', ' ORDER BY since) FROM (\
             SELECT 'process ' || pid AS who, xact_start AS since FROM pg_catalog.pg_stat_activity \
             WHERE backend_xid IS NOT NULL AND pid <> pg_catalog.pg_backend_pid() \
             UNION ALL SELECT 'prepared transaction ' || pg_catalog.quote_literal(gid), prepared FROM pg_catalog.pg_prepared_xacts \
             ORDER BY since LIMIT 5) AS holder",
        )
        .await?;
    Ok(rows.get(0, 0).unwrap_or("not known").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_fit_the_version() {
        let create = |version| {
            let facts = Facts {
                version,
                in_recovery: false,
                wal_level: "logical".into(),
                money_scale: 2,
                block_size: 8192,
                wal_sender_timeout: None,
            };
            let options = SlotOptions { export_snapshot: true, two_phase: true, failover: true, temporary: false };
            create_statement(&facts, "weir", options)
        };
        assert_eq!(create(140_000), r#"CREATE_REPLICATION_SLOT "weir" LOGICAL pgoutput EXPORT_SNAPSHOT"#);
        assert_eq!(
            create(170_000),
            r#"CREATE_REPLICATION_SLOT "weir" LOGICAL pgoutput (SNAPSHOT 'export', TWO_PHASE true, FAILOVER true)"#
        );
    }
}
