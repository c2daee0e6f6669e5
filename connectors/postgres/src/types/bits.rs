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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::testing::{hex, rendered};

    #[test]
    fn bits_are_zeros_and_ones() {
        for (bytes, text) in [("00000000", ""), ("00000001 80", "1"), ("00000008 a5", "10100101"), ("00000009 a580", "101001011")] {
            assert_eq!(rendered(render, &hex(bytes)), text);
        }
        for bytes in ["", "000000", "00000001", "00000001 8000", "00000009 80", "ffffffff"] {
            assert!(render(&hex(bytes), &mut Vec::new()).is_err(), "{bytes}");
        }
    }

    proptest! {
        #[test]
        fn any_bits_come_back(bits in proptest::collection::vec(any::<bool>(), 0..100)) {
            let text: String = bits.iter().map(|bit| if *bit { '1' } else { '0' }).collect();
            let byte = |bits: &[bool]| bits.iter().enumerate().fold(0, |byte, (i, bit)| byte | u8::from(*bit) << (7 - i));
            let value = [&(bits.len() as i32).to_be_bytes()[..], &bits.chunks(8).map(byte).collect::<Vec<_>>()].concat();
            prop_assert_eq!(rendered(render, &value), text);
        }
    }
}
