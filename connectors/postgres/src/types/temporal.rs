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
        // 8000 years more keep every year of the server above zero: its first is 4714 BC.
        const MORE: u32 = 8000;
        let year = if bc { (MORE + 1).checked_sub(self.year).filter(|year| *year > 1).ok_or(NOT_A_DAY)? } else { MORE + self.year };
        let leap = || year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        if self.day > LENGTHS[self.month as usize - 1] && !(self.month == 2 && self.day == 29 && leap()) {
            return Err(NOT_A_DAY);
        }
        // Years begin in March here, so that the leap day is the last of one.
        let (year, month) = if self.month > 2 { (year, self.month - 3) } else { (year - 1, self.month + 9) };
        let of_year = (153 * month + 2) / 5 + self.day - 1;
        let days = year * 365 + year / 4 - year / 100 + year / 400 + of_year;
        // 0000-03-01 is 719,468 days before the epoch, and 400 years have 146,097 days. The last day of the server is below 2^31.
        Ok((i64::from(days) - i64::from(MORE / 400 * 146_097) - 719_468) as i32)
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
        const UNITS: [u32; 7] = [1_000_000, 100_000, 10_000, 1_000, 100, 10, 1];
        let (mut number, mut count) = (0, 0);
        rest = fraction;
        while let [digit @ b'0'..=b'9', after @ ..] = rest {
            if count == 6 {
                return None;
            }
            number = number * 10 + u32::from(digit - b'0');
            count += 1;
            rest = after;
        }
        micros += i64::from(number * UNITS[count]);
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::testing::rendered;

    #[test]
    fn known_days() {
        for (text, number) in [
            ("1970-01-01", 0),
            ("1969-12-31", -1),
            ("2000-02-29", 11_016),
            ("2024-12-31", 20_088),
            ("1582-10-10", -141_432),
            ("0001-01-01", -719_162),
            ("0001-12-31 BC", -719_163),
            ("0001-02-29 BC", -719_469),
            ("4713-01-01 BC", -2_440_550),
            ("9999-12-31", 2_932_896),
            ("10000-01-01", 2_932_897),
            ("5874897-12-31", 2_145_042_905),
            ("infinity", i32::MAX),
            ("-infinity", -i32::MAX),
        ] {
            assert_eq!(date(text.as_bytes()), Ok(number), "{text}");
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut expected = date(b"4713-01-01 BC").unwrap();
        for year in -4712..=10_010 {
            let leap = year % 400 == 0 || (year % 4 == 0 && year % 100 != 0);
            for (month, length) in [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31].into_iter().enumerate() {
                let text = |day| match year {
                    ..=0 => format!("{:04}-{:02}-{day:02} BC", 1 - year, month + 1),
                    _ => format!("{year:04}-{:02}-{day:02}", month + 1),
                };
                for day in [1, length / 2, length] {
                    assert_eq!(date(text(day).as_bytes()), Ok(expected + day - 1), "{}", text(day));
                }
                assert_eq!(date(text(length + 1).as_bytes()), Err(NOT_A_DAY));
                expected += length;
            }
        }
    }

    #[test]
    fn what_is_no_date_or_time_is_refused() {
        for text in [
            "",
            "2020",
            "2020-1-1",
            "2020-00-10",
            "2020-13-01",
            "2020-02-30",
            "0000-01-01",
            "2020-01-01 ",
            "2020-01-01 AD",
            "20-01-01",
            "5874898-01-01",
            "99999999-01-01",
            "-2020-01-01",
            "Infinity",
            "2020/01/01",
            "2020-01-01 00:00:00",
        ] {
            assert_eq!(date(text.as_bytes()), Err(NOT_A_DAY), "{text}");
        }
        for text in ["", "1:02:03", "24:00:00.000001", "25:00:00", "12:60:00", "12:00:60", "12:00:00.1234567", "12:00", "12:00:00+00"] {
            assert_eq!(time(text.as_bytes()), Err(NOT_A_TIME), "{text}");
        }
        for text in
            ["", "2020-01-01", "2020-01-01 00:00:00+00", "2020-01-01T00:00:00", "2020-01-01 00:00:00 CET", "2020-01-01 00:00:00 BC BC"]
        {
            assert!(timestamp(text.as_bytes(), false).is_err(), "{text}");
        }
        for text in ["2020-01-01 00:00:00", "2020-01-01 00:00:00Z", "2020-01-01 00:00:00+0", "2020-01-01 00:00:00+00:00:00:00"] {
            assert!(timestamp(text.as_bytes(), true).is_err(), "{text}");
        }
        assert_eq!(timestamp(b"294247-01-10 04:00:54.775806", false), Ok(i64::MAX - 1));
        assert_eq!(timestamp(b"294247-01-10 04:00:54.775807", false), Err(TOO_FAR));
        assert_eq!(timestamp(b"294276-12-31 23:59:59.999999+00", true), Err(TOO_FAR));
        assert_eq!(timestamp_binary(&(i64::MAX - 1).to_be_bytes()), Err(TOO_FAR));
        assert_eq!(date_binary(&(i32::MAX - 1).to_be_bytes()), Err(NOT_A_DAY));
        // So that no date is taken for an infinity.
        assert_eq!(date_binary(&(i32::MAX - EPOCH_DAYS).to_be_bytes()), Err(NOT_A_DAY));
        assert_eq!(time_binary(&(-1i64).to_be_bytes()), Err(NOT_A_TIME));
        assert!(date_binary(&[0; 3]).is_err() && timestamp_binary(&[0; 9]).is_err() && time_binary(&[]).is_err());
    }

    #[test]
    fn offsets_of_every_kind() {
        for (text, micros) in [
            ("1970-01-01 00:00:00+00", 0),
            ("1970-01-01 00:00:00-00", 0),
            ("1970-01-01 00:00:00+00:00:01", -SECOND),
            ("1970-01-01 00:00:00-00:00:01", SECOND),
            ("1970-01-01 05:30:00.5+05:30", SECOND / 2),
            ("1969-12-31 23:59:59.999999+00", -1),
            ("0001-12-31 23:59:59.999999+00 BC", -719_162 * DAY - 1),
            ("0001-12-31 23:59:59.999999-00:19:32 BC", -719_162 * DAY - 1 + 1172 * SECOND),
            ("infinity", i64::MAX),
            ("-infinity", -i64::MAX),
        ] {
            assert_eq!(timestamp(text.as_bytes(), true), Ok(micros), "{text}");
        }
    }

    #[test]
    fn timetz_is_rendered_as_the_server_does() {
        for (micros, west, text) in [
            (0, 0, "00:00:00+00"),
            (DAY, 0, "24:00:00+00"),
            (45_296_700_000, -19_815, "12:34:56.7+05:30:15"),
            (DAY - 1, 43_200, "23:59:59.999999-12"),
            (10, 12_600, "00:00:00.00001-03:30"),
            (0, -57_599, "00:00:00+15:59:59"),
            (0, 1, "00:00:00-00:00:01"),
        ] {
            let value = [&i64::to_be_bytes(micros)[..], &i32::to_be_bytes(west)].concat();
            assert_eq!(rendered(render_timetz, &value), text);
        }
        assert!(render_timetz(&[0; 8], &mut Vec::new()).is_err());
        assert!(render_timetz(&[0xff; 12], &mut Vec::new()).is_err());
    }

    /// Year, month and day of a day since 1970, the slow way.
    fn civil(day: i64) -> (i64, i64, i64) {
        let mut day = day + 719_528 + 146_097 * 100;
        let mut year = -40_000;
        let length = |year: i64| if year % 400 == 0 || (year % 4 == 0 && year % 100 != 0) { 366 } else { 365 };
        year += day / 146_097 * 400;
        day %= 146_097;
        while day >= length(year) {
            day -= length(year);
            year += 1;
        }
        let mut month = 1;
        for days in [31, length(year) - 337, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
            if day < days {
                break;
            }
            day -= days;
            month += 1;
        }
        (year, month, day + 1)
    }

    fn time_text(micros: i64) -> String {
        let seconds = micros / SECOND;
        let fraction = format!(".{:06}", micros % SECOND);
        let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
        format!("{:02}:{:02}:{:02}{fraction}", seconds / 3600, seconds / 60 % 60, seconds % 60)
    }

    proptest! {
        #[test]
        fn dates_and_times_come_back(
            day in prop_oneof![-2_440_550i64..100_000, 0i64..30_000, -2_440_550i64..106_751_991],
            micros in prop_oneof![0..DAY, (0i64..86_400).prop_map(|seconds| seconds * SECOND)],
            offset in prop_oneof![Just(0i64), -57_599i64..57_599],
        ) {
            let (year, month, of_month) = civil(day);
            let (year, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
            let date_text = format!("{year:04}-{month:02}-{of_month:02}");
            prop_assert_eq!(date(format!("{date_text}{era}").as_bytes()), Ok(day as i32));
            prop_assert_eq!(date_binary(&(day as i32 - EPOCH_DAYS).to_be_bytes()), Ok(day as i32));

            let clock = time_text(micros);
            prop_assert_eq!(time(clock.as_bytes()), Ok(micros));
            prop_assert_eq!(time_binary(&micros.to_be_bytes()), Ok(micros));

            let expected = day * DAY + micros;
            prop_assert_eq!(timestamp(format!("{date_text} {clock}{era}").as_bytes(), false), Ok(expected));
            let binary = i128::from(expected) - i128::from(EPOCH_DAYS) * i128::from(DAY);
            if let Ok(binary) = i64::try_from(binary) {
                prop_assert_eq!(timestamp_binary(&binary.to_be_bytes()), Ok(expected));
            }

            let sign = if offset < 0 { '-' } else { '+' };
            let seconds = offset.abs();
            let shown = match (seconds % 3600 / 60, seconds % 60) {
                (0, 0) => format!("{sign}{:02}", seconds / 3600),
                (minutes, 0) => format!("{sign}{:02}:{minutes:02}", seconds / 3600),
                (minutes, rest) => format!("{sign}{:02}:{minutes:02}:{rest:02}", seconds / 3600),
            };
            let zoned = timestamp(format!("{date_text} {clock}{shown}{era}").as_bytes(), true);
            prop_assert_eq!(zoned.ok(), expected.checked_sub(offset * SECOND).filter(|micros| within(*micros)));
        }

        #[test]
        fn any_bytes_are_a_time_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..16), text in "[-+0-9:. BCinfty]{0,40}") {
            for text in [text.as_bytes(), &bytes] {
                let _ = (date(text), time(text), timestamp(text, false), timestamp(text, true));
            }
            let _ = (date_binary(&bytes), time_binary(&bytes), timestamp_binary(&bytes), render_timetz(&bytes, &mut Vec::new()));
        }
    }
}
