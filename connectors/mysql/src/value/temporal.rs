//! Dates and times: packed fields to days and microseconds, in integers throughout.
//!
//! The calendar is the proleptic Gregorian one, as MySQL's: year 0 exists, and no days are missing in 1582. What the
//! server stores and no calendar has ('0000-00-00', '2020-00-10', '2020-02-31') is an error, never another day.
//! The packed forms are those of MySQL 5.6 and later (MySQL internals, "Date and Time Data Type Representation") and,
//! with names ending in `_old`, those of before, which a table keeps until it is rebuilt.

use super::{ValueError, ValueResult, big_endian};

/// Microseconds of a second.
const SECOND: i64 = 1_000_000;
/// Microseconds of a day.
const DAY: i64 = 86_400 * SECOND;

const LENGTH: ValueError = ValueError::new("a date or time value does not have the length of its type");
const ZERO_DATE: ValueError = ValueError::new("zero date ('0000-00-00') is not a calendar day");
const PARTIAL_DATE: ValueError = ValueError::new("a date with a zero month or day is not a calendar day");
const NOT_A_DAY: ValueError = ValueError::new("not a calendar day");
const NOT_A_TIME: ValueError = ValueError::new("not a time of day");
const NOT_A_DURATION: ValueError = ValueError::new("a TIME value is out of the range ±838:59:59.999999");
const ZERO_TIMESTAMP: ValueError = ValueError::new("zero timestamp ('0000-00-00 00:00:00') is not a point in time");

/// Bytes of the fraction of a value with `fsp` fractional digits.
pub(crate) fn fraction_len(fsp: u8) -> usize {
    usize::from(fsp.min(6).div_ceil(2))
}

/// Bytes of a `DATETIME(fsp)`.
pub(crate) fn datetime2_len(fsp: u8) -> usize {
    5 + fraction_len(fsp)
}

/// Bytes of a `TIMESTAMP(fsp)`.
pub(crate) fn timestamp2_len(fsp: u8) -> usize {
    4 + fraction_len(fsp)
}

/// Bytes of a `TIME(fsp)`.
pub(crate) fn time2_len(fsp: u8) -> usize {
    3 + fraction_len(fsp)
}

/// Days since 1970-01-01 of a `DATE`: 15 bits of year, 4 of month, 5 of day, little-endian.
pub(crate) fn date(bytes: &[u8]) -> ValueResult<i32> {
    let &[a, b, c] = bytes else { return Err(LENGTH) };
    let packed = u32::from_le_bytes([a, b, c, 0]);
    days(packed >> 9, packed >> 5 & 15, packed & 31)
}

/// Microseconds since 1970-01-01 00:00:00 of a `DATETIME(fsp)`, in no zone.
pub(crate) fn datetime2(bytes: &[u8], fsp: u8) -> ValueResult<i64> {
    if bytes.len() != datetime2_len(fsp) {
        return Err(LENGTH);
    }
    let (fields, fraction) = bytes.split_at(5);
    let fraction = microseconds(fraction)?;
    // The first bit is the sign, always positive, inverted.
    let fields = big_endian(fields);
    if fields >> 39 == 0 {
        return Err(NOT_A_DAY);
    }
    let months = (fields >> 22 & 0x1_ffff) as u32;
    let days = days(months / 13, months % 13, (fields >> 17 & 31) as u32)?;
    let time = time_of_day((fields >> 12 & 31) as u32, (fields >> 6 & 63) as u32, (fields & 63) as u32)?;
    Ok(i64::from(days) * DAY + time + fraction)
}

/// Microseconds since 1970-01-01 00:00:00 UTC of a `TIMESTAMP(fsp)`; unsigned seconds, as MariaDB 11.5 extends them to 2106.
pub(crate) fn timestamp2(bytes: &[u8], fsp: u8) -> ValueResult<i64> {
    if bytes.len() != timestamp2_len(fsp) {
        return Err(LENGTH);
    }
    let (seconds, fraction) = bytes.split_at(4);
    match big_endian(seconds) as i64 * SECOND + microseconds(fraction)? {
        0 => Err(ZERO_TIMESTAMP),
        micros => Ok(micros),
    }
}

/// Microseconds of a `TIME(fsp)`, which is a duration of either sign.
pub(crate) fn time2(bytes: &[u8], fsp: u8) -> ValueResult<i64> {
    if bytes.len() != time2_len(fsp) {
        return Err(LENGTH);
    }
    // The fields and the fraction are one number, moved up by half its range so that memcmp orders it: only its
    // absolute value can be taken apart. -00:00:00.5 is 0x7FFFFF 0xCE.
    let fraction_bits = fraction_len(fsp) as u32 * 8;
    let number = big_endian(bytes) as i64 - (0x80_0000 << fraction_bits);
    let absolute = number.unsigned_abs();
    let fields = (absolute >> fraction_bits) as u32;
    let fraction = (absolute & ((1 << fraction_bits) - 1)) as i64 * fraction_unit(fraction_len(fsp));
    let micros = duration(fields >> 12, fields >> 6 & 63, fields & 63, fraction)?;
    Ok(if number < 0 { -micros } else { micros })
}

/// A `DATETIME` of before MySQL 5.6: `YYYYMMDDhhmmss` as a decimal number.
pub(crate) fn datetime_old(number: u64) -> ValueResult<i64> {
    let (date, time) = (number / 1_000_000, (number % 1_000_000) as u32);
    let date = u32::try_from(date).map_err(|_| NOT_A_DAY)?;
    let days = days(date / 10_000, date / 100 % 100, date % 100)?;
    Ok(i64::from(days) * DAY + time_of_day(time / 10_000, time / 100 % 100, time % 100)?)
}

/// A `TIMESTAMP` of before MySQL 5.6: seconds UTC.
pub(crate) fn timestamp_old(seconds: u32) -> ValueResult<i64> {
    if seconds == 0 { Err(ZERO_TIMESTAMP) } else { Ok(i64::from(seconds) * SECOND) }
}

/// A `TIME` of before MySQL 5.6: `hhmmss` as a signed decimal number, of three bytes in the row.
pub(crate) fn time_old(number: i32) -> ValueResult<i64> {
    let absolute = number.unsigned_abs();
    let micros = duration(absolute / 10_000, absolute / 100 % 100, absolute % 100, 0)?;
    Ok(if number < 0 { -micros } else { micros })
}

/// A `YEAR`: 1901 to 2155, and 0 for '0000'.
pub(crate) fn year(byte: u8) -> i16 {
    if byte == 0 { 0 } else { 1900 + i16::from(byte) }
}

/// Days since 1970-01-01 of a day that exists.
pub(crate) fn days(year: u32, month: u32, day: u32) -> ValueResult<i32> {
    const LENGTHS: [u32; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    if month == 0 || day == 0 {
        return Err(if year == 0 && month == 0 && day == 0 { ZERO_DATE } else { PARTIAL_DATE });
    }
    let Some(length) = LENGTHS.get(month as usize - 1) else { return Err(NOT_A_DAY) };
    let leap = || year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    if year > 9999 || (day > *length && !(day == 29 && month == 2 && leap())) {
        return Err(NOT_A_DAY);
    }
    // Years begin in March here, so that the leap day is the last of one. 400 years more keep year 0 above zero.
    let (year, month) = if month > 2 { (year + 400, month - 3) } else { (year + 399, month + 9) };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + day_of_year;
    // 0000-03-01 is 719,468 days before the epoch, and 400 years have 146,097 days.
    Ok(days as i32 - 719_468 - 146_097)
}

/// Microseconds since 1970-01-01 00:00:00 of a `DATETIME` by its fields.
pub(crate) fn datetime([year, month, day]: [u32; 3], [hour, minute, second]: [u32; 3], micros: u32) -> ValueResult<i64> {
    if i64::from(micros) >= SECOND {
        return Err(NOT_A_TIME);
    }
    Ok(i64::from(days(year, month, day)?) * DAY + time_of_day(hour, minute, second)? + i64::from(micros))
}

/// The same of a `TIMESTAMP` in UTC.
pub(crate) fn timestamp(date: [u32; 3], time: [u32; 3], micros: u32) -> ValueResult<i64> {
    if date == [0; 3] { Err(ZERO_TIMESTAMP) } else { datetime(date, time, micros) }
}

/// Microseconds since midnight.
fn time_of_day(hour: u32, minute: u32, second: u32) -> ValueResult<i64> {
    if hour > 23 || minute > 59 || second > 59 {
        return Err(NOT_A_TIME);
    }
    Ok(i64::from(hour * 3600 + minute * 60 + second) * SECOND)
}

/// Microseconds of a `TIME` without its sign.
pub(crate) fn duration(hours: u32, minutes: u32, seconds: u32, fraction: i64) -> ValueResult<i64> {
    if hours > 838 || minutes > 59 || seconds > 59 || fraction >= SECOND {
        return Err(NOT_A_DURATION);
    }
    Ok(i64::from(hours * 3600 + minutes * 60 + seconds) * SECOND + fraction)
}

/// Microseconds that a unit of a fraction of `length` bytes stands for: hundredths, ten-thousandths, millionths.
fn fraction_unit(length: usize) -> i64 {
    match length {
        0 => 0,
        1 => 10_000,
        2 => 100,
        _ => 1,
    }
}

/// A positive fraction as microseconds.
fn microseconds(fraction: &[u8]) -> ValueResult<i64> {
    let micros = big_endian(fraction) as i64 * fraction_unit(fraction.len());
    if micros < SECOND { Ok(micros) } else { Err(NOT_A_TIME) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pack_date(year: u32, month: u32, day: u32) -> [u8; 3] {
        let [a, b, c, _] = (year << 9 | month << 5 | day).to_le_bytes();
        [a, b, c]
    }

    /// A packed value as the server writes it: `fields` and microseconds of one sign, plus an offset, cut to its length.
    fn pack(fields: i64, micros: i64, offset: i64, length: usize, fsp: u8) -> Vec<u8> {
        let fraction_length = fraction_len(fsp);
        let fraction = micros / [i64::MAX, 10_000, 100, 1][fraction_length];
        let number = (fields << (8 * fraction_length)) + fraction + (offset << (8 * fraction_length));
        number.to_be_bytes()[8 - length..].to_vec()
    }

    fn pack_datetime(fields: [i64; 6], micros: i64, fsp: u8) -> Vec<u8> {
        let [year, month, day, hour, minute, second] = fields;
        let number = (year * 13 + month) << 22 | day << 17 | hour << 12 | minute << 6 | second;
        pack(number, micros, 1 << 39, datetime2_len(fsp), fsp)
    }

    fn pack_time(negative: bool, [hour, minute, second]: [i64; 3], micros: i64, fsp: u8) -> Vec<u8> {
        let sign = if negative { -1 } else { 1 };
        pack(sign * (hour << 12 | minute << 6 | second), sign * micros, 0x80_0000, time2_len(fsp), fsp)
    }

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
    }

    #[test]
    fn known_days() {
        for (year, month, day, number) in [
            (1970, 1, 1, 0),
            (1969, 12, 31, -1),
            (2000, 2, 29, 11_016),
            (2024, 12, 31, 20_088),
            (1582, 10, 10, -141_432),
            (1, 1, 1, -719_162),
            (0, 1, 1, -719_528),
            (0, 2, 29, -719_469),
            (9999, 12, 31, 2_932_896),
        ] {
            assert_eq!(date(&pack_date(year, month, day)), Ok(number), "{year}-{month}-{day}");
        }
    }

    #[test]
    fn every_day_of_ten_thousand_years_follows_the_one_before() {
        let mut expected = -719_528;
        for year in 0..=9999u32 {
            for month in 1..=12 {
                let length = match month {
                    2 if year % 400 == 0 || (year % 4 == 0 && year % 100 != 0) => 29,
                    2 => 28,
                    4 | 6 | 9 | 11 => 30,
                    _ => 31,
                };
                for day in 1..=length {
                    assert_eq!(days(year, month, day), Ok(expected));
                    expected += 1;
                }
                assert_eq!(days(year, month, length + 1), Err(NOT_A_DAY));
            }
        }
        assert_eq!(expected, 2_932_897);
    }

    #[test]
    fn what_no_calendar_has_says_why() {
        assert_eq!(date(&pack_date(0, 0, 0)), Err(ZERO_DATE));
        assert_eq!(date(&pack_date(2020, 0, 10)), Err(PARTIAL_DATE));
        assert_eq!(date(&pack_date(2020, 10, 0)), Err(PARTIAL_DATE));
        assert_eq!(date(&pack_date(2020, 2, 31)), Err(NOT_A_DAY));
        assert_eq!(date(&pack_date(1900, 2, 29)), Err(NOT_A_DAY));
        assert_eq!(date(&pack_date(2020, 13, 1)), Err(NOT_A_DAY));
        assert_eq!(date(&pack_date(10_000, 1, 1)), Err(NOT_A_DAY));
        assert_eq!(date(&[0; 2]), Err(LENGTH));
        assert_eq!(datetime2(&pack_datetime([0; 6], 0, 0), 0), Err(ZERO_DATE));
        assert_eq!(datetime2(&pack_datetime([2020, 0, 10, 1, 2, 3], 0, 6), 6), Err(PARTIAL_DATE));
        assert_eq!(datetime2(&pack_datetime([2020, 1, 1, 24, 0, 0], 0, 0), 0), Err(NOT_A_TIME));
        assert_eq!(datetime2(&pack_datetime([2020, 1, 1, 0, 60, 0], 0, 0), 0), Err(NOT_A_TIME));
        assert_eq!(datetime2(&[0; 5], 0), Err(NOT_A_DAY));
        assert_eq!(datetime2(&[0; 5], 1), Err(LENGTH));
        assert_eq!(datetime_old(0), Err(ZERO_DATE));
        assert_eq!(datetime_old(u64::MAX), Err(NOT_A_DAY));
        assert_eq!(timestamp2(&[0; 7], 6), Err(ZERO_TIMESTAMP));
        assert_eq!(timestamp_old(0), Err(ZERO_TIMESTAMP));
        assert_eq!(time2(&[0; 3], 0), Err(NOT_A_DURATION));
        assert_eq!(time_old(8_390_000), Err(NOT_A_DURATION));
    }

    #[test]
    fn packed_forms_as_servers_wrote_them() {
        // Of a row that MySQL 9.7 and MariaDB 10.11 logged in the same bytes.
        let second = 20_088 * DAY + 86_399 * SECOND;
        assert_eq!(date(&hex("9fd10f")), Ok(20_088));
        assert_eq!(datetime2(&hex("99b53f7efb"), 0), Ok(second));
        assert_eq!(datetime2(&hex("99b53f7efb04ce"), 3), Ok(second + 123_000));
        assert_eq!(datetime2(&hex("99b53f7efb01e240"), 6), Ok(second + 123_456));
        assert_eq!(timestamp2(&hex("6774857f"), 0), Ok(second));
        assert_eq!(timestamp2(&hex("6774857f5a"), 1), Ok(second + 900_000));
        assert_eq!(timestamp2(&hex("6774857f01e240"), 6), Ok(second + 123_456));
        let longest = (838 * 3600 + 59 * 60 + 59) * SECOND;
        assert_eq!(time2(&hex("4b9105"), 0), Ok(-longest));
        assert_eq!(time2(&hex("7fffffce"), 1), Ok(-500_000));
        assert_eq!(time2(&hex("7ffffeff"), 2), Ok(-1_010_000));
        assert_eq!(time2(&hex("7f3747e12e"), 3), Ok(-((12 * 3600 + 34 * 60 + 56) * SECOND + 789_000)));
        assert_eq!(time2(&hex("b46efb0000"), 4), Ok(longest));
        assert_eq!(time2(&hex("7ffffffffff6"), 5), Ok(-10));
        assert_eq!(time2(&hex("4b9105ffffff"), 6), Ok(-(longest - SECOND + 1)));
        // The examples of the server's source: -00:00:00.01 and its neighbours in TIME(2).
        assert_eq!(time2(&hex("80000000"), 2), Ok(0));
        assert_eq!(time2(&hex("7fffffff"), 2), Ok(-10_000));
        assert_eq!(time2(&hex("7fffff9d"), 2), Ok(-990_000));
        assert_eq!(time2(&hex("7fffff00"), 2), Ok(-SECOND));
        assert_eq!(time2(&hex("7ffffeff"), 2), Ok(-1_010_000));
        assert_eq!(time2(&hex("7ffffef6"), 2), Ok(-1_100_000));
    }

    #[test]
    fn old_forms() {
        assert_eq!(datetime_old(20_241_231_235_959), Ok(20_088 * DAY + 86_399 * SECOND));
        assert_eq!(timestamp_old(u32::MAX), Ok(i64::from(u32::MAX) * SECOND));
        assert_eq!(time_old(-8_385_959), Ok(-(838 * 3600 + 59 * 60 + 59) * SECOND));
        assert_eq!(time_old(102), Ok(62 * SECOND));
        assert_eq!([year(0), year(1), year(255)], [0, 1901, 2155]);
    }

    proptest! {
        #[test]
        fn a_datetime_is_its_day_and_time(
            day in -719_528i32..2_932_897, time in 0i64..86_400, micros in 0i64..1_000_000, fsp in 0u8..=6,
        ) {
            let micros = micros / 10i64.pow(u32::from(6 - fsp)) * 10i64.pow(u32::from(6 - fsp));
            let (year, month, of_month) = civil(day);
            let fields = [year, month, of_month, time / 3600, time / 60 % 60, time % 60];
            prop_assert_eq!(datetime2(&pack_datetime(fields, micros, fsp), fsp), Ok(i64::from(day) * DAY + time * SECOND + micros));
        }

        #[test]
        fn a_time_is_a_duration_of_either_sign(
            negative: bool, hour in 0i64..=838, minute in 0i64..60, second in 0i64..60, micros in 0i64..1_000_000, fsp in 0u8..=6,
        ) {
            let micros = micros / 10i64.pow(u32::from(6 - fsp)) * 10i64.pow(u32::from(6 - fsp));
            let absolute = (hour * 3600 + minute * 60 + second) * SECOND + micros;
            let packed = pack_time(negative, [hour, minute, second], micros, fsp);
            prop_assert_eq!(time2(&packed, fsp), Ok(if negative { -absolute } else { absolute }));
        }

        #[test]
        fn a_timestamp_is_its_seconds(seconds in 1u32.., micros in 0i64..1_000_000) {
            let packed = [&seconds.to_be_bytes()[..], &micros.to_be_bytes()[5..]].concat();
            prop_assert_eq!(timestamp2(&packed, 6), Ok(i64::from(seconds) * SECOND + micros));
        }

        #[test]
        fn any_bytes_are_a_time_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..10), fsp: u8, old: u64) {
            let _ = (date(&bytes), datetime2(&bytes, fsp), timestamp2(&bytes, fsp), time2(&bytes, fsp));
            let _ = (datetime_old(old), time_old(old as i32), timestamp_old(old as u32));
        }
    }

    /// Year, month and day by counting, the slow way.
    fn civil(mut day: i32) -> (i64, i64, i64) {
        day += 719_528;
        let leap = |year: i64| year % 400 == 0 || (year % 4 == 0 && year % 100 != 0);
        let mut year = 0;
        while day >= 365 + i32::from(leap(year)) {
            day -= 365 + i32::from(leap(year));
            year += 1;
        }
        let mut month = 1;
        for length in [31, 28 + i32::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
            if day < length {
                break;
            }
            day -= length;
            month += 1;
        }
        (year, month, i64::from(day) + 1)
    }
}
