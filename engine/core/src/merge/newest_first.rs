//! The newest change of each key, of changes that come newest first.
//!
//! Whoever can walk the log backwards knows a row's fate when it meets it: the first of its key stands, all that come later are
//! history. So nothing is kept of a key but that it was seen: a bit, where keys are integers that lie close together, else the key itself.
//!
//! Where memory does not hold the keys, the walk is for a [`Share`] of them, and goes once for each share.

use std::fmt;
use std::ops::RangeInclusive;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};
use arrow_buffer::{BooleanBuffer, Buffer, MutableBuffer, NullBuffer};
use arrow_row::{RowConverter, SortField};
use arrow_schema::DataType;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::keys::{Width, cannot, hash, mix, words_fit};
use crate::error::{Error, Result};

/// A part of all keys, by their hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Share {
    /// How often it was halved.
    depth: u32,
    prefix: u64,
}

impl Share {
    /// Every key.
    pub const ALL: Share = Share { depth: 0, prefix: 0 };
    /// How often keys can be halved.
    pub const DEPTH_MAX: u32 = 10;
    /// The bits that it goes by: neither the highest nor the lowest, which find a key in its table.
    const SHIFT: u32 = 40;

    /// All keys in `2^depth` shares, at most `2^DEPTH_MAX`.
    pub fn all(depth: u32) -> impl Iterator<Item = Share> {
        let depth = depth.min(Self::DEPTH_MAX);
        (0..1 << depth).map(move |prefix| Share { depth, prefix })
    }

    pub(super) fn is_first(self) -> bool {
        self.prefix == 0
    }

    pub(super) fn contains(self, hash: u64) -> bool {
        (hash >> Self::SHIFT) & ((1 << self.depth) - 1) == self.prefix
    }

    fn halves(self) -> Option<[Share; 2]> {
        let depth = self.depth + 1;
        (depth <= Self::DEPTH_MAX).then_some([Share { depth, prefix: self.prefix }, Share { depth, prefix: self.prefix | 1 << self.depth }])
    }
}

/// Which keys were seen.
pub struct NewestFirst {
    seen: Seen,
    share: Share,
    /// NULL was seen, or is for others to see.
    null: bool,
}

enum Seen {
    /// Integers of one range: a bit each.
    Bits { width: Width, origin: u64, length: u64, bits: Vec<u64> },
    /// Single columns of at most 64 bits.
    Words { width: Width, table: HashTable<u64> },
    /// Any columns.
    Rows(Rows),
}

struct Rows {
    /// Makes one text of several columns; `None` for a single column that is a text, or bytes.
    converter: Option<RowConverter>,
    /// The keys, one behind the other.
    bytes: Vec<u8>,
    table: HashTable<RowKey>,
}

#[derive(Clone, Copy)]
struct RowKey {
    start: u64,
    length: u32,
    /// Half of it: the table needs no more.
    hash: u32,
}

impl RowKey {
    fn spread(hash: u32) -> u64 {
        mix(u64::from(hash))
    }

    fn of<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.start as usize..][..self.length as usize]
    }
}

impl NewestFirst {
    /// Nothing yet, for those keys of these types that lie in `share`. An error of kind `Config` if there is no key, or if one has a type
    /// that cannot be compared.
    pub fn new(types: &[DataType], share: Share) -> Result<Self> {
        let seen = match types {
            [] => return Err(Error::config("changes without a key cannot be merged")),
            [only] if words_fit(only) => Seen::Words { width: Width::of(only), table: HashTable::new() },
            [DataType::Utf8 | DataType::Binary] => Seen::Rows(Rows { converter: None, bytes: Vec::new(), table: HashTable::new() }),
            types => {
                let fields = types.iter().map(|data_type| SortField::new(data_type.clone())).collect();
                let converter = RowConverter::new(fields).map_err(|error| cannot("a key has a type that cannot be compared", &error))?;
                Seen::Rows(Rows { converter: Some(converter), bytes: Vec::new(), table: HashTable::new() })
            }
        };
        // NULL has no hash; it is in the first share.
        Ok(NewestFirst { seen, share, null: !share.is_first() })
    }

    /// Nothing yet, for keys of one integer column whose values lie in `range`: a bit for each value there can be.
    pub fn within(data_type: &DataType, range: &RangeInclusive<i128>) -> Result<Self> {
        let length = u64::try_from(range.end() - range.start() + 1);
        let length = length.map_err(|_| Error::internal("a range of keys is empty or too long"))?;
        if !data_type.is_integer() {
            return Err(Error::internal("keys in a range are integers").context("type", data_type));
        }
        let width = Width::of(data_type);
        let bits = vec![0; length.div_ceil(64) as usize];
        // The lowest bits are those of the two's complement, whatever the width.
        let seen = Seen::Bits { width, origin: *range.start() as u64 & width.mask(), length, bits };
        Ok(NewestFirst { seen, share: Share::ALL, null: false })
    }

    /// Which rows of a batch stand. Batches come newest first; within a batch rows are in the order of the log. `deleted` says which
    /// rows delete their key, and may be left out if none does.
    pub fn push(&mut self, key: &[ArrayRef], deleted: Option<&BooleanBuffer>) -> Result<BooleanBuffer> {
        let rows = key.first().map_or(0, |column| column.len());
        if key.iter().any(|column| column.len() != rows) || deleted.is_some_and(|deleted| deleted.len() != rows) {
            return Err(Error::internal("columns of a merge differ in length"));
        }
        let mut standing = Standing::new(rows, deleted);
        let NewestFirst { seen, share, null } = self;
        match seen {
            Seen::Bits { width, origin, length, bits } => {
                let mask = width.mask();
                let mut outside = false;
                each_word(key, *width, null, &mut standing, |word| {
                    let place = word.wrapping_sub(*origin) & mask;
                    if place >= *length {
                        outside = true;
                        return false;
                    }
                    let (word, bit) = (&mut bits[(place / 64) as usize], 1 << (place % 64));
                    let new = *word & bit == 0;
                    *word |= bit;
                    new
                })?;
                if outside {
                    return Err(Error::corrupt("a key lies outside of what the statistics of its file say"));
                }
            }
            Seen::Words { width, table } if *share == Share::ALL => {
                each_word(key, *width, null, &mut standing, |word| is_new(table, mix(word), word))?;
            }
            Seen::Words { width, table } => each_word(key, *width, null, &mut standing, |word| {
                let hash = mix(word);
                share.contains(hash) && is_new(table, hash, word)
            })?,
            Seen::Rows(seen) => seen.push(key, *share, null, &mut standing)?,
        }
        Ok(standing.finish())
    }

    /// Bytes of memory taken.
    pub fn bytes(&self) -> usize {
        match &self.seen {
            Seen::Bits { bits, .. } => bits.len() * size_of::<u64>(),
            Seen::Words { table, .. } => table.allocation_size(),
            Seen::Rows(rows) => {
                rows.table.allocation_size() + rows.bytes.capacity() + rows.converter.as_ref().map_or(0, RowConverter::size)
            }
        }
    }

    /// Bytes of memory taken while `rows` more are taken in, if all their keys are new.
    pub fn bytes_with(&self, rows: usize) -> usize {
        // Hashes are not spread quite evenly.
        let rows = if self.share == Share::ALL { rows } else { (rows >> self.share.depth) * 9 / 8 + 64 };
        match &self.seen {
            Seen::Bits { .. } => self.bytes(),
            Seen::Words { table, .. } => self.bytes() + growth(table.len(), table.capacity(), rows, size_of::<u64>()),
            Seen::Rows(Rows { bytes, table, .. }) => {
                const KEY_BYTES: usize = 32;
                let key = bytes.len().checked_div(table.len()).unwrap_or(KEY_BYTES);
                let more = if bytes.len() + rows * key > bytes.capacity() { bytes.capacity().max(rows * key) } else { 0 };
                self.bytes() + more + growth(table.len(), table.capacity(), rows, size_of::<RowKey>())
            }
        }
    }

    /// Keeps half of the keys, and tells which are the others. `None` if that helps nothing.
    pub fn halve(&mut self) -> Option<Share> {
        if let Seen::Bits { .. } = self.seen {
            return None;
        }
        let [kept, other] = self.share.halves()?;
        match &mut self.seen {
            Seen::Bits { .. } => return None,
            Seen::Words { table, .. } => {
                table.retain(|word| kept.contains(mix(*word)));
                table.shrink_to_fit(|word| mix(*word));
            }
            Seen::Rows(rows) => rows.keep(kept),
        }
        self.share = kept;
        Some(other)
    }
}

/// Room that a table takes in addition while it makes place for `rows`.
fn growth(length: usize, capacity: usize, rows: usize, entry_bytes: usize) -> usize {
    if length + rows <= capacity {
        return 0;
    }
    // Seven of eight places are filled at most, and each has a byte beside it.
    ((length + rows) * 8 / 7 + 8).next_power_of_two() * (entry_bytes + 1)
}

fn is_new(table: &mut HashTable<u64>, hash: u64, word: u64) -> bool {
    match table.entry(hash, |other| *other == word, |word| mix(*word)) {
        Entry::Occupied(_) => false,
        Entry::Vacant(place) => {
            place.insert(word);
            true
        }
    }
}

/// Rows that stand, last first.
struct Standing<'a> {
    bits: MutableBuffer,
    rows: usize,
    deleted: Option<&'a BooleanBuffer>,
}

impl<'a> Standing<'a> {
    fn new(rows: usize, deleted: Option<&'a BooleanBuffer>) -> Self {
        Standing { bits: MutableBuffer::from_len_zeroed(rows.div_ceil(8)), rows, deleted }
    }

    /// The row is the first of its key.
    #[inline]
    fn first(&mut self, row: usize) {
        if !self.deleted.is_some_and(|deleted| deleted.value(row)) {
            self.bits[row / 8] |= 1 << (row % 8);
        }
    }

    fn finish(self) -> BooleanBuffer {
        BooleanBuffer::new(Buffer::from(self.bits), 0, self.rows)
    }
}

/// Asks of the words of a column whether they are new, last first.
fn each_word(
    key: &[ArrayRef],
    width: Width,
    null: &mut bool,
    standing: &mut Standing<'_>,
    mut is_new: impl FnMut(u64) -> bool,
) -> Result<()> {
    let [column] = key else { return Err(Error::internal("a key has another number of columns than was said")) };
    let nulls = column.nulls().filter(|nulls| nulls.null_count() > 0);
    width.each_rev(column, |row, word| {
        let new = match nulls {
            Some(nulls) if nulls.is_null(row) => !std::mem::replace(null, true),
            _ => is_new(word),
        };
        if new {
            standing.first(row);
        }
    })
}

impl Rows {
    fn push(&mut self, key: &[ArrayRef], share: Share, null: &mut bool, standing: &mut Standing<'_>) -> Result<()> {
        let Some(converter) = &self.converter else {
            return match key {
                [column] if *column.data_type() == DataType::Utf8 => {
                    let column = column.as_string::<i32>();
                    self.push_bytes(column.nulls(), column.len(), |row| column.value(row).as_bytes(), share, null, standing)
                }
                [column] if *column.data_type() == DataType::Binary => {
                    let column = column.as_binary::<i32>();
                    self.push_bytes(column.nulls(), column.len(), |row| column.value(row), share, null, standing)
                }
                _ => Err(Error::internal("key columns are others than was said")),
            };
        };
        let rows = converter.convert_columns(key);
        let rows = rows.map_err(|error| cannot("key columns have other types than was said", &error))?;
        self.push_bytes(None, rows.num_rows(), |row| rows.row(row).data(), share, null, standing)
    }

    fn push_bytes<'a>(
        &mut self,
        nulls: Option<&NullBuffer>,
        rows: usize,
        key: impl Fn(usize) -> &'a [u8],
        share: Share,
        null: &mut bool,
        standing: &mut Standing<'_>,
    ) -> Result<()> {
        let Rows { bytes, table, .. } = self;
        for row in (0..rows).rev() {
            if nulls.is_some_and(|nulls| nulls.is_null(row)) {
                if !std::mem::replace(null, true) {
                    standing.first(row);
                }
                continue;
            }
            let key = key(row);
            let hash = hash(key) as u32;
            let spread = RowKey::spread(hash);
            if !share.contains(spread) {
                continue;
            }
            let is_it = |known: &RowKey| known.hash == hash && known.of(bytes) == key;
            if let Entry::Vacant(place) = table.entry(spread, is_it, |known| RowKey::spread(known.hash)) {
                let length = u32::try_from(key.len()).map_err(|_| Error::config("a key is longer than 4 GiB"))?;
                place.insert(RowKey { start: bytes.len() as u64, length, hash });
                bytes.extend_from_slice(key);
                standing.first(row);
            }
        }
        Ok(())
    }

    fn keep(&mut self, share: Share) {
        let mut kept = Vec::with_capacity(self.bytes.len() / 2);
        let bytes = std::mem::take(&mut self.bytes);
        self.table.retain(|key| {
            if !share.contains(RowKey::spread(key.hash)) {
                return false;
            }
            let start = kept.len() as u64;
            kept.extend_from_slice(key.of(&bytes));
            key.start = start;
            true
        });
        kept.shrink_to_fit();
        self.bytes = kept;
        self.table.shrink_to_fit(|key| RowKey::spread(key.hash));
    }
}

impl fmt::Debug for NewestFirst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never a key.
        f.write_str("NewestFirst")
    }
}
