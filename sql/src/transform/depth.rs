//! How deep an expression goes.
//!
//! Whatever walks an expression calls itself as often as the expression is deep: `a OR b OR c` is one deep in the other. The parser,
//! the planner and what evaluates rows all do, and a stack that runs out ends the process. So SQL is read and planned on a stack of
//! its own, and what is deeper than every other stack bears is refused.

use std::ops::ControlFlow;
use std::thread::{Builder, scope};

use datafusion::sql::sqlparser::ast::{ArrayElemTypeDef, BinaryOperator, DataType, Expr, Spanned, Visit, Visitor};

use super::problem::Fault;

/// Planning takes some tens of KiB for each step down in a debug build. Memory that is not used is not taken.
const STACK_BYTES: usize = 256 << 20;

/// Evaluating takes about a KiB for each step down, and is done on stacks of 2 MiB.
pub(super) const DEPTH_MAX: usize = 400;

/// More than these cannot be read on the stack, were each a step down.
pub(crate) const WORDS_MAX: usize = 20_000;

/// With each arrow of a chain planning takes twice as long.
const ARROWS_MAX: usize = 8;

/// How many steps down an expression is by itself: each subscript of `a[1][2]` and each dimension of `int[][]` is one.
fn steps(expr: &Expr) -> usize {
    let dimensions = |mut data_type: &DataType| {
        let mut dimensions = 0;
        while let DataType::Array(ArrayElemTypeDef::SquareBracket(item, _) | ArrayElemTypeDef::AngleBracket(item)) = data_type {
            (data_type, dimensions) = (item, dimensions + 1);
        }
        dimensions
    };
    1 + match expr {
        Expr::CompoundFieldAccess { access_chain, .. } => access_chain.len(),
        Expr::Cast { data_type, .. } | Expr::Convert { data_type: Some(data_type), .. } => dimensions(data_type),
        Expr::TypedString(text) => dimensions(&text.data_type),
        _ => 0,
    }
}

fn is_arrow(expr: &Expr) -> bool {
    matches!(expr, Expr::BinaryOp { op: BinaryOperator::Arrow | BinaryOperator::LongArrow, .. })
}

/// Does something on a large stack.
pub(crate) fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, Fault> {
    scope(|scope| {
        let thread = Builder::new().name("sql-plan".to_owned()).stack_size(STACK_BYTES).spawn_scoped(scope, work);
        let thread = thread.map_err(|_| Fault::new("could not start a thread to plan a transform"))?;
        // Constants are computed when they are planned, and some functions panic on some of them.
        thread.join().map_err(|_| Fault::new("an expression cannot be computed, whatever the row"))
    })
}

/// Refuses what is too deep.
pub(crate) fn not_too_deep(node: &impl Visit) -> Result<(), Fault> {
    #[derive(Default)]
    struct Depth {
        all: usize,
        arrows: usize,
    }
    impl Visitor for Depth {
        type Break = Fault;

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Fault> {
            self.all += steps(expr);
            self.arrows += usize::from(is_arrow(expr));
            if self.arrows > ARROWS_MAX {
                let fault = Fault::at(format!("more than {ARROWS_MAX} arrows stand in a chain"), expr.span());
                return ControlFlow::Break(
                    fault.help("write json_get_str(column, 'a', 'b', …), or json_get_json for a part that is no text"),
                );
            }
            if self.all <= DEPTH_MAX {
                return ControlFlow::Continue(());
            }
            ControlFlow::Break(
                Fault::at(format!("an expression is more than {DEPTH_MAX} deep"), expr.span())
                    .help("write IN (…) for many comparisons with one column, or look the values up in a reference table"),
            )
        }

        fn post_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Fault> {
            self.all -= steps(expr);
            self.arrows -= usize::from(is_arrow(expr));
            ControlFlow::Continue(())
        }
    }
    match node.visit(&mut Depth::default()) {
        ControlFlow::Break(fault) => Err(fault),
        ControlFlow::Continue(()) => Ok(()),
    }
}
