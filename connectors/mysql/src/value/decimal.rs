//! `DECIMAL(p, s)`: MySQL's packed form, straight to the unscaled number.
//!
//! Nine decimal digits take four big-endian bytes; what is left over on either side of the point, at the outer ends,
//! takes as few bytes as it needs. The sign is the inverted first bit, and a negative number has every bit inverted,
//! so that memcmp orders numbers. (MySQL source documentation, `decimal2bin`; manual, "Precision Math".)

use arrow_buffer::i256;

use super::{ValueError, ValueResult, big_endian};

/// Digits of a whole group.
const GROUP_DIGITS: u8 = 9;
/// Bytes of a group, by its digits.
const GROUP_BYTES: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];
/// The most digits that an `i256` holds whatever they are. A column has at most 65, but a decimal inside a JSON document
/// says a few more than it has: the server rounds the digits before the point up to whole groups.
const PRECISION_I256: u8 = 76;
/// The most digits that an `i128` holds whatever they are.
const PRECISION_I128: u8 = 38;

const LENGTH: ValueError = ValueError::new("a DECIMAL value does not have the length of its type");
const DIGITS: ValueError = ValueError::new("a DECIMAL value has a group that is not decimal digits");
const TYPE: ValueError = ValueError::new("a DECIMAL type has more digits than any");

const POWERS: [u64; 20] = {
    let mut powers = [1; 20];
    let mut i = 1;
    while i < powers.len() {
        powers[i] = powers[i - 1] * 10;
        i += 1;
    }
    powers
};

/// Bytes of a `DECIMAL(precision, scale)`; a scale greater than the precision counts as the precision.
pub(crate) fn decimal_bytes(precision: u8, scale: u8) -> usize {
    let scale = scale.min(precision);
    let side = |digits: u8| usize::from(digits / GROUP_DIGITS) * 4 + GROUP_BYTES[usize::from(digits % GROUP_DIGITS)];
    side(precision - scale) + side(scale)
}

/// The unscaled number of a `DECIMAL` of at most 38 digits.
pub(crate) fn decode_i128(bytes: &[u8], precision: u8, scale: u8) -> ValueResult<i128> {
    if precision > PRECISION_I128 {
        return Err(TYPE);
    }
    let mut mantissa = 0u128;
    // Up to 18 digits, most of all decimals, need no 128-bit arithmetic but the last step.
    let mut low = 0u64;
    let mut low_digits = 0u8;
    let negative = groups(bytes, precision, scale, |group, digits| {
        if low_digits + digits > 18 {
            mantissa = mantissa * u128::from(POWERS[usize::from(low_digits)]) + u128::from(low);
            (low, low_digits) = (0, 0);
        }
        low = low * POWERS[usize::from(digits)] + u64::from(group);
        low_digits += digits;
    })?;
    mantissa = mantissa * u128::from(POWERS[usize::from(low_digits)]) + u128::from(low);
    // At most 38 digits, so it fits with room for the sign.
    let number = mantissa as i128;
    Ok(if negative { -number } else { number })
}

/// The unscaled number of a `DECIMAL` of at most 76 digits.
pub(crate) fn decode_i256(bytes: &[u8], precision: u8, scale: u8) -> ValueResult<i256> {
    let mut mantissa = i256::ZERO;
    let mut low = 0u128;
    let mut low_power = 1u128;
    let mut low_digits = 0u8;
    let wide = |number: u128| i256::from_parts(number, 0);
    let negative = groups(bytes, precision, scale, |group, digits| {
        if low_digits + digits > PRECISION_I128 {
            mantissa = mantissa.wrapping_mul(wide(low_power)).wrapping_add(wide(low));
            (low, low_power, low_digits) = (0, 1, 0);
        }
        let power = u128::from(POWERS[usize::from(digits)]);
        low = low * power + u128::from(group);
        low_power *= power;
        low_digits += digits;
    })?;
    // 76 digits take 253 bits: nothing wraps.
    mantissa = mantissa.wrapping_mul(wide(low_power)).wrapping_add(wide(low));
    Ok(if negative { mantissa.wrapping_neg() } else { mantissa })
}

/// Hands every group with its number of digits to `each`, from the left, and returns whether the number is negative.
#[inline(always)]
fn groups(bytes: &[u8], precision: u8, scale: u8, mut each: impl FnMut(u32, u8)) -> ValueResult<bool> {
    if precision > PRECISION_I256 || scale > precision {
        return Err(TYPE);
    }
    if bytes.len() != decimal_bytes(precision, scale) {
        return Err(LENGTH);
    }
    let Some(first) = bytes.first() else { return Ok(false) };
    let negative = first & 0x80 == 0;
    let mask = if negative { u32::MAX } else { 0 };

    let mut rest = bytes;
    // Only the first group has the sign bit.
    let mut sign = 0x80u8;
    let mut group = |digits: u8| -> ValueResult<()> {
        let length = GROUP_BYTES[usize::from(digits)];
        let (head, tail) = rest.split_at_checked(length).ok_or(LENGTH)?;
        rest = tail;
        let bits = length as u32 * 8;
        // A positive number has the sign bit set; so has a negative one, once it is inverted.
        let number = big_endian(head) as u32 ^ (mask >> (32 - bits)) ^ (u32::from(sign) << (bits - 8));
        sign = 0;
        if u64::from(number) >= POWERS[usize::from(digits)] {
            return Err(DIGITS);
        }
        each(number, digits);
        Ok(())
    };

    let whole = precision - scale;
    if !whole.is_multiple_of(GROUP_DIGITS) {
        group(whole % GROUP_DIGITS)?;
    }
    for _ in 0..whole / GROUP_DIGITS + scale / GROUP_DIGITS {
        group(GROUP_DIGITS)?;
    }
    if !scale.is_multiple_of(GROUP_DIGITS) {
        group(scale % GROUP_DIGITS)?;
    }
    Ok(negative)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::str::FromStr;

    use proptest::prelude::*;

    use super::*;

    /// The packed form by the book, from decimal digits.
    fn encode(digits: &str, negative: bool, precision: u8, scale: u8) -> Vec<u8> {
        assert_eq!(digits.len(), usize::from(precision));
        let (whole, fraction) = digits.split_at(usize::from(precision - scale));
        let mut bytes = Vec::new();
        let mut push = |group: &str| {
            let number: u32 = if group.is_empty() { 0 } else { group.parse().unwrap() };
            bytes.extend_from_slice(&number.to_be_bytes()[4 - GROUP_BYTES[group.len()]..]);
        };
        let (head, groups) = whole.split_at(whole.len() % 9);
        push(head);
        groups.as_bytes().chunks(9).for_each(|group| push(std::str::from_utf8(group).unwrap()));
        fraction.as_bytes().chunks(9).for_each(|group| push(std::str::from_utf8(group).unwrap()));
        if let Some(first) = bytes.first_mut() {
            *first ^= 0x80;
        }
        if negative {
            bytes.iter_mut().for_each(|byte| *byte = !*byte);
        }
        bytes
    }

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
    }

    #[test]
    fn the_example_of_the_server_documentation() {
        // DECIMAL(14,4): 1234567890.1234 and its negative.
        assert_eq!(decode_i128(&hex("810dfb38d204d2"), 14, 4), Ok(12_345_678_901_234));
        assert_eq!(decode_i128(&hex("7ef204c72dfb2d"), 14, 4), Ok(-12_345_678_901_234));
        assert_eq!(decode_i256(&hex("7ef204c72dfb2d"), 14, 4), Ok(i256::from_i128(-12_345_678_901_234)));
    }

    #[test]
    fn the_widest_decimal_as_mysql_logged_it() {
        let logged = hex("7f439eb1ca484078caf1cb3fd0f8a086d788ca0dde26af34e4c5f3ebfea6");
        let text = "-12345678901234567890123456789012345678901234567890123456789012345";
        assert_eq!(decode_i256(&logged, 65, 30), Ok(i256::from_string(text).unwrap()));
    }

    #[test]
    fn lengths_are_those_of_the_manual() {
        let lengths =
            [(10, 0, 5), (10, 2, 5), (14, 4, 7), (18, 9, 8), (20, 6, 10), (38, 10, 18), (65, 30, 30), (65, 0, 29), (1, 1, 1), (1, 0, 1)];
        for (precision, scale, length) in lengths {
            assert_eq!(decimal_bytes(precision, scale), length, "DECIMAL({precision},{scale})");
        }
    }

    #[test]
    fn what_is_no_decimal_is_refused() {
        assert_eq!(decode_i128(&[0x80], 14, 4), Err(LENGTH));
        assert_eq!(decode_i128(&[0x80; 20], 39, 0), Err(TYPE));
        assert_eq!(decode_i256(&[0x80; 20], 77, 0), Err(TYPE));
        assert_eq!(decode_i256(&[0x80], 1, 2), Err(TYPE));
        // 100 in a group of two digits.
        assert_eq!(decode_i128(&[0x80 | 100], 2, 0), Err(DIGITS));
        assert_eq!(decode_i128(&[0x80 | 99], 2, 0), Ok(99));
    }

    proptest! {
        #[test]
        fn a_packed_decimal_decodes_to_its_digits(
            (precision, scale, digits) in (1u8..=76).prop_flat_map(|precision| {
                (Just(precision), 0..=precision.min(30), proptest::collection::vec(prop_oneof![Just(0u8), Just(9), 0u8..10], usize::from(precision)))
            }),
            negative: bool,
        ) {
            let digits: String = digits.iter().map(|digit| char::from(b'0' + digit)).collect();
            let bytes = encode(&digits, negative, precision, scale);
            let sign = if negative { "-" } else { "" };
            prop_assert_eq!(decode_i256(&bytes, precision, scale), Ok(i256::from_string(&format!("{sign}{digits}")).unwrap()));
            if precision <= 38 {
                prop_assert_eq!(decode_i128(&bytes, precision, scale), Ok(i128::from_str(&format!("{sign}{digits}")).unwrap()));
            }
        }

        #[test]
        fn any_bytes_are_a_number_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..40), precision: u8, scale: u8) {
            let _ = decode_i128(&bytes, precision, scale);
            let _ = decode_i256(&bytes, precision, scale);
            if let Ok(number) = decode_i128(&bytes[..bytes.len().min(decimal_bytes(38, 10))], 38, 10) {
                prop_assert!(number.unsigned_abs() < 10u128.pow(38));
            }
        }
    }
}
