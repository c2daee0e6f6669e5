//! Numbers of two kinds side by side.
//!
//! Beside a floating point number every number is one of 64 bits, as in PostgreSQL, MySQL and MariaDB: in arithmetic, comparisons, and where one
//! of several values is taken. DataFusion 55 makes decimals of such operands unless they are added or multiplied: what lies behind the decimal's
//! digits would be cut off (`1e-16 > 0.0`), and what is larger than it holds could not be computed. And it adds numbers of 32 bits in 32 bits.

use std::cell::Cell;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::{Between, BinaryExpr, Case, Cast, InList};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Operator};
use datafusion::optimizer::{Analyzer, AnalyzerRule};

/// Functions that take one of their arguments.
const CHOICES: [&str; 6] = ["coalesce", "greatest", "least", "nullif", "nvl", "ifnull"];

/// Does it for every expression of a query, before DataFusion makes operands equal.
#[derive(Debug)]
pub(crate) struct DoublesFirst;

/// DataFusion's rules with this one before them.
pub(crate) fn analyzer_rules() -> Vec<Arc<dyn AnalyzerRule + Send + Sync>> {
    let ours: Arc<dyn AnalyzerRule + Send + Sync> = Arc::new(DoublesFirst);
    std::iter::once(ours).chain(Analyzer::new().rules).collect()
}

impl AnalyzerRule for DoublesFirst {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let changed = Cell::new(false);
        let widened = plan.clone().transform_up_with_subqueries(|plan| {
            let schema = merge_schema(&plan.inputs());
            let names = NamePreserver::new(&plan);
            let plan = plan.map_expressions(|expr| {
                let name = names.save(&expr);
                let widened = widen(expr, &schema)?;
                changed.set(changed.get() | widened.transformed);
                Ok(widened.update_data(|expr| name.restore(expr)))
            })?;
            plan.map_data(LogicalPlan::recompute_schema)
        })?;
        // A plan that needs nothing is not touched.
        Ok(if changed.get() { widened.data } else { plan })
    }

    fn name(&self) -> &'static str {
        "doubles_first"
    }
}

/// Makes doubles of the numbers that stand beside floating point numbers. Types must not have been made equal yet.
pub(crate) fn widen(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|mut expr| {
        let mut changed = false;
        let mut together = |operands: Vec<&mut Expr>| changed |= together(operands, schema);
        match &mut expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_of_numbers(*op) => together(vec![left, right]),
            Expr::Between(Between { expr, low, high, .. }) => together(vec![expr, low, high]),
            Expr::InList(InList { expr, list, .. }) => together(std::iter::once(expr.as_mut()).chain(list).collect()),
            Expr::ScalarFunction(call) if CHOICES.contains(&call.func.name()) => together(call.args.iter_mut().collect()),
            Expr::ScalarFunction(call) if call.func.name() == "nvl2" => together(call.args.iter_mut().skip(1).collect()),
            Expr::Case(Case { expr, when_then_expr, else_expr }) => {
                let (mut whens, mut thens): (Vec<&mut Expr>, Vec<&mut Expr>) = (Vec::new(), Vec::new());
                for (when, then) in when_then_expr {
                    whens.push(when);
                    thens.push(then);
                }
                if let Some(expr) = expr {
                    whens.push(expr);
                    together(whens);
                }
                thens.extend(else_expr.iter_mut().map(AsMut::as_mut));
                together(thens);
            }
            _ => {}
        }
        Ok(Transformed::new_transformed(expr, changed))
    })
}

fn is_of_numbers(operator: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    operator.is_numerical_operators() || matches!(operator, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

/// Makes them of one kind. True if there was something to do.
fn together(operands: Vec<&mut Expr>, schema: &DFSchema) -> bool {
    let types: Vec<Option<DataType>> = operands.iter().map(|operand| operand.get_type(schema).ok()).collect();
    let is = |wanted: fn(&DataType) -> bool| types.iter().flatten().any(wanted);
    let narrow = |data_type: &DataType| matches!(data_type, DataType::Float16 | DataType::Float32);
    let others = is(|data_type| data_type.is_integer() || data_type.is_decimal() || *data_type == DataType::Float64);
    if !is(DataType::is_floating) || !others {
        return false;
    }
    let mut changed = false;
    for (operand, data_type) in operands.into_iter().zip(&types) {
        let Some(data_type) = data_type else { continue };
        if narrow(data_type) || data_type.is_decimal() {
            let whole = std::mem::take(operand);
            *operand = if data_type.is_decimal() { double_of_decimal(whole) } else { cast(whole, DataType::Float64) };
            changed = true;
        }
    }
    changed
}

fn cast(expr: Expr, to: DataType) -> Expr {
    Expr::Cast(Cast::new(Box::new(expr), to))
}

/// The double that is nearest: Arrow's cast divides two doubles, and can miss it. Of a literal it is found once.
fn double_of_decimal(expr: Expr) -> Expr {
    cast(cast(expr, DataType::Utf8), DataType::Float64)
}
