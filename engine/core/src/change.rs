//! Changes: what happened to rows, many at a time.

use std::fmt;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int8Type;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_buffer::BooleanBuffer;

use crate::memory::MemoryPermit;
use crate::metadata::MetadataColumn;
use crate::position::{LogMark, LogPosition};
use crate::relation::{Relation, RelationName};
use crate::tables::Pattern;
use crate::unchanged::Unchanged;

/// What happened to a row (or, for a truncate, to every row).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i8)]
pub enum ChangeType {
    /// A new row.
    Insert = 0,
    /// The row after an update: a change of values, or the second half of a key change.
    UpdateInsert = 1,
    /// The first half of a key change: the row under its old key is gone.
    UpdateDelete = 2,
    /// The row is gone.
    Delete = 3,
    /// A row that a backfill read.
    Read = 4,
    /// Every row of the relation at or before this position is gone; the row has no values.
    Truncate = 5,
}

impl ChangeType {
    /// Every type, by code.
    pub const ALL: [ChangeType; 6] = [
        ChangeType::Insert,
        ChangeType::UpdateInsert,
        ChangeType::UpdateDelete,
        ChangeType::Delete,
        ChangeType::Read,
        ChangeType::Truncate,
    ];

    /// The dictionary key in `_metadata_change_type`.
    #[inline]
    pub fn code(self) -> i8 {
        self as i8
    }

    /// The type with this code.
    pub fn from_code(code: i8) -> Option<Self> {
        usize::try_from(code).ok().and_then(|code| Self::ALL.get(code)).copied()
    }

    /// The public name.
    pub fn name(self) -> &'static str {
        match self {
            ChangeType::Insert => "INSERT",
            ChangeType::UpdateInsert => "UPDATE-INSERT",
            ChangeType::UpdateDelete => "UPDATE-DELETE",
            ChangeType::Delete => "DELETE",
            ChangeType::Read => "READ",
            ChangeType::Truncate => "TRUNCATE",
        }
    }

    /// True if the row is gone afterwards: `_metadata_deleted`.
    pub fn deletes(self) -> bool {
        matches!(self, ChangeType::UpdateDelete | ChangeType::Delete | ChangeType::Truncate)
    }
}

/// The rows of a batch as they were before the updates that it holds.
///
/// For a delete and the first half of a key change this is what the batch's own columns hold; here are the images of
/// [`ChangeType::UpdateInsert`], also where it is the second half of a key change.
#[derive(Clone)]
pub struct BeforeImages {
    /// The relation's columns, without metadata, a value for each row of the batch. Null where there is no image, and where
    /// the image does not hold the value.
    pub columns: Vec<ArrayRef>,
    /// One bit per row of the batch: its change has a before image here.
    pub present: BooleanBuffer,
    /// Values that an image does not hold: it is of the key alone, it leaves large values out, or the value cannot be said in the
    /// relation of the batch. Set only where `present` is. `None` if there are none.
    pub absent: Option<Unchanged>,
}

impl BeforeImages {
    /// True if the before image of row `row` is here and holds column `column`: a value or NULL.
    pub fn holds(&self, column: usize, row: usize) -> bool {
        self.present.value(row) && !self.absent.as_ref().is_some_and(|absent| absent.is_unchanged(column, row))
    }

    /// One bit per row of the batch: its image is here and holds every column.
    pub fn whole(&self) -> BooleanBuffer {
        let absent = self.absent.iter().flat_map(|absent| &absent.columns);
        absent.fold(self.present.clone(), |whole, (_, absent)| &whole & &!absent)
    }

    /// True if `patterns`, over `schema.table` in the source, ask for the images of `relation` to be kept. logweir's own tables have none.
    pub fn are_kept(patterns: &[Pattern], relation: &Relation) -> bool {
        relation.name().schema != RelationName::OWN_SCHEMA && Pattern::any_matches(patterns, relation.origin())
    }

    /// Rows `offset..offset + length` without copying.
    #[must_use]
    pub fn slice(&self, offset: usize, length: usize) -> Self {
        BeforeImages {
            columns: self.columns.iter().map(|column| column.slice(offset, length)).collect(),
            present: self.present.slice(offset, length),
            absent: self.absent.as_ref().map(|absent| absent.slice(offset, length)),
        }
    }
}

impl fmt::Debug for BeforeImages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the values.
        write!(f, "BeforeImages({} of {} rows)", self.present.count_set_bits(), self.present.len())
    }
}

/// Changes of one relation at one schema version, in log order.
pub struct ChangeBatch {
    /// The table and its schema version.
    pub relation: Arc<Relation>,
    /// The relation's columns, then the metadata columns; its schema is [`Relation::schema`]. For a delete and the
    /// first half of a key change the columns hold the before image, for everything else the after image.
    pub records: RecordBatch,
    /// Values that are neither there nor NULL; `None` if there are none, which is the rule.
    pub unchanged: Option<Unchanged>,
    /// What updated rows were before: only of tables that were asked for at the opening of the log
    /// ([`LogStart::before_images`](crate::LogStart::before_images)), and `None` if no row of the batch has one. It goes no
    /// further than the transforms of the stream, unless it is to be [kept](BeforeImages::are_kept): then it is written, too.
    pub before: Option<BeforeImages>,
    /// The position of the last change.
    pub last: LogPosition,
    /// The right to hold the batch's memory, given back when the batch is dropped. Shared by batches cut from one.
    pub memory: Arc<MemoryPermit>,
}

impl ChangeBatch {
    /// Number of changes.
    pub fn rows(&self) -> usize {
        self.records.num_rows()
    }

    /// The same batch once more: it shares arrays and memory.
    pub fn share(&self) -> Self {
        ChangeBatch {
            relation: Arc::clone(&self.relation),
            records: self.records.clone(),
            unchanged: self.unchanged.clone(),
            before: self.before.clone(),
            last: self.last,
            memory: Arc::clone(&self.memory),
        }
    }

    /// A metadata column.
    pub fn metadata(&self, column: MetadataColumn) -> &ArrayRef {
        self.records.column(self.relation.columns().len() + column as usize)
    }

    /// The codes of the change types, a row each; see [`ChangeType::from_code`].
    pub fn change_type_codes(&self) -> &[i8] {
        self.metadata(MetadataColumn::ChangeType).as_dictionary::<Int8Type>().keys().values()
    }

    /// The position of a row.
    pub fn position(&self, row: usize) -> LogPosition {
        let bytes = self.metadata(MetadataColumn::Sequence).as_fixed_size_binary().value(row);
        LogPosition::from_bytes(bytes.try_into().expect("a sequence is as long as a position"))
    }

    /// Rows `offset..offset + length` without copying; memory is given back when the last part is dropped.
    /// `length` must be at least 1.
    #[must_use]
    pub fn slice(&self, offset: usize, length: usize) -> ChangeBatch {
        let mut part = ChangeBatch {
            relation: Arc::clone(&self.relation),
            records: self.records.slice(offset, length),
            unchanged: self.unchanged.as_ref().map(|unchanged| unchanged.slice(offset, length)),
            before: self.before.as_ref().map(|before| before.slice(offset, length)).filter(|before| before.present.count_set_bits() > 0),
            last: self.last,
            memory: Arc::clone(&self.memory),
        };
        part.last = part.position(length - 1);
        part
    }

    /// The rows behind a position, if any.
    #[must_use]
    pub fn after(self, position: LogPosition) -> Option<ChangeBatch> {
        match self.rows_up_to(position) {
            0 => (self.rows() > 0).then_some(self),
            first => (first < self.rows()).then(|| self.slice(first, self.rows() - first)),
        }
    }

    /// The rows at and before a position, if any.
    #[must_use]
    pub fn up_to(self, position: LogPosition) -> Option<ChangeBatch> {
        match self.rows_up_to(position) {
            0 => None,
            rows if rows == self.rows() => Some(self),
            rows => Some(self.slice(0, rows)),
        }
    }

    /// Positions rise, so a search by halves finds the last of them.
    fn rows_up_to(&self, position: LogPosition) -> usize {
        if self.rows() == 0 || self.last <= position {
            return self.rows();
        }
        let (mut low, mut high) = (0, self.rows());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.position(middle) <= position { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// Bytes of the arrays, as Arrow counts them; those of before images too.
    pub fn bytes(&self) -> usize {
        let before = self.before.iter().flat_map(|before| &before.columns);
        self.records.columns().iter().chain(before).map(|column| column.get_array_memory_size()).sum()
    }
}

impl fmt::Debug for ChangeBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the values.
        write!(f, "ChangeBatch({} v{}, {} rows, last {})", self.relation.name(), self.relation.version(), self.rows(), self.last)
    }
}

/// What a log reader hands out.
#[derive(Debug)]
pub enum LogEvent {
    /// A relation is seen for the first time, or at a new schema version. Comes before the first batch of that version.
    Relation(Arc<Relation>),
    /// Changes.
    Changes(ChangeBatch),
    /// The log has been passed completely up to here; only here can a checkpoint be made.
    Mark(LogMark),
}
