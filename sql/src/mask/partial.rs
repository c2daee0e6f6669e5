//! The mask `partial`: the end of a value, as on a receipt.
//!
//! `****` and the last four characters of a value that has eight or more; only `****` for a shorter one, so that at most half
//! of a value is shown. There are always four stars: their number says nothing about the length.

use std::fmt::Write;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use logweir_core::Result;

use super::canonical::{is_text, map_text};

const STARS: &str = "****";
const SHOWN_CHARACTERS: usize = 4;
/// A value with fewer characters shows none.
const SHOWING_CHARACTERS_MIN: usize = 2 * SHOWN_CHARACTERS;

/// Text, and whole numbers: card and telephone numbers are kept as such.
pub(super) fn masks(data_type: &DataType) -> bool {
    is_text(data_type) || data_type.is_integer() || matches!(data_type, DataType::Decimal128(_, 0) | DataType::Decimal256(_, 0))
}

pub(super) fn apply(array: &ArrayRef) -> Result<ArrayRef> {
    map_text(array, |text, masked| write!(masked, "{STARS}{}", shown(text)))
}

/// The end of a value that may be shown.
fn shown(text: &str) -> &str {
    let mut starts = text.char_indices().rev().map(|(start, _)| start);
    let shown_from = starts.nth(SHOWN_CHARACTERS - 1);
    let long_enough = starts.nth(SHOWING_CHARACTERS_MIN - SHOWN_CHARACTERS - 1).is_some();
    shown_from.filter(|_| long_enough).map_or("", |start| &text[start..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_half_is_shown() {
        for (text, expected) in [
            ("", ""),
            ("1234", ""),
            ("1234567", ""),
            ("12345678", "5678"),
            ("4012888888881881", "1881"),
            ("größer-als-öäüß", "öäüß"),
            ("äöüäöüß", ""),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }
}
