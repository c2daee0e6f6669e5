//! How values are carried: the closed list of what a column can be, apart from its name and its type's name.

use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef, TimeUnit};
use serde::{Deserialize, Serialize};

/// The most digits of a Decimal128.
pub(crate) const PRECISION_128: u8 = 38;
/// The most digits of a Decimal256.
pub(crate) const PRECISION_256: u8 = 76;

/// What a column holds, and how both forms of a value become that. Written into checkpoints: names stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Form {
    Bool,
    Int16,
    Int32,
    Int64,
    #[serde(rename = "uint32")]
    UInt32,
    #[serde(rename = "uint64")]
    UInt64,
    Float32,
    Float64,
    Decimal {
        precision: u8,
        scale: u8,
    },
    Money {
        scale: i8,
    },
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Text(Rendering),
    Bytes,
    /// PostGIS: extended well-known binary, in hexadecimal digits where it is text.
    Ewkb,
    /// pgvector.
    Floats {
        half: bool,
    },
    List {
        element: Box<Form>,
        delimiter: u8,
    },
}

/// How the binary form of a value is made into the server's text. The text form is that already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Rendering {
    /// It is the text.
    Plain,
    /// Nobody but the server can: the column must come as text.
    Opaque,
    /// Text that is JSON.
    Json,
    /// JSON behind a version.
    Jsonb,
    /// Text behind a version.
    Versioned,
    /// The one byte of a `"char"`.
    Char,
    Numeric,
    TimeTz,
    Interval,
    Uuid,
    Network,
    MacAddress,
    Bits,
    Lsn,
    Tid,
    Snapshot,
}

impl Form {
    /// What the server's own text is carried as.
    pub(crate) const OPAQUE: Form = Form::Text(Rendering::Opaque);

    pub(crate) fn data_type(&self) -> DataType {
        match self {
            Form::Bool => DataType::Boolean,
            Form::Int16 => DataType::Int16,
            Form::Int32 => DataType::Int32,
            Form::Int64 => DataType::Int64,
            Form::UInt32 => DataType::UInt32,
            Form::UInt64 => DataType::UInt64,
            Form::Float32 => DataType::Float32,
            Form::Float64 => DataType::Float64,
            Form::Decimal { precision, scale } if *precision <= PRECISION_128 => DataType::Decimal128(*precision, *scale as i8),
            Form::Decimal { precision, scale } => DataType::Decimal256(*precision, *scale as i8),
            // Nineteen digits hold every 64-bit integer.
            Form::Money { scale } => DataType::Decimal128(19, *scale),
            Form::Date => DataType::Date32,
            Form::Time => DataType::Time64(TimeUnit::Microsecond),
            Form::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Form::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Form::Text(_) => DataType::Utf8,
            Form::Bytes | Form::Ewkb => DataType::Binary,
            Form::Floats { .. } => DataType::List(item(DataType::Float32)),
            Form::List { element, .. } => DataType::List(item(element.data_type())),
        }
    }

    /// True if the binary form can be read here.
    pub(crate) fn is_binary(&self) -> bool {
        match self {
            Form::Text(Rendering::Opaque) => false,
            Form::List { element, .. } => element.is_binary(),
            _ => true,
        }
    }
}

/// The field of a list's elements.
pub(crate) fn item(data_type: DataType) -> FieldRef {
    Arc::new(Field::new("item", data_type, true))
}
