//! Checkpoints: what a stream has decided, and how it comes to decide.
//!
//! ```text
//! Mark ─(a destination's interval)→ barrier behind the batches it covers
//!  1 its writer stages → durable, invisible    2 StateStore::save = THE DECISION (marks + staged tokens, one document)
//!  3 its writer commits → visible, repeatable  4 LogReader::acknowledge → the source may forget (the least mark of all)
//! crash before 2: resume from the previous mark, Sink::recover discards leftovers
//! crash after 2: Sink::recover commits again, then resume
//! ```

mod document;
mod machine;

pub use document::{CheckpointDocument, ConsumerCheckpoint, FORMAT, GoneColumns, LogCheckpoint};
pub use machine::{Action, Checkpoint, Event, LogKept, StagedCheckpoint};
