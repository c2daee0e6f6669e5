//! What a server is, and where its log is: what is asked before the log is read.

use std::time::Duration;

use logweir_core::{Error, Result};

use crate::lsn::Lsn;
use crate::options::{Origin, PostgresOptions, Streaming};
use crate::quote::{identifier, literal};
use crate::types::Oid;
use crate::wire::{Connection, Rows};

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
    /// A walsender that hears nothing for so long hangs up; `None` if it never does.
    pub(crate) wal_sender_timeout: Option<Duration>,
}

/// Asks a server what it is.
pub(crate) async fn facts(connection: &mut Connection) -> Result<Facts> {
    let rows = connection
        .query(
            "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('wal_level'), \
             pg_catalog.scale('1'::pg_catalog.money::pg_catalog.numeric), pg_catalog.current_setting('block_size'), \
             (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout')",
        )
        .await?;
    Ok(Facts {
        version: connection.version(),
        in_recovery: rows.get(0, 0) == Some("t"),
        wal_level: rows.get(0, 1).unwrap_or_default().to_owned(),
        money_scale: number(&rows, 0, 2).unwrap_or(2),
        block_size: number(&rows, 0, 3).unwrap_or(8192),
        wal_sender_timeout: number(&rows, 0, 4).filter(|millis| *millis > 0).map(Duration::from_millis),
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

/// True if old rows of a table with `REPLICA IDENTITY FULL` are whole in the log. Those of its partitions are what each of these
/// says, whatever the table says.
pub(crate) async fn has_whole_rows(connection: &mut Connection, oid: Oid) -> Result<bool> {
    let rows = connection
        .query(&format!(
            "SELECT FROM pg_catalog.pg_partition_tree({oid}) AS t JOIN pg_catalog.pg_class AS c ON c.oid = t.relid \
             WHERE t.isleaf AND c.relreplident <> 'f' LIMIT 1"
        ))
        .await?;
    Ok(rows.is_empty())
}

/// The end of the log: a message is written there, so that it will be passed even if nothing else happens.
pub(crate) async fn reachable_end(connection: &mut Connection) -> Result<Lsn> {
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
        Facts { version, in_recovery: false, wal_level: "logical".into(), money_scale: 2, block_size: 8192, wal_sender_timeout: None }
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
