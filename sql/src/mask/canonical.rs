//! The text of a value: what a hash is computed from, and what the partial masks are cut from.
//!
//! A value has one text, whatever the width, scale or unit of its column, so that a hash survives a widened column and
//! joins an `int` with a `bigint`:
//!
//! | type | text |
//! |---|---|
//! | text, JSON, ENUM, SET | as it is, in UTF-8 |
//! | binary | the bytes as they are |
//! | whole numbers | `-42` |
//! | decimals | `12.5` for `12.50`, `12` for `12.00` |
//! | floating point | the shortest digits that read back as the value, never with an exponent; `NaN`, `inf`, `-inf`; `0` for `-0` |
//! | boolean | `true`, `false` |
//! | dates | `2026-11-20` |
//! | timestamps | `2026-11-20 12:30:00.25`; with `Z` behind it if the column is in UTC |
//! | times and spans | `12:30:00.25`, `-838:59:59` |

use std::fmt;
use std::io::Write;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, GenericBinaryArray, GenericStringArray, OffsetSizeTrait, PrimitiveArray, StringBuilder,
};
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, DecimalType, DurationMicrosecondType,
    DurationMillisecondType, DurationNanosecondType, DurationSecondType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use logweir_core::{Error, Result};

use crate::civil::{write_date, write_time, write_timestamp};

/// True if the type is text in every value.
pub(super) fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// True if values of the type have a text: [`for_each_text`] takes such an array. Dictionaries are unpacked before.
pub(super) fn has_text(data_type: &DataType) -> bool {
    use DataType::*;
    is_text(data_type)
        || data_type.is_integer()
        || matches!(data_type, Null | Boolean | Float32 | Float64 | Binary | LargeBinary | BinaryView | FixedSizeBinary(_))
        || matches!(data_type, Decimal32(..) | Decimal64(..) | Decimal128(..) | Decimal256(..))
        || matches!(data_type, Date32 | Date64 | Time32(_) | Time64(_) | Timestamp(..) | Duration(_))
}

/// Calls `visit` for each row with the text of its value, `None` for NULL. Allocates one buffer per array.
pub(super) fn for_each_text(array: &ArrayRef, mut visit: impl FnMut(Option<&[u8]>)) -> Result<()> {
    let visit = &mut visit;
    match array.data_type() {
        DataType::Null => (0..array.len()).for_each(|_| visit(None)),
        DataType::Boolean => array.as_boolean().iter().for_each(|value| match value {
            Some(true) => visit(Some(b"true")),
            Some(false) => visit(Some(b"false")),
            None => visit(None),
        }),
        DataType::Utf8 => strings(array.as_string::<i32>(), visit),
        DataType::LargeUtf8 => strings(array.as_string::<i64>(), visit),
        DataType::Utf8View => array.as_string_view().iter().for_each(|value| visit(value.map(str::as_bytes))),
        DataType::Binary => binaries(array.as_binary::<i32>(), visit),
        DataType::LargeBinary => binaries(array.as_binary::<i64>(), visit),
        DataType::BinaryView => array.as_binary_view().iter().for_each(visit),
        DataType::FixedSizeBinary(_) => array.as_fixed_size_binary().iter().for_each(visit),
        DataType::Int8 => shown::<Int8Type>(array, visit),
        DataType::Int16 => shown::<Int16Type>(array, visit),
        DataType::Int32 => shown::<Int32Type>(array, visit),
        DataType::Int64 => shown::<Int64Type>(array, visit),
        DataType::UInt8 => shown::<UInt8Type>(array, visit),
        DataType::UInt16 => shown::<UInt16Type>(array, visit),
        DataType::UInt32 => shown::<UInt32Type>(array, visit),
        DataType::UInt64 => shown::<UInt64Type>(array, visit),
        // Adding zero makes -0 and 0 the same.
        DataType::Float32 => primitives::<Float32Type>(array, visit, |text, value| show(text, value + 0.0)),
        DataType::Float64 => primitives::<Float64Type>(array, visit, |text, value| show(text, value + 0.0)),
        DataType::Decimal32(precision, scale) => decimals::<Decimal32Type>(array, *precision, *scale, visit),
        DataType::Decimal64(precision, scale) => decimals::<Decimal64Type>(array, *precision, *scale, visit),
        DataType::Decimal128(precision, scale) => decimals::<Decimal128Type>(array, *precision, *scale, visit),
        DataType::Decimal256(precision, scale) => decimals::<Decimal256Type>(array, *precision, *scale, visit),
        DataType::Date32 => primitives::<Date32Type>(array, visit, |text, days| write_date(text, i64::from(days))),
        DataType::Date64 => primitives::<Date64Type>(array, visit, |text, ms| write_date(text, ms.div_euclid(86_400_000))),
        DataType::Time32(TimeUnit::Second) => times::<Time32SecondType>(array, TimeUnit::Second, visit),
        DataType::Time32(_) => times::<Time32MillisecondType>(array, TimeUnit::Millisecond, visit),
        DataType::Time64(TimeUnit::Microsecond) => times::<Time64MicrosecondType>(array, TimeUnit::Microsecond, visit),
        DataType::Time64(_) => times::<Time64NanosecondType>(array, TimeUnit::Nanosecond, visit),
        DataType::Duration(TimeUnit::Second) => times::<DurationSecondType>(array, TimeUnit::Second, visit),
        DataType::Duration(TimeUnit::Millisecond) => times::<DurationMillisecondType>(array, TimeUnit::Millisecond, visit),
        DataType::Duration(TimeUnit::Microsecond) => times::<DurationMicrosecondType>(array, TimeUnit::Microsecond, visit),
        DataType::Duration(TimeUnit::Nanosecond) => times::<DurationNanosecondType>(array, TimeUnit::Nanosecond, visit),
        DataType::Timestamp(unit, zone) => {
            let utc = zone.is_some();
            match unit {
                TimeUnit::Second => timestamps::<TimestampSecondType>(array, *unit, utc, visit),
                TimeUnit::Millisecond => timestamps::<TimestampMillisecondType>(array, *unit, utc, visit),
                TimeUnit::Microsecond => timestamps::<TimestampMicrosecondType>(array, *unit, utc, visit),
                TimeUnit::Nanosecond => timestamps::<TimestampNanosecondType>(array, *unit, utc, visit),
            }
        }
        other => return Err(Error::internal("a value of this type has no text").context("type", other)),
    }
    Ok(())
}

/// Maps each text to what `write` makes of it; NULL stays NULL.
pub(super) fn map_text(array: &ArrayRef, mut write: impl FnMut(&str, &mut StringBuilder) -> fmt::Result) -> Result<ArrayRef> {
    let mut mapped = StringBuilder::with_capacity(array.len(), array.len() * 16);
    let mut whole = true;
    for_each_text(array, |text| match text.map(std::str::from_utf8) {
        Some(text) => {
            whole &= text.is_ok_and(|text| write(text, &mut mapped).is_ok());
            mapped.append_value("");
        }
        None => mapped.append_null(),
    })?;
    if whole { Ok(Arc::new(mapped.finish())) } else { Err(Error::internal("a value to be masked is not text")) }
}

type Visit<'a> = &'a mut dyn FnMut(Option<&[u8]>);

fn strings<O: OffsetSizeTrait>(array: &GenericStringArray<O>, visit: Visit<'_>) {
    array.iter().for_each(|value| visit(value.map(str::as_bytes)));
}

fn binaries<O: OffsetSizeTrait>(array: &GenericBinaryArray<O>, visit: Visit<'_>) {
    array.iter().for_each(visit);
}

fn show(text: &mut Vec<u8>, value: impl fmt::Display) {
    write!(text, "{value}").expect("writing to a vector does not fail");
}

fn primitives<T: ArrowPrimitiveType>(array: &ArrayRef, visit: Visit<'_>, write: impl Fn(&mut Vec<u8>, T::Native)) {
    let array: &PrimitiveArray<T> = array.as_primitive();
    let mut text = Vec::with_capacity(32);
    for value in array {
        match value {
            Some(value) => {
                text.clear();
                write(&mut text, value);
                visit(Some(&text));
            }
            None => visit(None),
        }
    }
}

fn shown<T: ArrowPrimitiveType<Native: fmt::Display>>(array: &ArrayRef, visit: Visit<'_>) {
    primitives::<T>(array, visit, show);
}

fn times<T: ArrowPrimitiveType<Native: Into<i64>>>(array: &ArrayRef, unit: TimeUnit, visit: Visit<'_>) {
    primitives::<T>(array, visit, |text, value| write_time(text, value.into(), unit));
}

fn timestamps<T: ArrowPrimitiveType<Native = i64>>(array: &ArrayRef, unit: TimeUnit, utc: bool, visit: Visit<'_>) {
    primitives::<T>(array, visit, |text, value| write_timestamp(text, value, unit, utc));
}

fn decimals<T: DecimalType>(array: &ArrayRef, precision: u8, scale: i8, visit: Visit<'_>) {
    primitives::<T>(array, visit, |text, value| {
        let digits = T::format_decimal(value, precision, scale);
        let digits = if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { &digits };
        show(text, digits);
    });
}
