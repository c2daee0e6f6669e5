//! Statements of clients: planned first, with parameters, and run later.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result as PlanResult, ScalarValue};
use datafusion::config::Dialect;
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable as _, LogicalPlan};
use datafusion::prelude::{SQLOptions, SessionContext};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::Statement as Sql;
use futures::{StreamExt, TryStreamExt};
use logweir_core::{Error, Result};

use super::error::{unwrap, words};
use super::follow::Behind;
use super::{QueryEngine, QueryResult, Session, as_meant, more_than_read, pg, reads_only, twins, weight};
use crate::transform::depth::on_large_stack;

/// More parameters than anybody has use for, fewer than fit into a message.
const PARAMETERS_MAX: usize = 10_000;

/// Who asks, as far as SQL can see it.
#[derive(Debug, Clone, Default)]
pub struct ClientSession {
    /// The name that the client proved.
    pub user: String,
    /// The stream that names without one belong to; the first one if `None`.
    pub database: Option<String>,
    /// The schema that names without one belong to, if one was set.
    pub schema: Option<String>,
    /// What `current_setting` knows.
    pub settings: BTreeMap<String, String>,
    /// The number of the session.
    pub process: i32,
}

/// A statement that was planned. Files are looked at when it is planned, so it is run once, and soon.
pub struct PreparedQuery {
    context: SessionContext,
    plan: LogicalPlan,
    names: pg::Names,
    parameters: Vec<Option<DataType>>,
    behind: Option<Arc<Behind>>,
}

/// Whether a query that [follows](QueryEngine::following) changes has shown all that there were.
#[derive(Debug, Clone)]
pub struct CaughtUp(Arc<Behind>);

impl CaughtUp {
    /// True for a query that follows changes, once it runs.
    pub fn follows(&self) -> bool {
        self.0.follows()
    }

    /// True from then on; never for a query that follows nothing.
    pub fn get(&self) -> bool {
        self.0.has_caught_up()
    }
}

impl QueryEngine {
    /// Plans one read-only statement as PostgreSQL's clients write them, with parameters `$1`, `$2` and so on.
    ///
    /// Errors are as those of [`QueryEngine::sql`]; [`sqlstate`](super::sqlstate) has their codes. Planning calls itself: the caller's
    /// stack must be large (64 MiB bear every statement that is not refused).
    pub async fn prepare(&self, text: &str, client: &ClientSession) -> Result<PreparedQuery> {
        weight::check_text(text)?;
        let session = Session::new(self, Some(client))?;
        let state = session.context.state();
        let statement = on_large_stack(|| -> Result<(Statement, pg::Names, Vec<String>)> {
            let mut statement = state.sql_to_statement(text, &Dialect::PostgreSQL).map_err(unwrap)?;
            weight::check_statement(&statement)?;
            let names = match &statement {
                Statement::Statement(sql) => match sql.as_ref() {
                    Sql::Query(query) => pg::Names::of(query),
                    _ => pg::Names::default(),
                },
                _ => pg::Names::default(),
            };
            as_meant(&mut statement);
            let oid_lists = pg::oid_lists(&statement);
            pg::rewrite(&mut statement);
            Ok((statement, names, oid_lists))
        });
        let (statement, names, oid_lists) = statement.map_err(|_| Error::internal("could not parse the statement"))??;
        if !reads_only(&statement) {
            return Err(more_than_read());
        }
        for reference in state.resolve_table_references(&statement).map_err(unwrap)? {
            if reference.schema() != Some(pg::PG_CATALOG) {
                session.check(reference).await?;
            }
        }
        let plan = twins::plan(&state, statement).await.map_err(unwrap)?.plan;
        let read_only = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        read_only.verify_plan(&plan).map_err(|error| more_than_read().source(words(&error)))?;
        let mut seen = parameters_by_use(&plan).map_err(unwrap)?;
        let mut parameters = Vec::new();
        for (name, data_type) in plan.get_parameter_types().map_err(unwrap)? {
            let number: Option<usize> = name.strip_prefix('$').and_then(|number| number.parse().ok());
            let number = number.filter(|number| (1..=PARAMETERS_MAX).contains(number));
            let number = number.ok_or_else(|| Error::config("a parameter is $ and a number from 1 on"))?;
            if parameters.len() < number {
                parameters.resize(number, None);
            }
            let data_type = data_type.or_else(|| seen.remove(&name));
            parameters[number - 1] = if oid_lists.contains(&name) { Some(pg::oid_list()) } else { data_type };
        }
        Ok(PreparedQuery { context: session.context, plan, names, parameters, behind: session.behind })
    }
}

/// What the planner does not see in parameters without a type: what they are cast to, as in `$1::bigint[]`, which is what their client has
/// them as, and that `= ANY ($1)` and its kin want a list.
fn parameters_by_use(plan: &LogicalPlan) -> PlanResult<HashMap<String, DataType>> {
    let mut found = HashMap::new();
    plan.apply_with_subqueries(|node| {
        let schema = merge_schema(&node.inputs());
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                for (parameter, data_type) in by_use(expr, &schema) {
                    found.entry(parameter.id.clone()).or_insert(data_type);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(found)
}

/// Parameters, and those right below an expression that says what they are.
fn by_use<'a>(expr: &'a Expr, schema: &DFSchema) -> Vec<(&'a Placeholder, DataType)> {
    let list_of = |item: &Expr| {
        let data_type = item.get_type(schema).ok().filter(|data_type| *data_type != DataType::Null)?;
        Some(DataType::List(Arc::new(Field::new_list_field(data_type, true))))
    };
    match expr {
        // Seen here too, as the planner forgets it if the parameter is found once more without.
        Expr::Placeholder(parameter) => parameter.field.iter().map(|field| (parameter, field.data_type().clone())).collect(),
        Expr::Cast(cast) => match cast.expr.as_ref() {
            Expr::Placeholder(parameter) => vec![(parameter, cast.field.data_type().clone())],
            _ => Vec::new(),
        },
        Expr::ScalarFunction(call) if call.name() == "array_has" => match call.args.as_slice() {
            [Expr::Placeholder(parameter), item] => list_of(item).map(|data_type| (parameter, data_type)).into_iter().collect(),
            _ => Vec::new(),
        },
        // So `> ANY ($1)` and the like are planned.
        Expr::BinaryExpr(comparison) => {
            let (left, right) = (comparison.left.as_ref(), comparison.right.as_ref());
            [(left, right), (right, left)].into_iter().filter_map(|(of, item)| Some((extreme_of(of)?, list_of(item)?))).collect()
        }
        _ => Vec::new(),
    }
}

/// The parameter of which an expression is the least or greatest item.
fn extreme_of(expr: &Expr) -> Option<&Placeholder> {
    match expr {
        Expr::ScalarFunction(call) if ["array_min", "array_max"].contains(&call.name()) => match call.args.as_slice() {
            [Expr::Placeholder(parameter)] => Some(parameter),
            _ => None,
        },
        _ => None,
    }
}

impl PreparedQuery {
    /// The types of the parameters, as far as the statement says what they are.
    pub fn parameters(&self) -> &[Option<DataType>] {
        &self.parameters
    }

    /// The columns of the answer, named as PostgreSQL names them. Before [`bind`](Self::bind) a column that is nothing but a parameter may
    /// have no type yet.
    pub fn schema(&self) -> SchemaRef {
        let fields = self.plan.schema().fields();
        let named = |(field, name): (&FieldRef, Option<&str>)| match name.unwrap_or(twins::shown(field.name())) {
            name if name != field.name() => Arc::new(field.as_ref().clone().with_name(name)),
            _ => Arc::clone(field),
        };
        let fields: Vec<FieldRef> = fields.iter().zip(self.names.shown(fields.len())).map(named).collect();
        Arc::new(Schema::new(fields))
    }

    /// Whether it has shown what there was; `None` for a query of an engine that does not [follow](QueryEngine::following).
    pub fn caught_up(&self) -> Option<CaughtUp> {
        self.behind.clone().map(CaughtUp)
    }

    /// Gives the parameters their values, an array of one row each.
    pub fn bind(mut self, values: &[ArrayRef]) -> Result<Self> {
        if values.is_empty() {
            return Ok(self);
        }
        let values = values.iter().map(|value| ScalarValue::try_from_array(value, 0)).collect::<Result<Vec<_>, _>>().map_err(unwrap)?;
        self.plan = self.plan.with_param_values(values).map_err(unwrap)?;
        self.parameters.clear();
        Ok(self)
    }

    /// Begins to run it.
    pub async fn run(self) -> Result<QueryResult> {
        let frame = self.context.execute_logical_plan(self.plan).await.map_err(unwrap)?;
        let stream = frame.execute_stream().await.map_err(unwrap)?;
        Ok(QueryResult { schema: stream.schema(), batches: stream.map_err(unwrap).boxed() })
    }
}

impl std::fmt::Debug for PreparedQuery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PreparedQuery({} parameters)", self.parameters.len())
    }
}
