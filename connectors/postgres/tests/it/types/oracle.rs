//! What a value is, asked of the server and of a column, in terms that neither shares with the other's text or encoding.

use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_array::{Array, ArrayRef};
use arrow_schema::{DataType, TimeUnit};

/// The SQL that says what a value is: numbers by their bits or digits, times by microseconds since 1970, bytes in hexadecimal,
/// text as it is, lists by what their elements are. `money` is carried as a decimal but does not calculate like one.
pub(crate) fn sql(data_type: &DataType, value: &str, money: bool) -> String {
    let known = match data_type {
        DataType::Boolean => format!("({value})::int::text"),
        DataType::Float32 => format!("encode(float4send({value}), 'hex')"),
        DataType::Float64 => format!("encode(float8send({value}), 'hex')"),
        DataType::Decimal128(..) if money => format!("(('x' || encode(cash_send({value}), 'hex'))::bit(64)::bigint)::text"),
        DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => {
            format!("trunc(({value})::numeric * 1{})::text", "0".repeat(*scale as usize))
        }
        DataType::Date32 => format!("CASE WHEN isfinite({value}) THEN (({value}) - '1970-01-01'::date)::text ELSE ({value})::text END"),
        DataType::Time64(_) => format!("round(extract(epoch FROM {value})::numeric * 1000000)::text"),
        DataType::Timestamp(..) => format!(
            "CASE WHEN isfinite({value}) THEN (extract(epoch FROM date_trunc('second', {value}))::numeric * 1000000 \
             + extract(microseconds FROM {value})::bigint % 1000000)::bigint::text ELSE ({value})::text END"
        ),
        DataType::Binary => format!("encode(({value})::bytea, 'hex')"),
        DataType::List(item) => {
            let element = sql(item.data_type(), "e", money);
            return format!(
                "CASE WHEN ({value}) IS DISTINCT FROM NULL THEN \
                 (SELECT '[' || coalesce(string_agg(coalesce({element}, 'NULL'), '|' ORDER BY n), '') || ']' \
                  FROM (SELECT ({value})[n] AS e, n FROM generate_subscripts({value}, 1) AS n) AS elements) END"
            );
        }
        // The output function: a cast to text would cut the spaces off a bpchar.
        _ => format!("format('%s', {value})"),
    };
    format!("CASE WHEN ({value}) IS DISTINCT FROM NULL THEN {known} END")
}

/// The same of a value of a column.
pub(crate) fn of(array: &ArrayRef, row: usize) -> Option<String> {
    if array.is_null(row) {
        return None;
    }
    let infinity = match array.data_type() {
        DataType::Date32 => i32::MAX.to_string(),
        DataType::Timestamp(..) => i64::MAX.to_string(),
        _ => return Some(raw(array, row)),
    };
    let number = raw(array, row);
    Some(if number.trim_start_matches('-') == infinity { number.replace(&infinity, "infinity") } else { number })
}

/// What a column holds, as it holds it.
pub(crate) fn raw(array: &ArrayRef, row: usize) -> String {
    match array.data_type() {
        DataType::Boolean => u8::from(array.as_boolean().value(row)).to_string(),
        DataType::Int16 => array.as_primitive::<Int16Type>().value(row).to_string(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::UInt32 => array.as_primitive::<UInt32Type>().value(row).to_string(),
        DataType::UInt64 => array.as_primitive::<UInt64Type>().value(row).to_string(),
        DataType::Float32 => hex(&array.as_primitive::<Float32Type>().value(row).to_be_bytes()),
        DataType::Float64 => hex(&array.as_primitive::<Float64Type>().value(row).to_be_bytes()),
        DataType::Decimal128(..) => array.as_primitive::<Decimal128Type>().value(row).to_string(),
        DataType::Decimal256(..) => array.as_primitive::<Decimal256Type>().value(row).to_string(),
        DataType::Date32 => array.as_primitive::<Date32Type>().value(row).to_string(),
        DataType::Time64(TimeUnit::Microsecond) => array.as_primitive::<Time64MicrosecondType>().value(row).to_string(),
        DataType::Timestamp(TimeUnit::Microsecond, _) => array.as_primitive::<TimestampMicrosecondType>().value(row).to_string(),
        DataType::Utf8 => array.as_string::<i32>().value(row).to_owned(),
        DataType::Binary => hex(array.as_binary::<i32>().value(row)),
        DataType::List(_) => {
            let list = array.as_list::<i32>().value(row);
            let elements: Vec<_> = (0..list.len()).map(|element| of(&list, element).unwrap_or_else(|| "NULL".to_owned())).collect();
            format!("[{}]", elements.join("|"))
        }
        other => panic!("no column is a {other}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
