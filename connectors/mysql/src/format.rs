//! The format description every binlog file begins with, and checksums.

use crate::event::{self, EventHeader, HEADER_LEN};
use crate::reader::{Cursor, Truncated};

/// Length of a checksum.
pub(crate) const CHECKSUM_LEN: usize = 4;

/// Set in the header of a format description while its file is written to; not covered by the checksum.
const FLAG_IN_USE: u8 = 1;

/// How the events of a file are written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Format {
    pub(crate) mariadb: bool,
    /// True if every event ends in a CRC32.
    pub(crate) checksums: bool,
    /// Length of the table id in table maps and rows events is six bytes; very old servers wrote four.
    pub(crate) short_table_ids: bool,
}

impl Format {
    /// Reads a FORMAT_DESCRIPTION event, given whole: header, body and, where the server is new enough, algorithm and checksum.
    pub(crate) fn parse(event: &[u8]) -> Result<Self, FormatError> {
        let mut cursor = Cursor::new(event.get(HEADER_LEN..).ok_or(FormatError::Truncated)?);
        if cursor.u16()? != 4 {
            return Err(FormatError::Version);
        }
        let server_version = cursor.take(50)?;
        cursor.skip(4)?;
        if usize::from(cursor.u8()?) != HEADER_LEN {
            return Err(FormatError::Version);
        }
        let version = server_version.split(|byte| *byte == 0).next().unwrap_or_default();
        let version = String::from_utf8_lossy(version).to_ascii_lowercase();
        let mariadb = version.contains("mariadb");
        let since = if mariadb { [5, 3, 0] } else { [5, 6, 1] };
        let algorithm = if numbers(&version) >= since {
            let rest = cursor.rest();
            let at = rest.len().checked_sub(CHECKSUM_LEN + 1).ok_or(FormatError::Truncated)?;
            rest.get(at).copied().ok_or(FormatError::Truncated)?
        } else {
            0
        };
        let checksums = match algorithm {
            // "Undefined" is what a server says that does not know checksums.
            0 | 255 => false,
            1 => true,
            _ => return Err(FormatError::Checksum),
        };
        let table_map_post_header = cursor.rest().get(usize::from(event::TABLE_MAP) - 1).copied();
        Ok(Format { mariadb, checksums, short_table_ids: table_map_post_header == Some(6) })
    }
}

/// Why a format description cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FormatError {
    Truncated,
    Version,
    Checksum,
}

impl From<Truncated> for FormatError {
    fn from(_: Truncated) -> Self {
        FormatError::Truncated
    }
}

impl FormatError {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            FormatError::Truncated => "the format description of a binlog file is too short",
            FormatError::Version => "the binlog is of a version older than MySQL 5.0",
            FormatError::Checksum => "the binlog has checksums of an unknown kind",
        }
    }
}

/// The first three numbers of a version.
fn numbers(version: &str) -> [u32; 3] {
    let mut numbers = [0; 3];
    let parts = version.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
    for (number, part) in numbers.iter_mut().zip(parts) {
        *number = part.parse().unwrap_or(u32::MAX);
    }
    numbers
}

/// True if the last four bytes of an event are the checksum of the rest.
pub(crate) fn checksum_fits(event: &[u8], header: &EventHeader) -> bool {
    let Some((covered, stored)) = event.split_last_chunk::<CHECKSUM_LEN>() else { return false };
    let computed = if header.event_type == event::FORMAT_DESCRIPTION && covered.get(17).is_some_and(|flags| flags & FLAG_IN_USE != 0) {
        let mut hasher = crc32fast::Hasher::new();
        let (before, after) = covered.split_at(17);
        hasher.update(before);
        hasher.update(&[after[0] & !FLAG_IN_USE]);
        hasher.update(&after[1..]);
        hasher.finalize()
    } else {
        crc32fast::hash(covered)
    };
    computed == u32::from_le_bytes(*stored)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn description(version: &str, algorithm: u8) -> Vec<u8> {
        let mut event = vec![0; HEADER_LEN];
        event[4] = event::FORMAT_DESCRIPTION;
        event.extend([4, 0]);
        let mut name = [0; 50];
        name[..version.len()].copy_from_slice(version.as_bytes());
        event.extend(name);
        event.extend([0, 0, 0, 0, 19]);
        event.extend([8; 40]);
        event.push(algorithm);
        let checksum = crc32fast::hash(&event);
        event.extend(checksum.to_le_bytes());
        event
    }

    #[test]
    fn the_algorithm_is_where_the_version_says() {
        for (version, algorithm, mariadb, checksums) in [
            ("9.7.4-2", 1, false, true),
            ("9.7.4-2", 0, false, false),
            ("5.5.62-log", 1, false, false),
            ("10.11.19-MariaDB-log", 1, true, true),
            ("5.3.12-MariaDB", 1, true, true),
        ] {
            let format = Format::parse(&description(version, algorithm)).unwrap();
            assert_eq!((format.mariadb, format.checksums), (mariadb, checksums), "{version}");
        }
        assert_eq!(Format::parse(&description("8.0.1", 7)).unwrap_err(), FormatError::Checksum);
        assert_eq!(Format::parse(&[0; 40]).unwrap_err(), FormatError::Version);
    }

    #[test]
    fn a_file_in_use_has_a_flag_outside_of_its_checksum() {
        let mut event = description("9.7.4", 1);
        event[17] = FLAG_IN_USE;
        let header = EventHeader::parse(event.first_chunk().unwrap());
        assert!(checksum_fits(&event, &header));
        event[30] ^= 1;
        assert!(!checksum_fits(&event, &header));
    }
}
