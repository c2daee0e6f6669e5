//! The binary `logweir`: reads a configuration, wires sources to destinations, runs, and tells how it goes.

mod cli;
mod commands;
mod compaction;
mod config;
mod failure;
mod http;
mod landed;
mod live;
mod logging;
mod panics;
mod progress;
mod references;
mod registry;
mod screen;
mod sql_endpoint;
mod system;
mod tail;
mod text;

use std::process::ExitCode;

use clap::Parser as _;
use logweir_core::Error;

use crate::cli::Cli;
use crate::failure::Failure;

/// Reading and writing must go on beside each other even where the machine shows a single core.
const WORKER_THREADS_MIN: usize = 2;

fn main() -> ExitCode {
    panics::install();
    let cli = Cli::parse();
    match start(cli) {
        Ok(code) => code,
        Err(failure) => failure.show(),
    }
}

fn start(cli: Cli) -> Result<ExitCode, Failure> {
    // Connections are encrypted through the process-wide provider, whoever makes them; only a second one could be refused.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cores = std::thread::available_parallelism().map_or(WORKER_THREADS_MIN, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.max(WORKER_THREADS_MIN))
        .thread_name("logweir")
        .enable_all()
        .build()
        .map_err(|error| Error::internal("could not start the runtime").source(error))?;
    let outcome = runtime.block_on(commands::run(cli));
    // What is left is a listener or a probe; nothing that was decided waits for it.
    runtime.shutdown_background();
    outcome
}
