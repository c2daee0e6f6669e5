//! MySQL and MariaDB: the binlog, live or recorded, straight into Arrow.

pub mod catalog;
pub mod decoder;
pub mod gtid;
pub mod offset;
mod reader;
#[allow(dead_code, reason = "the decoder is being wired to it")]
pub(crate) mod value;
