//! Real servers for tests: each in a temporary directory, on a free port of 127.0.0.1, gone when dropped.
//!
//! A server that is not installed fails the test with the command that installs it; nothing is skipped, because a
//! skipped test looks like a passed one.

mod database;
mod mariadb;
mod moto;
mod mysql;
mod postgres;
mod process;
mod proxy;

pub use database::{BinlogCounts, DatabaseServer, Flavour};
pub use moto::{MotoServer, UnfinishedUpload};
pub(crate) use postgres::reason;
pub use postgres::{ChangeCounts, POSTGRES_VERSIONS, PostgresServer};
pub use process::{free_port, rigs_directory, wait_for_port};
pub use proxy::FaultyProxy;
