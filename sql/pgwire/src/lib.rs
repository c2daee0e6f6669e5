//! PostgreSQL's wire protocol over queries of what was landed and what is in flight.
//!
//! ```text
//! accept (server) ── TLS, SCRAM (server, scram) ── messages (frame) ── session ── plan and rows (running) ── values ── reply
//! ```
//!
//! An [`Endpoint`] has threads of its own: whatever a client asks, the streams go on. Everything a client can make grow has a bound:
//! connections, before and after they are known; the length of a message; statements and portals of a session; queries at a time; the time and
//! the memory of each.
//!
//! The protocol's messages are read here rather than by the crate `pgwire`, whose decoders (0.41) panic on a body that is shorter than it
//! says.

mod copy;
mod frame;
mod host;
mod parameter;
mod places;
mod reply;
mod running;
mod scram;
mod server;
mod session;
mod settings;
mod statement;
mod stranger;
mod value;

pub use host::{Endpoint, Post, draining};
pub use places::Places;
pub use scram::PasswordVerifier;
pub use server::{Database, Options, User, start, tls};
