//! Tests against real servers and of the house as a whole, in one binary: linking DataFusion's relatives once is enough.

#![allow(clippy::unwrap_used)]

mod architecture;
mod before_images;
mod change_log;
mod change_log_store;
mod compaction;
mod conformance;
mod faults;
mod flight;
mod in_flight;
mod kill;
mod leak;
mod live;
mod mariadb;
mod mysql;
mod pg_faults;
mod pg_kill;
mod pg_live;
mod pg_operations;
mod pg_schema;
mod pgwire;
mod pgwire_clients;
mod pgwire_limits;
mod postgres;
mod postgres_check;
mod postgres_reader;
mod preview;
mod questions;
mod reader_error;
mod rigs;
mod simulation;
mod sql_stream;
