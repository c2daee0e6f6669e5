//! What is on its way: changes that are in the change log of a stream and not yet in the files of a destination.
//!
//! A query asks once how far the files go and how far the log goes, before it looks at any file, and then sees all tables at that place: of the files what
//! lies before the first, of the log what lies between the two. A file that comes meanwhile lies behind the first, and is left out.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::stream::BoxStream;
use logweir_core::{LogPosition, Relation, RelationName, Result, TimestampMicros};

/// The message of the error, of kind `Transient`, of a tail whose log was cut off while it was read.
pub const CUT_OFF: &str = "the change log was cut off while the query began";

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

/// The changes of a table in a span: held, or, where that is too much, to be read when they are asked for.
#[derive(Debug, Clone)]
pub enum TailRows {
    /// All of them, in the order of the log.
    Held(Vec<TailBatch>),
    /// What there is of each relation.
    Read(Vec<TailPart>),
}

/// Changes of one relation, which are read anew whenever they are asked for.
#[derive(Clone)]
pub struct TailPart {
    /// The relation as it is landed.
    pub relation: Arc<Relation>,
    /// Its columns and the metadata columns, dictionaries unpacked.
    pub schema: SchemaRef,
    /// Changes.
    pub rows: u64,
    /// The position of the last of them.
    pub last: LogPosition,
    /// True if one of them is a truncate.
    pub truncates: bool,
    /// True if one of them has an unchanged value.
    pub unchanged: bool,
    /// Begins to read them, in the order of the log.
    pub open: Arc<dyn Fn() -> BoxStream<'static, Result<RecordBatch>> + Send + Sync>,
}

impl fmt::Debug for TailPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TailPart({} v{}, {} rows)", self.relation.name(), self.relation.version(), self.rows)
    }
}

/// The change log of a stream, as one of its destinations will land it.
#[async_trait]
pub trait Tail: Send + Sync + fmt::Debug {
    /// How far the files and the log go now.
    async fn span(&self) -> Result<TailSpan>;

    /// The changes of a table in a span.
    async fn read(&self, table: &RelationName, span: &TailSpan) -> Result<TailRows>;

    /// The changes of a table behind a mark of the log, as they come: in the order of the log, whole transactions, and no end but an error. It is of
    /// kind `LogGone` if the log does not reach back that far, or whoever reads is overtaken by its retention.
    fn follow(&self, table: &RelationName, after: LogPosition) -> BoxStream<'static, Result<TailBatch>>;
}
