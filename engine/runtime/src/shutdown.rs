//! The request to stop in good order.

use std::sync::Arc;

use tokio::sync::watch;

/// A request to drain, shared by whoever may make it and whoever must heed it. Once made it stays made.
#[derive(Debug, Clone)]
pub struct Shutdown {
    requested: Arc<watch::Sender<bool>>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Shutdown {
    /// Nothing requested yet.
    pub fn new() -> Self {
        Shutdown { requested: Arc::new(watch::Sender::new(false)) }
    }

    /// Asks every holder to drain: to stop reading, land what was read, and end.
    pub fn request(&self) {
        self.requested.send_replace(true);
    }

    /// True once it was requested.
    pub fn is_requested(&self) -> bool {
        *self.requested.borrow()
    }

    /// Returns once it was requested, at once if it already was. Cancel safe.
    pub async fn requested(&self) {
        // The sender lives in `self`, so the channel cannot close while we wait.
        let _ = self.requested.subscribe().wait_for(|requested| *requested).await;
    }
}
