//! The text of binary network addresses and UUIDs, as the server writes it.

use super::interval::push_number;
use super::{ValueError, ValueResult, exactly};

const NOT_AN_ADDRESS: ValueError = ValueError::new("not a network address");
const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Appends `123e4567-e89b-12d3-a456-426614174000`.
#[inline]
pub(crate) fn render_uuid(value: &[u8], out: &mut Vec<u8>) -> ValueResult<()> {
    let bytes = exactly::<16>(value)?;
    let mut text = [b'-'; 36];
    let mut place = 0;
    for (i, byte) in bytes.into_iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            place += 1;
        }
        text[place] = DIGITS[usize::from(byte >> 4)];
        text[place + 1] = DIGITS[usize::from(byte & 15)];
        place += 2;
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
        out.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
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
