//! Reads a live server's log: pulls messages, lets the decoder make columns of them, and hands those out as memory allows; in
//! between, rows that were there before.
//!
//! The reader is one loop over its own state. Whatever takes time (opening the log, a question to the catalog, memory, a wave
//! of a backfill) is a future kept in the state, so a call of `next` that is dropped loses nothing and the next one goes on.
//!
//! After a fault a fresh session begins at the last mark. Batches cut inside a large transaction may have been handed out
//! behind that mark; their rows come again and are cut off by position, which strictly rises per relation.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use logweir_core::{
    BackfillProgress, ChangeBatch, Error, LogEvent, LogMark, LogPosition, LogReader, LogStart, MemoryBudget, MemoryPermit, OpenTransaction,
    Pattern, Relation, RelationName, Result, TableFilter,
};
use tokio::time::{Instant, sleep_until, timeout};

use crate::backfill::{look_up, primary_key};
use crate::decoder::{BINARY_REFUSED, Decoded, Key, Question, mark_position};
use crate::fill::Fill;
use crate::heartbeat::Heartbeat;
use crate::lsn::Lsn;
use crate::offset::PostgresOffset;
use crate::opening::{Opened, Opening};
use crate::options::PostgresOptions;
use crate::publication;
use crate::server;
use crate::session::{SILENCE_MAX, Session};
use crate::slots::Slot;
use crate::types::TypeInfo;
use crate::watch::Detached;
use crate::wire::{Connection, Mode};

/// Of a log that is behind, changes wait this long for more of their kind. Otherwise they wait for nothing: under load the
/// session has waited already, to look at its socket less often. Longer than from one look to the next.
const LINGER: Duration = Duration::from_millis(15);

/// A log that is behind is flushed this often at least.
const FLUSH_INTERVAL: Duration = Duration::from_millis(100);

/// A log in which nothing of interest happens gives a mark this often.
const IDLE_MARK: Duration = Duration::from_secs(1);

/// Bounds of the wait before an attempt to reconnect, doubled from one to the next.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// Attempts to reconnect after which the stream begins anew, where everybody can see that it does not run.
const RECONNECTS_MAX: u32 = 4;

/// A session that lasted this long was in order: the next wait is short again.
const STEADY: Duration = Duration::from_secs(60);

/// How much log is kept for us is worth waiting for so long: meanwhile nothing is read.
const RETAINED_MAX: Duration = Duration::from_secs(2);

/// Reads the log of a live server.
pub(crate) struct LiveReader {
    options: Arc<PostgresOptions>,
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
    /// Values may come in binary form, as far as is known.
    binary: bool,

    /// A mark is wanted behind every transaction.
    marks_each: bool,
    /// The last mark handed out.
    last_mark: LogMark,
    last_mark_at: Instant,
    /// Rows that were there before were still to be handed out when it was.
    filling_at_mark: bool,
    /// Rows of a backfill were handed out behind it.
    undecided_rows: bool,
    /// Positions handed out behind it, the greatest per relation.
    handed_out: HashMap<RelationName, LogPosition>,
    /// What the server may forget.
    acknowledged: Lsn,

    /// An event that waits for its memory.
    waiting: Option<(ChangeBatch, BoxFuture<'static, MemoryPermit>)>,
    /// A mark to hand out before anything else: of the opening, of an idle log, of a wave.
    mark_due: Option<LogMark>,
    /// Returned when everything before it was handed out.
    failed: Option<Failed>,
    /// The decoder's question under way.
    answering: Option<BoxFuture<'static, (Question, Result<Answer>)>>,
    /// The rows that were there before.
    fill: Fill,
    /// For `end`.
    questions: Option<Connection>,
    /// Somebody waits for the log to be passed up to here.
    wanted: Option<Lsn>,
    _heartbeat: Option<Heartbeat>,
    /// Whether the slot was given up meanwhile.
    detached: Detached,
}

/// What ends a session.
enum Failed {
    /// Reconnect.
    Session(Error),
    /// Give up.
    Reader(Error),
}

/// What the catalog says.
struct Answer {
    types: Vec<TypeInfo>,
    key: Key,
}

async fn answer(options: Arc<PostgresOptions>, question: &Question) -> Result<Answer> {
    let mut connection = Connection::connect(&options, Mode::Query).await?;
    let key = match question.key_of {
        Some(oid) => Key {
            columns: primary_key(&mut connection, oid).await?,
            whole_rows: server::has_whole_rows(&mut connection, oid).await?,
            cut: publication::is_key_cut(&mut connection, &options.publication, oid).await?,
        },
        None => Key::default(),
    };
    let types = look_up(&mut connection, question.types.clone()).await?;
    connection.close().await;
    Ok(Answer { types, key })
}

impl LiveReader {
    /// Opens the log. A fault on the way is the caller's to retry.
    pub(crate) async fn open(options: Arc<PostgresOptions>, start: LogStart, detached: Detached) -> Result<Self> {
        if let Some(error) = detached.error(&options) {
            detached.settled().await;
            return Err(error);
        }
        let opening = Opening {
            options: Arc::clone(&options),
            tables: start.tables.clone(),
            before_images: start.before_images.clone(),
            relations: start.relations.clone(),
            resume: start.resume,
            memory_bytes: start.memory.total_bytes(),
            binary: options.binary,
        };
        let opened = opening.open().await?;
        let mark = opened.mark.clone();
        let mut fill = Fill::new(Arc::clone(&options), start.tables.clone());
        let Opened { session, query, backfill, pool, surveyed, .. } = opened;
        fill.begin(backfill, pool, surveyed, mark.position);
        let acknowledged = PostgresOffset::of(&mark)?.begin();
        Ok(LiveReader {
            binary: options.binary,
            _heartbeat: Heartbeat::start(&options),
            detached,
            options,
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
            filling_at_mark: fill.is_under_way(),
            undecided_rows: false,
            handed_out: HashMap::new(),
            acknowledged,
            waiting: None,
            mark_due: Some(mark),
            failed: None,
            answering: None,
            fill,
            questions: Some(query),
            wanted: None,
        })
    }

    /// The next event that is decoded already, as it may be handed out; memory is not acquired yet.
    fn take_ready(&mut self) -> Result<Option<LogEvent>> {
        if let Some(mark) = self.mark_due.take() {
            return Ok(Some(LogEvent::Mark(mark)));
        }
        let Some(session) = self.session.as_mut() else { return Ok(None) };
        while let Some(decoded) = session.decoder.next() {
            match decoded {
                Decoded::Relation(relation) => {
                    if self.announced.insert((relation.name().clone(), relation.version())) {
                        if !self.relations.iter().any(|known| **known == *relation) {
                            self.relations.push(Arc::clone(&relation));
                        }
                        return Ok(Some(LogEvent::Relation(relation)));
                    }
                }
                Decoded::Changes(batch) => {
                    self.fill.watch(&batch, session);
                    let fresh = match self.handed_out.get(batch.relation.name()) {
                        Some(last) => batch.after(*last),
                        None => Some(batch),
                    };
                    if let Some(batch) = fresh {
                        return Ok(Some(LogEvent::Changes(batch)));
                    }
                }
                Decoded::Mark(lsn, _) if lsn < self.fill.not_before() => {}
                Decoded::Mark(lsn, commit_time) => {
                    self.fill.forget_passed(lsn);
                    let mark = session.mark(lsn, commit_time, self.fill.state())?;
                    if mark.position > self.last_mark.position {
                        return Ok(Some(LogEvent::Mark(mark)));
                    }
                }
            }
        }
        let event = self.fill.take_ready();
        self.undecided_rows |= matches!(event, Some(LogEvent::Changes(_)));
        Ok(event)
    }

    /// A connection for questions, taken out meanwhile: one that is dropped half-way is put anew by the next call.
    async fn questions(&mut self) -> Result<Connection> {
        match self.questions.take() {
            Some(connection) => Ok(connection),
            None => Connection::connect(&self.options, Mode::Query).await,
        }
    }

    fn note_mark(&mut self, mark: &LogMark) {
        if mark.position > self.last_mark.position {
            self.attempts = 0;
        }
        self.last_mark = mark.clone();
        self.last_mark_at = Instant::now();
        self.filling_at_mark = self.fill.is_under_way();
        self.handed_out.clear();
        self.undecided_rows = false;
    }

    /// Decides what a fault of the session means.
    fn fault(&mut self, error: Error) {
        let error = self.detached.error(&self.options).unwrap_or(error);
        let retry = if error.message() == BINARY_REFUSED && self.binary {
            // A column that came later: from here on the log is read as text, which every type has.
            tracing::info!(error = error.report(), "reading the log as text from now on");
            self.binary = false;
            true
        } else {
            error.is_transient()
        };
        self.failed = Some(if retry { Failed::Session(error) } else { Failed::Reader(error) });
        // What came whole before the fault is still handed out.
        if let Some(session) = &mut self.session
            && let Err(error) = session.decoder.abandon()
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
                self.session = None;
                Err(error)
            }
            Failed::Session(error) if self.attempts >= RECONNECTS_MAX => self.settle_fault(Failed::Reader(error)),
            // A server that comes back may lack what rows of a backfill have seen, so they must not be decided.
            Failed::Session(error) if self.undecided_rows => {
                let error = if error.is_transient() { error } else { Error::transient("the log is read as text from now on") };
                self.settle_fault(Failed::Reader(error))
            }
            Failed::Session(error) => {
                if self.session.take().is_some_and(|session| session.opened_at.elapsed() > STEADY) {
                    self.attempts = 0;
                }
                self.answering = None;
                self.fill.interrupt();
                let wait = if error.message() == BINARY_REFUSED { Duration::ZERO } else { backoff(self.attempts) };
                self.attempts = self.attempts.saturating_add(1);
                self.retry_at = Some(Instant::now() + wait);
                tracing::warn!(
                    server = self.options.address(),
                    attempt = self.attempts,
                    wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                    error = error.report(),
                    "lost the log, reconnecting"
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
                tables: self.tables.clone(),
                before_images: self.before_images.clone(),
                relations: self.relations.clone(),
                resume: Some(self.last_mark.clone()),
                memory_bytes: self.memory.total_bytes(),
                binary: self.binary,
            };
            opening.open().boxed()
        });
        let opened = opening.await;
        self.opening = None;
        match opened {
            Ok(Opened { mut session, mark, query, .. }) => {
                if session.incarnation() != self.last_mark.position.incarnation() {
                    if !self.handed_out.is_empty() {
                        let error = Error::transient("the server changed in the middle of a transaction that was handed out in part")
                            .context("server", self.options.address());
                        self.failed = Some(Failed::Reader(error));
                        return;
                    }
                    self.mark_due = Some(mark);
                }
                session.acknowledge(self.acknowledged);
                if self.marks_each {
                    session.decoder.mark_each_transaction();
                }
                self.session = Some(session);
                self.questions = Some(query);
                self.fill.resume();
            }
            Err(error) => self.fault(error),
        }
    }

    /// One step with a session in order and nothing ready: ask, decode, pull, fill, flush or mark.
    async fn step(&mut self) -> Result<()> {
        let Some(session) = &mut self.session else { return Ok(()) };
        if let Some(question) = &session.question {
            let answering = self.answering.get_or_insert_with(|| {
                let (options, question) = (Arc::clone(&self.options), question.clone());
                async move {
                    let answer = answer(options, &question).await;
                    (question, answer)
                }
                .boxed()
            });
            let (question, answer) = answering.await;
            self.answering = None;
            let answer = answer?;
            session.decoder.learn(&question.types, answer.types);
            if let Some(oid) = question.key_of {
                session.decoder.provide_key(oid, answer.key);
            }
            session.question = None;
            let worked = session.work();
            self.fill.note(session);
            return worked;
        }
        if self.fill.has_the_floor() {
            return self.fill.step(session).await;
        }
        if session.has_work() {
            let worked = session.work();
            self.fill.note(session);
            return worked;
        }
        self.wait().await
    }

    /// Waits for the log, or for what is due meanwhile.
    async fn wait(&mut self) -> Result<()> {
        let Some(session) = &mut self.session else { return Ok(()) };
        if session.is_at_rest() && self.fill.wants_the_floor(session) {
            return self.fill.take_the_floor(session);
        }
        let now = Instant::now();
        let at_boundary = !session.decoder.is_open();
        let waiting_since = session.unflushed_since.filter(|_| at_boundary);
        let flush_at =
            waiting_since.map(|since| if session.behind { (session.heard_at + LINGER).min(since + FLUSH_INTERVAL) } else { since });
        let mark_at = self.last_mark_at + IDLE_MARK;
        let silence_at = session.silence_at(now);
        let moved = mark_position(session.incarnation(), session.decoder.passed()) > self.last_mark.position;
        // Whoever waits for the end of the backfill learns of it by a mark, also where the log stands still.
        let filled = self.filling_at_mark && !self.fill.is_under_way();
        let passed = (moved || filled) && session.decoder.passed() >= self.fill.not_before();
        let wanted = self.wanted.is_some_and(|wanted| session.decoder.passed() >= wanted);
        let idle = passed && flush_at.is_none() && session.is_at_rest();
        let mark_at = if idle && wanted { now } else { mark_at };
        let idle_at = if idle { mark_at } else { silence_at };
        let deadline = flush_at.unwrap_or(idle_at).min(silence_at);
        let overdue =
            waiting_since.is_some_and(|since| !session.behind || session.is_parked() || now.duration_since(since) >= FLUSH_INTERVAL);
        if !overdue {
            let pulled = if session.is_held() {
                sleep_until(deadline.min(now + FLUSH_INTERVAL)).await;
                false
            } else {
                tokio::select! {
                    biased;
                    pulled = session.pull(deadline) => pulled?,
                    () = self.fill.errand() => true,
                }
            };
            self.fill.settle(session)?;
            if pulled {
                return Ok(());
            }
        }
        if at_boundary && session.unflushed_since.take().is_some() {
            session.decoder.flush()?;
            return Ok(());
        }
        let now = Instant::now();
        if now.duration_since(session.heard_at) >= SILENCE_MAX {
            return Err(Error::transient("the server has been silent for too long").context("seconds", SILENCE_MAX.as_secs()));
        }
        if idle && now >= mark_at {
            self.wanted = self.wanted.filter(|_| !wanted);
            self.fill.forget_passed(session.decoder.passed());
            let mut mark = session.mark(session.decoder.passed(), session.decoder.commit_time(), self.fill.state())?;
            if mark.position <= self.last_mark.position {
                mark.position = self.fill.next_position(session);
            }
            self.mark_due = Some(mark);
        }
        Ok(())
    }
}

/// Doubles from one attempt to the next; scattered, so that many streams do not come back at once.
fn backoff(attempts: u32) -> Duration {
    let (first, longest) = BACKOFF;
    let wait = first.saturating_mul(1 << attempts.min(16)).min(longest);
    wait.mul_f64(rand::random_range(0.5..=1.0))
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
            match self.take_ready()? {
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
            if self.failed.is_some() {
                self.detached.settled().await;
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

    async fn acknowledge(&mut self, mark: &LogMark) -> Result<()> {
        self.acknowledged = self.acknowledged.max(PostgresOffset::of(mark)?.begin());
        if let Some(session) = &self.session {
            session.acknowledge(self.acknowledged);
        }
        Ok(())
    }

    async fn end(&mut self) -> Result<Option<LogPosition>> {
        let mut connection = self.questions().await?;
        let end = server::reachable_end(&mut connection).await?;
        self.questions = Some(connection);
        self.wanted = Some(end);
        Ok(Some(mark_position(self.last_mark.position.incarnation(), end)))
    }

    async fn retained(&mut self) -> Result<Option<u64>> {
        // Whoever has lost the server does not look for it here.
        if self.session.is_none() {
            return Err(Error::transient("there is no connection to the server"));
        }
        let asking = async {
            let mut connection = self.questions().await?;
            let slot = Slot::named(&mut connection, &self.options.slot).await?;
            self.questions = Some(connection);
            Ok(Some(slot.map_or(0, |slot| slot.retained)))
        };
        let answered = timeout(RETAINED_MAX, asking).await;
        answered.unwrap_or_else(|_| Err(Error::transient("the server did not say in time how much log it keeps")))
    }

    fn open_transactions(&self) -> Vec<OpenTransaction> {
        self.session.as_ref().map(Session::open_transactions).unwrap_or_default()
    }

    fn reads_backfill(&self) -> bool {
        self.fill.is_under_way()
    }

    fn backfill(&self) -> Option<BackfillProgress> {
        self.fill.progress()
    }
}
