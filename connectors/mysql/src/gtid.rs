//! Global transaction identifiers: MySQL's sets and MariaDB's positions, as text and as what a log adds up to.
//!
//! A checkpoint keeps them as text, in the servers' own form, because that is what goes back to a server and what
//! people compare with `SELECT @@gtid_executed`. They come from a server or a checkpoint, so parsing is bounded.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use logweir_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// Text longer than this is refused: real sets are a few KiB, and a set with a hundred thousand gaps still fits.
const TEXT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// MySQL's largest transaction number.
const NUMBER_MAX: u64 = i64::MAX as u64;

/// MySQL's longest tag.
const TAG_BYTES_MAX: usize = 32;

/// A set of MySQL transactions: `uuid:1-5:7-9:tag:1-3,uuid:…`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MysqlGtidSet {
    /// Per source: per tag (empty for none): disjoint, ascending, not touching.
    sources: BTreeMap<[u8; 16], BTreeMap<String, Intervals>>,
}

/// Inclusive ranges of transaction numbers, ascending, with a gap between each two.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Intervals(Vec<(u64, u64)>);

impl Intervals {
    fn add(&mut self, first: u64, last: u64) {
        // A log counts upwards, so nearly every number extends the last range.
        match self.0.last_mut() {
            Some(range) if range.0 <= first && first <= range.1.saturating_add(1) => {
                range.1 = range.1.max(last);
                return;
            }
            Some(range) if first > range.1 => {
                self.0.push((first, last));
                return;
            }
            None => {
                self.0.push((first, last));
                return;
            }
            Some(_) => {}
        }
        let from = self.0.partition_point(|range| range.1.saturating_add(1) < first);
        let to = self.0.partition_point(|range| range.0 <= last.saturating_add(1));
        let merged = match self.0.get(from..to) {
            Some([only]) => (only.0.min(first), only.1.max(last)),
            Some([left, .., right]) => (left.0.min(first), right.1.max(last)),
            _ => (first, last),
        };
        self.0.splice(from..to, [merged]);
    }

    fn contains(&self, first: u64, last: u64) -> bool {
        let at = self.0.partition_point(|range| range.1 < first);
        self.0.get(at).is_some_and(|range| range.0 <= first && last <= range.1)
    }
}

impl MysqlGtidSet {
    /// The empty set.
    pub fn new() -> Self {
        MysqlGtidSet::default()
    }

    /// A set from its text: white space anywhere, any order, overlapping ranges, upper case and `uuid:tag:n` are all taken.
    pub fn parse(text: &str) -> Result<Self> {
        let mut set = MysqlGtidSet::new();
        if text.len() > TEXT_BYTES_MAX {
            return Err(malformed("a GTID set is longer than it may be"));
        }
        let text: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        for source in text.split(',').filter(|source| !source.is_empty()) {
            let mut parts = source.split(':');
            let uuid = parts.next().and_then(parse_uuid).ok_or_else(|| malformed("a GTID set must name each source by its UUID"))?;
            let mut tag = String::new();
            let mut ranges = 0;
            for part in parts {
                if part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
                    tag = parse_tag(part)?;
                    continue;
                }
                let (first, last) = parse_range(part)?;
                if first <= last {
                    set.intervals(uuid, &tag).add(first, last);
                }
                ranges += 1;
            }
            if ranges == 0 {
                return Err(malformed("a GTID set must give each source a range of transactions"));
            }
        }
        Ok(set)
    }

    /// Adds a transaction; `tag` is empty for none.
    pub fn add(&mut self, uuid: [u8; 16], tag: &str, number: u64) {
        self.intervals(uuid, tag).add(number, number);
    }

    fn intervals(&mut self, uuid: [u8; 16], tag: &str) -> &mut Intervals {
        let tags = self.sources.entry(uuid).or_default();
        // Looked up twice rather than making a `String` of the tag for every transaction.
        if !tags.contains_key(tag) {
            tags.insert(tag.to_owned(), Intervals::default());
        }
        tags.get_mut(tag).expect("the tag was inserted above")
    }

    /// True if the transaction is in the set.
    pub fn contains(&self, uuid: &[u8; 16], tag: &str, number: u64) -> bool {
        self.sources.get(uuid).and_then(|tags| tags.get(tag)).is_some_and(|intervals| intervals.contains(number, number))
    }

    /// True if every transaction of this set is in `other`.
    pub fn is_subset(&self, other: &MysqlGtidSet) -> bool {
        self.sources.iter().all(|(uuid, tags)| {
            tags.iter().all(|(tag, intervals)| {
                let theirs = other.sources.get(uuid).and_then(|tags| tags.get(tag));
                intervals.0.iter().all(|&(first, last)| theirs.is_some_and(|theirs| theirs.contains(first, last)))
            })
        })
    }

    /// Adds every transaction of `other`.
    pub fn merge(&mut self, other: &MysqlGtidSet) {
        for (uuid, tags) in &other.sources {
            for (tag, intervals) in tags {
                let mine = self.intervals(*uuid, tag);
                intervals.0.iter().for_each(|&(first, last)| mine.add(first, last));
            }
        }
    }

    /// True if there is no transaction in it.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Every source and tag with its ranges, in the order of the text form.
    pub fn ranges(&self) -> impl Iterator<Item = (&[u8; 16], &str, &[(u64, u64)])> {
        self.sources.iter().flat_map(|(uuid, tags)| tags.iter().map(move |(tag, intervals)| (uuid, tag.as_str(), intervals.0.as_slice())))
    }
}

/// `3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:7-9:tag:1`, sources separated by commas: MySQL's normal form.
impl fmt::Display for MysqlGtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (uuid, tags)) in self.sources.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write_uuid(f, uuid)?;
            for (tag, intervals) in tags {
                if !tag.is_empty() {
                    write!(f, ":{tag}")?;
                }
                for (first, last) in &intervals.0 {
                    if first == last { write!(f, ":{first}")? } else { write!(f, ":{first}-{last}")? }
                }
            }
        }
        Ok(())
    }
}

fn malformed(message: &'static str) -> Error {
    Error::config(message).remedy("write it as the server's SELECT @@gtid_executed shows it: uuid:1-5:7-9,uuid:1-3")
}

fn write_uuid(f: &mut fmt::Formatter<'_>, uuid: &[u8; 16]) -> fmt::Result {
    for (i, byte) in uuid.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            f.write_str("-")?;
        }
        write!(f, "{byte:02x}")?;
    }
    Ok(())
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let dashes_fit = match text.len() {
        36 => text.bytes().enumerate().all(|(i, byte)| (byte == b'-') == matches!(i, 8 | 13 | 18 | 23)),
        32 => !text.contains('-'),
        _ => false,
    };
    if !dashes_fit {
        return None;
    }
    let mut uuid = [0; 16];
    let mut digits = text.chars().filter(|c| *c != '-').map(|c| c.to_digit(16));
    for byte in &mut uuid {
        let (high, low) = (digits.next()??, digits.next()??);
        *byte = (high << 4 | low) as u8;
    }
    Some(uuid)
}

fn parse_tag(text: &str) -> Result<String> {
    if text.len() > TAG_BYTES_MAX || !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Err(malformed("a tag in a GTID set is up to 32 letters, digits and underscores"));
    }
    Ok(text.to_ascii_lowercase())
}

fn parse_range(text: &str) -> Result<(u64, u64)> {
    let number = |text: &str| text.parse::<u64>().ok().filter(|number| (1..=NUMBER_MAX).contains(number));
    let range = match text.split_once('-') {
        Some((first, last)) => number(first).zip(number(last)),
        None => number(text).map(|number| (number, number)),
    };
    range.ok_or_else(|| malformed("a range in a GTID set is a number from 1, or two with a hyphen"))
}

/// A MariaDB position: the last transaction of every domain, `0-1-7,1-2-9`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MariadbGtidPosition {
    domains: BTreeMap<u32, (u32, u64)>,
}

impl MariadbGtidPosition {
    /// The position before everything.
    pub fn new() -> Self {
        MariadbGtidPosition::default()
    }

    /// A position from its text, `domain-server-sequence` separated by commas, white space allowed.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |message: &'static str| {
            Error::config(message).remedy("write it as the server's SELECT @@gtid_binlog_pos shows it: 0-1-7,1-2-9")
        };
        if text.len() > TEXT_BYTES_MAX {
            return Err(bad("a GTID position is longer than it may be"));
        }
        let mut position = MariadbGtidPosition::new();
        for gtid in text.split(',').map(str::trim).filter(|gtid| !gtid.is_empty()) {
            let mut parts = gtid.split('-');
            let (domain, server, sequence) = (parts.next(), parts.next(), parts.next());
            let gtid = (|| Some((domain?.parse().ok()?, server?.parse().ok()?, sequence?.parse().ok()?)))();
            let (domain, server, sequence) = gtid
                .filter(|_| parts.next().is_none())
                .ok_or_else(|| bad("a GTID position must be domain-server-sequence, separated by commas"))?;
            if position.domains.insert(domain, (server, sequence)).is_some() {
                return Err(bad("a GTID position must name each domain once").context("domain", domain));
            }
        }
        Ok(position)
    }

    /// The domain's last transaction is now this one.
    pub fn set(&mut self, domain: u32, server: u32, sequence: u64) {
        self.domains.insert(domain, (server, sequence));
    }

    /// The server and sequence number of a domain's last transaction.
    pub fn get(&self, domain: u32) -> Option<(u32, u64)> {
        self.domains.get(&domain).copied()
    }

    /// Domain, server and sequence number, by domain.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32, u64)> {
        self.domains.iter().map(|(domain, (server, sequence))| (*domain, *server, *sequence))
    }

    /// True if no domain has a transaction.
    pub fn is_empty(&self) -> bool {
        self.domains.is_empty()
    }
}

/// `0-1-7,1-2-9`, by domain.
impl fmt::Display for MariadbGtidPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (domain, server, sequence)) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{domain}-{server}-{sequence}")?;
        }
        Ok(())
    }
}

macro_rules! text_form {
    ($($type:ty),*) => {$(
        impl FromStr for $type {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                <$type>::parse(text)
            }
        }

        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                <$type>::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    )*};
}

text_form!(MysqlGtidSet, MariadbGtidPosition);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
    const B: &str = "4e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn normalised(text: &str) -> String {
        MysqlGtidSet::parse(text).unwrap().to_string()
    }

    #[test]
    fn a_set_is_normalised() {
        assert_eq!(normalised(""), "");
        assert_eq!(normalised(&format!("{A}:1-5")), format!("{A}:1-5"));
        assert_eq!(normalised(&format!(" {B}:7 ,\n{A}:3-4:1-2 : 9")), format!("{A}:1-4:9,{B}:7"));
        assert_eq!(normalised(&format!("{A}:1-5,{A}:4-8,{A}:10:9")), format!("{A}:1-10"));
        assert_eq!(normalised(&format!("{A}:1-3:Weekly:5-6:1,{A}:weekly:2-4")), format!("{A}:1-3:weekly:1-6"));
        assert_eq!(normalised(&format!("{A}:weekly:1:2,{A}:9")), format!("{A}:9:weekly:1-2"));
        assert_eq!(normalised(&format!("{}:1", A.replace('-', "").to_uppercase())), format!("{A}:1"));
        // An empty range is what a server shows for a source it knows without transactions.
        assert_eq!(normalised(&format!("{A}:5-4")), "");
    }

    #[test]
    fn other_text_is_refused() {
        for text in ["x", A, &A[1..], ":1", "3e11fa47-71ca-11e1-9e33-c80aa942956g:1"] {
            assert!(MysqlGtidSet::parse(text).is_err(), "{text}");
        }
        for ranges in ["0", "", "1-", "-1", "1-2-3", "9223372036854775808", "a-b:1", "tag", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa:1"] {
            assert!(MysqlGtidSet::parse(&format!("{A}:{ranges}")).is_err(), "{ranges}");
        }
        assert!(MysqlGtidSet::parse(&"1".repeat(TEXT_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn subsets() {
        for (small, large, expected) in [
            (String::new(), String::new(), true),
            (format!("{A}:2-3"), format!("{A}:1-5"), true),
            (format!("{A}:2-6"), format!("{A}:1-5:6-7"), true),
            (format!("{A}:2-7"), format!("{A}:1-5:7-9"), false),
            (format!("{A}:2"), format!("{B}:1-5"), false),
            (format!("{A}:t:2"), format!("{A}:1-5"), false),
            (format!("{A}:1:t:2"), format!("{A}:1-5:t:1-2"), true),
        ] {
            let (left, right) = (MysqlGtidSet::parse(&small).unwrap(), MysqlGtidSet::parse(&large).unwrap());
            assert_eq!(left.is_subset(&right), expected, "{small} in {large}");
            let mut both = right.clone();
            both.merge(&left);
            assert!(left.is_subset(&both) && right.is_subset(&both));
        }
    }

    #[test]
    fn a_mariadb_position_round_trips() {
        let mut position = MariadbGtidPosition::parse(" 7-1-9 , 0-1-7").unwrap();
        assert_eq!(position.to_string(), "0-1-7,7-1-9");
        position.set(0, 3, 8);
        assert_eq!((position.get(0), position.get(1)), (Some((3, 8)), None));
        assert_eq!(serde_json::to_string(&position).unwrap(), r#""0-3-8,7-1-9""#);
        assert_eq!(serde_json::from_str::<MariadbGtidPosition>(r#""0-3-8,7-1-9""#).unwrap(), position);
        for text in ["0-1", "0-1-2-3", "a-1-2", "0-1-2,0-1-3", "4294967296-1-1"] {
            assert!(MariadbGtidPosition::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_set_holds_what_was_added(numbers in prop::collection::vec(1u64..60, 0..80)) {
            let uuid = parse_uuid(A).unwrap();
            let mut set = MysqlGtidSet::new();
            let mut naive = BTreeSet::new();
            for number in numbers {
                set.add(uuid, "", number);
                naive.insert(number);
                prop_assert!((0..70).all(|n| set.contains(&uuid, "", n) == naive.contains(&n)));
            }
            prop_assert_eq!(MysqlGtidSet::parse(&set.to_string()).unwrap(), set);
        }

        #[test]
        fn any_text_is_taken_or_refused(text in "\\PC{0,60}", tail in "[-0-9:,a-f ]{0,40}") {
            let _ = MysqlGtidSet::parse(&text);
            let _ = MysqlGtidSet::parse(&format!("{A}:{tail}"));
            let _ = MariadbGtidPosition::parse(&text);
            let _ = MariadbGtidPosition::parse(&tail);
        }
    }
}
