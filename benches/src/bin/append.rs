//! What it costs to append changes to the change log on disk, beside `dd` of the very bytes that it writes.
//!
//! Rows are those of `encode`. The log is synced once at the end, as `dd` is (`conv=fdatasync`); each case is run several times in turn, so that a
//! busy machine hurts all alike. `cargo run --profile bench-fast -p logweir-benches --bin append -- [ROWS] [REPEATS] [DIRECTORY]`

use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use logweir_benches::orders::batches;
use logweir_benches::process::cpu_seconds;
use logweir_core::{ChangeBatch, LogMark, LogPosition, MemoryPermit, SourceOffset, TimestampMicros};
use logweir_runtime::changelog::Entry;
use logweir_runtime::changelog::segment::{Compression, SegmentLog, SegmentOptions};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Batches between two marks.
const BATCHES_TO_A_MARK: usize = 8;

fn mark(position: LogPosition) -> Entry {
    Entry::Mark(LogMark { position, offset: SourceOffset(serde_json::Value::Null), commit_time: None })
}

fn entries(rows: usize) -> Result<(Vec<Entry>, usize)> {
    let mut entries = vec![mark(LogPosition::MIN)];
    let mut bytes = 0;
    for (number, (relation, records, last)) in batches(rows)?.into_iter().enumerate() {
        if number == 0 {
            entries.push(Entry::Relation(Arc::clone(&relation)));
        }
        let memory = Arc::new(MemoryPermit::uncounted());
        let batch = ChangeBatch { relation, records, unchanged: None, before: None, last, memory };
        bytes += batch.bytes();
        entries.push(Entry::Changes(batch));
        if number % BATCHES_TO_A_MARK == BATCHES_TO_A_MARK - 1 {
            entries.push(mark(last));
        }
    }
    Ok((entries, bytes))
}

fn append(entries: &[Entry], directory: &Path, compression: Compression) -> Result<()> {
    let options = SegmentOptions {
        directory: directory.to_owned(),
        store: None,
        cache_bytes: u64::MAX,
        compression,
        retain_age: Duration::from_secs(3600),
        retain_bytes: 1 << 40,
    };
    let mut log = SegmentLog::open(options, None)?;
    for entry in entries {
        log.append(entry, TimestampMicros(0))?;
    }
    log.sync()?;
    Ok(())
}

fn segments(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = std::fs::read_dir(directory)?.map(|file| Ok(file?.path())).collect::<Result<Vec<_>>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "changes"));
    files.sort();
    Ok(files)
}

/// Copies the bytes of the segments, which the page cache holds, with `dd`.
fn dd(directory: &Path) -> Result<f64> {
    let (whole, copy) = (directory.join("whole"), directory.join("copy"));
    let mut file = File::create(&whole)?;
    for segment in segments(directory)? {
        std::io::copy(&mut File::open(segment)?, &mut file)?;
    }
    file.sync_all()?;
    let (source, target) = (format!("if={}", whole.display()), format!("of={}", copy.display()));
    let began = Instant::now();
    let status = Command::new("dd").args(["bs=1M", "conv=fdatasync", "status=none", &source, &target]).status()?;
    if status.success() { Ok(began.elapsed().as_secs_f64()) } else { Err("dd failed".into()) }
}

fn median(values: &mut [f64]) -> String {
    values.sort_by(f64::total_cmp);
    format!("{:.2} ({:.2}-{:.2})", values[values.len() / 2], values[0], values[values.len() - 1])
}

#[derive(Default)]
struct Measured {
    cpu: Vec<f64>,
    rate: Vec<f64>,
    dd: Vec<f64>,
    ratio: Vec<f64>,
    bytes: u64,
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let rows: usize = arguments.next().map_or(Ok(4_000_000), |text| text.parse())?;
    let repeats: usize = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let place = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let (entries, memory) = entries(rows)?;
    let cases = [("none", Compression::None), ("lz4", Compression::Lz4), ("zstd", Compression::Zstd)];
    let mut measured = cases.map(|_| Measured::default());
    for _ in 0..repeats {
        for ((_, compression), measured) in cases.iter().zip(&mut measured) {
            let directory = tempfile::tempdir_in(&place)?;
            let (began, before) = (Instant::now(), cpu_seconds()?);
            append(&entries, directory.path(), *compression)?;
            let (seconds, cpu) = (began.elapsed().as_secs_f64(), cpu_seconds()? - before);
            measured.bytes = segments(directory.path())?.iter().map(|path| Ok(path.metadata()?.len())).sum::<Result<u64>>()?;
            let dd = dd(directory.path())?;
            measured.cpu.push(cpu / memory as f64 * 1e9);
            measured.rate.push(measured.bytes as f64 / seconds / 1e6);
            measured.dd.push(measured.bytes as f64 / dd / 1e6);
            measured.ratio.push(dd / seconds);
        }
    }
    println!("{rows} rows, {:.2} GB in memory, {repeats} runs each, median (min-max)", memory as f64 / 1e9);
    println!("| compression | GB written | CPU-s per GB in memory | MB/s | `dd`, MB/s | of `dd`'s rate |\n|---|---|---|---|---|---|");
    for ((name, _), measured) in cases.iter().zip(&mut measured) {
        let Measured { cpu, rate, dd, ratio, bytes } = measured;
        let bytes = *bytes as f64 / 1e9;
        println!("| {name} | {bytes:.2} | {} | {} | {} | {} |", median(cpu), median(rate), median(dd), median(ratio));
    }
    Ok(())
}
