//! Against real servers, which the tests start.

#![allow(clippy::unwrap_used)]

mod authentication;
mod certificates;
mod encryption;
mod server;
mod stream;
mod types;
mod wire;
