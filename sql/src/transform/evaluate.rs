//! Evaluates expressions over batches, and finds the rows that stand in the way.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanBufferBuilder, RecordBatch, new_null_array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{cast, concat};
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

/// Evaluates an expression over a batch.
pub(super) fn evaluate(expr: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> std::result::Result<ArrayRef, Reason> {
    // Some functions panic on values that they did not expect. Such a one is a bad value like any other.
    let evaluated = catch_unwind(AssertUnwindSafe(|| expr.evaluate(batch).and_then(|value| value.into_array(batch.num_rows()))));
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
pub(super) struct Failed {
    pub(super) rows: BooleanBuffer,
    pub(super) reason: Reason,
}

/// Evaluates an expression over a batch; where it fails, over ever smaller parts, until the rows to blame stand alone.
pub(super) fn evaluate_each(expr: &Arc<dyn PhysicalExpr>, to: Option<&DataType>, batch: &RecordBatch) -> Result<Evaluated> {
    let reason = match converted(expr, to, batch) {
        Ok(values) => return Ok(Evaluated { values, failed: None }),
        Err(reason) => reason,
    };
    let data_type = match to {
        Some(data_type) => data_type.clone(),
        None => expr.data_type(batch.schema_ref()).map_err(|_| Error::internal("an expression that was planned has no type"))?,
    };
    let mut parts = Vec::new();
    let mut failed = BooleanBufferBuilder::new(batch.num_rows());
    let mut waiting = vec![(0, batch.num_rows())];
    while let Some((start, rows)) = waiting.pop() {
        match converted(expr, to, &batch.slice(start, rows)) {
            Ok(values) => {
                parts.push(values);
                failed.append_n(rows, false);
            }
            Err(_) if rows == 1 => {
                parts.push(new_null_array(&data_type, 1));
                failed.append(true);
            }
            Err(_) => waiting.extend([(start + rows / 2, rows - rows / 2), (start, rows / 2)]),
        }
    }
    let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
    let values = concat(&parts).map_err(|_| Error::internal("the values of an expression do not fit together"))?;
    Ok(Evaluated { values, failed: Some(Failed { rows: failed.finish(), reason }) })
}

fn converted(expr: &Arc<dyn PhysicalExpr>, to: Option<&DataType>, batch: &RecordBatch) -> std::result::Result<ArrayRef, Reason> {
    let values = evaluate(expr, batch)?;
    match to {
        Some(data_type) => cast(&values, data_type).map_err(|_| Reason("a value cannot be cast")),
        None => Ok(values),
    }
}
