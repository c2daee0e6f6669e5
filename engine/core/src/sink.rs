//! Sinks: where changes land, in two phases.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::change::ChangeBatch;
use crate::error::Result;
use crate::relation::Relation;
use crate::source::Finding;

/// The name of a consumer of the change log: `stream/destination`, unique in the process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConsumerName {
    /// The stream.
    pub stream: String,
    /// The destination: the profile's name, made unique in the stream.
    pub destination: String,
}

impl fmt::Display for ConsumerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.stream, self.destination)
    }
}

/// What a writer has made durable but not visible, in the sink's own words. Kept in the checkpoint, so it holds no
/// row values and no secrets, and says all that [`Sink::recover`] needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Staged(pub serde_json::Value);

/// What a writer is given when it is opened.
#[derive(Debug, Clone)]
pub struct WriterContext {
    /// Whose writer it is.
    pub consumer: ConsumerName,
    /// Unique to this opening, fit for a file name: eight lower-case hexadecimal digits.
    pub run: String,
    /// Bytes that the writer may buffer, over all its relations. A writer that comes near it writes out early.
    pub memory_bytes: usize,
}

/// A destination. Cheap to make: nothing is opened until a method asks for it.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Looks for everything that would stop a stream later, with the step that mends it. May write and remove a probe.
    async fn check(&self) -> Result<Vec<Finding>>;

    /// Says why rows of `relation` could not be landed, if that can be told beforehand. Looks at nothing else.
    fn check_relation(&self, _relation: &Relation) -> Result<()> {
        Ok(())
    }

    /// Brings the destination to what the last checkpoint decided, after a crash or a clean stop alike: commits every
    /// token of `staged` that is not visible yet, and discards what the consumer's earlier runs left otherwise. Called
    /// before [`Sink::open`], by the only owner of the stream. Safe to repeat, also with tokens committed long ago.
    async fn recover(&self, consumer: &ConsumerName, staged: &[Staged]) -> Result<()>;

    /// Opens the one writer of a consumer.
    async fn open(&self, context: WriterContext) -> Result<Box<dyn Writer>>;
}

/// Lands changes: accepted, then staged (durable, invisible), then committed (visible).
///
/// **Order.** `evolve` precedes the first batch of a relation version. Between two calls of `stage` a writer sees batches
/// in log order per relation. `commit` is called with the tokens of one `stage` after the checkpoint that holds them was
/// saved; `write` may be called again before `commit` is.
///
/// **Failure.** After an error the writer is dropped; a new one is opened after [`Sink::recover`], and the changes since the
/// last checkpoint are written again. Dropping a writer discards nothing that was staged, and nothing unstaged
/// becomes visible.
///
/// **Cancellation.** The methods are never cancelled short of the process ending.
#[async_trait]
pub trait Writer: Send {
    /// A relation, or a new version of one, is about to be written.
    async fn evolve(&mut self, relation: Arc<Relation>) -> Result<()>;

    /// Accepts a batch. May buffer, encode or upload; waits for what it must.
    async fn write(&mut self, batch: ChangeBatch) -> Result<()>;

    /// First phase: everything accepted so far becomes durable and stays invisible. Nothing accepted: no tokens.
    async fn stage(&mut self) -> Result<Vec<Staged>>;

    /// Second phase: readers see it. Safe to repeat: after a crash it is called again, through `recover`, with the same tokens.
    async fn commit(&mut self, staged: &[Staged]) -> Result<()>;

    /// How long changes may wait for the next checkpoint, at most.
    fn interval(&self) -> Duration;

    /// The same writer about to be dropped in good order, with nothing accepted and nothing uncommitted: releases what it holds.
    async fn close(self: Box<Self>) -> Result<()>;
}
