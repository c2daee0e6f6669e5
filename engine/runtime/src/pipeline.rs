//! One run of a stream, from its checkpoint to its end or its first fault.
//!
//! The coordinator opens everything in the order that makes a restart exact: claim the state, recover every destination
//! to what was decided, open the log where the slowest of them is. Then it only carries messages between the tasks, the
//! state machine and the state store, of which it is the only user.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use logweir_core::{
    Clock, ConsumerName, Error, ErrorKind, LogMark, LogPosition, LogReader, LogStart, MemoryBudget, Relation, Result, StateStore,
    Transform, Writer, WriterContext, recall_all,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::{JoinError, JoinSet};

use crate::changelog::segment::{SegmentClaim, SegmentLog};
use crate::changelog::{Appender, ChangeLog, ENTRIES_MAX, OnDisk, blocking, change_log, change_log_on_disk};
use crate::checkpoint::{Action, Checkpoint, CheckpointDocument, Event, LogKept};
use crate::consumer::{ConsumerEnd, ConsumerTask, Decision, Links, run_name};
use crate::instruments::{ConsumerInstruments, LogInstruments, StreamInstruments};
use crate::progress::{ConsumerProgress, StreamProgress, StreamState};
use crate::reader::{Goal, Place, Reader, ReaderEnd};
use crate::recorder::Recorder;
use crate::shutdown::Shutdown;
use crate::stream::{Acknowledge, StreamSpec};

/// A drain that takes longer is given up: nothing is lost, but what was read is read again at the next start.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);
/// A drain waits this long for the transaction being read to end, of its whole time.
const DRAIN_READ_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a cancelled task may take to return from the call that it is in.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// How often the numbers that age by themselves are reported.
pub(crate) const REPORT_INTERVAL: Duration = Duration::from_secs(5);

// Of a stream's memory: batches between reader and writers, what writers buffer, and the rest for the reader's builders,
// the transform's output and the checkpoint. Writers never draw on the first part, so they can always empty it.
const IN_FLIGHT_PERCENT: usize = 45;
const WRITERS_PERCENT: usize = 45;
// With a change log on disk: of the first part, what is read again from there has its own, which nobody else draws on; and what is in memory
// though it is on disk is half of the rest at most, so that the reader can always go on.
const FROM_DISK_PERCENT: usize = 10;
const WINDOW_FRACTION: usize = 2;
/// A writer with less could not hold a row group of anything.
const WRITER_BYTES_MIN: usize = 1024 * 1024;

/// Messages that tasks may have under way to the coordinator; it never waits for a task, so it always empties them.
const EVENTS_MAX: usize = 256;

/// What tasks are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Control {
    /// Go on.
    Run,
    /// Read to the next mark, land what was read, end.
    Drain,
    /// Read no further, land what was read, end.
    Finish,
    /// End between two calls.
    Cancel,
}

pub(crate) type Timer = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A timer that runs out after `duration` of the clock.
pub(crate) fn timer(clock: &Arc<dyn Clock>, duration: Duration) -> Timer {
    let clock = Arc::clone(clock);
    Box::pin(async move { clock.sleep(duration).await })
}

/// Returns when the timer runs out, and never if there is none. Cancel safe.
pub(crate) async fn fire(timer: &mut Option<Timer>) {
    match timer {
        Some(running) => {
            running.await;
            *timer = None;
        }
        None => pending().await,
    }
}

/// What a run needs.
pub(crate) struct Run<'a> {
    pub(crate) spec: &'a StreamSpec,
    pub(crate) state: &'a Arc<Mutex<Box<dyn StateStore>>>,
    pub(crate) clock: &'a Arc<dyn Clock>,
    pub(crate) shutdown: &'a Shutdown,
    pub(crate) progress: &'a Arc<StreamProgress>,
    pub(crate) instruments: &'a Arc<StreamInstruments>,
    pub(crate) rng: &'a mut StdRng,
    pub(crate) goal: Goal,
    /// A mark is wanted behind each transaction.
    pub(crate) marks_each: bool,
}

/// How a run ended.
pub(crate) struct Outcome {
    pub(crate) result: Result<()>,
    /// Everything was open and the log had begun.
    pub(crate) ran: bool,
    /// Something became visible.
    pub(crate) progressed: bool,
    /// Changes were read that are not visible everywhere.
    pub(crate) unlanded: bool,
    /// The error is of a transform, that refused a change.
    pub(crate) refused: bool,
    /// What lies before the fault and is not visible everywhere can be landed by reading up to here.
    pub(crate) land: Option<LogMark>,
}

impl Outcome {
    fn early(result: Result<()>) -> Self {
        Outcome { result, ran: false, progressed: false, unlanded: false, refused: false, land: None }
    }
}

/// Everything open.
struct Opened {
    machine: Checkpoint,
    log: Box<dyn LogReader>,
    writers: Vec<Result<Box<dyn Writer>>>,
    segments: Option<SegmentLog>,
    memory: MemoryBudget,
    goal: Goal,
}

enum TaskEnd {
    Reader(Box<ReaderEnd>),
    Recorder(Result<()>),
    Consumer(ConsumerEnd),
}

impl Run<'_> {
    /// Runs until the goal, the end of the log, a requested shutdown, or the first fault.
    pub(crate) async fn run(mut self) -> Outcome {
        let shutdown = self.shutdown.clone();
        let opened = tokio::select! {
            biased;
            opened = self.open() => opened,
            // Nothing was read yet, and the next start recovers again whatever this cuts short.
            () = shutdown.requested() => return Outcome::early(Ok(())),
        };
        match opened {
            Ok(opened) => match self.start(opened).await {
                Ok(coordinator) => coordinator.run().await,
                Err(error) => Outcome::early(Err(error)),
            },
            Err(error) => Outcome::early(Err(error)),
        }
    }

    async fn open(&mut self) -> Result<Opened> {
        let mut machine = self.claim().await?;
        let segments = self.open_segments(&mut machine).await?;
        let names: Vec<ConsumerName> = self.spec.destinations.iter().map(|destination| self.consumer_name(&destination.name)).collect();
        let recoveries = self.spec.destinations.iter().enumerate().map(|(index, destination)| {
            let (name, staged) = (&names[index], machine.staged(index));
            async move { destination.sink.recover(name, staged).await.map_err(|error| error.context("destination", &destination.name)) }
        });
        // Every recovery runs to its end, also beside one that fails: a sink's work is not cut short.
        let recovered = join_all(recoveries).await;

        let mut writers = Vec::with_capacity(names.len());
        for ((destination, consumer), recovered) in self.spec.destinations.iter().zip(names).zip(recovered) {
            let context = self.writer_context(consumer);
            writers.push(match recovered {
                Ok(()) => destination.sink.open(context).await.map_err(|error| error.context("destination", &destination.name)),
                Err(error) => Err(error),
            });
        }
        // One that cannot be opened does not keep the others waiting, where there is a log that it can catch up from.
        let alone = |error: &Error| segments.is_some() && !matches!(error.kind(), ErrorKind::Fenced | ErrorKind::Internal);
        let tolerable = writers.iter().any(Result::is_ok) && writers.iter().flat_map(|writer| writer.as_ref().err()).all(alone);
        if !tolerable {
            writers = writers.into_iter().collect::<Result<Vec<_>>>()?.into_iter().map(Ok).collect();
        }

        writers.iter().enumerate().filter(|(_, writer)| writer.is_err()).for_each(|(index, _)| machine.is_unrecovered(index));

        let percent = if segments.is_some() { IN_FLIGHT_PERCENT - FROM_DISK_PERCENT } else { IN_FLIGHT_PERCENT };
        let memory = MemoryBudget::new(self.spec.memory_bytes / 100 * percent);
        let start = LogStart {
            resume: machine.resume().cloned(),
            relations: machine.relations(),
            tables: self.spec.tables.clone(),
            before_images: [self.spec.before_images.as_slice(), &self.spec.keep_before_images].concat(),
            memory: memory.clone(),
        };
        let mut log = self.spec.source.open_log(start).await?;
        if self.marks_each {
            log.mark_each_transaction();
        }
        Ok(Opened { machine, log, writers, segments, memory, goal: self.goal.clone() })
    }

    /// Opens the change log on disk at what was decided. Where it does not hold that, it begins anew, and the source tells again; but not by
    /// itself where the source may have forgotten it.
    async fn open_segments(&self, machine: &mut Checkpoint) -> Result<Option<SegmentLog>> {
        let Some(change_log) = &self.spec.change_log else { return Ok(None) };
        let (options, mut mark) = (change_log.segments.clone(), machine.logged().map(|mark| mark.position));
        let for_source = change_log.acknowledge == Acknowledge::Log;
        if mark.is_some() && machine.log_rules() != Some(self.spec.rules.as_str()) {
            if for_source && !machine.all_have_passed_the_log() {
                return Err(Error::config("the rules have changed, and a destination still needs changes that were made by the old ones")
                    .remedy(
                        "the change log holds changes as the masks, functions, transforms and tables of before made them, and with `acknowledge: log` the \
                         source may have forgotten them. Run with the old ones until every destination has caught up (logweir status), then with the new",
                    ));
            }
            tracing::warn!(
                stream = self.spec.name,
                "masks, functions, transforms or tables have changed: the change log, which holds changes as the old rules made them, begins anew \
                 where the slowest destination is"
            );
            machine.log_is_lost();
            mark = None;
        }
        machine.set_log_rules(&self.spec.rules);
        let in_store = options.store.is_some();
        let claim = blocking(move || SegmentLog::claim(options)).await?;
        if in_store {
            // Whoever has taken over the stream before this claim must not be overruled by it; who does so later claims a higher number.
            self.state.lock().await.claim().await?;
        }
        let open = if for_source { SegmentClaim::open_only_copy } else { SegmentClaim::open };
        let segments = blocking(move || open(claim, mark)).await?;
        if let Some(mark) = mark
            && segments.mark().is_none()
        {
            tracing::warn!(
                stream = self.spec.name,
                position = %mark,
                "the change log does not hold what the checkpoint says: it begins anew where the slowest destination is"
            );
            machine.log_is_lost();
        }
        Ok(Some(segments))
    }

    fn writer_context(&mut self, consumer: ConsumerName) -> WriterContext {
        let share = self.spec.memory_bytes / 100 * WRITERS_PERCENT / self.spec.destinations.len().max(1);
        WriterContext { consumer, run: run_name(self.rng), memory_bytes: share.max(WRITER_BYTES_MIN) }
    }

    /// Becomes the owner of the stream and reads what was decided.
    async fn claim(&self) -> Result<Checkpoint> {
        let mut state = self.state.lock().await;
        let document = state.claim().await?;
        let location = state.location();
        drop(state);
        let document = document.map(|bytes| CheckpointDocument::from_bytes(&bytes)).transpose();
        let document = document.map_err(|error| error.context("checkpoint", &location))?;
        let known: Vec<String> = document.iter().flat_map(|document| document.consumers.keys().cloned()).collect();
        let names: Vec<String> = self.spec.destinations.iter().map(|destination| destination.name.clone()).collect();
        let kept = match &self.spec.change_log {
            None => LogKept::InMemory,
            Some(log) if log.acknowledge == Acknowledge::Log => LogKept::OnDiskForSource,
            Some(_) => LogKept::OnDisk,
        };
        let machine = Checkpoint::new(&self.spec.name, document, &names, kept);
        let machine = machine.map_err(|error| error.context("checkpoint", &location))?;
        let stream = &self.spec.name;
        for (destination, tokens) in machine.abandoned() {
            if *tokens > 0 {
                tracing::warn!(
                    stream,
                    destination,
                    tokens,
                    "a destination is no longer configured: what it had staged at the last checkpoint stays invisible"
                );
            } else {
                tracing::info!(stream, destination, "a destination is no longer configured and leaves the checkpoint");
            }
        }
        if let Some(resume) = machine.resume() {
            for destination in names.iter().filter(|name| !known.contains(name)) {
                tracing::info!(stream, destination, position = %resume.position, "a new destination begins where the stream resumes");
            }
        }
        Ok(machine)
    }

    fn consumer_name(&self, destination: &str) -> ConsumerName {
        ConsumerName { stream: self.spec.name.clone(), destination: destination.to_owned() }
    }

    /// Starts the tasks.
    async fn start(&mut self, opened: Opened) -> Result<Coordinator> {
        let Opened { machine, log, writers, segments, memory, goal } = opened;
        let mut transforms = (self.spec.transforms)()?;
        let recalled = self.recall(&machine, &mut transforms)?;
        let (events_to, events) = mpsc::channel(EVENTS_MAX);
        let control = watch::Sender::new(Control::Run);
        let acknowledge = watch::Sender::new(None);
        let (appender, change_log) = self.change_log(segments.as_ref(), &memory);
        let mut tasks = JoinSet::new();
        let mut decisions = Vec::with_capacity(writers.len());
        let mut consumers_progress = Vec::with_capacity(writers.len());
        for (index, (destination, writer)) in self.spec.destinations.iter().zip(writers).enumerate() {
            let decided = machine.decided(index);
            let mark = decided.map(|part| part.mark.clone());
            let landed = ConsumerProgress {
                destination: destination.name.clone(),
                position: mark.as_ref().map(|mark| mark.position),
                commit_time: mark.as_ref().and_then(|mark| mark.commit_time),
                checkpoint_time: decided.and_then(|part| part.decided_at),
                epoch: decided.map_or(0, |part| part.epoch),
                rows_landed: decided.map(|part| part.rows.clone()).unwrap_or_default(),
                ..ConsumerProgress::default()
            };
            consumers_progress.push(landed.clone());
            // A destination has one decision on its way at most, and what it is to recover to.
            let (decide, decisions_of) = mpsc::channel(2);
            decisions.push(decide);
            let links = Links {
                events: events_to.clone(),
                decisions: decisions_of,
                control: control.subscribe(),
                shutdown: self.shutdown.clone(),
                clock: Arc::clone(self.clock),
                progress: Arc::clone(self.progress),
                instruments: ConsumerInstruments::new(&self.spec.name, &destination.name),
            };
            let name = self.consumer_name(&destination.name);
            // Opened before the first entry is appended, so that it misses nothing.
            let cursor = change_log.consumer_on_disk(name.clone(), mark.as_ref().map(|mark| mark.position)).await;
            let task = ConsumerTask {
                index,
                context: self.writer_context(name),
                sink: Arc::clone(&destination.sink),
                transforms: Arc::clone(&destination.transforms),
                recalled: recalled.clone(),
                log: change_log.clone(),
                durable: segments.is_some(),
                links,
                landed,
                mark,
                rng: StdRng::seed_from_u64(self.rng.random()),
            };
            tasks.spawn(async move { TaskEnd::Consumer(Box::pin(task.run(cursor, writer)).await) });
        }
        self.progress.set_consumers(consumers_progress);
        let recording = segments.is_some();
        if let Some(segments) = segments {
            let recorder = Recorder {
                cursor: change_log.recorder(),
                log: change_log,
                segments,
                for_source: self.spec.change_log.as_ref().is_some_and(|log| log.acknowledge == Acknowledge::Log),
                events: events_to.clone(),
                control: control.subscribe(),
                clock: Arc::clone(self.clock),
                progress: Arc::clone(self.progress),
                instruments: LogInstruments::new(&self.spec.name),
            };
            tasks.spawn(async move { TaskEnd::Recorder(Box::pin(recorder.run()).await) });
        }
        let landing = matches!(goal, Goal::Land(_));
        let reader = Reader {
            log,
            transforms,
            before_images: self.spec.keep_before_images.clone(),
            appender,
            events: events_to,
            control: control.subscribe(),
            acknowledge: acknowledge.subscribe(),
            goal,
            progress: Arc::clone(self.progress),
            instruments: Arc::clone(self.instruments),
            clock: Arc::clone(self.clock),
            ask_retained: None,
            backfilling: false,
            place: Place::default(),
        };
        tasks.spawn(async move { TaskEnd::Reader(Box::new(reader.run().await)) });
        Ok(Coordinator {
            stream: self.spec.name.clone(),
            destinations: self.spec.destinations.iter().map(|destination| destination.name.clone()).collect(),
            began_at: machine.committed().map(|mark| mark.position),
            consumers_left: decisions.len(),
            recording,
            durable: recording,
            failures: Vec::new(),
            machine,
            state: Arc::clone(self.state),
            clock: Arc::clone(self.clock),
            shutdown: self.shutdown.clone(),
            progress: Arc::clone(self.progress),
            instruments: Arc::clone(self.instruments),
            memory,
            tasks,
            events,
            decisions,
            control,
            acknowledge: Some(acknowledge),
            save: None,
            reader: None,
            fault: None,
            whole: true,
            ran: false,
            landing,
            drain_read: None,
            drain: None,
            report: None,
        })
    }

    /// Tells the transforms which columns there were, if one of them or of a destination's wants to know. Returns what destinations are told.
    fn recall(&self, machine: &Checkpoint, transforms: &mut [Box<dyn Transform>]) -> Result<Vec<Arc<Relation>>> {
        let mut wanted = transforms.iter().any(|transform| transform.recalls());
        for destination in &self.spec.destinations {
            wanted |= (destination.transforms)()?.iter().any(|transform| transform.recalls());
        }
        let relations = if wanted { machine.recalled() } else { Vec::new() };
        Ok(relations.iter().flat_map(|relation| recall_all(transforms, relation)).collect())
    }

    fn change_log(&self, segments: Option<&SegmentLog>, memory: &MemoryBudget) -> (Appender, ChangeLog) {
        let (Some(segments), Some(spec)) = (segments, &self.spec.change_log) else { return change_log(ENTRIES_MAX) };
        let disk = OnDisk {
            place: spec.segments.place(),
            next_entry: segments.next_entry(),
            window_bytes: memory.total_bytes() / WINDOW_FRACTION,
            memory: MemoryBudget::new(self.spec.memory_bytes / 100 * FROM_DISK_PERCENT),
        };
        change_log_on_disk(ENTRIES_MAX, disk)
    }
}

/// The first error of a run that is to be landed up to.
struct Fault {
    error: Error,
    passed: Option<LogMark>,
}

struct Coordinator {
    stream: String,
    destinations: Vec<String>,
    /// What was visible everywhere when the run began.
    began_at: Option<LogPosition>,
    consumers_left: usize,
    /// The change log is still being written to disk.
    recording: bool,
    /// There is one on disk: a destination that fails does so alone.
    durable: bool,
    /// What destinations have ended with, while others went on.
    failures: Vec<Error>,
    machine: Checkpoint,
    state: Arc<Mutex<Box<dyn StateStore>>>,
    clock: Arc<dyn Clock>,
    shutdown: Shutdown,
    progress: Arc<StreamProgress>,
    instruments: Arc<StreamInstruments>,
    memory: MemoryBudget,
    tasks: JoinSet<TaskEnd>,
    events: mpsc::Receiver<Event>,
    decisions: Vec<mpsc::Sender<Decision>>,
    control: watch::Sender<Control>,
    acknowledge: Option<watch::Sender<Option<LogMark>>>,
    save: Option<Pin<Box<dyn Future<Output = Result<()>> + Send>>>,
    reader: Option<Box<ReaderEnd>>,
    fault: Option<Fault>,
    /// False if a consumer ended behind its last mark.
    whole: bool,
    ran: bool,
    landing: bool,
    drain_read: Option<Timer>,
    drain: Option<Timer>,
    report: Option<Timer>,
}

impl Coordinator {
    async fn run(mut self) -> Outcome {
        let mut result = self.coordinate().await;
        if result.is_err() {
            self.tell(Control::Cancel);
        }
        // The reader ends when nothing is left to acknowledge; after an error every task ends between two calls.
        self.acknowledge = None;
        if let Err(error) = self.stop(result.is_ok()).await {
            result = result.and(Err(error));
        }
        let land = match (self.fault.take(), &result) {
            (Some(fault), Ok(())) => {
                result = Err(fault.error);
                // Where a log is on disk, each destination has landed by itself what it could.
                fault.passed.filter(|passed| !self.durable && self.committed() < Some(passed.position))
            }
            _ => None,
        };
        self.instruments.running(false);
        let handed_out = self.reader.as_ref().and_then(|reader| reader.place.handed_out);
        if result.is_ok() && !self.whole {
            tracing::info!(stream = self.stream, "stopped inside a transaction: its changes will be read again at the next start");
        }
        Outcome {
            ran: self.ran,
            progressed: self.committed() > self.began_at,
            // A reader that did not end in time had read something, as far as we know.
            unlanded: self.reader.is_none() || handed_out > self.committed(),
            refused: self.reader.as_ref().is_some_and(|reader| reader.place.refused),
            land,
            result,
        }
    }

    fn committed(&self) -> Option<LogPosition> {
        self.machine.committed().map(|mark| mark.position)
    }

    /// Carries messages until every consumer has ended and all is decided. Errors that leave nothing to land end it.
    async fn coordinate(&mut self) -> Result<()> {
        self.report = Some(timer(&self.clock, Duration::ZERO));
        loop {
            if self.consumers_left == 0 && !self.recording && self.save.is_none() {
                match self.machine.settle() {
                    Some(action) => self.act(action)?,
                    // What ended the reader matters more.
                    None if self.fault.is_some() || self.failures.is_empty() => return Ok(()),
                    None => return Err(self.failures.swap_remove(0)),
                }
            }
            let shutdown = self.shutdown.clone();
            let draining = *self.control.borrow() >= Control::Drain;
            tokio::select! {
                // Messages first: a task that ended has sent its last before.
                biased;
                Some(event) = self.events.recv() => self.handle(event)?,
                saved = finish(&mut self.save) => {
                    saved?;
                    self.handle(Event::Saved)?;
                }
                Some(ended) = self.tasks.join_next() => self.ended(ended)?,
                () = shutdown.requested(), if !draining => self.drain(),
                () = fire(&mut self.drain_read) => self.tell(Control::Finish),
                () = fire(&mut self.drain) => {
                    return Err(Error::transient("could not land in time what was read before the shutdown")
                        .context("seconds", DRAIN_TIMEOUT.as_secs())
                        .remedy("nothing is lost: the next start reads it again"));
                }
                () = fire(&mut self.report) => self.report(),
            }
        }
    }

    fn handle(&mut self, event: Event) -> Result<()> {
        if let Event::Opened(mark) = &event {
            self.ran = true;
            self.instruments.running(true);
            if !self.shutdown.is_requested() {
                self.progress.set_state(if self.landing { StreamState::Draining } else { StreamState::Running });
            }
            tracing::info!(stream = self.stream, position = %mark.position, "running");
        }
        for action in self.machine.handle(event)? {
            self.act(action)?;
        }
        Ok(())
    }

    fn act(&mut self, action: Action) -> Result<()> {
        match action {
            Action::Save(document) => {
                let (state, bytes) = (Arc::clone(&self.state), document.to_bytes()?);
                self.save = Some(Box::pin(async move { state.lock().await.save(&bytes).await }));
            }
            Action::Commit(index, staged) => self.decide(index, Decision::Commit(staged)),
            Action::Recover(index, part) => self.decide(index, Decision::Recover(Box::new(part))),
            Action::Acknowledge(mark) => {
                if let Some(acknowledge) = &self.acknowledge {
                    acknowledge.send_replace(Some(mark));
                }
            }
        }
        Ok(())
    }

    fn decide(&self, index: usize, decision: Decision) {
        // A consumer that has ended meanwhile by an error is recovered at the next start, with these tokens.
        if let Some(decide) = self.decisions.get(index) {
            let _ = decide.try_send(decision);
        }
    }

    /// Takes note of a task's end; an error that leaves nothing to land ends the run.
    fn ended(&mut self, ended: Result<TaskEnd, JoinError>) -> Result<()> {
        let (error, passed) = match ended {
            Ok(TaskEnd::Reader(mut end)) => {
                let result = std::mem::replace(&mut end.result, Ok(()));
                let passed = end.place.mark.clone();
                self.reader = Some(end);
                match result {
                    Ok(()) => return Ok(()),
                    Err(error) => (error, passed),
                }
            }
            Ok(TaskEnd::Recorder(result)) => {
                self.recording = false;
                return result;
            }
            Ok(TaskEnd::Consumer(end)) => {
                self.consumers_left -= 1;
                self.whole &= end.whole;
                let error = match end.result {
                    Ok(()) => return Ok(()),
                    Err(error) => error.context("destination", &self.destinations[end.index]),
                };
                if self.durable && !matches!(error.kind(), ErrorKind::Fenced | ErrorKind::Internal) {
                    return self.destination_failed(end.index, error);
                }
                (error, end.passed)
            }
            Err(join) => return Err(broken(join)),
        };
        match error.kind() {
            // Gone is gone: whatever may go away is tried again from the checkpoint, whoever lost the stream must not
            // touch it, and a mistake of ours cannot be trusted to land anything.
            ErrorKind::Transient | ErrorKind::Fenced | ErrorKind::Internal => match self.fault.take() {
                // While what came before a fault is being landed, that fault is what matters.
                Some(fault) if error.is_transient() => {
                    self.fault = Some(fault);
                    Ok(())
                }
                _ => Err(error),
            },
            _ => {
                if self.fault.is_none() {
                    tracing::error!(stream = self.stream, error = %error.report(), "the stream cannot go on; landing what came before");
                    self.fault = Some(Fault { error, passed });
                    self.progress.set_state(StreamState::Draining);
                    self.tell(Control::Finish);
                }
                Ok(())
            }
        }
    }

    /// A destination has ended by itself: it has landed what it could. The others go on; without others the stream ends.
    fn destination_failed(&mut self, index: usize, error: Error) -> Result<()> {
        self.instruments.error(error.kind());
        tracing::error!(stream = self.stream, error = %error.report(), "a destination has failed");
        self.progress.set_consumer_error(index, Some(error.report()), true);
        self.failures.push(error);
        if self.consumers_left == 0 {
            self.tell(Control::Finish);
        }
        Ok(())
    }

    fn drain(&mut self) {
        tracing::info!(stream = self.stream, "draining");
        self.progress.set_state(StreamState::Draining);
        self.tell(Control::Drain);
        self.drain_read = Some(timer(&self.clock, DRAIN_READ_TIMEOUT));
        self.drain = Some(timer(&self.clock, DRAIN_TIMEOUT));
    }

    /// Tells the tasks, unless they were told something stronger.
    fn tell(&mut self, control: Control) {
        self.control.send_if_modified(|told| {
            let stronger = control > *told;
            if stronger {
                *told = control;
            }
            stronger
        });
    }

    fn report(&mut self) {
        let total = self.memory.total_bytes();
        self.progress.set_memory(total.saturating_sub(self.memory.available_bytes()), total);
        self.instruments.refresh(&self.progress.snapshot(), self.clock.as_ref());
        self.report = Some(timer(&self.clock, REPORT_INTERVAL));
    }

    /// Waits for every task and for a save under way; both are given time to return by themselves. At a clean end what
    /// the tasks say counts: consumers may have ended before the reader whose error made them.
    async fn stop(&mut self, clean: bool) -> Result<()> {
        // Nobody needs an answer any more, but a task may wait for room to send.
        self.events.close();
        let mut result = Ok(());
        let mut deadline = Some(timer(&self.clock, STOP_TIMEOUT));
        while !self.tasks.is_empty() || self.save.is_some() {
            tokio::select! {
                biased;
                // Its outcome is read from the store at the next start.
                _ = finish(&mut self.save) => {}
                Some(ended) = self.tasks.join_next() => match ended {
                    ended if clean => result = result.and(self.ended(ended)),
                    Ok(TaskEnd::Reader(end)) => self.reader = Some(end),
                    Ok(TaskEnd::Recorder(_)) => self.recording = false,
                    Ok(TaskEnd::Consumer(end)) => self.whole &= end.whole,
                    Err(join) => result = Err(broken(join)),
                },
                () = fire(&mut deadline) => {
                    self.tasks.abort_all();
                    return Err(Error::internal("a task of the stream did not end when it was told to")
                        .context("seconds", STOP_TIMEOUT.as_secs())
                        .remedy("nothing is lost: start the stream again"));
                }
            }
        }
        result
    }
}

async fn finish(save: &mut Option<Pin<Box<dyn Future<Output = Result<()>> + Send>>>) -> Result<()> {
    match save {
        Some(under_way) => {
            let result = under_way.await;
            *save = None;
            result
        }
        None => pending().await,
    }
}

fn broken(join: JoinError) -> Error {
    // What it panicked with may hold values, and is told by the panic hook as far as it may be.
    let what = if join.is_panic() { "a task of the stream panicked" } else { "a task of the stream was aborted" };
    Error::internal(what).remedy("nothing is lost: please report this with the log, and start the stream again")
}
