//! A query that runs beside its session.
//!
//! Planning and rows come from a task of their own, so that the session hears a cancel, a timeout and the end of the client while the
//! engine works. A task holds one of the places that there are for queries from before it plans until its last row is taken.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use futures::StreamExt as _;
use logweir_core::{Error, Result, TimestampMicros};
use logweir_sql::{ClientSession, PreparedQuery, type_oid};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;

use crate::frame::Connection;
use crate::reply::{Column, Failure, Outcome, Refusal};
use crate::server::{Shared, StopLevel, reached};
use crate::value::Values;

/// Batches that wait for their session.
const BATCHES_AHEAD: usize = 2;

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

/// A query that was planned, and its place.
pub(crate) struct Planned {
    pub(crate) query: PreparedQuery,
    place: OwnedSemaphorePermit,
}

/// Plans a query on a place for queries.
pub(crate) async fn plan(
    shared: &Arc<Shared>,
    user: usize,
    text: &str,
    client: &ClientSession,
    as_of: Option<TimestampMicros>,
    interrupts: &mut Interrupts,
    connection: &mut Connection,
) -> Outcome<Planned> {
    let place = Arc::clone(&shared.places).acquire_owned();
    let place = match interrupts.heed(connection, place).await {
        Ok(Ok(place)) => place,
        Ok(Err(_)) => return Err(Failure::Ended(Some(stopping()))),
        Err(Failure::Refused(_)) if Instant::now() >= interrupts.deadline => {
            let busy = Refusal::new("53300", "all places for queries were taken until the statement timeout");
            return Err(busy
                .hint("`sql.concurrent_queries` of the configuration says how many there are; an open cursor takes one")
                .into());
        }
        Err(failure) => return Err(failure),
    };
    let (shared, text, client) = (Arc::clone(shared), text.to_owned(), client.clone());
    let task = tokio::spawn(async move {
        let mut engine = shared.database.engine(&shared.users[user].schemas).await?;
        if let Some(moment) = as_of {
            engine = engine.as_of(moment);
        }
        let query = engine.prepare(&text, &client).await?;
        Ok(Planned { query, place })
    });
    Ok(interrupts.heed(connection, joined(task)).await??)
}

/// Rows as they come.
pub(crate) struct Rows {
    pub(crate) columns: Vec<Column>,
    schema: SchemaRef,
    batches: Option<mpsc::Receiver<Result<RecordBatch>>>,
    _task: Option<AbortOnDrop>,
    /// The batch that is being read, and the next row of it.
    current: Option<(Vec<Values>, usize, usize)>,
}

/// The columns of an answer as a client sees them.
pub(crate) fn columns(schema: &SchemaRef) -> Vec<Column> {
    schema.fields().iter().map(|field| Column { name: field.name().clone(), oid: type_oid(field) }).collect()
}

impl Rows {
    /// Begins to run a query.
    pub(crate) fn start(planned: Planned, values: &[ArrayRef]) -> Result<Self> {
        let Planned { query, place } = planned;
        let query = query.bind(values)?;
        let schema = query.schema();
        let (sender, receiver) = mpsc::channel(BATCHES_AHEAD);
        let task = tokio::spawn(async move {
            let _place = place;
            let mut batches = match query.run().await {
                Ok(result) => result.batches,
                Err(error) => {
                    let _ = sender.send(Err(error)).await;
                    return;
                }
            };
            while let Some(batch) = batches.next().await {
                let failed = batch.is_err();
                if sender.send(batch).await.is_err() || failed {
                    return;
                }
            }
        });
        let task = AbortOnDrop(task.abort_handle());
        Ok(Rows { columns: columns(&schema), schema, batches: Some(receiver), _task: Some(task), current: None })
    }

    /// Rows that are there already.
    pub(crate) fn ready(batch: &RecordBatch) -> Result<Self, Refusal> {
        let schema = batch.schema();
        let mut rows = Rows { columns: columns(&schema), schema, batches: None, _task: None, current: None };
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

    /// The next row: the values of its batch, and which row of them it is.
    pub(crate) async fn next(&mut self, interrupts: &mut Interrupts, connection: &mut Connection) -> Outcome<Option<(&[Values], usize)>> {
        while self.current.as_ref().is_none_or(|(_, next, rows)| next >= rows) {
            self.current = None;
            let Some(batches) = &mut self.batches else { return Ok(None) };
            match interrupts.heed(connection, batches.recv()).await? {
                Some(batch) => self.take(&batch?)?,
                None => {
                    self.batches = None;
                    return Ok(None);
                }
            }
        }
        let Some((values, next, _)) = &mut self.current else { return Ok(None) };
        *next += 1;
        Ok(Some((values, *next - 1)))
    }
}
