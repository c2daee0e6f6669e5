//! Where a change stands in its log.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::clock::TimestampMicros;
use crate::error::{Error, Result};

/// A count of how often the log started over or moved to another server.
///
/// File names and offsets of two servers do not compare, so a position begins with this number; it is kept in
/// the checkpoint and raised by the reader when the server behind the log is no longer the one it was.
pub type Incarnation = u32;

/// The place of a change in its log: 24 bytes whose memcmp order is log order.
///
/// Three big-endian `u64` words: `incarnation << 32 | file`, `commit`, `ordinal << 1 | half`.
///
/// * `file` and `commit`: where the transaction stands (MySQL: number of the binlog file, offset of the
///   transaction's first event; a log without files has file 0 and its LSN or SCN as commit).
/// * `ordinal`: the number of the row change in its transaction, from 1. Ordinal 0 is before every row of the
///   transaction, and so the position of a mark that stands between two transactions.
/// * `half`: 0 for the delete of a key change, 1 for its insert, 1 for every other change.
///
/// The text form, `hex16/hex16/hex16`, sorts as the bytes do and is the form of BigQuery's
/// `_CHANGE_SEQUENCE_NUMBER`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition([u8; 24]);

impl LogPosition {
    /// Length in bytes.
    pub const LEN: usize = 24;
    /// Length of the text form in bytes.
    pub const TEXT_LEN: usize = 50;
    /// Before everything.
    pub const MIN: LogPosition = LogPosition([0; 24]);
    /// After every position of a log.
    pub const MAX: LogPosition = LogPosition([0xff; 24]);

    /// Composes a position. `ordinal` must be below 2^63.
    #[inline]
    pub fn new(incarnation: Incarnation, file: u32, commit: u64, ordinal: u64, second_half: bool) -> Self {
        let mut bytes = [0; 24];
        bytes[0..4].copy_from_slice(&incarnation.to_be_bytes());
        bytes[4..8].copy_from_slice(&file.to_be_bytes());
        bytes[8..16].copy_from_slice(&commit.to_be_bytes());
        bytes[16..24].copy_from_slice(&(ordinal << 1 | u64::from(second_half)).to_be_bytes());
        LogPosition(bytes)
    }

    /// The bytes.
    #[inline]
    pub fn as_bytes(&self) -> &[u8; 24] {
        &self.0
    }

    /// From the bytes.
    pub fn from_bytes(bytes: [u8; 24]) -> Self {
        LogPosition(bytes)
    }

    fn word(&self, i: usize) -> u64 {
        let mut word = [0; 8];
        word.copy_from_slice(&self.0[i * 8..i * 8 + 8]);
        u64::from_be_bytes(word)
    }

    /// How often the log had started over.
    pub fn incarnation(&self) -> Incarnation {
        (self.word(0) >> 32) as u32
    }

    /// The number of the log file.
    pub fn file(&self) -> u32 {
        self.word(0) as u32
    }

    /// Where in the file the transaction begins.
    pub fn commit(&self) -> u64 {
        self.word(1)
    }

    /// The number of the row change in its transaction.
    pub fn ordinal(&self) -> u64 {
        self.word(2) >> 1
    }

    /// Writes the text form of raw position bytes into `text`. On the row path of every writer, hence no `fmt`.
    pub fn write_text(bytes: &[u8; 24], text: &mut [u8; Self::TEXT_LEN]) {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut at = 0;
        for (i, byte) in bytes.iter().enumerate() {
            if i == 8 || i == 16 {
                text[at] = b'/';
                at += 1;
            }
            text[at] = HEX[usize::from(byte >> 4)];
            text[at + 1] = HEX[usize::from(byte & 15)];
            at += 2;
        }
    }
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}/{:016x}/{:016x}", self.word(0), self.word(1), self.word(2))
    }
}

impl fmt::Debug for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for LogPosition {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::corrupt("a log position must be hex16/hex16/hex16");
        let mut bytes = [0; 24];
        let mut words = text.split('/');
        for i in 0..3 {
            let word = words.next().filter(|word| word.len() == 16).ok_or_else(bad)?;
            let word = u64::from_str_radix(word, 16).map_err(|_| bad())?;
            bytes[i * 8..i * 8 + 8].copy_from_slice(&word.to_be_bytes());
        }
        if words.next().is_some() {
            return Err(bad());
        }
        Ok(LogPosition(bytes))
    }
}

impl Serialize for LogPosition {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LogPosition {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What a connector needs to reopen its log: file and offset, GTID set, slot and LSN, SCN. Opaque to the engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SourceOffset(pub serde_json::Value);

/// A place in the log that has been passed completely: everything at or before it has been handed over, and
/// nothing after it. It always lies between two transactions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogMark {
    /// The place.
    pub position: LogPosition,
    /// How to go on from here.
    pub offset: SourceOffset,
    /// The log's clock at this place: the greatest `_metadata_timestamp` handed out so far. A reader that resumes
    /// here holds its timestamps at or above it. `None` before the first change.
    pub commit_time: Option<TimestampMicros>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn order_of_bytes_text_and_log_agree() {
        let ordered = [
            LogPosition::MIN,
            LogPosition::new(0, 1, 4, 0, false),
            LogPosition::new(0, 1, 4, 1, false),
            LogPosition::new(0, 1, 4, 1, true),
            LogPosition::new(0, 1, 4, 2, true),
            LogPosition::new(0, 1, 5_000_000_000, 0, false),
            LogPosition::new(0, 2, 4, 0, false),
            LogPosition::new(1, 1, 4, 0, false),
        ];
        for pair in ordered.windows(2) {
            assert!(pair[0] < pair[1]);
            assert!(pair[0].to_string() < pair[1].to_string());
        }
    }

    #[test]
    fn text_round_trips() {
        let position = LogPosition::new(3, 17, 0x1234_5678_9abc, 42, true);
        let mut text = [0; LogPosition::TEXT_LEN];
        LogPosition::write_text(position.as_bytes(), &mut text);
        assert_eq!(std::str::from_utf8(&text).unwrap(), position.to_string());
        assert_eq!(position.to_string().parse::<LogPosition>().unwrap(), position);
        assert_eq!((position.incarnation(), position.file(), position.commit(), position.ordinal()), (3, 17, 0x1234_5678_9abc, 42));
    }

    #[test]
    fn other_text_is_refused() {
        for text in ["", "0/0/0", "0000000000000000/0000000000000000", "zz00000000000000/0000000000000000/0000000000000000"] {
            assert!(text.parse::<LogPosition>().is_err(), "{text}");
        }
    }
}
