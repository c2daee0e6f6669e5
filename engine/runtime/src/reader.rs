//! The reader task: log → transforms → change log.
//!
//! It alone owns the log reader. Between two events it tells the source what may be forgotten, also while it waits for
//! memory or for room, so that a slow destination does not make a source believe we are gone.

use std::collections::HashSet;
use std::future::poll_fn;
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use logweir_core::{
    BeforeImages, ChangeBatch, Clock, Error, LogEvent, LogMark, LogPosition, LogReader, Pattern, Relation, RelationName, Result, Transform,
    apply_all, output_of_all,
};
use tokio::sync::{mpsc, watch};

use crate::changelog::{Appender, Entry};
use crate::checkpoint::Event;
use crate::instruments::StreamInstruments;
use crate::pipeline::{Control, REPORT_INTERVAL, Timer, fire, timer};
use crate::progress::StreamProgress;

/// How far to read.
#[derive(Debug, Clone)]
pub(crate) enum Goal {
    /// Until told to stop, or to the end of a recorded log.
    Follow,
    /// As far as the log reached when the stream was started; asked once and kept over restarts.
    CaughtUp(Arc<OnceLock<Option<LogPosition>>>),
    /// Up to this mark and not a row further: behind it lies what cannot be carried.
    Land(LogMark),
}

/// The reader task.
pub(crate) struct Reader {
    pub(crate) log: Box<dyn LogReader>,
    pub(crate) transforms: Vec<Box<dyn Transform>>,
    /// The tables of which what updated rows were before is kept behind the transforms.
    pub(crate) before_images: Vec<Pattern>,
    pub(crate) appender: Appender,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) control: watch::Receiver<Control>,
    pub(crate) acknowledge: watch::Receiver<Option<LogMark>>,
    pub(crate) goal: Goal,
    pub(crate) progress: Arc<StreamProgress>,
    pub(crate) instruments: Arc<StreamInstruments>,
    pub(crate) clock: Arc<dyn Clock>,
    /// When the source is asked again what it keeps for us; `None` if it keeps nothing, or was not asked yet.
    pub(crate) ask_retained: Option<Timer>,
    /// Rows that were there before the log were still to be read when it was last asked.
    pub(crate) backfilling: bool,
    pub(crate) place: Place,
}

/// How far the reader got.
#[derive(Debug, Default)]
pub(crate) struct Place {
    planned: HashSet<(RelationName, u32)>,
    /// The last mark appended.
    pub(crate) mark: Option<LogMark>,
    /// The greatest position of a change appended since the log was opened.
    pub(crate) handed_out: Option<LogPosition>,
    /// True if nothing was appended since the last mark.
    at_mark: bool,
    /// True if the log held changes behind the mark to land.
    beyond: bool,
    /// True if a transform refused a change, which may lie far behind the last mark.
    pub(crate) refused: bool,
}

/// How the reader ended.
pub(crate) struct ReaderEnd {
    pub(crate) result: Result<()>,
    pub(crate) place: Place,
}

/// Whether to go on reading.
#[derive(PartialEq)]
enum Flow {
    On,
    Stop,
}

/// Lets another thread take this task, and this thread the consumers that it has just woken.
///
/// A task woken by another goes to a slot of the same thread that no other thread takes from. A reader that never waits
/// (a backlog, a recorded log) would keep its consumers there for dozens of batches, until the runtime makes it yield.
/// Waking ourselves while we run puts us into the queue that idle threads do take from.
async fn step_aside() {
    let mut aside = false;
    poll_fn(|context| {
        if std::mem::replace(&mut aside, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl Reader {
    /// Reads until the goal, the end, an error, or being told to stop; then goes on acknowledging until the
    /// coordinator has nothing more to acknowledge.
    pub(crate) async fn run(mut self) -> ReaderEnd {
        let result = self.read().await;
        // Ends the change log: consumers land what it holds.
        drop(self.appender);
        // An error of the log reader is final, so it cannot be told anything after one.
        if result.is_ok() {
            while self.acknowledge.changed().await.is_ok() {
                let mark = self.acknowledge.borrow_and_update().clone();
                if let Some(mark) = mark
                    && let Err(error) = self.log.acknowledge(&mark).await
                {
                    // The source keeps more log than it must until the next start, which says the same again.
                    tracing::warn!(error = %error.report(), "the source could not be told what it may forget");
                    break;
                }
            }
        }
        ReaderEnd { result, place: self.place }
    }

    async fn read(&mut self) -> Result<()> {
        let stop_at = match &self.goal {
            Goal::Follow => None,
            Goal::CaughtUp(end) => match end.get() {
                Some(end) => *end,
                None => {
                    let now = self.log.end().await?;
                    *end.get_or_init(|| now)
                }
            },
            Goal::Land(mark) => Some(mark.position),
        };
        self.backfilling = true;
        self.report_backfill();
        self.report_retained().await;
        loop {
            tokio::select! {
                biased;
                changed = self.control.changed() => {
                    if changed.is_err() || self.told_to_stop() {
                        return Ok(());
                    }
                }
                Ok(()) = self.acknowledge.changed() => self.acknowledge().await?,
                () = fire(&mut self.ask_retained) => self.report_retained().await,
                event = self.log.next() => {
                    let flow = match event {
                        Ok(Some(event)) => self.handle(event, stop_at).await?,
                        Ok(None) => { self.append_landing_mark().await?; Flow::Stop }
                        Err(error) => {
                            // What was to be landed lies before the fault, so the log has handed it out whole.
                            if !error.is_transient() && self.place.beyond {
                                self.append_landing_mark().await?;
                                return Ok(());
                            }
                            return Err(error);
                        }
                    };
                    if flow == Flow::Stop || self.told_to_stop() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// True if reading ends here. A drain goes on to the next mark, because nothing can be landed between two.
    fn told_to_stop(&mut self) -> bool {
        match *self.control.borrow_and_update() {
            Control::Run => false,
            Control::Drain => self.place.at_mark,
            Control::Finish | Control::Cancel => true,
        }
    }

    async fn acknowledge(&mut self) -> Result<()> {
        let mark = self.acknowledge.borrow_and_update().clone();
        match mark {
            Some(mark) => self.log.acknowledge(&mark).await,
            None => Ok(()),
        }
    }

    /// Learns what the source keeps for us. It does so while we wait for memory and for room above all.
    async fn report_retained(&mut self) {
        // Also where a chunk takes longer than the marks are apart.
        self.report_backfill();
        self.progress.set_open_transactions(self.log.open_transactions());
        match self.log.retained().await {
            Ok(Some(bytes)) => self.progress.set_retained(bytes),
            Ok(None) => return self.ask_retained = None,
            Err(error) => tracing::debug!(error = %error.report(), "could not learn how much log the source keeps"),
        }
        self.ask_retained = Some(timer(&self.clock, REPORT_INTERVAL));
    }

    /// Learns how far the backfill is, until it has ended and that was learned, too.
    fn report_backfill(&mut self) {
        let ended = !self.log.reads_backfill();
        if (self.backfilling || !ended)
            && let Some(backfill) = self.log.backfill()
        {
            self.progress.set_backfill(backfill);
        }
        self.backfilling = !ended;
    }

    async fn handle(&mut self, event: LogEvent, stop_at: Option<LogPosition>) -> Result<Flow> {
        match event {
            LogEvent::Mark(mark) => {
                if self.place.mark.is_none() {
                    self.send(Event::Opened(mark.clone())).await?;
                }
                let landing = matches!(self.goal, Goal::Land(_));
                let complete = landing || !self.log.reads_backfill();
                self.report_backfill();
                let reached = complete && stop_at.is_some_and(|stop_at| mark.position >= stop_at);
                if reached && landing {
                    self.append_landing_mark().await?;
                    return Ok(Flow::Stop);
                }
                let flow = self.append_mark(mark).await?;
                Ok(if reached { Flow::Stop } else { flow })
            }
            _ if self.place.mark.is_none() => Err(Error::internal("a log reader handed out something before its opening mark")),
            LogEvent::Relation(relation) => self.plan(&relation).await,
            LogEvent::Changes(batch) => self.changes(batch).await,
        }
    }

    async fn append_mark(&mut self, mark: LogMark) -> Result<Flow> {
        let flow = self.append(Entry::Mark(mark.clone())).await?;
        if flow == Flow::On {
            self.progress.passed(&mark);
            self.place.mark = Some(mark);
            self.place.at_mark = true;
        }
        Ok(flow)
    }

    async fn append_landing_mark(&mut self) -> Result<()> {
        if let Goal::Land(mark) = &self.goal
            && self.place.mark.as_ref().is_none_or(|passed| passed.position < mark.position)
        {
            let mark = mark.clone();
            self.append_mark(mark).await?;
        }
        Ok(())
    }

    /// Plans a relation, unless it is planned: what the transforms make of it goes into the change log before its changes.
    async fn plan(&mut self, relation: &Arc<Relation>) -> Result<Flow> {
        let version = (relation.name().clone(), relation.version());
        if self.place.planned.contains(&version) {
            return Ok(Flow::On);
        }
        relation.name().check_source().inspect_err(|_| self.place.refused = true)?;
        self.send(Event::Relation(Arc::clone(relation))).await?;
        let outputs = output_of_all(&mut self.transforms, relation).inspect_err(|_| self.place.refused = true)?;
        for relation in outputs {
            if self.append(Entry::Relation(relation)).await? == Flow::Stop {
                return Ok(Flow::Stop);
            }
        }
        self.place.planned.insert(version);
        Ok(Flow::On)
    }

    async fn changes(&mut self, batch: ChangeBatch) -> Result<Flow> {
        let batch = match &self.goal {
            Goal::Land(mark) => {
                self.place.beyond |= batch.last > mark.position;
                match batch.up_to(mark.position) {
                    Some(batch) => batch,
                    None => return Ok(Flow::On),
                }
            }
            _ => batch,
        };
        let (rows, bytes, last) = (batch.rows() as u64, batch.bytes() as u64, batch.last);
        // A reader that resumes may take a relation of the checkpoint for known.
        if self.plan(&batch.relation).await? == Flow::Stop {
            return Ok(Flow::Stop);
        }
        let name = batch.relation.name().to_string();
        let batches = apply_all(&self.transforms, batch).inspect_err(|_| self.place.refused = true)?;
        for batch in batches {
            let kept = batch.before.is_some() && BeforeImages::are_kept(&self.before_images, &batch.relation);
            let batch = if kept { batch } else { ChangeBatch { before: None, ..batch } };
            if self.append(Entry::Changes(batch)).await? == Flow::Stop {
                return Ok(Flow::Stop);
            }
        }
        self.place.at_mark = false;
        self.place.handed_out = self.place.handed_out.max(Some(last));
        self.progress.read(&name, rows, bytes, last);
        self.instruments.rows_read.increment(rows);
        self.instruments.bytes_read.increment(bytes);
        Ok(Flow::On)
    }

    /// Appends when there is room; stops instead when told so meanwhile.
    async fn append(&mut self, entry: Entry) -> Result<Flow> {
        loop {
            tokio::select! {
                biased;
                () = self.appender.room() => break,
                changed = self.control.changed() => {
                    if changed.is_err() || matches!(*self.control.borrow_and_update(), Control::Finish | Control::Cancel) {
                        return Ok(Flow::Stop);
                    }
                }
                Ok(()) = self.acknowledge.changed() => self.acknowledge().await?,
                () = fire(&mut self.ask_retained) => self.report_retained().await,
            }
        }
        // Whatever is appended lies behind the last mark; a mark sets this again.
        self.place.at_mark &= matches!(entry, Entry::Relation(_));
        let changes = matches!(entry, Entry::Changes(_));
        self.appender.append(entry).await;
        if changes {
            step_aside().await;
        }
        Ok(Flow::On)
    }

    async fn send(&mut self, event: Event) -> Result<()> {
        self.events.send(event).await.map_err(|_| Error::internal("the stream's coordinator is gone"))
    }
}
