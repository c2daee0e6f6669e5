//! The numbers a stream reports through the `metrics` crate.
//!
//! Labels are the stream, the destination and the kind of error: few and bounded. What concerns a single table is in
//! the [progress](crate::StreamProgress) and the status, because a source may have ten thousand of them.

use std::time::Duration;

use logweir_core::{Clock, ErrorKind};
use metrics::{Counter, Gauge, Histogram, Unit, counter, gauge, histogram};

use crate::progress::{Lag, ProgressSnapshot};

/// The instruments of a stream's log.
pub(crate) struct StreamInstruments {
    pub(crate) rows_read: Counter,
    pub(crate) bytes_read: Counter,
    restarts: Counter,
    memory_held: Gauge,
    memory_budget: Gauge,
    running: Gauge,
    stream: String,
}

impl StreamInstruments {
    pub(crate) fn new(stream: &str) -> Self {
        describe();
        let stream = stream.to_owned();
        StreamInstruments {
            rows_read: counter!("logweir_rows_read_total", "stream" => stream.clone()),
            bytes_read: counter!("logweir_bytes_read_total", "stream" => stream.clone()),
            restarts: counter!("logweir_restarts_total", "stream" => stream.clone()),
            memory_held: gauge!("logweir_memory_held_bytes", "stream" => stream.clone()),
            memory_budget: gauge!("logweir_memory_budget_bytes", "stream" => stream.clone()),
            running: gauge!("logweir_stream_running", "stream" => stream.clone()),
            stream,
        }
    }

    pub(crate) fn error(&self, kind: ErrorKind) {
        counter!("logweir_errors_total", "stream" => self.stream.clone(), "kind" => kind.as_str()).increment(1);
    }

    pub(crate) fn restart(&self) {
        self.restarts.increment(1);
    }

    pub(crate) fn running(&self, running: bool) {
        self.running.set(if running { 1.0 } else { 0.0 });
    }

    /// What changes by itself as time goes on.
    pub(crate) fn refresh(&self, snapshot: &ProgressSnapshot, clock: &dyn Clock) {
        self.memory_held.set(snapshot.memory_held_bytes as f64);
        self.memory_budget.set(snapshot.memory_budget_bytes as f64);
        if let Some(retained) = snapshot.source_retained_bytes {
            gauge!("logweir_source_retained_bytes", "stream" => self.stream.clone()).set(retained as f64);
        }
        gauge!("logweir_open_transactions", "stream" => self.stream.clone()).set(snapshot.open_transactions.len() as f64);
        if let Some(backfill) = &snapshot.backfill {
            gauge!("logweir_backfill_tables", "stream" => self.stream.clone()).set(backfill.tables as f64);
            gauge!("logweir_backfill_tables_read", "stream" => self.stream.clone()).set(backfill.tables_read as f64);
            gauge!("logweir_backfill_rows_read", "stream" => self.stream.clone()).set(backfill.rows_read as f64);
        }
        let now = clock.now();
        for consumer in &snapshot.consumers {
            if let Some(freshness) = consumer.freshness(now) {
                gauge!("logweir_freshness_seconds", "stream" => self.stream.clone(), "destination" => consumer.destination.clone())
                    .set(freshness.as_secs_f64());
            }
            for (step, lag) in snapshot.lag(consumer, now).as_ref().map(Lag::steps).into_iter().flatten() {
                let (stream, destination) = (self.stream.clone(), consumer.destination.clone());
                gauge!("logweir_lag_seconds", "stream" => stream, "destination" => destination, "step" => step).set(lag.as_secs_f64());
            }
        }
    }
}

/// The instruments of a change log on disk.
pub(crate) struct LogInstruments {
    bytes_written: Counter,
    bytes_kept: Gauge,
}

impl LogInstruments {
    pub(crate) fn new(stream: &str) -> Self {
        LogInstruments {
            bytes_written: counter!("logweir_change_log_written_bytes_total", "stream" => stream.to_owned()),
            bytes_kept: gauge!("logweir_change_log_bytes", "stream" => stream.to_owned()),
        }
    }

    pub(crate) fn written(&self, bytes: u64) {
        self.bytes_written.increment(bytes);
    }

    pub(crate) fn kept(&self, bytes: u64) {
        self.bytes_kept.set(bytes as f64);
    }
}

/// The instruments of one destination.
pub(crate) struct ConsumerInstruments {
    rows_landed: Counter,
    checkpoints: Counter,
    checkpoint_duration: Histogram,
    restarts: Counter,
}

impl ConsumerInstruments {
    pub(crate) fn new(stream: &str, destination: &str) -> Self {
        let (stream, destination) = (stream.to_owned(), destination.to_owned());
        ConsumerInstruments {
            rows_landed: counter!("logweir_rows_landed_total", "stream" => stream.clone(), "destination" => destination.clone()),
            checkpoints: counter!("logweir_checkpoints_total", "stream" => stream.clone(), "destination" => destination.clone()),
            checkpoint_duration: histogram!("logweir_checkpoint_seconds", "stream" => stream.clone(), "destination" => destination.clone()),
            restarts: counter!("logweir_destination_restarts_total", "stream" => stream, "destination" => destination),
        }
    }

    /// The destination failed and is recovered by itself.
    pub(crate) fn restart(&self) {
        self.restarts.increment(1);
    }

    /// A checkpoint became visible, `duration` after its staging began.
    pub(crate) fn landed(&self, rows: u64, duration: Duration) {
        self.rows_landed.increment(rows);
        self.checkpoints.increment(1);
        self.checkpoint_duration.record(duration.as_secs_f64());
    }
}

fn describe() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_counter!("logweir_rows_read_total", "Row changes read from the source's log by this process");
    describe_counter!("logweir_bytes_read_total", Unit::Bytes, "Bytes of column arrays read from the source's log by this process");
    describe_counter!("logweir_rows_landed_total", "Row changes made visible in the destination by this process");
    describe_counter!("logweir_restarts_total", "How often the stream began again at its checkpoint after a fault");
    describe_counter!("logweir_errors_total", "Errors that ended a run of the stream, by kind");
    describe_counter!("logweir_checkpoints_total", "Checkpoints made visible in the destination");
    describe_histogram!("logweir_checkpoint_seconds", Unit::Seconds, "From the beginning of staging until the changes are visible");
    describe_gauge!("logweir_freshness_seconds", Unit::Seconds, "Now minus the commit time of the newest visible change");
    describe_gauge!("logweir_lag_seconds", Unit::Seconds, "The freshness by steps: read, transform, write, commit");
    describe_gauge!("logweir_open_transactions", "Transactions that were read and are not decided");
    describe_gauge!("logweir_source_retained_bytes", Unit::Bytes, "Log that the source keeps for this stream and could drop otherwise");
    describe_gauge!("logweir_backfill_tables", "Tables whose rows were there before the log and were read or are to be read");
    describe_gauge!("logweir_backfill_tables_read", "Those of them that are read whole");
    describe_gauge!("logweir_backfill_rows_read", "Rows of them that were read");
    describe_counter!("logweir_destination_restarts_total", "How often the destination was recovered by itself after a fault");
    describe_counter!("logweir_change_log_written_bytes_total", Unit::Bytes, "Bytes written to the change log on disk");
    describe_gauge!("logweir_change_log_bytes", Unit::Bytes, "Bytes that the change log keeps on disk");
    describe_gauge!("logweir_memory_held_bytes", Unit::Bytes, "Memory held by batches in flight");
    describe_gauge!("logweir_memory_budget_bytes", Unit::Bytes, "Bound of the memory held by batches in flight");
    describe_gauge!("logweir_stream_running", "1 while the stream has everything open and changes flow, else 0");
}
