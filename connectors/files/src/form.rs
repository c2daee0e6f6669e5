//! The public form of a row: what stands in a file.
//!
//! The table's columns, then
//!
//! | column | type | |
//! |---|---|---|
//! | `_metadata_timestamp` | timestamp µs UTC | commit time in the source, never falling along a log |
//! | `_metadata_sequence` | text | `hex16/hex16/hex16`; compares as text |
//! | `_metadata_change_type` | text | `INSERT`, `UPDATE-INSERT`, `UPDATE-DELETE`, `DELETE`, `READ`, `TRUNCATE` |
//! | `_metadata_deleted` | bool | the row is gone afterwards |
//! | `_metadata_read_timestamp` | timestamp µs UTC | when it was read |
//! | `_metadata_read_method` | text | `mysql-cdc-binlog` |
//! | `_metadata_source` | struct | `database`, `schema`, `table`, `log_file` (text), `log_position` (unsigned 64 bit), `transaction` (text) |
//! | `_metadata_unchanged` | list of text | columns whose value the source did not log because it did not change; null if none |
//! | `_metadata_before` | struct | the table's columns as they were before an update; null for every other change, and where the source did not log the whole row. Only where before images are asked for |
//!
//! Two schemas describe it. The *written* one is what the encoder is handed: dictionaries stay dictionaries, so a constant costs
//! a key per row. The *shown* one is embedded in the footer for Arrow readers, and has plain text there. In Parquet itself
//! both are the same.

use std::sync::{Arc, LazyLock};

use arrow_array::builder::{BooleanBufferBuilder, ListBuilder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::Int8Type;
use arrow_array::{Array, ArrayRef, BooleanArray, DictionaryArray, Int8Array, ListArray, StringArray, StructArray, new_null_array};
use arrow_buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow_schema::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use arrow_select::nullif::nullif;
use logweir_core::{BeforeImages, ChangeType, Column, Error, LogPosition, MetadataColumn, Relation, Result, Unchanged};

/// A public metadata column, by its place behind the table's columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum FormColumn {
    /// `_metadata_timestamp`
    Timestamp = 0,
    /// `_metadata_sequence`
    Sequence = 1,
    /// `_metadata_change_type`
    ChangeType = 2,
    /// `_metadata_deleted`
    Deleted = 3,
    /// `_metadata_read_timestamp`
    ReadTimestamp = 4,
    /// `_metadata_read_method`
    ReadMethod = 5,
    /// `_metadata_source`
    Source = 6,
    /// `_metadata_unchanged`
    Unchanged = 7,
    /// `_metadata_before`, which is there if it is asked for.
    Before = 8,
}

impl FormColumn {
    /// Every column, in order.
    pub const ALL: [FormColumn; 9] = [
        FormColumn::Timestamp,
        FormColumn::Sequence,
        FormColumn::ChangeType,
        FormColumn::Deleted,
        FormColumn::ReadTimestamp,
        FormColumn::ReadMethod,
        FormColumn::Source,
        FormColumn::Unchanged,
        FormColumn::Before,
    ];

    /// The column's name.
    pub fn name(self) -> &'static str {
        match self {
            FormColumn::Timestamp => "_metadata_timestamp",
            FormColumn::Sequence => "_metadata_sequence",
            FormColumn::ChangeType => "_metadata_change_type",
            FormColumn::Deleted => "_metadata_deleted",
            FormColumn::ReadTimestamp => "_metadata_read_timestamp",
            FormColumn::ReadMethod => "_metadata_read_method",
            FormColumn::Source => "_metadata_source",
            FormColumn::Unchanged => "_metadata_unchanged",
            FormColumn::Before => "_metadata_before",
        }
    }
}

/// Text as handed to the encoder: short keys where the values are few.
fn keyed(key: DataType) -> DataType {
    DataType::Dictionary(Box::new(key), Box::new(DataType::Utf8))
}

fn fields(few: &DataType, many: &DataType) -> Vec<FieldRef> {
    let field = |column: FormColumn, data_type: DataType, nullable: bool| Arc::new(Field::new(column.name(), data_type, nullable));
    let timestamp = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let source = Fields::from(vec![
        Field::new("database", few.clone(), true),
        Field::new("schema", few.clone(), false),
        Field::new("table", few.clone(), false),
        Field::new("log_file", many.clone(), true),
        Field::new("log_position", DataType::UInt64, false),
        Field::new("transaction", many.clone(), true),
    ]);
    vec![
        field(FormColumn::Timestamp, timestamp(), false),
        field(FormColumn::Sequence, DataType::Utf8, false),
        field(FormColumn::ChangeType, few.clone(), false),
        field(FormColumn::Deleted, DataType::Boolean, false),
        field(FormColumn::ReadTimestamp, timestamp(), false),
        field(FormColumn::ReadMethod, few.clone(), false),
        field(FormColumn::Source, DataType::Struct(source), false),
        field(FormColumn::Unchanged, DataType::new_list(DataType::Utf8, false), true),
    ]
}

static WRITTEN: LazyLock<Vec<FieldRef>> = LazyLock::new(|| fields(&keyed(DataType::Int8), &keyed(DataType::Int32)));
static SHOWN: LazyLock<Vec<FieldRef>> = LazyLock::new(|| fields(&DataType::Utf8, &DataType::Utf8));

/// The form of a relation's rows.
#[derive(Debug)]
pub struct Form {
    relation: Arc<Relation>,
    written: SchemaRef,
    shown: SchemaRef,
    /// The names of the source's table, as columns of one value for every row.
    database: Option<ArrayRef>,
    schema: ArrayRef,
    table: ArrayRef,
    /// The type of the rows before updates, if they are part of it.
    before: Option<Fields>,
}

/// How a column that cannot be written is left out.
fn exclude(relation: &Relation, column: &Column) -> String {
    format!("leave the column out: tables: {{ exclude_columns: [\"{}.{}\"] }}, or rename it in the source", relation.name(), column.name())
}

impl Form {
    /// Fails if rows of `relation` have no form: a column has the name of a metadata column, or a type that cannot be written.
    pub fn check(relation: &Relation) -> Result<()> {
        for column in relation.columns() {
            if FormColumn::ALL.iter().any(|form| form.name().eq_ignore_ascii_case(column.name())) {
                return Err(Error::schema("a column has the name of a metadata column")
                    .context("relation", relation.name())
                    .context("column", column.name())
                    .remedy(exclude(relation, column)));
            }
        }
        for column in relation.columns() {
            if !is_writable(column.field.data_type()) {
                return Err(Error::schema("a column has a type that Parquet cannot hold")
                    .context("relation", relation.name())
                    .context("column", column.name())
                    .context("type", column.field.data_type())
                    .remedy(exclude(relation, column)));
            }
        }
        Ok(())
    }

    /// The form of `relation`, with what updated rows were before if `before_images` are kept. Fails as [`Form::check`] does.
    pub fn new(relation: Arc<Relation>, before_images: bool) -> Result<Self> {
        Self::check(&relation)?;
        let columns = || relation.columns().iter().map(|column| Arc::clone(&column.field));
        // A struct without members cannot be written.
        let before: Option<Fields> = (before_images && !relation.columns().is_empty()).then(|| columns().collect());
        let before_field = before.clone().map(|fields| Arc::new(Field::new(FormColumn::Before.name(), DataType::Struct(fields), true)));
        let with = |metadata: &[FieldRef]| {
            let fields = columns().chain(metadata.iter().map(Arc::clone)).chain(before_field.clone());
            Arc::new(Schema::new(fields.collect::<Vec<_>>()))
        };
        let value = |text: &str| -> ArrayRef { Arc::new(StringArray::from(vec![text])) };
        Ok(Form {
            written: with(&WRITTEN),
            shown: with(&SHOWN),
            database: relation.origin().database.as_deref().map(value),
            schema: value(&relation.origin().schema),
            table: value(&relation.origin().table),
            before,
            relation,
        })
    }

    /// The relation.
    pub fn relation(&self) -> &Arc<Relation> {
        &self.relation
    }

    /// The schema of the columns that [`Form::column`] makes.
    pub fn written(&self) -> &SchemaRef {
        &self.written
    }

    /// The schema that an Arrow reader is shown.
    pub fn shown(&self) -> &SchemaRef {
        &self.shown
    }

    /// Column `index` of the written schema, made of the columns of a batch of the relation and what else the batch says.
    pub fn column(
        &self,
        index: usize,
        columns: &[ArrayRef],
        unchanged: Option<&Unchanged>,
        before: Option<&BeforeImages>,
    ) -> Result<ArrayRef> {
        let table_columns = self.relation.columns().len();
        let metadata = |column: MetadataColumn| &columns[table_columns + column as usize];
        let Some(form) = index.checked_sub(table_columns) else { return Ok(Arc::clone(&columns[index])) };
        let rows = metadata(MetadataColumn::Timestamp).len();
        Ok(match FormColumn::ALL[form] {
            FormColumn::Timestamp => Arc::clone(metadata(MetadataColumn::Timestamp)),
            FormColumn::Sequence => Arc::new(sequence_text(metadata(MetadataColumn::Sequence))?),
            FormColumn::ChangeType => Arc::clone(metadata(MetadataColumn::ChangeType)),
            FormColumn::Deleted => Arc::new(deleted(metadata(MetadataColumn::ChangeType))),
            FormColumn::ReadTimestamp => Arc::clone(metadata(MetadataColumn::ReadTimestamp)),
            FormColumn::ReadMethod => Arc::clone(metadata(MetadataColumn::ReadMethod)),
            FormColumn::Source => Arc::new(self.source(metadata(MetadataColumn::Source).as_struct(), rows)?),
            FormColumn::Unchanged => self.unchanged(unchanged, rows),
            FormColumn::Before => self.before(before, rows)?,
        })
    }

    /// Whole rows only: a part of one could not be told from a row with NULLs.
    fn before(&self, before: Option<&BeforeImages>, rows: usize) -> Result<ArrayRef> {
        let fields = self.before.clone().ok_or_else(|| Error::internal("a file without before images was asked for them"))?;
        let Some(before) = before else { return Ok(new_null_array(&DataType::Struct(fields), rows)) };
        let whole = before.whole();
        let unfit = |error| {
            Error::internal("the before images of a batch do not fit its relation").context("relation", self.relation.name()).source(error)
        };
        let columns = if whole == before.present {
            before.columns.clone()
        } else {
            // Nothing lies under a null that somebody could find there.
            let partial = BooleanArray::new(!&whole, None);
            before.columns.iter().map(|column| nullif(column, &partial)).collect::<std::result::Result<_, _>>().map_err(unfit)?
        };
        let images = StructArray::try_new(fields, columns, Some(NullBuffer::new(whole))).map_err(unfit)?;
        Ok(Arc::new(images))
    }

    fn source(&self, place: &StructArray, rows: usize) -> Result<StructArray> {
        let DataType::Struct(fields) = WRITTEN[FormColumn::Source as usize].data_type() else {
            return Err(Error::internal("the source column is a struct"));
        };
        let constant = |value: &ArrayRef| -> Result<ArrayRef> {
            let keys = Int8Array::from(vec![0; rows]);
            let array = DictionaryArray::<Int8Type>::try_new(keys, Arc::clone(value));
            Ok(Arc::new(array.map_err(|error| Error::internal("a constant column has one value").source(error))?))
        };
        let database = match &self.database {
            Some(value) => constant(value)?,
            None => new_null_array(fields[0].data_type(), rows),
        };
        // By position: core's struct holds log_file, log_position, transaction.
        let arrays = vec![
            database,
            constant(&self.schema)?,
            constant(&self.table)?,
            Arc::clone(place.column(0)),
            Arc::clone(place.column(1)),
            Arc::clone(place.column(2)),
        ];
        StructArray::try_new(fields.clone(), arrays, None).map_err(|error| {
            Error::internal("the source column of a batch does not have its declared shape")
                .context("relation", self.relation.name())
                .source(error)
        })
    }

    fn unchanged(&self, unchanged: Option<&Unchanged>, rows: usize) -> ArrayRef {
        let Some(unchanged) = unchanged else {
            return new_null_array(WRITTEN[FormColumn::Unchanged as usize].data_type(), rows);
        };
        let names: Vec<(&str, _)> =
            unchanged.columns.iter().map(|(column, bits)| (self.relation.columns()[*column].name(), bits)).collect();
        let item = Arc::new(Field::new_list_field(DataType::Utf8, false));
        let mut list = ListBuilder::new(StringBuilder::new()).with_field(item);
        for row in 0..rows {
            let mut any = false;
            for (name, bits) in &names {
                if bits.value(row) {
                    list.values().append_value(name);
                    any = true;
                }
            }
            list.append(any);
        }
        let list: ListArray = list.finish();
        Arc::new(list)
    }
}

/// True if the encoder takes the type. It ends the process on some others, so they are sorted out here.
fn is_writable(data_type: &DataType) -> bool {
    match data_type {
        DataType::Union(..) | DataType::RunEndEncoded(..) | DataType::Interval(_) => false,
        DataType::Struct(fields) => !fields.is_empty() && fields.iter().all(|field| is_writable(field.data_type())),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) | DataType::Map(item, _) => {
            is_writable(item.data_type())
        }
        DataType::ListView(_) | DataType::LargeListView(_) => false,
        // Dictionaries of text and bytes, and of what a column of its own may be, but not of dictionaries.
        DataType::Dictionary(_, value) => value.is_primitive() || value.is_string() || value.is_binary(),
        DataType::Timestamp(..) | DataType::Time32(_) | DataType::Time64(_) | DataType::Date32 | DataType::Date64 => true,
        DataType::Duration(_) | DataType::Boolean | DataType::Null => true,
        _ => data_type.is_numeric() || data_type.is_string() || data_type.is_binary() || matches!(data_type, DataType::FixedSizeBinary(_)),
    }
}

/// The text of positions. A transaction's rows share all but the last word, so two thirds of the digits are mostly copied.
fn sequence_text(positions: &ArrayRef) -> Result<StringArray> {
    const SHARED_BYTES: usize = 16;
    const SHARED_TEXT: usize = 34;
    let positions = positions.as_fixed_size_binary();
    let rows = positions.len();
    let mut text = vec![0; rows * LogPosition::TEXT_LEN];
    let (mut last, mut last_text) = ([0; LogPosition::LEN], [0; LogPosition::TEXT_LEN]);
    LogPosition::write_text(&last, &mut last_text);
    for (row, out) in text.chunks_exact_mut(LogPosition::TEXT_LEN).enumerate() {
        let bytes: [u8; LogPosition::LEN] = positions.value(row).try_into().map_err(|_| Error::internal("a position has 24 bytes"))?;
        if bytes[..SHARED_BYTES] == last[..SHARED_BYTES] {
            write_hex(&bytes[SHARED_BYTES..], &mut last_text[SHARED_TEXT..]);
        } else {
            LogPosition::write_text(&bytes, &mut last_text);
        }
        last = bytes;
        out.copy_from_slice(&last_text);
    }
    let offsets = OffsetBuffer::from_repeated_length(LogPosition::TEXT_LEN, rows);
    StringArray::try_new(offsets, Buffer::from_vec(text), None)
        .map_err(|error| Error::internal("the text of positions is not text").source(error))
}

fn write_hex(bytes: &[u8], text: &mut [u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = HEX[usize::from(byte >> 4)];
        pair[1] = HEX[usize::from(byte & 15)];
    }
}

fn deleted(change_types: &ArrayRef) -> BooleanArray {
    let codes = change_types.as_dictionary::<Int8Type>().keys().values();
    let mut bits = BooleanBufferBuilder::new(codes.len());
    for &code in codes.iter() {
        bits.append(ChangeType::from_code(code).is_some_and(ChangeType::deletes));
    }
    BooleanArray::new(bits.finish(), None)
}
