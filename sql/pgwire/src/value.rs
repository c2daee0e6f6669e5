//! Values of Arrow as PostgreSQL's clients read them, in text and in binary.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Decimal256Type, DecimalType, DurationMicrosecondType, Field, Float32Type, Float64Type, Int16Type,
    Int32Type, Int64Type, IntervalMonthDayNanoType, IntervalUnit, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};
use bytes::{BufMut, BytesMut};
use logweir_sql::{date_of, item_oid, type_oid};

use crate::reply::Refusal;

/// From PostgreSQL's epoch, 2000-01-01, to that of Unix.
pub(crate) const EPOCH_DAYS: i32 = 10_957;
pub(crate) const EPOCH_MICROS: i64 = EPOCH_DAYS as i64 * DAY_MICROS;
const DAY_MICROS: i64 = 86_400_000_000;

/// A column of a batch that is ready to be written.
pub(crate) struct Values {
    oid: u32,
    shape: Shape,
}

/// The few forms that values are written from.
enum Shape {
    Boolean(ArrayRef),
    Int16(ArrayRef),
    Int32(ArrayRef),
    Int64(ArrayRef),
    Float32(ArrayRef),
    Float64(ArrayRef),
    Decimal128(ArrayRef, i8),
    Decimal256(ArrayRef, i8),
    Text(ArrayRef),
    Bytes(ArrayRef),
    Uuid(ArrayRef),
    Date(ArrayRef),
    Time(ArrayRef),
    Timestamp(ArrayRef, bool),
    Duration(ArrayRef),
    Interval(ArrayRef),
    List(ListArray, Box<Values>),
    Json(ArrayRef, Json),
    Nulls,
}

impl Values {
    /// Prepares a column to be written as the type of that number, as which it was announced.
    pub(crate) fn new(column: &ArrayRef, field: &Field, oid: u32) -> Result<Self, Refusal> {
        let unknown = |_| Refusal::new("0A000", "a column has a type that cannot be shown").hint("cast it to text");
        let to = |data_type: &DataType| {
            if column.data_type() == data_type { Ok(Arc::clone(column)) } else { cast(column, data_type).map_err(unknown) }
        };
        let shape = match column.data_type() {
            DataType::Null => Shape::Nulls,
            DataType::Dictionary(_, values) => {
                return Self::new(&cast(column, values).map_err(unknown)?, &field.clone().with_data_type(values.as_ref().clone()), oid);
            }
            DataType::Boolean => Shape::Boolean(Arc::clone(column)),
            DataType::Int8 | DataType::Int16 | DataType::UInt8 => Shape::Int16(to(&DataType::Int16)?),
            DataType::Int32 | DataType::UInt16 => Shape::Int32(to(&DataType::Int32)?),
            DataType::Int64 | DataType::UInt32 => Shape::Int64(to(&DataType::Int64)?),
            DataType::UInt64 => Shape::Decimal128(to(&DataType::Decimal128(20, 0))?, 0),
            DataType::Float16 | DataType::Float32 => Shape::Float32(to(&DataType::Float32)?),
            DataType::Float64 => Shape::Float64(Arc::clone(column)),
            DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
                Shape::Decimal128(to(&DataType::Decimal128(*precision, *scale))?, *scale)
            }
            DataType::Decimal128(_, scale) => Shape::Decimal128(Arc::clone(column), *scale),
            DataType::Decimal256(_, scale) => Shape::Decimal256(Arc::clone(column), *scale),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Shape::Text(to(&DataType::LargeUtf8)?),
            DataType::FixedSizeBinary(16) if oid == 2950 => Shape::Uuid(to(&DataType::LargeBinary)?),
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                Shape::Bytes(to(&DataType::LargeBinary)?)
            }
            DataType::Date32 | DataType::Date64 => Shape::Date(to(&DataType::Date32)?),
            DataType::Time32(_) | DataType::Time64(_) => Shape::Time(to(&DataType::Time64(TimeUnit::Microsecond))?),
            DataType::Timestamp(_, zone) => {
                Shape::Timestamp(to(&DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))?, zone.is_some())
            }
            DataType::Duration(_) => Shape::Duration(to(&DataType::Duration(TimeUnit::Microsecond))?),
            DataType::Interval(_) => Shape::Interval(to(&DataType::Interval(IntervalUnit::MonthDayNano))?),
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) if oid != 114 => {
                let lists = to(&DataType::List(Arc::clone(item)))?;
                let lists = lists.as_list::<i32>().clone();
                let items = Values::new(lists.values(), item, item_oid(oid).unwrap_or_else(|| type_oid(item)))?;
                Shape::List(lists, Box::new(items))
            }
            _ => Shape::Json(Arc::clone(column), Json::new(column)?),
        };
        Ok(Values { oid, shape })
    }

    fn array(&self) -> Option<&dyn Array> {
        Some(match &self.shape {
            Shape::Boolean(array)
            | Shape::Int16(array)
            | Shape::Int32(array)
            | Shape::Int64(array)
            | Shape::Float32(array)
            | Shape::Float64(array)
            | Shape::Decimal128(array, _)
            | Shape::Decimal256(array, _)
            | Shape::Text(array)
            | Shape::Bytes(array)
            | Shape::Uuid(array)
            | Shape::Date(array)
            | Shape::Time(array)
            | Shape::Timestamp(array, _)
            | Shape::Duration(array)
            | Shape::Interval(array)
            | Shape::Json(array, _) => array,
            Shape::List(array, _) => array,
            Shape::Nulls => return None,
        })
    }

    /// True where there is no value.
    pub(crate) fn is_null(&self, row: usize) -> bool {
        self.array().is_none_or(|array| array.is_null(row))
    }

    /// Writes a value, its length before it.
    pub(crate) fn write(&self, row: usize, format: i16, output: &mut BytesMut) {
        if self.is_null(row) {
            output.put_i32(-1);
            return;
        }
        let start = output.len();
        output.put_u32(0);
        if format == 1 {
            self.binary(row, output)
        } else {
            self.text(row, output)
        }
        let length = u32::try_from(output.len() - start - 4).unwrap_or(u32::MAX);
        output[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// Writes a value that is not null, as text.
    pub(crate) fn text(&self, row: usize, output: &mut BytesMut) {
        let put = |output: &mut BytesMut, text: &str| output.put_slice(text.as_bytes());
        match &self.shape {
            Shape::Boolean(array) => output.put_u8(if array.as_boolean().value(row) { b't' } else { b'f' }),
            Shape::Int16(array) => put(output, &array.as_primitive::<Int16Type>().value(row).to_string()),
            Shape::Int32(array) => put(output, &array.as_primitive::<Int32Type>().value(row).to_string()),
            Shape::Int64(array) => put(output, &array.as_primitive::<Int64Type>().value(row).to_string()),
            Shape::Float32(array) => {
                let value = array.as_primitive::<Float32Type>().value(row);
                put(output, &float(value.into(), || value.to_string(), || format!("{value:e}")));
            }
            Shape::Float64(array) => {
                let value = array.as_primitive::<Float64Type>().value(row);
                put(output, &float(value, || value.to_string(), || format!("{value:e}")));
            }
            Shape::Decimal128(..) | Shape::Decimal256(..) => put(output, &self.decimal(row)),
            Shape::Text(array) => put(output, array.as_string::<i64>().value(row)),
            Shape::Bytes(array) => {
                put(output, "\\x");
                hex(array.as_binary::<i64>().value(row), output);
            }
            Shape::Uuid(array) => {
                let bytes = array.as_binary::<i64>().value(row);
                for (index, part) in [0..4, 4..6, 6..8, 8..10, 10..16].into_iter().enumerate() {
                    if index > 0 {
                        output.put_u8(b'-');
                    }
                    hex(bytes.get(part).unwrap_or_default(), output);
                }
            }
            Shape::Date(array) => put(output, &date(array.as_primitive::<Date32Type>().value(row))),
            Shape::Time(array) => put(output, &time(array.as_primitive::<Time64MicrosecondType>().value(row))),
            Shape::Timestamp(array, zoned) => put(output, &timestamp(array.as_primitive::<TimestampMicrosecondType>().value(row), *zoned)),
            Shape::Duration(array) => put(output, &time(array.as_primitive::<DurationMicrosecondType>().value(row))),
            Shape::Interval(array) => {
                let value = array.as_primitive::<IntervalMonthDayNanoType>().value(row);
                put(output, &interval(value.months, value.days, value.nanoseconds / 1000));
            }
            Shape::List(lists, items) => {
                let offsets = lists.value_offsets();
                output.put_u8(b'{');
                for (index, item) in (offsets[row]..offsets[row + 1]).enumerate() {
                    if index > 0 {
                        output.put_u8(b',');
                    }
                    items.item(usize::try_from(item).unwrap_or_default(), output);
                }
                output.put_u8(b'}');
            }
            Shape::Json(_, json) => json.write(row, output),
            Shape::Nulls => {}
        }
    }

    /// An item of a list: quoted where it would be read as something else.
    fn item(&self, row: usize, output: &mut BytesMut) {
        if self.is_null(row) {
            output.put_slice(b"NULL");
            return;
        }
        let mut text = BytesMut::new();
        self.text(row, &mut text);
        let plain =
            !text.is_empty() && !text.eq_ignore_ascii_case(b"null") && !text.iter().any(|byte| b"{}\",\\ \t\n\r\x0b\x0c".contains(byte));
        if plain {
            output.put_slice(&text);
            return;
        }
        output.put_u8(b'"');
        for byte in text {
            if byte == b'"' || byte == b'\\' {
                output.put_u8(b'\\');
            }
            output.put_u8(byte);
        }
        output.put_u8(b'"');
    }

    fn decimal(&self, row: usize) -> String {
        match &self.shape {
            Shape::Decimal128(array, scale) => {
                Decimal128Type::format_decimal(array.as_primitive::<Decimal128Type>().value(row), Decimal128Type::MAX_PRECISION, *scale)
            }
            Shape::Decimal256(array, scale) => {
                Decimal256Type::format_decimal(array.as_primitive::<Decimal256Type>().value(row), Decimal256Type::MAX_PRECISION, *scale)
            }
            _ => String::new(),
        }
    }

    /// Writes a value that is not null, in binary.
    fn binary(&self, row: usize, output: &mut BytesMut) {
        match &self.shape {
            Shape::Boolean(array) => output.put_u8(u8::from(array.as_boolean().value(row))),
            Shape::Int16(array) => output.put_i16(array.as_primitive::<Int16Type>().value(row)),
            Shape::Int32(array) => output.put_i32(array.as_primitive::<Int32Type>().value(row)),
            Shape::Int64(array) => {
                let value = array.as_primitive::<Int64Type>().value(row);
                // The numbers of pg_catalog have four bytes.
                if self.oid == 26 { output.put_u32(u32::try_from(value).unwrap_or_default()) } else { output.put_i64(value) }
            }
            Shape::Float32(array) => output.put_f32(array.as_primitive::<Float32Type>().value(row)),
            Shape::Float64(array) => output.put_f64(array.as_primitive::<Float64Type>().value(row)),
            Shape::Decimal128(..) | Shape::Decimal256(..) => numeric(&self.decimal(row), output),
            Shape::Bytes(array) | Shape::Uuid(array) => output.put_slice(array.as_binary::<i64>().value(row)),
            Shape::Date(array) => output.put_i32(match array.as_primitive::<Date32Type>().value(row) {
                i32::MAX => i32::MAX,
                days if days == -i32::MAX => i32::MIN,
                days => days.saturating_sub(EPOCH_DAYS),
            }),
            Shape::Time(array) => output.put_i64(array.as_primitive::<Time64MicrosecondType>().value(row)),
            Shape::Timestamp(array, _) => output.put_i64(match array.as_primitive::<TimestampMicrosecondType>().value(row) {
                i64::MAX => i64::MAX,
                micros if micros == -i64::MAX => i64::MIN,
                micros => micros.saturating_sub(EPOCH_MICROS),
            }),
            Shape::Duration(array) => {
                output.put_i64(array.as_primitive::<DurationMicrosecondType>().value(row));
                output.put_i64(0);
            }
            Shape::Interval(array) => {
                let value = array.as_primitive::<IntervalMonthDayNanoType>().value(row);
                output.put_i64(value.nanoseconds / 1000);
                output.put_i32(value.days);
                output.put_i32(value.months);
            }
            Shape::List(lists, items) => {
                let offsets = lists.value_offsets();
                let range = offsets[row]..offsets[row + 1];
                let length = range.end - range.start;
                output.put_i32(i32::from(length > 0));
                output.put_i32(1);
                output.put_u32(items.oid);
                if length > 0 {
                    output.put_i32(length);
                    output.put_i32(1);
                }
                for item in range {
                    items.write(usize::try_from(item).unwrap_or_default(), 1, output);
                }
            }
            Shape::Text(_) | Shape::Json(..) | Shape::Nulls => self.text(row, output),
        }
    }
}

fn hex(bytes: &[u8], output: &mut BytesMut) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        output.put_u8(DIGITS[usize::from(byte >> 4)]);
        output.put_u8(DIGITS[usize::from(byte & 15)]);
    }
}

/// Shortest digits that read back the same, with an exponent where PostgreSQL has one.
fn float(value: f64, plain: impl Fn() -> String, exponent: impl Fn() -> String) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "Infinity".to_owned() } else { "-Infinity".to_owned() }
    } else if value == 0.0 || (1e-4..1e15).contains(&value.abs()) {
        plain()
    } else {
        let text = exponent();
        let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, power) = power.strip_prefix('-').map_or(('+', power), |power| ('-', power));
        format!("{digits}e{sign}{power:0>2}")
    }
}

/// A date, and what stands behind it (and behind a time) in years before ours.
fn date_parts(days: i64) -> (String, &'static str) {
    let (year, month, day) = date_of(days);
    let (year, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
    (format!("{year:04}-{month:02}-{day:02}"), era)
}

fn date(days: i32) -> String {
    match days {
        i32::MAX => "infinity".to_owned(),
        days if days == -i32::MAX => "-infinity".to_owned(),
        days => {
            let (text, era) = date_parts(days.into());
            format!("{text}{era}")
        }
    }
}

/// A time of day or a span of time.
fn time(micros: i64) -> String {
    let sign = if micros < 0 { "-" } else { "" };
    let micros = micros.unsigned_abs();
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let mut text = format!("{sign}{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if fraction > 0 {
        text.push_str(format!(".{fraction:06}").trim_end_matches('0'));
    }
    text
}

fn timestamp(micros: i64, zoned: bool) -> String {
    match micros {
        i64::MAX => return "infinity".to_owned(),
        micros if micros == -i64::MAX => return "-infinity".to_owned(),
        _ => {}
    }
    let (text, era) = date_parts(micros.div_euclid(DAY_MICROS));
    format!("{text} {}{}{era}", time(micros.rem_euclid(DAY_MICROS)), if zoned { "+00" } else { "" })
}

fn interval(months: i32, days: i32, micros: i64) -> String {
    let mut parts = Vec::new();
    let plural = |count: i32| if count == 1 { "" } else { "s" };
    if months / 12 != 0 {
        parts.push(format!("{} year{}", months / 12, plural(months / 12)));
    }
    if months % 12 != 0 {
        parts.push(format!("{} mon{}", months % 12, plural(months % 12)));
    }
    if days != 0 {
        parts.push(format!("{days} day{}", plural(days)));
    }
    if micros != 0 || parts.is_empty() {
        parts.push(time(micros));
    }
    parts.join(" ")
}

/// A decimal number in digits of base 10000, as PostgreSQL sends it.
fn numeric(text: &str, output: &mut BytesMut) {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |text| (true, text));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole = whole.trim_start_matches('0');
    let groups_before = whole.len().div_ceil(4);
    let padded = format!("{whole:0>width$}{fraction:0<rest$}", width = groups_before * 4, rest = fraction.len().div_ceil(4) * 4);
    let mut digits: Vec<i16> =
        padded.as_bytes().chunks(4).map(|group| group.iter().fold(0, |sum, digit| sum * 10 + i16::from(digit - b'0'))).collect();
    let leading = digits.iter().take_while(|digit| **digit == 0).count();
    digits.drain(..leading);
    while digits.last() == Some(&0) {
        digits.pop();
    }
    let short = |number: usize| i16::try_from(number).unwrap_or(i16::MAX);
    let weight = if digits.is_empty() { 0 } else { short(groups_before) - short(leading) - 1 };
    output.put_i16(short(digits.len()));
    output.put_i16(weight);
    output.put_i16(if negative && !digits.is_empty() { 0x4000 } else { 0 });
    output.put_i16(short(fraction.len()));
    digits.into_iter().for_each(|digit| output.put_i16(digit));
}

/// What has members: shown as JSON.
enum Json {
    Members(Vec<(String, ArrayRef, Json)>),
    List(Vec<i32>, ArrayRef, Box<Json>),
    Leaf(Box<Values>, bool),
}

impl Json {
    fn new(column: &ArrayRef) -> Result<Self, Refusal> {
        let unknown = |_| Refusal::new("0A000", "a column has a type that cannot be shown").hint("cast it to text");
        Ok(match column.data_type() {
            DataType::Struct(fields) => {
                let members = fields.iter().zip(column.as_struct().columns());
                Json::Members(
                    members
                        .map(|(field, member)| Ok((field.name().clone(), Arc::clone(member), Json::new(member)?)))
                        .collect::<Result<_, Refusal>>()?,
                )
            }
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                let lists = cast(column, &DataType::List(Arc::clone(item))).map_err(unknown)?;
                let lists = lists.as_list::<i32>();
                Json::List(lists.value_offsets().to_vec(), Arc::clone(lists.values()), Box::new(Json::new(lists.values())?))
            }
            DataType::Map(..) => {
                let map = column.as_map();
                let entries: ArrayRef = Arc::new(map.entries().clone());
                Json::List(map.value_offsets().to_vec(), Arc::clone(&entries), Box::new(Json::new(&entries)?))
            }
            DataType::Union(..) | DataType::RunEndEncoded(..) | DataType::ListView(_) | DataType::LargeListView(_) => {
                let text = cast(column, &DataType::Utf8).map_err(unknown)?;
                Json::Leaf(Box::new(Values::new(&text, &Field::new("", DataType::Utf8, true), 25)?), false)
            }
            data_type => {
                let field = Field::new("", data_type.clone(), true);
                let plain = data_type.is_numeric() || matches!(data_type, DataType::Boolean);
                Json::Leaf(Box::new(Values::new(column, &field, type_oid(&field))?), plain)
            }
        })
    }

    /// Writes a value that is not null.
    fn write(&self, row: usize, output: &mut BytesMut) {
        match self {
            Json::Members(members) => {
                output.put_u8(b'{');
                for (index, (name, array, json)) in members.iter().enumerate() {
                    if index > 0 {
                        output.put_u8(b',');
                    }
                    quoted(name.as_bytes(), output);
                    output.put_u8(b':');
                    if array.is_null(row) { output.put_slice(b"null") } else { json.write(row, output) }
                }
                output.put_u8(b'}');
            }
            Json::List(offsets, array, json) => {
                output.put_u8(b'[');
                for item in offsets[row]..offsets[row + 1] {
                    if item > offsets[row] {
                        output.put_u8(b',');
                    }
                    let item = usize::try_from(item).unwrap_or_default();
                    if array.is_null(item) { output.put_slice(b"null") } else { json.write(item, output) }
                }
                output.put_u8(b']');
            }
            Json::Leaf(values, plain) => {
                let mut text = BytesMut::new();
                values.text(row, &mut text);
                match (plain, &text[..]) {
                    _ if values.is_null(row) => output.put_slice(b"null"),
                    (true, b"t") => output.put_slice(b"true"),
                    (true, b"f") => output.put_slice(b"false"),
                    (true, b"NaN" | b"Infinity" | b"-Infinity") | (false, _) => quoted(&text, output),
                    (true, number) => output.put_slice(number),
                }
            }
        }
    }
}

fn quoted(text: &[u8], output: &mut BytesMut) {
    output.put_u8(b'"');
    for byte in text {
        match byte {
            b'"' => output.put_slice(b"\\\""),
            b'\\' => output.put_slice(b"\\\\"),
            b'\n' => output.put_slice(b"\\n"),
            b'\r' => output.put_slice(b"\\r"),
            b'\t' => output.put_slice(b"\\t"),
            0..0x20 => output.put_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => output.put_u8(*byte),
        }
    }
    output.put_u8(b'"');
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::array::{Date32Array, Decimal128Array, Float64Array, Int32Array, StringArray, StructArray, TimestampMicrosecondArray};
    use arrow::datatypes::Fields;

    use super::*;

    fn texts(column: ArrayRef) -> Vec<String> {
        let field = Field::new("", column.data_type().clone(), true);
        let values = Values::new(&column, &field, type_oid(&field)).unwrap();
        let one = |row| {
            let mut output = BytesMut::new();
            if !values.is_null(row) {
                values.text(row, &mut output);
            }
            String::from_utf8(output.to_vec()).unwrap()
        };
        (0..column.len()).map(one).collect()
    }

    #[test]
    fn values_read_as_in_postgresql() {
        let dates = Date32Array::from(vec![0, -719_163, 20_777, i32::MAX, -i32::MAX]);
        assert_eq!(texts(Arc::new(dates)), ["1970-01-01", "0001-12-31 BC", "2026-11-20", "infinity", "-infinity"]);
        let times = TimestampMicrosecondArray::from(vec![Some(1_500_000), Some(-1), None]).with_timezone("UTC");
        assert_eq!(texts(Arc::new(times)), ["1970-01-01 00:00:01.5+00", "1969-12-31 23:59:59.999999+00", ""]);
        assert_eq!(
            texts(Arc::new(Float64Array::from(vec![1.5, 1e15, 1e-5, f64::NAN, -0.0, 100.0]))),
            ["1.5", "1e+15", "1e-05", "NaN", "-0", "100"]
        );
        let decimals = Decimal128Array::from(vec![12_345, -5]).with_precision_and_scale(10, 2).unwrap();
        assert_eq!(texts(Arc::new(decimals)), ["123.45", "-0.05"]);
        assert_eq!(time(-3_020_399_500_000), "-838:59:59.5");
        assert_eq!(interval(14, -1, 3_600_000_000), "1 year 2 mons -1 days 01:00:00");
        let lists = ListArray::new(
            Arc::new(Field::new_list_field(DataType::Utf8, true)),
            arrow::buffer::OffsetBuffer::from_lengths([3, 0]),
            Arc::new(StringArray::from(vec![Some("a"), Some("b \"c\""), None])),
            None,
        );
        assert_eq!(texts(Arc::new(lists)), ["{a,\"b \\\"c\\\"\",NULL}", "{}"]);
        let fields = Fields::from(vec![Field::new("a", DataType::Int32, true), Field::new("b", DataType::Utf8, true)]);
        let columns: Vec<ArrayRef> = vec![Arc::new(Int32Array::from(vec![None, Some(1)])), Arc::new(StringArray::from(vec!["x\"", "é\n"]))];
        let members = StructArray::new(fields, columns, None);
        assert_eq!(texts(Arc::new(members)), ["{\"a\":null,\"b\":\"x\\\"\"}", "{\"a\":1,\"b\":\"é\\n\"}"]);
    }

    #[test]
    fn numbers_in_base_ten_thousand() {
        let digits = |text: &str| {
            let mut output = BytesMut::new();
            numeric(text, &mut output);
            output.chunks(2).map(|pair| i16::from_be_bytes([pair[0], pair[1]])).collect::<Vec<_>>()
        };
        assert_eq!(digits("0"), [0, 0, 0, 0]);
        assert_eq!(digits("0.00"), [0, 0, 0, 2]);
        assert_eq!(digits("12345.6"), [3, 1, 0, 1, 1, 2345, 6000]);
        assert_eq!(digits("-0.0005"), [1, -1, 0x4000, 4, 5]);
        assert_eq!(digits("0.00001234"), [1, -2, 0, 8, 1234]);
        assert_eq!(digits("120000"), [1, 1, 0, 0, 12]);
    }
}
