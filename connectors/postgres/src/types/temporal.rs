//! Dates and times, from ISO text and from binary form, in integers throughout.
//!
//! The calendar is the proleptic Gregorian one, as PostgreSQL's and Arrow's. The server counts from 2000-01-01, Arrow from
//! 1970-01-01. Infinity is the greatest value and minus infinity its negation, as DuckDB has it.

use super::number::unsigned;
use super::{ValueError, ValueResult, exactly};

/// Microseconds of a second.
const SECOND: i64 = 1_000_000;
/// Microseconds of a day.
const DAY: i64 = 86_400 * SECOND;
/// Days between the first day of Arrow's time and that of PostgreSQL's.
const EPOCH_DAYS: i32 = 10_957;

/// An infinite date.
pub(crate) const DATE_INFINITY: i32 = i32::MAX;
/// An infinite timestamp.
pub(crate) const TIMESTAMP_INFINITY: i64 = i64::MAX;

const NOT_A_DAY: ValueError = ValueError::new("not a calendar day");
const NOT_A_TIME: ValueError = ValueError::new("not a time of day");
const NOT_A_TIMESTAMP: ValueError = ValueError::new("not a timestamp in the ISO format");
const TOO_FAR: ValueError =
    ValueError::new("a timestamp after 294247-01-10 04:00:54.775806 does not fit into microseconds since 1970 of 64 bits");

/// Days since 1970-01-01 of `YYYY-MM-DD`, with ` BC` behind years before the first.
#[inline]
pub(crate) fn date(text: &[u8]) -> ValueResult<i32> {
    let (day, rest) = match leading_day(text) {
        Some(leading) => leading,
        None if text == b"infinity" => return Ok(DATE_INFINITY),
        None if text == b"-infinity" => return Ok(-DATE_INFINITY),
        None => return Err(NOT_A_DAY),
    };
    match rest {
        b"" => day.number(false),
        b" BC" => day.number(true),
        _ => Err(NOT_A_DAY),
    }
}

/// Days since 1970-01-01 of a binary date.
#[inline]
pub(crate) fn date_binary(value: &[u8]) -> ValueResult<i32> {
    match i32::from_be_bytes(exactly(value)?) {
        i32::MAX => Ok(DATE_INFINITY),
        i32::MIN => Ok(-DATE_INFINITY),
        days => days.checked_add(EPOCH_DAYS).filter(|days| *days != DATE_INFINITY).ok_or(NOT_A_DAY),
    }
}

/// Microseconds since 1970-01-01 00:00:00 of `YYYY-MM-DD hh:mm:ss.ffffff`, in no zone or, with an offset behind it, in UTC.
#[inline]
pub(crate) fn timestamp(text: &[u8], with_zone: bool) -> ValueResult<i64> {
    let Some((day, rest)) = leading_day(text) else {
        return match text {
            b"infinity" => Ok(TIMESTAMP_INFINITY),
            b"-infinity" => Ok(-TIMESTAMP_INFINITY),
            _ => Err(NOT_A_TIMESTAMP),
        };
    };
    let [b' ', rest @ ..] = rest else { return Err(NOT_A_TIMESTAMP) };
    let (time, rest) = leading_time(rest).ok_or(NOT_A_TIMESTAMP)?;
    let (offset, rest) = match rest {
        // The sessions' own zone, and so nearly every offset there is.
        [b'+', b'0', b'0', rest @ ..] if with_zone && !rest.starts_with(b":") => (0, rest),
        rest if with_zone => leading_offset(rest).ok_or(NOT_A_TIMESTAMP)?,
        rest => (0, rest),
    };
    let bc = match rest {
        b"" => false,
        b" BC" => true,
        _ => return Err(NOT_A_TIMESTAMP),
    };
    // The greatest year is far below what this multiplication can bear, but not what microseconds can.
    let micros = i64::from(day.number(bc)?).checked_mul(DAY).and_then(|micros| micros.checked_add(time - offset * SECOND));
    micros.filter(|micros| within(*micros)).ok_or(TOO_FAR)
}

/// Microseconds since 1970-01-01 00:00:00 of a binary timestamp, with or without zone.
#[inline]
pub(crate) fn timestamp_binary(value: &[u8]) -> ValueResult<i64> {
    match i64::from_be_bytes(exactly(value)?) {
        i64::MAX => Ok(TIMESTAMP_INFINITY),
        i64::MIN => Ok(-TIMESTAMP_INFINITY),
        micros => micros.checked_add(i64::from(EPOCH_DAYS) * DAY).filter(|micros| within(*micros)).ok_or(TOO_FAR),
    }
}

/// True for what is not taken for an infinity.
fn within(micros: i64) -> bool {
    micros.unsigned_abs() < TIMESTAMP_INFINITY as u64
}

/// Microseconds since midnight of `hh:mm:ss.ffffff`, to 24:00:00.
#[inline]
pub(crate) fn time(text: &[u8]) -> ValueResult<i64> {
    match leading_time(text) {
        Some((micros, [])) => Ok(micros),
        _ => Err(NOT_A_TIME),
    }
}

/// Microseconds since midnight of a binary time.
#[inline]
pub(crate) fn time_binary(value: &[u8]) -> ValueResult<i64> {
    let micros = i64::from_be_bytes(exactly(value)?);
    if (0..=DAY).contains(&micros) { Ok(micros) } else { Err(NOT_A_TIME) }
}

/// Appends the text of a binary `timetz`: microseconds of the local time, and seconds west of Greenwich.
pub(crate) fn render_timetz(value: &[u8], out: &mut Vec<u8>) -> ValueResult<()> {
    let [a, b, c, d, e, f, g, h, zone @ ..] = exactly::<12>(value)?;
    let micros = i64::from_be_bytes([a, b, c, d, e, f, g, h]);
    let west = i32::from_be_bytes(zone);
    // The server's own bound on an offset.
    if !(0..=DAY).contains(&micros) || west.unsigned_abs() >= 16 * 3600 {
        return Err(NOT_A_TIME);
    }
    let seconds = (micros / SECOND) as u32;
    push_two(out, seconds / 3600);
    out.push(b':');
    push_two(out, seconds / 60 % 60);
    out.push(b':');
    push_two(out, seconds % 60);
    push_fraction(out, (micros % SECOND) as u32);
    out.push(if west <= 0 { b'+' } else { b'-' });
    let offset = west.unsigned_abs();
    push_two(out, offset / 3600);
    if !offset.is_multiple_of(3600) {
        out.push(b':');
        push_two(out, offset / 60 % 60);
    }
    if !offset.is_multiple_of(60) {
        out.push(b':');
        push_two(out, offset % 60);
    }
    Ok(())
}

/// Two digits of a number below a hundred.
pub(super) fn push_two(out: &mut Vec<u8>, number: u32) {
    out.extend_from_slice(&[b'0' + (number / 10 % 10) as u8, b'0' + (number % 10) as u8]);
}

/// A point and as many digits of the microseconds as are not zeros at the end; nothing if there are none.
pub(super) fn push_fraction(out: &mut Vec<u8>, micros: u32) {
    if micros == 0 {
        return;
    }
    out.push(b'.');
    let mut digits = [b'0'; 6];
    let mut rest = micros;
    for digit in digits.iter_mut().rev() {
        *digit += (rest % 10) as u8;
        rest /= 10;
    }
    let length = digits.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1);
    out.extend_from_slice(&digits[..length]);
}

/// A day of a calendar that may not exist.
struct Day {
    year: u32,
    month: u32,
    day: u32,
}

impl Day {
    /// Days since 1970-01-01, if there is such a day.
    #[inline]
    fn number(&self, bc: bool) -> ValueResult<i32> {
        const LENGTHS: [u32; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        // The server's greatest year is 5874897. There is no year 0: 1 BC comes before 1.
        if self.year == 0 || self.year > 5_874_897 || self.month == 0 || self.month > 12 || self.day == 0 {
            return Err(NOT_A_DAY);
        }
        let year = if bc { 1 - i64::from(self.year) } else { i64::from(self.year) };
        let leap = || year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        if self.day > LENGTHS[self.month as usize - 1] && !(self.month == 2 && self.day == 29 && leap()) {
            return Err(NOT_A_DAY);
        }
        // Years begin in March here, so that the leap day is the last of one.
        let (year, month) = if self.month > 2 { (year, self.month - 3) } else { (year - 1, self.month + 9) };
        let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let of_year = i64::from((153 * month + 2) / 5 + self.day - 1);
        // 0000-03-01 is 719,468 days before the epoch, and 400 years have 146,097 days.
        let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
        i32::try_from(days).map_err(|_| NOT_A_DAY)
    }
}

/// `YYYY-MM-DD` at the beginning, and what comes after it. Years have four digits or more.
#[inline]
fn leading_day(text: &[u8]) -> Option<(Day, &[u8])> {
    if let &[a, b, c, d, b'-', e, f, b'-', g, h, ref rest @ ..] = text {
        let year = two(a, b)? * 100 + two(c, d)?;
        return Some((Day { year, month: two(e, f)?, day: two(g, h)? }, rest));
    }
    let dash = text.iter().position(|byte| *byte == b'-').filter(|dash| (5..=7).contains(dash))?;
    let (year, rest) = text.split_at(dash);
    let &[b'-', e, f, b'-', g, h, ref rest @ ..] = rest else { return None };
    let year = u32::try_from(unsigned(year)?).ok()?;
    Some((Day { year, month: two(e, f)?, day: two(g, h)? }, rest))
}

/// `hh:mm:ss` with up to six digits after a point at the beginning, as microseconds, and what comes after it.
#[inline]
fn leading_time(text: &[u8]) -> Option<(i64, &[u8])> {
    let &[a, b, b':', c, d, b':', e, f, ref rest @ ..] = text else { return None };
    let (hour, minute, second) = (two(a, b)?, two(c, d)?, two(e, f)?);
    if hour > 24 || minute > 59 || second > 59 {
        return None;
    }
    let mut micros = i64::from(hour * 3600 + minute * 60 + second) * SECOND;
    let mut rest = rest;
    if let [b'.', fraction @ ..] = rest {
        let mut unit = SECOND / 10;
        rest = fraction;
        while let [digit @ b'0'..=b'9', after @ ..] = rest {
            if unit == 0 {
                return None;
            }
            micros += i64::from(digit - b'0') * unit;
            unit /= 10;
            rest = after;
        }
    }
    (micros <= DAY).then_some((micros, rest))
}

/// `+hh`, `+hh:mm` or `+hh:mm:ss` at the beginning, as seconds east of Greenwich, and what comes after it.
fn leading_offset(text: &[u8]) -> Option<(i64, &[u8])> {
    let (&[sign, a, b], mut rest) = text.split_first_chunk::<3>()?;
    let mut seconds = i64::from(two(a, b)?) * 3600;
    for unit in [60, 1] {
        if let &[b':', c, d, ref after @ ..] = rest {
            seconds += i64::from(two(c, d)?) * unit;
            rest = after;
        }
    }
    match sign {
        b'+' => Some((seconds, rest)),
        b'-' => Some((-seconds, rest)),
        _ => None,
    }
}

/// A number of two digits.
#[inline]
fn two(tens: u8, ones: u8) -> Option<u32> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    if tens > 9 || ones > 9 { None } else { Some(u32::from(tens) * 10 + u32::from(ones)) }
}
