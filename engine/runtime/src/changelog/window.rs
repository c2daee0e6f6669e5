//! The change log: everything between the reader and the destinations, in order.
//!
//! One appender, and a named cursor for each consumer, which moves at its own pace. What a consumer has taken for good
//! it acknowledges. This form lives in memory: it is bounded by the memory permits that batches carry and by a number of
//! entries, and it forgets an entry as soon as every cursor has read it, because whatever fails, the stream begins again
//! at its checkpoint. A durable form keeps what is not acknowledged, and more, behind the same interface.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use logweir_core::{ChangeBatch, ConsumerName, LogMark, LogPosition, Relation, Result};
use tokio::sync::Notify;

/// Enough that a consumer that stages does not stop the reader, few enough that empty marks cannot pile up.
pub const ENTRIES_MAX: usize = 1024;

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
            Entry::Changes(batch) => Entry::Changes(share(batch)),
            Entry::Mark(mark) => Entry::Mark(mark.clone()),
        }
    }
}

fn share(batch: &ChangeBatch) -> ChangeBatch {
    ChangeBatch {
        relation: Arc::clone(&batch.relation),
        records: batch.records.clone(),
        unchanged: batch.unchanged.clone(),
        before: batch.before.clone(),
        last: batch.last,
        memory: Arc::clone(&batch.memory),
    }
}

/// Opens a change log of at most `entries_max` entries: one end to append to, one to open cursors at.
pub fn change_log(entries_max: usize) -> (Appender, ChangeLog) {
    let log = ChangeLog { shared: Arc::new(Shared::default()) };
    (Appender { log: log.clone(), entries_max: entries_max.max(1) }, log)
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    grown: Notify,
    shrunk: Notify,
}

#[derive(Default)]
struct State {
    /// Number of the first entry still held.
    first: u64,
    entries: VecDeque<Entry>,
    readers: Vec<Reader>,
    next_reader: u64,
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

    /// Forgets what every reader has read; true if that was anything.
    fn trim(&mut self) -> bool {
        let keep_from = self.readers.iter().map(|reader| reader.next).min().unwrap_or(self.end());
        let before = self.first;
        while self.first < keep_from && self.entries.pop_front().is_some() {
            self.first += 1;
        }
        self.first > before
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
        let id = state.next_reader;
        state.next_reader += 1;
        let next = state.first;
        state.readers.push(Reader { id, name, next, acknowledged: from });
        Cursor { log: self.clone(), id, from }
    }

    /// What each consumer has done.
    pub fn consumers(&self) -> Vec<ConsumerState> {
        let state = self.lock();
        let end = state.end();
        let consumer =
            |reader: &Reader| ConsumerState { name: reader.name.clone(), behind: end - reader.next, acknowledged: reader.acknowledged };
        state.readers.iter().map(consumer).collect()
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

/// A consumer's place in the log. Dropping it lets the log forget what it had not read.
#[derive(Debug)]
pub struct Cursor {
    log: ChangeLog,
    id: u64,
    from: Option<LogPosition>,
}

impl Cursor {
    /// The next entry, waiting for one; `None` when the log has ended and everything was read. Cancel safe. An error says
    /// that the log no longer holds what comes next, which cannot happen to a log in memory.
    pub async fn next(&mut self) -> Result<Option<Entry>> {
        loop {
            let shared = Arc::clone(&self.log.shared);
            let grown = shared.grown.notified();
            tokio::pin!(grown);
            // `notify_waiters` wakes only who is waiting already.
            grown.as_mut().enable();
            match self.take() {
                Taken::Entry(entry) => {
                    if let Some(entry) = self.after_start(entry) {
                        return Ok(Some(entry));
                    }
                }
                Taken::End => return Ok(None),
                Taken::NothingYet => grown.await,
            }
        }
    }

    /// Everything at or before `position` is taken for good by this consumer.
    pub fn acknowledge(&mut self, position: LogPosition) {
        let id = self.id;
        if let Some(reader) = self.log.lock().readers.iter_mut().find(|reader| reader.id == id) {
            reader.acknowledged = reader.acknowledged.max(Some(position));
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
        let index = (reader.next - first) as usize;
        if index >= state.entries.len() {
            return if state.closed { Taken::End } else { Taken::NothingYet };
        }
        reader.next += 1;
        // The last reader gets the entry itself, and with it the sole hold on the batch's memory.
        let entry = if index == 0 && alone {
            state.first += 1;
            state.entries.pop_front()
        } else {
            state.entries.get(index).map(Entry::share)
        };
        if state.trim() || index == 0 {
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
            Entry::Changes(batch) => after(batch, from).map(Entry::Changes),
        }
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        let mut state = self.log.lock();
        state.readers.retain(|reader| reader.id != self.id);
        state.trim();
        drop(state);
        self.log.shared.shrunk.notify_one();
    }
}

enum Taken {
    Entry(Entry),
    NothingYet,
    End,
}

/// The changes of a batch after `position`, if there are any.
pub(crate) fn after(batch: ChangeBatch, position: LogPosition) -> Option<ChangeBatch> {
    if batch.rows() == 0 || batch.last <= position {
        return None;
    }
    let first = first_after(&batch, position);
    Some(if first == 0 { batch } else { batch.slice(first, batch.rows() - first) })
}

/// The changes of a batch at or before `position`, if there are any.
pub(crate) fn through(batch: ChangeBatch, position: LogPosition) -> Option<ChangeBatch> {
    if batch.rows() == 0 {
        return None;
    }
    let rows = if batch.last <= position { batch.rows() } else { first_after(&batch, position) };
    match rows {
        0 => None,
        rows if rows == batch.rows() => Some(batch),
        rows => Some(batch.slice(0, rows)),
    }
}

/// The index of the first row after `position`. Positions in a batch rise, so the search halves.
fn first_after(batch: &ChangeBatch, position: LogPosition) -> usize {
    let (mut low, mut high) = (0, batch.rows());
    while low < high {
        let middle = low + (high - low) / 2;
        if batch.position(middle) <= position {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
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
            assert_eq!(through(whole(), position).map_or(0, |batch| batch.rows()), expected, "{position}");
            assert_eq!(after(whole(), position).map_or(0, |batch| batch.rows()), 4 - expected, "{position}");
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
