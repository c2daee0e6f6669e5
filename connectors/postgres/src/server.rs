//! What a server is, and its slots and publications: everything that is asked for or made before the log is read.

use std::time::Duration;

use logweir_core::{Error, RelationName, Result, TableFilter};

use crate::lsn::Lsn;
use crate::options::{Origin, PostgresOptions, Streaming};
use crate::quote::{identifier, literal, relation};
use crate::wire::{Connection, Rows};

/// Creating a slot waits for every transaction that is under way; longer than this is not waited for in one go.
const CREATE_SLOT_MAX: Duration = Duration::from_secs(600);
/// After this long it is said what is waited for.
const CREATE_SLOT_PATIENCE: Duration = Duration::from_secs(10);

/// What the publications that are ours say of themselves, in front of the slot's name.
pub(crate) const PUBLICATION_COMMENT: &str = "created by logweir for the slot ";

/// What is known of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    /// As `server_version_num`: 150007.
    pub(crate) version: u32,
    /// True for a standby.
    pub(crate) in_recovery: bool,
    pub(crate) wal_level: String,
    /// Digits behind the point of `money`.
    pub(crate) money_scale: i8,
    pub(crate) block_size: u64,
}

/// Asks a server what it is.
pub(crate) async fn facts(connection: &mut Connection) -> Result<Facts> {
    let rows = connection
        .query(
            "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('wal_level'), \
             pg_catalog.scale('1'::pg_catalog.money::pg_catalog.numeric), pg_catalog.current_setting('block_size')",
        )
        .await?;
    Ok(Facts {
        version: connection.version(),
        in_recovery: rows.get(0, 0) == Some("t"),
        wal_level: rows.get(0, 1).unwrap_or_default().to_owned(),
        money_scale: number(&rows, 0, 2).unwrap_or(2),
        block_size: number(&rows, 0, 3).unwrap_or(8192),
    })
}

/// A cluster, as the replication protocol names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) system: String,
    pub(crate) timeline: u32,
}

/// Asks a walsender what cluster it is of.
pub(crate) async fn identity(walsender: &mut Connection) -> Result<Identity> {
    let rows = walsender.query("IDENTIFY_SYSTEM").await?;
    let system = rows.get(0, 0).map(str::to_owned);
    let timeline = number(&rows, 0, 1);
    match (system, timeline) {
        (Some(system), Some(timeline)) => Ok(Identity { system, timeline }),
        _ => Err(Error::corrupt("the server did not say what cluster it is")),
    }
}

/// Where the timeline `left` was left on the way to the present one; `None` if the present one does not come from it.
pub(crate) async fn left_at(walsender: &mut Connection, present: u32, left: u32) -> Result<Option<Lsn>> {
    let rows = walsender.query(&format!("TIMELINE_HISTORY {present}")).await?;
    let history = rows.get(0, 1).unwrap_or_default();
    Ok(parse_history(history, left))
}

/// Lines of `timeline <tab> place <tab> reason`. The content may come as hexadecimal text of bytes.
fn parse_history(history: &str, left: u32) -> Option<Lsn> {
    let decoded = history.strip_prefix("\\x").and_then(|digits| {
        let byte = |i: usize| digits.get(i..i + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
        (0..digits.len()).step_by(2).map(byte).collect::<Option<Vec<u8>>>().and_then(|bytes| String::from_utf8(bytes).ok())
    });
    let history = decoded.as_deref().unwrap_or(history);
    history.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        (fields.next()?.parse() == Ok(left)).then(|| fields.next()?.parse().ok())?
    })
}

/// A replication slot as the server shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Slot {
    pub(crate) plugin: Option<String>,
    pub(crate) database: Option<String>,
    pub(crate) active_pid: Option<String>,
    pub(crate) restart_lsn: Option<Lsn>,
    pub(crate) confirmed: Option<Lsn>,
    /// `reserved`, `extended`, `unreserved` or `lost`; from 13 on.
    pub(crate) wal_status: Option<String>,
    pub(crate) two_phase: bool,
    /// Why it can no longer be read; from 16 on.
    pub(crate) invalid: Option<String>,
    /// Bytes of log that it holds back.
    pub(crate) retained_bytes: Option<u64>,
    pub(crate) failover: bool,
}

/// The slot of this name, if there is one.
pub(crate) async fn slot(connection: &mut Connection, facts: &Facts, name: &str) -> Result<Option<Slot>> {
    let since = |version: u32, expression: &'static str| if facts.version >= version { expression } else { "NULL" };
    let invalid = match facts.version {
        170_000.. => "invalidation_reason",
        160_000.. => "CASE WHEN conflicting THEN 'rows_removed' END",
        _ => "NULL",
    };
    let end = if facts.in_recovery { "pg_catalog.pg_last_wal_replay_lsn()" } else { "pg_catalog.pg_current_wal_lsn()" };
    let rows = connection
        .query(&format!(
            "SELECT plugin, database, active_pid, restart_lsn, confirmed_flush_lsn, {}, {}, {invalid}, \
             pg_catalog.pg_wal_lsn_diff({end}, restart_lsn)::bigint, {} \
             FROM pg_catalog.pg_replication_slots WHERE slot_name = {}",
            since(130_000, "wal_status"),
            since(140_000, "two_phase"),
            since(170_000, "failover"),
            literal(name)
        ))
        .await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let text = |column: usize| rows.get(0, column).map(str::to_owned);
    let lsn = |column: usize| rows.get(0, column).and_then(|text| text.parse().ok());
    Ok(Some(Slot {
        plugin: text(0),
        database: text(1),
        active_pid: text(2),
        restart_lsn: lsn(3),
        confirmed: lsn(4),
        wal_status: text(5),
        two_phase: rows.get(0, 6) == Some("t"),
        invalid: text(7),
        retained_bytes: rows.get(0, 8).and_then(|bytes| bytes.parse::<i64>().ok()).map(|bytes| u64::try_from(bytes).unwrap_or(0)),
        failover: rows.get(0, 9) == Some("t"),
    }))
}

/// How to begin again when the log is gone.
pub(crate) const START_ANEW: &str = "what was landed stays; remove the stream's checkpoint, and with backfill: all the next start reads \
                          every table anew behind it";

/// Says what is wrong with a slot that is to be read.
pub(crate) fn verify_slot(options: &PostgresOptions, slot: &Slot) -> Result<()> {
    let named = |error: Error| error.context("slot", &options.slot);
    if slot.plugin.as_deref() != Some("pgoutput") {
        return Err(named(Error::config("the replication slot is of another plugin"))
            .context("plugin", slot.plugin.as_deref().unwrap_or("none: it is a physical slot"))
            .remedy("name another slot: in the source's profile"));
    }
    if slot.database.as_deref() != Some(options.database.as_str()) {
        return Err(named(Error::config("the replication slot is of another database"))
            .context("database", slot.database.as_deref().unwrap_or_default())
            .remedy("name another slot: in the source's profile"));
    }
    let lost = slot.wal_status.as_deref() == Some("lost");
    if lost || slot.invalid.is_some() {
        return Err(named(Error::log_gone("the replication slot can no longer be read: the server took it out of use"))
            .context(
                "reason",
                match slot.invalid.as_deref() {
                    None | Some("wal_removed") => "the log that it needs is removed, which max_slot_wal_keep_size allows",
                    Some(reason) => reason,
                },
            )
            .remedy(format!("drop it: SELECT pg_drop_replication_slot({}); {START_ANEW}", literal(&options.slot))));
    }
    Ok(())
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
pub(crate) async fn create_slot(
    walsender: &mut Connection,
    query: &mut Connection,
    facts: &Facts,
    name: &str,
    options: SlotOptions,
) -> Result<Created> {
    let statement = create_slot_statement(facts, name, options);
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

fn create_slot_statement(facts: &Facts, name: &str, options: SlotOptions) -> String {
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

/// The statement that begins to read a slot.
pub(crate) fn start_statement(options: &PostgresOptions, facts: &Facts, from: Lsn, binary: bool, two_phase: bool) -> String {
    let protocol = match facts.version {
        160_000.. => 4,
        150_000.. => 3,
        140_000.. => 2,
        _ => 1,
    };
    let publication = identifier(&options.publication);
    let mut settings = vec![format!("proto_version '{protocol}'"), format!("publication_names {}", literal(&publication))];
    if facts.version >= 140_000 {
        if binary {
            settings.push("binary 'true'".to_owned());
        }
        settings.push("messages 'true'".to_owned());
        match options.streaming {
            Streaming::Off => {}
            Streaming::Parallel if facts.version >= 160_000 => settings.push("streaming 'parallel'".to_owned()),
            Streaming::On | Streaming::Parallel => settings.push("streaming 'on'".to_owned()),
        }
    }
    if two_phase && facts.version >= 150_000 {
        settings.push("two_phase 'on'".to_owned());
    }
    if facts.version >= 160_000 && options.origin == Origin::None {
        settings.push("origin 'none'".to_owned());
    }
    format!("START_REPLICATION SLOT {} LOGICAL {from} ({})", identifier(&options.slot), settings.join(", "))
}

/// A publication as the server shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publication {
    pub(crate) all_tables: bool,
    /// We made it, so we keep its tables in step with the configuration.
    pub(crate) ours: bool,
}

/// The publication of this name, if there is one.
pub(crate) async fn publication(connection: &mut Connection, name: &str) -> Result<Option<Publication>> {
    let rows = connection
        .query(&format!(
            "SELECT puballtables, pg_catalog.obj_description(oid, 'pg_publication') FROM pg_catalog.pg_publication WHERE pubname = {}",
            literal(name)
        ))
        .await?;
    Ok((!rows.is_empty()).then(|| Publication {
        all_tables: rows.get(0, 0) == Some("t"),
        ours: rows.get(0, 1).is_some_and(|comment| comment.starts_with(PUBLICATION_COMMENT)),
    }))
}

/// Makes the publication that the options name.
pub(crate) async fn create_publication(
    connection: &mut Connection,
    facts: &Facts,
    options: &PostgresOptions,
    tables: &TableFilter,
) -> Result<()> {
    let name = identifier(&options.publication);
    let superuser = connection.query("SELECT pg_catalog.current_setting('is_superuser')").await?;
    let everything = tables.include.is_empty() && tables.exclude.is_empty();
    let with = crate::publication::with(facts.version);
    let content = if everything && superuser.get(0, 0) == Some("on") {
        " FOR ALL TABLES".to_owned()
    } else {
        let wanted = publishable(connection, facts, tables).await?;
        let list: Vec<String> = wanted.iter().map(relation).collect();
        if list.is_empty() { String::new() } else { format!(" FOR TABLE {}", list.join(", ")) }
    };
    let comment = literal(&format!("{PUBLICATION_COMMENT}{}", options.slot));
    connection
        .query(&format!("BEGIN; CREATE PUBLICATION {name}{content}{with}; COMMENT ON PUBLICATION {name} IS {comment}; COMMIT"))
        .await
        .map_err(|error| {
            error.context("publication", &options.publication).remedy(format!(
                "let the user own the tables and GRANT CREATE ON DATABASE {} TO {}; or run as an owner of the tables: CREATE PUBLICATION \
                 {name}{content}{with}",
                identifier(&options.database),
                identifier(&options.user)
            ))
        })?;
    tracing::info!(publication = options.publication, "created the publication");
    Ok(())
}

/// The tables that are followed and can be published, by the name that they are published under.
pub(crate) async fn publishable(connection: &mut Connection, facts: &Facts, tables: &TableFilter) -> Result<Vec<RelationName>> {
    // Before 13 a partitioned table cannot be published, only its partitions.
    let kinds = if facts.version >= 130_000 { "(c.relkind IN ('r', 'p') AND NOT c.relispartition)" } else { "c.relkind = 'r'" };
    let rows = connection
        .query(&format!(
            "SELECT n.nspname, c.relname FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
             WHERE {kinds} AND c.relpersistence = 'p' AND n.nspname NOT IN ('pg_catalog', 'information_schema') \
             AND n.nspname NOT LIKE 'pg\\_toast%' AND n.nspname NOT LIKE 'pg\\_temp%' AND c.oid >= 16384 ORDER BY 1, 2"
        ))
        .await?;
    let names = (0..rows.rows.len()).filter_map(|row| Some(RelationName::new(rows.get(row, 0)?, rows.get(row, 1)?)));
    Ok(names.filter(|name| tables.accepts(name)).collect())
}

/// Adds followed tables that are not in our publication yet; their names.
pub(crate) async fn extend_publication(
    connection: &mut Connection,
    facts: &Facts,
    options: &PostgresOptions,
    tables: &TableFilter,
) -> Result<Vec<RelationName>> {
    let published = connection
        .query(&format!(
            "SELECT schemaname, tablename FROM pg_catalog.pg_publication_tables WHERE pubname = {}",
            literal(&options.publication)
        ))
        .await?;
    let published: std::collections::HashSet<RelationName> =
        (0..published.rows.len()).filter_map(|row| Some(RelationName::new(published.get(row, 0)?, published.get(row, 1)?))).collect();
    let missing: Vec<RelationName> =
        publishable(connection, facts, tables).await?.into_iter().filter(|name| !published.contains(name)).collect();
    let mut added = Vec::new();
    for name in missing {
        let statement = format!("ALTER PUBLICATION {} ADD TABLE {}", identifier(&options.publication), relation(&name));
        match connection.query(&statement).await {
            Ok(_) => {
                tracing::info!(publication = options.publication, relation = %name, "added a new table to the publication");
                added.push(name);
            }
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => {
                tracing::warn!(relation = %name, error = error.report(), "a followed table is not published; run {statement} as its owner");
            }
        }
    }
    Ok(added)
}

/// The end of the log: a message is written there, so that it will be passed even if nothing else happens.
pub(crate) async fn log_end(connection: &mut Connection) -> Result<Lsn> {
    let rows = connection.query("SELECT pg_catalog.pg_is_in_recovery()").await?;
    let end = if rows.first() == Some("t") {
        "pg_catalog.pg_last_wal_replay_lsn()"
    } else {
        "pg_catalog.pg_logical_emit_message(false, 'logweir', '')"
    };
    let rows = connection.query(&format!("SELECT {end}")).await?;
    number(&rows, 0, 0).ok_or_else(|| Error::corrupt("the server did not say where its log ends"))
}

/// A number in an answer.
pub(crate) fn number<T: std::str::FromStr>(rows: &Rows, row: usize, column: usize) -> Option<T> {
    rows.get(row, column).and_then(|text| text.parse().ok())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn facts(version: u32) -> Facts {
        Facts { version, in_recovery: false, wal_level: "logical".into(), money_scale: 2, block_size: 8192 }
    }

    #[test]
    fn statements_fit_the_version() {
        let mut options = PostgresOptions::new("h", "u", "d");
        options.slot = "weir".into();
        options.publication = "we'ir".into();
        options.streaming = Streaming::Parallel;
        options.origin = Origin::None;
        let start = |version| start_statement(&options, &facts(version), Lsn(0x1_0000_0010), true, true);
        assert_eq!(start(120_000), r#"START_REPLICATION SLOT "weir" LOGICAL 1/10 (proto_version '1', publication_names '"we''ir"')"#);
        assert!(start(140_001).contains("proto_version '2'") && start(140_001).contains("streaming 'on'"));
        assert!(start(150_001).contains("two_phase 'on'") && !start(150_001).contains("origin"));
        assert!(start(180_001).contains("streaming 'parallel'") && start(180_001).contains("origin 'none'"));
        let create = |version| {
            let options = SlotOptions { export_snapshot: true, two_phase: true, failover: true, temporary: false };
            create_slot_statement(&facts(version), "weir", options)
        };
        assert_eq!(create(140_000), r#"CREATE_REPLICATION_SLOT "weir" LOGICAL pgoutput EXPORT_SNAPSHOT"#);
        assert_eq!(
            create(170_000),
            r#"CREATE_REPLICATION_SLOT "weir" LOGICAL pgoutput (SNAPSHOT 'export', TWO_PHASE true, FAILOVER true)"#
        );
    }

    #[test]
    fn a_timeline_is_left_at_a_place() {
        let history = "1\t0/3000150\tno recovery target specified\n2\t0/5000000\tpromoted";
        assert_eq!(parse_history(history, 1), Some(Lsn(0x300_0150)));
        assert_eq!(parse_history(history, 2), Some(Lsn(0x500_0000)));
        assert_eq!(parse_history(history, 3), None);
        assert_eq!(parse_history("\\x3109302f3330303031353009", 1), Some(Lsn(0x300_0150)));
    }
}
