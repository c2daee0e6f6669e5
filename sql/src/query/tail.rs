//! What is on its way: changes that are in the change log of a stream and not yet in the files of a destination.
//!
//! A query asks once how far the files go and how far the log goes, before it looks at any file, and then sees all tables at that place: of the files what
//! lies before the first, of the log what lies between the two. A file that comes meanwhile lies behind the first, and is left out.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use futures::stream::BoxStream;
use logweir_core::{LogPosition, Relation, RelationName, Result, TimestampMicros};

/// The part of a log that a destination does not show yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TailSpan {
    /// Everything at or before it is in the files.
    pub after: LogPosition,
    /// Everything at or before it is in the files or in the log, whole transactions only.
    pub through: LogPosition,
    /// The log's clock there: the commit time of the newest change.
    pub commit_time: Option<TimestampMicros>,
}

/// Changes of one relation as a file would hold them.
#[derive(Debug, Clone)]
pub struct TailBatch {
    /// The relation as it is landed.
    pub relation: Arc<Relation>,
    /// Its columns and the metadata columns, dictionaries unpacked.
    pub rows: RecordBatch,
    /// True if one of them is a truncate.
    pub truncates: bool,
    /// True if one of them has an unchanged value.
    pub unchanged: bool,
}

/// The change log of a stream, as one of its destinations will land it.
#[async_trait]
pub trait Tail: Send + Sync + fmt::Debug {
    /// How far the files and the log go now.
    async fn span(&self) -> Result<TailSpan>;

    /// The changes of a table in a span, in the order of the log.
    async fn read(&self, table: &RelationName, span: &TailSpan) -> Result<Vec<TailBatch>>;

    /// The changes of a table behind a mark of the log, as they come: in the order of the log, whole transactions, and no end but an error. It is of
    /// kind `LogGone` if the log does not reach back that far, or whoever reads is overtaken by its retention.
    fn follow(&self, table: &RelationName, after: LogPosition) -> BoxStream<'static, Result<TailBatch>>;
}
