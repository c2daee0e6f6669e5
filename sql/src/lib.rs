//! SQL on DataFusion: masking of the stream, and queries over what was landed.
//!
//! [`MaskTransform`] stands between the log and everything that is written: what it hides is in no file, no state and
//! no error. [`QueryEngine`] answers SQL over the files of the destinations, read-only and within a memory limit: every
//! change, and the current state that the changes add up to.
//!
//! DataFusion is seen in this crate and, through the streams it returns, nowhere else.

mod civil;
mod display;
mod mask;
mod merge;
mod numbers;
mod query;
mod transform;
mod udf;

pub use civil::date_of;
pub use display::printable;
pub use mask::{ColumnNames, DateUnit, MASK, MaskKey, MaskKeys, MaskKind, MaskProblem, MaskRule, MaskTransform, Step, mask_functions};
pub use query::{
    CUT_OFF, CaughtUp, ClientSession, FooterCache, LandedTable, PreparedQuery, QueryEngine, QueryResult, Tail, TailBatch, TailPart,
    TailRows, TailSpan, begin_query, item_oid, sqlstate, type_oid,
};
pub use transform::{
    BadValue, Reference, References, SchemaChange, SharedTruncate, SqlContext, SqlPlace, SqlProblem, SqlRule, SqlTransform, Targets,
    Unresolved, catches_panics, read_reference_file,
};
pub use udf::{UdfLimits, UdfRule, UdfTransform, UdfType};
