//! The text of a binary `bit` or `varbit`: its zeros and ones.

use super::{ValueError, ValueResult};

const NOT_BITS: ValueError = ValueError::new("a bit string does not have the length that it says");

/// Appends the bits of a value: their number in four bytes, then eight to a byte from the left.
pub(crate) fn render(value: &[u8], out: &mut Vec<u8>) -> ValueResult<()> {
    let (length, bytes) = value.split_first_chunk::<4>().ok_or(NOT_BITS)?;
    let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| NOT_BITS)?;
    if bytes.len() != length.div_ceil(8) {
        return Err(NOT_BITS);
    }
    out.reserve(length);
    for (i, byte) in bytes.iter().enumerate() {
        let held = (length - i * 8).min(8);
        out.extend((0..held).map(|bit| b'0' + (byte >> (7 - bit) & 1)));
    }
    Ok(())
}
