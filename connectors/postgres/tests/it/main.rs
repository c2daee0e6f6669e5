//! Against real servers, which the tests start.

#![allow(clippy::unwrap_used)]

mod server;
mod wire;
