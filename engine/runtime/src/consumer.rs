//! A consumer task: one cursor of the change log, one writer, one destination.
//!
//! It stages at a mark, because only there every relation is whole, and goes on writing while the decision is being
//! saved. It stages again only when that is committed, so a destination has at most one checkpoint on its way.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use logweir_core::{ChangeBatch, Clock, Error, LogMark, RelationName, Result, Staged, TimestampMicros, Writer};
use tokio::sync::{mpsc, watch};

use crate::changelog::{Cursor, Entry};
use crate::checkpoint::{Event, StagedCheckpoint};
use crate::instruments::ConsumerInstruments;
use crate::pipeline::{Control, Timer, fire, timer};
use crate::progress::{ConsumerProgress, StreamProgress};

/// A consumer task.
pub(crate) struct Consumer {
    index: usize,
    cursor: Cursor,
    writer: Box<dyn Writer>,
    links: Links,
    state: State,
}

/// What joins a consumer to the rest of the stream.
pub(crate) struct Links {
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) decisions: mpsc::Receiver<Vec<Staged>>,
    pub(crate) control: watch::Receiver<Control>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) progress: Arc<StreamProgress>,
    pub(crate) instruments: ConsumerInstruments,
}

struct State {
    interval: Duration,
    evolved: HashSet<(RelationName, u32)>,
    /// The last mark read from the change log, or where this consumer began.
    mark: Option<LogMark>,
    /// True if nothing was written since that mark.
    at_mark: bool,
    /// Rows written since the last staging, by relation.
    unstaged: BTreeMap<String, u64>,
    /// Runs out when the changes written since the last staging have waited long enough.
    timer: Option<Timer>,
    due: bool,
    last_staged_at: TimestampMicros,
    on_its_way: Option<OnItsWay>,
    landed: ConsumerProgress,
}

/// Staged, and not yet visible.
struct OnItsWay {
    mark: LogMark,
    rows: BTreeMap<String, u64>,
    began_at: TimestampMicros,
}

/// How a consumer ended.
pub(crate) struct ConsumerEnd {
    pub(crate) index: usize,
    pub(crate) result: Result<()>,
    /// The last mark that it passed before it ended.
    pub(crate) passed: Option<LogMark>,
    /// False if it had written changes behind that mark, which are now dropped and read again.
    pub(crate) whole: bool,
}

/// Why a consumer goes on or does not.
#[derive(PartialEq)]
enum Flow {
    On,
    LogEnded,
    Cancelled,
}

impl Consumer {
    pub(crate) fn new(
        index: usize,
        cursor: Cursor,
        writer: Box<dyn Writer>,
        links: Links,
        mark: Option<LogMark>,
        landed: ConsumerProgress,
    ) -> Self {
        let state = State {
            interval: writer.interval(),
            evolved: HashSet::new(),
            mark,
            at_mark: true,
            unstaged: BTreeMap::new(),
            timer: None,
            due: false,
            last_staged_at: links.clock.now(),
            on_its_way: None,
            landed,
        };
        Consumer { index, cursor, writer, links, state }
    }

    /// Lands the change log until it ends, an error, or being cancelled between two calls of the writer.
    pub(crate) async fn run(mut self) -> ConsumerEnd {
        let mut result = self.land().await;
        let finished = matches!(result, Ok(Flow::LogEnded)) && self.state.at_mark;
        let (passed, whole) = (self.state.mark.take(), self.state.at_mark);
        if finished {
            result = self.writer.close().await.map(|()| Flow::LogEnded);
        }
        ConsumerEnd { index: self.index, result: result.map(|_| ()), passed, whole }
    }

    async fn land(&mut self) -> Result<Flow> {
        let mut flow = Flow::On;
        while flow == Flow::On {
            flow = self.step().await?;
        }
        if flow == Flow::Cancelled {
            return Ok(flow);
        }
        // The log has ended. What was staged must be committed before the rest can be staged; two rounds end it.
        loop {
            while self.state.on_its_way.is_some() {
                if self.await_decision().await? == Flow::Cancelled {
                    return Ok(Flow::Cancelled);
                }
            }
            if !self.state.at_mark || !self.has_something_to_decide() {
                return Ok(Flow::LogEnded);
            }
            self.stage().await?;
        }
    }

    async fn step(&mut self) -> Result<Flow> {
        tokio::select! {
            biased;
            changed = self.links.control.changed() => {
                Ok(if changed.is_err() || is_cancelled(&mut self.links.control) { Flow::Cancelled } else { Flow::On })
            }
            Some(staged) = self.links.decisions.recv() => {
                self.commit(staged).await?;
                self.stage_if_due().await
            }
            () = fire(&mut self.state.timer) => {
                self.state.due = true;
                self.stage_if_due().await
            }
            entry = self.cursor.next() => match entry? {
                None => Ok(Flow::LogEnded),
                Some(Entry::Relation(relation)) => {
                    if self.state.evolved.insert((relation.name().clone(), relation.version())) {
                        self.writer.evolve(relation).await?;
                    }
                    Ok(Flow::On)
                }
                Some(Entry::Changes(batch)) => self.write(batch).await,
                Some(Entry::Mark(mark)) => {
                    self.state.mark = Some(mark);
                    self.state.at_mark = true;
                    self.stage_if_due().await
                }
            },
        }
    }

    async fn await_decision(&mut self) -> Result<Flow> {
        tokio::select! {
            biased;
            decision = self.links.decisions.recv() => match decision {
                Some(staged) => self.commit(staged).await.map(|()| Flow::On),
                None => Ok(Flow::Cancelled),
            },
            changed = self.links.control.changed() => {
                Ok(if changed.is_err() || is_cancelled(&mut self.links.control) { Flow::Cancelled } else { Flow::On })
            }
        }
    }

    async fn write(&mut self, batch: ChangeBatch) -> Result<Flow> {
        let (rows, name) = (batch.rows() as u64, batch.relation.name().to_string());
        // From here on the writer holds changes behind the mark, even if it fails.
        self.state.at_mark = false;
        *self.state.unstaged.entry(name).or_default() += rows;
        if self.state.timer.is_none() && !self.state.due {
            self.state.timer = Some(timer(&self.links.clock, self.state.interval));
        }
        self.writer.write(batch).await?;
        Ok(Flow::On)
    }

    /// Stages if it is time to and this is a place where it can be done.
    async fn stage_if_due(&mut self) -> Result<Flow> {
        if !self.state.at_mark || self.state.on_its_way.is_some() || !self.has_something_to_decide() {
            return Ok(Flow::On);
        }
        let due = if self.state.unstaged.is_empty() {
            // Only the mark moved: worth a save from time to time, so that the source may forget and a restart is short.
            self.links.clock.now().since(self.state.last_staged_at) >= self.state.interval
        } else {
            self.state.due
        };
        if due {
            self.stage().await?;
        }
        Ok(Flow::On)
    }

    fn has_something_to_decide(&self) -> bool {
        let passed = self.state.mark.as_ref().map(|mark| mark.position);
        !self.state.unstaged.is_empty() || passed > self.state.landed.position
    }

    async fn stage(&mut self) -> Result<()> {
        let Some(mark) = self.state.mark.clone() else { return Ok(()) };
        let began_at = self.links.clock.now();
        let staged = if self.state.unstaged.is_empty() { Vec::new() } else { self.writer.stage().await? };
        let rows = std::mem::take(&mut self.state.unstaged);
        self.state.timer = None;
        self.state.due = false;
        self.state.last_staged_at = self.links.clock.now();
        self.state.on_its_way = Some(OnItsWay { mark: mark.clone(), rows: rows.clone(), began_at });
        let checkpoint = StagedCheckpoint { mark, staged, rows, staged_at: self.state.last_staged_at };
        self.send(Event::Staged(self.index, checkpoint)).await
    }

    async fn commit(&mut self, staged: Vec<Staged>) -> Result<()> {
        if !staged.is_empty() {
            self.writer.commit(&staged).await?;
        }
        let Some(landed) = self.state.on_its_way.take() else {
            return Err(Error::internal("a decision came for a destination that had staged nothing"));
        };
        self.cursor.acknowledge(landed.mark.position);
        let now = self.links.clock.now();
        let took = now.since(landed.began_at);
        let rows: u64 = landed.rows.values().sum();
        let progress = &mut self.state.landed;
        progress.position = Some(landed.mark.position);
        progress.commit_time = landed.mark.commit_time;
        progress.checkpoint_time = Some(now);
        progress.epoch += 1;
        for (relation, rows) in landed.rows {
            *progress.rows_landed.entry(relation).or_default() += rows;
        }
        self.links.progress.landed(self.index, progress.clone());
        self.links.instruments.landed(rows, took);
        tracing::debug!(
            destination = %progress.destination, position = %landed.mark.position, epoch = progress.epoch, rows,
            milliseconds = took.as_millis() as u64, "checkpoint",
        );
        self.send(Event::Committed(self.index)).await
    }

    async fn send(&mut self, event: Event) -> Result<()> {
        self.links.events.send(event).await.map_err(|_| Error::internal("the stream's coordinator is gone"))
    }
}

fn is_cancelled(control: &mut watch::Receiver<Control>) -> bool {
    *control.borrow_and_update() == Control::Cancel
}
