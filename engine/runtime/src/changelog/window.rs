//! What was appended last, in memory.
//!
//! Bounded by the memory permits that batches carry and by a number of entries. Without a log on disk an entry is forgotten as soon as
//! every cursor has read it, because whatever fails, the stream begins again at its checkpoint; and the slowest reader holds up the
//! appender. With one, an entry that is written there may go at any time: a cursor that has not read it finds it on disk, by its number.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use logweir_core::{ChangeBatch, ConsumerName, Error, LogMark, LogPosition, MemoryBudget, Relation, Result};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::segment::{SegmentCursor, SegmentPlace};

/// Enough that a consumer that stages does not stop the reader, few enough that empty marks cannot pile up.
pub const ENTRIES_MAX: usize = 1024;

/// Of the entries a log may hold, with what is on disk as well it holds this part.
const KEPT_FRACTION: usize = 2;
/// What is read from disk at a time: bytes, unless a batch has more, and entries.
const READ_BYTES: usize = 1 << 20;
const READ_ENTRIES: usize = 256;
/// Readers that share the memory for it without waiting for each other.
const READERS: usize = 4;

/// An entry of the change log.
#[derive(Debug)]
pub enum Entry {
    /// A relation, as the transforms make it, is about to come at a new version.
    Relation(Arc<Relation>),
    /// Changes, transformed.
    Changes(ChangeBatch),
    /// Everything at or before it was appended, and nothing after it.
    Mark(LogMark),
}

impl Entry {
    /// The same entry; a batch shares its arrays and its memory.
    fn share(&self) -> Entry {
        match self {
            Entry::Relation(relation) => Entry::Relation(Arc::clone(relation)),
            Entry::Changes(batch) => Entry::Changes(batch.share()),
            Entry::Mark(mark) => Entry::Mark(mark.clone()),
        }
    }
}

/// Opens a change log of at most `entries_max` entries: one end to append to, one to open cursors at.
pub fn change_log(entries_max: usize) -> (Appender, ChangeLog) {
    open(entries_max, 0, None)
}

/// The same over a log on disk.
#[derive(Debug)]
pub struct OnDisk {
    /// Where it is.
    pub place: SegmentPlace,
    /// The number of the entry that is appended next.
    pub next_entry: u64,
    /// What was appended last is held up to this many bytes beyond what is not written yet.
    pub window_bytes: usize,
    /// Memory of what is read from disk.
    pub memory: MemoryBudget,
}

/// Opens a change log over one on disk, to which somebody writes what is appended.
pub fn change_log_on_disk(entries_max: usize, disk: OnDisk) -> (Appender, ChangeLog) {
    open(entries_max, disk.next_entry, Some(disk))
}

fn open(entries_max: usize, first: u64, disk: Option<OnDisk>) -> (Appender, ChangeLog) {
    let entries_max = entries_max.max(1);
    let state =
        State { first, written: first, window_bytes: disk.as_ref().map_or(0, |disk| disk.window_bytes), entries_max, ..State::default() };
    let shared = Shared { state: Mutex::new(state), grown: Notify::new(), shrunk: Notify::new(), acknowledged: Notify::new(), disk };
    let log = ChangeLog { shared: Arc::new(shared) };
    (Appender { log: log.clone(), entries_max }, log)
}

struct Shared {
    state: Mutex<State>,
    grown: Notify,
    shrunk: Notify,
    acknowledged: Notify,
    disk: Option<OnDisk>,
}

#[derive(Default)]
struct State {
    /// Number of the first entry still held.
    first: u64,
    entries: VecDeque<Entry>,
    /// Bytes of the batches held.
    bytes: usize,
    /// What is below this number is on disk.
    written: u64,
    window_bytes: usize,
    entries_max: usize,
    readers: Vec<Reader>,
    next_reader: u64,
    /// What each consumer has for good, also while it has no cursor.
    acknowledged: BTreeMap<ConsumerName, Option<LogPosition>>,
    closed: bool,
}

struct Reader {
    id: u64,
    name: ConsumerName,
    /// Number of the entry it reads next.
    next: u64,
    acknowledged: Option<LogPosition>,
}

impl State {
    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Forgets what every reader has read, and what is on disk where too much is held; true if that was anything.
    fn trim(&mut self, on_disk: bool) -> bool {
        let read = self.readers.iter().map(|reader| reader.next).min().unwrap_or(self.end());
        let before = self.first;
        loop {
            let much = self.bytes > self.window_bytes || self.entries.len() > self.entries_max / KEPT_FRACTION;
            let goes = if on_disk { self.first < self.written && (self.first < read || much) } else { self.first < read };
            if !goes || self.pop().is_none() {
                return self.first > before;
            }
        }
    }

    fn pop(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.first += 1;
        self.bytes -= bytes_of(&entry);
        Some(entry)
    }
}

fn bytes_of(entry: &Entry) -> usize {
    match entry {
        Entry::Changes(batch) => batch.memory.bytes().max(1),
        _ => 0,
    }
}

/// What a consumer of the log has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerState {
    /// The consumer.
    pub name: ConsumerName,
    /// Entries appended that it has not read.
    pub behind: u64,
    /// Everything at or before it is taken for good.
    pub acknowledged: Option<LogPosition>,
}

/// The log, for those who read it. Cloning shares it.
#[derive(Clone)]
pub struct ChangeLog {
    shared: Arc<Shared>,
}

impl ChangeLog {
    /// Opens a cursor of a consumer that has everything at or before `from` already: it begins with what the log still
    /// holds after it. Every consumer that must miss nothing opens its cursor before the first entry is appended.
    pub fn consumer(&self, name: ConsumerName, from: Option<LogPosition>) -> Cursor {
        let mut state = self.lock();
        let next = state.first;
        self.open_cursor(&mut state, name, next, from)
    }

    /// The same, with what the log on disk holds. An error of kind `LogGone` if it begins later. Safe to call while entries are appended.
    pub async fn consumer_on_disk(&self, name: ConsumerName, from: Option<LogPosition>) -> Result<Cursor> {
        let (Some(disk), Some(position)) = (&self.shared.disk, from) else { return Ok(self.consumer(name, from)) };
        // Nothing goes from here on that it needs.
        self.lock().acknowledged.insert(name.clone(), from);
        let (first, place) = (self.lock().first, disk.place.clone());
        let found =
            blocking(
                move || {
                    if SegmentCursor::at(&place, 0).is_empty()? { Ok(None) } else { SegmentCursor::behind(&place, position).map(Some) }
                },
            )
            .await?;
        let mut state = self.lock();
        // A log that was empty begins with what is in memory.
        let next = found.map_or(first, |cursor| cursor.entry()).min(state.end());
        Ok(self.open_cursor(&mut state, name, next, from))
    }

    fn open_cursor(&self, state: &mut State, name: ConsumerName, next: u64, from: Option<LogPosition>) -> Cursor {
        let id = state.next_reader;
        state.next_reader += 1;
        state.acknowledged.insert(name.clone(), from);
        state.readers.push(Reader { id, name, next, acknowledged: from });
        Cursor { log: self.clone(), id, from, reading: None, read: VecDeque::new() }
    }

    /// A cursor that is no consumer's: what it has read is nobody's reason to keep anything.
    pub(crate) fn recorder(&self) -> Cursor {
        let mut state = self.lock();
        let (id, next) = (state.next_reader, state.first);
        state.next_reader += 1;
        let name = ConsumerName { stream: String::new(), destination: String::new() };
        state.readers.push(Reader { id, name, next, acknowledged: None });
        Cursor { log: self.clone(), id, from: None, reading: None, read: VecDeque::new() }
    }

    /// Everything below this number is on disk and can be read there.
    pub(crate) fn written(&self, below: u64) {
        let mut state = self.lock();
        state.written = state.written.max(below);
        if state.trim(true) {
            self.shared.shrunk.notify_one();
        }
        drop(state);
        // Cursors that wait at the end of what is on disk.
        self.shared.grown.notify_waiters();
    }

    /// What every consumer has for good: what lies behind it is still needed. With `working`, of those alone that have a cursor. `None` if
    /// there is no consumer.
    pub(crate) fn needed(&self, working: bool) -> Option<LogPosition> {
        let state = self.lock();
        let counts = |name: &ConsumerName| !working || state.readers.iter().any(|reader| reader.name == *name);
        state.acknowledged.iter().filter(|(name, _)| counts(name)).map(|(_, position)| position.unwrap_or(LogPosition::MIN)).min()
    }

    /// Returns when a consumer has acknowledged something. Cancel safe.
    pub(crate) async fn acknowledged(&self) {
        self.shared.acknowledged.notified().await;
    }

    fn on_disk(&self) -> bool {
        self.shared.disk.is_some()
    }

    /// What each consumer has done.
    pub fn consumers(&self) -> Vec<ConsumerState> {
        let state = self.lock();
        let end = state.end();
        let consumer =
            |reader: &Reader| ConsumerState { name: reader.name.clone(), behind: end - reader.next, acknowledged: reader.acknowledged };
        state.readers.iter().filter(|reader| !reader.name.stream.is_empty()).map(consumer).collect()
    }

    // Every change of the state is complete before anything in it could panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ChangeLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChangeLog({} entries)", self.lock().entries.len())
    }
}

/// The writing end of the log; there is one. Dropping it ends the log.
#[derive(Debug)]
pub struct Appender {
    log: ChangeLog,
    entries_max: usize,
}

impl Appender {
    /// Waits until an entry fits. Cancel safe.
    pub async fn room(&mut self) {
        loop {
            // Made before looking, so that a wake-up between the look and the wait is not missed.
            let shrunk = self.log.shared.shrunk.notified();
            if self.log.lock().entries.len() < self.entries_max {
                return;
            }
            shrunk.await;
        }
    }

    /// Appends an entry, once it fits. Not cancel safe: wait for [`room`](Self::room) first where that matters.
    pub async fn append(&mut self, entry: Entry) {
        self.room().await;
        let mut state = self.log.lock();
        if state.readers.is_empty() {
            // Nobody reads and nobody will: as if everybody had.
            state.first += 1;
            return;
        }
        state.bytes += bytes_of(&entry);
        state.entries.push_back(entry);
        drop(state);
        self.log.shared.grown.notify_waiters();
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        self.log.lock().closed = true;
        self.log.shared.grown.notify_waiters();
    }
}

/// A consumer's place in the log. Dropping it lets the log in memory forget what it had not read.
pub struct Cursor {
    log: ChangeLog,
    id: u64,
    from: Option<LogPosition>,
    /// What is being read from disk.
    reading: Option<JoinHandle<Result<Vec<Entry>>>>,
    /// What was read from there, from the number on that comes next.
    read: VecDeque<Entry>,
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cursor({} of {:?})", self.id, self.log)
    }
}

impl Cursor {
    /// The next entry, waiting for one; `None` when the log has ended and everything was read. Cancel safe. An error says
    /// that the log on disk no longer holds what comes next, or could not be read.
    pub async fn next(&mut self) -> Result<Option<Entry>> {
        loop {
            let shared = Arc::clone(&self.log.shared);
            let grown = shared.grown.notified();
            tokio::pin!(grown);
            // `notify_waiters` wakes only who is waiting already.
            grown.as_mut().enable();
            let entry = match self.take() {
                Taken::Entry(entry) => entry,
                Taken::End => return Ok(None),
                Taken::NothingYet => {
                    grown.await;
                    continue;
                }
                Taken::Behind { next, below } => self.take_from_disk(next, below).await?,
            };
            if let Some(entry) = self.after_start(entry) {
                return Ok(Some(entry));
            }
        }
    }

    /// True if what comes next is not in memory any more.
    pub fn is_behind(&self) -> bool {
        let state = self.log.lock();
        state.readers.iter().any(|reader| reader.id == self.id && reader.next < state.first)
    }

    /// The next entry if it is there; for a cursor that is never behind.
    pub(crate) fn next_now(&mut self) -> Option<Entry> {
        match self.take() {
            Taken::Entry(entry) => Some(entry),
            _ => None,
        }
    }

    /// Everything at or before `position` is taken for good by this consumer.
    pub fn acknowledge(&mut self, position: LogPosition) {
        let id = self.id;
        let mut state = self.log.lock();
        let state = &mut *state;
        if let Some(reader) = state.readers.iter_mut().find(|reader| reader.id == id) {
            reader.acknowledged = reader.acknowledged.max(Some(position));
            if let Some(known) = state.acknowledged.get_mut(&reader.name) {
                *known = (*known).max(Some(position));
            }
            self.log.shared.acknowledged.notify_one();
        }
    }

    /// Entry number `next`, which is on disk, as is everything below number `below`.
    async fn take_from_disk(&mut self, next: u64, below: u64) -> Result<Entry> {
        loop {
            if let Some(entry) = self.read.pop_front() {
                self.moved_to(next + 1);
                return Ok(entry);
            }
            let reading = match &mut self.reading {
                Some(reading) => reading,
                None => {
                    let Some(disk) = &self.log.shared.disk else { return Err(Error::internal("entries are missing from memory")) };
                    let segments = SegmentCursor::at(&disk.place, next);
                    self.reading.insert(tokio::spawn(read(segments, below, disk.memory.clone())))
                }
            };
            let read = reading.await;
            self.reading = None;
            // What it panicked with may hold values, and is told by the hook as far as it may be.
            self.read = read.map_err(|_| Error::internal("reading the change log did not end"))??.into();
        }
    }

    fn moved_to(&self, next: u64) {
        let id = self.id;
        if let Some(reader) = self.log.lock().readers.iter_mut().find(|reader| reader.id == id) {
            reader.next = next;
        }
    }

    fn take(&mut self) -> Taken {
        let mut state = self.log.lock();
        let state = &mut *state;
        let first = state.first;
        let mut alone = true;
        let mut wanted = None;
        for reader in &mut state.readers {
            if reader.id == self.id {
                wanted = Some(reader);
            } else {
                alone &= reader.next > first;
            }
        }
        let Some(reader) = wanted else { return Taken::End };
        if reader.next < first || !self.read.is_empty() {
            return Taken::Behind { next: reader.next, below: first };
        }
        let index = (reader.next - first) as usize;
        if index >= state.entries.len() {
            return if state.closed { Taken::End } else { Taken::NothingYet };
        }
        reader.next += 1;
        // The last reader gets the entry itself, and with it the sole hold on the batch's memory.
        let on_disk = self.log.on_disk();
        let entry = if index == 0 && alone && (!on_disk || first < state.written) {
            state.pop()
        } else {
            state.entries.get(index).map(Entry::share)
        };
        if state.trim(on_disk) || index == 0 {
            self.log.shared.shrunk.notify_one();
        }
        entry.map_or(Taken::NothingYet, Taken::Entry)
    }

    /// The part of an entry that lies after where this consumer began.
    fn after_start(&self, entry: Entry) -> Option<Entry> {
        let Some(from) = self.from else { return Some(entry) };
        match entry {
            Entry::Relation(_) => Some(entry),
            Entry::Mark(ref mark) => (mark.position > from).then_some(entry),
            Entry::Changes(batch) => batch.after(from).map(Entry::Changes),
        }
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        if let Some(reading) = &self.reading {
            reading.abort();
        }
        let mut state = self.log.lock();
        state.readers.retain(|reader| reader.id != self.id);
        state.trim(self.log.on_disk());
        drop(state);
        self.log.shared.shrunk.notify_one();
    }
}

enum Taken {
    Entry(Entry),
    NothingYet,
    /// What comes next, from `next` to `below`, is on disk only.
    Behind {
        next: u64,
        below: u64,
    },
    End,
}

/// Reads the next entries of a log on disk.
async fn read(mut segments: SegmentCursor, below: u64, memory: MemoryBudget) -> Result<Vec<Entry>> {
    let (mut segments, bytes) = blocking(move || {
        let bytes = segments.next_bytes()?;
        Ok((segments, bytes))
    })
    .await?;
    let bytes = bytes.max(READ_BYTES.min(memory.total_bytes() / READERS));
    let permit = Arc::new(memory.acquire(bytes).await);
    blocking(move || segments.read_written(below, bytes, READ_ENTRIES, &permit)).await
}

/// Runs file work where it may block.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    // What it panicked with may hold values, and is told by the hook as far as it may be.
    done.map_err(|_| Error::internal("the change log's file work did not end"))?
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use arrow_array::{ArrayRef, Int64Array, RecordBatch};
    use logweir_core::{
        ChangeType, Column, MemoryBudget, MemoryPermit, MetadataBuilder, RelationName, SourceOffset, SourcePlace, TimestampMicros,
    };

    use super::*;

    fn position(commit: u64) -> LogPosition {
        LogPosition::new(0, 1, commit, 0, false)
    }

    fn mark(commit: u64) -> Entry {
        Entry::Mark(LogMark { position: position(commit), offset: SourceOffset(serde_json::Value::Null), commit_time: None })
    }

    /// Changes with ordinals `1..=rows` of the transaction at `commit`.
    fn batch(commit: u64, rows: u64, memory: MemoryPermit) -> ChangeBatch {
        let field = arrow_schema::Field::new("id", arrow_schema::DataType::Int64, true);
        let column = Column { field: Arc::new(field), source_type: "bigint".into(), detail: serde_json::Value::Null };
        let relation = Arc::new(Relation::new(RelationName::new("shop", "orders"), 1, LogPosition::MIN, vec![column], vec![0]));
        let mut metadata = MetadataBuilder::new("test");
        for row in 1..=rows {
            let place = SourcePlace { log_position: commit, log_file: None, transaction: None };
            let position = LogPosition::new(0, 1, commit, row, true);
            metadata.push(TimestampMicros(0), position, ChangeType::Insert, TimestampMicros(0), place);
        }
        let last = metadata.last_position().unwrap();
        let mut columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from_iter_values(1..=rows as i64))];
        columns.extend(metadata.finish());
        let records = RecordBatch::try_new(Arc::clone(relation.schema()), columns).unwrap();
        ChangeBatch { relation, records, unchanged: None, before: None, last, memory: Arc::new(memory) }
    }

    fn name(destination: &str) -> ConsumerName {
        ConsumerName { stream: "shop".into(), destination: destination.into() }
    }

    fn text(entry: Option<Entry>) -> String {
        match entry {
            None => "end".into(),
            Some(Entry::Relation(relation)) => format!("{}", relation.name()),
            Some(Entry::Mark(mark)) => format!("mark {}", mark.position.commit()),
            Some(Entry::Changes(batch)) => format!("{} rows to {}", batch.rows(), batch.last.ordinal()),
        }
    }

    #[tokio::test]
    async fn every_consumer_reads_everything_at_its_own_pace() {
        let (mut appender, log) = change_log(10);
        let (mut a, mut b) = (log.consumer(name("a"), None), log.consumer(name("b"), None));
        appender.append(Entry::Changes(batch(5, 3, MemoryPermit::uncounted()))).await;
        appender.append(mark(6)).await;
        assert_eq!(text(a.next().await.unwrap()), "3 rows to 3");
        assert_eq!(text(a.next().await.unwrap()), "mark 6");
        a.acknowledge(position(6));
        assert_eq!(text(b.next().await.unwrap()), "3 rows to 3");
        let state: Vec<_> = log.consumers().into_iter().map(|c| (c.name.destination, c.behind, c.acknowledged)).collect();
        assert_eq!(state, [("a".to_owned(), 0, Some(position(6))), ("b".to_owned(), 1, None)]);
        drop(appender);
        assert_eq!(text(a.next().await.unwrap()), "end");
        assert_eq!(text(b.next().await.unwrap()), "mark 6");
        assert_eq!(text(b.next().await.unwrap()), "end");
    }

    #[tokio::test]
    async fn a_consumer_that_is_ahead_gets_what_lies_after_its_place() {
        let (mut appender, log) = change_log(10);
        let mut cursor = log.consumer(name("a"), Some(LogPosition::new(0, 1, 5, 2, true)));
        appender.append(mark(4)).await;
        appender.append(Entry::Changes(batch(4, 3, MemoryPermit::uncounted()))).await;
        appender.append(Entry::Changes(batch(5, 3, MemoryPermit::uncounted()))).await;
        appender.append(mark(6)).await;
        assert_eq!(text(cursor.next().await.unwrap()), "1 rows to 3");
        assert_eq!(text(cursor.next().await.unwrap()), "mark 6");
    }

    #[test]
    fn a_batch_is_cut_at_a_position() {
        let whole = || batch(5, 4, MemoryPermit::uncounted());
        for (commit, ordinal, expected) in [(4, 9, 0), (5, 0, 0), (5, 1, 1), (5, 3, 3), (5, 4, 4), (6, 0, 4)] {
            let position = LogPosition::new(0, 1, commit, ordinal, true);
            assert_eq!(whole().up_to(position).map_or(0, |batch| batch.rows()), expected, "{position}");
            assert_eq!(whole().after(position).map_or(0, |batch| batch.rows()), 4 - expected, "{position}");
        }
    }

    #[tokio::test(start_paused = true)]
    #[allow(clippy::disallowed_methods, reason = "paused time")]
    async fn the_appender_waits_for_the_slowest_consumer_and_a_dropped_one_holds_nobody() {
        let (mut appender, log) = change_log(2);
        let (mut a, b) = (log.consumer(name("a"), None), log.consumer(name("b"), None));
        appender.append(mark(1)).await;
        appender.append(mark(2)).await;
        a.next().await.unwrap();
        assert!(tokio::time::timeout(Duration::from_secs(1), appender.room()).await.is_err(), "b has read nothing");
        drop(b);
        appender.append(mark(3)).await;
        assert_eq!(text(a.next().await.unwrap()), "mark 2");
        drop(a);
        for i in 0..10 {
            appender.append(mark(4 + i)).await;
        }
    }

    #[tokio::test]
    async fn memory_comes_back_when_the_last_consumer_drops_its_batch() {
        let budget = MemoryBudget::new(1 << 20);
        let (mut appender, log) = change_log(10);
        let (mut a, mut b) = (log.consumer(name("a"), None), log.consumer(name("b"), None));
        let permit = budget.acquire(1 << 20).await;
        appender.append(Entry::Changes(batch(5, 3, permit))).await;
        drop(a.next().await.unwrap());
        assert_eq!(budget.available_bytes(), 0);
        let last = b.next().await.unwrap();
        assert_eq!(budget.available_bytes(), 0);
        drop(last);
        assert_eq!(budget.available_bytes(), 1 << 20);
    }
}
