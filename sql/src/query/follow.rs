//! Changes as they come: those that there are, in the order of the log, and then what the log gets, until somebody has enough.
//!
//! The columns are those that the table has when the query is planned. A change of another form ends it with an error, for nothing may be
//! left out unsaid.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult as _, TreeNode as _};
use datafusion::common::{DFSchema, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlan, TableType};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::StreamExt;
use logweir_core::{Error, LogPosition, RelationName};

use super::error::wrap;
use super::inventory::{FileGroup, Inventory, declared_key, unpacked_schema};
use super::plan::in_log_order;
use super::scan::readable;
use super::tail::{Tail, TailBatch};

/// The tables that a query follows: how many, and how many of them have shown what there was.
#[derive(Debug, Default)]
pub(super) struct Behind {
    tables: AtomicUsize,
    shown: AtomicUsize,
}

impl Behind {
    /// True if it follows a table.
    pub(super) fn follows(&self) -> bool {
        self.tables.load(Ordering::Acquire) > 0
    }

    /// True if it follows a table, and all of them have shown what there was.
    pub(super) fn has_caught_up(&self) -> bool {
        let shown = self.shown.load(Ordering::Acquire);
        shown > 0 && shown == self.tables.load(Ordering::Acquire)
    }
}

/// Hands on what passes a filter at once. A filter gathers rows until there are many, and here more may never come.
#[derive(Debug)]
pub(super) struct AtOnce;

impl PhysicalOptimizerRule for AtOnce {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        if plan.properties().boundedness.is_unbounded() {
            only_hands_on(&plan)?;
        }
        plan.transform_up(|node| match node.downcast_ref::<FilterExec>() {
            // A batch that is larger than half of this is not put together with others.
            Some(filter) if filter.properties().boundedness.is_unbounded() => Ok(Transformed::yes(Arc::new(filter.with_batch_size(1)?))),
            _ => Ok(Transformed::no(node)),
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "at_once"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Refuses what gathers rows, or works beside the changes that are followed: a join hands nothing on before it has many, and whoever waits for
/// changes takes no place of those that compute.
fn only_hands_on(plan: &Arc<dyn ExecutionPlan>) -> Result<()> {
    const HANDS_ON: [&str; 7] =
        ["FilterExec", "ProjectionExec", "UnionExec", "CoalescePartitionsExec", "CooperativeExec", "GlobalLimitExec", "LocalLimitExec"];
    if plan.is::<StreamingTableExec>() && plan.properties().boundedness.is_unbounded() {
        return Ok(());
    }
    if plan.children().is_empty() || !HANDS_ON.contains(&plan.name()) {
        let error = Error::config("changes that are followed go through conditions, expressions, UNION ALL and LIMIT only");
        return Err(wrap(error.remedy("look other things up in a query of their own, without logweir.follow")));
    }
    plan.children().into_iter().try_for_each(only_hands_on)
}

/// The changes of a table, without an end.
#[derive(Debug)]
pub(super) struct Followed {
    changes: LogicalPlan,
    schema: SchemaRef,
    table: RelationName,
    tail: Arc<dyn Tail>,
    after: LogPosition,
    forms: Vec<Form<Expr>>,
    behind: Arc<Behind>,
}

/// How rows of one form are told, and what the columns are in them.
#[derive(Debug, Clone)]
struct Form<V> {
    origin: Option<RelationName>,
    version: u32,
    schema: SchemaRef,
    key: Vec<String>,
    readable: SchemaRef,
    values: Vec<V>,
}

/// What comes behind what is there.
#[derive(Debug)]
struct Rest {
    table: RelationName,
    tail: Arc<dyn Tail>,
    after: LogPosition,
    forms: Vec<Form<Arc<dyn PhysicalExpr>>>,
}

impl Form<Expr> {
    fn plan(self, state: &dyn Session) -> Result<Form<Arc<dyn PhysicalExpr>>> {
        let Form { origin, version, schema, key, readable, values } = self;
        let of = DFSchema::try_from(Arc::clone(&readable))?;
        let values = values.into_iter().map(|value| state.create_physical_expr(value, &of)).collect::<Result<_>>()?;
        Ok(Form { origin, version, schema, key, readable, values })
    }
}

impl Followed {
    /// `changes` are those of the inventory up to `after`; `values` says what their columns are in each group.
    pub(super) fn new(
        changes: LogicalPlan,
        inventory: &Inventory,
        values: impl Fn(usize, &FileGroup) -> Result<Vec<Expr>>,
        (table, tail, after): (&RelationName, &Arc<dyn Tail>, LogPosition),
        behind: &Arc<Behind>,
    ) -> Result<Self> {
        let form = |(number, group): (usize, &FileGroup)| {
            let (origin, schema, key) = (group.origin.clone(), Arc::clone(&group.schema), group.key.clone());
            Ok(Form { origin, version: group.version, schema, key, readable: readable(group), values: values(number, group)? })
        };
        let forms = inventory.groups.iter().enumerate().map(form).collect::<Result<_>>()?;
        let schema = Arc::new(Schema::new(changes.schema().fields().iter().map(Arc::clone).collect::<Vec<_>>()));
        let (table, tail) = (table.clone(), Arc::clone(tail));
        Ok(Followed { changes, schema, table, tail, after, forms, behind: Arc::clone(behind) })
    }
}

#[async_trait]
impl TableProvider for Followed {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let there = state.create_physical_plan(&in_log_order(self.changes.clone())?).await?;
        self.behind.tables.fetch_add(1, Ordering::AcqRel);
        let forms = self.forms.iter().map(|form| form.clone().plan(state)).collect::<Result<_>>()?;
        let rest = Arc::new(Rest { table: self.table.clone(), tail: Arc::clone(&self.tail), after: self.after, forms });
        let behind = Arc::clone(&self.behind);
        let partition = FollowedStream { there, schema: Arc::clone(&self.schema), rest, behind };
        let exec = StreamingTableExec::try_new(Arc::clone(&self.schema), vec![Arc::new(partition)], projection, [], true, limit)?;
        Ok(Arc::new(exec))
    }
}

#[derive(Debug)]
struct FollowedStream {
    there: Arc<dyn ExecutionPlan>,
    schema: SchemaRef,
    rest: Arc<Rest>,
    behind: Arc<Behind>,
}

impl PartitionStream for FollowedStream {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let there = match execute_stream(Arc::clone(&self.there), context) {
            Ok(there) => there,
            Err(error) => {
                let failed = futures::stream::once(std::future::ready(Err(error)));
                return Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), failed));
            }
        };
        let (rest, schema, behind) = (Arc::clone(&self.rest), Arc::clone(&self.schema), Arc::clone(&self.behind));
        let following = futures::stream::once(async move {
            behind.shown.fetch_add(1, Ordering::AcqRel);
            let batches = rest.tail.follow(&rest.table, rest.after);
            batches.map(move |batch| rest.shown(batch.map_err(wrap)?, &schema))
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), there.chain(following.flatten())))
    }
}

impl Rest {
    fn shown(&self, batch: TailBatch, schema: &SchemaRef) -> Result<RecordBatch> {
        let TailBatch { relation, rows, .. } = batch;
        let (own, key) = (unpacked_schema(&rows.schema()), declared_key(&relation));
        let is_it = |form: &&Form<_>| {
            form.origin.as_ref() == relation.renamed_from() && form.version == relation.version() && form.schema == own && form.key == key
        };
        let Some(form) = self.forms.iter().find(is_it) else {
            let error = Error::schema("the table has other columns from here on").context("table", &self.table);
            return Err(wrap(error.remedy("ask again: what comes next is shown with the columns of then")));
        };
        let columns = rows.columns().iter().zip(form.readable.fields());
        let columns: Vec<ArrayRef> = columns.map(|(column, field)| Ok(cast(column, field.data_type())?)).collect::<Result<_>>()?;
        let rows = RecordBatch::try_new(Arc::clone(&form.readable), columns)?;
        let values = form.values.iter().map(|column| column.evaluate(&rows)?.into_array(rows.num_rows())).collect::<Result<Vec<_>>>();
        // Its words may quote a value.
        let values = values.map_err(|_| wrap(Error::data("a change cannot be shown").context("table", &self.table)))?;
        Ok(RecordBatch::try_new(Arc::clone(schema), values)?)
    }
}
