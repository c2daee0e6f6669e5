//! Time that passes only when everybody waits.

use std::time::Duration;

use async_trait::async_trait;
use logweir_core::{Clock, TimestampMicros};
use tokio::time::Instant;

/// 2026-01-01T00:00:00Z: any moment would do, as long as it is always the same.
const BEGINNING: i64 = 1_767_225_600_000_000;

/// The clock of tokio's paused time.
#[derive(Debug, Clone, Copy)]
pub struct SimClock {
    began: Instant,
}

impl SimClock {
    /// A clock that begins now. Needs a runtime whose time is paused.
    pub fn new() -> Self {
        SimClock { began: Instant::now() }
    }
}

impl Default for SimClock {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Clock for SimClock {
    fn now(&self) -> TimestampMicros {
        TimestampMicros(BEGINNING + i64::try_from(self.began.elapsed().as_micros()).unwrap_or(i64::MAX))
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}
