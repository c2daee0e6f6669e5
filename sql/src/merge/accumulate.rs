//! Rows of one partition on their way: those that are newest of their key so far, and now and then only those.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Int64Type, TimestampMicrosecondType};
use datafusion::common::{DataFusionError, Result};
use datafusion::physical_plan::spill::get_record_batch_memory_size;
use logweir_core::LogPosition;
use logweir_core::merge::{KeyedChanges, LatestPerKey};

use super::exec::Form;
use crate::query::wrap;

/// Where a change stands: commit time and position.
pub(super) type Place = (i64, LogPosition);

/// Rows are thinned out when those kept have grown to this many times what they were after the last time.
const GROWTH: usize = 2;
/// Below this much it is not worth it.
const THIN_BYTES_MIN: usize = 32 << 20;

/// The places and deletes of a batch.
pub(super) struct Decisive {
    pub(super) key: Vec<ArrayRef>,
    pub(super) places: Vec<Place>,
    pub(super) deleted: Option<BooleanArray>,
}

impl Decisive {
    pub(super) fn of(batch: &RecordBatch, form: &Form) -> Result<Self> {
        let key = form.key.iter().map(|index| unpacked(batch.column(*index))).collect::<Result<_>>()?;
        let timestamps = cast(batch.column(form.timestamp), &DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None))?;
        let timestamps = timestamps.as_primitive::<TimestampMicrosecondType>().reinterpret_cast::<Int64Type>();
        let sequences = cast(batch.column(form.sequence), &DataType::Utf8)?;
        let sequences = sequences.as_string::<i32>();
        let place = |row: usize| -> Result<Place> {
            let position: LogPosition = sequences.value(row).parse().map_err(wrap)?;
            Ok((timestamps.value(row), position))
        };
        let places = (0..batch.num_rows()).map(place).collect::<Result<_>>()?;
        let deleted = batch
            .column(form.deleted)
            .as_boolean_opt()
            .ok_or_else(|| DataFusionError::Internal("whether a change deletes is no boolean".to_owned()))?;
        Ok(Decisive { key, places, deleted: (deleted.true_count() > 0).then(|| deleted.clone()) })
    }
}

/// Dictionaries and views are forms of memory: keys are compared by their values.
pub(super) fn unpacked(column: &ArrayRef) -> Result<ArrayRef> {
    Ok(match column.data_type() {
        DataType::Dictionary(_, value) => cast(column, value)?,
        DataType::Utf8View => cast(column, &DataType::Utf8)?,
        DataType::BinaryView => cast(column, &DataType::Binary)?,
        _ => ArrayRef::clone(column),
    })
}

/// The type of a key column as [`Decisive`] has it.
pub(super) fn key_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Dictionary(_, value) => key_type(value),
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        other => other.clone(),
    }
}

/// Rows that were kept of a batch, by their numbers.
struct Kept {
    numbers: Vec<u64>,
    batch: RecordBatch,
}

/// What has come of a partition.
pub(super) struct Accumulator {
    form: Form,
    latest: LatestPerKey<Place>,
    kept: Vec<Kept>,
    next: u64,
    batch_bytes: usize,
    thin_at: usize,
}

impl Accumulator {
    pub(super) fn new(form: &Form, types: &[DataType]) -> Result<Self> {
        let latest = LatestPerKey::new(types).map_err(wrap)?;
        Ok(Accumulator { form: form.clone(), latest, kept: Vec::new(), next: 0, batch_bytes: 0, thin_at: THIN_BYTES_MIN })
    }

    pub(super) fn push(&mut self, batch: RecordBatch) -> Result<()> {
        let rows = batch.num_rows() as u64;
        if rows == 0 {
            return Ok(());
        }
        let Decisive { key, places, deleted } = Decisive::of(&batch, &self.form)?;
        let deleted = deleted.as_ref().map(BooleanArray::values);
        self.latest.push(KeyedChanges { key: &key, deleted, places: &places, first_row: self.next }).map_err(wrap)?;
        self.batch_bytes += get_record_batch_memory_size(&batch);
        self.kept.push(Kept { numbers: (self.next..self.next + rows).collect(), batch });
        self.next += rows;
        if self.batch_bytes > self.thin_at {
            self.thin()?;
        }
        Ok(())
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        let numbers: usize = self.kept.iter().map(|kept| kept.numbers.capacity() * size_of::<u64>()).sum();
        self.latest.bytes() + self.batch_bytes + numbers
    }

    /// Keeps only the newest row of each key, deletes too: an older row of the key may still come.
    pub(super) fn thin(&mut self) -> Result<()> {
        let mut newest: Vec<u64> = self.latest.newest().collect();
        newest.sort_unstable();
        self.keep(&newest)?;
        self.batch_bytes = self.kept.iter().map(|kept| get_record_batch_memory_size(&kept.batch)).sum();
        self.thin_at = (self.batch_bytes * GROWTH).max(THIN_BYTES_MIN);
        Ok(())
    }

    /// Keeps the rows of these numbers, which rise.
    fn keep(&mut self, numbers: &[u64]) -> Result<()> {
        let mut wanted = numbers.iter().copied().peekable();
        let mut kept = Vec::with_capacity(self.kept.len());
        for Kept { numbers, batch } in self.kept.drain(..) {
            let mut rows: Vec<u32> = Vec::new();
            for (row, number) in numbers.iter().enumerate() {
                if wanted.next_if_eq(number).is_some() {
                    rows.push(row as u32);
                }
            }
            if rows.len() == numbers.len() {
                kept.push(Kept { numbers, batch });
            } else if !rows.is_empty() {
                let numbers = rows.iter().map(|row| numbers[*row as usize]).collect();
                kept.push(Kept { numbers, batch: take_record_batch(&batch, &UInt32Array::from(rows))? });
            }
        }
        self.kept = kept;
        Ok(())
    }

    /// The rows that stand.
    pub(super) fn into_standing(mut self) -> Result<Vec<RecordBatch>> {
        let mut standing: Vec<u64> = self.latest.standing().collect();
        standing.sort_unstable();
        self.keep(&standing)?;
        Ok(self.kept.into_iter().map(|kept| kept.batch).collect())
    }

    /// The newest rows of each key, deletes too.
    pub(super) fn into_newest(mut self) -> Result<Vec<RecordBatch>> {
        self.thin()?;
        Ok(self.kept.into_iter().map(|kept| kept.batch).collect())
    }
}
