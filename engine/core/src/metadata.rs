//! The metadata columns that stand behind the table's columns in every batch.
//!
//! They are cheap here (fixed-size binary, dictionaries, 64-bit integers); a writer gives them their public form.

use std::sync::{Arc, LazyLock};

use arrow_array::builder::FixedSizeBinaryBuilder;
use arrow_array::types::{Int8Type, Int32Type};
use arrow_array::{ArrayRef, DictionaryArray, Int8Array, Int32Array, StringArray, StructArray, TimestampMicrosecondArray, UInt64Array};
use arrow_buffer::NullBuffer;
use arrow_schema::{DataType, Field, FieldRef, Fields, TimeUnit};

use crate::change::ChangeType;
use crate::clock::TimestampMicros;
use crate::position::LogPosition;

/// A metadata column, by its place behind the table's columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum MetadataColumn {
    /// `_metadata_timestamp`: source commit time, `Timestamp(µs, UTC)`, never decreasing along a log.
    Timestamp = 0,
    /// `_metadata_sequence`: [`LogPosition`], `FixedSizeBinary(24)`.
    Sequence = 1,
    /// `_metadata_change_type`: [`ChangeType::name`], `Dictionary(Int8, Utf8)` whose keys are [`ChangeType::code`].
    ChangeType = 2,
    /// `_metadata_read_timestamp`: when the engine read the change, `Timestamp(µs, UTC)`.
    ReadTimestamp = 3,
    /// `_metadata_read_method`: how it was read (`mysql-cdc-binlog`), `Dictionary(Int8, Utf8)`.
    ReadMethod = 4,
    /// `_metadata_source`: struct of `log_file` (`Dictionary(Int32, Utf8)`), `log_position` (`UInt64`: an offset, LSN or
    /// SCN) and `transaction` (`Dictionary(Int32, Utf8)`: a GTID or transaction id). Database, schema and table
    /// are the relation's.
    Source = 5,
}

impl MetadataColumn {
    /// How many there are.
    pub const COUNT: usize = 6;

    /// The column's name.
    pub fn name(self) -> &'static str {
        match self {
            MetadataColumn::Timestamp => "_metadata_timestamp",
            MetadataColumn::Sequence => "_metadata_sequence",
            MetadataColumn::ChangeType => "_metadata_change_type",
            MetadataColumn::ReadTimestamp => "_metadata_read_timestamp",
            MetadataColumn::ReadMethod => "_metadata_read_method",
            MetadataColumn::Source => "_metadata_source",
        }
    }
}

fn dictionary(key: DataType) -> DataType {
    DataType::Dictionary(Box::new(key), Box::new(DataType::Utf8))
}

static SOURCE_FIELDS: LazyLock<Fields> = LazyLock::new(|| {
    Fields::from(vec![
        Field::new("log_file", dictionary(DataType::Int32), true),
        Field::new("log_position", DataType::UInt64, false),
        Field::new("transaction", dictionary(DataType::Int32), true),
    ])
});

static FIELDS: LazyLock<[FieldRef; MetadataColumn::COUNT]> = LazyLock::new(|| {
    let timestamp = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    [
        Arc::new(Field::new(MetadataColumn::Timestamp.name(), timestamp(), false)),
        Arc::new(Field::new(MetadataColumn::Sequence.name(), DataType::FixedSizeBinary(LogPosition::LEN as i32), false)),
        Arc::new(Field::new(MetadataColumn::ChangeType.name(), dictionary(DataType::Int8), false)),
        Arc::new(Field::new(MetadataColumn::ReadTimestamp.name(), timestamp(), false)),
        Arc::new(Field::new(MetadataColumn::ReadMethod.name(), dictionary(DataType::Int8), false)),
        Arc::new(Field::new(MetadataColumn::Source.name(), DataType::Struct(SOURCE_FIELDS.clone()), false)),
    ]
});

static CHANGE_TYPE_NAMES: LazyLock<ArrayRef> =
    LazyLock::new(|| Arc::new(StringArray::from_iter_values(ChangeType::ALL.iter().map(|change_type| change_type.name()))));

/// The fields of the metadata columns, in the order of [`MetadataColumn`].
pub fn metadata_fields() -> &'static [FieldRef; MetadataColumn::COUNT] {
    &FIELDS
}

/// Where a change was read: shared by every row of an event or transaction.
#[derive(Debug, Clone, Copy)]
pub struct SourcePlace {
    /// Offset in the file, LSN or SCN.
    pub log_position: u64,
    /// Made by [`MetadataBuilder::intern_file`].
    pub log_file: Option<i32>,
    /// Made by [`MetadataBuilder::intern_transaction`].
    pub transaction: Option<i32>,
}

/// Builds the metadata columns of one batch. Appending allocates only as vectors grow.
#[derive(Debug)]
pub struct MetadataBuilder {
    read_method: ArrayRef,
    timestamps: Vec<i64>,
    sequences: Vec<u8>,
    change_types: Vec<i8>,
    read_timestamps: Vec<i64>,
    log_files: Names,
    log_positions: Vec<u64>,
    transactions: Names,
}

/// A dictionary column under construction. Names arrive in runs, so only the last one is looked at.
#[derive(Debug, Default)]
struct Names {
    values: Vec<String>,
    keys: Vec<i32>,
    nulls: usize,
}

impl Names {
    fn intern(&mut self, name: &str) -> i32 {
        if self.values.last().is_none_or(|last| last != name) {
            self.values.push(name.to_owned());
        }
        self.values.len() as i32 - 1
    }

    fn push(&mut self, key: Option<i32>) {
        self.nulls += usize::from(key.is_none());
        self.keys.push(key.unwrap_or(-1));
    }

    fn finish(&mut self) -> ArrayRef {
        let nulls = (self.nulls > 0).then(|| NullBuffer::from_iter(self.keys.iter().map(|&key| key >= 0)));
        let keys = self.keys.drain(..).map(|key| key.max(0)).collect::<Vec<_>>();
        let values = StringArray::from_iter_values(self.values.drain(..));
        self.nulls = 0;
        let keys = Int32Array::new(keys.into(), nulls);
        Arc::new(DictionaryArray::<Int32Type>::try_new(keys, Arc::new(values)).expect("a key is the index of an interned name"))
    }
}

impl MetadataBuilder {
    /// A builder for changes read by `read_method` (`mysql-cdc-binlog`).
    pub fn new(read_method: &str) -> Self {
        MetadataBuilder {
            read_method: Arc::new(StringArray::from(vec![read_method])),
            timestamps: Vec::new(),
            sequences: Vec::new(),
            change_types: Vec::new(),
            read_timestamps: Vec::new(),
            log_files: Names::default(),
            log_positions: Vec::new(),
            transactions: Names::default(),
        }
    }

    /// Rows appended since the last [`finish`](Self::finish).
    pub fn len(&self) -> usize {
        self.timestamps.len()
    }

    /// True if no row was appended since the last [`finish`](Self::finish).
    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        // Per row: 3 × 8, 24, 1, 2 × 4; names are few.
        self.len() * 57
    }

    /// The key of a log file's name for [`SourcePlace`]; valid until the next [`finish`](Self::finish).
    pub fn intern_file(&mut self, name: &str) -> i32 {
        self.log_files.intern(name)
    }

    /// The key of a transaction's name for [`SourcePlace`]; valid until the next [`finish`](Self::finish).
    pub fn intern_transaction(&mut self, name: &str) -> i32 {
        self.transactions.intern(name)
    }

    /// Appends a row.
    #[inline]
    pub fn push(
        &mut self,
        timestamp: TimestampMicros,
        position: LogPosition,
        change_type: ChangeType,
        read_timestamp: TimestampMicros,
        place: SourcePlace,
    ) {
        self.timestamps.push(timestamp.0);
        self.sequences.extend_from_slice(position.as_bytes());
        self.change_types.push(change_type.code());
        self.read_timestamps.push(read_timestamp.0);
        self.log_positions.push(place.log_position);
        self.log_files.push(place.log_file);
        self.transactions.push(place.transaction);
    }

    /// The position of the last row appended.
    pub fn last_position(&self) -> Option<LogPosition> {
        let start = self.sequences.len().checked_sub(LogPosition::LEN)?;
        self.sequences[start..].try_into().ok().map(LogPosition::from_bytes)
    }

    /// The columns, in the order of [`metadata_fields`]; the builder is empty again and keeps its read method.
    pub fn finish(&mut self) -> Vec<ArrayRef> {
        let rows = self.len();
        let timestamps =
            |values: &mut Vec<i64>| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from(std::mem::take(values)).with_timezone("UTC")) };
        let dictionary = |keys: Vec<i8>, values: &ArrayRef| -> ArrayRef {
            Arc::new(
                DictionaryArray::<Int8Type>::try_new(Int8Array::from(keys), Arc::clone(values))
                    .expect("keys are codes of the dictionary's values"),
            )
        };
        let sequences = if rows == 0 {
            FixedSizeBinaryBuilder::new(LogPosition::LEN as i32).finish()
        } else {
            let bytes = std::mem::take(&mut self.sequences);
            arrow_array::FixedSizeBinaryArray::new(LogPosition::LEN as i32, bytes.into(), None)
        };
        let source = StructArray::new(
            SOURCE_FIELDS.clone(),
            vec![self.log_files.finish(), Arc::new(UInt64Array::from(std::mem::take(&mut self.log_positions))), self.transactions.finish()],
            None,
        );
        vec![
            timestamps(&mut self.timestamps),
            Arc::new(sequences),
            dictionary(std::mem::take(&mut self.change_types), &CHANGE_TYPE_NAMES),
            timestamps(&mut self.read_timestamps),
            dictionary(vec![0; rows], &self.read_method),
            Arc::new(source),
        ]
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn columns_have_the_declared_types() {
        let mut builder = MetadataBuilder::new("mysql-cdc-binlog");
        for rows in [0, 3] {
            for i in 0..rows {
                let place = SourcePlace {
                    log_position: 4,
                    log_file: Some(builder.intern_file("mysql-bin.000001")),
                    transaction: (i > 0).then(|| builder.intern_transaction("0-1-7")),
                };
                let position = LogPosition::new(0, 1, 4, i + 1, true);
                builder.push(TimestampMicros(1), position, ChangeType::Insert, TimestampMicros(2), place);
                assert_eq!(builder.last_position(), Some(position));
            }
            let columns = builder.finish();
            assert_eq!(columns.len(), MetadataColumn::COUNT);
            for (column, field) in columns.iter().zip(metadata_fields()) {
                assert_eq!((column.data_type(), column.len()), (field.data_type(), rows as usize), "{}", field.name());
            }
            assert!(builder.is_empty());
        }
    }
}
