//! The binary form of `numeric`: groups of four digits with the weight of the first, and its text.
//!
//! Two bytes each: number of groups, weight (the first group counts 10000 to that power), sign, digits to show after the
//! point, then the groups. Zeros at either end are not there, except those that the digits to show ask for.

use super::{ValueError, ValueResult};

const LENGTH: ValueError = ValueError::new("a numeric value does not have the length that it says");
const GROUP: ValueError = ValueError::new("a numeric value has a group that is not four decimal digits");
const SIGN: ValueError = ValueError::new("a numeric value has a sign that means nothing");

/// A number, taken apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Groups<'a> {
    pub(crate) negative: bool,
    /// The first group stands for so many powers of 10000.
    pub(crate) weight: i32,
    /// Digits after the point.
    pub(crate) scale: usize,
    groups: &'a [[u8; 2]],
}

/// What a value is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Number<'a> {
    Finite(Groups<'a>),
    /// `NaN`, `Infinity` or `-Infinity`.
    Special(&'static str),
}

impl<'a> Groups<'a> {
    /// The groups, each below 10000.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u16> + use<'a> {
        self.groups.iter().map(|group| u16::from_be_bytes(*group))
    }

    /// The group at a place; those that are not there are zero.
    fn group(&self, place: i32) -> u16 {
        usize::try_from(place).ok().and_then(|place| self.groups.get(place)).map_or(0, |group| u16::from_be_bytes(*group))
    }
}

/// Takes a value apart.
#[inline]
pub(crate) fn read(value: &[u8]) -> ValueResult<Number<'_>> {
    let (&[a, b, c, d, e, f, g, h], groups) = value.split_first_chunk::<8>().ok_or(LENGTH)?;
    let (count, weight) = (u16::from_be_bytes([a, b]), i16::from_be_bytes([c, d]));
    let (sign, scale) = (u16::from_be_bytes([e, f]), u16::from_be_bytes([g, h]));
    let negative = match sign {
        0x0000 => false,
        0x4000 => true,
        0xc000 => return Ok(Number::Special("NaN")),
        0xd000 => return Ok(Number::Special("Infinity")),
        0xf000 => return Ok(Number::Special("-Infinity")),
        _ => return Err(SIGN),
    };
    let (groups, []) = groups.as_chunks::<2>() else { return Err(LENGTH) };
    if groups.len() != usize::from(count) {
        return Err(LENGTH);
    }
    let number = Groups { negative, weight: i32::from(weight), scale: usize::from(scale), groups };
    if number.iter().any(|group| group > 9999) { Err(GROUP) } else { Ok(Number::Finite(number)) }
}

/// Appends the text of a value, with all the digits that it shows.
pub(crate) fn render(value: &[u8], out: &mut Vec<u8>) -> ValueResult<()> {
    let number = match read(value)? {
        Number::Finite(number) => number,
        Number::Special(name) => {
            out.extend_from_slice(name.as_bytes());
            return Ok(());
        }
    };
    if number.negative {
        out.push(b'-');
    }
    if number.weight < 0 {
        out.push(b'0');
    }
    for place in 0..=number.weight {
        let digits = four_digits(number.group(place));
        // Only the first group is written without the zeros before it.
        let zeros = if place == 0 { digits.iter().take(3).take_while(|digit| **digit == b'0').count() } else { 0 };
        out.extend_from_slice(&digits[zeros..]);
    }
    if number.scale > 0 {
        out.push(b'.');
        let end = out.len() + number.scale;
        // The group after the point; where the number begins later, groups before its first are zero.
        let mut place = number.weight + 1;
        while out.len() < end {
            out.extend_from_slice(&four_digits(number.group(place)));
            place += 1;
        }
        out.truncate(end);
    }
    Ok(())
}

fn four_digits(group: u16) -> [u8; 4] {
    let digit = |power: u16| b'0' + (group / power % 10) as u8;
    [digit(1000), digit(100), digit(10), digit(1)]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::testing::{hex, numeric, rendered};

    #[test]
    fn the_text_is_the_servers() {
        for (bytes, text) in [
            ("0000 0000 0000 0000", "0"),
            ("0000 0000 0000 0002", "0.00"),
            ("0001 0000 0000 0000 0001", "1"),
            ("0001 0001 0000 0000 0001", "10000"),
            ("0002 0000 4000 0002 0001 1388", "-1.50"),
            ("0001 ffff 0000 0001 1388", "0.5"),
            ("0001 fffe 0000 0007 03e8", "0.0000100"),
            ("0001 fff6 0000 0001 0001", "0.0"),
            ("0003 0001 0000 0004 0001 0000 0001", "10000.0001"),
            ("0000 0000 c000 0000", "NaN"),
            ("0000 0000 d000 0020", "Infinity"),
            ("0000 0000 f000 0020", "-Infinity"),
        ] {
            assert_eq!(rendered(render, &hex(bytes)), text);
        }
        // As a server sends the longest there are.
        for text in ["9".repeat(131_072), format!("0.{}", "1".repeat(16_383))] {
            assert_eq!(rendered(render, &numeric(&text)), text);
        }
    }

    #[test]
    fn what_is_no_numeric_is_refused() {
        for bytes in
            ["", "0001 0000 0000", "0001 0000 0000 0000", "0000 0000 0000 0000 00", "0000 0000 1000 0000", "0001 0000 0000 0000 2710"]
        {
            assert!(render(&hex(bytes), &mut Vec::new()).is_err(), "{bytes}");
        }
    }

    proptest! {
        #[test]
        fn any_number_comes_back(negative: bool, whole in "(0|[1-9][0-9]{0,40})", fraction in "[0-9]{0,40}") {
            let zero = whole == "0" && fraction.bytes().all(|digit| digit == b'0');
            let sign = if negative && !zero { "-" } else { "" };
            let point = if fraction.is_empty() { "" } else { "." };
            let text = format!("{sign}{whole}{point}{fraction}");
            prop_assert_eq!(rendered(render, &numeric(&text)), text);
        }

        #[test]
        fn any_bytes_are_a_number_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut out = Vec::new();
            if render(&bytes, &mut out).is_ok() {
                prop_assert!(out.is_ascii());
            }
        }
    }
}
