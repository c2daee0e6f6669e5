//! Logs that are written, torn, cut off, kept and read, beside a list of what was appended.

use std::sync::Arc;

use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, DictionaryArray, Int64Array, RecordBatch, StringArray};
use arrow_buffer::BooleanBuffer;
use arrow_schema::{DataType, Field};
use logweir_core::{
    BeforeImages, ChangeBatch, ChangeType, Column, ErrorKind, LogMark, LogPosition, MemoryPermit, MetadataBuilder, Relation, RelationName,
    SourceOffset, SourcePlace, TimestampMicros, Unchanged,
};
use serde_json::json;

use super::frame::Kind;
use super::name::SegmentName;
use super::place::local_segments;
use super::reader::{Place, SegmentReader};
use super::*;
use crate::changelog::window::Entry;

mod damage;
mod store;

/// The segments of a directory by their first entries.
fn segments(directory: &Path) -> Result<Vec<(u64, PathBuf)>> {
    Ok(local_segments(directory)?.into_iter().map(|segment| (segment.first_entry(), segment.path)).collect())
}

fn position(commit: u64) -> LogPosition {
    LogPosition::new(0, 1, commit, 0, false)
}

fn mark(commit: u64) -> LogMark {
    LogMark {
        position: position(commit),
        offset: SourceOffset(json!({ "place": commit })),
        commit_time: (commit > 0).then_some(TimestampMicros(commit as i64 * 1000)),
    }
}

fn relation(table: &str, version: u32) -> Arc<Relation> {
    let column = |name: &str, data_type: DataType| Column {
        field: Arc::new(Field::new(name, data_type, true)),
        source_type: "whatever".into(),
        detail: serde_json::Value::Null,
    };
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let columns = vec![column("id", DataType::Int64), column("name", DataType::Utf8), column("kind", dictionary)];
    Arc::new(Relation::new(RelationName::new("shop", table), version, LogPosition::MIN, columns, vec![0]))
}

/// Changes of the transaction `commit`, with all that a batch may have beside its columns.
fn batch(relation: &Arc<Relation>, commit: u64, rows: usize) -> ChangeBatch {
    let mut metadata = MetadataBuilder::new("test");
    let file = metadata.intern_file("log.000001");
    for row in 1..=rows as u64 {
        let place = SourcePlace { log_position: commit, log_file: Some(file), transaction: None };
        let position = LogPosition::new(0, 1, commit, row, true);
        metadata.push(TimestampMicros(commit as i64 * 1000), position, ChangeType::UpdateInsert, TimestampMicros(0), place);
    }
    let last = metadata.last_position().unwrap();
    let columns = |from: i64| -> Vec<ArrayRef> {
        let ids = Int64Array::from_iter_values(from..from + rows as i64);
        let names = StringArray::from_iter((0..rows).map(|row| (row % 3 > 0).then(|| format!("name {from} {row}"))));
        let kinds: DictionaryArray<Int32Type> = (0..rows).map(|row| Some(if row % 2 == 0 { "even" } else { "odd" })).collect();
        vec![Arc::new(ids), Arc::new(names), Arc::new(kinds)]
    };
    let before = (commit.is_multiple_of(2)).then(|| BeforeImages {
        columns: columns(-1000),
        present: (0..rows).map(|row| row % 2 == 0).collect(),
        absent: (commit.is_multiple_of(4)).then(|| Unchanged { columns: vec![(1, (0..rows).map(|row| row % 4 == 0).collect())] }),
    });
    let unchanged = (commit.is_multiple_of(3))
        .then(|| Unchanged { columns: vec![(1, BooleanBuffer::collect_bool(rows + 3, |row| row % 3 == 0).slice(3, rows))] });
    let mut all = columns(commit as i64);
    all.extend(metadata.finish());
    let records = RecordBatch::try_new(Arc::clone(relation.schema()), all).unwrap();
    ChangeBatch { relation: Arc::clone(relation), records, unchanged, before, last, memory: Arc::new(MemoryPermit::uncounted()) }
}

/// An entry in short, with a hash of all that is in it.
fn text(entry: &Entry) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let bits = |bits: &BooleanBuffer| bits.iter().collect::<Vec<_>>();
    let unchanged = |unchanged: &Unchanged| unchanged.columns.iter().map(|(column, set)| (*column, bits(set))).collect::<Vec<_>>();
    match entry {
        Entry::Relation(relation) => format!("relation {} {}", relation.name(), relation.version()),
        Entry::Mark(mark) => format!("mark {mark:?}"),
        Entry::Changes(batch) => {
            let before = batch.before.as_ref().map(|before| {
                let columns = format!("{:?}", before.columns);
                (columns, bits(&before.present), before.absent.as_ref().map(unchanged))
            });
            let mut hash = DefaultHasher::new();
            (format!("{:?}", batch.records), before, batch.unchanged.as_ref().map(unchanged)).hash(&mut hash);
            format!("{} {} {} rows to {} {:x}", batch.relation.name(), batch.relation.version(), batch.rows(), batch.last, hash.finish())
        }
    }
}

fn options(directory: &Path) -> SegmentOptions {
    SegmentOptions {
        directory: directory.to_owned(),
        store: None,
        cache_bytes: u64::MAX,
        compression: Compression::Lz4,
        retain_age: Duration::from_secs(3600),
        retain_bytes: 1 << 30,
    }
}

/// Transactions with two relations, one of which changes its version; a mark behind each.
fn entries(transactions: u64) -> Vec<Entry> {
    let mut entries = vec![Entry::Mark(mark(0))];
    for commit in 1..=transactions {
        let orders = relation("orders", if commit > transactions / 2 { 2 } else { 1 });
        if commit == 1 || commit == transactions / 2 + 1 {
            entries.push(Entry::Relation(Arc::clone(&orders)));
        }
        entries.push(Entry::Changes(batch(&orders, commit * 10, 1 + commit as usize % 40)));
        if commit % 3 == 0 {
            entries.push(Entry::Changes(batch(&relation("items", 1), commit * 10 + 1, 5)));
        }
        entries.push(Entry::Mark(mark(commit * 10 + 5)));
    }
    entries
}

fn append(log: &mut SegmentLog, entries: &[Entry]) {
    for entry in entries {
        log.append(entry, TimestampMicros(7)).unwrap();
    }
}

/// The changes of the relations wanted behind `after` and up to the mark `through`.
fn changes(directory: &Path, after: LogPosition, through: LogPosition, wanted: &dyn Fn(&Relation) -> bool) -> Result<Vec<ChangeBatch>> {
    let mut changes = Vec::new();
    if after < through {
        let mut cursor = SegmentCursor::behind(directory, after)?;
        while let Some(batch) = cursor.next_changes(after, through, wanted)? {
            changes.push(batch);
        }
    }
    Ok(changes)
}

/// Entries with their numbers, from `first` on.
fn numbered_from(first: u64, entries: &[Entry]) -> Vec<(u64, String)> {
    (first..).zip(entries.iter().map(text)).collect()
}

fn read(mut cursor: SegmentCursor) -> Vec<(u64, String)> {
    let mut all = Vec::new();
    loop {
        let first = cursor.entry();
        let some = cursor.read(u64::MAX, 1 << 16, 7, &Arc::default()).unwrap();
        if some.is_empty() {
            return all;
        }
        all.extend(numbered_from(first, &some));
    }
}

fn numbered(entries: &[Entry]) -> Vec<(u64, String)> {
    numbered_from(0, entries)
}

#[test]
fn what_was_appended_is_read_from_any_entry_and_behind_any_position() {
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let directory = tempfile::tempdir().unwrap();
        let small = SegmentOptions { compression, retain_bytes: 1, ..options(directory.path()) };
        let transactions = if compression == Compression::None { 400 } else { 60 };
        let entries = entries(transactions);
        let mut log = SegmentLog::open(small.clone(), None).unwrap();
        append(&mut log, &entries);
        let all = numbered(&entries);
        assert_eq!(read(SegmentCursor::at(directory.path(), 0)), all);
        let files = segments(directory.path()).unwrap().len();
        assert!(compression != Compression::None || files > 1, "{files}");
        for from in [1, 2, 3, 50, entries.len() / 2, entries.len() - 1, entries.len()] {
            assert_eq!(read(SegmentCursor::at(directory.path(), from as u64)), all[from..], "from {from}");
        }
        let end = transactions * 10 + 5;
        for commit in [0, 5, 15, 16, 24, 25, end / 2, end - 1, end, end + 1] {
            let (cursor, found) = SegmentCursor::locate(directory.path(), Locate::Position(position(commit))).unwrap();
            let mut expected = entries.iter().filter_map(|entry| match entry {
                Entry::Mark(mark) if mark.position <= position(commit) => Some(mark),
                _ => None,
            });
            assert_eq!(Some(&found), expected.next_back(), "{commit}");
            let behind = all.iter().position(|(_, entry)| *entry == format!("mark {found:?}")).unwrap() + 1;
            assert_eq!(read(cursor), all[behind..], "behind {commit}");
            let time = TimestampMicros(commit as i64 * 1000);
            assert_eq!(SegmentCursor::locate(directory.path(), Locate::Time(time)).unwrap().1, found);
        }
        let extent = SegmentCursor::extent(directory.path()).unwrap().unwrap();
        assert_eq!((extent.first, extent.last, extent.segments), (mark(0), mark(end), files));
        assert_eq!(extent.bytes, log.bytes());
    }
}

#[test]
fn a_log_goes_on_behind_the_mark_of_the_checkpoint() {
    let directory = tempfile::tempdir().unwrap();
    let small = SegmentOptions { retain_bytes: 1, compression: Compression::None, ..options(directory.path()) };
    let entries = entries(500);
    let mut log = SegmentLog::open(small.clone(), None).unwrap();
    append(&mut log, &entries);
    drop(log);
    assert!(segments(directory.path()).unwrap().len() > 2);
    // The last mark, one within the last segment, one in the middle, the first.
    for commit in [5005, 4905, 2505, 15, 0] {
        let mut log = SegmentLog::open(small.clone(), Some(position(commit))).unwrap();
        let kept = entries.iter().position(|entry| matches!(entry, Entry::Mark(mark) if mark.position == position(commit))).unwrap() + 1;
        assert_eq!((log.mark(), log.next_entry()), (Some(&mark(commit)), kept as u64));
        assert_eq!(read(SegmentCursor::at(directory.path(), 0)), numbered(&entries[..kept]));
        append(&mut log, &entries[kept..]);
        assert_eq!(read(SegmentCursor::at(directory.path(), 0)), numbered(&entries));
    }
    // A mark that it does not hold: it begins anew.
    let log = SegmentLog::open(small.clone(), Some(position(2506))).unwrap();
    assert_eq!((log.mark(), log.next_entry(), log.bytes()), (None, 0, 0));
    assert!(segments(directory.path()).unwrap().is_empty());
}

#[test]
fn a_torn_end_is_cut_off_and_a_reader_waits_before_it() {
    let directory = tempfile::tempdir().unwrap();
    let entries = entries(6);
    let mut log = SegmentLog::open(options(directory.path()), None).unwrap();
    append(&mut log, &entries);
    drop(log);
    let (_, path) = segments(directory.path()).unwrap().remove(0);
    let whole = std::fs::read(&path).unwrap();
    // Where frames end, with the entries before it.
    let mut ends = vec![0];
    let mut reader = SegmentReader::open(0, &path).unwrap().unwrap();
    while let Place::Frame(header) = reader.place().unwrap() {
        assert!(reader.skip(&header).unwrap());
        ends.push(reader.offset() as usize);
    }
    let all = numbered(&entries);
    let mut cuts: Vec<usize> = (0..whole.len()).step_by(37).collect();
    cuts.extend(ends.iter().flat_map(|end| [end.saturating_sub(1), *end, end + 1, end + 79]));
    for cut in cuts.into_iter().filter(|cut| *cut <= whole.len()) {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let found = read(SegmentCursor::at(directory.path(), 0));
        assert_eq!(found, all[..found.len()], "cut at {cut}");
        let marks = found.iter().rev().find(|(_, entry)| entry.starts_with("mark"));
        // Bytes that were never written, and bytes that are not what was written.
        let mut torn = whole[..cut].to_vec();
        torn.extend_from_slice(&[0xa5; 300]);
        std::fs::write(&path, &torn).unwrap();
        assert_eq!(read(SegmentCursor::at(directory.path(), 0)), found, "others from {cut}");
        let Some((number, _)) = marks else { continue };
        let Entry::Mark(last) = &entries[*number as usize] else { panic!("a mark is a mark") };
        let mut log = SegmentLog::open(options(directory.path()), Some(last.position)).unwrap();
        assert_eq!(log.mark(), Some(last), "cut at {cut}");
        append(&mut log, &entries[*number as usize + 1..]);
        drop(log);
        assert_eq!(read(SegmentCursor::at(directory.path(), 0)), all, "cut at {cut}");
    }
    // A bit that is another one before the mark of the checkpoint: the log is not what it was, and says so by beginning anew.
    for bit in (0..ends[4] * 8).step_by(501) {
        let mut other = whole.clone();
        other[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, &other).unwrap();
        let log = SegmentLog::open(options(directory.path()), Some(position(65))).unwrap();
        assert_eq!(log.mark(), None, "bit {bit}");
    }
}

#[test]
fn what_is_old_or_too_much_goes_but_not_what_is_needed() {
    let directory = tempfile::tempdir().unwrap();
    let small = SegmentOptions { retain_bytes: 4 << 20, compression: Compression::None, ..options(directory.path()) };
    let mut log = SegmentLog::open(small.clone(), None).unwrap();
    let entries = entries(2000);
    append(&mut log, &entries);
    let whole = log.bytes();
    assert!(whole > 5 << 20, "{whole}");
    assert!(log.retain(TimestampMicros(8), Some(position(0))).unwrap(), "more is needed than may be kept");
    assert_eq!(log.bytes(), whole);
    assert!(!log.retain(TimestampMicros(8), None).unwrap());
    let kept = log.bytes();
    assert!(kept <= 4 << 20 && kept > 2 << 20, "{kept}");
    let first = log.first_entry();
    assert_eq!(read(SegmentCursor::at(directory.path(), first)), numbered(&entries)[first as usize..]);
    let error = SegmentCursor::at(directory.path(), first - 1).next_bytes().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LogGone);
    let error = SegmentCursor::behind(directory.path(), position(15)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LogGone);
    let (cursor, earliest) = SegmentCursor::locate(directory.path(), Locate::Earliest).unwrap();
    assert_eq!(read(cursor), numbered(&entries)[first as usize..]);
    assert!(earliest.position > position(0));
    // Age: an hour and more later all that is sealed goes.
    assert!(!log.retain(TimestampMicros(3_700_000_000), None).unwrap());
    assert_eq!(segments(directory.path()).unwrap().len(), 1);
    drop(log);
    // It opens again, also where older segments are missing.
    let log = SegmentLog::open(small, Some(mark(20005).position)).unwrap();
    assert_eq!(log.next_entry(), entries.len() as u64);
}

#[test]
fn a_reader_follows_a_writer() {
    let directory = tempfile::tempdir().unwrap();
    let small = SegmentOptions { retain_bytes: 1, compression: Compression::None, ..options(directory.path()) };
    let mut log = SegmentLog::open(small, None).unwrap();
    let mut cursor = SegmentCursor::at(directory.path(), 0);
    assert!(cursor.read(u64::MAX, 1, 1, &Arc::default()).unwrap().is_empty(), "nothing yet");
    let entries = entries(150);
    let mut found = Vec::new();
    for (number, entry) in entries.iter().enumerate() {
        log.append(entry, TimestampMicros(7)).unwrap();
        assert!(cursor.read(found.len() as u64, 1 << 20, 9, &Arc::default()).unwrap().is_empty(), "not before it may be read");
        if number % 5 == 0 {
            let first = cursor.entry();
            let some = cursor.read_written(number as u64 + 1, usize::MAX, 99, &Arc::default()).unwrap();
            found.extend(numbered_from(first, &some));
            assert_eq!(found.len(), number + 1);
        }
    }
    found.extend(read(cursor));
    assert_eq!(found, numbered(&entries));
}

/// A transaction that is larger than the segments that it is in, between small ones.
/// Looking again and again at a segment that grows, is cut off and grows otherwise finds what is there, as a look from the beginning does.
#[test]
fn what_was_seen_of_a_segment_is_what_it_holds() {
    let directory = tempfile::tempdir().unwrap();
    let wanted = |relation: &Relation| relation.name().table == "items";
    let look = |expected: &[Entry]| {
        let marks = expected.iter().filter_map(|entry| if let Entry::Mark(mark) = entry { Some(mark) } else { None });
        let marks: Vec<&LogMark> = marks.collect();
        let (_, last) = SegmentCursor::locate(directory.path(), Locate::Position(LogPosition::MAX)).unwrap();
        assert_eq!(&last, marks[marks.len() - 1]);
        for after in [0, marks.len() / 3, marks.len() / 2, marks.len() - 1] {
            let after = marks[after].position;
            let items = expected.iter().filter(|entry| match entry {
                Entry::Changes(batch) => wanted(&batch.relation) && batch.last > after && batch.last <= last.position,
                _ => false,
            });
            let found = changes(directory.path(), after, last.position, &wanted).unwrap();
            assert_eq!(
                found.into_iter().map(|batch| text(&Entry::Changes(batch))).collect::<Vec<_>>(),
                items.map(text).collect::<Vec<_>>()
            );
        }
    };
    let first = entries(90);
    let mut log = SegmentLog::open(options(directory.path()), None).unwrap();
    for part in 0..first.len() {
        append(&mut log, &first[part..=part]);
        if part % 7 == 0 {
            look(&first[..=part]);
        }
    }
    look(&first);
    drop(log);
    // The source tells the rest otherwise.
    let cut = 1 + first.iter().position(|entry| matches!(entry, Entry::Mark(mark) if mark.position == position(305))).unwrap();
    let others = entries(60).into_iter().skip_while(|entry| !matches!(entry, Entry::Mark(mark) if mark.position == position(305))).skip(1);
    let whole: Vec<Entry> = entries(90).into_iter().take(cut).chain(others).collect();
    let mut log = SegmentLog::open(options(directory.path()), Some(position(305))).unwrap();
    look(&whole[..cut]);
    for part in cut..whole.len() {
        append(&mut log, &whole[part..=part]);
        look(&whole[..=part]);
    }
}

fn with_large_transaction() -> Vec<Entry> {
    let mut entries = entries(5);
    let large = relation("large", 1);
    entries.push(Entry::Relation(Arc::clone(&large)));
    for _ in 0..130 {
        entries.push(Entry::Changes(batch(&large, 1000, 1000)));
    }
    entries.push(Entry::Mark(mark(1005)));
    entries.push(Entry::Changes(batch(&large, 1010, 3)));
    entries.push(Entry::Mark(mark(1015)));
    entries
}

#[test]
fn a_transaction_that_goes_through_several_segments_is_read_and_cut_off_as_one() {
    let directory = tempfile::tempdir().unwrap();
    let small = SegmentOptions { retain_bytes: 1, compression: Compression::None, ..options(directory.path()) };
    let entries = with_large_transaction();
    let all = numbered(&entries);
    let behind = |commit: u64| entries.iter().position(|entry| matches!(entry, Entry::Mark(found) if *found == mark(commit))).unwrap() + 1;
    let mut log = SegmentLog::open(small.clone(), None).unwrap();
    append(&mut log, &entries[..behind(55) + 100]);
    assert!(segments(directory.path()).unwrap().len() > 2);
    drop(log);
    // In the middle of it: the mark before it is where it stands, in another segment than those that repeat it.
    for _ in 0..2 {
        let mut log = SegmentLog::open(small.clone(), Some(position(55))).unwrap();
        assert_eq!((log.mark(), log.next_entry()), (Some(&mark(55)), behind(55) as u64));
        append(&mut log, &entries[behind(55)..]);
        drop(log);
        assert_eq!(read(SegmentCursor::at(directory.path(), 0)), all);
    }
    for (commit, from) in [(55, 55), (56, 55), (1004, 55), (1005, 1005), (1009, 1005), (1015, 1015), (9999, 1015)] {
        let (cursor, found) = SegmentCursor::locate(directory.path(), Locate::Position(position(commit))).unwrap();
        assert_eq!((&found, cursor.entry()), (&mark(from), behind(from) as u64), "{commit}");
        assert_eq!(read(cursor), all[behind(from)..]);
        let time = Locate::Time(TimestampMicros(commit as i64 * 1000));
        assert_eq!(SegmentCursor::locate(directory.path(), time).unwrap().1, found);
    }
    let changes = changes(directory.path(), position(55), position(1015), &|_| true).unwrap();
    assert_eq!(changes.iter().map(ChangeBatch::rows).sum::<usize>(), 130 * 1000 + 3);

    // Of a transaction whose beginning is gone nothing can be given.
    let mut log = SegmentLog::open(small, Some(position(1015))).unwrap();
    assert!(!log.retain(TimestampMicros(8), None).unwrap());
    assert!(segments(directory.path()).unwrap()[0].0 > behind(55) as u64);
    let (cursor, earliest) = SegmentCursor::locate(directory.path(), Locate::Earliest).unwrap();
    assert_eq!(earliest, mark(1005));
    assert_eq!(read(cursor), all[behind(1005)..]);
    for commit in [55, 1004] {
        assert_eq!(SegmentCursor::behind(directory.path(), position(commit)).unwrap_err().kind(), ErrorKind::LogGone);
    }
}

#[test]
fn a_second_writer_waits_for_the_first() {
    let directory = tempfile::tempdir().unwrap();
    let first = SegmentLog::open(options(directory.path()), None).unwrap();
    let waits = std::thread::spawn({
        let options = options(directory.path());
        move || SegmentLog::open(options, None).map(drop)
    });
    std::thread::sleep(Duration::from_millis(50));
    assert!(!waits.is_finished());
    drop(first);
    waits.join().unwrap().unwrap();
}
