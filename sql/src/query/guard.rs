//! Operators of DataFusion whose input needs a guard.
//!
//! * A window over all rows (`sum(x) OVER ()`) holds its input to the end, and DataFusion counts that towards no memory. So a reservation
//!   goes below it.
//! * A nested loop join of DataFusion 55 that cannot hold its left side begins that anew, to spill it. But a plan is begun once: some parts of
//!   it panic then, and others hand out only what they had not handed out before, so that rows would be missing and nobody told. So the left
//!   side refuses to begin again, with the error that the join had.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::RecordBatch;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult as _, TreeNode as _, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result, resources_err};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::execution_plan::ChildrenPropertiesMode;
use datafusion::physical_plan::joins::NestedLoopJoinExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::windows::WindowAggExec;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions};
use futures::StreamExt as _;

/// A window holds its rows twice for a moment: as they came, and as one.
const COPIES: usize = 2;

/// Puts a [`GuardExec`] where one is needed.
#[derive(Debug)]
pub(super) struct Guarded;

impl PhysicalOptimizerRule for Guarded {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            let guard = match () {
                () if node.is::<WindowAggExec>() => Guard::Held,
                () if node.is::<NestedLoopJoinExec>() => Guard::Once,
                () => return Ok(Transformed::no(node)),
            };
            let mut inputs: Vec<Arc<dyn ExecutionPlan>> = node.children().into_iter().map(Arc::clone).collect();
            // Of a join it is the left one.
            if let Some(first) = inputs.first_mut() {
                *first = Arc::new(GuardExec::new(Arc::clone(first), guard));
            }
            Ok(Transformed::yes(node.replace_children(inputs, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))?))
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "guarded"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// What is seen to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guard {
    /// Each batch counts towards the memory of the query until whoever reads it is done.
    Held,
    /// The input, of one partition, begins once.
    Once,
}

/// Its input, as it is.
#[derive(Debug)]
struct GuardExec {
    input: Arc<dyn ExecutionPlan>,
    guard: Guard,
    begun: AtomicBool,
}

impl GuardExec {
    fn new(input: Arc<dyn ExecutionPlan>, guard: Guard) -> Self {
        GuardExec { input, guard, begun: AtomicBool::new(false) }
    }
}

impl DisplayAs for GuardExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GuardExec: {:?}", self.guard)
    }
}

impl ExecutionPlan for GuardExec {
    fn name(&self) -> &'static str {
        "GuardExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(&self, _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let [input] = <[_; 1]>::try_from(children).map_err(|_| DataFusionError::Internal("what is guarded has one input".to_owned()))?;
        Ok(Arc::new(GuardExec::new(input, self.guard)))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if self.guard == Guard::Once {
            if self.begun.swap(true, Ordering::AcqRel) {
                return resources_err!("a join whose condition is no equation holds one of its sides, and memory does not");
            }
            return self.input.execute(partition, context);
        }
        let input = self.input.execute(partition, Arc::clone(&context))?;
        let reservation = MemoryConsumer::new("rows of a window").register(context.memory_pool());
        let rows = input.map(move |batch: Result<RecordBatch>| {
            let batch = batch?;
            reservation.try_grow(batch.get_array_memory_size().saturating_mul(COPIES))?;
            Ok(batch)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use datafusion::execution::memory_pool::GreedyMemoryPool;
    use datafusion::execution::runtime_env::RuntimeEnvBuilder;
    use datafusion::execution::session_state::SessionStateBuilder;
    use datafusion::prelude::SessionContext;

    use super::*;

    #[tokio::test]
    async fn rows_of_a_window_count() {
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(GreedyMemoryPool::new(4 << 20))).build_arc().unwrap();
        let state =
            SessionStateBuilder::new().with_default_features().with_runtime_env(runtime).with_physical_optimizer_rule(Arc::new(Guarded));
        let context = SessionContext::new_with_state(state.build());
        let ask = async |rows: usize| {
            let sql = format!("SELECT sum(value) OVER () AS s FROM generate_series(1, {rows})");
            context.sql(&sql).await?.collect().await
        };
        assert!(ask(1000).await.is_ok());
        let error = ask(10_000_000).await.unwrap_err();
        assert!(matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)), "{error}");
    }

    #[tokio::test]
    async fn a_join_that_memory_does_not_hold_says_so() {
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(GreedyMemoryPool::new(8 << 20))).build_arc().unwrap();
        let state =
            SessionStateBuilder::new().with_default_features().with_runtime_env(runtime).with_physical_optimizer_rule(Arc::new(Guarded));
        let context = SessionContext::new_with_state(state.build());
        let ask = async |rows: usize| {
            let sides = format!(
                "(SELECT value % 1000 AS v, count(*) AS n, repeat('x', 200) AS x FROM generate_series(1, {rows}) GROUP BY value) AS a,
                 (SELECT DISTINCT value AS w FROM generate_series(1, 3)) AS b"
            );
            let found = context.sql(&format!("SELECT count(x) AS n FROM {sides} WHERE a.v > b.w")).await?.collect().await?;
            Ok::<_, DataFusionError>(arrow::util::display::array_value_to_string(found[0].column(0), 0)?)
        };
        assert_eq!(ask(1000).await.unwrap(), "2991");
        let error = ask(300_000).await.unwrap_err();
        assert!(matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)), "{error}");
    }
}
