//! `BIT(n)`: up to eight bytes, most significant first, so that `b'101'` is 5 whatever its declared width.

use super::{ValueError, ValueResult, big_endian};

/// The bits as a number. A `BIT(n)` column has `(n + 7) / 8` bytes.
pub(crate) fn bit(bytes: &[u8]) -> ValueResult<u64> {
    if bytes.len() > 8 {
        return Err(ValueError::new("a BIT value is longer than 64 bits"));
    }
    Ok(big_endian(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_a_big_endian_number() {
        assert_eq!(bit(&[]), Ok(0));
        assert_eq!(bit(&[5]), Ok(5));
        assert_eq!(bit(&[1, 2]), Ok(0x102));
        assert_eq!(bit(&[0xff; 8]), Ok(u64::MAX));
        assert!(bit(&[0; 9]).is_err());
    }
}
