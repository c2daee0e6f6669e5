//! The changes behind the last truncate.
//!
//! Where that is is found before the changes are looked at: so a filter on the place reaches the files, and nothing needs to be held for a join.

use std::sync::Arc;

use arrow::array::{Array as _, AsArray as _};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema, SchemaRef, TimestampMicrosecondType};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::functions_aggregate::expr_fn::max;
use datafusion::logical_expr::expr_rewriter::unnormalize_col;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableProviderFilterPushDown, TableType, lit};
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::ident;
use logweir_core::ChangeType;

use super::form::{CHANGE_TYPE, SEQUENCE, TIMESTAMP};

/// Changes without those at and before the last truncate.
#[derive(Debug)]
pub(super) struct BehindTruncate {
    changes: LogicalPlan,
    /// Where truncates may be: their place and kind.
    places: LogicalPlan,
    schema: SchemaRef,
}

impl BehindTruncate {
    /// `places` has the place and the kind of every change that may be a truncate.
    pub(super) fn new(changes: LogicalPlan, places: LogicalPlan) -> Self {
        let schema = Arc::new(Schema::new(changes.schema().fields().iter().map(Arc::clone).collect::<Vec<_>>()));
        BehindTruncate { changes, places, schema }
    }

    /// The place of the last truncate; `None` if there is none.
    async fn last(&self, state: &dyn Session) -> Result<Option<(i64, String)>> {
        // The two maxima are of one row: both rise along the log.
        let last = LogicalPlanBuilder::from(self.places.clone())
            .filter(ident(CHANGE_TYPE).eq(lit(ChangeType::Truncate.name())))?
            .aggregate(Vec::<Expr>::new(), [max(ident(TIMESTAMP)), max(ident(SEQUENCE))])?
            .build()?;
        let batches = collect(state.create_physical_plan(&last).await?, state.task_ctx()).await?;
        let Some(found) = batches.iter().find(|batch| batch.num_rows() > 0) else { return Ok(None) };
        let (times, sequences) = (found.column(0), cast(found.column(1), &DataType::Utf8)?);
        if times.is_null(0) {
            return Ok(None);
        }
        let times = times.as_primitive_opt::<TimestampMicrosecondType>();
        let time = times.ok_or_else(|| DataFusionError::Internal("the time of a truncate is no timestamp".to_owned()))?.value(0);
        Ok(Some((time, sequences.as_string::<i32>().value(0).to_owned())))
    }
}

#[async_trait]
impl TableProvider for BehindTruncate {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(filters.iter().map(|_| TableProviderFilterPushDown::Exact).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut changes = LogicalPlanBuilder::from(self.changes.clone());
        if let Some((time, sequence)) = self.last(state).await? {
            let time = || lit(ScalarValue::TimestampMicrosecond(Some(time), Some("UTC".into())));
            let behind = ident(TIMESTAMP).gt(time()).or(ident(TIMESTAMP).eq(time()).and(ident(SEQUENCE).gt(lit(sequence))));
            changes = changes.filter(behind)?;
        }
        for filter in filters {
            // Columns are named as the plan above has them: under the name of its scan.
            changes = changes.filter(unnormalize_col(filter.clone()))?;
        }
        let columns = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let changes = changes.project(columns.into_iter().map(|index| ident(self.schema.field(index).name())))?.build()?;
        state.create_physical_plan(&changes).await
    }
}
