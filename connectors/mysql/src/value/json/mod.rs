//! MySQL's binary JSON as text, the very text that the server gives for it.
//!
//! A document is a type byte and a value. An object or array begins with its number of elements and its size, then an
//! entry per key and per element, then keys and values at the offsets that the entries name; small numbers lie in the
//! entries. Offsets and counts have two bytes in "small" containers and four in "large" ones (MySQL source
//! documentation, `json_binary.h`). Key order is that of the storage: by length, then by bytes.
//!
//! Offsets may point anywhere, so a hostile document could name one value a million times. In a document of a server no
//! byte belongs to two values; every byte read is therefore paid from a budget of the document's length, which bounds
//! time and text alike.

mod text;

use std::fmt::{self, Write};

use self::text::{write_double, write_opaque, write_string};
use super::{ValueError, ValueResult};

const SHORT: ValueError = ValueError::new("a JSON document points outside of itself");
const TYPE: ValueError = ValueError::new("a JSON document has a value of unknown type");
const DEEP: ValueError = ValueError::new("a JSON document is nested deeper than 100 levels");
const OVERLAP: ValueError = ValueError::new("a JSON document names the same bytes more than once");
const NOT_UTF8: ValueError = ValueError::new("a JSON document has a string that is not UTF-8");

/// Levels of objects and arrays that the server allows.
const DEPTH_MAX: u32 = 100;

mod kind {
    pub(super) const SMALL_OBJECT: u8 = 0x00;
    pub(super) const LARGE_OBJECT: u8 = 0x01;
    pub(super) const SMALL_ARRAY: u8 = 0x02;
    pub(super) const LARGE_ARRAY: u8 = 0x03;
    pub(super) const LITERAL: u8 = 0x04;
    pub(super) const INT16: u8 = 0x05;
    pub(super) const UINT16: u8 = 0x06;
    pub(super) const INT32: u8 = 0x07;
    pub(super) const UINT32: u8 = 0x08;
    pub(super) const INT64: u8 = 0x09;
    pub(super) const UINT64: u8 = 0x0a;
    pub(super) const DOUBLE: u8 = 0x0b;
    pub(super) const STRING: u8 = 0x0c;
    pub(super) const OPAQUE: u8 = 0x0f;
}

/// Appends the text of a document. A column of no bytes, which `INSERT IGNORE` can leave behind, reads as `null`.
pub(crate) fn write_json(bytes: &[u8], out: &mut String) -> ValueResult<()> {
    let Some((kind, rest)) = bytes.split_first() else {
        out.push_str("null");
        return Ok(());
    };
    Walk { budget: bytes.len(), out }.value(*kind, rest, 0)
}

struct Walk<'o> {
    /// Bytes of the document that no value has taken yet.
    budget: usize,
    out: &'o mut String,
}

impl Walk<'_> {
    /// The first `length` bytes, paid for.
    fn take<'a>(&mut self, bytes: &'a [u8], length: usize) -> ValueResult<&'a [u8]> {
        self.budget = self.budget.checked_sub(length).ok_or(OVERLAP)?;
        bytes.get(..length).ok_or(SHORT)
    }

    fn array<const N: usize>(&mut self, bytes: &[u8]) -> ValueResult<[u8; N]> {
        self.take(bytes, N)?.first_chunk::<N>().copied().ok_or(SHORT)
    }

    /// Appends a value whose bytes begin where `bytes` do.
    fn value(&mut self, kind: u8, bytes: &[u8], depth: u32) -> ValueResult<()> {
        match kind {
            kind::SMALL_OBJECT => self.container::<2>(bytes, true, depth),
            kind::LARGE_OBJECT => self.container::<4>(bytes, true, depth),
            kind::SMALL_ARRAY => self.container::<2>(bytes, false, depth),
            kind::LARGE_ARRAY => self.container::<4>(bytes, false, depth),
            kind::LITERAL => {
                let [literal] = self.array(bytes)?;
                self.out.push_str(match literal {
                    0 => "null",
                    1 => "true",
                    2 => "false",
                    _ => return Err(TYPE),
                });
                Ok(())
            }
            kind::INT16 => self.array(bytes).map(|bytes| self.number(i16::from_le_bytes(bytes))),
            kind::UINT16 => self.array(bytes).map(|bytes| self.number(u16::from_le_bytes(bytes))),
            kind::INT32 => self.array(bytes).map(|bytes| self.number(i32::from_le_bytes(bytes))),
            kind::UINT32 => self.array(bytes).map(|bytes| self.number(u32::from_le_bytes(bytes))),
            kind::INT64 => self.array(bytes).map(|bytes| self.number(i64::from_le_bytes(bytes))),
            kind::UINT64 => self.array(bytes).map(|bytes| self.number(u64::from_le_bytes(bytes))),
            kind::DOUBLE => {
                let double = f64::from_le_bytes(self.array(bytes)?);
                write_double(double, self.out)
            }
            kind::STRING => {
                let string = self.variable(bytes)?;
                write_string(std::str::from_utf8(string).map_err(|_| NOT_UTF8)?, self.out);
                Ok(())
            }
            kind::OPAQUE => {
                let [column_type] = self.array(bytes)?;
                let data = self.variable(bytes.get(1..).ok_or(SHORT)?)?;
                write_opaque(column_type, data, self.out)
            }
            _ => Err(TYPE),
        }
    }

    /// An object or an array, whose offsets and counts have `N` bytes.
    fn container<const N: usize>(&mut self, bytes: &[u8], object: bool, depth: u32) -> ValueResult<()> {
        if depth >= DEPTH_MAX {
            return Err(DEEP);
        }
        let header = self.take(bytes, 2 * N)?;
        let (count, size) = (number::<N>(header, 0)?, number::<N>(header, N)?);
        let bytes = bytes.get(..size).ok_or(SHORT)?;

        let (key_entry, value_entry) = (if object { N + 2 } else { 0 }, 1 + N);
        let length = count.checked_mul(key_entry + value_entry).ok_or(SHORT)?;
        let entries = self.take(bytes.get(2 * N..).ok_or(SHORT)?, length)?;
        let (keys, values) = entries.split_at_checked(count * key_entry).ok_or(SHORT)?;

        self.out.push(if object { '{' } else { '[' });
        for place in 0..count {
            if place > 0 {
                self.out.push_str(", ");
            }
            if object {
                let entry = keys.get(place * key_entry..).ok_or(SHORT)?;
                let (offset, length) = (number::<N>(entry, 0)?, number::<2>(entry, N)?);
                let key = self.take(bytes.get(offset..).ok_or(SHORT)?, length)?;
                write_string(std::str::from_utf8(key).map_err(|_| NOT_UTF8)?, self.out);
                self.out.push_str(": ");
            }
            let (kind, inline) = values.get(place * value_entry..).and_then(|entry| entry.split_first()).ok_or(SHORT)?;
            match *kind {
                // Their bytes were paid for with the entry.
                kind::LITERAL | kind::INT16 | kind::UINT16 => self.inline(*kind, inline, 2)?,
                kind::INT32 | kind::UINT32 if N == 4 => self.inline(*kind, inline, 4)?,
                _ => {
                    let offset = number::<N>(inline, 0)?;
                    self.value(*kind, bytes.get(offset..).ok_or(SHORT)?, depth + 1)?;
                }
            }
        }
        self.out.push(if object { '}' } else { ']' });
        Ok(())
    }

    /// A scalar inside an entry, which has been paid for already.
    fn inline(&mut self, kind: u8, bytes: &[u8], length: usize) -> ValueResult<()> {
        self.budget += length;
        let before = self.budget;
        self.value(kind, bytes.get(..length).ok_or(SHORT)?, DEPTH_MAX)?;
        self.budget = before - length;
        Ok(())
    }

    /// Bytes with their length before them: seven bits a byte, lowest first, the eighth set if more follow.
    fn variable<'a>(&mut self, bytes: &'a [u8]) -> ValueResult<&'a [u8]> {
        let mut length = 0u64;
        for place in 0..5 {
            let byte = *bytes.get(place).ok_or(SHORT)?;
            length |= u64::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                self.take(bytes, place + 1)?;
                let length = u32::try_from(length).map_err(|_| SHORT)? as usize;
                return self.take(&bytes[place + 1..], length);
            }
        }
        Err(SHORT)
    }

    fn number(&mut self, number: impl fmt::Display) {
        // Writing to a string does not fail.
        let _ = write!(self.out, "{number}");
    }
}

/// A little-endian number of two or four bytes at `place`.
fn number<const N: usize>(bytes: &[u8], place: usize) -> ValueResult<usize> {
    let bytes = bytes.get(place..place + N).ok_or(SHORT)?;
    Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    fn written(bytes: &[u8]) -> ValueResult<String> {
        let mut out = String::new();
        write_json(bytes, &mut out).map(|()| out)
    }

    /// What MySQL 9.7 logged for documents of every kind, and the text it gave for each: see `testdata/json_answers.py`.
    fn answers() -> Vec<(Vec<u8>, String)> {
        let mut text = String::new();
        let answers = include_bytes!("../../../testdata/json.txt.gz");
        flate2::read::GzDecoder::new(&answers[..]).read_to_string(&mut text).unwrap();
        text.split_terminator('\n')
            .map(|line| {
                let (bytes, text) = line.split_once(' ').unwrap();
                let bytes = bytes.as_bytes().chunks(2).map(|byte| u8::from_str_radix(std::str::from_utf8(byte).unwrap(), 16).unwrap());
                (bytes.collect(), text.to_owned())
            })
            .collect()
    }

    #[test]
    fn documents_read_as_the_server_writes_them() {
        let answers = answers();
        assert!(answers.len() > 300);
        for (number, (bytes, text)) in answers.iter().enumerate() {
            assert!(written(bytes).as_ref() == Ok(text), "document {number}: {:.2000?} instead of {text:.2000}", written(bytes));
            serde_json::from_str::<serde_json::Value>(text).unwrap();
        }
        for kind in [0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x07, 0x09, 0x0a, 0x0b, 0x0c, 0x0f] {
            assert!(answers.iter().any(|(bytes, _)| bytes[0] == kind), "no document of type {kind:#x}");
        }
    }

    #[test]
    fn no_bytes_are_null() {
        assert_eq!(written(&[]).unwrap(), "null");
    }

    #[test]
    fn every_cut_of_a_document_is_an_error() {
        for (bytes, _) in answers().iter().filter(|(bytes, _)| bytes.len() < 2_000) {
            for length in 1..bytes.len() {
                // A cut can end exactly behind the last byte in use, if a hole follows; documents just stored have none.
                assert!(written(&bytes[..length]).is_err(), "{length} of {}", bytes.len());
            }
        }
    }

    #[test]
    fn deep_documents_end() {
        // Each array holds the next one; the innermost is empty.
        let nested = |levels: usize| {
            let mut array = vec![0, 0, 4, 0];
            for _ in 1..levels {
                let size = (array.len() + 7) as u16;
                array = [&[1, 0][..], &size.to_le_bytes(), &[2, 7, 0], &array].concat();
            }
            [vec![2], array].concat()
        };
        assert_eq!(written(&nested(100)).unwrap(), format!("{}{}", "[".repeat(100), "]".repeat(100)));
        assert_eq!(written(&nested(101)), Err(DEEP));
    }

    #[test]
    fn a_document_that_names_one_value_again_and_again_is_refused() {
        // An array whose elements are all the same string, of most of its bytes.
        let (elements, string) = (1_000u16, 30_000u16);
        let header = 4 + 3 * elements;
        let mut bytes = vec![2];
        bytes.extend([elements.to_le_bytes(), (header + 3 + string).to_le_bytes()].concat());
        for _ in 0..elements {
            bytes.push(kind::STRING);
            bytes.extend(header.to_le_bytes());
        }
        bytes.extend([0xb0, 0xea, 0x01]);
        bytes.extend(vec![b'x'; usize::from(string)]);
        let mut out = String::new();
        assert_eq!(write_json(&bytes, &mut out), Err(OVERLAP));
        assert!(out.len() < 2 * bytes.len());

        // An array that is its own element.
        assert!(written(&[2, 1, 0, 7, 0, 2, 0, 0]).is_err());
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for (bytes, expected) in [
            (&[0x0du8][..], TYPE),
            (&[0x04, 3], TYPE),
            (&[0x04], SHORT),
            (&[0x0c, 1, 0xff], NOT_UTF8),
            (&[0x0c, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01], SHORT),
            (&[0x02, 0xff, 0xff, 4, 0], SHORT),
            (&[0x0f, 12, 1, 0], SHORT),
        ] {
            let found = written(bytes);
            assert!(found == Err(expected) || found == Err(OVERLAP), "{bytes:02x?}: {found:?}");
        }
        assert!(written(&[&[0x0b][..], &f64::NAN.to_le_bytes()].concat()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_json_or_an_error(bytes in proptest::collection::vec(prop_oneof![0u8..16, any::<u8>()], 0..200)) {
            let mut out = String::new();
            if write_json(&bytes, &mut out).is_ok() {
                prop_assert!(out.len() <= 16 + 350 * bytes.len());
            }
        }

        #[test]
        fn a_damaged_document_is_json_or_an_error(number: prop::sample::Index, place: prop::sample::Index, byte: u8) {
            let answers = ANSWERS.get_or_init(|| answers().into_iter().map(|(bytes, _)| bytes).filter(|bytes| bytes.len() < 5_000).collect());
            let mut bytes = number.get(answers).clone();
            let place = place.index(bytes.len());
            bytes[place] = byte;
            let mut out = String::new();
            let _ = write_json(&bytes, &mut out);
            prop_assert!(out.len() <= 16 + 350 * bytes.len());
        }
    }

    static ANSWERS: std::sync::OnceLock<Vec<Vec<u8>>> = std::sync::OnceLock::new();
}
