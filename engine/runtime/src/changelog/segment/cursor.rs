//! A place in the change log on disk, from which it is read.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use logweir_core::{ChangeBatch, Error, LogMark, LogPosition, MemoryPermit, Relation, Result, TimestampMicros};

use super::frame::{Header, Kind};
use super::reader::{Frame, Place, SegmentReader};
use super::segments;
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

/// What a log holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Extent {
    /// The oldest mark.
    pub first: LogMark,
    /// The newest.
    pub last: LogMark,
    /// Bytes on disk.
    pub bytes: u64,
    /// Files.
    pub segments: usize,
}

/// Reads entries in order. Knows no writer: what is there is there.
#[derive(Debug)]
pub struct SegmentCursor {
    directory: PathBuf,
    /// The next entry wanted.
    entry: u64,
    reader: Option<SegmentReader>,
}

impl SegmentCursor {
    /// A cursor at an entry. An error of kind `LogGone` comes when it is read, if the log does not hold it any more.
    pub fn at(directory: &Path, entry: u64) -> Self {
        SegmentCursor { directory: directory.to_owned(), entry, reader: None }
    }

    /// True if there is no log.
    pub fn is_empty(&self) -> Result<bool> {
        segments(&self.directory).map(|segments| segments.is_empty())
    }

    /// The number of the next entry.
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// A cursor behind the last mark at or before `position`; an error of kind `LogGone` if none is kept.
    pub fn behind(directory: &Path, position: LogPosition) -> Result<Self> {
        Self::locate(directory, Locate::Position(position)).map(|(cursor, _)| cursor)
    }

    /// A cursor behind a mark, and the mark. An error of kind `LogGone` if there is none.
    pub fn locate(directory: &Path, place: Locate) -> Result<(Self, LogMark)> {
        let fits = |header: &Header| match place {
            Locate::Earliest => true,
            Locate::Position(position) => header.last <= position,
            Locate::Time(time) => header.time.is_none_or(|commit| commit <= time),
        };
        let mut chosen: Option<SegmentReader> = None;
        for (_, path) in segments(directory)? {
            let Some(reader) = SegmentReader::open(&path)? else { continue };
            // A writer may have made the file just now.
            let Place::Frame(header) = reader.place()? else { break };
            if header.kind != Kind::Mark || !fits(&header) {
                break;
            }
            chosen = Some(reader);
            if place == Locate::Earliest {
                break;
            }
        }
        let Some(mut reader) = chosen else { return Err(gone(place)) };
        // A segment that begins within a transaction has its mark before it.
        let start = match place {
            Locate::Position(position) => reader.index().map_or(0, |index| index.offset_behind(position)),
            _ => 0,
        };
        let mut found = Self::last_mark(&mut reader, start, place, &fits)?;
        if found.is_none() && start > 0 {
            found = Self::last_mark(&mut reader, 0, place, &fits)?;
        }
        let (mark, entry) = found.ok_or_else(|| gone(place))?;
        Ok((SegmentCursor { directory: directory.to_owned(), entry, reader: None }, mark))
    }

    /// The last mark from `start` on that fits, and the number of the entry behind it.
    fn last_mark(reader: &mut SegmentReader, start: u64, place: Locate, fits: &dyn Fn(&Header) -> bool) -> Result<Option<(LogMark, u64)>> {
        reader.offset = start;
        let mut found = None;
        while let Place::Frame(header) = reader.place()? {
            if header.kind == Kind::Mark {
                if !fits(&header) {
                    break;
                }
                found = Some((reader.offset, header));
                if place == Locate::Earliest {
                    break;
                }
            }
            reader.offset += header.frame_bytes();
        }
        let Some((offset, header)) = found else { return Ok(None) };
        reader.offset = offset;
        match reader.read(&header, &Arc::default())? {
            Some(Frame::Mark(mark)) => Ok(Some((mark, header.entry + u64::from(!header.repeats)))),
            _ => Err(reader.damaged()),
        }
    }

    /// What the log holds; `None` if it is empty.
    pub fn extent(directory: &Path) -> Result<Option<Extent>> {
        let files = segments(directory)?;
        if files.is_empty() {
            return Ok(None);
        }
        let bytes = files.iter().map(|(_, path)| std::fs::metadata(path).map_or(0, |file| file.len())).sum();
        let first = match Self::locate(directory, Locate::Earliest) {
            Ok((_, first)) => first,
            Err(error) if error.kind() == logweir_core::ErrorKind::LogGone => return Ok(None),
            Err(error) => return Err(error),
        };
        let (_, last) = Self::locate(directory, Locate::Position(LogPosition::MAX))?;
        Ok(Some(Extent { first, last, bytes, segments: files.len() }))
    }

    /// The changes of the relations wanted behind `after` and up to the mark `through`, in the order of the log. An error of kind `Config` if they
    /// take more than `bytes_max` in memory, of kind `LogGone` if the log begins later.
    pub fn changes(
        directory: &Path,
        after: LogPosition,
        through: LogPosition,
        wanted: &dyn Fn(&Relation) -> bool,
        bytes_max: usize,
    ) -> Result<Vec<ChangeBatch>> {
        let mut changes = Vec::new();
        if through <= after {
            return Ok(changes);
        }
        let mut cursor = Self::behind(directory, after)?;
        let mut bytes = 0;
        while let Some(header) = cursor.next_header()? {
            if header.kind == Kind::Mark && header.last >= through {
                break;
            }
            let reader = cursor.reader.as_mut().expect("a header was read from it");
            let reads = header.kind == Kind::Changes && header.last > after && wanted(reader.relation(header.relation)?);
            if !reads {
                let before = reader.offset;
                reader.skip(&header)?;
                if reader.offset == before {
                    break;
                }
                cursor.entry = header.entry + 1;
                continue;
            }
            bytes += usize::try_from(header.memory_bytes).unwrap_or(usize::MAX);
            if bytes > bytes_max {
                return Err(Error::config("more changes of the table are on their way than memory holds")
                    .context("bytes at least", bytes)
                    .remedy("give `memory` more, or wait until the destination has caught up"));
            }
            let Some(Frame::Changes(batch)) = reader.read(&header, &Arc::default())? else { break };
            cursor.entry = header.entry + 1;
            changes.extend(batch.after(after));
        }
        Ok(changes)
    }

    /// Bytes in memory of the next batch; 0 if something else, or nothing, comes next.
    pub fn next_bytes(&mut self) -> Result<usize> {
        Ok(match self.next_header()? {
            Some(header) if header.kind == Kind::Changes => usize::try_from(header.memory_bytes).unwrap_or(usize::MAX),
            _ => 0,
        })
    }

    /// The next entries below number `below` with their numbers: at least one if there is one, and more up to `bytes` and `entries`.
    /// Their batches share `memory`.
    pub fn read(&mut self, below: u64, bytes: usize, entries: usize, memory: &Arc<MemoryPermit>) -> Result<Vec<(u64, Entry)>> {
        let mut read = Vec::new();
        let mut taken = 0;
        while read.len() < entries {
            let Some(header) = self.next_header()? else { break };
            let size = if header.kind == Kind::Changes { usize::try_from(header.memory_bytes).unwrap_or(usize::MAX) } else { 0 };
            if header.entry >= below || (!read.is_empty() && size > bytes.saturating_sub(taken)) {
                break;
            }
            taken += size;
            let reader = self.reader.as_mut().expect("a header was read from it");
            let entry = match reader.read(&header, memory)? {
                None => break,
                Some(Frame::Relation(relation)) => Entry::Relation(relation),
                Some(Frame::Changes(batch)) => Entry::Changes(batch),
                Some(Frame::Mark(mark)) => Entry::Mark(mark),
            };
            self.entry = header.entry + 1;
            read.push((header.entry, entry));
        }
        Ok(read)
    }

    /// The header of the next frame that is an entry wanted; `None` if there is none yet.
    fn next_header(&mut self) -> Result<Option<Header>> {
        loop {
            if self.reader.is_none() && !self.open()? {
                return Ok(None);
            }
            let reader = self.reader.as_mut().expect("a segment was opened just before");
            match reader.place()? {
                Place::Frame(header) if header.repeats || header.entry < self.entry => {
                    let before = reader.offset;
                    reader.skip(&header)?;
                    if reader.offset == before {
                        // A relation that is not whole yet.
                        return Ok(None);
                    }
                }
                Place::Frame(header) => return Ok(Some(header)),
                Place::Sealed(next) => {
                    self.entry = self.entry.max(next);
                    self.reader = None;
                    if !self.open()? {
                        return Ok(None);
                    }
                }
                Place::End(_) => return Ok(None),
            }
        }
    }

    /// Opens the segment of the next entry; false if there is none yet.
    fn open(&mut self) -> Result<bool> {
        // A segment that goes between the list and the opening is looked for once more.
        for _ in 0..2 {
            let files = segments(&self.directory)?;
            let after = files.partition_point(|(first, _)| *first <= self.entry);
            let Some((_, path)) = after.checked_sub(1).map(|index| &files[index]) else {
                if files.is_empty() {
                    return Ok(false);
                }
                return Err(no_longer());
            };
            let Some(mut reader) = SegmentReader::open(path)? else { continue };
            if let Some(index) = reader.index() {
                if index.next_entry <= self.entry {
                    // Sealed before the entry: it is the next one's first, or there is a gap.
                    return if after < files.len() { Err(no_longer()) } else { Ok(false) };
                }
                let offset = index.offset_of_entry(self.entry);
                reader.offset = offset;
            }
            self.reader = Some(reader);
            return Ok(true);
        }
        Err(no_longer())
    }
}

impl std::fmt::Debug for SegmentReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SegmentReader({} at {})", self.path().display(), self.offset)
    }
}

fn no_longer() -> Error {
    Error::log_gone("the change log no longer holds what comes next")
        .remedy("what is missing is older than change_log.retain: give the destination a backfill, or let the log keep more")
}

fn gone(place: Locate) -> Error {
    let error = Error::log_gone("the change log does not reach back to where it is to be read");
    match place {
        Locate::Earliest => error.remedy("the change log is empty"),
        Locate::Position(position) => error.context("position", position).remedy("choose a later position, or a backfill"),
        Locate::Time(_) => error.remedy("choose a later time, or a backfill"),
    }
}
