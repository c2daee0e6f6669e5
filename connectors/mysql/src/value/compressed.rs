//! MariaDB's `COMPRESSED` columns: a byte that says how, the length, and deflated bytes.
//!
//! The high half of the first byte is the method: 0 for bytes as they are, 8 for zlib. Of the low half, bit 3 says that
//! there is no zlib header, the others how many bytes the original length takes, most significant first. No bytes at all
//! are the empty value. (MariaDB documentation, "Storage-Engine Independent Column Compression".)

use flate2::{Decompress, FlushDecompress, Status};

use super::{ValueError, ValueResult, big_endian};

const CORRUPT: ValueError = ValueError::new("a COMPRESSED value does not inflate to its length");
const METHOD: ValueError = ValueError::new("a COMPRESSED value is compressed by an unknown method");

/// Deflate makes at most 258 bytes of two bits; a length beyond that is a lie not worth the memory.
const RATIO_MAX: usize = 1032;

/// The original bytes: part of `bytes` where they were not worth compressing, else inflated into `scratch`, whose content
/// is replaced.
pub(crate) fn decode_compressed<'a>(bytes: &'a [u8], scratch: &'a mut Vec<u8>) -> ValueResult<&'a [u8]> {
    let Some((header, rest)) = bytes.split_first() else { return Ok(bytes) };
    match header >> 4 {
        0 => return Ok(rest),
        8 => {}
        _ => return Err(METHOD),
    }
    let length_bytes = usize::from(header & 7);
    if !(1..=4).contains(&length_bytes) {
        return Err(METHOD);
    }
    let (length, deflated) = rest.split_at_checked(length_bytes).ok_or(CORRUPT)?;
    let length = usize::try_from(big_endian(length)).map_err(|_| CORRUPT)?;
    if length > deflated.len().saturating_mul(RATIO_MAX) {
        return Err(CORRUPT);
    }
    scratch.clear();
    // One byte more than is needed shows what is longer than it says.
    scratch.reserve(length + 1);
    let zlib_header = header & 8 == 0;
    let status = Decompress::new(zlib_header).decompress_vec(deflated, scratch, FlushDecompress::Finish);
    match status {
        Ok(Status::StreamEnd) if scratch.len() == length => Ok(scratch),
        _ => Err(CORRUPT),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
    }

    fn decode(bytes: &[u8]) -> ValueResult<Vec<u8>> {
        decode_compressed(bytes, &mut Vec::new()).map(<[u8]>::to_vec)
    }

    #[test]
    fn values_as_mariadb_logged_them() {
        // MariaDB 10.11: column_compression_zlib_wrap OFF, then ON.
        for (logged, original) in [
            ("", vec![]),
            ("0073686f7274", b"short".to_vec()),
            ("8a01904b4c4a1c8583080200", b"ab".repeat(200)),
            ("8a0384aba8acaa1845a368140d1c0200", b"xyz".repeat(300)),
            ("820190789c4b4c4a1c858308020059119859", b"ab".repeat(200)),
            ("81c8789c4b4a1a1e000011124c91", b"b".repeat(200)),
            ("820100789c2b2c1cd90000bcc87101", b"q".repeat(256)),
        ] {
            assert_eq!(decode(&hex(logged)), Ok(original), "{logged}");
        }
    }

    #[test]
    fn what_does_not_inflate_to_its_length_is_refused() {
        assert_eq!(decode(&hex("8a01914b4c4a1c8583080200")), Err(CORRUPT));
        assert_eq!(decode(&hex("8a018f4b4c4a1c8583080200")), Err(CORRUPT));
        assert_eq!(decode(&hex("8a01904b4c4a1c85")), Err(CORRUPT));
        assert_eq!(decode(&hex("8cffffffff4b4c4a1c8583080200")), Err(CORRUPT));
        assert_eq!(decode(&hex("8801904b4c4a1c8583080200")), Err(METHOD));
        assert_eq!(decode(&hex("90")), Err(METHOD));
        assert_eq!(decode(&hex("82")), Err(CORRUPT));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_value_or_an_error(header: u8, bytes in proptest::collection::vec(any::<u8>(), 0..50)) {
            let _ = decode(&[&[header][..], &bytes].concat());
        }
    }
}
