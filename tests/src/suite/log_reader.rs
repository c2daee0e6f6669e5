//! The contract of [`LogReader`](logweir_core::LogReader), over a log that ends.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{Array, RecordBatch};
use arrow_schema::Schema;
use logweir_core::{
    ChangeBatch, ChangeType, LogEvent, LogMark, LogPosition, LogReader, LogStart, MemoryBudget, MetadataColumn, Pattern, Relation,
    RelationName, Source, TableFilter,
};

/// Marks at which the log is opened again: more would only take longer.
const RESTARTS_MAX: usize = 6;
/// Small, so that a reader that flushes by its share of the budget makes many batches and marks.
const MEMORY_BYTES: usize = 2 * 1024 * 1024;
/// How long a faulty opening is tried again.
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);
/// Longer than any reader takes for its next event.
const PATIENCE: Duration = Duration::from_secs(60);

/// A change as it must come again at every reading.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadRow {
    /// Its schema version.
    pub version: u32,
    /// Where it stands.
    pub position: LogPosition,
    /// `_metadata_timestamp`.
    pub timestamp: i64,
    /// The code of its type.
    pub change_type: i8,
    /// The table's columns: one row.
    pub values: RecordBatch,
    /// Indexes of columns that are unchanged.
    pub unchanged: Vec<usize>,
    /// What the row was before, where that was asked for and the source has it.
    pub before: Option<ReadImage>,
}

/// A before image: a value for each of the table's columns.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadImage {
    /// One row.
    pub values: RecordBatch,
    /// Indexes of columns whose values it does not hold.
    pub absent: Vec<usize>,
}

/// Everything a reader handed out.
#[derive(Debug, Default)]
pub struct ReadLog {
    /// Every mark.
    pub marks: Vec<LogMark>,
    /// Every change, by table, in order.
    pub rows: BTreeMap<RelationName, Vec<ReadRow>>,
    /// Every relation announced or met, by table and version.
    pub relations: BTreeMap<(RelationName, u32), Arc<Relation>>,
}

/// Reads a log to its end, before images of all tables with it, and checks all that one reading can show.
pub async fn read_log(source: &dyn Source, tables: &TableFilter, resume: Option<LogMark>, relations: Vec<Arc<Relation>>) -> ReadLog {
    read(source, tables, vec![Pattern::new("*")], resume, relations).await
}

async fn read(
    source: &dyn Source,
    tables: &TableFilter,
    before_images: Vec<Pattern>,
    resume: Option<LogMark>,
    relations: Vec<Arc<Relation>>,
) -> ReadLog {
    let memory = MemoryBudget::new(MEMORY_BYTES);
    let known: HashSet<(RelationName, u32)> = relations.iter().map(|relation| (relation.name().clone(), relation.version())).collect();
    let start = LogStart {
        resume: resume.clone(),
        relations,
        tables: tables.clone(),
        before_images: before_images.clone(),
        memory: memory.clone(),
    };
    let mut reading = Reading::open(source, start).await;
    let mut log = ReadLog::default();
    let mut newest: HashMap<RelationName, LogPosition> = HashMap::new();
    // Since the last mark: the greatest position and timestamp.
    let mut since_mark: Option<(LogPosition, i64)> = None;
    while let Some(event) = reading.next_in_time().await {
        match event {
            LogEvent::Mark(mark) => {
                if let (Some(resume), true) = (&resume, log.marks.is_empty()) {
                    assert_eq!(mark.position, resume.position, "the log begins where it was opened");
                }
                if let Some(last) = log.marks.last() {
                    assert!(mark.position >= last.position, "marks do not go back");
                    assert!(mark.commit_time >= last.commit_time, "the log's clock does not go back");
                }
                if let Some((position, timestamp)) = since_mark.take() {
                    assert!(position <= mark.position, "a change before a mark lies at or before it");
                    assert!(mark.commit_time.is_some_and(|time| time.0 >= timestamp), "a mark has the greatest timestamp handed out");
                }
                log.marks.push(mark);
            }
            LogEvent::Relation(relation) => {
                assert!(!log.marks.is_empty(), "the first event is a mark");
                assert!(tables.accepts(relation.name()), "{} was not asked for", relation.name());
                log.relations.insert((relation.name().clone(), relation.version()), relation);
            }
            LogEvent::Changes(batch) => {
                let mark = log.marks.last().expect("the first event is a mark");
                let relation = Arc::clone(&batch.relation);
                assert!(batch.rows() > 0, "a batch has a row");
                assert_eq!(&batch.records.schema(), relation.schema(), "a batch has its relation's schema");
                assert!(batch.memory.bytes() > 0, "a batch has acquired its memory");
                let version = (relation.name().clone(), relation.version());
                assert!(known.contains(&version) || log.relations.contains_key(&version), "{version:?} was not announced");
                log.relations.entry(version).or_insert_with(|| Arc::clone(&relation));
                let timestamps = batch.metadata(MetadataColumn::Timestamp).as_primitive::<TimestampMicrosecondType>();
                if let Some(images) = &batch.before {
                    assert!(!before_images.is_empty(), "before images were not asked for");
                    assert_eq!(images.columns.len(), relation.columns().len(), "an image has the relation's columns");
                    assert_eq!(images.present.len(), batch.rows());
                    assert!(images.present.count_set_bits() > 0, "a batch without an image has none");
                }
                let rows = log.rows.entry(relation.name().clone()).or_default();
                for row in 0..batch.rows() {
                    let (position, timestamp) = (batch.position(row), timestamps.value(row));
                    assert!(position > mark.position, "nothing after a mark lies at or before it");
                    assert!(mark.commit_time.is_none_or(|time| time.0 <= timestamp), "timestamps do not fall");
                    assert!(position >= relation.since(), "a change lies at or after its version's beginning");
                    let newest = newest.entry(relation.name().clone()).or_insert(LogPosition::MIN);
                    assert!(position > *newest, "positions of a relation rise");
                    *newest = position;
                    if let Some(last) = rows.last() {
                        assert!(timestamp >= last.timestamp, "timestamps of a relation do not fall");
                    }
                    since_mark = since_mark.max(Some((position, timestamp)));
                    let columns: Vec<usize> = (0..relation.columns().len()).collect();
                    let values = batch.records.project(&columns).expect("a relation's columns come first").slice(row, 1);
                    let unchanged = batch.unchanged.as_ref().map_or_else(Vec::new, |unchanged| {
                        columns.iter().copied().filter(|column| unchanged.is_unchanged(*column, row)).collect()
                    });
                    let change_type = batch.change_type_codes()[row];
                    let before = before_image(&batch, row);
                    rows.push(ReadRow { version: relation.version(), position, timestamp, change_type, values, unchanged, before });
                }
                assert_eq!(batch.last, batch.position(batch.rows() - 1), "a batch knows its last position");
            }
        }
    }
    assert!(since_mark.is_none(), "a log ends with a mark");
    assert!(!log.marks.is_empty(), "the first event is a mark");
    drop(reading);
    assert_eq!(memory.available_bytes(), memory.total_bytes(), "all memory is given back");
    log
}

/// What a row was before, and that the columns say the same as the bits.
fn before_image(batch: &ChangeBatch, row: usize) -> Option<ReadImage> {
    let images = batch.before.as_ref()?;
    for (column, values) in images.columns.iter().enumerate() {
        assert_eq!(values.len(), batch.rows(), "an image has a place in each row");
        assert!(images.holds(column, row) || values.is_null(row), "a value that an image does not hold is null");
    }
    if !images.present.value(row) {
        return None;
    }
    assert_eq!(batch.change_type_codes()[row], ChangeType::UpdateInsert.code(), "only updates have before images");
    let columns: Vec<_> = images.columns.iter().map(|column| column.slice(row, 1)).collect();
    let fields: Vec<_> = batch.relation.columns().iter().map(|column| Arc::clone(&column.field)).collect();
    let values = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("an image fits its relation");
    Some(ReadImage { values, absent: (0..images.columns.len()).filter(|column| !images.holds(*column, row)).collect() })
}

/// A before image is what the changes before it made of the row, as far as the log has all of them.
fn before_images_are_what_was(log: &ReadLog) {
    for (name, rows) in &log.rows {
        // By key: the version, and the values as far as they are known.
        let mut table: HashMap<String, (u32, Vec<Option<String>>)> = HashMap::new();
        for row in rows {
            let relation = &log.relations[&(name.clone(), row.version)];
            if !relation.key_declared() {
                continue;
            }
            let key = |values: &RecordBatch| relation.key().iter().fold(String::new(), |text, column| text + &value(values, *column) + "|");
            let after = |known: Option<&Vec<Option<String>>>| -> Vec<Option<String>> {
                let value = |column| match row.unchanged.contains(&column) {
                    true => known.and_then(|known: &Vec<Option<String>>| known.get(column).cloned().flatten()),
                    false => Some(value(&row.values, column)),
                };
                (0..row.values.num_columns()).map(value).collect()
            };
            let change_type = ChangeType::from_code(row.change_type).expect("a known type");
            let known = match &row.before {
                Some(before) => {
                    let known = table.remove(&key(&before.values)).filter(|(version, _)| *version == row.version);
                    for column in (0..before.values.num_columns()).filter(|column| !before.absent.contains(column)) {
                        if let Some(known) = known.as_ref().and_then(|(_, known)| known[column].as_ref()) {
                            assert_eq!(&value(&before.values, column), known, "{name} at {}, column {column}", row.position);
                        }
                    }
                    let held = |(column, known): (usize, Option<String>)| match before.absent.contains(&column) {
                        true => known,
                        false => Some(value(&before.values, column)),
                    };
                    let known = known.map_or_else(|| vec![None; before.values.num_columns()], |(_, known)| known);
                    Some(known.into_iter().enumerate().map(held).collect())
                }
                None => table.get(&key(&row.values)).filter(|(version, _)| *version == row.version).map(|(_, known)| known.clone()),
            };
            match change_type {
                ChangeType::Truncate => table.clear(),
                // A backfill may be ahead of the log. What is left under a key that changed is removed by its second half.
                ChangeType::Read | ChangeType::Delete => drop(table.remove(&key(&row.values))),
                ChangeType::UpdateDelete => {}
                ChangeType::Insert | ChangeType::UpdateInsert => {
                    table.insert(key(&row.values), (row.version, after(known.as_ref())));
                }
            }
        }
    }
}

fn value(values: &RecordBatch, column: usize) -> String {
    let mut text = String::new();
    let _ = write!(text, "{:?}", values.column(column));
    text
}

/// A reading of a log to its end: of a recording, or of what a live log held when it was opened.
struct Reading {
    reader: Box<dyn LogReader>,
    /// Of a live log.
    end: Option<LogPosition>,
    ended: bool,
}

impl Reading {
    async fn open(source: &dyn Source, start: LogStart) -> Self {
        let deadline = Instant::now() + OPEN_TIMEOUT;
        let mut reader = loop {
            match source.open_log(start.clone()).await {
                Ok(reader) => break reader,
                // A server takes a moment to notice that the reader before is gone.
                Err(error) if error.is_transient() && Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(error) => panic!("the log cannot be opened: {}", error.report()),
            }
        };
        let end = reader.end().await.expect("the end can be asked for");
        Reading { reader, end, ended: false }
    }

    /// Cancel safe, as the reader is.
    async fn next(&mut self) -> Option<LogEvent> {
        if self.ended {
            return None;
        }
        let event = self.reader.next().await.expect("the log can be read");
        if let (Some(LogEvent::Mark(mark)), Some(end)) = (&event, self.end) {
            self.ended = mark.position >= end;
        }
        assert!(event.is_some() || self.end.is_none(), "a live log does not end");
        event
    }

    async fn next_in_time(&mut self) -> Option<LogEvent> {
        tokio::time::timeout(PATIENCE, self.next()).await.expect("a reader goes on until the end")
    }
}

/// Runs the suite over a log that holds changes of `tables`, recorded or live and at rest; what its first reading gave.
pub async fn log_reader(source: &dyn Source, tables: &TableFilter) -> ReadLog {
    let log = read_log(source, tables, None, Vec::new()).await;
    assert!(!log.rows.is_empty(), "a suite over an empty log shows nothing");
    before_images_are_what_was(&log);
    again_at_marks(source, tables, &log).await;
    nothing_unasked(source, tables, &log).await;
    waits_for_memory(source, tables, &log).await;
    nothing_unwanted(source, &log).await;
    // Last, because the source may now forget.
    acknowledged(source, tables, &log).await;
    log
}

/// Without before images the changes are the same.
async fn nothing_unasked(source: &dyn Source, tables: &TableFilter, log: &ReadLog) {
    // From the first mark, because without one a log without a clock begins at the time of its opening.
    let first = log.marks.first().cloned();
    let without = read(source, tables, Vec::new(), first, Vec::new()).await;
    for (name, rows) in &log.rows {
        let found = without.rows.get(name).map_or(&[][..], Vec::as_slice);
        assert_eq!(found.len(), rows.len(), "changes of {name}");
        for (found, expected) in found.iter().zip(rows) {
            assert_eq!(*found, ReadRow { before: None, ..expected.clone() }, "a change of {name}");
        }
    }
}

/// Opened at a mark, the same changes come again: same positions, versions, timestamps, values.
async fn again_at_marks(source: &dyn Source, tables: &TableFilter, log: &ReadLog) {
    let step = (log.marks.len() / RESTARTS_MAX).max(1);
    let last = log.marks.last().into_iter();
    for mark in log.marks.iter().step_by(step).chain(last) {
        // As the checkpoint keeps them: all that may still be met, and what a later version will not change.
        let relations = log.relations.values().filter(|relation| relation.since() <= mark.position).map(Arc::clone).collect();
        let again = read_log(source, tables, Some(mark.clone()), relations).await;
        for (name, rows) in &log.rows {
            let expected = &rows[rows.partition_point(|row| row.position <= mark.position)..];
            let found = again.rows.get(name).map_or(&[][..], Vec::as_slice);
            assert_eq!(found.len(), expected.len(), "changes of {name} after {}", mark.position);
            for (found, expected) in found.iter().zip(expected) {
                assert_eq!(found, expected, "a change of {name} after {}", mark.position);
            }
        }
        // Some servers write into their log even when nobody changes anything.
        assert!(again.marks.last().map(|mark| mark.position) >= log.marks.last().map(|mark| mark.position), "the end is the end");
    }
}

/// While memory is spent a reader waits, and loses nothing by it, also when its wait is cancelled.
async fn waits_for_memory(source: &dyn Source, tables: &TableFilter, log: &ReadLog) {
    let memory = MemoryBudget::new(1024);
    let start = LogStart { resume: None, relations: Vec::new(), tables: tables.clone(), before_images: Vec::new(), memory: memory.clone() };
    let mut reading = Reading::open(source, start).await;
    let mut rows = 0;
    let mut held = None;
    loop {
        // With the only permit held no further batch may come; whatever else comes, comes first.
        let wait = if held.is_some() { Duration::from_millis(5) } else { PATIENCE };
        match tokio::time::timeout(wait, reading.next()).await {
            Err(_) => assert!(held.take().is_some(), "a reader goes on until the end"),
            Ok(Some(LogEvent::Changes(batch))) => {
                assert!(held.is_none(), "a batch came although all memory was held");
                rows += batch.rows();
                held = Some(batch);
            }
            Ok(Some(_)) => {}
            Ok(None) => break,
        }
    }
    assert_eq!(rows, log.rows.values().map(Vec::len).sum::<usize>(), "nothing was lost in waiting");
}

/// A table that is excluded does not come.
async fn nothing_unwanted(source: &dyn Source, log: &ReadLog) {
    let Some(unwanted) = log.rows.keys().next() else { return };
    let mut tables = TableFilter::all();
    tables.exclude.push(Pattern::new(unwanted.to_string()));
    let again = read_log(source, &tables, None, Vec::new()).await;
    assert!(!again.rows.contains_key(unwanted), "{unwanted} was excluded");
    for (name, rows) in log.rows.iter().filter(|(name, _)| *name != unwanted) {
        assert_eq!(again.rows.get(name).map(Vec::len), Some(rows.len()), "{name} comes as before");
    }
}

/// Marks can be acknowledged while reading and at the end, and the log can be opened again at the last.
async fn acknowledged(source: &dyn Source, tables: &TableFilter, log: &ReadLog) {
    let memory = MemoryBudget::new(MEMORY_BYTES);
    let start = LogStart { resume: None, relations: Vec::new(), tables: tables.clone(), before_images: Vec::new(), memory };
    let mut reading = Reading::open(source, start).await;
    let mut last = None;
    while let Some(event) = reading.next_in_time().await {
        if let LogEvent::Mark(mark) = event {
            reading.reader.acknowledge(&mark).await.expect("a mark can be acknowledged");
            last = Some(mark);
        }
    }
    // How much it is, only the source knows; that it can be asked is the contract.
    let kept = reading.reader.retained().await.expect("what the source keeps can be asked");
    assert!(reading.end.is_some() || kept.is_none(), "nobody keeps a recording for us");
    drop(reading);
    let relations = log.relations.values().map(Arc::clone).collect();
    let rest = read_log(source, tables, last, relations).await;
    assert!(rest.rows.is_empty(), "nothing comes after the end");
}
