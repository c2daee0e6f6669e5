//! What stands after a merge is what stands after one change at a time, however the changes come.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::Int64Type;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::physical_expr::expressions::col;
use datafusion::physical_expr::{LexOrdering, Partitioning, PhysicalSortExpr};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{ExecutionPlan, collect, displayable};
use datafusion::prelude::{SessionConfig, SessionContext};
use logweir_core::LogPosition;

use super::exec::{Form, MergeExec};

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

#[derive(Clone)]
struct Change {
    key: Option<i64>,
    place: (i64, u64),
    deleted: bool,
    value: i64,
}

fn changes(count: usize, keys: u64, random: &mut Random) -> Vec<Change> {
    let change = |number: usize, random: &mut Random| Change {
        key: Some(random.below(keys) as i64).filter(|key| *key != 3),
        place: (number as i64 / 7, number as u64),
        deleted: random.below(5) == 0,
        value: number as i64,
    };
    (0..count).map(|number| change(number, random)).collect()
}

fn batch(changes: &[Change], text_key: bool) -> RecordBatch {
    let key: ArrayRef = match text_key {
        true => Arc::new(changes.iter().map(|change| change.key.map(|key| format!("key {key}"))).collect::<StringArray>()),
        false => Arc::new(changes.iter().map(|change| change.key).collect::<Int64Array>()),
    };
    let sequence = |change: &Change| LogPosition::new(0, 0, change.place.1, 1, true).to_string();
    let columns: [(&str, ArrayRef); 6] = [
        ("value", Arc::new(Int64Array::from_iter_values(changes.iter().map(|change| change.value)))),
        ("padding", Arc::new(StringArray::from_iter_values(changes.iter().map(|change| "x".repeat(change.value as usize % 300))))),
        (
            "timestamp",
            Arc::new(TimestampMicrosecondArray::from_iter_values(changes.iter().map(|change| change.place.0)).with_timezone("UTC")),
        ),
        ("deleted", Arc::new(changes.iter().map(|change| Some(change.deleted)).collect::<BooleanArray>())),
        ("key", key),
        ("sequence", Arc::new(StringArray::from_iter_values(changes.iter().map(sequence)))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()
}

fn expected(changes: &[Change]) -> Vec<i64> {
    let mut newest: BTreeMap<Option<i64>, &Change> = BTreeMap::new();
    for change in changes {
        let known = newest.entry(change.key).or_insert(change);
        if change.place >= known.place {
            *known = change;
        }
    }
    let mut values: Vec<i64> = newest.values().filter(|change| !change.deleted).map(|change| change.value).collect();
    values.sort_unstable();
    values
}

fn form() -> Form {
    Form { key: vec![4], timestamp: 2, sequence: 5, deleted: 3 }
}

/// The values of the rows that stand, and how many bytes were spilt.
async fn merged(input: Arc<dyn ExecutionPlan>, memory_bytes: usize, batch_rows: usize) -> (Vec<i64>, usize) {
    let pool = Arc::new(FairSpillPool::new(memory_bytes));
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::<FairSpillPool>::clone(&pool)).build_arc().unwrap();
    let context = SessionContext::new_with_config_rt(SessionConfig::new().with_batch_size(batch_rows), runtime);
    let merge = MergeExec::try_new(input, form(), vec![1, 0]).unwrap();
    let merge: Arc<dyn ExecutionPlan> = Arc::new(merge);
    let mut values = Vec::new();
    for batch in collect(Arc::clone(&merge), context.task_ctx()).await.unwrap() {
        assert!(batch.num_rows() <= batch_rows.max(8192));
        let (padding, value) = (batch.column(0).as_string::<i32>(), batch.column(1).as_primitive::<Int64Type>());
        for row in 0..batch.num_rows() {
            assert_eq!(padding.value(row).len() as i64, value.value(row) % 300, "values of one row stay together");
            values.push(value.value(row));
        }
    }
    values.sort_unstable();
    let metrics = merge.metrics().unwrap();
    assert_eq!(metrics.output_rows(), Some(values.len()));
    assert_eq!(datafusion::execution::memory_pool::MemoryPool::reserved(pool.as_ref()), 0, "memory is given back");
    (values, metrics.spilled_bytes().unwrap_or(0))
}

fn memory(partitions: &[Vec<RecordBatch>], text_key: bool) -> Arc<dyn ExecutionPlan> {
    MemorySourceConfig::try_new_exec(partitions, batch(&[], text_key).schema(), None).unwrap()
}

#[tokio::test]
async fn changes_in_any_order_and_any_partitions() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..60 {
        let keys = 1 + random.below(40);
        let all = changes(random.below(400) as usize, keys, &mut random);
        let mut shuffled = all.clone();
        for i in (1..shuffled.len()).rev() {
            shuffled.swap(i, random.below(i as u64 + 1) as usize);
        }
        for text_key in [false, true] {
            let batches: Vec<RecordBatch> = shuffled.chunks(1 + random.below(50) as usize).map(|rows| batch(rows, text_key)).collect();
            let input = memory(std::slice::from_ref(&batches), text_key);
            assert_eq!(merged(input, 64 << 20, 16).await.0, expected(&all), "round {round}");
            // By the hash of the key, as the planner makes it.
            let (left, right) = batches.split_at(batches.len() / 2);
            let input = memory(&[left.to_vec(), right.to_vec()], text_key);
            let key = col("key", &input.schema()).unwrap();
            let input = Arc::new(RepartitionExec::try_new(input, Partitioning::Hash(vec![key], 3)).unwrap());
            assert_eq!(merged(input, 64 << 20, 16).await.0, expected(&all), "round {round}");
        }
    }
}

#[tokio::test]
async fn changes_sorted_by_key_are_not_held() {
    let mut random = Random(0x1357_9bdf_2468_ace1);
    for round in 0..60 {
        let mut all = changes(random.below(400) as usize, 1 + random.below(60), &mut random);
        let expected = expected(&all);
        for text_key in [false, true] {
            // Within a key in any order.
            all.sort_by_key(|change| {
                let text = if text_key { change.key.map(|key| format!("key {key}")) } else { None };
                (change.key.is_some(), text, change.key, change.value % 5)
            });
            let batches: Vec<RecordBatch> = all.chunks(1 + random.below(9) as usize).map(|rows| batch(rows, text_key)).collect();
            let schema = batch(&[], text_key).schema();
            let ordering = LexOrdering::new([PhysicalSortExpr::new_default(col("key", &schema).unwrap())]).unwrap();
            let source = MemorySourceConfig::try_new(&[batches], schema, None).unwrap().try_with_sort_information(vec![ordering]).unwrap();
            let input: Arc<dyn ExecutionPlan> = datafusion::datasource::source::DataSourceExec::from_data_source(source);
            let merge = MergeExec::try_new(Arc::clone(&input), form(), vec![0]).unwrap();
            assert_eq!(displayable(&merge).one_line().to_string().trim(), "MergeExec: key=[key], sorted=true");
            // Nothing is held, so nothing is reserved.
            assert_eq!(merged(input, 1, 8192).await.0, expected, "round {round}");
        }
    }
}

#[tokio::test]
async fn what_memory_does_not_hold_goes_through_files() {
    let mut random = Random(0x0fed_cba9_8765_4321);
    let all = changes(60_000, 20_000, &mut random);
    let expected = expected(&all);
    for text_key in [false, true] {
        let batches: Vec<RecordBatch> = all.chunks(500).map(|rows| batch(rows, text_key)).collect();
        let (values, spilt) = merged(memory(std::slice::from_ref(&batches), text_key), 64 << 20, 1000).await;
        assert!(values == expected && spilt == 0);
        for memory_bytes in [4 << 20, 1 << 20, 600 << 10] {
            let (values, spilt) = merged(memory(std::slice::from_ref(&batches), text_key), memory_bytes, 1000).await;
            assert!(values == expected, "{memory_bytes} bytes");
            assert!(spilt > 1 << 20, "{spilt} of {memory_bytes} bytes");
        }
    }
    // Many changes of few keys need no files: what is old goes.
    let all = changes(200_000, 50, &mut random);
    let batches: Vec<RecordBatch> = all.chunks(2000).map(|rows| batch(rows, false)).collect();
    let (values, spilt) = merged(memory(&[batches], false), 2 << 20, 1000).await;
    assert!(values == self::expected(&all) && spilt == 0);
}
