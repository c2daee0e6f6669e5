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
    // Nineteen digits fit whatever they are.
    if digits.is_empty() || digits.len() > 19 {
        return unsigned_long(digits);
    }
    let (eights, rest) = digits.as_chunks::<8>();
    let mut number = 0u64;
    for eight in eights {
        number = number * 100_000_000 + eight_digits(*eight)?;
    }
    let mut wrong = 0;
    for byte in rest {
        let digit = byte.wrapping_sub(b'0');
        wrong |= u8::from(digit > 9);
        number = number.wrapping_mul(10).wrapping_add(u64::from(digit));
    }
    if wrong == 0 { Some(number) } else { None }
}

#[cold]
fn unsigned_long(digits: &[u8]) -> Option<u64> {
    let digit = |byte: &u8| Some(byte.wrapping_sub(b'0')).filter(|digit| *digit <= 9);
    let (first, rest) = digits.split_first()?;
    rest.iter().try_fold(u64::from(digit(first)?), |number, byte| number.checked_mul(10)?.checked_add(u64::from(digit(byte)?)))
}

/// Eight decimal digits as a number, all at once: neighbours are put together into pairs, these into fours, these into one.
#[inline]
pub(super) fn eight_digits(digits: [u8; 8]) -> Option<u64> {
    const ZEROS: u64 = u64::from_le_bytes([b'0'; 8]);
    let digits = u64::from_le_bytes(digits);
    let numbers = digits.wrapping_sub(ZEROS);
    // A byte below '0' borrows, one above '9' carries into its highest bit; one with that bit already has it.
    const ABOVE: u64 = u64::from_le_bytes([0x7f - b'9'; 8]);
    if (digits | numbers | digits.wrapping_add(ABOVE)) & u64::from_le_bytes([0x80; 8]) != 0 {
        return None;
    }
    let pairs = (numbers * 10 + (numbers >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs * 100 + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    Some((fours * 10_000 + (fours >> 32)) & 0xffff_ffff)
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn integers_at_their_edges() {
        assert_eq!(signed::<i16>(b"-32768"), Ok(i16::MIN));
        assert_eq!(signed::<i16>(b"32768"), Err(NOT_AN_INTEGER));
        assert_eq!(signed::<i64>(b"-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(signed::<i64>(b"9223372036854775808"), Err(NOT_AN_INTEGER));
        assert_eq!(signed::<i64>(b"-9223372036854775809"), Err(NOT_AN_INTEGER));
        assert_eq!(unsigned_64(b"18446744073709551615"), Ok(u64::MAX));
        assert_eq!(unsigned_64(b"18446744073709551616"), Err(NOT_AN_INTEGER));
        assert_eq!(unsigned_64(b"99999999999999999999"), Err(NOT_AN_INTEGER));
        assert_eq!(unsigned_32(b"4294967296"), Err(NOT_AN_INTEGER));
        for text in ["", "-", "+1", " 1", "1 ", "1.0", "0x1", "a", "12345678901234567890a", "123456789012345678a"] {
            assert_eq!(signed::<i64>(text.as_bytes()), Err(NOT_AN_INTEGER), "{text}");
        }
    }

    #[test]
    fn halves() {
        for (bits, number) in [
            (0x3c00u16, 1.0f32),
            (0xfbff, -65504.0),
            (0x0001, 5.960_464_5e-8),
            (0x03ff, 6.097_555e-5),
            (0x0400, 6.103_515_6e-5),
            (0x7c00, f32::INFINITY),
            (0xfc00, f32::NEG_INFINITY),
            (0x2e66, 0.099_975_586),
        ] {
            assert_eq!(float_16_binary(bits.to_be_bytes()), number);
        }
        assert_eq!(float_16_binary([0x80, 0]).to_bits(), (-0.0f32).to_bits());
        assert!(float_16_binary([0x7e, 0]).is_nan());
    }

    proptest! {
        #[test]
        fn numbers_come_back(int: i64, natural: u64, float in any::<f64>(), single in any::<f32>()) {
            prop_assert_eq!(signed(int.to_string().as_bytes()), Ok(int));
            prop_assert_eq!(signed((int as i16).to_string().as_bytes()), Ok(int as i16));
            prop_assert_eq!(unsigned_64(natural.to_string().as_bytes()), Ok(natural));
            prop_assert_eq!(unsigned_32((natural as u32).to_string().as_bytes()), Ok(natural as u32));
            prop_assert_eq!(float_64(format!("{float:?}").as_bytes()).unwrap().to_bits(), float.to_bits());
            prop_assert_eq!(float_32(format!("{single:e}").as_bytes()).unwrap().to_bits(), single.to_bits());
        }

        #[test]
        fn any_bytes_are_a_number_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..30)) {
            let _ = (boolean(&bytes), signed::<i32>(&bytes), unsigned_64(&bytes), float_32(&bytes), float_64(&bytes));
        }
    }
}
