//! The commands, a file each.

mod check;
mod compact;
mod discover;
mod drop;
mod preview;
mod quickstart;
mod replay;
mod run;
mod schema;
pub(crate) mod sql;
mod status;

use std::process::ExitCode;
use std::sync::Arc;

use tracing_subscriber::filter::LevelFilter;

use crate::cli::{Cli, Command};
use crate::failure::Failure;
use crate::screen::Screen;
use crate::{config, logging};

/// Runs the command that was asked for.
pub(crate) async fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let screen = Screen::new();
    // A command that answers a question speaks for itself; only what runs for long tells what it does.
    let level = if matches!(cli.command, Command::Run { .. }) { LevelFilter::INFO } else { LevelFilter::WARN };
    logging::start(cli.log_format, level, &screen)?;
    match cli.command {
        Command::Run { config, streams, until_caught_up } => {
            let loaded = config::load(&config)?;
            run::run(loaded, &streams, until_caught_up, screen).await
        }
        Command::Check { config, format } => check::run(&config::load(&config)?, format).await,
        Command::Preview { config, table, stream, limit, format } => {
            preview::run(&config::load(&config)?, &table, stream.as_deref(), limit.into(), format).await
        }
        Command::Discover { config, profile, format } => discover::run(&config::load(&config)?, &profile, format).await,
        Command::Status { config, format } => status::run(&config::load(&config)?, format).await,
        Command::Sql { config, query, as_of, format } => {
            sql::run(&Arc::new(config::load(&config)?), &query, as_of.as_deref(), format).await
        }
        Command::Replay { config, destination, from, stream, again } => {
            replay::run(&config::load(&config)?, &destination, &from, stream.as_deref(), again).await
        }
        Command::Compact { config, stream, destination, table, keep } => {
            let asked = compact::Asked { stream, destination, table, keep };
            compact::run(&config::load(&config)?, &asked).await
        }
        Command::Drop { config, stream, yes } => drop::run(&config::load(&config)?, &stream, yes).await,
        Command::Quickstart { dir } => quickstart::run(&dir, screen).await,
        Command::Schema { of } => schema::run(of),
    }
}
