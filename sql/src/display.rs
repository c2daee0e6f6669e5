//! Query results as people read them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringBuilder};
use arrow::datatypes::{
    DataType, DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType, DurationSecondType, Field, Schema, TimeUnit,
};
use logweir_core::{Error, Result};

use crate::civil::write_time;

/// The batch with spans of time as text, `-838:59:59.5`, for output that has no type of its own for them: tables, CSV and
/// JSON print an ISO 8601 period otherwise, which nobody's TIME column looks like. Other columns pass by reference.
pub fn printable(batch: &RecordBatch) -> Result<RecordBatch> {
    let schema = batch.schema();
    if !schema.fields().iter().any(|field| matches!(field.data_type(), DataType::Duration(_))) {
        return Ok(batch.clone());
    }
    let (fields, columns): (Vec<Field>, Vec<ArrayRef>) = schema
        .fields()
        .iter()
        .zip(batch.columns())
        .map(|(field, column)| match field.data_type() {
            DataType::Duration(unit) => (field.as_ref().clone().with_data_type(DataType::Utf8), spans(column, *unit)),
            _ => (field.as_ref().clone(), Arc::clone(column)),
        })
        .unzip();
    let schema = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
    RecordBatch::try_new(schema, columns).map_err(|error| Error::internal("could not prepare a result for printing").source(error))
}

fn spans(column: &ArrayRef, unit: TimeUnit) -> ArrayRef {
    let mut texts = StringBuilder::with_capacity(column.len(), column.len() * 16);
    let mut text = Vec::new();
    for row in 0..column.len() {
        if column.is_null(row) {
            texts.append_null();
            continue;
        }
        let value = match unit {
            TimeUnit::Second => column.as_primitive::<DurationSecondType>().value(row),
            TimeUnit::Millisecond => column.as_primitive::<DurationMillisecondType>().value(row),
            TimeUnit::Microsecond => column.as_primitive::<DurationMicrosecondType>().value(row),
            TimeUnit::Nanosecond => column.as_primitive::<DurationNanosecondType>().value(row),
        };
        text.clear();
        write_time(&mut text, value, unit);
        texts.append_value(std::str::from_utf8(&text).expect("digits are ASCII"));
    }
    Arc::new(texts.finish())
}
