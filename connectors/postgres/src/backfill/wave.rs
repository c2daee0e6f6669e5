//! A wave: chunks read side by side while the log stands still.
//!
//! Chunks are taken in order, so when a wave ends everything up to one place is read and nothing behind it. Each task has
//! one connection and one snapshot for the wave. Where ranges of a key end is found as they are taken, by the task that takes
//! them: while one task looks, the others read.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::ArrayRef;
use logweir_core::{Clock as _, Error, Pattern, Result, SystemClock, TableFilter, TimestampMicros};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::lsn::Lsn;
use crate::options::PostgresOptions;
use crate::quote::{identifier, literal, relation};
use crate::server::{Facts, number, reachable_end};
use crate::wire::{Connection, Mode, sqlstate};

use super::copy::{CopyDecoder, CopyError};
use super::key::{KeyBound, KeyEnd};
use super::plan::{Survey, Surveyed, TablePlan, Way, current_snapshot, survey};
use super::standing::Parts;
use super::state::{Snapshot, Unverified};

/// Rows are handed out in batches of about this size.
const BATCH_BYTES: usize = 4 << 20;
/// Batches that wait for the reader, for each task.
const BATCHES_WAITING: usize = 2;

/// Rows of a part that are read in one go.
#[derive(Debug, Clone)]
pub(crate) struct Chunk {
    /// Index among the pending parts when the wave began.
    pub(crate) index: usize,
    /// Which one it is of those that the wave reads of the part.
    pub(crate) number: u64,
    pub(crate) plan: Arc<TablePlan>,
    pub(crate) range: Range,
}

/// Which rows a chunk has. Without an end they go to the end of the part.
#[derive(Debug, Clone)]
pub(crate) enum Range {
    /// From one block to before another.
    Blocks { first: u64, end: Option<u64> },
    /// From behind one value of the key to another.
    Key { after: Option<KeyBound>, end: Option<KeyEnd> },
}

/// Something to do for a task.
#[derive(Debug, Clone)]
pub(crate) enum Work {
    Chunk(Chunk),
    Cut(Cut),
}

/// The rest of a part from behind `after`, of which chunks are still to be cut.
#[derive(Debug, Clone)]
pub(crate) struct Cut {
    pub(crate) index: usize,
    pub(crate) number: u64,
    pub(crate) plan: Arc<TablePlan>,
    pub(crate) after: Option<KeyBound>,
}

impl Work {
    /// Chunks that it is, about.
    fn chunks(&self) -> u64 {
        match self {
            Work::Chunk(_) => 1,
            Work::Cut(cut) => cut.plan.chunks,
        }
    }
}

/// What must be true of a snapshot.
#[derive(Debug, Clone)]
pub(crate) enum Proof {
    /// The snapshot is exact: it was made with the place in the log.
    Exact,
    /// It sees these transactions, and all below `ended` are over.
    Compared { unverified: Unverified, ended: u64 },
}

/// What comes out of a wave.
pub(crate) enum WaveEvent {
    /// Rows of a chunk.
    Rows { plan: Arc<TablePlan>, columns: Vec<ArrayRef>, rows: usize, read_time: TimestampMicros },
    /// A chunk is read, with so many rows.
    Done(Chunk, u64),
    /// The table was rewritten: blocks of it are not what they were.
    Rewritten(Arc<TablePlan>),
    /// The table of a chunk is no longer what it was when it was planned: gone, renamed, altered.
    Outdated,
    /// A task's snapshot does not prove enough yet. It read nothing.
    TooEarly(Snapshot),
    /// A task's snapshot, good enough. What it sees was in the log before this place.
    Verified(Snapshot, Lsn),
    /// A task ended with a fault.
    Failed(Error),
}

/// Connections that have the exact snapshot of a new slot.
pub(crate) struct Pool {
    connections: Vec<Connection>,
    pub(crate) since: Instant,
}

impl Pool {
    /// Opens connections that see what `snapshot` sees, for as long as they live.
    pub(crate) async fn import(options: &PostgresOptions, snapshot: &str, tasks: usize) -> Result<Self> {
        let mut connections = Vec::with_capacity(tasks);
        for _ in 0..tasks.max(1) {
            let mut connection = Connection::connect(options, Mode::Query).await?;
            let begin = format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}", literal(snapshot));
            connection.query(&begin).await?;
            connections.push(connection);
        }
        Ok(Pool { connections, since: Instant::now() })
    }

    /// The published tables as the snapshot sees them. No transaction can have changed one of them unnoticed, so they need
    /// not wait for any to end.
    pub(crate) async fn survey(&mut self, publication: &str, tables: &TableFilter, exclude: &[Pattern]) -> Result<Survey> {
        let known = &Parts::default();
        survey(self.first()?, Surveyed { publication, known, again: None, tables, exclude: Some(exclude) }).await
    }

    /// The transactions that the snapshot sees and the server does not show yet: they are committed as far as the log is
    /// concerned, and a snapshot that is taken later may not see them.
    pub(crate) async fn ahead_of_server(&mut self, query: &mut Connection, facts: &Facts) -> Result<Unverified> {
        let ask = format!("SELECT {}", current_snapshot(facts));
        let exact = Snapshot::parse(self.first()?.query(&ask).await?.first().unwrap_or_default())?;
        let present = Snapshot::parse(query.query(&ask).await?.first().unwrap_or_default())?;
        Ok(present.lacks(&exact))
    }

    fn first(&mut self) -> Result<&mut Connection> {
        self.connections.first_mut().ok_or_else(|| Error::internal("a pool has a connection"))
    }
}

#[derive(Default)]
struct Queue {
    work: VecDeque<Work>,
    until: Option<Instant>,
}

/// See the module.
pub(crate) struct Wave {
    events: mpsc::Receiver<WaveEvent>,
    tasks: JoinSet<Option<Connection>>,
    connections: Vec<Connection>,
    since: Instant,
    exact: bool,
    ended: bool,
}

impl Wave {
    /// Starts on `work`, with the connections of `pool` or with connections of its own. No chunk is begun after
    /// `longest`, but the first.
    pub(crate) fn start(
        options: &Arc<PostgresOptions>,
        facts: &Arc<Facts>,
        pool: Option<Pool>,
        mut idle: Vec<Connection>,
        proof: &Proof,
        work: VecDeque<Work>,
        longest: Duration,
    ) -> Self {
        let chunks = usize::try_from(work.iter().map(Work::chunks).sum::<u64>()).unwrap_or(usize::MAX);
        let tasks_max = options.backfill.as_ref().map_or(1, |backfill| backfill.tasks).max(1).min(chunks.max(1));
        let queue = Arc::new(Mutex::new(Queue { work, until: Some(Instant::now() + longest) }));
        let (events_to, events) = mpsc::channel(tasks_max * BATCHES_WAITING);
        let mut tasks = JoinSet::new();
        let exact = pool.is_some();
        let (mut connections, since) = pool.map_or_else(|| (Vec::new(), Instant::now()), |pool| (pool.connections, pool.since));
        let spare = if exact { connections.split_off(connections.len().min(tasks_max)) } else { Vec::new() };
        let tasks_count = if exact { connections.len() } else { tasks_max };
        for _ in 0..tasks_count {
            let connection = if exact { connections.pop() } else { idle.pop() };
            let task = Task {
                options: Arc::clone(options),
                facts: Arc::clone(facts),
                proof: proof.clone(),
                queue: Arc::clone(&queue),
                events: events_to.clone(),
            };
            tasks.spawn(task.run(connection));
        }
        Wave { events, tasks, connections: spare, since, exact, ended: false }
    }

    /// The next event; `None` when all tasks have ended. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<WaveEvent> {
        if self.ended {
            return None;
        }
        let event = self.events.recv().await;
        if event.is_none() {
            while let Some(ended) = self.tasks.join_next().await {
                match ended {
                    Ok(connection) => self.connections.extend(connection),
                    Err(_) => {
                        self.ended = true;
                        return Some(WaveEvent::Failed(Error::internal("a task of the backfill broke off")));
                    }
                }
            }
            self.ended = true;
        }
        event
    }

    /// What is left of the connections when the wave has ended: those with an exact snapshot, or others.
    pub(crate) fn into_connections(self) -> (Option<Pool>, Vec<Connection>) {
        if self.exact {
            let pool = Pool { connections: self.connections, since: self.since };
            ((!pool.connections.is_empty()).then_some(pool), Vec::new())
        } else {
            (None, self.connections)
        }
    }
}

/// What became of a chunk.
enum Copied {
    /// All its rows, so many.
    Whole(u64),
    /// The table has another file than when it was planned, and rows may lie elsewhere.
    Rewritten,
    /// Nobody takes the rows any more.
    Unwanted,
}

/// What a task does next.
enum Taken {
    Nothing,
    Chunk(Chunk),
    /// The next chunk of this could not be cut off.
    Failed(Arc<TablePlan>, Error),
}

struct Task {
    options: Arc<PostgresOptions>,
    facts: Arc<Facts>,
    proof: Proof,
    queue: Arc<Mutex<Queue>>,
    events: mpsc::Sender<WaveEvent>,
}

impl Task {
    /// The connection, if it can be used again.
    async fn run(self, connection: Option<Connection>) -> Option<Connection> {
        match self.read(connection).await {
            Ok(connection) => connection,
            Err(error) => {
                // Without a reader nobody wants to know.
                let _ = self.events.send(WaveEvent::Failed(error)).await;
                None
            }
        }
    }

    async fn read(&self, connection: Option<Connection>) -> Result<Option<Connection>> {
        let mut connection = match connection {
            Some(connection) => connection,
            None => Connection::connect(&self.options, Mode::Query).await?,
        };
        let exact = matches!(self.proof, Proof::Exact);
        if let Proof::Compared { unverified, ended } = &self.proof {
            let (snapshot, end) = self.begin(&mut connection, "").await?;
            let proven = snapshot.xmin >= *ended && unverified.are_seen_by(&snapshot);
            let event = if proven { WaveEvent::Verified(snapshot, end) } else { WaveEvent::TooEarly(snapshot) };
            if self.events.send(event).await.is_err() {
                return Ok(None);
            }
            if !proven {
                connection.query("ROLLBACK").await?;
                return Ok(Some(connection));
            }
        }
        loop {
            // So that a table that has changed does not end the transaction with the snapshot.
            if exact {
                connection.query("SAVEPOINT chunk").await?;
            }
            let (plan, read) = match self.take(&mut connection).await {
                Taken::Nothing => break,
                Taken::Chunk(chunk) => (Arc::clone(&chunk.plan), self.copy(&mut connection, &chunk).await.map(|wanted| (wanted, chunk))),
                Taken::Failed(plan, error) => (plan, Err(error)),
            };
            let wanted = match read {
                Ok((Copied::Whole(rows), chunk)) => {
                    if exact {
                        // Gives the lock on the table back: who wants to change it need not wait for the others.
                        connection.query("ROLLBACK TO SAVEPOINT chunk; RELEASE SAVEPOINT chunk").await?;
                    }
                    self.events.send(WaveEvent::Done(chunk, rows)).await.is_ok()
                }
                Ok((Copied::Rewritten, chunk)) => {
                    let sent = self.events.send(WaveEvent::Rewritten(chunk.plan)).await.is_ok();
                    sent && self.begin_anew(&mut connection, exact).await?
                }
                Ok((Copied::Unwanted, _)) => false,
                Err(error) => self.failed(&mut connection, &plan, error, exact).await?,
            };
            if !wanted {
                return Ok(None);
            }
        }
        connection.query(if exact { "RELEASE SAVEPOINT chunk" } else { "COMMIT" }).await?;
        if !exact {
            // So that the log comes to where the snapshot was, also where nothing else happens.
            reachable_end(&mut connection).await?;
        }
        Ok(Some(connection))
    }

    /// Begins a transaction with a snapshot of now: what it sees, and where the log ends a moment later.
    async fn begin(&self, connection: &mut Connection, before: &str) -> Result<(Snapshot, Lsn)> {
        let begin = format!(
            "{before}BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT {}, pg_catalog.pg_current_wal_insert_lsn()",
            current_snapshot(&self.facts)
        );
        let rows = connection.query(&begin).await?;
        let end = number(&rows, 0, 1).ok_or_else(|| Error::corrupt("the server did not say where its log ends"))?;
        Ok((Snapshot::parse(rows.first().unwrap_or_default())?, end))
    }

    /// Takes the next chunk, and cuts it off first where it is not cut yet.
    async fn take(&self, connection: &mut Connection) -> Taken {
        let mut queue = self.queue.lock().await;
        if queue.until.is_some_and(|until| Instant::now() >= until) {
            return Taken::Nothing;
        }
        let cut = match queue.work.pop_front() {
            Some(Work::Cut(cut)) => cut,
            Some(Work::Chunk(chunk)) => return Taken::Chunk(chunk),
            None => return Taken::Nothing,
        };
        let end = match &cut.plan.way {
            Way::Key { key, .. } => {
                // A part that cannot be cut now is not read further in this wave.
                match key.find_end(connection, &cut.plan.name, cut.after.as_ref(), cut.plan.chunk_rows).await {
                    Ok(end) => end,
                    Err(error) => return Taken::Failed(cut.plan, error),
                }
            }
            Way::Blocks { .. } | Way::Whole => None,
        };
        if let Some(end) = &end {
            queue.work.push_front(Work::Cut(Cut {
                index: cut.index,
                number: cut.number + 1,
                plan: Arc::clone(&cut.plan),
                after: Some(end.bound.clone()),
            }));
        }
        Taken::Chunk(Chunk { index: cut.index, number: cut.number, plan: cut.plan, range: Range::Key { after: cut.after, end } })
    }

    /// Makes the connection fit for another chunk after one could not be read, if that is no fault; false if nobody wants any
    /// more.
    async fn failed(&self, connection: &mut Connection, plan: &TablePlan, error: Error, exact: bool) -> Result<bool> {
        match sqlstate(&error) {
            // Undefined table or column: dropped or renamed meanwhile.
            Some("42P01" | "42703") => Ok(self.events.send(WaveEvent::Outdated).await.is_ok() && self.begin_anew(connection, exact).await?),
            Some("42501") => {
                let grant = format!("GRANT SELECT ON {} TO {}", relation(&plan.name), identifier(&self.options.user));
                Err(error.context("relation", plan.relation.name()).remedy(grant))
            }
            _ => Err(error.context("relation", plan.relation.name())),
        }
    }

    /// Leaves a table that is not what it was; false if nobody wants any more.
    async fn begin_anew(&self, connection: &mut Connection, exact: bool) -> Result<bool> {
        if exact {
            connection.query("ROLLBACK TO SAVEPOINT chunk; RELEASE SAVEPOINT chunk").await?;
            return Ok(true);
        }
        // A later snapshot sees no less.
        let (snapshot, end) = self.begin(connection, "ROLLBACK; ").await?;
        Ok(self.events.send(WaveEvent::Verified(snapshot, end)).await.is_ok())
    }

    async fn copy(&self, connection: &mut Connection, chunk: &Chunk) -> Result<Copied> {
        let plan = &chunk.plan;
        let mut decoder = CopyDecoder::new(&plan.types);
        let ranged = matches!(&chunk.range, Range::Key { after, end } if after.is_some() || end.is_some());
        if ranged {
            // Of a key of several columns a server expects far more rows than a range has, and would read the table for each.
            connection.query("SET LOCAL enable_seqscan = off").await?;
        }
        let mut copy = connection.copy_out(&plan.copy_statement(&chunk.range)).await?;
        // What is left of a row that did not come whole. No server sends one like that.
        let mut pending = Vec::new();
        let mut rows = 0;
        while let Some(arrived) = copy.next().await? {
            let bytes = if pending.is_empty() {
                arrived
            } else {
                pending.extend_from_slice(arrived);
                &pending
            };
            let mut taken = 0;
            loop {
                let step = decoder.decode(bytes.get(taken..).unwrap_or_default(), BATCH_BYTES).map_err(|error| value_error(plan, error))?;
                taken += step;
                if decoder.bytes() < BATCH_BYTES {
                    break;
                }
                rows += decoder.rows() as u64;
                if !self.send(plan, &mut decoder).await {
                    return Ok(Copied::Unwanted);
                }
            }
            pending = bytes.get(taken..).unwrap_or_default().to_vec();
        }
        if ranged {
            connection.query("SET LOCAL enable_seqscan TO DEFAULT").await?;
        }
        if !decoder.is_ended() {
            return Err(Error::transient("the rows of a table ended in the middle"));
        }
        rows += decoder.rows() as u64;
        if decoder.rows() > 0 && !self.send(plan, &mut decoder).await {
            return Ok(Copied::Unwanted);
        }
        // The copy holds a lock, so what is the file now was it then.
        let file = connection.query(&plan.file_statement()).await?;
        Ok(if number(&file, 0, 0) == Some(plan.file) { Copied::Whole(rows) } else { Copied::Rewritten })
    }

    async fn send(&self, plan: &Arc<TablePlan>, decoder: &mut CopyDecoder<'_>) -> bool {
        let (columns, rows) = decoder.finish();
        self.events.send(WaveEvent::Rows { plan: Arc::clone(plan), columns, rows, read_time: SystemClock.now() }).await.is_ok()
    }
}

fn value_error(plan: &TablePlan, error: CopyError) -> Error {
    match error {
        CopyError::Format(error) => error,
        CopyError::Value(column, value) => {
            let column = plan.relation.columns().get(column);
            let error = Error::data(value.problem)
                .context("column", column.map(|column| column.name()).unwrap_or_default())
                .context("type", column.map(|column| column.source_type.as_str()).unwrap_or_default());
            match value.remedy {
                Some(remedy) => error.remedy(remedy),
                None => error.remedy("leave the column out with exclude_columns, or correct the row"),
            }
        }
    }
}
