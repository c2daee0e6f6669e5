//! The reference tables of a stream: read before it starts, and again as often as its configuration says.
//!
//! A query of what is in flight uses those of the stream that runs; where none does, it reads those that it needs itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use logweir_core::{Error, QueryLimit, Relation, Result, Transform as _};
use logweir_sql::{References, read_reference_file};
use tokio::sync::OnceCell;
use tokio::task::JoinSet;

use crate::config::{Loaded, Reference, SchemaChange, Stream};
use crate::registry::table_filter;

/// How much memory one may take unless the configuration says otherwise.
const BYTES_MAX: u64 = 64 << 20;
/// How many rows the answer to a query may have: the bytes end it before.
const ROWS_MAX: usize = 1 << 30;
/// How long the database may take over a query.
const QUERY_MAX: Duration = Duration::from_secs(300);
/// Between two tries at the start.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

impl Reference {
    fn refresh(&self) -> Option<Duration> {
        match self {
            Reference::Path { refresh, .. } | Reference::Bucket { refresh, .. } | Reference::Query { refresh, .. } => {
                refresh.map(|span| span.0)
            }
        }
    }

    fn bytes_max(&self) -> usize {
        let (Reference::Path { max_size, .. } | Reference::Bucket { max_size, .. } | Reference::Query { max_size, .. }) = self;
        usize::try_from(max_size.map_or(BYTES_MAX, |size| size.0)).unwrap_or(usize::MAX)
    }
}

/// Reads every reference table of a stream. What may go away by itself is tried again as long as a connection is at the start.
pub(crate) async fn load(loaded: &Loaded, name: &str) -> Result<References> {
    let stream = loaded.stream(name)?;
    let deadline = tokio::time::Instant::now() + loaded.config().connect_timeout.0;
    let mut tables = Vec::new();
    for (table, reference) in &stream.references {
        let rows = loop {
            match read(loaded, reference).await {
                Ok(rows) => break rows,
                Err(error) if error.is_transient() && tokio::time::Instant::now() + RETRY_INTERVAL < deadline => {
                    tracing::warn!(stream = name, reference = table.0, error = %error.report(), "trying again");
                    tokio::time::sleep(RETRY_INTERVAL).await;
                }
                Err(error) => return Err(error.context("reference", &table.0)),
            }
        };
        tables.push(logweir_sql::Reference::new(&table.0, rows));
    }
    Ok(tables.into_iter().collect())
}

/// The followed tables as they are now, after masks and functions, if a transform of the stream asks for them. A source that cannot be looked
/// at now is no reason to stop: the log tells what tables were.
pub(crate) async fn known(loaded: &Loaded, name: &str) -> Result<Vec<Arc<Relation>>> {
    let stream = loaded.stream(name)?;
    if stream.transforms.iter().all(|rule| !matches!(rule.schema_change, SchemaChange::Null) && rule.into.is_none()) {
        return Ok(Vec::new());
    }
    let Ok(relations) = loaded.source(name)?.relations(&table_filter(stream)).await else { return Ok(Vec::new()) };
    let mut mask = loaded.mask(stream)?;
    let mut known = Vec::with_capacity(relations.len());
    for relation in relations.into_iter().map(Arc::new) {
        match &mut mask {
            // A table that cannot be masked is told of when it comes.
            Some(mask) => known.extend(mask.output(&relation).unwrap_or_default()),
            None => known.push(relation),
        }
    }
    let Some(mut udf) = loaded.udf(stream)? else { return Ok(known) };
    let mut made = Vec::with_capacity(known.len());
    for relation in known {
        made.extend(udf.output(&relation).unwrap_or_default().into_iter().next());
    }
    Ok(made)
}

/// The reference tables of a stream for a query, each read at most once, when it is wanted first.
pub(crate) struct Wanted {
    loaded: Arc<Loaded>,
    stream: String,
    /// Those of the stream that runs.
    running: Option<References>,
    read: BTreeMap<String, OnceCell<Result<Arc<logweir_sql::Reference>>>>,
}

/// What there is of the tables that were wanted.
pub(crate) struct Found {
    pub(crate) references: References,
    /// Why one is not among them.
    pub(crate) failed: Option<Error>,
}

impl Wanted {
    /// Those of the stream `name`; of the process that runs it, if it is this one.
    pub(crate) fn new(loaded: &Arc<Loaded>, name: &str, running: Option<References>) -> Result<Self> {
        let tables = loaded.stream(name)?.references.keys();
        let read = tables.map(|table| (table.0.clone(), OnceCell::new())).collect();
        Ok(Wanted { loaded: Arc::clone(loaded), stream: name.to_owned(), running, read })
    }

    /// Those that need nothing to be read.
    pub(crate) fn at_hand(&self) -> References {
        self.running.clone().unwrap_or_default()
    }

    /// Those whose name `is_wanted`.
    pub(crate) async fn find(&self, is_wanted: impl Fn(&str) -> bool) -> Found {
        if let Some(references) = &self.running {
            return Found { references: references.clone(), failed: None };
        }
        let (mut tables, mut failed) = (Vec::new(), None);
        for (name, cell) in self.read.iter().filter(|(name, _)| is_wanted(name)) {
            match cell.get_or_init(|| self.read(name)).await {
                Ok(table) => tables.push(Arc::clone(table)),
                Err(error) => failed = Some(error.clone()),
            }
        }
        Found { references: tables.into_iter().collect(), failed }
    }

    async fn read(&self, name: &str) -> Result<Arc<logweir_sql::Reference>> {
        let rows = async {
            let settings = &self.loaded.stream(&self.stream)?.references;
            let settings = settings.iter().find(|(known, _)| known.0 == name).map(|(_, reference)| reference);
            read(&self.loaded, settings.ok_or_else(|| Error::internal("a reference table is not in the configuration"))?).await
        };
        match rows.await {
            Ok(rows) => Ok(Arc::new(logweir_sql::Reference::new(name, rows))),
            Err(error) => Err(Error::config("a reference table that changes in flight are shown with cannot be read")
                .context("stream", &self.stream)
                .context("reference", name)
                .remedy("see that it can be read from here too; what is landed needs none of it")
                .source(error)),
        }
    }
}

async fn read(loaded: &Loaded, reference: &Reference) -> Result<RecordBatch> {
    match reference {
        Reference::Query { profile, query, .. } => {
            let limit = QueryLimit { bytes_max: reference.bytes_max(), rows_max: ROWS_MAX, timeout: QUERY_MAX };
            loaded.profile_source(profile)?.query(query, limit).await
        }
        Reference::Path { .. } | Reference::Bucket { .. } => {
            let (store, path) =
                loaded.reference_store(reference)?.ok_or_else(|| Error::internal("a reference table that is a file has no place"))?;
            read_reference_file(store, &path, reference.bytes_max()).await
        }
    }
}

/// Reads the tables of a stream again, each at its own interval, until the set is dropped. A table that cannot be read stays as it is.
pub(crate) fn refresh(loaded: &Arc<Loaded>, stream: &str, settings: &Stream, references: &References, tasks: &mut JoinSet<()>) {
    let intervals: BTreeMap<&str, (Duration, &Reference)> =
        settings.references.iter().filter_map(|(name, reference)| Some((name.0.as_str(), (reference.refresh()?, reference)))).collect();
    for table in references.iter() {
        let Some((interval, reference)) = intervals.get(table.name()) else { continue };
        let (loaded, stream, interval, reference, table) =
            (Arc::clone(loaded), stream.to_owned(), *interval, (*reference).clone(), Arc::clone(table));
        tasks.spawn(async move {
            loop {
                tokio::time::sleep(interval).await;
                let again = read(&loaded, &reference).await.and_then(|rows| table.replace(rows));
                if let Err(error) = again {
                    let reference = table.name();
                    tracing::warn!(stream, reference, error = %error.report(), "a reference table could not be read again; it stays as it is");
                }
            }
        });
    }
}
