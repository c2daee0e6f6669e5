//! SQL transforms from the outside: rules and changes in, changes out.

mod before;
mod cases;
pub(crate) mod changes;
mod columns;
mod masks;
mod misfits;
mod numbers;
mod quarantine;
mod random;
mod references;
mod refusals;
mod targets;

use std::sync::Arc;

use arrow::datatypes::DataType;
use logweir_core::{Error, Pattern, Relation, Transform};
use logweir_sql::{SqlContext, SqlProblem, SqlRule, SqlTransform};

use changes::{Change, batch, changes, described, printed, table};

/// A rule for `shop.*`.
fn rule(sql: &str) -> SqlRule {
    SqlRule::new(Pattern::new("shop.*"), sql)
}

fn transform(rules: Vec<SqlRule>, context: SqlContext) -> SqlTransform {
    SqlTransform::new(rules, context).unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// The table of most tests.
fn customers() -> Arc<Relation> {
    use DataType::*;
    table("shop.customers", 1, &[("id", Int32), ("name", Utf8), ("age", Int32)], &["id"])
}

/// What a transform makes of changes, as one batch.
fn made(transform: &SqlTransform, relation: &Arc<Relation>, changes: &[Change]) -> Result<String, Error> {
    Ok(transform.apply(batch(relation, changes))?.iter().map(printed).collect())
}

/// What rules make of changes of a table, or why they do not.
fn applied(rules: Vec<SqlRule>, context: SqlContext, relation: &Arc<Relation>, text: &str) -> String {
    let sql: Vec<String> = rules.iter().map(|rule| rule.sql.clone()).collect();
    let mut transform = transform(rules, context);
    match transform.plan(relation) {
        Ok((_, warnings)) => {
            let mut out: String = warnings.iter().map(|warning| format!("warning: {warning}\n")).collect();
            out += &made(&transform, relation, &changes(text)).unwrap_or_else(|error| format!("{}\n", error.report()));
            out
        }
        Err(problems) => problems.iter().map(|problem| shown(problem, &sql[problem.rule])).collect(),
    }
}

/// What one rule makes of changes of `shop.customers`.
fn customers_under(sql: &str, text: &str) -> String {
    applied(vec![rule(sql)], SqlContext::default(), &customers(), text)
}

/// A problem with its place in the SQL.
fn shown(problem: &SqlProblem, sql: &str) -> String {
    let mut text = format!("{}\n", problem.message);
    if let Some(place) = problem.place {
        let line = sql.lines().nth(place.line - 1).unwrap_or("");
        text += &format!("  {line}\n  {}{}\n", " ".repeat(place.column - 1), "^".repeat(place.length));
    }
    if let Some(help) = &problem.help {
        text += &format!("help: {help}\n");
    }
    text
}

/// What is said about a rule that does not fit a table.
#[allow(dead_code, reason = "for the tests of refusals")]
fn refused(rules: Vec<SqlRule>, context: SqlContext, relation: &Arc<Relation>) -> String {
    let sql: Vec<String> = rules.iter().map(|rule| rule.sql.clone()).collect();
    let problems = match SqlTransform::new(rules, context) {
        Err(problems) => problems,
        Ok(mut transform) => match transform.plan(relation) {
            Err(problems) => problems,
            Ok((targets, warnings)) => {
                let warned: String = warnings.iter().map(|warning| format!("warning: {warning}\n")).collect();
                return warned + &targets.iter().map(|target| format!("{}\n", described(target))).collect::<String>();
            }
        },
    };
    problems.iter().map(|problem| shown(problem, &sql[problem.rule])).collect()
}
