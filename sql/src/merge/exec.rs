//! The operator.

use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Schema};
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{Distribution, EquivalenceProperties, LexOrdering, Partitioning, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{BaselineMetrics, Count, ExecutionPlanMetricsSet, Gauge, MetricBuilder, MetricsSet, SpillMetrics};
use datafusion::physical_plan::spill::SpillManager;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, InputDistributionRequirements, PlanProperties,
    ReplaceChildrenOptions,
};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};

use super::accumulate::{Accumulator, key_type};
use super::sorted::Sorted;

/// Into how many files rows go that memory does not hold, each time.
const SPILL_FILES: usize = 16;
/// How often that may happen to the same rows: 16 to the fourth times what memory holds is more than any disk.
const SPILLS_MAX: usize = 4;

/// Where what decides stands in the input, by index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) key: Vec<usize>,
    pub(super) timestamp: usize,
    pub(super) sequence: usize,
    pub(super) deleted: usize,
}

/// Of the changes of its input the newest of each key, unless it is a delete.
///
/// The input is partitioned by the hash of the key. Where it comes sorted by the key, a row goes on as soon as the next key
/// begins, and nothing is held. Else the newest rows are held until the end; where memory does not hold them, changes go into files by
/// the hash of their keys, and each file is merged by itself.
#[derive(Debug, Clone)]
pub(super) struct MergeExec {
    input: Arc<dyn ExecutionPlan>,
    form: Form,
    /// The columns that go on, by index.
    output: Vec<usize>,
    sorted: bool,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl MergeExec {
    pub(super) fn try_new(input: Arc<dyn ExecutionPlan>, form: Form, output: Vec<usize>) -> Result<Self> {
        let schema = Arc::new(input.schema().project(&output)?);
        let key = key_columns(&input.schema(), &form);
        let ordering = LexOrdering::new(key.iter().map(|column| PhysicalSortExpr::new_default(Arc::clone(column))));
        let sorted = match ordering {
            Some(ordering) => input.equivalence_properties().ordering_satisfy(ordering)?,
            None => false,
        };
        let partitions = input.output_partitioning().partition_count();
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(partitions),
            if sorted { EmissionType::Incremental } else { EmissionType::Final },
            Boundedness::Bounded,
        );
        Ok(MergeExec { input, form, output, sorted, properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new() })
    }

    fn key_names(&self) -> String {
        let schema = self.input.schema();
        self.form.key.iter().map(|index| schema.field(*index).name().as_str()).collect::<Vec<_>>().join(", ")
    }
}

fn key_columns(schema: &Schema, form: &Form) -> Vec<Arc<dyn PhysicalExpr>> {
    form.key.iter().map(|index| Arc::new(Column::new(schema.field(*index).name(), *index)) as _).collect()
}

impl DisplayAs for MergeExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MergeExec: key=[{}], sorted={}", self.key_names(), self.sorted)
    }
}

impl ExecutionPlan for MergeExec {
    fn name(&self) -> &'static str {
        "MergeExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        self.input_distribution_requirements().into_per_child()
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        let by_key = Distribution::KeyPartitioned(key_columns(&self.input.schema(), &self.form));
        InputDistributionRequirements::new(vec![by_key])
    }

    fn apply_expressions(&self, f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>) -> Result<TreeNodeRecursion> {
        for column in key_columns(&self.input.schema(), &self.form) {
            if f(&column)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let [input] = <[_; 1]>::try_from(children).map_err(|_| DataFusionError::Internal("a merge has one input".to_owned()))?;
        Ok(Arc::new(MergeExec::try_new(input, self.form.clone(), self.output.clone())?))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(
            children,
            ReplaceChildrenOptions::new(datafusion::physical_plan::execution_plan::ChildrenPropertiesMode::Recompute),
        )
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, Arc::clone(&context))?;
        let schema = self.schema();
        let output = self.output.clone();
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let input_rows = MetricBuilder::new(&self.metrics).counter("input_rows", partition);
        let standing = if self.sorted { self.sorted(input, input_rows)? } else { self.unsorted(input, partition, &context, input_rows)? };
        let rows = standing.map(move |batch| {
            let batch = batch?.project(&output)?;
            metrics.record_output(batch.num_rows());
            Ok(batch)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

impl MergeExec {
    fn key_types(&self) -> Vec<DataType> {
        let schema = self.input.schema();
        self.form.key.iter().map(|index| key_type(schema.field(*index).data_type())).collect()
    }

    fn sorted(&self, input: SendableRecordBatchStream, input_rows: Count) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let sorted = Sorted::new(&self.form, &self.key_types())?;
        let state = (input, Some(sorted), std::collections::VecDeque::new());
        Ok(futures::stream::try_unfold(state, move |(mut input, mut sorted, mut decided)| {
            let input_rows = input_rows.clone();
            async move {
                loop {
                    if let Some(batch) = decided.pop_front() {
                        return Ok(Some((batch, (input, sorted, decided))));
                    }
                    let Some(mut under_way) = sorted.take() else { return Ok(None) };
                    match input.next().await.transpose()? {
                        Some(batch) => {
                            input_rows.add(batch.num_rows());
                            decided = under_way.push(&batch)?;
                            sorted = Some(under_way);
                        }
                        None => decided.extend(under_way.finish()),
                    }
                }
            }
        })
        .boxed())
    }

    fn unsorted(
        &self,
        input: SendableRecordBatchStream,
        partition: usize,
        context: &Arc<TaskContext>,
        input_rows: Count,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let memory = MemoryConsumer::new(format!("merge of partition {partition}")).with_can_spill(true).register(context.memory_pool());
        let spill = SpillManager::new(context.runtime_env(), SpillMetrics::new(&self.metrics, partition), self.input.schema());
        let peak = MetricBuilder::new(&self.metrics).peak_memory_usage("peak_mem_used", partition);
        let merge = Merge {
            form: self.form.clone(),
            types: self.key_types(),
            memory,
            peak,
            spill,
            batch_rows: context.session_config().batch_size(),
        };
        let input = input.inspect_ok(move |batch| {
            input_rows.add(batch.num_rows());
        });
        Ok(futures::stream::once(merge.run(input.boxed(), 0)).try_flatten().boxed())
    }
}

/// The merge of one partition, or of a part of it.
struct Merge {
    form: Form,
    types: Vec<DataType>,
    memory: MemoryReservation,
    peak: Gauge,
    spill: SpillManager,
    batch_rows: usize,
}

type Batches = BoxStream<'static, Result<RecordBatch>>;

impl Merge {
    /// The rows that stand. `depth` counts how often the rows were spilt already.
    fn run(self, mut input: Batches, depth: usize) -> BoxFuture<'static, Result<Batches>> {
        Box::pin(async move {
            let mut rows = Accumulator::new(&self.form, &self.types)?;
            while let Some(batch) = input.next().await.transpose()? {
                rows.push(batch)?;
                if self.memory.try_resize(rows.bytes()).is_ok() {
                    self.peak.set_max(rows.bytes());
                    continue;
                }
                rows.thin()?;
                // Room to grow, or every batch would thin again.
                let enough = self.memory.try_resize(rows.bytes() + rows.bytes() / 4).and_then(|()| self.memory.try_resize(rows.bytes()));
                if let Err(error) = enough {
                    if depth == SPILLS_MAX {
                        return Err(error);
                    }
                    return self.through_files(rows, input, depth).await;
                }
            }
            let standing = rows.into_standing()?;
            // Held until the last batch is handed on.
            let (memory, batch_rows) = (self.memory, self.batch_rows);
            let batches = standing.into_iter().flat_map(move |batch| sliced(batch, batch_rows)).map(move |batch| {
                let _ = &memory;
                Ok(batch)
            });
            Ok(futures::stream::iter(batches).boxed())
        })
    }

    /// What is there and what still comes goes into files by its key, and each file is merged by itself.
    async fn through_files(self, rows: Accumulator, mut input: Batches, depth: usize) -> Result<Batches> {
        let mut files = (0..SPILL_FILES).map(|_| self.spill.create_in_progress_file("changes to be merged")).collect::<Result<Vec<_>>>()?;
        // Another hash at each depth, and another than that which made the partitions.
        let hash = RandomState::with_seed(0x6c6f_6777_6569_7200 + depth as u64);
        for batch in rows.into_newest()? {
            for (file, part) in self.parts(&batch, &hash)? {
                files[file].append_batch(&part)?;
            }
        }
        self.memory.try_resize(0)?;
        while let Some(batch) = input.next().await.transpose()? {
            for (file, part) in self.parts(&batch, &hash)? {
                files[file].append_batch(&part)?;
            }
        }
        let mut finished = Vec::with_capacity(files.len());
        for mut file in files {
            finished.extend(file.finish()?);
        }
        let Merge { form, types, memory, peak, spill, batch_rows } = self;
        let merged = futures::stream::iter(finished).then(move |file| {
            let (memory, peak) = (memory.new_empty(), peak.clone());
            let part = Merge { form: form.clone(), types: types.clone(), memory, peak, spill: spill.clone(), batch_rows };
            let rows = spill.read_spill_as_stream(file, None);
            async move { part.run(rows?.boxed(), depth + 1).await }
        });
        Ok(merged.try_flatten().boxed())
    }

    /// The rows of a batch by the file that they belong into.
    fn parts(&self, batch: &RecordBatch, hash: &RandomState) -> Result<Vec<(usize, RecordBatch)>> {
        let key = super::accumulate::Decisive::of(batch, &self.form)?.key;
        let mut hashes = vec![0; batch.num_rows()];
        create_hashes(&key, hash, &mut hashes)?;
        let mut rows: Vec<Vec<u32>> = vec![Vec::new(); SPILL_FILES];
        for (row, hash) in hashes.into_iter().enumerate() {
            // Whatever bits the hash spreads well, all of them come into the highest.
            rows[(hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60) as usize].push(row as u32);
        }
        let parts = rows.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty());
        parts.map(|(file, rows)| Ok((file, take_record_batch(batch, &UInt32Array::from(rows))?))).collect()
    }
}

fn sliced(batch: RecordBatch, rows: usize) -> impl Iterator<Item = RecordBatch> {
    let rows = rows.max(1);
    (0..batch.num_rows().div_ceil(rows)).map(move |part| {
        let from = part * rows;
        batch.slice(from, rows.min(batch.num_rows() - from))
    })
}
