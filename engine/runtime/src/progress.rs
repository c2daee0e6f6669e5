//! What a stream is doing, for eyes: status, readiness, the terminal.
//!
//! A snapshot under one lock, written once per batch or checkpoint and read once per look. Nothing decides by it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use logweir_core::{BackfillProgress, LogMark, LogPosition, OpenTransaction, TimestampMicros};
use serde::Serialize;

/// What a stream is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum StreamState {
    /// Opening its state, source and destinations for the first time.
    Starting,
    /// Everything is open and changes flow.
    Running,
    /// Something failed that may go away; it is tried again.
    Retrying {
        /// What failed, on one line.
        error: String,
    },
    /// Landing what was read, then ending.
    Draining,
    /// Ended in good order.
    Stopped,
    /// Ended by an error that only a person can mend.
    Failed {
        /// What failed, on one line.
        error: String,
    },
}

impl StreamState {
    /// The state in one word: `running`.
    pub fn as_str(&self) -> &'static str {
        match self {
            StreamState::Starting => "starting",
            StreamState::Running => "running",
            StreamState::Retrying { .. } => "retrying",
            StreamState::Draining => "draining",
            StreamState::Stopped => "stopped",
            StreamState::Failed { .. } => "failed",
        }
    }

    /// The error of a state that has one.
    pub fn error(&self) -> Option<&str> {
        match self {
            StreamState::Retrying { error } | StreamState::Failed { error } => Some(error),
            _ => None,
        }
    }
}

/// How far one destination is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ConsumerProgress {
    /// The destination's name.
    pub destination: String,
    /// Everything at or before it is visible.
    pub position: Option<LogPosition>,
    /// The log's clock there: the commit time of the newest visible change.
    pub commit_time: Option<TimestampMicros>,
    /// When that became visible, by our clock; `None` in this process so far.
    pub checkpoint_time: Option<TimestampMicros>,
    /// Number of the newest decision.
    pub epoch: u64,
    /// Rows visible since the stream began, by relation; kept in the checkpoint.
    pub rows_landed: BTreeMap<String, u64>,
    /// What the destination alone has failed with, while the others go on; `None` while it works.
    pub error: Option<String>,
    /// True if it is not tried again before the stream is started anew.
    pub failed: bool,
    /// The log's clock at the last mark of whose changes everything was transformed and given to the writer, in this process.
    pub written_commit_time: Option<TimestampMicros>,
    /// The log's clock at the last mark of whose changes everything is in files, visible or not.
    pub staged_commit_time: Option<TimestampMicros>,
}

/// What a destination's freshness is made of: how much of the log's time lies between one step and the next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lag {
    /// From the newest change that was read until now: the source sends it later, or nothing was committed since.
    pub read: Duration,
    /// What was read and waits for the destination's transforms and its writer, or is in them.
    pub transform: Duration,
    /// What the writer has and has not staged: it gathers rows until its files are due.
    pub write: Duration,
    /// What is staged and not visible: the decision is being saved, or the files put in their places.
    pub commit: Duration,
}

impl Lag {
    /// The steps by name.
    pub fn steps(&self) -> [(&'static str, Duration); 4] {
        [("read", self.read), ("transform", self.transform), ("write", self.write), ("commit", self.commit)]
    }
}

impl ConsumerProgress {
    /// Rows visible since the stream began, over all relations.
    pub fn rows_landed_total(&self) -> u64 {
        self.rows_landed.values().sum()
    }

    /// Now minus the commit time of the newest visible change; `None` before the first.
    pub fn freshness(&self, now: TimestampMicros) -> Option<Duration> {
        self.commit_time.map(|commit_time| now.since(commit_time))
    }
}

/// What the change log keeps on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LogProgress {
    /// Bytes of its segments.
    pub bytes: u64,
    /// Relations, batches and marks in them.
    pub entries: u64,
    /// It keeps all it may and waits for a destination.
    pub full: bool,
}

/// A stream at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProgressSnapshot {
    /// The stream's name.
    pub stream: String,
    /// What it is doing.
    #[serde(flatten)]
    pub state: StreamState,
    /// How far the log was read.
    pub position: Option<LogPosition>,
    /// The log's clock there.
    pub commit_time: Option<TimestampMicros>,
    /// Rows read by this process, by source relation. What was read again after a fault counts again.
    pub rows_read: BTreeMap<String, u64>,
    /// Bytes of Arrow arrays read by this process.
    pub bytes_read: u64,
    /// Bytes of log that the source keeps for this stream; `None` if it keeps none for us, or none was learned yet.
    pub source_retained_bytes: Option<u64>,
    /// How far the reading of the rows is that were there before the log; `None` if none are wanted.
    pub backfill: Option<BackfillProgress>,
    /// How often this process had to begin again at the checkpoint.
    pub restarts: u64,
    /// Bytes of batches in flight.
    pub memory_held_bytes: usize,
    /// Bound of [`memory_held_bytes`](Self::memory_held_bytes).
    pub memory_budget_bytes: usize,
    /// Transactions that were read and are not decided, as of some seconds ago.
    pub open_transactions: Vec<OpenTransaction>,
    /// What is kept on disk of the changes; `None` if nothing is.
    pub change_log: Option<LogProgress>,
    /// A destination each, in the configuration's order.
    pub consumers: Vec<ConsumerProgress>,
}

impl ProgressSnapshot {
    /// Rows read by this process, over all relations.
    pub fn rows_read_total(&self) -> u64 {
        self.rows_read.values().sum()
    }

    /// What the freshness of a destination is made of; the steps add up to it. `None` before the first change is visible.
    pub fn lag(&self, consumer: &ConsumerProgress, now: TimestampMicros) -> Option<Lag> {
        let visible = consumer.commit_time?;
        // A step that is not known, or of another run, is where the next one is.
        let staged = consumer.staged_commit_time.unwrap_or(visible).max(visible);
        let written = consumer.written_commit_time.unwrap_or(staged).max(staged);
        let read = self.commit_time.unwrap_or(written).max(written);
        Some(Lag { read: now.since(read), transform: read.since(written), write: written.since(staged), commit: staged.since(visible) })
    }
}

/// The progress of one stream, shared between the stream and those who look at it.
#[derive(Debug)]
pub struct StreamProgress {
    snapshot: Mutex<ProgressSnapshot>,
}

impl StreamProgress {
    /// Of a stream that has not been started.
    pub fn new(stream: impl Into<String>) -> Self {
        let snapshot = ProgressSnapshot {
            stream: stream.into(),
            state: StreamState::Starting,
            position: None,
            commit_time: None,
            rows_read: BTreeMap::new(),
            bytes_read: 0,
            source_retained_bytes: None,
            backfill: None,
            restarts: 0,
            memory_held_bytes: 0,
            memory_budget_bytes: 0,
            open_transactions: Vec::new(),
            change_log: None,
            consumers: Vec::new(),
        };
        StreamProgress { snapshot: Mutex::new(snapshot) }
    }

    /// How it stands now.
    pub fn snapshot(&self) -> ProgressSnapshot {
        self.lock().clone()
    }

    /// What it is doing now: cheaper than a snapshot.
    pub fn state(&self) -> StreamState {
        self.lock().state.clone()
    }

    // A snapshot is whole between any two of its writes, so one that a panic left behind can still be shown.
    fn lock(&self) -> MutexGuard<'_, ProgressSnapshot> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_state(&self, state: StreamState) {
        self.lock().state = state;
    }

    pub(crate) fn restarted(&self) {
        self.lock().restarts += 1;
    }

    pub(crate) fn set_consumers(&self, consumers: Vec<ConsumerProgress>) {
        self.lock().consumers = consumers;
    }

    pub(crate) fn set_memory(&self, held: usize, budget: usize) {
        let mut snapshot = self.lock();
        snapshot.memory_held_bytes = held;
        snapshot.memory_budget_bytes = budget;
    }

    pub(crate) fn set_log(&self, log: LogProgress) {
        self.lock().change_log = Some(log);
    }

    /// A destination failed, or works again.
    pub(crate) fn set_consumer_error(&self, consumer: usize, error: Option<String>, failed: bool) {
        if let Some(place) = self.lock().consumers.get_mut(consumer) {
            place.error = error;
            place.failed = failed;
        }
    }

    pub(crate) fn set_retained(&self, bytes: u64) {
        self.lock().source_retained_bytes = Some(bytes);
    }

    pub(crate) fn set_open_transactions(&self, open: Vec<OpenTransaction>) {
        self.lock().open_transactions = open;
    }

    pub(crate) fn set_backfill(&self, backfill: BackfillProgress) {
        self.lock().backfill = Some(backfill);
    }

    pub(crate) fn read(&self, relation: &str, rows: u64, bytes: u64, last: LogPosition) {
        let mut snapshot = self.lock();
        match snapshot.rows_read.get_mut(relation) {
            Some(total) => *total += rows,
            None => {
                snapshot.rows_read.insert(relation.to_owned(), rows);
            }
        }
        snapshot.bytes_read += bytes;
        snapshot.position = snapshot.position.max(Some(last));
    }

    pub(crate) fn passed(&self, mark: &LogMark) {
        let mut snapshot = self.lock();
        snapshot.position = Some(mark.position);
        snapshot.commit_time = mark.commit_time;
    }

    /// Everything up to a mark was given to a destination's writer.
    pub(crate) fn written(&self, consumer: usize, mark: &LogMark) {
        if let Some(place) = self.lock().consumers.get_mut(consumer) {
            place.written_commit_time = mark.commit_time;
        }
    }

    /// Everything up to a mark is in files.
    pub(crate) fn staged(&self, consumer: usize, mark: &LogMark) {
        if let Some(place) = self.lock().consumers.get_mut(consumer) {
            place.staged_commit_time = mark.commit_time;
        }
    }

    pub(crate) fn landed(&self, consumer: usize, progress: ConsumerProgress) {
        if let Some(place) = self.lock().consumers.get_mut(consumer) {
            let (written_commit_time, staged_commit_time) = (place.written_commit_time, place.staged_commit_time);
            let (error, failed) = (place.error.take(), place.failed);
            *place = ConsumerProgress { error, failed, written_commit_time, staged_commit_time, ..progress };
        }
    }

    /// A destination is where it was decided to be: what its writer had is gone.
    pub(crate) fn recovered(&self, consumer: usize, progress: ConsumerProgress) {
        if let Some(place) = self.lock().consumers.get_mut(consumer) {
            *place = ConsumerProgress { error: place.error.take(), failed: place.failed, ..progress };
        }
    }
}
