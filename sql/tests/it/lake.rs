//! A destination in memory, with files as the files destination writes them.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, ListBuilder, RecordBatch, StringArray, StringBuilder, StructArray, TimestampMicrosecondArray,
    UInt64Array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use logweir_core::{ChangeType, Column, LogPosition, Relation, RelationName, Result};
use logweir_sql::{LandedTable, QueryEngine, Tail, TailBatch, TailPart, TailRows, TailSpan, printable};
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
        self.write_columns(path, table, version, changes, columns_of(version, changes)).await;
    }

    /// The same of a file that was compacted, up to this position.
    pub(crate) async fn write_compacted(&self, path: &str, table: &str, version: &Version, changes: &[Change], through: LogPosition) {
        let time = changes.iter().map(|change| change.timestamp).max().unwrap_or(0);
        let compacted = [("logweir.compacted", time.to_string()), ("logweir.compacted_through", through.to_string())];
        self.write_file(path, table, version, changes, columns_of(version, changes), &compacted).await;
    }

    /// The same with columns given as arrays.
    pub(crate) async fn write_columns(&self, path: &str, table: &str, version: &Version, changes: &[Change], columns: Vec<ArrayRef>) {
        self.write_file(path, table, version, changes, columns, &[]).await;
    }

    async fn write_file(
        &self,
        path: &str,
        table: &str,
        version: &Version,
        changes: &[Change],
        columns: Vec<ArrayRef>,
        more: &[(&str, String)],
    ) {
        let batch = shown(table, version, changes, columns);
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
        ]
        .iter()
        .chain(more)
        {
            writer.append_key_value_metadata(KeyValue::new(key.to_string(), value.clone()));
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
            before_images: false,
        }
    }

    pub(crate) fn engine(&self, tables: &[&str]) -> QueryEngine {
        QueryEngine::new(tables.iter().map(|table| self.table(table)).collect(), MEMORY_BYTES).unwrap()
    }
}

fn columns_of(version: &Version, changes: &[Change]) -> Vec<ArrayRef> {
    let column = |(i, (_, data_type)): (usize, &(String, DataType))| {
        let text = StringArray::from_iter(changes.iter().map(|change| change.values[i].as_deref()));
        cast(&text, data_type).unwrap()
    };
    version.columns.iter().enumerate().map(column).collect()
}

/// Changes as a file holds them.
fn shown(table: &str, version: &Version, changes: &[Change], columns: Vec<ArrayRef>) -> RecordBatch {
    let columns = version.columns.iter().zip(columns).map(|((name, data_type), array)| (Arc::new(field(name, data_type)), array));
    let (fields, arrays): (Vec<FieldRef>, Vec<ArrayRef>) = columns.chain(metadata(table, changes)).unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

/// What is in flight of one table behind the files.
#[derive(Debug)]
pub(crate) struct InFlight {
    span: TailSpan,
    batches: Vec<TailBatch>,
    held: bool,
}

impl InFlight {
    /// Of the stretches of the log, each of one version, what lies behind `after`, in batches of so many rows.
    pub(crate) fn new(table: &str, after: LogPosition, stretches: &[(Version, Vec<Change>)], rows: usize) -> Self {
        let (mut batches, mut through) = (Vec::new(), after);
        for (version, changes) in stretches {
            let column = |(name, data_type): &(String, DataType)| Column {
                field: Arc::new(field(name, data_type)),
                source_type: "x".into(),
                detail: serde_json::Value::Null,
            };
            let place = |key: &String| version.columns.iter().position(|(name, _)| name == key).unwrap();
            let (columns, key) = (version.columns.iter().map(column).collect(), version.key.iter().map(place).collect());
            let relation = Arc::new(Relation::new(RelationName::new("shop", table), version.version, LogPosition::MIN, columns, key));
            for changes in changes.chunks(rows) {
                through = changes[changes.len() - 1].position;
                batches.push(TailBatch {
                    relation: Arc::clone(&relation),
                    rows: shown(table, version, changes, columns_of(version, changes)),
                    truncates: changes.iter().any(|change| change.change_type == ChangeType::Truncate),
                    unchanged: changes.iter().any(|change| !change.unchanged.is_empty()),
                });
            }
        }
        InFlight { span: TailSpan { after, through, commit_time: None }, batches, held: true }
    }

    /// The same, which is read whenever somebody asks.
    pub(crate) fn not_held(self) -> Self {
        InFlight { held: false, ..self }
    }
}

#[async_trait]
impl Tail for InFlight {
    async fn span(&self) -> Result<TailSpan> {
        Ok(self.span)
    }

    async fn read(&self, _: &RelationName, _: &TailSpan) -> Result<TailRows> {
        if self.held {
            return Ok(TailRows::Held(self.batches.clone()));
        }
        let mut parts: Vec<TailPart> = Vec::new();
        for batch in &self.batches {
            if !parts.iter().any(|part| Arc::ptr_eq(&part.relation, &batch.relation)) {
                let of_relation = self.batches.iter().filter(|other| Arc::ptr_eq(&other.relation, &batch.relation));
                let batches: Vec<TailBatch> = of_relation.cloned().collect();
                let last = batches[batches.len() - 1].rows.column_by_name("_metadata_sequence").unwrap();
                let last = last.as_string::<i32>().value(last.len() - 1).parse().unwrap();
                parts.push(TailPart {
                    relation: Arc::clone(&batch.relation),
                    schema: batch.rows.schema(),
                    rows: batches.iter().map(|batch| batch.rows.num_rows() as u64).sum(),
                    last,
                    truncates: batches.iter().any(|batch| batch.truncates),
                    unchanged: batches.iter().any(|batch| batch.unchanged),
                    open: Arc::new(move || futures::stream::iter(batches.clone().into_iter().map(|batch| Ok(batch.rows))).boxed()),
                });
            }
        }
        Ok(TailRows::Read(parts))
    }

    fn follow(&self, _: &RelationName, _: LogPosition) -> BoxStream<'static, Result<TailBatch>> {
        futures::stream::empty().boxed()
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
