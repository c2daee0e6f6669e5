//! What it costs to turn change batches into Parquet on disk, beside a bare `ArrowWriter` on the same batches.
//!
//! Rows have ten mixed columns, about 126 bytes as a binlog would hold them, and the metadata columns that every change
//! carries. Each case is run several times in turn, so that a busy machine hurts all alike; the median and the spread
//! are printed. `cargo run --profile bench-fast -p logweir-benches --bin encode -- [ROWS] [REPEATS]`

use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use arrow_schema::Schema;
use logweir_benches::orders::batches;
use logweir_core::{ChangeBatch, ConsumerName, LogPosition, MemoryPermit, Relation, Sink, WriterContext};
use logweir_files::{FilesOptions, FilesSink};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use url::Url;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The least that anybody could do: the same arrays, metadata in its inner form, one thread, no second phase.
fn bare(batches: &[(Arc<Relation>, RecordBatch, LogPosition)], folder: &Path, level: i32, table_only: bool) -> Result<()> {
    let compression = Compression::ZSTD(ZstdLevel::try_new(level)?);
    let properties = WriterProperties::builder().set_compression(compression).build();
    let width = if table_only { batches[0].0.columns().len() } else { batches[0].1.num_columns() };
    let schema = Arc::new(Schema::new(batches[0].1.schema().fields()[..width].to_vec()));
    let file = BufWriter::with_capacity(1 << 20, File::create(folder.join("bare.parquet"))?);
    let mut writer = ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties))?;
    for (_, records, _) in batches {
        writer.write(&RecordBatch::try_new(Arc::clone(&schema), records.columns()[..width].to_vec())?)?;
    }
    writer.close()?;
    Ok(())
}

async fn ours(batches: &[(Arc<Relation>, RecordBatch, LogPosition)], folder: &Path, level: i32) -> Result<()> {
    let url = Url::from_directory_path(folder).map_err(|()| "the folder is absolute")?;
    let sink = FilesSink::new(FilesOptions {
        compression_level: level,
        rotate_bytes: 1 << 34,
        rotate_interval: Duration::from_secs(600),
        ..FilesOptions::new(url, "shop")
    })?;
    let context = WriterContext {
        consumer: ConsumerName { stream: "shop".into(), destination: "lake".into() },
        run: "0a1b2c3d".into(),
        memory_bytes: 256 << 20,
    };
    let mut writer = sink.open(context).await?;
    writer.evolve(Arc::clone(&batches[0].0)).await?;
    for (relation, records, last) in batches {
        let batch = ChangeBatch {
            relation: Arc::clone(relation),
            records: records.clone(),
            unchanged: None,
            before: None,
            last: *last,
            memory: Arc::new(MemoryPermit::uncounted()),
        };
        writer.write(batch).await?;
    }
    let staged = writer.stage().await?;
    writer.commit(&staged).await?;
    writer.close().await?;
    Ok(())
}

fn cpu_seconds() -> Result<f64> {
    // Fields 14 and 15 of the process's line, in hundredths of a second on every Linux there is.
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|field| field.parse::<f64>().ok()).ok_or("a line of /proc/self/stat is odd");
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

fn parquet_bytes(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            bytes += parquet_bytes(&path)?;
        } else if path.extension().is_some_and(|extension| extension == "parquet") {
            bytes += path.metadata()?.len();
        }
    }
    Ok(bytes)
}

fn median(values: &mut [f64]) -> String {
    values.sort_by(f64::total_cmp);
    format!("{:.3} ({:.3}-{:.3})", values[values.len() / 2], values[0], values[values.len() - 1])
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let rows: usize = arguments.next().map_or(Ok(2_000_000), |text| text.parse())?;
    let repeats: usize = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let batches = batches(rows)?;
    let cases: [(&str, i32); 6] = [
        ("bare, table columns", 1),
        ("bare, all columns", 1),
        ("logweir", 1),
        ("bare, table columns", 3),
        ("bare, all columns", 3),
        ("logweir", 3),
    ];
    let mut measured = vec![(Vec::new(), Vec::new(), 0); cases.len()];
    for _ in 0..repeats {
        for ((case, level), (cpu, wall, bytes)) in cases.iter().zip(&mut measured) {
            let folder = tempfile::tempdir()?;
            let (started, before) = (Instant::now(), cpu_seconds()?);
            match *case {
                "logweir" => runtime.block_on(ours(&batches, folder.path(), *level))?,
                case => bare(&batches, folder.path(), *level, case == "bare, table columns")?,
            }
            cpu.push((cpu_seconds()? - before) / rows as f64 * 1e6);
            wall.push(rows as f64 / started.elapsed().as_secs_f64() / 1e6);
            *bytes = parquet_bytes(folder.path())?;
        }
    }
    println!("{rows} rows, {repeats} runs each, median (min-max)");
    println!("| case | zstd | CPU-s per million rows | million rows/s | bytes/row |\n|---|---|---|---|---|");
    for ((case, level), (cpu, wall, bytes)) in cases.iter().zip(&mut measured) {
        println!("| {case} | {level} | {} | {} | {:.1} |", median(cpu), median(wall), *bytes as f64 / rows as f64);
    }
    Ok(())
}
