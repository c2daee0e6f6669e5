//! The changes of one relation version under construction: values go from the log's bytes straight into their columns.
//!
//! A transaction reaches this place only when it is committed, so every row here has happened and may be handed out.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::DataType;
use logweir_core::{
    ChangeBatch, ChangeType, Error, Incarnation, LogPosition, MemoryPermit, MetadataBuilder, Relation, Result, SourcePlace,
    TimestampMicros, UnchangedBuilder,
};

use crate::before::BeforeBuffer;
use crate::lsn::Lsn;
use crate::message::{Bytes, Cell, Old, RowMessage, cell, column_count};
use crate::types::{ColumnBuilder, ColumnType, ValueError};

/// How changes were read: `_metadata_read_method`.
pub(crate) const READ_METHOD: &str = "postgresql-cdc-wal";

/// What the rows of a transaction have in common, and how many there were.
#[derive(Debug, Clone)]
pub(crate) struct RowContext {
    pub(crate) incarnation: Incarnation,
    pub(crate) commit_lsn: Lsn,
    pub(crate) xid: u32,
    /// Number of the last change.
    pub(crate) ordinal: u64,
    pub(crate) commit_time: TimestampMicros,
    pub(crate) read_time: TimestampMicros,
    /// Where the change that is read stands.
    pub(crate) lsn: Lsn,
}

impl RowContext {
    fn position(&self, second_half: bool) -> LogPosition {
        LogPosition::new(self.incarnation, 0, self.commit_lsn.0, self.ordinal, second_half)
    }
}

/// A row that cannot be carried.
#[derive(Debug)]
pub(crate) enum RowError {
    /// The bytes are not what the format says.
    Format(Error),
    /// A value of the column with this index in the table.
    Value(usize, ValueError),
    /// A value of a column that has no binary form here came in one.
    Binary,
}

impl From<Error> for RowError {
    fn from(error: Error) -> Self {
        RowError::Format(error)
    }
}

/// A column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    /// Its index in the relation; `None` if it is not followed.
    pub(crate) column: Option<usize>,
    /// Part of what identifies a row.
    pub(crate) key: bool,
    /// Its binary form can be read.
    pub(crate) binary: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct RowBuffer {
    relation: Arc<Relation>,
    targets: Vec<Target>,
    builders: Vec<ColumnBuilder>,
    metadata: MetadataBuilder,
    unchanged: UnchangedBuilder,
    /// What updated rows were before; `None` if nobody asks.
    before: Option<BeforeBuffer>,
    /// Bytes held, estimated from above as tuples go in.
    bytes: usize,
    /// Bytes a row takes beside its tuple.
    row_bytes: usize,
    /// The transaction that the last row was of, and its key in the metadata.
    transaction: Option<(u32, i32)>,
    transaction_name: String,
    /// A partition of a table with whole rows in the log may log its key only, and its rows are said to be whole.
    whole_rows: bool,
}

impl RowBuffer {
    /// A buffer for `relation`, whose columns have these types; `targets` are the columns of the table.
    /// With `whole_rows`, old rows that are said to be whole are; with `before_images`, old rows of updates are handed out too.
    pub(crate) fn new(relation: Arc<Relation>, types: &[ColumnType], targets: Vec<Target>, whole_rows: bool, before_images: bool) -> Self {
        let width = |column: &ColumnType| match column.data_type() {
            DataType::Decimal256(..) => 32,
            DataType::Decimal128(..) => 16,
            _ => 8,
        };
        let value_bytes = types.iter().map(width).sum::<usize>();
        RowBuffer {
            builders: types.iter().map(|column| ColumnBuilder::new(column, 0)).collect(),
            metadata: MetadataBuilder::new(READ_METHOD),
            unchanged: UnchangedBuilder::new(types.len()),
            before: before_images.then(|| BeforeBuffer::new(types)),
            bytes: 0,
            // Metadata: 57 bytes, and their share of bitmaps. A row has room for its before image, whether it has one or not.
            row_bytes: 64 + if before_images { 2 * value_bytes } else { value_bytes },
            transaction: None,
            transaction_name: String::new(),
            relation,
            targets,
            whole_rows,
        }
    }

    pub(crate) fn relation(&self) -> &Arc<Relation> {
        &self.relation
    }

    /// True if rows of this relation version are taken as this buffer takes them.
    pub(crate) fn is_of(&self, relation: &Arc<Relation>, whole_rows: bool) -> bool {
        Arc::ptr_eq(&self.relation, relation) && self.whole_rows == whole_rows
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The name of a column of the table, if it is followed.
    pub(crate) fn column_name(&self, column: usize) -> Option<&str> {
        let target = self.targets.get(column)?.column?;
        self.relation.columns().get(target).map(|column| column.name())
    }

    /// A new row.
    pub(crate) fn insert(&mut self, row: &mut RowContext, message: &RowMessage<'_>) -> Result<(), RowError> {
        let new = message.new.ok_or_else(|| Error::corrupt("an insert in the log has no row"))?;
        row.ordinal += 1;
        self.append(row, ChangeType::Insert, true, new)
    }

    /// A changed row: one change, or two if its key changed.
    pub(crate) fn update(&mut self, row: &mut RowContext, message: &RowMessage<'_>) -> Result<(), RowError> {
        let new = message.new.ok_or_else(|| Error::corrupt("an update in the log has no new row"))?;
        row.ordinal += 1;
        let Some(old) = message.old else {
            return self.append(row, ChangeType::UpdateInsert, true, new);
        };
        if self.key_changed(old.tuple, new)? {
            self.append_old(row, ChangeType::UpdateDelete, false, old)?;
        }
        if let Some(images) = &mut self.before {
            let whole = old.whole && self.whole_rows;
            self.bytes += images.append(self.metadata.len(), old.tuple, &self.targets, whole)?;
        }
        self.append_over(row, old, new)
    }

    /// A row that is gone.
    pub(crate) fn delete(&mut self, row: &mut RowContext, message: &RowMessage<'_>) -> Result<(), RowError> {
        let old = message.old.ok_or_else(|| Error::corrupt("a delete in the log has no old row"))?;
        row.ordinal += 1;
        self.append_old(row, ChangeType::Delete, true, old)
    }

    /// All rows are gone.
    pub(crate) fn truncate(&mut self, row: &mut RowContext) {
        row.ordinal += 1;
        self.builders.iter_mut().for_each(ColumnBuilder::append_null);
        self.push(row, ChangeType::Truncate, true, 0);
    }

    fn append(&mut self, row: &RowContext, change_type: ChangeType, second_half: bool, mut tuple: Bytes<'_>) -> Result<(), RowError> {
        let length = tuple.0.len();
        self.count(&mut tuple)?;
        for index in 0..self.targets.len() {
            let cell = cell(&mut tuple)?;
            self.append_cell(index, cell)?;
        }
        self.push(row, change_type, second_half, length - tuple.0.len());
        Ok(())
    }

    /// A new row whose values that the log leaves out are in the old one, as far as that holds them.
    fn append_over(&mut self, row: &RowContext, mut old: Old<'_>, mut new: Bytes<'_>) -> Result<(), RowError> {
        let mut length = new.0.len();
        let whole = old.whole && self.whole_rows;
        self.count(&mut old.tuple)?;
        self.count(&mut new)?;
        for index in 0..self.targets.len() {
            let (before, after) = (cell(&mut old.tuple)?, cell(&mut new)?);
            let known = whole || self.targets[index].key;
            if known && after == Cell::Unchanged {
                length += before.len();
                self.append_cell(index, before)?;
            } else {
                self.append_cell(index, after)?;
            }
        }
        self.push(row, ChangeType::UpdateInsert, true, length - new.0.len());
        Ok(())
    }

    /// An old row. Where the log has only its key, the other values are the ones before: unchanged.
    fn append_old(&mut self, row: &RowContext, change_type: ChangeType, second_half: bool, mut old: Old<'_>) -> Result<(), RowError> {
        let length = old.tuple.0.len();
        self.count(&mut old.tuple)?;
        for index in 0..self.targets.len() {
            let cell = cell(&mut old.tuple)?;
            let known = (old.whole && self.whole_rows) || self.targets[index].key;
            self.append_cell(index, if known { cell } else { Cell::Unchanged })?;
        }
        self.push(row, change_type, second_half, length - old.tuple.0.len());
        Ok(())
    }

    fn key_changed(&self, mut old: Bytes<'_>, mut new: Bytes<'_>) -> Result<bool, RowError> {
        self.count(&mut old)?;
        self.count(&mut new)?;
        for target in &self.targets {
            let (before, after) = (cell(&mut old)?, cell(&mut new)?);
            if target.key && target.column.is_some() && after != Cell::Unchanged && before != after {
                return Ok(true);
            }
        }
        Ok(false)
    }

    #[inline]
    fn count(&self, tuple: &mut Bytes<'_>) -> Result<(), RowError> {
        if column_count(tuple)? != self.targets.len() {
            return Err(RowError::Format(Error::corrupt("a row in the log has another number of columns than its table")));
        }
        Ok(())
    }

    #[inline]
    fn append_cell(&mut self, index: usize, cell: Cell<'_>) -> Result<(), RowError> {
        let target = self.targets[index];
        let Some(column) = target.column else { return Ok(()) };
        if !append_cell(&mut self.builders[column], index, target, cell)? {
            self.unchanged.mark(column, self.metadata.len());
        }
        Ok(())
    }

    #[inline]
    fn push(&mut self, row: &RowContext, change_type: ChangeType, second_half: bool, tuple_bytes: usize) {
        let transaction = match self.transaction {
            Some((xid, key)) if xid == row.xid => key,
            _ => {
                use std::fmt::Write as _;
                self.transaction_name.clear();
                // Writing to a string does not fail.
                let _ = write!(self.transaction_name, "{}", row.xid);
                let key = self.metadata.intern_transaction(&self.transaction_name);
                self.transaction = Some((row.xid, key));
                key
            }
        };
        let place = SourcePlace { log_position: row.lsn.0, log_file: None, transaction: Some(transaction) };
        self.metadata.push(row.commit_time, row.position(second_half), change_type, row.read_time, place);
        self.bytes += tuple_bytes + self.row_bytes;
    }

    /// Cuts off everything that is whole as rows. `None` if there is nothing.
    pub(crate) fn cut(&mut self) -> Result<Option<ChangeBatch>> {
        let rows = self.metadata.len();
        let Some(last) = self.metadata.last_position() else {
            // A row that failed may have left values behind.
            self.builders.iter_mut().for_each(|builder| drop(builder.finish()));
            self.before.as_mut().map(|images| images.finish(rows));
            return Ok(None);
        };
        let mut columns: Vec<ArrayRef> = self.builders.iter_mut().map(ColumnBuilder::finish).collect();
        for column in &mut columns {
            if column.len() > rows {
                *column = column.slice(0, rows);
            }
        }
        columns.extend(self.metadata.finish());
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let records = RecordBatch::try_new_with_options(Arc::clone(self.relation.schema()), columns, &options)
            .map_err(|error| Error::internal("could not put a batch together").context("relation", self.relation.name()).source(error))?;
        let unchanged = self.unchanged.finish(rows);
        let before = self.before.as_mut().and_then(|images| images.finish(rows));
        self.bytes = 0;
        self.transaction = None;
        let memory = Arc::new(MemoryPermit::uncounted());
        Ok(Some(ChangeBatch { relation: Arc::clone(&self.relation), records, unchanged, before, last, memory }))
    }
}

/// Gives a column a value; false if it is one that is not there, for which the column has a null.
#[inline]
pub(crate) fn append_cell(builder: &mut ColumnBuilder, index: usize, target: Target, cell: Cell<'_>) -> Result<bool, RowError> {
    match cell {
        Cell::Text(value) => builder.append_text(value).map_err(|error| RowError::Value(index, error))?,
        Cell::Binary(value) if target.binary => builder.append_binary(value).map_err(|error| RowError::Value(index, error))?,
        Cell::Binary(_) => return Err(RowError::Binary),
        Cell::Null => builder.append_null(),
        Cell::Unchanged => {
            builder.append_null();
            return Ok(false);
        }
    }
    Ok(true)
}
