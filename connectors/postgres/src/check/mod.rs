//! Looks for what would stop a stream later, or make it wrong, and says the statement that mends it.
//!
//! Only questions that any account may ask. What needs an administrator is told by what the server answers to the account
//! that will follow the log: the check is made as that account, and opens a replication connection to see that it can.

mod facts;
mod publication;
mod server;
mod slot;
mod tables;

use logweir_core::{Finding, LogMark, Result, Severity, TableFilter};

use crate::catalog::{self, Table};
use crate::options::PostgresOptions;
use crate::publication::Publication;
use crate::slots::Slot;
use crate::wire::{Connection, Mode};
use facts::Facts;

/// Names are listed up to this many, then counted.
const NAMES_MAX: usize = 5;

/// Statements are given for this many tables.
const STATEMENTS_MAX: usize = 100;

fn error(code: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { severity: Severity::Error, code, message: message.into(), remedy: remedy.into() }
}

fn warning(code: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { severity: Severity::Warning, code, message: message.into(), remedy: remedy.into() }
}

/// What is looked at.
struct Subject<'a> {
    options: &'a PostgresOptions,
    filter: &'a TableFilter,
    /// Where the stream goes on, if it has a checkpoint.
    resume: Option<&'a LogMark>,
    facts: Facts,
    /// All that the filter accepts, whether or not it can be followed.
    tables: Vec<Table>,
    publication: Option<Publication>,
    /// All slots of the server.
    slots: Vec<Slot>,
}

impl Subject<'_> {
    /// The stream's slot, if it is there.
    fn slot(&self) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.slot_name == self.options.slot)
    }
}

/// Looks at everything.
pub(crate) async fn check(options: &PostgresOptions, filter: &TableFilter, resume: Option<&LogMark>) -> Result<Vec<Finding>> {
    let mut connection = Connection::connect(options, Mode::Query).await?;
    let facts = Facts::learn(&mut connection, options).await?;
    if facts.version < Facts::VERSION_MIN {
        return Ok(vec![server::too_old(&facts)]);
    }
    let tables = catalog::tables(&mut connection, filter).await?;
    let publication = Publication::find(&mut connection, &options.publication).await?;
    let slots = Slot::all(&mut connection).await?;
    let subject = Subject { options, filter, resume, facts, tables, publication, slots };
    let mut findings = server::settings(&subject);
    findings.extend(server::privileges(&subject));
    let refused = server::replication_connection(&subject, &findings).await?;
    let may_read = refused.is_none() && findings.iter().all(|finding| finding.severity < Severity::Error);
    findings.extend(refused);
    // In the order in which they must be made.
    findings.extend(publication::check(&mut connection, &subject).await?);
    findings.extend(slot::check(&mut connection, &subject, may_read).await?);
    findings.extend(tables::check(&mut connection, &subject).await?);
    connection.close().await;
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Ok(findings)
}

fn list<T: AsRef<str>>(names: &[T]) -> String {
    let shown: Vec<&str> = names.iter().take(NAMES_MAX).map(AsRef::as_ref).collect();
    match names.len().checked_sub(NAMES_MAX) {
        Some(more) if more > 0 => format!("{} and {more} more", shown.join(", ")),
        _ => shown.join(", "),
    }
}

/// The names of tables, as people and patterns write them.
fn names(tables: &[&Table]) -> String {
    list(&tables.iter().map(|table| table.name.to_string()).collect::<Vec<_>>())
}

/// A statement for each table, or as many as somebody would run.
fn statements(tables: &[&Table], statement: impl Fn(&Table) -> String) -> String {
    let shown: Vec<String> = tables.iter().take(STATEMENTS_MAX).map(|table| statement(table)).collect();
    let more = if tables.len() > STATEMENTS_MAX { "; and so on" } else { "" };
    format!("run {}{more}", shown.join("; "))
}

/// The names of tables for a statement about all of them.
fn quoted(tables: &[&Table]) -> String {
    tables.iter().map(|table| table.quoted.as_str()).collect::<Vec<_>>().join(", ")
}

/// Bytes in a fitting unit: `1.5 GiB`.
fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut value = number as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit < UNITS.len() - 1 {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{number} bytes") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// Seconds in a fitting unit: `3 hours`.
fn span(seconds: u64) -> String {
    let (number, unit) = match seconds {
        0..=119 => (seconds, "seconds"),
        120..=7_199 => (seconds / 60, "minutes"),
        7_200..=172_799 => (seconds / 3_600, "hours"),
        _ => (seconds / 86_400, "days"),
    };
    format!("{number} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_cut() {
        assert_eq!(list(&["a", "b"]), "a, b");
        assert_eq!(list(&["a", "b", "c", "d", "e", "f", "g"]), "a, b, c, d, e and 2 more");
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!([100, 1536, 50 << 30].map(bytes), ["100 bytes", "1.5 KiB", "50.0 GiB"]);
        assert_eq!([90, 600, 10_000, 1_000_000].map(span), ["90 seconds", "10 minutes", "2 hours", "11 days"]);
    }
}
