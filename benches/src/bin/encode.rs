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

use arrow_array::{
    ArrayRef, Date32Array, Decimal128Array, Float64Array, Int8Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, UInt32Array,
};
use arrow_schema::{Field, Schema};
use logweir_core::{
    ChangeBatch, ChangeType, Column, ConsumerName, LogPosition, MemoryPermit, MetadataBuilder, Relation, RelationName, Sink, SourcePlace,
    TimestampMicros, WriterContext,
};
use logweir_files::{FilesOptions, FilesSink};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use url::Url;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Rows of a batch, as the decoder hands them out.
const BATCH_ROWS: usize = 8192;

/// Rows of a transaction.
const TRANSACTION_ROWS: u64 = 10;

/// A small generator: the same rows in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

fn columns(rows: usize, first: u64, random: &mut Random) -> Result<Vec<(&'static str, ArrayRef)>> {
    const STATUS: [&str; 6] = ["new", "paid", "packed", "shipped", "returned", "closed"];
    let mut many = |end: u64| (0..rows).map(|_| random.below(end)).collect::<Vec<u64>>();
    let (customer, quantity, price, weight, status, day, flag, name, note) =
        (many(200_000), many(20), many(1_000_000), many(1 << 40), many(6), many(2000), many(2), many(50_000), many(1 << 50));
    let time = |i: usize| 1_790_000_000_000_000 + (first + i as u64) as i64 * 1_731;
    Ok(vec![
        ("id", Arc::new(Int64Array::from_iter_values((0..rows).map(|i| (first + i as u64) as i64)))),
        ("customer", Arc::new(UInt32Array::from_iter_values(customer.iter().map(|&v| v as u32)))),
        ("quantity", Arc::new(Int32Array::from_iter_values(quantity.iter().map(|&v| v as i32)))),
        ("price", Arc::new(Decimal128Array::from_iter_values(price.iter().map(|&v| i128::from(v))).with_precision_and_scale(12, 2)?)),
        ("weight", Arc::new(Float64Array::from_iter_values(weight.iter().map(|&v| v as f64 / 1024.0)))),
        ("status", Arc::new(StringArray::from_iter_values(status.iter().map(|&v| STATUS[v as usize])))),
        ("ordered", Arc::new(Date32Array::from_iter_values(day.iter().map(|&v| 18_000 + v as i32)))),
        ("gift", Arc::new(Int8Array::from_iter_values(flag.iter().map(|&v| v as i8)))),
        ("name", Arc::new(StringArray::from_iter_values(name.iter().map(|v| format!("customer number {v}"))))),
        ("note", Arc::new(StringArray::from_iter_values(note.iter().map(|v| format!("note {v:x} of the order"))))),
        ("changed", Arc::new(TimestampMicrosecondArray::from_iter_values((0..rows).map(time)))),
    ])
}

fn batches(rows: usize) -> Result<Vec<(Arc<Relation>, RecordBatch, LogPosition)>> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut metadata = MetadataBuilder::new("mysql-cdc-binlog");
    let mut batches = Vec::new();
    let mut relation = None;
    let mut done = 0;
    while done < rows {
        let count = BATCH_ROWS.min(rows - done);
        let table = columns(count, done as u64, &mut random)?;
        let relation = relation.get_or_insert_with(|| {
            let column = |(name, array): &(&str, ArrayRef)| Column {
                field: Arc::new(Field::new(*name, array.data_type().clone(), true)),
                source_type: array.data_type().to_string(),
                detail: serde_json::Value::Null,
            };
            let columns = table.iter().map(column).collect();
            Arc::new(Relation::new(RelationName::new("shop", "orders"), 1, LogPosition::MIN, columns, vec![0]))
        });
        for i in 0..count as u64 {
            let row = done as u64 + i;
            let (transaction, ordinal) = (row / TRANSACTION_ROWS, row % TRANSACTION_ROWS);
            let place = SourcePlace {
                log_position: 4 + transaction * 1500,
                log_file: Some(metadata.intern_file("mysql-bin.000001")),
                transaction: Some(metadata.intern_transaction(&format!("0-1-{transaction}"))),
            };
            let position = LogPosition::new(0, 1, place.log_position, ordinal + 1, true);
            let change = if row.is_multiple_of(3) { ChangeType::UpdateInsert } else { ChangeType::Insert };
            let time = TimestampMicros(1_790_000_000_000_000 + transaction as i64 * 900);
            metadata.push(time, position, change, TimestampMicros(1_790_000_100_000_000 + done as i64), place);
        }
        let last = metadata.last_position().ok_or("a batch has rows")?;
        let arrays = table.into_iter().map(|(_, array)| array).chain(metadata.finish()).collect();
        batches.push((Arc::clone(relation), RecordBatch::try_new(Arc::clone(relation.schema()), arrays)?, last));
        done += count;
    }
    Ok(batches)
}

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
