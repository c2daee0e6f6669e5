//! The changes of one relation version under construction.
//!
//! A row compiles into steps, one per column of the table, each with its builder; an image is walked once and every
//! value goes straight into its column. Rows of the transaction that is still open are told apart by their number only: what
//! is handed out is cut at the last row whose transaction is whole.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use logweir_core::{
    ChangeBatch, ChangeType, Error, Incarnation, LogPosition, MemoryPermit, MetadataBuilder, Relation, Result, SourcePlace,
    TimestampMicros, UnchangedBuilder,
};

use crate::before::BeforeBuffer;
use crate::column::{ColumnPlan, Kind, Wire};
use crate::reader::{Cursor, Truncated};
use crate::rows::{Cell, RowsHead, RowsKind, bit, locate, pass};
use crate::step::{CellError, Scratch, Step};

/// How changes were read: `_metadata_read_method`.
pub(crate) const READ_METHOD: &str = "mysql-cdc-binlog";

/// Text columns of a batch stay below this, so that a value of the greatest length still fits behind them.
const BUFFER_BYTES_MAX: usize = 1 << 30;

/// A column of the table, decoded or not.
#[derive(Debug)]
pub(crate) struct TableColumn {
    pub(crate) wire: Wire,
    /// `None` for a column that is not wanted.
    pub(crate) plan: Option<ColumnPlan>,
}

/// Where the rows of an event stand, and what is the same for all of them.
#[derive(Debug)]
pub(crate) struct RowContext<'a> {
    pub(crate) incarnation: Incarnation,
    pub(crate) file: u32,
    /// Where the transaction begins.
    pub(crate) commit: u64,
    /// Number of the last change in the transaction.
    pub(crate) ordinal: u64,
    /// The first half of a key change has been appended, its second half has not.
    pub(crate) half_done: bool,
    pub(crate) skip_through: Option<LogPosition>,
    pub(crate) commit_time: TimestampMicros,
    pub(crate) read_time: TimestampMicros,
    pub(crate) file_name: &'a str,
    pub(crate) event_offset: u64,
    pub(crate) transaction: Option<&'a str>,
}

impl RowContext<'_> {
    #[inline]
    fn position(&self, second_half: bool) -> LogPosition {
        LogPosition::new(self.incarnation, self.file, self.commit, self.ordinal, second_half)
    }
}

/// Why the rows of an event were not read to their end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// They were.
    End,
    /// The buffer is full: cut it and go on.
    Full,
    /// The next row has geometries of another spatial reference system: these columns, by index in the table.
    Srid(Vec<(usize, u32)>),
}

/// A row that cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RowError {
    /// The event ends inside it, or it does not end with the event.
    Truncated,
    /// A value of the column with this index in the table.
    Value(usize, crate::value::ValueError),
    /// An insert without this column: it took its default, which the log does not have.
    Default(usize),
    /// An image without this column of the key.
    Key(usize),
}

impl From<Truncated> for RowError {
    fn from(_: Truncated) -> Self {
        RowError::Truncated
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct RowBuffer {
    relation: Arc<Relation>,
    wires: Vec<Wire>,
    steps: Vec<Step>,
    /// Index in the relation of each column of the table.
    targets: Vec<Option<usize>>,
    /// Which columns of the table are of the key.
    in_key: Vec<bool>,
    /// Number of columns before and including the last one of the key, if these are exactly the key.
    key_prefix: Option<usize>,
    /// Indexes in the table of the geometry columns, with the system of their relation.
    geometries: Vec<(usize, u32)>,
    metadata: MetadataBuilder,
    unchanged: UnchangedBuilder,
    /// What updated rows were before; `None` if nobody asks.
    before: Option<BeforeBuffer>,
    /// Rows whose transaction is whole.
    committed: usize,
    /// Bytes held, estimated from above as images go in.
    bytes: usize,
    /// Bytes a row takes beside its image: the metadata, and what values grow by.
    row_bytes: usize,
}

/// Changes cut off from a buffer.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) batch: ChangeBatch,
    /// Rows whose transaction is whole.
    pub(crate) committed: usize,
    pub(crate) bytes: usize,
}

impl RowBuffer {
    /// A buffer for `relation`, whose columns are those of `columns` that have a plan. With `before_images`, what updated rows
    /// were before is handed out too.
    pub(crate) fn new(relation: Arc<Relation>, columns: &[TableColumn], before_images: bool) -> Self {
        let mut targets = Vec::with_capacity(columns.len());
        let mut steps = Vec::with_capacity(columns.len());
        let mut geometries = Vec::new();
        let mut next = 0;
        let mut value_bytes = 0;
        for (i, column) in columns.iter().enumerate() {
            let Some(plan) = &column.plan else {
                targets.push(None);
                steps.push(Step::Skip(column.wire));
                continue;
            };
            targets.push(Some(next));
            next += 1;
            value_bytes += match &plan.kind {
                Kind::Decimal { precision, .. } if *precision > 38 => 32,
                Kind::Decimal { .. } => 16,
                Kind::Uuid | Kind::Inet6 => 40,
                _ => 8,
            };
            if let Kind::Geometry { srid } = plan.kind {
                geometries.push((i, srid));
            }
            // Builders of tables that hardly ever change must not cost much: there may be ten thousand.
            steps.push(Step::new(&plan.kind, column.wire, 0, 0));
        }
        let mut in_key = vec![false; columns.len()];
        for (i, target) in targets.iter().enumerate() {
            in_key[i] = target.is_some_and(|target| relation.key().contains(&target));
        }
        let prefix = in_key.iter().take_while(|key| **key).count();
        let key_prefix = (in_key.iter().filter(|key| **key).count() == prefix).then_some(prefix);
        // Metadata: 57 bytes, and their share of bitmaps. A row has room for its before image, whether it has one or not.
        let row_bytes = 64 + if before_images { 2 * value_bytes } else { value_bytes };
        let wires = columns.iter().map(|column| column.wire).collect();
        RowBuffer {
            relation,
            wires,
            steps,
            targets,
            in_key,
            key_prefix,
            geometries,
            metadata: MetadataBuilder::new(READ_METHOD),
            unchanged: UnchangedBuilder::new(next),
            before: before_images.then(|| BeforeBuffer::new(columns)),
            committed: 0,
            bytes: 0,
            row_bytes,
        }
    }

    /// Number of columns in the table's row images.
    pub(crate) fn width(&self) -> usize {
        self.wires.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.metadata.is_empty()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The name of a column of the table, if it is followed.
    pub(crate) fn column_name(&self, column: usize) -> Option<&str> {
        self.targets.get(column).copied().flatten().and_then(|target| self.relation.columns().get(target)).map(|column| column.name())
    }

    /// Rows of the open transaction.
    pub(crate) fn open_rows(&self) -> usize {
        self.metadata.len() - self.committed
    }

    /// The open transaction is whole.
    pub(crate) fn commit(&mut self) {
        self.committed = self.metadata.len();
    }

    /// Appends the rows left in `cursor` until one of them stops it; on `Stop::Full` and `Stop::Srid` the cursor stands
    /// before the row to go on with. An error leaves the rows before the bad one whole.
    pub(crate) fn append(
        &mut self,
        head: &RowsHead<'_>,
        cursor: &mut Cursor<'_>,
        row: &mut RowContext<'_>,
        scratch: &mut Scratch,
        bytes_max: usize,
    ) -> Result<Stop, RowError> {
        if head.kind == RowsKind::Write
            && let Some(column) = (0..self.width()).find(|i| self.targets[*i].is_some() && !head.first.contains(*i))
        {
            return Err(RowError::Default(column));
        }
        let place = SourcePlace {
            log_position: row.event_offset,
            log_file: Some(self.metadata.intern_file(row.file_name)),
            transaction: row.transaction.map(|name| self.metadata.intern_transaction(name)),
        };
        let bytes_max = bytes_max.min(BUFFER_BYTES_MAX);
        let full = head.first.all() && head.second.all() && self.geometries.is_empty();
        if full && (head.kind != RowsKind::Update || self.key_prefix.is_some()) {
            self.append_full(head, cursor, row, place, scratch, bytes_max)
        } else {
            self.append_located(head, cursor, row, place, scratch, bytes_max)
        }
    }

    /// The way of nearly every row: full images, a key of leading columns, no geometry.
    fn append_full(
        &mut self,
        head: &RowsHead<'_>,
        cursor: &mut Cursor<'_>,
        row: &mut RowContext<'_>,
        place: SourcePlace,
        scratch: &mut Scratch,
        bytes_max: usize,
    ) -> Result<Stop, RowError> {
        let nulls_len = head.first.nulls_len();
        let key_len = self.key_prefix.unwrap_or(0);
        while !cursor.is_empty() {
            if self.bytes >= bytes_max {
                return Ok(Stop::Full);
            }
            let before = cursor.len();
            row.ordinal += 1;
            let skip = row.skip_through.is_some_and(|through| row.position(true) <= through);
            match head.kind {
                _ if skip => {
                    for _ in 0..if head.kind == RowsKind::Update { 2 } else { 1 } {
                        let nulls = cursor.take(nulls_len)?;
                        pass(&self.wires, nulls, 0, cursor)?;
                    }
                }
                RowsKind::Write => self.append_image(nulls_len, cursor, row, ChangeType::Insert, true, place, scratch)?,
                RowsKind::Delete => self.append_image(nulls_len, cursor, row, ChangeType::Delete, true, place, scratch)?,
                RowsKind::Update => {
                    let first = *cursor;
                    let nulls = cursor.take(nulls_len)?;
                    let key_before = key_bytes(&self.wires, nulls, key_len, cursor)?;
                    let rest = self.wires.get(key_len..).unwrap_or_default();
                    pass(rest, nulls, key_len, cursor)?;
                    let mut after = *cursor;
                    let nulls_after = after.take(nulls_len)?;
                    let key_after = key_bytes(&self.wires, nulls_after, key_len, &mut after)?;
                    let same_nulls = (0..key_len).all(|i| bit(nulls, i) == bit(nulls_after, i));
                    let key_changed = key_before != key_after || !same_nulls;
                    if key_changed {
                        self.append_image(nulls_len, &mut first.clone(), row, ChangeType::UpdateDelete, false, place, scratch)?;
                    }
                    if let Some(images) = &mut self.before {
                        if key_changed {
                            // It is held twice, in its own row and beside the new one.
                            self.bytes += first.len() - cursor.len();
                        }
                        images.append(self.metadata.len(), nulls_len, &mut first.clone(), scratch)?;
                    }
                    self.append_image(nulls_len, cursor, row, ChangeType::UpdateInsert, true, place, scratch)?;
                }
            }
            if cursor.len() == before {
                return Err(RowError::Truncated);
            }
            if !skip {
                self.bytes += before - cursor.len() + self.row_bytes;
            }
        }
        Ok(Stop::End)
    }

    #[inline]
    #[allow(clippy::too_many_arguments)]
    fn append_image(
        &mut self,
        nulls_len: usize,
        cursor: &mut Cursor<'_>,
        row: &RowContext<'_>,
        change_type: ChangeType,
        second_half: bool,
        place: SourcePlace,
        scratch: &mut Scratch,
    ) -> Result<(), RowError> {
        let nulls = cursor.take(nulls_len)?;
        for (i, step) in self.steps.iter_mut().enumerate() {
            if bit(nulls, i) {
                step.append_null();
            } else {
                step.append(cursor, scratch).map_err(|error| cell_error(i, error))?;
            }
        }
        self.metadata.push(row.commit_time, row.position(second_half), change_type, row.read_time, place);
        Ok(())
    }

    /// Images with absent columns, keys that are not in front, geometries: every value is found first.
    fn append_located(
        &mut self,
        head: &RowsHead<'_>,
        cursor: &mut Cursor<'_>,
        row: &mut RowContext<'_>,
        place: SourcePlace,
        scratch: &mut Scratch,
        bytes_max: usize,
    ) -> Result<Stop, RowError> {
        let (mut before, mut after) = (Vec::with_capacity(self.width()), Vec::with_capacity(self.width()));
        while !cursor.is_empty() {
            if self.bytes >= bytes_max && !row.half_done {
                return Ok(Stop::Full);
            }
            let start = *cursor;
            locate(&self.wires, &head.first, cursor, &mut before)?;
            if head.kind == RowsKind::Update {
                locate(&self.wires, &head.second, cursor, &mut after)?;
            }
            if cursor.len() == start.len() {
                return Err(RowError::Truncated);
            }
            if !row.half_done {
                row.ordinal += 1;
            }
            if row.skip_through.is_some_and(|through| row.position(true) <= through) {
                continue;
            }
            let mut stop = |buffer: &Self, cells: &[Cell<'_>], row: &mut RowContext<'_>| {
                let changed = buffer.other_srids(cells);
                if !changed.is_empty() {
                    *cursor = start;
                    if !row.half_done {
                        row.ordinal -= 1;
                    }
                }
                changed
            };
            let change_type = match head.kind {
                RowsKind::Write => ChangeType::Insert,
                RowsKind::Delete => ChangeType::Delete,
                RowsKind::Update => ChangeType::UpdateInsert,
            };
            if head.kind == RowsKind::Update {
                let key_changed = self.complete(&before, &mut after)?;
                if key_changed && !row.half_done {
                    let changed = stop(self, &before, row);
                    if !changed.is_empty() {
                        return Ok(Stop::Srid(changed));
                    }
                    self.append_cells(&before, row, ChangeType::UpdateDelete, false, place, scratch)?;
                    row.half_done = true;
                }
            } else {
                self.require_key(&before)?;
            }
            let changed = stop(self, if head.kind == RowsKind::Update { &after } else { &before }, row);
            if !changed.is_empty() {
                return Ok(Stop::Srid(changed));
            }
            if head.kind == RowsKind::Update && self.before.is_some() {
                self.append_before(&mut before, scratch)?;
            }
            let cells = if head.kind == RowsKind::Update { &after } else { &before };
            self.append_cells(cells, row, change_type, true, place, scratch)?;
            row.half_done = false;
            self.bytes += start.len() - cursor.len() + self.row_bytes;
        }
        Ok(Stop::End)
    }

    /// Appends what the row was before to its images.
    fn append_before(&mut self, before: &mut [Cell<'_>], scratch: &mut Scratch) -> Result<(), RowError> {
        // In the relation of the new row a geometry of another system cannot be said.
        for (column, _) in self.other_srids(before) {
            if let Some(cell) = before.get_mut(column) {
                *cell = Cell::Absent;
            }
        }
        let Some(images) = &mut self.before else { return Ok(()) };
        images.append_cells(self.metadata.len(), before, &self.targets, scratch)?;
        // What the new row has from the image, or the old row beside it, is held twice.
        self.bytes += before.iter().map(Cell::len).sum::<usize>();
        Ok(())
    }

    /// Fills an after image from the before image where the log leaves a value out, and tells whether the key changed. How much
    /// an image holds depends on the server's `binlog_row_image`, and a value that is only before is the one after, too.
    fn complete<'r>(&self, before: &[Cell<'r>], after: &mut [Cell<'r>]) -> Result<bool, RowError> {
        self.require_key(before)?;
        let mut changed = false;
        for (i, key) in self.in_key.iter().enumerate() {
            let (Some(before), Some(after)) = (before.get(i), after.get_mut(i)) else { return Err(RowError::Truncated) };
            if *after == Cell::Absent {
                *after = *before;
            }
            changed |= *key && before != after;
        }
        Ok(changed)
    }

    /// A declared key must be there; where all columns stand in for one, the server logs what it has.
    fn require_key(&self, cells: &[Cell<'_>]) -> Result<(), RowError> {
        if !self.relation.key_declared() {
            return Ok(());
        }
        match cells.iter().zip(&self.in_key).position(|(cell, key)| *key && *cell == Cell::Absent) {
            Some(column) => Err(RowError::Key(column)),
            None => Ok(()),
        }
    }

    /// The geometry columns whose value in this image is of another system than the relation's.
    fn other_srids(&self, cells: &[Cell<'_>]) -> Vec<(usize, u32)> {
        let mut others = Vec::new();
        for (column, srid) in &self.geometries {
            let Some(Cell::Value(bytes)) = cells.get(*column) else { continue };
            let Some(Wire::Prefixed(prefix)) = self.wires.get(*column).copied() else { continue };
            // A value too short for one is left to its step, which refuses it.
            if let Some(found) = bytes.get(prefix..).and_then(|value| value.first_chunk::<4>())
                && u32::from_le_bytes(*found) != *srid
            {
                others.push((*column, u32::from_le_bytes(*found)));
            }
        }
        others
    }

    fn append_cells(
        &mut self,
        cells: &[Cell<'_>],
        row: &RowContext<'_>,
        change_type: ChangeType,
        second_half: bool,
        place: SourcePlace,
        scratch: &mut Scratch,
    ) -> Result<(), RowError> {
        let rows = self.metadata.len();
        for (i, (step, cell)) in self.steps.iter_mut().zip(cells).enumerate() {
            match cell {
                Cell::Value(bytes) => step.append(&mut Cursor::new(bytes), scratch).map_err(|error| cell_error(i, error))?,
                Cell::Null => step.append_null(),
                Cell::Absent => {
                    step.append_null();
                    if let Some(target) = self.targets[i] {
                        self.unchanged.mark(target, rows);
                    }
                }
            }
        }
        self.metadata.push(row.commit_time, row.position(second_half), change_type, row.read_time, place);
        Ok(())
    }

    /// Cuts off everything that is whole as rows, committed or not. `None` if there is nothing.
    pub(crate) fn cut(&mut self) -> Result<Option<Part>> {
        let rows = self.metadata.len();
        let Some(last) = self.metadata.last_position() else {
            // A row that failed may have left values behind.
            self.steps.iter_mut().for_each(|step| drop(step.finish()));
            self.before.as_mut().map(|images| images.finish(rows));
            return Ok(None);
        };
        let finish = |step: &mut Step| step.finish().map(|column| if column.len() > rows { column.slice(0, rows) } else { column });
        let mut columns: Vec<ArrayRef> = self.steps.iter_mut().filter_map(finish).collect();
        columns.extend(self.metadata.finish());
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let records = RecordBatch::try_new_with_options(Arc::clone(self.relation.schema()), columns, &options)
            .map_err(|error| Error::internal("could not put a batch together").context("relation", self.relation.name()).source(error))?;
        let unchanged = self.unchanged.finish(rows);
        let before = self.before.as_mut().and_then(|images| images.finish(rows));
        let batch = ChangeBatch {
            relation: Arc::clone(&self.relation),
            records,
            unchanged,
            before,
            last,
            memory: Arc::new(MemoryPermit::uncounted()),
        };
        let part = Part { batch, committed: self.committed.min(rows), bytes: self.bytes };
        self.committed = 0;
        self.bytes = 0;
        Ok(Some(part))
    }
}

/// The bytes of the first `count` columns of a full image.
#[inline]
fn key_bytes<'a>(wires: &[Wire], nulls: &[u8], count: usize, cursor: &mut Cursor<'a>) -> Result<&'a [u8], Truncated> {
    let start = cursor.rest();
    pass(wires.get(..count).ok_or(Truncated)?, nulls, 0, cursor)?;
    start.get(..start.len() - cursor.len()).ok_or(Truncated)
}

#[cold]
pub(crate) fn cell_error(column: usize, error: CellError) -> RowError {
    match error {
        CellError::Truncated => RowError::Truncated,
        CellError::Value(error) => RowError::Value(column, error),
    }
}
