//! Rows to write, places to write them to, and a way to read everything back.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field};
use futures::TryStreamExt;
use logweir_core::{
    ChangeBatch, ChangeType, Column, ConsumerName, LogPosition, MemoryPermit, MetadataBuilder, Relation, RelationName, Sink, SourcePlace,
    TimestampMicros, Writer, WriterContext,
};
use logweir_files::{FilesOptions, FilesSink, open_store};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tempfile::TempDir;
use url::Url;

/// 2026-11-20T00:00:00Z
pub(crate) const MIDNIGHT: i64 = 1_795_132_800_000_000;

pub(crate) fn column(name: &str, data_type: DataType, source_type: &str) -> Column {
    Column { field: Arc::new(Field::new(name, data_type, true)), source_type: source_type.to_owned(), detail: serde_json::Value::Null }
}

/// `shop.<table>` with an id, which is the key, and a name.
pub(crate) fn relation(table: &str, version: u32) -> Arc<Relation> {
    let columns = vec![column("id", DataType::Int64, "bigint"), column("name", DataType::Utf8, "varchar(20)")];
    Arc::new(Relation::new(RelationName::new("shop", table), version, LogPosition::MIN, columns, vec![0]))
}

/// Inserts of the ids in `ids`, a transaction each, at `time`; the position follows from the id.
pub(crate) fn inserts(relation: &Arc<Relation>, ids: std::ops::Range<i64>, time: i64) -> ChangeBatch {
    let name = |id: i64| format!("name {id}");
    let columns: Vec<ArrayRef> =
        vec![Arc::new(Int64Array::from_iter_values(ids.clone())), Arc::new(StringArray::from_iter_values(ids.clone().map(name)))];
    let changes = ids.map(|id| (ChangeType::Insert, id, time));
    batch(relation, columns, changes)
}

/// A batch of `columns` with a type, a number that gives the position, and a time for each row.
pub(crate) fn batch(
    relation: &Arc<Relation>,
    columns: Vec<ArrayRef>,
    changes: impl IntoIterator<Item = (ChangeType, i64, i64)>,
) -> ChangeBatch {
    let mut metadata = MetadataBuilder::new("mysql-cdc-binlog");
    for (change_type, number, time) in changes {
        let place = SourcePlace {
            log_position: 4 + number as u64 * 100,
            log_file: Some(metadata.intern_file("mysql-bin.000007")),
            transaction: (number % 2 == 0).then(|| metadata.intern_transaction(&format!("0-1-{number}"))),
        };
        let position = LogPosition::new(0, 7, place.log_position, 1, change_type != ChangeType::UpdateDelete);
        metadata.push(TimestampMicros(time), position, change_type, TimestampMicros(time + 1000), place);
    }
    let last = metadata.last_position().unwrap();
    let arrays = columns.into_iter().chain(metadata.finish()).collect();
    let records = RecordBatch::try_new(Arc::clone(relation.schema()), arrays).unwrap();
    ChangeBatch {
        relation: Arc::clone(relation),
        records,
        unchanged: None,
        before: None,
        last,
        memory: Arc::new(MemoryPermit::uncounted()),
    }
}

pub(crate) fn consumer() -> ConsumerName {
    ConsumerName { stream: "shop".into(), destination: "lake".into() }
}

pub(crate) fn context(run: u32, memory_bytes: usize) -> WriterContext {
    WriterContext { consumer: consumer(), run: format!("{run:08x}"), memory_bytes }
}

pub(crate) fn options(url: &str) -> FilesOptions {
    FilesOptions { rotate_interval: Duration::from_secs(1), ..FilesOptions::new(Url::parse(url).unwrap(), "shop") }
}

/// A folder that is a destination.
pub(crate) struct Folder {
    pub(crate) folder: TempDir,
    pub(crate) options: FilesOptions,
}

impl Folder {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = options(Url::from_directory_path(folder.path()).unwrap().as_str());
        Folder { folder, options }
    }

    pub(crate) fn sink(&self) -> FilesSink {
        FilesSink::new(self.options.clone()).unwrap()
    }

    pub(crate) async fn files(&self) -> Vec<DataFile> {
        let (store, prefix) = open_store(&self.options.url, &self.options.options).unwrap();
        read_files(store.as_ref(), &prefix).await
    }

    /// Every path below the folder that is ours and not data.
    pub(crate) async fn leftovers(&self) -> Vec<String> {
        let (store, prefix) = open_store(&self.options.url, &self.options.options).unwrap();
        leftovers(store.as_ref(), &prefix).await
    }
}

/// Writes batches, stages, commits.
pub(crate) async fn land(sink: &FilesSink, batches: Vec<ChangeBatch>) {
    let mut writer = sink.open(context(1, 64 << 20)).await.unwrap();
    write_all(writer.as_mut(), batches).await;
    let staged = writer.stage().await.unwrap();
    writer.commit(&staged).await.unwrap();
    writer.close().await.unwrap();
}

pub(crate) async fn write_all(writer: &mut dyn Writer, batches: Vec<ChangeBatch>) {
    for batch in batches {
        writer.evolve(Arc::clone(&batch.relation)).await.unwrap();
        writer.write(batch).await.unwrap();
    }
}

/// A file as a reader finds it.
pub(crate) struct DataFile {
    /// Relative to the destination.
    pub(crate) path: String,
    pub(crate) records: RecordBatch,
    pub(crate) footer: HashMap<String, String>,
    pub(crate) row_groups: usize,
}

/// Every data file, by path.
pub(crate) async fn read_files(store: &dyn ObjectStore, prefix: &Path) -> Vec<DataFile> {
    let mut files = Vec::new();
    for (path, location) in list(store, prefix).await {
        let hidden = path.split('/').any(|segment| segment.starts_with(['_', '.']));
        if hidden || !path.ends_with(".parquet") {
            continue;
        }
        let bytes = store.get(&location).await.unwrap().bytes().await.unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().with_batch_size(1 << 24);
        let footer = reader.metadata().file_metadata().key_value_metadata().unwrap().iter();
        let footer = footer.map(|pair| (pair.key.clone(), pair.value.clone().unwrap_or_default())).collect();
        let row_groups = reader.metadata().num_row_groups();
        let schema = Arc::clone(reader.schema());
        let records = reader.build().unwrap().next().map_or_else(|| RecordBatch::new_empty(schema), Result::unwrap);
        files.push(DataFile { path, records, footer, row_groups });
    }
    files
}

pub(crate) async fn leftovers(store: &dyn ObjectStore, prefix: &Path) -> Vec<String> {
    list(store, prefix).await.into_keys().filter(|path| path.starts_with("_logweir/")).collect()
}

async fn list(store: &dyn ObjectStore, prefix: &Path) -> BTreeMap<String, Path> {
    let objects: Vec<_> = store.list(Some(prefix)).try_collect().await.unwrap();
    let relative = |path: &Path| path.prefix_match(prefix).unwrap().map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/");
    objects.into_iter().map(|object| (relative(&object.location), object.location)).collect()
}

impl DataFile {
    pub(crate) fn column(&self, name: &str) -> &ArrayRef {
        self.records.column_by_name(name).unwrap()
    }

    pub(crate) fn ids(&self) -> Vec<i64> {
        self.column("id").as_primitive::<Int64Type>().values().to_vec()
    }

    pub(crate) fn texts(&self, name: &str) -> Vec<&str> {
        self.column(name).as_string::<i32>().iter().flatten().collect()
    }
}

/// The ids of all files together, in the order of `_metadata_sequence`.
pub(crate) fn all_ids(files: &[DataFile]) -> Vec<i64> {
    let mut rows: Vec<(String, i64)> = Vec::new();
    for file in files {
        let sequences = file.texts("_metadata_sequence").into_iter().map(str::to_owned);
        rows.extend(sequences.zip(file.ids()));
    }
    rows.sort();
    rows.into_iter().map(|(_, id)| id).collect()
}
