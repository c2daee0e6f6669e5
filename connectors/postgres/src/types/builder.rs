//! A column under construction: values in either form go straight to where they stay.
//!
//! One match per cell decides everything. Nothing is allocated for a value but the builder's own growth.

use std::sync::Arc;

use arrow_array::builder::{ArrayBuilder, BooleanBuilder, StringBuilder};
use arrow_array::types::*;
use arrow_array::{ArrayRef, ArrowPrimitiveType, BinaryArray, ListArray, PrimitiveArray};
use arrow_buffer::{NullBufferBuilder, OffsetBuffer};
use arrow_schema::{DataType, FieldRef};

use super::column::ColumnType;
use super::decimal::{self, Unscaled128, Unscaled256};
use super::form::{Form, PRECISION_128, Rendering, item};
use super::{ValueError, ValueResult, array, bits, bytea, exactly, interval, network, number, numeric, opaque, temporal};

/// Scratch space larger than this is given back when a column is handed out.
const SCRATCH_KEPT_BYTES: usize = 1 << 16;

/// More than a column of a batch can hold: its offsets are 32 bits wide.
const TOO_LONG: ValueError = ValueError::new("a value is too long");
const NOT_UTF8: ValueError = ValueError::with_remedy(
    "bytes are not valid UTF-8",
    "the database's encoding is SQL_ASCII, in which text is any bytes: correct the row, or make the column bytea",
);
const NO_BINARY: ValueError = ValueError::new("the binary form of this type cannot be read");

/// A column under construction.
#[derive(Debug)]
pub struct ColumnBuilder {
    values: Values,
}

#[derive(Debug)]
enum Values {
    Bool(BooleanBuilder),
    Int16(NumberBuilder<Int16Type>),
    Int32(NumberBuilder<Int32Type>),
    Int64(NumberBuilder<Int64Type>),
    UInt32(NumberBuilder<UInt32Type>),
    UInt64(NumberBuilder<UInt64Type>),
    Float32(NumberBuilder<Float32Type>),
    Float64(NumberBuilder<Float64Type>),
    /// `whole` is how many digits there may be before the point.
    Decimal128 {
        whole: usize,
        scale: usize,
        builder: NumberBuilder<Decimal128Type>,
    },
    Decimal256 {
        whole: usize,
        scale: usize,
        builder: NumberBuilder<Decimal256Type>,
    },
    Money(NumberBuilder<Decimal128Type>),
    Date(NumberBuilder<Date32Type>),
    Time(NumberBuilder<Time64MicrosecondType>),
    Timestamp {
        with_zone: bool,
        builder: NumberBuilder<TimestampMicrosecondType>,
    },
    Text {
        rendering: Rendering,
        scratch: Vec<u8>,
        builder: StringBuilder,
    },
    Bytes {
        ewkb: bool,
        builder: BytesBuilder,
    },
    Floats {
        half: bool,
        builder: Box<ListBuilder<NumberBuilder<Float32Type>>>,
    },
    List {
        delimiter: u8,
        scratch: Vec<u8>,
        builder: Box<ListBuilder<ColumnBuilder>>,
    },
}

/// Does the same to whichever builder there is.
macro_rules! with_builder {
    ($values:expr, $builder:ident => $action:expr) => {
        match $values {
            Values::Bool($builder) => $action,
            Values::Int16($builder) => $action,
            Values::Int32($builder) => $action,
            Values::Int64($builder) => $action,
            Values::UInt32($builder) => $action,
            Values::UInt64($builder) => $action,
            Values::Float32($builder) => $action,
            Values::Float64($builder) => $action,
            Values::Decimal128 { builder: $builder, .. } | Values::Money($builder) => $action,
            Values::Decimal256 { builder: $builder, .. } => $action,
            Values::Date($builder) => $action,
            Values::Time($builder) => $action,
            Values::Timestamp { builder: $builder, .. } => $action,
            Values::Text { builder: $builder, .. } => $action,
            Values::Bytes { builder: $builder, .. } => $action,
            Values::Floats { builder: $builder, .. } => $action,
            Values::List { builder: $builder, .. } => $action,
        }
    };
}

impl ColumnBuilder {
    /// A builder for a column of this type; `rows` are expected. One that expects none takes next to no memory.
    pub fn new(column: &ColumnType, rows: usize) -> Self {
        ColumnBuilder::of(column.form(), rows)
    }

    fn of(form: &Form, rows: usize) -> Self {
        use NumberBuilder as Numbers;
        let data_type = form.data_type();
        let values = match form {
            Form::Bool => Values::Bool(BooleanBuilder::with_capacity(rows)),
            Form::Int16 => Values::Int16(Numbers::new(data_type, rows)),
            Form::Int32 => Values::Int32(Numbers::new(data_type, rows)),
            Form::Int64 => Values::Int64(Numbers::new(data_type, rows)),
            Form::UInt32 => Values::UInt32(Numbers::new(data_type, rows)),
            Form::UInt64 => Values::UInt64(Numbers::new(data_type, rows)),
            Form::Float32 => Values::Float32(Numbers::new(data_type, rows)),
            Form::Float64 => Values::Float64(Numbers::new(data_type, rows)),
            Form::Decimal { precision, scale } => {
                let (whole, scale) = (usize::from(precision.saturating_sub(*scale)), usize::from(*scale));
                if *precision <= PRECISION_128 {
                    Values::Decimal128 { whole, scale, builder: Numbers::new(data_type, rows) }
                } else {
                    Values::Decimal256 { whole, scale, builder: Numbers::new(data_type, rows) }
                }
            }
            Form::Money { .. } => Values::Money(Numbers::new(data_type, rows)),
            Form::Date => Values::Date(Numbers::new(data_type, rows)),
            Form::Time => Values::Time(Numbers::new(data_type, rows)),
            Form::Timestamp => Values::Timestamp { with_zone: false, builder: Numbers::new(data_type, rows) },
            Form::TimestampTz => Values::Timestamp { with_zone: true, builder: Numbers::new(data_type, rows) },
            Form::Text(rendering) => {
                Values::Text { rendering: *rendering, scratch: Vec::new(), builder: StringBuilder::with_capacity(rows, 0) }
            }
            Form::Bytes => Values::Bytes { ewkb: false, builder: BytesBuilder::new(rows) },
            Form::Ewkb => Values::Bytes { ewkb: true, builder: BytesBuilder::new(rows) },
            Form::Floats { half } => {
                let numbers = Numbers::new(DataType::Float32, 0);
                Values::Floats { half: *half, builder: Box::new(ListBuilder::new(item(DataType::Float32), numbers, rows)) }
            }
            Form::List { element, delimiter } => {
                let elements = ColumnBuilder::of(element, 0);
                let builder = Box::new(ListBuilder::new(item(element.data_type()), elements, rows));
                Values::List { delimiter: *delimiter, scratch: Vec::new(), builder }
            }
        };
        ColumnBuilder { values }
    }

    /// A value in the server's text form. After an error the builder may have one value more; that row is not to be used.
    #[inline]
    pub fn append_text(&mut self, value: &[u8]) -> Result<(), ValueError> {
        match &mut self.values {
            Values::Bool(builder) => builder.append_value(number::boolean(value)?),
            Values::Int16(builder) => builder.append_value(number::signed(value)?),
            Values::Int32(builder) => builder.append_value(number::signed(value)?),
            Values::Int64(builder) => builder.append_value(number::signed(value)?),
            Values::UInt32(builder) => builder.append_value(number::unsigned_32(value)?),
            Values::UInt64(builder) => builder.append_value(number::unsigned_64(value)?),
            Values::Float32(builder) => builder.append_value(number::float_32(value)?),
            Values::Float64(builder) => builder.append_value(number::float_64(value)?),
            Values::Decimal128 { whole, scale, builder } => {
                builder.append_value(decimal::from_text::<Unscaled128>(value, *whole, *scale)?);
            }
            Values::Decimal256 { whole, scale, builder } => {
                builder.append_value(decimal::from_text::<Unscaled256>(value, *whole, *scale)?);
            }
            Values::Money(builder) => builder.append_value(i128::from(decimal::money(value)?)),
            Values::Date(builder) => builder.append_value(temporal::date(value)?),
            Values::Time(builder) => builder.append_value(temporal::time(value)?),
            Values::Timestamp { with_zone, builder } => builder.append_value(temporal::timestamp(value, *with_zone)?),
            Values::Text { rendering: Rendering::Char, scratch, builder } => {
                scratch.clear();
                opaque::render_char(value, scratch);
                append_str(builder, scratch)?;
            }
            Values::Text { builder, .. } => append_str(builder, value)?,
            Values::Bytes { ewkb: false, builder } => builder.append_with(|out| bytea::decode(value, out))?,
            Values::Bytes { ewkb: true, builder } => builder.append_with(|out| bytea::decode_hex(value, out))?,
            Values::Floats { builder, .. } => {
                builder.append_with(|numbers| array::each_float(value, |number| numbers.append_value(number)))?;
            }
            Values::List { delimiter, scratch, builder } => builder.append_with(|elements| {
                array::each_text(value, *delimiter, scratch, |element| match element {
                    Some(element) => elements.append_text(element),
                    None => {
                        elements.append_null();
                        Ok(())
                    }
                })
            })?,
        }
        Ok(())
    }

    /// A value in the server's binary form, of a column whose type [has one](ColumnType::is_binary). After an error as after one of
    /// [`append_text`](ColumnBuilder::append_text).
    #[inline]
    pub fn append_binary(&mut self, value: &[u8]) -> Result<(), ValueError> {
        match &mut self.values {
            Values::Bool(builder) => builder.append_value(number::boolean_binary(value)?),
            Values::Int16(builder) => builder.append_value(i16::from_be_bytes(exactly(value)?)),
            Values::Int32(builder) => builder.append_value(i32::from_be_bytes(exactly(value)?)),
            Values::Int64(builder) => builder.append_value(i64::from_be_bytes(exactly(value)?)),
            Values::UInt32(builder) => builder.append_value(u32::from_be_bytes(exactly(value)?)),
            Values::UInt64(builder) => builder.append_value(u64::from_be_bytes(exactly(value)?)),
            Values::Float32(builder) => builder.append_value(number::float_32_binary(exactly(value)?)),
            Values::Float64(builder) => builder.append_value(number::float_64_binary(exactly(value)?)),
            Values::Decimal128 { whole, scale, builder } => {
                builder.append_value(decimal::from_binary::<Unscaled128>(value, *whole, *scale)?);
            }
            Values::Decimal256 { whole, scale, builder } => {
                builder.append_value(decimal::from_binary::<Unscaled256>(value, *whole, *scale)?);
            }
            Values::Money(builder) => builder.append_value(i128::from(i64::from_be_bytes(exactly(value)?))),
            Values::Date(builder) => builder.append_value(temporal::date_binary(value)?),
            Values::Time(builder) => builder.append_value(temporal::time_binary(value)?),
            Values::Timestamp { builder, .. } => builder.append_value(temporal::timestamp_binary(value)?),
            Values::Text { rendering, scratch, builder } => {
                scratch.clear();
                match rendering {
                    Rendering::Plain | Rendering::Json => return append_str(builder, value),
                    Rendering::Jsonb | Rendering::Versioned => return append_str(builder, opaque::behind_version(value)?),
                    Rendering::Opaque => return Err(NO_BINARY),
                    Rendering::Char => opaque::render_char(value, scratch),
                    Rendering::Numeric => numeric::render(value, scratch)?,
                    Rendering::TimeTz => temporal::render_timetz(value, scratch)?,
                    Rendering::Interval => interval::render(value, scratch)?,
                    Rendering::Uuid => network::render_uuid(value, scratch)?,
                    Rendering::Network => network::render_network(value, scratch)?,
                    Rendering::MacAddress => network::render_mac_address(value, scratch)?,
                    Rendering::Bits => bits::render(value, scratch)?,
                    Rendering::Lsn => opaque::render_lsn(value, scratch)?,
                    Rendering::Tid => opaque::render_tid(value, scratch)?,
                    Rendering::Snapshot => opaque::render_snapshot(value, scratch)?,
                }
                append_str(builder, scratch)?;
            }
            Values::Bytes { builder, .. } => builder.append_with(|out| {
                out.extend_from_slice(value);
                Ok(())
            })?,
            Values::Floats { half, builder } => {
                builder.append_with(|numbers| array::each_float_binary(value, *half, |number| numbers.append_value(number)))?;
            }
            Values::List { builder, .. } => builder.append_with(|elements| {
                array::each_binary(value, |element| match element {
                    Some(element) => elements.append_binary(element),
                    None => {
                        elements.append_null();
                        Ok(())
                    }
                })
            })?,
        }
        Ok(())
    }

    /// A NULL, or a value that is not there.
    #[inline]
    pub fn append_null(&mut self) {
        with_builder!(&mut self.values, builder => builder.append_null());
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        with_builder!(&self.values, builder => builder.count())
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        let scratch = match &self.values {
            Values::Text { scratch, .. } | Values::List { scratch, .. } => scratch.capacity(),
            _ => 0,
        };
        scratch + with_builder!(&self.values, builder => builder.held_bytes())
    }

    /// The column built so far, of the column's data type; the builder is empty again.
    pub fn finish(&mut self) -> ArrayRef {
        if let Values::Text { scratch, .. } | Values::List { scratch, .. } = &mut self.values
            && scratch.capacity() > SCRATCH_KEPT_BYTES
        {
            *scratch = Vec::new();
        }
        with_builder!(&mut self.values, builder => builder.take())
    }
}

#[inline]
fn append_str(builder: &mut StringBuilder, value: &[u8]) -> ValueResult<()> {
    let text = std::str::from_utf8(value).map_err(|_| NOT_UTF8)?;
    fits(builder.values_slice().len(), text.len())?;
    builder.append_value(text);
    Ok(())
}

/// Whether there is room left where offsets are 32 bits wide.
#[inline]
fn fits(held: usize, more: usize) -> ValueResult<()> {
    if held.saturating_add(more) > i32::MAX as usize { Err(TOO_LONG) } else { Ok(()) }
}

/// What is asked of every builder, whatever it builds.
trait Build {
    fn append_null(&mut self);

    fn count(&self) -> usize;

    fn held_bytes(&self) -> usize;

    fn take(&mut self) -> ArrayRef;
}

/// Builds numbers of one width; Arrow's own builder does the same at twice the cost.
#[derive(Debug)]
struct NumberBuilder<T: ArrowPrimitiveType> {
    data_type: DataType,
    values: Vec<T::Native>,
    nulls: NullBufferBuilder,
}

impl<T: ArrowPrimitiveType> NumberBuilder<T> {
    fn new(data_type: DataType, rows: usize) -> Self {
        NumberBuilder { data_type, values: Vec::with_capacity(rows), nulls: NullBufferBuilder::new(rows) }
    }

    #[inline]
    fn append_value(&mut self, value: T::Native) {
        self.values.push(value);
        self.nulls.append_non_null();
    }
}

impl<T: ArrowPrimitiveType> Build for NumberBuilder<T> {
    #[inline]
    fn append_null(&mut self) {
        self.values.push(T::Native::default());
        self.nulls.append_null();
    }

    fn count(&self) -> usize {
        self.values.len()
    }

    fn held_bytes(&self) -> usize {
        self.values.capacity() * size_of::<T::Native>() + self.nulls.allocated_size()
    }

    fn take(&mut self) -> ArrayRef {
        let values = std::mem::take(&mut self.values);
        Arc::new(PrimitiveArray::<T>::new(values.into(), self.nulls.finish()).with_data_type(self.data_type.clone()))
    }
}

impl Build for BooleanBuilder {
    #[inline]
    fn append_null(&mut self) {
        BooleanBuilder::append_null(self);
    }

    fn count(&self) -> usize {
        ArrayBuilder::len(self)
    }

    fn held_bytes(&self) -> usize {
        self.capacity() / 8 + bitmap_bytes(self.validity_slice())
    }

    fn take(&mut self) -> ArrayRef {
        Arc::new(self.finish())
    }
}

impl Build for StringBuilder {
    #[inline]
    fn append_null(&mut self) {
        StringBuilder::append_null(self);
    }

    fn count(&self) -> usize {
        self.offsets_slice().len() - 1
    }

    fn held_bytes(&self) -> usize {
        self.values_capacity() + self.offsets_capacity() * size_of::<i32>() + bitmap_bytes(self.validity_slice())
    }

    fn take(&mut self) -> ArrayRef {
        Arc::new(self.finish())
    }
}

/// A bitmap grows as vectors do: it may have room for as much again.
fn bitmap_bytes(bitmap: Option<&[u8]>) -> usize {
    bitmap.map_or(0, |bitmap| bitmap.len() * 2)
}

/// Builds binary values in place: a value that fails leaves nothing behind.
#[derive(Debug)]
struct BytesBuilder {
    values: Vec<u8>,
    offsets: Offsets,
    nulls: NullBufferBuilder,
}

impl BytesBuilder {
    fn new(rows: usize) -> Self {
        BytesBuilder { values: Vec::new(), offsets: Offsets::new(rows), nulls: NullBufferBuilder::new(rows) }
    }

    /// A value that `write` appends.
    #[inline]
    fn append_with(&mut self, write: impl FnOnce(&mut Vec<u8>) -> ValueResult<()>) -> ValueResult<()> {
        let start = self.values.len();
        if let Err(error) = write(&mut self.values).and_then(|()| fits(self.values.len(), 0)) {
            self.values.truncate(start);
            return Err(error);
        }
        self.offsets.push(self.values.len());
        self.nulls.append_non_null();
        Ok(())
    }
}

impl Build for BytesBuilder {
    #[inline]
    fn append_null(&mut self) {
        self.offsets.push(self.values.len());
        self.nulls.append_null();
    }

    fn count(&self) -> usize {
        self.offsets.count()
    }

    fn held_bytes(&self) -> usize {
        self.values.capacity() + self.offsets.held_bytes() + self.nulls.allocated_size()
    }

    fn take(&mut self) -> ArrayRef {
        let values = std::mem::take(&mut self.values);
        Arc::new(BinaryArray::new(self.offsets.take(), values.into(), self.nulls.finish()))
    }
}

/// Builds lists of what another builder builds.
#[derive(Debug)]
struct ListBuilder<B> {
    field: FieldRef,
    elements: B,
    offsets: Offsets,
    nulls: NullBufferBuilder,
}

impl<B: Build> ListBuilder<B> {
    fn new(field: FieldRef, elements: B, rows: usize) -> Self {
        ListBuilder { field, elements, offsets: Offsets::new(rows), nulls: NullBufferBuilder::new(rows) }
    }

    /// A list that `write` appends. One that fails is closed as it is, or what it left would be part of the next.
    #[inline]
    fn append_with(&mut self, write: impl FnOnce(&mut B) -> ValueResult<()>) -> ValueResult<()> {
        let result = write(&mut self.elements).and_then(|()| fits(self.elements.count(), 0));
        self.offsets.push(self.elements.count());
        self.nulls.append(result.is_ok());
        result
    }
}

impl<B: Build> Build for ListBuilder<B> {
    #[inline]
    fn append_null(&mut self) {
        self.offsets.push(self.elements.count());
        self.nulls.append_null();
    }

    fn count(&self) -> usize {
        self.offsets.count()
    }

    fn held_bytes(&self) -> usize {
        self.elements.held_bytes() + self.offsets.held_bytes() + self.nulls.allocated_size()
    }

    fn take(&mut self) -> ArrayRef {
        let elements = self.elements.take();
        Arc::new(ListArray::new(Arc::clone(&self.field), self.offsets.take(), elements, self.nulls.finish()))
    }
}

impl Build for ColumnBuilder {
    #[inline]
    fn append_null(&mut self) {
        ColumnBuilder::append_null(self);
    }

    fn count(&self) -> usize {
        self.len()
    }

    fn held_bytes(&self) -> usize {
        self.bytes()
    }

    fn take(&mut self) -> ArrayRef {
        self.finish()
    }
}

/// Where values of no fixed length begin and end; what there are none of takes no memory.
#[derive(Debug)]
struct Offsets(Vec<i32>);

impl Offsets {
    fn new(rows: usize) -> Self {
        Offsets(Vec::with_capacity(if rows == 0 { 0 } else { rows + 1 }))
    }

    /// A value ends there. One that cannot has been refused: its row is not used.
    #[inline]
    fn push(&mut self, end: usize) {
        if self.0.is_empty() {
            self.0.push(0);
        }
        self.0.push(end.min(i32::MAX as usize) as i32);
    }

    fn count(&self) -> usize {
        self.0.len().saturating_sub(1)
    }

    fn held_bytes(&self) -> usize {
        self.0.capacity() * size_of::<i32>()
    }

    fn take(&mut self) -> OffsetBuffer<i32> {
        if self.0.is_empty() { OffsetBuffer::new_empty() } else { OffsetBuffer::new(std::mem::take(&mut self.0).into()) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow_array::cast::AsArray;
    use arrow_cast::display::{ArrayFormatter, FormatOptions};

    use super::*;
    use crate::options::Arrays;
    use crate::types::builtin::oids::*;
    use crate::types::{Oid, TypeCatalog, TypeOptions};

    fn numeric_typmod(precision: i32, scale: i32) -> i32 {
        (precision << 16 | scale & 0x7ff) + 4
    }

    fn builder(oid: Oid, typmod: i32) -> ColumnBuilder {
        ColumnBuilder::new(&TypeCatalog::new().column_type(oid, typmod, TypeOptions::default()), 0)
    }

    fn shown(array: &ArrayRef, row: usize) -> String {
        // The formatter does not know a zone by name.
        let array: &ArrayRef = &match array.as_primitive_opt::<TimestampMicrosecondType>() {
            Some(timestamps) => Arc::new(timestamps.clone().with_timezone_opt(None::<&str>)),
            None => Arc::clone(array),
        };
        ArrayFormatter::try_new(array, &FormatOptions::default().with_null("NULL")).unwrap().value(row).to_string()
    }

    #[test]
    fn text_becomes_values() {
        for (oid, typmod, text, expected) in [
            (BOOL, -1, "t", "true"),
            (INT2, -1, "-32768", "-32768"),
            (INT4, -1, "2147483647", "2147483647"),
            (INT8, -1, "-9223372036854775808", "-9223372036854775808"),
            (OID, -1, "4294967295", "4294967295"),
            (XID8, -1, "18446744073709551615", "18446744073709551615"),
            (FLOAT4, -1, "1e-45", "1e-45"),
            (FLOAT8, -1, "-Infinity", "-inf"),
            (NUMERIC, numeric_typmod(10, 2), "-12345678.90", "-12345678.90"),
            (NUMERIC, numeric_typmod(3, 5), "0.00123", "0.00123"),
            (NUMERIC, numeric_typmod(3, -2), "12300", "12300"),
            (NUMERIC, numeric_typmod(76, 38), "1.00000000000000000000000000000000000001", "1.00000000000000000000000000000000000001"),
            (NUMERIC, -1, "1.50", "1.50"),
            (MONEY, -1, "-$92,233,720,368,547,758.08", "-92233720368547758.08"),
            (DATE, -1, "0001-12-31 BC", "0000-12-31"),
            (TIME, -1, "23:59:59.999999", "23:59:59.999999"),
            (TIMESTAMP, -1, "2024-02-29 12:34:56.7", "2024-02-29T12:34:56.700"),
            (TIMESTAMPTZ, -1, "2024-02-29 12:34:56+05:30:15", "2024-02-29T07:04:41"),
            (BYTEA, -1, "\\x00ff", "00ff"),
            (BYTEA, -1, "\\000\\\\a", "005c61"),
            (TEXT, -1, "é", "é"),
            (UUID, -1, "123e4567-e89b-12d3-a456-426614174000", "123e4567-e89b-12d3-a456-426614174000"),
            (1007, -1, "{1,NULL,-3}", "[1, NULL, -3]"),
            (1009, -1, r#"{"a,b","NULL","\"\\",NULL,"",x}"#, r#"[a,b, NULL, "\, NULL, , x]"#),
        ] {
            let mut builder = builder(oid, typmod);
            builder.append_null();
            builder.append_text(text.as_bytes()).unwrap_or_else(|error| panic!("{oid} {text}: {error}"));
            assert_eq!(builder.len(), 2);
            let array = builder.finish();
            assert!(array.is_null(0));
            assert_eq!(shown(&array, 1), expected, "{oid}");
            assert!(builder.is_empty());
        }
    }

    #[test]
    fn a_list_that_fails_is_a_row_of_its_own() {
        let mut builder = builder(1007, -1);
        builder.append_text(b"{1}").unwrap();
        builder.append_text(b"{2,x}").unwrap_err();
        builder.append_text(b"{3}").unwrap();
        let array = builder.finish();
        assert_eq!([shown(&array, 0), shown(&array, 2)], ["[1]", "[3]"]);
    }

    #[test]
    fn arrays_that_are_no_lists_name_the_setting() {
        let types = TypeCatalog::new();
        for text in ["{{1},{2}}", "[0:1]={1,2}", "[1:1][0:1]={{1,2}}"] {
            let error = builder(1007, -1).append_text(text.as_bytes()).unwrap_err();
            assert!(error.remedy.unwrap().contains("arrays: text"), "{text}");
            let column = types.column_type(1007, -1, TypeOptions { arrays: Arrays::Text, ..TypeOptions::default() });
            let mut builder = ColumnBuilder::new(&column, 0);
            builder.append_text(text.as_bytes()).unwrap();
            assert_eq!(shown(&builder.finish(), 0), text);
        }
    }

    /// A builder of every form there is, with the array of each.
    fn every_builder() -> Vec<ColumnBuilder> {
        use crate::types::builtin::BASES;
        let arrays = BASES.iter().map(|(_, _, array)| *array).filter(|array| *array != 0);
        let oids = BASES.iter().map(|(oid, _, _)| *oid).chain(arrays);
        let mut builders: Vec<_> = oids.map(|oid| builder(oid, -1)).collect();
        for (precision, scale) in [(5, 2), (38, 38), (76, 0)] {
            builders.extend([builder(NUMERIC, numeric_typmod(precision, scale)), builder(1231, numeric_typmod(precision, scale))]);
        }
        for form in [Form::Ewkb, Form::Floats { half: false }, Form::Floats { half: true }] {
            builders.push(ColumnBuilder::of(&form, 0));
            builders.push(ColumnBuilder::of(&Form::List { element: Box::new(form), delimiter: b',' }, 0));
        }
        builders
    }

    #[test]
    fn a_builder_that_expects_nothing_takes_next_to_nothing() {
        for mut builder in every_builder() {
            assert!(size_of_val(&builder) <= 160 && builder.bytes() <= 64, "{builder:?}");
            builder.append_null();
            assert_eq!((builder.len(), builder.finish().null_count(), builder.len()), (1, 1, 0));
        }
    }

    #[test]
    fn the_bytes_held_are_no_fewer_than_those_handed_out() {
        for (oid, value) in
            [(INT4, "1"), (TEXT, "some text"), (BYTEA, "\\\\x0011"), (BOOL, "t"), (1009, "{a,NULL,ccc}"), (DATE, "2020-01-01")]
        {
            let mut builder = builder(oid, -1);
            for row in 0..5000 {
                if row % 7 == 0 { builder.append_null() } else { builder.append_text(value.as_bytes()).unwrap() }
            }
            let held = builder.bytes();
            let array = builder.finish();
            assert!(held >= array.to_data().get_slice_memory_size().unwrap(), "{oid}");
            assert!(builder.bytes() <= 64, "{oid}");
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(32))]

        #[test]
        fn any_bytes_are_a_value_or_an_error(
            values in proptest::collection::vec((proptest::prelude::any::<bool>(), proptest::collection::vec(proptest::prelude::any::<u8>(), 0..24)), 1..6),
            texts in proptest::collection::vec("[-0-9:{},.NUL\\\\\"x \\[\\]]{0,20}", 1..4),
        ) {
            for mut builder in every_builder() {
                for (binary, value) in &values {
                    let _ = if *binary { builder.append_binary(value) } else { builder.append_text(value) };
                }
                for text in &texts {
                    let _ = builder.append_text(text.as_bytes());
                }
                builder.append_null();
                let length = builder.len();
                let array = builder.finish();
                proptest::prop_assert_eq!(array.len(), length);
                proptest::prop_assert!(array.is_null(length - 1));
                array.to_data().validate_full().unwrap();
            }
        }
    }
}
