//! The command line: what there is, and the help that explains it.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

/// Reads the change log of a database and lands every change, exactly once, as Parquet files.
#[derive(Debug, Parser)]
#[command(name = "logweir", version, max_term_width = 100, arg_required_else_help = true, subcommand_required = true)]
#[command(after_help = "\
Start with `logweir quickstart`: it needs nothing but a directory to write to.
Exit codes: 0 done, 1 the work failed, 2 usage or configuration.
LOGWEIR_LOG sets the log level (error, warn, info, debug); without it `run` logs info, the others warnings.")]
pub(crate) struct Cli {
    /// The form of log lines on standard error
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the streams of a configuration
    ///
    /// Runs until it is told to stop (SIGTERM or SIGINT): what was read by then is committed, and the exit code is 0. A
    /// second signal stops at once; nothing is lost by that either, the next start goes on from the last checkpoint.
    Run {
        /// The configuration file; `-` reads standard input
        config: String,
        /// Run this stream only; may be given several times
        #[arg(long = "stream", value_name = "NAME")]
        streams: Vec<String>,
        /// End once everything that the sources held at the start is visible in every destination
        #[arg(long)]
        until_caught_up: bool,
    },
    /// Look for everything that would stop a stream later, and show what mends it
    ///
    /// Changes nothing in the sources; writes and removes a probe file in destinations. Exit code 0: fine, or warnings only.
    Check {
        /// The configuration file; `-` reads standard input
        config: String,
        /// The form of the result
        #[arg(long, value_enum, default_value_t = TextOrJson::Text)]
        format: TextOrJson,
    },
    /// Show rows of a table as they are, and what masks, functions and transforms make of them
    ///
    /// Asks the source for a few rows and writes nothing anywhere. Columns that a mask covers are hidden in the rows before, too.
    Preview {
        /// The configuration file; `-` reads standard input
        config: String,
        /// The table: schema.table
        #[arg(long, value_name = "SCHEMA.TABLE")]
        table: String,
        /// The stream; only needed if several follow the table
        #[arg(long, value_name = "NAME")]
        stream: Option<String>,
        /// How many rows
        #[arg(long, value_name = "ROWS", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
        /// The form of the result
        #[arg(long, value_enum, default_value_t = TextOrJson::Text)]
        format: TextOrJson,
    },
    /// List the tables of a source with their columns, types and keys
    Discover {
        /// The configuration file; `-` reads standard input
        config: String,
        /// The profile of the source
        profile: String,
        /// The form of the result
        #[arg(long, value_enum, default_value_t = TextOrJson::Text)]
        format: TextOrJson,
    },
    /// Show what each stream has landed, how fresh it is, and whether it runs
    ///
    /// Reads the checkpoints, so it works whether or not a process is running; if one is and has an HTTP endpoint, its live
    /// numbers are shown, too.
    Status {
        /// The configuration file; `-` reads standard input
        config: String,
        /// The form of the result
        #[arg(long, value_enum, default_value_t = TextOrJson::Text)]
        format: TextOrJson,
    },
    /// Query what was landed
    ///
    /// Schema `<schema>` holds the current state of each table, `<schema>_changes` every change with its `_metadata_*` columns,
    /// `logweir` the tables there are. With several streams, the stream's name comes first: `stream.schema.table`.
    Sql {
        /// The configuration file; `-` reads standard input
        config: String,
        /// The query
        query: String,
        /// See nothing that was committed in the source later: 2026-11-20T10:00:00Z
        #[arg(long, value_name = "TIME")]
        as_of: Option<String>,
        /// The form of the result
        #[arg(long, value_enum, default_value_t = SqlFormat::Table)]
        format: SqlFormat,
    },
    /// Give a destination once more what the change log still holds
    ///
    /// For a destination that was added or is to be made anew: its place in the checkpoint is put back, and the next `logweir run` lands
    /// everything from there on. Refused while the stream runs.
    Replay {
        /// The configuration file; `-` reads standard input
        config: String,
        /// The destination
        #[arg(long, value_name = "NAME")]
        destination: String,
        /// From where: earliest, a position (as in _metadata_sequence) or a time (2026-11-20T10:00:00Z)
        #[arg(long, value_name = "PLACE")]
        from: String,
        /// The stream; only needed if several have a destination of this name
        #[arg(long, value_name = "NAME")]
        stream: Option<String>,
        /// Also if the destination has landed some of it: those changes are there twice, under the same sequence
        #[arg(long)]
        again: bool,
    },
    /// Replace files of changes by files of what stands: of each key the newest change
    ///
    /// The current state of every table stays what it is, for every reader; what goes is the history of the files that are replaced. Works
    /// whether or not the stream runs. Changes that are on their way or were just landed are left for the next time.
    Compact {
        /// The configuration file; `-` reads standard input
        config: String,
        /// This stream only
        #[arg(long, value_name = "NAME")]
        stream: Option<String>,
        /// This destination only
        #[arg(long, value_name = "NAME")]
        destination: Option<String>,
        /// The tables that fit this pattern only: shop.*
        #[arg(long, value_name = "SCHEMA.TABLE")]
        table: Option<String>,
        /// Keep every change that was committed in this time: 7d
        #[arg(long, value_name = "SPAN")]
        keep: Option<String>,
    },
    /// Drop what logweir made at the source for a stream: its replication slot and publication
    ///
    /// Only PostgreSQL sources have something to drop. A slot that nobody reads keeps log at its server until the disk is full,
    /// so a stream that is given up should be dropped. Refused while the stream runs. Destinations and the checkpoint stay.
    Drop {
        /// The configuration file; `-` reads standard input
        config: String,
        /// The stream
        #[arg(long, value_name = "NAME")]
        stream: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Do the whole job with nothing installed: a recorded log, masked, as Parquet, with a few queries over it
    Quickstart {
        /// The directory to write to; made if it is not there
        #[arg(long, default_value = "logweir-quickstart")]
        dir: PathBuf,
    },
    /// Print the JSON Schema of a file that logweir reads
    Schema {
        /// Which one
        #[arg(value_enum)]
        of: SchemaOf,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people
    Text,
    /// A JSON object per line
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TextOrJson {
    /// For people
    Text,
    /// For programs; stable
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SqlFormat {
    /// A table for people
    Table,
    /// Comma-separated values with a header
    Csv,
    /// A JSON object per line
    Json,
    /// An Arrow IPC stream
    Arrow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SchemaOf {
    /// The configuration
    Config,
}
