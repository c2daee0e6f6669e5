//! Reads a segment, sealed or still being written, by this process or another.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_buffer::{Buffer, MutableBuffer};
use logweir_core::{ChangeBatch, Error, LogMark, MemoryPermit, Relation, Result};

use super::batch::Decoding;
use super::frame::{HEADER_BYTES, Header, Kind, NoFrame, padded, verify};
use super::index::{Index, Point};
use super::name::SegmentName;
use super::outline::{self, Outline};
use super::{DAMAGE_REMEDY, damaged, file_failed};

/// Bytes at the end of a sealed segment: the place of its index, and a word.
pub(super) const TRAILER_BYTES: u64 = 16;
/// The word.
pub(super) const SEALED: [u8; 8] = *b"LWSEALED";
/// An index is made of points, and a segment has not more of them.
const INDEX_BYTES_MAX: u64 = 1 << 30;

/// A frame that was read.
pub(super) enum Frame {
    Relation(Arc<Relation>),
    Changes(ChangeBatch),
    Mark(LogMark),
}

/// What stands at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Frame(Header),
    /// The segment is sealed here.
    Sealed,
    /// Nothing yet, what a torn write left, or what is damaged.
    End(NoFrame),
}

/// An open segment. Frames are taken one behind the other, and each must have the number that comes next: nothing is passed over.
pub(super) struct SegmentReader {
    file: File,
    path: PathBuf,
    first_entry: u64,
    /// Where the next frame begins.
    offset: u64,
    /// The number of its entry.
    next_entry: u64,
    /// By number.
    relations: BTreeMap<u32, Decoding>,
    /// Of a sealed segment; the outer is `None` until somebody asks.
    index: Option<Option<Index>>,
    /// What was seen of it already, if somebody has asked for a point.
    outline: Option<outline::Shared>,
    /// Where in that the next frame may be.
    hint: Cell<usize>,
}

impl SegmentReader {
    /// Opens the segment of this first entry at its first frame; `None` if there is no such file (any more).
    pub(super) fn open(first_entry: u64, path: &Path) -> Result<Option<Self>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(file_failed("could not open a segment of the change log", path, error)),
        };
        let path = path.to_owned();
        let reader = SegmentReader {
            file,
            path,
            first_entry,
            offset: 0,
            next_entry: first_entry,
            relations: BTreeMap::new(),
            index: None,
            outline: None,
            hint: Cell::new(0),
        };
        Ok(Some(reader))
    }

    /// The index; `None` if the segment is not sealed, or its index is damaged: its frames can be read all the same.
    pub(super) fn index(&mut self) -> Result<Option<&Index>> {
        if self.index.is_none() {
            self.index = Some(self.read_index()?);
        }
        Ok(self.index.as_ref().and_then(Option::as_ref))
    }

    /// Goes to the place from which `point` says to begin: by the index or, where there is none (yet), by what was seen of the segment, after
    /// another look at it.
    pub(super) fn seek_by(&mut self, point: impl FnOnce(&Index) -> Option<&Point>) -> Result<()> {
        let place = match self.index()? {
            Some(index) => {
                let place = point(index).cloned();
                // From when it was written to.
                self.outline = outline::known(&self.path);
                place
            }
            None => {
                let outline = self.look()?;
                let outline = outline::locked(&outline);
                outline.index().and_then(point).cloned()
            }
        };
        self.seek_point(place.as_ref());
        Ok(())
    }

    /// Looks at what has come since somebody looked last.
    fn look(&mut self) -> Result<outline::Shared> {
        let shared = match &self.outline {
            Some(outline) => Arc::clone(outline),
            None => outline::of(&self.path),
        };
        let was_at = (self.offset, self.next_entry);
        let mut outline = outline::locked(&shared);
        if let Some((offset, header)) = outline.last()
            && self.header_at(offset)? != Some(header)
        {
            *outline = Outline::default();
        }
        // From here on the file itself is asked.
        self.outline = None;
        let (offset, entry) = outline.end().unwrap_or((0, self.first_entry));
        self.seek(offset, entry);
        while !outline.is_full()
            && let Place::Frame(header) = self.place()?
        {
            let offset = self.offset;
            let noted = if header.kind == Kind::Relation {
                // One that is not whole yet is seen by the next look.
                let Some(Frame::Relation(relation)) = self.read(&header, &Arc::default())? else { break };
                outline.note(&header, offset, Some((relation.name(), relation.version())))
            } else {
                self.step(&header);
                outline.note(&header, offset, None)
            };
            if !noted {
                break;
            }
        }
        drop(outline);
        (self.offset, self.next_entry) = was_at;
        self.outline = Some(Arc::clone(&shared));
        Ok(shared)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What the file's name says.
    pub(super) fn name(&self) -> Option<SegmentName> {
        self.path.file_name().and_then(|name| name.to_str()).and_then(SegmentName::parse)
    }

    /// Goes on at the same place of another copy of the segment, which has more of it.
    pub(super) fn go_on_in(&mut self, copy: SegmentReader) {
        (self.file, self.index, self.outline) = (copy.file, None, None);
    }

    /// The number that it begins with.
    pub(super) fn first_entry(&self) -> u64 {
        self.first_entry
    }

    /// Where the next frame begins.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The number that the next frame must have.
    pub(super) fn next_entry(&self) -> u64 {
        self.next_entry
    }

    /// Goes to a frame, of which it is known that it has this number.
    pub(super) fn seek(&mut self, offset: u64, entry: u64) {
        (self.offset, self.next_entry) = (offset, entry);
    }

    /// Goes to a place of the index, or to the beginning.
    pub(super) fn seek_point(&mut self, point: Option<&Point>) {
        match point {
            Some(point) => self.seek(point.offset, point.entry),
            None => self.seek(0, self.first_entry),
        }
    }

    fn read_index(&self) -> Result<Option<Index>> {
        let bytes = self.bytes()?;
        let Some(at) = bytes.checked_sub(TRAILER_BYTES) else { return Ok(None) };
        let mut trailer = [0; TRAILER_BYTES as usize];
        if self.read_at(&mut trailer, at)? < trailer.len() || trailer[8..] != SEALED {
            return Ok(None);
        }
        let at = u64::from_le_bytes(trailer[..8].try_into().expect("eight bytes are eight"));
        // Whatever row values look like, only a whole frame with the right checksum is an index.
        if at < bytes { self.index_at(at) } else { Ok(None) }
    }

    fn index_at(&self, at: u64) -> Result<Option<Index>> {
        let Some(header) = self.header_at(at)? else { return Ok(None) };
        if header.kind != Kind::Index || header.payload_bytes > INDEX_BYTES_MAX {
            return Ok(None);
        }
        Ok(self.payload(&header, at)?.and_then(|payload| serde_json::from_slice(&payload).ok()))
    }

    /// What stands where the next frame is to begin. A frame of another number than comes next is none.
    pub(super) fn place(&self) -> Result<Place> {
        if let Some(outline) = &self.outline {
            let mut hint = self.hint.get();
            let seen = outline::locked(outline).at(self.offset, &mut hint);
            self.hint.set(hint);
            if let Some(header) = seen.filter(|header| header.entry == self.next_entry) {
                return Ok(Place::Frame(header));
            }
        }
        let mut bytes = [0; HEADER_BYTES];
        let read = self.read_at(&mut bytes, self.offset)?;
        Ok(place_of(&bytes[..read], self.next_entry))
    }

    /// Bytes that there are by now.
    pub(super) fn bytes(&self) -> Result<u64> {
        Ok(self.file.metadata().map_err(|error| self.failed(error))?.len())
    }

    fn header_at(&self, at: u64) -> Result<Option<Header>> {
        let mut bytes = [0; HEADER_BYTES];
        let read = self.read_at(&mut bytes, at)?;
        Ok(Header::decode(&bytes[..read]).ok())
    }

    /// The payload of a frame; `None` if it is not whole.
    fn payload(&self, header: &Header, at: u64) -> Result<Option<Buffer>> {
        let length = usize::try_from(padded(header.payload_bytes)).map_err(|_| Error::corrupt("a frame is too long"))?;
        // Not before it is known to be there: a length that a torn write left is anything.
        let bytes = self.bytes()?;
        if bytes < at + header.frame_bytes() {
            return Ok(None);
        }
        let mut header_bytes = [0; HEADER_BYTES];
        let mut payload = MutableBuffer::from_len_zeroed(length);
        if self.read_at(&mut header_bytes, at)? < HEADER_BYTES || self.read_at(&mut payload, at + HEADER_BYTES as u64)? < length {
            return Ok(None);
        }
        let whole = verify(&header_bytes, &payload);
        payload.truncate(header.payload_bytes as usize);
        Ok(whole.then(|| payload.into()))
    }

    /// True if the frame of this header at the reader's place is whole.
    pub(super) fn is_whole(&self, header: &Header) -> Result<bool> {
        self.payload(header, self.offset).map(|payload| payload.is_some())
    }

    /// Steps over a frame without a look at its payload.
    pub(super) fn step(&mut self, header: &Header) {
        self.offset += header.frame_bytes();
        self.next_entry += u64::from(!header.repeats);
    }

    /// Steps over a frame. A relation is read all the same; false if that is not whole.
    pub(super) fn skip(&mut self, header: &Header) -> Result<bool> {
        if header.kind == Kind::Relation {
            return self.read(header, &Arc::default()).map(|frame| frame.is_some());
        }
        self.step(header);
        Ok(true)
    }

    /// Reads the frame of this header, which [`place`](Self::place) has told; `None` if it is not whole.
    pub(super) fn read(&mut self, header: &Header, memory: &Arc<MemoryPermit>) -> Result<Option<Frame>> {
        let Some(payload) = self.payload(header, self.offset)? else { return Ok(None) };
        let frame = match header.kind {
            Kind::Relation => {
                let decoding = decoding(&payload).map_err(|error| self.unreadable(error))?;
                let relation = Arc::clone(decoding.relation());
                self.relations.insert(header.relation, decoding);
                Frame::Relation(relation)
            }
            Kind::Changes => {
                self.need_relation(header.relation)?;
                let decoding = self.relations.get_mut(&header.relation).expect("it was read if it was not there");
                let batch = decoding.changes(&payload, Arc::clone(memory));
                Frame::Changes(batch.map_err(|error| self.unreadable(error))?)
            }
            Kind::Mark => Frame::Mark(serde_json::from_slice(&payload).map_err(|error| self.damaged().source(error))?),
            Kind::Index => return Err(self.damaged()),
        };
        self.step(header);
        Ok(Some(frame))
    }

    /// Reads a relation that is described before the place where reading began.
    fn need_relation(&mut self, number: u32) -> Result<()> {
        if self.relations.contains_key(&number) {
            return Ok(());
        }
        let offset = |index: &Index| index.relations.get(number as usize).map(|place| place.offset);
        let mut place = self.index()?.and_then(offset);
        if let (None, Some(outline)) = (place, &self.outline) {
            place = outline::locked(outline).index().and_then(offset);
        }
        let at = place.ok_or_else(|| self.damaged())?;
        let header = self.header_at(at)?.filter(|header| header.kind == Kind::Relation && header.relation == number);
        let header = header.ok_or_else(|| self.damaged())?;
        let payload = self.payload(&header, at)?.ok_or_else(|| self.damaged())?;
        let decoding = decoding(&payload).map_err(|error| self.unreadable(error))?;
        self.relations.insert(number, decoding);
        Ok(())
    }

    /// The relation of a number that a frame has named.
    pub(super) fn relation(&mut self, number: u32) -> Result<&Arc<Relation>> {
        self.need_relation(number)?;
        Ok(self.relations[&number].relation())
    }

    /// Reads as much as there is.
    fn read_at(&self, into: &mut [u8], mut at: u64) -> Result<usize> {
        let mut read = 0;
        while read < into.len() {
            match self.file.read_at(&mut into[read..], at) {
                Ok(0) => break,
                Ok(bytes) => {
                    read += bytes;
                    at += bytes as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        Ok(read)
    }

    fn failed(&self, error: io::Error) -> Error {
        file_failed("could not read a segment of the change log", &self.path, error)
    }

    /// What stands here is not what was written, and it cannot be the end of a write that is under way or was cut short.
    pub(super) fn damaged(&self) -> Error {
        damaged("a segment of the change log is damaged").context("segment", self.path.display()).context("offset", self.offset)
    }

    /// A frame is what was written, and yet nothing that can be read.
    fn unreadable(&self, error: Error) -> Error {
        error.context("segment", self.path.display()).context("offset", self.offset).remedy(DAMAGE_REMEDY)
    }
}

/// What the bytes are that stand where a frame of this number is to begin.
pub(super) fn place_of(bytes: &[u8], next_entry: u64) -> Place {
    match Header::decode(bytes) {
        Ok(header) if header.entry != next_entry => Place::End(NoFrame::Broken),
        Ok(header) if header.kind == Kind::Index => Place::Sealed,
        Ok(header) => Place::Frame(header),
        Err(none) => Place::End(none),
    }
}

/// Of a relation's payload: its length, the relation as JSON, and the schema message from the next multiple of 64 bytes on.
fn decoding(payload: &Buffer) -> Result<Decoding> {
    let damaged = || Error::corrupt("a relation in the change log is not what logweir writes");
    let length = payload.first_chunk::<8>().ok_or_else(damaged)?;
    let end = u64::from_le_bytes(*length).checked_add(8).filter(|end| *end <= payload.len() as u64).ok_or_else(damaged)?;
    let relation: Relation = serde_json::from_slice(&payload[8..end as usize]).map_err(|error| damaged().source(error))?;
    let schema_at = padded(end) as usize;
    if schema_at >= payload.len() {
        return Err(damaged());
    }
    Decoding::new(Arc::new(relation), payload.slice(schema_at))
}
