//! `logweir run`: runs the streams of a configuration until they end or are told to.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;

use logweir_core::{Clock, Error, SystemClock};
use logweir_runtime::{Shutdown, StreamProgress, run_stream};
use logweir_sql::References;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use crate::config::{Loaded, nearest};
use crate::failure::{Failure, WORK_FAILED};
use crate::registry::Extra;
use crate::screen::Screen;
use crate::sql_endpoint::Handed;
use crate::{compaction, http, progress, references, sql_endpoint};

/// Runs the command.
pub(crate) async fn run(loaded: Loaded, names: &[String], until_caught_up: bool, screen: Screen) -> Result<ExitCode, Failure> {
    let loaded = Arc::new(loaded);
    let names = choose(&loaded, names)?;
    // Recorded only where they can be read: a histogram that nobody empties grows without end.
    let endpoint = match &loaded.config().http {
        Some(http) => Some((http::bind(http.listen).await?, http::record_metrics()?)),
        None => None,
    };
    let running = sql_endpoint::Running::default();
    let sql = sql_endpoint::start(&loaded, &running)?;

    let shutdown = Shutdown::new();
    tokio::spawn(heed_signals(shutdown.clone())?);
    let mut streams = Streams::start(&loaded, &names, until_caught_up, &shutdown).await?;
    let _ = running.set(Handed { progress: streams.progress.clone(), references: std::mem::take(&mut streams.references) });

    let end = Shutdown::new();
    let shown = tokio::spawn(progress::show(streams.progress.clone(), screen, end.clone()));
    let served = endpoint.map(|(listener, metrics)| tokio::spawn(http::serve(listener, metrics, streams.progress.clone(), end.clone())));
    let failed = streams.wait().await;
    end.request();
    let _ = shown.await;
    if let Some(served) = served {
        // A client that keeps its connection open does not keep the process.
        served.abort();
    }
    // Sessions are given some seconds, which nothing else here waits for.
    let _ = tokio::task::spawn_blocking(move || sql_endpoint::stop(sql)).await;
    for (stream, error) in &failed {
        eprintln!("error: stream {stream}: {}", error.report());
    }
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(WORK_FAILED) })
}

/// The streams asked for: all of them if none was named.
pub(crate) fn choose(loaded: &Loaded, names: &[String]) -> Result<Vec<String>, Failure> {
    let known: Vec<&str> = loaded.config().streams.keys().map(|name| name.0.as_str()).collect();
    for name in names {
        if !known.contains(&name.as_str()) {
            let meant = nearest(name, known.iter().copied()).map(|name| format!("did you mean `{name}`? ")).unwrap_or_default();
            let message = format!("there is no stream `{name}` in {}; {meant}streams are: {}", loaded.name, known.join(", "));
            return Err(Failure::Usage(message));
        }
    }
    Ok(known.into_iter().filter(|known| names.is_empty() || names.iter().any(|name| name == known)).map(str::to_owned).collect())
}

/// Streams that run, a task each.
pub(crate) struct Streams {
    tasks: JoinSet<(String, Result<(), Error>)>,
    /// They end with the streams.
    _refreshing: JoinSet<()>,
    /// How they go, in their order.
    pub(crate) progress: Vec<Arc<StreamProgress>>,
    /// The reference tables of each, which are kept fresh.
    pub(crate) references: BTreeMap<String, References>,
}

impl Streams {
    /// Makes all of them, then starts them: a mistake in one starts none.
    pub(crate) async fn start(loaded: &Arc<Loaded>, names: &[String], until_caught_up: bool, shutdown: &Shutdown) -> Result<Self, Error> {
        let memory = usize::try_from(loaded.config().memory.0).unwrap_or(usize::MAX) / names.len().max(1);
        let mut specs = Vec::with_capacity(names.len());
        let mut refreshing = JoinSet::new();
        let mut shared = BTreeMap::new();
        for name in names {
            let extra =
                async { Ok(Extra { references: references::load(loaded, name).await?, known: references::known(loaded, name).await? }) };
            let extra = tokio::select! {
                extra = extra => extra.map_err(|error: Error| error.context("stream", name))?,
                () = shutdown.requested() => break,
            };
            compaction::schedule(loaded, name, &mut refreshing)?;
            references::refresh(loaded, name, loaded.stream(name)?, &extra.references, &mut refreshing);
            specs.push(loaded.spec(name, memory, until_caught_up, &extra)?);
            shared.insert(name.clone(), extra.references);
        }
        if shutdown.is_requested() {
            specs.clear();
        }
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let mut streams = Streams { tasks: JoinSet::new(), _refreshing: refreshing, progress: Vec::new(), references: shared };
        for spec in specs {
            let progress = Arc::new(StreamProgress::new(&spec.name));
            streams.progress.push(Arc::clone(&progress));
            let (clock, shutdown) = (Arc::clone(&clock), shutdown.clone());
            streams.tasks.spawn(async move {
                let name = spec.name.clone();
                let outcome = run_stream(spec, clock, shutdown, progress).await;
                if let Err(error) = &outcome {
                    tracing::error!(stream = name, kind = error.kind().as_str(), error = %error.report(), "the stream has failed");
                }
                (name, outcome)
            });
        }
        Ok(streams)
    }

    /// Waits for all to end. One that fails does not take the others down: they have other sources, and their freshness counts.
    pub(crate) async fn wait(&mut self) -> Vec<(String, Error)> {
        let mut failed = Vec::new();
        while let Some(ended) = self.tasks.join_next().await {
            match ended {
                Ok((_, Ok(()))) => {}
                Ok((stream, Err(error))) => failed.push((stream, error)),
                Err(_) => failed.push(("?".to_owned(), Error::internal("a stream ended by a panic"))),
            }
        }
        failed
    }
}

/// The first signal asks for a drain, the second ends the process at once.
pub(crate) fn heed_signals(shutdown: Shutdown) -> Result<impl Future<Output = ()>, Error> {
    let listen = |kind| signal(kind).map_err(|error| Error::internal("could not listen for signals").source(error));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    Ok(async move {
        for times in 1.. {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if times > 1 {
                eprintln!("{name} again: stopped at once; the next start goes on from the last checkpoint, nothing is lost");
                std::process::exit(WORK_FAILED.into());
            }
            tracing::info!(signal = name, "draining: what was read is being landed; send the signal again to stop at once");
            shutdown.request();
        }
    })
}
