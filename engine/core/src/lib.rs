//! What a change is, and the contracts of everything that makes, carries or lands changes.
//!
//! A change is a row of an Arrow batch from the moment its bytes leave the log: [`ChangeBatch`]. Its place in
//! the order of the log is a [`LogPosition`], a byte string whose order is log order. Sources hand out
//! [`LogEvent`]s, transforms map batches, sinks land them in two phases, a state store keeps the decision.
//!
//! Nothing here opens a socket, reads a clock, starts a task or knows DataFusion.

mod change;
mod clock;
mod error;
mod memory;
pub mod merge;
mod metadata;
mod position;
mod relation;
mod sink;
mod source;
mod state;
mod tables;
mod transform;
mod unchanged;

pub use change::{BeforeImages, ChangeBatch, ChangeType, LogEvent};
pub use clock::{Clock, SystemClock, TimestampMicros};
pub use error::{Error, ErrorKind, Result, ResultExt};
pub use memory::{MemoryBudget, MemoryPermit};
pub use metadata::{MetadataBuilder, MetadataColumn, SourcePlace, metadata_fields};
pub use position::{Incarnation, LogMark, LogPosition, SourceOffset};
pub use relation::{Column, Relation, RelationId, RelationName};
pub use sink::{ConsumerName, Sink, Staged, Writer, WriterContext};
pub use source::{BackfillProgress, Finding, LogReader, LogStart, OpenTransaction, QueryLimit, Severity, Source, TableBackfill};
pub use state::StateStore;
pub use tables::{Pattern, TableFilter};
pub use transform::{Transform, apply_all, output_of_all, recall_all};
pub use unchanged::{BeforeImagesBuilder, Unchanged, UnchangedBuilder};
