//! `logweir compact`: files of changes become files of what stands.

use std::process::ExitCode;
use std::time::Duration;

use logweir_core::Pattern;
use logweir_files::compact::{Compacted, Contents};

use crate::compaction;
use crate::config::{Loaded, Span};
use crate::failure::{Failure, WORK_FAILED};
use crate::text::{bytes, count, print};

/// What was asked for.
pub(crate) struct Asked {
    pub(crate) stream: Option<String>,
    pub(crate) destination: Option<String>,
    pub(crate) table: Option<String>,
    pub(crate) keep: Option<String>,
}

/// Runs the command.
pub(crate) async fn run(loaded: &Loaded, asked: &Asked) -> Result<ExitCode, Failure> {
    let keep = asked.keep.as_deref().map(span).transpose()?;
    let table = asked.table.as_deref().map(Pattern::new);
    if let Some(stream) = &asked.stream {
        loaded.stream(stream).map_err(|_| Failure::Usage(format!("there is no stream `{stream}` in {}", loaded.name)))?;
    }
    let mut any = false;
    let mut failed = false;
    for (name, stream) in &loaded.config().streams {
        if asked.stream.as_ref().is_some_and(|wanted| *wanted != name.0) {
            continue;
        }
        for destination in &stream.destinations {
            if asked.destination.as_ref().is_some_and(|wanted| wanted != destination.name()) {
                continue;
            }
            any = true;
            let tables = compaction::compact(loaded, &name.0, destination, table.as_ref(), keep).await?;
            if tables.is_empty() {
                print(&format!("{}: nothing was landed yet\n", destination.name()))?;
            }
            for (table, compacted) in tables {
                let became = match compacted {
                    Ok(Compacted::Replaced { from, to }) => format!("{} became {}", told(from), told(to)),
                    Ok(Compacted::AsItIs) => "nothing to gain".to_owned(),
                    Ok(Compacted::Not(reason)) => format!("left as it is: {reason}"),
                    Err(error) => {
                        failed = true;
                        eprintln!("{}: {}", destination.name(), error.report());
                        continue;
                    }
                };
                print(&format!("{} {table}: {became}\n", destination.name()))?;
            }
        }
    }
    if !any {
        return Err(Failure::Usage("there is no such destination".to_owned()));
    }
    Ok(if failed { ExitCode::from(WORK_FAILED) } else { ExitCode::SUCCESS })
}

fn told(contents: Contents) -> String {
    let files = if contents.files == 1 { "file" } else { "files" };
    format!("{} {files}, {} rows, {}", count(contents.files as u64), count(contents.rows), bytes(contents.bytes))
}

fn span(text: &str) -> Result<Duration, Failure> {
    Span::parse(text).map(|span| span.0).map_err(|problem| Failure::Usage(format!("`{text}` is no time span: {problem}")))
}
