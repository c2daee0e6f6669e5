//! What compaction leaves of random changes, beside a naive merge of everything that was landed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, Int64Array, StringArray};
use arrow_buffer::BooleanBuffer;
use logweir_core::{ChangeBatch, ChangeType, ErrorKind, LogPosition, Relation, RelationName, TimestampMicros, Unchanged};
use logweir_files::compact::{COMPACTED, Compacted, Compaction, CompactionLimits};

use crate::rows::{DataFile, Folder, MIDNIGHT, batch, column, consumer, inserts, land, relation};

const HOUR: i64 = 3_600_000_000;
const EVERYTHING: CompactionLimits = CompactionLimits { through: LogPosition::MAX, before: None };

/// Numbers without pattern, the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

#[derive(Debug, Clone)]
struct Change {
    id: Option<i64>,
    /// `None` if the log left it out.
    name: Option<Option<String>>,
    change_type: ChangeType,
    number: i64,
    time: i64,
}

/// What may happen to rows.
#[derive(Debug, Clone, Copy)]
struct Kinds {
    left_out: bool,
    rekeys: bool,
    truncates: bool,
}

fn changes(random: &mut Random, kinds: Kinds, count: usize) -> Vec<Change> {
    let mut changes = Vec::new();
    let (mut number, mut time) = (0, MIDNIGHT);
    while changes.len() < count {
        number += 1;
        time += random.below(2) as i64 * HOUR;
        let id = random.below(12) as i64;
        let name = Some((random.below(9) > 0).then(|| format!("name {number}")));
        let change =
            |id, name: &Option<Option<String>>, change_type| Change { id: Some(id), name: name.clone(), change_type, number, time };
        match random.below(20) {
            0..6 => changes.push(change(id, &name, ChangeType::Insert)),
            6..10 => changes.push(change(id, &name, ChangeType::UpdateInsert)),
            10..13 if kinds.left_out => changes.push(change(id, &None, ChangeType::UpdateInsert)),
            13..15 if kinds.rekeys => {
                changes.push(change(id, &name, ChangeType::UpdateDelete));
                changes.push(change((id + 1) % 12, &name, ChangeType::UpdateInsert));
            }
            15 if kinds.truncates && random.below(4) == 0 => {
                changes.push(Change { id: None, name: Some(None), change_type: ChangeType::Truncate, number, time });
            }
            16..19 => changes.push(change(id, &Some(None), ChangeType::Delete)),
            _ => changes.push(change(id, &name, ChangeType::Read)),
        }
    }
    changes
}

fn batch_of(relation: &Arc<Relation>, changes: &[Change]) -> ChangeBatch {
    let names = changes.iter().map(|change| change.name.clone().flatten());
    let mut columns: Vec<ArrayRef> =
        vec![Arc::new(Int64Array::from_iter(changes.iter().map(|change| change.id))), Arc::new(StringArray::from_iter(names))];
    columns.truncate(relation.columns().len());
    let made = batch(relation, columns, changes.iter().map(|change| (change.change_type, change.number, change.time)));
    let left_out = BooleanBuffer::from_iter(changes.iter().map(|change| change.name.is_none()));
    let unchanged = (left_out.count_set_bits() > 0).then(|| Unchanged { columns: vec![(1, left_out)] });
    ChangeBatch { unchanged, ..made }
}

/// A row as somebody finds it who knows the format alone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    time: i64,
    sequence: String,
    id: Option<i64>,
    name: Option<Option<String>>,
    deleted: bool,
    truncate: bool,
}

fn rows(files: &[DataFile]) -> Vec<Row> {
    let mut rows = Vec::new();
    for file in files {
        let times = file.column("_metadata_timestamp").as_primitive::<TimestampMicrosecondType>();
        let ids = file.column("id").as_primitive::<Int64Type>();
        let names = file.column("name").as_string::<i32>();
        let unchanged = file.column("_metadata_unchanged");
        for row in 0..file.records.num_rows() {
            rows.push(Row {
                time: times.value(row),
                sequence: file.texts("_metadata_sequence")[row].to_owned(),
                id: ids.is_valid(row).then(|| ids.value(row)),
                name: unchanged.is_null(row).then(|| names.is_valid(row).then(|| names.value(row).to_owned())),
                deleted: file.column("_metadata_deleted").as_boolean().value(row),
                truncate: file.texts("_metadata_change_type")[row] == "TRUNCATE",
            });
        }
    }
    rows.sort();
    rows
}

/// The current state, by going through all changes.
fn state(rows: &[Row]) -> BTreeMap<i64, Option<String>> {
    let mut state = BTreeMap::new();
    for row in rows {
        match (row.id, &row.name) {
            _ if row.truncate => state.clear(),
            (Some(id), _) if row.deleted => _ = state.remove(&id),
            (Some(id), Some(name)) => _ = state.insert(id, name.clone()),
            // An update that leaves values out changes a row that is there, and makes none; here it has no other column.
            _ => {}
        }
    }
    state
}

/// Keys with a change behind the last truncate, and that.
fn ended_or_standing(rows: &[Row]) -> usize {
    let last = rows.iter().rposition(|row| row.truncate);
    let keys: BTreeSet<Option<i64>> = rows[last.map_or(0, |last| last + 1)..].iter().map(|row| row.id).collect();
    keys.len() + usize::from(last.is_some())
}

fn orders() -> RelationName {
    RelationName::new("shop", "orders")
}

async fn compact(folder: &Folder, limits: CompactionLimits) -> Compacted {
    let compaction = Compaction::open(folder.options.clone(), &consumer(), 1 << 10).await.unwrap();
    compaction.table(&orders(), limits).await.unwrap()
}

fn data_files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() && !entry.ends_with("_logweir") {
            files.extend(data_files(&entry));
        } else if entry.extension().is_some_and(|extension| extension == "parquet") {
            files.insert(entry);
        }
    }
    files
}

/// Lands changes in several files of two versions.
async fn landed(random: &mut Random, kinds: Kinds) -> (Folder, Vec<Change>) {
    let folder = Folder::new();
    let changes = changes(random, kinds, 60);
    let mut from = 0;
    while from < changes.len() {
        let to = (from + 1 + random.below(12) as usize).min(changes.len());
        let version = if from > 40 { 2 } else { 1 };
        land(&folder.sink(), vec![batch_of(&relation("orders", version), &changes[from..to])]).await;
        from = to;
    }
    (folder, changes)
}

#[tokio::test]
async fn the_state_stays_what_it_is() {
    let mut replaced = 0;
    for seed in 0..60 {
        let mut random = Random(seed);
        let (left_out, rekeys) = (seed % 3 == 0, seed % 3 == 1);
        let (folder, changes) = landed(&mut random, Kinds { left_out, rekeys, truncates: seed % 2 == 0 }).await;
        let before = rows(&folder.files().await);
        let expected = state(&before);
        let old = data_files(folder.folder.path());
        let copies: Vec<(PathBuf, Vec<u8>)> = old.iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect();

        // As far as a position, or a time.
        let change = &changes[random.below(60) as usize];
        let through = before.iter().map(|row| row.sequence.parse::<LogPosition>().unwrap()).nth(random.below(60) as usize).unwrap();
        let limits = if seed % 4 == 0 {
            CompactionLimits { before: Some(TimestampMicros(change.time)), ..EVERYTHING }
        } else {
            CompactionLimits { through, ..EVERYTHING }
        };
        compact(&folder, limits).await;
        let now = rows(&folder.files().await);
        assert_eq!(state(&now), expected, "seed {seed}");
        let stays = |row: &&Row| match limits.before {
            Some(before) => row.time >= before.0,
            None => row.sequence.parse::<LogPosition>().unwrap() > through,
        };
        assert_eq!(
            now.iter().filter(stays).collect::<Vec<_>>(),
            before.iter().filter(stays).collect::<Vec<_>>(),
            "seed {seed}: what lies behind stays"
        );
        assert!(now.iter().all(|row| before.contains(row)), "seed {seed}: rows are what they were");

        // Whoever was killed while the old files went, in whatever order, leaves changes that are there twice, and none that stands is another.
        for (path, bytes) in copies.iter().filter(|_| random.below(2) == 0) {
            fs::write(path, bytes).unwrap();
        }
        let mut some = rows(&folder.files().await);
        some.dedup();
        assert_eq!(state(&some), expected, "seed {seed}: with some of the old files");
        for (path, bytes) in &copies {
            fs::write(path, bytes).unwrap();
        }
        let mut twice = rows(&folder.files().await);
        twice.dedup();
        assert_eq!(twice, before, "seed {seed}");

        // All of it, and again.
        let Compacted::Replaced { from, to } = compact(&folder, EVERYTHING).await else { panic!("seed {seed}: nothing was compacted") };
        replaced += 1;
        let files = folder.files().await;
        let found = rows(&files);
        assert_eq!(state(&found), expected, "seed {seed}");
        assert!(from.files >= to.files && to.files <= files.len() && to.rows <= found.len() as u64, "seed {seed}");
        assert!(found.windows(2).all(|pair| pair[0] != pair[1]), "seed {seed}: no change is there twice");
        if !left_out {
            assert_eq!(found.len(), ended_or_standing(&before), "seed {seed}: a row for each key");
        }
        for file in &files {
            let sequences = file.texts("_metadata_sequence");
            // One that had nothing to lose is as it was.
            if let Some(compacted) = file.footer.get(COMPACTED) {
                assert_eq!(*compacted, before.last().unwrap().time.to_string());
            }
            if let (Some(first), Some(last)) = (sequences.iter().min(), sequences.iter().max()) {
                assert_eq!((&file.footer["logweir.first"][..], &file.footer["logweir.last"][..]), (*first, *last));
                assert_eq!(file.footer["logweir.in_log_order"], sequences.is_sorted().to_string());
            }
            assert_eq!(file.footer["logweir.key"], r#"["id"]"#);
        }
        let old = data_files(folder.folder.path());
        assert_eq!(compact(&folder, EVERYTHING).await, Compacted::AsItIs, "seed {seed}");
        assert_eq!(data_files(folder.folder.path()), old);
        assert_eq!(folder.leftovers().await.iter().filter(|path| !path.ends_with(".lock")).count(), 0);
    }
    assert_eq!(replaced, 60);
}

/// Rows are copied, not made anew: whatever stands in them.
#[tokio::test]
async fn tables_are_told_apart_and_left_alone_for_a_reason() {
    let folder = Folder::new();
    let odd = relation("_größe/100%", 1);
    for round in 0..3 {
        let from = round * 10;
        let keyless = Relation::new(
            RelationName::new("shop", "log"),
            1,
            LogPosition::MIN,
            vec![column("id", arrow_schema::DataType::Int64, "bigint"), column("name", arrow_schema::DataType::Utf8, "text")],
            vec![],
        );
        land(&folder.sink(), vec![inserts(&relation("orders", 1), from..from + 10, MIDNIGHT + from)]).await;
        land(&folder.sink(), vec![inserts(&relation("others", 1), from..from + 10, MIDNIGHT + from)]).await;
        land(&folder.sink(), vec![inserts(&odd, from..from + 10, MIDNIGHT + from)]).await;
        land(&folder.sink(), vec![inserts(&Arc::new(keyless), from..from + 10, MIDNIGHT + from)]).await;
    }
    let mut other = folder.options.clone();
    other.stream = "other".to_owned();
    let compaction = Compaction::open(folder.options.clone(), &consumer(), 1 << 20).await.unwrap();
    for table in [orders(), odd.name().clone()] {
        let compacted = compaction.table(&table, EVERYTHING).await.unwrap();
        assert!(matches!(compacted, Compacted::Replaced { to, .. } if (to.files, to.rows) == (1, 30)), "{table}: {compacted:?}");
    }
    assert_eq!(compaction.table(&RelationName::new("shop", "log"), EVERYTHING).await.unwrap(), Compacted::Not("it has no key"));
    assert_eq!(compaction.table(&RelationName::new("shop", "nothing"), EVERYTHING).await.unwrap(), Compacted::AsItIs);
    assert_eq!(folder.files().await.len(), 8);
    // Two at once would disturb each other.
    let error = Compaction::open(folder.options.clone(), &consumer(), 1 << 20).await.map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    drop(compaction);
    let compaction = Compaction::open(other, &consumer(), 1 << 20).await.unwrap();
    assert_eq!(compaction.table(&orders(), EVERYTHING).await.unwrap(), Compacted::AsItIs);
}

#[tokio::test]
async fn a_key_that_changed_or_changes_while_values_are_left_out_is_left_alone() {
    let folder = Folder::new();
    let mut random = Random(1);
    let (both, _) = landed(&mut random, Kinds { left_out: true, rekeys: true, truncates: false }).await;
    assert_eq!(compact(&both, EVERYTHING).await, Compacted::Not("its keys change, and the log leaves values out"));
    let columns = || vec![column("id", arrow_schema::DataType::Int64, "bigint"), column("name", arrow_schema::DataType::Utf8, "text")];
    let by_name = Arc::new(Relation::new(orders(), 2, LogPosition::MIN, columns(), vec![1]));
    land(&folder.sink(), vec![inserts(&relation("orders", 1), 0..10, MIDNIGHT)]).await;
    land(&folder.sink(), vec![inserts(&by_name, 10..20, MIDNIGHT + 1)]).await;
    assert_eq!(compact(&folder, EVERYTHING).await, Compacted::Not("its key has changed"));
    assert_eq!(folder.files().await.len(), 2);
}

/// A column that was dropped and came back is another one, which the version without it tells.
#[tokio::test]
async fn a_version_that_no_row_is_left_of_stays_known() {
    let folder = Folder::new();
    let without = |version| {
        let columns = vec![column("id", arrow_schema::DataType::Int64, "bigint")];
        Arc::new(Relation::new(orders(), version, LogPosition::MIN, columns, vec![0]))
    };
    let change =
        |number: i64, change_type| Change { id: Some(number % 10), name: Some(None), change_type, number, time: MIDNIGHT + number };
    land(&folder.sink(), vec![inserts(&relation("orders", 1), 0..5, MIDNIGHT)]).await;
    land(&folder.sink(), vec![batch_of(&without(2), &[change(6, ChangeType::Insert), change(16, ChangeType::UpdateInsert)])]).await;
    land(&folder.sink(), vec![inserts(&relation("orders", 3), 20..25, MIDNIGHT + 20)]).await;
    land(&folder.sink(), vec![batch_of(&relation("orders", 3), &[change(26, ChangeType::Delete)])]).await;
    for _ in 0..2 {
        compact(&folder, EVERYTHING).await;
        let files = folder.files().await;
        let mut found: Vec<(&str, usize)> =
            files.iter().map(|file| (file.footer["logweir.schema_version"].as_str(), file.records.num_rows())).collect();
        found.sort_unstable();
        assert_eq!(found, [("1", 5), ("2", 0), ("3", 6)]);
    }
}

/// Where nothing stands the truncate does, and says what was compacted.
#[tokio::test]
async fn a_table_that_was_emptied_keeps_its_truncate() {
    let folder = Folder::new();
    land(&folder.sink(), vec![inserts(&relation("orders", 1), 0..10, MIDNIGHT)]).await;
    let truncate = Change { id: None, name: Some(None), change_type: ChangeType::Truncate, number: 10, time: MIDNIGHT + 5 };
    land(&folder.sink(), vec![batch_of(&relation("orders", 1), &[truncate])]).await;
    assert!(matches!(compact(&folder, EVERYTHING).await, Compacted::Replaced { .. }));
    let files = folder.files().await;
    assert_eq!((files.len(), files[0].records.num_rows()), (1, 1));
    assert_eq!(files[0].footer[COMPACTED], (MIDNIGHT + 5).to_string());
    assert_eq!(compact(&folder, EVERYTHING).await, Compacted::AsItIs);
    land(&folder.sink(), vec![inserts(&relation("orders", 1), 20..30, MIDNIGHT + 9)]).await;
    assert!(matches!(compact(&folder, EVERYTHING).await, Compacted::Replaced { .. }));
    let files = folder.files().await;
    assert_eq!(rows(&files).len(), 11);
}

/// What was replaced is said somewhere also where nothing is left of it, and no other file is written.
#[tokio::test]
async fn the_past_is_not_known_where_newer_files_have_all_that_stands() {
    let folder = Folder::new();
    land(&folder.sink(), vec![inserts(&relation("orders", 1), 0..10, MIDNIGHT)]).await;
    let updates: Vec<Change> = (0..10)
        .map(|id| Change {
            id: Some(id),
            name: Some(Some("new".to_owned())),
            change_type: ChangeType::UpdateInsert,
            number: 100 + id,
            time: MIDNIGHT + 30 * HOUR,
        })
        .collect();
    // Another day is another folder, and so another group of files.
    land(&folder.sink(), vec![batch_of(&relation("orders", 1), &updates)]).await;
    assert!(matches!(compact(&folder, EVERYTHING).await, Compacted::Replaced { .. }));
    let files = folder.files().await;
    assert_eq!(rows(&files).len(), 10);
    assert!(files.iter().any(|file| file.footer.contains_key(COMPACTED)));
}
