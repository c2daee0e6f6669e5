//! The quarantine: changes that a rule could not carry, kept with the reason.
//!
//! They land like any other change, exactly once, in the table `logweir.quarantine` of every destination. What they hold has
//! been through the masks, and of what a rule is given only what it takes as it is: what it leaves out, or makes something else
//! of, may be what must not be seen. The row is kept as JSON, so that one table takes those of every other.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, RecordBatch, StringArray, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Int8Type, Schema};
use arrow::json::writer::{LineDelimited, WriterBuilder};
use jiter::Jiter;
use logweir_core::{ChangeBatch, ChangeType, Column, Error, LogPosition, MetadataColumn, Relation, RelationName, Result};

use super::apply::rows_of;
use super::rows::unexpected;

/// A change that is set aside.
#[derive(Debug, Clone)]
pub(crate) struct SetAside {
    pub(crate) row: usize,
    /// What could not be done, without a value.
    pub(crate) reason: String,
    /// Of its values only those of the declared key may be kept.
    pub(crate) key_only: bool,
}

/// Which columns of a table the targets of its rules have as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shown {
    /// No rule is for the table.
    Everything,
    /// True for those. What is not named is not shown.
    Columns(HashMap<String, bool>),
}

/// Where the table of changes that were set aside has what, by index.
mod place {
    pub(super) const DATABASE: usize = 0;
    pub(super) const SCHEMA: usize = 1;
    pub(super) const TABLE: usize = 2;
    pub(super) const ROW: usize = 5;
}

static RELATION: LazyLock<Arc<Relation>> = LazyLock::new(|| {
    let column = |name: &str| Column {
        field: Arc::new(Field::new(name, DataType::Utf8, true)),
        source_type: "text".to_owned(),
        detail: Default::default(),
    };
    let columns = ["database", "schema", "table", "rule", "reason", "row"].map(column).to_vec();
    Arc::new(Relation::new(RelationName::new(RelationName::OWN_SCHEMA, "quarantine"), 1, LogPosition::MIN, columns, Vec::new()))
});

/// The table of changes that were set aside.
pub(crate) fn relation() -> &'static Arc<Relation> {
    &RELATION
}

/// Sets changes of a batch aside, by row, ascending. `columns` are those whose values may be kept, by index.
pub(crate) fn set_aside(batch: &ChangeBatch, rule: &str, columns: &[usize], changes: &[SetAside]) -> Result<ChangeBatch> {
    let rows: Vec<usize> = changes.iter().map(|change| change.row).collect();
    let change_type = |row: usize| ChangeType::from_code(batch.change_type_codes()[row]).unwrap_or(ChangeType::Insert);
    let reason = |change: &SetAside| match change_type(change.row) {
        gone if gone.deletes() => format!("{} ({})", change.reason, gone.name()),
        _ => change.reason.clone(),
    };
    let RelationName { database, schema, table } = batch.relation.name();
    let same = |text: Option<&str>| -> ArrayRef { Arc::new(StringArray::from(vec![text; rows.len()])) };
    let key: &[usize] = if batch.relation.key_declared() { batch.relation.key() } else { &[] };
    let kept = changes
        .iter()
        .map(|change| json(batch, change.row, |index| columns.contains(&index) && (!change.key_only || key.contains(&index))));
    let kept: Vec<String> = kept.collect();
    let mut columns = vec![
        same(database.as_deref()),
        same(Some(schema)),
        same(Some(table)),
        same(Some(rule)),
        Arc::new(StringArray::from_iter_values(changes.iter().map(reason))),
        Arc::new(StringArray::from(kept)),
    ];
    for column in 0..MetadataColumn::COUNT {
        let source = rows_of(batch.records.column(batch.relation.columns().len() + column), &rows)?;
        columns.push(if column == MetadataColumn::ChangeType as usize {
            // A row that is set aside is there, even if it is one that should have gone.
            let kept = |row: &usize| Some(change_type(*row)).filter(|kept| !kept.deletes()).unwrap_or(ChangeType::Insert).code();
            let names = Arc::clone(source.as_dictionary::<Int8Type>().values());
            Arc::new(DictionaryArray::<Int8Type>::try_new(rows.iter().map(kept).collect(), names).map_err(unexpected)?)
        } else {
            source
        });
    }
    let records = RecordBatch::try_new(Arc::clone(RELATION.schema()), columns)
        .map_err(|_| Error::internal("changes that are set aside do not fit their table"))?;
    let mut aside = ChangeBatch {
        relation: Arc::clone(&RELATION),
        records,
        unchanged: None,
        before: None,
        last: batch.last,
        memory: Arc::clone(&batch.memory),
    };
    aside.last = aside.position(rows.len() - 1);
    Ok(aside)
}

/// Takes out of changes that were set aside before what the rules behind do not show of their tables, given by the names in the source: nobody
/// may find there what a later rule hides. Of a table that is not known nothing is kept.
pub(super) fn reduced(batch: ChangeBatch, shown: &HashMap<RelationName, Shown>) -> Result<ChangeBatch> {
    let text = |column: usize| batch.records.column(column).as_string_opt::<i32>();
    let (Some(databases), Some(schemas), Some(tables), Some(rows)) =
        (text(place::DATABASE), text(place::SCHEMA), text(place::TABLE), text(place::ROW))
    else {
        return Err(Error::internal("changes that are set aside do not fit their table"));
    };
    let reduced = (0..batch.rows()).map(|row| {
        if rows.is_null(row) {
            return None;
        }
        let database = databases.is_valid(row).then(|| databases.value(row).to_owned());
        let name = RelationName { database, ..RelationName::new(schemas.value(row), tables.value(row)) };
        Some(match shown.get(&name) {
            Some(Shown::Everything) => rows.value(row).to_owned(),
            Some(Shown::Columns(columns)) => fields_of(rows.value(row), |field| columns.get(field).copied().unwrap_or(false)),
            None => "{}".to_owned(),
        })
    });
    let reduced: StringArray = reduced.collect();
    let mut columns = batch.records.columns().to_vec();
    columns[place::ROW] = Arc::new(reduced);
    let records = RecordBatch::try_new(batch.records.schema(), columns).map_err(unexpected)?;
    Ok(ChangeBatch { records, before: None, ..batch })
}

/// The fields of a JSON object that are wanted, letter by letter as they were; none if it is no object.
fn fields_of(object: &str, wanted: impl Fn(&str) -> bool) -> String {
    let mut json = Jiter::new(object.as_bytes());
    let mut kept = String::from("{");
    let mut field = json.next_object().ok().flatten().map(str::to_owned);
    while let Some(name) = field {
        let start = json.current_index();
        if json.next_skip().is_err() {
            return "{}".to_owned();
        }
        if wanted(&name) {
            let Some(value) = object.get(start..json.current_index()) else { return "{}".to_owned() };
            if kept.len() > 1 {
                kept.push(',');
            }
            kept.push_str(&serde_json::Value::from(name).to_string());
            kept.push(':');
            kept.push_str(value);
        }
        field = json.next_key().ok().flatten().map(str::to_owned);
    }
    kept.push('}');
    kept
}

/// A row as a JSON object of the columns that are wanted. What the log left out is not there; NULL is.
fn json(batch: &ChangeBatch, row: usize, wanted: impl Fn(usize) -> bool) -> String {
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    for (index, column) in batch.relation.columns().iter().enumerate() {
        if !wanted(index) || batch.unchanged.as_ref().is_some_and(|unchanged| unchanged.is_unchanged(index, row)) {
            continue;
        }
        let value = shown(&batch.records.column(index).slice(row, 1));
        fields.push(Field::new(column.name(), value.data_type().clone(), true));
        columns.push(value);
    }
    row_json(fields, columns).unwrap_or_else(|| "{}".to_owned())
}

/// A value as JSON has it: what it has no type for as text.
fn shown(value: &ArrayRef) -> ArrayRef {
    let own = match value.data_type() {
        DataType::Dictionary(_, of) => of.as_ref(),
        other => other,
    };
    let text = own.is_decimal() || own.is_temporal() || matches!(own, DataType::Interval(_) | DataType::Duration(_));
    let infinite = match own {
        DataType::Float64 => value.as_primitive_opt::<Float64Type>().is_some_and(|values| !values.value(0).is_finite()),
        DataType::Float32 => value.as_primitive_opt::<Float32Type>().is_some_and(|values| !values.value(0).is_finite()),
        _ => false,
    };
    let to = if text || infinite { DataType::Utf8 } else { own.clone() };
    let as_number = || cast(value, &DataType::Int64).unwrap_or_else(|_| new_null_array(&DataType::Utf8, value.len()));
    match cast(value, &to) {
        Ok(shown) if shown.null_count() == value.null_count() => shown,
        // Days and moments that have no date are numbers since 1970.
        _ => as_number(),
    }
}

fn row_json(fields: Vec<Field>, columns: Vec<ArrayRef>) -> Option<String> {
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).ok()?;
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(Vec::new());
    writer.write(&batch).ok()?;
    writer.finish().ok()?;
    let text = String::from_utf8(writer.into_inner()).ok()?;
    Some(text.trim_end().to_owned())
}
