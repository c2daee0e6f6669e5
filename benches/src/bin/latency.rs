//! From a commit on a PostgreSQL server to a batch that a consumer can read.
//!
//! ```text
//! latency NAME=VALUE…          see `postgres` in the library for the words
//! ```
//!
//! Reads the log while somebody else writes, and ends when nothing has come for two seconds. A change's latency is the time
//! at which its batch was handed out, less the time that its commit record has: of one clock, if the server is on this machine.
//! What was committed in the first second that has changes is left out. Prints a JSON line.

use std::error::Error;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use logweir_benches::postgres::PostgresArguments;
use logweir_benches::process::{cpu_seconds, peak_mib};
use logweir_core::{Clock as _, LogEvent, LogStart, MemoryBudget, Source as _, SystemClock, TableFilter};
use logweir_postgres::source::PostgresSource;
use tokio::time::{Instant, timeout};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Silence of this length after the first change is the end.
const SILENCE: Duration = Duration::from_secs(2);

/// The first change may take this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was committed this long after the first change is counted.
const WARM_UP_MICROS: i64 = 1_000_000;

/// The server is told this often how far it was read, as a stream's checkpoints would.
const CHECKPOINT: Duration = Duration::from_secs(1);

fn main() -> Result<()> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let arguments = PostgresArguments::parse(words.iter().map(String::as_str))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    // Spawned: a stream reads its log on a worker too.
    let read = runtime.block_on(async { tokio::spawn(async move { read(arguments).await.map_err(|error| error.to_string()) }).await })?;
    let Read { mut micros, batches } = read?;
    micros.sort_unstable();
    let at = |share: f64| micros.get((micros.len() as f64 * share) as usize).or(micros.last()).map_or(0.0, |micros| *micros as f64 / 1e3);
    println!(
        "{{\"rows\": {}, \"batches\": {batches}, \"p50_ms\": {:.3}, \"p90_ms\": {:.3}, \"p99_ms\": {:.3}, \"p999_ms\": {:.3}, \
         \"max_ms\": {:.3}, \"cpu_seconds\": {:.3}, \"peak_mib\": {}}}",
        micros.len(),
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        at(1.0),
        cpu_seconds()?,
        peak_mib()?
    );
    Ok(())
}

struct Read {
    /// A latency per change.
    micros: Vec<i64>,
    batches: usize,
}

async fn read(arguments: PostgresArguments) -> Result<Read> {
    let memory = MemoryBudget::new(arguments.memory_bytes);
    let source = PostgresSource::new(arguments.options);
    let start = LogStart { resume: None, relations: Vec::new(), tables: TableFilter::all(), before_images: Vec::new(), memory };
    let mut log = source.open_log(start).await?;
    let mut read = Read { micros: Vec::new(), batches: 0 };
    let (mut warm_at, mut last_change, mut checkpoint_at) = (None, Instant::now() + PATIENCE - SILENCE, Instant::now());
    eprintln!("reading");
    while let Some(patience) = (last_change + SILENCE).checked_duration_since(Instant::now()) {
        match timeout(patience, log.next()).await {
            Err(_) | Ok(Ok(None)) => break,
            Ok(Err(error)) => return Err(error.report().into()),
            Ok(Ok(Some(LogEvent::Changes(batch)))) => {
                let now = SystemClock.now().0;
                last_change = Instant::now();
                let times = batch.records.column_by_name("_metadata_timestamp").ok_or("no commit times")?;
                let times = times.as_primitive::<TimestampMicrosecondType>().values();
                let warm_at = *warm_at.get_or_insert(times.first().copied().unwrap_or(now) + WARM_UP_MICROS);
                let before = read.micros.len();
                read.micros.extend(times.iter().filter(|time| **time >= warm_at).map(|time| now - time));
                read.batches += usize::from(read.micros.len() > before);
            }
            Ok(Ok(Some(LogEvent::Mark(mark)))) if checkpoint_at.elapsed() >= CHECKPOINT => {
                log.acknowledge(&mark).await?;
                checkpoint_at = Instant::now();
            }
            Ok(Ok(Some(_))) => {}
        }
    }
    Ok(read)
}
