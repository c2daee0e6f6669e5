//! Rows that come sorted by their key: a key is decided as soon as the next one begins.

use std::collections::VecDeque;

use arrow::array::{BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{partition, take_record_batch};
use arrow::datatypes::DataType;
use arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::common::Result;

use super::accumulate::{Decisive, Place};
use super::exec::Form;

/// The newest row of the key that is under way.
struct UnderWay {
    key: OwnedRow,
    place: Place,
    deleted: bool,
    row: RecordBatch,
}

/// What has come of a sorted partition, one key deep.
pub(super) struct Sorted {
    form: Form,
    keys: RowConverter,
    under_way: Option<UnderWay>,
}

impl Sorted {
    pub(super) fn new(form: &Form, types: &[DataType]) -> Result<Self> {
        let keys = RowConverter::new(types.iter().cloned().map(SortField::new).collect())?;
        Ok(Sorted { form: form.clone(), keys, under_way: None })
    }

    /// The rows that stand of the keys that are decided now.
    pub(super) fn push(&mut self, batch: &RecordBatch) -> Result<VecDeque<RecordBatch>> {
        let mut decided = VecDeque::new();
        if batch.num_rows() == 0 {
            return Ok(decided);
        }
        let Decisive { key, places, deleted } = Decisive::of(batch, &self.form)?;
        let is_deleted = |row: usize| deleted.as_ref().is_some_and(|deleted: &BooleanArray| deleted.value(row));
        let rows = self.keys.convert_columns(&key)?;
        let mut standing: Vec<u32> = Vec::new();
        let ranges = partition(&key)?.ranges();
        let last = ranges.len() - 1;
        for (number, range) in ranges.into_iter().enumerate() {
            let newest = range.clone().max_by_key(|row| places[*row]).unwrap_or(range.start);
            let mut newer = true;
            if let Some(earlier) = self.under_way.take() {
                if earlier.key.row() == rows.row(range.start) {
                    newer = places[newest] > earlier.place;
                    if !newer {
                        self.under_way = Some(earlier);
                    }
                } else if !earlier.deleted {
                    decided.push_back(earlier.row);
                }
            }
            if !newer {
                // The key goes on with the row it had; if it ends in this batch, that row is decided with the next key.
                continue;
            }
            if number == last {
                let row = take_record_batch(batch, &UInt32Array::from(vec![newest as u32]))?;
                self.under_way =
                    Some(UnderWay { key: rows.row(range.start).owned(), place: places[newest], deleted: is_deleted(newest), row });
            } else if !is_deleted(newest) {
                standing.push(newest as u32);
            }
        }
        if !standing.is_empty() {
            decided.push_back(take_record_batch(batch, &UInt32Array::from(standing))?);
        }
        Ok(decided)
    }

    /// The last key's row, if it stands.
    pub(super) fn finish(self) -> Option<RecordBatch> {
        self.under_way.filter(|row| !row.deleted).map(|row| row.row)
    }
}
