//! Batches of made-up orders: ten mixed columns, about 126 bytes as a binlog would hold them, and the metadata columns that
//! every change carries. The same rows in every run.

use std::error::Error;
use std::sync::Arc;

use arrow_array::{
    ArrayRef, Date32Array, Decimal128Array, Float64Array, Int8Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, UInt32Array,
};
use arrow_schema::Field;
use logweir_core::{ChangeType, Column, LogPosition, MetadataBuilder, Relation, RelationName, SourcePlace, TimestampMicros};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Rows of a batch, as the decoder hands them out.
const BATCH_ROWS: usize = 8192;

/// Rows of a transaction.
const TRANSACTION_ROWS: u64 = 10;

/// A small generator: the same rows in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

fn columns(rows: usize, first: u64, random: &mut Random) -> Result<Vec<(&'static str, ArrayRef)>> {
    const STATUS: [&str; 6] = ["new", "paid", "packed", "shipped", "returned", "closed"];
    let mut many = |end: u64| (0..rows).map(|_| random.below(end)).collect::<Vec<u64>>();
    let (customer, quantity, price, weight, status, day, flag, name, note) =
        (many(200_000), many(20), many(1_000_000), many(1 << 40), many(6), many(2000), many(2), many(50_000), many(1 << 50));
    let time = |i: usize| 1_790_000_000_000_000 + (first + i as u64) as i64 * 1_731;
    Ok(vec![
        ("id", Arc::new(Int64Array::from_iter_values((0..rows).map(|i| (first + i as u64) as i64)))),
        ("customer", Arc::new(UInt32Array::from_iter_values(customer.iter().map(|&v| v as u32)))),
        ("quantity", Arc::new(Int32Array::from_iter_values(quantity.iter().map(|&v| v as i32)))),
        ("price", Arc::new(Decimal128Array::from_iter_values(price.iter().map(|&v| i128::from(v))).with_precision_and_scale(12, 2)?)),
        ("weight", Arc::new(Float64Array::from_iter_values(weight.iter().map(|&v| v as f64 / 1024.0)))),
        ("status", Arc::new(StringArray::from_iter_values(status.iter().map(|&v| STATUS[v as usize])))),
        ("ordered", Arc::new(Date32Array::from_iter_values(day.iter().map(|&v| 18_000 + v as i32)))),
        ("gift", Arc::new(Int8Array::from_iter_values(flag.iter().map(|&v| v as i8)))),
        ("name", Arc::new(StringArray::from_iter_values(name.iter().map(|v| format!("customer number {v}"))))),
        ("note", Arc::new(StringArray::from_iter_values(note.iter().map(|v| format!("note {v:x} of the order"))))),
        ("changed", Arc::new(TimestampMicrosecondArray::from_iter_values((0..rows).map(time)))),
    ])
}

/// `rows` changes in batches, a third of them updates, each with its relation and the position of its last change.
pub fn batches(rows: usize) -> Result<Vec<(Arc<Relation>, RecordBatch, LogPosition)>> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut metadata = MetadataBuilder::new("mysql-cdc-binlog");
    let mut batches = Vec::new();
    let mut relation = None;
    let mut done = 0;
    while done < rows {
        let count = BATCH_ROWS.min(rows - done);
        let table = columns(count, done as u64, &mut random)?;
        let relation = relation.get_or_insert_with(|| {
            let column = |(name, array): &(&str, ArrayRef)| Column {
                field: Arc::new(Field::new(*name, array.data_type().clone(), true)),
                source_type: array.data_type().to_string(),
                detail: serde_json::Value::Null,
            };
            let columns = table.iter().map(column).collect();
            Arc::new(Relation::new(RelationName::new("shop", "orders"), 1, LogPosition::MIN, columns, vec![0]))
        });
        for i in 0..count as u64 {
            let row = done as u64 + i;
            let (transaction, ordinal) = (row / TRANSACTION_ROWS, row % TRANSACTION_ROWS);
            let place = SourcePlace {
                log_position: 4 + transaction * 1500,
                log_file: Some(metadata.intern_file("mysql-bin.000001")),
                transaction: Some(metadata.intern_transaction(&format!("0-1-{transaction}"))),
            };
            let position = LogPosition::new(0, 1, place.log_position, ordinal + 1, true);
            let change = if row.is_multiple_of(3) { ChangeType::UpdateInsert } else { ChangeType::Insert };
            let time = TimestampMicros(1_790_000_000_000_000 + transaction as i64 * 900);
            metadata.push(time, position, change, TimestampMicros(1_790_000_100_000_000 + done as i64), place);
        }
        let last = metadata.last_position().ok_or("a batch has rows")?;
        let arrays = table.into_iter().map(|(_, array)| array).chain(metadata.finish()).collect();
        batches.push((Arc::clone(relation), RecordBatch::try_new(Arc::clone(relation.schema()), arrays)?, last));
        done += count;
    }
    Ok(batches)
}
