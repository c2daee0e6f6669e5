//! Random histories: the current state that SQL finds is what applying the changes one by one gives.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::DataType;
use logweir_core::{ChangeType, LogPosition};
use logweir_sql::{LandedTable, QueryEngine, Tail};
use proptest::prelude::*;

use crate::lake::{Change, InFlight, Lake, MEMORY_BYTES, Version, answer};

#[derive(Debug, Clone)]
enum Step {
    Insert {
        id: u8,
        v: Option<u8>,
        w: Option<u8>,
        x: Option<u8>,
    },
    /// What is `unchanged` (bits: v, w, x) was not logged. With `to` the key changes; `minimal`: so does its before image say nothing.
    Update {
        id: u8,
        to: Option<u8>,
        v: Option<u8>,
        w: Option<u8>,
        x: Option<u8>,
        unchanged: u8,
        minimal: bool,
    },
    Delete {
        id: u8,
        minimal: bool,
    },
    Truncate,
    AddColumn,
    DropColumn,
    Widen,
    CloseFile,
    /// The next change has a later timestamp.
    Tick,
}

impl Step {
    /// The same from a source that logs every value.
    fn logged_whole(mut self) -> Self {
        if let Step::Update { unchanged, minimal, .. } = &mut self {
            (*unchanged, *minimal) = (0, false);
        }
        if let Step::Delete { minimal, .. } = &mut self {
            *minimal = false;
        }
        self
    }
}

fn step() -> impl Strategy<Value = Step> {
    let id = || 0..5_u8;
    let value = || proptest::option::of(0..9_u8);
    prop_oneof![
        6 => (id(), value(), value(), value()).prop_map(|(id, v, w, x)| Step::Insert { id, v, w, x }),
        8 => (id(), proptest::option::weighted(0.3, id()), value(), value(), value(), 0..8_u8, any::<bool>())
            .prop_map(|(id, to, v, w, x, unchanged, minimal)| Step::Update { id, to, v, w, x, unchanged, minimal }),
        3 => (id(), any::<bool>()).prop_map(|(id, minimal)| Step::Delete { id, minimal }),
        1 => Just(Step::Truncate),
        1 => Just(Step::AddColumn),
        1 => Just(Step::DropColumn),
        1 => Just(Step::Widen),
        3 => Just(Step::CloseFile),
        3 => Just(Step::Tick),
    ]
}

/// v, w and, where it exists, x.
type Row = [Option<u8>; 3];

/// The table itself, and the log that its changes leave behind.
struct Model {
    rows: BTreeMap<u8, Row>,
    has_x: bool,
    width: usize,
    version: u32,
    timestamp: i64,
    ordinal: u64,
    open: Vec<Change>,
    files: Vec<(Version, Vec<Change>)>,
}

const WIDTHS: [DataType; 3] = [DataType::Int16, DataType::Int32, DataType::Decimal128(20, 2)];
const NAMES: [&str; 3] = ["v", "w", "x"];

impl Model {
    fn new() -> Self {
        Model { rows: BTreeMap::new(), has_x: false, width: 0, version: 1, timestamp: 0, ordinal: 0, open: Vec::new(), files: Vec::new() }
    }

    fn columns(&self) -> usize {
        if self.has_x { 3 } else { 2 }
    }

    fn schema(&self) -> Version {
        let mut columns = vec![("id", DataType::Int32), ("v", WIDTHS[self.width].clone()), ("w", DataType::Utf8)];
        if self.has_x {
            columns.push(("x", DataType::Int32));
        }
        Version::new(self.version, &columns, &["id"])
    }

    fn log(&mut self, change_type: ChangeType, id: Option<u8>, row: Row, unchanged: u8) {
        // Both halves of a key change have one ordinal.
        let second_half = change_type != ChangeType::UpdateDelete;
        let follows =
            self.open.last().is_some_and(|last| last.change_type == ChangeType::UpdateDelete && last.position.ordinal() == self.ordinal);
        if !follows {
            self.ordinal += 1;
        }
        let listed = |i: usize| unchanged & 1 << i != 0;
        let mut values = vec![id.map(|id| id.to_string())];
        values.extend((0..self.columns()).map(|i| row[i].filter(|_| !listed(i)).map(|value| value.to_string())));
        self.open.push(Change {
            timestamp: self.timestamp,
            position: LogPosition::new(0, 1, 4, self.ordinal, second_half),
            change_type,
            values,
            unchanged: (0..self.columns()).filter(|i| listed(*i)).map(|i| NAMES[i].to_owned()).collect(),
        });
    }

    fn close_file(&mut self) {
        if !self.open.is_empty() {
            self.files.push((self.schema(), std::mem::take(&mut self.open)));
        }
    }

    fn alter(&mut self, change: impl FnOnce(&mut Self)) {
        self.close_file();
        change(self);
        self.version += 1;
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Insert { id, v, w, x } => {
                let row = [v, w, x.filter(|_| self.has_x)];
                if let Entry::Vacant(place) = self.rows.entry(id) {
                    place.insert(row);
                    self.log(ChangeType::Insert, Some(id), row, 0);
                }
            }
            Step::Update { id, to, v, w, x, unchanged, minimal } => {
                let to = to.unwrap_or(id);
                let Some(old) = self.rows.get(&id).copied().filter(|_| to == id || !self.rows.contains_key(&to)) else { return };
                let given = [v, w, x.filter(|_| self.has_x)];
                let new = std::array::from_fn(|i| if unchanged & 1 << i != 0 { old[i] } else { given[i] });
                if to != id {
                    self.rows.remove(&id);
                    self.log(ChangeType::UpdateDelete, Some(id), old, if minimal { 7 } else { 0 });
                }
                self.rows.insert(to, new);
                self.log(ChangeType::UpdateInsert, Some(to), new, unchanged);
            }
            Step::Delete { id, minimal } => {
                if let Some(old) = self.rows.remove(&id) {
                    self.log(ChangeType::Delete, Some(id), old, if minimal { 7 } else { 0 });
                }
            }
            Step::Truncate => {
                self.rows.clear();
                self.log(ChangeType::Truncate, None, [None; 3], 0);
            }
            Step::AddColumn if !self.has_x => self.alter(|model| model.has_x = true),
            Step::DropColumn if self.has_x => {
                self.alter(|model| {
                    model.has_x = false;
                    model.rows.values_mut().for_each(|row| row[2] = None);
                });
                // A version under which nothing changed leaves no file, and no reader knows of it.
                self.log(ChangeType::Insert, Some(99), [None; 3], 0);
                self.log(ChangeType::Delete, Some(99), [None; 3], 0);
            }
            Step::Widen if self.width + 1 < WIDTHS.len() => self.alter(|model| model.width += 1),
            Step::AddColumn | Step::DropColumn | Step::Widen => {}
            Step::CloseFile => self.close_file(),
            Step::Tick => self.timestamp += 1,
        }
    }

    /// What SQL should answer.
    fn answer(&self) -> String {
        let mut text = String::from(if self.newest_has_x() { "id | v | w | x\n" } else { "id | v | w\n" });
        for (id, row) in &self.rows {
            let shown = |value: Option<u8>| value.map_or("NULL".to_owned(), |value| value.to_string());
            text += &format!("{id} | {} | {}", shown(row[0]), shown(row[1]));
            if self.newest_has_x() {
                text += &format!(" | {}", shown(row[2]));
            }
            text += "\n";
        }
        text
    }

    /// As the newest file has it, which is all that a reader can know.
    fn newest_has_x(&self) -> bool {
        self.files.last().is_some_and(|(version, _)| version.columns.len() == 4)
    }
}

fn run(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn the_current_state_is_that_of_the_table(
        steps in proptest::collection::vec(step(), 1..60),
        shuffle in any::<u64>(),
        all_is_logged in any::<bool>(),
        tells_order in any::<bool>(),
        in_flight in 0..1000_usize,
        rows in 1..5_usize,
        held in any::<bool>(),
    ) {
        let mut model = Model::new();
        for step in steps {
            model.apply(&if all_is_logged { step.logged_whole() } else { step });
        }
        model.close_file();
        prop_assume!(!model.files.is_empty());
        run(async {
            let lake = if tells_order { Lake::new() } else { Lake::without_order() };
            // The last of them are in no file yet, or none is.
            let (files, tail) = model.files.split_at(model.files.len() - in_flight % (model.files.len() + 1));
            for (i, (version, changes)) in files.iter().enumerate() {
                // Names that do not follow the log.
                let name = (i as u64 + 1).wrapping_mul(shuffle | 1);
                lake.write(&format!("shop/t/{name:016x}-{i}.parquet"), "t", version, changes).await;
            }
            let after = files.last().and_then(|(_, changes)| changes.last()).map_or(LogPosition::MIN, |last| last.position);
            let tail = (!tail.is_empty()).then(|| {
                let tail = InFlight::new("t", after, tail, rows);
                Arc::new(if held { tail } else { tail.not_held() }) as Arc<dyn Tail>
            });
            let engine = QueryEngine::new(vec![LandedTable { tail, ..lake.table("t") }], MEMORY_BYTES).unwrap();
            // Whole numbers, whatever the column has become.
            let x = if model.newest_has_x() { ", x" } else { "" };
            let sql = format!("select id, cast(v as int) as v, w{x} from t order by id");
            let expected = model.answer();
            assert_eq!(answer(&engine, &sql).await, expected);
            // A filter on the key gives the same rows as filtering the whole.
            let sql = format!("select id, cast(v as int) as v, w{x} from t where id = 3");
            let rows: String = expected.lines().enumerate().filter(|(i, line)| *i == 0 || line.starts_with("3 |")).map(|(_, line)| format!("{line}\n")).collect();
            assert_eq!(answer(&engine, &sql).await, rows);
            let count = model.files.iter().map(|(_, changes)| changes.len()).sum::<usize>();
            assert_eq!(answer(&engine, "select count(*) as n from shop_changes.t").await, format!("n\n{count}\n"));
        });
    }

    #[test]
    fn without_a_key_equal_rows_are_one(steps in proptest::collection::vec((proptest::option::of(0..3_u8), proptest::option::of(0..3_u8), 0..10_u8), 1..40)) {
        let mut rows = BTreeSet::new();
        let mut changes = Vec::new();
        for (n, (a, b, kind)) in steps.into_iter().enumerate() {
            let row = [a, b].map(|value| value.map(|value| value.to_string()));
            let change_type = match kind {
                0 => ChangeType::Truncate,
                1..4 => ChangeType::Delete,
                _ => ChangeType::Insert,
            };
            match change_type {
                ChangeType::Truncate => rows.clear(),
                ChangeType::Delete => drop(rows.remove(&row)),
                _ => drop(rows.insert(row.clone())),
            }
            let values = if change_type == ChangeType::Truncate { vec![None, None] } else { row.to_vec() };
            changes.push(Change { timestamp: 0, position: LogPosition::new(0, 1, n as u64 + 1, 1, true), change_type, values, unchanged: vec![] });
        }
        let expected: String = rows.iter().map(|row| format!("{} | {}\n", row[0].as_deref().unwrap_or("NULL"), row[1].as_deref().unwrap_or("NULL"))).collect();
        run(async {
            let lake = Lake::new();
            let version = Version::new(1, &[("a", DataType::Int32), ("b", DataType::Utf8)], &[]);
            lake.write("shop/t/f.parquet", "t", &version, &changes).await;
            let answer = answer(&lake.engine(&["t"]), "select * from t order by a nulls first, b nulls first").await;
            assert_eq!(answer, format!("a | b\n{expected}"));
        });
    }
}
