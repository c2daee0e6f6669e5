//! Booleans, integers and floating-point numbers from their text.

use super::{ValueError, ValueResult};

const NOT_A_BOOLEAN: ValueError = ValueError::new("not a boolean");
const NOT_AN_INTEGER: ValueError = ValueError::new("not an integer of the column's type");
const NOT_A_FLOAT: ValueError = ValueError::new("not a floating-point number");

pub(crate) fn boolean(text: &[u8]) -> ValueResult<bool> {
    match text {
        b"t" => Ok(true),
        b"f" => Ok(false),
        _ => Err(NOT_A_BOOLEAN),
    }
}

/// One byte: a boolean in binary form.
pub(crate) fn boolean_binary(value: &[u8]) -> ValueResult<bool> {
    match value {
        [1] => Ok(true),
        [0] => Ok(false),
        _ => Err(NOT_A_BOOLEAN),
    }
}

/// Decimal digits as a number; `None` for no digits, other characters or more than 64 bits.
#[inline]
pub(crate) fn unsigned(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    // Nineteen digits fit whatever they are.
    let (head, tail) = digits.split_at(digits.len().min(19));
    let mut number = 0u64;
    let mut valid = true;
    for byte in head {
        let digit = byte.wrapping_sub(b'0');
        valid &= digit <= 9;
        number = number.wrapping_mul(10).wrapping_add(u64::from(digit));
    }
    if !valid {
        return None;
    }
    for byte in tail {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    Some(number)
}

/// A signed integer that fits into `T`.
#[inline]
pub(crate) fn signed<T: TryFrom<i64>>(text: &[u8]) -> ValueResult<T> {
    let number = match text {
        // The magnitude of the least integer is one more than that of the greatest.
        [b'-', digits @ ..] => unsigned(digits).and_then(|magnitude| 0i64.checked_sub_unsigned(magnitude)),
        digits => unsigned(digits).and_then(|magnitude| i64::try_from(magnitude).ok()),
    };
    number.and_then(|number| T::try_from(number).ok()).ok_or(NOT_AN_INTEGER)
}

/// An unsigned integer of 32 bits.
#[inline]
pub(crate) fn unsigned_32(text: &[u8]) -> ValueResult<u32> {
    unsigned(text).and_then(|number| u32::try_from(number).ok()).ok_or(NOT_AN_INTEGER)
}

/// An unsigned integer of 64 bits.
#[inline]
pub(crate) fn unsigned_64(text: &[u8]) -> ValueResult<u64> {
    unsigned(text).ok_or(NOT_AN_INTEGER)
}

/// The shortest digits that tell a number from all others, `NaN`, `Infinity` or `-Infinity`: exact when read again.
#[inline]
pub(crate) fn float_32(text: &[u8]) -> ValueResult<f32> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(NOT_A_FLOAT)
}

/// See [`float_32`].
#[inline]
pub(crate) fn float_64(text: &[u8]) -> ValueResult<f64> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(NOT_A_FLOAT)
}

/// A float's four bytes. All NaNs are one, as in text: the server tells no two apart.
#[inline]
pub(crate) fn float_32_binary(value: [u8; 4]) -> f32 {
    let number = f32::from_be_bytes(value);
    if number.is_nan() { f32::NAN } else { number }
}

/// See [`float_32_binary`].
#[inline]
pub(crate) fn float_64_binary(value: [u8; 8]) -> f64 {
    let number = f64::from_be_bytes(value);
    if number.is_nan() { f64::NAN } else { number }
}

/// A number of one bit of sign, five of exponent and ten of fraction. Every such number is one of 32 bits too.
pub(crate) fn float_16_binary(value: [u8; 2]) -> f32 {
    let bits = u16::from_be_bytes(value);
    let sign = u32::from(bits >> 15) << 31;
    let (exponent, fraction) = (bits >> 10 & 31, bits & 0x3ff);
    let magnitude = match (exponent, fraction) {
        (31, 0) => f32::INFINITY,
        (31, _) => return f32::NAN,
        // Below the least normal number, in steps of 2^-24.
        (0, _) => f32::from(fraction) / 16_777_216.0,
        _ => f32::from_bits(u32::from(exponent + 112) << 23 | u32::from(fraction) << 13),
    };
    f32::from_bits(magnitude.to_bits() | sign)
}
