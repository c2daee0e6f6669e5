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
