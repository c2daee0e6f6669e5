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
