//! The change log on disk: a directory of segments.
//!
//! A segment is a file of frames: relations, batches of changes as Arrow IPC, marks. Its name is the number of its
//! first entry, and it begins with the mark that everything in it lies behind, so each can be read by itself. A sealed segment ends
//! with an index; the last one is written to. Each frame has a checksum: whatever a crash leaves behind the last whole frame is cut
//! off when the log is opened, and so is what lies behind the mark that the checkpoint names, for the source tells it again.
//!
//! Entries are numbered through, and each is a frame with its number. Who reads takes one number behind the other, from segment to segment,
//! and what is missing or damaged in between is an error, never passed over.
//!
//! Any process may read while one writes. A segment is never changed but at its end, and goes as a whole when it has been kept long
//! enough.

mod batch;
mod cursor;
mod frame;
mod index;
mod reader;
mod writer;

use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind as IoErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use logweir_core::{Error, LogMark, LogPosition, Relation, Result, TimestampMicros};

use super::window::Entry;
use batch::Encoding;
pub use cursor::{Extent, Locate, SegmentCursor};
use frame::Kind;
use index::Index;
use reader::{Frame, Place, SegmentReader};
use writer::{Opening, SegmentWriter};

/// The end of a segment's name.
const SUFFIX: &str = ".changes";
/// Digits of the number before it.
const DIGITS: usize = 20;
/// Locked by who writes.
const LOCK: &str = "lock";

/// Of what is kept, a segment is this part: what is over the limit goes in such portions.
const SEGMENTS: u64 = 16;
const SEGMENT_BYTES_MIN: u64 = 1 << 20;
const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// A segment ends between two transactions, unless it has come to this many times its size.
const SEGMENT_OVERSIZE: u64 = 4;
/// A writer that was dropped may be in its last write still.
const LOCK_TRIES: u32 = 500;
const LOCK_WAIT: Duration = Duration::from_millis(10);

/// How batches are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// As they lie in memory.
    None,
    /// Fast.
    #[default]
    Lz4,
    /// Small.
    Zstd,
}

/// How much is kept, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentOptions {
    /// Where.
    pub directory: PathBuf,
    /// How batches are compressed.
    pub compression: Compression,
    /// What was appended longer ago than this may go.
    pub retain_age: Duration,
    /// What is kept beyond this many bytes goes.
    pub retain_bytes: u64,
}

impl SegmentOptions {
    fn segment_bytes(&self) -> u64 {
        (self.retain_bytes / SEGMENTS).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX)
    }
}

/// What a person can do about damage. Removing the log loses nothing where the source still has what it holds.
const DAMAGE_REMEDY: &str = "nothing is passed over. With `acknowledge: destination`: stop the stream, remove the change log's directory and \
     start again; the source still has everything, and nothing is lost. With `acknowledge: log` the source may have forgotten it: put the \
     segment back from a copy, or give the destinations that still need it a backfill; `logweir replay` with a later --from gives them \
     what lies behind the damage";

/// What stands on disk is not what was written.
fn damaged(what: &'static str) -> Error {
    Error::corrupt(what).remedy(DAMAGE_REMEDY)
}

/// A sealed segment, to whom keeps or removes it.
#[derive(Debug)]
struct Segment {
    path: PathBuf,
    first_entry: u64,
    last: LogPosition,
    ended_at: TimestampMicros,
    bytes: u64,
}

impl Segment {
    fn new(path: PathBuf, index: &Index, bytes: u64) -> Self {
        Segment { path, first_entry: index.first_entry, last: index.last, ended_at: index.ended_at, bytes }
    }
}

/// The writing end of a change log on disk. There is one: its directory is locked.
pub struct SegmentLog {
    options: SegmentOptions,
    encoding: Encoding,
    sealed: Vec<Segment>,
    active: Option<SegmentWriter>,
    /// The last mark appended.
    mark: Option<LogMark>,
    /// Nothing was appended since.
    at_mark: bool,
    next_entry: u64,
    _lock: File,
}

impl SegmentLog {
    /// Opens the log and cuts it off behind `mark`. Without a mark, or where the log does not hold everything through it, it
    /// begins anew: everything in the directory goes. [`mark`](Self::mark) tells which.
    pub fn open(options: SegmentOptions, mark: Option<LogPosition>) -> Result<Self> {
        Self::open_or(options, mark, |_| Ok(()))
    }

    /// The same where the source may have forgotten what the log holds, so that nobody else has it: an error of kind `Corrupt` instead of a log
    /// that begins anew over segments that are there.
    pub fn open_only_copy(options: SegmentOptions, mark: Option<LogPosition>) -> Result<Self> {
        Self::open_or(options, mark, |directory| {
            if mark.is_none() || segments(directory)?.is_empty() {
                return Ok(());
            }
            Err(Error::corrupt("the change log does not hold what the checkpoint says, and the source may have forgotten it")
                .context("directory", directory.display())
                .remedy(
                    "nothing was removed. Put the directory back from a copy; or move it away and start again: the stream then reads from where the \
                     slowest destination is, and says so if the source has that no more",
                ))
        })
    }

    /// `unfit` has a say before a log that is there goes.
    fn open_or(options: SegmentOptions, mark: Option<LogPosition>, unfit: impl FnOnce(&Path) -> Result<()>) -> Result<Self> {
        let directory = &options.directory;
        std::fs::create_dir_all(directory).map_err(|error| file_failed("could not create the change log's directory", directory, error))?;
        let lock = lock(directory)?;
        let encoding = Encoding::new(options.compression)?;
        let mut log =
            SegmentLog { encoding, sealed: Vec::new(), active: None, mark: None, at_mark: false, next_entry: 0, _lock: lock, options };
        let kept = match mark {
            Some(mark) => log.resume(mark)?,
            None => false,
        };
        if !kept {
            unfit(&log.options.directory)?;
            log.sealed.clear();
            for (_, path) in segments(&log.options.directory)? {
                remove(&path)?;
            }
            sync_directory(&log.options.directory)?;
        }
        Ok(log)
    }

    /// The mark that it ends with; `None` if it is empty.
    pub fn mark(&self) -> Option<&LogMark> {
        self.mark.as_ref()
    }

    /// The number of the next entry.
    pub fn next_entry(&self) -> u64 {
        self.next_entry
    }

    /// The number of the oldest entry.
    pub fn first_entry(&self) -> u64 {
        let active = self.active.as_ref().map_or(self.next_entry, SegmentWriter::first_entry);
        self.sealed.first().map_or(active, |segment| segment.first_entry)
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        let active = self.active.as_ref().map_or(0, SegmentWriter::bytes);
        self.sealed.iter().map(|segment| segment.bytes).sum::<u64>() + active
    }

    /// Goes on behind `mark`, the last whole frame that is still right. False if the log does not hold it.
    fn resume(&mut self, mark: LogPosition) -> Result<bool> {
        let files = segments(&self.options.directory)?;
        let mut found = None;
        // In the last segment that begins at or before the mark; what begins within that which follows the mark lies behind it.
        for (at, (first, path)) in files.iter().enumerate().rev() {
            let Some(reader) = SegmentReader::open(*first, path)? else { continue };
            let Place::Frame(opening) = reader.place()? else { continue };
            if opening.kind == Kind::Mark && opening.last <= mark {
                found = scan(reader, mark)?.map(|found| (at, found));
                if found.is_some() || !(opening.within && opening.last == mark) {
                    break;
                }
            }
        }
        let Some((at, found)) = found else { return Ok(false) };
        // Older ones are checked when they are read: who needs them is told what is wrong with them, and nobody else minds.
        for (first, path) in files[..at].iter().rev() {
            let segment = sealed_segment(*first, path, self.sealed.last(), mark)?;
            self.sealed.push(segment);
        }
        self.sealed.reverse();
        for (_, path) in &files[at + 1..] {
            tracing::debug!(segment = %path.display(), "a segment of the change log that lies behind the checkpoint goes");
            remove(path)?;
        }
        sync_directory(&self.options.directory)?;
        self.next_entry = found.index.next_entry;
        self.mark = Some(found.mark);
        self.at_mark = true;
        self.active = Some(SegmentWriter::resume(files[at].1.clone(), found.bytes, found.index, found.relations, &self.encoding)?);
        Ok(true)
    }

    /// Appends entry number [`next_entry`](Self::next_entry). The first of an empty log is a mark.
    pub fn append(&mut self, entry: &Entry, now: TimestampMicros) -> Result<()> {
        let number = self.next_entry;
        if let Some(active) = &self.active {
            let limit = self.options.segment_bytes();
            if active.bytes() >= if self.at_mark { limit } else { limit.saturating_mul(SEGMENT_OVERSIZE) } {
                self.seal(now)?;
            }
        }
        let active = match (&mut self.active, &self.mark, entry) {
            (Some(active), ..) => active,
            (none, Some(mark), _) => {
                let opening = if self.at_mark { Opening::Behind } else { Opening::Within };
                let created = SegmentWriter::create(path_of(&self.options.directory, number), number, mark, opening)?;
                sync_directory(&self.options.directory)?;
                none.insert(created)
            }
            (none, None, Entry::Mark(mark)) => {
                *none = Some(SegmentWriter::create(path_of(&self.options.directory, number), number, mark, Opening::Entry)?);
                sync_directory(&self.options.directory)?;
                self.mark = Some(mark.clone());
                self.at_mark = true;
                self.next_entry += 1;
                return Ok(());
            }
            (_, None, _) => return Err(Error::internal("a change log began with something else than a mark")),
        };
        match entry {
            Entry::Relation(relation) => active.relation(number, relation, &self.encoding)?,
            Entry::Changes(batch) => active.changes(number, batch, &self.encoding)?,
            Entry::Mark(mark) => {
                active.mark(number, mark)?;
                self.mark = Some(mark.clone());
            }
        }
        self.at_mark = matches!(entry, Entry::Mark(_));
        self.next_entry += 1;
        Ok(())
    }

    /// Makes everything that was appended durable.
    pub fn sync(&self) -> Result<()> {
        self.active.as_ref().map_or(Ok(()), SegmentWriter::sync)
    }

    fn seal(&mut self, now: TimestampMicros) -> Result<()> {
        if let Some(active) = self.active.take() {
            self.sealed.push(active.seal(now)?);
        }
        Ok(())
    }

    /// Removes what was kept long enough, and what is too much; nothing that lies behind `needed`, if that is said. True if what is
    /// left is more than may be kept, and some of it can go later: the segment that is written to stays in any case.
    pub fn retain(&mut self, now: TimestampMicros, needed: Option<LogPosition>) -> Result<bool> {
        let mut gone = 0;
        let mut bytes = self.bytes();
        for segment in &self.sealed {
            let old = now.since(segment.ended_at) > self.options.retain_age;
            if !(old || bytes > self.options.retain_bytes) || needed.is_some_and(|needed| segment.last > needed) {
                break;
            }
            remove(&segment.path)?;
            bytes -= segment.bytes;
            gone += 1;
        }
        self.sealed.drain(..gone);
        Ok(bytes > self.options.retain_bytes && !self.sealed.is_empty())
    }
}

impl std::fmt::Debug for SegmentLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SegmentLog({}, {} to {})", self.options.directory.display(), self.first_entry(), self.next_entry)
    }
}

/// A segment that ends at or before `mark`. One whose index is damaged goes together with the one behind it.
fn sealed_segment(first_entry: u64, path: &Path, following: Option<&Segment>, mark: LogPosition) -> Result<Segment> {
    let bytes = std::fs::metadata(path).map_or(0, |file| file.len());
    if let Some(mut reader) = SegmentReader::open(first_entry, path)?
        && let Some(index) = reader.index()?
    {
        return Ok(Segment::new(path.to_owned(), index, bytes));
    }
    tracing::warn!(
        segment = %path.display(),
        "the index of a segment of the change log is damaged: a destination that still needs the segment goes by its changes, and says so if \
         they are damaged, too"
    );
    let (last, ended_at) = following.map_or((mark, TimestampMicros(i64::MAX)), |following| (following.last, following.ended_at));
    Ok(Segment { path: path.to_owned(), first_entry, last, ended_at, bytes })
}

/// Where a segment is cut off.
struct Found {
    mark: LogMark,
    /// The end of the mark's frame.
    bytes: u64,
    index: Index,
    relations: Vec<Arc<Relation>>,
}

/// Reads a segment up to a mark, the last of its position. `None` if it does not hold everything from its beginning through it.
fn scan(mut reader: SegmentReader, position: LogPosition) -> Result<Option<Found>> {
    let mut index: Option<Index> = None;
    let mut relations: Vec<Arc<Relation>> = Vec::new();
    let mut found = None;
    while let Place::Frame(header) = reader.place()? {
        if header.last > position {
            break;
        }
        let offset = reader.offset();
        let index = match &mut index {
            Some(index) => index,
            None if header.kind == Kind::Mark => index.insert(Index::begin(&header)),
            None => return Ok(None),
        };
        match header.kind {
            Kind::Changes => {
                if !reader.is_whole(&header)? {
                    break;
                }
                reader.step(&header);
                index.note(&header, offset, None);
            }
            _ => match reader.read(&header, &Arc::default())? {
                None => break,
                Some(Frame::Relation(relation)) => {
                    index.note(&header, offset, Some((relation.name(), relation.version())));
                    // One that is announced again keeps its number.
                    if relations.len() < index.relations.len() {
                        relations.push(relation);
                    }
                }
                Some(Frame::Mark(mark)) => {
                    index.note(&header, offset, None);
                    if mark.position == position && !header.within {
                        found = Some(Found { mark, bytes: reader.offset(), index: index.clone(), relations: relations.clone() });
                    }
                }
                Some(Frame::Changes(_)) => {}
            },
        }
    }
    Ok(found)
}

fn path_of(directory: &Path, first_entry: u64) -> PathBuf {
    directory.join(format!("{first_entry:0DIGITS$}{SUFFIX}"))
}

fn sync_directory(directory: &Path) -> Result<()> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|error| file_failed("could not make the change log durable", directory, error))
}

/// The segments of a directory by their first entries; none if there is no such directory.
fn segments(directory: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let failed = |error| file_failed("could not list the change log's directory", directory, error);
    let files = match std::fs::read_dir(directory) {
        Ok(files) => files,
        Err(error) if error.kind() == IoErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut segments = Vec::new();
    for file in files {
        let path = file.map_err(failed)?.path();
        let number = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(SUFFIX));
        if let Some(number) = number.filter(|digits| digits.len() == DIGITS).and_then(|digits| digits.parse().ok()) {
            segments.push((number, path));
        }
    }
    segments.sort_unstable();
    Ok(segments)
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != IoErrorKind::NotFound => {
            Err(file_failed("could not remove a segment of the change log", path, error))
        }
        _ => Ok(()),
    }
}

fn lock(directory: &Path) -> Result<File> {
    let path = directory.join(LOCK);
    let file = File::create(&path).map_err(|error| file_failed("could not open the change log's lock file", &path, error))?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_WAIT),
            Err(TryLockError::Error(error)) => return Err(file_failed("could not lock the change log", &path, error)),
        }
    }
    Err(Error::fenced("the change log is written by another process")
        .context("path", path.display())
        .remedy("stop that process first, or give this stream another directory for its change log"))
}

/// A full disk or a passing fault of the device may go away; a missing right does not.
fn file_failed(what: &'static str, path: &Path, error: io::Error) -> Error {
    let failure = match error.kind() {
        IoErrorKind::StorageFull | IoErrorKind::QuotaExceeded | IoErrorKind::FileTooLarge => Error::transient(what)
            .remedy("the disk is full: free some space, or keep less with change_log.retain; the stream then goes on by itself"),
        IoErrorKind::PermissionDenied | IoErrorKind::ReadOnlyFilesystem => {
            Error::denied(what).remedy("let the user that runs logweir write there")
        }
        IoErrorKind::NotADirectory | IoErrorKind::IsADirectory | IoErrorKind::Unsupported | IoErrorKind::InvalidFilename => {
            Error::config(what).remedy("choose another directory for the change log, on a local file system")
        }
        _ => Error::transient(what),
    };
    failure.context("path", path.display()).source(error)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
