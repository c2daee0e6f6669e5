//! Dates and times as text, from the integers that Arrow keeps them in.
//!
//! One form per type, whatever its unit: a fraction is written only as far as it is not zero, so that a value has the
//! same text before and after its column was widened. It serves both the hash of a masked column, where that matters,
//! and the printing of query results.

use std::io::Write;

use arrow::datatypes::TimeUnit;

pub(crate) const SECONDS_PER_DAY: i64 = 86_400;

/// Units in a second, and the number of digits of a fraction.
pub(crate) fn resolution(unit: TimeUnit) -> (i64, usize) {
    match unit {
        TimeUnit::Second => (1, 0),
        TimeUnit::Millisecond => (1_000, 3),
        TimeUnit::Microsecond => (1_000_000, 6),
        TimeUnit::Nanosecond => (1_000_000_000, 9),
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar.
pub fn date_of(days: i64) -> (i64, u8, u8) {
    // Counted from 0000-03-01 in eras of 400 years, so that the leap day is the last day of a year.
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month as u8, day as u8)
}

/// The day on which a month begins, counted from 1970-01-01.
pub(crate) fn first_of_month(year: i64, month: u8) -> i64 {
    // Counted as above: March is the first month of its year.
    let year = year - i64::from(month <= 2);
    let month_from_march = i64::from((month + 9) % 12);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + (153 * month_from_march + 2) / 5;
    era * 146_097 + day_of_era - 719_468
}

fn write_fraction(text: &mut Vec<u8>, fraction: i64, digits: usize) {
    if fraction != 0 {
        write(text, format_args!(".{fraction:0digits$}"));
        while text.last() == Some(&b'0') {
            text.pop();
        }
    }
}

fn write_clock(text: &mut Vec<u8>, seconds: i64) {
    write(text, format_args!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60));
}

fn write(text: &mut Vec<u8>, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("writing to a vector does not fail");
}

/// `2026-11-20`
pub(crate) fn write_date(text: &mut Vec<u8>, days: i64) {
    let (year, month, day) = date_of(days);
    write(text, format_args!("{year:04}-{month:02}-{day:02}"));
}

/// `2026-11-20`, and as ISO 8601 extends it beyond four digits, `+10000-01-01` and `-0001-12-31`.
pub(crate) fn write_iso_date(text: &mut Vec<u8>, days: i64) {
    let (year, month, day) = date_of(days);
    match year {
        0..=9999 => write(text, format_args!("{year:04}")),
        _ => write(text, format_args!("{year:+05}")),
    }
    write(text, format_args!("-{month:02}-{day:02}"));
}

/// `+10000-01-01T12:30:00.250`, with a `Z` behind it if it is a point in time. A fraction has digits in threes.
pub(crate) fn write_iso_timestamp(text: &mut Vec<u8>, value: i64, unit: TimeUnit, utc: bool) {
    let (per_second, digits) = resolution(unit);
    let seconds = value.div_euclid(per_second);
    write_iso_date(text, seconds.div_euclid(SECONDS_PER_DAY));
    text.push(b'T');
    write_clock(text, seconds.rem_euclid(SECONDS_PER_DAY));
    let (mut fraction, mut digits) = (value.rem_euclid(per_second), digits);
    while digits > 3 && fraction % 1_000 == 0 {
        (fraction, digits) = (fraction / 1_000, digits - 3);
    }
    if fraction != 0 {
        write(text, format_args!(".{fraction:0digits$}"));
    }
    if utc {
        text.push(b'Z');
    }
}

/// `2026-11-20 12:30:00.25`, with a `Z` behind it if it is a point in time rather than a reading of a calendar.
pub(crate) fn write_timestamp(text: &mut Vec<u8>, value: i64, unit: TimeUnit, utc: bool) {
    let (per_second, digits) = resolution(unit);
    let seconds = value.div_euclid(per_second);
    write_date(text, seconds.div_euclid(SECONDS_PER_DAY));
    text.push(b' ');
    write_clock(text, seconds.rem_euclid(SECONDS_PER_DAY));
    write_fraction(text, value.rem_euclid(per_second), digits);
    if utc {
        text.push(b'Z');
    }
}

/// `12:30:00.25`, and for a span of time also `-838:59:59`.
pub(crate) fn write_time(text: &mut Vec<u8>, value: i64, unit: TimeUnit) {
    let (per_second, digits) = resolution(unit);
    if value < 0 {
        text.push(b'-');
    }
    // By halves, because the absolute value of the smallest integer is none.
    write_clock(text, (value / per_second).abs());
    write_fraction(text, (value % per_second).abs(), digits);
}

/// The day counted from 1970-01-01; `None` if the calendar has no such day.
fn days_of(year: i64, month: u8, day: u8) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + u8::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if day == 0 || day > length {
        return None;
    }
    Some(first_of_month(year, month) + i64::from(day) - 1)
}

/// A number of digits and nothing else.
fn digits(text: &str, count: usize) -> Option<i64> {
    let all = text.len() == count && text.bytes().all(|c| c.is_ascii_digit());
    if all { text.parse().ok() } else { None }
}

/// What [`write_iso_date`] writes, and years of any more digits behind a sign, as the day counted from 1970-01-01.
pub(crate) fn parse_date(text: &str) -> Option<i64> {
    let (text, month_and_day) = text.split_at_checked(text.len().checked_sub(6)?)?;
    let year = match text.as_bytes().first()? {
        b'+' | b'-' if (5..=12).contains(&text.len()) => {
            let year = digits(&text[1..], text.len() - 1)?;
            if text.starts_with('-') { -year } else { year }
        }
        _ => digits(text, 4)?,
    };
    let mut parts = month_and_day.strip_prefix('-')?.split('-');
    let (month, day) = (digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    if parts.next().is_some() {
        return None;
    }
    days_of(year, u8::try_from(month).ok()?, u8::try_from(day).ok()?)
}

/// Digits behind a point, in the unit; `None` if it has no place for all of them.
fn parse_fraction(text: &str, unit: TimeUnit) -> Option<i64> {
    let (_, places) = resolution(unit);
    let (kept, cut) = text.split_at_checked(text.len().min(places))?;
    if text.is_empty() || !cut.bytes().all(|c| c == b'0') {
        return None;
    }
    let value = if kept.is_empty() { 0 } else { digits(kept, kept.len())? };
    Some(value * 10_i64.pow(u32::try_from(places - kept.len()).ok()?))
}

/// `12:30`, `12:30:00.25`: seconds and the fraction in the unit. Hours have two digits at least.
fn parse_clock(text: &str, unit: TimeUnit) -> Option<(i64, i64)> {
    let (clock, fraction) = match text.split_once('.') {
        Some((clock, fraction)) => (clock, parse_fraction(fraction, unit)?),
        None => (text, 0),
    };
    let mut parts = clock.split(':');
    let hours = parts.next()?;
    let hours = if (2..=16).contains(&hours.len()) { digits(hours, hours.len())? } else { return None };
    let minutes = digits(parts.next()?, 2)?;
    let seconds = parts.next().map_or(Some(0), |text| digits(text, 2))?;
    if minutes > 59 || seconds > 59 || parts.next().is_some() {
        return None;
    }
    Some((hours.checked_mul(3600)?.checked_add(minutes * 60 + seconds)?, fraction))
}

/// What [`write_time`] writes.
pub(crate) fn parse_time(text: &str, unit: TimeUnit) -> Option<i64> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let (seconds, fraction) = parse_clock(text, unit)?;
    // Towards the side it lies on, because the smallest integer has no positive one.
    let sign = if negative { -1 } else { 1 };
    (sign * seconds).checked_mul(resolution(unit).0)?.checked_add(sign * fraction)
}

/// What [`write_iso_timestamp`] and [`write_timestamp`] write, and a date alone. A point in time may have an offset from UTC; a
/// reading of a calendar no other than `Z`. What has none is taken as UTC.
pub(crate) fn parse_timestamp(text: &str, unit: TimeUnit, utc: bool) -> Option<i64> {
    let Some(at) = text.find(['T', ' ']) else {
        return parse_date(text)?.checked_mul(SECONDS_PER_DAY)?.checked_mul(resolution(unit).0);
    };
    let days = parse_date(&text[..at])?;
    let clock = &text[at + 1..];
    let (clock, offset) = match clock.find(['Z', '+', '-']) {
        Some(at) if &clock[at..] == "Z" => (&clock[..at], 0),
        Some(at) if utc => {
            let (hours, minutes) = clock[at + 1..].split_once(':').unwrap_or((&clock[at + 1..], "00"));
            let offset = digits(hours, 2)? * 3600 + digits(minutes, 2).filter(|minutes| *minutes < 60)? * 60;
            (&clock[..at], if clock[at..].starts_with('-') { -offset } else { offset })
        }
        Some(_) => return None,
        None => (clock, 0),
    };
    let (seconds, fraction) = parse_clock(clock, unit)?;
    if seconds >= SECONDS_PER_DAY {
        return None;
    }
    let seconds = i128::from(days) * i128::from(SECONDS_PER_DAY) + i128::from(seconds - offset);
    i64::try_from(seconds * i128::from(resolution(unit).0) + i128::from(fraction)).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut text = Vec::new();
        write(&mut text);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn dates() {
        for (days, expected) in [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (11_016, "2000-02-29"),
            (20_777, "2026-11-20"),
            (-719_528, "0000-01-01"),
            (2_932_896, "9999-12-31"),
            (-25_508, "1900-03-01"),
            (-25_509, "1900-02-28"),
        ] {
            assert_eq!(text(|t| write_date(t, days)), expected);
        }
    }

    #[test]
    fn months_begin_on_their_first_day() {
        for days in (-1_000_000..1_000_000).step_by(13) {
            let (year, month, day) = date_of(days);
            assert_eq!(first_of_month(year, month), days + 1 - i64::from(day));
        }
    }

    #[test]
    fn a_value_reads_the_same_in_every_unit() {
        for (value, unit) in [(1_500, TimeUnit::Millisecond), (1_500_000, TimeUnit::Microsecond), (1_500_000_000, TimeUnit::Nanosecond)] {
            assert_eq!(text(|t| write_timestamp(t, value, unit, false)), "1970-01-01 00:00:01.5");
            assert_eq!(text(|t| write_time(t, -value, unit)), "-00:00:01.5");
        }
        assert_eq!(text(|t| write_timestamp(t, -1, TimeUnit::Microsecond, true)), "1969-12-31 23:59:59.999999Z");
    }

    #[test]
    fn spans_reach_the_ends() {
        assert_eq!(text(|t| write_time(t, -3_020_399_000_000, TimeUnit::Microsecond)), "-838:59:59");
        assert_eq!(text(|t| write_time(t, i64::MIN, TimeUnit::Nanosecond)), "-2562047:47:16.854775808");
        assert!(text(|t| write_timestamp(t, i64::MIN, TimeUnit::Second, false)).ends_with("08:29:52"));
        assert_eq!(text(|t| write_time(t, i64::MIN + 1, TimeUnit::Second)), "-2562047788015215:30:07");
    }

    #[test]
    fn what_is_written_is_read() {
        for days in [0, -1, 11_016, 20_777, -719_528, -719_529, 2_932_896, 2_932_897, -25_508, 2_145_042_905, i64::from(i32::MIN)] {
            let written = text(|t| write_iso_date(t, days));
            assert_eq!(parse_date(&written), Some(days), "{written}");
        }
        for unit in [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond] {
            let least = if unit == TimeUnit::Second { i64::MIN + 1 } else { i64::MIN };
            for value in [0, 1, -1, 1_500, i64::MAX, least, -3_020_399_000_000, 1_700_000_000_250_000] {
                let written = text(|t| write_time(t, value, unit));
                assert_eq!(parse_time(&written, unit), Some(value), "{written}");
                // Years of 292 billion are beyond what is read.
                if unit != TimeUnit::Second || value.abs() < 1 << 50 {
                    let written = text(|t| write_iso_timestamp(t, value, unit, true));
                    assert_eq!(parse_timestamp(&written, unit, true), Some(value), "{written}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_date_or_time_is_not_read() {
        for text in [
            "",
            "2026-02-29",
            "2026-13-01",
            "2026-1-01",
            "26-01-01",
            "2026-00-10",
            "2026-01-01 ",
            "+2026-01-01-01",
            "x026-01-01",
            "äöü-01-01",
        ] {
            assert_eq!(parse_date(text), None, "{text}");
        }
        for text in ["", "1:00", "12:60", "12:00:60", "12:00:00.", "12:00:00.0000001", "--12:00", "12", "12:00:00:00", "12:00:00.1x"] {
            assert_eq!(parse_time(text, TimeUnit::Microsecond), None, "{text}");
        }
        let micros = |text, utc| parse_timestamp(text, TimeUnit::Microsecond, utc);
        assert_eq!(micros("1970-01-01T01:00:00+01:00", true), Some(0));
        assert_eq!(micros("1970-01-01 00:00:01.50", true), Some(1_500_000));
        assert_eq!(micros("1970-01-02", false), Some(86_400_000_000));
        assert_eq!(micros("1970-01-01T00:00:00.000Z", false), Some(0));
        for text in
            ["1970-01-01T01:00:00+01:00", "1970-01-01T24:00:00", "1970-01-01T", "1970-01-01T00:00:00z", "1970-01-01T00:00:00.0000001"]
        {
            assert_eq!(micros(text, false), None, "{text}");
        }
    }
}
