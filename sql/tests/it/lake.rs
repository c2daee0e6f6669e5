//! A destination in memory, with files as the files destination writes them.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, ListBuilder, RecordBatch, StringArray, StringBuilder, StructArray, TimestampMicrosecondArray,
    UInt64Array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use logweir_core::{ChangeType, LogPosition, RelationName};
use logweir_sql::{LandedTable, QueryEngine, printable};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;
use url::Url;

pub(crate) const MEMORY_BYTES: usize = 64 << 20;

/// A schema version of a table.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    pub(crate) version: u32,
    pub(crate) columns: Vec<(String, DataType)>,
    pub(crate) key: Vec<String>,
}

impl Version {
    pub(crate) fn new(version: u32, columns: &[(&str, DataType)], key: &[&str]) -> Self {
        let columns = columns.iter().map(|(name, data_type)| (name.to_string(), data_type.clone())).collect();
        Version { version, columns, key: key.iter().map(ToString::to_string).collect() }
    }
}

/// A change; values are the text of each column.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) timestamp: i64,
    pub(crate) position: LogPosition,
    pub(crate) change_type: ChangeType,
    pub(crate) values: Vec<Option<String>>,
    pub(crate) unchanged: Vec<String>,
}

/// Change number `n` of the log, in its own transaction.
pub(crate) fn change<const N: usize>(n: u64, change_type: ChangeType, values: [Option<&str>; N]) -> Change {
    Change {
        timestamp: n as i64 * 1_000_000,
        position: LogPosition::new(0, 1, n, 1, !matches!(change_type, ChangeType::UpdateDelete)),
        change_type,
        values: values.iter().map(|value| value.map(str::to_owned)).collect(),
        unchanged: Vec::new(),
    }
}

impl Change {
    /// The same with columns whose value was not logged.
    pub(crate) fn unchanged(mut self, columns: &[&str]) -> Self {
        self.unchanged = columns.iter().map(ToString::to_string).collect();
        self
    }
}

pub(crate) struct Lake {
    pub(crate) store: Arc<InMemory>,
    /// Whether files say that they are in the order of the log, where they are.
    tells_order: bool,
}

impl Lake {
    pub(crate) fn new() -> Self {
        Lake { store: Arc::new(InMemory::new()), tells_order: true }
    }

    /// One whose files say nothing of their order.
    pub(crate) fn without_order() -> Self {
        Lake { tells_order: false, ..Lake::new() }
    }

    /// Writes a file of `shop.<table>`, its values given as text.
    pub(crate) async fn write(&self, path: &str, table: &str, version: &Version, changes: &[Change]) {
        let columns = (version.columns.iter().enumerate())
            .map(|(i, (_, data_type))| {
                let text = StringArray::from_iter(changes.iter().map(|change| change.values[i].as_deref()));
                cast(&text, data_type).unwrap()
            })
            .collect();
        self.write_columns(path, table, version, changes, columns).await;
    }

    /// The same with columns given as arrays.
    pub(crate) async fn write_columns(&self, path: &str, table: &str, version: &Version, changes: &[Change], columns: Vec<ArrayRef>) {
        let (fields, arrays): (Vec<FieldRef>, Vec<ArrayRef>) = version
            .columns
            .iter()
            .zip(columns)
            .map(|((name, data_type), array)| (Arc::new(field(name, data_type)), array))
            .chain(metadata(table, changes))
            .unzip();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap();
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        for (key, value) in [
            ("logweir.version", "0.1.0".to_owned()),
            ("logweir.stream", "shop".to_owned()),
            ("logweir.relation", serde_json::to_string(&RelationName::new("shop", table)).unwrap()),
            ("logweir.schema_version", version.version.to_string()),
            ("logweir.key", serde_json::to_string(&version.key).unwrap()),
            ("logweir.first", changes[0].position.to_string()),
            ("logweir.last", changes[changes.len() - 1].position.to_string()),
            ("logweir.in_log_order", (self.tells_order && in_log_order(changes)).to_string()),
        ] {
            writer.append_key_value_metadata(KeyValue::new(key.to_owned(), value));
        }
        writer.close().unwrap();
        self.store.put(&Path::from(path), bytes.into()).await.unwrap();
    }

    pub(crate) fn table(&self, table: &str) -> LandedTable {
        LandedTable {
            tail: None,
            stream: "shop".into(),
            destination: "lake".into(),
            name: RelationName::new("shop", table),
            store_url: Url::parse("memory:///").unwrap(),
            store: Arc::clone(&self.store) as Arc<dyn ObjectStore>,
            prefix: Path::from(format!("shop/{table}")),
            relation: None,
        }
    }

    pub(crate) fn engine(&self, tables: &[&str]) -> QueryEngine {
        QueryEngine::new(tables.iter().map(|table| self.table(table)).collect(), MEMORY_BYTES).unwrap()
    }
}

/// As the files destination tells it.
fn in_log_order(changes: &[Change]) -> bool {
    changes.windows(2).all(|pair| pair[0].position < pair[1].position && pair[0].timestamp <= pair[1].timestamp)
}

/// A column's field, with what the source would say of it beside its type.
fn field(name: &str, data_type: &DataType) -> Field {
    let said: &[(&str, &str)] = match name {
        "json" => &[("ARROW:extension:name", "arrow.json"), ("ARROW:extension:metadata", "")],
        "geometry" => &[("logweir.srid", "4326")],
        _ => &[],
    };
    let metadata = said.iter().map(|(key, value)| (key.to_string(), value.to_string()));
    Field::new(name, data_type.clone(), true).with_metadata(metadata.collect())
}

fn metadata(table: &str, changes: &[Change]) -> Vec<(FieldRef, ArrayRef)> {
    let text = |value: &dyn Fn(&Change) -> String| -> ArrayRef { Arc::new(StringArray::from_iter_values(changes.iter().map(value))) };
    let timestamp =
        || -> ArrayRef { Arc::new(TimestampMicrosecondArray::from_iter_values(changes.iter().map(|c| c.timestamp)).with_timezone("UTC")) };
    let timestamp_type = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let mut unchanged = ListBuilder::new(StringBuilder::new()).with_field(Arc::new(Field::new_list_field(DataType::Utf8, false)));
    for change in changes {
        change.unchanged.iter().for_each(|name| unchanged.values().append_value(name));
        unchanged.append(!change.unchanged.is_empty());
    }
    let source_fields = Fields::from(vec![
        Field::new("database", DataType::Utf8, true),
        Field::new("schema", DataType::Utf8, false),
        Field::new("table", DataType::Utf8, false),
        Field::new("log_file", DataType::Utf8, true),
        Field::new("log_position", DataType::UInt64, false),
        Field::new("transaction", DataType::Utf8, true),
    ]);
    let source = StructArray::new(
        source_fields.clone(),
        vec![
            arrow::array::new_null_array(&DataType::Utf8, changes.len()),
            text(&|_| "shop".into()),
            text(&|_| table.into()),
            text(&|_| "mysql-bin.000001".into()),
            Arc::new(UInt64Array::from_iter_values(changes.iter().map(|change| change.position.commit()))),
            text(&|_| "0-1-1".into()),
        ],
        None,
    );
    let unchanged: ArrayRef = Arc::new(unchanged.finish());
    let deleted: ArrayRef = Arc::new(BooleanArray::from_iter(changes.iter().map(|change| Some(change.change_type.deletes()))));
    let columns: Vec<(&str, DataType, bool, ArrayRef)> = vec![
        ("_metadata_timestamp", timestamp_type.clone(), false, timestamp()),
        ("_metadata_sequence", DataType::Utf8, false, text(&|change| change.position.to_string())),
        ("_metadata_change_type", DataType::Utf8, false, text(&|change| change.change_type.name().into())),
        ("_metadata_deleted", DataType::Boolean, false, deleted),
        ("_metadata_read_timestamp", timestamp_type, false, timestamp()),
        ("_metadata_read_method", DataType::Utf8, false, text(&|_| "mysql-cdc-binlog".into())),
        ("_metadata_source", DataType::Struct(source_fields), false, Arc::new(source)),
        ("_metadata_unchanged", unchanged.data_type().clone(), true, unchanged),
    ];
    columns.into_iter().map(|(name, data_type, nullable, array)| (Arc::new(Field::new(name, data_type, nullable)), array)).collect()
}

/// The rows of a query, a line each; the columns first. An error is its one line.
pub(crate) async fn answer(engine: &QueryEngine, sql: &str) -> String {
    let result = match engine.sql(sql).await {
        Ok(result) => result,
        Err(error) => return format!("{error:?}\n"),
    };
    let names: Vec<&str> = result.schema.fields().iter().map(|field| field.name().as_str()).collect();
    let mut text = names.join(" | ") + "\n";
    match result.collect().await {
        Ok(batches) => batches.iter().for_each(|batch| show(batch, &mut text)),
        Err(error) => text += &format!("{error:?}\n"),
    }
    text
}

fn show(batch: &RecordBatch, text: &mut String) {
    let batch = printable(batch).unwrap();
    let options = FormatOptions::new().with_null("NULL");
    let columns: Vec<ArrayFormatter<'_>> =
        batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options).unwrap()).collect();
    for row in 0..batch.num_rows() {
        let values: Vec<String> = columns.iter().map(|column| column.value(row).to_string()).collect();
        *text += &(values.join(" | ") + "\n");
    }
}
