//! The functions that rules may use, and the session that plans them.
//!
//! All of DataFusion's functions over single rows, those for JSON, and the masks. Not those whose result differs from one
//! call to the next: after a restart a change is read again, and must become the same again.

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DFSchemaRef, DataFusionError, Result as PlanResult};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, ScalarUDF, Volatility};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::prelude::SessionConfig;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{Expr as SqlExpr, ExprWithAlias};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::problem::Fault;

/// Functions whose result is that of the moment at which a statement is planned: for a stream, that of its start.
const OF_THE_MOMENT: [&str; 6] = ["now", "current_timestamp", "current_date", "current_time", "today", "version"];

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(super) struct Functions {
    state: Arc<SessionState>,
}

impl Functions {
    /// DataFusion's functions and `own`.
    pub(super) fn new(own: &[Arc<ScalarUDF>]) -> Result<Self, DataFusionError> {
        let mut config = SessionConfig::new();
        config.options_mut().sql_parser.collect_spans = true;
        // Text in batches is Utf8, so that a cast to text and a text column are of one type.
        config.options_mut().sql_parser.map_string_types_to_utf8view = false;
        let mut state = SessionStateBuilder::new().with_default_features().with_config(config).build();
        datafusion_functions_json::register_all(&mut state)?;
        for function in own {
            state.register_udf(Arc::clone(function))?;
        }
        Ok(Functions { state: Arc::new(state) })
    }

    pub(super) fn parse(&self, sql: &str) -> Result<Statement, DataFusionError> {
        let dialect = self.state.config_options().sql_parser.dialect;
        self.state.sql_to_statement(sql, &dialect)
    }

    /// Plans an expression that stands at `span` over `schema`.
    pub(super) fn plan(&self, expr: SqlExpr, schema: &DFSchemaRef, span: Span) -> Result<Expr, Fault> {
        let planned = self.state.create_logical_expr_from_sql_expr(ExprWithAlias { expr, alias: None }, schema);
        let planned = planned.map_err(|error| Fault::of_plan(&error, span))?;
        row_by_row(&planned, span)?;
        self.simplify(planned, schema).map_err(|error| Fault::of_plan(&error, span))
    }

    pub(super) fn simplify(&self, expr: Expr, schema: &DFSchemaRef) -> PlanResult<Expr> {
        let context =
            SimplifyContext::builder().with_schema(Arc::clone(schema)).with_config_options(Arc::clone(self.state.config_options())).build();
        let simplifier = ExprSimplifier::new(context);
        let mut expr = simplifier.coerce(expr, schema)?;
        for rewrite in self.state.analyzer().function_rewrites() {
            let options = self.state.config_options();
            expr = expr.transform_up(|expr| rewrite.rewrite(expr, schema, options))?.data;
        }
        simplifier.simplify(expr)
    }

    /// What evaluates an expression over batches of `schema`.
    pub(super) fn compile(&self, expr: Expr, schema: &DFSchema) -> PlanResult<Arc<dyn PhysicalExpr>> {
        self.state.create_physical_expr(expr, schema)
    }
}

/// Refuses what looks at other rows, and what is another at every call.
fn row_by_row(expr: &Expr, span: Span) -> Result<(), Fault> {
    let mut found = None;
    // The closure never fails.
    let _ = expr.apply(|expr| {
        found = match expr {
            Expr::AggregateFunction(function) => Some(
                Fault::at(
                    format!(
                        "{} has no place in a transform: it looks at many rows, and a transform sees one change at a time",
                        function.func.name()
                    ),
                    span,
                )
                .help("aggregate when you query what was landed"),
            ),
            Expr::WindowFunction(function) => Some(Fault::at(
                format!(
                    "{} has no place in a transform: it looks at many rows, and a transform sees one change at a time",
                    function.fun.name()
                ),
                span,
            )),
            Expr::ScalarFunction(function) if OF_THE_MOMENT.contains(&function.func.name()) => Some(
                Fault::at(
                    format!(
                        "{}() has no place in a transform: a change that is read again must become the same again",
                        function.func.name()
                    ),
                    span,
                )
                .help("use _metadata_read_timestamp or _metadata_timestamp"),
            ),
            Expr::ScalarFunction(function) if function.func.signature().volatility == Volatility::Volatile => Some(Fault::at(
                format!("{}() has no place in a transform: a change that is read again must become the same again", function.func.name()),
                span,
            )),
            Expr::Placeholder(_) => Some(Fault::at("a transform has no parameters", span)),
            _ => None,
        };
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    found.map_or(Ok(()), Err)
}
