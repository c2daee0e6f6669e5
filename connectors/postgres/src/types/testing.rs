//! PostgreSQL's encodings, for tests: what a server would send for a value.

use super::ValueResult;

/// The binary form of a `numeric`, from its text.
pub(super) fn numeric(text: &str) -> Vec<u8> {
    let mut words: Vec<u16> = Vec::new();
    let special = match text {
        "NaN" => Some(0xc000),
        "Infinity" => Some(0xd000),
        "-Infinity" => Some(0xf000),
        _ => None,
    };
    if let Some(sign) = special {
        words.extend([0, 0, sign, 0]);
        return bytes(&words);
    }
    let (sign, digits) = text.strip_prefix('-').map_or((0, text), |digits| (0x4000, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole_padded = format!("{}{whole}", "0".repeat((4 - whole.len() % 4) % 4));
    let fraction_padded = format!("{fraction}{}", "0".repeat((4 - fraction.len() % 4) % 4));
    let digits = whole_padded.clone() + &fraction_padded;
    let mut groups: Vec<u16> = digits.as_bytes().chunks(4).map(|group| std::str::from_utf8(group).unwrap().parse().unwrap()).collect();
    let mut weight = whole_padded.len() as i32 / 4 - 1;
    while groups.last() == Some(&0) {
        groups.pop();
    }
    while groups.first() == Some(&0) {
        groups.remove(0);
        weight -= 1;
    }
    if groups.is_empty() {
        weight = 0;
    }
    let sign = if groups.is_empty() { 0 } else { sign };
    words.extend([groups.len() as u16, weight as u16, sign, fraction.len() as u16]);
    words.extend(groups);
    bytes(&words)
}

fn bytes(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// The text form of a one-dimensional array, from the text of its elements.
pub(super) fn array_text(elements: &[Option<String>], delimiter: char) -> String {
    let shown = |element: &Option<String>| {
        let Some(text) = element else { return "NULL".to_owned() };
        let special = |c: char| matches!(c, '"' | '\\' | '{' | '}' | ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}') || c == delimiter;
        if text.is_empty() || text.eq_ignore_ascii_case("null") || text.contains(special) {
            format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
        } else {
            text.clone()
        }
    };
    let shown: Vec<_> = elements.iter().map(shown).collect();
    format!("{{{}}}", shown.join(&delimiter.to_string()))
}

/// The binary form of a one-dimensional array, from that of its elements.
pub(super) fn array_binary(elements: &[Option<Vec<u8>>]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut word = |number: i32, bytes: &[u8]| {
        out.extend_from_slice(&number.to_be_bytes());
        out.extend_from_slice(bytes);
    };
    word(i32::from(!elements.is_empty()), &[]);
    word(i32::from(elements.contains(&None)), &[]);
    word(25, &[]);
    if !elements.is_empty() {
        word(elements.len() as i32, &[]);
        word(1, &[]);
    }
    for element in elements {
        match element {
            None => word(-1, &[]),
            Some(bytes) => word(bytes.len() as i32, bytes),
        }
    }
    out
}

/// What a function appends, as text.
pub(super) fn rendered(render: fn(&[u8], &mut Vec<u8>) -> ValueResult<()>, value: &[u8]) -> String {
    let mut out = Vec::new();
    render(value, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// Bytes of hexadecimal digits; spaces are for the eye.
pub(super) fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect()
}
