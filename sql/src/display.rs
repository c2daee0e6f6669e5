//! Query results as people read them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, GenericListArray, OffsetSizeTrait, RecordBatch, StringBuilder, StructArray};
use arrow::datatypes::{
    DataType, Date32Type, DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType, DurationSecondType, FieldRef, Fields,
    Schema, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};
use arrow::error::ArrowError;
use arrow::temporal_conversions::{as_date, as_datetime, as_time};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use logweir_core::{Error, Result};

use crate::civil::{write_iso_date, write_iso_timestamp, write_time};

/// The batch as it can be printed, for output that has no types of its own: tables, CSV and JSON.
///
/// * Spans of time are text, `-838:59:59.5`: they print as an ISO 8601 period otherwise, which nobody's TIME column looks like.
/// * Where a column has dates and times that no calendar library prints, all of it is text, as it would be printed if it had
///   none: the years beyond 262142 in ISO 8601, `infinity` and `-infinity`, 24:00:00.
///
/// Other columns pass by reference.
pub fn printable(batch: &RecordBatch) -> Result<RecordBatch> {
    let failed = |error: ArrowError| Error::internal("could not prepare a result for printing").source(error);
    let shown = batch.columns().iter().map(shown).collect::<Result<Vec<_>, _>>().map_err(failed)?;
    if shown.iter().all(Option::is_none) {
        return Ok(batch.clone());
    }
    let schema = batch.schema();
    let (fields, columns): (Vec<FieldRef>, Vec<ArrayRef>) = schema
        .fields()
        .iter()
        .zip(batch.columns())
        .zip(shown)
        .map(|((field, column), shown)| retyped(field, shown.unwrap_or_else(|| Arc::clone(column))))
        .unzip();
    let schema = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
    RecordBatch::try_new(schema, columns).map_err(failed)
}

fn retyped(field: &FieldRef, column: ArrayRef) -> (FieldRef, ArrayRef) {
    if field.data_type() == column.data_type() {
        return (Arc::clone(field), column);
    }
    (Arc::new(field.as_ref().clone().with_data_type(column.data_type().clone())), column)
}

/// What stands for a column that cannot be printed as it is.
fn shown(column: &ArrayRef) -> Result<Option<ArrayRef>, ArrowError> {
    match column.data_type() {
        DataType::Duration(unit) => texts(column, |row, text| {
            let value = match unit {
                TimeUnit::Second => column.as_primitive::<DurationSecondType>().value(row),
                TimeUnit::Millisecond => column.as_primitive::<DurationMillisecondType>().value(row),
                TimeUnit::Microsecond => column.as_primitive::<DurationMicrosecondType>().value(row),
                TimeUnit::Nanosecond => column.as_primitive::<DurationNanosecondType>().value(row),
            };
            write_time(text, value, *unit);
        })
        .map(Some),
        DataType::Date32 => {
            let days = column.as_primitive::<Date32Type>();
            unprintable(
                column,
                |row| as_date::<Date32Type>(days.value(row).into()).is_none(),
                |row, text| {
                    let days = days.value(row);
                    infinite(days, i32::MAX, text).unwrap_or_else(|| write_iso_date(text, days.into()));
                },
            )
        }
        DataType::Timestamp(unit, zone) => {
            let value = |row: usize| match unit {
                TimeUnit::Second => column.as_primitive::<TimestampSecondType>().value(row),
                TimeUnit::Millisecond => column.as_primitive::<TimestampMillisecondType>().value(row),
                TimeUnit::Microsecond => column.as_primitive::<TimestampMicrosecondType>().value(row),
                TimeUnit::Nanosecond => column.as_primitive::<TimestampNanosecondType>().value(row),
            };
            let has_date = |value: i64| match unit {
                TimeUnit::Second => as_datetime::<TimestampSecondType>(value).is_some(),
                TimeUnit::Millisecond => as_datetime::<TimestampMillisecondType>(value).is_some(),
                TimeUnit::Microsecond => as_datetime::<TimestampMicrosecondType>(value).is_some(),
                TimeUnit::Nanosecond => as_datetime::<TimestampNanosecondType>(value).is_some(),
            };
            // Nanoseconds end in years that every calendar has: there the ends are no infinity that somebody wrote.
            let end = if *unit == TimeUnit::Nanosecond { None } else { Some(i64::MAX) };
            let is_end = |value: i64| end.is_some_and(|end| value == end || value == -end);
            unprintable(
                column,
                |row| is_end(value(row)) || !has_date(value(row)),
                |row, text| {
                    let value = value(row);
                    let infinity = end.and_then(|end| infinite(value, end, text));
                    infinity.unwrap_or_else(|| write_iso_timestamp(text, value, *unit, zone.is_some()));
                },
            )
        }
        // The end of a day.
        DataType::Time64(TimeUnit::Microsecond) => {
            let times = column.as_primitive::<Time64MicrosecondType>();
            unprintable(
                column,
                |row| as_time::<Time64MicrosecondType>(times.value(row)).is_none(),
                |row, text| {
                    write_time(text, times.value(row), TimeUnit::Microsecond);
                },
            )
        }
        DataType::List(field) => list::<i32>(column, field),
        DataType::LargeList(field) => list::<i64>(column, field),
        DataType::Struct(fields) => {
            let members = column.as_struct();
            let shown = members.columns().iter().map(shown).collect::<Result<Vec<_>, _>>()?;
            if shown.iter().all(Option::is_none) {
                return Ok(None);
            }
            let (fields, columns): (Vec<FieldRef>, Vec<ArrayRef>) = fields
                .iter()
                .zip(members.columns())
                .zip(shown)
                .map(|((field, column), shown)| retyped(field, shown.unwrap_or_else(|| Arc::clone(column))))
                .unzip();
            StructArray::try_new(Fields::from(fields), columns, members.nulls().cloned()).map(|array| Some(Arc::new(array) as ArrayRef))
        }
        _ => Ok(None),
    }
}

fn list<O: OffsetSizeTrait>(column: &ArrayRef, field: &FieldRef) -> Result<Option<ArrayRef>, ArrowError> {
    let lists = column.as_list::<O>();
    let Some(values) = shown(lists.values())? else { return Ok(None) };
    let (field, values) = retyped(field, values);
    let array = GenericListArray::<O>::try_new(field, lists.offsets().clone(), values, lists.nulls().cloned())?;
    Ok(Some(Arc::new(array)))
}

/// The column as text, if it has values that are not printed; the others are as they would be printed.
fn unprintable(
    column: &ArrayRef,
    is_unprintable: impl Fn(usize) -> bool,
    write: impl Fn(usize, &mut Vec<u8>),
) -> Result<Option<ArrayRef>, ArrowError> {
    if !(0..column.len()).any(|row| column.is_valid(row) && is_unprintable(row)) {
        return Ok(None);
    }
    let options = FormatOptions::default();
    let others = ArrayFormatter::try_new(column.as_ref(), &options)?;
    texts(column, |row, text| match is_unprintable(row) {
        true => write(row, text),
        false => text.extend_from_slice(others.value(row).to_string().as_bytes()),
    })
    .map(Some)
}

fn texts(column: &ArrayRef, write: impl Fn(usize, &mut Vec<u8>)) -> Result<ArrayRef, ArrowError> {
    let mut texts = StringBuilder::with_capacity(column.len(), column.len() * 16);
    let mut text = Vec::new();
    for row in 0..column.len() {
        if column.is_null(row) {
            texts.append_null();
            continue;
        }
        text.clear();
        write(row, &mut text);
        texts.append_value(std::str::from_utf8(&text).map_err(|error| ArrowError::ExternalError(Box::new(error)))?);
    }
    Ok(Arc::new(texts.finish()))
}

/// Writes the infinity that PostgreSQL's is landed as: the greatest value of the type, and the negation of that.
fn infinite<T: PartialEq + std::ops::Neg<Output = T> + Copy>(value: T, end: T, text: &mut Vec<u8>) -> Option<()> {
    let infinity: &[u8] = match value {
        value if value == end => b"infinity",
        value if value == -end => b"-infinity",
        _ => return None,
    };
    text.extend_from_slice(infinity);
    Some(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::array::{Date32Array, DurationSecondArray, Int32Array, ListArray, Time64MicrosecondArray, TimestampMicrosecondArray};
    use arrow::datatypes::Field;
    use arrow::util::pretty::pretty_format_batches;

    use super::*;

    const FAR: i64 = i64::MAX - 1;

    fn printed(column: ArrayRef) -> Vec<String> {
        let field = Field::new("c", column.data_type().clone(), true);
        let batch = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![column]).unwrap();
        let text = pretty_format_batches(&[printable(&batch).unwrap()]).unwrap().to_string();
        let cells = text.lines().filter_map(|line| Some(line.strip_prefix('|')?.strip_suffix('|')?.trim().to_owned()));
        cells.skip(1).collect()
    }

    #[test]
    fn dates_beyond_every_calendar() {
        let dates = vec![Some(i32::MAX), Some(-i32::MAX), Some(i32::MIN), Some(2_145_042_905), Some(-735_160), Some(20_777), None];
        assert_eq!(
            printed(Arc::new(Date32Array::from(dates))),
            ["infinity", "-infinity", "-5877641-06-23", "+5874897-12-31", "-0043-03-15", "2026-11-20", ""]
        );
    }

    #[test]
    fn times_beyond_every_calendar() {
        let times = || vec![Some(i64::MAX), Some(-i64::MAX), Some(FAR), Some(-63_517_780_800_000_000), Some(1_700_000_000_250_000), None];
        let column = TimestampMicrosecondArray::from(times());
        let expected = ["infinity", "-infinity", "+294247-01-10T04:00:54.775806", "-0043-03-15T12:00:00", "2023-11-14T22:13:20.250", ""];
        assert_eq!(printed(Arc::new(column)), expected);
        let column = TimestampMicrosecondArray::from(times()).with_timezone("UTC");
        let expected = ["infinity", "-infinity", "+294247-01-10T04:00:54.775806Z", "-0043-03-15T12:00:00Z", "2023-11-14T22:13:20.250Z", ""];
        assert_eq!(printed(Arc::new(column)), expected);
        // In the smallest steps every value is a date.
        let column = arrow::array::TimestampNanosecondArray::from(vec![i64::MAX]);
        assert_eq!(printed(Arc::new(column)), ["2262-04-11T23:47:16.854775807"]);
        let midnight = Time64MicrosecondArray::from(vec![0, 86_400_000_000, 1_500_000]);
        assert_eq!(printed(Arc::new(midnight)), ["00:00:00", "24:00:00", "00:00:01.500"]);
    }

    #[test]
    fn inside_of_lists_and_structs() {
        let lists =
            ListArray::from_iter_primitive::<Date32Type, _, _>([Some(vec![Some(20_777), Some(i32::MAX), None]), None, Some(vec![])]);
        assert_eq!(printed(Arc::new(lists)), ["[2026-11-20, infinity, ]", "", "[]"]);
        let span: ArrayRef = Arc::new(DurationSecondArray::from(vec![-90]));
        let field = Arc::new(Field::new("span", span.data_type().clone(), true));
        let members = StructArray::from(vec![(field, span)]);
        assert_eq!(printed(Arc::new(members)), ["{span: -00:01:30}"]);
    }

    #[test]
    fn what_can_be_printed_passes() {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from(vec![1])),
            Arc::new(Date32Array::from(vec![20_777])),
            Arc::new(TimestampMicrosecondArray::from(vec![1])),
        ];
        let fields: Vec<Field> = columns.iter().map(|column| Field::new("c", column.data_type().clone(), true)).collect();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
        assert_eq!(printable(&batch).unwrap(), batch);
    }
}
