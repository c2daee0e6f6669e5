//! The change log on disk: a directory of segments, and maybe a prefix of an object store that has them, too.
//!
//! A segment is a file of frames: relations, batches of changes as Arrow IPC, marks. Its name is the number of its
//! first entry (and who wrote it, where there is a store), and it begins with the mark that everything in it lies behind, so each can be read by itself. A sealed segment ends
//! with an index; the last one is written to. Each frame has a checksum: whatever a crash leaves behind the last whole frame is cut
//! off when the log is opened, and so is what lies behind the mark that the checkpoint names, for the source tells it again.
//!
//! Entries are numbered through, and each is a frame with its number. Who reads takes one number behind the other, from segment to segment,
//! and what is missing or damaged in between is an error, never passed over.
//!
//! Any process may read while one writes. A segment is never changed but at its end, and goes as a whole when it has been kept long
//! enough.
//!
//! With a store everything that was synced is there, too: what the store has is the log, and the directory holds what is being written and
//! copies. A writer has a number that no other has, and goes on in a file of its own; so one that was taken for dead spoils nothing.

mod batch;
mod cursor;
mod frame;
mod index;
mod log;
mod name;
mod opening;
mod outline;
mod place;
mod reader;
mod store;
mod writer;

use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind as IoErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use logweir_core::{Error, Result};

pub use cursor::{Extent, Locate, SegmentCursor};
pub use log::SegmentLog;
pub use opening::SegmentClaim;
pub use place::SegmentPlace;
pub use store::{SegmentStore, StoreFailure};

/// Locked by who writes.
const LOCK: &str = "lock";

/// Of what is kept, a segment is this part: what is over the limit goes in such portions.
const SEGMENTS: u64 = 16;
const SEGMENT_BYTES_MIN: u64 = 1 << 20;
const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// A writer that was dropped may be in its last write still,
const LOCK_TRIES: u32 = 500;
/// or in its last upload.
const LOCK_TRIES_STORE: u32 = 6000;
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
#[derive(Debug, Clone)]
pub struct SegmentOptions {
    /// Where.
    pub directory: PathBuf,
    /// Where else: what was synced is there, and more than the directory has.
    pub store: Option<SegmentStore>,
    /// With a store: beyond so many bytes of the directory what the store has goes from there.
    pub cache_bytes: u64,
    /// How batches are compressed.
    pub compression: Compression,
    /// What was appended longer ago than this may go.
    pub retain_age: Duration,
    /// What is kept beyond this many bytes goes.
    pub retain_bytes: u64,
}

impl SegmentOptions {
    /// Where the log lies.
    pub fn place(&self) -> SegmentPlace {
        SegmentPlace { directory: self.directory.clone(), store: self.store.clone(), cache_bytes: self.cache_bytes }
    }

    fn segment_bytes(&self) -> u64 {
        (self.retain_bytes / SEGMENTS).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX)
    }
}

/// What a person can do about damage. Removing the log loses nothing where the source still has what it holds.
const DAMAGE_REMEDY: &str = "nothing is passed over. With `acknowledge: destination`: stop the stream, remove the change log's directory and \
     start again (with change_log.url its objects, too; where only a copy in the directory is damaged, that file will do: it is downloaded again); \
     the source still has everything, and nothing is lost. With `acknowledge: log` the source may have forgotten it: put the \
     segment back from a copy, or give the destinations that still need it a backfill; `logweir replay` with a later --from gives them \
     what lies behind the damage";

/// What stands on disk is not what was written.
fn damaged(what: &'static str) -> Error {
    Error::corrupt(what).remedy(DAMAGE_REMEDY)
}

fn sync_directory(directory: &Path) -> Result<()> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|error| file_failed("could not make the change log durable", directory, error))
}

fn lock(directory: &Path, tries: u32) -> Result<File> {
    let path = directory.join(LOCK);
    let file = File::create(&path).map_err(|error| file_failed("could not open the change log's lock file", &path, error))?;
    for _ in 0..tries {
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
