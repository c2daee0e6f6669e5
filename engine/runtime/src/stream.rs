//! A stream: one source, its destinations, and what to do when something fails.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use logweir_core::{Clock, Error, LogMark, Pattern, Result, Sink, Source, StateStore, TableFilter, Transform};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Mutex;

use crate::changelog::segment::SegmentOptions;
use crate::instruments::StreamInstruments;
use crate::pipeline::Run;
use crate::progress::{StreamProgress, StreamState};
use crate::reader::Goal;
use crate::retry::Backoff;
use crate::shutdown::Shutdown;

/// Makes the transforms of a stream, in order. Called for every opening of the log, because a transform plans a
/// relation once and the log announces it again.
pub type TransformFactory = Arc<dyn Fn() -> Result<Vec<Box<dyn Transform>>> + Send + Sync>;

/// Changes pass as they are.
pub fn no_transforms() -> TransformFactory {
    Arc::new(|| Ok(Vec::new()))
}

/// A destination of a stream.
pub struct Destination {
    /// Its name, unique in the stream and the same at every start: the checkpoint knows it by it.
    pub name: String,
    /// Where changes land.
    pub sink: Arc<dyn Sink>,
    /// What happens to changes on their way from the change log to it.
    pub transforms: TransformFactory,
}

/// A change log on disk.
#[derive(Debug, Clone)]
pub struct ChangeLogSpec {
    /// Where, and how much of it is kept.
    pub segments: SegmentOptions,
    /// Who tells the source what it may forget.
    pub acknowledge: Acknowledge,
}

/// When the source may forget a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Acknowledge {
    /// When it is visible in every destination.
    #[default]
    Destination,
    /// When the change log on disk holds it.
    Log,
}

/// What a stream is made of.
pub struct StreamSpec {
    /// The stream's name, the same at every start.
    pub name: String,
    /// Where changes come from.
    pub source: Arc<dyn Source>,
    /// The tables it follows.
    pub tables: TableFilter,
    /// Patterns over `schema.table`: the tables whose transforms want to know what updated rows were before.
    pub before_images: Vec<Pattern>,
    /// And those of which it is kept behind the stream's transforms, for destinations and queries.
    pub keep_before_images: Vec<Pattern>,
    /// What happens to changes before they go anywhere.
    pub transforms: TransformFactory,
    /// Says which changes are followed and what happens to them: another text for other rules. What the change log holds was made by the rules of
    /// then, and must not land by others.
    pub rules: String,
    /// Where they land; at least one.
    pub destinations: Vec<Destination>,
    /// Where changes are kept on their way; `None`: in memory only.
    pub change_log: Option<ChangeLogSpec>,
    /// Where the checkpoint is kept; not yet claimed.
    pub state: Box<dyn StateStore>,
    /// Bytes that the stream may hold, all in all.
    pub memory_bytes: usize,
    /// How long to go on trying before everything was open for the first time.
    pub connect_timeout: Duration,
    /// End when everything the source held at the start is visible in every destination.
    pub until_caught_up: bool,
    /// Chance: different for every process, the same to replay a failure.
    pub seed: u64,
}

/// Runs a stream until its end: of a recorded log, of what there was to catch up with, by a requested shutdown, or by an
/// error that only a person can mend. Everything whole that came before such an error is landed first.
///
/// What may go away by itself is tried again without limit once everything was open, and for
/// [`connect_timeout`](StreamSpec::connect_timeout) before. Dropping the future is like killing the process: nothing is
/// lost, and the next start goes on at the checkpoint.
pub async fn run_stream(spec: StreamSpec, clock: Arc<dyn Clock>, shutdown: Shutdown, progress: Arc<StreamProgress>) -> Result<()> {
    let instruments = Arc::new(StreamInstruments::new(&spec.name));
    let result = supervise(spec, clock, shutdown, &progress, &instruments).await;
    match &result {
        Ok(()) => progress.set_state(StreamState::Stopped),
        Err(error) => {
            instruments.error(error.kind());
            progress.set_state(StreamState::Failed { error: error.report() });
        }
    }
    result
}

async fn supervise(
    mut spec: StreamSpec,
    clock: Arc<dyn Clock>,
    shutdown: Shutdown,
    progress: &Arc<StreamProgress>,
    instruments: &Arc<StreamInstruments>,
) -> Result<()> {
    check(&spec)?;
    let state = Arc::new(Mutex::new(std::mem::replace(&mut spec.state, Box::new(Taken))));
    let mut rng = StdRng::seed_from_u64(spec.seed);
    let mut backoff = Backoff::new(StdRng::seed_from_u64(rng.random()));
    let goal = if spec.until_caught_up { Goal::CaughtUp(Arc::new(OnceLock::new())) } else { Goal::Follow };
    let started_at = clock.now();
    let mut ran = false;
    // Set when an error has ended the stream and what came before it is still to be landed: up to the mark, then the error.
    let mut landing: Option<(LogMark, Error)> = None;
    // A change that a transform refused. It is looked for again with a mark behind each transaction, so that all before it is landed.
    let mut refused: Option<Error> = None;
    loop {
        let began_at = clock.now();
        let goal = landing.as_ref().map_or_else(|| goal.clone(), |(mark, _)| Goal::Land(mark.clone()));
        let marks_each = refused.is_some();
        let run =
            Run { spec: &spec, state: &state, clock: &clock, shutdown: &shutdown, progress, instruments, rng: &mut rng, goal, marks_each };
        let outcome = Box::pin(run.run()).await;
        ran |= outcome.ran;
        let error = match outcome.result {
            Ok(()) => {
                let told_to_stop = refused.filter(|_| shutdown.is_requested());
                return landing.map(|(_, error)| error).or(told_to_stop).map_or(Ok(()), Err);
            }
            Err(error) => error,
        };
        if !error.is_transient() {
            if outcome.refused && refused.is_none() && landing.is_none() {
                refused = Some(error);
                continue;
            }
            match (landing, outcome.land) {
                // Its own fault comes second: it may well be the same one again.
                (Some((_, first)), _) => return Err(first),
                (None, Some(mark)) => {
                    landing = Some((mark, error));
                    continue;
                }
                (None, None) => return Err(error),
            }
        }
        instruments.error(error.kind());
        if shutdown.is_requested() {
            return stopped(landing, outcome.unlanded, error);
        }
        let now = clock.now();
        if outcome.progressed || now.since(began_at) > Backoff::LONGEST {
            backoff.reset();
        }
        let mut wait = backoff.wait();
        if !ran {
            let left = spec.connect_timeout.saturating_sub(now.since(started_at));
            if left.is_zero() {
                return Err(error);
            }
            wait = wait.min(left);
        }
        // Whoever reads the log and then asks finds it so.
        progress.set_state(StreamState::Retrying { error: error.report() });
        tracing::warn!(stream = spec.name, error = %error.report(), milliseconds = wait.as_millis() as u64, "trying again");
        progress.restarted();
        instruments.restart();
        tokio::select! {
            biased;
            () = shutdown.requested() => return stopped(landing, outcome.unlanded, error),
            () = clock.sleep(wait) => {}
        }
    }
}

/// The end of a stream that is told to stop while something fails: good only if nothing read was left behind.
fn stopped(landing: Option<(LogMark, Error)>, unlanded: bool, error: Error) -> Result<()> {
    match landing {
        Some((_, first)) => Err(first),
        None if unlanded => Err(error),
        None => Ok(()),
    }
}

fn check(spec: &StreamSpec) -> Result<()> {
    if spec.destinations.is_empty() {
        return Err(Error::config("a stream must have a destination").context("stream", &spec.name));
    }
    let mut names: Vec<&str> = spec.destinations.iter().map(|destination| destination.name.as_str()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::config("two destinations of a stream must not have the same name")
            .context("stream", &spec.name)
            .context("destination", twice[0]));
    }
    Ok(())
}

/// Stands in the specification for the store that the stream has taken out of it.
struct Taken;

#[async_trait]
impl StateStore for Taken {
    async fn claim(&mut self) -> Result<Option<Vec<u8>>> {
        Err(Error::internal("a state store was claimed that had been taken"))
    }

    async fn save(&mut self, _document: &[u8]) -> Result<()> {
        Err(Error::internal("a checkpoint was saved to a state store that had been taken"))
    }

    async fn peek(&self) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn location(&self) -> String {
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_can_run_on_any_thread() {
        fn is_send<T: Send>(_: impl FnOnce(StreamSpec, Arc<dyn Clock>, Shutdown, Arc<StreamProgress>) -> T) {}
        is_send(run_stream);
    }
}
