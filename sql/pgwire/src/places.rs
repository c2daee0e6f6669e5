//! How many queries there may be at a time.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// Places for queries, whichever protocol they come by. A clone has the same places.
#[derive(Debug, Clone)]
pub struct Places {
    queries: Arc<Semaphore>,
    cursors: Arc<Semaphore>,
    pub(crate) concurrent: usize,
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
