//! SQLSTATE codes of errors, for clients that decide by them.

use std::error::Error as _;
use std::time::Duration;

use arrow::error::ArrowError;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use logweir_core::{Clock as _, Error, ErrorKind, Result, SystemClock};

use super::error::Words;
use super::tail::CUT_OFF;

pub(super) const NO_TABLE: &str = "there is no such table";
pub(super) const NO_STREAM: &str = "there is no such stream";
pub(super) const NO_DATABASE: &str = "there is no such database";
pub(super) const NOTHING_LANDED: &str = "no files of the table have been landed yet";
pub(super) const NO_CHECKPOINT: &str = "nothing of the stream was landed yet: there is no checkpoint";
pub(super) const MORE_THAN_READ: &str = "the statement does more than read";
pub(super) const SCHEMA_DENIED: &str = "permission denied for schema";
pub(super) const COMPACTED_MEANWHILE: &str = "files of a table were compacted while the query began";
pub(super) const TOO_COMPLEX: &str = "the statement is too complex";

/// How often a query begins anew, and how long it waits before it does, each time as long again.
const BEGINNINGS_MAX: u32 = 5;
const BEGIN_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// Begins a query, anew where what it was to look at went away meanwhile: at another place of the log it is answered.
pub async fn begin_query<T, F: Future<Output = Result<T>>>(mut query: impl FnMut() -> F) -> Result<T> {
    let mut beginnings = 1;
    loop {
        match query().await {
            Err(error) if beginnings < BEGINNINGS_MAX && [COMPACTED_MEANWHILE, CUT_OFF].contains(&error.message()) => {
                SystemClock.sleep(BEGIN_AGAIN_AFTER * beginnings).await;
                beginnings += 1;
            }
            begun => return begun,
        }
    }
}

/// The five characters that PostgreSQL's clients know an error of a query by.
pub fn sqlstate(error: &Error) -> &'static str {
    match error.message() {
        NO_TABLE | NO_STREAM => return "42P01",
        NO_DATABASE => return "3D000",
        NOTHING_LANDED | NO_CHECKPOINT => return "55000",
        MORE_THAN_READ => return "25006",
        SCHEMA_DENIED => return "42501",
        TOO_COMPLEX => return "54001",
        _ => {}
    }
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(words) = error.downcast_ref::<Words>() {
            return words.sqlstate;
        }
        cause = error.source();
    }
    match error.kind() {
        ErrorKind::Transient => "58030",
        ErrorKind::Config => "42000",
        ErrorKind::Denied => "42501",
        ErrorKind::Data | ErrorKind::Schema => "22000",
        ErrorKind::Corrupt => "XX001",
        _ => "XX000",
    }
}

/// The code of what DataFusion says.
pub(super) fn of_cause(error: &DataFusionError) -> &'static str {
    match error.find_root() {
        DataFusionError::SQL(..) => "42601",
        DataFusionError::NotImplemented(_) => "0A000",
        DataFusionError::SchemaError(error, _) => match error.as_ref() {
            SchemaError::FieldNotFound { .. } => "42703",
            SchemaError::AmbiguousReference { .. } => "42702",
            _ => "42701",
        },
        DataFusionError::Plan(text) if text.contains("Invalid function") => "42883",
        DataFusionError::Plan(_) => "42000",
        DataFusionError::Configuration(_) => "42704",
        DataFusionError::ResourcesExhausted(_) => "53200",
        DataFusionError::ArrowError(error, _) => match error.as_ref() {
            ArrowError::DivideByZero => "22012",
            ArrowError::CastError(_) | ArrowError::ParseError(_) => "22P02",
            ArrowError::ArithmeticOverflow(_) => "22003",
            _ => "22000",
        },
        DataFusionError::ObjectStore(_) | DataFusionError::IoError(_) => "58030",
        DataFusionError::ParquetError(_) => "XX001",
        DataFusionError::Internal(_) | DataFusionError::ExecutionJoin(_) => "XX000",
        _ => "22000",
    }
}
