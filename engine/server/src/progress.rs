//! How running streams look to a person: a line each on a terminal, log lines from time to time elsewhere.

use std::sync::Arc;
use std::time::{Duration, Instant};

use logweir_core::{Clock, SystemClock};
use logweir_runtime::{ProgressSnapshot, Shutdown, StreamProgress};

use crate::screen::Screen;
use crate::text::{bytes, count, span};

/// Often enough to look alive, seldom enough to cost nothing.
const REFRESH: Duration = Duration::from_millis(500);

/// How often a log line says how far a stream is while it moves.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// And how often while nothing happens.
const LOG_IDLE_INTERVAL: Duration = Duration::from_secs(300);

/// Shows progress until `end` is requested.
pub(crate) async fn show(streams: Vec<Arc<StreamProgress>>, screen: Screen, end: Shutdown) {
    let mut observed: Vec<Observed> = streams.iter().map(|_| Observed::new()).collect();
    loop {
        let mut lines = Vec::with_capacity(streams.len());
        for (stream, observed) in streams.iter().zip(&mut observed) {
            let snapshot = stream.snapshot();
            let rate = observed.rate(&snapshot);
            if screen.is_terminal() {
                lines.push(line(&snapshot, rate));
            } else {
                observed.log(&snapshot, rate);
            }
        }
        screen.show(lines);
        tokio::select! {
            () = end.requested() => break,
            () = tokio::time::sleep(REFRESH) => {}
        }
    }
    // The last word stays on the screen.
    if screen.is_terminal() {
        screen.show(streams.iter().zip(&mut observed).map(|(stream, observed)| line(&stream.snapshot(), observed.average())).collect());
    }
}

/// What was seen of a stream before.
struct Observed {
    began: Instant,
    at: Instant,
    rows: u64,
    rate: f64,
    logged_at: Instant,
    logged_rows: u64,
}

impl Observed {
    fn new() -> Self {
        let now = Instant::now();
        Observed { began: now, at: now, rows: 0, rate: 0.0, logged_at: now, logged_rows: 0 }
    }

    /// Rows read per second, smoothed over some refreshes.
    fn rate(&mut self, snapshot: &ProgressSnapshot) -> f64 {
        let rows = snapshot.rows_read_total();
        let seconds = self.at.elapsed().as_secs_f64();
        if seconds > 0.0 {
            let now = rows.saturating_sub(self.rows) as f64 / seconds;
            self.rate = if self.rate == 0.0 { now } else { self.rate * 0.7 + now * 0.3 };
        }
        (self.at, self.rows) = (Instant::now(), rows);
        self.rate
    }

    /// Rows read per second since the beginning.
    fn average(&self) -> f64 {
        self.rows as f64 / self.began.elapsed().as_secs_f64().max(0.001)
    }

    fn log(&mut self, snapshot: &ProgressSnapshot, rate: f64) {
        let rows = snapshot.rows_read_total();
        let interval = if rows == self.logged_rows { LOG_IDLE_INTERVAL } else { LOG_INTERVAL };
        if self.logged_at.elapsed() < interval {
            return;
        }
        (self.logged_at, self.logged_rows) = (Instant::now(), rows);
        tracing::info!(
            stream = snapshot.stream,
            state = snapshot.state.as_str(),
            rows_read = rows,
            rows_landed = landed(snapshot),
            rows_per_second = rate.round() as u64,
            freshness_seconds = freshness(snapshot).map(|freshness| freshness.as_secs_f64()),
            memory_held_bytes = snapshot.memory_held_bytes,
            "progress"
        );
    }
}

/// Rows visible in the destination that is furthest behind.
fn landed(snapshot: &ProgressSnapshot) -> u64 {
    snapshot.consumers.iter().map(logweir_runtime::ConsumerProgress::rows_landed_total).min().unwrap_or(0)
}

/// The freshness of the destination that is furthest behind.
fn freshness(snapshot: &ProgressSnapshot) -> Option<Duration> {
    let now = SystemClock.now();
    snapshot.consumers.iter().filter_map(|consumer| consumer.freshness(now)).max()
}

fn line(snapshot: &ProgressSnapshot, rate: f64) -> String {
    let mut line = format!(
        "{} {}  read {} ({} rows/s)  landed {}",
        snapshot.stream,
        snapshot.state.as_str(),
        count(snapshot.rows_read_total()),
        count(rate.round() as u64),
        count(landed(snapshot)),
    );
    if let Some(backfill) = snapshot.backfill.as_ref().filter(|backfill| !backfill.complete) {
        line.push_str(&format!("  backfill {} of {} tables", count(backfill.tables_read), count(backfill.tables)));
    }
    if let Some(freshness) = freshness(snapshot) {
        line.push_str(&format!("  newest visible change {} ago", span(freshness)));
    }
    if snapshot.memory_budget_bytes > 0 {
        line.push_str(&format!("  in flight {}", bytes(snapshot.memory_held_bytes as u64)));
    }
    if let Some(error) = snapshot.state.error() {
        line.push_str(&format!("  {error}"));
    }
    line
}
