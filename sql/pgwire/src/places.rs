//! How many queries there may be at a time, and what they run on.

use std::io;
use std::sync::Arc;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;

/// Planning a statement that is not refused for its depth takes less, also in a debug build. Memory that is not used is not taken.
const STACK_BYTES: usize = 128 << 20;

/// As `nice` counts: a tenth of the time of a thread of the streams, where there is not enough for both.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// Places for queries, whichever protocol they come by. A clone has the same places.
#[derive(Debug, Clone)]
pub struct Places {
    queries: Arc<Semaphore>,
    cursors: Arc<Semaphore>,
    concurrent: usize,
}

impl Places {
    /// For so many queries at a time, and so many that wait, with rows left, for their clients.
    pub fn new(queries: usize, cursors: usize) -> Self {
        let places = |count: usize| Arc::new(Semaphore::new(count.clamp(1, Semaphore::MAX_PERMITS)));
        Places { queries: places(queries), cursors: places(cursors), concurrent: queries }
    }

    /// Places for queries that run.
    pub fn queries(&self) -> Arc<Semaphore> {
        Arc::clone(&self.queries)
    }

    /// Places for queries that wait for their clients, or for changes.
    pub fn cursors(&self) -> Arc<Semaphore> {
        Arc::clone(&self.cursors)
    }
}

/// Threads for an endpoint, which let those of the streams go first.
pub fn threads(name: &str, places: &Places) -> io::Result<Runtime> {
    let processors = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    Builder::new_multi_thread()
        .worker_threads(processors.min(places.concurrent.saturating_add(1)).max(2))
        .thread_name(name)
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
