//! Masks and queries from the outside: changes in, masked changes out; files in, rows out.
#![allow(clippy::unwrap_used)]

mod guide;
mod history;
mod lake;
mod masks;
mod queries;
mod transforms;
mod types;
mod udf;
