//! What the server's settings say, and what our account may do.

use logweir_core::{ErrorKind, Finding, Result};

use super::facts::{Facts, Host};
use super::{Subject, error, span, warning};
use crate::options::{Origin, Streaming};
use crate::wire::{Connection, Mode, sqlstate};

/// A connection that is silent for longer than this is cut off by the server: too short to be an accident of the network only.
const SENDER_TIMEOUT_MS_MIN: u64 = 10_000;

pub(super) fn too_old(facts: &Facts) -> Finding {
    error(
        "version",
        format!("the server is of version {}, which is not supported", version(facts.version)),
        "upgrade it: versions from 12 on are supported",
    )
}

fn version(number: u32) -> String {
    if number < 100_000 {
        format!("{}.{}", number / 10_000, number / 100 % 100)
    } else {
        format!("{}.{}", number / 10_000, number % 10_000)
    }
}

/// What the server's settings say.
pub(super) fn settings(subject: &Subject<'_>) -> Vec<Finding> {
    let facts = &subject.facts;
    let mut findings = Vec::new();
    findings.extend(wal_level(facts));
    findings.extend(features(subject));
    findings.extend(room(subject));
    match facts.milliseconds("wal_sender_timeout") {
        Some(0) => findings.push(warning(
            "wal_sender_timeout",
            "wal_sender_timeout is 0: the server does not notice a connection that is gone, and keeps the slot in use for it for hours",
            facts.change("wal_sender_timeout", "60s"),
        )),
        Some(timeout) if timeout < SENDER_TIMEOUT_MS_MIN => findings.push(warning(
            "wal_sender_timeout",
            format!("wal_sender_timeout is {timeout} ms: the server cuts the connection off at the least delay"),
            facts.change("wal_sender_timeout", "60s"),
        )),
        _ => {}
    }
    if facts.setting("server_encoding") == Some("SQL_ASCII") {
        findings.push(warning(
            "server_encoding",
            "the database has the encoding SQL_ASCII: nobody has made sure that its text is UTF-8, and text that is not stops the stream",
            "convert the text to UTF-8 and move it to a database of that encoding, or exclude columns that hold other text",
        ));
    }
    if facts.in_recovery {
        findings.extend(standby(facts));
    }
    findings
}

fn wal_level(facts: &Facts) -> Option<Finding> {
    let level = facts.setting("wal_level")?;
    if level == "logical" {
        return None;
    }
    let remedy = match facts.host {
        Host::Rds | Host::Aurora => facts.change_and_restart("rds.logical_replication", "1"),
        Host::CloudSql => facts.change_and_restart("cloudsql.logical_decoding", "on"),
        Host::AlloyDb => facts.change_and_restart("alloydb.logical_decoding", "on"),
        Host::Neon => "enable logical replication in the project's settings".to_owned(),
        Host::Own | Host::Azure => facts.change_and_restart("wal_level", "logical"),
    };
    Some(error("wal_level", format!("wal_level is {level}: the log does not hold the rows that changed"), remedy))
}

/// What the configuration asks for and the server is too old to do.
fn features(subject: &Subject<'_>) -> Vec<Finding> {
    let options = subject.options;
    let wanted = [
        ("streaming: on", options.streaming == Streaming::On, 14, "streaming: off"),
        ("streaming: parallel", options.streaming == Streaming::Parallel, 16, "streaming: on"),
        ("two_phase: true", options.two_phase, 15, "two_phase: false"),
        ("origin: none", options.origin == Origin::None, 16, "origin: any"),
        ("failover: true", options.failover, 17, "failover: false"),
    ];
    let lacking = wanted.into_iter().filter(|(_, wanted, since, _)| *wanted && subject.facts.version < since * 10_000);
    lacking
        .map(|(what, _, since, instead)| {
            error(
                "version",
                format!("{what} needs PostgreSQL {since}; the server is of version {}", version(subject.facts.version)),
                format!("write {instead} in the source's profile"),
            )
        })
        .collect()
}

/// Whether there is room for our slot and our connection.
fn room(subject: &Subject<'_>) -> Vec<Finding> {
    let facts = &subject.facts;
    let mut findings = Vec::new();
    let slot = subject.slot();
    let slots_max = facts.number("max_replication_slots").and_then(|number| usize::try_from(number).ok());
    if let Some(max) = slots_max
        && slot.is_none()
        && subject.slots.len() >= max
    {
        let idle: Vec<&str> = subject.slots.iter().filter(|slot| !slot.active).map(|slot| slot.slot_name.as_str()).collect();
        let drop = match idle.first() {
            Some(name) => {
                format!(", or drop one that nobody needs: SELECT pg_drop_replication_slot('{name}') (not in use: {})", super::list(&idle))
            }
            None => String::new(),
        };
        findings.push(error(
            "max_replication_slots",
            format!("all {max} replication slots of the server are taken (max_replication_slots)"),
            format!("{}{drop}", facts.change_and_restart("max_replication_slots", &(max + 5).to_string())),
        ));
    }
    let senders_max = facts.number("max_wal_senders").and_then(|number| u64::try_from(number).ok());
    if let Some(max) = senders_max
        && !slot.is_some_and(|slot| slot.active)
        && facts.senders >= max
    {
        findings.push(error(
            "max_wal_senders",
            format!("all {max} connections for replication are taken (max_wal_senders)"),
            facts.change_and_restart("max_wal_senders", &(max + 5).to_string()),
        ));
    }
    findings
}

fn standby(facts: &Facts) -> Vec<Finding> {
    if facts.version < 160_000 {
        return vec![error(
            "standby",
            format!(
                "the server is a standby, which can have logical slots from version 16 on; it is of version {}",
                version(facts.version)
            ),
            "follow the primary instead",
        )];
    }
    if facts.is_on("hot_standby_feedback") {
        return Vec::new();
    }
    vec![warning(
        "hot_standby_feedback",
        "the server is a standby with hot_standby_feedback off: its primary may remove catalog rows that the slot needs, and the slot is \
         lost then",
        facts.change("hot_standby_feedback", "on"),
    )]
}

/// What the account may do.
pub(super) fn privileges(subject: &Subject<'_>) -> Vec<Finding> {
    let facts = &subject.facts;
    if facts.replication {
        return Vec::new();
    }
    let statement = match facts.host {
        Host::Rds | Host::Aurora => format!("GRANT rds_replication TO {}", facts.user),
        _ => format!("ALTER ROLE {} REPLICATION", facts.user),
    };
    vec![error(
        "privilege_replication",
        format!("the account {} may not read the log: REPLICATION is missing", facts.user),
        format!("run {statement}"),
    )]
}

/// Opens a connection for replication: poolers and access rules often let through only the others.
pub(super) async fn replication_connection(subject: &Subject<'_>, findings: &[Finding]) -> Result<Option<Finding>> {
    let known = |code: &str| findings.iter().any(|finding| finding.code == code);
    if known("privilege_replication") || known("max_wal_senders") {
        return Ok(None);
    }
    let failure = match Connection::connect(subject.options, Mode::Replication).await {
        Ok(mut connection) => {
            let answer = connection.query("IDENTIFY_SYSTEM").await;
            connection.close().await;
            match answer {
                Ok(_) => return Ok(None),
                Err(failure) => failure,
            }
        }
        Err(failure) => failure,
    };
    // The other connection was made a moment ago, so this is about replication, whatever it is.
    let remedy = match (failure.get_remedy(), failure.kind()) {
        (Some(remedy), _) => remedy.to_owned(),
        (None, ErrorKind::Denied) => format!(
            "add a line to pg_hba.conf that lets {} connect to the database {} and reload it",
            subject.facts.user, subject.facts.database
        ),
        _ => "connect to the server itself: a connection pooler or proxy in between does not pass on replication".to_owned(),
    };
    let said = match sqlstate(&failure) {
        Some(_) => failure.report().replacen(&format!("; {remedy}"), "", 1),
        None => failure.message().to_owned(),
    };
    Ok(Some(error("replication_connection", format!("a connection for replication was refused: {said}"), remedy)))
}

/// What may take a slot away by itself while the stream is down.
pub(super) fn bounds(facts: &Facts) -> Vec<Finding> {
    /// Log of a busy hour is more than this.
    const KEEP_BYTES_MIN: u64 = 1 << 30;
    /// A stream may be down for a weekend.
    const IDLE_MS_MIN: u64 = 3 * 86_400_000;
    let mut findings = Vec::new();
    if let Some(keep) = facts.size("max_slot_wal_keep_size").filter(|keep| *keep < KEEP_BYTES_MIN) {
        findings.push(warning(
            "max_slot_wal_keep_size",
            format!(
                "max_slot_wal_keep_size is {}: a stream that is down, or behind, while more than that is written loses its slot",
                super::bytes(keep)
            ),
            facts.change("max_slot_wal_keep_size", "50GB"),
        ));
    }
    if let Some(idle) = facts.milliseconds("idle_replication_slot_timeout").filter(|idle| (1..IDLE_MS_MIN).contains(idle)) {
        findings.push(warning(
            "idle_replication_slot_timeout",
            format!("idle_replication_slot_timeout is {}: a stream that is down for longer loses its slot", span(idle / 1000)),
            facts.change("idle_replication_slot_timeout", "0"),
        ));
    }
    findings
}
