//! Lands a log as Parquet on disk, end to end: source, decoder, change log, writer, checkpoints.
//!
//! It is the pipeline of `logweir run --until-caught-up` without the parts that a stream without rules does not use
//! (configuration, SQL), so that it builds in minutes with optimisation. It makes the same calls that the binary makes.
//!
//! ```text
//! land files DIRECTORY [REPEATS]                 recorded binlog files, all that DIRECTORY holds
//! land mysql PORT USER FILE [REPEATS]            a live server on 127.0.0.1 from the beginning of FILE; LAND_PASSWORD
//! land postgres NAME=VALUE…                      a live server from where its slot stands; see `postgres` in the library
//! ```
//!
//! Prints a JSON line per run: rows, seconds, CPU-seconds of the process, peak memory.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use logweir_benches::postgres::PostgresArguments;
use logweir_benches::process::{cpu_seconds, peak_mib};
use logweir_core::{Source, SystemClock, TableFilter};
use logweir_files::{FilesOptions, FilesSink, open_store};
use logweir_mysql::files::BinlogFilesSource;
use logweir_mysql::options::{BinlogFilesOptions, MysqlOptions, Start};
use logweir_mysql::source::MysqlSource;
use logweir_postgres::source::PostgresSource;
use logweir_runtime::state::LocalStateStore;
use logweir_runtime::{Destination, Shutdown, StreamProgress, StreamSpec, no_transforms, run_stream};
use url::Url;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The binary's default is four times this; the drain beside peers runs with this, too.
const MEMORY_BYTES: usize = 256 << 20;

fn main() -> Result<()> {
    // Connections of mysql_async need it, encrypted or not.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (source, memory_bytes, rest): (Arc<dyn Source>, _, _) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["files", directory, ..] => (recorded(Path::new(directory))?, MEMORY_BYTES, 2),
        ["mysql", port, user, file, ..] => (live(port.parse()?, user, file), MEMORY_BYTES, 4),
        ["postgres", ref words @ ..] => {
            let PostgresArguments { options, memory_bytes } = PostgresArguments::parse(words.iter().copied())?;
            // Once: what was landed the slot does not give again.
            (Arc::new(PostgresSource::new(options)), memory_bytes, arguments.len())
        }
        _ => return Err("usage: land files DIRECTORY [REPEATS] | land mysql PORT USER FILE [REPEATS] | land postgres NAME=VALUE…".into()),
    };
    let repeats: usize = arguments.get(rest).map_or(Ok(1), |text| text.parse())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for _ in 0..repeats {
        let (cpu, clock) = (cpu_seconds()?, Instant::now());
        let rows = runtime.block_on(land(Arc::clone(&source), memory_bytes))?;
        println!(
            "{{\"rows\": {rows}, \"seconds\": {:.3}, \"cpu_seconds\": {:.3}, \"peak_mib\": {}}}",
            clock.elapsed().as_secs_f64(),
            cpu_seconds()? - cpu,
            peak_mib()?
        );
    }
    Ok(())
}

fn recorded(directory: &Path) -> Result<Arc<dyn Source>> {
    let url = Url::from_directory_path(directory.canonicalize()?).map_err(|()| "the directory has no URL")?;
    let (store, path) = open_store(&url, &Default::default())?;
    let options = BinlogFilesOptions { store, pattern: format!("{path}/*"), start: Start::Earliest };
    Ok(Arc::new(BinlogFilesSource::new(options)))
}

fn live(port: u16, user: &str, file: &str) -> Arc<dyn Source> {
    let mut options = MysqlOptions::new("127.0.0.1", user);
    options.port = port;
    options.password = std::env::var("LAND_PASSWORD").ok().map(Into::into);
    options.start = Start::Position { file: file.to_owned(), position: 4 };
    Arc::new(MysqlSource::new(options))
}

/// One run into a directory of its own, gone afterwards.
async fn land(source: Arc<dyn Source>, memory_bytes: usize) -> Result<u64> {
    let directory = tempfile::tempdir()?;
    let lake = Url::from_directory_path(directory.path().join("lake")).map_err(|()| "the directory has no URL")?;
    let sink = FilesSink::new(FilesOptions::new(lake, "land"))?;
    let spec = StreamSpec {
        rules: String::new(),
        name: "land".to_owned(),
        source,
        tables: TableFilter::all(),
        before_images: Vec::new(),
        keep_before_images: Vec::new(),
        transforms: no_transforms(),
        destinations: vec![Destination { name: "lake".to_owned(), sink: Arc::new(sink), transforms: no_transforms() }],
        change_log: None,
        state: Box::new(LocalStateStore::new(directory.path().join("state"), "land")?),
        memory_bytes,
        connect_timeout: Duration::from_secs(10),
        until_caught_up: true,
        seed: 1,
    };
    let progress = Arc::new(StreamProgress::new("land"));
    run_stream(spec, Arc::new(SystemClock), Shutdown::new(), Arc::clone(&progress)).await?;
    Ok(progress.snapshot().consumers.iter().flat_map(|consumer| consumer.rows_landed.values()).sum())
}
