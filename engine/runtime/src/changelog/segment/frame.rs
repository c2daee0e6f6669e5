//! Frames: what a segment is a row of.
//!
//! ```text
//! offset bytes
//!      0     4  "LWF2"
//!      4     4  CRC-32 (IEEE) of everything behind it: the rest of the header, and the payload
//!      8     1  kind
//!      9     1  flags
//!     10     2  zero
//!     12     4  number of the relation in the segment; zero if it is about none
//!     16     8  length of the payload
//!     24     8  number of the entry in the change log
//!     32    24  position of the last change, or of the mark
//!     56     8  commit time of that change or mark in microseconds since 1970; the least number if there is none
//!     64     8  bytes that the batch takes in memory
//!     72     4  rows
//!     76     4  CRC-32 of the header's bytes 8 to 76, so that a frame can be stepped over without reading its payload
//! ```
//!
//! Bit 0 of the flags: the frame repeats what an earlier segment holds. Bit 1, of the mark that a segment begins with: entries of the
//! earlier segment lie behind it. Numbers are little endian. The payload is padded to a multiple of [`ALIGNMENT`], so that Arrow's buffers lie where Arrow likes them.
//!
//! "LWF1" was the first form. It had no checksum of the header, and numbers were left out where a relation was announced again, so that
//! a gap and a loss looked alike: such frames are taken for none, and a log of them for one that does not hold what the checkpoint says.

use logweir_core::{LogPosition, TimestampMicros};

/// Bytes of a header.
pub(super) const HEADER_BYTES: usize = 80;
/// Of payloads and of the sections in them.
pub(super) const ALIGNMENT: usize = 64;
/// A longer payload is none: the largest batch is of one row, and no source has rows of this size.
pub(super) const PAYLOAD_BYTES_MAX: u64 = 1 << 34;

const MAGIC: [u8; 4] = *b"LWF2";
const NO_TIME: i64 = i64::MIN;
const REPEATS: u8 = 1;
const WITHIN: u8 = 2;
/// Where the header's own checksum stands, and what it is of ends.
const HEADER_CHECKSUM_AT: usize = 76;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A relation, and the Arrow schema of its batches.
    Relation = 1,
    /// A batch of changes.
    Changes = 2,
    /// A mark.
    Mark = 3,
    /// The index of the segment: its last frame.
    Index = 4,
}

impl Kind {
    fn from_code(code: u8) -> Option<Self> {
        [Kind::Relation, Kind::Changes, Kind::Mark, Kind::Index].into_iter().find(|kind| *kind as u8 == code)
    }
}

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    /// The frame repeats what an earlier segment holds: it is no entry of the log.
    pub(super) repeats: bool,
    /// Of the mark that a segment begins with: what comes directly behind the mark lies in an earlier segment.
    pub(super) within: bool,
    pub(super) relation: u32,
    pub(super) payload_bytes: u64,
    pub(super) entry: u64,
    pub(super) last: LogPosition,
    pub(super) time: Option<TimestampMicros>,
    pub(super) memory_bytes: u64,
    pub(super) rows: u32,
}

/// Why bytes are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoFrame {
    /// They end too early.
    Short,
    /// They were never a frame, or are damaged.
    Broken,
}

impl Header {
    /// The whole frame: header, payload, padding.
    pub(super) fn frame_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + padded(self.payload_bytes)
    }

    /// Writes the header for a payload that is padded already.
    pub(super) fn encode(&self, payload: &[u8]) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[8] = self.kind as u8;
        bytes[9] = if self.repeats { REPEATS } else { 0 } | if self.within { WITHIN } else { 0 };
        bytes[12..16].copy_from_slice(&self.relation.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.entry.to_le_bytes());
        bytes[32..56].copy_from_slice(self.last.as_bytes());
        bytes[56..64].copy_from_slice(&self.time.map_or(NO_TIME, |time| time.0).to_le_bytes());
        bytes[64..72].copy_from_slice(&self.memory_bytes.to_le_bytes());
        bytes[72..76].copy_from_slice(&self.rows.to_le_bytes());
        let own = header_checksum(&bytes);
        bytes[HEADER_CHECKSUM_AT..].copy_from_slice(&own.to_le_bytes());
        let checksum = checksum(&bytes, payload);
        bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads a header that is whole; whether the frame is shows [`verify`] with the payload.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, NoFrame> {
        let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>() else { return Err(NoFrame::Short) };
        if bytes[..4] != MAGIC || u32::from_le_bytes(part(bytes, HEADER_CHECKSUM_AT)) != header_checksum(bytes) {
            return Err(NoFrame::Broken);
        }
        let header = Header {
            kind: Kind::from_code(bytes[8]).ok_or(NoFrame::Broken)?,
            repeats: bytes[9] & REPEATS != 0,
            within: bytes[9] & WITHIN != 0,
            relation: u32::from_le_bytes(part(bytes, 12)),
            payload_bytes: u64::from_le_bytes(part(bytes, 16)),
            entry: u64::from_le_bytes(part(bytes, 24)),
            last: LogPosition::from_bytes(part(bytes, 32)),
            time: Some(i64::from_le_bytes(part(bytes, 56))).filter(|time| *time != NO_TIME).map(TimestampMicros),
            memory_bytes: u64::from_le_bytes(part(bytes, 64)),
            rows: u32::from_le_bytes(part(bytes, 72)),
        };
        if header.payload_bytes > PAYLOAD_BYTES_MAX {
            return Err(NoFrame::Broken);
        }
        Ok(header)
    }
}

fn part<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a header is as long as its parts")
}

/// True if header and payload are what was written.
pub(super) fn verify(header: &[u8], payload: &[u8]) -> bool {
    let Some(header) = header.first_chunk::<HEADER_BYTES>() else { return false };
    u32::from_le_bytes(part(header, 4)) == checksum(header, payload)
}

fn checksum(header: &[u8; HEADER_BYTES], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[8..]);
    hasher.update(payload);
    hasher.finalize()
}

fn header_checksum(header: &[u8; HEADER_BYTES]) -> u32 {
    crc32fast::hash(&header[8..HEADER_CHECKSUM_AT])
}

/// Bytes with the padding behind them.
pub(super) fn padded(bytes: u64) -> u64 {
    bytes.next_multiple_of(ALIGNMENT as u64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_was_written_and_every_bit_counts() {
        let header = Header {
            kind: Kind::Changes,
            repeats: false,
            within: false,
            relation: 7,
            payload_bytes: 3,
            entry: 1 << 40,
            last: LogPosition::new(1, 2, 3, 4, true),
            time: Some(TimestampMicros(-5)),
            memory_bytes: 99,
            rows: 12,
        };
        let bytes = header.encode(b"abc");
        assert_eq!(Header::decode(&bytes), Ok(header));
        assert!(verify(&bytes, b"abc"));
        assert!(!verify(&bytes, b"abd"));
        for bit in 0..HEADER_BYTES * 8 {
            let mut other = bytes;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&other).is_err() || !verify(&other, b"abc"), "bit {bit}");
            // The first checksum is the payload's affair, too.
            assert_eq!(Header::decode(&other).is_err(), !(4 * 8..8 * 8).contains(&bit), "bit {bit}");
        }
        assert_eq!(Header::decode(&bytes[..79]), Err(NoFrame::Short));
        let timeless = Header { time: None, repeats: true, within: true, ..header };
        assert_eq!(Header::decode(&timeless.encode(b"abc")), Ok(timeless));
    }
}
