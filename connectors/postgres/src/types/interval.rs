//! The text of a binary `interval` under `IntervalStyle = iso_8601`: `P1Y2M3DT4H5M6.789S`.
//!
//! An interval is months, days and microseconds, each with a sign of its own, and none is turned into another.

use super::temporal::push_fraction;
use super::{ValueResult, exactly};

const SECOND: i64 = 1_000_000;

/// Appends the text of a value: eight bytes of microseconds, four of days, four of months.
pub(crate) fn render(value: &[u8], out: &mut Vec<u8>) -> ValueResult<()> {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = exactly::<16>(value)?;
    let micros = i64::from_be_bytes([a, b, c, d, e, f, g, h]);
    let days = i32::from_be_bytes([i, j, k, l]);
    let months = i32::from_be_bytes([m, n, o, p]);
    match (micros, days, months) {
        (0, 0, 0) => {
            out.extend_from_slice(b"PT0S");
            return Ok(());
        }
        // Since 17. Before it these are the longest intervals of all, which nobody ever had.
        (i64::MAX, i32::MAX, i32::MAX) => {
            out.extend_from_slice(b"infinity");
            return Ok(());
        }
        (i64::MIN, i32::MIN, i32::MIN) => {
            out.extend_from_slice(b"-infinity");
            return Ok(());
        }
        _ => {}
    }
    out.push(b'P');
    push_part(out, i64::from(months / 12), b'Y');
    push_part(out, i64::from(months % 12), b'M');
    push_part(out, i64::from(days), b'D');
    if micros != 0 {
        out.push(b'T');
        push_part(out, micros / (3600 * SECOND), b'H');
        push_part(out, micros / (60 * SECOND) % 60, b'M');
        let seconds = micros % (60 * SECOND);
        if seconds != 0 {
            if seconds < 0 {
                out.push(b'-');
            }
            let seconds = seconds.unsigned_abs();
            push_number(out, seconds / SECOND as u64);
            push_fraction(out, (seconds % SECOND as u64) as u32);
            out.push(b'S');
        }
    }
    Ok(())
}

/// A number and its unit; nothing for none.
fn push_part(out: &mut Vec<u8>, number: i64, unit: u8) {
    if number == 0 {
        return;
    }
    if number < 0 {
        out.push(b'-');
    }
    push_number(out, number.unsigned_abs());
    out.push(unit);
}

/// The decimal digits of a number.
pub(super) fn push_number(out: &mut Vec<u8>, number: u64) {
    let mut digits = [b'0'; 20];
    let mut rest = number;
    let mut first = digits.len();
    while rest > 0 || first == digits.len() {
        first -= 1;
        digits[first] += (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(&digits[first..]);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::testing::rendered;

    fn encoded(months: i32, days: i32, micros: i64) -> Vec<u8> {
        [&micros.to_be_bytes()[..], &days.to_be_bytes(), &months.to_be_bytes()].concat()
    }

    #[test]
    fn the_text_is_the_servers() {
        for (months, days, micros, text) in [
            (0, 0, 0, "PT0S"),
            (14, 3, 14_706_789_000, "P1Y2M3DT4H5M6.789S"),
            (-14, 3, -14_706_000_001, "P-1Y-2M3DT-4H-5M-6.000001S"),
            (0, 0, -500_000, "PT-0.5S"),
            (0, 0, 1, "PT0.000001S"),
            (0, 0, 60_000_000, "PT1M"),
            (12, 0, 0, "P1Y"),
            (-1, 0, 3_600_000_000, "P-1MT1H"),
            (i32::MAX, i32::MIN, 0, "P178956970Y7M-2147483648D"),
            (0, 0, i64::MIN, "PT-2562047788H-54.775808S"),
            (i32::MAX, i32::MAX, i64::MAX, "infinity"),
            (i32::MIN, i32::MIN, i64::MIN, "-infinity"),
        ] {
            assert_eq!(rendered(render, &encoded(months, days, micros)), text);
        }
        assert!(render(&[0; 15], &mut Vec::new()).is_err());
    }

    proptest! {
        #[test]
        fn the_parts_of_a_text_add_up(months: i32, days: i32, micros: i64) {
            let text = rendered(render, &encoded(months, days, micros));
            prop_assume!(!text.ends_with("infinity"));
            let (date, time) = text[1..].split_once('T').unwrap_or((&text[1..], ""));
            let mut sums = [0i128; 3];
            for (part, units) in [(date, [('Y', 0, 12_000_000), ('M', 0, 1_000_000), ('D', 1, 1_000_000)]),
                                  (time, [('H', 2, 3_600_000_000), ('M', 2, 60_000_000), ('S', 2, 1_000_000)])] {
                let mut rest = part;
                for (unit, place, size) in units {
                    if let Some((number, after)) = rest.split_once(unit) {
                        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
                        let micros: i128 = format!("{}{fraction:0<6}", whole.trim_start_matches('-')).parse().unwrap();
                        sums[place] += micros * size / 1_000_000 * if number.starts_with('-') { -1 } else { 1 };
                        rest = after;
                    }
                }
                prop_assert_eq!(rest, "");
            }
            let million = 1_000_000;
            prop_assert_eq!(sums, [i128::from(months) * million, i128::from(days) * million, i128::from(micros)]);
        }
    }
}
