//! The text of binary network addresses and UUIDs, as the server writes it.

use super::interval::push_number;
use super::{ValueError, ValueResult, exactly};

const NOT_AN_ADDRESS: ValueError = ValueError::new("not a network address");
const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// The two hexadecimal digits of every byte.
const PAIRS: [[u8; 2]; 256] = {
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [DIGITS[byte >> 4], DIGITS[byte & 15]];
        byte += 1;
    }
    pairs
};

/// Appends `123e4567-e89b-12d3-a456-426614174000`.
#[inline]
pub(crate) fn render_uuid(value: &[u8], out: &mut Vec<u8>) -> ValueResult<()> {
    /// Where the digits of each byte begin.
    const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    let bytes = exactly::<16>(value)?;
    let mut text = [b'-'; 36];
    for (byte, place) in bytes.into_iter().zip(PLACES) {
        let [high, low] = PAIRS[usize::from(byte)];
        text[place] = high;
        text[place + 1] = low;
    }
    out.extend_from_slice(&text);
    Ok(())
}

/// Appends `08:00:2b:01:02:03`, of six bytes or eight.
pub(crate) fn render_mac_address(value: &[u8], out: &mut Vec<u8>) -> ValueResult<()> {
    if value.len() != 6 && value.len() != 8 {
        return Err(NOT_AN_ADDRESS);
    }
    for (i, byte) in value.iter().enumerate() {
        if i > 0 {
            out.push(b':');
        }
        out.extend_from_slice(&PAIRS[usize::from(*byte)]);
    }
    Ok(())
}

/// Appends `192.168.0.1`, `192.168.0.0/24`, `::1`, `2001:db8::/32`. A whole address has no number of bits behind it, unless it is
/// a `cidr`. The value is the family, the bits, whether it is a `cidr`, the number of bytes, and these.
pub(crate) fn render_network(value: &[u8], out: &mut Vec<u8>) -> ValueResult<()> {
    const FAMILY_4: u8 = 2;
    const FAMILY_6: u8 = 3;
    let &[family, bits, cidr, length, ref address @ ..] = value else { return Err(NOT_AN_ADDRESS) };
    if usize::from(length) != address.len() {
        return Err(NOT_AN_ADDRESS);
    }
    let bits_max = match family {
        FAMILY_4 => {
            push_address_4(out, exactly(address)?);
            32
        }
        FAMILY_6 => {
            push_address_6(out, exactly(address)?);
            128
        }
        _ => return Err(NOT_AN_ADDRESS),
    };
    if bits > bits_max {
        return Err(NOT_AN_ADDRESS);
    }
    if bits < bits_max || cidr != 0 {
        out.push(b'/');
        push_number(out, u64::from(bits));
    }
    Ok(())
}

fn push_address_4(out: &mut Vec<u8>, bytes: [u8; 4]) {
    for (i, byte) in bytes.into_iter().enumerate() {
        if i > 0 {
            out.push(b'.');
        }
        push_number(out, u64::from(byte));
    }
}

/// The first of the longest runs of zero words is shortened if it is of two or more; the last two words are an IPv4 address if
/// six zero words, or five and `ffff`, come before.
fn push_address_6(out: &mut Vec<u8>, bytes: [u8; 16]) {
    let (pairs, _) = bytes.as_chunks::<2>();
    let words: [u16; 8] = std::array::from_fn(|place| u16::from_be_bytes(pairs[place]));
    let (gap, gap_length) = longest_gap(&words);
    let gap_end = gap + gap_length;
    let ipv4 = gap_length > 0 && gap == 0 && (gap_length == 6 || (gap_length == 5 && words[5] == 0xffff));
    let mut place = 0;
    while place < words.len() {
        if gap_length > 0 && place == gap {
            out.push(b':');
            place = gap_end;
            continue;
        }
        if place != 0 {
            out.push(b':');
        }
        if ipv4 && place == 6 {
            let [.., a, b, c, d] = bytes;
            push_address_4(out, [a, b, c, d]);
            return;
        }
        push_word(out, words[place]);
        place += 1;
    }
    if gap_length > 0 && gap_end == words.len() {
        out.push(b':');
    }
}

/// A word in hexadecimal digits, without zeros before it.
fn push_word(out: &mut Vec<u8>, word: u16) {
    let zeros = (word | 1).leading_zeros() / 4;
    for place in zeros..4 {
        out.push(DIGITS[usize::from(word >> (12 - 4 * place) & 15)]);
    }
}

/// The first of the longest runs of two and more zero words: where, and how many; none is 0 words.
fn longest_gap(words: &[u16; 8]) -> (usize, usize) {
    let (mut gap, mut gap_length) = (0, 0);
    let mut length = 0;
    for (place, word) in words.iter().enumerate() {
        length = if *word == 0 { length + 1 } else { 0 };
        if length > gap_length {
            (gap, gap_length) = (place + 1 - length, length);
        }
    }
    if gap_length < 2 { (0, 0) } else { (gap, gap_length) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::testing::{hex, rendered};

    #[test]
    fn addresses_are_the_servers() {
        for (bytes, text) in [
            ("02 20 00 04 c0a80001", "192.168.0.1"),
            ("02 18 00 04 c0a80001", "192.168.0.1/24"),
            ("02 20 01 04 c0a80001", "192.168.0.1/32"),
            ("02 00 01 04 00000000", "0.0.0.0/0"),
            ("03 80 00 10 00000000000000000000000000000000", "::"),
            ("03 80 00 10 00000000000000000000000000000001", "::1"),
            ("03 80 01 10 00000000000000000000000000000001", "::1/128"),
            ("03 80 00 10 00000000000000000000ffffc0000201", "::ffff:192.0.2.1"),
            ("03 80 00 10 000000000000000000000000c0000201", "::192.0.2.1"),
            ("03 80 00 10 00000000000000000000000000010000", "::0.1.0.0"),
            ("03 20 00 10 20010db8000000000000000000000000", "2001:db8::/32"),
            ("03 80 00 10 00010002000300040005000600070000", "1:2:3:4:5:6:7:0"),
            ("03 80 00 10 00010000000000040000000000000008", "1:0:0:4::8"),
            ("03 80 00 10 0001000000000000000500000000abcd", "1::5:0:0:abcd"),
        ] {
            assert_eq!(rendered(render_network, &hex(bytes)), text);
        }
        for bytes in [
            "",
            "02 20 00 04",
            "02 20 00 04 c0a800",
            "02 20 00 10 c0a80001",
            "04 20 00 04 c0a80001",
            "02 21 00 04 c0a80001",
            "03 80 00 04 00000000",
        ] {
            assert!(render_network(&hex(bytes), &mut Vec::new()).is_err(), "{bytes}");
        }
    }

    #[test]
    fn uuids_and_hardware_addresses() {
        assert_eq!(rendered(render_uuid, &hex("a0eebc999c0b4ef8bb6d6bb9bd380a11")), "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11");
        assert!(render_uuid(&[0; 15], &mut Vec::new()).is_err());
        assert_eq!(rendered(render_mac_address, &hex("08002b010203")), "08:00:2b:01:02:03");
        assert_eq!(rendered(render_mac_address, &hex("08002b0102030405")), "08:00:2b:01:02:03:04:05");
        assert!(render_mac_address(&[0; 7], &mut Vec::new()).is_err());
    }

    proptest! {
        #[test]
        fn an_address_means_what_it_is(words in proptest::array::uniform8(prop_oneof![3 => Just(0u16), 1 => any::<u16>()])) {
            let address = std::net::Ipv6Addr::from(words);
            let value = [&[3, 128, 0, 16][..], &address.octets()].concat();
            prop_assert_eq!(rendered(render_network, &value).parse(), Ok(address));
        }

        #[test]
        fn any_bytes_are_an_address_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..24)) {
            let mut out = Vec::new();
            let _ = (render_network(&bytes, &mut out), render_uuid(&bytes, &mut out), render_mac_address(&bytes, &mut out));
        }
    }
}
