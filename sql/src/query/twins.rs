//! Columns of one name in a SELECT list: `SELECT 1, 1`, `SELECT a, a::text`, `SELECT *, id`. PostgreSQL takes them, and no plan may have them.
//!
//! A statement is planned as it stands. Only where that fails for this do the later of them get a name of their own, with a mark in it that is
//! taken off again before anybody sees it. So whatever can be planned stays what it is.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::Result as PlanResult;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, ObjectName, OrderByKind, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, VisitMut as _, VisitorMut,
    WildcardAdditionalOptions,
};

/// Parts the name that is shown from what sets it apart: a sign that nobody sees, and that no name has.
const MARK: char = '\u{2063}';

/// A plan, and what its columns are to be called.
pub(super) struct Planned {
    pub(super) plan: LogicalPlan,
    /// For each column the earlier one that it was named apart from; empty if none was.
    twins: Vec<Option<usize>>,
}

/// Plans a statement.
pub(super) async fn plan(state: &SessionState, statement: Statement) -> PlanResult<Planned> {
    let mut apart = statement.clone();
    let error = match state.statement_to_plan(statement).await {
        Ok(plan) => return Ok(Planned { plan, twins: Vec::new() }),
        Err(error) => error,
    };
    if !is_of_twins(&error) {
        return Err(error);
    }
    let twins = set_apart(&mut apart, false);
    let error = match state.statement_to_plan(apart.clone()).await {
        Ok(plan) => return Ok(Planned { plan, twins }),
        Err(error) => error,
    };
    if !is_of_twins(&error) {
        return Err(error);
    }
    // What is written in two ways may be one to the planner: a function has several names.
    let twins = set_apart(&mut apart, true);
    state.statement_to_plan(apart).await.map(|plan| Planned { plan, twins }).map_err(|_| error)
}

/// A column's name without what set it apart.
pub(super) fn shown(name: &str) -> &str {
    name.split(MARK).next().unwrap_or(name)
}

impl Planned {
    /// The columns `schema` of the plan's answer, each with a name that no other has: JSON has one value of a name.
    pub(super) fn numbered(&self, schema: &SchemaRef) -> SchemaRef {
        let fields = schema.fields();
        let twin = |index: usize| self.twins.get(index).copied().flatten().and_then(|twin| fields.get(twin));
        let mut names = HashSet::new();
        let mut named = Vec::with_capacity(fields.len());
        let plain: HashSet<&str> = fields.iter().map(|field| field.name().as_str()).collect();
        for (index, field) in fields.iter().enumerate() {
            let base = shown(twin(index).unwrap_or(field).name());
            let mut name = base.to_owned();
            let mut number = 2;
            while names.contains(&name) || (name != base && plain.contains(name.as_str())) {
                name = format!("{base}_{number}");
                number += 1;
            }
            names.insert(name.clone());
            named.push(if name == *field.name() { Arc::clone(field) } else { Arc::new(field.as_ref().clone().with_name(name)) });
        }
        Arc::new(Schema::new_with_metadata(named, schema.metadata().clone()))
    }
}

fn is_of_twins(error: &DataFusionError) -> bool {
    let text = error.to_string();
    text.contains("require unique expression names") || text.contains("which would be ambiguous")
}

/// Gives the later ones of equal expressions names of their own, or `all` that have none. The result is what each column of the outermost list
/// is the same as.
fn set_apart(statement: &mut Statement, all: bool) -> Vec<Option<usize>> {
    match statement {
        Statement::Statement(sql) => {
            let mut apart = Apart { all, depth: 0, ordered: Vec::new(), twins: None };
            let _ = sql.visit(&mut apart);
            apart.twins.unwrap_or_default()
        }
        Statement::Explain(explain) => {
            set_apart(&mut explain.statement, all);
            Vec::new()
        }
        _ => Vec::new(),
    }
}

struct Apart {
    all: bool,
    depth: usize,
    /// What the outermost query is ordered by.
    ordered: Vec<String>,
    twins: Option<Vec<Option<usize>>>,
}

impl VisitorMut for Apart {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        if self.depth == 1
            && let Some(order_by) = &query.order_by
            && let OrderByKind::Expressions(expressions) = &order_by.kind
        {
            self.ordered = expressions.iter().filter_map(|by| column(&by.expr)).filter_map(|mut column| column.pop()).collect();
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let twins = self.list(select);
        if self.depth == 1 && self.twins.is_none() {
            self.twins = Some(twins);
        }
        ControlFlow::Continue(())
    }
}

impl Apart {
    fn list(&self, select: &mut Select) -> Vec<Option<usize>> {
        let one_table = matches!(select.from.as_slice(), [table] if table.joins.is_empty());
        let wide: Vec<Vec<String>> = select.projection.iter().filter_map(wildcard).collect();
        let has_wide = select.projection.iter().any(|item| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)));
        let is_in_wide = |column: &[String]| {
            let [tables @ .., _] = column else { return false };
            wide.iter().any(|of| of.is_empty() || (tables.is_empty() && one_table) || (!tables.is_empty() && end_alike(of, tables)))
        };
        let aliases: Vec<String> = select.projection.iter().filter_map(alias).collect();
        let mut seen: Vec<(Key, usize)> = Vec::new();
        let mut twins = vec![None; select.projection.len()];
        for (index, item) in select.projection.iter_mut().enumerate() {
            let (key, expr) = match item {
                SelectItem::UnnamedExpr(expr) => (Key::of(expr), expr),
                SelectItem::ExprWithAlias { alias, .. } => {
                    let key = Key::Column(vec![value(alias)]);
                    let twin = seen.iter().find(|(other, _)| other.is_alias(&key));
                    // Where somebody else may name it, it would be in doubt which is meant.
                    if let Some((_, twin)) = twin
                        && self.depth == 1
                        && !self.ordered.contains(&value(alias))
                    {
                        twins[index] = Some(*twin);
                        *alias = marked(&value(alias), index);
                    } else {
                        seen.push((key, index));
                    }
                    continue;
                }
                _ => continue,
            };
            let twin = seen.iter().find(|(other, _)| other.is_like(&key)).map(|(_, index)| *index);
            let also = match &key {
                Key::Column(column) => {
                    is_in_wide(column)
                        || (self.depth == 1 && column.last().is_some_and(|name| aliases.contains(name) && !self.ordered.contains(name)))
                }
                Key::Text(_) => self.all && index > 0,
            };
            if twin.is_some() || also {
                twins[index] = twin;
                let name = marked(&key.name(expr), index);
                let expr = std::mem::replace(expr, Expr::Identifier(Ident::new("")));
                *item = SelectItem::ExprWithAlias { expr, alias: name };
            } else {
                seen.push((key, index));
            }
        }
        if has_wide { Vec::new() } else { twins }
    }
}

/// What the planner makes the name of an expression of: it leaves out casts.
enum Key {
    Column(Vec<String>),
    Text(String),
}

impl Key {
    fn of(expr: &Expr) -> Self {
        match expr {
            Expr::Nested(inner) | Expr::Cast { expr: inner, .. } => Key::of(inner),
            Expr::TypedString(typed) => Key::Text(typed.value.to_string()),
            _ => match column(expr) {
                Some(column) => Key::Column(column),
                None => {
                    let text = expr.to_string();
                    Key::Text(if text.contains(['\'', '"']) { text } else { text.to_lowercase() })
                }
            },
        }
    }

    fn is_like(&self, other: &Key) -> bool {
        match (self, other) {
            (Key::Text(one), Key::Text(other)) => one == other,
            (Key::Column(one), Key::Column(other)) => end_alike(one, other),
            _ => false,
        }
    }

    /// The same for a name that was given.
    fn is_alias(&self, alias: &Key) -> bool {
        matches!((self, alias), (Key::Column(one), Key::Column(alias)) if one == alias)
    }

    fn name(&self, expr: &Expr) -> String {
        match self {
            Key::Column(column) => column.last().cloned().unwrap_or_default(),
            Key::Text(_) => expr.to_string(),
        }
    }
}

/// True for `a` and `t.a`, and for `t.a` and `s.t.a`.
fn end_alike(one: &[String], other: &[String]) -> bool {
    one.iter().rev().zip(other.iter().rev()).all(|(one, other)| one == other)
}

fn marked(name: &str, index: usize) -> Ident {
    Ident::with_quote('"', format!("{name}{MARK}{index}"))
}

fn value(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

fn alias(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(value(alias)),
        _ => None,
    }
}

fn column(expr: &Expr) -> Option<Vec<String>> {
    match expr {
        Expr::Identifier(name) => Some(vec![value(name)]),
        Expr::CompoundIdentifier(names) => Some(names.iter().map(value).collect()),
        _ => None,
    }
}

/// The table that a wildcard has all columns of, which is empty for all tables; `None` if it may lack some.
fn wildcard(item: &SelectItem) -> Option<Vec<String>> {
    let whole = |options: &WildcardAdditionalOptions| {
        options.opt_except.is_none() && options.opt_exclude.is_none() && options.opt_rename.is_none() && options.opt_ilike.is_none()
    };
    match item {
        SelectItem::Wildcard(options) if whole(options) => Some(Vec::new()),
        SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(ObjectName(parts)), options) if whole(options) => {
            parts.iter().map(|part| part.as_ident().map(value)).collect()
        }
        _ => None,
    }
}
