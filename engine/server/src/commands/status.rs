//! `logweir status`: what each stream has landed and how fresh it is, from its checkpoint and from a running process.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use logweir_core::{BackfillProgress, Clock as _, ErrorKind, OpenTransaction, Result, SystemClock};
use logweir_runtime::checkpoint::CheckpointDocument;
use serde::Serialize;

use crate::cli::TextOrJson;
use crate::config::Loaded;
use crate::failure::Failure;
use crate::live::{self, Process};
use crate::tail::extent;
use crate::text::{bytes, count, print, span, table, time};

/// The whole answer; stable.
#[derive(Debug, Serialize)]
struct Status {
    /// The process that answers at `http.listen`, if any.
    pid: Option<u32>,
    streams: Vec<StreamStatus>,
}

#[derive(Debug, Serialize)]
struct StreamStatus {
    stream: String,
    /// The state a running process gives, else `offline` (a checkpoint and no process that answers) or `not_started`.
    state: String,
    error: Option<String>,
    /// Where the checkpoint is.
    checkpoint: String,
    /// How far a running process has read.
    read_position: Option<String>,
    /// Bytes of log that the source keeps for the stream and could drop otherwise, as a running process has learned.
    source_retained_bytes: Option<u64>,
    /// Transactions that were read and are not decided, as a running process says.
    open_transactions: Vec<OpenTransaction>,
    /// How far the reading of the rows is that were there before the log, as a running process says, or the checkpoint.
    backfill: Option<BackfillProgress>,
    /// What is kept on disk of the changes; `None` if nothing is.
    change_log: Option<ChangeLogStatus>,
    destinations: Vec<DestinationStatus>,
    tables: Vec<TableStatus>,
}

#[derive(Debug, Serialize)]
struct ChangeLogStatus {
    directory: String,
    /// The store that has it, too; `None` if none does.
    url: Option<String>,
    bytes: u64,
    /// The oldest place that a destination can be given again, and the commit time there.
    first_position: String,
    first_commit_time: Option<String>,
    last_position: String,
    last_commit_time: Option<String>,
    /// A running process says that it keeps all it may and waits for a destination.
    full: bool,
}

#[derive(Debug, Serialize)]
struct DestinationStatus {
    destination: String,
    /// What it alone has failed with, as a running process says; `null` while it works.
    error: Option<String>,
    /// True if it is not tried again before the stream is started anew.
    failed: bool,
    /// Everything at or before it is visible.
    position: String,
    /// What the source calls the place.
    offset: serde_json::Value,
    epoch: u64,
    /// Commit time of the newest visible change.
    commit_time: Option<String>,
    /// Now minus `commit_time`.
    freshness_seconds: Option<f64>,
    /// What it is made of, as a running process says: `read`, `transform`, `write` and `commit`.
    lag_seconds: Option<BTreeMap<String, f64>>,
    /// When the checkpoint was made.
    checkpoint_time: Option<String>,
    rows_landed: u64,
    /// Files that were decided and are made visible by the running process or the next start.
    staged: usize,
}

#[derive(Debug, Serialize)]
struct TableStatus {
    table: String,
    /// Of a table of the source; `None`, like what follows, of one that a transform makes.
    version: Option<u32>,
    columns: Option<usize>,
    key: Vec<String>,
    /// Rows visible, by destination.
    rows_landed: BTreeMap<String, u64>,
}

/// Runs the command.
pub(crate) async fn run(loaded: &Loaded, format: TextOrJson) -> Result<ExitCode, Failure> {
    let process = match &loaded.config().http {
        Some(http) => Process::ask(http.listen).await,
        None => None,
    };
    let mut streams = Vec::new();
    for name in loaded.config().streams.keys() {
        streams.push(observe(loaded, &name.0, process.as_ref()).await?);
    }
    let status = Status { pid: process.as_ref().map(|process| process.pid), streams };
    match format {
        TextOrJson::Json => {
            let text = serde_json::to_string_pretty(&status)
                .map_err(|error| logweir_core::Error::internal("could not write the status as JSON").source(error))?;
            print(&format!("{text}\n"))?;
        }
        TextOrJson::Text => print(&render(&status, loaded.config().http.is_some()))?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn observe(loaded: &Loaded, name: &str, process: Option<&Process>) -> Result<StreamStatus> {
    let state = loaded.state(name)?;
    let checkpoint = state.location();
    let document = match state.peek().await? {
        Some(bytes) => Some(CheckpointDocument::from_bytes(&bytes).map_err(|error| error.context("checkpoint", &checkpoint))?),
        None => None,
    };
    let live = process.and_then(|process| process.stream(name));
    let word = |key: &str| live.and_then(|live| live[key].as_str()).map(str::to_owned);
    let offline = if document.is_some() { "offline" } else { "not_started" };
    let (mut destinations, tables) = document.as_ref().map(of_document).unwrap_or_default();
    for destination in &mut destinations {
        if let Some(consumer) = live.and_then(|live| live::consumer(live, &destination.destination)) {
            destination.lag_seconds = live::lag_seconds(consumer);
            destination.error = consumer["error"].as_str().map(str::to_owned);
            destination.failed = consumer["failed"].as_bool().unwrap_or(false);
        }
    }
    let full = live.is_some_and(|live| live["change_log"]["full"].as_bool().unwrap_or(false));
    let backfill = match live.and_then(|live| serde_json::from_value(live["backfill"].clone()).ok()) {
        Some(backfill) => Some(backfill),
        None => match document.as_ref().and_then(CheckpointDocument::resume) {
            Some(mark) => loaded.backfill(name, mark).map_err(|error| error.context("checkpoint", &checkpoint))?,
            None => None,
        },
    };
    let (change_log, damage) = match change_log(loaded, name, full).await {
        Err(error) if error.kind() == ErrorKind::Corrupt => (None, Some(error.report())),
        change_log => (change_log?, None),
    };
    Ok(StreamStatus {
        stream: name.to_owned(),
        state: word("state").unwrap_or_else(|| offline.to_owned()),
        error: word("error").or(damage),
        checkpoint,
        read_position: word("position"),
        open_transactions: live.map(live::open_transactions).unwrap_or_default(),
        source_retained_bytes: live.and_then(|live| live["source_retained_bytes"].as_u64()),
        backfill,
        change_log,
        destinations,
        tables,
    })
}

/// What lies in the change log's directory, or its store: as with the files, whoever wants to know looks there.
async fn change_log(loaded: &Loaded, name: &str, full: bool) -> Result<Option<ChangeLogStatus>> {
    let Some(log) = loaded.change_log(name)? else { return Ok(None) };
    Ok(extent(&log).await?.map(|extent| ChangeLogStatus {
        directory: log.segments.directory.display().to_string(),
        url: loaded.change_log_url(name).map(str::to_owned),
        bytes: extent.bytes,
        first_position: extent.first.position.to_string(),
        first_commit_time: extent.first.commit_time.map(time),
        last_position: extent.last.position.to_string(),
        last_commit_time: extent.last.commit_time.map(time),
        full,
    }))
}

fn of_document(document: &CheckpointDocument) -> (Vec<DestinationStatus>, Vec<TableStatus>) {
    let now = SystemClock.now();
    let destinations = document
        .consumers
        .iter()
        .map(|(name, consumer)| DestinationStatus {
            destination: name.clone(),
            error: None,
            failed: false,
            position: consumer.mark.position.to_string(),
            offset: consumer.mark.offset.0.clone(),
            epoch: consumer.epoch,
            commit_time: consumer.mark.commit_time.map(time),
            lag_seconds: None,
            freshness_seconds: consumer.mark.commit_time.map(|commit_time| now.since(commit_time).as_secs_f64()),
            checkpoint_time: consumer.decided_at.map(time),
            rows_landed: consumer.rows.values().sum(),
            staged: consumer.staged.len(),
        })
        .collect();
    let mut tables: Vec<TableStatus> = Vec::new();
    for relation in &document.relations {
        let name = relation.name().to_string();
        // Several versions may still be met; the last one is the newest.
        tables.retain(|table| table.table != name);
        let rows =
            document.consumers.iter().map(|(consumer, checkpoint)| (consumer.clone(), checkpoint.rows.get(&name).copied().unwrap_or(0)));
        tables.push(TableStatus {
            version: Some(relation.version()),
            columns: Some(relation.columns().len()),
            key: match relation.key_declared() {
                true => relation.key().iter().map(|&i| relation.columns()[i].name().to_owned()).collect(),
                false => Vec::new(),
            },
            rows_landed: rows.collect(),
            table: name,
        });
    }
    let landed: BTreeSet<&String> = document.consumers.values().flat_map(|consumer| consumer.rows.keys()).collect();
    for name in landed {
        if tables.iter().all(|table| table.table != *name) {
            let rows =
                document.consumers.iter().map(|(consumer, checkpoint)| (consumer.clone(), checkpoint.rows.get(name).copied().unwrap_or(0)));
            tables.push(TableStatus { table: name.clone(), version: None, columns: None, key: Vec::new(), rows_landed: rows.collect() });
        }
    }
    tables.sort_by(|a, b| a.table.cmp(&b.table));
    (destinations, tables)
}

fn render(status: &Status, http: bool) -> String {
    let mut text = String::new();
    for stream in &status.streams {
        text.push_str(&format!("stream {}: {}", stream.stream, stream.state.replace('_', " ")));
        text.push_str(&match (status.pid, http) {
            (Some(pid), _) => format!(" (process {pid})"),
            (None, true) => " (no process answers at http.listen)".to_owned(),
            (None, false) => " (without `http` in the configuration a running process cannot be asked)".to_owned(),
        });
        text.push('\n');
        if let Some(error) = &stream.error {
            text.push_str(&format!("  error: {error}\n"));
        }
        text.push_str(&format!("  checkpoint: {}\n", stream.checkpoint));
        if let Some(retained) = stream.source_retained_bytes {
            text.push_str(&format!("  log that the source keeps for it: {}\n", bytes(retained)));
        }
        if let Some(backfill) = &stream.backfill {
            text.push_str(&format!("  backfill: {}\n", reading(backfill)));
        }
        if let Some(log) = &stream.change_log {
            let since = log.first_commit_time.as_ref().map(|time| format!(", since {time}")).unwrap_or_default();
            let full = if log.full { "; full: it waits for the slowest destination" } else { "" };
            let place = log.url.as_ref().map(|url| format!(" in {url}")).unwrap_or_default();
            text.push_str(&format!("  change log: {}{place}{since}{full}\n", bytes(log.bytes)));
        }
        if !stream.open_transactions.is_empty() {
            let open = &stream.open_transactions;
            let prepared = open.iter().filter(|transaction| transaction.prepared).count();
            let kept = open.iter().map(|transaction| transaction.bytes).sum();
            let words = format!("{} ({} prepared), {}", count(open.len() as u64), count(prepared as u64), bytes(kept));
            text.push_str(&format!("  transactions that are not decided: {words}\n"));
        }
        if stream.destinations.is_empty() {
            continue;
        }
        for destination in &stream.destinations {
            if let Some(error) = &destination.error {
                let word = if destination.failed { "has failed" } else { "is tried again" };
                text.push_str(&format!("  destination {} {word}: {error}\n", destination.destination));
            }
        }
        let mut destinations = table(["destination", "rows landed", "newest visible change", "freshness", "checkpoint made", "offset"]);
        for destination in &stream.destinations {
            let freshness = destination.freshness_seconds.map(|seconds| span(std::time::Duration::from_secs_f64(seconds)));
            let place = destination.offset.get("file").zip(destination.offset.get("position"));
            let lsn = destination.offset.get("lsn").and_then(serde_json::Value::as_str);
            let place = match (place, lsn) {
                (Some((file, position)), _) => format!("{}:{position}", file.as_str().unwrap_or_default()),
                (None, Some(lsn)) => lsn.to_owned(),
                (None, None) => destination.position.clone(),
            };
            destinations.add_row([
                destination.destination.clone(),
                count(destination.rows_landed),
                destination.commit_time.clone().unwrap_or_else(|| "none yet".to_owned()),
                freshness.unwrap_or_default(),
                destination.checkpoint_time.clone().unwrap_or_default(),
                place,
            ]);
        }
        text.push_str(&format!("\n{destinations}\n\n"));
        for destination in &stream.destinations {
            if let Some(lag) = &destination.lag_seconds {
                let step = |name: &str| span(std::time::Duration::from_secs_f64(lag.get(name).copied().unwrap_or(0.0).max(0.0)));
                let steps = ["read", "transform", "write", "commit"].map(|name| format!("{name} {}", step(name))).join(", ");
                text.push_str(&format!("{} is behind by: {steps}\n\n", destination.destination));
            }
        }
        let mut tables = table(["table", "version", "columns", "key", "rows landed"]);
        for table in &stream.tables {
            let rows: Vec<String> = match table.rows_landed.len() {
                1 => table.rows_landed.values().map(|rows| count(*rows)).collect(),
                _ => table.rows_landed.iter().map(|(destination, rows)| format!("{destination} {}", count(*rows))).collect(),
            };
            tables.add_row([
                table.table.clone(),
                table.version.map(|version| version.to_string()).unwrap_or_default(),
                table.columns.map(|columns| columns.to_string()).unwrap_or_default(),
                table.key.join(", "),
                rows.join(", "),
            ]);
        }
        text.push_str(&format!("{tables}\n"));
    }
    text
}

/// `1 of 3 tables read, 120,000 rows; under way: shop.orders 42% (80,000 rows)`.
fn reading(backfill: &BackfillProgress) -> String {
    /// Tables are listed up to this many, then counted.
    const TABLES_MAX: usize = 10;
    let rows = count(backfill.rows_read);
    if backfill.complete {
        return format!("complete, {} tables, {rows} rows", count(backfill.tables));
    }
    let mut text = format!("{} of {} tables read, {rows} rows", count(backfill.tables_read), count(backfill.tables));
    let shown: Vec<String> = backfill
        .under_way
        .iter()
        .take(TABLES_MAX)
        .map(|table| format!("{} {:.0}% ({} rows)", table.table, (table.share() * 100.0).floor(), count(table.rows_read)))
        .collect();
    if !shown.is_empty() {
        text.push_str(&format!("; under way: {}", shown.join(", ")));
    }
    if let Some(more @ 1..) = backfill.under_way.len().checked_sub(TABLES_MAX) {
        text.push_str(&format!(" and {} more", count(more as u64)));
    }
    text
}

#[cfg(test)]
mod tests {
    use logweir_core::TableBackfill;

    use super::*;

    #[test]
    fn a_backfill_reads_well() {
        let table = |i: u64| TableBackfill { table: format!("shop.t{i}"), rows_read: i * 1000, chunks_read: i, chunks: 7 };
        let mut backfill =
            BackfillProgress { complete: false, tables: 1200, tables_read: 3, rows_read: 81_000, under_way: vec![table(1), table(6)] };
        assert_eq!(
            reading(&backfill),
            "3 of 1,200 tables read, 81,000 rows; under way: shop.t1 14% (1,000 rows), shop.t6 85% (6,000 rows)"
        );
        backfill.under_way = (0..12).map(table).collect();
        assert!(reading(&backfill).ends_with("shop.t9 100% (9,000 rows) and 2 more"), "{}", reading(&backfill));
        backfill.complete = true;
        assert_eq!(reading(&backfill), "complete, 1,200 tables, 81,000 rows");
    }
}
