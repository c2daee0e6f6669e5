//! The mask `email`: who writes stays hidden, where from does not.
//!
//! `a***@example.com` for `ada@example.com`; the first character is hidden too where it is the whole of the local part. What
//! does not look like an address becomes `***`: a password typed into the wrong field has an `@` as well.

use std::fmt::Write;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use logweir_core::Result;

use super::canonical::{is_text, map_text};

const STARS: &str = "***";

/// Text.
pub(super) fn masks(data_type: &DataType) -> bool {
    is_text(data_type)
}

pub(super) fn apply(array: &ArrayRef) -> Result<ArrayRef> {
    map_text(array, |text, masked| match address(text) {
        Some((shown, domain)) => write!(masked, "{shown}{STARS}@{domain}"),
        None => masked.write_str(STARS),
    })
}

/// The parts of an address that may be shown: the first character, if there are more, and the domain.
fn address(text: &str) -> Option<(&str, &str)> {
    let (local, domain) = text.trim().split_once('@')?;
    let is_domain = |domain: &str| {
        domain.contains('.') && domain.split('.').all(|label| !label.is_empty() && label.chars().all(|c| c.is_alphanumeric() || c == '-'))
    };
    if local.is_empty() || local.chars().any(char::is_whitespace) || !is_domain(domain) {
        return None;
    }
    let second = local.char_indices().nth(1);
    Some((second.map_or("", |(start, _)| &local[..start]), domain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_show_anything() {
        for (text, expected) in [
            ("ada@example.com", Some(("a", "example.com"))),
            (" ada@example.com\n", Some(("a", "example.com"))),
            ("a@example.com", Some(("", "example.com"))),
            ("ödön@bücher.example", Some(("ö", "bücher.example"))),
            ("@example.com", None),
            ("ada@", None),
            ("ada@localhost", None),
            ("p@ssw0rd", None),
            ("my secret@example.com", None),
            ("ada@example.com, bob@example.com", None),
            ("a@b@example.com", None),
            ("ada@example..com", None),
            ("", None),
            ("ada", None),
        ] {
            assert_eq!(address(text), expected, "{text}");
        }
    }
}
