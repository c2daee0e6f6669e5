//! What lies in a destination for a table: its files, and what their footers say.
//!
//! A file is read by its footer alone, so that a query needs no checkpoint: which relation and version, which key, how many rows,
//! and whether it can hold a truncate or an unchanged column, without which the current state is much cheaper to find.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::{cast, max, min};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Field, FieldRef, Schema, SchemaRef, TimestampMicrosecondType};
use datafusion::parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use datafusion::parquet::errors::ParquetError;
use datafusion::parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use datafusion::parquet::file::statistics::Statistics;
use futures::{StreamExt, TryStreamExt};
use logweir_core::{Error, Relation, RelationName, Result};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};
use url::Url;

use super::LandedTable;
use super::form::{BEFORE, METADATA_PREFIX, SEQUENCE, TIMESTAMP, UNCHANGED, footer, metadata_fields};
use super::state::COMPACTED_MEANWHILE;
use super::tail::{TailBatch, TailPart, TailRows, TailSpan};

/// Footers read at a time: enough to hide the latency of a bucket, few enough not to be throttled.
const FOOTER_READS_MAX: usize = 16;

/// Read from the end of a file in the hope that it holds the whole footer, which then costs one request.
const FOOTER_GUESS_BYTES: u64 = 64 * 1024;

/// A table and the footers that were read of it. Files never change, so a footer is read once.
#[derive(Debug)]
pub(super) struct Landed {
    pub(super) table: LandedTable,
    footers: Arc<Footers>,
    cache: Option<FooterCache>,
}

/// By path.
#[derive(Debug, Default)]
struct Footers(Mutex<Arc<HashMap<Path, Footer>>>);

/// What the footer of a file says.
#[derive(Debug, Clone)]
struct Footer {
    /// By which the file is known again.
    meta: ObjectMeta,
    /// `None` for a file that is not this table's.
    file: Option<Arc<DataFile>>,
}

impl Footers {
    fn get(&self) -> Arc<HashMap<Path, Footer>> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces them. Returns how many there were.
    fn set(&self, footers: HashMap<Path, Footer>) -> usize {
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), Arc::new(footers)).len()
    }
}

/// What footers say, kept from one engine to the next. Cheap to clone; bounded.
#[derive(Debug, Clone, Default)]
pub struct FooterCache(Arc<Mutex<Cached>>);

#[derive(Debug, Default)]
struct Cached {
    /// By where the table lies: the store and the folder, the stream and the table.
    tables: HashMap<(Url, Path, String, RelationName), Arc<Footers>>,
    /// Of all of them, about.
    files: usize,
}

/// Files of which footers are kept; a footer takes some hundred bytes.
const CACHED_FILES_MAX: usize = 100_000;

impl FooterCache {
    fn of(&self, table: &LandedTable) -> Arc<Footers> {
        let key = (table.store_url.clone(), table.prefix.clone(), table.stream.clone(), table.name.clone());
        Arc::clone(self.cached().tables.entry(key).or_default())
    }

    /// So many files are known that were not, and so many are not that were.
    fn count(&self, more: usize, fewer: usize) {
        let mut cached = self.cached();
        cached.files = (cached.files + more).saturating_sub(fewer);
        if cached.files > CACHED_FILES_MAX {
            *cached = Cached::default();
        }
    }

    fn cached(&self) -> MutexGuard<'_, Cached> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file of a table.
#[derive(Debug)]
pub(super) struct DataFile {
    pub(super) meta: ObjectMeta,
    origin: Option<RelationName>,
    version: u32,
    /// The columns, dictionaries unpacked.
    schema: SchemaRef,
    key: Vec<String>,
    rows: u64,
    /// The positions of its first and its last change, as text.
    first: String,
    last: String,
    /// Where in the log it lies, if its rows are in the order of the log.
    span: Option<Span>,
    /// The least and the greatest key, if that is one integer.
    keys: Option<(i128, i128)>,
    /// False if it holds no truncate, or no unchanged value, for sure.
    truncates: bool,
    unchanged: bool,
    /// Up to this commit time it holds only what stands.
    compacted: Option<i64>,
    /// And up to this position, as text.
    compacted_through: Option<String>,
}

impl DataFile {
    /// True if it may lack changes that stood at a place: it was made of files that go on behind it.
    fn was_compacted_behind(&self, place: &str) -> bool {
        match &self.compacted_through {
            Some(through) => through.as_str() > place,
            None => self.compacted.is_some() && self.first.as_str() <= place && self.last.as_str() > place,
        }
    }
}

/// Timestamp and position of the first and the last row.
#[derive(Debug)]
struct Span {
    first: (i64, String),
    last: (i64, String),
}

/// The files of a table, and what is in flight behind them, in the order of the log.
#[derive(Debug)]
pub(super) struct LogOrder<'a> {
    /// The number of the group and the file, newest first.
    pub(super) files: Vec<(usize, &'a DataFile)>,
    /// The number of the group and that of the batch in it, newest first.
    pub(super) in_flight: Vec<(usize, usize)>,
    /// The least and the greatest key in them, if that is one integer.
    pub(super) keys: Option<(i128, i128)>,
}

/// Files with the same columns and key, of one table of the source.
#[derive(Debug)]
pub(super) struct FileGroup {
    /// The table in the source, where it has another name.
    pub(super) origin: Option<RelationName>,
    pub(super) version: u32,
    /// The columns in the files, dictionaries unpacked.
    pub(super) schema: SchemaRef,
    /// The names of the declared key's columns; empty if there is none.
    pub(super) key: Vec<String>,
    pub(super) files: Vec<Arc<DataFile>>,
    /// What is not in files yet, in the order of the log: behind everything that is.
    pub(super) tail: Vec<RecordBatch>,
    /// And what of that is too much to be held.
    pub(super) parts: Vec<TailPart>,
    /// The position of the last change in it, as text.
    tail_last: String,
    /// True if a file or the tail may hold a truncate.
    pub(super) truncates: bool,
    /// True if a file or the tail may hold an unchanged value.
    pub(super) unchanged: bool,
}

/// What lies there at one moment.
#[derive(Debug)]
pub(super) struct Inventory {
    /// Oldest first. Never empty; the newest may have no files if the relation is known otherwise.
    pub(super) groups: Vec<FileGroup>,
}

impl Landed {
    pub(super) fn new(table: LandedTable) -> Self {
        Landed { table, footers: Arc::default(), cache: None }
    }

    /// The same with footers that others have read.
    pub(super) fn sharing(&self, cache: &FooterCache) -> Self {
        Landed { table: self.table.clone(), footers: cache.of(&self.table), cache: Some(cache.clone()) }
    }

    /// Lists the files and reads the footers not read before. `None` if nothing is known of the table. With a tail, files behind its
    /// beginning are left out: it has what is in them.
    pub(super) async fn inventory(&self, tail: Option<(TailSpan, TailRows)>) -> Result<Option<Inventory>> {
        let listed: Vec<ObjectMeta> = self
            .table
            .store
            .list(Some(&self.table.prefix))
            .try_filter(|meta| std::future::ready(is_data(&self.table.prefix, &meta.location)))
            .try_collect()
            .await
            .map_err(|error| self.failed("could not list the files of a table", error))?;
        let known = self.footers.get();
        let mut read: Vec<Footer> = futures::stream::iter(listed)
            .map(|meta| {
                let known = known.get(&meta.location).filter(|footer| footer.meta == meta).cloned();
                async move {
                    match known {
                        Some(footer) => Ok(footer),
                        None => Ok(Footer { file: self.read_footer(meta.clone()).await?.map(Arc::new), meta }),
                    }
                }
            })
            .buffer_unordered(FOOTER_READS_MAX)
            .try_collect()
            .await?;
        share_schemas(&mut read);
        let mut files: Vec<Arc<DataFile>> = read.iter().filter_map(|footer| footer.file.clone()).collect();
        // Only what is there now: files that compaction took away are forgotten.
        let more = read.len();
        let fewer = self.footers.set(read.into_iter().map(|footer| (footer.meta.location.clone(), footer)).collect());
        if let Some(cache) = &self.cache {
            cache.count(more, fewer);
        }
        let mut in_flight = TailRows::Held(Vec::new());
        if let Some((span, tail)) = tail {
            let after = span.after.to_string();
            // The query began before the compaction ended: beginning anew it is at a later place.
            if files.iter().any(|file| file.was_compacted_behind(&after)) {
                return Err(Error::transient(COMPACTED_MEANWHILE).context("table", &self.table.name).remedy("ask again"));
            }
            files.retain(|file| file.last <= after);
            in_flight = tail;
        }
        let expected = self.table.relation.as_ref().map(|relation| (relation, self.table.before_images));
        Ok(Inventory::new(files, in_flight, expected))
    }

    /// A file of this table and stream, or `None` if it belongs to others.
    async fn read_footer(&self, meta: ObjectMeta) -> Result<Option<DataFile>> {
        let parquet = self.read_parquet_metadata(&meta).await.map_err(|error| error.context("file", &meta.location))?;
        let arrow = ArrowReaderMetadata::try_new(Arc::new(parquet), ArrowReaderOptions::new())
            .map_err(|error| Error::corrupt("a file's schema cannot be read").context("file", &meta.location).source(error))?;
        let file = DataFile::new(meta, arrow.metadata(), arrow.schema(), &self.table)?;
        Ok(file)
    }

    async fn read_parquet_metadata(&self, meta: &ObjectMeta) -> Result<ParquetMetaData> {
        let mut tail_bytes = FOOTER_GUESS_BYTES.min(meta.size);
        loop {
            let tail = self.table.store.get_range(&meta.location, meta.size - tail_bytes..meta.size).await;
            let tail = tail.map_err(|error| self.failed("could not read a file's footer", error))?;
            let mut reader = ParquetMetaDataReader::new();
            match reader.try_parse_sized(&tail, meta.size).and_then(|()| reader.finish()) {
                Ok(metadata) => return Ok(metadata),
                Err(ParquetError::NeedMoreData(needed)) if needed as u64 > tail_bytes && needed as u64 <= meta.size => {
                    tail_bytes = needed as u64;
                }
                Err(error) => return Err(Error::corrupt("a file is not whole Parquet").source(error)),
            }
        }
    }

    fn failed(&self, message: &'static str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::transient(message).context("table", &self.table.name).context("destination", &self.table.store_url).source(error)
    }
}

/// Has files with equal columns hold them once.
fn share_schemas(read: &mut [Footer]) {
    let mut schemas: Vec<SchemaRef> = Vec::new();
    for file in read.iter_mut().filter_map(|footer| footer.file.as_mut()) {
        match schemas.iter().find(|schema| Arc::ptr_eq(schema, &file.schema) || **schema == file.schema) {
            // One that was known before is held by others, too, and keeps its own.
            Some(schema) => {
                if let Some(file) = Arc::get_mut(file) {
                    file.schema = Arc::clone(schema);
                }
            }
            None => schemas.push(Arc::clone(&file.schema)),
        }
    }
}

/// True for what a reader of a lake takes for data: neither the file nor a folder on the way is hidden.
fn is_data(prefix: &Path, location: &Path) -> bool {
    let Some(mut parts) = location.prefix_match(prefix) else { return false };
    location.as_ref().ends_with(".parquet") && !parts.any(|part| part.as_ref().starts_with(['_', '.']))
}

impl DataFile {
    fn new(meta: ObjectMeta, parquet: &ParquetMetaData, schema: &Schema, table: &LandedTable) -> Result<Option<Self>> {
        let pairs = parquet.file_metadata().key_value_metadata();
        let value = |name: &str| pairs.into_iter().flatten().find(|pair| pair.key == name).and_then(|pair| pair.value.as_deref());
        let (Some(relation), Some(stream)) = (value(footer::RELATION), value(footer::STREAM)) else { return Ok(None) };
        let bad = |what: &'static str| {
            Error::corrupt("a file's footer is not as logweir writes it").context("file", &meta.location).context("entry", what)
        };
        let relation: RelationName = serde_json::from_str(relation).map_err(|error| bad(footer::RELATION).source(error))?;
        if relation != table.name || stream != table.stream {
            return Ok(None);
        }
        let origin = value(footer::ORIGIN).map(serde_json::from_str).transpose();
        let origin: Option<RelationName> = origin.map_err(|error| bad(footer::ORIGIN).source(error))?;
        let version = value(footer::SCHEMA_VERSION).and_then(|text| text.parse().ok()).ok_or_else(|| bad(footer::SCHEMA_VERSION))?;
        let key = value(footer::KEY).ok_or_else(|| bad(footer::KEY))?;
        let key: Vec<String> = serde_json::from_str(key).map_err(|error| bad(footer::KEY).source(error))?;
        let last = value(footer::LAST).or_else(|| value(footer::FIRST)).ok_or_else(|| bad(footer::LAST))?.to_owned();
        let first = value(footer::FIRST).unwrap_or_default().to_owned();
        let schema = unpacked_schema(schema);
        let rows = u64::try_from(parquet.file_metadata().num_rows()).unwrap_or(0);

        let holds_no_null = |name: &str| nulls(parquet, name) == Some(0);
        // In a truncate every column is NULL, so one that never is rules truncates out.
        let truncates = !schema.fields().iter().any(|field| !is_metadata(field) && holds_no_null(field.name()));
        let unchanged = nulls(parquet, UNCHANGED) != Some(rows);
        let span = match (value(footer::IN_LOG_ORDER), integers(parquet, &schema, TIMESTAMP)) {
            (Some("true"), Some((from, to))) if !first.is_empty() => {
                let time = |time: i128| i64::try_from(time).unwrap_or(i64::MAX);
                Some(Span { first: (time(from), first.clone()), last: (time(to), last.clone()) })
            }
            _ => None,
        };
        let compacted = value(footer::COMPACTED).map(|text| text.parse().map_err(|_| bad(footer::COMPACTED))).transpose()?;
        let compacted_through = value(footer::COMPACTED_THROUGH).map(str::to_owned);
        let keys = match key.as_slice() {
            [key] => integers(parquet, &schema, key),
            _ => None,
        };
        Ok(Some(DataFile {
            meta,
            origin,
            version,
            schema,
            key,
            rows,
            first,
            last,
            span,
            keys,
            truncates,
            unchanged,
            compacted,
            compacted_through,
        }))
    }
}

/// NULLs in a column of a file, if the statistics say.
fn nulls(parquet: &ParquetMetaData, column: &str) -> Option<u64> {
    let leaf = leaf(parquet, column)?;
    parquet.row_groups().iter().map(|group| group.column(leaf).statistics()?.null_count_opt()).sum()
}

/// The least and the greatest value of a column of integers or of timestamps, if the statistics say.
fn integers(parquet: &ParquetMetaData, schema: &Schema, column: &str) -> Option<(i128, i128)> {
    use DataType::*;
    let data_type = schema.field_with_name(column).ok()?.data_type();
    let value = |value: i64| match data_type {
        Int8 | Int16 | Int32 | Int64 | Timestamp(..) => Some(i128::from(value)),
        // Narrow ones are in four bytes.
        UInt8 | UInt16 | UInt32 => Some(i128::from(value as u32)),
        UInt64 => Some(i128::from(value as u64)),
        _ => None,
    };
    let leaf = leaf(parquet, column)?;
    let mut all: Option<(i128, i128)> = None;
    for group in parquet.row_groups() {
        let (least, greatest) = match group.column(leaf).statistics()? {
            Statistics::Int32(values) => (i64::from(*values.min_opt()?), i64::from(*values.max_opt()?)),
            Statistics::Int64(values) => (*values.min_opt()?, *values.max_opt()?),
            _ => return None,
        };
        let (least, greatest) = (value(least)?, value(greatest)?);
        all = Some(all.map_or((least, greatest), |(from, to)| (from.min(least), to.max(greatest))));
    }
    all
}

/// The least and the greatest key of a batch in flight, if that is one integer.
fn keys_of(group: &FileGroup, batch: usize) -> Option<(i128, i128)> {
    let [key] = group.key.as_slice() else { return None };
    let column = group.tail[batch].column_by_name(key)?;
    if !column.data_type().is_integer() {
        return None;
    }
    let numbers = cast(column, &DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0)).ok()?;
    let numbers = numbers.as_primitive::<Decimal128Type>();
    min(numbers).zip(max(numbers))
}

fn leaf(parquet: &ParquetMetaData, column: &str) -> Option<usize> {
    let columns = parquet.file_metadata().schema_descr().columns();
    columns.iter().position(|leaf| leaf.path().parts().first().is_some_and(|part| part == column))
}

/// All its fields [`unpacked`].
pub(super) fn unpacked_schema(schema: &Schema) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().iter().map(unpacked).collect::<Vec<_>>()))
}

/// Without dictionaries, which are the writer's way of saving space.
fn unpacked(field: &FieldRef) -> FieldRef {
    fn unpacked_type(data_type: &DataType) -> DataType {
        match data_type {
            DataType::Dictionary(_, value) => unpacked_type(value),
            DataType::Struct(fields) => DataType::Struct(fields.iter().map(unpacked).collect()),
            DataType::List(item) => DataType::List(unpacked(item)),
            other => other.clone(),
        }
    }
    Arc::new(Field::clone(field).with_data_type(unpacked_type(field.data_type())))
}

pub(super) fn is_metadata(field: &Field) -> bool {
    field.name().starts_with(METADATA_PREFIX)
}

impl FileGroup {
    fn new(origin: Option<RelationName>, version: u32, schema: SchemaRef, key: Vec<String>) -> Self {
        let (files, tail, parts) = (Vec::new(), Vec::new(), Vec::new());
        FileGroup { origin, version, schema, key, files, tail, parts, tail_last: String::new(), truncates: false, unchanged: false }
    }

    /// Rows in files.
    pub(super) fn rows(&self) -> u64 {
        self.files.iter().map(|file| file.rows).sum()
    }

    /// Rows that are not in files yet.
    pub(super) fn rows_in_flight(&self) -> u64 {
        let held = self.tail.iter().map(|batch| batch.num_rows() as u64);
        held.chain(self.parts.iter().map(|part| part.rows)).sum()
    }

    /// True if there are no rows of it.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty() && self.tail.is_empty() && self.parts.is_empty()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.meta.size).sum()
    }

    fn last(&self) -> &str {
        self.files.iter().map(|file| file.last.as_str()).chain([self.tail_last.as_str()]).max().unwrap_or_default()
    }
}

impl Inventory {
    /// `expected` is the newest version that is known, and whether it says what updated rows were before.
    fn new(files: Vec<Arc<DataFile>>, in_flight: TailRows, expected: Option<(&Relation, bool)>) -> Option<Self> {
        let mut groups: Vec<FileGroup> = Vec::new();
        let (held, parts) = match in_flight {
            TailRows::Held(held) => (held, Vec::new()),
            TailRows::Read(parts) => (Vec::new(), parts),
        };
        for part in parts {
            let (relation, schema) = (&part.relation, unpacked_schema(&part.schema));
            let group = group_of(&mut groups, relation.renamed_from(), relation.version(), &schema, &declared_key(relation));
            group.truncates |= part.truncates;
            group.unchanged |= part.unchanged;
            group.tail_last = part.last.to_string().max(std::mem::take(&mut group.tail_last));
            group.parts.push(part);
        }
        for TailBatch { relation, rows, truncates, unchanged } in held {
            let schema = unpacked_schema(&rows.schema());
            let group = group_of(&mut groups, relation.renamed_from(), relation.version(), &schema, &declared_key(&relation));
            group.truncates |= truncates;
            group.unchanged |= unchanged;
            if let Some(last) = rows.column_by_name(SEQUENCE).and_then(|column| column.as_string_opt::<i32>()?.iter().next_back()?) {
                group.tail_last = last.to_owned();
            }
            group.tail.push(rows);
        }
        for file in files {
            let group = group_of(&mut groups, file.origin.as_ref(), file.version, &file.schema, &file.key);
            group.truncates |= file.truncates;
            group.unchanged |= file.unchanged;
            group.files.push(file);
        }
        // By place in the log, not by version, which begins anew with a new checkpoint.
        groups.sort_by(|a, b| (a.last(), a.version).cmp(&(b.last(), b.version)));
        for group in &mut groups {
            group.files.sort_by(|a, b| a.meta.location.cmp(&b.meta.location));
        }
        if let Some((relation, before_images)) = expected
            && groups.last().is_none_or(|newest| newest.last() < relation.since().to_string().as_str())
        {
            // The metadata columns as the files have them.
            let metadata = groups.last().map(|group| {
                let fields = group.schema.fields().iter().filter(|field| is_metadata(field) && field.name() != BEFORE).map(Arc::clone);
                fields.collect::<Vec<_>>()
            });
            let metadata = metadata.unwrap_or_else(|| metadata_fields().iter().map(Arc::clone).collect());
            groups.push(without_files(relation, metadata, before_images));
        }
        (!groups.is_empty()).then_some(Inventory { groups })
    }

    /// All that there is in the order of the log, if it can be brought into it: the rows of each file rise, no two lie over each other, and
    /// the same is so of what is in flight, behind all files. `None` if there are no files.
    pub(super) fn in_log_order(&self) -> Option<LogOrder<'_>> {
        let mut files = Vec::new();
        for (number, group) in self.groups.iter().enumerate() {
            for file in group.files.iter().filter(|file| file.rows > 0) {
                files.push((number, file.as_ref(), file.span.as_ref()?));
            }
        }
        if files.is_empty() {
            return None;
        }
        files.sort_by(|(_, _, a), (_, _, b)| b.first.cmp(&a.first));
        if files.windows(2).any(|pair| pair[1].2.last >= pair[0].2.first) {
            return None;
        }
        let (last_time, last) = &files[0].2.last;
        let in_flight = self.in_flight_behind((*last_time, last))?;
        let of_batch = |(group, batch): &(usize, usize)| keys_of(&self.groups[*group], *batch);
        let of_files = files.iter().map(|(_, file, _)| file.keys);
        let keys = of_files.chain(in_flight.iter().map(of_batch)).reduce(|all, keys| {
            let ((from, to), (least, greatest)) = (all?, keys?);
            Some((from.min(least), to.max(greatest)))
        });
        let files = files.into_iter().map(|(number, file, _)| (number, file)).collect();
        Some(LogOrder { files, in_flight, keys: keys.flatten() })
    }

    /// What is in flight, newest first, if it is in the order of the log and behind a place.
    fn in_flight_behind(&self, place: (i64, &str)) -> Option<Vec<(usize, usize)>> {
        let mut batches = Vec::new();
        for (number, group) in self.groups.iter().enumerate() {
            if !group.parts.is_empty() {
                return None;
            }
            for (batch, rows) in group.tail.iter().enumerate().filter(|(_, rows)| rows.num_rows() > 0) {
                let times = rows.column_by_name(TIMESTAMP)?.as_primitive_opt::<TimestampMicrosecondType>()?.values();
                let sequences = rows.column_by_name(SEQUENCE)?.as_string_opt::<i32>()?;
                let at = |row: usize| (times[row], sequences.value(row));
                if (1..rows.num_rows()).any(|row| at(row - 1) >= at(row)) {
                    return None;
                }
                batches.push((at(0), at(rows.num_rows() - 1), (number, batch)));
            }
        }
        batches.sort_by(|(a, ..), (b, ..)| b.cmp(a));
        let apart = batches.windows(2).all(|pair| pair[1].1 < pair[0].0) && batches.last().is_none_or(|(first, ..)| *first > place);
        apart.then(|| batches.into_iter().map(|(.., place)| place).collect())
    }

    /// The commit time up to which only what stands is left, if anything was compacted.
    pub(super) fn compacted(&self) -> Option<i64> {
        self.groups.iter().flat_map(|group| &group.files).filter_map(|file| file.compacted).max()
    }

    /// The group that says what the table is now.
    pub(super) fn newest(&self) -> &FileGroup {
        self.groups.last().expect("an inventory has a group")
    }
}

/// The group of rows; one is made if there is none. Not by version alone: a mask that was added to the configuration makes other columns
/// of the same version.
fn group_of<'a>(
    groups: &'a mut Vec<FileGroup>,
    origin: Option<&RelationName>,
    version: u32,
    schema: &SchemaRef,
    key: &[String],
) -> &'a mut FileGroup {
    let is_it =
        |group: &FileGroup| group.origin.as_ref() == origin && group.version == version && group.schema == *schema && group.key == key;
    let known = groups.iter().position(is_it);
    let index = known.unwrap_or_else(|| {
        groups.push(FileGroup::new(origin.cloned(), version, Arc::clone(schema), key.to_vec()));
        groups.len() - 1
    });
    &mut groups[index]
}

pub(super) fn declared_key(relation: &Relation) -> Vec<String> {
    let names = relation.key().iter().map(|&i| relation.columns()[i].name().to_owned());
    if relation.key_declared() { names.collect() } else { Vec::new() }
}

/// A version that no change was landed under yet.
fn without_files(relation: &Relation, metadata: Vec<FieldRef>, before_images: bool) -> FileGroup {
    let columns: Vec<FieldRef> = relation.columns().iter().map(|column| unpacked(&column.field)).collect();
    let images = || Arc::new(Field::new(BEFORE, DataType::Struct(columns.iter().map(Arc::clone).collect()), true));
    let before = (before_images && !columns.is_empty()).then(images);
    let schema = Arc::new(Schema::new(columns.into_iter().chain(metadata).chain(before).collect::<Vec<_>>()));
    FileGroup::new(relation.renamed_from().cloned(), relation.version(), schema, declared_key(relation))
}
