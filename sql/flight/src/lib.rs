//! Arrow Flight SQL over queries of what was landed and what is in flight: columns stay columns on their way to ADBC's clients.
//!
//! ```text
//! accept (server) ── TLS, a seat (connection) ── who asks (identity) ── what is asked (service) ── batches (rows) ── Flight
//! ```
//!
//! An endpoint has threads of its own: whatever a client asks, the streams go on. Everything a client can make grow has a bound:
//! connections, before and after they are known; requests of one at a time; the length of a message; prepared statements; queries at a time,
//! whose places are those of PostgreSQL's clients too; the time and the memory of each.
//!
//! Nothing is kept for a query between its plan and its rows: a ticket is the statement itself, and whoever shows it must be known.
//!
//! Protocol: <https://arrow.apache.org/docs/format/FlightSql.html>.

mod catalog;
mod connection;
mod identity;
mod prepared;
mod rows;
mod server;
mod service;
mod status;

pub use server::{Options, start};
