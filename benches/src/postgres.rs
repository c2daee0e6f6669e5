//! A PostgreSQL server as benches are told of it: `NAME=VALUE` words.
//!
//! ```text
//! host=127.0.0.1 port=5432 user=postgres database=bench    PGPASSWORD, if one is needed
//! slot=logweir publication=logweir create=off
//! memory=256          MiB
//! binary=on           values in binary form where all columns allow it
//! streaming=off       on, parallel: large transactions before they commit
//! backfill=off        on: the rows that were there before
//! tasks=4             connections of the backfill
//! ```

use std::error::Error;

use logweir_postgres::options::{BackfillOptions, PostgresOptions, Start, Streaming};

/// See the module.
#[derive(Debug)]
pub struct PostgresArguments {
    /// The server, and how its log is read.
    pub options: PostgresOptions,
    /// The stream's memory.
    pub memory_bytes: usize,
}

impl PostgresArguments {
    /// Understands the words; a word that is none of them is an error.
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, Box<dyn Error>> {
        let mut options = PostgresOptions::new("127.0.0.1", "postgres", "bench");
        options.password = std::env::var("PGPASSWORD").ok().map(Into::into);
        options.create = false;
        options.start = Start::Earliest;
        let (mut memory_mib, mut backfill, mut settings) = (256, false, BackfillOptions::default());
        for word in words {
            let (name, value) = word.split_once('=').ok_or_else(|| format!("{word} is no NAME=VALUE"))?;
            match name {
                "host" => options.host = value.to_owned(),
                "port" => options.port = value.parse()?,
                "user" => options.user = value.to_owned(),
                "database" => options.database = value.to_owned(),
                "slot" => options.slot = value.to_owned(),
                "publication" => options.publication = value.to_owned(),
                "create" => options.create = switch(value)?,
                "memory" => memory_mib = value.parse::<usize>()?,
                "binary" => options.binary = switch(value)?,
                "streaming" => {
                    options.streaming = match value {
                        "parallel" => Streaming::Parallel,
                        _ if switch(value)? => Streaming::On,
                        _ => Streaming::Off,
                    }
                }
                "backfill" => backfill = switch(value)?,
                "tasks" => settings.tasks = value.parse()?,
                _ => return Err(format!("nothing is called {name}").into()),
            }
        }
        if options.create {
            options.start = Start::Now;
        }
        options.backfill = backfill.then_some(settings);
        Ok(PostgresArguments { options, memory_bytes: memory_mib << 20 })
    }
}

fn switch(value: &str) -> Result<bool, Box<dyn Error>> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("{value} is neither on nor off").into()),
    }
}
