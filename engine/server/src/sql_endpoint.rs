//! The SQL endpoints over the tables of a configuration.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use logweir_core::{Error, Pattern, Result};
use logweir_pgwire::{Database, Endpoint, Options, Places, User, tls};
use logweir_runtime::StreamProgress;
use logweir_sql::{FooterCache, QueryEngine, References};

use crate::commands::sql::{Reach, databases, engine};
use crate::config::{Loaded, SqlUser};
use crate::live::Process;

/// What a query may have on disk, as a multiple of what it may have in memory.
const SPILL_FACTOR: u64 = 8;

/// What is known of the streams once they run.
pub(crate) type Running = Arc<OnceLock<Handed>>;

/// What the process that runs streams hands to whoever asks about them.
pub(crate) struct Handed {
    /// How they go.
    pub(crate) progress: Vec<Arc<StreamProgress>>,
    /// What their transforms look values up in, by stream.
    pub(crate) references: BTreeMap<String, References>,
}

/// Ends them: see [`Endpoint::stop`]. Blocks until then.
pub(crate) fn stop(endpoints: Vec<Endpoint>) {
    std::thread::scope(|scope| endpoints.into_iter().for_each(|endpoint| drop(scope.spawn(|| endpoint.stop()))));
}

/// Starts those that the configuration has.
pub(crate) fn start(loaded: &Arc<Loaded>, running: &Running) -> Result<Vec<Endpoint>> {
    let Some(sql) = &loaded.config().sql else { return Ok(Vec::new()) };
    let mut endpoints = Vec::new();
    let count = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
    let files = sql.tls.as_ref();
    let tls = files.map(|files| tls(&loaded.directory.join(&files.certificate), &loaded.directory.join(&files.key))).transpose()?;
    let users = || sql.users.iter().map(|user| known(user, &loaded.directory)).collect::<Result<Vec<_>>>();
    let memory_bytes = usize::try_from(sql.memory.0).unwrap_or(usize::MAX);
    let streams = Streams { loaded: Arc::clone(loaded), memory_bytes, footers: FooterCache::default(), running: Arc::clone(running) };
    // Of both protocols together.
    let places = Places::new(count(sql.concurrent_queries), count(sql.open_cursors));
    #[cfg(feature = "flight")]
    if let Some(flight) = &sql.flight {
        let options = logweir_flight::Options {
            listen: flight.listen,
            tls: tls.clone(),
            users: users()?,
            statement_timeout: sql.statement_timeout.0,
            connections: count(sql.connections),
            places: places.clone(),
        };
        endpoints.push(logweir_flight::start(options, Box::new(streams.clone()))?);
    }
    let options = Options {
        listen: sql.listen,
        tls,
        users: users()?,
        statement_timeout: sql.statement_timeout.0,
        connections: count(sql.connections),
        places,
    };
    endpoints.push(logweir_pgwire::start(options, Box::new(streams))?);
    Ok(endpoints)
}

fn known(user: &SqlUser, directory: &Path) -> Result<User> {
    let password = user
        .password
        .resolve(directory)
        .map_err(|sentence| Error::config("could not read the password of a user of SQL").context("user", &user.name).source(sentence))?;
    Ok(User { name: user.name.clone(), password, schemas: user.schemas.iter().map(Pattern::new).collect() })
}

/// The streams of a configuration. What they have landed is looked at anew for every query.
#[derive(Clone)]
struct Streams {
    loaded: Arc<Loaded>,
    memory_bytes: usize,
    footers: FooterCache,
    running: Running,
}

#[async_trait]
impl Database for Streams {
    fn names(&self) -> Vec<String> {
        // The streams first: whoever names no database is at the first of them.
        let streams = self.loaded.config().streams.iter();
        let mut names: Vec<String> = streams.flat_map(|(name, stream)| databases(&name.0, stream)).collect();
        names.sort_by_key(|name| name.contains('/'));
        names
    }

    async fn engine(&self, schemas: &[Pattern]) -> Result<QueryEngine> {
        let running = self.running.get();
        let process = running.map(|running| Process::observe(&running.progress));
        let references = running.map(|running| &running.references);
        let engine = engine(&self.loaded, &Reach { memory_bytes: self.memory_bytes, schemas: Some(schemas), process, references }).await?;
        engine.with_footers(&self.footers).with_spill((self.memory_bytes as u64).saturating_mul(SPILL_FACTOR))
    }
}
