//! The prefix of an object store that a change log is kept in, beside a directory.
//!
//! ```text
//! PREFIX/<first entry>-<writer>.changes   segments, as the directory has them
//! PREFIX/writers/<writer>                 taken numbers of writers
//! ```
//!
//! Objects cannot be appended to: a segment that has grown is put again as a whole, and is there whole or as it was before. A segment is read
//! from a copy in the directory, which gets its name when it is whole.

use std::fmt;
use std::fs::File;
use std::future::Future;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::TryStreamExt as _;
use logweir_core::{Clock as _, Error, Result, SystemClock, TimestampMicros};
use object_store::path::Path as ObjectPath;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload};
use tokio::runtime::Handle;

use super::file_failed;
use super::name::{SegmentName, WRITER_MAX, parse_writer, writer_text};
use super::outline::locked;
use crate::state::holder;

/// Below the prefix: an object for each number of a writer that was taken.
const WRITERS: &str = "writers";
/// Rounds of looking and taking before a claim gives up: each lost round means that another writer came between.
const CLAIM_ROUNDS_MAX: usize = 8;
/// What is larger is put in parts of this size, so that no more than this is held in memory.
const PART_BYTES: u64 = 16 << 20;
/// How long a listing is good for those who only read.
const LISTING_AGE_MAX: Duration = Duration::from_secs(1);
/// The end of the name of a file that is not whole yet.
const PARTIAL: &str = ".part";
/// Whoever began such a file has ended since.
const PARTIAL_AGE_MAX: Duration = Duration::from_secs(3600);

/// Tells an error of the store, met while something was done to an object.
pub type StoreFailure = fn(StoreError, &'static str, &ObjectPath) -> Error;

/// A prefix of an object store. Cloning shares it. Its requests block: only threads that may do so use it, within a runtime.
#[derive(Clone)]
pub struct SegmentStore {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn ObjectStore>,
    prefix: ObjectPath,
    /// The prefix as a folder of this machine, if it is one: there is nothing between us and its disk that makes files durable.
    folder: Option<PathBuf>,
    failure: StoreFailure,
    /// What readers saw last, and when.
    seen: Mutex<Option<(TimestampMicros, Arc<Vec<Object>>)>>,
    /// Held while something is downloaded: who wants the same finds it there.
    download: Mutex<()>,
}

/// A segment in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) name: SegmentName,
    pub(super) bytes: u64,
    /// When it was put last.
    pub(super) put_at: TimestampMicros,
}

/// What lies below the prefix. Names that are not ours are left out.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// In no order, whether or not they count.
    pub(super) objects: Vec<Object>,
    /// Numbers of writers that were taken.
    pub(super) writers: Vec<u64>,
}

impl SegmentStore {
    /// A prefix of a store, and the folder of this machine that it is, if it is one. Touches nothing yet.
    pub fn new(store: Arc<dyn ObjectStore>, prefix: ObjectPath, folder: Option<PathBuf>, failure: StoreFailure) -> Self {
        let shared = Shared { store, prefix, folder, failure, seen: Mutex::default(), download: Mutex::default() };
        SegmentStore { shared: Arc::new(shared) }
    }

    fn run<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let handle = Handle::try_current();
        handle.map_err(|error| Error::internal("an object store was used outside of a runtime").source(error))?.block_on(work)
    }

    fn failed(&self, doing: &'static str, path: &ObjectPath) -> impl FnOnce(StoreError) -> Error {
        let (failure, path) = (self.shared.failure, path.clone());
        move |error| failure(error, doing, &path)
    }

    fn path(&self, name: SegmentName) -> ObjectPath {
        self.shared.prefix.clone().join(name.to_string())
    }

    fn writer_path(&self, writer: u64) -> ObjectPath {
        self.shared.prefix.clone().join(WRITERS).join(writer_text(writer))
    }

    /// What is there now.
    pub(super) fn list(&self) -> Result<Listing> {
        let prefix = &self.shared.prefix;
        let objects = self.run(async {
            let objects = self.shared.store.list(Some(prefix)).try_collect::<Vec<_>>().await;
            objects.map_err(self.failed("could not list the change log's objects", prefix))
        })?;
        let mut listing = Listing::default();
        for object in objects {
            let Some(parts) = object.location.prefix_match(prefix) else { continue };
            let parts: Vec<_> = parts.collect();
            match &parts[..] {
                [name] => listing.objects.extend(SegmentName::parse(name.as_ref()).map(|name| {
                    let put_at = TimestampMicros(object.last_modified.timestamp_micros());
                    Object { name, bytes: object.size, put_at }
                })),
                [folder, writer] if folder.as_ref() == WRITERS => listing.writers.extend(parse_writer(writer.as_ref())),
                _ => {}
            }
        }
        Ok(listing)
    }

    /// What was there a moment ago.
    pub(super) fn seen(&self) -> Result<Arc<Vec<Object>>> {
        let mut seen = locked(&self.shared.seen);
        let now = SystemClock.now();
        if let Some((at, objects)) = &*seen
            // A clock that was put back says nothing of how old it is.
            && *at <= now
            && now.since(*at) < LISTING_AGE_MAX
        {
            return Ok(Arc::clone(objects));
        }
        let objects = Arc::new(self.list()?.objects);
        *seen = Some((now, Arc::clone(&objects)));
        Ok(objects)
    }

    /// The next look is a new one.
    pub(super) fn forget(&self) {
        *locked(&self.shared.seen) = None;
    }

    /// Takes a number that no writer has, greater than that of every other and than `above`. It is greater than the seconds since 1970, too, so that it does
    /// not come again when everything in the store was removed: whoever has copies of then must not take them for copies of now.
    pub(super) fn claim(&self, above: u64) -> Result<u64> {
        if let Some(folder) = &self.shared.folder {
            remove_old_partials(folder);
        }
        for _ in 0..CLAIM_ROUNDS_MAX {
            let listing = self.list()?;
            let of_segments = listing.objects.iter().map(|object| object.name.writer);
            let highest = listing.writers.iter().copied().chain(of_segments).max().unwrap_or(0).max(above);
            let now = u64::try_from(SystemClock.now().0 / 1_000_000).unwrap_or(0);
            let number = now.max(highest + 1);
            let path = self.writer_path(number);
            if number > WRITER_MAX {
                return Err(Error::config("the change log's numbers of writers are used up")
                    .context("object", path)
                    .remedy("give the change log another prefix; nobody but logweir may write there"));
            }
            let options = PutOptions::from(PutMode::Create);
            match self.run(async { Ok(self.shared.store.put_opts(&path, PutPayload::from(holder().into_bytes()), options).await) })? {
                Ok(_) => return Ok(number),
                Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => {}
                Err(error @ (StoreError::NotImplemented { .. } | StoreError::NotSupported { .. })) => {
                    return Err(Error::config("could not become the change log's writer: the store has no conditional writes")
                        .context("object", path)
                        .source(error)
                        .remedy("keep the change log in a directory only: leave out change_log.url"));
                }
                Err(error) => return Err(self.failed("could not become the change log's writer", &path)(error)),
            }
        }
        Err(Error::transient("could not become the change log's writer: other processes become it again and again")
            .context("prefix", &self.shared.prefix)
            .remedy("run the stream in one process only"))
    }

    /// Makes the first `bytes` bytes of a file the object of a segment.
    pub(super) fn put(&self, name: SegmentName, path: &Path, bytes: u64) -> Result<()> {
        let unread = |error| file_failed("could not read a segment of the change log", path, error);
        let mut file = File::open(path).map_err(unread)?.take(bytes);
        if let Some(folder) = &self.shared.folder {
            let mut copy = Partial::create(folder, &name.to_string())?;
            io::copy(&mut file, &mut copy.file).map_err(|error| copy.failed(error))?;
            return copy.finish();
        }
        let object = self.path(name);
        let failed = || self.failed("could not upload a segment of the change log", &object);
        self.run(async {
            if bytes <= PART_BYTES {
                let payload = read_part(&mut file).map_err(unread)?;
                return self.shared.store.put(&object, payload.into()).await.map(drop).map_err(failed());
            }
            let mut upload = self.shared.store.put_multipart(&object).await.map_err(failed())?;
            let parts = async {
                loop {
                    let part = read_part(&mut file).map_err(unread)?;
                    if part.is_empty() {
                        return upload.complete().await.map(drop).map_err(failed());
                    }
                    upload.put_part(part.into()).await.map_err(failed())?;
                }
            };
            let done = parts.await;
            if done.is_err() {
                // It fails most likely for the same reason; what it leaves is invisible.
                let _ = upload.abort().await;
            }
            done
        })
    }

    /// Downloads a segment to where it belongs in its directory, unless as many bytes are there meanwhile. False if the store does not have it (any more).
    pub(super) fn download(&self, name: SegmentName, path: &Path, bytes: u64) -> Result<bool> {
        let _one_at_a_time = locked(&self.shared.download);
        if local_bytes(path) >= Some(bytes) {
            return Ok(true);
        }
        let directory = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory).map_err(|error| file_failed("could not create the change log's directory", directory, error))?;
        remove_old_partials(directory);
        let object = self.path(name);
        let failed = || self.failed("could not download a segment of the change log", &object);
        self.run(async {
            let found = match self.shared.store.get(&object).await {
                Ok(found) => found,
                Err(StoreError::NotFound { .. }) => return Ok(false),
                Err(error) => return Err(failed()(error)),
            };
            let mut copy = Partial::create(directory, &name.to_string())?;
            let mut pieces = found.into_stream();
            while let Some(piece) = pieces.try_next().await.map_err(failed())? {
                copy.file.write_all(&piece).map_err(|error| copy.failed(error))?;
            }
            copy.finish().map(|()| true)
        })
    }

    /// The first bytes of a segment, so many if there are; `None` if the store does not have it (any more).
    pub(super) fn beginning(&self, object: &Object, bytes: u64) -> Result<Option<Vec<u8>>> {
        let range = 0..object.bytes.min(bytes);
        if range.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let path = self.path(object.name);
        match self.run(async { Ok(self.shared.store.get_range(&path, range).await) })? {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("could not read a segment of the change log", &path)(error)),
        }
    }

    /// Removes a segment.
    pub(super) fn remove(&self, name: SegmentName) -> Result<()> {
        self.delete(&self.path(name))
    }

    /// Gives a number free that a writer has had.
    pub(super) fn remove_writer(&self, writer: u64) -> Result<()> {
        self.delete(&self.writer_path(writer))
    }

    fn delete(&self, path: &ObjectPath) -> Result<()> {
        match self.run(async { Ok(self.shared.store.delete(path).await) })? {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed("could not remove an object of the change log", path)(error)),
        }
    }
}

impl fmt::Display for SegmentStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.shared.prefix, self.shared.store)
    }
}

impl fmt::Debug for SegmentStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SegmentStore({self})")
    }
}

fn read_part(file: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut part = Vec::new();
    file.take(PART_BYTES).read_to_end(&mut part)?;
    Ok(part)
}

/// Bytes of a file; `None` if it is not there.
pub(super) fn local_bytes(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|file| file.len())
}

/// A file under way. It gets its name when it is whole and durable, and goes if that never comes.
pub(super) struct Partial {
    pub(super) file: File,
    path: PathBuf,
    target: PathBuf,
    finished: bool,
}

impl Partial {
    /// Begins the file `name` of a directory.
    pub(super) fn create(directory: &Path, name: &str) -> Result<Self> {
        /// Several of one name may be under way.
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let unique = format!(".{name}-{}-{}{PARTIAL}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = directory.join(unique);
        let create = || std::fs::create_dir_all(directory).and_then(|()| File::create(&path));
        let file = create().map_err(|error| file_failed("could not create a file of the change log", &path, error))?;
        Ok(Partial { file, path, target: directory.join(name), finished: false })
    }

    /// What went wrong with it.
    pub(super) fn failed(&self, error: io::Error) -> Error {
        file_failed("could not write a file of the change log", &self.target, error)
    }

    /// Gives it its name.
    pub(super) fn finish(mut self) -> Result<()> {
        let directory = self.target.parent().unwrap_or(Path::new("."));
        let finish = || {
            self.file.sync_all()?;
            std::fs::rename(&self.path, &self.target)?;
            File::open(directory)?.sync_all()
        };
        finish().map_err(|error| self.failed(error))?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.finished {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Removes what processes that are gone have left behind.
pub(super) fn remove_old_partials(directory: &Path) {
    let Ok(files) = std::fs::read_dir(directory) else { return };
    for file in files.flatten() {
        let is_partial = file.file_name().to_str().is_some_and(|name| name.starts_with('.') && name.ends_with(PARTIAL));
        if is_partial && file_age(&file) > Some(PARTIAL_AGE_MAX) {
            let _ = std::fs::remove_file(file.path());
        }
    }
}

/// How long ago a file was written to; `None` if that cannot be told.
pub(super) fn file_age(file: &std::fs::DirEntry) -> Option<Duration> {
    let modified = file.metadata().and_then(|file| file.modified()).ok()?;
    let modified = modified.duration_since(std::time::UNIX_EPOCH).ok()?.as_micros();
    Some(SystemClock.now().since(TimestampMicros(i64::try_from(modified).ok()?)))
}
