//! Which rows stand: keys and places are read, and nothing else.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_buffer::{BooleanBuffer, BooleanBufferBuilder};
use arrow_schema::DataType;
use futures::TryStreamExt;
use logweir_core::merge::{KeyedChanges, LatestPerKey, Share};
use logweir_core::{ChangeType, Error, LogPosition, Result};
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::async_reader::{ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder};
use parquet::errors::ParquetError;

use super::Compaction;
use super::inputs::{Input, Key};
use super::reader::StoredFile;
use crate::form::FormColumn;

/// Rows read at a time.
pub(super) const BATCH_ROWS: usize = 16 * 1024;

/// What a key and its place take in memory, about.
const KEY_BYTES: usize = 96;

/// Commit time and position: what changes are ordered by.
type Place = (i64, [u8; LogPosition::LEN]);

/// The columns that decide, of rows that follow each other.
struct Rows {
    key: Vec<ArrayRef>,
    places: Vec<Place>,
    sequences: ArrayRef,
    truncates: BooleanBuffer,
    /// The log left values out of them.
    partial: BooleanBuffer,
    rekeys: bool,
}

impl Compaction {
    /// For each file, which of its rows stand; or why that cannot be told.
    pub(super) async fn decide(&self, inputs: &[Input], key: &Key) -> Result<Result<Vec<BooleanBuffer>, &'static str>> {
        let rows: usize = inputs.iter().map(|input| input.rows).sum();
        let mut depth = 0;
        while depth < Share::DEPTH_MAX && (rows >> depth).saturating_mul(KEY_BYTES) > self.memory_bytes {
            depth += 1;
        }
        let mut kept = BooleanBufferBuilder::new(rows);
        kept.append_n(rows, false);
        for share in Share::all(depth) {
            let mut merge = LatestPerKey::<Place>::of_share(&key.types, share)?;
            // Those that leave values out all stay, each once: by its position, which no two changes have.
            let mut partials = LatestPerKey::<Place>::of_share(&[DataType::Utf8], share)?;
            let mut number = 0;
            let (mut partial, mut rekeys) = (false, false);
            let mut truncate: Option<(Place, usize)> = None;
            for input in inputs {
                let mut read = 0;
                let mut batches = self.columns(input, key).await?;
                while let Some(batch) = batches.try_next().await.map_err(|error| failed(error, &input.path))? {
                    let rows = Rows::new(&batch, key)?;
                    partial |= rows.partial.count_set_bits() > 0;
                    rekeys |= rows.rekeys;
                    rows.push(&mut merge, &mut partials, number)?;
                    truncate = truncate.max(rows.last_truncate(number));
                    number += batch.num_rows();
                    read += batch.num_rows();
                }
                if read != input.rows {
                    return Err(Error::corrupt("a file has another number of rows than its footer says").context("file", &input.path));
                }
            }
            if partial && rekeys {
                // What the log left out of the row under its new key is in the row under the old one.
                return Ok(Err("its keys change, and the log leaves values out"));
            }
            merge.standing().chain(partials.standing()).for_each(|row| kept.set_bit(row as usize, true));
            // Without it rows before it would be back as long as their files are not all gone.
            if let Some((_, row)) = truncate {
                kept.set_bit(row, true);
            }
        }
        let kept = kept.finish();
        let mut from = 0;
        let of = |input: &Input| {
            from += input.rows;
            kept.slice(from - input.rows, input.rows)
        };
        Ok(Ok(inputs.iter().map(of).collect()))
    }

    async fn columns(&self, input: &Input, key: &Key) -> Result<ParquetRecordBatchStream<StoredFile>> {
        let own = [FormColumn::Timestamp, FormColumn::Sequence, FormColumn::ChangeType, FormColumn::Deleted, FormColumn::Unchanged];
        let names = || key.names.iter().map(String::as_str).chain(own.map(FormColumn::name));
        let roots = names().map(|name| {
            let place = input.schema().index_of(name);
            place.map_err(|_| {
                Error::corrupt("a file lacks a column that logweir writes").context("column", name).context("file", &input.path)
            })
        });
        let roots = roots.collect::<Result<Vec<usize>>>()?;
        let builder = ParquetRecordBatchStreamBuilder::new_with_metadata(self.reader(input), input.metadata.clone());
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
        builder.with_projection(mask).with_batch_size(BATCH_ROWS).build().map_err(|error| failed(error, &input.path))
    }
}

/// A file that cannot be read, or copied.
pub(super) fn failed(error: ParquetError, path: &Path) -> Error {
    let failure = match error {
        ParquetError::External(_) => Error::transient("could not read a file of a table"),
        _ => Error::corrupt("a file of a table is not as logweir writes it"),
    };
    failure.context("file", path).source(error)
}

impl Rows {
    fn new(batch: &RecordBatch, key: &Key) -> Result<Self> {
        let unfit = || Error::corrupt("a metadata column of a file has another type than logweir writes");
        let named = |name: &str| batch.column_by_name(name).ok_or_else(unfit);
        let own = |column: FormColumn| named(column.name());
        let keys = key.names.iter().map(|name| named(name).cloned()).collect::<Result<Vec<_>>>()?;
        let times = own(FormColumn::Timestamp)?.as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(unfit)?;
        let sequences = own(FormColumn::Sequence)?.as_string_opt::<i32>().ok_or_else(unfit)?;
        let types = own(FormColumn::ChangeType)?.as_string_opt::<i32>().ok_or_else(unfit)?;
        let deleted = own(FormColumn::Deleted)?.as_boolean_opt().ok_or_else(unfit)?;
        let unchanged = own(FormColumn::Unchanged)?;
        let rows = batch.num_rows();
        let places = (0..rows).map(|row| Ok((times.value(row), *sequences.value(row).parse::<LogPosition>()?.as_bytes())));
        let places = places.collect::<Result<Vec<Place>>>()?;
        let is = |wanted: ChangeType| BooleanBuffer::collect_bool(rows, |row| types.value(row) == wanted.name());
        let truncates = is(ChangeType::Truncate);
        let left_out = BooleanBuffer::collect_bool(rows, |row| unchanged.is_valid(row));
        let partial = &(&left_out & &!deleted.values()) & &!&truncates;
        let rekeys = is(ChangeType::UpdateDelete).count_set_bits() > 0;
        let sequences = Arc::clone(own(FormColumn::Sequence)?);
        Ok(Rows { key: keys, places, sequences, truncates, partial, rekeys })
    }

    /// Takes them into account, those that leave values out in `partials`. `number` is that of the first.
    fn push(&self, merge: &mut LatestPerKey<Place>, partials: &mut LatestPerKey<Place>, number: usize) -> Result<()> {
        for row in self.truncates.set_indices() {
            merge.truncate(self.places[row], (number + row) as u64);
        }
        let keyed = !&(&self.truncates | &self.partial);
        for (from, to) in keyed.set_slices() {
            let key: Vec<ArrayRef> = self.key.iter().map(|column| column.slice(from, to - from)).collect();
            merge.push(KeyedChanges {
                key: &key,
                // A delete is the newest change of its key like any other: files that are older go one by one, and the row may lie elsewhere.
                deleted: None,
                places: &self.places[from..to],
                first_row: (number + from) as u64,
            })?;
        }
        for (from, to) in self.partial.set_slices() {
            let (key, places) = ([self.sequences.slice(from, to - from)], &self.places[from..to]);
            partials.push(KeyedChanges { key: &key, deleted: None, places, first_row: (number + from) as u64 })?;
        }
        Ok(())
    }

    /// The newest of them that takes away all before it. `number` is that of the first.
    fn last_truncate(&self, number: usize) -> Option<(Place, usize)> {
        self.truncates.set_indices().map(|row| (self.places[row], number + row)).max()
    }
}
