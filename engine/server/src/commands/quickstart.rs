//! `logweir quickstart`: the whole job with nothing installed.
//!
//! A binlog that a real server wrote is part of the binary. It is put into a directory beside an ordinary
//! configuration, which is then run, queried and left there to play with: nothing here is a demo's special case.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use logweir_core::{Error, Result};
use logweir_runtime::Shutdown;

use super::run::{Streams, heed_signals};
use super::sql;
use crate::config::{self, Loaded};
use crate::failure::{Failure, WORK_FAILED};
use crate::progress;
use crate::screen::Screen;
use crate::text::{bytes, count, print};

/// What MariaDB 10.11 wrote while `datasets/generate/shop.py` kept shop.
const BINLOG: &[u8] = include_bytes!("../../../../datasets/captures/shop/mysql-bin.000001.zst");

const BINLOG_FILE: &str = "binlog/mysql-bin.000001.zst";
const KEY_FILE: &str = "mask.key";
const CONFIG_FILE: &str = "logweir.yaml";
const STREAM: &str = "shop";

/// The queries that are shown, and what they show.
const QUERIES: [(&str, &str); 5] = [
    (
        "The customers as they are now. The email column never left the log in the clear; equal addresses have equal hashes.",
        "SELECT id, name, substr(email, 1, 16) || '…' AS email, phone, country, tier\nFROM shop.customers ORDER BY id LIMIT 5",
    ),
    (
        "What happened to the orders. A filter keeps cancelled ones out, so an order that is cancelled is deleted here.",
        "SELECT _metadata_change_type AS change, count(*) AS changes, min(_metadata_timestamp) AS first, max(_metadata_timestamp) AS last\n\
         FROM shop_changes.orders GROUP BY 1 ORDER BY 2 DESC",
    ),
    (
        "Revenue by month in euros, over the orders as they are now.",
        "SELECT to_char(placed_at, '%Y-%m') AS month, count(*) AS orders, sum(total) AS revenue\n\
         FROM shop.orders WHERE currency = 'EUR' AND status <> 'returned' GROUP BY 1 ORDER BY 1",
    ),
    (
        "A customer who asked to be deleted is gone from the current state, and still has a history.",
        "SELECT _metadata_timestamp AS at, _metadata_change_type AS change, id, country, newsletter\n\
         FROM shop_changes.customers\n\
         WHERE id = (SELECT max(id) FROM shop_changes.customers WHERE _metadata_change_type = 'DELETE')\n\
         ORDER BY _metadata_sequence",
    ),
    (
        "A column that was added on the way is there from then on; what was written before has none.",
        "SELECT tier, count(*) AS customers FROM shop.customers GROUP BY 1 ORDER BY 2 DESC",
    ),
];

/// Runs the command.
pub(crate) async fn run(directory: &Path, screen: Screen) -> Result<ExitCode, Failure> {
    let directory = prepare(directory)?;
    let config = directory.join(CONFIG_FILE);
    let config = config.to_string_lossy();
    let loaded = Arc::new(config::load(&config)?);
    loaded.stream(STREAM).map_err(|error| {
        error.remedy(format!("the quickstart runs the stream `{STREAM}` of {config}; put it back, or choose another --dir"))
    })?;

    print(&format!(
        "A recorded log of MariaDB 10.11 lies in {}/binlog, the configuration is {config}.\nRunning: logweir run {} --until-caught-up\n\n",
        directory.display(),
        quoted(&config),
    ))?;
    let began = Instant::now();
    let shutdown = Shutdown::new();
    tokio::spawn(heed_signals(shutdown.clone())?);
    let mut streams = Streams::start(&loaded, &[STREAM.to_owned()], true, &shutdown).await?;
    let end = Shutdown::new();
    let shown = tokio::spawn(progress::show(streams.progress.clone(), screen, end.clone()));
    let failed = streams.wait().await;
    end.request();
    let _ = shown.await;
    if let Some((_, error)) = failed.into_iter().next() {
        return Err(error.into());
    }
    if shutdown.is_requested() {
        eprintln!("stopped before the end of the log; the same command goes on from here");
        return Ok(ExitCode::from(WORK_FAILED));
    }
    let snapshot = streams.progress[0].snapshot();
    let landed: u64 = snapshot.consumers.iter().map(logweir_runtime::ConsumerProgress::rows_landed_total).sum();
    let (files, size) = parquet_files(&directory.join("lake"))?;
    let read = snapshot.rows_read_total();
    let done = if read == 0 {
        "Everything was landed by an earlier run".to_owned()
    } else {
        format!("Read {} changes in {:.1} seconds", count(read), began.elapsed().as_secs_f64())
    };
    print(&format!(
        "{done}: {} changes lie in {files} Parquet files, {}, below {}/lake.\n",
        count(landed),
        bytes(size),
        directory.display(),
    ))?;

    show_queries(&loaded).await?;
    print(&next_steps(&directory, &config))?;
    Ok(ExitCode::SUCCESS)
}

async fn show_queries(loaded: &Arc<Loaded>) -> Result<()> {
    let engine = sql::engine(loaded, &sql::Reach::everything(loaded)).await?;
    for (sentence, query) in QUERIES {
        let result = sql::pretty(engine.sql(query).await?).await?;
        print(&format!("\n{sentence}\n\n  {}\n\n{result}\n", query.replace('\n', "\n  ")))?;
    }
    Ok(())
}

/// Makes the directory, or takes the one that an earlier quickstart made as it is.
fn prepare(directory: &Path) -> Result<PathBuf, Failure> {
    let failed = |what: &'static str, path: &Path, error: std::io::Error| {
        let remedy = "give this user the right to write there, or choose another directory with --dir";
        Failure::Work(Error::config(what).context("path", path.display()).remedy(remedy).source(error))
    };
    fs::create_dir_all(directory).map_err(|error| failed("could not make the quickstart's directory", directory, error))?;
    let directory = directory.canonicalize().map_err(|error| failed("could not open the quickstart's directory", directory, error))?;
    let path = |name: &str| directory.join(name);
    let ours = path(CONFIG_FILE).exists() || path(KEY_FILE).exists() || path(BINLOG_FILE).exists();
    let empty =
        fs::read_dir(&directory).map_err(|error| failed("could not open the quickstart's directory", &directory, error))?.next().is_none();
    if !empty && !ours {
        return Err(Failure::Usage(format!("{} holds something else; choose an empty or new directory with --dir", directory.display())));
    }
    let write = |name: &str, mode: u32, content: &[u8]| {
        let path = path(name);
        // What is there stays: the key that earlier rows were masked with, and a configuration that somebody has edited.
        if path.exists() {
            return Ok(());
        }
        let mut temporary = path.clone().into_os_string();
        temporary.push(".new");
        let written = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary).and_then(|mut file| {
            file.write_all(content)?;
            fs::rename(&temporary, &path)
        });
        written.map_err(|error| failed("could not write a file of the quickstart", &path, error))
    };
    fs::create_dir_all(path("binlog")).map_err(|error| failed("could not make a directory", &path("binlog"), error))?;
    write(BINLOG_FILE, 0o644, BINLOG)?;
    let key: [u8; 32] = rand::random();
    write(KEY_FILE, 0o600, key.map(|byte| format!("{byte:02x}")).concat().as_bytes())?;
    let lake = url::Url::from_directory_path(path("lake"))
        .map_err(|()| Failure::Usage(format!("{} cannot be written as a URL", directory.display())))?;
    write(CONFIG_FILE, 0o644, configuration(lake.as_str()).as_bytes())?;
    Ok(directory)
}

fn configuration(lake: &str) -> String {
    // A path may hold what YAML would take for its own.
    let lake = serde_json::Value::from(lake.trim_end_matches('/'));
    format!(
        r#"# The quickstart of logweir: a recorded binlog, masked, as Parquet files.
# `logweir check` tells what is wrong with this file, `logweir schema config` prints its JSON Schema.

state: {{ dir: state }}                     # the checkpoint: what was landed, and where to go on
memory: 256MiB                            # one budget for everything that is buffered

profiles:
  recording:
    mysql_files: {{ path: "binlog/mysql-bin.*" }}
  # A live server instead: put its profile's name into `source` below.
  # shop-db:
  #   mysql: {{ host: 127.0.0.1, user: weir, password: {{ env: SHOP_PASSWORD }} }}
  lake:
    files: {{ url: {lake} }}

streams:
  {STREAM}:
    source: recording
    tables:
      include: ["shop.*"]
      exclude_columns: ["*.card_number"]  # never read out of the log
    mask:                                 # applied before anything is written anywhere
      - {{ columns: ["*.email"], with: hash, key: {{ file: {KEY_FILE} }} }}
      - {{ columns: ["*.phone"], with: partial }}
    transforms:                           # SQL on the way: the target holds the orders that pass
      - table: shop.orders
        sql: |
          SELECT *, CAST(placed_at AS DATE) AS placed_on
          FROM orders
          WHERE status <> 'cancelled'
    destinations:
      - profile: lake
        path: "{{schema}}/{{table}}/month={{yyyy}}-{{mm}}/"
        rotate: {{ interval: 30s, size: 128MiB }}
"#
    )
}

/// Number and bytes of the data files below a directory.
fn parquet_files(directory: &Path) -> Result<(usize, u64), Error> {
    let failed =
        |error: std::io::Error| Error::transient("could not list the files").context("directory", directory.display()).source(error);
    let (mut files, mut size) = (0, 0);
    let mut pending = vec![directory.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let metadata = entry.metadata().map_err(failed)?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(['_', '.']) {
                continue;
            }
            if metadata.is_dir() {
                pending.push(entry.path());
            } else if name.ends_with(".parquet") {
                files += 1;
                size += metadata.len();
            }
        }
    }
    Ok((files, size))
}

fn next_steps(directory: &Path, config: &str) -> String {
    let program = program();
    let config = quoted(config);
    let lake = directory.join("lake");
    format!(
        r#"
What to try next:

  # ask something else
  {program} sql {config} "SELECT country, count(*) FROM shop.customers GROUP BY 1 ORDER BY 2 DESC"
  {program} sql {config} "SHOW TABLES"
  {program} sql {config} --format json "SELECT * FROM shop_changes.payments" > payments.json

  # how far each table is
  {program} status {config}

  # run it again: what was landed is not landed twice
  {program} run {config} --until-caught-up

  # read the files with whatever reads Parquet
  duckdb -c "SELECT * FROM '{lake}/shop/orders/*/*.parquet' LIMIT 5"

  # follow your own server: edit the file (the comments say where), then
  {program} check {config}
  {program} run {config}
"#,
        lake = lake.display(),
    )
}

/// How this program is called, as far as it can be told: by its name if the shell finds it, else by its path.
fn program() -> String {
    const NAME: &str = "logweir";
    let Ok(path) = std::env::current_exe() else { return NAME.to_owned() };
    let found = std::env::var_os("PATH").is_some_and(|folders| {
        std::env::split_paths(&folders).any(|folder| folder.join(NAME).canonicalize().is_ok_and(|other| other == path))
    });
    if found { NAME.to_owned() } else { quoted(&path.to_string_lossy()) }
}

/// A path as a shell takes it.
fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '-' | '_' | '+' | ',' | '@' | '%' | '=');
    if path.chars().all(plain) { path.to_owned() } else { format!("'{}'", path.replace('\'', r"'\''")) }
}
