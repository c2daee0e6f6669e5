//! Answers to questions about rows: values as the protocol sends them, into the columns that the log's values go into.
//!
//! The binary protocol of prepared statements is read, because the text one cuts off digits of a FLOAT; and the server is told to
//! send text in the character set of its column, so that what becomes of it is decided by the same code as in the log. Where the log
//! has numbers for labels, or packed bytes, an answer has the text of them: the columns are the same.

use arrow_array::ArrayRef;
use arrow_buffer::i256;
use mysql_async::consts::{ColumnFlags, ColumnType};
use mysql_async::{Column, Value};

use crate::column::{Kind, Wire};
use crate::reader::Cursor;
use crate::step::{CellError, Scratch, Step};
use crate::value::charset::Charset;
use crate::value::{ValueError, ValueResult, bit, temporal};

/// The collation of bytes that are no text.
const BINARY_COLLATION: u16 = 63;

/// Digits of a DECIMAL at most.
const DECIMAL_DIGITS_MAX: u32 = 65;
/// Of them behind the point, in MariaDB; MySQL allows fewer.
const DECIMAL_SCALE_MAX: u8 = 38;

/// Digits of a fraction of a second at most. Expressions say more than they have.
const FRACTION_DIGITS_MAX: u8 = 6;

const ANOTHER_TYPE: ValueError = ValueError::new("the server sent a value of another type than its column");
const DECIMAL: ValueError = ValueError::new("a decimal does not fit its column");

/// How values of a column of an answer are carried, as the server describes it. An error says why they cannot be.
pub(crate) fn kind(column: &Column) -> Result<Kind, String> {
    use ColumnType::*;
    let unsigned = column.flags().contains(ColumnFlags::UNSIGNED_FLAG);
    let fsp = column.decimals().min(FRACTION_DIGITS_MAX);
    Ok(match column.column_type() {
        MYSQL_TYPE_TINY => Kind::Int { bytes: 1, unsigned },
        MYSQL_TYPE_SHORT => Kind::Int { bytes: 2, unsigned },
        MYSQL_TYPE_INT24 => Kind::Int { bytes: 3, unsigned },
        MYSQL_TYPE_LONG => Kind::Int { bytes: 4, unsigned },
        MYSQL_TYPE_LONGLONG => Kind::Int { bytes: 8, unsigned },
        MYSQL_TYPE_FLOAT => Kind::Float,
        MYSQL_TYPE_DOUBLE => Kind::Double,
        MYSQL_TYPE_DECIMAL | MYSQL_TYPE_NEWDECIMAL => {
            let scale = column.decimals().min(DECIMAL_SCALE_MAX);
            // The length counts the point and the sign.
            let digits = column.column_length().saturating_sub(u32::from(scale > 0) + u32::from(!unsigned));
            Kind::Decimal { precision: (digits.clamp(1, DECIMAL_DIGITS_MAX) as u8).max(scale), scale }
        }
        MYSQL_TYPE_BIT => Kind::Bit,
        MYSQL_TYPE_YEAR => Kind::Year,
        MYSQL_TYPE_DATE | MYSQL_TYPE_NEWDATE => Kind::Date,
        MYSQL_TYPE_TIME => Kind::Time { fsp },
        MYSQL_TYPE_DATETIME => Kind::Datetime { fsp },
        MYSQL_TYPE_TIMESTAMP => Kind::Timestamp { fsp },
        MYSQL_TYPE_JSON => Kind::Json,
        MYSQL_TYPE_VECTOR => Kind::Vector,
        MYSQL_TYPE_GEOMETRY => Kind::Geometry { srid: 0 },
        MYSQL_TYPE_NULL | MYSQL_TYPE_ENUM | MYSQL_TYPE_SET => Kind::Text { charset: Charset::Utf8mb4 },
        MYSQL_TYPE_VARCHAR
        | MYSQL_TYPE_VAR_STRING
        | MYSQL_TYPE_STRING
        | MYSQL_TYPE_TINY_BLOB
        | MYSQL_TYPE_BLOB
        | MYSQL_TYPE_MEDIUM_BLOB
        | MYSQL_TYPE_LONG_BLOB => {
            let is_label = column.flags().intersects(ColumnFlags::ENUM_FLAG | ColumnFlags::SET_FLAG);
            if column.character_set() == BINARY_COLLATION && !is_label {
                Kind::Binary { pad: 0 }
            } else {
                Kind::Text { charset: Charset::Utf8mb4 }
            }
        }
        other => return Err(format!("a column has the type {other:?}, which is not known here")),
    })
}

/// Microseconds, days, numbers, text: a column of an answer under construction.
#[derive(Debug)]
pub(crate) struct AnswerColumn {
    step: Step,
    /// A value behind its length, as steps read it.
    lying: Vec<u8>,
}

/// The length of the length of values that are not of a fixed length.
const PREFIX: usize = 4;

impl AnswerColumn {
    /// For values that are carried as `kind`, of a column that the server describes as `sent`. An error says why they cannot be read.
    pub(crate) fn new(kind: &Kind, sent: &Column) -> Result<Self, String> {
        let kind = match kind {
            Kind::Text { .. }
            | Kind::CompressedText { .. }
            | Kind::Enum { .. }
            | Kind::Set { .. }
            | Kind::Json
            | Kind::Uuid
            | Kind::Inet4
            | Kind::Inet6 => Kind::Text { charset: charset(sent)? },
            Kind::Binary { .. } | Kind::CompressedBinary => Kind::Binary { pad: 0 },
            other => other.clone(),
        };
        Ok(AnswerColumn { step: Step::new(&kind, Wire::Prefixed(PREFIX), 0, 0), lying: Vec::new() })
    }

    /// Appends a value. After an error the column is of no use.
    pub(crate) fn append(&mut self, value: &Value, scratch: &mut Scratch) -> ValueResult<()> {
        let fields = |date: [u32; 3], time: [u32; 3]| (date, time);
        match (&mut self.step, value) {
            (step, Value::NULL) => step.append_null(),
            (Step::Int8(builder), value) => builder.append_value(integer(value)?),
            (Step::UInt8(builder), value) => builder.append_value(integer(value)?),
            (Step::Int16(builder) | Step::Year(builder), value) => builder.append_value(integer(value)?),
            (Step::UInt16(builder), value) => builder.append_value(integer(value)?),
            (Step::Int24(builder) | Step::Int32(builder), value) => builder.append_value(integer(value)?),
            (Step::UInt24(builder) | Step::UInt32(builder), value) => builder.append_value(integer(value)?),
            (Step::Int64(builder), value) => builder.append_value(integer(value)?),
            (Step::UInt64(builder), value) => builder.append_value(integer(value)?),
            (Step::Bit { builder, .. }, Value::Bytes(bytes)) => builder.append_value(bit::bit(bytes)?),
            (Step::Float32(builder), Value::Float(number)) => builder.append_value(*number),
            (Step::Float64(builder), Value::Double(number)) => builder.append_value(*number),
            (Step::Decimal128 { precision, scale, builder, .. }, Value::Bytes(text)) => {
                builder.append_value(unscaled(text, *precision, *scale)?.parse().map_err(|_| DECIMAL)?);
            }
            (Step::Decimal256 { precision, scale, builder, .. }, Value::Bytes(text)) => {
                builder.append_value(i256::from_string(&unscaled(text, *precision, *scale)?).ok_or(DECIMAL)?);
            }
            (Step::Date(builder), Value::Date(year, month, day, ..)) => {
                builder.append_value(temporal::days((*year).into(), (*month).into(), (*day).into())?);
            }
            (
                step @ (Step::Datetime { .. } | Step::Timestamp { .. } | Step::OldDatetime(_) | Step::OldTimestamp(_)),
                Value::Date(year, month, day, hour, minute, second, micros),
            ) => {
                let (date, time) =
                    fields([(*year).into(), (*month).into(), (*day).into()], [(*hour).into(), (*minute).into(), (*second).into()]);
                match step {
                    Step::Datetime { builder, .. } | Step::OldDatetime(builder) => {
                        builder.append_value(temporal::datetime(date, time, *micros)?);
                    }
                    Step::Timestamp { builder, .. } | Step::OldTimestamp(builder) => {
                        builder.append_value(temporal::timestamp(date, time, *micros)?);
                    }
                    _ => return Err(ANOTHER_TYPE),
                }
            }
            (Step::Time { builder, .. } | Step::OldTime(builder), Value::Time(negative, days, hours, minutes, seconds, micros)) => {
                let hours = days.saturating_mul(24).saturating_add((*hours).into());
                let time = temporal::duration(hours, (*minutes).into(), (*seconds).into(), (*micros).into())?;
                builder.append_value(if *negative { -time } else { time });
            }
            (
                step @ (Step::Utf8 { .. } | Step::Text { .. } | Step::Binary { .. } | Step::Geometry { .. } | Step::Vector { .. }),
                Value::Bytes(bytes),
            ) => {
                self.lying.clear();
                self.lying.extend_from_slice(&u32::try_from(bytes.len()).map_err(|_| ANOTHER_TYPE)?.to_le_bytes());
                self.lying.extend_from_slice(bytes);
                step.append(&mut Cursor::new(&self.lying), scratch).map_err(|error| match error {
                    CellError::Value(error) => error,
                    CellError::Truncated => ANOTHER_TYPE,
                })?;
            }
            _ => return Err(ANOTHER_TYPE),
        }
        Ok(())
    }

    /// The column.
    pub(crate) fn finish(&mut self) -> Option<ArrayRef> {
        self.step.finish()
    }
}

/// The spatial reference system of a geometry, which stands in front of it.
pub(crate) fn srid(value: &Value) -> Option<u32> {
    match value {
        Value::Bytes(bytes) => bytes.first_chunk::<4>().map(|srid| u32::from_le_bytes(*srid)),
        _ => None,
    }
}

/// The character set that text of a column comes in: its own.
fn charset(column: &Column) -> Result<Charset, String> {
    match column.character_set() {
        // JSON, labels of a binary column, NULL alone.
        BINARY_COLLATION => Ok(Charset::Utf8mb4),
        collation => Charset::from_collation(collation)
            .ok_or_else(|| format!("a column has the collation number {collation}, which is not known here")),
    }
}

fn integer<T: TryFrom<i64> + TryFrom<u64>>(value: &Value) -> ValueResult<T> {
    match value {
        Value::Int(number) => T::try_from(*number).map_err(|_| ANOTHER_TYPE),
        Value::UInt(number) => T::try_from(*number).map_err(|_| ANOTHER_TYPE),
        _ => Err(ANOTHER_TYPE),
    }
}

/// The digits of a decimal text without its point, `scale` of them behind it.
fn unscaled(text: &[u8], precision: u8, scale: u8) -> ValueResult<String> {
    let text = std::str::from_utf8(text).map_err(|_| DECIMAL)?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = whole.strip_prefix('-').unwrap_or(whole).trim_start_matches('0');
    let missing = usize::from(scale).checked_sub(fraction.len()).ok_or(DECIMAL)?;
    let all_digits = digits.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit());
    if !all_digits || digits.len() + usize::from(scale) > usize::from(precision) {
        return Err(DECIMAL);
    }
    let sign = if whole.starts_with('-') { "-" } else { "" };
    // A whole part of nothing is 0, which the digits of the fraction say as well.
    Ok(format!("{sign}0{digits}{fraction}{:0<missing$}", ""))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_digits_of_a_scale() {
        let number = |text: &str, precision, scale| unscaled(text.as_bytes(), precision, scale).map(|text| text.parse::<i128>().unwrap());
        for (text, precision, scale, expected) in [
            ("1.50", 10, 2, Ok(150)),
            ("-0.01", 10, 2, Ok(-1)),
            ("7", 5, 3, Ok(7000)),
            ("0.999", 3, 3, Ok(999)),
            ("-0", 1, 0, Ok(0)),
            ("0007", 1, 0, Ok(7)),
            ("10", 1, 0, Err(DECIMAL)),
            ("1.234", 10, 2, Err(DECIMAL)),
            ("1e3", 10, 2, Err(DECIMAL)),
            ("--1", 10, 2, Err(DECIMAL)),
        ] {
            assert_eq!(number(text, precision, scale), expected, "{text}");
        }
    }

    fn column(column_type: ColumnType, flags: ColumnFlags, length: u32, decimals: u8, collation: u16) -> Column {
        Column::new(column_type).with_flags(flags).with_column_length(length).with_decimals(decimals).with_character_set(collation)
    }

    #[test]
    fn columns_are_carried_as_they_are_described() {
        use ColumnType::*;
        let none = ColumnFlags::empty();
        for (column_type, flags, length, decimals, collation, expected) in [
            (MYSQL_TYPE_NEWDECIMAL, none, 12, 2, 63, "Decimal128(10, 2)"),
            (MYSQL_TYPE_NEWDECIMAL, ColumnFlags::UNSIGNED_FLAG, 21, 6, 63, "Decimal128(20, 6)"),
            (MYSQL_TYPE_NEWDECIMAL, none, 11, 9, 63, "Decimal128(9, 9)"),
            (MYSQL_TYPE_NEWDECIMAL, none, 66, 0, 63, "Decimal256(65, 0)"),
            (MYSQL_TYPE_NEWDECIMAL, none, 90, 30, 63, "Decimal256(65, 30)"),
            (MYSQL_TYPE_INT24, ColumnFlags::UNSIGNED_FLAG, 8, 0, 63, "UInt32"),
            (MYSQL_TYPE_VAR_STRING, none, 40, 0, 45, "Utf8"),
            (MYSQL_TYPE_VAR_STRING, none, 40, 0, 63, "Binary"),
            (MYSQL_TYPE_STRING, ColumnFlags::ENUM_FLAG, 40, 0, 63, "Utf8"),
            (MYSQL_TYPE_DATETIME, none, 26, 31, 63, "Timestamp(µs)"),
            (MYSQL_TYPE_NULL, none, 0, 0, 63, "Utf8"),
        ] {
            let kind = kind(&column(column_type, flags, length, decimals, collation)).unwrap();
            assert_eq!(kind.data_type().to_string(), expected, "{column_type:?}");
        }
        assert!(kind(&column(MYSQL_TYPE_TYPED_ARRAY, none, 0, 0, 63)).is_err());
        let unknown = column(MYSQL_TYPE_VAR_STRING, none, 40, 0, 7777);
        assert!(AnswerColumn::new(&Kind::Text { charset: Charset::Utf8mb4 }, &unknown).is_err());
    }

    #[test]
    fn a_value_of_another_type_is_an_error() {
        let sent = column(ColumnType::MYSQL_TYPE_TINY, ColumnFlags::empty(), 4, 0, 63);
        let mut column = AnswerColumn::new(&kind(&sent).unwrap(), &sent).unwrap();
        let mut scratch = Scratch::default();
        column.append(&Value::Int(-128), &mut scratch).unwrap();
        column.append(&Value::NULL, &mut scratch).unwrap();
        for value in [Value::Int(128), Value::Bytes(b"1".to_vec()), Value::Date(2026, 1, 1, 0, 0, 0, 0)] {
            assert_eq!(column.append(&value, &mut scratch), Err(ANOTHER_TYPE));
        }
        assert_eq!(column.finish().unwrap().len(), 2);
    }
}
