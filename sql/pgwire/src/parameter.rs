//! Parameters of a client, in text or in binary, as arrays of one row.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Float32Array, Float64Array, Int16Array, Int32Array, Int64Array, ListArray,
    StringArray, Time64MicrosecondArray, TimestampMicrosecondArray, new_empty_array, new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{CastOptions, cast_with_options, concat};
use arrow::datatypes::{DataType, Field, TimeUnit};
use arrow::util::display::FormatOptions;
use bytes::Bytes;
use logweir_sql::{item_oid, type_oid};

use crate::frame::{Body, Broken};
use crate::reply::Refusal;
use crate::value::{EPOCH_DAYS, EPOCH_MICROS};

/// Items of a list that is a parameter, which is in a message of a bounded length anyway.
const ITEMS_MAX: i32 = 100_000;

/// The type of a parameter: what the client says, else what the statement says, else text.
pub(crate) fn oid_of(declared: Option<u32>, inferred: Option<&DataType>) -> u32 {
    match (declared.filter(|oid| ![0, 705].contains(oid)), inferred) {
        (Some(oid), _) => oid,
        (None, Some(DataType::Null) | None) => 25,
        (None, Some(data_type)) => type_oid(&Field::new("", data_type.clone(), true)),
    }
}

/// The type of Arrow that a parameter is read as.
pub(crate) fn data_type(oid: u32) -> DataType {
    match oid {
        16 => DataType::Boolean,
        17 => DataType::Binary,
        20 | 26 => DataType::Int64,
        21 => DataType::Int16,
        23 => DataType::Int32,
        700 => DataType::Float32,
        701 => DataType::Float64,
        1082 => DataType::Date32,
        1083 => DataType::Time64(TimeUnit::Microsecond),
        1114 => DataType::Timestamp(TimeUnit::Microsecond, None),
        1184 => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        1700 => DataType::Decimal128(38, 10),
        _ => match item_oid(oid) {
            Some(item) => DataType::List(Arc::new(Field::new_list_field(data_type(item), true))),
            None => DataType::Utf8,
        },
    }
}

/// Reads a parameter. `inferred` is what it is cast to where the client has not said itself what it is.
pub(crate) fn read(oid: u32, format: i16, value: Option<Bytes>, inferred: Option<&DataType>) -> Result<ArrayRef, Refusal> {
    let read = match value {
        None => new_null_array(&data_type(oid), 1),
        Some(bytes) if format == 1 => binary(oid, bytes)?,
        Some(bytes) => text(oid, std::str::from_utf8(&bytes).map_err(|_| not_utf8())?)?,
    };
    match inferred {
        Some(data_type) if data_type != read.data_type() && *data_type != DataType::Null => to(&read, data_type),
        _ => Ok(read),
    }
}

fn not_utf8() -> Refusal {
    Refusal::new("22021", "a parameter is not UTF-8")
}

fn wrong(oid: u32) -> Refusal {
    // The value is the client's own, and not repeated: it may go into somebody's log.
    Refusal::new("22P02", format!("a parameter has a value that its type (of the number {oid}) does not have"))
}

fn to(array: &ArrayRef, data_type: &DataType) -> Result<ArrayRef, Refusal> {
    let strict = CastOptions { safe: false, format_options: FormatOptions::default() };
    cast_with_options(array, data_type, &strict)
        .map_err(|_| Refusal::new("22P02", format!("a parameter has a value that is no {data_type}")))
}

fn text(oid: u32, text: &str) -> Result<ArrayRef, Refusal> {
    let trimmed = text.trim();
    Ok(match oid {
        16 => Arc::new(BooleanArray::from(vec![match trimmed.to_ascii_lowercase().as_str() {
            "t" | "true" | "1" | "on" | "yes" | "y" => true,
            "f" | "false" | "0" | "off" | "no" | "n" => false,
            _ => return Err(wrong(oid)),
        }])),
        17 => {
            let digits = text.strip_prefix("\\x").ok_or_else(|| wrong(oid))?;
            let nibbles = digits.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect::<Option<Vec<_>>>();
            let nibbles = nibbles.filter(|nibbles| nibbles.len() % 2 == 0).ok_or_else(|| wrong(oid))?;
            let bytes: Vec<u8> = nibbles.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
            Arc::new(BinaryArray::from_vec(vec![bytes.as_slice()]))
        }
        1700 => {
            let words: ArrayRef = Arc::new(StringArray::from(vec![trimmed]));
            let scale = trimmed.split_once('.').map_or(0, |(_, fraction)| fraction.len()).min(38);
            to(&words, &DataType::Decimal128(38, i8::try_from(scale).unwrap_or(38))).map_err(|_| wrong(oid))?
        }
        _ => match (item_oid(oid), data_type(oid)) {
            (Some(item), _) => {
                let items = items(text).ok_or_else(|| wrong(oid))?;
                let arrays = items.into_iter().map(|value| match value {
                    Some(value) => self::text(item, &value),
                    None => Ok(new_null_array(&data_type(item), 1)),
                });
                list(item, arrays.collect::<Result<_, _>>()?)?
            }
            (None, DataType::Utf8) => Arc::new(StringArray::from(vec![text])),
            (None, data_type) => {
                let words: ArrayRef = Arc::new(StringArray::from(vec![trimmed]));
                to(&words, &data_type).map_err(|_| wrong(oid))?
            }
        },
    })
}

/// The items of `{a,"b c",NULL}`.
fn items(text: &str) -> Option<Vec<Option<String>>> {
    let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    let mut items = Vec::new();
    let mut letters = inner.chars().peekable();
    while letters.peek().is_some() {
        let mut item = String::new();
        let mut quoted = false;
        loop {
            match letters.next() {
                None | Some(',') => break,
                Some('"') => {
                    quoted = true;
                    loop {
                        match letters.next()? {
                            '"' => break,
                            '\\' => item.push(letters.next()?),
                            letter => item.push(letter),
                        }
                    }
                }
                Some('\\') => item.push(letters.next()?),
                Some('{' | '}') => return None,
                Some(letter) => item.push(letter),
            }
        }
        let item = if quoted { item } else { item.trim().to_owned() };
        items.push((quoted || !item.eq_ignore_ascii_case("null")).then_some(item));
    }
    Some(items)
}

fn list(item: u32, items: Vec<ArrayRef>) -> Result<ArrayRef, Refusal> {
    let length = items.len();
    let values = if items.is_empty() {
        new_empty_array(&data_type(item))
    } else {
        let items: Vec<&dyn Array> = items.iter().map(AsRef::as_ref).collect();
        concat(&items).map_err(|_| wrong(item))?
    };
    let field = Arc::new(Field::new_list_field(values.data_type().clone(), true));
    let lists = ListArray::try_new(field, OffsetBuffer::from_lengths([length]), values, None).map_err(|_| wrong(item))?;
    Ok(Arc::new(lists))
}

fn binary(oid: u32, bytes: Bytes) -> Result<ArrayRef, Refusal> {
    /// The bytes of a number, exactly.
    fn exact<const N: usize>(oid: u32, bytes: &[u8]) -> Result<[u8; N], Refusal> {
        bytes.try_into().map_err(|_| Refusal::new("22P03", format!("a parameter of the type of number {oid} has a wrong length")))
    }
    Ok(match oid {
        16 => Arc::new(BooleanArray::from(vec![exact::<1>(oid, &bytes)?[0] != 0])),
        17 => Arc::new(BinaryArray::from_vec(vec![&bytes[..]])),
        20 => Arc::new(Int64Array::from(vec![i64::from_be_bytes(exact(oid, &bytes)?)])),
        21 => Arc::new(Int16Array::from(vec![i16::from_be_bytes(exact(oid, &bytes)?)])),
        23 => Arc::new(Int32Array::from(vec![i32::from_be_bytes(exact(oid, &bytes)?)])),
        26 => Arc::new(Int64Array::from(vec![i64::from(u32::from_be_bytes(exact(oid, &bytes)?))])),
        700 => Arc::new(Float32Array::from(vec![f32::from_be_bytes(exact(oid, &bytes)?)])),
        701 => Arc::new(Float64Array::from(vec![f64::from_be_bytes(exact(oid, &bytes)?)])),
        1082 => {
            let days = i32::from_be_bytes(exact(oid, &bytes)?);
            Arc::new(Date32Array::from(vec![if days == i32::MIN { -i32::MAX } else { days.saturating_add(EPOCH_DAYS) }]))
        }
        1083 => Arc::new(Time64MicrosecondArray::from(vec![i64::from_be_bytes(exact(oid, &bytes)?)])),
        1114 | 1184 => {
            let micros = i64::from_be_bytes(exact(oid, &bytes)?);
            let micros = if micros == i64::MIN { -i64::MAX } else { micros.saturating_add(EPOCH_MICROS) };
            let array = TimestampMicrosecondArray::from(vec![micros]);
            if oid == 1184 { Arc::new(array.with_timezone("UTC")) } else { Arc::new(array) }
        }
        1700 => text(oid, &numeric(bytes).ok_or_else(|| wrong(oid))?)?,
        2950 => {
            let digits: String = exact::<16>(oid, &bytes)?.iter().map(|byte| format!("{byte:02x}")).collect();
            let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
            Arc::new(StringArray::from(vec![parts.join("-")]))
        }
        3802 => Arc::new(StringArray::from(vec![std::str::from_utf8(bytes.get(1..).unwrap_or_default()).map_err(|_| not_utf8())?])),
        _ => match item_oid(oid) {
            Some(item) => list(item, binary_items(item, Body(bytes)).map_err(|_| wrong(oid))??)?,
            None => match oid {
                18 | 19 | 25 | 114 | 1042 | 1043 => Arc::new(StringArray::from(vec![std::str::from_utf8(&bytes).map_err(|_| not_utf8())?])),
                _ => return Err(Refusal::new("0A000", format!("a parameter of the type of number {oid} must be sent as text"))),
            },
        },
    })
}

fn binary_items(item: u32, mut body: Body) -> Result<Result<Vec<ArrayRef>, Refusal>, Broken> {
    let (dimensions, _has_nulls, of) = (body.i32()?, body.i32()?, body.i32()?);
    if dimensions == 0 {
        return Ok(Ok(Vec::new()));
    }
    let (count, _first) = (body.i32()?, body.i32()?);
    if dimensions != 1 || u32::try_from(of) != Ok(item) || !(0..=ITEMS_MAX).contains(&count) {
        return Err(Broken::Malformed);
    }
    let mut items = Vec::new();
    for _ in 0..count {
        let value = match body.value()? {
            Some(bytes) => binary(item, bytes),
            None => Ok(new_null_array(&data_type(item), 1)),
        };
        match value {
            Ok(value) => items.push(value),
            Err(refusal) => return Ok(Err(refusal)),
        }
    }
    Ok(Ok(items))
}

/// The digits of a number in base 10000.
fn numeric(bytes: Bytes) -> Option<String> {
    let mut body = Body(bytes);
    let (count, weight, sign, scale) = (body.i16().ok()?, body.i16().ok()?, body.i16().ok()?, body.i16().ok()?);
    let count = usize::try_from(count).ok()?;
    let scale = usize::try_from(scale).ok()?;
    // More than these no decimal of ours has.
    if !(-20..20).contains(&weight) || scale > 76 || count > 40 {
        return None;
    }
    let mut digits = Vec::with_capacity(count);
    for _ in 0..count {
        digits.push(body.i16().ok().filter(|digit| (0..10_000).contains(digit))?);
    }
    let digit = |power: i16| usize::try_from(weight - power).ok().and_then(|index| digits.get(index)).copied().unwrap_or(0);
    let mut text = String::new();
    match sign {
        0 => {}
        0x4000 => text.push('-'),
        _ => return None,
    }
    for power in (0..=weight.max(0)).rev() {
        text.push_str(&format!("{:04}", digit(power)));
    }
    if scale > 0 {
        let groups = i16::try_from(scale.div_ceil(4)).ok()?;
        let fraction: String = (1..=groups).map(|power| format!("{:04}", digit(-power))).collect();
        text.push('.');
        text.push_str(fraction.get(..scale)?);
    }
    Some(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::util::display::array_value_to_string;
    use bytes::BytesMut;

    use super::*;
    use crate::value::Values;

    fn shown(array: &ArrayRef) -> String {
        array_value_to_string(array, 0).unwrap()
    }

    /// Written in binary, read in binary, it is the same.
    #[test]
    fn what_we_write_we_read() {
        for (oid, written) in [
            (16, "true"),
            (17, "\\x00ff"),
            (20, "-5"),
            (21, "7"),
            (23, "12"),
            (25, "text"),
            (700, "1.5"),
            (701, "-2.25"),
            (1082, "2026-11-20"),
            (1083, "10:00:00.5"),
            (1114, "2026-11-20 10:00:00"),
            (1184, "2026-11-20 10:00:00+00"),
            (1700, "-12345.0678"),
            (1007, "{1,NULL,3}"),
            (1009, "{a,\"b,c\",\"\\\"\"}"),
        ] {
            let array = read(oid, 0, Some(Bytes::from(written)), None).unwrap();
            let field = Field::new("", array.data_type().clone(), true);
            let mut output = BytesMut::new();
            Values::new(&array, &field, oid).unwrap().write(0, 1, &mut output);
            let again = read(oid, 1, Some(output.split_off(4).freeze()), None).unwrap();
            assert_eq!(shown(&again), shown(&array), "{written}");
        }
    }

    #[test]
    fn whatever_a_client_sends_is_read_or_refused() {
        let mut bytes = vec![0_u8; 40];
        for seed in 0..20_000_u32 {
            let mut state = seed.wrapping_mul(2_654_435_761);
            for byte in &mut bytes {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *byte = u8::try_from(state >> 24).unwrap();
            }
            let length = usize::try_from(seed % 40).unwrap();
            for oid in [16, 17, 20, 23, 25, 1082, 1114, 1184, 1700, 2950, 3802, 1007, 1009, 1231, 99_999] {
                for format in [0, 1] {
                    let _ = read(oid, format, Some(Bytes::copy_from_slice(&bytes[..length])), Some(&DataType::Int32));
                }
            }
        }
        for text in ["{", "{\"", "{\\", "{,}", "{{1}}", ""] {
            let _ = read(1007, 0, Some(Bytes::from(text)), None);
        }
        assert_eq!(read(23, 0, Some(Bytes::from("x")), None).unwrap_err().code, "22P02");
    }
}
