//! Bytes from their text: hexadecimal digits, or the escape format of `bytea_output = escape`.

use super::{ValueError, ValueResult};

const NOT_HEX: ValueError = ValueError::new("not bytes in hexadecimal digits");
const NOT_ESCAPED: ValueError = ValueError::new("not bytes in the escape format");

/// What a character is as a hexadecimal digit; 255 for what is none.
const NIBBLES: [u8; 256] = {
    let mut nibbles = [255; 256];
    let mut i = 0;
    while i < 10 {
        nibbles[b'0' as usize + i] = i as u8;
        i += 1;
    }
    let mut i = 0;
    while i < 6 {
        nibbles[b'a' as usize + i] = 10 + i as u8;
        nibbles[b'A' as usize + i] = 10 + i as u8;
        i += 1;
    }
    nibbles
};

/// Appends the bytes of a value in either format.
#[inline]
pub(crate) fn decode(text: &[u8], out: &mut Vec<u8>) -> ValueResult<()> {
    match text {
        [b'\\', b'x', digits @ ..] => decode_hex(digits, out),
        _ => decode_escaped(text, out),
    }
}

/// Appends the bytes of hexadecimal digits.
pub(crate) fn decode_hex(digits: &[u8], out: &mut Vec<u8>) -> ValueResult<()> {
    let (pairs, []) = digits.as_chunks::<2>() else { return Err(NOT_HEX) };
    let mut wrong = 0;
    out.extend(pairs.iter().map(|[high, low]| {
        let (high, low) = (NIBBLES[usize::from(*high)], NIBBLES[usize::from(*low)]);
        wrong |= high | low;
        high << 4 | low & 15
    }));
    if wrong > 15 { Err(NOT_HEX) } else { Ok(()) }
}

/// Backslashes are doubled, and bytes that are no printable ASCII are three octal digits behind one.
fn decode_escaped(text: &[u8], out: &mut Vec<u8>) -> ValueResult<()> {
    let mut rest = text;
    loop {
        rest = match *rest {
            [] => return Ok(()),
            [b'\\', b'\\', ref after @ ..] => {
                out.push(b'\\');
                after
            }
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ref after @ ..] => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                after
            }
            [b'\\', ..] => return Err(NOT_ESCAPED),
            [byte, ref after @ ..] => {
                out.push(byte);
                after
            }
        };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(text: &str) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        decode(text.as_bytes(), &mut out).ok().map(|()| out)
    }

    #[test]
    fn both_formats() {
        for (text, bytes) in
            [("", &b""[..]), (r"\x", b""), (r"\x00ff5C", &[0, 255, 92]), (r"a\\b\000\377'", &[b'a', b'\\', b'b', 0, 255, b'\''])]
        {
            assert_eq!(decoded(text).as_deref(), Some(bytes), "{text}");
        }
        for text in [r"\x0", r"\x0g", r"\xé", r"\", r"\12", r"\400", r"a\b"] {
            assert_eq!(decoded(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let hexadecimal: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            prop_assert_eq!(decoded(&format!("\\x{hexadecimal}")), Some(bytes.clone()));
            let escaped: String = bytes
                .iter()
                .map(|byte| match byte {
                    b'\\' => r"\\".to_owned(),
                    b' '..=b'~' => char::from(*byte).to_string(),
                    _ => format!(r"\{byte:03o}"),
                })
                .collect();
            prop_assert_eq!(decoded(&escaped), Some(bytes));
        }

        #[test]
        fn any_text_is_bytes_or_an_error(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = (decode(&text, &mut Vec::new()), decode_hex(&text, &mut Vec::new()));
        }
    }
}
