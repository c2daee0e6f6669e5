//! What a function returned, as values of columns: exactly, or not at all.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayBuilder, ArrayRef, BinaryBuilder, BooleanBuilder, Decimal256Builder, Float64Builder, Int64Builder, ListArray,
    NullBufferBuilder, StringBuilder, UInt64Builder,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit, i256};
use arrow::error::ArrowError;
use jiter::{Jiter, Peek};

use super::kind::{Kind, SAFE_MAX};
use crate::civil::{parse_date, parse_time, parse_timestamp};

/// Why a value cannot be in its column.
pub(super) type Reason = &'static str;

const NOT_JSON: Reason = "the function returned text that is no JSON";
const OTHER_TYPE: Reason = "the value is of another type";
const NO_NUMBER: Reason = "the text is no number";
const MORE_DIGITS: Reason = "the number has digits behind the point that the column has no place for";
const OUT_OF_RANGE: Reason = "the value is beyond what the column can hold";
const NOT_EXACT: Reason = "a number beyond 2^53 is not exact in JavaScript: return its digits as text";
const NO_BYTES: Reason = "the text is no hexadecimal digits, two a byte";
const NO_TIME: Reason = "the text is no such date or time";
const NO_JSON: Reason = "the text is no JSON";

/// Values of a column that a function made, in the order they came.
pub(super) struct Made {
    kind: Kind,
    builder: Builder,
}

enum Builder {
    Boolean(BooleanBuilder),
    Whole(Int64Builder),
    Unsigned(UInt64Builder),
    Double(Float64Builder),
    Decimal(Decimal256Builder),
    Text(StringBuilder),
    Bytes(BinaryBuilder),
    List { items: Box<Made>, offsets: Vec<i32>, valid: NullBufferBuilder },
}

impl Made {
    pub(super) fn new(kind: &Kind) -> Self {
        let builder = match kind {
            Kind::Boolean => Builder::Boolean(BooleanBuilder::new()),
            Kind::Whole { .. } | Kind::Date | Kind::Time { .. } | Kind::Timestamp { .. } => Builder::Whole(Int64Builder::new()),
            Kind::Unsigned => Builder::Unsigned(UInt64Builder::new()),
            Kind::Single | Kind::Double => Builder::Double(Float64Builder::new()),
            Kind::Decimal { .. } => Builder::Decimal(Decimal256Builder::new()),
            Kind::Text | Kind::Json => Builder::Text(StringBuilder::new()),
            Kind::Bytes { .. } => Builder::Bytes(BinaryBuilder::new()),
            Kind::List(item) => Builder::List { items: Box::new(Made::new(item)), offsets: vec![0], valid: NullBufferBuilder::new(0) },
        };
        Made { kind: kind.clone(), builder }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        match &self.builder {
            Builder::List { offsets, .. } => offsets.len() - 1,
            Builder::Boolean(builder) => builder.len(),
            Builder::Whole(builder) => builder.len(),
            Builder::Unsigned(builder) => builder.len(),
            Builder::Double(builder) => builder.len(),
            Builder::Decimal(builder) => builder.len(),
            Builder::Text(builder) => builder.len(),
            Builder::Bytes(builder) => builder.len(),
        }
    }

    fn append_null(&mut self) {
        match &mut self.builder {
            Builder::Boolean(builder) => builder.append_null(),
            Builder::Whole(builder) => builder.append_null(),
            Builder::Unsigned(builder) => builder.append_null(),
            Builder::Double(builder) => builder.append_null(),
            Builder::Decimal(builder) => builder.append_null(),
            Builder::Text(builder) => builder.append_null(),
            Builder::Bytes(builder) => builder.append_null(),
            Builder::List { offsets, valid, .. } => {
                offsets.push(offsets.last().copied().unwrap_or(0));
                valid.append_null();
            }
        }
    }

    /// Takes the value that comes next. If it cannot be taken, nothing that counts is left of it.
    pub(super) fn append(&mut self, json: &mut Jiter<'_>) -> Result<(), Reason> {
        let peek = json.peek().map_err(|_| NOT_JSON)?;
        if peek == Peek::Null {
            json.known_null().map_err(|_| NOT_JSON)?;
            self.append_null();
            return Ok(());
        }
        let kind = &self.kind;
        match &mut self.builder {
            Builder::Boolean(builder) => match peek {
                Peek::True | Peek::False => builder.append_value(json.known_bool(peek).map_err(|_| NOT_JSON)?),
                _ => return Err(OTHER_TYPE),
            },
            Builder::Whole(builder) => builder.append_value(match kind {
                Kind::Whole { min, max } => {
                    let value = exact(number(json, peek)?, 0)?.to_i128().ok_or(OUT_OF_RANGE)?;
                    let value = i64::try_from(value).map_err(|_| OUT_OF_RANGE)?;
                    if value < *min || value > *max {
                        return Err(OUT_OF_RANGE);
                    }
                    value
                }
                _ => calendar(text(json, peek)?, kind)?,
            }),
            Builder::Unsigned(builder) => {
                let value = exact(number(json, peek)?, 0)?.to_i128().ok_or(OUT_OF_RANGE)?;
                builder.append_value(u64::try_from(value).map_err(|_| OUT_OF_RANGE)?);
            }
            Builder::Double(builder) => builder.append_value(float(json, peek, *kind == Kind::Single)?),
            Builder::Decimal(builder) => {
                let Kind::Decimal { precision, scale } = kind else { return Err(OTHER_TYPE) };
                let value = exact(number(json, peek)?, (*scale).into())?;
                let bound = i256::from_i128(10).checked_pow((*precision).into()).ok_or(OUT_OF_RANGE)?;
                if value >= bound || value <= bound.wrapping_neg() {
                    return Err(OUT_OF_RANGE);
                }
                builder.append_value(value);
            }
            Builder::Text(builder) => match (kind, peek) {
                (Kind::Json, Peek::Object | Peek::Array) => {
                    let start = json.current_index();
                    json.known_skip(peek).map_err(|_| NOT_JSON)?;
                    builder.append_value(std::str::from_utf8(json.slice_to_current(start)).map_err(|_| NOT_JSON)?);
                }
                (Kind::Json, _) => {
                    let text = text(json, peek)?;
                    let mut inner = Jiter::new(text.as_bytes());
                    inner.next_skip().and_then(|()| inner.finish()).map_err(|_| NO_JSON)?;
                    builder.append_value(text);
                }
                _ => builder.append_value(text(json, peek)?),
            },
            Builder::Bytes(builder) => {
                let bytes = unhex(text(json, peek)?).ok_or(NO_BYTES)?;
                if matches!(kind, Kind::Bytes { width: Some(width) } if usize::try_from(*width) != Ok(bytes.len())) {
                    return Err(OUT_OF_RANGE);
                }
                builder.append_value(bytes);
            }
            Builder::List { items, offsets, valid } => {
                if peek != Peek::Array {
                    return Err(OTHER_TYPE);
                }
                let taken: Result<(), Reason> = (|| {
                    let mut next = json.known_array().map_err(|_| NOT_JSON)?;
                    while next.is_some() {
                        items.append(json)?;
                        next = json.array_step().map_err(|_| NOT_JSON)?;
                    }
                    Ok(())
                })();
                // What a list that broke off has left is behind a null that nobody asks for.
                let end = i32::try_from(items.len()).map_err(|_| OUT_OF_RANGE)?;
                offsets.push(end);
                valid.append(taken.is_ok());
                return taken;
            }
        }
        Ok(())
    }

    /// The values, as an array of the column's type.
    pub(super) fn finish(&mut self, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
        let values: ArrayRef = match &mut self.builder {
            Builder::Boolean(builder) => Arc::new(builder.finish()),
            Builder::Whole(builder) => {
                let whole: ArrayRef = Arc::new(builder.finish());
                // By way of the integers that they are kept as.
                match data_type {
                    DataType::Date32 | DataType::Time32(_) => cast(&whole, &DataType::Int32)?,
                    _ => whole,
                }
            }
            Builder::Unsigned(builder) => Arc::new(builder.finish()),
            Builder::Double(builder) => Arc::new(builder.finish()),
            Builder::Decimal(builder) => {
                let decimals = builder.finish();
                match data_type {
                    DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
                        Arc::new(decimals.with_precision_and_scale((*precision).max(1), *scale)?)
                    }
                    _ => Arc::new(decimals),
                }
            }
            Builder::Text(builder) => Arc::new(builder.finish()),
            Builder::Bytes(builder) => Arc::new(builder.finish()),
            Builder::List { items, offsets, valid } => {
                let DataType::List(field) = data_type else {
                    return Err(ArrowError::InvalidArgumentError("a list is of a list's type".to_owned()));
                };
                let items = items.finish(field.data_type())?;
                let offsets = OffsetBuffer::new(ScalarBuffer::from(std::mem::replace(offsets, vec![0])));
                Arc::new(ListArray::try_new(Arc::clone(field), offsets, items, valid.finish())?)
            }
        };
        if values.data_type() == data_type { Ok(values) } else { cast(&values, data_type) }
    }
}

fn text<'t>(json: &'t mut Jiter<'_>, peek: Peek) -> Result<&'t str, Reason> {
    if peek != Peek::String {
        return Err(OTHER_TYPE);
    }
    json.known_str().map_err(|_| NOT_JSON)
}

/// The digits of a number, also of one that is text.
fn number<'t>(json: &'t mut Jiter<'_>, peek: Peek) -> Result<&'t str, Reason> {
    if peek == Peek::String {
        return json.known_str().map_err(|_| NOT_JSON);
    }
    if !peek.is_num() {
        return Err(OTHER_TYPE);
    }
    let digits = json.known_number_bytes(peek).map_err(|_| NOT_JSON)?;
    let digits = std::str::from_utf8(digits).map_err(|_| NOT_JSON)?;
    let magnitude: f64 = digits.parse().map_err(|_| NOT_JSON)?;
    if magnitude.abs() > SAFE_MAX as f64 { Err(NOT_EXACT) } else { Ok(digits) }
}

fn float(json: &mut Jiter<'_>, peek: Peek, single: bool) -> Result<f64, Reason> {
    let digits = match peek {
        Peek::String => match json.known_str().map_err(|_| NOT_JSON)? {
            "NaN" => return Ok(f64::NAN),
            "Infinity" => return Ok(f64::INFINITY),
            "-Infinity" => return Ok(f64::NEG_INFINITY),
            digits if digits.trim_start_matches('-').starts_with(|c: char| c.is_ascii_digit()) => digits,
            _ => return Err(NO_NUMBER),
        },
        _ if peek.is_num() => {
            let digits = json.known_number_bytes(peek).map_err(|_| NOT_JSON)?;
            std::str::from_utf8(digits).map_err(|_| NOT_JSON)?
        }
        _ => return Err(OTHER_TYPE),
    };
    let value = if single { digits.parse::<f32>().map(f64::from) } else { digits.parse::<f64>() }.map_err(|_| NO_NUMBER)?;
    if value.is_finite() { Ok(value) } else { Err(OUT_OF_RANGE) }
}

/// More digits than any decimal has.
const DIGITS_MAX: usize = 80;

/// A number times ten to the `scale`, if that is whole.
fn exact(text: &str, scale: i32) -> Result<i256, Reason> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], unsigned[at + 1..].parse::<i32>().map_err(|_| NO_NUMBER)?),
        None => (unsigned, 0),
    };
    let (before, behind) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_digits = |text: &str| text.bytes().all(|c| c.is_ascii_digit());
    if before.is_empty() || !is_digits(before) || !is_digits(behind) || (mantissa.contains('.') && behind.is_empty()) {
        return Err(NO_NUMBER);
    }
    let digits = before.trim_start_matches('0').len() + behind.len();
    let mut whole: String = [before, behind].concat().trim_start_matches('0').to_owned();
    if whole.is_empty() {
        return Ok(i256::ZERO);
    }
    let shift = i64::from(scale) + i64::from(exponent) - i64::try_from(behind.len()).unwrap_or(i64::MAX);
    if shift < 0 {
        let cut = usize::try_from(-shift).unwrap_or(usize::MAX);
        let kept = whole.len().checked_sub(cut).ok_or(MORE_DIGITS)?;
        if whole[kept..].bytes().any(|c| c != b'0') {
            return Err(MORE_DIGITS);
        }
        whole.truncate(kept);
    } else {
        let zeros = usize::try_from(shift).unwrap_or(usize::MAX);
        if zeros.saturating_add(digits) > DIGITS_MAX {
            return Err(OUT_OF_RANGE);
        }
        whole.extend(std::iter::repeat_n('0', zeros));
    }
    if whole.len() > DIGITS_MAX {
        return Err(OUT_OF_RANGE);
    }
    let value = if whole.is_empty() { i256::ZERO } else { i256::from_string(&whole).ok_or(OUT_OF_RANGE)? };
    Ok(if negative { value.wrapping_neg() } else { value })
}

/// A date or time, as the number that it is kept as.
fn calendar(text: &str, kind: &Kind) -> Result<i64, Reason> {
    if let Some(infinity) = kind.infinity() {
        match text {
            "infinity" => return Ok(infinity),
            "-infinity" => return Ok(-infinity),
            _ => {}
        }
    }
    match kind {
        Kind::Date => {
            let days = parse_date(text).ok_or(NO_TIME)?;
            if i32::try_from(days).is_ok() { Ok(days) } else { Err(OUT_OF_RANGE) }
        }
        Kind::Timestamp { unit, utc } => parse_timestamp(text, *unit, *utc).ok_or(NO_TIME),
        Kind::Time { unit, span } => {
            let value = parse_time(text, *unit).ok_or(NO_TIME)?;
            // The end of a day is a time of day, as it is in PostgreSQL.
            if *span || (0..=DAY_SECONDS * per_second(*unit)).contains(&value) { Ok(value) } else { Err(OUT_OF_RANGE) }
        }
        _ => Err(OTHER_TYPE),
    }
}

const DAY_SECONDS: i64 = 86_400;

fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_taken_exactly() {
        let whole = |value: i128| Ok(i256::from_i128(value));
        for (text, scale, expected) in [
            ("12.5", 2, whole(1250)),
            ("-0.05", 2, whole(-5)),
            ("1e3", 0, whole(1000)),
            ("1.5e+1", 0, whole(15)),
            ("15e-1", 0, Err(MORE_DIGITS)),
            ("1e-7", 7, whole(1)),
            ("5.000", 0, whole(5)),
            ("0.30000000000000004", 2, Err(MORE_DIGITS)),
            ("0e999999999", 0, whole(0)),
            ("1e999999999", 0, Err(OUT_OF_RANGE)),
            ("1e-999999999", 0, Err(MORE_DIGITS)),
            ("-0", 0, whole(0)),
            ("007", 0, whole(7)),
            ("", 0, Err(NO_NUMBER)),
            ("-", 0, Err(NO_NUMBER)),
            ("1.", 0, Err(NO_NUMBER)),
            (".5", 1, Err(NO_NUMBER)),
            ("1e", 0, Err(NO_NUMBER)),
            ("1_0", 0, Err(NO_NUMBER)),
            ("+1", 0, Err(NO_NUMBER)),
            ("0x10", 0, Err(NO_NUMBER)),
            (" 1", 0, Err(NO_NUMBER)),
        ] {
            assert_eq!(exact(text, scale), expected, "{text}");
        }
    }
}
