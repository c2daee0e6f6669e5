//! Log lines: on standard error, as text for people or JSON for machines.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::cli::LogFormat;
use crate::failure::Failure;
use crate::screen::Screen;

/// The environment variable that sets the level.
const VARIABLE: &str = "LOGWEIR_LOG";

/// Starts logging at `default` or what the environment says; lines go through `screen`, which keeps them apart from the progress.
pub(crate) fn start(format: LogFormat, default: LevelFilter, screen: &Screen) -> Result<(), Failure> {
    let wanted = std::env::var(VARIABLE).unwrap_or_default();
    // A level is meant for logweir; the libraries below stay quiet unless asked for by name.
    let directives = match wanted.trim() {
        "" => format!("warn,logweir={default}"),
        level if level.parse::<LevelFilter>().is_ok() => format!("warn,logweir={level}"),
        directives => directives.to_owned(),
    };
    let filter = EnvFilter::try_new(&directives)
        .map_err(|error| Failure::Usage(format!("{VARIABLE} is neither a level nor a list of target=level: {error}")))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(screen.clone());
    let outcome = match format {
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init(),
    };
    outcome.map_err(|error| Failure::Usage(format!("could not start logging: {error}")))
}
