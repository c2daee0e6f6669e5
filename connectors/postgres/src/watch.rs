//! Watches how much of its log the server keeps for the slot, also while the reader waits: just then it grows. A slot that
//! nobody reads fills the server's disk; where a bound is set, the stream gives way before that happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use logweir_core::{Error, Result};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::options::PostgresOptions;
use crate::quote::literal;
use crate::slots::{START_ANEW, Slot};
use crate::wire::{Connection, Mode};

/// How often it is looked.
const INTERVAL: Duration = Duration::from_secs(10);
/// From this share of the bound on it is said, once in a while.
const WARN_PERCENT: u64 = 80;
const WARN_INTERVAL: Duration = Duration::from_secs(60);
/// How often it is tried to drop the slot, which is in use until its reader is gone, and how far apart.
const DROP_ATTEMPTS: usize = 50;
const DROP_INTERVAL: Duration = Duration::from_millis(200);
/// Longer than all attempts take.
const GIVE_UP_MAX: Duration = Duration::from_secs(20);

/// Watches for as long as the stream wants the slot, however often its reader begins anew meanwhile.
#[derive(Debug)]
pub(crate) struct Watcher {
    options: Arc<PostgresOptions>,
    task: JoinHandle<()>,
    detached: Detached,
}

impl Watcher {
    /// Begins, if there is a bound.
    pub(crate) fn start(options: &Arc<PostgresOptions>) -> Option<Self> {
        let bound = options.max_retained_wal?;
        let detached = Detached::default();
        let task = tokio::spawn(watch(Arc::clone(options), bound, detached.clone()));
        Some(Watcher { options: Arc::clone(options), task, detached })
    }

    pub(crate) fn detached(&self) -> Detached {
        self.detached.clone()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // What gives up a slot does so to the end.
        if self.detached.error(&self.options).is_none() {
            self.task.abort();
        }
    }
}

/// Whether the slot was given up.
#[derive(Debug, Clone, Default)]
pub(crate) struct Detached {
    given_up: Arc<AtomicBool>,
    /// The slot is gone, or could not be dropped.
    ended: Arc<AtomicBool>,
}

impl Detached {
    /// Waits, if the slot is being given up, until that is done: a process that ended before would leave it behind.
    pub(crate) async fn settled(&self) {
        let waiting = async {
            while self.given_up.load(Ordering::Acquire) && !self.ended.load(Ordering::Acquire) {
                sleep(DROP_INTERVAL / 4).await;
            }
        };
        let _ = timeout(GIVE_UP_MAX, waiting).await;
    }

    /// The error that ends the stream, if the slot was given up.
    pub(crate) fn error(&self, options: &PostgresOptions) -> Option<Error> {
        self.given_up.load(Ordering::Acquire).then(|| {
            Error::log_gone(
                "the stream gave up its replication slot, because the server had to keep more log for it than max_retained_wal allows",
            )
            .context("slot", &options.slot)
            .context("max_retained_wal", options.max_retained_wal.unwrap_or_default())
            .remedy(format!("see why the destination was behind; {START_ANEW}"))
        })
    }
}

/// Watches the slot for as long as it is not dropped; ends when the slot was given up.
async fn watch(options: Arc<PostgresOptions>, bound: u64, detached: Detached) {
    let mut connection = None;
    let mut warned: Option<Instant> = None;
    loop {
        sleep(INTERVAL).await;
        let retained = match retained(&options, &mut connection).await {
            Ok(Some((retained, _))) if retained < bound / 100 * WARN_PERCENT => continue,
            Ok(Some(found)) => found,
            Ok(None) => continue,
            Err(error) => {
                connection = None;
                tracing::debug!(error = error.report(), "could not look how much log the server keeps");
                continue;
            }
        };
        let (bytes, reader) = retained;
        if bytes <= bound {
            if warned.is_none_or(|warned| warned.elapsed() >= WARN_INTERVAL) {
                warned = Some(Instant::now());
                tracing::warn!(
                    slot = options.slot,
                    bytes,
                    max_retained_wal = bound,
                    "the server keeps nearly as much log for the slot as is allowed: a destination is behind"
                );
            }
            continue;
        }
        tracing::error!(
            slot = options.slot,
            bytes,
            max_retained_wal = bound,
            "giving up the replication slot, so that the server's disk does not fill"
        );
        detached.given_up.store(true, Ordering::Release);
        if let Some(connection) = &mut connection
            && let Err(error) = give_up(connection, &options, reader).await
        {
            tracing::error!(slot = options.slot, error = error.report(), "could not drop the replication slot: drop it by hand");
        }
        detached.ended.store(true, Ordering::Release);
        return;
    }
}

/// Bytes kept for the slot, and the process that reads it.
async fn retained(options: &PostgresOptions, connection: &mut Option<Connection>) -> Result<Option<(u64, Option<i32>)>> {
    let connection = match connection {
        Some(connection) => connection,
        none => none.insert(Connection::connect(options, Mode::Query).await?),
    };
    let slot = Slot::named(connection, &options.slot).await?;
    Ok(slot.map(|slot| (slot.retained, slot.active_pid)))
}

async fn give_up(connection: &mut Connection, options: &PostgresOptions, reader: Option<i32>) -> Result<()> {
    if let Some(reader) = reader {
        connection.query(&format!("SELECT pg_catalog.pg_terminate_backend({reader})")).await?;
    }
    let drop = format!("SELECT pg_catalog.pg_drop_replication_slot({})", literal(&options.slot));
    let mut result = Ok(());
    for _ in 0..DROP_ATTEMPTS {
        result = connection.query(&drop).await.map(|_| ());
        match &result {
            Err(error) if error.is_transient() => sleep(DROP_INTERVAL).await,
            _ => break,
        }
    }
    result
}
