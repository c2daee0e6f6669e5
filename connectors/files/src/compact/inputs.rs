//! Which files there are, and which of them can be taken.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_schema::{DataType, SchemaRef};
use futures::{StreamExt, TryStreamExt};
use logweir_core::{Error, LogPosition, RelationName, Result};
use object_store::ObjectMeta;
use object_store::path::Path;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::statistics::Statistics;

use super::decide::failed;
use super::reader::StoredFile;
use super::{COMPACTED, COMPACTED_THROUGH, Compaction, CompactionLimits};
use crate::error::store_error;
use crate::form::FormColumn;

/// Footers read at a time.
const FOOTER_READS: usize = 16;

/// What every file says of itself alone.
const OWN: [&str; 6] = ["logweir.version", "logweir.first", "logweir.last", "logweir.in_log_order", COMPACTED, COMPACTED_THROUGH];

/// A file.
pub(super) struct Input {
    pub(super) path: Path,
    /// Below the destination's prefix.
    pub(super) folder: String,
    pub(super) size: u64,
    pub(super) rows: usize,
    pub(super) first: LogPosition,
    pub(super) last: LogPosition,
    /// The least and the greatest commit time.
    pub(super) times: (i64, i64),
    /// Up to which commit time it was compacted before.
    pub(super) compacted: Option<i64>,
    /// Up to which position: that of its last change where nothing else is known.
    pub(super) through: LogPosition,
    /// The footer's entries that hold for every file of this table, version and so on.
    pub(super) pairs: BTreeMap<String, String>,
    pub(super) metadata: ArrowReaderMetadata,
}

impl Input {
    /// Its metadata is that of the file, too.
    pub(super) fn schema(&self) -> &SchemaRef {
        self.metadata.schema()
    }

    fn key(&self) -> Option<Vec<String>> {
        serde_json::from_str(self.pairs.get("logweir.key")?).ok()
    }

    /// Whether rows of both can lie in one file.
    fn is_like(&self, other: &Input) -> bool {
        self.folder == other.folder && self.is_version_of(other)
    }

    /// Whether both hold rows of the same version of the same table.
    pub(super) fn is_version_of(&self, other: &Input) -> bool {
        self.pairs == other.pairs && self.schema().fields() == other.schema().fields()
    }
}

/// Files whose rows can lie in one, by index, in their order.
pub(super) fn groups(inputs: &[Input]) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (index, input) in inputs.iter().enumerate() {
        match groups.iter_mut().find(|group| inputs[group[0]].is_like(input)) {
            Some(group) => group.push(index),
            None => groups.push(vec![index]),
        }
    }
    groups
}

/// The columns of a table's key, with their types.
pub(super) struct Key {
    pub(super) names: Vec<String>,
    pub(super) types: Vec<DataType>,
}

/// The key that all files go by, whether they are taken or not, or why there is none.
pub(super) fn key(all: &[(Option<Vec<String>>, SchemaRef)]) -> Result<Key, &'static str> {
    let Some((Some(names), schema)) = all.first() else { return Err("its files do not name a key") };
    if names.is_empty() {
        return Err("it has no key");
    }
    let types = |schema: &SchemaRef| -> Option<Vec<DataType>> {
        names.iter().map(|name| schema.field_with_name(name).ok().map(|field| field.data_type().clone())).collect()
    };
    let Some(own) = types(schema) else { return Err("its files lack columns of the key") };
    if all.iter().any(|(key, schema)| key.as_ref() != Some(names) || types(schema).as_ref() != Some(&own)) {
        return Err("its key has changed");
    }
    Ok(Key { names: names.clone(), types: own })
}

/// The files to be taken, and of all files key and schema.
type Found = (Vec<Input>, Vec<(Option<Vec<String>>, SchemaRef)>);

impl Compaction {
    /// The files of a table that can be taken, in the order of the log, or why there are none.
    pub(super) async fn inputs(&self, table: &RelationName, limits: CompactionLimits) -> Result<Result<Found, &'static str>> {
        let folder = self.template.common_folder(&self.options.stream, table)?;
        let below = self.below(&folder)?;
        let listed: Vec<ObjectMeta> = self
            .store
            .list(Some(&below))
            .try_collect()
            .await
            .map_err(|error| store_error(error, "could not list the files of a table", &below))?;
        let data = listed.into_iter().filter(|meta| is_data(&below, &meta.location));
        let read = futures::stream::iter(data).map(|meta| self.read(meta, table)).buffer_unordered(FOOTER_READS);
        let found: Vec<Option<Result<Input, &'static str>>> = read.try_collect().await?;
        let mut all = Vec::with_capacity(found.len());
        for input in found.into_iter().flatten() {
            match input {
                Ok(input) => all.push(input),
                Err(reason) => return Ok(Err(reason)),
            }
        }
        let forms = all.iter().map(|input| (input.key(), Arc::clone(input.schema()))).collect();
        let fits = |input: &Input| input.last <= limits.through && limits.before.is_none_or(|before| input.times.1 < before.0);
        let (mut taken, mut left): (Vec<Input>, Vec<Input>) = all.into_iter().partition(fits);
        // What is newest among the taken must be newer than all that is older of its key.
        while let Some(first) = left.iter().map(|input| input.first).min() {
            let earliest = left.iter().map(|input| input.times.0).min().unwrap_or(i64::MIN);
            let (before, across): (Vec<Input>, Vec<Input>) =
                taken.into_iter().partition(|input| input.last < first && input.times.1 <= earliest);
            taken = before;
            if across.is_empty() {
                break;
            }
            left.extend(across);
        }
        taken.sort_by(|a, b| (a.times.0, a.first, &a.path).cmp(&(b.times.0, b.first, &b.path)));
        Ok(Ok((taken, forms)))
    }

    fn below(&self, folder: &str) -> Result<Path> {
        let full = if self.prefix.is_root() { folder.to_owned() } else { format!("{}/{folder}", self.prefix) };
        // What a folder cannot be called was encoded when its name was made: here the name is as it is.
        Path::parse(full.trim_end_matches('/'))
            .map_err(|error| Error::config("no object can have this path").context("path", full).source(error))
    }

    pub(super) fn reader(&self, input: &Input) -> StoredFile {
        StoredFile { store: Arc::clone(&self.store), path: input.path.clone(), size: input.size }
    }

    /// A file of this table and stream, or why it keeps the table from being compacted; `None` if it belongs to others.
    async fn read(&self, meta: ObjectMeta, table: &RelationName) -> Result<Option<Result<Input, &'static str>>> {
        let mut reader = StoredFile { store: Arc::clone(&self.store), path: meta.location.clone(), size: meta.size };
        let metadata = ArrowReaderMetadata::load_async(&mut reader, ArrowReaderOptions::new()).await;
        let metadata = metadata.map_err(|error| failed(error, &meta.location))?;
        let parquet = metadata.metadata();
        let mut pairs: BTreeMap<String, String> = BTreeMap::new();
        for pair in parquet.file_metadata().key_value_metadata().into_iter().flatten() {
            if let Some(value) = pair.value.clone().filter(|_| pair.key.starts_with("logweir.")) {
                pairs.insert(pair.key.clone(), value);
            }
        }
        let relation = pairs.get("logweir.relation").and_then(|text| serde_json::from_str::<RelationName>(text).ok());
        if relation.as_ref() != Some(table) || pairs.get("logweir.stream") != Some(&self.options.stream) {
            return Ok(None);
        }
        let position = |name: &str| pairs.get(name).and_then(|text| text.parse::<LogPosition>().ok());
        let (Some(first), Some(last)) = (position("logweir.first"), position("logweir.last")) else {
            return Ok(Some(Err("a file does not say which changes it holds: an older version of logweir wrote it")));
        };
        let rows = usize::try_from(parquet.file_metadata().num_rows()).map_err(|_| Error::corrupt("a file has no number of rows"))?;
        let compacted: Option<i64> = pairs.get(COMPACTED).and_then(|text| text.parse().ok());
        let times = match (times(parquet), compacted) {
            (Some((from, to)), _) => (from, to),
            // A file without rows, which is there to say what was compacted.
            (None, Some(time)) if rows == 0 => (time, time),
            _ => return Ok(Some(Err("a file has no statistics"))),
        };
        let through = position(COMPACTED_THROUGH).unwrap_or(last).max(last);
        pairs.retain(|name, _| !OWN.contains(&name.as_str()));
        let parts: Vec<_> = meta.location.prefix_match(&self.prefix).into_iter().flatten().collect();
        let folder = parts[..parts.len().saturating_sub(1)].iter().map(|part| part.as_ref()).collect::<Vec<_>>().join("/");
        Ok(Some(Ok(Input { path: meta.location, folder, size: meta.size, rows, first, last, times, compacted, through, pairs, metadata })))
    }
}

/// True for what a reader of a lake takes for data: neither the file nor a folder on the way is hidden.
fn is_data(below: &Path, location: &Path) -> bool {
    let Some(mut parts) = location.prefix_match(below) else { return false };
    location.as_ref().ends_with(".parquet") && !parts.any(|part| part.as_ref().starts_with(['_', '.']))
}

/// The least and the greatest commit time of a file's rows.
fn times(parquet: &ParquetMetaData) -> Option<(i64, i64)> {
    let columns = parquet.file_metadata().schema_descr().columns();
    let leaf = columns.iter().position(|column| column.path().string() == FormColumn::Timestamp.name())?;
    let mut all: Option<(i64, i64)> = None;
    for group in parquet.row_groups() {
        let Statistics::Int64(values) = group.column(leaf).statistics()? else { return None };
        let (least, greatest) = (*values.min_opt()?, *values.max_opt()?);
        all = Some(all.map_or((least, greatest), |(from, to)| (from.min(least), to.max(greatest))));
    }
    all
}
