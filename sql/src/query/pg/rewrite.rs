//! Syntax of PostgreSQL's own that DataFusion does not plan, in words that it does.
//!
//! * `COLLATE`, `OPERATOR(pg_catalog.~)`, `pg_catalog.f(…)`, casts to `regclass` and its kin, `= ANY (array)`.
//! * `LIKE … ESCAPE` with another sign than the backslash.
//! * A `SELECT` from a catalog that is always empty answers with no rows, whatever else it asks for.
//! * A subquery for one value of a catalog takes the least, as a subquery of DataFusion must be an aggregate.
//! * Beside the name of a table in `pg_class` goes its number, which the planner takes over a join to `pg_attribute`: so only the tables that
//!   are asked for are looked at.
//!
//! Only what names a catalog of PostgreSQL or uses its syntax is touched: a query of somebody's tables stays what it is.

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::Statement as Sql;
use datafusion::sql::sqlparser::ast::{
    ArrayElemTypeDef, BinaryOperator, CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList,
    FunctionArguments, GroupByExpr, Ident, JoinOperator, ObjectName, ObjectNamePart, Query, Select, SelectItem, SetExpr, TableFactor,
    UnaryOperator, Value, ValueWithSpan, Visit, VisitMut, Visitor, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;

use super::PG_CATALOG;
use super::tables::is_always_empty;

/// Rewrites a statement in place.
pub(in crate::query) fn rewrite(statement: &mut Statement) {
    match statement {
        Statement::Statement(sql) => {
            let _ = sql.visit(&mut Rewriter);
        }
        Statement::Explain(explain) => rewrite(&mut explain.statement),
        _ => {}
    }
}

struct Rewriter;

impl VisitorMut for Rewriter {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if asks_as_asyncpg(query)
            && let Some(answer) = answer_to_asyncpg()
        {
            *query = answer;
        }
        if empty_body(&mut query.body) {
            // It may name columns that are no more.
            query.order_by = None;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        if let (Some(class), Some(filter)) = (class_name(select), &mut select.selection) {
            number_names(filter, &class);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &mut ObjectName) -> ControlFlow<()> {
        if let [ObjectNamePart::Identifier(name)] = relation.0.as_slice()
            && name.value.starts_with("pg_")
        {
            let name = name.clone();
            *relation = ObjectName::from(vec![Ident::new(PG_CATALOG), name]);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let taken = std::mem::replace(expr, null());
        *expr = rewritten(taken);
        ControlFlow::Continue(())
    }
}

/// The parameters that are cast to lists of `oid`, as `$1`: they are described as such to whoever asks.
pub(in crate::query) fn oid_lists(statement: &Statement) -> Vec<String> {
    let Statement::Statement(sql) = statement else { return Vec::new() };
    let mut found = OidLists(Vec::new());
    let _ = Visit::visit(sql.as_ref(), &mut found);
    found.0
}

struct OidLists(Vec<String>);

impl Visitor for OidLists {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::Cast { expr, data_type, .. } = expr
            && let Expr::Value(value) = expr.as_ref()
            && let Value::Placeholder(name) = &value.value
            && data_type.to_string().eq_ignore_ascii_case("oid[]")
        {
            self.0.push(name.clone());
        }
        ControlFlow::Continue(())
    }
}

/// True for asyncpg's question about types that it does not know by itself, which are those of arrays: a recursion over subqueries that
/// DataFusion does not plan, through what types are made of.
fn asks_as_asyncpg(query: &Query) -> bool {
    query.with.as_ref().is_some_and(|with| with.recursive && with.cte_tables.iter().any(|table| table.alias.name.value == "typeinfo_tree"))
}

/// The same for types that are made of no more than their elements, which asyncpg knows.
fn answer_to_asyncpg() -> Option<Query> {
    const ANSWER: &str = "SELECT t.oid, 'pg_catalog' AS ns, t.typname AS name, t.typtype AS kind, CAST(NULL AS BIGINT) AS basetype, t.typelem AS elemtype, \
         e.typdelim AS elemdelim, CAST(NULL AS BIGINT) AS range_subtype, CAST(NULL AS TEXT) AS attrtypoids, CAST(NULL AS TEXT) AS attrnames, 0 AS depth, \
         CAST(NULL AS TEXT) AS basetype_name, e.typname AS elemtype_name, CAST(NULL AS TEXT) AS range_subtype_name \
         FROM pg_catalog.pg_type AS t LEFT JOIN pg_catalog.pg_type AS e ON t.typelem = e.oid WHERE t.oid = ANY($1::oid[])";
    let statements = Parser::parse_sql(&PostgreSqlDialect {}, ANSWER).ok()?;
    match statements.into_iter().next()? {
        Sql::Query(query) => Some(*query),
        _ => None,
    }
}

fn rewritten(expr: Expr) -> Expr {
    match expr {
        Expr::Collate { expr, .. } => *expr,
        Expr::BinaryOp { left, op: BinaryOperator::PGCustomBinaryOperator(words), right } => match operator(&words) {
            Some(op) => Expr::BinaryOp { left, op, right },
            None => Expr::BinaryOp { left, op: BinaryOperator::PGCustomBinaryOperator(words), right },
        },
        Expr::Function(function) => of_function(function),
        Expr::Cast { kind, expr, data_type, array, format } => cast(kind, *expr, data_type, array, format),
        Expr::AnyOp { left, compare_op: BinaryOperator::Eq, right, .. } if !is_subquery(&right) => has(*left, *right),
        Expr::AllOp { left, compare_op: BinaryOperator::NotEq, right } if !is_subquery(&right) => {
            Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(Expr::Nested(Box::new(has(*left, *right)))) }
        }
        Expr::Like { negated, any, expr, pattern, escape_char } => match escape(escape_char.as_ref()) {
            Some(sign) => Expr::Like { negated, any, expr, pattern: Box::new(with_backslash(*pattern, sign)), escape_char: None },
            None => Expr::Like { negated, any, expr, pattern, escape_char },
        },
        Expr::ILike { negated, any, expr, pattern, escape_char } => match escape(escape_char.as_ref()) {
            Some(sign) => Expr::ILike { negated, any, expr, pattern: Box::new(with_backslash(*pattern, sign)), escape_char: None },
            None => Expr::ILike { negated, any, expr, pattern, escape_char },
        },
        Expr::Subquery(query) if is_blank(&query.body) => null(),
        Expr::Subquery(mut query) => {
            aggregate_one(&mut query);
            Expr::Subquery(query)
        }
        Expr::Exists { subquery, negated } if is_blank(&subquery.body) => boolean(negated),
        Expr::InSubquery { subquery, negated, .. } if is_blank(&subquery.body) => boolean(negated),
        other => other,
    }
}

/// The sign of `ESCAPE`, where it is not the backslash.
fn escape(sign: Option<&ValueWithSpan>) -> Option<&str> {
    match &sign?.value {
        Value::SingleQuotedString(sign) if sign != "\\" && sign.chars().count() == 1 => Some(sign),
        _ => None,
    }
}

/// The pattern of `LIKE … ESCAPE sign` as one whose escape is the backslash, the only one that DataFusion has.
fn with_backslash(pattern: Expr, sign: &str) -> Expr {
    // Twice the sign is the sign; it waits as a character that no pattern has.
    const WAITING: &str = "\u{1}";
    let twice = sign.repeat(2);
    let steps = [("\\", "\\\\"), (twice.as_str(), WAITING), (sign, "\\"), (WAITING, sign)];
    match literal(&pattern) {
        Some(text) => string(&steps.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))),
        None => steps.iter().fold(pattern, |pattern, (from, to)| call("replace", vec![pattern, string(from), string(to)])),
    }
}

/// `OPERATOR(pg_catalog.~)` is `~`.
fn operator(words: &[String]) -> Option<BinaryOperator> {
    Some(match words.last()?.as_str() {
        "~" => BinaryOperator::PGRegexMatch,
        "~*" => BinaryOperator::PGRegexIMatch,
        "!~" => BinaryOperator::PGRegexNotMatch,
        "!~*" => BinaryOperator::PGRegexNotIMatch,
        "~~" => BinaryOperator::PGLikeMatch,
        "!~~" => BinaryOperator::PGNotLikeMatch,
        "=" => BinaryOperator::Eq,
        "<>" => BinaryOperator::NotEq,
        "<" => BinaryOperator::Lt,
        ">" => BinaryOperator::Gt,
        "<=" => BinaryOperator::LtEq,
        ">=" => BinaryOperator::GtEq,
        "+" => BinaryOperator::Plus,
        "-" => BinaryOperator::Minus,
        "||" => BinaryOperator::StringConcat,
        _ => return None,
    })
}

fn of_function(mut function: Function) -> Expr {
    if let [ObjectNamePart::Identifier(schema), name] = function.name.0.as_slice()
        && schema.value == PG_CATALOG
    {
        function.name = ObjectName(vec![name.clone()]);
    }
    // What a table function takes must be known when it is planned; JDBC's is how many schemas are searched.
    if function_name(&function) == Some("array_upper") && function.args.to_string().replace(' ', "").ends_with("current_schemas(false),1)")
    {
        return Expr::Value(Value::Number("1".to_owned(), false).into());
    }
    let is_array = matches!(function.name.0.as_slice(), [ObjectNamePart::Identifier(name)] if name.value.eq_ignore_ascii_case("array"));
    if is_array && matches!(function.args, FunctionArguments::Subquery(_)) {
        return call("logweir_no_texts", vec![]);
    }
    Expr::Function(function)
}

fn cast(kind: CastKind, expr: Expr, data_type: DataType, array: bool, format: Option<datafusion::sql::sqlparser::ast::CastFormat>) -> Expr {
    if let DataType::Array(ArrayElemTypeDef::SquareBracket(..)) = &data_type
        && let Some(text) = literal(&expr)
        && let Some(inner) = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'))
    {
        let words = inner.split(',').filter(|word| !word.is_empty());
        return call("make_array", words.map(|word| string(word.trim_matches('"'))).collect());
    }
    let name = data_type.to_string().to_lowercase().replace('"', "");
    let name = name.strip_prefix("pg_catalog.").unwrap_or(&name);
    let is_literal = literal(&expr).is_some();
    let to = |data_type| Expr::Cast { kind: kind.clone(), expr: Box::new(expr.clone()), data_type, array, format: format.clone() };
    match name {
        "regclass" if is_literal => call("logweir_to_regclass", vec![expr]),
        "regclass" => call("logweir_regclass_name", vec![expr]),
        "regtype" if is_literal => call("logweir_to_regtype", vec![expr]),
        "regtype" => call("format_type", vec![expr, null()]),
        "regnamespace" if !is_literal => call("logweir_regnamespace_name", vec![expr]),
        "regrole" if !is_literal => call("pg_get_userbyid", vec![expr]),
        "regproc" if is_literal => string(literal(&expr).unwrap_or_default().trim_start_matches("pg_catalog.")),
        "regproc" | "regprocedure" | "regoper" | "regoperator" | "regnamespace" | "regrole" => to(DataType::Text),
        "oid" | "xid" => to(DataType::BigInt(None)),
        "oid[]" => to(DataType::Array(ArrayElemTypeDef::SquareBracket(Box::new(DataType::BigInt(None)), None))),
        // A type of one byte here, of any length there.
        "name" | "char" | "text" | "bpchar" | "citext" | "varchar" => to(DataType::Text),
        "int2" => to(DataType::SmallInt(None)),
        "int4" => to(DataType::Int(None)),
        "int8" => to(DataType::BigInt(None)),
        "float4" => to(DataType::Real),
        "float8" => to(DataType::DoublePrecision),
        "bool" => to(DataType::Boolean),
        _ => Expr::Cast { kind, expr: Box::new(expr), data_type, array, format },
    }
}

fn has(value: Expr, array: Expr) -> Expr {
    let array = match array {
        Expr::Nested(inner) => *inner,
        other => other,
    };
    call("array_has", vec![array, value])
}

fn is_subquery(expr: &Expr) -> bool {
    match expr {
        Expr::Subquery(_) => true,
        Expr::Nested(inner) => is_subquery(inner),
        _ => false,
    }
}

/// Makes the selects of a body that read what is always empty answer so. True if that is all of it.
fn empty_body(body: &mut SetExpr) -> bool {
    match body {
        SetExpr::Select(select) => {
            if reads_nothing(select) {
                blank(select);
            }
            is_blank_select(select)
        }
        SetExpr::SetOperation { left, right, .. } => {
            let (left, right) = (empty_body(left), empty_body(right));
            left && right
        }
        _ => false,
    }
}

/// True if a table that must have a row for the select to have one is always empty.
fn reads_nothing(select: &Select) -> bool {
    let is_empty = |factor: &TableFactor| match factor {
        TableFactor::Table { name, .. } => match name.0.as_slice() {
            [ObjectNamePart::Identifier(name)] => is_always_empty(&name.value),
            [ObjectNamePart::Identifier(schema), ObjectNamePart::Identifier(name)] => {
                schema.value == PG_CATALOG && is_always_empty(&name.value)
            }
            _ => false,
        },
        TableFactor::Derived { subquery, .. } => match &*subquery.body {
            SetExpr::Select(select) => reads_nothing(select),
            _ => false,
        },
        _ => false,
    };
    let found = select.from.iter().any(|from| {
        let inner = from
            .joins
            .iter()
            .filter(|join| matches!(join.join_operator, JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_)));
        let outer_on_the_left = from
            .joins
            .iter()
            .any(|join| matches!(join.join_operator, JoinOperator::Right(_) | JoinOperator::RightOuter(_) | JoinOperator::FullOuter(_)));
        !outer_on_the_left && (is_empty(&from.relation) || inner.into_iter().any(|join| is_empty(&join.relation)))
    });
    found && !select.projection.iter().any(counts)
}

/// An aggregate has a row where there is none. One within a subquery is that one's.
fn counts(item: &SelectItem) -> bool {
    let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item else { return true };
    Visit::visit(expr, &mut Aggregates { queries: 0 }).is_break()
}

/// Stops at an aggregate that is not in a subquery.
struct Aggregates {
    queries: usize,
}

impl Visitor for Aggregates {
    type Break = ();

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.queries += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.queries -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        const NAMES: [&str; 9] = ["count", "max", "min", "sum", "avg", "string_agg", "array_agg", "bool_or", "bool_and"];
        match expr {
            Expr::Function(function)
                if self.queries == 0
                    && NAMES.iter().any(|name| function_name(function).is_some_and(|own| own.eq_ignore_ascii_case(name))) =>
            {
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

fn function_name(function: &Function) -> Option<&str> {
    function.name.0.last().and_then(|part| part.as_ident()).map(|ident| ident.value.as_str())
}

fn blank(select: &mut Select) {
    for item in &mut select.projection {
        let name = match &*item {
            SelectItem::ExprWithAlias { alias, .. } => alias.clone(),
            SelectItem::UnnamedExpr(Expr::Identifier(name)) => name.clone(),
            SelectItem::UnnamedExpr(Expr::CompoundIdentifier(names)) => names.last().cloned().unwrap_or_else(|| Ident::new("?column?")),
            SelectItem::UnnamedExpr(other) => Ident::with_quote('"', other.to_string().replace('"', "")),
            _ => continue,
        };
        *item = SelectItem::ExprWithAlias { expr: null(), alias: name };
    }
    let mut seen: Vec<String> = Vec::new();
    for item in &mut select.projection {
        if let SelectItem::ExprWithAlias { alias, .. } = item {
            while seen.contains(&alias.value) {
                alias.value.push('_');
            }
            seen.push(alias.value.clone());
        }
    }
    select.from.clear();
    select.distinct = None;
    select.selection = Some(boolean(false));
    select.group_by = GroupByExpr::Expressions(vec![], vec![]);
    select.having = None;
}

fn is_blank(body: &SetExpr) -> bool {
    match body {
        SetExpr::Select(select) => is_blank_select(select),
        SetExpr::SetOperation { left, right, .. } => is_blank(left) && is_blank(right),
        _ => false,
    }
}

fn is_blank_select(select: &Select) -> bool {
    select.from.is_empty() && select.selection.as_ref() == Some(&boolean(false))
}

/// Where a subquery takes one value of catalogs, it takes the least of them.
fn aggregate_one(query: &mut Query) {
    let SetExpr::Select(select) = &mut *query.body else { return };
    let is_catalog = |factor: &TableFactor| match factor {
        TableFactor::Table { name, .. } => {
            matches!(name.0.as_slice(), [ObjectNamePart::Identifier(schema), _] if schema.value == PG_CATALOG)
        }
        _ => false,
    };
    let catalogs_only = !select.from.is_empty()
        && select.from.iter().all(|from| is_catalog(&from.relation) && from.joins.iter().all(|join| is_catalog(&join.relation)));
    let [item] = select.projection.as_mut_slice() else { return };
    if !catalogs_only || counts(item) || select.distinct.is_some() {
        return;
    }
    if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
        let value = std::mem::replace(expr, null());
        *expr = call("min", vec![value]);
        query.order_by = None;
        query.limit_clause = None;
        query.fetch = None;
    }
}

/// What a select calls `pg_class`, if it reads it once beside other tables.
fn class_name(select: &Select) -> Option<Vec<Ident>> {
    let joined = select.from.iter().flat_map(|from| std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)));
    let mut names = joined.filter_map(|factor| match factor {
        TableFactor::Table { name, alias, .. } => {
            let parts: Option<Vec<Ident>> = name.0.iter().map(|part| part.as_ident().cloned()).collect();
            let parts = parts?;
            let is_class = match parts.as_slice() {
                [name] => name.value == "pg_class",
                [schema, name] => schema.value == PG_CATALOG && name.value == "pg_class",
                _ => false,
            };
            is_class.then(|| alias.as_ref().map_or(parts, |alias| vec![alias.name.clone()]))
        }
        _ => None,
    });
    let name = names.next()?;
    if names.next().is_some() { None } else { Some(name) }
}

/// Adds the numbers to the names in a filter, where it holds for every row.
fn number_names(filter: &mut Expr, class: &[Ident]) {
    let is_name = |expr: &Expr| match expr {
        Expr::Identifier(name) => name.value == "relname",
        Expr::CompoundIdentifier(names) => names
            .split_last()
            .is_some_and(|(name, of)| name.value == "relname" && of.last().map(|of| &of.value) == class.last().map(|class| &class.value)),
        _ => false,
    };
    let (function, names) = match filter {
        Expr::Nested(inner) => return number_names(inner, class),
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            number_names(left, class);
            return number_names(right, class);
        }
        Expr::BinaryOp { left, op: BinaryOperator::Eq, right } if is_name(left) => ("logweir_tables_named", vec![(**right).clone()]),
        Expr::InList { expr, list, negated: false } if is_name(expr) => ("logweir_tables_named", list.clone()),
        Expr::Like { negated: false, any: false, expr, pattern, escape_char: None } if is_name(expr) => {
            ("logweir_tables_like", vec![(**pattern).clone()])
        }
        _ => return,
    };
    if !names.iter().all(is_constant) {
        return;
    }
    let number = Expr::CompoundIdentifier(class.iter().cloned().chain([Ident::new("oid")]).collect());
    let is_one = call("array_has", vec![call(function, names), number]);
    let named = std::mem::replace(filter, null());
    *filter = Expr::Nested(Box::new(Expr::BinaryOp { left: Box::new(is_one), op: BinaryOperator::And, right: Box::new(named) }));
}

/// True for texts and parameters.
fn is_constant(expr: &Expr) -> bool {
    match expr {
        Expr::Value(value) => {
            matches!(value.value, Value::SingleQuotedString(_) | Value::EscapedStringLiteral(_) | Value::Placeholder(_))
        }
        Expr::Cast { expr, .. } | Expr::Nested(expr) => is_constant(expr),
        _ => false,
    }
}

fn literal(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(text),
            _ => None,
        },
        Expr::Nested(inner) => literal(inner),
        _ => None,
    }
}

fn null() -> Expr {
    Expr::Value(Value::Null.into())
}

fn boolean(value: bool) -> Expr {
    Expr::Value(Value::Boolean(value).into())
}

fn string(text: &str) -> Expr {
    Expr::Value(Value::SingleQuotedString(text.to_owned()).into())
}

fn call(name: &str, arguments: Vec<Expr>) -> Expr {
    let args = arguments.into_iter().map(|argument| FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))).collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: vec![] }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}
