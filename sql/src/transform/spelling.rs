//! SQL as it is meant, where the parser takes it otherwise than PostgreSQL.
//!
//! * `body->>'a' = 'x'` is to the parser `body->>('a' = 'x')`. Arrows bind closer than comparisons.
//! * A cast to `VARCHAR(3)` is to DataFusion one to `VARCHAR`. It cuts.

use std::mem::replace;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{BinaryOperator, CharacterLength, DataType, Expr, Spanned, Value, VisitMut, VisitorMut};

/// Puts it right wherever it is in the statement.
pub(super) fn as_meant(statement: &mut impl VisitMut) {
    struct Meant;
    impl VisitorMut for Meant {
        type Break = ();

        // What is inside has been put right.
        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            arrows_first(expr);
            cut(expr);
            ControlFlow::Continue(())
        }
    }
    let _ = VisitMut::visit(statement, &mut Meant);
}

fn nothing() -> Expr {
    Expr::value(Value::Null)
}

fn is_arrow(operator: &BinaryOperator) -> bool {
    matches!(operator, BinaryOperator::Arrow | BinaryOperator::LongArrow)
}

fn is_comparison(operator: &BinaryOperator) -> bool {
    use BinaryOperator::*;
    matches!(operator, Eq | NotEq | Lt | LtEq | Gt | GtEq | Spaceship)
        || matches!(operator, PGRegexMatch | PGRegexIMatch | PGRegexNotMatch | PGRegexNotIMatch)
        || matches!(operator, PGLikeMatch | PGILikeMatch | PGNotLikeMatch | PGNotILikeMatch)
}

/// The first operand of what stands behind an arrow without parentheses, where it is not the arrow's alone.
fn subject(expr: &mut Expr) -> Option<&mut Box<Expr>> {
    match expr {
        // Arrows and || are taken from left to right.
        Expr::BinaryOp { left, op, .. } if is_comparison(op) || *op == BinaryOperator::StringConcat => Some(left),
        Expr::IsNull(of) | Expr::IsNotNull(of) | Expr::IsTrue(of) | Expr::IsNotTrue(of) | Expr::IsFalse(of) | Expr::IsNotFalse(of) => {
            Some(of)
        }
        Expr::IsUnknown(of) | Expr::IsNotUnknown(of) | Expr::IsDistinctFrom(of, _) | Expr::IsNotDistinctFrom(of, _) => Some(of),
        Expr::InList { expr, .. } | Expr::Between { expr, .. } => Some(expr),
        Expr::Like { expr, .. } | Expr::ILike { expr, .. } | Expr::SimilarTo { expr, .. } | Expr::RLike { expr, .. } => Some(expr),
        _ => None,
    }
}

fn arrows_first(expr: &mut Expr) {
    let Expr::BinaryOp { left, op, right } = expr else { return };
    if !is_arrow(op) {
        return;
    }
    // `x = body` -> 'a': the arrow is of the right side.
    if let Expr::BinaryOp { op: comparison, .. } = left.as_ref()
        && is_comparison(comparison)
    {
        let mut whole = replace(left.as_mut(), nothing());
        if let Expr::BinaryOp { right: compared, .. } = &mut whole {
            *left.as_mut() = replace(compared.as_mut(), nothing());
            *compared.as_mut() = replace(expr, nothing());
            arrows_first(compared);
        }
        *expr = whole;
        return;
    }
    // body -> `'a' = x`: the arrow ends before the comparison.
    if subject(right).is_some() {
        let mut whole = replace(right.as_mut(), nothing());
        if let Some(about) = subject(&mut whole) {
            *right.as_mut() = replace(about.as_mut(), nothing());
            *about.as_mut() = replace(expr, nothing());
            arrows_first(about);
        }
        *expr = whole;
    }
}

fn cut(expr: &mut Expr) {
    let span = expr.span();
    let Expr::Cast { data_type, .. } = expr else { return };
    let length = match data_type {
        DataType::Varchar(length) | DataType::CharacterVarying(length) | DataType::CharVarying(length) => length,
        DataType::Char(length) | DataType::Character(length) => length,
        _ => return,
    };
    let length = length.take();
    *data_type = DataType::Varchar(None);
    let Some(CharacterLength::IntegerLength { length, .. }) = length else { return };
    let number = |number: u64| Some(Box::new(Expr::Value(Value::Number(number.to_string(), false).with_span(span))));
    let whole = Box::new(replace(expr, nothing()));
    *expr = Expr::Substring { expr: whole, substring_from: number(1), substring_for: number(length), special: true, shorthand: false };
}
