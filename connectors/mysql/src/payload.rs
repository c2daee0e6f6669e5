//! Compressed parts of a log: MySQL's TRANSACTION_PAYLOAD (zstd) and MariaDB's compressed events (zlib).

use std::io::Read as _;

use flate2::read::ZlibDecoder;
use zstd::stream::raw::{Decoder, Operation as _};

use crate::event::{EVENT_BYTES_MAX, HEADER_LEN};
use crate::reader::{Cursor, Truncated};

/// Memory is taken in steps of this, as bytes come: what a header claims is not believed.
const STEP_BYTES: usize = 1 << 20;

/// Why a compressed part cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PayloadError {
    Truncated,
    Algorithm,
    Corrupt,
    TooLong,
}

impl From<Truncated> for PayloadError {
    fn from(_: Truncated) -> Self {
        PayloadError::Truncated
    }
}

impl PayloadError {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            PayloadError::Truncated => "a compressed event ends too early",
            PayloadError::Algorithm => "an event is compressed in a way not known here",
            PayloadError::Corrupt => "a compressed event cannot be decompressed",
            PayloadError::TooLong => "a compressed event is longer than an event can be",
        }
    }
}

/// Inflates what MariaDB compresses in events: a byte of algorithm and length of the length, the length, zlib data.
pub(crate) fn inflate(bytes: &[u8], into: &mut Vec<u8>) -> Result<(), PayloadError> {
    let mut cursor = Cursor::new(bytes);
    let head = cursor.u8()?;
    if head & 0x70 != 0 {
        return Err(PayloadError::Algorithm);
    }
    let length = cursor.take(usize::from(head & 7))?;
    if length.is_empty() || length.len() > 4 {
        return Err(PayloadError::Corrupt);
    }
    let length = length.iter().fold(0u64, |length, byte| length << 8 | u64::from(*byte));
    if length > u64::from(EVENT_BYTES_MAX) {
        return Err(PayloadError::TooLong);
    }
    into.clear();
    // One byte more than there should be, to notice it.
    ZlibDecoder::new(cursor.rest()).take(length + 1).read_to_end(into).map_err(|_| PayloadError::Corrupt)?;
    if into.len() as u64 == length { Ok(()) } else { Err(PayloadError::Corrupt) }
}

/// Reads the events inside a TRANSACTION_PAYLOAD one by one.
///
/// The body is given with every call rather than kept: the reader may have to wait between two of the events, and the log
/// then hands the same bytes in again.
pub(crate) struct PayloadReader {
    zstd: Option<Decoder<'static>>,
    /// Where the payload begins in the body, and how long it is.
    start: usize,
    length: usize,
    /// How much of the payload was read.
    read: usize,
    /// The compressed stream, or one of several, is at its end.
    at_end: bool,
    /// The event being put together.
    event: Vec<u8>,
    whole: bool,
}

impl std::fmt::Debug for PayloadReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PayloadReader({} of {} bytes)", self.read, self.length)
    }
}

impl PayloadReader {
    /// Reads the header of a body.
    pub(crate) fn new(body: &[u8]) -> Result<Self, PayloadError> {
        let mut cursor = Cursor::new(body);
        let (mut algorithm, mut length) = (None, None);
        loop {
            match cursor.packed()? {
                0 => break,
                field => {
                    let mut value = Cursor::new(cursor.packed_bytes()?);
                    match field {
                        1 => length = Some(value.packed_len()?),
                        2 => algorithm = Some(value.packed()?),
                        _ => {}
                    }
                }
            }
        }
        let zstd = match algorithm {
            Some(0) => Some(Decoder::new().map_err(|_| PayloadError::Corrupt)?),
            // Written by nobody, but said to mean "not at all".
            Some(255) => None,
            _ => return Err(PayloadError::Algorithm),
        };
        let length = length.filter(|length| *length <= cursor.len()).ok_or(PayloadError::Truncated)?;
        Ok(PayloadReader { zstd, start: body.len() - cursor.len(), length, read: 0, at_end: false, event: Vec::new(), whole: false })
    }

    /// The next event, whole; the same one until [`consume`](Self::consume) is called. `None` at the end.
    pub(crate) fn event(&mut self, body: &[u8]) -> Result<Option<&[u8]>, PayloadError> {
        if !self.whole {
            let payload = body.get(self.start..self.start + self.length).ok_or(PayloadError::Truncated)?;
            if !self.fill(payload, HEADER_LEN)? {
                let ended = self.event.is_empty() && (self.zstd.is_none() || self.at_end);
                return if ended { Ok(None) } else { Err(PayloadError::Truncated) };
            }
            let size = Cursor::new(self.event.get(9..).unwrap_or_default()).u32()?;
            if size > EVENT_BYTES_MAX {
                return Err(PayloadError::TooLong);
            }
            if (size as usize) < HEADER_LEN || !self.fill(payload, size as usize)? {
                return Err(PayloadError::Truncated);
            }
            self.whole = true;
        }
        Ok(Some(&self.event))
    }

    /// Goes on behind the event.
    pub(crate) fn consume(&mut self) {
        self.whole = false;
        self.event.clear();
        if self.event.capacity() > STEP_BYTES {
            self.event = Vec::new();
        }
    }

    /// Makes the event `wanted` bytes long; false if the payload ends before.
    fn fill(&mut self, payload: &[u8], wanted: usize) -> Result<bool, PayloadError> {
        while self.event.len() < wanted {
            let rest = payload.get(self.read..).ok_or(PayloadError::Truncated)?;
            let had = self.event.len();
            let step = (wanted - had).min(STEP_BYTES);
            let Some(zstd) = &mut self.zstd else {
                let taken = rest.get(..step.min(rest.len())).unwrap_or_default();
                if taken.is_empty() {
                    return Ok(false);
                }
                self.event.extend_from_slice(taken);
                self.read += taken.len();
                continue;
            };
            self.event.resize(had + step, 0);
            let status = zstd.run_on_buffers(rest, self.event.get_mut(had..).unwrap_or_default()).map_err(|_| PayloadError::Corrupt)?;
            self.event.truncate(had + status.bytes_written);
            self.read += status.bytes_read;
            if status.bytes_written == 0 && status.bytes_read == 0 {
                return Ok(false);
            }
            self.at_end = status.remaining == 0;
        }
        Ok(true)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn event(body: &[u8]) -> Vec<u8> {
        let mut event = vec![0; HEADER_LEN];
        event[9..13].copy_from_slice(&((HEADER_LEN + body.len()) as u32).to_le_bytes());
        event.extend(body);
        event
    }

    fn body(algorithm: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut body = vec![2, algorithm.len() as u8];
        body.extend(algorithm);
        body.extend([1, 3, 252]);
        body.extend((payload.len() as u16).to_le_bytes());
        body.push(0);
        body.extend(payload);
        body
    }

    fn read(body: &[u8]) -> Result<Vec<Vec<u8>>, PayloadError> {
        let mut reader = PayloadReader::new(body)?;
        let mut events = Vec::new();
        while let Some(event) = reader.event(body)? {
            events.push(event.to_vec());
            reader.consume();
        }
        Ok(events)
    }

    #[test]
    fn events_come_out_one_by_one() {
        let events = [event(b"one"), event(&[7; 70_000]), event(b"")];
        let plain = events.concat();
        let packed = zstd::encode_all(plain.as_slice(), 3).unwrap();
        assert_eq!(read(&body(&[0], &packed)).unwrap(), events);
        let small = [event(b"one"), event(b"two")];
        assert_eq!(read(&body(&[252, 255, 0], &small.concat())).unwrap(), small);
    }

    #[test]
    fn malformed_payloads() {
        let packed = zstd::encode_all(event(b"one").as_slice(), 3).unwrap();
        assert_eq!(read(&body(&[5], &packed)).unwrap_err(), PayloadError::Algorithm);
        assert_eq!(read(&body(&[0], &packed[..packed.len() - 8])).unwrap_err(), PayloadError::Truncated);
        assert_eq!(read(&body(&[0], b"no zstd at all")).unwrap_err(), PayloadError::Corrupt);
        assert_eq!(read(&body(&[252, 255, 0], &[0xff; 19])).unwrap_err(), PayloadError::TooLong);
        assert!(read(&body(&[252, 255, 0], &[0; 19])).is_err());
    }

    #[test]
    fn inflation_believes_no_length() {
        use std::io::Write as _;
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(b"some rows").unwrap();
        let packed = encoder.finish().unwrap();
        let mut out = Vec::new();
        inflate(&[&[0x81, 9], packed.as_slice()].concat(), &mut out).unwrap();
        assert_eq!(out, b"some rows");
        for length in [8, 10] {
            assert_eq!(inflate(&[&[0x81, length], packed.as_slice()].concat(), &mut out), Err(PayloadError::Corrupt));
        }
        assert_eq!(inflate(&[0x84, 0xff, 0xff, 0xff, 0xff], &mut out), Err(PayloadError::TooLong));
        assert_eq!(inflate(&[0x91, 1], &mut out), Err(PayloadError::Algorithm));
        assert_eq!(inflate(&[], &mut out), Err(PayloadError::Truncated));
    }
}
