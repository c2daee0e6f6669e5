//! Sizes, durations and names as people write them.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

/// A number of bytes: `64KiB`, `128MiB`, `1GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

impl Size {
    pub(crate) const PATTERN: &str = "^[0-9]+ ?(B|KiB|MiB|GiB|TiB)$";

    /// Reads the text.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let (number, unit) = split(text).ok_or("write a whole number and a unit: 64KiB, 128MiB, 1GiB")?;
        let factor: u64 = match unit {
            "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            _ => return Err("the units are B, KiB, MiB, GiB and TiB, as in 128MiB"),
        };
        number.checked_mul(factor).filter(|bytes| *bytes > 0).map(Size).ok_or("a size must be above zero and below 16 EiB")
    }
}

/// A time span: `250ms`, `30s`, `15m`, `12h`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

/// Longer than any interval or timeout anybody needs, and short enough to add to a date.
const SPAN_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

impl Span {
    pub(crate) const PATTERN: &str = "^[0-9]+ ?(ms|s|m|h|d)$";

    /// Reads the text.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let (number, unit) = split(text).ok_or("write a whole number and a unit: 250ms, 30s, 15m, 12h, 7d")?;
        let milliseconds: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err("the units are ms, s, m, h and d, as in 30s"),
        };
        let span = number.checked_mul(milliseconds).map(Duration::from_millis);
        span.filter(|span| !span.is_zero() && *span <= SPAN_MAX).map(Span).ok_or("a duration must be above zero and at most 366d")
    }
}

fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number = text[..digits].parse().ok()?;
    let unit = &text[digits..];
    Some((number, unit.strip_prefix(' ').unwrap_or(unit)))
}

/// Checks a name of a stream or a destination: it becomes part of paths, file names and metric labels.
pub(crate) fn check_name(text: &str) -> Result<(), &'static str> {
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    let consists = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if begins && consists && text.len() <= NAME_CHARACTERS_MAX {
        Ok(())
    } else {
        Err("a name consists of letters, digits, `-`, `_` and `.`, begins with a letter or digit and has at most 64 characters")
    }
}

/// A file name holds a stream's and a destination's name beside 80 characters of its own, and may have 255.
const NAME_CHARACTERS_MAX: usize = 64;

/// The same as a pattern for editors.
pub(crate) const NAME_PATTERN: &str = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$";

/// Checks a name of a replication slot.
pub(crate) fn check_slot(text: &str) -> Result<(), &'static str> {
    let consists = text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_');
    if consists && (1..=IDENTIFIER_BYTES_MAX).contains(&text.len()) {
        Ok(())
    } else {
        Err("a slot's name consists of lower-case letters, digits and `_`, and has at most 63 characters")
    }
}

/// Checks a name of a publication.
pub(crate) fn check_publication(text: &str) -> Result<(), &'static str> {
    if (1..=IDENTIFIER_BYTES_MAX).contains(&text.len()) && !text.contains('\0') {
        Ok(())
    } else {
        Err("a publication's name has 1 to 63 bytes")
    }
}

/// PostgreSQL cuts longer names off.
const IDENTIFIER_BYTES_MAX: usize = 63;

/// [`check_slot`] as a pattern for editors.
pub(crate) const SLOT_PATTERN: &str = "^[a-z0-9_]{1,63}$";

macro_rules! text_form {
    ($type:ident, $format:literal, $description:literal) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "format": $format, "pattern": $type::PATTERN, "description": $description })
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $type::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
            }
        }
    };
}

text_form!(Size, "size", "A number of bytes: 64KiB, 128MiB, 1GiB.");
text_form!(Span, "duration", "A time span: 250ms, 30s, 15m, 12h, 7d.");

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [("1B", 1), ("64KiB", 65_536), ("128MiB", 134_217_728), ("1 GiB", 1 << 30), ("2TiB", 2 << 40)] {
            assert_eq!(Size::parse(text).unwrap(), Size(bytes), "{text}");
        }
        for text in ["", "1", "GiB", "1GB", "1.5GiB", "-1KiB", "0MiB", "99999999TiB", "1  KiB", "1KiB "] {
            assert!(Size::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn spans() {
        for (text, milliseconds) in [("250ms", 250), ("30s", 30_000), ("15m", 900_000), ("12h", 43_200_000), ("7d", 604_800_000)] {
            assert_eq!(Span::parse(text).unwrap(), Span(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "30", "s", "1.5s", "0s", "400d", "30sec", "99999999999999999999s"] {
            assert!(Span::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_patterns_for_editors_say_the_same() {
        let (size, span, name) = (
            regex::Regex::new(Size::PATTERN).unwrap(),
            regex::Regex::new(Span::PATTERN).unwrap(),
            regex::Regex::new(NAME_PATTERN).unwrap(),
        );
        for text in ["1B", "64KiB", "1 GiB", "1GB", "", "30s", "7d", "30", "250ms", "1.5s", "30 s", " 30s", "1KiB "] {
            assert_eq!(size.is_match(text), Size::parse(text).is_ok(), "{text}");
            assert_eq!(span.is_match(text), Span::parse(text).is_ok(), "{text}");
        }
        for text in ["shop", "shop-db.2", "", "_shop", "-a", "a/b", "ü", &"x".repeat(64), &"x".repeat(65)] {
            assert_eq!(name.is_match(text), check_name(text).is_ok(), "{text}");
        }
        let slot = regex::Regex::new(SLOT_PATTERN).unwrap();
        for text in ["weir", "weir_2", "", "Weir", "we-ir", "wéir", &"x".repeat(63), &"x".repeat(64)] {
            assert_eq!(slot.is_match(text), check_slot(text).is_ok(), "{text}");
        }
    }
}
