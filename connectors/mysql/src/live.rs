//! Reads a live server's log: pulls events, lets the decoder make columns of them, and hands those out as memory allows.
//!
//! The reader is one loop over its own state. Whatever takes time (opening the dump, asking for a table's shape, waiting for
//! memory) is a future kept in the state, so a call of `next` that is dropped loses nothing and the next one goes on.
//!
//! After a fault a fresh decoder begins at the last mark. Batches cut inside a large transaction may have been handed out
//! behind that mark; their rows come again and are cut off by position, which strictly rises per relation.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use logweir_core::{
    ChangeBatch, Clock, Error, LogEvent, LogMark, LogPosition, LogReader, LogStart, MemoryBudget, MemoryPermit, Pattern, Relation,
    RelationName, Result, SystemClock, TableFilter,
};
use tokio::time::{Instant, sleep_until};

use crate::catalog::TableShape;
use crate::catalog_query::shape;
use crate::decoder::{BinlogDecoder, Decoded, DecoderOptions};
use crate::options::MysqlOptions;
use crate::place::{self, Place, is_progress, sign_begun};
use crate::server::{Facts, Server};
use crate::stream::{EventStream, Pulled, Replica, SERVER_ID_TAKEN, SILENCE_MAX};

/// Events are decoded in runs of about this size: large enough that a run costs more than what surrounds it, small
/// enough to stay in cache.
const RUN_BYTES: usize = 256 * 1024;

/// The share of the memory budget that the decoder may hold before it cuts batches: it is not counted until then.
const DECODER_BUDGET_SHARE: usize = 16;

/// Bounds of that: batches below waste what comes after them, above they only cost latency.
const FLUSH_BYTES: std::ops::RangeInclusive<usize> = 256 * 1024..=16 * 1024 * 1024;

/// Under load, changes wait this long for more of their kind. A change after a pause waits for nothing.
const LINGER: Duration = Duration::from_millis(2);

/// But not longer than this, once nothing more lies ready: changes that come one by one arrive within milliseconds, also where they never pause. Of a
/// backlog there is always more.
const PATIENCE: Duration = Duration::from_millis(5);

/// A stream of which there is always more is flushed this often, whatever it holds.
const FLUSH_INTERVAL: Duration = Duration::from_millis(100);

/// An idle log gives a mark this often: twice in the time that the contract allows.
const IDLE_MARK: Duration = Duration::from_secs(<dyn LogReader>::IDLE_MARK_SECONDS / 2);

/// Bounds of the wait before an attempt to reconnect, doubled from one to the next.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// A session that lasted this long was in order: the next wait is short again.
const STEADY: Duration = Duration::from_secs(60);

/// Reads the log of a live server.
pub(crate) struct LiveReader {
    options: Arc<MysqlOptions>,
    replica: Replica,
    tables: TableFilter,
    before_images: Vec<Pattern>,
    memory: MemoryBudget,
    /// Every relation version that the decoder must know.
    relations: Vec<Arc<Relation>>,
    announced: HashSet<(RelationName, u32)>,

    session: Option<Session>,
    opening: Option<BoxFuture<'static, Result<Opened>>>,
    attempts: u32,
    retry_at: Option<Instant>,

    /// A mark is wanted behind every transaction.
    marks_each: bool,
    /// The last mark handed out.
    last_mark: LogMark,
    last_mark_at: Instant,
    /// Positions handed out behind it, the greatest per relation.
    handed_out: HashMap<RelationName, LogPosition>,

    /// An event that waits for its memory.
    waiting: Option<(ChangeBatch, BoxFuture<'static, MemoryPermit>)>,
    /// A mark to hand out before anything else: of the opening, or of an idle log.
    mark_due: Option<LogMark>,
    /// Returned when everything before it was handed out.
    failed: Option<Failed>,
    /// For `end`.
    questions: Option<(Server, Facts)>,
}

/// What ends a session.
enum Failed {
    /// Reconnect.
    Session(Error),
    /// Give up.
    Reader(Error),
}

/// The shape of a table, and the connection that was asked.
type Answer = (Server, Result<Option<TableShape>>);

/// A dump under way and its decoder.
struct Session {
    stream: EventStream,
    decoder: BinlogDecoder,
    place: Place,
    facts: Arc<Facts>,
    /// `None` while a question is under way.
    server: Option<Server>,
    asking: Option<(RelationName, BoxFuture<'static, Answer>)>,
    /// Whole events; those before `decoded` were taken by the decoder.
    buffer: Vec<u8>,
    decoded: usize,
    /// The place that the last heartbeat named.
    passed: Option<(String, u32)>,
    /// Since when decoded events wait to be flushed.
    unflushed_since: Option<Instant>,
    flushed_at: Option<Instant>,
    heard_at: Instant,
    opened_at: Instant,
    /// A fault of the stream behind events that are still to be decoded.
    fault: Option<Error>,
}

/// What opening the dump gives.
struct Opened {
    session: Session,
    mark: LogMark,
}

/// What is needed to open the dump, for as long as that takes.
struct Opening {
    options: Arc<MysqlOptions>,
    replica: Replica,
    tables: TableFilter,
    before_images: Vec<Pattern>,
    relations: Vec<Arc<Relation>>,
    resume: Option<LogMark>,
    memory_bytes: usize,
}

impl Opening {
    async fn open(self) -> Result<Opened> {
        let mut server = Server::new(Arc::clone(&self.options));
        let facts = Arc::new(server.facts().await?);
        let place = match &self.resume {
            Some(mark) => place::of_mark(&mut server, &facts, mark).await?,
            None => place::of_start(&mut server, &facts, &self.options.start).await?,
        };
        let connection = server.connect().await?;
        let mut stream = EventStream::open(connection, &facts, &self.replica, &place.dump).await?;
        place.check_begun(stream.first_file(), stream.begun(stream.first_file()))?;
        let mark = sign_begun(place.mark(stream.first_file(), &facts.identity)?, |file| stream.begun(file));
        if let Some(left) = &place.left {
            tracing::warn!(
                checkpoint_server = left,
                server = facts.identity,
                incarnation = place.incarnation,
                "the log goes on on another server, found by its GTIDs"
            );
        }
        let (file, position) = place.first(stream.first_file());
        let flush_bytes = (self.memory_bytes / DECODER_BUDGET_SHARE).clamp(*FLUSH_BYTES.start(), *FLUSH_BYTES.end());
        let options = DecoderOptions {
            tables: self.tables,
            before_images: self.before_images,
            incarnation: place.incarnation,
            resume: Some(mark.clone()),
            relations: self.relations,
            has_catalog: true,
            flush_bytes,
            flush_bytes_max: flush_bytes * 2,
            gtid: place.gtid.clone(),
            skip_through: None,
            server: Some(facts.identity.clone()),
        };
        let decoder = BinlogDecoder::new(options, &file, position)?;
        tracing::info!(
            server = self.options.address(),
            server_id = self.replica.server_id,
            file,
            position,
            incarnation = place.incarnation,
            "reading the binlog"
        );
        let mut buffer = Vec::with_capacity(RUN_BYTES);
        buffer.append(&mut stream.first_events());
        let session = Session {
            stream,
            decoder,
            place,
            facts,
            server: Some(server),
            asking: None,
            buffer,
            decoded: 0,
            passed: None,
            unflushed_since: None,
            flushed_at: None,
            heard_at: Instant::now(),
            opened_at: Instant::now(),
            fault: None,
        };
        Ok(Opened { session, mark })
    }
}

impl LiveReader {
    /// Opens the log. A fault on the way is the caller's to retry.
    pub(crate) async fn open(options: Arc<MysqlOptions>, replica: Replica, start: LogStart) -> Result<Self> {
        let opening = Opening {
            options: Arc::clone(&options),
            replica: replica.clone(),
            tables: start.tables.clone(),
            before_images: start.before_images.clone(),
            relations: start.relations.clone(),
            resume: start.resume,
            memory_bytes: start.memory.total_bytes(),
        };
        let Opened { session, mark } = opening.open().await?;
        Ok(LiveReader {
            options,
            replica,
            tables: start.tables,
            before_images: start.before_images,
            memory: start.memory,
            announced: HashSet::new(),
            relations: start.relations,
            session: Some(session),
            opening: None,
            attempts: 0,
            retry_at: None,
            marks_each: false,
            last_mark: mark.clone(),
            last_mark_at: Instant::now(),
            handed_out: HashMap::new(),
            waiting: None,
            mark_due: Some(mark),
            failed: None,
            questions: None,
        })
    }

    /// The next event that is decoded already, as it may be handed out; memory is not acquired yet.
    fn take_ready(&mut self) -> Option<LogEvent> {
        if let Some(mark) = self.mark_due.take() {
            return Some(LogEvent::Mark(mark));
        }
        let session = self.session.as_mut()?;
        loop {
            match session.decoder.next_event()? {
                LogEvent::Relation(relation) => {
                    if self.announced.insert((relation.name().clone(), relation.version())) {
                        if !self.relations.iter().any(|known| **known == *relation) {
                            self.relations.push(Arc::clone(&relation));
                        }
                        return Some(LogEvent::Relation(relation));
                    }
                }
                LogEvent::Changes(batch) => {
                    let fresh = match self.handed_out.get(batch.relation.name()) {
                        Some(last) => batch.after(*last),
                        None => Some(batch),
                    };
                    if let Some(batch) = fresh {
                        return Some(LogEvent::Changes(batch));
                    }
                }
                LogEvent::Mark(mark) => {
                    if is_progress(&mark, self.last_mark.position) {
                        return Some(LogEvent::Mark(session.sign(mark)));
                    }
                }
            }
        }
    }

    fn note_mark(&mut self, mark: &LogMark) {
        if mark.position > self.last_mark.position {
            self.attempts = 0;
        }
        self.last_mark = mark.clone();
        self.last_mark_at = Instant::now();
        self.handed_out.clear();
    }

    /// Decides what a fault of the session means.
    fn fault(&mut self, error: Error) {
        let retry = error.is_transient() || (error.message() == SERVER_ID_TAKEN && self.options.server_id.is_none());
        if error.message() == SERVER_ID_TAKEN && self.options.server_id.is_none() {
            self.replica = Replica::new(None);
        }
        self.failed = Some(if retry { Failed::Session(error) } else { Failed::Reader(error) });
        // What came whole before the fault is still handed out.
        if let Some(session) = &mut self.session
            && let Err(error) = session.decode_rest().and_then(|()| session.decoder.flush().map(|_| ()))
        {
            self.failed = Some(Failed::Reader(error));
        }
    }

    /// Everything before the fault was handed out: now it counts.
    fn settle_fault(&mut self, failed: Failed) -> Result<()> {
        match failed {
            Failed::Reader(error) => {
                // Every later call says the same.
                self.failed = Some(Failed::Reader(error.clone()));
                Err(error)
            }
            Failed::Session(error) => {
                if self.session.take().is_some_and(|session| session.opened_at.elapsed() > STEADY) {
                    self.attempts = 0;
                }
                let wait = backoff(self.attempts);
                self.attempts = self.attempts.saturating_add(1);
                self.retry_at = Some(Instant::now() + wait);
                tracing::warn!(
                    server = self.options.address(),
                    attempt = self.attempts,
                    wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                    error = error.report(),
                    "lost the binlog, reconnecting"
                );
                Ok(())
            }
        }
    }

    /// One step of getting a session back.
    async fn reopen(&mut self) {
        if let Some(retry_at) = self.retry_at {
            sleep_until(retry_at).await;
            self.retry_at = None;
        }
        let opening = self.opening.get_or_insert_with(|| {
            let opening = Opening {
                options: Arc::clone(&self.options),
                replica: self.replica.clone(),
                tables: self.tables.clone(),
                before_images: self.before_images.clone(),
                relations: self.relations.clone(),
                resume: Some(self.last_mark.clone()),
                memory_bytes: self.memory.total_bytes(),
            };
            opening.open().boxed()
        });
        let opened = opening.await;
        self.opening = None;
        match opened {
            Ok(Opened { mut session, mark }) => {
                if session.place.incarnation != self.last_mark.position.incarnation() {
                    if !self.handed_out.is_empty() {
                        let error = Error::transient("the server changed in the middle of a transaction that was handed out in part")
                            .context("server", self.options.address());
                        self.failed = Some(Failed::Reader(error));
                        return;
                    }
                    self.mark_due = Some(mark);
                }
                if self.marks_each {
                    session.decoder.mark_each_transaction();
                }
                self.session = Some(session);
            }
            Err(error) => self.fault(error),
        }
    }
}

/// Doubles from one attempt to the next; scattered, so that many streams do not come back at once.
fn backoff(attempts: u32) -> Duration {
    let (first, longest) = BACKOFF;
    let wait = first.saturating_mul(1 << attempts.min(16)).min(longest);
    wait.mul_f64(rand::random_range(0.5..=1.0))
}

impl Session {
    /// Writes into a mark how to reopen the log there, and what tells the log from a later one.
    fn sign(&self, mark: LogMark) -> LogMark {
        sign_begun(self.place.sign(mark), |file| self.stream.begun(file))
    }

    /// Decodes what was pulled. True if the decoder took all of it, false if it wants the shape of a table.
    fn decode(&mut self) -> Result<bool> {
        let bytes = self.buffer.get(self.decoded..).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(true);
        }
        self.unflushed_since.get_or_insert_with(Instant::now);
        match self.decoder.decode(bytes, SystemClock.now())? {
            Decoded::All => {
                self.buffer.clear();
                self.decoded = 0;
                // One large event does not pin its size for ever.
                if self.buffer.capacity() > 4 * RUN_BYTES {
                    self.buffer.shrink_to(RUN_BYTES);
                }
                Ok(true)
            }
            Decoded::NeedsShape { relation, consumed } => {
                self.decoded += consumed;
                let mut server = self.server.take().ok_or_else(|| Error::internal("asked for a second shape while asking for a first"))?;
                let (facts, name) = (Arc::clone(&self.facts), relation.clone());
                let asking = async move {
                    let answer = shape(&mut server, &facts, &name).await;
                    (server, answer)
                };
                self.asking = Some((relation, asking.boxed()));
                Ok(false)
            }
        }
    }

    /// Decodes what can be without asking.
    fn decode_rest(&mut self) -> Result<()> {
        if self.asking.is_none() && self.server.is_some() {
            self.decode()?;
        }
        Ok(())
    }

    /// One step of asking for a shape.
    async fn answer(&mut self) -> Result<()> {
        let Some((_, asking)) = &mut self.asking else { return Ok(()) };
        let (server, answer) = asking.await;
        self.server = Some(server);
        if let Some((relation, _)) = self.asking.take() {
            self.decoder.provide_shape(&relation, answer?)?;
        }
        Ok(())
    }

    /// Pulls what is there, or waits for something until `deadline`. False if nothing came.
    async fn pull(&mut self, deadline: Instant) -> Result<bool> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        let Session { stream, buffer, heard_at, fault, passed, .. } = self;
        let pulling = std::future::poll_fn(|cx| {
            let mut heard = false;
            while buffer.len() < RUN_BYTES {
                match stream.poll_pull(cx, buffer) {
                    Poll::Ready(Ok(Pulled::Event)) => {
                        heard = true;
                        *passed = None;
                    }
                    Poll::Ready(Ok(Pulled::Heartbeat { file, offset })) => {
                        heard = true;
                        *passed = file.map(|file| (file, offset));
                    }
                    // What came before the fault is decoded first.
                    Poll::Ready(Err(error)) if heard => {
                        *fault = Some(error);
                        break;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending if heard => break,
                    Poll::Pending => return Poll::Pending,
                }
            }
            Poll::Ready(Ok(()))
        });
        match tokio::time::timeout_at(deadline, pulling).await {
            Ok(pulled) => {
                *heard_at = Instant::now();
                pulled.map(|()| true)
            }
            Err(_) => Ok(false),
        }
    }
}

#[async_trait]
impl LogReader for LiveReader {
    fn mark_each_transaction(&mut self) {
        self.marks_each = true;
        if let Some(session) = &mut self.session {
            session.decoder.mark_each_transaction();
        }
    }

    async fn next(&mut self) -> Result<Option<LogEvent>> {
        loop {
            // A batch that waits for memory goes first: everything behind it is younger.
            if let Some((_, acquiring)) = &mut self.waiting {
                let permit = acquiring.await;
                if let Some((mut batch, _)) = self.waiting.take() {
                    batch.memory = Arc::new(permit);
                    self.handed_out.insert(batch.relation.name().clone(), batch.last);
                    return Ok(Some(LogEvent::Changes(batch)));
                }
            }
            match self.take_ready() {
                Some(LogEvent::Changes(batch)) => {
                    let (memory, bytes) = (self.memory.clone(), batch.bytes());
                    let acquiring = async move { memory.acquire(bytes).await }.boxed();
                    self.waiting = Some((batch, acquiring));
                    continue;
                }
                Some(LogEvent::Mark(mark)) => {
                    self.note_mark(&mark);
                    return Ok(Some(LogEvent::Mark(mark)));
                }
                Some(event) => return Ok(Some(event)),
                None => {}
            }
            if let Some(failed) = self.failed.take() {
                self.settle_fault(failed)?;
            }
            if self.session.is_none() {
                self.reopen().await;
                continue;
            }
            if let Err(error) = self.step().await {
                self.fault(error);
            }
        }
    }

    async fn acknowledge(&mut self, _mark: &LogMark) -> Result<()> {
        // The server keeps its log by age, whoever has read it.
        Ok(())
    }

    async fn end(&mut self) -> Result<Option<LogPosition>> {
        // Taken out meanwhile: a question dropped half-way is put anew by the next call.
        let (mut server, facts) = match self.questions.take() {
            Some(known) => known,
            None => {
                let mut server = Server::new(Arc::clone(&self.options));
                let facts = server.facts().await?;
                (server, facts)
            }
        };
        let end = server.log_end(&facts).await?;
        self.questions = Some((server, facts));
        Ok(Some(end.log_position(self.last_mark.position.incarnation())?))
    }
}

impl LiveReader {
    /// One step with a session in order and nothing ready: ask, decode, pull, flush or mark.
    async fn step(&mut self) -> Result<()> {
        let Some(session) = &mut self.session else { return Ok(()) };
        if session.asking.is_some() {
            return session.answer().await;
        }
        if !session.buffer.is_empty() {
            session.decode()?;
            return Ok(());
        }
        let now = Instant::now();
        let flush_at = session.unflushed_since.map(|since| {
            // After a pause nothing is worth waiting for; under load, a little patience makes batches.
            let busy = session.flushed_at.is_some_and(|flushed| since.duration_since(flushed) < 2 * LINGER);
            if busy { session.heard_at + LINGER } else { since }.min(since + PATIENCE)
        });
        let mark_at = self.last_mark_at + IDLE_MARK;
        let silence_at = session.heard_at + SILENCE_MAX;
        // Even if something is due, what is there already is taken along.
        let deadline = flush_at.unwrap_or(mark_at).min(silence_at);
        let overdue = session.unflushed_since.is_some_and(|since| now.duration_since(since) >= FLUSH_INTERVAL);
        if !overdue && session.pull(deadline).await? {
            return Ok(());
        }
        if session.unflushed_since.take().is_some() {
            session.flushed_at = Some(Instant::now());
            if !session.decoder.flush()? {
                // Events without rows went by (or part of a transaction): the place has moved all the same.
                let moved = session.decoder.mark().filter(|mark| mark.position > self.last_mark.position);
                self.mark_due = moved.map(|mark| session.sign(mark));
            }
            return Ok(());
        }
        let now = Instant::now();
        if now >= silence_at {
            return Err(Error::transient("the server has been silent for too long").context("seconds", SILENCE_MAX.as_secs()));
        }
        if now >= mark_at {
            self.idle_mark();
        }
        Ok(())
    }

    /// Hands out a mark although nothing happened, unless a transaction is open.
    fn idle_mark(&mut self) {
        // Not asked again at once, whether there is one or not.
        self.last_mark_at = Instant::now();
        if let Some(session) = &self.session
            && let Some(mark) = session.decoder.mark()
        {
            let mark = session.sign(session.place.moved_to(mark, session.passed.as_ref()));
            self.mark_due = Some(mark).filter(|mark| is_progress(mark, self.last_mark.position));
        }
    }
}
