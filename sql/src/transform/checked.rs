//! Arithmetic whose results are what they say, or none.
//!
//! DataFusion's sums of decimals are right as far as 128 (or 256) bits go, and may have more digits than their type; a number of floating point
//! divided by zero is an infinity. Here both are errors: bad values.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Decimal128Type, Decimal256Type, FieldRef, Float32Type, Float64Type, Schema};
use arrow::error::ArrowError;
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::{ColumnarValue, Operator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::BinaryExpr;

/// An operation and the look at its results.
#[derive(Debug, Eq)]
pub(super) struct Checked {
    operation: Arc<BinaryExpr>,
}

impl PartialEq for Checked {
    fn eq(&self, other: &Self) -> bool {
        *self.operation == *other.operation
    }
}

impl Hash for Checked {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.operation.hash(state);
    }
}

impl Checked {
    /// The operation, with a look at its results where there may be something to see.
    pub(super) fn around(operation: Arc<BinaryExpr>, schema: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
        let divides = matches!(operation.op(), Operator::Divide | Operator::Modulo);
        let needed = match operation.data_type(schema)? {
            DataType::Decimal128(..) | DataType::Decimal256(..) => operation.op().is_numerical_operators(),
            DataType::Float32 | DataType::Float64 => divides,
            _ => false,
        };
        Ok(if needed { Arc::new(Checked { operation }) } else { operation })
    }

    fn look(&self, values: &ArrayRef, batch: &RecordBatch) -> Result<()> {
        match values.data_type() {
            DataType::Decimal128(precision, _) => values.as_primitive::<Decimal128Type>().validate_decimal_precision(*precision),
            DataType::Decimal256(precision, _) => values.as_primitive::<Decimal256Type>().validate_decimal_precision(*precision),
            DataType::Float32 if values.as_primitive::<Float32Type>().iter().flatten().any(|value| !value.is_finite()) => {
                return self.look_for_zeros(values, batch);
            }
            DataType::Float64 if values.as_primitive::<Float64Type>().iter().flatten().any(|value| !value.is_finite()) => {
                return self.look_for_zeros(values, batch);
            }
            _ => Ok(()),
        }
        .map_err(|_| DataFusionError::from(ArrowError::ArithmeticOverflow("too many digits".to_owned())))
    }

    fn look_for_zeros(&self, values: &ArrayRef, batch: &RecordBatch) -> Result<()> {
        let divisors = self.operation.right().evaluate(batch)?.into_array(batch.num_rows())?;
        let is_zero = |row: usize| match divisors.data_type() {
            DataType::Float32 => divisors.as_primitive::<Float32Type>().value(row) == 0.0,
            DataType::Float64 => divisors.as_primitive::<Float64Type>().value(row) == 0.0,
            _ => false,
        };
        match (0..values.len()).any(|row| values.is_valid(row) && divisors.is_valid(row) && is_zero(row)) {
            true => Err(ArrowError::DivideByZero.into()),
            false => Ok(()),
        }
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.operation)
    }
}

impl PhysicalExpr for Checked {
    fn return_field(&self, schema: &Schema) -> Result<FieldRef> {
        self.operation.return_field(schema)
    }

    fn data_type(&self, schema: &Schema) -> Result<DataType> {
        self.operation.data_type(schema)
    }

    fn nullable(&self, schema: &Schema) -> Result<bool> {
        self.operation.nullable(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let value = self.operation.evaluate(batch)?;
        match &value {
            ColumnarValue::Array(values) => self.look(values, batch)?,
            ColumnarValue::Scalar(scalar) => self.look(&scalar.to_array_of_size(batch.num_rows())?, batch)?,
        }
        Ok(value)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        self.operation.children()
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        let operation = Arc::clone(&self.operation).with_new_children(children)?;
        Ok(match operation.downcast_ref::<BinaryExpr>() {
            Some(operation) => Arc::new(Checked { operation: Arc::new(operation.clone()) }),
            None => operation,
        })
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.operation.fmt_sql(f)
    }
}
