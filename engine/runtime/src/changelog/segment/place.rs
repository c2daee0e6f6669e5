//! Where a change log lies, to whom reads it: a directory, and maybe a store that has more of it.
//!
//! Without a store the directory has everything. With one there are two cases:
//!
//! * Somebody on this machine writes the log: its directory is locked. What it has sealed stands in a file beside the segments, what it writes to is
//!   in the directory, and the store is not asked what there is.
//! * Nobody does. Then what the store has is the log, and files of the directory are copies. The store is asked once a second at most. (One that
//!   has nothing gets what the directory has when somebody begins to write.)
//!
//! Either way a segment of which the directory lacks something is downloaded before it is read.

use std::fs::{File, TryLockError};
use std::io::ErrorKind as IoErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use logweir_core::{LogMark, Result, TimestampMicros};

use super::frame::{HEADER_BYTES, Header, NoFrame, verify};
use super::name::{SegmentName, keep_valid};
use super::reader::{Place, SegmentReader, place_of};
use super::store::{Object, Partial, SegmentStore, file_age, local_bytes};
use super::{LOCK, file_failed};

/// What the log's writer has sealed and uploaded or is about to: a line with bytes and name each.
const SEALED_LIST: &str = "sealed";
/// However little a cache may hold: a reader comes back to the file that it was in.
const CACHED_FILES_MIN: usize = 2;
/// What is longer is downloaded with its segment.
const MARK_BYTES_MAX: u64 = 16 << 20;
/// A copy that the store does not have any more is not one that is just being made.
const STALE_AGE: Duration = Duration::from_secs(3600);

/// Where a change log lies.
#[derive(Debug, Clone)]
pub struct SegmentPlace {
    /// The directory.
    pub directory: PathBuf,
    /// The store, if it has one.
    pub store: Option<SegmentStore>,
    /// With a store: beyond so many bytes copies leave the directory.
    pub cache_bytes: u64,
}

impl From<&Path> for SegmentPlace {
    fn from(directory: &Path) -> Self {
        SegmentPlace { directory: directory.to_owned(), store: None, cache_bytes: u64::MAX }
    }
}

impl From<&SegmentPlace> for SegmentPlace {
    fn from(place: &SegmentPlace) -> Self {
        place.clone()
    }
}

/// A segment of the log.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    pub(super) name: SegmentName,
    /// Where it is in the directory, or will be when it is there.
    pub(super) path: PathBuf,
    /// As the store has it; `None` if only the directory does.
    pub(super) object: Option<Object>,
}

impl Listed {
    pub(super) fn first_entry(&self) -> u64 {
        self.name.first_entry
    }

    /// True if the directory has all of it.
    pub(super) fn is_local(&self) -> bool {
        self.object.is_none_or(|object| local_bytes(&self.path) >= Some(object.bytes))
    }

    /// Bytes that there are of it.
    pub(super) fn bytes(&self) -> u64 {
        local_bytes(&self.path).max(self.object.map(|object| object.bytes)).unwrap_or(0)
    }
}

impl SegmentPlace {
    /// The log's segments in their order.
    pub(super) fn segments(&self) -> Result<Vec<Listed>> {
        let Some(store) = &self.store else { return local_segments(&self.directory) };
        let mut segments: Vec<Listed>;
        if let Some(sealed) = self.sealed_by_writer()? {
            segments = sealed.into_iter().map(|object| self.listed(object)).collect();
            let last = segments.last().map(|segment| segment.name);
            // The list first, then the directory: what was sealed in between is there.
            let written = local_segments(&self.directory)?.into_iter();
            segments.extend(written.filter(|segment| last.is_none_or(|last| segment.first_entry() > last.first_entry)));
        } else {
            segments = store.seen()?.iter().map(|object| self.listed(*object)).collect();
            // A store that has nothing yet gets what the directory has.
            if segments.is_empty() {
                return local_segments(&self.directory);
            }
        }
        keep_valid(&mut segments, |segment| segment.name);
        Ok(segments)
    }

    /// A segment that the store has.
    pub(super) fn listed(&self, object: Object) -> Listed {
        Listed { name: object.name, path: self.directory.join(object.name.to_string()), object: Some(object) }
    }

    /// The next look at the segments sees what is there then.
    pub(super) fn forget(&self) {
        if let Some(store) = &self.store {
            store.forget();
        }
    }

    /// Opens a segment, downloaded if it is not there; `None` if it is gone.
    pub(super) fn open(&self, segment: &Listed) -> Result<Option<SegmentReader>> {
        let is_local = segment.is_local();
        let reader = self.open_copy(segment)?;
        // Where somebody writes, it is the writer who makes room.
        if let Some(store) = &self.store
            && !is_local
            && self.sealed_by_writer()?.is_none()
        {
            let objects = store.seen()?;
            self.make_room(|name| objects.iter().find(|object| object.name == name).map(|object| object.bytes), true);
        }
        Ok(reader)
    }

    /// The same without a thought of room.
    pub(super) fn open_copy(&self, segment: &Listed) -> Result<Option<SegmentReader>> {
        let (Some(store), Some(object)) = (&self.store, segment.object) else {
            return SegmentReader::open(segment.first_entry(), &segment.path);
        };
        // A copy that goes between the look at it and the opening is downloaded again.
        for _ in 0..2 {
            if !segment.is_local() && !store.download(segment.name, &segment.path, object.bytes)? {
                break;
            }
            let reader = SegmentReader::open(segment.first_entry(), &segment.path)?;
            if reader.is_some() {
                return Ok(reader);
            }
        }
        store.forget();
        Ok(None)
    }

    /// What a segment begins with, without downloading the rest; `None` if it is gone.
    pub(super) fn opening(&self, segment: &Listed) -> Result<Option<Place>> {
        if segment.is_local()
            && let Some(reader) = SegmentReader::open(segment.first_entry(), &segment.path)?
        {
            return reader.place().map(Some);
        }
        let (Some(store), Some(object)) = (&self.store, &segment.object) else { return Ok(None) };
        Ok(store.beginning(object, HEADER_BYTES as u64)?.map(|bytes| place_of(&bytes, segment.first_entry())))
    }

    /// The mark that a segment begins with, whose header is known, without downloading the rest; `None` where that is no use, or the mark is damaged.
    pub(super) fn opening_mark(&self, segment: &Listed, header: &Header) -> Result<Option<LogMark>> {
        let (Some(store), Some(object)) = (&self.store, &segment.object) else { return Ok(None) };
        if segment.is_local() || header.payload_bytes > MARK_BYTES_MAX {
            return Ok(None);
        }
        let Some(frame) = store.beginning(object, header.frame_bytes())? else { return Ok(None) };
        let Some((head, payload)) = frame.split_at_checked(HEADER_BYTES) else { return Ok(None) };
        let mark = payload.get(..header.payload_bytes as usize).filter(|_| verify(head, payload));
        Ok(mark.and_then(|mark| serde_json::from_slice(mark).ok()))
    }

    /// What the writer on this machine has sealed; `None` if there is none, or it has not said so yet.
    fn sealed_by_writer(&self) -> Result<Option<Vec<Object>>> {
        let path = self.directory.join(LOCK);
        let lock = match File::open(&path) {
            Ok(lock) => lock,
            Err(error) if error.kind() == IoErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(file_failed("could not open the change log's lock file", &path, error)),
        };
        // Shared, so that readers do not take each other for a writer.
        match lock.try_lock_shared() {
            Ok(()) => return Ok(None),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(file_failed("could not look at the change log's lock", &path, error)),
        }
        let path = self.directory.join(SEALED_LIST);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.lines().filter_map(sealed_line).collect())),
            Err(error) if error.kind() == IoErrorKind::NotFound => Ok(None),
            Err(error) => Err(file_failed("could not read the list of the change log's segments", &path, error)),
        }
    }

    /// Says what the writer has sealed.
    pub(super) fn write_sealed(&self, sealed: impl Iterator<Item = (SegmentName, u64)>) -> Result<()> {
        use std::io::Write as _;
        let mut list = Partial::create(&self.directory, SEALED_LIST)?;
        let text: String = sealed.map(|(name, bytes)| format!("{bytes} {name}\n")).collect();
        list.file.write_all(text.as_bytes()).map_err(|error| list.failed(error))?;
        list.finish()
    }

    /// Takes back what an earlier writer has said.
    pub(super) fn remove_sealed(&self) -> Result<()> {
        remove(&self.directory.join(SEALED_LIST))
    }

    /// Removes files that the store has, as many bytes of them as `stored` says, until the rest is no more than the cache may hold: those first that were
    /// written or downloaded longest ago. `stale`: also files that the store does not have any more.
    pub(super) fn make_room(&self, stored: impl Fn(SegmentName) -> Option<u64>, stale: bool) {
        let Ok(files) = std::fs::read_dir(&self.directory) else { return };
        let mut copies = Vec::new();
        for file in files.flatten() {
            let Some(name) = file.file_name().to_str().and_then(SegmentName::parse) else { continue };
            let (Ok(metadata), Some(age)) = (file.metadata(), file_age(&file)) else { continue };
            copies.push((age, name, metadata.len(), file.path()));
        }
        copies.sort();
        let mut bytes: u64 = copies.iter().map(|(_, _, bytes, _)| bytes).sum();
        for (age, name, length, path) in copies.drain(..).skip(CACHED_FILES_MIN).rev() {
            let goes = match stored(name) {
                Some(stored) => bytes > self.cache_bytes && length <= stored,
                None => stale && age > STALE_AGE,
            };
            // One that stays where it should go is looked at again.
            if goes && std::fs::remove_file(path).is_ok() {
                bytes -= length;
            }
        }
    }
}

fn sealed_line(line: &str) -> Option<Object> {
    let (bytes, name) = line.split_once(' ')?;
    Some(Object { name: SegmentName::parse(name)?, bytes: bytes.parse().ok()?, put_at: TimestampMicros(0) })
}

/// The segments of a directory that count; none if there is no such directory.
pub(super) fn local_segments(directory: &Path) -> Result<Vec<Listed>> {
    let mut segments = local_files(directory)?;
    keep_valid(&mut segments, |segment| segment.name);
    Ok(segments)
}

/// The segments of a directory, whether or not they count.
pub(super) fn local_files(directory: &Path) -> Result<Vec<Listed>> {
    let failed = |error| file_failed("could not list the change log's directory", directory, error);
    let files = match std::fs::read_dir(directory) {
        Ok(files) => files,
        Err(error) if error.kind() == IoErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut segments = Vec::new();
    for file in files {
        let path = file.map_err(failed)?.path();
        if let Some(name) = path.file_name().and_then(|name| name.to_str()).and_then(SegmentName::parse) {
            segments.push(Listed { name, path, object: None });
        }
    }
    Ok(segments)
}

/// Removes a file of the log, if it is there.
pub(super) fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != IoErrorKind::NotFound => Err(file_failed("could not remove a file of the change log", path, error)),
        _ => Ok(()),
    }
}

/// True if no frame can be where a segment begins, and none can come: it is damaged.
pub(super) fn is_broken(place: &Place) -> bool {
    matches!(place, Place::End(NoFrame::Broken))
}
