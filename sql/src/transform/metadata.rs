//! The `_metadata_*` columns as a rule reads them: under the names and in the types that they have in files.
//!
//! They are made only for the rules that name them.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int32Array, ListBuilder, StringArray, StringBuilder, StructArray, new_null_array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, TimeUnit};
use logweir_core::{ChangeBatch, ChangeType, Error, LogPosition, MetadataColumn, RelationName, Result};

/// What every name of one begins with.
pub(super) const PREFIX: &str = "_metadata_";

/// A metadata column of the public form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum PublicColumn {
    Timestamp,
    Sequence,
    ChangeType,
    Deleted,
    ReadTimestamp,
    ReadMethod,
    Source,
    Unchanged,
}

impl PublicColumn {
    pub(super) const ALL: [PublicColumn; 8] = [
        PublicColumn::Timestamp,
        PublicColumn::Sequence,
        PublicColumn::ChangeType,
        PublicColumn::Deleted,
        PublicColumn::ReadTimestamp,
        PublicColumn::ReadMethod,
        PublicColumn::Source,
        PublicColumn::Unchanged,
    ];

    pub(super) fn field(self) -> &'static FieldRef {
        &FIELDS[self as usize]
    }

    /// The column of a batch of a table of this name.
    pub(super) fn of(self, batch: &ChangeBatch) -> Result<ArrayRef> {
        let plain = |column: MetadataColumn| {
            cast(batch.metadata(column), self.field().data_type())
                .map_err(|_| Error::internal("a metadata column is not what it should be"))
        };
        match self {
            PublicColumn::Timestamp => Ok(Arc::clone(batch.metadata(MetadataColumn::Timestamp))),
            PublicColumn::Sequence => Ok(Arc::new(sequence(batch))),
            PublicColumn::ChangeType => plain(MetadataColumn::ChangeType),
            PublicColumn::Deleted => Ok(Arc::new(deleted(batch))),
            PublicColumn::ReadTimestamp => Ok(Arc::clone(batch.metadata(MetadataColumn::ReadTimestamp))),
            PublicColumn::ReadMethod => plain(MetadataColumn::ReadMethod),
            PublicColumn::Source => source(batch),
            PublicColumn::Unchanged => Ok(unchanged(batch)),
        }
    }
}

static SOURCE: LazyLock<Fields> = LazyLock::new(|| {
    Fields::from(vec![
        Field::new("database", DataType::Utf8, true),
        Field::new("schema", DataType::Utf8, false),
        Field::new("table", DataType::Utf8, false),
        Field::new("log_file", DataType::Utf8, true),
        Field::new("log_position", DataType::UInt64, false),
        Field::new("transaction", DataType::Utf8, true),
    ])
});

static FIELDS: LazyLock<[FieldRef; 8]> = LazyLock::new(|| {
    let timestamp = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let field = |name: &str, data_type, nullable| Arc::new(Field::new(format!("{PREFIX}{name}"), data_type, nullable));
    [
        field("timestamp", timestamp(), false),
        field("sequence", DataType::Utf8, false),
        field("change_type", DataType::Utf8, false),
        field("deleted", DataType::Boolean, false),
        field("read_timestamp", timestamp(), false),
        field("read_method", DataType::Utf8, false),
        field("source", DataType::Struct(SOURCE.clone()), false),
        field("unchanged", DataType::new_list(DataType::Utf8, false), true),
    ]
});

fn sequence(batch: &ChangeBatch) -> StringArray {
    let mut text = [0; LogPosition::TEXT_LEN];
    let mut sequences = StringBuilder::with_capacity(batch.rows(), batch.rows() * text.len());
    for row in 0..batch.rows() {
        LogPosition::write_text(batch.position(row).as_bytes(), &mut text);
        sequences.append_value(std::str::from_utf8(&text).unwrap_or_default());
    }
    sequences.finish()
}

fn deleted(batch: &ChangeBatch) -> BooleanArray {
    let deletes = |code: &i8| ChangeType::from_code(*code).is_some_and(ChangeType::deletes);
    batch.change_type_codes().iter().map(|code| Some(deletes(code))).collect()
}

fn source(batch: &ChangeBatch) -> Result<ArrayRef> {
    let place = batch.metadata(MetadataColumn::Source).as_struct();
    let rows = batch.rows();
    let RelationName { database, schema, table } = batch.relation.origin();
    let constant = |text: &str| -> Result<ArrayRef> {
        take(&StringArray::from(vec![text]), &Int32Array::from(vec![0; rows]), None)
            .map_err(|_| Error::internal("a constant has one value"))
    };
    let of_place = |index: usize, data_type: &DataType| {
        cast(place.column(index), data_type).map_err(|_| Error::internal("the place of a change is not what it should be"))
    };
    let columns = vec![
        database.as_deref().map_or_else(|| Ok(new_null_array(&DataType::Utf8, rows)), constant)?,
        constant(schema)?,
        constant(table)?,
        of_place(0, &DataType::Utf8)?,
        Arc::clone(place.column(1)),
        of_place(2, &DataType::Utf8)?,
    ];
    let source = StructArray::try_new(SOURCE.clone(), columns, None);
    Ok(Arc::new(source.map_err(|_| Error::internal("the place of a change is not what it should be"))?))
}

fn unchanged(batch: &ChangeBatch) -> ArrayRef {
    let item = Arc::new(Field::new_list_field(DataType::Utf8, false));
    let mut list = ListBuilder::new(StringBuilder::new()).with_field(item);
    let columns = batch.unchanged.iter().flat_map(|unchanged| &unchanged.columns);
    let columns: Vec<_> = columns.map(|(index, bits)| (batch.relation.columns()[*index].name(), bits)).collect();
    for row in 0..batch.rows() {
        let mut any = false;
        for (name, _) in columns.iter().filter(|(_, bits)| bits.value(row)) {
            list.values().append_value(name);
            any = true;
        }
        list.append(any);
    }
    Arc::new(list.finish())
}
