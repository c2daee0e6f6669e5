//! Compaction of what streams have landed: asked for, or from time to time.

use std::sync::Arc;
use std::time::Duration;

use logweir_core::{Clock as _, ConsumerName, Pattern, RelationName, Result, SystemClock, TimestampMicros};
use logweir_files::compact::{Compacted, Compaction, CompactionLimits};
use logweir_runtime::checkpoint::CheckpointDocument;
use logweir_sql::References;
use tokio::task::JoinSet;

use crate::config::{Destination, Loaded};
use crate::landed;

/// Keys may take this part of the memory.
const MEMORY_FRACTION: usize = 4;

/// What became of each table.
pub(crate) type Tables = Vec<(RelationName, Result<Compacted>)>;

/// Compacts the tables of a destination, those that fit `wanted`. Changes that were committed in the last `keep` stay as they are. No tables if
/// nothing was landed yet.
pub(crate) async fn compact(
    loaded: &Loaded,
    name: &str,
    destination: &Destination,
    wanted: Option<&Pattern>,
    keep: Option<Duration>,
) -> Result<Tables> {
    let stream = loaded.stream(name)?;
    // Read before the files are listed: what it says is visible for good.
    let Some(document) = loaded.state(name)?.peek().await? else { return Ok(Vec::new()) };
    let document = CheckpointDocument::from_bytes(&document)?;
    let Some(part) = document.consumers.get(destination.name()) else { return Ok(Vec::new()) };
    let before = keep.map(|keep| {
        let keep = i64::try_from(keep.as_micros()).unwrap_or(i64::MAX);
        TimestampMicros(SystemClock.now().0.saturating_sub(keep))
    });
    let limits = CompactionLimits { through: part.visible(), before };
    // Names alone are asked for.
    let none = References::none();
    let by_stream = landed::tables(loaded, stream, &document, &none)?;
    let mut tables: Vec<RelationName> = landed::in_destination(loaded, stream, destination, &by_stream, &none)?
        .into_iter()
        .map(|landed| landed.name)
        .filter(|table| wanted.is_none_or(|wanted| wanted.matches(&table.to_string())))
        .collect();
    tables.sort();
    tables.dedup();
    let consumer = ConsumerName { stream: name.to_owned(), destination: destination.name().to_owned() };
    let memory = usize::try_from(loaded.config().memory.0).unwrap_or(usize::MAX) / MEMORY_FRACTION;
    let compaction = Compaction::open(loaded.files_options(name, destination)?, &consumer, memory).await?;
    let mut became = Vec::with_capacity(tables.len());
    for table in tables {
        let compacted = compaction.table(&table, limits).await;
        became.push((table, compacted));
    }
    Ok(became)
}

/// Compacts the destinations of a stream that ask for it, each in its own time, until the tasks are dropped.
pub(crate) fn schedule(loaded: &Arc<Loaded>, name: &str, tasks: &mut JoinSet<()>) -> Result<()> {
    for (index, destination) in loaded.stream(name)?.destinations.iter().enumerate() {
        let Some(compact) = destination.compact.clone() else { continue };
        let (loaded, name) = (Arc::clone(loaded), name.to_owned());
        tasks.spawn(async move {
            loop {
                tokio::time::sleep(compact.every.0).await;
                once(&loaded, &name, index, compact.keep.0).await;
            }
        });
    }
    Ok(())
}

async fn once(loaded: &Loaded, name: &str, index: usize, keep: Duration) {
    let Some(destination) = loaded.stream(name).ok().and_then(|stream| stream.destinations.get(index)) else { return };
    let to = destination.name();
    let tables = match compact(loaded, name, destination, None, Some(keep)).await {
        Ok(tables) => tables,
        Err(error) => {
            tracing::warn!(stream = name, destination = to, error = %error.report(), "the files could not be compacted");
            return;
        }
    };
    for (table, compacted) in tables {
        match compacted {
            Ok(Compacted::Replaced { from, to: became }) => tracing::info!(
                stream = name,
                destination = to,
                %table,
                files = from.files,
                rows = from.rows,
                bytes = from.bytes,
                files_now = became.files,
                rows_now = became.rows,
                bytes_now = became.bytes,
                "files were compacted"
            ),
            Ok(Compacted::AsItIs) => {}
            Ok(Compacted::Not(reason)) => tracing::debug!(stream = name, destination = to, %table, reason, "a table is not compacted"),
            Err(error) => {
                tracing::warn!(stream = name, destination = to, %table, error = %error.report(), "the files of a table could not be compacted");
            }
        }
    }
}
