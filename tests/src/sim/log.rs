//! A source's log, made from a seed: transactions over a few tables whose schemas change, and what the tables hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use arrow_schema::{DataType, Field};
use logweir_core::{
    ChangeBatch, ChangeType, Column, LogMark, LogPosition, MemoryPermit, MetadataBuilder, Relation, RelationName, SourceOffset,
    SourcePlace, TimestampMicros,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Tables of a log.
pub(super) const TABLES: usize = 3;
/// Bytes that a transaction takes in the log: positions need only rise.
const TRANSACTION_BYTES: u64 = 100;

/// A row change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// The table, by index.
    pub table: usize,
    /// The schema version that it was made under, from 1.
    pub version: u32,
    /// Where it stands.
    pub position: LogPosition,
    /// The code of its type.
    pub change_type: i8,
    /// The key.
    pub id: Option<i64>,
    /// The value.
    pub value: Option<i64>,
}

/// A transaction.
#[derive(Debug, Clone)]
pub struct Transaction {
    /// Its changes, in order; perhaps none.
    pub changes: Vec<Change>,
    /// The mark behind it.
    pub mark: LogMark,
}

/// A log and everything there is to know about it.
#[derive(Debug)]
pub struct SimLog {
    /// In order.
    pub transactions: Vec<Transaction>,
    /// Per table its versions, in order.
    pub relations: Vec<Vec<Arc<Relation>>>,
    /// Per table what it holds at the end, by key.
    pub tables: Vec<BTreeMap<i64, i64>>,
}

fn mark(place: u64, time: Option<i64>) -> LogMark {
    LogMark {
        position: LogPosition::new(0, 1, place, 0, false),
        offset: SourceOffset(serde_json::json!({ "place": place })),
        commit_time: time.map(TimestampMicros),
    }
}

fn relation(table: usize, version: u32, since: LogPosition) -> Arc<Relation> {
    let column = |name: String| Column {
        field: Arc::new(Field::new(name, DataType::Int64, true)),
        source_type: "bigint".into(),
        detail: serde_json::Value::Null,
    };
    let columns = vec![column("id".into()), column(format!("value_{version}"))];
    Arc::new(Relation::new(RelationName::new("sim", format!("t{table}")), version, since, columns, vec![0]))
}

impl SimLog {
    /// A log of `transactions` transactions.
    pub fn new(seed: u64, transactions: usize) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut log = SimLog {
            transactions: Vec::with_capacity(transactions),
            relations: (0..TABLES).map(|table| vec![relation(table, 1, LogPosition::MIN)]).collect(),
            tables: vec![BTreeMap::new(); TABLES],
        };
        for i in 0..transactions {
            let place = 4 + i as u64 * TRANSACTION_BYTES;
            if rng.random_ratio(1, 12) {
                let table = rng.random_range(0..TABLES);
                let version = log.relations[table].len() as u32 + 1;
                log.relations[table].push(relation(table, version, LogPosition::new(0, 1, place, 0, false)));
            }
            let changes = match rng.random_range(0..20) {
                0 => 0,
                1 => rng.random_range(20..60),
                _ => rng.random_range(1..6),
            };
            let mut transaction = Transaction { changes: Vec::new(), mark: mark(place + TRANSACTION_BYTES, Some(time(i))) };
            for ordinal in 1..=changes {
                log.change(&mut rng, place, ordinal, &mut transaction.changes);
            }
            log.transactions.push(transaction);
        }
        log
    }

    fn change(&mut self, rng: &mut StdRng, place: u64, ordinal: u64, changes: &mut Vec<Change>) {
        let table = rng.random_range(0..TABLES);
        let version = self.relations[table].len() as u32;
        let rows = &mut self.tables[table];
        let some_id = rows.keys().nth(rng.random_range(0..rows.len().max(1))).copied();
        let value = rng.random_range(0..1_000_000);
        let mut push = |change_type: ChangeType, id, value, second_half| {
            let position = LogPosition::new(0, 1, place, ordinal, second_half);
            changes.push(Change { table, version, position, change_type: change_type.code(), id, value });
        };
        match (rng.random_range(0..40), some_id) {
            (0, _) => {
                rows.clear();
                push(ChangeType::Truncate, None, None, true);
            }
            (1..=8, Some(id)) => {
                let old = rows.remove(&id);
                push(ChangeType::Delete, Some(id), old, true);
            }
            (9..=12, Some(id)) => {
                let new_id = rng.random_range(1_000..1_000_000);
                if rows.contains_key(&new_id) {
                    return;
                }
                let old = rows.remove(&id);
                rows.insert(new_id, value);
                push(ChangeType::UpdateDelete, Some(id), old, false);
                push(ChangeType::UpdateInsert, Some(new_id), Some(value), true);
            }
            (13..=24, Some(id)) => {
                rows.insert(id, value);
                push(ChangeType::UpdateInsert, Some(id), Some(value), true);
            }
            _ => {
                let id = rng.random_range(0..1_000);
                let change_type = if rows.insert(id, value).is_some() { ChangeType::UpdateInsert } else { ChangeType::Insert };
                push(change_type, Some(id), Some(value), true);
            }
        }
    }

    /// The mark before the first transaction.
    pub fn beginning(&self) -> LogMark {
        mark(4, None)
    }

    /// The mark behind the last transaction.
    pub fn end(&self) -> LogMark {
        self.transactions.last().map_or_else(|| self.beginning(), |transaction| transaction.mark.clone())
    }

    /// The index of the first transaction after a mark.
    pub fn after(&self, position: LogPosition) -> usize {
        self.transactions.partition_point(|transaction| transaction.mark.position <= position)
    }

    /// Every change of the first `transactions` transactions.
    pub fn changes(&self, transactions: usize) -> Vec<Change> {
        self.transactions[..transactions].iter().flat_map(|transaction| transaction.changes.clone()).collect()
    }

    /// Changes of one table at one version, as a batch.
    pub fn batch(&self, changes: &[&Change]) -> ChangeBatch {
        let first = changes[0];
        let relation = Arc::clone(&self.relations[first.table][first.version as usize - 1]);
        let mut metadata = MetadataBuilder::new("simulation");
        for change in changes {
            let place = SourcePlace { log_position: change.position.commit(), log_file: None, transaction: None };
            let change_type = ChangeType::from_code(change.change_type).expect("a change has a known type");
            let time = self.transactions[self.after(change.position)].mark.commit_time.expect("a transaction has a time");
            metadata.push(time, change.position, change_type, time, place);
        }
        let last = metadata.last_position().expect("a batch has a change");
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter(changes.iter().map(|change| change.id))),
            Arc::new(Int64Array::from_iter(changes.iter().map(|change| change.value))),
        ];
        columns.extend(metadata.finish());
        let records = RecordBatch::try_new(Arc::clone(relation.schema()), columns).expect("columns fit the relation");
        ChangeBatch { relation, records, unchanged: None, before: None, last, memory: Arc::new(MemoryPermit::uncounted()) }
    }
}

fn time(transaction: usize) -> i64 {
    1_700_000_000_000_000 + transaction as i64 * 1_000_000
}
