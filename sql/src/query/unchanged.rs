//! Fills in values that the source did not log because they did not change.
//!
//! Such a value is that of the row's previous version: the last one under the same key or, behind a change of the key, the one
//! under the old key. An update of a row that there is not changes nothing: it leaves out what nobody has. So it is when the row's
//! last change was set aside, or when the row is yet to be read. That is a walk along the log which no window function describes, so it is one pass over the sorted
//! changes that remembers, for every key there is, the values of the columns that are ever unchanged. Only tables that
//! have such columns come this way; what it remembers counts against the query's memory and is not spilled.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, ListArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, collect, execute_stream};
use datafusion::prelude::ident;
use futures::StreamExt;
use logweir_core::{ChangeType, Error, LogPosition};

use super::error::wrap;
use super::form::{CHANGE_TYPE, SEQUENCE, TIMESTAMP, UNCHANGED};
use super::plan::in_log_order;

/// Changes with every value filled in, `_metadata_unchanged` taken away.
#[derive(Debug)]
pub(super) struct Resolved {
    changes: LogicalPlan,
    key: Vec<String>,
    schema: SchemaRef,
}

impl Resolved {
    pub(super) fn new(changes: LogicalPlan, key: Vec<String>) -> Self {
        let fields = changes.schema().fields().iter().filter(|field| field.name() != UNCHANGED);
        let schema = Arc::new(Schema::new(fields.map(Arc::clone).collect::<Vec<_>>()));
        Resolved { changes, key, schema }
    }

    /// The names that stand in `_metadata_unchanged` anywhere: few, while the columns of a table may be many and wide.
    async fn affected(&self, state: &dyn Session) -> Result<Vec<usize>> {
        let names = LogicalPlanBuilder::from(self.changes.clone())
            .project([ident(UNCHANGED)])?
            .filter(ident(UNCHANGED).is_not_null())?
            .unnest_column(UNCHANGED)?
            .distinct()?
            .build()?;
        let names = collect(state.create_physical_plan(&names).await?, state.task_ctx()).await?;
        let mut affected = Vec::new();
        for batch in &names {
            let column = cast(batch.column(0), &DataType::Utf8)?;
            // A column that is no more needs no values.
            affected.extend(column.as_string::<i32>().iter().flatten().filter_map(|name| self.schema.index_of(name).ok()));
        }
        affected.sort_unstable();
        Ok(affected)
    }
}

#[async_trait]
impl TableProvider for Resolved {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let affected: Vec<String> = self.affected(state).await?.into_iter().map(|index| self.schema.field(index).name().clone()).collect();
        // Of the columns only those that are asked for, and what the walk goes by: others may be wide, and all that is read is sorted.
        let asked: Vec<&str> = match projection {
            Some(projection) => projection.iter().map(|index| self.schema.field(*index).name().as_str()).collect(),
            None => self.schema.fields().iter().map(|field| field.name().as_str()).collect(),
        };
        let needed = |name: &str| {
            [TIMESTAMP, SEQUENCE, CHANGE_TYPE, UNCHANGED].contains(&name) || asked.contains(&name) || self.key.iter().any(|key| key == name)
        };
        let columns = self.changes.schema().fields().iter().filter(|field| needed(field.name())).map(|field| ident(field.name()));
        let changes = LogicalPlanBuilder::from(self.changes.clone()).project(columns.collect::<Vec<_>>())?.build()?;
        let in_log_order = state.create_physical_plan(&in_log_order(changes)?).await?;
        let fields = self.schema.fields().iter().filter(|field| needed(field.name())).map(Arc::clone).collect::<Vec<_>>();
        let schema = Arc::new(Schema::new(fields));
        let projection = asked.iter().map(|name| schema.index_of(name)).collect::<Result<Vec<_>, _>>()?;
        let partition = ResolvedStream { in_log_order, key: self.key.clone(), affected, schema: Arc::clone(&schema) };
        let exec = StreamingTableExec::try_new(schema, vec![Arc::new(partition)], Some(&projection), [], false, limit)?;
        Ok(Arc::new(exec))
    }
}

#[derive(Debug)]
struct ResolvedStream {
    in_log_order: Arc<dyn ExecutionPlan>,
    key: Vec<String>,
    /// The columns that are unchanged somewhere, whether or not they are asked for.
    affected: Vec<String>,
    schema: SchemaRef,
}

impl PartitionStream for ResolvedStream {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let memory = MemoryConsumer::new("unchanged values").register(context.memory_pool());
        let changes = execute_stream(Arc::clone(&self.in_log_order), context);
        let walk = Walk::new(&self.in_log_order.schema(), &self.key, &self.affected, Arc::clone(&self.schema), memory);
        let batches = match (changes, walk) {
            (Ok(changes), Ok(mut walk)) => changes.map(move |batch| walk.resolve(&batch?)).boxed(),
            (Err(error), _) | (_, Err(error)) => futures::stream::once(std::future::ready(Err(error))).boxed(),
        };
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))
    }
}

/// The values of the affected columns in one version of a row, in their order, in Arrow's row form.
type Values = Arc<[Box<[u8]>]>;

/// The walk along the log.
struct Walk {
    key: Vec<usize>,
    key_rows: RowConverter,
    /// The names of all columns that are unchanged somewhere.
    names: Vec<String>,
    /// Those of them that are asked for.
    affected: Vec<Affected>,
    sequence: usize,
    change_type: usize,
    unchanged: usize,
    output: SchemaRef,
    /// The last version of each row there is.
    last: HashMap<Box<[u8]>, Values>,
    /// A row that has just lost its key, by its place in the log, and what it held.
    rekeyed: Option<([u8; RowPlace::LEN], Values)>,
    bytes: usize,
    memory: MemoryReservation,
}

/// A column that is unchanged somewhere.
struct Affected {
    name: String,
    index: usize,
    rows: RowConverter,
    null: Box<[u8]>,
}

/// What the two halves of a key change have in common: their position but for its last bit.
struct RowPlace;

impl RowPlace {
    const LEN: usize = LogPosition::LEN;

    fn of(sequence: &str) -> Result<[u8; Self::LEN]> {
        let position: LogPosition = sequence.parse().map_err(wrap)?;
        let mut bytes = *position.as_bytes();
        bytes[Self::LEN - 1] &= !1;
        Ok(bytes)
    }
}

impl Walk {
    fn new(input: &Schema, key: &[String], names: &[String], output: SchemaRef, memory: MemoryReservation) -> Result<Self> {
        let key: Vec<usize> = key.iter().map(|name| input.index_of(name)).collect::<Result<_, _>>()?;
        let key_fields = key.iter().map(|&i| SortField::new(input.field(i).data_type().clone())).collect();
        let affected = names
            .iter()
            .filter_map(|name| output.field_with_name(name).ok())
            .map(|field| {
                let rows = RowConverter::new(vec![SortField::new(field.data_type().clone())])?;
                let null = rows.convert_columns(&[arrow::array::new_null_array(field.data_type(), 1)])?.row(0).as_ref().into();
                Ok(Affected { name: field.name().clone(), index: input.index_of(field.name())?, rows, null })
            })
            .collect::<Result<_>>()?;
        Ok(Walk {
            key_rows: RowConverter::new(key_fields)?,
            names: names.to_vec(),
            key,
            affected,
            sequence: input.index_of(SEQUENCE)?,
            change_type: input.index_of(CHANGE_TYPE)?,
            unchanged: input.index_of(UNCHANGED)?,
            output,
            last: HashMap::new(),
            rekeyed: None,
            bytes: 0,
            memory,
        })
    }

    fn resolve(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        let pick = |columns: &[usize]| columns.iter().map(|&i| Arc::clone(batch.column(i))).collect::<Vec<ArrayRef>>();
        let keys = self.key_rows.convert_columns(&pick(&self.key))?;
        let given = self
            .affected
            .iter()
            .map(|column| column.rows.convert_columns(&[Arc::clone(batch.column(column.index))]))
            .collect::<Result<Vec<_>, _>>()?;
        let sequences = text(batch.column(self.sequence))?;
        let change_types = text(batch.column(self.change_type))?;
        let unchanged: &ListArray = batch.column(self.unchanged).as_list_opt().ok_or_else(|| unreadable(UNCHANGED))?;

        let mut resolved: Vec<Values> = Vec::with_capacity(batch.num_rows());
        let mut whole = Vec::with_capacity(batch.num_rows());
        for row in 0..batch.num_rows() {
            let change_type =
                ChangeType::ALL.into_iter().find(|change_type| change_type.name() == change_types.as_string::<i32>().value(row));
            let change_type = change_type.ok_or_else(|| unreadable(CHANGE_TYPE))?;
            let key = keys.row(row);
            let key: &[u8] = key.as_ref();
            let place = RowPlace::of(sequences.as_string::<i32>().value(row))?;

            let previous = match change_type {
                ChangeType::UpdateInsert => match self.rekeyed.take() {
                    Some((old_place, values)) if old_place == place => Some(values),
                    _ => self.last.get(key).map(Arc::clone),
                },
                ChangeType::Delete | ChangeType::UpdateDelete => self.last.get(key).map(Arc::clone),
                // A row begins: there is nothing before it.
                ChangeType::Insert | ChangeType::Read | ChangeType::Truncate => None,
            };
            let names = if unchanged.is_null(row) { None } else { Some(text(&unchanged.value(row))?) };
            let is_listed =
                |column: &str| names.as_ref().is_some_and(|names| names.as_string::<i32>().iter().any(|name| name == Some(column)));
            let listed = |column: &Affected| is_listed(&column.name);
            if change_type == ChangeType::UpdateInsert && previous.is_none() && self.names.iter().any(|name| is_listed(name)) {
                whole.push(false);
                continue;
            }
            whole.push(true);
            let values: Values = (self.affected.iter().enumerate())
                .map(|(i, column)| match (listed(column), &previous) {
                    (false, _) => given[i].row(row).as_ref().into(),
                    (true, Some(previous)) => previous[i].clone(),
                    (true, None) => column.null.clone(),
                })
                .collect();
            match change_type {
                ChangeType::Truncate => {
                    self.last.clear();
                    self.bytes = 0;
                }
                ChangeType::Delete | ChangeType::UpdateDelete => {
                    if let Some((key, old)) = self.last.remove_entry(key) {
                        self.bytes -= held_bytes(&key, &old);
                    }
                    // Where nothing is known of the row under its old key, its values may stand under the new one: rows that were read
                    // while the key changed stand in front of the change.
                    let known = previous.is_some() || names.is_none();
                    self.rekeyed = (change_type == ChangeType::UpdateDelete && known).then(|| (place, Arc::clone(&values)));
                }
                ChangeType::Insert | ChangeType::UpdateInsert | ChangeType::Read => {
                    self.bytes += held_bytes(key, &values);
                    if let Some(old) = self.last.insert(key.into(), Arc::clone(&values)) {
                        self.bytes -= held_bytes(key, &old);
                    }
                }
            }
            resolved.push(values);
        }
        self.memory.try_resize(self.bytes)?;
        if whole.contains(&false) {
            return self.rebuild(&filter_record_batch(batch, &BooleanArray::from(whole))?, &resolved);
        }
        self.rebuild(batch, &resolved)
    }

    /// The batch with the affected columns replaced.
    fn rebuild(&self, batch: &RecordBatch, resolved: &[Values]) -> Result<RecordBatch> {
        let columns = (self.output.fields().iter())
            .map(|field| match self.affected.iter().position(|column| column.name == *field.name()) {
                Some(i) => {
                    let rows = &self.affected[i].rows;
                    let parser = rows.parser();
                    let mut columns = rows.convert_rows(resolved.iter().map(|values| parser.parse(&values[i])))?;
                    columns.pop().ok_or_else(|| unreadable(field.name()))
                }
                None => Ok(Arc::clone(batch.column(batch.schema_ref().index_of(field.name())?))),
            })
            .collect::<Result<Vec<ArrayRef>>>()?;
        Ok(RecordBatch::try_new(Arc::clone(&self.output), columns)?)
    }
}

/// What an entry costs, with something for the map and the two allocations around it.
fn held_bytes(key: &[u8], values: &Values) -> usize {
    const ENTRY_BYTES: usize = 96;
    ENTRY_BYTES + key.len() + values.iter().map(|value| value.len() + size_of::<Box<[u8]>>()).sum::<usize>()
}

fn text(array: &ArrayRef) -> Result<ArrayRef> {
    Ok(cast(array, &DataType::Utf8)?)
}

fn unreadable(column: &str) -> DataFusionError {
    wrap(Error::corrupt("a metadata column of a landed file cannot be read").context("column", column))
}
