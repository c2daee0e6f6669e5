//! Rows as JSON, a row at a time, as a function gets them.

use std::io::Write as _;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Decimal256Array, Float32Array, Float64Array, Int64Array, ListArray, StringArray,
    UInt64Array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, i256};
use arrow::error::ArrowError;

use super::kind::{Kind, SAFE_MAX};
use crate::civil::{write_iso_date, write_iso_timestamp, write_time};

/// A column, ready to be written. Types are told apart once a batch, and fewer of them are left.
pub(super) struct Written<'a> {
    kind: &'a Kind,
    values: Values<'a>,
}

enum Values<'a> {
    Boolean(BooleanArray),
    Whole(Int64Array),
    Unsigned(UInt64Array),
    Single(Float32Array),
    Double(Float64Array),
    Decimal(Decimal256Array),
    Text(StringArray),
    Bytes(BinaryArray),
    List(ListArray, Box<Written<'a>>),
}

impl<'a> Written<'a> {
    pub(super) fn new(kind: &'a Kind, column: &ArrayRef) -> Result<Self, ArrowError> {
        let values = match kind {
            Kind::Boolean => Values::Boolean(column.as_boolean().clone()),
            Kind::Whole { .. } | Kind::Timestamp { .. } => Values::Whole(whole(column)?),
            // By way of the integers that they are kept as.
            Kind::Date => Values::Whole(whole(&cast(column, &DataType::Int32)?)?),
            Kind::Time { .. } => match column.data_type() {
                DataType::Time32(_) => Values::Whole(whole(&cast(column, &DataType::Int32)?)?),
                _ => Values::Whole(whole(column)?),
            },
            Kind::Unsigned => Values::Unsigned(column.as_primitive().clone()),
            Kind::Single => Values::Single(column.as_primitive().clone()),
            Kind::Double => Values::Double(column.as_primitive().clone()),
            Kind::Decimal { precision, scale } => {
                Values::Decimal(cast(column, &DataType::Decimal256(*precision, *scale))?.as_primitive().clone())
            }
            Kind::Text | Kind::Json => Values::Text(column.as_string().clone()),
            Kind::Bytes { .. } => Values::Bytes(cast(column, &DataType::Binary)?.as_binary().clone()),
            Kind::List(item) => {
                let lists: &ListArray = column.as_list();
                Values::List(lists.clone(), Box::new(Written::new(item, lists.values())?))
            }
        };
        Ok(Written { kind, values })
    }

    /// Writes the value of a row.
    pub(super) fn write(&self, row: usize, json: &mut Vec<u8>) {
        let is_null = match &self.values {
            Values::Boolean(values) => values.is_null(row),
            Values::Whole(values) => values.is_null(row),
            Values::Unsigned(values) => values.is_null(row),
            Values::Single(values) => values.is_null(row),
            Values::Double(values) => values.is_null(row),
            Values::Decimal(values) => values.is_null(row),
            Values::Text(values) => values.is_null(row),
            Values::Bytes(values) => values.is_null(row),
            Values::List(values, _) => values.is_null(row),
        };
        if is_null {
            json.extend_from_slice(b"null");
            return;
        }
        match &self.values {
            Values::Boolean(values) => json.extend_from_slice(if values.value(row) { b"true" } else { b"false" }),
            Values::Whole(values) => self.write_whole(values.value(row), json),
            Values::Unsigned(values) => {
                let value = values.value(row);
                let safe = i64::try_from(value).is_ok_and(|value| value <= SAFE_MAX);
                match safe {
                    true => format(json, format_args!("{value}")),
                    false => format(json, format_args!("\"{value}\"")),
                }
            }
            Values::Single(values) => {
                let value = values.value(row);
                write_float(value.into(), format_args!("{value:e}"), json);
            }
            Values::Double(values) => {
                let value = values.value(row);
                write_float(value, format_args!("{value:e}"), json);
            }
            Values::Decimal(values) => write_decimal(values.value(row), self.kind, json),
            Values::Text(values) => write_text(values.value(row), json),
            Values::Bytes(values) => {
                json.push(b'"');
                for byte in values.value(row) {
                    json.push(HEX[usize::from(byte >> 4)]);
                    json.push(HEX[usize::from(byte & 15)]);
                }
                json.push(b'"');
            }
            Values::List(values, items) => {
                let offsets = values.value_offsets();
                json.push(b'[');
                for item in offsets[row]..offsets[row + 1] {
                    if item > offsets[row] {
                        json.push(b',');
                    }
                    items.write(usize::try_from(item).unwrap_or_default(), json);
                }
                json.push(b']');
            }
        }
    }

    fn write_whole(&self, value: i64, json: &mut Vec<u8>) {
        if !matches!(self.kind, Kind::Whole { .. }) {
            json.push(b'"');
            match self.kind {
                _ if self.kind.infinity() == Some(value) => json.extend_from_slice(b"infinity"),
                _ if self.kind.infinity().is_some_and(|infinity| value == -infinity) => json.extend_from_slice(b"-infinity"),
                Kind::Date => write_iso_date(json, value),
                Kind::Timestamp { unit, utc } => write_iso_timestamp(json, value, *unit, *utc),
                Kind::Time { unit, .. } => write_time(json, value, *unit),
                _ => {}
            }
            json.push(b'"');
        } else if (-SAFE_MAX..=SAFE_MAX).contains(&value) {
            format(json, format_args!("{value}"));
        } else {
            format(json, format_args!("\"{value}\""));
        }
    }
}

const HEX: [u8; 16] = *b"0123456789abcdef";

fn whole(column: &ArrayRef) -> Result<Int64Array, ArrowError> {
    Ok(cast(column, &DataType::Int64)?.as_primitive().clone())
}

fn format(json: &mut Vec<u8>, arguments: std::fmt::Arguments<'_>) {
    json.write_fmt(arguments).expect("writing to a vector does not fail");
}

/// Digits of which there may be two shortest sequences, equally close to the value.
const TIE_DIGITS: usize = 16;

/// A number as JavaScript writes it: the shortest digits that read back as the value, with an exponent only far from the point.
fn write_float(value: f64, scientific: std::fmt::Arguments<'_>, json: &mut Vec<u8>) {
    if !value.is_finite() {
        let name: &[u8] = match value {
            _ if value.is_nan() => b"\"NaN\"",
            _ if value > 0.0 => b"\"Infinity\"",
            _ => b"\"-Infinity\"",
        };
        json.extend_from_slice(name);
        return;
    }
    if value == 0.0 {
        // As JavaScript writes it; the sign stays where the value does.
        json.push(b'0');
        return;
    }
    // `-1.25e-7`, at most 17 digits.
    let mut text = [0; 32];
    let mut rest = &mut text[..];
    rest.write_fmt(scientific).expect("the shortest digits are short");
    let left = rest.len();
    let text = &text[..32 - left];
    let text = match text.strip_prefix(b"-") {
        Some(text) => {
            json.push(b'-');
            text
        }
        None => text,
    };
    let at = text.iter().position(|c| *c == b'e').unwrap_or(text.len());
    let exponent: i32 = std::str::from_utf8(text.get(at + 1..).unwrap_or_default()).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut even = [0; 24];
    let (first, mut others) = (text[0], text[..at].get(2..).unwrap_or_default());
    if others.len() + 1 >= TIE_DIGITS && is_tie(value, others) {
        // Half way between two: the even one is JavaScript's, the upper one Rust's.
        let even = &mut even[..others.len()];
        even.copy_from_slice(others);
        if let Some(last) = even.last_mut() {
            *last -= 1;
        }
        others = even;
    }
    let digits = 1 + others.len() as i32;
    match exponent {
        // All digits before the point.
        0..=20 if exponent >= digits - 1 => {
            json.push(first);
            json.extend_from_slice(others);
            json.extend(std::iter::repeat_n(b'0', (exponent + 1 - digits) as usize));
        }
        0..=20 => {
            json.push(first);
            json.extend_from_slice(&others[..exponent as usize]);
            json.push(b'.');
            json.extend_from_slice(&others[exponent as usize..]);
        }
        -6..=-1 => {
            json.extend_from_slice(b"0.");
            json.extend(std::iter::repeat_n(b'0', (-exponent - 1) as usize));
            json.push(first);
            json.extend_from_slice(others);
        }
        _ => {
            json.push(first);
            if !others.is_empty() {
                json.push(b'.');
                json.extend_from_slice(others);
            }
            format(json, format_args!("e{exponent:+}"));
        }
    }
}

/// True if the value lies exactly half a digit below these digits, of which the last is odd.
fn is_tie(value: f64, others: &[u8]) -> bool {
    // Only a value with hardly a bit behind the point ends so early.
    if others.last().is_none_or(|last| last % 2 == 0) || (value * 256.0).fract() != 0.0 {
        return false;
    }
    let exact = format!("{:.40e}", value.abs());
    let tail = exact.get(2 + others.len()..exact.find('e').unwrap_or(0)).unwrap_or_default();
    tail.strip_prefix('5').is_some_and(|zeros| zeros.bytes().all(|digit| digit == b'0'))
}

fn write_decimal(value: i256, kind: &Kind, json: &mut Vec<u8>) {
    let scale = match kind {
        Kind::Decimal { scale, .. } => usize::try_from(*scale).unwrap_or(0),
        _ => 0,
    };
    json.push(b'"');
    let start = json.len();
    match value.to_i128() {
        Some(value) => format(json, format_args!("{value}")),
        None => format(json, format_args!("{value}")),
    }
    if scale > 0 {
        let digits = start + usize::from(json[start] == b'-');
        let missing = (scale + 1).saturating_sub(json.len() - digits);
        json.splice(digits..digits, std::iter::repeat_n(b'0', missing));
        let point = json.len() - scale;
        json.insert(point, b'.');
    }
    json.push(b'"');
}

/// A text in quotes, escaped just as far as `JSON.stringify` does.
pub(super) fn write_text(text: &str, json: &mut Vec<u8>) {
    json.push(b'"');
    let bytes = text.as_bytes();
    let mut written = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if *byte >= b' ' && *byte != b'"' && *byte != b'\\' {
            continue;
        }
        json.extend_from_slice(&bytes[written..at]);
        written = at + 1;
        match byte {
            b'"' => json.extend_from_slice(b"\\\""),
            b'\\' => json.extend_from_slice(b"\\\\"),
            b'\n' => json.extend_from_slice(b"\\n"),
            b'\r' => json.extend_from_slice(b"\\r"),
            b'\t' => json.extend_from_slice(b"\\t"),
            8 => json.extend_from_slice(b"\\b"),
            12 => json.extend_from_slice(b"\\f"),
            other => format(json, format_args!("\\u{other:04x}")),
        }
    }
    json.extend_from_slice(&bytes[written..]);
    json.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_javascript_writes_them() {
        for (value, expected) in [
            (0.1, "0.1"),
            (-0.0, "0"),
            (100.0, "100"),
            (-1.5, "-1.5"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1.25e21, "1.25e+21"),
            (123_456.789, "123456.789"),
            (0.000_001, "0.000001"),
            (1e-7, "1e-7"),
            (1.5e-7, "1.5e-7"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (9_007_199_254_740_993.0, "9007199254740992"),
            (2_023_347_301_156_851.0 + 0.25, "2023347301156851.2"),
            (2_023_347_301_156_851.0 + 0.75, "2023347301156851.8"),
            (f64::NAN, "\"NaN\""),
            (f64::NEG_INFINITY, "\"-Infinity\""),
        ] {
            let mut json = Vec::new();
            write_float(value, format_args!("{value:e}"), &mut json);
            assert_eq!(String::from_utf8_lossy(&json), expected);
        }
    }

    #[test]
    fn decimals_have_all_digits_of_the_scale() {
        for (value, scale, expected) in [(1250, 2, "12.50"), (-5, 2, "-0.05"), (0, 3, "0.000"), (7, 0, "7"), (-1234, 4, "-0.1234")] {
            let mut json = Vec::new();
            write_decimal(i256::from_i128(value), &Kind::Decimal { precision: 38, scale }, &mut json);
            assert_eq!(String::from_utf8_lossy(&json), format!("\"{expected}\""));
        }
    }
}
