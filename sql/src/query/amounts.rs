//! Functions that make much of little.
//!
//! What an operator of a plan holds counts towards the memory of its query; what a function makes for a batch does not, and of
//! `array_repeat(1, 1000000000000)` the process would end. So those that can make more than they are given are asked first.

use arrow::array::{Array, ArrayRef, AsArray as _};
use arrow::compute::cast;
use arrow::compute::kernels::length::length;
use arrow::datatypes::{DataType, Date32Type, Int64Type, IntervalMonthDayNanoType, IntervalUnit, TimeUnit};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};
use datafusion::prelude::SessionContext;

pub(super) const NAMES: [&str; 13] = [
    "repeat",
    "lpad",
    "rpad",
    "replace",
    "regexp_replace",
    "concat",
    "concat_ws",
    "array_repeat",
    "array_resize",
    "array_concat",
    "array_to_string",
    "range",
    "generate_series",
];

/// What one call may make of constants: that is made in planning, and nobody writes more.
const CONSTANT_BYTES_MAX: usize = 1 << 20;

/// The part of a query's memory that one call may make of a batch of rows: there may be several.
const FRACTION: usize = 4;

const MICROS_PER_DAY: i128 = 86_400_000_000;

/// Bounds what each of these functions makes of a batch.
pub(super) fn register(context: &SessionContext, bytes_max: usize) {
    for name in NAMES {
        let function = context.state().scalar_functions().get(name).map(|function| function.as_ref().clone());
        if let Some(inner) = function {
            context.register_udf(ScalarUDF::new_from_impl(Bounded { inner, bytes_max: bytes_max / FRACTION }));
        }
    }
}

/// A function that refuses to make too much.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Bounded {
    inner: ScalarUDF,
    bytes_max: usize,
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<arrow::datatypes::FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.inner().coerce_types(types)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let bytes = bytes_made(self.name(), &args)?;
        let is_constant = args.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let bytes_max = if is_constant { self.bytes_max.min(CONSTANT_BYTES_MAX) } else { self.bytes_max };
        if usize::try_from(bytes).map_or(true, |bytes| bytes > bytes_max) {
            return Err(DataFusionError::ResourcesExhausted(format!(
                "{} would make more than the {bytes_max} bytes that it may make of {}",
                self.name(),
                if is_constant { "constants" } else { "a batch of rows" }
            )));
        }
        self.inner.invoke_with_args(args)
    }
}

/// About how much a call makes, at least.
fn bytes_made(name: &str, args: &ScalarFunctionArgs) -> Result<i128> {
    let arguments = &args.args;
    let is_constant = arguments.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
    let rows = if is_constant { 1 } else { args.number_rows };
    // What is not given counts as nothing.
    let lengths = |index: usize| arguments.get(index).map_or(Ok(vec![0]), lengths);
    let numbers = |index: usize| arguments.get(index).map_or(Ok(vec![0]), numbers);
    let at = |values: &[i128], row: usize| if let [same] = values { *same } else { values.get(row).copied().unwrap_or(0) };
    let sum = |made: &dyn Fn(usize) -> i128| (0..rows).fold(0_i128, |sum, row| sum.saturating_add(made(row).max(0)));
    Ok(match name {
        "repeat" => {
            let (text, times) = (lengths(0)?, numbers(1)?);
            sum(&|row| at(&text, row).saturating_mul(at(&times, row)))
        }
        "lpad" | "rpad" => {
            let letters = numbers(1)?;
            sum(&|row| at(&letters, row))
        }
        "replace" | "regexp_replace" => {
            let (text, found, by) = (lengths(0)?, lengths(1)?, lengths(2)?);
            // An expression may find what is shorter than itself, and nothing is found between any two letters.
            let shortest = |row| if name == "replace" { at(&found, row).max(1) } else { 1 };
            sum(&|row| at(&text, row) + (at(&text, row) / shortest(row) + 1).saturating_mul(at(&by, row)))
        }
        "concat" | "concat_ws" => {
            let parts = arguments.iter().map(self::lengths).collect::<Result<Vec<_>>>()?;
            let glue = if name == "concat_ws" { i128::try_from(arguments.len()).unwrap_or(i128::MAX) } else { 0 };
            sum(&|row| parts.iter().map(|part| at(part, row)).sum::<i128>() + glue.saturating_mul(at(&parts[0], row)))
        }
        "array_repeat" => {
            let (times, width) = (numbers(1)?, width(&arguments[0])?);
            sum(&|row| at(&times, row).saturating_mul(width))
        }
        "array_concat" => {
            let widths = arguments.iter().map(width).collect::<Result<Vec<_>>>()?;
            widths.iter().sum::<i128>().saturating_mul(i128::try_from(rows).unwrap_or(i128::MAX))
        }
        "array_to_string" => {
            let (items, glue, width) = (lengths(0)?, lengths(1)?, width(&arguments[0])?);
            sum(&|row| at(&items, row).saturating_mul(at(&glue, row)) + width)
        }
        "array_resize" => {
            let (items, width) = (numbers(1)?, arguments.get(2).map_or(Ok(8), width)?);
            sum(&|row| at(&items, row).saturating_mul(width))
        }
        "range" | "generate_series" => {
            let (first, last) = if arguments.len() == 1 { (vec![0], numbers(0)?) } else { (numbers(0)?, numbers(1)?) };
            let step = if arguments.len() > 2 { numbers(2)? } else { vec![1] };
            sum(&|row| {
                let step = at(&step, row);
                let way = at(&last, row) - at(&first, row);
                // One that goes the other way makes nothing, and a step of nothing is refused by the function.
                if step == 0 || (way < 0) != (step < 0) { 0 } else { (way / step + 1).saturating_mul(8) }
            })
        }
        _ => 0,
    })
}

/// One value, or as many as there are rows.
fn array(argument: &ColumnarValue) -> Result<ArrayRef> {
    match argument {
        ColumnarValue::Scalar(value) => value.to_array(),
        ColumnarValue::Array(array) => Ok(ArrayRef::clone(array)),
    }
}

/// How long texts and lists are; a word for everything else.
fn lengths(argument: &ColumnarValue) -> Result<Vec<i128>> {
    let array = array(argument)?;
    match length(&array) {
        Ok(lengths) => Ok(values(&cast(&lengths, &DataType::Int64)?)),
        Err(_) => Ok(vec![8; array.len()]),
    }
}

/// Numbers; times and spans of time in microseconds.
fn numbers(argument: &ColumnarValue) -> Result<Vec<i128>> {
    let array = array(argument)?;
    Ok(match array.data_type() {
        DataType::Date32 => array.as_primitive::<Date32Type>().iter().map(|day| i128::from(day.unwrap_or(0)) * MICROS_PER_DAY).collect(),
        DataType::Date64 => values(&cast(&array, &DataType::Int64)?).into_iter().map(|millis| millis * 1000).collect(),
        DataType::Timestamp(..) => values(&cast(&cast(&array, &DataType::Timestamp(TimeUnit::Microsecond, None))?, &DataType::Int64)?),
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let spans = array.as_primitive::<IntervalMonthDayNanoType>().iter().map(|span| {
                let span = span.unwrap_or_default();
                let micros = i128::from(span.months) * 28 * MICROS_PER_DAY + i128::from(span.days) * MICROS_PER_DAY;
                let fraction = i128::from(span.nanoseconds);
                // Steps of less than a microsecond are taken for one.
                let fraction = if fraction != 0 && fraction.abs() < 1000 { fraction.signum() } else { fraction / 1000 };
                micros + fraction
            });
            spans.collect()
        }
        DataType::Null => vec![0; array.len()],
        _ => values(&cast(&array, &DataType::Int64)?),
    })
}

fn values(array: &ArrayRef) -> Vec<i128> {
    array.as_primitive::<Int64Type>().iter().map(|value| i128::from(value.unwrap_or(0))).collect()
}

/// What a value takes in memory, on average.
fn width(argument: &ColumnarValue) -> Result<i128> {
    let array = array(argument)?;
    let bytes = array.to_data().get_slice_memory_size()?;
    Ok(i128::try_from(bytes / array.len().max(1)).unwrap_or(i128::MAX).max(1))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    async fn ask(sql: &str) -> Result<usize> {
        let context = SessionContext::new();
        register(&context, 1 << 20);
        let batches = context.sql(sql).await?.collect().await?;
        Ok(batches.iter().map(arrow::array::RecordBatch::num_rows).sum())
    }

    #[tokio::test]
    async fn what_would_make_too_much_is_refused_before_it_is_made() {
        for sql in [
            "repeat('x', 1000000000)",
            "repeat(repeat('x', 1000), 10000)",
            "lpad('x', 2000000000)",
            "replace(repeat('a', 10000), 'a', repeat('b', 10000))",
            "regexp_replace(repeat('a', 10000), 'a', repeat('b', 10000), 'g')",
            "array_repeat(1, 1000000000000)",
            "list_repeat('x', 10000000)",
            "array_resize([1], 1000000000)",
            "array_to_string(array_repeat('x', 1000), repeat('y', 10000))",
            "array_concat(array_repeat('x', 30000), array_repeat('x', 30000))",
            "range(9000000000000000000)",
            "range(0, -9000000000000, -1)",
            "generate_series(1, 9000000000000000000, 1)",
            "generate_series(DATE '2000-01-01', DATE '2030-01-01', INTERVAL '1 millisecond')",
        ] {
            let error = ask(&format!("SELECT {sql}")).await.unwrap_err();
            assert!(matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)), "{sql}: {error}");
            let of_rows = sql.replace("'x'", "chr(value % 9 + 100)");
            let error = ask(&format!("SELECT {of_rows} FROM generate_series(1, 10)")).await.unwrap_err();
            assert!(matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)), "{of_rows}: {error}");
        }
        for sql in [
            "repeat('x', 10000)",
            "lpad('x', 20, 'ab')",
            "replace('abc', 'b', 'x')",
            "concat('a', 1, NULL)",
            "concat_ws(',', 'a', 'b')",
            "array_repeat(1, 100)",
            "array_resize([1], 5, 0)",
            "array_to_string([1, 2, 3], ', ')",
            "array_concat([1], [2, 3])",
            "range(1, 10)",
            "range(1, -1000000)",
            "generate_series(DATE '2000-01-01', DATE '2000-02-01', INTERVAL '1 day')",
            "repeat(NULL, 5)",
        ] {
            assert_eq!(ask(&format!("SELECT {sql}")).await.unwrap(), 1, "{sql}");
        }
    }
}
