//! The merge of files that are in the order of the log.
//!
//! Where every row of a file comes after those before it, and files lie behind each other, a row's place is its number: nobody needs to
//! read commit times and positions. [`MergeScan`] walks from the newest row group to the oldest. Of each it reads the key first
//! and decides which rows are the newest of their keys ([`NewestFirst`]); then it reads what was asked for of these rows only. Rows go on at once, and what is
//! held is the keys that were seen.
//!
//! What is in flight lies behind all files: its batches are decided first, like row groups that are in memory already.
//!
//! Row groups are decided one after the other, and read side by side: each partition takes the next one when it is done with its
//! last. Where memory does not hold the keys, the walk goes several times, each time for another share of the keys.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, BooleanBufferBuilder, RecordBatch, RecordBatchOptions};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Expr;
use datafusion::parquet::arrow::arrow_reader::RowSelection;
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{BaselineMetrics, Count, ExecutionPlanMetricsSet, Gauge, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use logweir_core::ChangeType;
use logweir_core::merge::{NewestFirst, Share};
use object_store::{ObjectMeta, ObjectStore};
use tokio::sync::Mutex;

use super::accumulate::{key_type, unpacked};
use super::files::{OpenFile, Reading, Rows};
use crate::query::wrap;

/// Rows that are decided at a time.
const DECIDE_ROWS: usize = 64 * 1024;
/// Partitions are not made for fewer rows.
const PARTITION_ROWS_MIN: u64 = 128 * 1024;
/// Bits for a range of keys may take this many bytes for each row there is, for a key takes more in a table.
const RANGE_BYTES_PER_ROW: u64 = 2;
/// Below which the room for bits does not matter.
const RANGE_BYTES_MIN: u64 = 64 * 1024;

/// A table whose files are in the order of the log.
#[derive(Debug)]
pub(crate) struct OrderedFiles {
    pub(crate) store: ObjectStoreUrl,
    pub(crate) versions: Vec<OrderedVersion>,
    /// The version of each file, and the file; newest first.
    pub(crate) files: Vec<(usize, ObjectMeta)>,
    /// What lies behind the files: batches with the schemas of their versions, newest first.
    pub(crate) in_flight: Vec<(usize, RecordBatch)>,
    pub(crate) rows: u64,
    /// The least and the greatest key, if that is known.
    pub(crate) keys: Option<(i128, i128)>,
}

/// Files with the same columns.
#[derive(Debug)]
pub(crate) struct OrderedVersion {
    pub(crate) schema: SchemaRef,
    /// The key as all versions have it.
    pub(crate) key: Vec<Expr>,
    /// The columns as all versions have them.
    pub(crate) columns: Vec<Expr>,
    /// Whether a row deletes its key.
    pub(crate) deleted: Expr,
    /// Which kind of change a row is, if there may be truncates.
    pub(crate) change_type: Option<Expr>,
}

/// What to read of the files of a version.
#[derive(Debug, Clone)]
struct Version {
    /// The key, whether it is deleted, and the kind of change if there may be truncates.
    decide: Reading,
    truncates: bool,
    /// What was asked for.
    gather: Reading,
}

/// Of the changes in files the newest of each key, unless it is a delete.
#[derive(Debug)]
pub(super) struct MergeScan {
    walk: Arc<Walk>,
    key: Vec<String>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
    started: std::sync::Mutex<Started>,
}

/// What is to be walked through.
#[derive(Debug)]
struct Walk {
    store: ObjectStoreUrl,
    versions: Vec<Version>,
    files: Vec<(usize, ObjectMeta)>,
    in_flight: Vec<(usize, RecordBatch)>,
    types: Vec<DataType>,
    /// The keys, if they are integers that lie close together.
    range: Option<std::ops::RangeInclusive<i128>>,
}

impl Walk {
    /// The numbers of all that is walked through: batches in flight first.
    fn all(&self) -> std::ops::Range<usize> {
        0..self.in_flight.len() + self.files.len()
    }
}

/// A walk that some partitions are on.
#[derive(Default)]
struct Started {
    partitions: Vec<usize>,
    decider: Option<Arc<Mutex<Decider>>>,
}

impl fmt::Debug for Started {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Started({:?})", self.partitions)
    }
}

impl MergeScan {
    /// The state of those of the columns that `wanted` names by number. `key` are the names of the key's columns, `types` their types.
    pub(super) fn try_new(
        state: &dyn Session,
        files: &OrderedFiles,
        key: Vec<String>,
        types: &[DataType],
        schema: SchemaRef,
        wanted: &[usize],
    ) -> Result<Self> {
        let version = |version: &OrderedVersion| -> Result<Version> {
            let decide: Vec<Expr> = version.key.iter().chain([&version.deleted]).chain(&version.change_type).cloned().collect();
            let gather: Vec<Expr> = wanted.iter().map(|index| version.columns[*index].clone()).collect();
            Ok(Version {
                decide: Reading::new(state, &version.schema, &decide)?,
                truncates: version.change_type.is_some(),
                gather: Reading::new(state, &version.schema, &gather)?,
            })
        };
        let types: Vec<DataType> = types.iter().map(key_type).collect();
        let range = files.keys.map(|(from, to)| from..=to).filter(|range| {
            let bytes = u64::try_from(range.end() - range.start()).map_or(u64::MAX, |length| length / 8);
            types.len() == 1 && types[0].is_integer() && bytes <= (files.rows * RANGE_BYTES_PER_ROW).max(RANGE_BYTES_MIN)
        });
        let versions = files.versions.iter().map(version).collect::<Result<_>>()?;
        let (store, in_flight) = (files.store.clone(), files.in_flight.clone());
        let walk = Walk { store, versions, files: files.files.clone(), in_flight, types, range };
        let partitions = files.rows.div_ceil(PARTITION_ROWS_MIN).clamp(1, state.config().target_partitions() as u64);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(partitions as usize),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(MergeScan {
            walk: Arc::new(walk),
            key,
            schema,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
            started: std::sync::Mutex::default(),
        })
    }

    /// The walk that a partition takes part in: the one under way, unless it was on that before.
    fn decider(&self, partition: usize, context: &Arc<TaskContext>) -> Result<Arc<Mutex<Decider>>> {
        let mut started = self.started.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if started.partitions.contains(&partition) {
            *started = Started::default();
        }
        started.partitions.push(partition);
        if let Some(decider) = &started.decider {
            return Ok(Arc::clone(decider));
        }
        let decider = Arc::new(Mutex::new(Decider::new(&self.walk, context, &self.metrics)?));
        started.decider = Some(Arc::clone(&decider));
        Ok(decider)
    }
}

impl DisplayAs for MergeScan {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let form = if self.walk.range.is_some() { "range" } else { "table" };
        let columns: Vec<&str> = self.schema.fields().iter().map(|field| field.name().as_str()).collect();
        write!(
            f,
            "MergeScan: key=[{}], sorted=log, keys={form}, files={}, in_flight={}, projection=[{}]",
            self.key.join(", "),
            self.walk.files.len(),
            self.walk.in_flight.iter().map(|(_, batch)| batch.num_rows()).sum::<usize>(),
            columns.join(", ")
        )
    }
}

impl ExecutionPlan for MergeScan {
    fn name(&self) -> &'static str {
        "MergeScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(&self, f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>) -> Result<TreeNodeRecursion> {
        for version in &self.walk.versions {
            for value in version.decide.values.iter().chain(&version.gather.values) {
                if f(value)? == TreeNodeRecursion::Stop {
                    return Ok(TreeNodeRecursion::Stop);
                }
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match children.as_slice() {
            [] => Ok(self),
            _ => Err(DataFusionError::Internal("a merge of files has no input".to_owned())),
        }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(
            children,
            ReplaceChildrenOptions::new(datafusion::physical_plan::execution_plan::ChildrenPropertiesMode::Recompute),
        )
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let decider = self.decider(partition, &context)?;
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let batch_rows = context.session_config().batch_size();
        // A task of its own: whoever holds the decider goes on, whether this partition is asked for rows or not.
        let decided = futures::stream::try_unfold(decider, |decider| async move {
            let next = Arc::clone(&decider);
            let next = SpawnedTask::spawn(async move { next.lock().await.next().await });
            let next = next.join().await.map_err(|error| DataFusionError::ExecutionJoin(Box::new(error)))??;
            Ok::<_, DataFusionError>(next.map(|decided| (decided, decider)))
        });
        let (walk, schema) = (Arc::clone(&self.walk), Arc::clone(&self.schema));
        let rows = decided
            .and_then(move |decided| {
                let rows = decided.rows(&walk.versions[decided.version].gather, Arc::clone(&schema), batch_rows);
                std::future::ready(rows)
            })
            .try_flatten()
            .inspect_ok(move |batch| {
                metrics.record_output(batch.num_rows());
            });
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// Rows that are decided together.
enum Piece {
    RowGroup(OpenFile, usize),
    InFlight(RecordBatch),
}

/// A piece of which it is decided which rows stand.
struct Decided {
    piece: Piece,
    version: usize,
    standing: BooleanBuffer,
}

impl Decided {
    /// What was asked for of the rows that stand.
    fn rows(&self, gather: &Reading, schema: SchemaRef, batch_rows: usize) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let count = self.standing.count_set_bits();
        let gather = gather.clone();
        let batch = move |columns: Vec<ArrayRef>, rows: usize| -> Result<RecordBatch> {
            let options = RecordBatchOptions::new().with_row_count(Some(rows));
            Ok(RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &options)?)
        };
        if gather.columns.is_empty() {
            let parts = (0..count).step_by(batch_rows.max(1)).map(move |from| {
                let rows = batch_rows.max(1).min(count - from);
                batch(gather.of_rows(rows)?, rows)
            });
            return Ok(futures::stream::iter(parts).boxed());
        }
        let (file, row_group) = match &self.piece {
            Piece::RowGroup(file, row_group) => (file, *row_group),
            Piece::InFlight(rows) => {
                let stands = BooleanArray::new(self.standing.clone(), None);
                let rows = filter_record_batch(&rows.project(&gather.columns)?, &stands)?;
                let rows = batch(gather.evaluate(&rows)?, count);
                return Ok(futures::stream::once(std::future::ready(rows)).boxed());
            }
        };
        let mut read = file.read(row_group, &gather, batch_rows);
        if count < self.standing.len() {
            read = read.with_row_selection(RowSelection::from_boolean_buffer(self.standing.clone()));
        }
        let rows: Rows = read.build()?;
        Ok(rows
            .map(move |rows| {
                let rows = rows?;
                batch(gather.evaluate(&rows)?, rows.num_rows())
            })
            .boxed())
    }
}

/// The walk from the newest piece to the oldest.
struct Decider {
    walk: Arc<Walk>,
    store: Arc<dyn ObjectStore>,
    seen: NewestFirst,
    memory: MemoryReservation,
    /// What was not begun yet on this way: batches in flight, and files behind them.
    left: std::ops::Range<usize>,
    /// The file under way, and how many of its row groups are to come.
    open: Option<(OpenFile, usize, usize)>,
    /// Pieces that were decided on this way.
    step: usize,
    /// How many of them were decided for these keys on an earlier way.
    known: usize,
    /// Keys for which the walk is still to be gone, and how many pieces were decided for them.
    shares: Vec<(Share, usize)>,
    input_rows: Count,
    walks: Count,
    peak: Gauge,
}

impl Decider {
    fn new(walk: &Arc<Walk>, context: &Arc<TaskContext>, metrics: &ExecutionPlanMetricsSet) -> Result<Self> {
        let memory = MemoryConsumer::new("keys of a merge").with_can_spill(true).register(context.memory_pool());
        let walks = MetricBuilder::new(metrics).global_counter("walks");
        walks.add(1);
        let peak = MetricBuilder::new(metrics).peak_memory_usage("peak_mem_used", 0);
        let mut seen = NewestFirst::new(&walk.types, Share::ALL).map_err(wrap)?;
        if let Some(range) = &walk.range
            && memory.try_resize(usize::try_from((range.end() - range.start()) / 8).unwrap_or(usize::MAX)).is_ok()
        {
            seen = NewestFirst::within(&walk.types[0], range).map_err(wrap)?;
        }
        Ok(Decider {
            walk: Arc::clone(walk),
            store: context.runtime_env().object_store(&walk.store)?,
            seen,
            memory,
            left: walk.all(),
            open: None,
            step: 0,
            known: 0,
            shares: Vec::new(),
            input_rows: MetricBuilder::new(metrics).global_counter("input_rows"),
            walks,
            peak,
        })
    }

    /// The next piece that has rows which stand.
    async fn next(&mut self) -> Result<Option<Decided>> {
        loop {
            let Some((version, piece)) = self.piece().await? else { return Ok(None) };
            let decide = self.walk.versions[version].decide.clone();
            let batches: Vec<RecordBatch> = match &piece {
                Piece::InFlight(batch) => vec![batch.project(&decide.columns)?],
                Piece::RowGroup(file, row_group) => {
                    let rows: Rows = file.read(*row_group, &decide, DECIDE_ROWS).build()?;
                    // All of the row group, for the last rows of it are looked at first. If this task ends here nothing is lost.
                    rows.try_collect().await?
                }
            };
            // From here on nothing waits.
            match &piece {
                Piece::InFlight(_) => self.left.start += 1,
                Piece::RowGroup(file, row_group) => self.open = (*row_group > 0).then(|| (file.clone(), version, *row_group)),
            }
            let standing = self.decide(version, &decide, &batches)?;
            self.step += 1;
            if self.step > self.known && standing.count_set_bits() > 0 {
                return Ok(Some(Decided { piece, version, standing }));
            }
        }
    }

    /// What is to be decided next, and its version.
    async fn piece(&mut self) -> Result<Option<(usize, Piece)>> {
        loop {
            if let Some((file, version, row_groups)) = &self.open {
                return Ok(Some((*version, Piece::RowGroup(file.clone(), row_groups - 1))));
            }
            if !self.left.is_empty() {
                let Some(number) = self.left.start.checked_sub(self.walk.in_flight.len()) else {
                    let (version, batch) = &self.walk.in_flight[self.left.start];
                    return Ok(Some((*version, Piece::InFlight(batch.clone()))));
                };
                let (version, meta) = self.walk.files[number].clone();
                let file = OpenFile::open(&self.store, &meta).await?;
                self.left.start += 1;
                self.open = Some(match file.row_groups() {
                    0 => continue,
                    row_groups => (file, version, row_groups),
                });
                continue;
            }
            let Some((share, known)) = self.shares.pop() else {
                self.memory.free();
                return Ok(None);
            };
            self.seen = NewestFirst::new(&self.walk.types, share).map_err(wrap)?;
            (self.left, self.step, self.known) = (self.walk.all(), 0, known);
            self.walks.add(1);
        }
    }

    /// Which of these rows stand: those of a piece, in order.
    fn decide(&mut self, version: usize, decide: &Reading, batches: &[RecordBatch]) -> Result<BooleanBuffer> {
        let rows = batches.iter().map(RecordBatch::num_rows).sum();
        while let Err(error) = self.memory.try_resize(self.seen.bytes_with(rows)) {
            let Some(others) = self.seen.halve() else { return Err(error) };
            self.shares.push((others, self.step.max(self.known)));
        }
        if self.walks.value() == 1 {
            self.input_rows.add(rows);
        }
        let mut standing: Vec<BooleanBuffer> = Vec::with_capacity(batches.len());
        let mut truncated = false;
        for batch in batches.iter().rev() {
            if truncated {
                standing.push(BooleanBuffer::new_unset(batch.num_rows()));
                continue;
            }
            let mut columns = decide.evaluate(batch)?;
            let mut from = 0;
            if self.walk.versions[version].truncates {
                let kinds = columns.pop().ok_or_else(|| DataFusionError::Internal("a merge lacks the kind of change".to_owned()))?;
                let kinds = cast(&kinds, &DataType::Utf8)?;
                let truncate = kinds.as_string::<i32>().iter().rposition(|kind| kind == Some(ChangeType::Truncate.name()));
                if let Some(row) = truncate {
                    // Nothing at or before it stands, in this file and in those before.
                    from = row + 1;
                    truncated = true;
                    (self.open, self.left.start) = (None, self.left.end);
                }
            }
            let deleted = columns.pop();
            let deleted = deleted.as_ref().and_then(|deleted| deleted.as_boolean_opt());
            let deleted = deleted.ok_or_else(|| DataFusionError::Internal("whether a change deletes is no boolean".to_owned()))?;
            let rows = batch.num_rows() - from;
            let deleted: BooleanArray = deleted.slice(from, rows);
            let deleted = (deleted.true_count() > 0).then(|| deleted.values());
            let key = columns.iter().map(|column| unpacked(&column.slice(from, rows))).collect::<Result<Vec<_>>>()?;
            let stands = self.seen.push(&key, deleted).map_err(wrap)?;
            standing.push(match from {
                0 => stands,
                _ => {
                    let mut bits = BooleanBufferBuilder::new(batch.num_rows());
                    bits.append_n(from, false);
                    bits.append_buffer(&stands);
                    bits.finish()
                }
            });
        }
        self.peak.set_max(self.memory.size().max(self.seen.bytes()));
        self.memory.resize(self.seen.bytes());
        let mut bits = BooleanBufferBuilder::new(rows);
        standing.iter().rev().for_each(|part| bits.append_buffer(part));
        Ok(bits.finish())
    }
}
