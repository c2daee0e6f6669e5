//! Dates and times as text, from the integers that Arrow keeps them in.
//!
//! One form per type, whatever its unit: a fraction is written only as far as it is not zero, so that a value has the
//! same text before and after its column was widened. It serves both the hash of a masked column, where that matters,
//! and the printing of query results.

use std::io::Write;

use arrow::datatypes::TimeUnit;

const SECONDS_PER_DAY: i64 = 86_400;

/// Units in a second, and the number of digits of a fraction.
fn resolution(unit: TimeUnit) -> (i64, usize) {
    match unit {
        TimeUnit::Second => (1, 0),
        TimeUnit::Millisecond => (1_000, 3),
        TimeUnit::Microsecond => (1_000_000, 6),
        TimeUnit::Nanosecond => (1_000_000_000, 9),
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar.
fn date_of(days: i64) -> (i64, u8, u8) {
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
}
