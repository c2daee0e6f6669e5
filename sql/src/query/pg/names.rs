//! Names of an answer's columns, as PostgreSQL makes them: `count`, not `count(*)`.
//!
//! Only for showing: several columns may have one name there, which no plan may have.

use datafusion::sql::sqlparser::ast::{AccessExpr, Expr, Ident, ObjectName, Query, SelectItem, SetExpr, Subscript, Value};

/// What is in the place of an item of the select list.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Item {
    /// A column whose name is made of its expression.
    Named(String),
    /// One that has a name.
    Own,
    /// As many as there are.
    All,
}

/// The names of the columns of a query, as far as they are other than those that the plan gives them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::query) struct Names(Vec<Item>);

impl Names {
    pub(in crate::query) fn of(query: &Query) -> Self {
        fn first(body: &SetExpr) -> Option<&[SelectItem]> {
            match body {
                SetExpr::Select(select) => Some(&select.projection),
                SetExpr::Query(query) => first(&query.body),
                SetExpr::SetOperation { left, .. } => first(left),
                _ => None,
            }
        }
        let items = first(&query.body).unwrap_or_default();
        Names(items.iter().map(item).collect())
    }

    /// For each of `count` columns the name that is to be shown in place of its own.
    pub(in crate::query) fn shown(&self, count: usize) -> Vec<Option<&str>> {
        let wide = self.0.iter().filter(|item| **item == Item::All).count();
        let known = self.0.len() - wide;
        // Of two `*` nobody can say here which has how many.
        if wide > 1 || known > count || (wide == 0 && known != count) {
            return vec![None; count];
        }
        let mut shown = Vec::with_capacity(count);
        for item in &self.0 {
            match item {
                Item::Named(name) => shown.push(Some(name.as_str())),
                Item::Own => shown.push(None),
                Item::All => shown.extend(std::iter::repeat_n(None, count - known)),
            }
        }
        shown
    }
}

fn item(item: &SelectItem) -> Item {
    match item {
        SelectItem::UnnamedExpr(expr) => match figure(expr) {
            Figure::Column => Item::Own,
            Figure::Strong(name) | Figure::Weak(name) => Item::Named(name),
            Figure::None => Item::Named("?column?".to_owned()),
        },
        SelectItem::ExprWithAlias { .. } => Item::Own,
        _ => Item::All,
    }
}

/// How much a name says: that of a type gives way to others.
enum Figure {
    Column,
    Strong(String),
    Weak(String),
    None,
}

fn strong(name: &str) -> Figure {
    Figure::Strong(name.to_owned())
}

fn of_ident(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

fn last(name: &ObjectName) -> Option<String> {
    name.0.last().and_then(|part| part.as_ident()).map(of_ident)
}

fn figure(expr: &Expr) -> Figure {
    match expr {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => Figure::Column,
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => figure(inner),
        Expr::Function(function) => last(&function.name).map_or(Figure::None, Figure::Strong),
        Expr::Cast { expr, data_type, .. } => match figure(expr) {
            Figure::None | Figure::Weak(_) => Figure::Weak(type_name(&data_type.to_string())),
            // A column under a cast has its name, which the plan may give it or not.
            Figure::Column => column_name(expr).map_or(Figure::None, Figure::Strong),
            strong => strong,
        },
        Expr::Case { else_result, .. } => match else_result.as_deref().map(figure) {
            Some(Figure::Strong(name)) => Figure::Strong(name),
            Some(Figure::Column) => else_result.as_deref().and_then(column_name).map_or(Figure::None, Figure::Strong),
            _ => Figure::Weak("case".to_owned()),
        },
        Expr::Subquery(query) => match Names::of(query).0.first() {
            Some(Item::Named(name)) => Figure::Strong(name.clone()),
            _ => match &*query.body {
                SetExpr::Select(select) => match select.projection.first() {
                    Some(SelectItem::ExprWithAlias { alias, .. }) => Figure::Strong(of_ident(alias)),
                    Some(SelectItem::UnnamedExpr(expr)) => column_name(expr).map_or(Figure::None, Figure::Strong),
                    _ => Figure::None,
                },
                _ => Figure::None,
            },
        },
        Expr::Exists { .. } => strong("exists"),
        Expr::Extract { .. } => strong("extract"),
        Expr::Ceil { .. } => strong("ceil"),
        Expr::Floor { .. } => strong("floor"),
        Expr::Position { .. } => strong("position"),
        Expr::Substring { .. } => strong("substring"),
        Expr::Overlay { .. } => strong("overlay"),
        Expr::Trim { .. } => strong("btrim"),
        Expr::AtTimeZone { .. } => strong("timezone"),
        Expr::Array(_) => strong("array"),
        Expr::Tuple(_) => strong("row"),
        Expr::Interval(_) => Figure::Weak("interval".to_owned()),
        Expr::TypedString(typed) => Figure::Weak(type_name(&typed.data_type.to_string())),
        Expr::CompoundFieldAccess { root, access_chain } => {
            let field = access_chain.iter().rev().find_map(|access| match access {
                AccessExpr::Dot(Expr::Identifier(name)) => Some(of_ident(name)),
                AccessExpr::Subscript(Subscript::Index { index: Expr::Value(value) }) => match &value.value {
                    Value::SingleQuotedString(name) => Some(name.clone()),
                    _ => None,
                },
                _ => None,
            });
            match field.or_else(|| column_name(root)) {
                Some(name) => Figure::Strong(name),
                None => figure(root),
            }
        }
        _ => Figure::None,
    }
}

fn column_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(name) => Some(of_ident(name)),
        Expr::CompoundIdentifier(names) => names.last().map(of_ident),
        Expr::Nested(inner) => column_name(inner),
        _ => None,
    }
}

/// As the catalog calls a type that is written in several words or ways.
fn type_name(written: &str) -> String {
    let written = written.to_lowercase();
    let name = written.split('(').next().unwrap_or(&written).trim();
    let name = match name {
        "int" | "integer" => "int4",
        "bigint" => "int8",
        "smallint" => "int2",
        "boolean" => "bool",
        "real" => "float4",
        "double precision" | "double" => "float8",
        "decimal" => "numeric",
        "character varying" => "varchar",
        "char" | "character" => "bpchar",
        "timestamp with time zone" => "timestamptz",
        "timestamp without time zone" => "timestamp",
        "time without time zone" => "time",
        other => other,
    };
    name.rsplit('.').next().unwrap_or(name).trim_matches('"').to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use datafusion::sql::sqlparser::ast::Statement;
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;

    fn names(list: &str, count: usize) -> String {
        let parsed = Parser::parse_sql(&PostgreSqlDialect {}, &format!("SELECT {list} FROM t")).unwrap();
        let Statement::Query(query) = &parsed[0] else { panic!("a query") };
        Names::of(query).shown(count).into_iter().map(|name| name.unwrap_or("-")).collect::<Vec<_>>().join(" ")
    }

    /// What PostgreSQL 15 calls them; `-` is the name that the plan has.
    #[test]
    fn columns_are_named_as_postgresql_names_them() {
        for (list, shown) in [
            ("count(*), COUNT(a), \"Sum\"(b)", "count count Sum"),
            ("a, t.b, a AS c, 1, 'x', -a, a + 1", "- - - ?column? ?column? ?column? ?column?"),
            ("a::text, 1::bigint, count(*)::int, '2026-01-01'::date, DATE '2026-01-01', true", "a int8 count date date ?column?"),
            ("CASE WHEN a THEN b END, CASE WHEN a THEN b ELSE c END, CASE WHEN a THEN b ELSE count(*) END", "case c count"),
            ("(SELECT max(a) FROM s), (SELECT a AS b FROM s), EXISTS (SELECT 1), (SELECT a FROM s)", "max b exists a"),
            ("coalesce(a, b), extract(year FROM a), trim(a), substring(a from 2), a COLLATE \"C\"", "coalesce extract btrim substring -"),
            ("a IS NULL, a IN (1, 2), NOT a, NULL", "?column? ?column? ?column? ?column?"),
            ("CAST(a AS numeric(10,2)), interval '1 day', ARRAY[1]", "a interval array"),
        ] {
            let count = shown.split(' ').count();
            assert_eq!(names(list, count), shown, "{list}");
        }
        assert_eq!(names("count(*) OVER (), *, a + 1", 5), "count - - - ?column?");
        assert_eq!(names("s.*, t.*, 1", 7), "- - - - - - -");
        assert_eq!(names("1", 3), "- - -");
    }
}
