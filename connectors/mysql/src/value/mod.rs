//! Values as MySQL and MariaDB write them into row images: pure functions from bytes to what a column holds.
//!
//! Nothing here allocates on the way of an ordinary value, knows a column's name or an event's place, or panics on any
//! bytes. What a value cannot say is a [`ValueError`], a reason without the value; the decoder adds where it was.

use std::fmt;

pub(crate) mod bit;
pub(crate) mod charset;
pub(crate) mod compressed;
pub(crate) mod decimal;
pub(crate) mod geometry;
pub(crate) mod json;
pub(crate) mod label;
pub(crate) mod network;
pub(crate) mod temporal;
pub(crate) mod vector;

/// Why bytes are not a value: a sentence for a person, never the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ValueError(&'static str);

/// What every function of this module returns.
pub(crate) type ValueResult<T> = Result<T, ValueError>;

impl ValueError {
    /// An error with its reason: lower case, no full stop.
    pub(crate) const fn new(reason: &'static str) -> Self {
        ValueError(reason)
    }

    /// The reason, to be the message of an [`Error`](logweir_core::Error).
    pub(crate) const fn reason(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for ValueError {}

/// An unsigned integer of up to eight bytes, most significant first.
#[inline]
pub(crate) fn big_endian(bytes: &[u8]) -> u64 {
    debug_assert!(bytes.len() <= 8, "a number of at most eight bytes");
    match *bytes {
        // The parts of decimals and times, spelled out: a loop of unknown length costs more than everything around it.
        [a] => u64::from(a),
        [a, b] => u64::from(u16::from_be_bytes([a, b])),
        [a, b, c] => u64::from(u32::from_be_bytes([0, a, b, c])),
        [a, b, c, d] => u64::from(u32::from_be_bytes([a, b, c, d])),
        [a, b, c, d, e] => u64::from_be_bytes([0, 0, 0, a, b, c, d, e]),
        _ => bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)),
    }
}
