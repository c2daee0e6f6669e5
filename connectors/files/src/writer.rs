//! The writer: gathers rows into files, and files into stages.
//!
//! A batch is cut where the partition folder changes and its arrays wait in the file they belong to; its right to the
//! pipeline's memory is given back at once, so that a reader never waits for rows that we hold. From then on they count
//! against the writer's own bound. Some ten thousand rows are encoded at a time; finished row groups leave memory; a file
//! that is large enough is finished early and waits, staged, for the next checkpoint.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_schema::DataType;
use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};
use logweir_core::{
    BeforeImages, ChangeBatch, Error, LogPosition, MetadataColumn, Pattern, Relation, RelationId, Result, ResultExt, Staged, Writer,
    WriterContext,
};
use rayon::prelude::*;

use crate::encode::{EncodeSettings, FileEncoder, Part, on_pool};
use crate::form::Form;
use crate::layout::{PathTemplate, Period, file_name};
use crate::options::FilesOptions;
use crate::staging::{StagedFile, Staging, Token};

/// Rows of a file that wait before they are encoded: enough that the columns are worth spreading over threads.
const STEP_ROWS: usize = 64 * 1024;

/// Bytes of a file that wait before they are encoded, where rows are wide.
const STEP_BYTES: usize = 8 * 1024 * 1024;

/// A row group at most, of encoded bytes: readers hold one in memory, and so do we.
const ROW_GROUP_BYTES: usize = 64 * 1024 * 1024;

/// Temporary files open at a time: far below the usual limit of 1,024 descriptors. Files without a finished row group
/// have none yet, so this is only met by very many large tables at once.
const OPEN_FILES_MAX: usize = 256;

/// Files finished together at a checkpoint: bounds the encoded bytes that wait to be written.
const FINISH_FILES: usize = 64;

/// Of those, how many are written or uploaded at a time.
const FINISH_IN_FLIGHT: usize = 32;

/// Rows of a batch that are taken together: the text of their positions must fit into one array.
const PART_ROWS_MAX: usize = 1 << 20;

/// Writes the files of one consumer.
pub(crate) struct FilesWriter {
    context: WriterContext,
    settings: EncodeSettings,
    template: PathTemplate,
    rotate_interval: Duration,
    rotate_bytes: u64,
    memory_bytes: usize,
    /// Bytes of a file that wait before they are encoded.
    step_bytes: usize,
    before_images: Vec<Pattern>,
    staging: Staging,
    forms: HashMap<RelationId, Arc<Form>>,
    files: HashMap<FileKey, OpenFile>,
    /// Bytes that `files` hold together, as of the last look at each.
    held_bytes: usize,
    /// How many of `files` have begun to be staged.
    begun_files: usize,
    /// Finished since the last stage.
    finished: Vec<Token>,
    /// Numbers the files of this run.
    number: u64,
}

/// Rows with the same key share a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct FileKey {
    relation: RelationId,
    period: Period,
}

/// A file that takes rows.
struct OpenFile {
    form: Arc<Form>,
    path: String,
    first: LogPosition,
    last: LogPosition,
    /// The last row's commit time, as long as rows come in the order of the log.
    in_log_order: Option<i64>,
    rows: u64,
    parts: Vec<Part>,
    waiting_rows: usize,
    waiting_bytes: usize,
    /// What this file adds to the writer's count.
    held_bytes: usize,
    /// From the first step on.
    encoder: Option<FileEncoder>,
    /// From the first bytes on.
    staged: Option<StagedFile>,
}

impl OpenFile {
    fn memory_bytes(&self) -> usize {
        self.waiting_bytes
            + self.encoder.as_ref().map_or(0, FileEncoder::memory_bytes)
            + self.staged.as_ref().map_or(0, StagedFile::memory_bytes)
    }

    fn is_step_due(&self, step_bytes: usize) -> bool {
        self.waiting_rows >= STEP_ROWS || self.waiting_bytes >= step_bytes
    }

    /// Encodes what waits. Runs on the pool.
    fn encode(&mut self, settings: &EncodeSettings) -> Result<&mut FileEncoder> {
        let encoder = match &mut self.encoder {
            Some(encoder) => encoder,
            none => none.insert(FileEncoder::new(Arc::clone(&self.form), settings, &self.parts)?),
        };
        encoder.write(&self.parts)?;
        self.parts.clear();
        (self.waiting_rows, self.waiting_bytes) = (0, 0);
        Ok(encoder)
    }

    async fn append(&mut self, staging: &Staging, bytes: Vec<u8>) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.staged.is_none() {
            self.staged = Some(staging.create(self.path.clone()).await?);
        }
        match &mut self.staged {
            Some(staged) => staged.append(bytes).await,
            None => Err(Error::internal("a file was created and is not there")),
        }
    }
}

impl FilesWriter {
    pub(crate) fn new(options: &FilesOptions, template: PathTemplate, context: WriterContext, staging: Staging) -> Self {
        // A row group under construction is the largest thing we hold; four of them fit.
        let row_group_bytes = ROW_GROUP_BYTES.min(context.memory_bytes / 4).max(1);
        let settings = EncodeSettings { stream: options.stream.clone(), compression_level: options.compression_level, row_group_bytes };
        FilesWriter {
            // The rest is for what is being encoded or finished at the moment.
            memory_bytes: context.memory_bytes / 8 * 7,
            context,
            settings,
            template,
            rotate_interval: options.rotate_interval,
            rotate_bytes: options.rotate_bytes,
            // A file ends between two steps, so a step must not be larger than a file shall be.
            before_images: options.before_images.clone(),
            step_bytes: usize::try_from(options.rotate_bytes).map_or(STEP_BYTES, |bytes| bytes.min(STEP_BYTES)),
            staging,
            forms: HashMap::new(),
            files: HashMap::new(),
            held_bytes: 0,
            begun_files: 0,
            finished: Vec::new(),
            number: 0,
        }
    }

    fn form(&mut self, relation: &Arc<Relation>) -> Result<Arc<Form>> {
        let key = relation.id();
        if let Some(form) = self.forms.get(&key) {
            return Ok(Arc::clone(form));
        }
        let form = Arc::new(Form::new(Arc::clone(relation), BeforeImages::are_kept(&self.before_images, relation))?);
        // The encoder has the last word on types; better now than in the middle of the rows.
        FileEncoder::new(Arc::clone(&form), &self.settings, &[])?;
        warn_of_wide_decimals(relation);
        self.forms.insert(key, Arc::clone(&form));
        Ok(form)
    }

    /// Puts rows `offset..offset + length` of a batch into the file of `period`.
    fn add(&mut self, form: &Arc<Form>, batch: &ChangeBatch, period: Period, offset: usize, length: usize) -> Result<FileKey> {
        let relation = &batch.relation;
        let key = FileKey { relation: relation.id(), period };
        let file = match self.files.entry(key.clone()) {
            std::collections::hash_map::Entry::Occupied(file) => file.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => {
                let first = batch.position(offset);
                let time = if period.start == i64::MIN { 0 } else { period.start };
                let folder = self.template.folder(&self.settings.stream, relation.name(), time)?;
                let name = file_name(&self.settings.stream, first, &self.context.run, self.number);
                self.number += 1;
                place.insert(OpenFile {
                    form: Arc::clone(form),
                    path: if folder.is_empty() { name } else { format!("{folder}/{name}") },
                    first,
                    last: first,
                    in_log_order: Some(i64::MIN),
                    rows: 0,
                    parts: Vec::new(),
                    waiting_rows: 0,
                    waiting_bytes: 0,
                    held_bytes: 0,
                    encoder: None,
                    staged: None,
                })
            }
        };
        file.in_log_order = file.in_log_order.and_then(|time| {
            let follows = file.rows == 0 || file.last < batch.position(offset);
            if follows { log_order(batch, offset, length, time) } else { None }
        });
        // A table that several others go into gets their changes in any order.
        file.first = file.first.min(batch.position(offset));
        file.last = file.last.max(batch.position(offset + length - 1));
        file.rows += length as u64;
        file.waiting_rows += length;
        let bytes = batch.bytes() * length / batch.rows();
        file.waiting_bytes += bytes;
        file.held_bytes += bytes;
        self.held_bytes += bytes;
        file.parts.push(Part {
            columns: batch.records.columns().iter().map(|column| column.slice(offset, length)).collect(),
            unchanged: batch.unchanged.as_ref().map(|unchanged| unchanged.slice(offset, length)),
            before: batch.before.as_ref().map(|before| before.slice(offset, length)),
            rows: length,
        });
        Ok(key)
    }

    /// Encodes what waits in a file, and moves what that finished out of memory.
    async fn encode(&mut self, key: &FileKey, close_row_group: bool) -> Result<()> {
        let Some(mut file) = self.take(key) else { return Ok(()) };
        let settings = self.settings.clone();
        let (mut file, bytes) = on_pool(move || {
            let encoder = file.encode(&settings)?;
            if close_row_group {
                encoder.close_row_group()?;
            }
            let bytes = encoder.take_bytes()?;
            Ok((file, bytes))
        })
        .await
        .context("consumer", &self.context.consumer)?;
        file.append(&self.staging, bytes).await?;
        let bytes = file.encoder.as_ref().map_or(0, FileEncoder::file_bytes);
        self.put_back(key.clone(), file);
        if bytes >= self.rotate_bytes {
            self.finish(vec![key.clone()]).await?;
        }
        Ok(())
    }

    /// Finishes files, each of them staged afterwards.
    async fn finish(&mut self, keys: Vec<FileKey>) -> Result<()> {
        let mut keys = keys.into_iter();
        loop {
            let files: Vec<OpenFile> = keys.by_ref().take(FINISH_FILES).filter_map(|key| self.take(&key)).collect();
            if files.is_empty() {
                return Ok(());
            }
            let settings = self.settings.clone();
            let encoded = on_pool(move || {
                let finish = |mut file: OpenFile| {
                    let (first, last, in_log_order) = (file.first, file.last, file.in_log_order.is_some());
                    let bytes = file.encode(&settings)?.finish(first, last, in_log_order)?;
                    file.encoder = None;
                    Ok((file, bytes))
                };
                files.into_par_iter().map(finish).collect::<Result<Vec<(OpenFile, Vec<u8>)>>>()
            })
            .await
            .context("consumer", &self.context.consumer)?;
            let staging = &self.staging;
            let tokens: Vec<Token> = stream::iter(encoded)
                .map(|(mut file, bytes)| async move {
                    file.append(staging, bytes).await?;
                    match file.staged {
                        Some(staged) => staged.finish(file.rows).await,
                        None => Err(Error::internal("a finished file has no bytes").context("path", file.path)),
                    }
                })
                .buffer_unordered(FINISH_IN_FLIGHT)
                .try_collect()
                .await?;
            self.finished.extend(tokens);
        }
    }

    /// Brings memory and open files below their bounds, the largest file first.
    async fn relieve(&mut self) -> Result<()> {
        loop {
            if self.begun_files > OPEN_FILES_MAX {
                let begun = self.files.iter().filter(|(_, file)| file.staged.is_some());
                let Some(key) = begun.max_by_key(|(_, file)| file.held_bytes).map(|(key, _)| key.clone()) else { return Ok(()) };
                self.finish(vec![key]).await?;
            } else if self.held_bytes > self.memory_bytes {
                let largest = self.files.iter().max_by_key(|(_, file)| file.held_bytes);
                let Some((key, before)) = largest.map(|(key, file)| (key.clone(), file.held_bytes)) else { return Ok(()) };
                self.encode(&key, true).await?;
                // Bytes short of a part of an upload stay in memory; then only the end of the file frees them.
                if self.files.get(&key).is_some_and(|file| file.held_bytes > before / 2) {
                    self.finish(vec![key]).await?;
                }
            } else {
                return Ok(());
            }
        }
    }

    /// Takes a file out of the count, to work on it.
    fn take(&mut self, key: &FileKey) -> Option<OpenFile> {
        let file = self.files.remove(key)?;
        self.held_bytes -= file.held_bytes;
        self.begun_files -= usize::from(file.staged.is_some());
        Some(file)
    }

    fn put_back(&mut self, key: FileKey, mut file: OpenFile) {
        file.held_bytes = file.memory_bytes();
        self.held_bytes += file.held_bytes;
        self.begun_files += usize::from(file.staged.is_some());
        self.files.insert(key, file);
    }
}

/// The commit time of the last of these rows, if they rise by position and do not fall by time, which begins at `time`.
fn log_order(batch: &ChangeBatch, offset: usize, length: usize, time: i64) -> Option<i64> {
    let timestamps = &batch.metadata(MetadataColumn::Timestamp).as_primitive::<TimestampMicrosecondType>().values()[offset..][..length];
    let positions = batch.metadata(MetadataColumn::Sequence).as_fixed_size_binary();
    let rises = timestamps.first().is_none_or(|first| time <= *first)
        && timestamps.is_sorted()
        && (offset + 1..offset + length).all(|row| positions.value(row - 1) < positions.value(row));
    if rises { timestamps.last().copied() } else { None }
}

/// Said where files are written, once for each version of a relation, and not where they are only looked at.
fn warn_of_wide_decimals(relation: &Relation) {
    for column in relation.columns() {
        if let DataType::Decimal256(39.., _) = column.field.data_type() {
            tracing::warn!(
                relation = %relation.name(),
                column = column.name(),
                "a decimal of more than 38 digits is read wrongly by DuckDB 1.5 and refused by Spark; cast it if they read these files"
            );
        }
    }
}

#[async_trait]
impl Writer for FilesWriter {
    async fn evolve(&mut self, relation: Arc<Relation>) -> Result<()> {
        self.form(&relation).map(|_| ())
    }

    async fn write(&mut self, batch: ChangeBatch) -> Result<()> {
        if batch.rows() == 0 {
            return Ok(());
        }
        let form = self.form(&batch.relation)?;
        let timestamps = batch.metadata(MetadataColumn::Timestamp).as_primitive::<TimestampMicrosecondType>().clone();
        let timestamps = timestamps.values();
        let mut keys = Vec::new();
        let mut start = 0;
        while start < timestamps.len() {
            let period = self.template.period(timestamps[start]).context("relation", batch.relation.name())?;
            // Time never falls along a log, so the whole rest mostly lies in the period; rows of a backfill are alike in this.
            let rest = &timestamps[start..];
            let length = rest.iter().position(|&time| !period.contains(time)).unwrap_or(rest.len()).min(PART_ROWS_MAX);
            keys.push(self.add(&form, &batch, period, start, length)?);
            start += length;
        }
        // Gives back the right to memory before anything is waited for.
        drop(batch);
        for key in keys {
            if self.files.get(&key).is_some_and(|file| file.is_step_due(self.step_bytes)) {
                self.encode(&key, false).await?;
            }
        }
        self.relieve().await
    }

    async fn stage(&mut self) -> Result<Vec<Staged>> {
        let keys = self.files.keys().cloned().collect();
        self.finish(keys).await?;
        if self.finished.is_empty() {
            return Ok(Vec::new());
        }
        self.staging.sync().await?;
        std::mem::take(&mut self.finished).iter().map(Token::to_staged).collect()
    }

    async fn commit(&mut self, staged: &[Staged]) -> Result<()> {
        self.staging.commit(Token::parse(staged)?).await
    }

    fn interval(&self) -> Duration {
        self.rotate_interval
    }

    async fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
