//! The elements of arrays, from text and from binary form.
//!
//! Lists have one dimension that begins at 1, and so does nearly every array. PostgreSQL does not tie a column to that: an array
//! may have six dimensions and begin anywhere, which a list cannot say, and which is refused here.

use super::{ValueError, ValueResult, number};

const SHAPE: ValueError = ValueError::with_remedy(
    "an array of several dimensions, or one that does not begin at 1, is no list",
    "set `arrays: text` in the profile to carry arrays as the server's text",
);
const NOT_AN_ARRAY: ValueError = ValueError::new("not an array");

/// Hands every element of `{1,NULL,"a \"quoted\" one"}` to `each`, without quotes and escapes; `None` is NULL.
#[inline]
pub(crate) fn each_text(
    text: &[u8],
    delimiter: u8,
    scratch: &mut Vec<u8>,
    mut each: impl FnMut(Option<&[u8]>) -> ValueResult<()>,
) -> ValueResult<()> {
    let [b'{', elements @ .., b'}'] = after_bounds(text)? else { return Err(NOT_AN_ARRAY) };
    if elements.is_empty() {
        return Ok(());
    }
    let mut rest = elements;
    loop {
        rest = match rest {
            [b'{', ..] => return Err(SHAPE),
            [b'"', quoted @ ..] => {
                let (element, rest) = unquote(quoted, scratch).ok_or(NOT_AN_ARRAY)?;
                each(Some(element))?;
                rest
            }
            _ => {
                let end = rest.iter().position(|byte| *byte == delimiter).unwrap_or(rest.len());
                let (element, rest) = rest.split_at(end);
                // Whatever could be mistaken for something else stands in quotes.
                if element.is_empty() || element.iter().any(|byte| matches!(byte, b'"' | b'\\' | b'{' | b'}')) {
                    return Err(NOT_AN_ARRAY);
                }
                each((element != b"NULL").then_some(element))?;
                rest
            }
        };
        match rest {
            [] => return Ok(()),
            [byte, after @ ..] if *byte == delimiter => rest = after,
            _ => return Err(NOT_AN_ARRAY),
        }
    }
}

/// What comes after the bounds that stand before an array that does not begin at 1: `[0:2]={…}`.
#[inline]
fn after_bounds(text: &[u8]) -> ValueResult<&[u8]> {
    let [b'[', bounds @ ..] = text else { return Ok(text) };
    match bounds {
        // The server does not write bounds that begin at 1, unless another dimension has others.
        [b'1', b':', rest @ ..] => {
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            rest[digits..].strip_prefix(b"]=").ok_or(SHAPE)
        }
        _ => Err(SHAPE),
    }
}

/// An element to its closing quote, without escapes, and what comes after the quote.
#[inline]
fn unquote<'s, 't: 's>(quoted: &'t [u8], scratch: &'s mut Vec<u8>) -> Option<(&'s [u8], &'t [u8])> {
    let end = quoted.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
    if quoted[end] == b'"' {
        return Some((&quoted[..end], &quoted[end + 1..]));
    }
    scratch.clear();
    scratch.extend_from_slice(&quoted[..end]);
    let mut rest = &quoted[end..];
    loop {
        match *rest {
            [b'"', ref after @ ..] => return Some((scratch, after)),
            [b'\\', byte, ref after @ ..] | [byte, ref after @ ..] => {
                scratch.push(byte);
                rest = after;
            }
            [] => return None,
        }
    }
}

/// Hands every element of a binary array to `each`; `None` is NULL.
///
/// The value is the number of dimensions, whether there are NULLs, the type of the elements, for every dimension its length and
/// where it begins, then the elements, each behind its length, which is -1 for NULL.
#[inline]
pub(crate) fn each_binary(value: &[u8], mut each: impl FnMut(Option<&[u8]>) -> ValueResult<()>) -> ValueResult<()> {
    let mut rest = value;
    let dimensions = word(&mut rest)?;
    let _has_nulls = word(&mut rest)?;
    let _element = word(&mut rest)?;
    let count = match dimensions {
        0 => 0,
        1 => {
            let count = word(&mut rest)?;
            if word(&mut rest)? != 1 {
                return Err(SHAPE);
            }
            count
        }
        _ => return Err(SHAPE),
    };
    for _ in 0..count {
        match word(&mut rest)? {
            -1 => each(None)?,
            length => {
                let length = usize::try_from(length).map_err(|_| NOT_AN_ARRAY)?;
                let (element, after) = rest.split_at_checked(length).ok_or(NOT_AN_ARRAY)?;
                each(Some(element))?;
                rest = after;
            }
        }
    }
    if rest.is_empty() { Ok(()) } else { Err(NOT_AN_ARRAY) }
}

/// The next four bytes.
#[inline]
fn word(rest: &mut &[u8]) -> ValueResult<i32> {
    let (word, after) = rest.split_first_chunk::<4>().ok_or(NOT_AN_ARRAY)?;
    *rest = after;
    Ok(i32::from_be_bytes(*word))
}

/// Hands every number of pgvector's `[1,2.5,3]` to `each`.
pub(crate) fn each_float(text: &[u8], mut each: impl FnMut(f32)) -> ValueResult<()> {
    let [b'[', numbers @ .., b']'] = text else { return Err(NOT_A_VECTOR) };
    if numbers.is_empty() {
        return Ok(());
    }
    for number in numbers.split(|byte| *byte == b',') {
        each(number::float_32(number)?);
    }
    Ok(())
}

/// Hands every number of a binary vector to `each`: their count in two bytes, two that are kept free, then the numbers, of four
/// bytes or, in a `halfvec`, of two.
pub(crate) fn each_float_binary(value: &[u8], half: bool, mut each: impl FnMut(f32)) -> ValueResult<()> {
    let (&[a, b, _, _], numbers) = value.split_first_chunk::<4>().ok_or(NOT_A_VECTOR)?;
    let count = usize::from(u16::from_be_bytes([a, b]));
    if numbers.len() != count * if half { 2 } else { 4 } {
        return Err(NOT_A_VECTOR);
    }
    if half {
        numbers.as_chunks::<2>().0.iter().for_each(|number| each(number::float_16_binary(*number)));
    } else {
        numbers.as_chunks::<4>().0.iter().for_each(|number| each(number::float_32_binary(*number)));
    }
    Ok(())
}

const NOT_A_VECTOR: ValueError = ValueError::new("not a vector of numbers");

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::testing::{array_binary, array_text, hex};

    type Elements = Vec<Option<Vec<u8>>>;

    fn text_elements(text: &str, delimiter: u8) -> ValueResult<Elements> {
        let mut elements = Vec::new();
        each_text(text.as_bytes(), delimiter, &mut Vec::new(), |element| {
            elements.push(element.map(<[u8]>::to_vec));
            Ok(())
        })?;
        Ok(elements)
    }

    fn binary_elements(value: &[u8]) -> ValueResult<Elements> {
        let mut elements = Vec::new();
        each_binary(value, |element| {
            elements.push(element.map(<[u8]>::to_vec));
            Ok(())
        })?;
        Ok(elements)
    }

    #[test]
    fn text_of_arrays() {
        let elements = |elements: &[Option<&str>]| -> Elements {
            elements.iter().map(|element| element.map(|text| text.as_bytes().to_vec())).collect()
        };
        for (text, delimiter, expected) in [
            ("{}", b',', &[][..]),
            ("{1}", b',', &[Some("1")]),
            ("{1,NULL,\"NULL\",null}", b',', &[Some("1"), None, Some("NULL"), Some("null")]),
            (r#"{"","a\"b\\c","{d}",e f}"#, b',', &[Some(""), Some(r#"a"b\c"#), Some("{d}"), Some("e f")]),
            ("{(1,2),(3,4);(5,6),(7,8)}", b';', &[Some("(1,2),(3,4)"), Some("(5,6),(7,8)")]),
            ("[1:2]={7,8}", b',', &[Some("7"), Some("8")]),
        ] {
            assert_eq!(text_elements(text, delimiter), Ok(elements(expected)), "{text}");
        }
        for text in ["{{1}}", "{{1,2},{3,4}}", "[0:1]={1,2}", "[2:2]={1}", "[-1:0]={1,2}", "[1:1][1:2]={{1,2}}"] {
            assert_eq!(text_elements(text, b','), Err(SHAPE), "{text}");
        }
        for text in ["", "{", "}", "{1", "1}", "{1,}", "{,1}", "{\"a}", "{\"a\"b}", "{a\"b}", "{a\\b}", "{\"a\\", "{1}}", "{1}x"] {
            assert_eq!(text_elements(text, b','), Err(NOT_AN_ARRAY), "{text}");
        }
    }

    #[test]
    fn binary_arrays_that_are_no_lists() {
        for value in [
            "00000002 00000000 00000017 00000001 00000001 00000001 00000001 00000004 00000001",
            "00000001 00000000 00000017 00000001 00000000 00000004 00000001",
        ] {
            assert_eq!(binary_elements(&hex(value)), Err(SHAPE), "{value}");
        }
        for value in [
            "",
            "00000001 00000000 00000017",
            "00000001 00000000 00000017 00000001 00000001",
            "00000001 00000000 00000017 00000001 00000001 00000004 0000",
            "00000001 00000000 00000017 00000001 00000001 fffffffe",
            "00000000 00000000 00000017 00",
        ] {
            assert_eq!(binary_elements(&hex(value)), Err(NOT_AN_ARRAY), "{value}");
        }
        assert_eq!(binary_elements(&hex("00000000 00000000 00000017")), Ok(vec![]));
    }

    #[test]
    fn vectors() {
        let text = |text: &str| {
            let mut numbers = Vec::new();
            each_float(text.as_bytes(), |number| numbers.push(number)).map(|()| numbers)
        };
        assert_eq!(text("[1,2.5,-1e-05]"), Ok(vec![1.0, 2.5, -1e-5]));
        assert_eq!(text("[]"), Ok(vec![]));
        assert!(text("1,2").is_err() && text("[1,]").is_err() && text("[a]").is_err());
        let binary = |value: &str, half| {
            let mut numbers = Vec::new();
            each_float_binary(&hex(value), half, |number| numbers.push(number)).map(|()| numbers)
        };
        assert_eq!(binary("0002 0000 3f800000 c0200000", false), Ok(vec![1.0, -2.5]));
        assert_eq!(binary("0002 0000 3c00 c100", true), Ok(vec![1.0, -2.5]));
        assert!(
            binary("0002 0000 3f800000", false).is_err() && binary("0000", false).is_err() && binary("0001 0000 3f800000", true).is_err()
        );
    }

    proptest! {
        #[test]
        fn any_texts_come_back(elements in proptest::collection::vec(proptest::option::of("([,{}\"\\\\ nulNUL\n]|\\PC){0,6}"), 0..8)) {
            let bytes: Elements = elements.iter().map(|element| element.as_ref().map(|text| text.clone().into_bytes())).collect();
            prop_assert_eq!(text_elements(&array_text(&elements, ','), b','), Ok(bytes.clone()));
            prop_assert_eq!(binary_elements(&array_binary(&bytes)), Ok(bytes));
        }

        #[test]
        fn any_bytes_are_an_array_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..40), text in "[\\[\\]{}\",:=\\\\01Na]{0,20}") {
            let _ = (text_elements(&text, b','), text_elements(&format!("{{{text}}}"), b','), binary_elements(&bytes));
            let _ = (each_float(&bytes, |_| ()), each_float_binary(&bytes, false, |_| ()), each_float_binary(&bytes, true, |_| ()));
        }
    }
}
