//! `numeric` of a fixed scale, straight to the unscaled number: from text and from binary groups.

use arrow_buffer::i256;

use super::number;
use super::numeric::{self, Groups, Number};
use super::{ValueError, ValueResult};

/// A column without precision holds these, and is carried as text.
const NOT_FINITE: ValueError = ValueError::with_remedy(
    "NaN and infinity are not decimal numbers",
    "store NULL instead, or make the column numeric without a precision, which is carried as text",
);
const NOT_A_NUMBER: ValueError = ValueError::new("not a decimal number");
const TOO_LARGE: ValueError = ValueError::new("a decimal number has more digits than its column");

const POWERS: [u64; 20] = {
    let mut powers = [1; 20];
    let mut i = 1;
    while i < powers.len() {
        powers[i] = powers[i - 1] * 10;
        i += 1;
    }
    powers
};

/// An unscaled number under construction: digits come from the left, in pieces of at most eighteen. Who pushes has made sure that
/// they are no more than the number has.
pub(crate) trait Unscaled: Default {
    type Number;

    fn push(&mut self, digits: u64, count: usize);

    fn finish(self, negative: bool) -> Self::Number;
}

/// At most 38 digits.
#[derive(Debug, Default)]
pub(crate) struct Unscaled128 {
    high: u128,
    // Up to 18 digits, most of all decimals, need no 128-bit arithmetic but the last step.
    low: u64,
    low_count: usize,
}

impl Unscaled for Unscaled128 {
    type Number = i128;

    #[inline(always)]
    fn push(&mut self, digits: u64, count: usize) {
        if self.low_count + count > 18 {
            self.high = self.high * u128::from(POWERS[self.low_count]) + u128::from(self.low);
            (self.low, self.low_count) = (0, 0);
        }
        self.low = self.low * POWERS[count] + digits;
        self.low_count += count;
    }

    #[inline(always)]
    fn finish(self, negative: bool) -> i128 {
        let number = (self.high * u128::from(POWERS[self.low_count]) + u128::from(self.low)) as i128;
        if negative { -number } else { number }
    }
}

/// At most 76 digits.
#[derive(Debug)]
pub(crate) struct Unscaled256 {
    high: i256,
    low: u128,
    low_power: u128,
    low_count: usize,
}

impl Default for Unscaled256 {
    fn default() -> Self {
        Unscaled256 { high: i256::ZERO, low: 0, low_power: 1, low_count: 0 }
    }
}

impl Unscaled256 {
    // 76 digits take 253 bits: nothing wraps.
    fn flush(&mut self) {
        let wide = |number: u128| i256::from_parts(number, 0);
        self.high = self.high.wrapping_mul(wide(self.low_power)).wrapping_add(wide(self.low));
        (self.low, self.low_power, self.low_count) = (0, 1, 0);
    }
}

impl Unscaled for Unscaled256 {
    type Number = i256;

    #[inline(always)]
    fn push(&mut self, digits: u64, count: usize) {
        if self.low_count + count > 38 {
            self.flush();
        }
        let power = u128::from(POWERS[count]);
        self.low = self.low * power + u128::from(digits);
        self.low_power *= power;
        self.low_count += count;
    }

    fn finish(mut self, negative: bool) -> i256 {
        self.flush();
        if negative { self.high.wrapping_neg() } else { self.high }
    }
}

/// The unscaled number of a text; `whole` is how many digits there may be before the point.
#[inline]
pub(crate) fn from_text<U: Unscaled>(text: &[u8], whole: usize, scale: usize) -> ValueResult<U::Number> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let (mut before, after) = match digits.len().checked_sub(scale + 1) {
        // As the server writes the values of a column of this scale.
        Some(point) if scale > 0 && digits[point] == b'.' => (&digits[..point], &digits[point + 1..]),
        _ => match digits.iter().position(|byte| *byte == b'.') {
            None => (digits, &[][..]),
            Some(point) => {
                let mut after = &digits[point + 1..];
                while let [shorter @ .., b'0'] = after
                    && after.len() > scale
                {
                    after = shorter;
                }
                (&digits[..point], after)
            }
        },
    };
    if before.is_empty() {
        return Err(NOT_A_NUMBER);
    }
    while let [b'0', shorter @ ..] = before {
        before = shorter;
    }
    if before.len() > whole || after.len() > scale {
        return Err(if digits.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.') { TOO_LARGE } else { not_a_number(text) });
    }
    let mut unscaled = U::default();
    for part in [before, after] {
        for piece in part.chunks(18) {
            unscaled.push(number::unsigned(piece).ok_or_else(|| not_a_number(text))?, piece.len());
        }
    }
    push_zeros(&mut unscaled, scale - after.len());
    Ok(unscaled.finish(negative))
}

/// The unscaled number of a binary value.
#[inline]
pub(crate) fn from_binary<U: Unscaled>(value: &[u8], whole: usize, scale: usize) -> ValueResult<U::Number> {
    match numeric::read(value)? {
        Number::Finite(groups) => from_groups::<U>(groups, whole, scale),
        Number::Special(_) => Err(NOT_FINITE),
    }
}

#[inline]
fn from_groups<U: Unscaled>(groups: Groups<'_>, whole: usize, scale: usize) -> ValueResult<U::Number> {
    let mut unscaled = U::default();
    // The power of ten that the last digit of a group stands for, in units of the last digit of the number.
    let mut power = (groups.weight + 1) * 4 + scale as i32;
    let mut started = false;
    for group in groups.iter() {
        power -= 4;
        if !started && group != 0 {
            started = true;
            let digits = group.ilog10() as i32 + 1;
            if power + digits > (whole + scale) as i32 {
                return Err(TOO_LARGE);
            }
        }
        if !started {
            continue;
        }
        if power >= 0 {
            unscaled.push(u64::from(group), 4);
            continue;
        }
        // Beyond the scale there may be nothing but zeros.
        let beyond = POWERS[usize::try_from(-power).unwrap_or(4).min(4)];
        if !u64::from(group).is_multiple_of(beyond) {
            return Err(TOO_LARGE);
        }
        if power > -4 {
            unscaled.push(u64::from(group) / beyond, (4 + power) as usize);
        }
    }
    if started && power > 0 {
        push_zeros(&mut unscaled, power as usize);
    }
    Ok(unscaled.finish(groups.negative))
}

#[inline]
fn push_zeros(unscaled: &mut impl Unscaled, mut count: usize) {
    while count > 0 {
        let piece = count.min(18);
        unscaled.push(0, piece);
        count -= piece;
    }
}

#[cold]
fn not_a_number(text: &[u8]) -> ValueError {
    if matches!(text, b"NaN" | b"Infinity" | b"-Infinity") { NOT_FINITE } else { NOT_A_NUMBER }
}

/// An amount of money as its smallest units: the digits of its text, whatever the currency, the grouping and the point are. The
/// server writes them all; negative amounts have a minus or stand in parentheses.
pub(crate) fn money(text: &[u8]) -> ValueResult<i64> {
    const NOT_MONEY: ValueError = ValueError::new("not an amount of money");
    let mut magnitude = None;
    for digit in text.iter().filter(|byte| byte.is_ascii_digit()) {
        let number = magnitude.unwrap_or(0u64);
        magnitude = Some(number.checked_mul(10).and_then(|number| number.checked_add(u64::from(digit - b'0'))).ok_or(NOT_MONEY)?);
    }
    let magnitude = magnitude.ok_or(NOT_MONEY)?;
    // U+2212 is the minus of some locales.
    let negative = text.contains(&b'-') || text.contains(&b'(') || text.windows(3).any(|bytes| bytes == "\u{2212}".as_bytes());
    let amount = if negative { 0i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() };
    amount.ok_or(NOT_MONEY)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::str::FromStr;

    use proptest::prelude::*;

    use super::*;
    use crate::types::testing::numeric;

    type Read<T> = ValueResult<T>;

    fn all(text: &str, whole: usize, scale: usize) -> [Read<i256>; 4] {
        let wide = |number: Read<i128>| number.map(i256::from_i128);
        [
            wide(from_text::<Unscaled128>(text.as_bytes(), whole, scale)),
            wide(from_binary::<Unscaled128>(&numeric(text), whole, scale)),
            from_text::<Unscaled256>(text.as_bytes(), whole, scale),
            from_binary::<Unscaled256>(&numeric(text), whole, scale),
        ]
    }

    #[test]
    fn numbers_of_a_scale() {
        for (text, whole, scale, number) in [
            ("0", 5, 0, "0"),
            ("0.00", 3, 2, "0"),
            ("-0.01", 3, 2, "-1"),
            ("12345678.90", 8, 2, "1234567890"),
            ("1", 8, 2, "100"),
            ("1.5", 8, 4, "15000"),
            // The scale that a value was stored with may be another than the column's, if zeros make the difference.
            ("1.50000", 8, 1, "15"),
            ("1.00000000", 8, 0, "1"),
            ("0.00999", 0, 5, "999"),
            ("10000", 5, 0, "10000"),
            ("1000000000000", 13, 4, "10000000000000000"),
            ("99999999999999999999999999999999999999", 38, 0, "99999999999999999999999999999999999999"),
            ("-9.9999999999999999999999999999999999999", 1, 37, "-99999999999999999999999999999999999999"),
            ("0.00000000000000000000000000000000000001", 0, 38, "1"),
        ] {
            let number = i256::from_string(number).unwrap();
            assert_eq!(all(text, whole, scale), [Ok(number); 4], "{text}");
        }
    }

    #[test]
    fn what_is_no_number_of_the_column_is_refused() {
        for text in ["NaN", "Infinity", "-Infinity"] {
            assert_eq!(all(text, 8, 2), [Err(NOT_FINITE); 4], "{text}");
            assert_eq!(all(text, 1, 0), [Err(NOT_FINITE); 4], "{text}");
        }
        for (text, whole, scale) in [("100", 2, 2), ("0.001", 2, 2), ("0.00001", 2, 2), ("99999.1", 4, 1), ("-1", 0, 4), ("10000", 4, 0)] {
            assert_eq!(all(text, whole, scale), [Err(TOO_LARGE); 4], "{text}");
        }
        for text in ["", "-", ".", "-.5", "1e5", "1,5", "+1", " 1", "0x1", "--1"] {
            assert_eq!(from_text::<Unscaled128>(text.as_bytes(), 30, 2), Err(NOT_A_NUMBER), "{text}");
        }
    }

    #[test]
    fn money_of_every_locale() {
        for (text, amount) in [
            ("$0.00", 0),
            ("$1,234.56", 123_456),
            ("-$1,234.56", -123_456),
            ("($1,234.56)", -123_456),
            ("1.234,56 €", 123_456),
            ("-1.234,56 €", -123_456),
            ("\u{2212}1 234,56 kr", -123_456),
            ("￥-1,234", -1_234),
            ("-$92,233,720,368,547,758.08", i64::MIN),
            ("$92,233,720,368,547,758.07", i64::MAX),
        ] {
            assert_eq!(money(text.as_bytes()), Ok(amount), "{text}");
        }
        for text in ["", "$", "$92,233,720,368,547,758.08", "$999,999,999,999,999,999,999.00"] {
            assert!(money(text.as_bytes()).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn digits_come_back(
            (digits, scale) in (1usize..=76).prop_flat_map(|precision| (
                proptest::collection::vec(prop_oneof![Just(0u8), Just(9), 0u8..10], precision),
                0..=precision,
            )),
            negative: bool,
        ) {
            let digits: String = digits.iter().map(|digit| char::from(b'0' + digit)).collect();
            let whole = digits.len() - scale;
            let before = digits[..whole].trim_start_matches('0');
            let before = if before.is_empty() { "0" } else { before };
            let point = if scale > 0 { "." } else { "" };
            let sign = if negative { "-" } else { "" };
            let text = format!("{sign}{before}{point}{}", &digits[whole..]);
            let number = i256::from_string(&format!("{sign}{digits}")).unwrap();
            prop_assert_eq!(from_text::<Unscaled256>(text.as_bytes(), whole, scale), Ok(number));
            prop_assert_eq!(from_binary::<Unscaled256>(&numeric(&text), whole, scale), Ok(number));
            if digits.len() <= 38 {
                let number = i128::from_str(&format!("{sign}{digits}")).unwrap();
                prop_assert_eq!(from_text::<Unscaled128>(text.as_bytes(), whole, scale), Ok(number));
                prop_assert_eq!(from_binary::<Unscaled128>(&numeric(&text), whole, scale), Ok(number));
            }
        }

        #[test]
        fn any_bytes_are_a_number_or_an_error(
            bytes in proptest::collection::vec(any::<u8>(), 0..60),
            text in "[-0-9.NaIe]{0,50}",
            whole in 0usize..=38,
            scale in 0usize..=38,
        ) {
            let small = whole.min(38 - scale);
            for number in [from_text::<Unscaled128>(text.as_bytes(), small, scale), from_binary::<Unscaled128>(&bytes, small, scale)] {
                prop_assert!(number.is_err() || number.unwrap().unsigned_abs() < 10u128.pow((small + scale) as u32));
            }
            let (_, _) = (from_text::<Unscaled256>(text.as_bytes(), whole, scale), from_binary::<Unscaled256>(&bytes, whole, scale));
            let _ = (from_text::<Unscaled256>(&bytes, whole, scale), money(&bytes));
        }
    }
}
