//! The files destination, read back by others: what rows become, when files appear, what survives which failure.

#![allow(clippy::unwrap_used)]

mod compact;
mod fault;
mod form;
mod phases;
mod readers;
mod rotation;
mod rows;
mod s3;
