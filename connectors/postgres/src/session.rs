//! A walsender's stream under way and its decoder: everything between the socket and the batches that does not wait.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use logweir_core::{Clock as _, Error, LogMark, OpenTransaction, Result, SystemClock, TimestampMicros};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::backfill::BackfillState;
use crate::decoder::{Flow, PgoutputDecoder, Question, mark_position};
use crate::lsn::Lsn;
use crate::message::{Begin, Bytes};
use crate::offset::PostgresOffset;
use crate::server::{Facts, Identity};
use crate::transactions::{Replay, Step, Transactions};
use crate::wire::CopyBoth;

/// The server hears from us this often, whatever we wait for.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);

/// A server that has said nothing for this long is asked whether it is there.
const SILENCE_ASKED: Duration = Duration::from_secs(20);

/// A server that has said nothing for this long, although asked, is gone.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Under load the socket is left alone for this long after each look at it: a reader that takes every message as it comes
/// spends ten times as much in system calls, and wakes the walsender as often (benches/README.md).
const PACE: Duration = Duration::from_millis(2);

/// The same of a backlog, where nobody waits for the next change. A walsender that finds the window open sends every row alone, which
/// is half of its work; between looks so far apart the window fills, and what comes then gathers on its side (benches/README.md).
const PACE_BEHIND: Duration = Duration::from_millis(10);

/// Looks that found something within this time of each other, beyond what is left between them, are load.
const LOAD: Duration = Duration::from_millis(5);

/// A look that found this much need not wait for more.
const PLENTY_BYTES: usize = 64 * 1024;

/// Transactions that are sent this long after they were committed are a backlog.
const BEHIND: Duration = Duration::from_millis(250);

/// Messages are decoded in runs of about this size; then others may have their turn.
const RUN_BYTES: usize = 1 << 20;

/// Both are times of the server's clock.
fn is_behind(committed_at: TimestampMicros, sent_at: TimestampMicros) -> bool {
    sent_at.0.saturating_sub(committed_at.0) > i64::try_from(BEHIND.as_micros()).unwrap_or(i64::MAX)
}

/// What the server is told, and by whom: the reader sets it, the keeper and the reader send it.
#[derive(Debug, Default)]
struct Report {
    received: AtomicU64,
    flushed: AtomicU64,
    /// We have not heard from the server for long.
    ask: AtomicBool,
}

/// The stream, shared with the task that keeps the server informed.
struct Stream {
    both: Arc<Mutex<CopyBoth>>,
    report: Arc<Report>,
    keeper: JoinHandle<()>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

fn lock(both: &Mutex<CopyBoth>) -> MutexGuard<'_, CopyBoth> {
    both.lock().unwrap_or_else(PoisonError::into_inner)
}

fn send(both: &mut CopyBoth, report: &Report) {
    let received = Lsn(report.received.load(Ordering::Relaxed));
    let flushed = Lsn(report.flushed.load(Ordering::Relaxed));
    let now = SystemClock.now();
    if report.ask.load(Ordering::Relaxed) {
        both.send_status_and_ask(received, flushed, flushed, now);
    } else {
        both.send_status(received, flushed, flushed, now);
    }
}

/// Tells the server from time to time how far we are, also while the reader waits for memory or for a destination:
/// a walsender that hears nothing for `wal_sender_timeout` hangs up.
async fn keep(both: Arc<Mutex<CopyBoth>>, report: Arc<Report>, interval: Duration) {
    loop {
        sleep(interval).await;
        send(&mut lock(&both), &report);
    }
}

impl Stream {
    fn new(both: CopyBoth, hangs_up_after: Option<Duration>) -> Self {
        let interval = hangs_up_after.map_or(STATUS_INTERVAL, |timeout| STATUS_INTERVAL.min(timeout / 4));
        let both = Arc::new(Mutex::new(both));
        // Nothing is acknowledged but what was acknowledged to us.
        let report = Arc::new(Report::default());
        let keeper = tokio::spawn(keep(Arc::clone(&both), Arc::clone(&report), interval));
        Stream { both, report, keeper }
    }
}

/// Something that came before its time: the log is to stand still before it.
enum Parked {
    Begin(Begin),
    Replay(Box<Replay>),
}

impl Parked {
    fn commit_lsn(&self) -> Lsn {
        match self {
            Parked::Begin(begin) => begin.commit_lsn,
            Parked::Replay(replay) => replay.begin.commit_lsn,
        }
    }
}

/// See the module.
pub(crate) struct Session {
    stream: Stream,
    pub(crate) decoder: PgoutputDecoder,
    transactions: Transactions,
    replay: Option<Box<Replay>>,
    /// The message that the decoder asks a question about.
    asked: Option<(Vec<u8>, Lsn)>,
    /// Set while the decoder waits for an answer.
    pub(crate) question: Option<Question>,
    /// The log is to stand still before the first transaction that commits here or later.
    pub(crate) hold_at: Option<Lsn>,
    parked: Option<Parked>,
    /// Transactions that became whole since the last look, if anybody looks.
    pub(crate) committed: Vec<u32>,
    pub(crate) facts: Arc<Facts>,
    identity: Identity,
    incarnation: u32,
    /// Since when decoded changes wait to be flushed.
    pub(crate) unflushed_since: Option<Instant>,
    pub(crate) heard_at: Instant,
    /// What comes was committed a while ago: a backlog, where throughput counts and not the next change.
    pub(crate) behind: bool,
    /// When the socket last had something, and the time before that.
    filled_at: Option<Instant>,
    /// The runtime wakes us when the socket has something.
    watched: bool,
    /// When to look at the socket again.
    look_at: Option<Instant>,
    pub(crate) opened_at: Instant,
    /// Everything that the server had was read when the socket was last looked at.
    pub(crate) drained: bool,
}

/// What a session is made of.
pub(crate) struct SessionParts {
    pub(crate) both: CopyBoth,
    pub(crate) decoder: PgoutputDecoder,
    pub(crate) transactions: Transactions,
    pub(crate) facts: Arc<Facts>,
    pub(crate) identity: Identity,
    pub(crate) incarnation: u32,
}

impl Session {
    pub(crate) fn new(parts: SessionParts) -> Self {
        let SessionParts { both, decoder, transactions, facts, identity, incarnation } = parts;
        Session {
            stream: Stream::new(both, facts.wal_sender_timeout),
            decoder,
            transactions,
            replay: None,
            asked: None,
            question: None,
            hold_at: None,
            parked: None,
            committed: Vec::new(),
            facts,
            identity,
            incarnation,
            unflushed_since: None,
            heard_at: Instant::now(),
            behind: false,
            filled_at: None,
            watched: true,
            look_at: None,
            opened_at: Instant::now(),
            drained: false,
        }
    }

    pub(crate) fn open_transactions(&self) -> Vec<OpenTransaction> {
        self.transactions.open()
    }

    pub(crate) fn incarnation(&self) -> u32 {
        self.incarnation
    }

    /// A mark at this place.
    pub(crate) fn mark(&self, lsn: Lsn, commit_time: Option<TimestampMicros>, backfill: &BackfillState) -> Result<LogMark> {
        let offset = PostgresOffset {
            lsn,
            changed: self.decoder.changed().min(lsn),
            hold: self.transactions.hold(),
            incarnation: self.incarnation,
            system: self.identity.system.clone(),
            timeline: self.identity.timeline,
            backfill: backfill.clone(),
        };
        Ok(LogMark { position: mark_position(self.incarnation, lsn), offset: offset.to_source_offset()?, commit_time })
    }

    /// Tells the server that it may forget what lies before `lsn`.
    pub(crate) fn acknowledge(&self, lsn: Lsn) {
        let Stream { both, report, .. } = &self.stream;
        report.flushed.fetch_max(lsn.0, Ordering::Relaxed);
        send(&mut lock(both), report);
    }

    /// True if the log stands between two transactions and everything that was read of it was handed out.
    pub(crate) fn is_at_rest(&self) -> bool {
        let decoder = &self.decoder;
        !decoder.is_open()
            && !decoder.holds_changes()
            && !decoder.is_ready()
            && self.replay.is_none()
            && self.asked.is_none()
            && self.question.is_none()
    }

    /// True if the log has been read up to where it is to stand still.
    pub(crate) fn is_held(&self) -> bool {
        self.hold_at.is_some_and(|hold| self.parked.is_some() || self.decoder.passed() >= hold) && self.is_at_rest()
    }

    /// True if what comes next is to wait until what came before it is handed out.
    pub(crate) fn is_parked(&self) -> bool {
        let Some((hold, parked)) = self.hold_at.zip(self.parked.as_ref()) else { return false };
        parked.commit_lsn() >= hold && self.replay.is_none() && self.asked.is_none()
    }

    /// True if there is something to decode without waiting.
    pub(crate) fn has_work(&self) -> bool {
        if self.question.is_some() || self.is_parked() || self.is_held() {
            return false;
        }
        self.replay.is_some() || self.asked.is_some() || self.parked.is_some() || lock(&self.stream.both).buffered() > 0
    }

    /// Decodes what is here, until there is something to hand out, a question, or a run's worth.
    pub(crate) fn work(&mut self) -> Result<()> {
        let now = SystemClock.now();
        let mut bytes = 0;
        while bytes < RUN_BYTES && self.question.is_none() && !self.decoder.is_ready() {
            if let Some(replay) = &mut self.replay {
                bytes += match replay_message(replay, &mut self.decoder)? {
                    Replayed::Message(length) => length,
                    Replayed::Asks(question) => {
                        self.question = Some(question);
                        0
                    }
                    Replayed::End => {
                        let (end, xid) = (replay.end, replay.begin.xid);
                        self.replay = None;
                        self.decoder.commit(end)?;
                        self.committed.push(xid);
                        0
                    }
                };
                continue;
            }
            if let Some((payload, lsn)) = self.asked.take() {
                if let Flow::Ask(question) = self.decoder.message(&payload, false, lsn)? {
                    self.question = Some(question);
                    self.asked = Some((payload, lsn));
                }
                continue;
            }
            if let Some(parked) = self.parked.take() {
                if self.hold_at.is_some_and(|hold| parked.commit_lsn() >= hold) {
                    self.parked = Some(parked);
                    break;
                }
                self.enter(parked, now)?;
                continue;
            }
            let taken = self.take_messages(now)?;
            if taken == 0 {
                break;
            }
            bytes += taken;
        }
        if self.decoder.holds_changes() {
            self.unflushed_since.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    fn enter(&mut self, parked: Parked, now: TimestampMicros) -> Result<()> {
        match parked {
            Parked::Begin(begin) => self.decoder.begin(begin, now),
            Parked::Replay(replay) => {
                self.decoder.begin(replay.begin, now)?;
                self.replay = Some(replay);
                Ok(())
            }
        }
    }

    /// Takes messages from the stream's buffer; how many bytes.
    fn take_messages(&mut self, now: TimestampMicros) -> Result<usize> {
        let both = Arc::clone(&self.stream.both);
        let mut both = lock(&both);
        let mut bytes = 0;
        let mut received = 0;
        while bytes < RUN_BYTES && !self.decoder.is_ready() {
            let Some(payload) = both.next_payload() else { break };
            bytes += payload.len().max(1);
            let mut fields = Bytes(payload);
            match fields.u8()? {
                b'w' => {
                    let start = fields.lsn()?;
                    received = received.max(fields.u64()?);
                    let sent_at = fields.time()?;
                    match self.transactions.take(fields.0, start)? {
                        Step::Decode => {
                            if let Flow::Ask(question) = self.decoder.message(fields.0, false, start)? {
                                self.question = Some(question);
                                self.asked = Some((fields.0.to_vec(), start));
                                break;
                            }
                        }
                        Step::Begin(begin) => {
                            self.behind = is_behind(begin.commit_time, sent_at);
                            self.committed.push(begin.xid);
                            if self.hold_at.is_some_and(|hold| begin.commit_lsn >= hold) {
                                self.parked = Some(Parked::Begin(begin));
                                break;
                            }
                            self.decoder.begin(begin, now)?;
                        }
                        Step::Commit(commit) => self.decoder.commit(commit.end_lsn)?,
                        Step::Replay(replay) => {
                            self.behind = is_behind(replay.begin.commit_time, sent_at);
                            let parked = Parked::Replay(replay);
                            if self.hold_at.is_some_and(|hold| parked.commit_lsn() >= hold) {
                                self.parked = Some(parked);
                            } else {
                                self.enter(parked, now)?;
                            }
                            break;
                        }
                        Step::Kept => {}
                        Step::Passed(lsn) => self.pass(lsn),
                    }
                }
                b'k' => {
                    let end = fields.lsn()?;
                    let _sent_at = fields.time()?;
                    received = received.max(end.0);
                    self.pass(end);
                    if fields.u8()? != 0 {
                        self.stream.report.received.fetch_max(received, Ordering::Relaxed);
                        send(&mut both, &self.stream.report);
                    }
                }
                other => return Err(Error::corrupt("the walsender sent a message of an unknown kind").context("kind", other)),
            }
        }
        self.stream.report.received.fetch_max(received, Ordering::Relaxed);
        Ok(bytes)
    }

    fn pass(&mut self, lsn: Lsn) {
        // Where the log is to stand still it has not passed more.
        self.decoder.pass(self.hold_at.map_or(lsn, |hold| lsn.min(hold)));
    }

    /// When to ask the server for a sign of life, or when not to wait for one any longer. A server that has nothing to say says
    /// nothing until it is asked.
    pub(crate) fn silence_at(&self, now: Instant) -> Instant {
        let ask_at = self.heard_at + SILENCE_ASKED;
        if now < ask_at {
            return ask_at;
        }
        self.stream.report.ask.store(true, Ordering::Relaxed);
        self.heard_at + SILENCE_MAX
    }

    /// Waits until the stream has something to decode; false if it had nothing until `deadline`. Cancel safe.
    ///
    /// Under load nobody waits for the socket: it is looked at now and then, and fills meanwhile. The first look that finds
    /// nothing ends that, and the next packet wakes us at once.
    pub(crate) async fn pull(&mut self, deadline: Instant) -> Result<bool> {
        if let Some(look_at) = self.look_at {
            sleep_until(look_at.min(deadline)).await;
            self.look_at = None;
        }
        let both = Arc::clone(&self.stream.both);
        if !self.watched {
            // Nothing here waits, so nothing needs waking.
            let looked = lock(&both).poll_fill(&mut Context::from_waker(Waker::noop()));
            if let Poll::Ready(filled) = looked {
                filled?;
                return self.filled();
            }
            self.watched = true;
            lock(&both).watch(true)?;
        }
        let drained = &mut self.drained;
        let filling = std::future::poll_fn(|cx| match lock(&both).poll_fill(cx) {
            Poll::Pending => {
                *drained = true;
                Poll::Pending
            }
            ready => ready,
        });
        let Ok(filled) = tokio::time::timeout_at(deadline, filling).await else { return Ok(false) };
        filled?;
        self.filled()
    }

    /// The socket had something.
    fn filled(&mut self) -> Result<bool> {
        let now = Instant::now();
        self.drained = false;
        self.stream.report.ask.store(false, Ordering::Relaxed);
        let mut both = lock(&self.stream.both);
        let pace = if self.behind { PACE_BEHIND } else { PACE };
        if self.filled_at.is_some_and(|before| now.duration_since(before) < pace + LOAD) {
            if self.watched {
                self.watched = false;
                both.watch(false)?;
            }
            self.look_at = (both.buffered() < PLENTY_BYTES).then(|| now + pace);
        }
        self.filled_at = Some(now);
        self.heard_at = now;
        Ok(true)
    }
}

enum Replayed {
    Message(usize),
    Asks(Question),
    End,
}

fn replay_message(replay: &mut Replay, decoder: &mut PgoutputDecoder) -> Result<Replayed> {
    let Some(message) = replay.reader.peek()? else { return Ok(Replayed::End) };
    let length = message.payload.len();
    if !replay.aborted.leaves_out(message.subtransaction, message.payload)
        && let Flow::Ask(question) = decoder.message(message.payload, replay.streamed, message.lsn)?
    {
        return Ok(Replayed::Asks(question));
    }
    replay.reader.advance();
    Ok(Replayed::Message(length.max(1)))
}
