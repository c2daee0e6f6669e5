//! The recorder task: change log in memory → change log on disk.
//!
//! A reader of the log like any other, but the one that nothing goes from memory before: what it has written, slower readers find on
//! disk. From time to time it makes everything durable and says so; only then does it count.

use std::sync::Arc;
use std::time::Duration;

use logweir_core::{Clock, LogPosition, Result};
use tokio::sync::{mpsc, watch};

use crate::changelog::segment::SegmentLog;
use crate::changelog::{ChangeLog, Cursor, Entry, blocking};
use crate::checkpoint::Event;
use crate::instruments::LogInstruments;
use crate::pipeline::{Control, Timer, fire, timer};
use crate::progress::{LogProgress, StreamProgress};

/// Entries, and bytes of their batches, that are written at a time.
const ENTRIES_MAX: usize = 256;
const BYTES_MAX: usize = 4 << 20;
/// How often it is looked whether something may go.
const RETAIN_INTERVAL: Duration = Duration::from_secs(1);
/// The log is made durable after this time if the source waits for it, and after this if it only makes a restart shorter.
const SYNC_INTERVAL_FOR_SOURCE: Duration = Duration::from_secs(1);
const SYNC_INTERVAL: Duration = Duration::from_secs(5);
/// And after this many bytes, so that there is never more than this to write at once.
const SYNC_BYTES: u64 = 256 << 20;

/// The recorder task.
pub(crate) struct Recorder {
    pub(crate) log: ChangeLog,
    pub(crate) cursor: Cursor,
    pub(crate) segments: SegmentLog,
    /// The source may forget what is durable here, so nothing is kept for a destination that does not work.
    pub(crate) for_source: bool,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) control: watch::Receiver<Control>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) progress: Arc<StreamProgress>,
    pub(crate) instruments: LogInstruments,
}

struct State {
    cursor: Cursor,
    /// What was last said to be durable.
    durable: Option<LogPosition>,
    bytes_since: u64,
    sync: Option<Timer>,
    retain: Option<Timer>,
    /// More is needed than may be kept.
    full: bool,
}

impl Recorder {
    /// Writes until the log in memory ends, an error, or being cancelled.
    pub(crate) async fn run(self) -> Result<()> {
        let Recorder { log, cursor, mut segments, for_source, events, mut control, clock, progress, instruments } = self;
        let sync_interval = if for_source { SYNC_INTERVAL_FOR_SOURCE } else { SYNC_INTERVAL };
        let durable = segments.mark().map(|mark| mark.position);
        let mut state = State { cursor, durable, bytes_since: 0, sync: None, retain: Some(timer(&clock, Duration::ZERO)), full: false };
        loop {
            let mut ended = false;
            let mut entries = Vec::new();
            tokio::select! {
                biased;
                changed = control.changed() => {
                    if changed.is_err() || *control.borrow_and_update() == Control::Cancel {
                        return Ok(());
                    }
                    continue;
                }
                () = fire(&mut state.retain) => {
                    segments = state.retain(segments, &log, for_source, &clock).await?;
                    let kept = LogProgress { bytes: segments.bytes(), entries: segments.next_entry() - segments.first_entry(), full: state.full };
                    instruments.kept(kept.bytes);
                    progress.set_log(kept);
                    continue;
                }
                () = fire(&mut state.sync) => {
                    segments = state.sync(segments, &events).await?;
                    continue;
                }
                // What is full empties itself when a destination moves on; it is looked at then, and now and again.
                () = log.acknowledged(), if state.full => {
                    state.retain = Some(timer(&clock, Duration::ZERO));
                    continue;
                }
                entry = state.cursor.next(), if !state.full => match entry? {
                    Some(entry) => entries.push(entry),
                    None => ended = true,
                },
            }
            if ended {
                state.sync(segments, &events).await?;
                return Ok(());
            }
            let mut bytes = 0;
            loop {
                if let Some(Entry::Changes(batch)) = entries.last() {
                    bytes += batch.bytes();
                }
                if entries.len() >= ENTRIES_MAX || bytes >= BYTES_MAX {
                    break;
                }
                match state.cursor.next_now() {
                    Some(entry) => entries.push(entry),
                    None => break,
                }
            }
            let now = clock.now();
            let before = segments.bytes();
            segments = blocking(move || {
                for entry in &entries {
                    segments.append(entry, now)?;
                }
                Ok(segments)
            })
            .await?;
            log.written(segments.next_entry());
            state.bytes_since += segments.bytes().saturating_sub(before);
            instruments.written(segments.bytes().saturating_sub(before));
            // The first mark at once: from the first checkpoint on it is known that there is a log.
            if state.bytes_since >= SYNC_BYTES || state.durable.is_none() {
                segments = state.sync(segments, &events).await?;
            } else if state.sync.is_none() {
                state.sync = Some(timer(&clock, sync_interval));
            }
        }
    }
}

impl State {
    /// Makes what was written durable, up to the last mark, and says so.
    async fn sync(&mut self, mut segments: SegmentLog, events: &mpsc::Sender<Event>) -> Result<SegmentLog> {
        self.sync = None;
        self.bytes_since = 0;
        let Some(mark) = segments.mark().filter(|mark| self.durable < Some(mark.position) || self.durable.is_none()).cloned() else {
            return Ok(segments);
        };
        let segments = blocking(move || {
            segments.sync()?;
            Ok(segments)
        })
        .await?;
        self.durable = Some(mark.position);
        // Nobody listens any more when the stream ends by a fault.
        let _ = events.send(Event::Logged(mark)).await;
        Ok(segments)
    }

    async fn retain(&mut self, mut segments: SegmentLog, log: &ChangeLog, for_source: bool, clock: &Arc<dyn Clock>) -> Result<SegmentLog> {
        let needed = log.needed(for_source);
        let now = clock.now();
        let (segments, full) = blocking(move || {
            let full = segments.retain(now, needed)?;
            Ok((segments, full))
        })
        .await?;
        if full && needed.is_some() && !self.full {
            tracing::warn!("the change log is full: it waits for the slowest destination, and so does the source");
        }
        self.full = full && needed.is_some();
        self.retain = Some(timer(clock, RETAIN_INTERVAL));
        Ok(segments)
    }
}
