//! The current state of a table from its changes in files: what logweir's merge costs, and DataFusion's window plan over the same files.
//! `merge.py` beside this file makes the data, runs each in a process of its own, in turn with DuckDB, and prints the table.
//!
//! ```text
//! merge land SOURCE LAKE k|scattered|name   changes of SOURCE (Parquet, 12 columns) as logweir lands them, by that key
//! merge logweir LAKE SQL MIB                runs the query through logweir's tables, with so much memory
//! merge window LAKE SQL MIB                 runs the query in plain DataFusion, the files as table "changes"
//! ```
//! A run prints rows, the sum of the column `seq`, seconds, CPU-seconds and peak RSS as JSON. Rows are counted and thrown away.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::cast::AsArray;
use arrow_array::types::{Int8Type, Int64Type};
use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use arrow_schema::Field;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use futures::{Stream, StreamExt};
use logweir_benches::process::{cpu_seconds, peak_mib};
use logweir_core::{
    ChangeBatch, ChangeType, Column, ConsumerName, LogPosition, MemoryPermit, MetadataBuilder, Relation, RelationName, Sink, SourcePlace,
    TimestampMicros, WriterContext,
};
use logweir_files::{FilesOptions, FilesSink, open_store};
use logweir_sql::{LandedTable, QueryEngine};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use url::Url;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Spreads the keys over all there are; odd, so that none are brought together.
const SPREAD: i64 = 0x1e37_79b9_7f4a_7c15;
const ROTATE_BYTES: u64 = 128 << 20;

fn url(folder: &str) -> Result<Url> {
    let folder = std::path::absolute(folder)?;
    Url::from_directory_path(folder).map_err(|()| "the folder is absolute".into())
}

async fn land(source: &str, lake: &str, key: &str) -> Result<()> {
    std::fs::create_dir_all(lake)?;
    let sink = FilesSink::new(FilesOptions {
        rotate_bytes: ROTATE_BYTES,
        rotate_interval: Duration::from_secs(3600),
        ..FilesOptions::new(url(lake)?, "shop")
    })?;
    let context = WriterContext {
        consumer: ConsumerName { stream: "shop".into(), destination: "lake".into() },
        run: "0a1b2c3d".into(),
        memory_bytes: 256 << 20,
    };
    let mut writer = sink.open(context).await?;
    let mut files: Vec<_> = std::fs::read_dir(source)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    let mut metadata = MetadataBuilder::new("mysql-cdc-binlog");
    let mut relation: Option<Arc<Relation>> = None;
    let mut row = 0_u64;
    for file in files {
        for records in ParquetRecordBatchReaderBuilder::try_new(File::open(file)?)?.with_batch_size(8192).build()? {
            let records = records?;
            let relation = relation.get_or_insert_with(|| {
                let column = |field: &Arc<Field>| Column {
                    field: Arc::new(field.as_ref().clone().with_nullable(true)),
                    source_type: field.data_type().to_string(),
                    detail: serde_json::Value::Null,
                };
                let key = records.schema().index_of(if key == "scattered" { "k" } else { key }).unwrap_or(0);
                let columns = records.schema().fields().iter().map(column).collect();
                Arc::new(Relation::new(RelationName::new("shop", "changes"), 1, LogPosition::MIN, columns, vec![key]))
            });
            let kinds = records.column_by_name("op").ok_or("the changes have a column op")?.as_primitive::<Int8Type>().clone();
            for kind in kinds.values() {
                let change = match kind {
                    0 => ChangeType::Insert,
                    1 => ChangeType::UpdateInsert,
                    _ => ChangeType::Delete,
                };
                let (transaction, ordinal) = (row / 10, row % 10);
                let place = SourcePlace {
                    log_position: 4 + transaction * 1500,
                    log_file: Some(metadata.intern_file("mysql-bin.000001")),
                    transaction: Some(metadata.intern_transaction(&format!("0-1-{transaction}"))),
                };
                let position = LogPosition::new(0, 1, place.log_position, ordinal + 1, true);
                let time = TimestampMicros(1_790_000_000_000_000 + transaction as i64 * 900);
                metadata.push(time, position, change, time, place);
                row += 1;
            }
            let last = metadata.last_position().ok_or("a batch has rows")?;
            let mut columns: Vec<ArrayRef> = records.columns().to_vec();
            if key == "scattered" {
                let spread = columns[0].as_primitive::<Int64Type>().values().iter().map(|key| key.wrapping_mul(SPREAD));
                columns[0] = Arc::new(Int64Array::from_iter_values(spread));
            }
            columns.extend(metadata.finish());
            let records = RecordBatch::try_new(Arc::clone(relation.schema()), columns)?;
            let (relation, memory) = (Arc::clone(relation), Arc::new(MemoryPermit::uncounted()));
            writer.write(ChangeBatch { relation, records, unchanged: None, before: None, last, memory }).await?;
        }
    }
    let staged = writer.stage().await?;
    writer.commit(&staged).await?;
    writer.close().await?;
    Ok(())
}

/// Rows and the sum of their `seq`.
async fn count<E: Error + 'static>(rows: impl Stream<Item = std::result::Result<RecordBatch, E>>) -> Result<(usize, i64)> {
    let (mut count, mut check) = (0, 0_i64);
    let mut rows = std::pin::pin!(rows);
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        count += batch.num_rows();
        if let Some(seq) = batch.column_by_name("seq") {
            check = seq.as_primitive::<Int64Type>().values().iter().fold(check, |sum, value| sum.wrapping_add(*value));
        }
    }
    Ok((count, check))
}

async fn logweir(lake: &str, sql: &str, memory_bytes: usize) -> Result<(usize, i64)> {
    let store_url = url(lake)?;
    let (store, prefix) = open_store(&store_url, &BTreeMap::new())?;
    let table = LandedTable {
        tail: None,
        stream: "shop".into(),
        destination: "lake".into(),
        name: RelationName::new("shop", "changes"),
        store,
        store_url,
        prefix,
        relation: None,
        before_images: false,
    };
    let rows = QueryEngine::new(vec![table], memory_bytes)?.sql(sql).await?;
    if sql.starts_with("explain") {
        for batch in rows.collect().await? {
            eprintln!("{}", batch.column(1).as_string::<i32>().iter().flatten().collect::<Vec<_>>().join("\n"));
        }
        return Ok((0, 0));
    }
    count(rows.batches).await
}

async fn window(lake: &str, sql: &str, memory_bytes: usize) -> Result<(usize, i64)> {
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(FairSpillPool::new(memory_bytes))).build_arc()?;
    let context = SessionContext::new_with_config_rt(SessionConfig::new().with_target_partitions(2), runtime);
    context.register_parquet("changes", lake, ParquetReadOptions::default()).await?;
    count(context.sql(sql).await?.execute_stream().await?).await
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (started, before) = (Instant::now(), cpu_seconds()?);
    let mib = |text: &str| -> Result<usize> { Ok(text.parse::<usize>()? << 20) };
    let (rows, check) = match arguments.as_slice() {
        ["land", source, lake, key] => return runtime.block_on(land(source, lake, key)),
        ["logweir", lake, sql, memory] => runtime.block_on(logweir(lake, sql, mib(memory)?))?,
        ["window", lake, sql, memory] => runtime.block_on(window(lake, sql, mib(memory)?))?,
        _ => return Err("land, logweir or window; see the top of the file".into()),
    };
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds()? - before);
    println!("{}", serde_json::json!({ "rows": rows, "check": check, "seconds": seconds, "cpu": cpu, "rss_mib": peak_mib()? }));
    Ok(())
}
