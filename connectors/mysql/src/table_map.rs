//! TABLE_MAP events: what the log itself says of a table.
//!
//! Types and their lengths are always there; names, signedness, character sets, labels and keys are optional metadata
//! (`binlog_row_metadata`). Bodies are parsed only when their bytes are new: see the decoder's cache.

use crate::format::Format;
use crate::reader::{Cursor, Truncated};

/// Column types of the protocol.
pub(crate) mod types {
    pub(crate) const DECIMAL: u8 = 0;
    pub(crate) const TINY: u8 = 1;
    pub(crate) const SHORT: u8 = 2;
    pub(crate) const LONG: u8 = 3;
    pub(crate) const FLOAT: u8 = 4;
    pub(crate) const DOUBLE: u8 = 5;
    pub(crate) const TIMESTAMP: u8 = 7;
    pub(crate) const LONGLONG: u8 = 8;
    pub(crate) const INT24: u8 = 9;
    pub(crate) const DATE: u8 = 10;
    pub(crate) const TIME: u8 = 11;
    pub(crate) const DATETIME: u8 = 12;
    pub(crate) const YEAR: u8 = 13;
    pub(crate) const NEWDATE: u8 = 14;
    pub(crate) const VARCHAR: u8 = 15;
    pub(crate) const BIT: u8 = 16;
    pub(crate) const TIMESTAMP2: u8 = 17;
    pub(crate) const DATETIME2: u8 = 18;
    pub(crate) const TIME2: u8 = 19;
    /// MariaDB.
    pub(crate) const BLOB_COMPRESSED: u8 = 140;
    /// MariaDB.
    pub(crate) const VARCHAR_COMPRESSED: u8 = 141;
    pub(crate) const VECTOR: u8 = 242;
    pub(crate) const JSON: u8 = 245;
    pub(crate) const NEWDECIMAL: u8 = 246;
    pub(crate) const ENUM: u8 = 247;
    pub(crate) const SET: u8 = 248;
    pub(crate) const TINY_BLOB: u8 = 249;
    pub(crate) const MEDIUM_BLOB: u8 = 250;
    pub(crate) const LONG_BLOB: u8 = 251;
    pub(crate) const BLOB: u8 = 252;
    pub(crate) const VAR_STRING: u8 = 253;
    pub(crate) const STRING: u8 = 254;
    pub(crate) const GEOMETRY: u8 = 255;
}
use types::*;

/// A table cannot have more columns than this; MySQL allows 4,096, MariaDB a few less.
pub(crate) const COLUMNS_MAX: usize = 4096;

/// A table map, parsed.
#[derive(Debug, Clone)]
pub(crate) struct TableMap {
    pub(crate) columns: Vec<MappedColumn>,
    /// Indexes of the primary key's columns, in its order, where the metadata says so.
    pub(crate) key: Option<Vec<usize>>,
    /// MariaDB wrote it.
    pub(crate) mariadb: bool,
}

/// A column of a table map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MappedColumn {
    /// The type; ENUM and SET by their own types, not as the STRING they are mapped as.
    pub(crate) code: u8,
    /// Length of a value, or of its length, or precision and scale: as the type has it.
    pub(crate) length: u16,
    /// The scale of a decimal; the number of odd bits of a BIT.
    pub(crate) scale: u8,
    pub(crate) name: Option<String>,
    pub(crate) unsigned: Option<bool>,
    /// Number of the collation.
    pub(crate) collation: Option<u16>,
    /// ENUM and SET labels, in the column's character set.
    pub(crate) labels: Option<Vec<Vec<u8>>>,
    /// Which geometry, by OGC number.
    pub(crate) geometry: Option<u8>,
}

impl MappedColumn {
    /// True if the type has a bit in the signedness metadata. MySQL and MariaDB both count YEAR, though their own tools do not.
    fn is_numeric(&self) -> bool {
        matches!(self.code, DECIMAL | TINY | SHORT | LONG | FLOAT | DOUBLE | LONGLONG | INT24 | YEAR | NEWDECIMAL)
    }

    /// True if the type has an entry in the character set metadata.
    fn is_character(&self, mariadb: bool) -> bool {
        match self.code {
            VARCHAR | VAR_STRING | STRING | TINY_BLOB | MEDIUM_BLOB | LONG_BLOB | BLOB => true,
            // A blob to MariaDB, its own thing to MySQL.
            GEOMETRY => mariadb,
            BLOB_COMPRESSED | VARCHAR_COMPRESSED => mariadb,
            VECTOR => !mariadb,
            _ => false,
        }
    }

    fn is_label(&self) -> bool {
        matches!(self.code, ENUM | SET)
    }
}

/// What is wrong with a table map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TableMapError {
    Truncated,
    Name,
    Type(u8),
    Columns,
}

impl From<Truncated> for TableMapError {
    fn from(_: Truncated) -> Self {
        TableMapError::Truncated
    }
}

impl TableMap {
    /// Reads schema and table alone: enough to know whether the table is followed.
    pub(crate) fn names(body: &[u8]) -> Result<(&str, &str), TableMapError> {
        read_names(&mut Cursor::new(body))
    }

    /// Reads the body behind table id and flags.
    pub(crate) fn parse(body: &[u8], format: &Format) -> Result<Self, TableMapError> {
        let mut cursor = Cursor::new(body);
        read_names(&mut cursor)?;
        let count = cursor.packed_len()?;
        if count == 0 || count > COLUMNS_MAX {
            return Err(TableMapError::Columns);
        }
        let codes = cursor.take(count)?;
        let mut lengths = Cursor::new(cursor.packed_bytes()?);
        let mut columns = Vec::with_capacity(count);
        for code in codes {
            columns.push(column(*code, &mut lengths)?);
        }
        cursor.skip(count.div_ceil(8))?;
        let mut map = TableMap { columns, key: None, mariadb: format.mariadb };
        while !cursor.is_empty() {
            let kind = cursor.u8()?;
            let value = Cursor::new(cursor.packed_bytes()?);
            map.metadata(kind, value, format.mariadb)?;
        }
        Ok(map)
    }

    fn metadata(&mut self, kind: u8, mut value: Cursor<'_>, mariadb: bool) -> Result<(), TableMapError> {
        match kind {
            1 => {
                let bits = value.rest();
                for (i, column) in self.columns.iter_mut().filter(|column| column.is_numeric()).enumerate() {
                    let byte = bits.get(i / 8).ok_or(TableMapError::Truncated)?;
                    column.unsigned = Some(byte & (0x80 >> (i % 8)) != 0);
                }
            }
            2 => default_collation(self.columns.iter_mut().filter(|column| column.is_character(mariadb)), value)?,
            3 => collations(self.columns.iter_mut().filter(|column| column.is_character(mariadb)), value)?,
            4 => {
                for column in &mut self.columns {
                    let name = std::str::from_utf8(value.packed_bytes()?).map_err(|_| TableMapError::Name)?;
                    column.name = Some(name.to_owned());
                }
            }
            5 => labels(self.columns.iter_mut().filter(|column| column.code == SET), value)?,
            6 => labels(self.columns.iter_mut().filter(|column| column.code == ENUM), value)?,
            7 => {
                for column in self.columns.iter_mut().filter(|column| column.code == GEOMETRY) {
                    column.geometry = u8::try_from(value.packed()?).ok();
                }
            }
            8 | 9 => {
                let mut key = Vec::new();
                while !value.is_empty() {
                    let index = value.packed_len()?;
                    if index >= self.columns.len() || key.contains(&index) {
                        return Err(TableMapError::Columns);
                    }
                    key.push(index);
                    if kind == 9 {
                        // The length of the prefix; 0 for the whole column.
                        value.packed()?;
                    }
                }
                self.key = Some(key);
            }
            10 => default_collation(self.columns.iter_mut().filter(|column| column.is_label()), value)?,
            11 => collations(self.columns.iter_mut().filter(|column| column.is_label()), value)?,
            // Visibility, dimensions of vectors, and what newer servers add: nothing that reading a row needs.
            _ => {}
        }
        Ok(())
    }
}

fn read_names<'a>(cursor: &mut Cursor<'a>) -> Result<(&'a str, &'a str), TableMapError> {
    let mut name = || -> Result<&'a str, TableMapError> {
        let length = usize::from(cursor.u8()?);
        let name = std::str::from_utf8(cursor.take(length)?).map_err(|_| TableMapError::Name)?;
        cursor.skip(1)?;
        Ok(name)
    };
    Ok((name()?, name()?))
}

/// A column's type with the metadata that its type has.
fn column(code: u8, lengths: &mut Cursor<'_>) -> Result<MappedColumn, TableMapError> {
    let mut column = MappedColumn { code, ..MappedColumn::default() };
    match code {
        TINY | SHORT | LONG | LONGLONG | INT24 | DATE | NEWDATE | YEAR | TIMESTAMP | DATETIME | TIME => {}
        FLOAT | DOUBLE | TIMESTAMP2 | DATETIME2 | TIME2 => column.length = u16::from(lengths.u8()?),
        TINY_BLOB | MEDIUM_BLOB | LONG_BLOB | BLOB | JSON | GEOMETRY | VECTOR | BLOB_COMPRESSED => {
            column.length = u16::from(lengths.u8()?);
            if !(1..=4).contains(&column.length) {
                return Err(TableMapError::Type(code));
            }
        }
        VARCHAR | VAR_STRING | VARCHAR_COMPRESSED => column.length = lengths.u16()?,
        BIT => {
            column.scale = lengths.u8()?;
            column.length = u16::from(lengths.u8()?);
            if column.scale > 7 || column.length * 8 + u16::from(column.scale) > 64 {
                return Err(TableMapError::Type(code));
            }
        }
        NEWDECIMAL => {
            column.length = u16::from(lengths.u8()?);
            column.scale = lengths.u8()?;
            if column.length == 0 || column.length > 65 || u16::from(column.scale) > column.length {
                return Err(TableMapError::Type(code));
            }
        }
        STRING | ENUM | SET => {
            // Two bits of the length of a long CHAR hide, inverted, in the type's byte.
            let (first, second) = (lengths.u8()?, lengths.u8()?);
            if first & 0x30 == 0x30 {
                column.code = first;
                column.length = u16::from(second);
            } else {
                column.code = first | 0x30;
                column.length = u16::from(second) | u16::from((first & 0x30) ^ 0x30) << 4;
            }
            match column.code {
                STRING | VAR_STRING => column.code = STRING,
                ENUM if matches!(column.length, 1 | 2) => {}
                SET if (1..=8).contains(&column.length) => {}
                other => return Err(TableMapError::Type(other)),
            }
        }
        other => return Err(TableMapError::Type(other)),
    }
    let precision_max = match code {
        TIMESTAMP2 | DATETIME2 | TIME2 => 6,
        FLOAT => 4,
        DOUBLE => 8,
        _ => u16::MAX,
    };
    if column.length > precision_max {
        return Err(TableMapError::Type(code));
    }
    Ok(column)
}

fn default_collation<'c>(columns: impl Iterator<Item = &'c mut MappedColumn>, mut value: Cursor<'_>) -> Result<(), TableMapError> {
    let default = collation(&mut value)?;
    let mut others = Vec::new();
    while !value.is_empty() {
        others.push((value.packed_len()?, collation(&mut value)?));
    }
    // The exceptions come in the order of their columns.
    let mut others = others.into_iter().peekable();
    for (i, column) in columns.enumerate() {
        column.collation = Some(others.next_if(|(index, _)| *index == i).map_or(default, |(_, collation)| collation));
    }
    Ok(())
}

fn collations<'c>(columns: impl Iterator<Item = &'c mut MappedColumn>, mut value: Cursor<'_>) -> Result<(), TableMapError> {
    for column in columns {
        column.collation = Some(collation(&mut value)?);
    }
    Ok(())
}

fn collation(value: &mut Cursor<'_>) -> Result<u16, TableMapError> {
    u16::try_from(value.packed()?).map_err(|_| TableMapError::Truncated)
}

fn labels<'c>(columns: impl Iterator<Item = &'c mut MappedColumn>, mut value: Cursor<'_>) -> Result<(), TableMapError> {
    for column in columns {
        let count = value.packed_len()?;
        let mut labels = Vec::new();
        for _ in 0..count {
            labels.push(value.packed_bytes()?.to_vec());
        }
        column.labels = Some(labels);
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
    }

    fn names(map: &TableMap) -> Vec<&str> {
        map.columns.iter().map(|column| column.name.as_deref().unwrap()).collect()
    }

    /// (a year, b int unsigned, c tinyint, g geometry srid 4326, v varchar(10) latin1, bi bit(3), w varchar(20) utf8mb3,
    /// e enum('a','ü') latin1, s set('x','y'), ve vector(3), j json, primary key (b, v(3)))
    const MYSQL: &str = "057479706573000179000b0d0301ff0f100ffefef2f50d040a0003003c00f701f8010404ed070101c0030308213f0701000d01030418016101620163016701760262690177016501730276\
                         65016a0b0408fcff0005050201780179060502016101fc0904010004030c02ffe0";

    /// (a year, b int unsigned, c tinyint, g geometry, v varchar(10) latin1, u uuid, i4 inet4, i6 inet6, w varchar(20) utf8mb3,
    /// e enum('a','ü') latin1, s set('x','y'), bc varchar(1000) compressed, tc text compressed, j json, primary key (b, v(3)))
    const MARIADB: &str = "057479706573000179000e0d0301ff0ffefefe0ffefe8d8cfc13040a00fe10fe04fe103c00f701f801a10f0204ed3f0101c003093f083f3f3f212d2d2e0701000420016101620163\
                           01670176017502693402693601770165017302626302746301\
                           6a0b02082d05050201780179060502016101fc090401000403";

    #[test]
    fn full_metadata_of_mysql() {
        let map = TableMap::parse(&hex(MYSQL), &Format { mariadb: false, checksums: true, short_table_ids: false }).unwrap();
        assert_eq!((TableMap::names(&hex(MYSQL)), map.key), (Ok(("types", "y")), Some(vec![1, 4])));
        assert_eq!(map.columns.iter().map(|c| c.unsigned).collect::<Vec<_>>()[..3], [Some(true), Some(true), Some(false)]);
        let collations: Vec<_> = map.columns.iter().map(|c| c.collation).collect();
        assert_eq!(collations[4..], [Some(8), None, Some(33), Some(8), Some(255), Some(63), None]);
        assert_eq!(map.columns[7].labels, Some(vec![b"a".to_vec(), b"\xfc".to_vec()]));
        assert_eq!(map.columns[8].labels, Some(vec![b"x".to_vec(), b"y".to_vec()]));
        assert_eq!((map.columns[5].length, map.columns[5].scale), (0, 3));
    }

    #[test]
    fn full_metadata_of_mariadb() {
        let map = TableMap::parse(&hex(MARIADB), &Format { mariadb: true, checksums: true, short_table_ids: false }).unwrap();
        assert_eq!(names(&map), ["a", "b", "c", "g", "v", "u", "i4", "i6", "w", "e", "s", "bc", "tc", "j"]);
        assert_eq!(map.columns.iter().map(|c| c.unsigned).collect::<Vec<_>>()[..3], [Some(true), Some(true), Some(false)]);
        let collations: Vec<_> = map.columns.iter().map(|c| c.collation.unwrap_or(0)).collect();
        assert_eq!(collations, [0, 0, 0, 63, 8, 63, 63, 63, 33, 8, 45, 45, 45, 46]);
        assert_eq!((map.columns[11].code, map.columns[11].length), (VARCHAR_COMPRESSED, 4001));
        assert_eq!(map.key, Some(vec![1, 4]));
    }

    #[test]
    fn every_prefix_is_an_error_or_a_smaller_map_and_never_a_panic() {
        for (bytes, mariadb) in [(hex(MYSQL), false), (hex(MARIADB), true)] {
            let format = Format { mariadb, checksums: true, short_table_ids: false };
            for length in 0..bytes.len() {
                let _ = TableMap::parse(&bytes[..length], &format);
                assert!(length >= 38 || TableMap::parse(&bytes[..length], &format).is_err());
            }
        }
    }

    #[test]
    fn a_long_char_hides_its_length_in_the_type() {
        let column = column(STRING, &mut Cursor::new(&[0xee, 0xfc])).unwrap();
        assert_eq!((column.code, column.length), (STRING, 0x1fc));
        for bytes in [[0x00, 0x00], [0xf7, 3], [0xf8, 9]] {
            assert!(super::column(STRING, &mut Cursor::new(&bytes)).is_err());
        }
    }
}
