//! Segments that are damaged, torn, missing: whoever reads gets what was written, or an error, and never less.

use std::os::unix::fs::FileExt as _;

use super::*;
use crate::changelog::{OnDisk, change_log_on_disk};
use logweir_core::{ConsumerName, MemoryBudget};

/// A log of several segments, and what is in it.
struct Written {
    directory: tempfile::TempDir,
    entries: Vec<Entry>,
    all: Vec<(u64, String)>,
    last: LogPosition,
}

impl Written {
    /// With relations that are announced again, as a reader does after each opening.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut entries = entries(450);
        for at in [700, 400, 150] {
            entries.insert(at, Entry::Relation(relation("items", 1)));
            entries.insert(at, Entry::Relation(relation("orders", 1)));
        }
        let mut log = SegmentLog::open(small(directory.path()), None).unwrap();
        append(&mut log, &entries);
        let last = log.mark().unwrap().position;
        let all = numbered(&entries);
        Written { directory, entries, all, last }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn files(&self) -> Vec<(u64, PathBuf)> {
        segments(self.path()).unwrap()
    }

    /// The first mark from an entry on.
    fn mark_from(&self, entry: u64) -> LogPosition {
        let marks = self.entries[entry as usize..].iter().find_map(|entry| match entry {
            Entry::Mark(mark) => Some(mark.position),
            _ => None,
        });
        marks.unwrap_or(self.last)
    }

    /// What a cursor that is behind reads of some entries, up to an error.
    fn behind(&self, from: u64, to: u64) -> Result<()> {
        let mut cursor = SegmentCursor::at(self.path(), from);
        while cursor.entry() < to {
            let first = cursor.entry();
            let read = cursor.next_bytes().and_then(|_| cursor.read_written(to, 1 << 16, 7, &Arc::default()))?;
            assert!(!read.is_empty() && cursor.entry() == first + read.len() as u64);
            for (number, entry) in (first..).zip(&read) {
                assert!(same(entry, &self.entries[number as usize]), "entry {number}");
            }
        }
        Ok(())
    }

    /// What a query reads of a table.
    fn changes(&self, table: &str, after: LogPosition, through: LogPosition) -> Result<()> {
        let wanted = |relation: &Relation| relation.name().table == table;
        let found = changes(self.path(), after, through, &wanted)?;
        let expected = self.entries.iter().filter(
            |entry| matches!(entry, Entry::Changes(batch) if wanted(&batch.relation) && batch.last > after && batch.last <= through),
        );
        let found: Vec<Entry> = found.into_iter().map(Entry::Changes).collect();
        assert!(found.iter().zip(expected.clone()).all(|(found, expected)| same(found, expected)));
        assert_eq!(found.len(), expected.count(), "{table} after {after}");
        Ok(())
    }

    /// Reads these entries in every way; the errors. What is wrong is told as damage, with what to do.
    fn errors(&self, from: u64, to: u64) -> Vec<Error> {
        let middle = from.midpoint(to);
        let mut results = vec![self.behind(from, to), self.behind(middle, to)];
        for table in ["orders", "items", "none"] {
            results.extend([from, middle].map(|from| self.changes(table, self.mark_from(from), self.mark_from(to))));
        }
        let errors: Vec<Error> = results.into_iter().filter_map(Result::err).collect();
        for error in &errors {
            assert!(error.kind() == ErrorKind::Corrupt && error.get_remedy().is_some(), "{error:?}");
        }
        errors
    }

    fn all_errors(&self) -> Vec<Error> {
        self.errors(0, self.all.len() as u64)
    }
}

/// [`text`] would say the same of both, which takes longer to find out.
fn same(one: &Entry, other: &Entry) -> bool {
    match (one, other) {
        (Entry::Relation(one), Entry::Relation(other)) => one == other,
        (Entry::Mark(one), Entry::Mark(other)) => one == other,
        (Entry::Changes(one), Entry::Changes(other)) => {
            let beside = |batch: &ChangeBatch| {
                let before = batch.before.as_ref().map(|before| (before.columns.clone(), before.present.clone(), before.absent.clone()));
                (before, batch.unchanged.clone())
            };
            one.relation == other.relation && one.records == other.records && beside(one) == beside(other) && one.last == other.last
        }
        _ => false,
    }
}

/// Segments are as small as they can be.
fn small(directory: &Path) -> SegmentOptions {
    SegmentOptions { retain_bytes: 1, compression: Compression::None, ..options(directory) }
}

/// The frames of a segment, its index as the last: where they begin, and their headers.
fn frames(first: u64, path: &Path) -> Vec<(usize, frame::Header)> {
    let bytes = std::fs::read(path).unwrap();
    let mut reader = SegmentReader::open(first, path).unwrap().unwrap();
    let mut frames = Vec::new();
    loop {
        let offset = reader.offset() as usize;
        let header = frame::Header::decode(&bytes[offset..]).unwrap();
        frames.push((offset, header));
        if header.kind == Kind::Index {
            return frames;
        }
        assert!(reader.skip(&header).unwrap());
    }
}

#[test]
fn a_byte_that_is_another_one_in_a_sealed_segment_is_an_error_or_does_not_matter() {
    let written = Written::new();
    assert_eq!(written.all_errors().len(), 0);
    let files = written.files();
    assert!(files.len() > 3, "{files:?}");
    let (first, path) = &files[1];
    let whole = std::fs::read(path).unwrap();
    let frames = frames(*first, path);
    // Frames of each kind, at the beginning and in the middle.
    let mut chosen: Vec<usize> = vec![0, 1, 2, 3, frames.len() - 1];
    for kind in [Kind::Relation, Kind::Changes, Kind::Mark] {
        let of_kind = |frame: &usize| frames[*frame].1.kind == kind && !frames[*frame].1.repeats;
        chosen.extend((0..frames.len()).filter(of_kind).nth(if kind == Kind::Relation { 0 } else { 20 }));
    }
    chosen.sort_unstable();
    chosen.dedup();
    let mut places = Vec::new();
    for frame in chosen {
        let (at, header) = frames[frame];
        places.extend((at..at + frame::HEADER_BYTES).map(|place| (frame, place)));
        let payload = at + frame::HEADER_BYTES..at + header.frame_bytes() as usize;
        places.extend(payload.clone().step_by(payload.len() / 4).chain([payload.end - 1]).map(|place| (frame, place)));
    }
    // The trailer.
    places.extend((whole.len() - 16..whole.len()).map(|place| (frames.len() - 1, place)));
    for (number, (frame, place)) in places.into_iter().enumerate() {
        let (at, header) = frames[frame];
        let file = File::options().write(true).open(path).unwrap();
        file.write_all_at(&[whole[place] ^ (1 << (number % 8))], place as u64).unwrap();
        let errors = || written.errors(header.entry - 6, header.entry + 6);
        let found = errors();
        if header.kind == Kind::Index {
            // Everything that it says stands in the frames, too.
            assert!(found.is_empty(), "index at {place}: {found:?}");
        } else if frame == 0 && !(4..8).contains(&(place - at)) && place < at + frame::HEADER_BYTES {
            assert!(!found.is_empty(), "opening at {place}");
        } else if frame > 0 {
            // The mark that a segment begins with is the last one of the segment before: nobody needs to read it.
            assert!(!found.is_empty(), "{:?} at {}", header.kind, place - at);
        }
        // Opening the log is no reason to forget what is whole in it, or that something is not.
        if number % 97 == 0 {
            drop(SegmentLog::open(small(written.path()), Some(written.last)).unwrap());
            assert_eq!(written.files(), files);
            assert_eq!(errors().len(), found.len());
        }
        file.write_all_at(&whole[place..=place], place as u64).unwrap();
    }
    assert_eq!(written.all_errors().len(), 0);
}

#[test]
fn a_segment_that_is_missing_or_cut_off_is_an_error_and_the_others_are_read() {
    let written = Written::new();
    let files = written.files();
    let end = written.all.len() as u64;
    let ((first, path), next) = (&files[1], files[2].0);
    let whole = std::fs::read(path).unwrap();
    let index_at = frames(*first, path).last().unwrap().0;
    for cut in [None, Some(0), Some(1), Some(80), Some(whole.len() / 2), Some(index_at - 1)] {
        match cut {
            None => std::fs::remove_file(path).unwrap(),
            Some(bytes) => std::fs::write(path, &whole[..bytes]).unwrap(),
        }
        for opened in [false, true] {
            if opened {
                let log = SegmentLog::open(small(written.path()), Some(written.last)).unwrap();
                assert_eq!((log.next_entry(), log.first_entry()), (end, 0), "cut at {cut:?}");
            }
            assert_eq!(written.behind(0, end).unwrap_err().kind(), ErrorKind::Corrupt);
            assert_eq!(written.behind(*first, end).unwrap_err().kind(), ErrorKind::Corrupt);
            if let Err(error) = written.changes("items", written.mark_from(0), written.last) {
                assert_eq!(error.kind(), ErrorKind::Corrupt);
            } else {
                assert_eq!(cut, Some(index_at - 1), "only where what is cut off is nothing that was asked for");
            }
            // What lies before and behind is handed out.
            let mut before = SegmentCursor::at(written.path(), 0);
            while before.read_written(u64::MAX, 1 << 20, 99, &Arc::default()).is_ok() {}
            assert!(before.entry() >= *first && before.entry() < next, "{} of {first} to {next}", before.entry());
            written.behind(next, end).unwrap();
            written.changes("orders", written.mark_from(next), written.last).unwrap();
        }
        std::fs::write(path, &whole).unwrap();
    }
    assert_eq!(written.all_errors().len(), 0);
    // Without its index it is whole.
    std::fs::write(path, &whole[..index_at]).unwrap();
    assert_eq!(written.all_errors().len(), 0);
    let mut log = SegmentLog::open(small(written.path()), Some(written.last)).unwrap();
    assert_eq!(written.all_errors().len(), 0);
    // It goes when its turn comes.
    assert!(!log.retain(TimestampMicros(8), None).unwrap());
    assert_eq!(written.files().len(), 1);
}

#[test]
fn segments_of_another_log_or_in_another_order_are_not_taken_for_their_own() {
    let written = Written::new();
    let files = written.files();
    let (at, path) = &files[1];
    let other = std::fs::read(&files[2].1).unwrap();
    let whole = std::fs::read(path).unwrap();
    std::fs::write(path, other).unwrap();
    assert_eq!(written.behind(*at, files[2].0).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(written.behind(0, files[2].0).unwrap_err().kind(), ErrorKind::Corrupt);
    std::fs::write(path, whole).unwrap();
    assert_eq!(written.all_errors().len(), 0);
}

#[tokio::test]
async fn a_destination_that_is_behind_gets_what_comes_before_the_damage_and_an_error() {
    let written = Written::new();
    let files = written.files();
    let (first, path) = &files[1];
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(path, bytes).unwrap();
    let disk = OnDisk {
        place: written.path().into(),
        next_entry: written.all.len() as u64,
        window_bytes: 1 << 20,
        memory: MemoryBudget::new(1 << 20),
    };
    let (_appender, log) = change_log_on_disk(100, disk);
    let name = |destination: &str| ConsumerName { stream: "shop".into(), destination: destination.into() };
    let mut behind = log.consumer_on_disk(name("behind"), Some(position(0))).await.unwrap();
    let mut read = 1;
    let error = loop {
        match behind.next().await {
            Ok(entry) => assert_eq!(text(&entry.unwrap()), written.all[read].1),
            Err(error) => break error,
        }
        read += 1;
    };
    assert!(read as u64 > *first && (read as u64) < files[2].0);
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.get_remedy().unwrap().contains("acknowledge: destination"), "{error}");
    assert!(behind.next().await.is_err(), "it stays where it is");
    assert!(behind.is_behind());
    // Others do not need it.
    let mut further = log.consumer_on_disk(name("further"), Some(position(4000))).await.unwrap();
    let from = written.entries.iter().position(|entry| matches!(entry, Entry::Mark(mark) if mark.position > position(4000))).unwrap();
    let mut expected = written.all[from - 1..].iter();
    while further.is_behind() {
        assert_eq!(text(&further.next().await.unwrap().unwrap()), expected.next().unwrap().1);
    }
    assert_eq!(expected.next(), None);
}

#[test]
fn a_log_of_the_first_format_is_begun_anew() {
    let written = Written::new();
    for (_, path) in written.files() {
        let mut bytes = std::fs::read(&path).unwrap();
        for at in 0..bytes.len() - 4 {
            if bytes[at..at + 4] == *b"LWF2" {
                bytes[at + 3] = b'1';
            }
        }
        std::fs::write(&path, bytes).unwrap();
    }
    assert_eq!(written.behind(0, 10).unwrap_err().kind(), ErrorKind::Corrupt);
    let log = SegmentLog::open(small(written.path()), Some(written.last)).unwrap();
    assert_eq!((log.mark(), log.next_entry(), written.files().len()), (None, 0, 0));
}

#[test]
fn the_only_copy_is_not_removed() {
    let written = Written::new();
    let (_, newest) = written.files().pop().unwrap();
    let whole = std::fs::read(&newest).unwrap();
    let mut torn = whole.clone();
    let at = torn.len() / 2;
    torn[at] ^= 1;
    std::fs::write(&newest, &torn).unwrap();
    let files = written.files();
    let open = || SegmentLog::claim(small(written.path()))?.open_only_copy(Some(written.last));
    let refused = open().unwrap_err();
    assert_eq!((refused.kind(), written.files(), std::fs::read(&newest).unwrap()), (ErrorKind::Corrupt, files, torn));
    // Put back, it goes on as ever.
    std::fs::write(&newest, &whole).unwrap();
    assert_eq!(open().unwrap().mark().map(|mark| mark.position), Some(written.last));
    // Moved away, it begins anew.
    for (_, path) in written.files() {
        std::fs::remove_file(path).unwrap();
    }
    assert_eq!(open().unwrap().mark(), None);
}
