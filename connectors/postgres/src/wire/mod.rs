//! The wire protocol, version 3: questions to the catalog, COPY TO STDOUT, and the walsender's stream.
//!
//! The message formats of what we send and SASL are `postgres-protocol`'s. What we receive is framed here, because the
//! stream of changes is handed on as slices of the one buffer that the socket was read into: a message of the log is
//! never copied or allocated between the socket and the decoder.
//!
//! What a session must be for its values to mean the same everywhere (time zone, date style, no timeouts) is fixed when it
//! starts: [`Connection::connect`].

mod authentication;
mod certificate;
mod channel;
mod connection;
mod copy;
mod describe;
mod failure;
mod frame;
mod message;
mod passfile;
mod query;
mod replication;
mod socket;
mod startup;
mod tls;

pub use connection::{CancelKey, Connection, Mode};
pub use copy::CopyOut;
pub use failure::{ServerError, sqlstate};
pub use message::ColumnDescription;
pub use query::Rows;
pub use replication::CopyBoth;

#[cfg(test)]
mod tests;
