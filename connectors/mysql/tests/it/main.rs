//! The sources against real servers, which each test starts for itself.
#![allow(clippy::unwrap_used, missing_docs)]

mod check;
mod drain;
mod encryption;
mod live;
mod recorded;
mod rig;
mod unlogged;
