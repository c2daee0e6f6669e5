//! What benches share. How to run each stands at its top.

pub mod binlog;
pub mod orders;
pub mod postgres;
pub mod process;
