//! Tables of keys, and what was newest of each.

use arrow_array::{Array, ArrayRef};
use arrow_row::{RowConverter, SortField};
use arrow_schema::{ArrowError, DataType};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::newest_first::Share;
use super::{DELETED, KeyedChanges};
use crate::error::{Error, Result};

/// The form that keys are kept in.
pub(super) enum Keys<P> {
    Words(Words<P>),
    Rows(RowForm<P>),
}

/// What was newest, by place and number of row; the lowest bit of the number says that it was a delete.
type Newest<P> = (P, u64);

/// The batch's place and number of a row.
fn newest<P: Copy + Default>(changes: &KeyedChanges<'_, P>, row: usize) -> Newest<P> {
    let deleted = changes.deleted.is_some_and(|deleted| deleted.value(row));
    let place = changes.places.get(row).copied().unwrap_or_default();
    (place, (changes.first_row + row as u64) << 1 | if deleted { DELETED } else { 0 })
}

/// Spreads bits: the halves of a product with an odd number without pattern, folded.
#[inline]
pub(super) fn mix(word: u64) -> u64 {
    let product = u128::from(word ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
    product as u64 ^ (product >> 64) as u64
}

#[inline]
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let mut state = bytes.len() as u64;
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        state = mix(state ^ u64::from_le_bytes(word.try_into().expect("a chunk has eight bytes")));
    }
    let mut last = [0; 8];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    mix(state ^ u64::from_le_bytes(last))
}

/// True if the bits of a value say what it is.
pub(super) fn words_fit(data_type: &DataType) -> bool {
    !data_type.is_floating() && data_type.primitive_width().is_some_and(|bytes| matches!(bytes, 1 | 2 | 4 | 8))
}

/// How wide the values of a column are, at most 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Width(usize);

impl Width {
    /// That of a type which fits.
    pub(super) fn of(data_type: &DataType) -> Self {
        Width(data_type.primitive_width().unwrap_or(8))
    }

    /// The bits that a value has.
    pub(super) fn mask(self) -> u64 {
        u64::MAX >> (64 - 8 * self.0)
    }

    /// Hands over each row of a column and its bits, last first.
    pub(super) fn each_rev(self, column: &ArrayRef, mut each: impl FnMut(usize, u64)) -> Result<()> {
        if !words_fit(column.data_type()) || column.data_type().primitive_width() != Some(self.0) {
            return Err(Error::internal("a key column has another type than was said").context("type", column.data_type()));
        }
        let data = column.to_data();
        let (buffer, from, to) = (&data.buffers()[0], data.offset(), data.offset() + data.len());
        match self.0 {
            1 => buffer.typed_data::<u8>()[from..to].iter().enumerate().rev().for_each(|(row, word)| each(row, u64::from(*word))),
            2 => buffer.typed_data::<u16>()[from..to].iter().enumerate().rev().for_each(|(row, word)| each(row, u64::from(*word))),
            4 => buffer.typed_data::<u32>()[from..to].iter().enumerate().rev().for_each(|(row, word)| each(row, u64::from(*word))),
            _ => buffer.typed_data::<u64>()[from..to].iter().enumerate().rev().for_each(|(row, word)| each(row, *word)),
        }
        Ok(())
    }
}

/// Keys of one column of at most 64 bits.
pub(super) struct Words<P> {
    data_type: DataType,
    share: Share,
    table: HashTable<(u64, Newest<P>)>,
    null: Option<Newest<P>>,
}

impl<P: Copy + Ord + Default> Words<P> {
    pub(super) fn new(data_type: DataType, share: Share) -> Self {
        Words { data_type, share, table: HashTable::new(), null: None }
    }

    pub(super) fn push(&mut self, changes: &KeyedChanges<'_, P>) -> Result<()> {
        let [column] = changes.key else { return Err(Error::internal("a key has another number of columns than was said")) };
        if *column.data_type() != self.data_type {
            return Err(Error::internal("a key column has another type than was said").context("type", column.data_type()));
        }
        let data = column.to_data();
        let (buffer, from, to) = (&data.buffers()[0], data.offset(), data.offset() + data.len());
        match self.data_type.primitive_width() {
            Some(1) => self.push_words(column, changes, buffer.typed_data::<u8>()[from..to].iter().map(|word| u64::from(*word))),
            Some(2) => self.push_words(column, changes, buffer.typed_data::<u16>()[from..to].iter().map(|word| u64::from(*word))),
            Some(4) => self.push_words(column, changes, buffer.typed_data::<u32>()[from..to].iter().map(|word| u64::from(*word))),
            _ => self.push_words(column, changes, buffer.typed_data::<u64>()[from..to].iter().copied()),
        }
        Ok(())
    }

    fn push_words(&mut self, column: &ArrayRef, changes: &KeyedChanges<'_, P>, words: impl Iterator<Item = u64>) {
        let nulls = column.nulls().filter(|nulls| nulls.null_count() > 0);
        for (row, word) in words.enumerate() {
            let new = newest(changes, row);
            if nulls.is_some_and(|nulls| nulls.is_null(row)) {
                // NULL has no hash.
                if self.share.is_first() {
                    self.null = self.null.max(Some(new));
                }
                continue;
            }
            let hash = mix(word);
            if !self.share.contains(hash) {
                continue;
            }
            match self.table.entry(hash, |(other, _)| *other == word, |(word, _)| mix(*word)) {
                Entry::Occupied(mut known) => {
                    let (_, known) = known.get_mut();
                    *known = new.max(*known);
                }
                Entry::Vacant(place) => {
                    place.insert((word, new));
                }
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.table.len() + usize::from(self.null.is_some())
    }

    pub(super) fn bytes(&self) -> usize {
        self.table.allocation_size()
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = Newest<P>> {
        self.table.iter().map(|(_, newest)| *newest).chain(self.null)
    }
}

/// Keys of any columns.
pub(super) struct RowForm<P> {
    converter: RowConverter,
    share: Share,
    /// The keys, one behind the other.
    bytes: Vec<u8>,
    table: HashTable<RowEntry<P>>,
}

struct RowEntry<P> {
    hash: u64,
    start: usize,
    length: usize,
    newest: Newest<P>,
}

impl<P: Copy + Ord + Default> RowForm<P> {
    pub(super) fn new(types: &[DataType], share: Share) -> Result<Self> {
        let fields = types.iter().map(|data_type| SortField::new(data_type.clone())).collect();
        let converter = RowConverter::new(fields).map_err(|error| cannot("a key has a type that cannot be compared", &error))?;
        Ok(RowForm { converter, share, bytes: Vec::new(), table: HashTable::new() })
    }

    pub(super) fn push(&mut self, changes: &KeyedChanges<'_, P>) -> Result<()> {
        let rows = self.converter.convert_columns(changes.key);
        let rows = rows.map_err(|error| cannot("key columns have other types than was said", &error))?;
        let RowForm { bytes, table, share, .. } = self;
        for (row, key) in rows.iter().enumerate() {
            let key = key.as_ref();
            let hash = hash(key);
            if !share.contains(hash) {
                continue;
            }
            let new = newest(changes, row);
            let is_it = |entry: &RowEntry<P>| entry.hash == hash && bytes[entry.start..entry.start + entry.length] == *key;
            match table.entry(hash, is_it, |entry| entry.hash) {
                Entry::Occupied(mut known) => {
                    let known = &mut known.get_mut().newest;
                    *known = new.max(*known);
                }
                Entry::Vacant(place) => {
                    place.insert(RowEntry { hash, start: bytes.len(), length: key.len(), newest: new });
                    bytes.extend_from_slice(key);
                }
            }
        }
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.table.allocation_size() + self.bytes.capacity() + self.converter.size()
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = Newest<P>> {
        self.table.iter().map(|entry| entry.newest)
    }
}

pub(super) fn cannot(message: &'static str, error: &ArrowError) -> Error {
    // Its words may quote a value.
    let kind = match error {
        ArrowError::NotYetImplemented(_) => "not implemented",
        ArrowError::InvalidArgumentError(_) => "not possible",
        _ => "failed",
    };
    Error::config(message).context("reason", kind)
}
