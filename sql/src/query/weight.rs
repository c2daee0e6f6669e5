//! How much work a statement is to plan.
//!
//! Planning cannot be interrupted, and calls itself as deep as the plan is. So a statement of a client is bounded before it is planned: in its
//! words, in the depth of its expressions, in its set operations, and in its tables, each counted as often as a plan holds it: a name of
//! WITH stands for all that is below it wherever it is used.

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{ObjectName, Query, Statement as Sql, Visit, Visitor};
use logweir_core::{Error, Result};

use super::state::TOO_COMPLEX;
use crate::transform::depth::{WORDS_MAX, not_too_deep};

/// Tables of a statement, with those that stand for others counted in full.
const RELATIONS_MAX: usize = 500;

/// Each is a step down in the plan.
const SET_OPERATIONS_MAX: usize = 200;

/// Bounds what is parsed: the text.
pub(super) fn check_text(text: &str) -> Result<()> {
    let (mut words, mut operations) = (0, 0);
    for word in text.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty()) {
        words += 1;
        operations += usize::from(["union", "intersect", "except", "minus"].iter().any(|name| word.eq_ignore_ascii_case(name)));
    }
    let signs = text.bytes().filter(|byte| b"()+-*/%|&^~!=<>".contains(byte)).count();
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
    Ok(())
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
    }
}
