//! SQL as it is meant, where the parser takes it otherwise than PostgreSQL.
//!
//! * `body->>'a' = 'x'` is to the parser `body->>('a' = 'x')`. Arrows bind closer than comparisons.
//! * `a IS DISTINCT FROM b AND c` is to the parser `a IS DISTINCT FROM (b AND c)`. AND and OR bind less.
//! * A cast to `VARCHAR(3)` is to DataFusion one to `VARCHAR`. It cuts.
//! * `1e300` is to DataFusion a decimal that there is not. It is a double.

use std::mem::replace;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, CharacterLength, DataType, ExactNumberInfo, Expr, Spanned, UnaryOperator, Value, VisitMut, VisitorMut,
};

/// Puts it right wherever it is in the statement.
pub(super) fn as_meant(statement: &mut impl VisitMut) {
    struct Meant;
    impl VisitorMut for Meant {
        type Break = ();

        // What is inside has been put right.
        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            arrows_first(expr);
            connectives_last(expr);
            cut(expr);
            double(expr);
            ControlFlow::Continue(())
        }
    }
    let _ = VisitMut::visit(statement, &mut Meant);
}

/// The part of it that holds for queries as well: what IS DISTINCT FROM takes in.
pub(crate) fn distinct_as_meant(statement: &mut impl VisitMut) {
    struct Meant;
    impl VisitorMut for Meant {
        type Break = ();

        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            connectives_last(expr);
            ControlFlow::Continue(())
        }
    }
    let _ = VisitMut::visit(statement, &mut Meant);
}

/// Takes AND and OR without parentheses out of what binds closer than they do, from the right of it: of IS DISTINCT FROM, and then of what
/// that stands in.
fn connectives_last(expr: &mut Expr) {
    use BinaryOperator::{And, Or};
    let (taken, also_and) = match expr {
        Expr::IsDistinctFrom(_, taken) | Expr::IsNotDistinctFrom(_, taken) => (taken, true),
        Expr::UnaryOp { op: UnaryOperator::Not, expr: taken } => (taken, true),
        Expr::BinaryOp { op: And, right: taken, .. } => (taken, false),
        _ => return,
    };
    let is_outer = |expr: &Expr| matches!(expr, Expr::BinaryOp { op, .. } if *op == Or || (also_and && *op == And));
    if !is_outer(taken) {
        return;
    }
    let mut whole = replace(taken.as_mut(), nothing());
    let mut first = &mut whole;
    while is_outer(first) {
        let Expr::BinaryOp { left, .. } = first else { return };
        first = left.as_mut();
    }
    *taken.as_mut() = replace(first, nothing());
    *first = replace(expr, nothing());
    *expr = whole;
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

/// The last operand of what stands before an arrow without parentheses, where it is the arrow's.
fn object(expr: &mut Expr) -> Option<&mut Box<Expr>> {
    match expr {
        Expr::BinaryOp { right, op, .. } if is_comparison(op) => Some(right),
        Expr::IsDistinctFrom(_, right) | Expr::IsNotDistinctFrom(_, right) => Some(right),
        Expr::Between { high, .. } => Some(high),
        Expr::Like { pattern, .. } | Expr::ILike { pattern, .. } | Expr::SimilarTo { pattern, .. } | Expr::RLike { pattern, .. } => {
            Some(pattern)
        }
        _ => None,
    }
}

fn arrows_first(expr: &mut Expr) {
    let Expr::BinaryOp { left, op, right } = expr else { return };
    if !is_arrow(op) {
        return;
    }
    // `x = body` -> 'a': the arrow is of the right side.
    if object(left).is_some() {
        let mut whole = replace(left.as_mut(), nothing());
        if let Some(compared) = object(&mut whole) {
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

/// Digits of a decimal.
const DIGITS_MAX: i64 = 38;

/// A number with an exponent that no decimal has.
fn double(expr: &mut Expr) {
    let Expr::Value(value) = expr else { return };
    let Value::Number(text, _) = &value.value else { return };
    let Some((digits, exponent)) = text.to_lowercase().split_once('e').map(|(digits, exponent)| (digits.to_owned(), exponent.to_owned()))
    else {
        return;
    };
    let whole = digits.split('.').next().map_or(0, str::len) as i64;
    let fraction = digits.len() as i64 - whole;
    let fits = exponent.parse::<i64>().is_ok_and(|exponent| {
        exponent.checked_add(whole).is_some_and(|whole| whole <= DIGITS_MAX)
            && fraction.checked_sub(exponent).is_some_and(|scale| scale <= DIGITS_MAX)
    });
    if !fits {
        let text = Value::SingleQuotedString(text.clone()).with_span(value.span);
        *expr = Expr::Cast {
            kind: CastKind::Cast,
            expr: Box::new(Expr::Value(text)),
            data_type: DataType::Double(ExactNumberInfo::None),
            array: false,
            format: None,
        };
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
