//! Evaluates expressions over batches, and finds the rows that stand in the way.

use std::cell::Cell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, LargeListArray, ListArray, RecordBatch, StructArray, UInt32Array, new_null_array};
use arrow::compute::{cast, concat, take};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use datafusion::common::DataFusionError;
use datafusion::physical_expr::PhysicalExpr;
use logweir_core::{Error, Result};

/// Why a value cannot be computed. Says nothing of the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reason(pub(super) &'static str);

impl Reason {
    fn of(error: &DataFusionError) -> Self {
        // What Arrow and DataFusion say in full may quote the value.
        Reason(match error.find_root() {
            DataFusionError::ArrowError(error, _) => match error.as_ref() {
                ArrowError::DivideByZero => "division by zero",
                ArrowError::ArithmeticOverflow(_) => "a number is too large",
                ArrowError::CastError(_) => "a value cannot be cast",
                ArrowError::ParseError(_) => "a text is not of the form wanted",
                _ => "the expression cannot be computed",
            },
            _ => "the expression cannot be computed",
        })
    }
}

thread_local! {
    /// A panic of this thread will be caught, and is a bad value.
    static CATCHING: Cell<bool> = const { Cell::new(false) };
}

/// True in a panic hook if the panic is one of an expression's evaluation, which catches it: it may quote a value, and is told as a bad one.
pub fn catches_panics() -> bool {
    CATCHING.try_with(Cell::get).unwrap_or(false)
}

/// Evaluates an expression over a batch.
pub(super) fn evaluate(expr: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> std::result::Result<ArrayRef, Reason> {
    // Some functions panic on values that they did not expect. Such a one is a bad value like any other.
    CATCHING.set(true);
    let evaluated = catch_unwind(AssertUnwindSafe(|| expr.evaluate(batch).and_then(|value| value.into_array(batch.num_rows()))));
    CATCHING.set(false);
    match evaluated {
        Ok(evaluated) => evaluated.map_err(|error| Reason::of(&error)),
        Err(_) => Err(Reason("the expression cannot be computed")),
    }
}

/// The values of an expression, and the rows for which there is none.
#[derive(Debug)]
pub(super) struct Evaluated {
    pub(super) values: ArrayRef,
    pub(super) failed: Option<Failed>,
}

/// Rows for which an expression has no value; it is null there.
#[derive(Debug)]
pub(super) struct Failed(HashMap<usize, Reason>);

impl Failed {
    /// Why there is none for a row.
    pub(super) fn of(&self, row: usize) -> Option<Reason> {
        self.0.get(&row).copied()
    }
}

/// Evaluates an expression over a batch; where it fails, over ever smaller parts, until the rows to blame stand alone.
pub(super) fn evaluate_each(expr: &Arc<dyn PhysicalExpr>, to: Option<&DataType>, batch: &RecordBatch) -> Result<Evaluated> {
    if let Ok(values) = converted(expr, to, batch) {
        return Ok(Evaluated { values: with_nothing_under_nulls(values)?, failed: None });
    }
    let data_type = match to {
        Some(data_type) => data_type.clone(),
        None => expr.data_type(batch.schema_ref()).map_err(|_| Error::internal("an expression that was planned has no type"))?,
    };
    let mut parts = Vec::new();
    let mut failed = HashMap::new();
    let mut waiting = vec![(0, batch.num_rows())];
    while let Some((start, rows)) = waiting.pop() {
        match converted(expr, to, &batch.slice(start, rows)) {
            Ok(values) => parts.push(values),
            Err(reason) if rows == 1 => {
                parts.push(new_null_array(&data_type, 1));
                failed.insert(start, reason);
            }
            Err(_) => waiting.extend([(start + rows / 2, rows - rows / 2), (start, rows / 2)]),
        }
    }
    let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
    let values = concat(&parts).map_err(|_| Error::internal("the values of an expression do not fit together"))?;
    Ok(Evaluated { values: with_nothing_under_nulls(values)?, failed: Some(Failed(failed)) })
}

/// The same values with nothing under the nulls that was not there to be seen: `NULLIF` and `CASE` leave the value that they hide in the buffers,
/// and whoever writes buffers would write it.
fn with_nothing_under_nulls(values: ArrayRef) -> Result<ArrayRef> {
    let unexpected = |_: ArrowError| Error::internal("the values of an expression do not fit together");
    let nulls = values.nulls().filter(|nulls| nulls.null_count() > 0).cloned();
    let values = match nulls {
        None => values,
        Some(_) if matches!(values.data_type(), DataType::Boolean | DataType::Null) => values,
        Some(nulls) => {
            let Some(visible) = nulls.valid_indices().next() else { return Ok(new_null_array(values.data_type(), values.len())) };
            // What is taken for a null is a value that is seen elsewhere.
            let places = (0..values.len()).map(|row| if nulls.is_valid(row) { row as u32 } else { visible as u32 });
            take(&values, &UInt32Array::new(places.collect(), Some(nulls)), None).map_err(unexpected)?
        }
    };
    Ok(match values.data_type() {
        DataType::Struct(fields) if !fields.is_empty() => {
            let (fields, columns, nulls) = values.as_struct().clone().into_parts();
            let columns = columns.into_iter().map(with_nothing_under_nulls).collect::<Result<_>>()?;
            Arc::new(StructArray::try_new(fields, columns, nulls).map_err(unexpected)?)
        }
        // A dictionary has what no row shows any more: it is made anew of what they show.
        DataType::Dictionary(_, value) if values.null_count() > 0 => {
            let shown = cast(&values, value).map_err(unexpected)?;
            cast(&with_nothing_under_nulls(shown)?, values.data_type()).map_err(unexpected)?
        }
        DataType::List(_) => {
            let (field, offsets, items, nulls) = values.as_list::<i32>().clone().into_parts();
            Arc::new(ListArray::try_new(field, offsets, with_nothing_under_nulls(items)?, nulls).map_err(unexpected)?)
        }
        DataType::LargeList(_) => {
            let (field, offsets, items, nulls) = values.as_list::<i64>().clone().into_parts();
            Arc::new(LargeListArray::try_new(field, offsets, with_nothing_under_nulls(items)?, nulls).map_err(unexpected)?)
        }
        _ => values,
    })
}

fn converted(expr: &Arc<dyn PhysicalExpr>, to: Option<&DataType>, batch: &RecordBatch) -> std::result::Result<ArrayRef, Reason> {
    let values = evaluate(expr, batch)?;
    match to {
        Some(data_type) => cast(&values, data_type).map_err(|_| Reason("a value cannot be cast")),
        None => Ok(values),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::array::{Int64Array, StringArray};
    use arrow::buffer::NullBuffer;

    use super::*;

    #[test]
    fn what_is_hidden_is_not_under_the_null() {
        let nulls = || Some(NullBuffer::from(vec![true, false, true]));
        let text = StringArray::from(vec!["seen", "HIDDEN", "too"]);
        let text: ArrayRef = Arc::new(StringArray::new(text.offsets().clone(), text.values().clone(), nulls()));
        let number: ArrayRef = Arc::new(Int64Array::new(vec![1, 666, 3].into(), nulls()));
        let pair = StructArray::from(vec![(Arc::new(arrow::datatypes::Field::new("t", DataType::Utf8, true)), Arc::clone(&text))]);
        for values in [text, number, Arc::new(pair) as ArrayRef] {
            let clean = with_nothing_under_nulls(Arc::clone(&values)).unwrap();
            assert_eq!(&clean, &values);
            let bytes = format!("{:?}", clean.to_data());
            let shown: Vec<u8> = b"HIDDEN".to_vec();
            let buffers =
                |data: &arrow::array::ArrayData| data.buffers().iter().map(|buffer| buffer.as_slice().to_vec()).collect::<Vec<_>>();
            let data = clean.to_data();
            let all: Vec<Vec<u8>> = buffers(&data).into_iter().chain(data.child_data().iter().flat_map(buffers)).collect();
            assert!(all.iter().all(|buffer| !buffer.windows(6).any(|window| window == shown)), "{bytes}");
            assert!(all.iter().all(|buffer| !buffer.windows(8).any(|window| window == 666_i64.to_le_bytes())), "{bytes}");
        }
        let coded: ArrayRef = {
            let values = StringArray::from(vec!["seen", "HIDDEN"]);
            let keys = arrow::array::Int32Array::from(vec![Some(0), None, Some(0)]);
            Arc::new(arrow::array::DictionaryArray::new(keys, Arc::new(values)))
        };
        let clean = with_nothing_under_nulls(Arc::clone(&coded)).unwrap();
        assert_eq!(clean.data_type(), coded.data_type());
        assert_eq!(clean.as_any_dictionary().values().len(), 1);
        let none: ArrayRef = Arc::new(StringArray::new(
            StringArray::from(vec!["HIDDEN"]).offsets().clone(),
            StringArray::from(vec!["HIDDEN"]).values().clone(),
            Some(NullBuffer::new_null(1)),
        ));
        assert!(with_nothing_under_nulls(none).unwrap().to_data().buffers()[1].is_empty());
    }
}
