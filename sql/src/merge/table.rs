//! The current state of a table, as one that can be scanned.
//!
//! What a query asks of it goes below the merge where that is right: the columns it wants, and filters that look at the key alone. A filter
//! over other columns must see the newest row of a key, not whether an older one passes.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::ident;

use super::exec::{Form, MergeExec};
use super::scan::{MergeScan, OrderedFiles};

/// Changes, and the state that they come to.
#[derive(Debug)]
pub(crate) struct Merged {
    changes: LogicalPlan,
    key: Vec<String>,
    /// What decides beside the key: commit time, position, whether it deletes.
    timestamp: &'static str,
    sequence: &'static str,
    deleted: &'static str,
    /// The table's columns.
    schema: SchemaRef,
    /// The files of the changes, if they are in the order of the log.
    files: Option<OrderedFiles>,
}

impl Merged {
    /// The state of `columns` that `changes` come to. `changes` has these and what decides.
    pub(crate) fn new(
        changes: LogicalPlan,
        key: Vec<String>,
        columns: &[&str],
        [timestamp, sequence, deleted]: [&'static str; 3],
    ) -> Result<Self> {
        let fields = columns.iter().map(|name| changes.schema().field_with_unqualified_name(name).map(Arc::clone));
        let schema = Arc::new(Schema::new(fields.collect::<Result<Vec<_>>>()?));
        Ok(Merged { changes, key, timestamp, sequence, deleted, schema, files: None })
    }

    /// The same, of which is known that the changes are these files. `columns` are in their order.
    #[must_use]
    pub(crate) fn of_files(mut self, files: Option<OrderedFiles>) -> Self {
        self.files = files;
        self
    }

    fn is_of_key(&self, filter: &Expr) -> bool {
        !filter.is_volatile() && filter.column_refs().iter().all(|column| self.key.contains(&column.name))
    }
}

#[async_trait]
impl TableProvider for Merged {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let answer = |filter: &&Expr| match self.is_of_key(filter) {
            true => TableProviderFilterPushDown::Exact,
            false => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(answer).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let wanted: Vec<usize> = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        // With a filter on the key most of the files need not be read, which the scan below knows how to tell.
        if let (Some(files), []) = (&self.files, filters) {
            let types = self.key.iter().map(|name| Ok(self.changes.schema().field_with_unqualified_name(name)?.data_type().clone()));
            let schema = Arc::new(self.schema.project(&wanted)?);
            let types = types.collect::<Result<Vec<_>>>()?;
            return Ok(Arc::new(MergeScan::try_new(state, files, self.key.clone(), &types, schema, &wanted)?));
        }
        let mut names: Vec<&str> = wanted.iter().map(|index| self.schema.field(*index).name().as_str()).collect();
        let decides = self.key.iter().map(String::as_str).chain([self.timestamp, self.sequence, self.deleted]);
        for name in decides {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let mut changes = LogicalPlanBuilder::from(self.changes.clone());
        for filter in filters {
            // Columns are named as the query has them: under the table's name.
            changes = changes.filter(datafusion::logical_expr::expr_rewriter::unnormalize_col(filter.clone()))?;
        }
        let changes = changes.project(names.iter().map(|name| ident(*name)))?.build()?;
        let input = state.create_physical_plan(&changes).await?;
        let index = |name: &str| {
            let place = names.iter().position(|other| *other == name);
            place.ok_or_else(|| DataFusionError::Internal(format!("a merge lacks the column {name}")))
        };
        let form = Form {
            key: self.key.iter().map(|name| index(name)).collect::<Result<_>>()?,
            timestamp: index(self.timestamp)?,
            sequence: index(self.sequence)?,
            deleted: index(self.deleted)?,
        };
        Ok(Arc::new(MergeExec::try_new(input, form, (0..wanted.len()).collect())?))
    }
}
