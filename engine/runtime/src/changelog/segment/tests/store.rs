//! Logs in a store: what one machine wrote, another goes on with or reads, whatever a writer that was taken for dead does.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path as ObjectPath;
use object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt as _,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult,
};
use tokio::runtime::Runtime;

use super::*;

/// A store that can be away, and counts.
#[derive(Debug)]
struct Unreliable {
    inner: Box<dyn ObjectStore>,
    away: AtomicBool,
    lists: AtomicUsize,
    gets: AtomicUsize,
    put_bytes: AtomicU64,
}

impl Unreliable {
    fn answer(&self) -> StoreResult<()> {
        match self.away.load(Ordering::SeqCst) {
            true => Err(StoreError::Generic { store: "unreliable", source: "it is away".into() }),
            false => Ok(()),
        }
    }
}

impl fmt::Display for Unreliable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unreliable")
    }
}

#[async_trait]
impl ObjectStore for Unreliable {
    async fn put_opts(&self, location: &ObjectPath, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        self.answer()?;
        self.put_bytes.fetch_add(payload.content_length() as u64, Ordering::SeqCst);
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(&self, location: &ObjectPath, options: PutMultipartOptions) -> StoreResult<Box<dyn MultipartUpload>> {
        self.answer()?;
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &ObjectPath, options: GetOptions) -> StoreResult<GetResult> {
        self.answer()?;
        self.gets.fetch_add(1, Ordering::SeqCst);
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, StoreResult<ObjectPath>>) -> BoxStream<'static, StoreResult<ObjectPath>> {
        match self.answer() {
            Ok(()) => self.inner.delete_stream(locations),
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        }
    }

    fn list(&self, prefix: Option<&ObjectPath>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.lists.fetch_add(1, Ordering::SeqCst);
        match self.answer() {
            Ok(()) => self.inner.list(prefix),
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&ObjectPath>) -> StoreResult<ListResult> {
        self.answer()?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &ObjectPath, to: &ObjectPath, options: CopyOptions) -> StoreResult<()> {
        self.answer()?;
        self.inner.copy_opts(from, to, options).await
    }
}

/// A store with a log below `log`, and machines that come and go.
struct Rig {
    runtime: Runtime,
    store: Arc<Unreliable>,
    prefix: ObjectPath,
    folder: Option<tempfile::TempDir>,
}

impl Rig {
    fn new(inner: Box<dyn ObjectStore>, prefix: ObjectPath, folder: Option<tempfile::TempDir>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (away, lists, gets, put_bytes) = Default::default();
        Rig { runtime, store: Arc::new(Unreliable { inner, away, lists, gets, put_bytes }), prefix, folder }
    }

    fn memory() -> Self {
        Rig::new(Box::new(InMemory::new()), ObjectPath::from("log"), None)
    }

    fn folder() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let prefix = ObjectPath::from_absolute_path(folder.path()).unwrap();
        Rig::new(Box::new(LocalFileSystem::new()), prefix, Some(folder))
    }

    fn machine(&self) -> Machine {
        let folder = self.folder.as_ref().map(|folder| folder.path().to_owned());
        let store = SegmentStore::new(Arc::<Unreliable>::clone(&self.store), self.prefix.clone(), folder, |error, doing, path| {
            Error::transient(doing).context("path", path).source(error)
        });
        let directory = tempfile::tempdir().unwrap();
        // Segments are as small as they can be.
        let small = SegmentOptions { compression: Compression::None, retain_bytes: 1, ..options(&directory.path().join("log")) };
        Machine { options: SegmentOptions { store: Some(store), ..small }, _directory: directory }
    }

    fn run<T>(&self, work: impl Future<Output = StoreResult<T>>) -> T {
        self.runtime.block_on(work).unwrap()
    }

    /// The objects with their bytes, without the prefix.
    fn objects(&self) -> Vec<(String, u64)> {
        let objects = self.runtime.block_on(self.store.inner.list(Some(&self.prefix)).collect::<Vec<_>>());
        let mut objects: Vec<_> = objects
            .into_iter()
            .map(|object| object.unwrap())
            .map(|object| (object.location.as_ref()[self.prefix.as_ref().len() + 1..].to_owned(), object.size))
            .collect();
        objects.sort();
        objects
    }

    fn segments(&self) -> Vec<(String, u64)> {
        self.objects().into_iter().filter(|(name, _)| SegmentName::parse(name).is_some()).collect()
    }

    fn get(&self, name: &str) -> Vec<u8> {
        let path = self.prefix.clone().join(name);
        self.run(async { self.store.inner.get(&path).await?.bytes().await }).to_vec()
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        let path = ObjectPath::from_iter(self.prefix.parts().chain(ObjectPath::from(name).parts()));
        self.run(self.store.inner.put(&path, PutPayload::from(bytes.to_vec())));
    }
}

struct Machine {
    options: SegmentOptions,
    _directory: tempfile::TempDir,
}

impl Machine {
    fn open(&self, commit: Option<u64>) -> SegmentLog {
        SegmentLog::open(self.options.clone(), commit.map(position)).unwrap()
    }

    fn place(&self) -> SegmentPlace {
        self.options.place()
    }

    /// Everything that it can read.
    fn all(&self) -> Vec<(u64, String)> {
        self.place().forget();
        read(SegmentCursor::at(self.place(), 0))
    }

    fn files(&self) -> Vec<(u64, PathBuf)> {
        segments(&self.options.directory).unwrap()
    }
}

/// Appends, and syncs behind each so many entries and the last.
fn append_and_sync(log: &mut SegmentLog, entries: &[Entry], each: usize) {
    for entries in entries.chunks(each) {
        append(log, entries);
        log.sync().unwrap();
    }
}

/// How many entries there are through the mark of a transaction.
fn through(entries: &[Entry], commit: u64) -> usize {
    entries.iter().position(|entry| matches!(entry, Entry::Mark(found) if *found == mark(commit))).unwrap() + 1
}

#[test]
fn a_machine_with_nothing_goes_on_with_what_the_store_has() {
    for rig in [Rig::memory(), Rig::folder()] {
        let _runtime = rig.runtime.enter();
        let entries = entries(500);
        let all = numbered(&entries);
        let first = rig.machine();
        let mut log = first.open(None);
        append_and_sync(&mut log, &entries[..through(&entries, 4005)], 100);
        // This was never synced, and does not count.
        append(&mut log, &entries[through(&entries, 4005)..through(&entries, 4205)]);
        drop(log);
        assert!(rig.segments().len() > 2, "{:?}", rig.segments());
        drop(first);

        let second = rig.machine();
        let mut log = second.open(Some(4005));
        assert_eq!((log.mark(), log.next_entry()), (Some(&mark(4005)), through(&entries, 4005) as u64));
        assert_eq!(second.files().len(), 1, "older ones are not needed to go on");
        let before = rig.segments();
        append_and_sync(&mut log, &entries[through(&entries, 4005)..], 100);
        // The segment that it went on from has made way.
        let (old, _) = before.last().unwrap();
        let now = rig.segments();
        assert!(!now.iter().any(|(name, _)| name == old) && now.iter().any(|(name, _)| name[..20] == old[..20]), "{before:?} {now:?}");
        assert_eq!(now.iter().map(|(_, bytes)| bytes).sum::<u64>(), log.bytes());
        assert_eq!(rig.objects().len(), now.len() + 1, "one writer has a number: {:?}", rig.objects());
        // Here, on another machine, and after the end of the writer.
        let third = rig.machine();
        assert_eq!(second.all(), all);
        assert_eq!(third.all(), all);
        drop(log);
        assert_eq!(second.all(), all);
        for commit in [5, 1233, 4000, 4005, 5005] {
            let place = Locate::Position(position(commit));
            let one = SegmentCursor::locate(rig.machine().place(), place).unwrap();
            let other = SegmentCursor::locate(second.place(), place).unwrap();
            assert_eq!((one.1, one.0.entry()), (other.1, other.0.entry()));
        }
        let looks = rig.machine();
        let extent = SegmentCursor::extent(looks.place()).unwrap().unwrap();
        assert_eq!(looks.files().len(), 1, "the first is not downloaded for its first mark");
        assert_eq!((extent.first, extent.last, extent.segments), (mark(0), mark(5005), now.len()));
        assert_eq!(extent.bytes, now.iter().map(|(_, bytes)| bytes).sum::<u64>());
    }
}

#[test]
fn a_reader_on_another_machine_follows_what_was_synced() {
    let rig = Rig::memory();
    let _runtime = rig.runtime.enter();
    let (writer, reader) = (rig.machine(), rig.machine());
    let entries = entries(400);
    let mut log = writer.open(None);
    let mut cursor = SegmentCursor::at(reader.place(), 0);
    assert!(cursor.read(u64::MAX, 1, 1, &Arc::default()).unwrap().is_empty(), "nothing yet");
    let mut found = Vec::new();
    for entries in entries.chunks(37) {
        append_and_sync(&mut log, entries, 10);
        // A look a moment later would be a new one.
        reader.place().forget();
        loop {
            let first = cursor.entry();
            let some = cursor.read(u64::MAX, 1 << 16, 7, &Arc::default()).unwrap();
            if some.is_empty() {
                break;
            }
            found.extend(numbered_from(first, &some));
        }
        assert_eq!(found.len() as u64, log.next_entry());
    }
    assert_eq!(found, numbered(&entries));
    // Whoever looks all the time does not ask all the time, and on the writer's machine not at all.
    let lists = rig.store.lists.load(Ordering::SeqCst);
    for _ in 0..50 {
        assert!(cursor.pass().unwrap().is_none());
    }
    assert!(rig.store.lists.load(Ordering::SeqCst) <= lists + 2);
    let lists = rig.store.lists.load(Ordering::SeqCst);
    assert_eq!(writer.all(), found);
    assert_eq!(rig.store.lists.load(Ordering::SeqCst), lists);
}

#[test]
fn a_writer_that_was_taken_for_dead_spoils_nothing() {
    let rig = Rig::memory();
    let _runtime = rig.runtime.enter();
    let entries = entries(600);
    let at = |commit: u64| through(&entries, commit);
    let all = numbered(&entries);
    let (old, new, reader) = (rig.machine(), rig.machine(), rig.machine());
    let mut zombie = old.open(None);
    append_and_sync(&mut zombie, &entries[..at(2005)], 50);
    // It goes on while the new one opens, and both have the same mark of the checkpoint.
    append_and_sync(&mut zombie, &entries[at(2005)..at(2105)], 50);
    let mut log = new.open(Some(2005));
    append_and_sync(&mut zombie, &entries[at(2105)..at(2155)], 50);
    assert_eq!(reader.all(), all[..at(2155)], "the old one counts until the new one has something");
    append_and_sync(&mut log, &entries[at(2005)..at(2055)], 50);
    assert_eq!(reader.all(), all[..at(2055)]);
    // The old name again; then a segment of its own, which it is refused to keep.
    append(&mut zombie, &entries[at(2155)..at(2165)]);
    zombie.sync().unwrap();
    assert_eq!(reader.all(), all[..at(2055)]);
    append(&mut zombie, &entries[at(2165)..at(4005)]);
    assert_eq!(zombie.sync().unwrap_err().kind(), ErrorKind::Fenced);
    assert!(rig.segments().len() > log.names().len());
    assert_eq!(reader.all(), all[..at(2055)]);
    assert_eq!(rig.machine().all(), all[..at(2055)]);
    // The new one goes past where the old one was, and clears up.
    append_and_sync(&mut log, &entries[at(2055)..], 50);
    assert_eq!(rig.machine().all(), all);
    let mut names: Vec<String> = log.names().iter().map(SegmentName::to_string).collect();
    names.sort();
    assert_eq!(rig.segments().into_iter().map(|(name, _)| name).collect::<Vec<_>>(), names);
    drop((zombie, log));
    // A third one, on the machine of the first.
    let log = old.open(Some(6005));
    assert_eq!(log.mark(), Some(&mark(6005)));
    let names: Vec<String> = old.files().iter().map(|(_, path)| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    assert!(names.iter().all(|name| log.names().contains(&SegmentName::parse(name).unwrap())), "{names:?} {log:?}");
    drop(log);
    assert_eq!(old.all(), all);
}

#[test]
fn a_reader_is_told_when_the_log_is_taken_over() {
    let rig = Rig::memory();
    let _runtime = rig.runtime.enter();
    let entries = entries(20);
    let (old, new, reader) = (rig.machine(), rig.machine(), rig.machine());
    let mut zombie = old.open(None);
    append_and_sync(&mut zombie, &entries, 50);
    let mut cursor = SegmentCursor::at(reader.place(), 0);
    assert_eq!(cursor.read(u64::MAX, usize::MAX, 999, &Arc::default()).unwrap().len(), entries.len());
    let mut log = new.open(Some(105));
    append_and_sync(&mut log, &entries[through(&entries, 105)..through(&entries, 115)], 50);
    reader.place().forget();
    assert_eq!(cursor.read(u64::MAX, 1, 1, &Arc::default()).unwrap_err().kind(), ErrorKind::Transient);
    assert_eq!(reader.all(), numbered(&entries)[..through(&entries, 115)]);
}

#[test]
fn what_the_cache_does_not_hold_comes_from_the_store() {
    let rig = Rig::memory();
    let _runtime = rig.runtime.enter();
    let entries = entries(1200);
    let mut machine = rig.machine();
    machine.options.cache_bytes = 2 << 20;
    machine.options.retain_bytes = 16 << 20;
    let mut log = machine.open(None);
    append_and_sync(&mut log, &entries, 200);
    let segments = log.names().len();
    assert!(segments > 4, "{segments}");
    log.retain(TimestampMicros(8), None).unwrap();
    let bytes = |machine: &Machine| machine.files().iter().map(|(_, path)| path.metadata().unwrap().len()).sum::<u64>();
    assert!(bytes(&machine) <= 2 << 20, "{}", bytes(&machine));
    assert_eq!(machine.files().last().unwrap().1, log.active.as_ref().unwrap().path());
    let gets = rig.store.gets.load(Ordering::SeqCst);
    assert_eq!(machine.all(), numbered(&entries));
    assert!(rig.store.gets.load(Ordering::SeqCst) > gets);
    assert_eq!(machine.files().len(), segments);
    log.retain(TimestampMicros(8), None).unwrap();
    // Those that were read last stay, and the one that is written to.
    assert!(bytes(&machine) <= 4 << 20, "{}", bytes(&machine));
    // Whoever reads elsewhere keeps no more, either.
    let mut reader = rig.machine();
    reader.options.cache_bytes = 2 << 20;
    assert_eq!(reader.all(), numbered(&entries));
    assert!(bytes(&reader) <= 3 << 20, "{}", bytes(&reader));
    // What is not uploaded never goes.
    let more = with_large_transaction();
    append(&mut log, &more[6..]);
    let waiting = log.sealed.iter().filter(|segment| !segment.stored).count();
    assert!(waiting > 2, "{waiting}");
    log.retain(TimestampMicros(8), None).unwrap();
    assert!(log.sealed.iter().filter(|segment| !segment.stored).all(|segment| segment.path.exists()));
    assert!(log.active.as_ref().unwrap().path().exists());
}

#[test]
fn what_is_old_goes_from_the_store_but_not_what_is_needed() {
    let rig = Rig::memory();
    let _runtime = rig.runtime.enter();
    let entries = entries(800);
    let writer = rig.machine();
    let mut log = writer.open(None);
    append_and_sync(&mut log, &entries, 100);
    let count = rig.segments().len();
    assert!(count > 3, "{count}");
    drop(log);
    // Of segments that are only in the store it is found out how far they go.
    let machine = rig.machine();
    let mut log = machine.open(Some(8005));
    let (_, needed) = SegmentCursor::locate(rig.machine().place(), Locate::Position(position(3000))).unwrap();
    assert!(log.retain(TimestampMicros(8), Some(needed.position)).unwrap());
    assert_eq!(machine.files().len(), 1);
    let (cursor, found) = SegmentCursor::locate(rig.machine().place(), Locate::Position(position(3000))).unwrap();
    assert_eq!(
        (&found, read(cursor)),
        (&needed, numbered(&entries)[through(&entries, needed.offset.0["place"].as_u64().unwrap())..].to_vec())
    );
    assert!(rig.segments().len() < count);
    // Nobody needs anything any more.
    assert!(!log.retain(TimestampMicros(8), None).unwrap());
    append_and_sync(&mut log, &[Entry::Mark(mark(9005))], 1);
    assert_eq!(rig.segments().len(), 1);
    let (cursor, earliest) = SegmentCursor::locate(rig.machine().place(), Locate::Earliest).unwrap();
    assert!(earliest.position > needed.position);
    assert_eq!(read(cursor).len(), entries.len() + 1 - through(&entries, earliest.offset.0["place"].as_u64().unwrap()));
}

#[test]
fn the_last_mark_stays_however_old_it_is() {
    let rig = Rig::memory();
    let _runtime = rig.runtime.enter();
    let machine = rig.machine();
    let mut log = machine.open(None);
    let mut last = None;
    for entry in &entries(600) {
        append(&mut log, std::slice::from_ref(entry));
        last = log.mark().cloned();
        if log.at_mark && log.active.as_ref().unwrap().bytes() >= 1 << 20 {
            break;
        }
    }
    log.sync().unwrap();
    assert!(log.active.is_none(), "a segment that is large enough is sealed before it is uploaded");
    for _ in 0..2 {
        assert!(!log.retain(TimestampMicros(i64::MAX), None).unwrap());
    }
    drop(log);
    let last = last.unwrap();
    let other = rig.machine();
    let log = SegmentLog::open(other.options.clone(), Some(last.position)).unwrap();
    assert_eq!(log.mark(), Some(&last));
}

#[test]
fn small_syncs_make_few_objects_and_bounded_uploads() {
    let rig = Rig::memory();
    let _runtime = rig.runtime.enter();
    let mut machine = rig.machine();
    machine.options.retain_bytes = 1 << 30;
    let entries = entries(900);
    let mut log = machine.open(None);
    append_and_sync(&mut log, &entries, 3);
    let (objects, syncs) = (rig.segments().len(), entries.len() / 3);
    assert!(objects <= 1 + syncs / 50, "{objects} of {syncs}");
    let put = rig.store.put_bytes.load(Ordering::SeqCst);
    assert!(put <= (objects as u64) * (17 << 20), "{put}");
    assert_eq!(rig.machine().all(), numbered(&entries));
}

#[test]
fn what_is_large_goes_up_in_parts_and_comes_down_whole() {
    for rig in [Rig::memory(), Rig::folder()] {
        let _runtime = rig.runtime.enter();
        let machine = rig.machine();
        let store = machine.options.store.as_ref().unwrap();
        let name = SegmentName { first_entry: 7, writer: 9 };
        let directory = tempfile::tempdir().unwrap();
        let (path, copy) = (directory.path().join("file"), directory.path().join("other").join(name.to_string()));
        let bytes: Vec<u8> = (0..40_u64 << 20).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        for length in [0, 1, 16 << 20, (16 << 20) + 1, 33 << 20] {
            // More of the file than is wanted is not put.
            store.put(name, &path, length).unwrap();
            assert_eq!(rig.segments(), [(name.to_string(), length)]);
            assert!(store.download(name, &copy, length).unwrap());
            assert!(std::fs::read(&copy).unwrap() == bytes[..length as usize], "{length}");
        }
        store.remove(name).unwrap();
        store.remove(name).unwrap();
        std::fs::remove_file(&copy).unwrap();
        assert!(!store.download(name, &copy, 1).unwrap());
        assert_eq!(std::fs::read_dir(copy.parent().unwrap()).unwrap().count(), 0, "nothing is left of what did not come");
        // An upload that is cut off leaves what was there.
        store.put(name, &path, 5).unwrap();
        if rig.folder.is_none() {
            rig.store.away.store(true, Ordering::SeqCst);
            assert!(store.put(name, &path, 40 << 20).is_err());
            rig.store.away.store(false, Ordering::SeqCst);
        }
        assert_eq!(rig.segments(), [(name.to_string(), 5)]);
    }
}

#[test]
fn a_store_that_was_away_loses_nothing() {
    let rig = Rig::memory();
    let _runtime = rig.runtime.enter();
    let entries = entries(300);
    let at = |commit: u64| through(&entries, commit);
    let machine = rig.machine();
    let mut log = machine.open(None);
    append_and_sync(&mut log, &entries[..at(1005)], 50);
    rig.store.away.store(true, Ordering::SeqCst);
    append(&mut log, &entries[at(1005)..at(2005)]);
    let error = log.sync().unwrap_err();
    assert!(error.is_transient() && error.get_context("path").is_some(), "{error}");
    drop(log);
    assert!(SegmentLog::open(machine.options.clone(), Some(position(1005))).unwrap_err().is_transient());
    rig.store.away.store(false, Ordering::SeqCst);
    assert_eq!(rig.machine().all(), numbered(&entries)[..at(1005)]);
    let mut log = machine.open(Some(1005));
    append_and_sync(&mut log, &entries[at(1005)..], 50);
    assert_eq!(rig.machine().all(), numbered(&entries));
}

#[test]
fn a_log_of_a_directory_moves_into_an_empty_store_and_out_of_it() {
    let rig = Rig::memory();
    let _runtime = rig.runtime.enter();
    let entries = entries(500);
    let at = |commit: u64| through(&entries, commit);
    let machine = rig.machine();
    let alone = SegmentOptions { store: None, ..machine.options.clone() };
    let mut log = SegmentLog::open(alone.clone(), None).unwrap();
    append(&mut log, &entries[..at(4005)]);
    drop(log);
    let mut log = machine.open(Some(3905));
    assert_eq!(log.mark(), Some(&mark(3905)));
    assert_eq!(rig.machine().all(), numbered(&entries)[..at(3905)], "at once");
    append_and_sync(&mut log, &entries[at(3905)..at(4505)], 50);
    drop(log);
    assert_eq!(rig.machine().all(), numbered(&entries)[..at(4505)]);
    let mut log = SegmentLog::open(alone, Some(position(4505))).unwrap();
    append(&mut log, &entries[at(4505)..]);
    assert_eq!(read(SegmentCursor::at(machine.options.directory.as_path(), 0)), numbered(&entries));
}

#[test]
fn a_log_that_begins_anew_clears_the_store_with_its_first_sync() {
    let rig = Rig::memory();
    let _runtime = rig.runtime.enter();
    let entries = entries(300);
    let first = rig.machine();
    let mut log = first.open(None);
    append_and_sync(&mut log, &entries, 50);
    drop(log);
    let claim = SegmentLog::claim(rig.machine().options).unwrap();
    let before = rig.segments();
    let refused = claim.open_only_copy(Some(position(1))).unwrap_err();
    assert_eq!((refused.kind(), rig.segments()), (ErrorKind::Corrupt, before.clone()));
    let machine = rig.machine();
    let mut log = machine.open(Some(1));
    assert_eq!((log.mark(), rig.segments()), (None, before));
    append_and_sync(&mut log, &entries[..5], 50);
    assert_eq!(rig.segments().len(), 1);
    assert_eq!(rig.machine().all(), numbered(&entries[..5]));
}

#[test]
fn objects_may_be_anything() {
    let rig = Rig::memory();
    let _runtime = rig.runtime.enter();
    let entries = entries(500);
    let machine = rig.machine();
    let mut log = machine.open(None);
    append_and_sync(&mut log, &entries, 100);
    drop(log);
    for name in ["readme.txt", "1.changes", "writers/x", "writers/2/3", "deeper/00000000000000000001-0000000009.changes"] {
        rig.put(name, b"whatever");
    }
    assert_eq!(rig.machine().all(), numbered(&entries));
    let objects = rig.segments();
    assert!(objects.len() > 2);
    let (first, _) = &objects[0];
    let whole = rig.get(first);
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 4;
    // Damage is told as that of a file, wherever it is read.
    for damaged in [&flipped[..], &whole[..whole.len() / 2], &whole[..40], &[], b"<html>", &[0; 4096]] {
        rig.put(first, damaged);
        let reader = rig.machine();
        let mut cursor = SegmentCursor::at(reader.place(), 0);
        let error = std::iter::repeat_with(|| cursor.read_written(u64::MAX, 1 << 16, 99, &Arc::default())).find_map(Result::err).unwrap();
        assert!(error.kind() == ErrorKind::Corrupt && error.get_remedy().is_some(), "{error:?}");
        // Who needs what lies behind it is not concerned.
        let (cursor, _) = SegmentCursor::locate(reader.place(), Locate::Position(position(5005))).unwrap();
        assert!(read(cursor).is_empty());
        let log = reader.open(Some(5005));
        assert_eq!(log.mark(), Some(&mark(5005)));
        // Its own copy is whole, and is not asked for what the store has.
        drop(log);
    }
    rig.put(first, &whole);
    // One that is gone.
    let (second, bytes) = (&objects[1].0, rig.get(&objects[1].0));
    let path = rig.prefix.clone().join(second.as_str());
    rig.run(rig.store.inner.delete(&path));
    let mut cursor = SegmentCursor::at(rig.machine().place(), 0);
    let error = std::iter::repeat_with(|| cursor.read_written(u64::MAX, 1 << 16, 99, &Arc::default())).find_map(Result::err).unwrap();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    rig.put(second, &bytes);
    // A number that nobody can follow.
    rig.put("writers/9999999999", b"");
    assert_eq!(SegmentLog::claim(rig.machine().options).unwrap_err().kind(), ErrorKind::Config);
}

#[test]
fn a_damaged_copy_is_replaced_by_what_the_store_has() {
    let rig = Rig::memory();
    let _runtime = rig.runtime.enter();
    let entries = entries(30);
    let machine = rig.machine();
    let mut log = machine.open(None);
    append_and_sync(&mut log, &entries, 10);
    drop(log);
    let (_, path) = machine.files().remove(0);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let log = machine.open(Some(305));
    assert_eq!(log.mark(), Some(&mark(305)));
    drop(log);
    assert_eq!(machine.all(), numbered(&entries));
}
