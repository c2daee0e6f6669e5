//! The decoder against recordings of real servers: golden output, any cut of the bytes, any damage to them.
#![allow(clippy::unwrap_used)]

mod captures;
mod crafted;
mod cuts;
mod damage;
mod shapes;
mod text;
