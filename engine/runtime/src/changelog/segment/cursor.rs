//! A place in the change log on disk, from which it is read.

use std::sync::Arc;

use logweir_core::{ChangeBatch, Error, LogMark, LogPosition, MemoryPermit, Relation, Result, TimestampMicros};

use super::damaged;
use super::frame::{Header, Kind};
use super::place::{Listed, SegmentPlace, is_broken};
use super::reader::{Frame, Place, SegmentReader};
use crate::changelog::window::Entry;

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Locate {
    /// The oldest mark that is kept.
    Earliest,
    /// The last mark at or before a position.
    Position(LogPosition),
    /// The last mark whose commit time is at or before a time: everything committed later lies behind it.
    Time(TimestampMicros),
}

impl Locate {
    fn fits(self, mark: &Header) -> bool {
        match self {
            Locate::Earliest => true,
            Locate::Position(position) => mark.last <= position,
            Locate::Time(time) => mark.time.is_none_or(|commit| commit <= time),
        }
    }
}

/// What a log holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Extent {
    /// The oldest mark.
    pub first: LogMark,
    /// The newest.
    pub last: LogMark,
    /// Bytes on disk, or in the store.
    pub bytes: u64,
    /// Files.
    pub segments: usize,
}

/// Reads entries in order. Knows no writer: what is there is there.
#[derive(Debug)]
pub struct SegmentCursor {
    place: SegmentPlace,
    /// The next entry wanted.
    entry: u64,
    reader: Option<SegmentReader>,
}

impl SegmentCursor {
    /// A cursor at an entry. An error of kind `LogGone` comes when it is read, if the log does not hold it any more.
    pub fn at(log: impl Into<SegmentPlace>, entry: u64) -> Self {
        SegmentCursor { place: log.into(), entry, reader: None }
    }

    /// True if there is no log.
    pub fn is_empty(&self) -> Result<bool> {
        self.place.segments().map(|segments| segments.is_empty())
    }

    /// The number of the next entry.
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// A cursor behind the last mark at or before `position`; an error of kind `LogGone` if none is kept.
    pub fn behind(log: impl Into<SegmentPlace>, position: LogPosition) -> Result<Self> {
        Self::locate(log, Locate::Position(position)).map(|(cursor, _)| cursor)
    }

    /// A cursor behind a mark, and the mark. An error of kind `LogGone` if there is none.
    pub fn locate(log: impl Into<SegmentPlace>, place: Locate) -> Result<(Self, LogMark)> {
        let log = log.into();
        let files = log.segments()?;
        let newest = files.len().saturating_sub(1);
        let mut order: Vec<usize> = (0..files.len()).collect();
        if place != Locate::Earliest {
            order.reverse();
        }
        for at in order {
            // Where it begins tells whether it is wanted whole.
            match log.opening(&files[at])? {
                Some(Place::Frame(header)) if header.kind == Kind::Mark && place.fits(&header) => {
                    if place == Locate::Earliest
                        && !header.within
                        && let Some(mark) = log.opening_mark(&files[at], &header)?
                    {
                        let entry = header.entry + u64::from(!header.repeats);
                        return Ok((SegmentCursor { place: log, entry, reader: None }, mark));
                    }
                }
                // The others are older, or say themselves what is wrong with this one when it is read.
                Some(found) if is_broken(&found) && at == newest && place != Locate::Earliest => {
                    return Err(log.open(&files[at])?.map_or_else(no_longer, |reader| reader.damaged()));
                }
                // Behind the place, made just now, or gone.
                _ => continue,
            }
            let Some(mut reader) = log.open(&files[at])? else { continue };
            if let Locate::Position(position) = place {
                reader.seek_by(|index| index.point_behind(position))?;
            }
            let from_beginning = reader.offset() == 0;
            let mut found = Self::last_mark(&mut reader, place)?;
            if found.is_none() && !from_beginning {
                reader.seek_point(None);
                found = Self::last_mark(&mut reader, place)?;
            }
            // One that begins within what follows a mark may hold none itself.
            if let Some((mark, entry)) = found {
                return Ok((SegmentCursor { place: log, entry, reader: None }, mark));
            }
        }
        Err(gone(place))
    }

    /// The last mark from here on that fits (the first, for the earliest), and the number of the entry behind it.
    fn last_mark(reader: &mut SegmentReader, place: Locate) -> Result<Option<(LogMark, u64)>> {
        let mut found = None;
        while let Place::Frame(header) = reader.place()? {
            if header.kind == Kind::Mark {
                if !place.fits(&header) {
                    break;
                }
                if !header.within {
                    found = Some((reader.offset(), header));
                    if place == Locate::Earliest {
                        break;
                    }
                }
            }
            reader.step(&header);
        }
        let Some((offset, header)) = found else { return Ok(None) };
        reader.seek(offset, header.entry);
        match reader.read(&header, &Arc::default())? {
            Some(Frame::Mark(mark)) => Ok(Some((mark, reader.next_entry()))),
            _ => Err(reader.damaged()),
        }
    }

    /// Bytes that the log takes on disk, or in the store.
    pub fn bytes(log: impl Into<SegmentPlace>) -> Result<u64> {
        log.into().segments().map(|files| bytes_of(&files))
    }

    /// What the log holds; `None` if it is empty.
    pub fn extent(log: impl Into<SegmentPlace>) -> Result<Option<Extent>> {
        let log = log.into();
        let files = log.segments()?;
        if files.is_empty() {
            return Ok(None);
        }
        let bytes = bytes_of(&files);
        let first = match Self::locate(&log, Locate::Earliest) {
            Ok((_, first)) => first,
            Err(error) if error.kind() == logweir_core::ErrorKind::LogGone => return Ok(None),
            Err(error) => return Err(error),
        };
        let (_, last) = Self::locate(&log, Locate::Position(LogPosition::MAX))?;
        Ok(Some(Extent { first, last, bytes, segments: files.len() }))
    }

    /// The next changes of the relations wanted behind `after` and up to the mark `through`; `None` if that comes next. None is passed over: else it is
    /// an error, of kind `LogGone` if the log does not hold them any more, of kind `Corrupt` if it is damaged.
    pub fn next_changes(
        &mut self,
        after: LogPosition,
        through: LogPosition,
        wanted: &dyn Fn(&Relation) -> bool,
    ) -> Result<Option<ChangeBatch>> {
        while let Some(header) = self.next_wanted(after, through, wanted)? {
            if let Some(batch) = self.take_changes(&header)?.after(after) {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }

    /// Passes over all that is there, also by somebody who is writing to it. The position of the last mark on the way: what lies before that is
    /// whole. `None` if there is none.
    pub fn pass(&mut self) -> Result<Option<LogPosition>> {
        let mut last = None;
        while let Some(header) = self.next_header()? {
            if header.kind == Kind::Mark && !header.within {
                last = Some(header.last);
            }
            if !self.reader.as_mut().expect("a header was read from it").skip(&header)? {
                break;
            }
            self.entry = header.entry + 1;
        }
        Ok(last)
    }

    /// Passes over what is not wanted; the header of what is, or `None` before the mark `through`.
    fn next_wanted(&mut self, after: LogPosition, through: LogPosition, wanted: &dyn Fn(&Relation) -> bool) -> Result<Option<Header>> {
        loop {
            // The mark was there once, so what ends before it was damaged, or cut off by a process that has begun since.
            let Some(header) = self.next_header()? else { return Err(self.cut_short()) };
            if header.kind == Kind::Mark && header.last >= through {
                return Ok(None);
            }
            let reader = self.reader.as_mut().expect("a header was read from it");
            if header.kind == Kind::Changes && header.last > after && wanted(reader.relation(header.relation)?) {
                return Ok(Some(header));
            }
            if !reader.skip(&header)? {
                return Err(reader.damaged());
            }
            self.entry = header.entry + 1;
        }
    }

    fn take_changes(&mut self, header: &Header) -> Result<ChangeBatch> {
        let reader = self.reader.as_mut().expect("a header was read from it");
        let Some(Frame::Changes(batch)) = reader.read(header, &Arc::default())? else { return Err(reader.damaged()) };
        self.entry = header.entry + 1;
        Ok(batch)
    }

    /// Bytes in memory of the next batch; 0 if something else, or nothing, comes next.
    pub fn next_bytes(&mut self) -> Result<usize> {
        Ok(match self.next_header()? {
            Some(header) if header.kind == Kind::Changes => usize::try_from(header.memory_bytes).unwrap_or(usize::MAX),
            _ => 0,
        })
    }

    /// The next entries below number `below`, up to which everything is written: at least one, and more up to `bytes` and `entries`.
    /// Their batches share `memory`. They have the numbers from [`entry`](Self::entry) on, without a gap; an error of kind `Corrupt` says that what comes
    /// next is damaged or missing.
    pub fn read_written(&mut self, below: u64, bytes: usize, entries: usize, memory: &Arc<MemoryPermit>) -> Result<Vec<Entry>> {
        let read = self.read(below, bytes, entries, memory)?;
        if read.is_empty() { Err(self.cut_short()) } else { Ok(read) }
    }

    /// The same of a log that somebody may be writing to; none if there is none (yet).
    pub(super) fn read(&mut self, below: u64, bytes: usize, entries: usize, memory: &Arc<MemoryPermit>) -> Result<Vec<Entry>> {
        let mut read = Vec::new();
        let mut taken = 0;
        while read.len() < entries && self.entry < below {
            let header = match self.next_header() {
                Ok(Some(header)) => header,
                // What comes before an error is handed out before it.
                Err(error) if read.is_empty() => return Err(error),
                Ok(None) | Err(_) => break,
            };
            let size = if header.kind == Kind::Changes { usize::try_from(header.memory_bytes).unwrap_or(usize::MAX) } else { 0 };
            if !read.is_empty() && size > bytes.saturating_sub(taken) {
                break;
            }
            taken += size;
            let reader = self.reader.as_mut().expect("a header was read from it");
            let entry = match reader.read(&header, memory) {
                Ok(None) => break,
                Ok(Some(Frame::Relation(relation))) => Entry::Relation(relation),
                Ok(Some(Frame::Changes(batch))) => Entry::Changes(batch),
                Ok(Some(Frame::Mark(mark))) => Entry::Mark(mark),
                Err(error) if read.is_empty() => return Err(error),
                Err(_) => break,
            };
            self.entry = header.entry + 1;
            read.push(entry);
        }
        Ok(read)
    }

    /// The header of the next entry wanted; `None` if there is none yet.
    fn next_header(&mut self) -> Result<Option<Header>> {
        // Where a segment ended last, though there was another one already.
        let mut ended = None;
        // Where a copy ended of which there was more.
        let mut grown = None;
        loop {
            let reader = match &mut self.reader {
                Some(reader) => reader,
                None => match Self::open(&self.place, self.entry)? {
                    Some(reader) => self.reader.insert(reader),
                    None => return Ok(None),
                },
            };
            match reader.place()? {
                Place::Frame(header) if !header.repeats && header.entry == self.entry => return Ok(Some(header)),
                Place::Frame(header) if reader.skip(&header)? => continue,
                _ => {}
            }
            // It ends here, or what comes is not whole (yet). Before the next segment is made, everything is written to this one.
            let files = self.place.segments()?;
            let (offset, next_entry) = (reader.offset(), reader.next_entry());
            let own = files.iter().find(|segment| segment.path == reader.path());
            // What was opened is a copy, and the store has more by now.
            if let Some(own) = own
                && let Some(object) = own.object
                && grown != Some(offset)
                && reader.bytes()? < object.bytes
                && let Some(copy) = self.place.open(own)?
            {
                grown = Some(offset);
                reader.go_on_in(copy);
                continue;
            }
            if own.is_none() && files.iter().any(|segment| reader.name().is_some_and(|name| segment.name.overrules(name))) {
                return Err(taken_over());
            }
            let Some(next) = files.iter().find(|segment| segment.first_entry() > reader.first_entry()) else { return Ok(None) };
            if next.first_entry() == next_entry {
                self.reader = Some(self.place.open(next)?.ok_or_else(no_longer)?);
            } else if ended != Some(offset) {
                // Written, perhaps, between the look at it and the look at the directory.
                ended = Some(offset);
                self.place.forget();
            } else if own.is_some() {
                return Err(reader.damaged());
            } else {
                return Err(no_longer());
            }
        }
    }

    /// Opens the segment that an entry is in, or before; `None` if there is none yet.
    fn open(place: &SegmentPlace, entry: u64) -> Result<Option<SegmentReader>> {
        // A segment that goes between the list and the opening is looked for once more.
        for _ in 0..2 {
            let files = place.segments()?;
            let after = files.partition_point(|segment| segment.first_entry() <= entry);
            let Some(segment) = after.checked_sub(1).map(|index| &files[index]) else {
                return if files.is_empty() { Ok(None) } else { Err(no_longer()) };
            };
            let Some(mut reader) = place.open(segment)? else { continue };
            reader.seek_by(|index| index.point_before_entry(entry))?;
            return Ok(Some(reader));
        }
        Err(no_longer())
    }

    /// Here something ends that was longer.
    fn cut_short(&self) -> Error {
        match &self.reader {
            Some(reader) => reader.damaged(),
            None => damaged("the segments of the change log are missing").context("directory", self.place.directory.display()),
        }
    }
}

fn bytes_of(files: &[Listed]) -> u64 {
    files.iter().map(Listed::bytes).sum()
}

impl std::fmt::Debug for SegmentReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SegmentReader({} at {})", self.path().display(), self.offset())
    }
}

fn no_longer() -> Error {
    Error::log_gone("the change log no longer holds what comes next")
        .remedy(
            "what is missing is older than change_log.retain, or its segments were removed: give the destination a backfill, and let the log \
             keep more; with `acknowledge: destination` remove the log's directory while the stream does not run, and it reads again from the \
             source",
        )
}

/// Another writer goes on from some mark before here, and its entries have other numbers from there on.
fn taken_over() -> Error {
    Error::transient("the change log was taken over by another writer while it was read").remedy("read it again from the last position")
}

fn gone(place: Locate) -> Error {
    let error = Error::log_gone("the change log does not reach back to where it is to be read");
    match place {
        Locate::Earliest => error.remedy("the change log is empty"),
        Locate::Position(position) => error.context("position", position).remedy("choose a later position, or a backfill"),
        Locate::Time(_) => error.remedy("choose a later time, or a backfill"),
    }
}
