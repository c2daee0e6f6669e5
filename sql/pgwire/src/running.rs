//! A query that runs beside its session.
//!
//! Planning and rows come from a task of their own, so that the session hears a cancel, a timeout and the end of the client while the
//! engine works. There are so many places for queries: one is held from before a query is planned until its last row is taken, or until its
//! statement has what it asked for. Rows that are left then are a cursor, of which there are so many too: it does no work until it is
//! read again on a place.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use futures::StreamExt as _;
use logweir_core::{Error, Result, TimestampMicros};
use logweir_sql::{CaughtUp, ClientSession, PreparedQuery, begin_query, type_oid};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;

use crate::frame::Connection;
use crate::reply::{Column, Failure, Outcome, Refusal};
use crate::server::{Shared, StopLevel, reached};
use crate::value::Values;

/// Batches that wait for their session.
const BATCHES_AHEAD: usize = 2;

/// How long rows that go out wait for those that come right behind them, where more may never come.
const LINGER: Duration = Duration::from_millis(2);

/// Longer than any client waits.
const ENDLESS: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// What may end a query from outside.
pub(crate) struct Interrupts {
    pub(crate) deadline: Instant,
    pub(crate) timeout: Duration,
    pub(crate) cancelled: watch::Receiver<u64>,
    pub(crate) stop: watch::Receiver<StopLevel>,
}

impl Interrupts {
    /// Waits for `work`, or for what ends it first.
    pub(crate) async fn heed<T>(&mut self, connection: &mut Connection, work: impl Future<Output = T>) -> Outcome<T> {
        tokio::select! {
            biased;
            () = reached(&mut self.stop, StopLevel::Now) => Err(Failure::Ended(Some(stopping()))),
            _ = self.cancelled.changed() => Err(Refusal::new("57014", "canceling statement due to user request").into()),
            done = work => Ok(done),
            () = tokio::time::sleep_until(self.deadline) => {
                Err(Refusal::new("57014", format!("canceling statement due to statement timeout ({} s)", self.timeout.as_secs_f64())).into())
            }
            () = connection.gone() => Err(Failure::Ended(None)),
        }
    }
}

/// What a client is told when the process ends.
pub(crate) fn stopping() -> Refusal {
    Refusal::new("57P01", "the server is stopping")
}

/// Ends a task that nobody waits for any more.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn joined<T>(task: JoinHandle<Result<T>>) -> Result<T> {
    let _abort = AbortOnDrop(task.abort_handle());
    match task.await {
        Ok(outcome) => outcome,
        // Some functions panic on some constants.
        Err(_) => Err(Error::internal("the query cannot be computed")),
    }
}

/// One of the places for queries. Whoever works for the query has a share of it, and the last of them gives it back.
type Place = Arc<OwnedSemaphorePermit>;

/// Waits for a place.
async fn place(shared: &Shared, interrupts: &mut Interrupts, connection: &mut Connection) -> Outcome<Place> {
    match interrupts.heed(connection, Arc::clone(&shared.places).acquire_owned()).await {
        Ok(Ok(place)) => Ok(Arc::new(place)),
        Ok(Err(_)) => Err(Failure::Ended(Some(stopping()))),
        Err(Failure::Refused(_)) if Instant::now() >= interrupts.deadline => {
            let busy = Refusal::new("53300", "all places for queries were taken until the statement timeout");
            Err(busy.hint("`sql.concurrent_queries` of the configuration says how many there are").into())
        }
        Err(failure) => Err(failure),
    }
}

/// A query that was planned, and its place.
pub(crate) struct Planned {
    pub(crate) query: PreparedQuery,
    place: Place,
}

/// Which part of the log a session's queries see.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sees {
    /// Nothing that was committed later.
    pub(crate) as_of: Option<TimestampMicros>,
    /// Changes do not end.
    pub(crate) follow: bool,
}

/// Plans a query on a place for queries.
pub(crate) async fn plan(
    shared: &Arc<Shared>,
    user: usize,
    text: &str,
    client: &ClientSession,
    sees: Sees,
    interrupts: &mut Interrupts,
    connection: &mut Connection,
) -> Outcome<Planned> {
    let place = place(shared, interrupts, connection).await?;
    let (shared, text, client) = (Arc::clone(shared), text.to_owned(), client.clone());
    let task = tokio::spawn(async move {
        let (shared, text, client) = (&shared, &text, &client);
        let query = begin_query(|| async move {
            let mut engine = shared.database.engine(&shared.users[user].schemas).await?;
            if let Some(moment) = sees.as_of {
                engine = engine.as_of(moment);
            }
            if sees.follow {
                engine = engine.following();
            }
            engine.prepare(text, client).await
        });
        Ok(Planned { query: query.await?, place })
    });
    Ok(interrupts.heed(connection, joined(task)).await??)
}

/// The columns of an answer as a client sees them.
pub(crate) fn columns(schema: &SchemaRef) -> Vec<Column> {
    schema.fields().iter().map(|field| Column { name: field.name().clone(), oid: type_oid(field) }).collect()
}

/// Where rows come from.
enum Source {
    /// Nobody has asked for one yet.
    Planned(Box<PreparedQuery>),
    Running {
        batches: mpsc::Receiver<Result<RecordBatch>>,
        /// The place to work on; without one the task waits.
        place: watch::Sender<Option<Place>>,
        _task: AbortOnDrop,
    },
    Ended,
}

/// What a step to the next row has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Row,
    /// All rows that are there were taken, and others may come.
    Pause,
    End,
}

/// For how long rows are waited for that are still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Until the client has enough.
    Endless,
    /// Until there are some, or the time of the statement is over.
    Some,
}

/// Rows as they come.
pub(crate) struct Rows {
    pub(crate) columns: Vec<Column>,
    schema: SchemaRef,
    source: Source,
    /// The batch that is being read, the next row of it, and how many it has.
    current: Option<(Vec<Values>, usize, usize)>,
    /// While a statement reads.
    place: Option<Place>,
    /// From when a statement has left rows behind, or waits for some that are still to come.
    cursor: Option<Place>,
    /// Waits for rows that are still to come: that is so little work that the cursor's place is enough for it.
    follows: bool,
    /// Of a query that may follow changes.
    caught_up: Option<CaughtUp>,
}

impl Rows {
    /// Those of a query. It runs from when the first of them is asked for.
    pub(crate) fn new(planned: Planned, values: &[ArrayRef]) -> Result<Self> {
        let Planned { query, place } = planned;
        let caught_up = query.caught_up();
        let query = query.bind(values)?;
        let schema = query.schema();
        let (columns, source) = (columns(&schema), Source::Planned(Box::new(query)));
        Ok(Rows { columns, schema, source, current: None, place: Some(place), cursor: None, follows: false, caught_up })
    }

    /// Rows that are there already.
    pub(crate) fn ready(batch: &RecordBatch) -> Result<Self, Refusal> {
        let schema = batch.schema();
        let (columns, source) = (columns(&schema), Source::Ended);
        let mut rows = Rows { columns, schema, source, current: None, place: None, cursor: None, follows: false, caught_up: None };
        rows.take(batch)?;
        Ok(rows)
    }

    fn take(&mut self, batch: &RecordBatch) -> Result<(), Refusal> {
        let columns = self.schema.fields().iter().zip(batch.columns()).zip(&self.columns);
        let values =
            columns.map(|((field, column), announced)| Values::new(column, field, announced.oid)).collect::<Result<Vec<_>, _>>()?;
        self.current = Some((values, 0, batch.num_rows()));
        Ok(())
    }

    /// True if it takes one of the places for queries.
    pub(crate) fn has_place(&self) -> bool {
        self.place.is_some()
    }

    /// Gives the place back until [`resume`](Self::resume): what is left is a cursor.
    pub(crate) fn park(&mut self, shared: &Shared) -> Result<(), Refusal> {
        if let Source::Ended = self.source {
            return Ok(());
        }
        self.take_cursor(shared)?;
        self.place = None;
        self.work_on(None);
        Ok(())
    }

    fn take_cursor(&mut self, shared: &Shared) -> Result<(), Refusal> {
        if self.cursor.is_none() {
            let cursor = Arc::clone(&shared.cursors).try_acquire_owned().map_err(|_| {
                Refusal::new("53400", "there are too many open cursors").hint(
                    "`sql.open_cursors` of the configuration says how many there may be, of all sessions; close those that are not needed",
                )
            });
            self.cursor = Some(Arc::new(cursor?));
        }
        Ok(())
    }

    fn work_on(&self, on: Option<Place>) {
        if let Source::Running { place, .. } = &self.source {
            place.send_replace(on);
        }
    }

    /// Takes a place, if it has none.
    pub(crate) async fn resume(&mut self, shared: &Shared, interrupts: &mut Interrupts, connection: &mut Connection) -> Outcome {
        if self.place.is_some() || matches!(self.source, Source::Ended) {
            return Ok(());
        }
        if self.follows {
            self.work_on(self.cursor.clone());
            return Ok(());
        }
        let taken = place(shared, interrupts, connection).await?;
        self.work_on(Some(Arc::clone(&taken)));
        self.place = Some(taken);
        Ok(())
    }

    /// Goes to the next row, which [`row`](Self::row) has then.
    pub(crate) async fn step(&mut self, interrupts: &mut Interrupts, connection: &mut Connection) -> Outcome<Step> {
        if let Some((_, next, rows)) = &mut self.current
            && *next < *rows
        {
            *next += 1;
            return Ok(Step::Row);
        }
        let pause = pause(self.caught_up.clone());
        let more = tokio::select! {
            biased;
            filled = self.fill(interrupts, connection) => filled?,
            () = pause => return Ok(Step::Pause),
        };
        if let Some((_, next, _)) = &mut self.current
            && more
        {
            *next += 1;
            return Ok(Step::Row);
        }
        Ok(Step::End)
    }

    /// True for those of a query that follows changes, once it runs.
    pub(crate) fn follows_changes(&self) -> bool {
        self.caught_up.as_ref().is_some_and(CaughtUp::follows)
    }

    /// The row that was stepped to: the values of its batch, and which row of them it is.
    pub(crate) fn row(&self) -> Option<(&[Values], usize)> {
        self.current.as_ref().map(|(values, next, _)| (values.as_slice(), next.saturating_sub(1)))
    }

    /// Waits for rows that are still to come. False if the time of the statement is over before there are some.
    pub(crate) async fn wait(
        &mut self,
        patience: Patience,
        shared: &Shared,
        interrupts: &mut Interrupts,
        connection: &mut Connection,
    ) -> Outcome<bool> {
        self.take_cursor(shared)?;
        (self.follows, self.place) = (true, None);
        self.work_on(self.cursor.clone());
        let over = interrupts.deadline;
        interrupts.deadline = Instant::now() + ENDLESS;
        let filled = match patience {
            Patience::Endless => Some(self.fill(interrupts, connection).await),
            Patience::Some => tokio::time::timeout_at(over, self.fill(interrupts, connection)).await.ok(),
        };
        // What has come is to be taken in time again.
        interrupts.deadline = if patience == Patience::Endless { Instant::now() + interrupts.timeout } else { over };
        filled.transpose().map(|filled| filled.is_some())
    }

    /// Waits until there is a row behind the current one. False if there is none any more. Cancel safe.
    async fn fill(&mut self, interrupts: &mut Interrupts, connection: &mut Connection) -> Outcome<bool> {
        while self.current.as_ref().is_none_or(|(_, next, rows)| next >= rows) {
            self.current = None;
            self.source = match std::mem::replace(&mut self.source, Source::Ended) {
                Source::Planned(query) => begin(*query, self.place.clone()),
                begun => begun,
            };
            let Source::Running { batches, .. } = &mut self.source else { return Ok(false) };
            match interrupts.heed(connection, batches.recv()).await? {
                Some(batch) => {
                    self.take(&batch?)?;
                    // What follows changes lasts as long as they come.
                    if self.follows_changes() {
                        interrupts.deadline = interrupts.deadline.max(Instant::now() + interrupts.timeout);
                    }
                }
                None => {
                    (self.source, self.place, self.cursor) = (Source::Ended, None, None);
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

/// Waits a little, and until a query has shown all changes that there were; for ever for one that follows none.
async fn pause(caught_up: Option<CaughtUp>) {
    let Some(caught_up) = caught_up else { return std::future::pending().await };
    loop {
        tokio::time::sleep(LINGER).await;
        if caught_up.get() {
            return;
        }
    }
}

/// Begins to run a query.
fn begin(query: PreparedQuery, place: Option<Place>) -> Source {
    let (sender, batches) = mpsc::channel(BATCHES_AHEAD);
    let (place, places) = watch::channel(place);
    let task = tokio::spawn(work(query, places, sender));
    Source::Running { batches, place, _task: AbortOnDrop(task.abort_handle()) }
}

/// Runs a query as long as it has a place. What its operators have begun by themselves goes on until what they hold ahead is full.
async fn work(query: PreparedQuery, mut places: watch::Receiver<Option<Place>>, batches: mpsc::Sender<Result<RecordBatch>>) {
    let first = places.borrow().clone();
    let mut stream = match query.run().await {
        Ok(result) => result.batches,
        Err(error) => {
            let _ = batches.send(Err(error)).await;
            return;
        }
    };
    drop(first);
    loop {
        // A share of the place is held here too: work that was given up and has not ended yet still takes it.
        let Some(place) = resumed(&mut places).await else { return };
        let batch = tokio::select! {
            biased;
            () = moved(&mut places, &place) => continue,
            batch = stream.next() => batch,
        };
        drop(place);
        let Some(batch) = batch else { return };
        let failed = batch.is_err();
        if batches.send(batch).await.is_err() || failed {
            return;
        }
    }
}

/// Waits until there is a place. `None` if nobody waits for rows any more.
async fn resumed(places: &mut watch::Receiver<Option<Place>>) -> Option<Place> {
    places.wait_for(Option::is_some).await.ok().and_then(|place| place.clone())
}

/// Waits until the place is taken away, or another one is to be worked on.
async fn moved(places: &mut watch::Receiver<Option<Place>>, place: &Place) {
    let _ = places.wait_for(|now| now.as_ref().is_none_or(|now| !Arc::ptr_eq(now, place))).await;
}
