//! MySQL and MariaDB: the binlog, live or recorded, straight into Arrow.

mod buffer;
mod carried;
pub mod catalog;
mod column;
pub mod decoder;
mod dispatch;
mod event;
mod format;
pub mod gtid;
pub mod offset;
mod payload;
mod query;
mod reader;
mod rows;
mod step;
mod table;
mod table_map;
pub(crate) mod value;
