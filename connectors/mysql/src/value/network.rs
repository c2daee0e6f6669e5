//! MariaDB's `UUID`, `INET6` and `INET4`, in the text that `SELECT` gives for them.
//!
//! A binlog holds them like `BINARY(16)` and `BINARY(4)`: in the order of the text, whatever order the storage engine
//! keeps (which for UUIDs hangs on their version), and without the zero bytes at their end, which the caller has put back.

use std::fmt::Write;
use std::net::Ipv4Addr;

/// Appends a UUID: `123e4567-e89b-12d3-a456-426614174000`.
pub(crate) fn write_uuid(bytes: &[u8; 16], out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (place, byte) in bytes.iter().enumerate() {
        if matches!(place, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

/// Appends an IPv4 address: `192.0.2.1`.
pub(crate) fn write_inet4(bytes: &[u8; 4], out: &mut String) {
    // Writing to a string does not fail.
    let _ = write!(out, "{}", Ipv4Addr::from(*bytes));
}

/// Appends an IPv6 address as MariaDB writes it, which is not quite how others do: a single zero word is shortened too
/// (`1::2:3:4:5:6:7`), and the last two words are an IPv4 address wherever six zero words, or five and `ffff`, come before
/// and no more (`::0.1.0.0`, but `::1`).
pub(crate) fn write_inet6(bytes: &[u8; 16], out: &mut String) {
    let (pairs, _) = bytes.as_chunks::<2>();
    let words: [u16; 8] = std::array::from_fn(|place| u16::from_be_bytes(pairs[place]));

    let (gap, gap_length) = longest_gap(&words);
    let ipv4 = gap == 0 && (gap_length == 6 || (gap_length == 5 && words[5] == 0xffff));
    let mut place = 0;
    // A colon is due before every word but the first and those after a gap, which has brought its own.
    let mut colon = false;
    while place < words.len() {
        if gap_length > 0 && place == gap {
            out.push_str("::");
            place += gap_length;
            colon = false;
            continue;
        }
        if colon {
            out.push(':');
        }
        if ipv4 && place == 6 {
            let [.., a, b, c, d] = *bytes;
            let _ = write!(out, "{}", Ipv4Addr::new(a, b, c, d));
            break;
        }
        let _ = write!(out, "{:x}", words[place]);
        colon = true;
        place += 1;
    }
}

/// The first of the longest runs of zero words: where, and how many.
fn longest_gap(words: &[u16; 8]) -> (usize, usize) {
    let (mut gap, mut gap_length) = (0, 0);
    let mut length = 0;
    for (place, word) in words.iter().enumerate() {
        length = if *word == 0 { length + 1 } else { 0 };
        if length > gap_length {
            (gap, gap_length) = (place + 1 - length, length);
        }
    }
    (gap, gap_length)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Addresses and how MariaDB 10.11 writes them: `SELECT CAST(UNHEX(…) AS INET6)`.
    const INET6: &str = include_str!("../../testdata/inet6.txt");

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
    }

    fn written<const N: usize>(write: fn(&[u8; N], &mut String), logged: &str) -> String {
        let mut bytes = hex(logged);
        bytes.resize(N, 0);
        let mut out = String::new();
        write(&bytes.try_into().unwrap(), &mut out);
        out
    }

    #[test]
    fn uuids_as_mariadb_logged_them() {
        // Every version, no version, and with zeros at the end: the storage order differs, the log's does not.
        for (logged, text) in [
            ("123e4567e89b12d3a4564266141740".to_owned(), "123e4567-e89b-12d3-a456-426614174000"),
            ("00112233445516778899aabbccddeeff".into(), "00112233-4455-1677-8899-aabbccddeeff"),
            ("00112233445546770899aabbccddeeff".into(), "00112233-4455-4677-0899-aabbccddeeff"),
            ("00112233445566778899aabbccddeeff".into(), "00112233-4455-6677-8899-aabbccddeeff"),
            ("00112233445576778899aabbccddeeff".into(), "00112233-4455-7677-8899-aabbccddeeff"),
            ("001122334455f677c899aabbccddeeff".into(), "00112233-4455-f677-c899-aabbccddeeff"),
            ("0011223344555077f899aabbccddee".into(), "00112233-4455-5077-f899-aabbccddee00"),
            (String::new(), "00000000-0000-0000-0000-000000000000"),
            ("ff".repeat(16), "ffffffff-ffff-ffff-ffff-ffffffffffff"),
        ] {
            assert_eq!(written(write_uuid, &logged), text);
        }
    }

    #[test]
    fn addresses_as_mariadb_logged_them() {
        for (logged, text) in [
            ("", "::"),
            ("00000000000000000000000000000001", "::1"),
            ("00000000000000000000ffffc0000201", "::ffff:192.0.2.1"),
            ("000000000000000000000000c0000201", "::192.0.2.1"),
            ("20010db8000000000001000000000001", "2001:db8::1:0:0:1"),
            ("fe80", "fe80::"),
            ("0001000200030004000500060007", "1:2:3:4:5:6:7::"),
            ("0000000000000000000000000001", "::0.1.0.0"),
            ("00000000000000000000ffff", "::ffff:0.0.0.0"),
        ] {
            assert_eq!(written(write_inet6, logged), text);
        }
        for (logged, text) in [("c0000201", "192.0.2.1"), ("", "0.0.0.0"), ("ffffffff", "255.255.255.255")] {
            assert_eq!(written(write_inet4, logged), text);
        }
    }

    #[test]
    fn every_shape_of_address_is_written_as_mariadb_writes_it() {
        for line in INET6.lines() {
            let (bytes, text) = line.split_once(' ').unwrap();
            assert_eq!(written(write_inet6, bytes), text, "{bytes}");
        }
        assert!(INET6.lines().count() > 200);
    }
}
