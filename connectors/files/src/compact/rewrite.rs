//! Copies the rows that stand into new files.

use std::collections::HashSet;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{BooleanArray, RecordBatch};
use arrow_buffer::BooleanBuffer;
use arrow_schema::Schema;
use futures::TryStreamExt;
use logweir_core::{Error, LogPosition, Result};
use parquet::arrow::arrow_reader::RowSelection;
use parquet::arrow::arrow_writer::ArrowWriter;
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;

use super::decide::{BATCH_ROWS, failed};
use super::inputs::{Input, groups};
use super::{COMPACTED, COMPACTED_THROUGH, Compaction, Contents, run_name};
use crate::encode::on_pool;
use crate::form::FormColumn;
use crate::layout::file_name;
use crate::staging::{StagedFile, Token};

/// A row group at most, of encoded bytes.
const ROW_GROUP_BYTES: usize = 64 << 20;

/// A file under construction.
struct Output {
    writer: ArrowWriter<Vec<u8>>,
    staged: StagedFile,
    first: LogPosition,
    last: LogPosition,
    rows: u64,
    /// The last row's commit time, as long as rows come in the order of the log.
    in_log_order: Option<i64>,
}

/// What is written, so far.
struct Run {
    name: String,
    number: u64,
    /// Up to which commit time only what stands is left.
    compacted: i64,
    /// And up to which position.
    through: LogPosition,
    tokens: Vec<Token>,
    contents: Contents,
}

impl Compaction {
    /// The files that are worth it: with rows that do not stand, or so small that several become one.
    pub(super) fn worth_it(&self, inputs: &[Input], kept: &[BooleanBuffer]) -> Vec<Vec<usize>> {
        let gains = |group: &Vec<usize>| {
            let bytes: u64 = group.iter().map(|index| inputs[*index].size).sum();
            let whole = group.iter().all(|index| kept[*index].count_set_bits() == inputs[*index].rows);
            !whole || bytes.div_ceil(self.options.rotate_bytes) < group.len() as u64
        };
        groups(inputs).into_iter().filter(gains).collect()
    }

    /// Writes the rows of `groups` that are set in `kept` into new files, and makes these visible.
    pub(super) async fn rewrite(&self, inputs: &[Input], groups: &[Vec<usize>], kept: &[BooleanBuffer]) -> Result<Contents> {
        let compacted = inputs.iter().map(|input| input.times.1.max(input.compacted.unwrap_or(i64::MIN))).max().unwrap_or(i64::MIN);
        let through = inputs.iter().map(|input| input.through).max().unwrap_or(LogPosition::MIN);
        let mut run = Run { name: run_name(), number: 0, compacted, through, tokens: Vec::new(), contents: Contents::default() };
        for group in groups {
            let mut output = None;
            for &index in group {
                if kept[index].count_set_bits() > 0 {
                    self.copy(&inputs[index], &kept[index], &mut output, &mut run).await?;
                }
            }
            if let Some(output) = output {
                self.finish(output, &mut run).await?;
            }
        }
        for like in vanishing(inputs, groups, kept) {
            let output = self.create(like, like.last, &mut run).await?;
            self.finish(output, &mut run).await?;
        }
        // Somewhere it must be said up to when the past is not known any more.
        if run.number == 0
            && let Some(newest) = groups.iter().flatten().map(|index| &inputs[*index]).max_by_key(|input| input.last)
        {
            let output = self.create(newest, newest.last, &mut run).await?;
            self.finish(output, &mut run).await?;
        }
        self.staging.sync().await?;
        self.staging.commit(std::mem::take(&mut run.tokens)).await?;
        Ok(run.contents)
    }

    async fn copy(&self, input: &Input, kept: &BooleanBuffer, output: &mut Option<Output>, run: &mut Run) -> Result<()> {
        let selection = RowSelection::from_filters(&[BooleanArray::new(kept.clone(), None)]);
        let builder = ParquetRecordBatchStreamBuilder::new_with_metadata(self.reader(input), input.metadata.clone());
        let batches = builder.with_row_selection(selection).with_batch_size(BATCH_ROWS).build();
        let mut batches = batches.map_err(|error| failed(error, &input.path))?;
        let mut rows = 0;
        while let Some(batch) = batches.try_next().await.map_err(|error| failed(error, &input.path))? {
            if batch.num_rows() == 0 {
                continue;
            }
            rows += batch.num_rows();
            let mut open = match output.take() {
                Some(open) => open,
                None => self.create(input, sequences(&batch)?[0], run).await?,
            };
            open.note(&batch)?;
            let (written, bytes) = on_pool(move || {
                let mut open = open;
                let encode = |open: &mut Output| -> Result<Vec<u8>, ParquetError> {
                    open.writer.write(&batch)?;
                    if open.writer.in_progress_size() >= ROW_GROUP_BYTES {
                        open.writer.flush()?;
                    }
                    Ok(std::mem::take(open.writer.inner_mut()))
                };
                let bytes = encode(&mut open);
                Ok((open, bytes))
            })
            .await?;
            let mut open = written;
            let bytes = bytes.map_err(|error| failed(error, &input.path))?;
            if !bytes.is_empty() {
                run.contents.bytes += bytes.len() as u64;
                open.staged.append(bytes).await?;
            }
            if (open.writer.bytes_written() + open.writer.in_progress_size()) as u64 >= self.options.rotate_bytes {
                self.finish(open, run).await?;
            } else {
                *output = Some(open);
            }
        }
        if rows != kept.count_set_bits() {
            return Err(Error::corrupt("a file has other rows than a moment ago").context("file", &input.path));
        }
        Ok(())
    }

    /// A file for rows of the kind of `like`.
    async fn create(&self, like: &Input, first: LogPosition, run: &mut Run) -> Result<Output> {
        let name = file_name(&self.options.stream, first, &run.name, run.number);
        run.number += 1;
        let path = if like.folder.is_empty() { name } else { format!("{}/{name}", like.folder) };
        let properties = properties(like, self.options.compression_level).map_err(|error| failed(error, &like.path))?;
        let schema = Arc::new(Schema::new(like.schema().fields().clone()));
        let writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties));
        let mut writer = writer.map_err(|error| failed(error, &like.path))?;
        let own = ("logweir.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        for (name, value) in like.pairs.clone().into_iter().chain([own]) {
            writer.append_key_value_metadata(KeyValue::new(name, value));
        }
        let staged = self.staging.create(path).await?;
        Ok(Output { writer, staged, first, last: first, rows: 0, in_log_order: Some(i64::MIN) })
    }

    async fn finish(&self, output: Output, run: &mut Run) -> Result<()> {
        let Output { mut writer, mut staged, first, last, rows, in_log_order } = output;
        let in_log_order = in_log_order.is_some().to_string();
        for (name, value) in [
            ("logweir.first", first.to_string()),
            ("logweir.last", last.to_string()),
            ("logweir.in_log_order", in_log_order),
            (COMPACTED, run.compacted.to_string()),
            (COMPACTED_THROUGH, run.through.to_string()),
        ] {
            writer.append_key_value_metadata(KeyValue::new(name.to_owned(), value));
        }
        let bytes = on_pool(move || writer.into_inner().map_err(|_| Error::internal("a compacted file could not be finished"))).await?;
        run.contents.bytes += bytes.len() as u64;
        run.contents.files += 1;
        run.contents.rows += rows;
        staged.append(bytes).await?;
        run.tokens.push(staged.finish(rows).await?);
        Ok(())
    }
}

impl Output {
    /// Takes note of rows that are about to be written.
    fn note(&mut self, batch: &RecordBatch) -> Result<()> {
        let positions = sequences(batch)?;
        let times =
            batch.column_by_name(FormColumn::Timestamp.name()).and_then(|times| times.as_primitive_opt::<TimestampMicrosecondType>());
        let times = times.ok_or_else(|| Error::corrupt("a file has commit times of another type than logweir writes"))?.values();
        let follows = self.rows == 0 || positions.first().is_some_and(|first| self.last < *first);
        let rises = follows && positions.windows(2).all(|pair| pair[0] < pair[1]) && times.is_sorted();
        let in_order = |time: &i64| rises && times.first().is_some_and(|first| time <= first);
        self.in_log_order = self.in_log_order.filter(in_order).and(times.last().copied());
        self.first = positions.iter().copied().fold(self.first, LogPosition::min);
        self.last = positions.iter().copied().fold(self.last, LogPosition::max);
        self.rows += batch.num_rows() as u64;
        Ok(())
    }
}

/// Of each version of the table that no row is left of, the newest file: one without rows takes its place. What a version lacks says that a
/// column which came back is another one; and where no row is left at all, it says what was compacted.
fn vanishing<'a>(inputs: &'a [Input], groups: &[Vec<usize>], kept: &[BooleanBuffer]) -> Vec<&'a Input> {
    let replaced: HashSet<usize> = groups.iter().flatten().copied().collect();
    let stays = |index: usize| !replaced.contains(&index) || kept[index].count_set_bits() > 0;
    let mut vanishing: Vec<&Input> = Vec::new();
    for (index, input) in inputs.iter().enumerate().rev().filter(|(index, _)| replaced.contains(index)) {
        let is_left = (0..inputs.len()).any(|other| other != index && inputs[other].is_version_of(input) && stays(other));
        if !stays(index) && !is_left && !vanishing.iter().any(|other| other.is_version_of(input)) {
            vanishing.push(input);
        }
    }
    vanishing
}

/// The positions of rows.
fn sequences(batch: &RecordBatch) -> Result<Vec<LogPosition>> {
    let column = batch.column_by_name(FormColumn::Sequence.name()).and_then(|column| column.as_string_opt::<i32>());
    let column = column.ok_or_else(|| Error::corrupt("a file has positions of another type than logweir writes"))?;
    column.iter().map(|text| text.unwrap_or_default().parse()).collect()
}

/// Columns are encoded as they were in `like`.
fn properties(like: &Input, level: i32) -> Result<WriterProperties, ParquetError> {
    let mut builder = WriterProperties::builder()
        .set_created_by(concat!("logweir version ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(level)?));
    let Some(group) = like.metadata.metadata().row_groups().first() else { return Ok(builder.build()) };
    for column in group.columns() {
        let path = column.column_path().clone();
        if column.dictionary_page_offset().is_none() {
            builder = builder.set_column_dictionary_enabled(path.clone(), false);
        }
        let delta = |encoding: &Encoding| matches!(encoding, Encoding::DELTA_BYTE_ARRAY | Encoding::DELTA_BINARY_PACKED);
        if let Some(encoding) = column.encodings().find(delta) {
            builder = builder.set_column_encoding(path, encoding);
        }
    }
    Ok(builder.build())
}
