//! What a server says of its tables: names, types and keys that a table map may not carry.

/// A table as `information_schema` describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableShape {
    /// Every column in table order, hidden ones too, as row images hold them.
    pub columns: Vec<ColumnShape>,
    /// Names of the primary key's columns, in key order; if there is none, of the first unique index without
    /// nullable columns; else empty.
    pub key: Vec<String>,
}

/// A column of a [`TableShape`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnShape {
    /// `COLUMN_NAME`.
    pub name: String,
    /// `DATA_TYPE` in lower case: `decimal`, `uuid`.
    pub data_type: String,
    /// `COLUMN_TYPE`: `decimal(10,2) unsigned`, `enum('a','b')`.
    pub column_type: String,
    /// `CHARACTER_SET_NAME`.
    pub charset: Option<String>,
    /// The declared spatial reference system, where the server knows it.
    pub srid: Option<u32>,
}
