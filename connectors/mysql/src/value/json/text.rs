//! How MySQL writes the scalars of a JSON document.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::SHORT;
use crate::value::{ValueError, ValueResult, decimal};

/// Column types that opaque values have a text of their own for; others are base64.
mod column_type {
    pub(super) const TIMESTAMP: u8 = 7;
    pub(super) const DATE: u8 = 10;
    pub(super) const TIME: u8 = 11;
    pub(super) const DATETIME: u8 = 12;
    pub(super) const NEWDECIMAL: u8 = 246;
}

/// The decimal point may stand so many places before or behind the first digit before an exponent is written, and
/// farther behind it where digits come after the point.
const POINT_PLACES_MAX: i32 = 15;

const NOT_FINITE: ValueError = ValueError::new("a JSON document has a number that is not finite");

/// A string in double quotes: quotes, backslashes and control characters escaped, all else as it is.
pub(super) fn write_string(string: &str, out: &mut String) {
    out.push('"');
    let mut plain = 0;
    for (place, byte) in string.bytes().enumerate() {
        if byte >= b' ' && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.push_str(&string[plain..place]);
        plain = place + 1;
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            0x08 => out.push_str("\\b"),
            0x0c => out.push_str("\\f"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            control => {
                // Writing to a string does not fail.
                let _ = write!(out, "\\u{control:04x}");
            }
        }
    }
    out.push_str(&string[plain..]);
    out.push('"');
}

/// A double in the fewest digits that read back as itself: as a plain number with a point where that is not too long,
/// else with an exponent.
pub(super) fn write_double(double: f64, out: &mut String) -> ValueResult<()> {
    if !double.is_finite() {
        return Err(NOT_FINITE);
    }
    if double == 0.0 {
        out.push_str(if double.is_sign_negative() { "-0.0" } else { "0.0" });
        return Ok(());
    }
    // Rust finds the same digits as the server, and the exponent that the choice hangs on.
    let start = out.len();
    let _ = write!(out, "{double:e}");
    let (digits, exponent) = out[start..].rsplit_once('e').ok_or(NOT_FINITE)?;
    let point = exponent.parse::<i32>().map_err(|_| NOT_FINITE)? + 1;
    let digits = digits.bytes().filter(u8::is_ascii_digit).count() as i32;
    if point > -POINT_PLACES_MAX && (point <= POINT_PLACES_MAX || digits > point) {
        out.truncate(start);
        let _ = write!(out, "{double}");
        if !out[start..].contains('.') {
            out.push_str(".0");
        }
    }
    Ok(())
}

/// A value of a type that JSON does not have.
pub(super) fn write_opaque(column_type: u8, data: &[u8], out: &mut String) -> ValueResult<()> {
    match column_type {
        column_type::NEWDECIMAL => write_decimal(data, out),
        column_type::DATE | column_type::DATETIME | column_type::TIMESTAMP => {
            let packed = packed(data)?;
            let (date, micros) = (packed >> 41, packed & 0xff_ffff);
            let months = date >> 5;
            let _ = write!(out, "\"{:04}-{:02}-{:02}", months / 13, months % 13, date & 31);
            if column_type != column_type::DATE {
                let time = packed >> 24 & 0x1_ffff;
                let _ = write!(out, " {:02}:{:02}:{:02}.{micros:06}", time >> 12, time >> 6 & 63, time & 63);
            }
            out.push('"');
            Ok(())
        }
        column_type::TIME => {
            let packed = packed(data)?;
            let sign = if packed < 0 { "-" } else { "" };
            let packed = packed.unsigned_abs();
            let (time, micros) = (packed >> 24, packed & 0xff_ffff);
            let _ = write!(out, "\"{sign}{:02}:{:02}:{:02}.{micros:06}\"", time >> 12 & 0x3ff, time >> 6 & 63, time & 63);
            Ok(())
        }
        _ => {
            let _ = write!(out, "\"base64:type{column_type}:");
            // The server breaks base64 into lines of 76 characters, whose ends it escapes like those of any string.
            for (place, line) in data.chunks(57).enumerate() {
                if place > 0 {
                    out.push_str("\\n");
                }
                STANDARD.encode_string(line, out);
            }
            out.push('"');
            Ok(())
        }
    }
}

/// The server's packed form of a date or time in memory: eight bytes, little-endian, microseconds in the lower 24 bits.
fn packed(data: &[u8]) -> ValueResult<i64> {
    <[u8; 8]>::try_from(data).map(i64::from_le_bytes).map_err(|_| SHORT)
}

/// Precision, scale, and the packed decimal.
fn write_decimal(data: &[u8], out: &mut String) -> ValueResult<()> {
    let &[precision, scale, ref data @ ..] = data else { return Err(SHORT) };
    let unscaled = decimal::decode_i256(data, precision, scale)?;
    let negative = unscaled.is_negative();
    let digits = unscaled.wrapping_abs().to_string();
    let scale = usize::from(scale);
    if negative {
        out.push('-');
    }
    let whole = digits.len().saturating_sub(scale);
    out.push_str(if whole == 0 { "0" } else { &digits[..whole] });
    if scale > 0 {
        out.push('.');
        for _ in digits.len()..scale {
            out.push('0');
        }
        out.push_str(&digits[whole..]);
    }
    Ok(())
}
