//! How much work a statement is to plan.
//!
//! Planning cannot be interrupted, and calls itself as deep as the plan is. So a statement of a client is bounded before it is planned: in its
//! words, in the depth of its expressions, in its set operations, and in its tables, each counted as often as a plan holds it: a name of
//! WITH stands for all that is below it wherever it is used.

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectName, Query, Statement as Sql, Value, Visit, Visitor,
};
use logweir_core::{Error, Result};

use super::amounts;
use super::state::TOO_COMPLEX;
use crate::transform::depth::{WORDS_MAX, not_too_deep};

/// Tables of a statement, with those that stand for others counted in full.
const RELATIONS_MAX: usize = 500;

/// Each is a step down in the plan.
const SET_OPERATIONS_MAX: usize = 200;

/// Calls of functions that make much of little: each may make as much as a part of the query's memory.
const AMOUNTS_MAX: usize = 50;

/// Letters between the texts that `string_agg` puts together, once for each row.
const SEPARATOR_MAX: usize = 64;

/// Bounds what is parsed: the text.
pub(super) fn check_text(text: &str) -> Result<()> {
    let (mut words, mut operations) = (0, 0);
    for word in text.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty()) {
        words += 1;
        operations += usize::from(["union", "intersect", "except", "minus"].iter().any(|name| word.eq_ignore_ascii_case(name)));
    }
    let signs = text.bytes().filter(|byte| b"()[]+-*/%|&^~!=<>".contains(byte)).count();
    if words + signs > WORDS_MAX {
        return Err(too_complex(format!("it has more than {WORDS_MAX} words and signs")));
    }
    if operations > SET_OPERATIONS_MAX {
        return Err(too_complex(format!("it has more than {SET_OPERATIONS_MAX} set operations")));
    }
    Ok(())
}

/// Bounds what is planned: the statement.
pub(super) fn check_statement(statement: &Statement) -> Result<()> {
    let sql: &Sql = match statement {
        Statement::Statement(sql) => sql,
        Statement::Explain(explain) => return check_statement(&explain.statement),
        _ => return Ok(()),
    };
    not_too_deep(sql).map_err(|fault| too_complex(fault.message))?;
    let mut scale = Scale::default();
    let _ = sql.visit(&mut scale);
    if scale.weight > RELATIONS_MAX {
        return Err(too_complex(format!("it reads more than {RELATIONS_MAX} tables, counted as often as it names them")));
    }
    let mut amounts = Amounts::default();
    let _ = sql.visit(&mut amounts);
    if amounts.calls > AMOUNTS_MAX {
        return Err(too_complex(format!("it calls functions that make much of little more than {AMOUNTS_MAX} times")));
    }
    if amounts.separates {
        return Err(too_complex(format!("what string_agg puts between texts is a text of at most {SEPARATOR_MAX} letters")));
    }
    Ok(())
}

/// Counts calls of functions that make much of little.
#[derive(Default)]
struct Amounts {
    calls: usize,
    /// Something is put between texts that may be long.
    separates: bool,
}

impl Visitor for Amounts {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
        let name = function.name.0.last().and_then(|part| part.as_ident()).map(|ident| ident.value.to_lowercase()).unwrap_or_default();
        if ["string_agg", "listagg"].contains(&name.as_str()) {
            let arguments = if let FunctionArguments::List(list) = &function.args { list.args.as_slice() } else { &[] };
            self.separates |= arguments.iter().skip(1).any(|argument| !is_short(argument));
        }
        // By all their names: `list_` is another word for `array_`.
        let name = name.strip_prefix("list_").map_or(name.clone(), |rest| format!("array_{rest}"));
        let others = ["array_cat", "array_join"];
        self.calls += usize::from(amounts::NAMES.contains(&name.as_str()) || others.contains(&name.as_str()));
        ControlFlow::Continue(())
    }
}

fn is_short(argument: &FunctionArg) -> bool {
    let FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value))) = argument else { return false };
    match &value.value {
        Value::Null => true,
        text => text.clone().into_string().is_some_and(|text| text.chars().count() <= SEPARATOR_MAX),
    }
}

fn too_complex(why: String) -> Error {
    Error::config(TOO_COMPLEX).source(why)
}

/// Weighs the tables.
#[derive(Default)]
struct Scale {
    weight: usize,
    /// What the names of WITH stand for.
    named: HashMap<String, usize>,
}

impl Visitor for Scale {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        for table in query.with.iter().flat_map(|with| &with.cte_tables) {
            let mut below = Scale { weight: 0, named: self.named.clone() };
            let _ = table.query.visit(&mut below);
            self.named.insert(table.alias.name.value.to_lowercase(), below.weight.max(1));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        let name = relation.0.last().and_then(|part| part.as_ident()).map(|ident| ident.value.to_lowercase());
        self.weight = self.weight.saturating_add(name.and_then(|name| self.named.get(&name).copied()).unwrap_or(1));
        if self.weight > RELATIONS_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use datafusion::sql::parser::DFParser;

    use super::*;
    use crate::transform::depth::on_large_stack;

    fn check(text: &str) -> Result<()> {
        check_text(text)?;
        on_large_stack(|| check_statement(&DFParser::parse_sql(text).unwrap()[0])).unwrap_or_else(|_| panic!("{text}"))
    }

    #[test]
    fn what_grows_is_refused_before_it_is_planned() {
        assert!(check("WITH a AS (SELECT 1), b AS (SELECT * FROM a, a) SELECT * FROM b, b").is_ok());
        let mut doubled = "WITH t0 AS (SELECT 1)".to_owned();
        for i in 1..40 {
            let before = i - 1;
            doubled.push_str(&format!(", t{i} AS (SELECT * FROM t{before} x, t{before} y)"));
        }
        let refused = check(&format!("{doubled} SELECT * FROM t39")).unwrap_err();
        assert_eq!(super::super::sqlstate(&refused), "54001");
        assert!(check(&"SELECT 1 UNION ".repeat(300)).is_err_and(|error| error.report().contains("set operations")));
        let deep = format!("SELECT {}1", "1 + ".repeat(1000));
        assert!(check(&deep).is_err_and(|error| error.report().contains("deep")));
        for deep in [format!("SELECT NULL::int{}", "[]".repeat(1000)), format!("SELECT a{} FROM t", "[1]".repeat(1000))] {
            assert!(check(&deep).is_err_and(|error| error.report().contains("deep")), "{deep}");
        }
        assert!(check(&format!("SELECT NULL::int{}", "[]".repeat(100_000))).is_err());
        assert!(
            check(&format!("SELECT {}", vec!["repeat('a', 9)"; 60].join(", ")))
                .is_err_and(|error| error.report().contains("much of little"))
        );
        assert!(check("SELECT string_agg(a, repeat(',', 9)) FROM t").is_err_and(|error| error.report().contains("string_agg")));
        assert!(check("SELECT string_agg(a, ', ') FROM t").is_ok());
    }
}
