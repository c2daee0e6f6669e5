//! What runs against PostgreSQL servers: a workload, and a table of every type.

pub mod every_type;
mod tables;
mod values;
mod workload;

pub use workload::{Workload, WorkloadOptions};

/// A text as an SQL literal; quotes and backslashes mean themselves.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A name as an SQL identifier, whatever is in it.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
