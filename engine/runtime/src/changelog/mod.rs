//! The change log: everything between the reader and the destinations, in order.
//!
//! One appender, and a cursor for each consumer, which moves at its own pace. What was appended last is held in memory, for
//! whoever keeps up. Where the stream has a directory for it, everything is also on disk, and kept there for a while: whoever falls
//! behind reads it from there, and holds up nobody.

pub mod segment;
mod window;

pub(crate) use window::blocking;
pub use window::{Appender, ChangeLog, ConsumerState, Cursor, ENTRIES_MAX, Entry, OnDisk, change_log, change_log_on_disk};
