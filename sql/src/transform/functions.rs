//! The functions that rules may use, and the session that plans them.
//!
//! All of DataFusion's functions over single rows, those for JSON, and the masks. Not those whose result differs from one
//! call to the next: after a restart a change is read again, and must become the same again.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DFSchemaRef, DataFusionError, Result as PlanResult, ScalarValue};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, Operator, ScalarUDF, Volatility};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Literal, NegativeExpr};
use datafusion::prelude::SessionConfig;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{Expr as SqlExpr, ExprWithAlias, Function as Call, Spanned, Visit, Visitor};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::checked::Checked;
use super::problem::Fault;
use crate::numbers::widen;
use crate::query::suggest::nearest;

/// Functions whose result is that of the moment at which a statement is planned: for a stream, that of its start.
const OF_THE_MOMENT: [&str; 5] = ["now", "current_timestamp", "current_date", "current_time", "today"];

const SAME_AGAIN: &str = "a change that is read again must become the same again";
const MANY_ROWS: &str = "it looks at many rows, and a transform sees one change at a time";

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
        // A number with a point is what it says, and not the double next to it.
        config.options_mut().sql_parser.parse_float_as_decimal = true;
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
        self.own_place(&expr)?;
        let planned = self.state.create_logical_expr_from_sql_expr(ExprWithAlias { expr, alias: None }, schema);
        let planned = planned.map_err(|error| self.suggest(Fault::of_plan(&error, span)))?;
        row_by_row(&planned, span)?;
        self.simplify(planned, schema).map_err(|error| Fault::of_plan(&error, span))
    }

    /// Refuses a function that has no place in a rule, at the place where it is called.
    fn own_place(&self, expr: &SqlExpr) -> Result<(), Fault> {
        struct Calls<'a>(&'a Functions);
        impl Visitor for Calls<'_> {
            type Break = Fault;

            fn pre_visit_expr(&mut self, expr: &SqlExpr) -> ControlFlow<Fault> {
                let fault = match expr {
                    SqlExpr::Function(call) => self.0.refused(call),
                    SqlExpr::Identifier(name) if name.quote_style.is_none() && name.value.starts_with('@') => {
                        Some(Fault::at("a transform has no variables", name.span))
                    }
                    _ => None,
                };
                fault.map_or(ControlFlow::Continue(()), ControlFlow::Break)
            }
        }
        match expr.visit(&mut Calls(self)) {
            ControlFlow::Break(fault) => Err(fault),
            ControlFlow::Continue(()) => Ok(()),
        }
    }

    /// Names the function that was probably meant: of DataFusion's suggestions, one is made for whatever is asked.
    fn suggest(&self, fault: Fault) -> Fault {
        let Some(name) = fault.message.strip_prefix("invalid function '").and_then(|rest| rest.strip_suffix('\'')) else { return fault };
        let names = self.state.udfs();
        let help = nearest(name, names.iter().map(String::as_str)).map(|near| format!("did you mean {near}?"));
        Fault { message: format!("there is no function {name}"), help, place: fault.place }
    }

    fn refused(&self, call: &Call) -> Option<Fault> {
        let written = call.name.to_string();
        let name = written.to_lowercase();
        let fault = |why: &str| Fault::at(format!("{written} has no place in a transform: {why}"), call.name.span());
        if name == "unnest" {
            return Some(fault("it makes many rows of one, and a change stays one change"));
        }
        if let Ok(function) = self.state.udf(&name) {
            if OF_THE_MOMENT.contains(&function.name()) {
                return Some(fault(SAME_AGAIN).help("use _metadata_read_timestamp or _metadata_timestamp"));
            }
            return (function.signature().volatility == Volatility::Volatile || function.name() == "version").then(|| fault(SAME_AGAIN));
        }
        if call.over.is_some() || self.state.udwf(&name).is_ok() {
            return Some(fault(MANY_ROWS).help("number and compare rows when you query what was landed"));
        }
        self.state.udaf(&name).is_ok().then(|| fault(MANY_ROWS).help("aggregate when you query what was landed"))
    }

    pub(super) fn simplify(&self, expr: Expr, schema: &DFSchemaRef) -> PlanResult<Expr> {
        let context =
            SimplifyContext::builder().with_schema(Arc::clone(schema)).with_config_options(Arc::clone(self.state.config_options())).build();
        let simplifier = ExprSimplifier::new(context);
        let mut expr = simplifier.coerce(widen(expr, schema)?.data, schema)?;
        for rewrite in self.state.analyzer().function_rewrites() {
            let options = self.state.config_options();
            expr = expr.transform_up(|expr| rewrite.rewrite(expr, schema, options))?.data;
        }
        simplifier.simplify(expr)
    }

    /// What evaluates an expression over batches of `schema`.
    pub(super) fn compile(&self, expr: Expr, schema: &DFSchema) -> PlanResult<Arc<dyn PhysicalExpr>> {
        // Arithmetic of DataFusion wraps around where a number becomes too large: a wrong value that nobody would notice.
        let strict = |expr: Arc<dyn PhysicalExpr>| {
            if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
                let strict = Arc::new(binary.clone().with_fail_on_overflow(true));
                return Ok(Transformed::yes(Checked::around(strict, schema.as_arrow())?));
            }
            if let Some(negative) = expr.downcast_ref::<NegativeExpr>() {
                let data_type = negative.arg().data_type(schema.as_arrow())?;
                if data_type.is_integer() {
                    let zero = Arc::new(Literal::new(ScalarValue::new_zero(&data_type)?));
                    let minus = BinaryExpr::new(zero, Operator::Minus, Arc::clone(negative.arg())).with_fail_on_overflow(true);
                    return Ok(Transformed::yes(Arc::new(minus) as Arc<dyn PhysicalExpr>));
                }
            }
            Ok(Transformed::no(expr))
        };
        Ok(self.state.create_physical_expr(expr, schema)?.transform_up(strict)?.data)
    }
}

const REGEX_OPERATORS: [Operator; 4] = [Operator::RegexMatch, Operator::RegexIMatch, Operator::RegexNotMatch, Operator::RegexNotIMatch];

/// A regular expression that is written in the rule and is none: every row would be a bad value.
fn broken_pattern(pattern: &Expr, span: Span) -> Option<Fault> {
    let Expr::Literal(value, _) = pattern else { return None };
    let error = regex::Regex::new(value.try_as_str()??).err()?.to_string();
    let last = error.lines().last().unwrap_or_default();
    let why = last.strip_prefix("error: ").unwrap_or(last);
    Some(Fault::at(format!("the regular expression is none: {why}"), span))
}

/// Refuses what looks at other rows, and what is another at every call, by whatever name it was called.
fn row_by_row(expr: &Expr, span: Span) -> Result<(), Fault> {
    let mut found = None;
    let fault = |name: &str, why: &str| Some(Fault::at(format!("{name} has no place in a transform: {why}"), span));
    // The closure never fails.
    let _ = expr.apply(|expr| {
        found = match expr {
            Expr::AggregateFunction(function) => fault(function.func.name(), MANY_ROWS),
            Expr::WindowFunction(function) => fault(function.fun.name(), MANY_ROWS),
            Expr::ScalarFunction(ScalarFunction { func, .. })
                if OF_THE_MOMENT.contains(&func.name()) || func.signature().volatility == Volatility::Volatile =>
            {
                fault(func.name(), SAME_AGAIN)
            }
            Expr::ScalarFunction(ScalarFunction { func, args, .. }) if func.name().starts_with("regexp_") => {
                args.get(1).and_then(|pattern| broken_pattern(pattern, span))
            }
            Expr::BinaryExpr(binary) if REGEX_OPERATORS.contains(&binary.op) => broken_pattern(&binary.right, span),
            // To DataFusion a regular expression that may match anywhere.
            Expr::SimilarTo(_) => {
                let fault = Fault::at("SIMILAR TO has no place in a transform", span);
                Some(fault.help("write LIKE, or a regular expression: name ~ '^(a|b).*$'"))
            }
            Expr::Placeholder(_) => Some(Fault::at("a transform has no parameters", span)),
            _ => None,
        };
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    found.map_or(Ok(()), Err)
}
