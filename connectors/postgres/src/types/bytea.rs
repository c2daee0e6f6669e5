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
