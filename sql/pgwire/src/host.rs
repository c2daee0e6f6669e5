//! What an endpoint stands on: an address, threads, and its end.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::thread::JoinHandle;

use logweir_core::{Error, Result};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use crate::places::Places;

/// Planning a statement that is not refused for its depth takes less, also in a debug build. Memory that is not used is not taken.
const STACK_BYTES: usize = 128 << 20;

/// As `nice` counts: a tenth of the time of a thread of the streams, where there is not enough for both.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// Where an endpoint listens, and what it is called.
#[derive(Debug, Clone, Copy)]
pub struct Post {
    /// What it speaks, for people.
    pub speaks: &'static str,
    /// Where the configuration has its address.
    pub key: &'static str,
    /// The address.
    pub listen: SocketAddr,
    /// Connections may be encrypted. Where they may not, it must be an address of this machine alone.
    pub encrypted: bool,
}

/// An endpoint that serves, on threads of its own.
pub struct Endpoint {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({})", self.address)
    }
}

impl Endpoint {
    /// Listens, and has `serve` serve from then on. It is told by the other end of [`Endpoint::stop`] when to come to its own.
    pub fn start<S, F>(post: Post, places: &Places, serve: S) -> Result<Self>
    where
        S: FnOnce(TcpListener, watch::Receiver<bool>) -> F + Send + 'static,
        F: Future<Output = io::Result<()>>,
    {
        let Post { speaks, key, listen, encrypted } = post;
        if !encrypted && !listen.ip().is_loopback() {
            return Err(Error::config("an endpoint must not be reached from other machines without TLS")
                .context("endpoint", speaks)
                .context("address", listen)
                .remedy("add `sql.tls`, or listen on 127.0.0.1"));
        }
        let failed = |error| {
            Error::config("could not listen for clients")
                .context("endpoint", speaks)
                .context("address", listen)
                .remedy(format!("choose another `{key}`, or stop what uses the port"))
                .source(error)
        };
        let listener = StdListener::bind(listen).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (stop, stopped) = watch::channel(false);
        let start = |error| Error::internal("could not start the threads of an endpoint").context("endpoint", speaks).source(error);
        let runtime = threads(places).map_err(start)?;
        let thread = std::thread::Builder::new()
            .name("endpoint".to_owned())
            .spawn(move || {
                let served = runtime.block_on(async move { serve(TcpListener::from_std(listener)?, stopped).await });
                if let Err(error) = served {
                    tracing::error!(%error, "the endpoint of {speaks} has stopped");
                }
                // A plan that does not end is left behind: the process ends.
                runtime.shutdown_background();
            })
            .map_err(start)?;
        tracing::info!(%address, "answering {speaks}");
        Ok(Endpoint { address, stop, thread: Some(thread) })
    }

    /// Ends: who does nothing at once, others when their statement does or after some seconds. Blocks until then.
    pub fn stop(mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Waits until the end is asked for.
pub async fn draining(stop: &mut watch::Receiver<bool>) {
    // Whoever could say so is gone: that is an end too.
    let _ = stop.wait_for(|stopped| *stopped).await;
}

/// Threads which let those of the streams go first.
fn threads(places: &Places) -> io::Result<Runtime> {
    let processors = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    Builder::new_multi_thread()
        .worker_threads(processors.min(places.concurrent.saturating_add(1)).max(2))
        .thread_name("sql")
        .thread_stack_size(STACK_BYTES)
        .on_thread_start(step_back)
        .enable_all()
        .build()
}

/// Answers may wait, the log that a source keeps for us may not.
fn step_back() {
    // Of this thread alone, on Linux. Where it cannot be, the two are equals.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, NICENESS);
}
