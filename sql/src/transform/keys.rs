//! Which expressions keep the values of a key column apart: two rows that differ before must differ afterwards.

use arrow::datatypes::DataType;
use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::{Expr, ExprSchemable};

use super::plan::call_of;

/// The column whose values the expression keeps apart, if it is such a one.
pub(super) fn keeps_apart<'a>(expr: &'a Expr, schema: &DFSchema) -> Option<&'a Column> {
    match expr {
        Expr::Column(column) => Some(column),
        Expr::Alias(alias) => keeps_apart(&alias.expr, schema),
        Expr::Cast(Cast { expr, field }) => {
            let from = expr.get_type(schema).ok()?;
            if injective(&from, field.data_type()) { keeps_apart(expr, schema) } else { None }
        }
        other => {
            let call = call_of(other, |name| matches!(name, "mask_hash" | "mask_tokenize"))?;
            keeps_apart(call.args.first()?, schema)
        }
    }
}

/// True if a cast gives different values for different values. One that may fail for some (a number too large) does so for those.
fn injective(from: &DataType, to: &DataType) -> bool {
    use DataType::*;
    let text = |data_type: &DataType| matches!(data_type, Utf8 | LargeUtf8 | Utf8View);
    let bytes = |data_type: &DataType| matches!(data_type, Binary | LargeBinary | BinaryView | FixedSizeBinary(_));
    match (from, to) {
        (from, to) if from == to => true,
        (Dictionary(_, from), to) => injective(from, to),
        (from, to) if from.is_integer() && to.is_integer() => true,
        (from, to) if text(from) && (text(to) || matches!(to, Binary | LargeBinary | BinaryView)) => true,
        (from, to) if bytes(from) && bytes(to) => true,
        // A whole number has one text, however wide its type becomes. A decimal, a day or a moment gets another one with another scale or
        // fraction, and the rows under the old one would stay.
        (from, to) if text(to) => from.is_integer() || *from == Boolean,
        (from, Decimal128(_, scale) | Decimal256(_, scale)) if from.is_integer() => *scale >= 0,
        (
            Decimal32(_, from) | Decimal64(_, from) | Decimal128(_, from) | Decimal256(_, from),
            Decimal32(_, to) | Decimal64(_, to) | Decimal128(_, to) | Decimal256(_, to),
        ) => to >= from,
        (Date32 | Date64, Timestamp(..)) | (Float32, Float64) => true,
        (Timestamp(from, _), Timestamp(to, _)) => to >= from,
        (Time32(_), Time64(_)) => true,
        (Time32(from), Time32(to)) | (Time64(from), Time64(to)) => to >= from,
        (Boolean, to) => to.is_integer(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::TimeUnit;

    use super::*;

    #[test]
    fn casts_that_make_values_equal_are_known() {
        use DataType::*;
        let at = |unit| Timestamp(unit, None);
        for (from, to, expected) in [
            (Int32, Int64, true),
            (Int64, Int32, true),
            (Int64, Utf8, true),
            (Utf8, Int64, false),
            (Int64, Float64, false),
            (Float64, Utf8, false),
            (Decimal128(10, 2), Utf8, false),
            (Date32, Utf8, false),
            (at(TimeUnit::Microsecond), Utf8, false),
            (Decimal128(10, 2), Decimal128(12, 4), true),
            (Decimal128(10, 2), Decimal128(10, 1), false),
            (Decimal128(10, 2), Int64, false),
            (at(TimeUnit::Microsecond), at(TimeUnit::Nanosecond), true),
            (at(TimeUnit::Microsecond), at(TimeUnit::Millisecond), false),
            (at(TimeUnit::Microsecond), Date32, false),
            (Date32, at(TimeUnit::Microsecond), true),
            (Utf8, Utf8View, true),
            (Binary, Utf8, false),
        ] {
            assert_eq!(injective(&from, &to), expected, "{from} to {to}");
        }
    }
}
