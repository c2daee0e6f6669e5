//! Writes a message into the log from time to time, which no table is needed for: proof that the log still arrives where nobody
//! changes anything, and a reason for the server to move a slot's beginning on.

use std::sync::Arc;
use std::time::Duration;

use logweir_core::Result;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::options::PostgresOptions;
use crate::server;
use crate::wire::{Connection, Mode};

/// A server that does not let us write messages is told of so often.
const WARN_INTERVAL: Duration = Duration::from_secs(600);

/// Beats until it is dropped.
#[derive(Debug)]
pub(crate) struct Heartbeat(JoinHandle<()>);

impl Heartbeat {
    /// Begins, if the options say so.
    pub(crate) fn start(options: &Arc<PostgresOptions>) -> Option<Self> {
        options.heartbeat.map(|interval| Heartbeat(tokio::spawn(beat(Arc::clone(options), interval))))
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn beat(options: Arc<PostgresOptions>, interval: Duration) {
    let mut connection = None;
    let mut warned: Option<Instant> = None;
    loop {
        sleep(interval).await;
        if let Err(error) = write(&options, &mut connection).await {
            connection = None;
            if warned.is_none_or(|warned| warned.elapsed() >= WARN_INTERVAL) {
                warned = Some(Instant::now());
                tracing::warn!(slot = options.slot, error = error.report(), "could not write a heartbeat into the server's log");
            }
        }
    }
}

async fn write(options: &PostgresOptions, connection: &mut Option<Connection>) -> Result<()> {
    let connection = match connection {
        Some(connection) => connection,
        none => none.insert(Connection::connect(options, Mode::Query).await?),
    };
    // On a standby, which cannot write, it only asks.
    server::reachable_end(connection).await.map(|_| ())
}
