//! A wave: chunks read side by side while the log stands still.
//!
//! Chunks are taken in order, so when a wave ends everything up to one place is read and nothing behind it. Each task has
//! one connection and one snapshot for the wave.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow_array::ArrayRef;
use logweir_core::{Clock as _, Error, Pattern, Result, SystemClock, TableFilter, TimestampMicros};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::options::PostgresOptions;
use crate::quote::{identifier, literal, relation};
use crate::server::Facts;
use crate::wire::{Connection, Mode, sqlstate};

use super::copy::{CopyDecoder, CopyError};
use super::plan::{Survey, TablePlan, current_snapshot, survey};
use super::state::{BackfillState, Snapshot, Unverified};

/// Rows are handed out in batches of about this size.
const BATCH_BYTES: usize = 4 << 20;
/// Batches that wait for the reader, for each task.
const BATCHES_WAITING: usize = 2;

/// The rows of `part` from one block to another.
#[derive(Debug, Clone)]
pub(crate) struct Chunk {
    /// Index among the pending parts when the wave began.
    pub(crate) index: usize,
    pub(crate) plan: Arc<TablePlan>,
    pub(crate) first: u64,
    /// `None`: to the end.
    pub(crate) end: Option<u64>,
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
    /// A chunk is read.
    Done(Chunk),
    /// The table of a chunk is no longer what it was when it was planned: gone, renamed, altered.
    Outdated,
    /// A task's snapshot does not prove enough yet. It read nothing.
    TooEarly(Snapshot),
    /// A task's snapshot, good enough.
    Verified(Snapshot),
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
    pub(crate) async fn survey(
        &mut self,
        publication: &str,
        state: &BackfillState,
        tables: &TableFilter,
        exclude: &[Pattern],
    ) -> Result<Survey> {
        survey(self.first()?, publication, state, None, tables, exclude).await
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
    chunks: VecDeque<Chunk>,
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
    /// Starts to read `chunks`, with the connections of `pool` or with connections of its own. No chunk is begun after
    /// `longest`, but the first.
    pub(crate) fn start(
        options: &Arc<PostgresOptions>,
        facts: &Arc<Facts>,
        pool: Option<Pool>,
        mut idle: Vec<Connection>,
        proof: &Proof,
        chunks: VecDeque<Chunk>,
        longest: Duration,
    ) -> Self {
        let tasks_max = options.backfill.as_ref().map_or(1, |backfill| backfill.tasks).max(1).min(chunks.len().max(1));
        let queue = Arc::new(Mutex::new(Queue { chunks, until: Some(Instant::now() + longest) }));
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
            let begin = format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT {}", current_snapshot(&self.facts));
            let snapshot = Snapshot::parse(connection.query(&begin).await?.first().unwrap_or_default())?;
            let proven = snapshot.xmin >= *ended && unverified.are_seen_by(&snapshot);
            let event = if proven { WaveEvent::Verified(snapshot) } else { WaveEvent::TooEarly(snapshot) };
            if self.events.send(event).await.is_err() {
                return Ok(None);
            }
            if !proven {
                connection.query("ROLLBACK").await?;
                return Ok(Some(connection));
            }
        }
        while let Some(chunk) = self.take() {
            if !self.read_chunk(&mut connection, chunk, exact).await? {
                return Ok(None);
            }
        }
        if !exact {
            connection.query("COMMIT").await?;
        }
        Ok(Some(connection))
    }

    fn take(&self) -> Option<Chunk> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.until.is_some_and(|until| Instant::now() >= until) {
            return None;
        }
        queue.chunks.pop_front()
    }

    /// False if nobody wants the rows any more.
    async fn read_chunk(&self, connection: &mut Connection, chunk: Chunk, exact: bool) -> Result<bool> {
        // So that a table that has changed does not end the transaction with the snapshot.
        if exact {
            connection.query("SAVEPOINT chunk").await?;
        }
        match self.copy(connection, &chunk).await {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            // Undefined table or column: dropped or renamed meanwhile.
            Err(error) if matches!(sqlstate(&error), Some("42P01" | "42703")) => {
                let again = if exact {
                    "ROLLBACK TO SAVEPOINT chunk".to_owned()
                } else {
                    format!("ROLLBACK; BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT {}", current_snapshot(&self.facts))
                };
                // A later snapshot sees no less.
                connection.query(&again).await?;
                return Ok(self.events.send(WaveEvent::Outdated).await.is_ok());
            }
            Err(error) => {
                let name = chunk.plan.relation.name();
                let denied = sqlstate(&error) == Some("42501");
                let error = error.context("relation", name);
                let grant = || format!("GRANT SELECT ON {} TO {}", relation(name), identifier(&self.options.user));
                return Err(if denied { error.remedy(grant()) } else { error });
            }
        }
        if exact {
            connection.query("RELEASE SAVEPOINT chunk").await?;
        }
        Ok(self.events.send(WaveEvent::Done(chunk)).await.is_ok())
    }

    async fn copy(&self, connection: &mut Connection, chunk: &Chunk) -> Result<bool> {
        let plan = &chunk.plan;
        let mut decoder = CopyDecoder::new(&plan.types);
        let mut copy = connection.copy_out(&plan.copy_statement(chunk.first, chunk.end)).await?;
        // What is left of a row that did not come whole. No server sends one like that.
        let mut pending = Vec::new();
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
                if !self.send(plan, &mut decoder).await {
                    return Ok(false);
                }
            }
            pending = bytes.get(taken..).unwrap_or_default().to_vec();
        }
        if !decoder.is_ended() {
            return Err(Error::transient("the rows of a table ended in the middle"));
        }
        Ok(decoder.rows() == 0 || self.send(plan, &mut decoder).await)
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
