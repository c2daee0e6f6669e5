//! A consumer task: one cursor of the change log, one writer, one destination.
//!
//! Where the change log is on disk, a destination that fails does so alone: it is recovered to what was decided, and reads again from
//! there, while the others go on. Without one its error ends the run of the stream, which begins again at its checkpoint.
//!
//! It stages at a mark, because only there every relation is whole, and goes on writing while the decision is being
//! saved. It stages again only when that is committed, so a destination has at most one checkpoint on its way.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use logweir_core::{
    ChangeBatch, Clock, Error, ErrorKind, LogMark, LogPosition, Relation, RelationId, Result, Sink, Staged, TimestampMicros, Transform,
    Writer, WriterContext, apply_all, output_of_all, recall_all,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{mpsc, watch};

use crate::changelog::{ChangeLog, Cursor, Entry};
use crate::checkpoint::{ConsumerCheckpoint, Event, StagedCheckpoint};
use crate::instruments::ConsumerInstruments;
use crate::pipeline::{Control, Timer, fire, timer};
use crate::progress::{ConsumerProgress, StreamProgress};
use crate::retry::Backoff;
use crate::shutdown::Shutdown;
use crate::stream::TransformFactory;

/// What the coordinator tells a consumer.
#[derive(Debug)]
pub(crate) enum Decision {
    /// The tokens staged last are decided.
    Commit(Vec<Staged>),
    /// This is what was decided before the writer failed.
    Recover(Box<ConsumerCheckpoint>),
}

/// A consumer over its writers: when one fails, the next takes its place.
pub(crate) struct ConsumerTask {
    pub(crate) index: usize,
    pub(crate) context: WriterContext,
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) transforms: TransformFactory,
    /// Tables that were followed before, with the columns that they have lost, as the stream's transforms make them, if a transform wants to know.
    pub(crate) recalled: Vec<Arc<Relation>>,
    pub(crate) log: ChangeLog,
    /// What was read can be read again from the change log.
    pub(crate) durable: bool,
    pub(crate) links: Links,
    pub(crate) landed: ConsumerProgress,
    pub(crate) mark: Option<LogMark>,
    pub(crate) rng: StdRng,
}

/// A consumer with one writer.
struct Consumer<'a> {
    index: usize,
    cursor: Cursor,
    writer: Box<dyn Writer>,
    transforms: Vec<Box<dyn Transform>>,
    links: &'a mut Links,
    state: State,
}

/// What joins a consumer to the rest of the stream.
pub(crate) struct Links {
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) decisions: mpsc::Receiver<Decision>,
    pub(crate) control: watch::Receiver<Control>,
    pub(crate) shutdown: Shutdown,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) progress: Arc<StreamProgress>,
    pub(crate) instruments: ConsumerInstruments,
}

struct State {
    interval: Duration,
    /// The relations of the change log that the transforms have planned.
    planned: HashSet<RelationId>,
    /// Those that the writer knows.
    evolved: HashSet<RelationId>,
    /// Nothing behind this mark is wanted: it cannot be landed.
    until: Option<LogPosition>,
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

/// Why a consumer does not try again.
enum NoMore {
    Cancelled,
    Error(Error),
}

impl ConsumerTask {
    /// Lands the change log until it ends, an error that does not go away, or being cancelled.
    pub(crate) async fn run(mut self, cursor: Result<Cursor>, writer: Result<Box<dyn Writer>>) -> ConsumerEnd {
        let mut backoff = Backoff::new(StdRng::seed_from_u64(self.rng.random()));
        let mut opened = cursor.and_then(|cursor| Ok((cursor, writer?)));
        // How far there is something to land, once it cannot go on behind that; and the error that it then ends with.
        let mut last: Option<(LogPosition, Option<Error>)> = None;
        loop {
            let before = self.landed.position;
            let until = last.as_ref().map(|(until, _)| *until);
            let end = match opened {
                Ok((cursor, writer)) => self.run_writer(cursor, writer, until).await,
                Err(error) => ConsumerEnd { index: self.index, result: Err(error), passed: None, whole: true },
            };
            if self.landed.position > before {
                backoff.reset();
            }
            let ConsumerEnd { index, result, passed, whole } = end;
            let again = match result {
                // The log ends within a transaction, and there is something whole before that.
                Ok(()) if self.durable && !whole && last.is_none() && !self.is_to_stop() => {
                    self.again(None, passed.as_ref(), &mut last, &mut backoff).await
                }
                Ok(()) => Err(NoMore::Cancelled),
                Err(error) if !self.durable || matches!(error.kind(), ErrorKind::Fenced | ErrorKind::Internal) => {
                    return ConsumerEnd { index, result: Err(error), passed, whole };
                }
                Err(error) => self.again(Some(error), passed.as_ref(), &mut last, &mut backoff).await,
            };
            // Its own fault comes second: it may well be the same one again.
            let first = last.as_mut().and_then(|(_, error)| error.take());
            let result = match (again, first) {
                (Ok(again), first) => {
                    if let Some((_, error)) = &mut last {
                        *error = first;
                    }
                    opened = Ok(again);
                    continue;
                }
                (Err(NoMore::Error(error)), None) => Err(error),
                (Err(_), Some(first)) => Err(first),
                (Err(NoMore::Cancelled), None) => Ok(()),
            };
            return ConsumerEnd { index, result, passed, whole };
        }
    }

    fn is_to_stop(&self) -> bool {
        self.links.shutdown.is_requested() || *self.links.control.borrow() == Control::Cancel
    }

    async fn run_writer(&mut self, cursor: Cursor, writer: Box<dyn Writer>, until: Option<LogPosition>) -> ConsumerEnd {
        let mut transforms = match (self.transforms)() {
            Ok(transforms) => transforms,
            Err(error) => return ConsumerEnd { index: self.index, result: Err(error), passed: None, whole: true },
        };
        for relation in &self.recalled {
            recall_all(&mut transforms, relation);
        }
        let state = State {
            interval: writer.interval(),
            planned: HashSet::new(),
            evolved: HashSet::new(),
            until,
            mark: self.mark.clone(),
            at_mark: true,
            unstaged: BTreeMap::new(),
            timer: None,
            due: false,
            last_staged_at: self.links.clock.now(),
            on_its_way: None,
            landed: self.landed.clone(),
        };
        let consumer = Consumer { index: self.index, cursor, writer, transforms, links: &mut self.links, state };
        let (end, landed) = consumer.run().await;
        self.landed = landed;
        end
    }

    /// After an error: a cursor and a writer that go on from what was decided. Of an error that does not go away, or without one, only what
    /// lies before `passed` is wanted still; if that has landed, this is the end.
    async fn again(
        &mut self,
        error: Option<Error>,
        passed: Option<&LogMark>,
        last: &mut Option<(LogPosition, Option<Error>)>,
        backoff: &mut Backoff,
    ) -> Result<(Cursor, Box<dyn Writer>), NoMore> {
        let part = self.decided().await?;
        let mut fault = error;
        if fault.as_ref().is_none_or(|error| !error.is_transient()) {
            let error = fault.take();
            match (passed, error) {
                (Some(passed), error) if last.is_none() && passed.position > part.mark.position => {
                    if let Some(error) = &error {
                        tracing::error!(
                            destination = %self.context.consumer, error = %error.report(),
                            "the destination cannot go on; landing what came before"
                        );
                    }
                    *last = Some((passed.position, error));
                }
                (_, error) => return Err(error.map_or(NoMore::Cancelled, NoMore::Error)),
            }
        }
        loop {
            if let Some(error) = &fault {
                let wait = backoff.wait();
                tracing::warn!(
                    destination = %self.context.consumer, error = %error.report(), milliseconds = wait.as_millis() as u64,
                    "trying the destination again"
                );
                self.links.progress.set_consumer_error(self.index, Some(error.report()), false);
                self.links.instruments.restart();
                let mut sleep = Some(timer(&self.links.clock, wait));
                while sleep.is_some() {
                    tokio::select! {
                        biased;
                        changed = self.links.control.changed() => {
                            if changed.is_err() || is_cancelled(&mut self.links.control) {
                                return Err(NoMore::Cancelled);
                            }
                        }
                        // What it does not get to land is in the change log.
                        () = self.links.shutdown.requested() => return Err(NoMore::Error(error.clone())),
                        () = fire(&mut sleep) => {}
                    }
                }
            }
            match self.reopen(&part).await {
                Ok(opened) => {
                    self.links.progress.set_consumer_error(self.index, None, false);
                    return Ok(opened);
                }
                Err(again) if again.is_transient() => fault = Some(again),
                Err(again) => return Err(NoMore::Error(again)),
            }
        }
    }

    /// Says that the writer is gone, and is told what was decided before.
    async fn decided(&mut self) -> Result<Box<ConsumerCheckpoint>, NoMore> {
        let gone = |_| NoMore::Error(Error::internal("the stream's coordinator is gone"));
        self.links.events.send(Event::Failed(self.index)).await.map_err(gone)?;
        loop {
            tokio::select! {
                biased;
                decision = self.links.decisions.recv() => match decision {
                    Some(Decision::Recover(part)) => return Ok(part),
                    // Of the writer that is gone: it is part of what is recovered.
                    Some(Decision::Commit(_)) => {}
                    None => return Err(NoMore::Cancelled),
                },
                changed = self.links.control.changed() => {
                    if changed.is_err() || is_cancelled(&mut self.links.control) {
                        return Err(NoMore::Cancelled);
                    }
                }
            }
        }
    }

    async fn reopen(&mut self, part: &ConsumerCheckpoint) -> Result<(Cursor, Box<dyn Writer>)> {
        self.sink.recover(&self.context.consumer, &part.staged).await?;
        let writer = self.sink.open(WriterContext { run: run_name(&mut self.rng), ..self.context.clone() }).await?;
        let cursor = self.log.consumer_on_disk(self.context.consumer.clone(), Some(part.mark.position)).await?;
        let landed = &mut self.landed;
        (landed.position, landed.commit_time) = (Some(part.mark.position), part.mark.commit_time);
        (landed.epoch, landed.rows_landed) = (part.epoch, part.rows.clone());
        self.mark = Some(part.mark.clone());
        self.links.progress.recovered(self.index, landed.clone());
        let gone = |_| Error::internal("the stream's coordinator is gone");
        self.links.events.send(Event::Recovered(self.index)).await.map_err(gone)?;
        Ok((cursor, writer))
    }
}

impl Consumer<'_> {
    /// Lands the change log until it ends, an error, or being cancelled between two calls of the writer.
    async fn run(mut self) -> (ConsumerEnd, ConsumerProgress) {
        let mut result = self.land().await;
        let finished = matches!(result, Ok(Flow::LogEnded)) && self.state.at_mark;
        let (passed, whole) = (self.state.mark.take(), self.state.at_mark);
        if finished {
            result = self.writer.close().await.map(|()| Flow::LogEnded);
        }
        (ConsumerEnd { index: self.index, result: result.map(|_| ()), passed, whole }, self.state.landed)
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
            Some(decision) = self.links.decisions.recv() => {
                self.decide(decision).await?;
                self.stage_if_due().await
            }
            () = fire(&mut self.state.timer) => {
                self.state.due = true;
                self.stage_if_due().await
            }
            entry = self.cursor.next() => match entry? {
                None => Ok(Flow::LogEnded),
                Some(Entry::Relation(relation)) => self.plan(&relation).await.map(|()| Flow::On),
                Some(Entry::Changes(batch)) => self.changes(batch).await,
                Some(Entry::Mark(mark)) => self.pass(mark).await,
            },
        }
    }

    async fn await_decision(&mut self) -> Result<Flow> {
        tokio::select! {
            biased;
            decision = self.links.decisions.recv() => match decision {
                Some(decision) => self.decide(decision).await.map(|()| Flow::On),
                None => Ok(Flow::Cancelled),
            },
            changed = self.links.control.changed() => {
                Ok(if changed.is_err() || is_cancelled(&mut self.links.control) { Flow::Cancelled } else { Flow::On })
            }
        }
    }

    async fn decide(&mut self, decision: Decision) -> Result<()> {
        match decision {
            Decision::Commit(staged) => self.commit(staged).await,
            Decision::Recover(_) => Err(Error::internal("a destination that works was told to recover")),
        }
    }

    async fn pass(&mut self, mark: LogMark) -> Result<Flow> {
        // A stream that is to stop does not wait for one that is far behind: what it has not read stays in the log.
        let stops = self.links.shutdown.is_requested() && self.cursor.is_behind();
        let ends = stops || self.state.until.is_some_and(|until| mark.position >= until);
        self.links.progress.written(self.index, &mark);
        self.state.mark = Some(mark);
        self.state.at_mark = true;
        if ends { Ok(Flow::LogEnded) } else { self.stage_if_due().await }
    }

    /// Plans a relation of the change log, unless it is planned, and tells the writer what becomes of it.
    async fn plan(&mut self, relation: &Arc<Relation>) -> Result<()> {
        let version = relation.id();
        if self.state.planned.contains(&version) {
            return Ok(());
        }
        for relation in output_of_all(&mut self.transforms, relation)? {
            if self.state.evolved.insert(relation.id()) {
                self.writer.evolve(relation).await?;
            }
        }
        self.state.planned.insert(version);
        Ok(())
    }

    async fn changes(&mut self, batch: ChangeBatch) -> Result<Flow> {
        // Who begins in the middle of the log has not read its relation.
        self.plan(&batch.relation).await?;
        for batch in apply_all(&self.transforms, batch)? {
            self.write(batch).await?;
        }
        Ok(Flow::On)
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
        self.links.progress.staged(self.index, &mark);
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

/// The name of a writer's run, which no other has.
pub(crate) fn run_name(rng: &mut StdRng) -> String {
    format!("{:08x}", rng.random::<u32>())
}

fn is_cancelled(control: &mut watch::Receiver<Control>) -> bool {
    *control.borrow_and_update() == Control::Cancel
}
