//! Rows events: which images there are, and where they end.
//!
//! A row image is a bitmap of NULLs over the columns that are present, and the values of those that are present and not
//! NULL. An update has two, before and after. Everything here only finds its way; values are read by steps.

use crate::column::Wire;
use crate::event;
use crate::format::Format;
use crate::reader::{Cursor, Truncated};
use crate::table_map::COLUMNS_MAX;

/// What happened to the rows of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowsKind {
    Write,
    Update,
    Delete,
}

/// The table id of an event that only ends a statement.
pub(crate) const DUMMY_TABLE_ID: u64 = 0xff_ffff;

/// A rows event without its rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowsHead<'a> {
    pub(crate) kind: RowsKind,
    pub(crate) table_id: u64,
    /// MariaDB's zlib around the rows.
    pub(crate) compressed: bool,
    pub(crate) columns: usize,
    /// The columns of the before image of an update, of the only image otherwise.
    pub(crate) first: Present<'a>,
    /// The columns of the after image of an update.
    pub(crate) second: Present<'a>,
}

/// The id of the table of a rows event or table map.
pub(crate) fn table_id(cursor: &mut Cursor<'_>, format: &Format) -> Result<u64, Truncated> {
    if format.short_table_ids { cursor.u32().map(u64::from) } else { cursor.u48() }
}

impl<'a> RowsHead<'a> {
    /// Reads what stands before the rows, which are what the cursor has left then. `None` if the type is of no rows event.
    pub(crate) fn parse(event_type: u8, cursor: &mut Cursor<'a>, format: &Format) -> Option<Result<Self, Truncated>> {
        use event::*;
        let (kind, version, compressed) = match event_type {
            WRITE_ROWS_V1 => (RowsKind::Write, 1, false),
            UPDATE_ROWS_V1 => (RowsKind::Update, 1, false),
            DELETE_ROWS_V1 => (RowsKind::Delete, 1, false),
            WRITE_ROWS => (RowsKind::Write, 2, false),
            UPDATE_ROWS => (RowsKind::Update, 2, false),
            DELETE_ROWS => (RowsKind::Delete, 2, false),
            MARIADB_WRITE_ROWS_COMPRESSED_V1 => (RowsKind::Write, 1, true),
            MARIADB_UPDATE_ROWS_COMPRESSED_V1 => (RowsKind::Update, 1, true),
            MARIADB_DELETE_ROWS_COMPRESSED_V1 => (RowsKind::Delete, 1, true),
            MARIADB_WRITE_ROWS_COMPRESSED => (RowsKind::Write, 2, true),
            MARIADB_UPDATE_ROWS_COMPRESSED => (RowsKind::Update, 2, true),
            MARIADB_DELETE_ROWS_COMPRESSED => (RowsKind::Delete, 2, true),
            _ => return None,
        };
        Some(Self::read(kind, version, compressed, cursor, format))
    }

    fn read(kind: RowsKind, version: u8, compressed: bool, cursor: &mut Cursor<'a>, format: &Format) -> Result<Self, Truncated> {
        let table_id = table_id(cursor, format)?;
        cursor.skip(2)?;
        if version == 2 {
            // The length counts its own two bytes. What is in there (partitions) concerns nobody who reads rows.
            let extra = usize::from(cursor.u16()?).checked_sub(2).ok_or(Truncated)?;
            cursor.skip(extra)?;
        }
        let columns = cursor.packed_len()?;
        if columns > COLUMNS_MAX {
            return Err(Truncated);
        }
        let first = Present::read(cursor, columns)?;
        let second = if kind == RowsKind::Update { Present::read(cursor, columns)? } else { first };
        Ok(RowsHead { kind, table_id, compressed, columns, first, second })
    }
}

/// Which columns an image has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Present<'a> {
    bits: &'a [u8],
    count: usize,
    all: bool,
}

impl<'a> Present<'a> {
    fn read(cursor: &mut Cursor<'a>, columns: usize) -> Result<Self, Truncated> {
        let bits = cursor.take(columns.div_ceil(8))?;
        let count = (0..columns).filter(|i| bit(bits, *i)).count();
        Ok(Present { bits, count, all: count == columns })
    }

    #[inline]
    pub(crate) fn all(&self) -> bool {
        self.all
    }

    #[inline]
    pub(crate) fn contains(&self, column: usize) -> bool {
        self.all || bit(self.bits, column)
    }

    /// Length of the bitmap of NULLs.
    #[inline]
    pub(crate) fn nulls_len(&self) -> usize {
        self.count.div_ceil(8)
    }
}

/// Bit `i`, lowest first; false behind the end.
#[inline]
pub(crate) fn bit(bits: &[u8], i: usize) -> bool {
    bits.get(i / 8).is_some_and(|byte| byte >> (i % 8) & 1 != 0)
}

/// A value in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cell<'a> {
    /// The image does not have the column.
    Absent,
    Null,
    /// The value as it lies there, its length included.
    Value(&'a [u8]),
}

impl Cell<'_> {
    /// Bytes of the value.
    pub(crate) fn len(&self) -> usize {
        match self {
            Cell::Value(bytes) => bytes.len(),
            Cell::Absent | Cell::Null => 0,
        }
    }
}

/// Finds every value of an image.
pub(crate) fn locate<'a>(
    wires: &[Wire],
    present: &Present<'_>,
    cursor: &mut Cursor<'a>,
    cells: &mut Vec<Cell<'a>>,
) -> Result<(), Truncated> {
    cells.clear();
    let nulls = cursor.take(present.nulls_len())?;
    let mut ordinal = 0;
    for (i, wire) in wires.iter().enumerate() {
        if !present.contains(i) {
            cells.push(Cell::Absent);
            continue;
        }
        if bit(nulls, ordinal) {
            cells.push(Cell::Null);
        } else {
            let start = cursor.rest();
            wire.skip(cursor)?;
            cells.push(Cell::Value(start.get(..start.len() - cursor.len()).ok_or(Truncated)?));
        }
        ordinal += 1;
    }
    Ok(())
}

/// Passes by the values of columns `from..` of a full image.
#[inline]
pub(crate) fn pass(wires: &[Wire], nulls: &[u8], from: usize, cursor: &mut Cursor<'_>) -> Result<(), Truncated> {
    for (i, wire) in wires.iter().enumerate() {
        if !bit(nulls, from + i) {
            wire.skip(cursor)?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const FORMAT: Format = Format { mariadb: false, checksums: true, short_table_ids: false };

    #[test]
    fn a_minimal_update() {
        // Of (id int, a int, b varchar): before image id, after image b.
        let body = [0x6d, 0, 0, 0, 0, 0, 1, 0, 2, 0, 3, 0x01, 0x04, 0x00, 1, 0, 0, 0, 0x00, 1, b'y'];
        let mut cursor = Cursor::new(&body);
        let head = RowsHead::parse(event::UPDATE_ROWS, &mut cursor, &FORMAT).unwrap().unwrap();
        assert_eq!((head.table_id, head.columns, head.first.all(), head.kind), (0x6d, 3, false, RowsKind::Update));
        let wires = [Wire::Fixed(4), Wire::Fixed(4), Wire::Prefixed(1)];
        let mut cells = Vec::new();
        locate(&wires, &head.first, &mut cursor, &mut cells).unwrap();
        assert_eq!(cells, [Cell::Value(&[1, 0, 0, 0]), Cell::Absent, Cell::Absent]);
        locate(&wires, &head.second, &mut cursor, &mut cells).unwrap();
        assert_eq!(cells, [Cell::Absent, Cell::Absent, Cell::Value(&[1, b'y'])]);
        assert!(cursor.is_empty());
    }

    #[test]
    fn extra_data_is_passed_by() {
        let body = [0x6d, 0, 0, 0, 0, 0, 1, 0, 5, 0, 9, 9, 9, 1, 0xff, 0];
        let mut cursor = Cursor::new(&body);
        let head = RowsHead::parse(event::WRITE_ROWS, &mut cursor, &FORMAT).unwrap().unwrap();
        assert_eq!((head.columns, head.first.all(), cursor.len()), (1, true, 1));
        for length in 0..body.len() - 1 {
            assert!(RowsHead::parse(event::WRITE_ROWS, &mut Cursor::new(&body[..length]), &FORMAT).unwrap().is_err());
        }
        assert!(RowsHead::parse(event::QUERY, &mut Cursor::new(&body), &FORMAT).is_none());
    }
}
