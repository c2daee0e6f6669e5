//! The mask `tokenize`: another value of the same form, which the holder of the key can turn back.
//!
//! FF1 permutes the values of a form, so different values stay different and nothing has to be kept in a table.
//!
//! **Text** keeps its form where it is of printable ASCII: digits stay digits, letters stay letters of the same case, all else
//! stays. Digits and letters are permuted apart, each with the other as the tweak, so that a value of digits alone is
//! what any implementation of FF1 makes of it. A value whose form has fewer than a million values could be found by trying; such
//! a one, and one with other characters, becomes `~` and hexadecimal digits, which keep nothing but a rough length. So does a value
//! that begins with `~`, and nothing else does: that is what makes it possible to tell one from the other.
//!
//! **Whole numbers** keep their sign and, from a million on, their number of digits. Those below are permuted among themselves. Where the
//! greatest number of a type lies among those of one number of digits, those that fit the type are permuted among themselves, whatever the
//! type is: a number has one token, and keeps it when its column is widened.

mod ff1;

use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray, StringBuilder};
use arrow::datatypes::{DataType, Decimal128Type, Decimal256Type, Int32Type, Int64Type, UInt32Type, UInt64Type};
use logweir_core::{Error, ErrorKind, Result};

use super::canonical::{for_each_text, is_text};
use super::hash::KeyedHash;
use ff1::{Ff1, Scratch};

pub(super) use ff1::Direction;

/// Begins what keeps no form.
const MARKER: u8 = b'~';
/// What keeps no form is padded to a multiple of so many bytes.
const PADDED_BYTES: usize = 16;
/// Fewer values than this can be tried. NIST demands as many of a permutation, and so is it with forms.
const VALUES_MIN: f64 = 1e6;
/// Digits of the numbers that are permuted among themselves.
const NUMBER_DIGITS_MIN: usize = 6;
/// A text with more digits or letters keeps no form: a change of radix costs the square of them.
const NUMERALS_MAX: usize = 1024;
/// As many bytes as an array of texts holds.
const BYTES_MAX: usize = i32::MAX as usize;
/// What the key of AES is made of, beside the secret.
const PURPOSE: &[u8] = b"logweir tokenize";

const DECIMAL: u16 = 10;
const ALPHABET: u16 = 26;
const BYTE: u16 = 256;

/// Makes tokens of values, and values of tokens.
#[derive(Clone)]
pub(super) struct Tokens(Arc<Ff1>);

/// Text, and whole numbers of types in which there are enough of them.
pub(super) fn masks(data_type: &DataType) -> bool {
    use DataType::*;
    is_text(data_type)
        || matches!(data_type, Int32 | Int64 | UInt32 | UInt64)
        || matches!(data_type, Decimal128(precision, 0) | Decimal256(precision, 0) if usize::from(*precision) >= NUMBER_DIGITS_MIN)
}

impl Tokens {
    /// Under a key that is made of `hash`'s.
    pub(super) fn new(hash: &KeyedHash) -> Self {
        Tokens(Arc::new(Ff1::new(&hash.bytes(PURPOSE))))
    }

    /// Tokens of values, or the values of tokens. What is no token of this key has no value: NULL.
    pub(super) fn apply(&self, array: &ArrayRef, direction: Direction) -> Result<ArrayRef> {
        match array.data_type() {
            DataType::Int32 => Ok(self.numbers::<Int32Type>(array, direction)),
            DataType::Int64 => Ok(self.numbers::<Int64Type>(array, direction)),
            DataType::UInt32 => Ok(self.numbers::<UInt32Type>(array, direction)),
            DataType::UInt64 => Ok(self.numbers::<UInt64Type>(array, direction)),
            DataType::Decimal128(..) => Ok(self.numbers::<Decimal128Type>(array, direction)),
            DataType::Decimal256(..) => Ok(self.numbers::<Decimal256Type>(array, direction)),
            _ => self.texts(array, direction, BYTES_MAX),
        }
    }

    /// A token may be twice as long as its text, so that those of one array may be more than an array holds: `bytes_max`.
    fn texts(&self, array: &ArrayRef, direction: Direction, bytes_max: usize) -> Result<ArrayRef> {
        let mut made = StringBuilder::with_capacity(array.len(), array.len() * 16);
        let mut buffers = Buffers::default();
        let mut bytes = 0;
        for_each_text(array, |text| match text.and_then(|text| self.text(text, direction, &mut buffers)) {
            Some(text) => {
                bytes += text.len();
                if bytes <= bytes_max {
                    made.append_value(text);
                }
            }
            None => made.append_null(),
        })?;
        if bytes > bytes_max {
            let error =
                Error::new(ErrorKind::Data, "a text is too long for `tokenize`: with its token there would be more than 2 GiB in a batch");
            return Err(error.remedy("mask the column with `hash`, or leave it out"));
        }
        Ok(Arc::new(made.finish()))
    }

    fn text<'a>(&self, text: &[u8], direction: Direction, buffers: &'a mut Buffers) -> Option<&'a str> {
        buffers.text.clear();
        if keeps_form(text) {
            self.formed(text, direction, buffers);
        } else if direction == Direction::Encrypt {
            self.hide(text, buffers);
        } else {
            self.show(text, buffers)?;
        }
        std::str::from_utf8(&buffers.text).ok()
    }

    /// Digits and letters in the places of digits and letters.
    fn formed(&self, text: &[u8], direction: Direction, buffers: &mut Buffers) {
        let Buffers { text: made, digits, letters, tweak, scratch, .. } = buffers;
        digits.clear();
        letters.clear();
        for byte in text {
            match byte {
                b'0'..=b'9' => digits.push(u16::from(byte - b'0')),
                byte if byte.is_ascii_alphabetic() => letters.push(u16::from(byte.to_ascii_lowercase() - b'a')),
                _ => {}
            }
        }
        let mut permute = |radix, changed: &mut Vec<u16>, other: &[u16], first| {
            if !changed.is_empty() {
                tweak.clear();
                tweak.extend(other.iter().map(|numeral| first + *numeral as u8));
                self.0.apply(direction, radix, tweak, changed, scratch);
            }
        };
        // The letters see digits that are tokens already, and are turned back first.
        match direction {
            Direction::Encrypt => {
                permute(DECIMAL, digits, letters, b'a');
                permute(ALPHABET, letters, digits, b'0');
            }
            Direction::Decrypt => {
                permute(ALPHABET, letters, digits, b'0');
                permute(DECIMAL, digits, letters, b'a');
            }
        }
        let (mut digits, mut letters) = (digits.iter(), letters.iter());
        made.extend(text.iter().map(|byte| {
            let (numerals, first) = match byte {
                b'0'..=b'9' => (&mut digits, b'0'),
                b'a'..=b'z' => (&mut letters, b'a'),
                b'A'..=b'Z' => (&mut letters, b'A'),
                _ => return *byte,
            };
            numerals.next().map_or(*byte, |numeral| first + *numeral as u8)
        }));
    }

    /// The marker and hexadecimal digits.
    fn hide(&self, text: &[u8], Buffers { text: made, digits, scratch, .. }: &mut Buffers) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        digits.clear();
        digits.extend(text.iter().map(|byte| u16::from(*byte)));
        // A bit, then zeros: there is one way only to take them off.
        digits.push(0x80);
        digits.resize(digits.len().next_multiple_of(PADDED_BYTES), 0);
        self.0.apply(Direction::Encrypt, BYTE, &[], digits, scratch);
        made.push(MARKER);
        made.extend(digits.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]));
    }

    /// What [`Tokens::hide`] has hidden.
    fn show(&self, token: &[u8], Buffers { text: made, digits, scratch, .. }: &mut Buffers) -> Option<()> {
        let hex = token.strip_prefix(&[MARKER])?;
        if hex.is_empty() || hex.len() % (2 * PADDED_BYTES) != 0 {
            return None;
        }
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(u16::from(byte - b'0')),
            b'a'..=b'f' => Some(u16::from(byte - b'a') + 10),
            _ => None,
        };
        digits.clear();
        for pair in hex.chunks_exact(2) {
            digits.push(digit(pair[0])? << 4 | digit(pair[1])?);
        }
        self.0.apply(Direction::Decrypt, BYTE, &[], digits, scratch);
        let end = digits.iter().rposition(|byte| *byte != 0)?;
        if digits[end] != 0x80 || digits.len() - end > PADDED_BYTES {
            return None;
        }
        made.extend(digits[..end].iter().map(|byte| *byte as u8));
        Some(())
    }

    fn numbers<T: ArrowPrimitiveType<Native: Display + FromStr>>(&self, array: &ArrayRef, direction: Direction) -> ArrayRef {
        let array: &PrimitiveArray<T> = array.as_primitive();
        let mut buffers = Buffers::default();
        let made: PrimitiveArray<T> =
            array.iter().map(|value| value.and_then(|value| self.number(value, direction, &mut buffers))).collect();
        Arc::new(made.with_data_type(array.data_type().clone()))
    }

    /// A number, by its decimal digits.
    fn number<N: Display + FromStr>(&self, value: N, direction: Direction, buffers: &mut Buffers) -> Option<N> {
        use std::io::Write as _;
        let Buffers { text, digits, scratch, .. } = buffers;
        text.clear();
        write!(text, "{value}").ok()?;
        let negative = text.first() == Some(&b'-');
        let magnitude = &text[usize::from(negative)..];
        digits.clear();
        digits.resize(NUMBER_DIGITS_MIN.saturating_sub(magnitude.len()), 0);
        digits.extend(magnitude.iter().map(|byte| u16::from(byte - b'0')));
        // A number and the one below zero say nothing of each other.
        let tweak: &[u8] = if negative { b"-" } else { b"" };
        let class = class(digits, negative);
        // The permutation is walked along until it comes to a number of this form: it does so at the latest where the walk began, so
        // no two walks end at the same.
        loop {
            self.0.apply(direction, DECIMAL, tweak, digits, scratch);
            let fits = match digits.len() {
                // There is one zero only.
                NUMBER_DIGITS_MIN => !negative || digits.iter().any(|digit| *digit != 0),
                _ => digits[0] != 0 && self::class(digits, negative) == class,
            };
            if fits {
                text.clear();
                text.extend(negative.then_some(b'-'));
                text.extend(digits.iter().map(|digit| b'0' + *digit as u8));
                if let Some(number) = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()) {
                    return Some(number);
                }
            }
        }
    }
}

/// How many of the types of whole numbers that end among the numbers of so many digits are too narrow for this one.
fn class(digits: &[u16], negative: bool) -> usize {
    let greatest: &[&[u8]] = match (digits.len(), negative) {
        (10, false) => &[b"2147483647", b"4294967295"],
        (10, true) => &[b"2147483648"],
        (19, false) => &[b"9223372036854775807"],
        (19, true) => &[b"9223372036854775808"],
        (20, false) => &[b"18446744073709551615"],
        _ => &[],
    };
    let digits = || digits.iter().map(|digit| b'0' + *digit as u8);
    greatest.iter().filter(|greatest| digits().gt(greatest.iter().copied())).count()
}

/// Kept from one value to the next.
#[derive(Default)]
struct Buffers {
    text: Vec<u8>,
    digits: Vec<u16>,
    letters: Vec<u16>,
    tweak: Vec<u8>,
    scratch: Scratch,
}

/// True for a text whose token has its form. Depends on the form only, so it holds for the token too.
fn keeps_form(text: &[u8]) -> bool {
    if text.first() == Some(&MARKER) || !text.iter().all(|byte| matches!(byte, b' '..=b'~')) {
        return false;
    }
    let digits = text.iter().filter(|byte| byte.is_ascii_digit()).count();
    let letters = text.iter().filter(|byte| byte.is_ascii_alphabetic()).count();
    let possible = |numerals| numerals != 1 && numerals <= NUMERALS_MAX;
    let values = |radix: u16, numerals: usize| f64::from(radix).powi(numerals as i32);
    possible(digits) && possible(letters) && values(DECIMAL, digits) * values(ALPHABET, letters) >= VALUES_MIN
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::array::{Int32Array, Int64Array, StringArray, UInt64Array};
    use arrow::datatypes::i256;
    use proptest::prelude::*;
    use secrecy::SecretString;

    use super::*;

    fn tokens() -> Tokens {
        under("0123456789abcdef0123456789abcdef")
    }

    fn under(key: &str) -> Tokens {
        Tokens::new(&KeyedHash::new(&SecretString::from(key)).unwrap())
    }

    fn text(text: &str, direction: Direction) -> Option<String> {
        tokens().text(text.as_bytes(), direction, &mut Buffers::default()).map(str::to_owned)
    }

    fn number<N: Display + FromStr>(value: N, direction: Direction) -> N {
        tokens().number(value, direction, &mut Buffers::default()).unwrap()
    }

    /// What stays of a text that keeps its form.
    fn form(text: &str) -> String {
        let class = |c: char| match c {
            '0'..='9' => '0',
            'a'..='z' => 'a',
            'A'..='Z' => 'A',
            other => other,
        };
        text.chars().map(class).collect()
    }

    #[test]
    fn the_form_is_kept_where_there_are_enough_values() {
        for (text, kept) in [
            ("4012-8888 8888-1881", true),
            ("123456", true),
            ("12345", false),
            ("abcde", true),
            ("abcd", false),
            ("ab1234", true),
            ("abcdefgh1", false),
            ("a12345678", false),
            ("Ada.Lovelace@example.com", true),
            ("ödön@example.com", false),
            ("~adalovelace", false),
            ("ada\nlovelace", false),
            ("", false),
            ("-", false),
        ] {
            assert_eq!(keeps_form(text.as_bytes()), kept, "{text}");
        }
        // The comparison of the product is exact where it matters.
        assert!(keeps_form(b"000000") && keeps_form(&[b'7'; NUMERALS_MAX]) && !keeps_form(&[b'7'; NUMERALS_MAX + 1]));
    }

    #[test]
    fn what_is_no_token_has_no_value() {
        let hidden = text("ada", Direction::Encrypt).unwrap();
        let other = under("another");
        assert_eq!(other.text(hidden.as_bytes(), Direction::Decrypt, &mut Buffers::default()), None);
        for token in ["", "ada", "~", "~00", "~zz", "größe", &hidden.to_uppercase(), &hidden[..31]] {
            assert_eq!(text(token, Direction::Decrypt), None, "{token}");
        }
    }

    #[test]
    fn arrays_keep_their_nulls_and_types() {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec![Some("ada@example.com"), None, Some("")])),
            Arc::new(Int32Array::from(vec![Some(7), None, Some(i32::MIN)])),
            Arc::new(Int64Array::from(vec![Some(i64::MAX), None, Some(i64::MIN)])),
            Arc::new(UInt64Array::from(vec![Some(u64::MAX), None, Some(0)])),
            Arc::new(arrow::array::Decimal128Array::from(vec![Some(12_345_678), None, Some(-1)]).with_precision_and_scale(8, 0).unwrap()),
        ];
        for column in columns {
            let masked = tokens().apply(&column, Direction::Encrypt).unwrap();
            assert_eq!((masked.data_type(), masked.logical_nulls()), (column.data_type(), column.logical_nulls()));
            assert_eq!(&tokens().apply(&masked, Direction::Decrypt).unwrap(), &column);
            assert_ne!(&masked, &column);
        }
    }

    #[test]
    fn tokens_that_fill_more_than_an_array_are_refused() {
        let column: ArrayRef = Arc::new(StringArray::from(vec![Some("größe"), None, Some("größe")]));
        let length = text("größe", Direction::Encrypt).unwrap().len();
        let token = tokens().texts(&column, Direction::Encrypt, 2 * length).unwrap();
        assert_eq!(&tokens().texts(&token, Direction::Decrypt, BYTES_MAX).unwrap(), &column);
        let report = tokens().texts(&column, Direction::Encrypt, 2 * length - 1).unwrap_err().report();
        assert!(report.contains("too long for `tokenize`") && !report.contains("größe"), "{report}");
    }

    #[test]
    fn small_numbers_are_permuted_among_themselves() {
        let (tokens, mut buffers) = (tokens(), Buffers::default());
        let mut seen = vec![false; 2_000_000];
        for value in (-999_999..=999_999_i32).step_by(97).chain([0, -1, 1, 999_999, -999_999]) {
            let token = tokens.number(value, Direction::Encrypt, &mut buffers).unwrap();
            assert!((-999_999..=999_999).contains(&token) && (token < 0) == (value < 0));
            let place = usize::try_from(token + 1_000_000).unwrap();
            assert!(!std::mem::replace(&mut seen[place], true) || value.abs() < 2 || value.abs() == 999_999, "{value}");
            assert_eq!(tokens.number(token, Direction::Decrypt, &mut buffers), Some(value));
        }
    }

    fn any_text() -> impl Strategy<Value = String> {
        prop_oneof![
            4 => "[ -~]{0,24}",
            2 => "[0-9]{1,20}",
            2 => "[A-Za-z]{1,20}",
            1 => "~[0-9a-f]{0,40}",
            1 => "\\PC{0,20}",
            1 => any::<String>(),
        ]
    }

    proptest! {
        #[test]
        fn a_text_comes_back(value in any_text()) {
            let token = text(&value, Direction::Encrypt).unwrap();
            prop_assert_eq!(text(&token, Direction::Decrypt), Some(value.clone()));
            if keeps_form(value.as_bytes()) {
                prop_assert_eq!(form(&token), form(&value));
            } else {
                prop_assert!(token.starts_with('~') && token.len() % 32 == 1);
                prop_assert!(value.len() < 4 || !token.contains(&value));
            }
        }

        /// Of whatever type it is: a column is widened, and its tokens stay.
        #[test]
        fn a_whole_number_has_one_token(a: i64, b: i32, c: u32, ten in 1_000_000_000..10_000_000_000_i64) {
            let wide = |value: i128| number(value, Direction::Encrypt);
            for value in [b, i32::MIN, i32::MAX, b % 1000, i32::MIN + 1] {
                prop_assert_eq!(i128::from(number(value, Direction::Encrypt)), wide(value.into()));
                prop_assert_eq!(i64::from(number(value, Direction::Encrypt)), number(i64::from(value), Direction::Encrypt));
            }
            for value in [c, u32::MAX, c % 1000, 1 << 31] {
                prop_assert_eq!(i128::from(number(value, Direction::Encrypt)), wide(value.into()));
            }
            for value in [a, i64::MIN, i64::MAX, ten, -ten] {
                prop_assert_eq!(i128::from(number(value, Direction::Encrypt)), wide(value.into()));
            }
            prop_assert_eq!(i128::from(number(u64::MAX, Direction::Encrypt)), wide(u64::MAX.into()));
        }

        #[test]
        fn a_whole_number_comes_back(a: i64, b: i32, c: u64, d: u32, e: i128, digits in 0..19_u32) {
            let short = a % 10_i64.pow(digits);
            for value in [a, short, i64::MIN, i64::MAX] {
                let token = number(value, Direction::Encrypt);
                prop_assert_eq!(number(token, Direction::Decrypt), value);
                prop_assert_eq!(token < 0, value < 0);
                let digits = |value: i64| value.unsigned_abs().to_string().len();
                prop_assert!(digits(token) == digits(value) || digits(token).max(digits(value)) <= 6);
            }
            for value in [b, i32::MIN, i32::MAX] {
                prop_assert_eq!(number(number(value, Direction::Encrypt), Direction::Decrypt), value);
            }
            for value in [c, c % 1000, u64::MAX] {
                prop_assert_eq!(number(number(value, Direction::Encrypt), Direction::Decrypt), value);
            }
            for value in [d, u32::MAX] {
                prop_assert_eq!(number(number(value, Direction::Encrypt), Direction::Decrypt), value);
            }
            prop_assert_eq!(number(number(e, Direction::Encrypt), Direction::Decrypt), e);
            let wide = i256::from_i128(e).wrapping_mul(i256::from_i128(e));
            prop_assert_eq!(number(number(wide, Direction::Encrypt), Direction::Decrypt), wide);
        }
    }
}
