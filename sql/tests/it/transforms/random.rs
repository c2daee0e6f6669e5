//! Random workloads under random conditions: filtering the changes and merging them gives what merging them and filtering the table
//! gives.
//!
//! The changes are those that PostgreSQL and MySQL would log under their settings: with whole before images, with the key alone, with
//! none; values that did not change are left out. Beside the log, the table is read: rows as they are at some later time, at the
//! place in the log where the reading began. It may be altered once without a change of rows in the log, and is read again then.
//! Batches are cut anywhere, and the transform is made anew twice and sees changes again.
//!
//! Where a value is nowhere to be had, or cannot be computed, a change is set aside rather than wrong: then the row may be missing, and is never
//! another one. With whole before images values are always to be had.

use std::cell::Cell as Counter;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::prelude::SessionContext;
use logweir_core::{ChangeType, LogPosition, Relation, Transform};
use logweir_sql::{BadValue, SqlContext, SqlTransform};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::changes::{Cell, Change, LEFT_OUT, batch, table, unbatched};
use super::{rule, transform};

const COLUMNS: usize = 4;
/// id, a, b, and c, which may be stored apart.
type Row = [Cell; COLUMNS];

/// What the log holds of a row before a change, and what it leaves out of the row after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Images {
    /// REPLICA IDENTITY DEFAULT: nothing before, `c` may be left out.
    None,
    /// The same with the key where it changes.
    Key,
    /// binlog_row_image=MINIMAL: the key before, and of the row after it what changed.
    Minimal,
    /// binlog_row_image=NOBLOB: all but `c` before, and `c` where it changed.
    WithoutLarge,
    /// REPLICA IDENTITY FULL: everything before; `c` may be left out of the row after it.
    Whole,
}

#[derive(Debug, Clone)]
enum Step {
    Insert(i32, [Cell; 3]),
    /// The new values of those columns that are set in the mask, and perhaps a new key.
    Update(i32, Option<i32>, [Cell; 3], u8),
    Delete(i32),
    Truncate,
    /// The next change has a later timestamp.
    Tick,
    /// Every `a` is another from here on, and the log says nothing of it.
    Alter,
}

#[derive(Clone)]
struct Workload {
    steps: Vec<Step>,
    images: Images,
    keyed: bool,
    /// Steps before the log was opened, where the reading began, where its snapshot was; as parts of a thousand.
    opened: u16,
    low: u16,
    snapshot: u16,
    read_again_snapshot: u16,
    /// Whether the next batch is cut here.
    cuts: Vec<bool>,
    /// Two places where the transform is made anew, and how far back it begins again.
    restarts: [(u16, u8); 2],
    /// Which values that may be left out are.
    left_out: u64,
}

impl std::fmt::Debug for Workload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Workload { steps, images, keyed, opened, low, snapshot, read_again_snapshot, cuts, restarts, left_out } = self;
        let text = format!(
            "steps {steps:?}, {images:?}, keyed {keyed}, opened {opened}, low {low}, snapshot {snapshot}, again {read_again_snapshot}, cuts {cuts:?}, restarts {restarts:?}, left out {left_out}"
        );
        f.write_str(&text)
    }
}

fn values() -> impl Strategy<Value = [Cell; 3]> {
    let text = |of: &'static [&'static str]| {
        proptest::option::weighted(0.8, proptest::sample::select(of)).prop_map(|text| text.map(str::to_owned))
    };
    (proptest::option::weighted(0.8, 0..6_i32), text(&["", "a", "ab", "b", "zz"]), text(&["x", "xy", "ay"]))
        .prop_map(|(a, b, c)| [a.map(|a| a.to_string()), b, c])
}

fn step() -> impl Strategy<Value = Step> {
    let id = || 0..6_i32;
    prop_oneof![
        6 => (id(), values()).prop_map(|(id, values)| Step::Insert(id, values)),
        9 => (id(), proptest::option::weighted(0.25, id()), values(), 0..8_u8).prop_map(|(id, to, values, mask)| Step::Update(id, to, values, mask)),
        3 => id().prop_map(Step::Delete),
        1 => Just(Step::Truncate),
        3 => Just(Step::Tick),
        1 => Just(Step::Alter),
    ]
}

fn workload() -> impl Strategy<Value = Workload> {
    let images = prop_oneof![
        1 => Just(Images::None), 1 => Just(Images::Key), 1 => Just(Images::Minimal), 1 => Just(Images::WithoutLarge), 2 => Just(Images::Whole)
    ];
    let part = || 0..=1000_u16;
    (
        proptest::collection::vec(step(), 1..70),
        images,
        proptest::bool::weighted(0.85),
        (0..=400_u16, part(), part(), part()),
        proptest::collection::vec(proptest::bool::weighted(0.3), 1..80),
        any::<[(u16, u8); 2]>(),
        any::<u64>(),
    )
        .prop_map(|(steps, images, keyed, (opened, low, snapshot, read_again_snapshot), cuts, restarts, left_out)| Workload {
            steps,
            images,
            keyed,
            opened,
            low,
            snapshot,
            read_again_snapshot,
            cuts,
            restarts,
            left_out,
        })
}

fn condition() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        (
            prop_oneof![Just("id"), Just("a"), Just("a + id"), Just("coalesce(a, 3)"), Just("length(b)"), Just("a * 2 - 3")],
            prop_oneof![Just("="), Just("<>"), Just("<"), Just(">="), Just(">")],
            0..6_i32
        )
            .prop_map(|(left, operator, right)| format!("{left} {operator} {right}")),
        (prop_oneof![Just("a"), Just("b"), Just("c")], prop_oneof![Just("IS NULL"), Just("IS NOT NULL")])
            .prop_map(|(column, is)| format!("{column} {is}")),
        (
            prop_oneof![Just("b"), Just("c"), Just("b || c")],
            prop_oneof![Just("'a%'"), Just("'%a%'"), Just("'x_'"), Just("''")],
            any::<bool>()
        )
            .prop_map(|(text, pattern, not)| format!("{text} {}LIKE {pattern}", if not { "NOT " } else { "" })),
        (0..4_i32, 0..5_i32).prop_map(|(low, more)| format!("id BETWEEN {low} AND {}", low + more)),
        Just("a IN (1, 3, NULL)".to_owned()),
        Just("b = c".to_owned()),
        Just("CASE WHEN a > 2 THEN b = 'ab' ELSE id < 3 END".to_owned()),
        Just("true".to_owned()),
        Just("NULL".to_owned()),
    ];
    let of_key = (0..5_i32, any::<bool>()).prop_map(|(id, not)| format!("{}(id < {id})", if not { "NOT " } else { "" }));
    let any = leaf.prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} AND {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} OR {b})")),
            inner.prop_map(|a| format!("NOT ({a})")),
        ]
    });
    prop_oneof![3 => any, 1 => of_key]
}

/// What is selected, and which columns of it are the key.
const PROJECTIONS: [(&str, &[usize]); 5] = [
    ("*", &[0]),
    ("CAST(id AS VARCHAR) AS key_id, a + 1 AS a1, upper(b) AS b, c", &[0]),
    ("c AS id, id AS k, b || '-' || coalesce(c, '') AS bc, CASE WHEN a > 2 THEN 'big' ELSE b END AS size", &[1]),
    ("CAST(id AS BIGINT) AS id, length(c) AS l, a IS NULL AS n", &[0]),
    ("id, 12 / a AS share, b, c", &[0]),
];
/// The last of them, which has no value where `a` is 0.
const MAY_FAIL: usize = 4;

/// The table, and what its log and its readings hold.
struct Model<'a> {
    workload: &'a Workload,
    rows: BTreeMap<Vec<Cell>, Row>,
    log: Vec<(u32, Change)>,
    reads: Vec<(u32, Change)>,
    timestamp: i64,
    commit: u64,
    version: u32,
    logging: bool,
    /// The table is being read.
    reading: bool,
    chance: u64,
}

impl Model<'_> {
    fn key(&self, row: &Row) -> Vec<Cell> {
        if self.workload.keyed { vec![row[0].clone()] } else { row.to_vec() }
    }

    fn coin(&mut self) -> bool {
        self.chance = self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.chance >> 63 == 1
    }

    fn push(&mut self, change_type: ChangeType, values: Vec<Cell>, before: Option<Vec<Cell>>) {
        if self.logging {
            let position = LogPosition::new(0, 1, self.commit, 1, change_type != ChangeType::UpdateDelete);
            self.log.push((self.version, Change { change_type, position, timestamp: self.timestamp, values, before }));
        }
    }

    /// A row as the log has it that was: of a delete, or before an update.
    fn old(&self, row: &Row) -> Vec<Cell> {
        let left_out = |column: usize| {
            self.workload.keyed
                && match self.workload.images {
                    Images::None | Images::Key | Images::Minimal => column > 0,
                    Images::WithoutLarge => column == 3,
                    Images::Whole => false,
                }
        };
        row.iter().enumerate().map(|(column, value)| if left_out(column) { Some(LEFT_OUT.to_owned()) } else { value.clone() }).collect()
    }

    fn update(&mut self, old: &Row, new: &Row) {
        let images = self.workload.images;
        let rekeyed = self.key(old) != self.key(new);
        let values = (0..COLUMNS)
            .map(|column| {
                let may_be_left_out = match images {
                    Images::Minimal => column > 0,
                    _ => column == 3,
                };
                // While the table is read, the row that a key change takes its values along from may be a later one of that key.
                let left_out = self.workload.keyed
                    && !(rekeyed && self.reading)
                    && may_be_left_out
                    && old[column] == new[column]
                    && (images == Images::Minimal || self.coin());
                if left_out { Some(LEFT_OUT.to_owned()) } else { new[column].clone() }
            })
            .collect();
        if rekeyed {
            self.push(ChangeType::UpdateDelete, self.old(old), None);
        }
        let before = match images {
            Images::None => None,
            Images::Key => rekeyed.then(|| self.old(old)),
            Images::Minimal | Images::WithoutLarge | Images::Whole => Some(self.old(old)),
        };
        self.push(ChangeType::UpdateInsert, values, before);
    }

    fn apply(&mut self, step: &Step) {
        self.commit += 1;
        let row = |id: i32, values: &[Cell; 3]| -> Row { [Some(id.to_string()), values[0].clone(), values[1].clone(), values[2].clone()] };
        let found = |model: &Self, id: i32| {
            let id = Some(id.to_string());
            model.rows.values().find(|row| row[0] == id).cloned()
        };
        match step {
            Step::Insert(id, values) => {
                let row = row(*id, values);
                if !self.rows.contains_key(&self.key(&row)) {
                    self.rows.insert(self.key(&row), row.clone());
                    self.push(ChangeType::Insert, row.to_vec(), None);
                }
            }
            Step::Update(id, to, values, mask) => {
                let Some(old) = found(self, *id) else { return };
                let given = row(to.unwrap_or(*id), values);
                let new: Row = std::array::from_fn(|column| {
                    if column > 0 && mask & 1 << (column - 1) == 0 { old[column].clone() } else { given[column].clone() }
                });
                if self.key(&new) != self.key(&old) && self.rows.contains_key(&self.key(&new)) {
                    return;
                }
                self.rows.remove(&self.key(&old));
                self.rows.insert(self.key(&new), new.clone());
                self.update(&old, &new);
            }
            Step::Delete(id) => {
                if let Some(old) = found(self, *id) {
                    self.rows.remove(&self.key(&old));
                    let values = self.old(&old);
                    self.push(ChangeType::Delete, values, None);
                }
            }
            Step::Truncate => {
                self.rows.clear();
                self.push(ChangeType::Truncate, Vec::new(), None);
            }
            Step::Tick => self.timestamp += 1,
            // Without a key there is no reading again.
            Step::Alter if self.logging && self.workload.keyed && self.version == 1 => {
                self.version = 2;
                for row in self.rows.values_mut() {
                    row[1] = row[1].as_ref().map(|a| (5 - a.parse::<i32>().unwrap()).to_string());
                }
            }
            Step::Alter => {}
        }
    }

    /// The table is read now, from a place in the log.
    fn read(&mut self, (timestamp, commit): (i64, u64), version: u32) {
        // Behind what stands at that place.
        let position = LogPosition::new(0, 1, commit, 9, true);
        for row in self.rows.values() {
            let change = Change { change_type: ChangeType::Read, position, timestamp, values: row.to_vec(), before: None };
            self.reads.push((version, change));
        }
    }

    fn run(workload: &Workload) -> Model<'_> {
        let mut model = Model {
            workload,
            rows: BTreeMap::new(),
            log: Vec::new(),
            reads: Vec::new(),
            timestamp: 1,
            commit: 0,
            version: 1,
            logging: false,
            reading: false,
            chance: workload.left_out,
        };
        let steps = &workload.steps;
        let between = |low: usize, part: u16| low + (steps.len() - low) * usize::from(part) / 1000;
        let opened = between(0, workload.opened);
        let low = between(opened, workload.low);
        let snapshot = if workload.keyed { between(low, workload.snapshot) } else { low };
        let mut place = (0, 0);
        let mut read_again = None;
        for number in 0..=steps.len() {
            model.logging = number >= opened;
            if number == low {
                place = (model.timestamp, model.commit);
            }
            if number == snapshot {
                let version = model.version;
                model.read(place, version);
            }
            if let Some((place, at)) = read_again
                && number == at
            {
                model.read(place, 2);
            }
            model.reading = (low..snapshot).contains(&number) || read_again.is_some_and(|(_, at)| number < at);
            if let Some(step) = steps.get(number) {
                model.apply(step);
                if model.version == 2 && read_again.is_none() {
                    read_again = Some(((model.timestamp, model.commit), between(number + 1, workload.read_again_snapshot)));
                }
            }
        }
        model
    }
}

/// The state that changes add up to: by key the row, whose values are `~` where nobody has them.
fn merged(changes: &[Change], key: &[usize]) -> BTreeMap<Vec<Cell>, Vec<Cell>> {
    let mut order: Vec<&Change> = changes.iter().collect();
    order.sort_by_key(|change| (change.timestamp, change.position));
    let of = |change: &Change| -> Vec<Cell> { key.iter().map(|index| change.values[*index].clone()).collect() };
    order.dedup_by(|second, first| {
        let same = second.position == first.position
            && second.timestamp == first.timestamp
            && (second.change_type == ChangeType::Truncate || first.change_type == ChangeType::Truncate || of(second) == of(first));
        if same && first.change_type != ChangeType::Read && second.change_type != ChangeType::Read {
            assert_eq!(second, first, "a change that comes again is the same");
        }
        same
    });
    let mut state: BTreeMap<Vec<Cell>, Vec<Cell>> = BTreeMap::new();
    let mut rekeyed: Option<(u64, Vec<Cell>)> = None;
    for change in order {
        match change.change_type {
            ChangeType::Truncate => state.clear(),
            ChangeType::Delete => drop(state.remove(&of(change))),
            ChangeType::UpdateDelete => rekeyed = state.remove(&of(change)).map(|row| (change.position.commit(), row)),
            ChangeType::Insert | ChangeType::UpdateInsert | ChangeType::Read => {
                let earlier = match rekeyed.take() {
                    Some((commit, row)) if commit == change.position.commit() && change.change_type == ChangeType::UpdateInsert => {
                        Some(row)
                    }
                    _ if change.change_type == ChangeType::UpdateInsert => state.get(&of(change)).cloned(),
                    _ => None,
                };
                // An update of a row that there is not changes nothing.
                let left_out = change.values.iter().any(|value| value.as_deref() == Some(LEFT_OUT));
                if earlier.is_none() && left_out && change.change_type == ChangeType::UpdateInsert {
                    continue;
                }
                let resolve = |(index, value): (usize, &Cell)| match value.as_deref() {
                    Some(LEFT_OUT) => earlier.as_ref().map_or_else(|| value.clone(), |row| row[index].clone()),
                    _ => value.clone(),
                };
                let row = change.values.iter().enumerate().map(resolve).collect();
                state.insert(of(change), row);
            }
        }
    }
    state
}

/// What SQL says over the rows; `None` if it cannot compute something.
fn selected(relation: &Arc<Relation>, rows: Vec<Vec<Cell>>, sql: &str) -> Option<Vec<Vec<Cell>>> {
    let as_changes: Vec<Change> = rows
        .into_iter()
        .map(|values| Change { change_type: ChangeType::Insert, position: LogPosition::MIN, timestamp: 0, values, before: None })
        .collect();
    if as_changes.is_empty() {
        return Some(Vec::new());
    }
    let columns: Vec<usize> = (0..COLUMNS).collect();
    let records = batch(relation, &as_changes).records.project(&columns).unwrap();
    let run = async {
        let context = SessionContext::new();
        context.register_batch("t", records).unwrap();
        context.sql(sql).await.unwrap().collect().await.ok()
    };
    let batches = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run)?;
    let options = arrow::util::display::FormatOptions::new();
    let mut out = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let cell = |column: &arrow::array::ArrayRef| {
                let text = arrow::util::display::ArrayFormatter::try_new(column.as_ref(), &options).unwrap().value(row).to_string();
                column.is_valid(row).then_some(text)
            };
            out.push(batch.columns().iter().map(cell).collect());
        }
    }
    Some(out)
}

/// The keys of rows that may be missing: a change of them was set aside, and none that has all its values came afterwards.
fn set_aside(everything: &[Change], bad: &[Change]) -> BTreeSet<Cell> {
    let bad: BTreeSet<LogPosition> = bad.iter().map(|change| change.position).collect();
    let mut order: Vec<&Change> = everything.iter().collect();
    order.sort_by_key(|change| (change.timestamp, change.position));
    let mut aside: BTreeSet<Cell> = BTreeSet::new();
    let mut moved = None;
    for change in order {
        let id = change.values.first().cloned().unwrap_or_default();
        let follows = moved.take() == Some(change.position.commit());
        let whole = change.values.iter().all(|value| value.as_deref() != Some(LEFT_OUT));
        match change.change_type {
            ChangeType::UpdateDelete => moved = aside.remove(&id).then(|| change.position.commit()),
            ChangeType::Delete => drop(aside.remove(&id)),
            ChangeType::Truncate => aside.clear(),
            _ if bad.contains(&change.position) || (follows && !whole) => drop(aside.insert(id)),
            _ if whole => drop(aside.remove(&id)),
            _ => {}
        }
    }
    aside
}

/// Applies changes in batches that are cut as the workload says, never between the halves of a key change, and some of them twice.
fn transformed(
    workload: &Workload,
    relations: &[Arc<Relation>; 2],
    made: &dyn Fn() -> SqlTransform,
    model: &Model<'_>,
) -> (Vec<Change>, Vec<Change>) {
    let mut cuts = workload.cuts.iter().cycle();
    let (mut out, mut bad) = (Vec::new(), Vec::new());
    let mut run = |transform: &SqlTransform, changes: &[(u32, Change)]| {
        let mut start = 0;
        while start < changes.len() {
            let mut end = start + 1;
            while end < changes.len()
                && changes[end].0 == changes[start].0
                && changes[end].1.position >= changes[end - 1].1.position
                && (!cuts.next().unwrap() || changes[end - 1].1.change_type == ChangeType::UpdateDelete)
            {
                end += 1;
            }
            let part: Vec<Change> = changes[start..end].iter().map(|(_, change)| change.clone()).collect();
            let relation = &relations[changes[start].0 as usize - 1];
            for batch in transform.apply(batch(relation, &part)).unwrap() {
                if batch.relation.name().schema == "logweir" {
                    let positions: BTreeSet<LogPosition> = (0..batch.rows()).map(|row| batch.position(row)).collect();
                    bad.extend(part.iter().filter(|change| positions.contains(&change.position)).cloned());
                } else {
                    out.extend(unbatched(&batch));
                }
            }
            start = end;
        }
    };
    let mut transform = made();
    run(&transform, &model.reads);
    let mut from = 0;
    let mut restarts = workload.restarts.map(|(at, back)| (usize::from(at) % (model.log.len() + 1), usize::from(back % 8)));
    restarts.sort_unstable();
    for (at, back) in restarts {
        if at > from {
            run(&transform, &model.log[from..at]);
        }
        from = at.saturating_sub(back);
        // A mark stands between transactions.
        while from > 0 && from < model.log.len() && model.log[from - 1].1.change_type == ChangeType::UpdateDelete {
            from -= 1;
        }
        transform = made();
    }
    run(&transform, &model.log[from..]);
    (out, bad)
}

/// Checks one workload; returns how many changes were set aside.
fn check(workload: &Workload, condition: &str, projection: usize) -> Result<(usize, usize), TestCaseError> {
    use DataType::*;
    let model = Model::run(workload);
    let columns = [("id", Int32), ("a", Int32), ("b", Utf8), ("c", Utf8)];
    let key: &[&str] = if workload.keyed { &["id"] } else { &[] };
    let relations = [1, 2].map(|version| table("shop.t", version, &columns, key));
    let (list, target_key) = if workload.keyed { PROJECTIONS[projection] } else { ("*", [0, 1, 2, 3].as_slice()) };
    let sql = format!("SELECT {list} FROM t WHERE {condition}");

    // What the log and the readings say is what the table is: else the test itself is wrong.
    let source_key: Vec<usize> = if workload.keyed { vec![0] } else { (0..COLUMNS).collect() };
    let everything: Vec<Change> = model.log.iter().chain(&model.reads).map(|(_, change)| change.clone()).collect();
    let rows: Vec<Vec<Cell>> = model.rows.values().map(|row| row.to_vec()).collect();
    let landed: Vec<Vec<Cell>> = merged(&everything, &source_key).into_values().collect();
    assert_eq!(landed, rows, "unfiltered");

    let made = || {
        let context = SqlContext { bad_value: BadValue::Quarantine, ..SqlContext::default() };
        let mut transform = transform(vec![rule(&sql)], context);
        for relation in &relations {
            transform.output(relation).unwrap();
        }
        transform
    };
    let (out, bad) = transformed(workload, &relations, &made, &model);
    if (workload.images == Images::Whole && projection != MAY_FAIL) || !workload.keyed {
        prop_assert!(bad.is_empty(), "with whole before images everything is known: {:?}", bad);
    }

    let aside = set_aside(&everything, &bad);
    let expected: BTreeSet<Vec<Cell>> = match workload.keyed && projection == MAY_FAIL {
        true => rows.into_iter().filter_map(|row| selected(&relations[0], vec![row], &sql)).flatten().collect(),
        false => selected(&relations[0], rows, &sql).unwrap().into_iter().collect(),
    };
    let found: BTreeSet<Vec<Cell>> = merged(&out, target_key).into_values().collect();
    let may_miss = |row: &[Cell]| workload.keyed && aside.contains(&row[target_key[0]]);
    // Those that are there are right, also where a change was set aside.
    if !found.is_subset(&expected) || expected.difference(&found).any(|row| !may_miss(row)) {
        let log: Vec<String> = everything.iter().map(|change| format!("{change:?}")).collect();
        let out: Vec<String> = out.iter().map(|change| format!("{change:?}")).collect();
        return Err(TestCaseError::fail(format!(
            "{sql}\nexpected {expected:?}\nfound    {found:?}\nlog\n{}\nout\n{}",
            log.join("\n"),
            out.join("\n")
        )));
    }
    Ok((bad.len(), everything.len()))
}

#[test]
fn filtering_changes_and_merging_them_is_merging_them_and_filtering_the_table() {
    let (aside, changes) = (Counter::new(0), Counter::new(0));
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(200);
    let mut runner = TestRunner::new(Config { cases, source_file: Some(file!()), ..Config::default() });
    let outcome = runner.run(&(workload(), condition(), 0..PROJECTIONS.len()), |(workload, condition, projection)| {
        let (bad, all) = check(&workload, &condition, projection)?;
        aside.set(aside.get() + bad);
        changes.set(changes.get() + all);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    println!("{} of {} changes were set aside", aside.get(), changes.get());
}
