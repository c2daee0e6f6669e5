//! A query that runs beside its request.
//!
//! Planning and batches come from tasks of their own: what panics ends one query. A place for queries is held from before a query is planned
//! until its last batch has left; a query that follows changes gives it back once it has shown those that there were, and takes one of the
//! places for cursors instead. Whoever does not read holds a place no longer than a statement may take.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use logweir_core::{Error, Result, TimestampMicros};
use logweir_pgwire::draining;
use logweir_sql::{ClientSession, PreparedQuery, begin_query};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use crate::identity::Identity;
use crate::server::Shared;
use crate::status;

/// Batches that wait for their client.
const BATCHES_AHEAD: usize = 2;

/// What a request says beside its statement.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    pub(crate) client: ClientSession,
    /// Nothing that was committed later is seen.
    pub(crate) as_of: Option<TimestampMicros>,
    /// Changes do not end.
    pub(crate) follow: bool,
}

/// Ends a task that nobody waits for any more.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn out_of_time(timeout: Duration) -> Status {
    Status::deadline_exceeded(format!("the statement was cancelled by the statement timeout ({} s)", timeout.as_secs_f64()))
}

/// Some functions panic on some constants.
fn not_computed() -> Status {
    Status::internal("the query cannot be computed")
}

/// Does some work on a place for queries, within the time of a statement.
pub(crate) async fn on_a_place<T, W>(shared: &Arc<Shared>, deadline: Instant, work: W) -> Result<(T, OwnedSemaphorePermit), Status>
where
    T: Send + 'static,
    W: Future<Output = Result<T>> + Send + 'static,
{
    let place = match timeout_at(deadline, shared.places.queries().acquire_owned()).await {
        Ok(Ok(place)) => place,
        Ok(Err(_)) => return Err(status::stopping()),
        Err(_) => {
            return Err(Status::resource_exhausted(
                "all places for queries were taken until the statement timeout; `sql.concurrent_queries` of the configuration says how many there are",
            ));
        }
    };
    // The task has the place with it: work that was given up and has not ended yet still takes it.
    let task = tokio::spawn(async move { work.await.map(|done| (done, place)) });
    let _abort = AbortOnDrop(task.abort_handle());
    match timeout_at(deadline, task).await {
        Ok(Ok(done)) => done.map_err(|error| status::of(&error)),
        Ok(Err(_)) => Err(not_computed()),
        Err(_) => Err(out_of_time(shared.statement_timeout)),
    }
}

/// Plans a query.
pub(crate) async fn plan(
    shared: &Arc<Shared>,
    identity: Identity,
    text: &str,
    asked: Asked,
    deadline: Instant,
) -> Result<(PreparedQuery, OwnedSemaphorePermit), Status> {
    let (owned, text) = (Arc::clone(shared), text.to_owned());
    on_a_place(shared, deadline, async move {
        let (owned, text, asked) = (&owned, &text, &asked);
        let query = begin_query(|| async move {
            let mut engine = owned.database.engine(&owned.users.get(identity).schemas).await?;
            if let Some(moment) = asked.as_of {
                engine = engine.as_of(moment);
            }
            if asked.follow {
                engine = engine.following();
            }
            engine.prepare(text, &asked.client).await
        });
        query.await
    })
    .await
}

/// The batches of a query.
pub(crate) struct Rows {
    pub(crate) schema: SchemaRef,
    pub(crate) batches: BoxStream<'static, Result<RecordBatch, Status>>,
}

/// Runs a query that was planned on a place.
pub(crate) fn run(
    shared: &Arc<Shared>,
    planned: (PreparedQuery, OwnedSemaphorePermit),
    values: &[ArrayRef],
    deadline: Instant,
) -> Result<Rows, Status> {
    let (query, place) = planned;
    let query = query.bind(values).map_err(|error| status::of(&error))?;
    let schema = query.schema();
    let (sender, batches) = mpsc::channel(BATCHES_AHEAD);
    let task = tokio::spawn(work(Arc::clone(shared), query, place, sender, deadline));
    // Batches are named as the statement names them; those of the engine may have other names.
    let named = Arc::clone(&schema);
    let batches = stream::unfold((batches, AbortOnDrop(task.abort_handle()), Some(task)), next)
        .and_then(move |batch| futures::future::ready(rename(&batch, &named)))
        .boxed();
    Ok(Rows { schema, batches })
}

fn rename(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, Status> {
    let columns = batch.columns().iter().zip(schema.fields());
    if columns.clone().any(|(column, field)| column.data_type() != field.data_type()) || batch.num_columns() != schema.fields().len() {
        return Err(status::of(&Error::internal("the answer has other columns than were announced")));
    }
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), batch.columns().to_vec(), &options)
        .map_err(|error| status::of(&Error::internal("the answer is not as it was announced").source(error)))
}

type Source = (mpsc::Receiver<RecordBatch>, AbortOnDrop, Option<JoinHandle<Result<(), Status>>>);

/// The next batch; behind the last one, what the work has ended with.
async fn next((mut batches, abort, mut task): Source) -> Option<(Result<RecordBatch, Status>, Source)> {
    if let Some(batch) = batches.recv().await {
        return Some((Ok(batch), (batches, abort, task)));
    }
    match task.take()?.await {
        Ok(Ok(())) => None,
        Ok(Err(status)) => Some((Err(status), (batches, abort, None))),
        Err(_) => Some((Err(not_computed()), (batches, abort, None))),
    }
}

async fn work(
    shared: Arc<Shared>,
    query: PreparedQuery,
    place: OwnedSemaphorePermit,
    batches: mpsc::Sender<RecordBatch>,
    mut deadline: Instant,
) -> Result<(), Status> {
    let timeout = shared.statement_timeout;
    let late = || out_of_time(timeout);
    let mut stop: watch::Receiver<bool> = shared.stop.clone();
    let caught_up = query.caught_up();
    let mut result = timeout_at(deadline, query.run()).await.map_err(|_| late())?.map_err(|error| status::of(&error))?.batches;
    let follows = caught_up.filter(|caught_up| caught_up.follows());
    let _cursor = match &follows {
        Some(_) => Some(shared.places.cursors().try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(
                "there are too many open cursors; `sql.open_cursors` of the configuration says how many there may be, of all sessions",
            )
        })?),
        None => None,
    };
    let mut place = Some(place);
    loop {
        let batch = match &follows {
            None => timeout_at(deadline, result.next()).await.map_err(|_| late())?,
            Some(caught_up) => {
                if caught_up.get() {
                    place = None;
                }
                tokio::select! {
                    biased;
                    () = draining(&mut stop) => return Err(status::stopping()),
                    batch = result.next() => batch,
                    // What there was is shown within the time of a statement; what comes is waited for.
                    () = tokio::time::sleep_until(deadline), if place.is_some() && !caught_up.get() => return Err(late()),
                    // Between the last change that there was and the next one nothing else wakes us.
                    () = until(caught_up), if place.is_some() => continue,
                }
            }
        };
        let Some(batch) = batch else { return Ok(()) };
        let batch = batch.map_err(|error| status::of(&error))?;
        if follows.is_some() {
            deadline = deadline.max(Instant::now() + timeout);
        }
        match timeout_at(deadline, batches.send(batch)).await {
            Ok(Ok(())) => {}
            // Nobody reads any more.
            Ok(Err(_)) => return Ok(()),
            Err(_) => return Err(late()),
        }
    }
}

/// Waits until a query has shown all changes that there were.
async fn until(caught_up: &logweir_sql::CaughtUp) {
    while !caught_up.get() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
