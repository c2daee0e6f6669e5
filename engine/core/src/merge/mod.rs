//! The newest change of each key: what changes come down to.
//!
//! [`LatestPerKey`] decides on keys and places alone. It is handed the key columns of changes, batch by batch, and tells in the end
//! which rows stand: the newest of each key, unless that is a delete or a truncate came after it. Values are no business of it;
//! whoever calls reads those of the rows that stand, and of no others (late materialisation).
//!
//! Keys are kept as what compares equal when the values do: the bits of a single column of at most 64, Arrow's row form
//! otherwise. NULL is a key like any other. Floating point numbers are equal when their bits are.

mod keys;
mod newest_first;

use std::fmt;

use arrow_array::ArrayRef;
use arrow_schema::DataType;

use crate::error::{Error, Result};
use keys::{Keys, RowForm, Words, words_fit};
pub use newest_first::{NewestFirst, Share};

/// Marks the row of an entry as a delete. Rows are counted in the bits above it.
const DELETED: u64 = 1;

/// The newest change of each key.
///
/// `P` is the place of a change: of two changes of one key that with the greater place stands, and of two of one place that with
/// the greater row. Where rows are numbered along the log, `()` is enough, in whatever order they are handed over.
pub struct LatestPerKey<P = ()> {
    keys: Keys<P>,
    /// Nothing at or before it stands.
    floor: Option<(P, u64)>,
}

/// A batch of changes, reduced to what decides.
#[derive(Debug, Clone, Copy)]
pub struct KeyedChanges<'a, P = ()> {
    /// The key columns, in the order of the key.
    pub key: &'a [ArrayRef],
    /// Which rows delete their key; `None` if none does.
    pub deleted: Option<&'a arrow_buffer::BooleanBuffer>,
    /// The place of each row; empty if the rows' numbers are their places.
    pub places: &'a [P],
    /// The number of the first row; those behind it follow. Below 2^63.
    pub first_row: u64,
}

impl<P: Copy + Ord + Default> LatestPerKey<P> {
    /// Nothing yet, for keys of these types. An error of kind `Config` if there is none, or if one has a type that cannot be compared.
    pub fn new(types: &[DataType]) -> Result<Self> {
        Self::of_share(types, Share::ALL)
    }

    /// The same for those keys alone that lie in `share`: changes of others are taken in and come to nothing.
    pub fn of_share(types: &[DataType], share: Share) -> Result<Self> {
        let keys = match types {
            [] => return Err(Error::config("changes without a key cannot be merged")),
            [only] if words_fit(only) => Keys::Words(Words::new(only.clone(), share)),
            types => Keys::Rows(RowForm::new(types, share)?),
        };
        Ok(LatestPerKey { keys, floor: None })
    }

    /// Takes the changes of a batch into account. An error of kind `Internal` if the columns are not those that were announced.
    pub fn push(&mut self, changes: KeyedChanges<'_, P>) -> Result<()> {
        let rows = changes.key.first().map_or(0, |column| column.len());
        let fits = changes.key.iter().all(|column| column.len() == rows)
            && changes.deleted.is_none_or(|deleted| deleted.len() == rows)
            && (changes.places.is_empty() || changes.places.len() == rows);
        if !fits {
            return Err(Error::internal("columns of a merge differ in length"));
        }
        match &mut self.keys {
            Keys::Words(words) => words.push(&changes),
            Keys::Rows(rows) => rows.push(&changes),
        }
    }

    /// Nothing at or before the place stands: the table was emptied there.
    pub fn truncate(&mut self, place: P, row: u64) {
        self.floor = self.floor.max(Some((place, row << 1)));
    }

    /// Keys that were seen, those that are deleted with them.
    pub fn len(&self) -> usize {
        match &self.keys {
            Keys::Words(words) => words.len(),
            Keys::Rows(rows) => rows.len(),
        }
    }

    /// True if no key was seen.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory taken.
    pub fn bytes(&self) -> usize {
        match &self.keys {
            Keys::Words(words) => words.bytes(),
            Keys::Rows(rows) => rows.bytes(),
        }
    }

    /// The numbers of the rows that stand, in no order.
    pub fn standing(&self) -> impl Iterator<Item = u64> + '_ {
        self.entries().filter(|(_, row)| row & DELETED == 0).map(|(_, row)| row >> 1)
    }

    /// The numbers of the newest rows of each key, of deletes too, in no order: what is needed of the rows so far if more may come.
    pub fn newest(&self) -> impl Iterator<Item = u64> + '_ {
        self.entries().map(|(_, row)| row >> 1)
    }

    fn entries(&self) -> impl Iterator<Item = (P, u64)> + '_ {
        let floor = self.floor;
        let entries: Box<dyn Iterator<Item = (P, u64)> + '_> = match &self.keys {
            Keys::Words(words) => Box::new(words.entries()),
            Keys::Rows(rows) => Box::new(rows.entries()),
        };
        entries.filter(move |entry| floor.is_none_or(|floor| *entry > floor))
    }
}

impl<P> fmt::Debug for LatestPerKey<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never a key.
        f.write_str("LatestPerKey")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
