//! Changes as short text, and what a transform makes of them as text.
//!
//! A line is a change. A row is its values between bars: `NULL`, `~` for what the log left out, `?` for what a before image does not
//! hold, and else the text of the value. The word in front of it says what happened:
//!
//! ```text
//! insert 1 | ada | 5
//! update 1 | ada | 6                  no before image
//! update 1 | ? | ? -> 1 | ~ | 6       a before image of the key alone
//! rekey  1 | ada | 6 -> 2 | ada | 6   a change of key, which is two changes
//! delete 2 | ~ | ~
//! truncate
//! ```

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow::buffer::BooleanBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use logweir_core::{
    BeforeImages, ChangeBatch, ChangeType, Column, LogPosition, MemoryPermit, MetadataBuilder, Relation, RelationName, SourcePlace,
    TimestampMicros, Unchanged,
};

/// What stands for a value that is not there: in a row one that the log left out, in a before image one that it does not hold.
pub(crate) const LEFT_OUT: &str = "~";

/// A value as text, NULL, or [`LEFT_OUT`].
pub(crate) type Cell = Option<String>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) change_type: ChangeType,
    pub(crate) position: LogPosition,
    pub(crate) timestamp: i64,
    pub(crate) values: Vec<Cell>,
    pub(crate) before: Option<Vec<Cell>>,
}

/// A version of a table.
pub(crate) fn table(name: &str, version: u32, columns: &[(&str, DataType)], key: &[&str]) -> Arc<Relation> {
    let (schema, table) = name.split_once('.').unwrap();
    let column = |(name, data_type): &(&str, DataType)| Column {
        field: Arc::new(Field::new(*name, data_type.clone(), true)),
        source_type: data_type.to_string().to_lowercase(),
        detail: Default::default(),
    };
    let place = |key: &&str| columns.iter().position(|(name, _)| name == key).unwrap();
    let key = key.iter().map(place).collect();
    Arc::new(Relation::new(RelationName::new(schema, table), version, LogPosition::MIN, columns.iter().map(column).collect(), key))
}

/// The changes of a text, each in a transaction of its own.
pub(crate) fn changes(text: &str) -> Vec<Change> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.enumerate().flat_map(|(number, line)| of_line(number as u64 + 1, line)).collect()
}

fn of_line(number: u64, line: &str) -> Vec<Change> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let row = |text: &str| -> Vec<Cell> {
        text.split('|')
            .map(|value| match value.trim() {
                "NULL" => None,
                "?" => Some(LEFT_OUT.to_owned()),
                value => Some(value.to_owned()),
            })
            .collect()
    };
    let (before, after) = match rest.split_once("->") {
        Some((before, after)) => (Some(row(before)), row(after)),
        None => (None, row(rest)),
    };
    let change = |change_type: ChangeType, values: Vec<Cell>, before: Option<Vec<Cell>>| Change {
        change_type,
        position: LogPosition::new(0, 1, number, 1, change_type != ChangeType::UpdateDelete),
        timestamp: number as i64 * 1_000_000,
        values,
        before,
    };
    match word {
        "insert" => vec![change(ChangeType::Insert, after, None)],
        "read" => vec![change(ChangeType::Read, after, None)],
        "update" => vec![change(ChangeType::UpdateInsert, after, before)],
        "rekey" => {
            let before = before.unwrap();
            vec![change(ChangeType::UpdateDelete, before.clone(), None), change(ChangeType::UpdateInsert, after, Some(before))]
        }
        "delete" => vec![change(ChangeType::Delete, after, None)],
        "truncate" => vec![change(ChangeType::Truncate, Vec::new(), None)],
        other => panic!("{other} is no change"),
    }
}

/// A batch of these changes, with before images where they are given.
pub(crate) fn batch(relation: &Arc<Relation>, changes: &[Change]) -> ChangeBatch {
    let width = relation.columns().len();
    let column = |index: usize, cells: &dyn Fn(&Change) -> Option<Vec<Cell>>| -> ArrayRef {
        let texts = StringArray::from_iter(changes.iter().map(|change| {
            let value = cells(change).and_then(|values| values.get(index).cloned().flatten());
            value.filter(|value| value != LEFT_OUT)
        }));
        cast(&texts, relation.columns()[index].field.data_type()).unwrap()
    };
    let left_out = |cells: &dyn Fn(&Change) -> Option<Vec<Cell>>| -> Option<Unchanged> {
        let columns: Vec<_> = (0..width)
            .map(|index| {
                let bits: BooleanBuffer = (changes.iter())
                    .map(|change| {
                        cells(change).is_some_and(|values| values.get(index).is_some_and(|value| value.as_deref() == Some(LEFT_OUT)))
                    })
                    .collect();
                (index, bits)
            })
            .filter(|(_, bits)| bits.count_set_bits() > 0)
            .collect();
        (!columns.is_empty()).then_some(Unchanged { columns })
    };
    let values = |change: &Change| Some(change.values.clone());
    let before = |change: &Change| change.before.clone();

    let mut metadata = MetadataBuilder::new("test-log");
    for change in changes {
        let place =
            SourcePlace { log_position: change.position.commit(), log_file: Some(metadata.intern_file("log.1")), transaction: None };
        let read = TimestampMicros(change.timestamp + 500_000);
        metadata.push(TimestampMicros(change.timestamp), change.position, change.change_type, read, place);
    }
    let last = metadata.last_position().unwrap();
    let mut columns: Vec<ArrayRef> = (0..width).map(|index| column(index, &values)).collect();
    columns.extend(metadata.finish());
    let present: BooleanBuffer = changes.iter().map(|change| change.before.is_some()).collect();
    ChangeBatch {
        relation: Arc::clone(relation),
        records: RecordBatch::try_new(Arc::clone(relation.schema()), columns).unwrap(),
        unchanged: left_out(&values),
        before: (present.count_set_bits() > 0).then(|| BeforeImages {
            columns: (0..width).map(|index| column(index, &before)).collect(),
            present,
            absent: left_out(&before),
        }),
        last,
        memory: Arc::new(MemoryPermit::uncounted()),
    }
}

/// The changes of a batch; fails if it is not as a batch should be.
pub(crate) fn unbatched(batch: &ChangeBatch) -> Vec<Change> {
    batch.records.columns().iter().zip(batch.relation.schema().fields()).for_each(|(column, field)| {
        assert_eq!(column.data_type(), field.data_type(), "{}", field.name());
    });
    assert_eq!(batch.last, batch.position(batch.rows() - 1));
    let positions: Vec<LogPosition> = (0..batch.rows()).map(|row| batch.position(row)).collect();
    assert!(positions.is_sorted(), "positions rise");
    let options = FormatOptions::new().with_null("NULL");
    let width = batch.relation.columns().len();
    let timestamps = cast(batch.metadata(logweir_core::MetadataColumn::Timestamp), &DataType::Int64).unwrap();
    let timestamps = arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(&timestamps).clone();
    (0..batch.rows())
        .map(|row| Change {
            change_type: ChangeType::from_code(batch.change_type_codes()[row]).unwrap(),
            position: batch.position(row),
            timestamp: timestamps.value(row),
            values: (0..width)
                .map(|index| {
                    let column = batch.records.column(index);
                    if batch.unchanged.as_ref().is_some_and(|unchanged| unchanged.is_unchanged(index, row)) {
                        assert!(column.is_null(row), "what the log left out is null");
                        return Some(LEFT_OUT.to_owned());
                    }
                    let text = ArrayFormatter::try_new(column.as_ref(), &options).unwrap().value(row).to_string();
                    column.is_valid(row).then_some(text)
                })
                .collect(),
            before: None,
        })
        .collect()
}

/// A batch as text.
pub(crate) fn printed(batch: &ChangeBatch) -> String {
    let mut text = format!("{}\n", described(&batch.relation));
    for change in unbatched(batch) {
        let values: Vec<&str> = change.values.iter().map(|value| value.as_deref().unwrap_or("NULL")).collect();
        text += &format!("{} {}", change.change_type.name(), values.join(" | "));
        if batch.relation.name().schema == "logweir" {
            text += &format!(" @{}", change.position.commit());
        }
        text = format!("{}\n", text.trim_end());
    }
    text
}

/// A relation as text: name, version, columns with their types, a star behind those of the key.
pub(crate) fn described(relation: &Relation) -> String {
    let columns = relation.columns().iter().enumerate().map(|(index, column)| {
        let key = if relation.key_declared() && relation.key().contains(&index) { "*" } else { "" };
        format!("{}{key} {}", column.name(), column.field.data_type())
    });
    let version = if relation.version() == 1 { String::new() } else { format!(" v{}", relation.version()) };
    format!("{}{version}: {}", relation.name(), columns.collect::<Vec<_>>().join(", "))
}
