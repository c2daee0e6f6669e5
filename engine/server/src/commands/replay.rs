//! `logweir replay`: puts a destination's place in the checkpoint back, so that the next run lands again what the change log holds.

use std::process::ExitCode;

use chrono::DateTime;
use logweir_core::{Clock as _, ConsumerName, Error, LogPosition, Result, SystemClock, TimestampMicros};
use logweir_runtime::changelog::segment::Locate;
use logweir_runtime::checkpoint::{CheckpointDocument, ConsumerCheckpoint};

use crate::config::{Loaded, nearest};
use crate::failure::{Failure, WORK_FAILED};
use crate::live::Process;
use crate::tail::locate;
use crate::text::{print, time};

/// Runs the command.
pub(crate) async fn run(loaded: &Loaded, destination: &str, from: &str, stream: Option<&str>, again: bool) -> Result<ExitCode, Failure> {
    let place = place(from)?;
    let name = stream_of(loaded, destination, stream)?;
    if let Some(http) = &loaded.config().http
        && Process::ask(http.listen).await.is_some_and(|process| process.stream(&name).is_some())
    {
        return Err(Error::fenced("the stream is run by another process").context("stream", &name).remedy("stop it first").into());
    }
    let Some(log) = loaded.change_log(&name)? else {
        return Err(Error::config("the stream keeps its changes in memory only: there is nothing to give again")
            .context("stream", &name)
            .remedy("keep them on disk from now on: change_log: { dir: … }")
            .into());
    };
    let mut state = loaded.state(&name)?;
    let document = state.claim().await?.ok_or_else(|| {
        Error::config("the stream has no checkpoint yet, so its change log is empty")
            .context("stream", &name)
            .remedy("run it first: logweir run")
    })?;
    let mut document = CheckpointDocument::from_bytes(&document).map_err(|error| error.context("checkpoint", state.location()))?;
    let mark = locate(&log, place).await?;
    let until = document.log.as_ref().map(|log| log.mark.clone());
    let Some(until) = until.filter(|until| until.position >= mark.position) else {
        return Err(Error::log_gone("the change log does not go on from there to where the stream stands")
            .context("stream", &name)
            .remedy("run the stream once, and try again")
            .into());
    };

    let known = document.consumers.get(destination);
    let landed = known.is_some_and(|part| part.mark.position > mark.position && !part.rows.is_empty());
    if landed && !again {
        eprintln!(
            "{destination} has landed changes behind {} already: they would be there twice, under the same _metadata_sequence.\n\
             Empty the destination first, or add --again if its readers take the last row of each sequence.",
            mark.position
        );
        return Ok(ExitCode::from(WORK_FAILED));
    }
    if let Some(part) = known.filter(|part| !part.staged.is_empty()) {
        let configured = loaded.stream(&name)?.destinations.iter().find(|configured| configured.name() == destination);
        let configured = configured.ok_or_else(|| Error::internal("a destination was found and is not there"))?;
        let consumer = ConsumerName { stream: name.clone(), destination: destination.to_owned() };
        loaded.sink(&name, configured)?.recover(&consumer, &part.staged).await?;
    }
    let part = ConsumerCheckpoint {
        epoch: known.map_or(0, |part| part.epoch + 1),
        mark: mark.clone(),
        staged: Vec::new(),
        visible: None,
        rows: Default::default(),
        decided_at: Some(SystemClock.now()),
    };
    document.consumers.insert(destination.to_owned(), part);
    state.save(&document.to_bytes()?).await?;
    let at = |mark: &logweir_core::LogMark| mark.commit_time.map(|commit| format!(" ({})", time(commit))).unwrap_or_default();
    print(&format!(
        "{destination} goes on from {}{}: the next `logweir run` gives it what the change log holds, to {}{} and on\n",
        mark.position,
        at(&mark),
        until.position,
        at(&until),
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn place(from: &str) -> Result<Locate, Failure> {
    if from == "earliest" {
        return Ok(Locate::Earliest);
    }
    if let Ok(position) = from.parse::<LogPosition>() {
        return Ok(Locate::Position(position));
    }
    match DateTime::parse_from_rfc3339(from) {
        Ok(time) => Ok(Locate::Time(TimestampMicros(time.timestamp_micros()))),
        Err(_) => Err(Failure::Usage(format!(
            "`{from}` is no place in a log: write earliest, a position as in _metadata_sequence, or a time such as 2026-11-20T10:00:00Z"
        ))),
    }
}

/// The stream that has the destination.
fn stream_of(loaded: &Loaded, destination: &str, stream: Option<&str>) -> Result<String, Failure> {
    let streams = &loaded.config().streams;
    if let Some(stream) = stream {
        loaded.stream(stream).map_err(|_| Failure::Usage(format!("there is no stream `{stream}` in {}", loaded.name)))?;
    }
    let wanted = streams.iter().filter(|(name, _)| stream.is_none_or(|stream| stream == name.0));
    let destinations: Vec<(&str, &str)> = wanted
        .flat_map(|(name, stream)| stream.destinations.iter().map(move |destination| (name.0.as_str(), destination.name())))
        .collect();
    let having: Vec<&str> = destinations.iter().filter(|(_, name)| *name == destination).map(|(stream, _)| *stream).collect();
    match having[..] {
        [stream] => Ok(stream.to_owned()),
        [] => {
            let names: Vec<&str> = destinations.iter().map(|(_, name)| *name).collect();
            let meant = nearest(destination, names.iter().copied()).map(|name| format!("did you mean `{name}`? ")).unwrap_or_default();
            Err(Failure::Usage(format!("there is no destination `{destination}`; {meant}destinations are: {}", names.join(", "))))
        }
        _ => Err(Failure::Usage(format!("several streams have a destination `{destination}`: add --stream, one of {}", having.join(", ")))),
    }
}
