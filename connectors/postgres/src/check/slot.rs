//! What the slot says, and what stands in the way of making it.

use logweir_core::{Finding, Result, Severity};

use super::facts::Facts;
use super::{Subject, bytes, error, list, server, span, warning};
use crate::catalog::{ask, rows};
use crate::opening;
use crate::options::{PostgresOptions, Start};
use crate::quote::literal;
use crate::slots::{START_ANEW, Slot};
use crate::wire::Connection;

/// Slots of others that hold back less than this are no trouble.
const IDLE_BYTES_MIN: u64 = 256 << 20;

/// Transactions that are open for less than this end by themselves in time.
const TRANSACTION_SECONDS_MIN: u64 = 10;

/// What cannot be told an age by the clock has one in transactions begun after it.
const TRANSACTION_AGE_MIN: u32 = 10_000;

/// `may_read`: nothing that was found so far keeps the account from reading the log.
pub(super) async fn check(connection: &mut Connection, subject: &Subject<'_>, may_read: bool) -> Result<Vec<Finding>> {
    let (options, facts) = (subject.options, &subject.facts);
    let mut findings = match subject.slot() {
        Some(slot) => {
            let mut findings = existing(options, facts, slot);
            if subject.resume.is_none() && !is_unfit(&findings) {
                findings.extend(passed_start(options, slot));
            }
            if let Some(process) = slot.active_pid.filter(|_| slot.active) {
                findings.extend(in_use(connection, slot, process).await?);
            }
            findings
        }
        // It will not be made: what follows the checkpoint is lost with it.
        None if subject.resume.is_some() => Vec::new(),
        None => missing(connection, subject).await?,
    };
    if may_read {
        findings.extend(checkpoint(subject, &findings).await?);
    }
    findings.extend(server::bounds(facts));
    findings.extend(idle(subject));
    if options.failover && facts.version >= 170_000 && !facts.in_recovery {
        findings.extend(failover(facts));
    }
    Ok(findings)
}

/// Whether the stream can go on at its checkpoint.
async fn checkpoint(subject: &Subject<'_>, findings: &[Finding]) -> Result<Option<Finding>> {
    let Some(mark) = subject.resume else { return Ok(None) };
    // What the slot is lacking for whoever reads it has been said.
    if is_unfit(findings) {
        return Ok(None);
    }
    match opening::verify_mark(subject.options, mark, subject.slot()).await {
        Ok(()) => Ok(None),
        Err(failure) if failure.is_transient() => Err(failure),
        Err(failure) => Ok(Some(Finding::of_error(Severity::Error, Finding::CHECKPOINT, &failure, START_ANEW))),
    }
}

/// True if the slot can be read by nobody, or not by us, wherever it stands.
fn is_unfit(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| matches!(finding.code, "slot_plugin" | "slot_database" | "slot_lost"))
}

/// What a slot that is there says of itself.
fn existing(options: &PostgresOptions, facts: &Facts, slot: &Slot) -> Vec<Finding> {
    let name = &slot.slot_name;
    let drop = format!("SELECT pg_drop_replication_slot({})", literal(name));
    let mut findings = Vec::new();
    if slot.plugin.as_deref() != Some("pgoutput") {
        let kind =
            slot.plugin.as_deref().map_or_else(|| format!("a {} one", slot.slot_type), |plugin| format!("one of the plugin {plugin}"));
        findings.push(error(
            "slot_plugin",
            format!("the replication slot {name} is {kind}, not of pgoutput"),
            format!("choose another slot in the source's profile; or, if nobody needs it, run {drop}"),
        ));
        return findings;
    }
    if let Some(database) = slot.database.as_deref().filter(|database| *database != options.database) {
        findings.push(error(
            "slot_database",
            format!("the replication slot {name} is of the database {database}; a slot holds the changes of one"),
            "choose another slot in the source's profile",
        ));
        return findings;
    }
    if slot.is_lost() {
        let reason = match (slot.invalidation_reason.as_deref(), slot.wal_status.as_deref()) {
            (Some("wal_removed"), _) | (None, Some("lost")) => {
                "log that it needs was removed, because it held back more than max_slot_wal_keep_size"
            }
            (Some("rows_removed"), _) | (None, _) => "rows of the catalog that it needs were removed by its primary",
            (Some("wal_level_insufficient"), _) => "wal_level was not logical for a time",
            (Some("idle_timeout"), _) => "nobody read it for longer than idle_replication_slot_timeout",
            (Some(_), _) => "the server has invalidated it",
        };
        findings.push(error(
            "slot_lost",
            format!("the replication slot {name} can no longer be read: {reason}"),
            format!("run {drop}, then {START_ANEW}"),
        ));
        return findings;
    }
    if slot.two_phase != options.two_phase && facts.version >= 150_000 {
        let (has, remedy) = if slot.two_phase {
            ("was made with two_phase, and the source's profile is without", "write two_phase: true in the source's profile".to_owned())
        } else {
            (
                "was made without two_phase, and the source's profile asks for it",
                format!(
                    "write two_phase: false in the source's profile, or let the stream catch up and run {drop}, so that it is made anew"
                ),
            )
        };
        findings.push(warning("slot_two_phase", format!("the replication slot {name} {has}"), remedy));
    }
    if options.failover && !slot.failover && facts.version >= 170_000 {
        findings.push(warning(
            "slot_failover",
            format!("the replication slot {name} is not kept in step on standbys, although the source's profile says failover: true"),
            format!(
                "run over a connection for replication (psql \"dbname={} replication=database\"): ALTER_REPLICATION_SLOT {name} (FAILOVER true)",
                options.database
            ),
        ));
    }
    findings.extend(retention(options, facts, slot));
    findings
}

/// Whether the slot still has what the configured start asks for.
fn passed_start(options: &PostgresOptions, slot: &Slot) -> Option<Finding> {
    let Start::Lsn(start) = options.start else { return None };
    let passed = slot.confirmed_flush_lsn.filter(|passed| *passed > start)?;
    Some(error(
        "start",
        format!("the replication slot {} has passed the configured start {start}: it stands at {passed}", slot.slot_name),
        format!("write start: earliest, or start: {{ lsn: \"{passed}\" }} or greater"),
    ))
}

/// How near the slot is to losing what it needs.
fn retention(options: &PostgresOptions, facts: &Facts, slot: &Slot) -> Vec<Finding> {
    let name = &slot.slot_name;
    let mut findings = Vec::new();
    if slot.wal_status.as_deref() == Some("unreserved") {
        findings.push(warning(
            "slot_unreserved",
            format!("the replication slot {name} is about to be lost: it needs log that the server removes at its next checkpoint"),
            format!("start the stream at once; {}", facts.change("max_slot_wal_keep_size", "-1")),
        ));
    } else if let (Some(keep), Some(safe)) = (facts.size("max_slot_wal_keep_size"), slot.safe_wal_size) {
        let safe = u64::try_from(safe).unwrap_or(0);
        if safe < keep / 2 {
            findings.push(warning(
                "max_slot_wal_keep_size",
                format!(
                    "the replication slot {name} holds back {} of log and is lost when {} more are written (max_slot_wal_keep_size is {})",
                    bytes(slot.retained),
                    bytes(safe),
                    bytes(keep)
                ),
                format!(
                    "start the stream, or raise the bound: {}",
                    facts.change("max_slot_wal_keep_size", &format!("{}MB", (keep >> 20) * 2))
                ),
            ));
        }
    }
    if let Some(max) = options.max_retained_wal {
        let message = format!("the replication slot {name} holds back {} of log; max_retained_wal is {}", bytes(slot.retained), bytes(max));
        if slot.retained >= max {
            findings.push(error(
                "max_retained_wal",
                format!("{message}: the stream gives it up"),
                "raise max_retained_wal in the source's profile, or begin anew: logweir drop, then a start with backfill: all",
            ));
        } else if slot.retained >= max / 10 * 8 {
            findings.push(warning("max_retained_wal", message, "start the stream, or raise max_retained_wal in the source's profile"));
        }
    }
    findings
}

/// Who reads the slot, if it is not us.
async fn in_use(connection: &mut Connection, slot: &Slot, process: i32) -> Result<Option<Finding>> {
    const ABOUT: &str = "who reads the slot";
    let sql = format!("SELECT application_name, usename FROM pg_catalog.pg_stat_activity WHERE pid = {process}");
    let answer = ask(connection, ABOUT, &sql).await?;
    // It has ended meanwhile.
    let Some(row) = rows(&answer, ABOUT).next() else { return Ok(None) };
    let (application, user) = (row.get(0).unwrap_or_default(), row.get(1).unwrap_or_default());
    let message = format!("the replication slot {} is read by process {process} ({application}, user {user})", slot.slot_name);
    let terminate = format!("if it is a connection that is gone, run SELECT pg_terminate_backend({process})");
    Ok(Some(if application.starts_with("logweir") {
        warning("slot_active", message, format!("none if that is this stream; a second process must not read it; {terminate}"))
    } else {
        error("slot_active", message, format!("stop that program, or choose another slot in the source's profile; {terminate}"))
    }))
}

/// What stands in the way of a slot that is not there.
async fn missing(connection: &mut Connection, subject: &Subject<'_>) -> Result<Vec<Finding>> {
    let (options, facts) = (subject.options, &subject.facts);
    let mut findings = Vec::new();
    if !options.create {
        let arguments = match facts.version {
            170_000.. if options.failover => format!(", false, {}, true", options.two_phase),
            150_000.. if options.two_phase => ", false, true".to_owned(),
            _ => String::new(),
        };
        findings.push(error(
            "slot",
            format!("there is no replication slot {}, and create is false", options.slot),
            format!("run SELECT pg_create_logical_replication_slot({}, 'pgoutput'{arguments})", literal(&options.slot)),
        ));
    }
    if let Start::Lsn(start) = options.start {
        findings.push(error(
            "start",
            format!("there is no replication slot {}: one that is made now begins now, not at the configured start {start}", options.slot),
            "write start: now, with backfill: all for the rows that are there",
        ));
    }
    if facts.in_recovery && facts.version >= 160_000 {
        findings.push(warning(
            "standby",
            "the server is a standby: making the slot waits until its primary writes what transactions are running",
            "run SELECT pg_log_standby_snapshot() on the primary while the stream starts",
        ));
    }
    findings.extend(transactions(connection).await?);
    Ok(findings)
}

/// Transactions that the making of a slot waits for.
async fn transactions(connection: &mut Connection) -> Result<Vec<Finding>> {
    const ABOUT: &str = "transactions that are open";
    let sql = format!(
        "SELECT pid, pg_catalog.floor(extract(epoch FROM pg_catalog.now() - xact_start))::pg_catalog.int8 FROM pg_catalog.pg_stat_activity \
         WHERE backend_xid IS NOT NULL AND pid <> pg_catalog.pg_backend_pid() \
         AND (xact_start < pg_catalog.now() - interval '{TRANSACTION_SECONDS_MIN} seconds' \
         OR xact_start IS NULL AND pg_catalog.age(backend_xid) > {TRANSACTION_AGE_MIN}) ORDER BY xact_start"
    );
    let answer = ask(connection, ABOUT, &sql).await?;
    let mut processes = Vec::new();
    let mut shown = Vec::new();
    for row in rows(&answer, ABOUT) {
        let process = row.text(0)?;
        let age = row.optional_number::<u64>(1)?.map(|seconds| format!(" (for {})", span(seconds))).unwrap_or_default();
        shown.push(format!("{process}{age}"));
        processes.push(process.to_owned());
    }
    let mut findings = Vec::new();
    if let Some(first) = processes.first() {
        findings.push(warning(
            "long_transaction",
            format!("making the replication slot waits for transactions that are open, of the processes {}", list(&shown)),
            format!("let them end, or run SELECT pg_terminate_backend({first})"),
        ));
    }
    let sql = format!(
        "SELECT gid, pg_catalog.floor(extract(epoch FROM pg_catalog.now() - prepared))::pg_catalog.int8 FROM pg_catalog.pg_prepared_xacts \
         WHERE prepared < pg_catalog.now() - interval '{TRANSACTION_SECONDS_MIN} seconds' ORDER BY prepared"
    );
    let answer = ask(connection, ABOUT, &sql).await?;
    let mut shown = Vec::new();
    for row in rows(&answer, ABOUT) {
        shown.push(format!("{} (for {})", literal(row.text(0)?), span(row.number(1)?)));
    }
    if let Some(row) = rows(&answer, ABOUT).next() {
        findings.push(warning(
            "long_transaction",
            format!("making the replication slot waits for prepared transactions: {}", list(&shown)),
            format!("finish them: run COMMIT PREPARED {0} or ROLLBACK PREPARED {0}", literal(row.text(0)?)),
        ));
    }
    Ok(findings)
}

/// Slots of others that hold log back and that nobody reads.
fn idle(subject: &Subject<'_>) -> Option<Finding> {
    let idle = |slot: &&Slot| {
        !slot.active && !slot.temporary && slot.slot_name != subject.options.slot && !slot.is_lost() && slot.retained >= IDLE_BYTES_MIN
    };
    let slots: Vec<&Slot> = subject.slots.iter().filter(idle).collect();
    if slots.is_empty() {
        return None;
    }
    let shown: Vec<String> = slots.iter().map(|slot| format!("{} ({})", slot.slot_name, bytes(slot.retained))).collect();
    let drops: Vec<String> = slots.iter().map(|slot| format!("SELECT pg_drop_replication_slot({})", literal(&slot.slot_name))).collect();
    Some(warning(
        "slots_idle",
        format!("replication slots that nobody reads hold back log, until the server's disk is full: {}", list(&shown)),
        format!("start what reads them; or, for those that nobody needs, run {}", drops.join("; ")),
    ))
}

/// What a slot that outlives a failover needs beside itself. What is set on the standbys cannot be seen from here.
fn failover(facts: &Facts) -> Option<Finding> {
    let listed = facts.setting("synchronized_standby_slots").is_some_and(|slots| !slots.trim().is_empty());
    (!listed).then(|| {
        warning(
            "failover_standbys",
            "synchronized_standby_slots is empty: the stream may read changes that the standby does not have that takes over, and the slot \
             there may lie behind what was landed",
            format!(
                "{} with the slots that the standbys follow through; and on each standby set sync_replication_slots = on, \
                 hot_standby_feedback = on, primary_slot_name, and dbname in primary_conninfo",
                facts.change("synchronized_standby_slots", "slot_of_the_standby")
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::facts::Host;
    use super::*;
    use crate::lsn::Lsn;

    fn slot() -> Slot {
        Slot {
            slot_name: "logweir_shop".into(),
            plugin: Some("pgoutput".into()),
            slot_type: "logical".into(),
            database: Some("shop".into()),
            restart_lsn: Some(Lsn(0x100)),
            confirmed_flush_lsn: Some(Lsn(0x200)),
            wal_status: Some("reserved".into()),
            retained: 40 << 30,
            ..Slot::default()
        }
    }

    fn codes(slot: &Slot, change: impl FnOnce(&mut PostgresOptions)) -> Vec<&'static str> {
        let mut options = PostgresOptions::new("db", "weir", "shop");
        change(&mut options);
        let facts = Facts::of(180_001, Host::Own, &[("max_slot_wal_keep_size", "51200", "MB")]);
        existing(&options, &facts, slot).into_iter().chain(passed_start(&options, slot)).map(|finding| finding.code).collect()
    }

    #[test]
    fn a_slot_in_order_has_no_finding() {
        assert!(codes(&slot(), |_| {}).is_empty());
    }

    #[test]
    fn what_a_slot_can_be_out_of_order_in() {
        let with = |change: fn(&mut Slot)| {
            let mut slot = slot();
            change(&mut slot);
            codes(&slot, |_| {})
        };
        assert_eq!(with(|slot| slot.plugin = Some("wal2json".into())), ["slot_plugin"]);
        assert_eq!(with(|slot| slot.plugin = None), ["slot_plugin"]);
        assert_eq!(with(|slot| slot.database = Some("other".into())), ["slot_database"]);
        assert_eq!(with(|slot| slot.wal_status = Some("lost".into())), ["slot_lost"]);
        assert_eq!(with(|slot| slot.invalidation_reason = Some("idle_timeout".into())), ["slot_lost"]);
        assert_eq!(with(|slot| slot.conflicting = Some(true)), ["slot_lost"]);
        assert_eq!(with(|slot| slot.wal_status = Some("unreserved".into())), ["slot_unreserved"]);
        assert_eq!(with(|slot| slot.safe_wal_size = Some(10 << 30)), ["max_slot_wal_keep_size"]);
        assert_eq!(with(|slot| slot.two_phase = true), ["slot_two_phase"]);
        assert!(with(|slot| slot.failover = true).is_empty(), "kept in step without our asking is fine");
    }

    #[test]
    fn what_the_configuration_asks_of_a_slot() {
        assert_eq!(codes(&slot(), |options| options.failover = true), ["slot_failover"]);
        assert_eq!(codes(&slot(), |options| options.two_phase = true), ["slot_two_phase"]);
        assert_eq!(codes(&slot(), |options| options.start = Start::Lsn(Lsn(0x1ff))), ["start"]);
        assert!(codes(&slot(), |options| options.start = Start::Lsn(Lsn(0x200))).is_empty());
        assert_eq!(codes(&slot(), |options| options.max_retained_wal = Some(41 << 30)), ["max_retained_wal"]);
        assert_eq!(codes(&slot(), |options| options.max_retained_wal = Some(40 << 30)), ["max_retained_wal"]);
        assert!(codes(&slot(), |options| options.max_retained_wal = Some(60 << 30)).is_empty());
    }
}
