//! Conformance suites: what every implementation of a contract must do, whatever it is made of.
//!
//! Each is a function that panics with what was not kept. The contracts are the comments above the traits in
//! `logweir-core`; a suite has a check for every sentence of them that can be seen from outside.

mod log_reader;
mod sink;
mod state;

pub use log_reader::{ReadImage, ReadLog, ReadRow, log_reader, read_log};
pub use sink::{LandedRow, sink};
pub use state::{Fencing, state};
