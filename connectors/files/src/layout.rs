//! Where files lie and what they are called.
//!
//! * Data: `<url>/<path template>/<stream>-<first position>-<run>-<number>.parquet`. The position is the 48 hexadecimal digits
//!   of the file's first change, so names of a table sort in log order; run and number make a name that is never used
//!   twice, so nothing is ever overwritten.
//! * Ours: `<url>/_logweir/…`. Lake readers skip names that begin with `_` or `.`.
//!
//! A name from the source becomes one path segment: whatever a path, a URL or an object store could misread is percent-encoded,
//! and so is a leading `_` or `.`, which would hide the table.

use std::fmt::Write;

use chrono::{DateTime, Datelike, Days, Months, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Timelike};
use logweir_core::{ConsumerName, Error, LogPosition, RelationName, Result};

/// The folder below the destination's URL that is not data.
pub const PRIVATE_FOLDER: &str = "_logweir";

/// The folders of a row: a template of `{schema} {table} {stream}` and, of the row's `_metadata_timestamp` in UTC,
/// `{yyyy} {mm} {dd} {hh}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathTemplate {
    pieces: Vec<Piece>,
    unit: Unit,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Schema,
    Table,
    Stream,
    Year,
    Month,
    Day,
    Hour,
}

/// The finest part of time in a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Unit {
    Ever,
    Year,
    Month,
    Day,
    Hour,
}

/// The rows that share a folder, by `_metadata_timestamp` in microseconds: from `start` to before `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Period {
    /// The first microsecond.
    pub start: i64,
    /// The first microsecond of the next one; `i64::MAX` for the last there can be.
    pub end: i64,
}

impl Period {
    /// True if a row with this timestamp belongs here.
    pub fn contains(&self, timestamp: i64) -> bool {
        (self.start..self.end).contains(&timestamp)
    }
}

impl PathTemplate {
    /// Parses the configured text.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |message: &'static str| Error::config(message).context("path", text);
        let mut pieces = Vec::new();
        let mut rest = text.trim_matches('/');
        while !rest.is_empty() {
            let (plain, tail) = rest.split_at(rest.find('{').unwrap_or(rest.len()));
            if plain.contains('}') {
                return Err(bad("path has a } without its {"));
            }
            if !plain.is_empty() {
                pieces.push(Piece::Text(plain.to_owned()));
            }
            let Some(tail) = tail.strip_prefix('{') else { break };
            let (name, tail) = tail.split_once('}').ok_or_else(|| bad("path has a { without its }"))?;
            pieces.push(match name {
                "schema" => Piece::Schema,
                "table" => Piece::Table,
                "stream" => Piece::Stream,
                "yyyy" => Piece::Year,
                "mm" => Piece::Month,
                "dd" => Piece::Day,
                "hh" => Piece::Hour,
                _ => {
                    return Err(bad("path has an unknown placeholder")
                        .context("placeholder", name)
                        .remedy("there are {schema} {table} {stream} {yyyy} {mm} {dd} {hh}"));
                }
            });
            rest = tail;
        }
        let unit = pieces.iter().map(Piece::unit).max().unwrap_or(Unit::Ever);
        let template = PathTemplate { pieces, unit };
        template.check_segments(text)?;
        Ok(template)
    }

    /// Looks at the folders an ordinary table would get: all must be names that readers take for data.
    fn check_segments(&self, text: &str) -> Result<()> {
        if self.pieces.is_empty() {
            return Ok(());
        }
        for segment in self.folder("stream", &RelationName::new("schema", "table"), 0)?.split('/') {
            let problem = match segment {
                "" => "path has an empty folder",
                "." | ".." => "path may not use . or ..",
                _ if segment.starts_with(['_', '.']) => "path has a folder that begins with _ or ., which readers skip",
                _ if segment.contains(|c: char| c.is_control() || c == '\\') => "path has a character that no folder can have",
                _ => continue,
            };
            return Err(Error::config(problem).context("path", text));
        }
        Ok(())
    }

    /// The folder of rows of `relation` at `timestamp`, without a slash at either end.
    pub fn folder(&self, stream: &str, relation: &RelationName, timestamp: i64) -> Result<String> {
        let time = civil(timestamp)?;
        let mut folder = String::new();
        for piece in &self.pieces {
            // Writing to a string cannot fail.
            let _ = match piece {
                Piece::Text(text) => folder.write_str(text),
                Piece::Schema => folder.write_str(&segment(&relation.schema)),
                Piece::Table => folder.write_str(&segment(&relation.table)),
                Piece::Stream => folder.write_str(&segment(stream)),
                Piece::Year => write!(folder, "{:04}", time.year()),
                Piece::Month => write!(folder, "{:02}", time.month()),
                Piece::Day => write!(folder, "{:02}", time.day()),
                Piece::Hour => write!(folder, "{:02}", time.hour()),
            };
        }
        Ok(folder)
    }

    /// The folder below which all files of a relation lie, whatever their time: the leading part of [`folder`](Self::folder) that no time is in.
    pub fn common_folder(&self, stream: &str, relation: &RelationName) -> Result<String> {
        /// 2021-12-31T23:00:00Z, which shares no year, month, day or hour with the beginning of time.
        const OTHER_TIME: i64 = 1_640_991_600_000_000;
        let (one, other) = (self.folder(stream, relation, 0)?, self.folder(stream, relation, OTHER_TIME)?);
        let common: Vec<&str> = one.split('/').zip(other.split('/')).take_while(|(one, other)| one == other).map(|(one, _)| one).collect();
        Ok(common.join("/"))
    }

    /// The period around `timestamp`.
    pub fn period(&self, timestamp: i64) -> Result<Period> {
        let date = |time: NaiveDateTime, month: u32, day: u32| NaiveDate::from_ymd_opt(time.year(), month, day);
        let time = civil(timestamp)?;
        let midnight = |date: NaiveDate| date.and_time(NaiveTime::MIN);
        let (start, end) = match self.unit {
            Unit::Ever => return Ok(Period { start: i64::MIN, end: i64::MAX }),
            Unit::Year => {
                let start = date(time, 1, 1).map(midnight);
                (start, start.and_then(|start| start.checked_add_months(Months::new(12))))
            }
            Unit::Month => {
                let start = date(time, time.month(), 1).map(midnight);
                (start, start.and_then(|start| start.checked_add_months(Months::new(1))))
            }
            Unit::Day => {
                let start = Some(midnight(time.date()));
                (start, start.and_then(|start| start.checked_add_days(Days::new(1))))
            }
            Unit::Hour => {
                let start = time.date().and_hms_opt(time.hour(), 0, 0);
                (start, start.and_then(|start| start.checked_add_signed(TimeDelta::hours(1))))
            }
        };
        let micros = |time: NaiveDateTime| time.and_utc().timestamp_micros();
        Ok(Period { start: start.map_or(i64::MIN, micros), end: end.map_or(i64::MAX, micros) })
    }
}

impl Piece {
    fn unit(&self) -> Unit {
        match self {
            Piece::Year => Unit::Year,
            Piece::Month => Unit::Month,
            Piece::Day => Unit::Day,
            Piece::Hour => Unit::Hour,
            Piece::Text(_) | Piece::Schema | Piece::Table | Piece::Stream => Unit::Ever,
        }
    }
}

fn civil(timestamp: i64) -> Result<NaiveDateTime> {
    DateTime::from_timestamp_micros(timestamp)
        .map(|time| time.naive_utc())
        .ok_or_else(|| Error::data("a commit time lies outside the calendar").context("microseconds", timestamp))
}

/// `name` as one path segment.
pub fn segment(name: &str) -> String {
    let mut segment = String::with_capacity(name.len());
    for (i, c) in name.chars().enumerate() {
        let hidden = i == 0 && matches!(c, '_' | '.');
        let unsafe_anywhere = c.is_control()
            || matches!(
                c,
                '/' | '\\' | '%' | '?' | '#' | '*' | '"' | '\'' | '<' | '>' | '|' | ':' | '{' | '}' | '[' | ']' | '^' | '`' | '~'
            );
        if hidden || unsafe_anywhere {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                let _ = write!(segment, "%{byte:02X}");
            }
        } else {
            segment.push(c);
        }
    }
    if segment.is_empty() { "%00".to_owned() } else { segment }
}

/// The name of a data file.
pub(crate) fn file_name(stream: &str, first: LogPosition, run: &str, number: u64) -> String {
    let position = first.to_string().replace('/', "");
    format!("{}-{position}-{run}-{number:04}.parquet", segment(stream))
}

/// A folder of ours that belongs to one consumer, without a slash at either end.
pub(crate) fn private_folder(kind: &str, consumer: &ConsumerName) -> String {
    format!("{PRIVATE_FOLDER}/{kind}/{}/{}", segment(&consumer.stream), segment(&consumer.destination))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000_000;

    #[test]
    fn a_template_gives_the_folder_of_a_row() {
        let relation = RelationName::new("shop", "orders");
        // 2026-11-20T13:05:00Z
        let time = 1_795_179_900_000_000;
        for (template, expected) in [
            ("{schema}/{table}/dt={yyyy}-{mm}-{dd}/", "shop/orders/dt=2026-11-20"),
            ("/raw/{stream}/{table}/{yyyy}/{mm}/{dd}/{hh}/", "raw/s/orders/2026/11/20/13"),
            ("{schema}.{table}", "shop.orders"),
            ("", ""),
        ] {
            assert_eq!(PathTemplate::parse(template).unwrap().folder("s", &relation, time).unwrap(), expected);
        }
    }

    #[test]
    fn mistakes_in_a_template_are_named() {
        for (template, expected) in [
            ("{schema}/{tabel}/", "tabel"),
            ("{schema", "without its }"),
            ("schema}", "without its {"),
            ("a//{table}", "empty folder"),
            ("../{table}", ".."),
            ("_raw/{table}", "readers skip"),
        ] {
            let error = PathTemplate::parse(template).unwrap_err().to_string();
            assert!(error.contains(expected), "{template}: {error}");
        }
    }

    #[test]
    fn periods_touch_and_contain_their_rows() {
        for template in ["{yyyy}", "{yyyy}/{mm}", "{yyyy}-{mm}-{dd}", "{yyyy}-{mm}-{dd}/{hh}", "{table}"] {
            let template = PathTemplate::parse(template).unwrap();
            for time in [0, -1, DAY * 59 + 7, DAY * 20_000 + 3_599_999_999, -DAY * 400_000] {
                let period = template.period(time).unwrap();
                assert!(period.contains(time), "{template:?} {time}");
                if period.end != i64::MAX {
                    assert_eq!(template.period(period.end).unwrap().start, period.end);
                    assert_eq!(template.period(period.end - 1).unwrap(), period);
                }
            }
        }
        assert_eq!(PathTemplate::parse("{dd}").unwrap().period(5).unwrap(), Period { start: 0, end: DAY });
        assert!(PathTemplate::parse("{dd}").unwrap().period(i64::MAX).is_err());
    }

    #[test]
    fn a_name_stays_one_visible_segment() {
        for (name, expected) in [
            ("orders", "orders"),
            ("_orders_", "%5Forders_"),
            (".hidden", "%2Ehidden"),
            ("..", "%2E."),
            ("a/b%c\n", "a%2Fb%25c%0A"),
            ("größe", "größe"),
            ("", "%00"),
        ] {
            assert_eq!(segment(name), expected);
        }
    }

    #[test]
    fn file_names_sort_in_log_order() {
        let names = [(1, 4, 1), (1, 5_000_000_000, 1), (2, 4, 1)]
            .map(|(file, commit, ordinal)| file_name("shop", LogPosition::new(0, file, commit, ordinal, true), "0a1b2c3d", 7));
        assert!(names.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(names[0], "shop-000000000000000100000000000000040000000000000003-0a1b2c3d-0007.parquet");
    }
}
