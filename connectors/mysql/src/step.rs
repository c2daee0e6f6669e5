//! A step of a row plan: reads one column's value from a row image into the column's builder.
//!
//! The builder stands in the step, so that one match per cell decides everything: how the bytes lie, what they mean, and
//! where they go. Nothing is allocated for a value but the builder's own growth.

use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::builder::{ArrayBuilder, BinaryBuilder, Float32Builder, ListBuilder, PrimitiveBuilder, StringBuilder};
use arrow_array::types::*;
use arrow_schema::DataType;

use crate::column::{Kind, Wire};
use crate::reader::{Cursor, Truncated};
use crate::value::charset::Charset;
use crate::value::{ValueError, ValueResult, bit, compressed, decimal, geometry, json, label, network, temporal, vector};

/// Why a cell cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CellError {
    /// The image ends inside it.
    Truncated,
    /// The bytes are no value of the column's type.
    Value(ValueError),
}

impl From<Truncated> for CellError {
    #[inline]
    fn from(_: Truncated) -> Self {
        CellError::Truncated
    }
}

impl From<ValueError> for CellError {
    #[inline]
    fn from(error: ValueError) -> Self {
        CellError::Value(error)
    }
}

/// More than a column of a batch can hold: its offsets are 32 bits wide.
const TOO_LONG: ValueError = ValueError::new("a value is too long");

/// Buffers for values that are not borrowed from the log.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    text: String,
    bytes: Vec<u8>,
}

/// Buffers larger than this are given back after the value that needed them.
const SCRATCH_KEPT_BYTES: usize = 1 << 20;

impl Scratch {
    /// Forgets what one enormous value took.
    pub(crate) fn shrink(&mut self) {
        if self.text.capacity() > SCRATCH_KEPT_BYTES {
            self.text = String::new();
        }
        if self.bytes.capacity() > SCRATCH_KEPT_BYTES {
            self.bytes = Vec::new();
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) enum Step {
    /// A column that is not wanted.
    Skip(Wire),
    Int8(PrimitiveBuilder<Int8Type>),
    UInt8(PrimitiveBuilder<UInt8Type>),
    Int16(PrimitiveBuilder<Int16Type>),
    UInt16(PrimitiveBuilder<UInt16Type>),
    Int24(PrimitiveBuilder<Int32Type>),
    UInt24(PrimitiveBuilder<UInt32Type>),
    Int32(PrimitiveBuilder<Int32Type>),
    UInt32(PrimitiveBuilder<UInt32Type>),
    Int64(PrimitiveBuilder<Int64Type>),
    UInt64(PrimitiveBuilder<UInt64Type>),
    Float32(PrimitiveBuilder<Float32Type>),
    Float64(PrimitiveBuilder<Float64Type>),
    Decimal128 {
        length: usize,
        precision: u8,
        scale: u8,
        builder: PrimitiveBuilder<Decimal128Type>,
    },
    Decimal256 {
        length: usize,
        precision: u8,
        scale: u8,
        builder: PrimitiveBuilder<Decimal256Type>,
    },
    Bit {
        length: usize,
        builder: PrimitiveBuilder<UInt64Type>,
    },
    Year(PrimitiveBuilder<Int16Type>),
    Date(PrimitiveBuilder<Date32Type>),
    Datetime {
        length: usize,
        fsp: u8,
        builder: PrimitiveBuilder<TimestampMicrosecondType>,
    },
    Timestamp {
        length: usize,
        fsp: u8,
        builder: PrimitiveBuilder<TimestampMicrosecondType>,
    },
    Time {
        length: usize,
        fsp: u8,
        builder: PrimitiveBuilder<DurationMicrosecondType>,
    },
    OldDatetime(PrimitiveBuilder<TimestampMicrosecondType>),
    OldTimestamp(PrimitiveBuilder<TimestampMicrosecondType>),
    OldTime(PrimitiveBuilder<DurationMicrosecondType>),
    /// UTF-8 as it is.
    Utf8 {
        prefix: usize,
        builder: StringBuilder,
    },
    Text {
        prefix: usize,
        charset: Charset,
        builder: StringBuilder,
    },
    Binary {
        prefix: usize,
        pad: usize,
        builder: BinaryBuilder,
    },
    CompressedText {
        prefix: usize,
        charset: Charset,
        builder: StringBuilder,
    },
    CompressedBinary {
        prefix: usize,
        builder: BinaryBuilder,
    },
    Enum {
        length: usize,
        labels: Arc<[String]>,
        builder: StringBuilder,
    },
    Set {
        length: usize,
        labels: Arc<[String]>,
        builder: StringBuilder,
    },
    Json {
        prefix: usize,
        builder: StringBuilder,
    },
    Geometry {
        prefix: usize,
        srid: u32,
        builder: BinaryBuilder,
    },
    Vector {
        prefix: usize,
        builder: ListBuilder<Float32Builder>,
    },
    Uuid {
        prefix: usize,
        builder: StringBuilder,
    },
    Inet4 {
        prefix: usize,
        builder: StringBuilder,
    },
    Inet6 {
        prefix: usize,
        builder: StringBuilder,
    },
}

/// Bytes behind a little-endian length of `prefix` bytes.
#[inline]
fn prefixed<'a>(cursor: &mut Cursor<'a>, prefix: usize) -> Result<&'a [u8], Truncated> {
    let length = match prefix {
        1 => usize::from(cursor.u8()?),
        2 => usize::from(cursor.u16()?),
        3 => cursor.u24()? as usize,
        _ => cursor.u32()? as usize,
    };
    cursor.take(length)
}

/// Room that is left in a builder whose offsets are 32 bits wide.
#[inline]
fn fits(held: usize, more: usize) -> ValueResult<()> {
    // An event is smaller than 2^31 bytes, so this does not overflow.
    if held + more > i32::MAX as usize { Err(TOO_LONG) } else { Ok(()) }
}

#[inline]
fn text(builder: &mut StringBuilder, value: &str) -> ValueResult<()> {
    fits(builder.values_slice().len(), value.len())?;
    builder.append_value(value);
    Ok(())
}

#[inline]
fn bytes(builder: &mut BinaryBuilder, value: &[u8]) -> ValueResult<()> {
    fits(builder.values_slice().len(), value.len())?;
    builder.append_value(value);
    Ok(())
}

/// A value shorter than this is filled up to it.
fn padded<'a>(value: &'a [u8], length: usize, scratch: &'a mut Vec<u8>) -> &'a [u8] {
    if value.len() >= length {
        return value;
    }
    scratch.clear();
    scratch.extend_from_slice(value);
    scratch.resize(length, 0);
    scratch
}

/// The exact number of bytes of a type whose values are cut of trailing zeros.
fn exactly<const N: usize>(value: &[u8]) -> ValueResult<[u8; N]> {
    let mut exact = [0; N];
    exact.get_mut(..value.len()).ok_or(ValueError::new("a value is longer than its type"))?.copy_from_slice(value);
    Ok(exact)
}

/// Does the same to whichever builder a step has; nothing to a step that has none.
macro_rules! with_builder {
    ($step:expr, $builder:ident => $action:expr, $skip:expr) => {
        match $step {
            Step::Skip(_) => $skip,
            Step::Int8($builder) => $action,
            Step::UInt8($builder) => $action,
            Step::Int16($builder) | Step::Year($builder) => $action,
            Step::UInt16($builder) => $action,
            Step::Int24($builder) | Step::Int32($builder) => $action,
            Step::UInt24($builder) | Step::UInt32($builder) => $action,
            Step::Int64($builder) => $action,
            Step::UInt64($builder) | Step::Bit { builder: $builder, .. } => $action,
            Step::Float32($builder) => $action,
            Step::Float64($builder) => $action,
            Step::Decimal128 { builder: $builder, .. } => $action,
            Step::Decimal256 { builder: $builder, .. } => $action,
            Step::Date($builder) => $action,
            Step::Datetime { builder: $builder, .. }
            | Step::Timestamp { builder: $builder, .. }
            | Step::OldDatetime($builder)
            | Step::OldTimestamp($builder) => $action,
            Step::Time { builder: $builder, .. } | Step::OldTime($builder) => $action,
            Step::Utf8 { builder: $builder, .. }
            | Step::Text { builder: $builder, .. }
            | Step::CompressedText { builder: $builder, .. }
            | Step::Enum { builder: $builder, .. }
            | Step::Set { builder: $builder, .. }
            | Step::Json { builder: $builder, .. }
            | Step::Uuid { builder: $builder, .. }
            | Step::Inet4 { builder: $builder, .. }
            | Step::Inet6 { builder: $builder, .. } => $action,
            Step::Binary { builder: $builder, .. }
            | Step::CompressedBinary { builder: $builder, .. }
            | Step::Geometry { builder: $builder, .. } => $action,
            Step::Vector { builder: $builder, .. } => $action,
        }
    };
}

impl Step {
    /// A step for a kind of value that lies so; `rows` and `text_bytes` are expected.
    pub(crate) fn new(kind: &Kind, wire: Wire, rows: usize, text_bytes: usize) -> Self {
        fn numbers<T: ArrowPrimitiveType>(data_type: DataType, rows: usize) -> PrimitiveBuilder<T> {
            PrimitiveBuilder::with_capacity(rows).with_data_type(data_type)
        }
        let data_type = kind.data_type();
        let strings = || StringBuilder::with_capacity(rows, text_bytes);
        let binaries = || BinaryBuilder::with_capacity(rows, text_bytes);
        let (Wire::Fixed(length) | Wire::Prefixed(length)) = wire;
        let prefix = length;
        match kind {
            Kind::Int { bytes: 1, unsigned: false } => Step::Int8(numbers(data_type, rows)),
            Kind::Int { bytes: 1, unsigned: true } => Step::UInt8(numbers(data_type, rows)),
            Kind::Int { bytes: 2, unsigned: false } => Step::Int16(numbers(data_type, rows)),
            Kind::Int { bytes: 2, unsigned: true } => Step::UInt16(numbers(data_type, rows)),
            Kind::Int { bytes: 3, unsigned: false } => Step::Int24(numbers(data_type, rows)),
            Kind::Int { bytes: 3, unsigned: true } => Step::UInt24(numbers(data_type, rows)),
            Kind::Int { bytes: 4, unsigned: false } => Step::Int32(numbers(data_type, rows)),
            Kind::Int { bytes: 4, unsigned: true } => Step::UInt32(numbers(data_type, rows)),
            Kind::Int { unsigned: false, .. } => Step::Int64(numbers(data_type, rows)),
            Kind::Int { unsigned: true, .. } => Step::UInt64(numbers(data_type, rows)),
            Kind::Float => Step::Float32(numbers(data_type, rows)),
            Kind::Double => Step::Float64(numbers(data_type, rows)),
            &Kind::Decimal { precision, scale } if precision <= 38 => {
                Step::Decimal128 { length, precision, scale, builder: numbers(data_type, rows) }
            }
            &Kind::Decimal { precision, scale } => Step::Decimal256 { length, precision, scale, builder: numbers(data_type, rows) },
            Kind::Bit => Step::Bit { length, builder: numbers(data_type, rows) },
            Kind::Year => Step::Year(numbers(data_type, rows)),
            Kind::Date => Step::Date(numbers(data_type, rows)),
            &Kind::Datetime { fsp } => Step::Datetime { length, fsp, builder: numbers(data_type, rows) },
            &Kind::Timestamp { fsp } => Step::Timestamp { length, fsp, builder: numbers(data_type, rows) },
            &Kind::Time { fsp } => Step::Time { length, fsp, builder: numbers(data_type, rows) },
            Kind::OldDatetime => Step::OldDatetime(numbers(data_type, rows)),
            Kind::OldTimestamp => Step::OldTimestamp(numbers(data_type, rows)),
            Kind::OldTime => Step::OldTime(numbers(data_type, rows)),
            Kind::Text { charset } if charset.is_utf8() => Step::Utf8 { prefix, builder: strings() },
            &Kind::Text { charset } => Step::Text { prefix, charset, builder: strings() },
            &Kind::Binary { pad } => Step::Binary { prefix, pad, builder: binaries() },
            &Kind::CompressedText { charset } => Step::CompressedText { prefix, charset, builder: strings() },
            Kind::CompressedBinary => Step::CompressedBinary { prefix, builder: binaries() },
            Kind::Enum { labels } => Step::Enum { length, labels: Arc::clone(labels), builder: strings() },
            Kind::Set { labels } => Step::Set { length, labels: Arc::clone(labels), builder: strings() },
            Kind::Json => Step::Json { prefix, builder: strings() },
            &Kind::Geometry { srid } => Step::Geometry { prefix, srid, builder: binaries() },
            Kind::Vector => Step::Vector { prefix, builder: ListBuilder::new(Float32Builder::new()) },
            Kind::Uuid => Step::Uuid { prefix, builder: strings() },
            Kind::Inet4 => Step::Inet4 { prefix, builder: strings() },
            Kind::Inet6 => Step::Inet6 { prefix, builder: strings() },
        }
    }

    /// Reads a value that is there. After an error the column may lack the row: what is behind the last good row is cut off.
    #[inline]
    pub(crate) fn append(&mut self, cursor: &mut Cursor<'_>, scratch: &mut Scratch) -> Result<(), CellError> {
        match self {
            Step::Int8(builder) => builder.append_value(cursor.i8()?),
            Step::UInt8(builder) => builder.append_value(cursor.u8()?),
            Step::Int16(builder) => builder.append_value(cursor.i16()?),
            Step::UInt16(builder) => builder.append_value(cursor.u16()?),
            Step::Int24(builder) => builder.append_value(cursor.i24()?),
            Step::UInt24(builder) => builder.append_value(cursor.u24()?),
            Step::Int32(builder) => builder.append_value(cursor.i32()?),
            Step::UInt32(builder) => builder.append_value(cursor.u32()?),
            Step::Int64(builder) => builder.append_value(cursor.i64()?),
            Step::UInt64(builder) => builder.append_value(cursor.u64()?),
            Step::Float32(builder) => builder.append_value(cursor.f32()?),
            Step::Float64(builder) => builder.append_value(cursor.f64()?),
            Step::Decimal128 { length, precision, scale, builder } => {
                builder.append_value(decimal::decode_i128(cursor.take(*length)?, *precision, *scale)?);
            }
            Step::Decimal256 { length, precision, scale, builder } => {
                builder.append_value(decimal::decode_i256(cursor.take(*length)?, *precision, *scale)?);
            }
            Step::Bit { length, builder } => builder.append_value(bit::bit(cursor.take(*length)?)?),
            Step::Year(builder) => builder.append_value(temporal::year(cursor.u8()?)),
            Step::Date(builder) => builder.append_value(temporal::date(cursor.take(3)?)?),
            Step::Datetime { length, fsp, builder } => builder.append_value(temporal::datetime2(cursor.take(*length)?, *fsp)?),
            Step::Timestamp { length, fsp, builder } => builder.append_value(temporal::timestamp2(cursor.take(*length)?, *fsp)?),
            Step::Time { length, fsp, builder } => builder.append_value(temporal::time2(cursor.take(*length)?, *fsp)?),
            Step::OldDatetime(builder) => builder.append_value(temporal::datetime_old(cursor.u64()?)?),
            Step::OldTimestamp(builder) => builder.append_value(temporal::timestamp_old(cursor.u32()?)?),
            Step::OldTime(builder) => builder.append_value(temporal::time_old(cursor.i24()?)?),
            Step::Utf8 { prefix, builder } => {
                let value = prefixed(cursor, *prefix)?;
                text(builder, std::str::from_utf8(value).map_err(|_| NOT_UTF8)?)?;
            }
            Step::Text { prefix, charset, builder } => {
                let value = prefixed(cursor, *prefix)?;
                text(builder, charset.decode(value, &mut scratch.text)?)?;
            }
            Step::Binary { prefix, pad, builder } => {
                let value = prefixed(cursor, *prefix)?;
                bytes(builder, padded(value, *pad, &mut scratch.bytes))?;
            }
            Step::CompressedText { prefix, charset, builder } => {
                let value = compressed::decode_compressed(prefixed(cursor, *prefix)?, &mut scratch.bytes)?;
                text(builder, charset.decode(value, &mut scratch.text)?)?;
            }
            Step::CompressedBinary { prefix, builder } => {
                bytes(builder, compressed::decode_compressed(prefixed(cursor, *prefix)?, &mut scratch.bytes)?)?;
            }
            Step::Enum { length, labels, builder } => {
                let index = cursor.uint(*length)? as u16;
                text(builder, label::enum_label(index, labels)?)?;
            }
            Step::Set { length, labels, builder } => {
                scratch.text.clear();
                label::write_set(cursor.uint(*length)?, labels, &mut scratch.text)?;
                text(builder, &scratch.text)?;
            }
            Step::Json { prefix, builder } => {
                let value = prefixed(cursor, *prefix)?;
                scratch.text.clear();
                json::write_json(value, &mut scratch.text)?;
                text(builder, &scratch.text)?;
            }
            Step::Geometry { prefix, srid, builder } => {
                let (found, wkb) = geometry::split_geometry(prefixed(cursor, *prefix)?)?;
                if found != *srid {
                    // Who decodes rows has looked ahead and changed the relation before this can be.
                    return Err(ValueError::new("a geometry is of another spatial reference system than its relation").into());
                }
                bytes(builder, wkb)?;
            }
            Step::Vector { prefix, builder } => {
                let floats = vector::vector_floats(prefixed(cursor, *prefix)?)?;
                fits(builder.values().len(), floats.len())?;
                builder.values().extend(floats.map(Some));
                builder.append(true);
            }
            Step::Uuid { prefix, builder } => {
                scratch.text.clear();
                network::write_uuid(&exactly(prefixed(cursor, *prefix)?)?, &mut scratch.text);
                text(builder, &scratch.text)?;
            }
            Step::Inet4 { prefix, builder } => {
                scratch.text.clear();
                network::write_inet4(&exactly(prefixed(cursor, *prefix)?)?, &mut scratch.text);
                text(builder, &scratch.text)?;
            }
            Step::Inet6 { prefix, builder } => {
                scratch.text.clear();
                network::write_inet6(&exactly(prefixed(cursor, *prefix)?)?, &mut scratch.text);
                text(builder, &scratch.text)?;
            }
            Step::Skip(wire) => wire.skip(cursor)?,
        }
        Ok(())
    }

    /// A NULL, or a value that is not there.
    #[inline]
    pub(crate) fn append_null(&mut self) {
        with_builder!(self, builder => builder.append_null(), ());
    }

    /// The column built so far, or `None` if the step skips; the builder is empty again.
    pub(crate) fn finish(&mut self) -> Option<ArrayRef> {
        Some(with_builder!(self, builder => ArrayBuilder::finish(builder), return None))
    }
}

const NOT_UTF8: ValueError = ValueError::new("bytes are not valid in the column's character set");

impl Wire {
    /// Passes a value by.
    #[inline]
    pub(crate) fn skip(self, cursor: &mut Cursor<'_>) -> Result<(), Truncated> {
        match self {
            Wire::Fixed(length) => cursor.skip(length),
            Wire::Prefixed(prefix) => prefixed(cursor, prefix).map(|_| ()),
        }
    }
}
