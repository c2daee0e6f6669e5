//! The types of columns as a function sees them: which of them there are, and what they are in JSON.
//!
//! | column | JSON |
//! |---|---|
//! | boolean | `true`, `false` |
//! | whole numbers | a number where JavaScript has it exactly, up to ±(2⁵³ − 1), else its digits as text |
//! | floating point | a number, as JavaScript writes it; `"NaN"`, `"Infinity"`, `"-Infinity"` |
//! | decimals | text with all digits of the scale: `"12.50"` |
//! | text, also JSON | text |
//! | binary | text, two hexadecimal digits a byte |
//! | dates | `"2026-11-20"`, `"infinity"`, `"-infinity"` |
//! | timestamps | `"2026-11-20T12:30:00.250"`, with `Z` behind it if it is a point in time; `"infinity"`, `"-infinity"` |
//! | times and spans | `"12:30:00.25"`, `"-838:59:59"` |
//! | lists | lists |
//!
//! What is written here is written as `JSON.stringify` writes it, so that what comes back as it went is known by its bytes.

use arrow::datatypes::{DataType, Field, TimeUnit};

/// The greatest whole number below which JavaScript has all of them.
pub(super) const SAFE_MAX: i64 = (1 << 53) - 1;

/// The greatest value of a date, which stands for infinity; its negation for the other end.
pub(super) const INFINITE_DATE: i64 = i32::MAX as i64;

/// Likewise of a timestamp.
pub(super) const INFINITE_TIMESTAMP: i64 = i64::MAX;

/// The type of a column, as far as JSON goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Boolean,
    /// Of up to 64 bits with a sign, or 32 without.
    Whole {
        min: i64,
        max: i64,
    },
    /// Of 64 bits without a sign.
    Unsigned,
    Single,
    Double,
    Decimal {
        precision: u8,
        scale: i8,
    },
    Text,
    Json,
    Bytes {
        width: Option<i32>,
    },
    Date,
    /// Of a day, or a span, which knows no bounds.
    Time {
        unit: TimeUnit,
        span: bool,
    },
    Timestamp {
        unit: TimeUnit,
        utc: bool,
    },
    List(Box<Kind>),
}

impl Kind {
    /// The kind of a column; `None` if a function cannot have it.
    pub(super) fn of(field: &Field) -> Option<Kind> {
        let whole = |min, max| Kind::Whole { min, max };
        Some(match field.data_type() {
            DataType::Boolean => Kind::Boolean,
            DataType::Int8 => whole(i8::MIN.into(), i8::MAX.into()),
            DataType::Int16 => whole(i16::MIN.into(), i16::MAX.into()),
            DataType::Int32 => whole(i32::MIN.into(), i32::MAX.into()),
            DataType::Int64 => whole(i64::MIN, i64::MAX),
            DataType::UInt8 => whole(0, u8::MAX.into()),
            DataType::UInt16 => whole(0, u16::MAX.into()),
            DataType::UInt32 => whole(0, u32::MAX.into()),
            DataType::UInt64 => Kind::Unsigned,
            DataType::Float32 => Kind::Single,
            DataType::Float64 => Kind::Double,
            DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) if *scale >= 0 => {
                Kind::Decimal { precision: *precision, scale: *scale }
            }
            DataType::Utf8 if field.extension_type_name() == Some("arrow.json") => Kind::Json,
            DataType::Utf8 => Kind::Text,
            DataType::Binary => Kind::Bytes { width: None },
            DataType::FixedSizeBinary(width) => Kind::Bytes { width: Some(*width) },
            DataType::Date32 => Kind::Date,
            DataType::Time32(unit) | DataType::Time64(unit) => Kind::Time { unit: *unit, span: false },
            DataType::Duration(unit) => Kind::Time { unit: *unit, span: true },
            DataType::Timestamp(unit, zone) => Kind::Timestamp { unit: *unit, utc: zone.is_some() },
            DataType::List(item) => Kind::List(Box::new(Kind::of(item)?)),
            _ => return None,
        })
    }

    /// The greatest value, where it stands for infinity.
    pub(super) fn infinity(&self) -> Option<i64> {
        match self {
            Kind::Date => Some(INFINITE_DATE),
            // Nanoseconds end in years that every calendar has: there the ends are no infinity that somebody wrote.
            Kind::Timestamp { unit, .. } if *unit != TimeUnit::Nanosecond => Some(INFINITE_TIMESTAMP),
            _ => None,
        }
    }
}
