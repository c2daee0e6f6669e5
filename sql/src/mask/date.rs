//! The mask `date`: when, but not exactly.
//!
//! A date or a moment becomes the first of its year, quarter or month, and a moment also of its day or hour, in UTC or, where the
//! column has no time zone, in its own reading. Before 1970 as after it, that is the one before. What PostgreSQL calls infinity stays.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};
use logweir_core::{Error, Result};

use crate::civil::{SECONDS_PER_DAY, date_of, first_of_month, resolution};

const SECONDS_PER_HOUR: i64 = 3_600;

/// What is left of a date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DateUnit {
    /// The year.
    Year,
    /// The quarter.
    Quarter,
    /// The month.
    Month,
    /// The day; for moments.
    Day,
    /// The hour; for moments.
    Hour,
}

impl DateUnit {
    /// All, from the coarsest to the finest.
    pub const ALL: [DateUnit; 5] = [DateUnit::Year, DateUnit::Quarter, DateUnit::Month, DateUnit::Day, DateUnit::Hour];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            DateUnit::Year => "year",
            DateUnit::Quarter => "quarter",
            DateUnit::Month => "month",
            DateUnit::Day => "day",
            DateUnit::Hour => "hour",
        }
    }

    /// Of a day, the one that its unit begins with.
    fn first_day(self, days: i64) -> i64 {
        let (year, month, _) = date_of(days);
        match self {
            DateUnit::Year => first_of_month(year, 1),
            DateUnit::Quarter => first_of_month(year, (month - 1) / 3 * 3 + 1),
            DateUnit::Month => first_of_month(year, month),
            DateUnit::Day | DateUnit::Hour => days,
        }
    }

    /// Of a number of parts of a second, the one that its unit begins with.
    fn first(self, value: i64, per_second: i64) -> i64 {
        // PostgreSQL's infinities.
        if value == i64::MIN || value == i64::MAX {
            return value;
        }
        let seconds = value.div_euclid(per_second);
        let first = match self {
            DateUnit::Hour => seconds.div_euclid(SECONDS_PER_HOUR).checked_mul(SECONDS_PER_HOUR),
            unit => unit.first_day(seconds.div_euclid(SECONDS_PER_DAY)).checked_mul(SECONDS_PER_DAY),
        };
        // At the very beginning of what the type holds, its unit may begin before that.
        first.and_then(|seconds| seconds.checked_mul(per_second)).unwrap_or(i64::MIN + 1)
    }
}

/// Moments, and dates where the unit is more than a day: else nothing would be hidden.
pub(super) fn masks(data_type: &DataType, to: DateUnit) -> bool {
    match data_type {
        DataType::Timestamp(..) => true,
        DataType::Date32 | DataType::Date64 => !matches!(to, DateUnit::Day | DateUnit::Hour),
        _ => false,
    }
}

pub(super) fn apply(array: &ArrayRef, to: DateUnit) -> Result<ArrayRef> {
    let per_second = |unit| resolution(unit).0;
    Ok(match array.data_type() {
        DataType::Date32 => mapped::<Date32Type>(array, |days| match days {
            i32::MIN | i32::MAX => days,
            days => i32::try_from(to.first_day(i64::from(days))).unwrap_or(i32::MIN + 1),
        }),
        DataType::Date64 => mapped::<Date64Type>(array, |ms| to.first(ms, per_second(TimeUnit::Millisecond))),
        DataType::Timestamp(unit @ TimeUnit::Second, _) => mapped::<TimestampSecondType>(array, |at| to.first(at, per_second(*unit))),
        DataType::Timestamp(unit @ TimeUnit::Millisecond, _) => {
            mapped::<TimestampMillisecondType>(array, |at| to.first(at, per_second(*unit)))
        }
        DataType::Timestamp(unit @ TimeUnit::Microsecond, _) => {
            mapped::<TimestampMicrosecondType>(array, |at| to.first(at, per_second(*unit)))
        }
        DataType::Timestamp(unit @ TimeUnit::Nanosecond, _) => {
            mapped::<TimestampNanosecondType>(array, |at| to.first(at, per_second(*unit)))
        }
        other => return Err(Error::internal("a value of this type is no date").context("type", other)),
    })
}

fn mapped<T: ArrowPrimitiveType>(array: &ArrayRef, first: impl Fn(T::Native) -> T::Native) -> ArrayRef {
    let array: &PrimitiveArray<T> = array.as_primitive();
    Arc::new(array.unary::<_, T>(first).with_data_type(array.data_type().clone()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::array::{Date32Array, TimestampMicrosecondArray};

    use super::*;
    use crate::civil::{write_date, write_timestamp};

    #[test]
    fn what_is_left_is_the_beginning() {
        for (days, to, expected) in [
            (20_777, DateUnit::Month, "2026-11-01"),
            (20_777, DateUnit::Quarter, "2026-10-01"),
            (20_777, DateUnit::Year, "2026-01-01"),
            (11_016, DateUnit::Month, "2000-02-01"),
            (-1, DateUnit::Month, "1969-12-01"),
            (-1, DateUnit::Quarter, "1969-10-01"),
            (-25_509, DateUnit::Year, "1900-01-01"),
        ] {
            let column: ArrayRef = Arc::new(Date32Array::from(vec![Some(days), None]));
            let masked = apply(&column, to).unwrap();
            let mut text = Vec::new();
            write_date(&mut text, i64::from(masked.as_primitive::<Date32Type>().value(0)));
            assert_eq!((String::from_utf8(text).unwrap().as_str(), masked.is_null(1)), (expected, true));
        }
        for (micros, to, expected) in [
            (1_795_178_096_250_000, DateUnit::Hour, "2026-11-20 12:00:00Z"),
            (1_795_178_096_250_000, DateUnit::Day, "2026-11-20 00:00:00Z"),
            (1_795_178_096_250_000, DateUnit::Month, "2026-11-01 00:00:00Z"),
            (-1, DateUnit::Hour, "1969-12-31 23:00:00Z"),
            (-1, DateUnit::Year, "1969-01-01 00:00:00Z"),
        ] {
            let column: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![micros]).with_timezone("UTC"));
            let masked = apply(&column, to).unwrap();
            assert_eq!(masked.data_type(), column.data_type());
            let mut text = Vec::new();
            write_timestamp(&mut text, masked.as_primitive::<TimestampMicrosecondType>().value(0), TimeUnit::Microsecond, true);
            assert_eq!(String::from_utf8(text).unwrap(), expected);
        }
    }

    #[test]
    fn the_ends_of_time_do_not_break_it() {
        for to in DateUnit::ALL {
            for value in [i64::MIN, i64::MIN + 1, i64::MAX - 1, i64::MAX, 0] {
                for per_second in [1, 1_000, 1_000_000, 1_000_000_000] {
                    let first = to.first(value, per_second);
                    assert!(first <= value, "{value} {to:?}");
                    assert_eq!(first == i64::MAX || first == i64::MIN, value == i64::MAX || value == i64::MIN);
                }
            }
            let column: ArrayRef = Arc::new(Date32Array::from(vec![i32::MIN, i32::MIN + 1, i32::MAX - 1, i32::MAX]));
            let masked = apply(&column, to).unwrap();
            let values = masked.as_primitive::<Date32Type>().values();
            assert_eq!((values[0], values[1], values[3]), (i32::MIN, i32::MIN + 1, i32::MAX));
        }
    }
}
