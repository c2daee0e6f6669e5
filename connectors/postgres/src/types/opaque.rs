//! The text of the binary forms of types that few columns have: `"char"`, `pg_lsn`, `tid`, snapshots, and text behind a version.

use super::interval::push_number;
use super::{ValueError, ValueResult, exactly};

const VERSION: ValueError = ValueError::new("a value has a version of its binary form that is not known here");
const NOT_A_SNAPSHOT: ValueError = ValueError::new("a snapshot does not have the length that it says");

/// The text behind the version that `jsonb`, `jsonpath` and `ltree` begin with.
#[inline]
pub(crate) fn behind_version(value: &[u8]) -> ValueResult<&[u8]> {
    match value {
        [1, text @ ..] => Ok(text),
        _ => Err(VERSION),
    }
}

/// Appends the text of a `"char"`, in either form: nothing for zero, and what is not ASCII as 16 and later write it (`\351`), where
/// those before sent the bare byte, which is text in no encoding.
pub(crate) fn render_char(value: &[u8], out: &mut Vec<u8>) {
    match *value {
        [0] => {}
        [byte @ 128..=255] => out.extend_from_slice(&[b'\\', b'0' + (byte >> 6), b'0' + (byte >> 3 & 7), b'0' + (byte & 7)]),
        _ => out.extend_from_slice(value),
    }
}

/// Appends `16/B374D848`.
pub(crate) fn render_lsn(value: &[u8], out: &mut Vec<u8>) -> ValueResult<()> {
    let lsn = u64::from_be_bytes(exactly(value)?);
    push_hexadecimal(out, (lsn >> 32) as u32);
    out.push(b'/');
    push_hexadecimal(out, lsn as u32);
    Ok(())
}

/// Capital digits without zeros before them.
fn push_hexadecimal(out: &mut Vec<u8>, number: u32) {
    let zeros = (number | 1).leading_zeros() / 4;
    out.extend((zeros..8).map(|place| b"0123456789ABCDEF"[(number >> (28 - 4 * place) & 15) as usize]));
}

/// Appends `(42,7)`: four bytes of the block, two of the row's place in it.
pub(crate) fn render_tid(value: &[u8], out: &mut Vec<u8>) -> ValueResult<()> {
    let [a, b, c, d, e, f] = exactly(value)?;
    out.push(b'(');
    push_number(out, u64::from(u32::from_be_bytes([a, b, c, d])));
    out.push(b',');
    push_number(out, u64::from(u16::from_be_bytes([e, f])));
    out.push(b')');
    Ok(())
}

/// Appends `10:20:10,14,15`: the number of open transactions, the least, the first that had not begun, and the open ones.
pub(crate) fn render_snapshot(value: &[u8], out: &mut Vec<u8>) -> ValueResult<()> {
    let (count, numbers) = value.split_first_chunk::<4>().ok_or(NOT_A_SNAPSHOT)?;
    let (&[least, next, ref open @ ..], []) = numbers.as_chunks::<8>() else { return Err(NOT_A_SNAPSHOT) };
    if usize::try_from(u32::from_be_bytes(*count)) != Ok(open.len()) {
        return Err(NOT_A_SNAPSHOT);
    }
    push_number(out, u64::from_be_bytes(least));
    out.push(b':');
    push_number(out, u64::from_be_bytes(next));
    out.push(b':');
    for (i, number) in open.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        push_number(out, u64::from_be_bytes(*number));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::types::testing::{hex, rendered};

    #[test]
    fn the_text_is_the_servers() {
        assert_eq!(rendered(render_lsn, &hex("00000016b374d848")), "16/B374D848");
        assert_eq!(rendered(render_lsn, &[0; 8]), "0/0");
        assert_eq!(rendered(render_lsn, &[255; 8]), "FFFFFFFF/FFFFFFFF");
        assert_eq!(rendered(render_tid, &hex("ffffffff 0007")), "(4294967295,7)");
        assert_eq!(rendered(render_snapshot, &hex("00000000 0000000000000001 0000000000000002")), "1:2:");
        let open = "00000002 000000000000000a 0000000000000014 000000000000000a 000000000000000e";
        assert_eq!(rendered(render_snapshot, &hex(open)), "10:20:10,14");
        assert_eq!(behind_version(b"\x01{}"), Ok(&b"{}"[..]));
    }

    #[test]
    fn one_byte_of_anything_is_text() {
        for (value, text) in [(&[0][..], ""), (b"a", "a"), (&[0xe9], "\\351"), (b"", ""), (b"\\351", "\\351"), ("é".as_bytes(), "é")] {
            let mut out = Vec::new();
            render_char(value, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }

    #[test]
    fn other_bytes_are_refused() {
        assert_eq!(behind_version(b"\x02{}"), Err(VERSION));
        assert_eq!(behind_version(b""), Err(VERSION));
        let mut out = Vec::new();
        assert!(render_lsn(&[0; 7], &mut out).is_err() && render_tid(&[0; 7], &mut out).is_err());
        for bytes in ["", "00000000", "00000001 0000000000000001 0000000000000002", "ffffffff 0000000000000001 0000000000000002"] {
            assert!(render_snapshot(&hex(bytes), &mut out).is_err(), "{bytes}");
        }
    }
}
