//! Joins that run out of memory say so.
//!
//! A nested loop join of DataFusion 55 that cannot hold its left side begins that anew, to spill it. But a plan is begun once: some parts of it panic
//! then, and others hand out only what they had not handed out before, so that rows would be missing and nobody told. So the left side
//! refuses to begin again, with the error that the join had.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult as _, TreeNode as _, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result, resources_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::execution_plan::ChildrenPropertiesMode;
use datafusion::physical_plan::joins::NestedLoopJoinExec;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions};

/// Puts a [`OnceExec`] below each nested loop join, on the left.
#[derive(Debug)]
pub(super) struct BeginOnce;

impl PhysicalOptimizerRule for BeginOnce {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            if !node.is::<NestedLoopJoinExec>() {
                return Ok(Transformed::no(node));
            }
            let mut sides: Vec<Arc<dyn ExecutionPlan>> = node.children().into_iter().map(Arc::clone).collect();
            if let Some(left) = sides.first_mut() {
                *left = Arc::new(OnceExec::new(Arc::clone(left)));
            }
            Ok(Transformed::yes(node.replace_children(sides, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))?))
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "begin_once"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Its input of one partition, which begins once.
#[derive(Debug)]
struct OnceExec {
    input: Arc<dyn ExecutionPlan>,
    begun: AtomicBool,
}

impl OnceExec {
    fn new(input: Arc<dyn ExecutionPlan>) -> Self {
        OnceExec { input, begun: AtomicBool::new(false) }
    }
}

impl DisplayAs for OnceExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnceExec")
    }
}

impl ExecutionPlan for OnceExec {
    fn name(&self) -> &'static str {
        "OnceExec"
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
        let [input] = <[_; 1]>::try_from(children).map_err(|_| DataFusionError::Internal("what begins once has one input".to_owned()))?;
        Ok(Arc::new(OnceExec::new(input)))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if self.begun.swap(true, Ordering::AcqRel) {
            return resources_err!("a join whose condition is no equation holds one of its sides, and memory does not");
        }
        self.input.execute(partition, context)
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
    async fn a_join_that_memory_does_not_hold_says_so() {
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(GreedyMemoryPool::new(8 << 20))).build_arc().unwrap();
        let state =
            SessionStateBuilder::new().with_default_features().with_runtime_env(runtime).with_physical_optimizer_rule(Arc::new(BeginOnce));
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
