//! Types of PostgreSQL and their values: from what a server sends, in text or in binary form, to what a column holds.
//!
//! [`TypeCatalog`] knows types by OID and decides how a column is carried, once per relation: its [`ColumnType`]. A
//! [`ColumnBuilder`] is made from that and takes values in either form; both give the same array. Nothing here allocates for
//! a value beyond its builder's growth, knows a column's name or a row's place, or panics on any bytes. What cannot be
//! carried is a [`ValueError`], a reason without the value; the decoder adds where it was.
//!
//! The server's own text is the measure of everything: a value that is carried as text is the text that the server gives
//! under the settings that our sessions pin (`DateStyle = ISO`, `TimeZone = UTC`, `IntervalStyle = iso_8601`,
//! `bytea_output = hex`, `client_encoding = UTF8`), and a binary value is rendered to exactly that.

use std::fmt;

mod array;
mod bits;
mod builder;
mod builtin;
mod bytea;
mod catalog;
mod column;
mod decimal;
mod form;
mod format;
mod interval;
mod network;
mod number;
mod numeric;
mod opaque;
mod temporal;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod testing;

pub use builder::ColumnBuilder;
pub use catalog::{TypeCatalog, TypeInfo, TypeKind, TypeOptions};
pub use column::ColumnType;

/// A number that a server knows an object by.
pub type Oid = u32;

/// Why a value cannot be carried: a sentence for a person, lower case and without a full stop, never the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValueError {
    /// What is wrong with it.
    pub problem: &'static str,
    /// What a person can do about it, where that is known.
    pub remedy: Option<&'static str>,
}

/// What every function of this module returns.
pub(crate) type ValueResult<T> = Result<T, ValueError>;

impl ValueError {
    /// An error of which nothing is known but that it is there.
    pub(crate) const fn new(problem: &'static str) -> Self {
        ValueError { problem, remedy: None }
    }

    /// An error that somebody can mend.
    pub(crate) const fn with_remedy(problem: &'static str, remedy: &'static str) -> Self {
        ValueError { problem, remedy: Some(remedy) }
    }
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.problem)
    }
}

impl std::error::Error for ValueError {}

/// Bytes of binary forms that are as long as their type says.
fn exactly<const N: usize>(value: &[u8]) -> ValueResult<[u8; N]> {
    value.try_into().map_err(|_| LENGTH)
}

const LENGTH: ValueError = ValueError::new("a value does not have the length of its type");
