//! The types of columns that a function adds.

use std::fmt;
use std::str::FromStr;

use arrow::datatypes::{DataType, Field, TimeUnit};

/// The type of a column that a function adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UdfType {
    /// `boolean`
    Boolean,
    /// `int`: 32 bits.
    Int,
    /// `bigint`: 64 bits.
    Bigint,
    /// `double`
    Double,
    /// `decimal(p,s)`: up to 76 digits, s of them behind the point.
    Decimal(u8, i8),
    /// `text`
    Text,
    /// `json`: text that says so.
    Json,
    /// `bytes`
    Bytes,
    /// `date`
    Date,
    /// `time`: of a day.
    Time,
    /// `timestamp`: a reading of a calendar, in no time zone.
    Timestamp,
    /// `timestamptz`: a point in time.
    TimestampUtc,
}

/// The types by name, but for decimals.
const NAMES: [(&str, UdfType); 11] = [
    ("boolean", UdfType::Boolean),
    ("int", UdfType::Int),
    ("bigint", UdfType::Bigint),
    ("double", UdfType::Double),
    ("text", UdfType::Text),
    ("json", UdfType::Json),
    ("bytes", UdfType::Bytes),
    ("date", UdfType::Date),
    ("time", UdfType::Time),
    ("timestamp", UdfType::Timestamp),
    ("timestamptz", UdfType::TimestampUtc),
];

impl UdfType {
    /// The names there are, for messages.
    pub const KNOWN: &str = "boolean, int, bigint, double, decimal(p,s), text, json, bytes, date, time, timestamp and timestamptz";

    pub(super) fn field(self, name: &str) -> Field {
        let micros = TimeUnit::Microsecond;
        let data_type = match self {
            UdfType::Boolean => DataType::Boolean,
            UdfType::Int => DataType::Int32,
            UdfType::Bigint => DataType::Int64,
            UdfType::Double => DataType::Float64,
            UdfType::Decimal(precision, scale) if precision <= 38 => DataType::Decimal128(precision, scale),
            UdfType::Decimal(precision, scale) => DataType::Decimal256(precision, scale),
            UdfType::Text | UdfType::Json => DataType::Utf8,
            UdfType::Bytes => DataType::Binary,
            UdfType::Date => DataType::Date32,
            UdfType::Time => DataType::Time64(micros),
            UdfType::Timestamp => DataType::Timestamp(micros, None),
            UdfType::TimestampUtc => DataType::Timestamp(micros, Some("UTC".into())),
        };
        let field = Field::new(name, data_type, true);
        match self {
            UdfType::Json => field.with_metadata([("ARROW:extension:name".to_owned(), "arrow.json".to_owned())].into()),
            _ => field,
        }
    }
}

impl FromStr for UdfType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((_, known)) = NAMES.iter().find(|(name, _)| *name == text) {
            return Ok(*known);
        }
        let digits = text.strip_prefix("decimal(").and_then(|rest| rest.strip_suffix(')')).and_then(|digits| digits.split_once(','));
        match digits.map(|(precision, scale)| (precision.trim().parse(), scale.trim().parse())) {
            Some((Ok(precision @ 1..=76), Ok(scale))) if (0..=i16::from(precision)).contains(&i16::from(scale)) => {
                Ok(UdfType::Decimal(precision, scale))
            }
            Some(_) => Err(format!("{text} is no decimal: it has 1 to 76 digits, of which some are behind the point")),
            None => Err(format!("{text} is no type of a column: there are {}", Self::KNOWN)),
        }
    }
}

impl fmt::Display for UdfType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UdfType::Decimal(precision, scale) => write!(f, "decimal({precision},{scale})"),
            other => f.write_str(NAMES.iter().find(|(_, known)| known == other).map_or("", |(name, _)| name)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn types_by_name() {
        for text in ["boolean", "int", "bigint", "double", "decimal(12,2)", "decimal(76,38)", "text", "json", "bytes", "timestamptz"] {
            assert_eq!(text.parse::<UdfType>().unwrap().to_string(), text);
        }
        for text in ["", "string", "decimal", "decimal(0,0)", "decimal(77,0)", "decimal(5,6)", "decimal(5,-1)", "decimal(5)", "int(4)"] {
            assert!(text.parse::<UdfType>().is_err(), "{text}");
        }
    }
}
