//! Errors between DataFusion and the house.

use std::fmt;

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use datafusion::parquet::errors::ParquetError;
use logweir_core::{Error, ErrorKind};

/// Carries one of our errors through DataFusion.
pub(crate) fn wrap(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// What a failed query says. `Config` is for the person who wrote it.
pub(crate) fn unwrap(error: DataFusionError) -> Error {
    match error {
        DataFusionError::External(error) => match error.downcast::<Error>() {
            Ok(error) => *error,
            Err(error) => Error::data("could not answer the query").source(error),
        },
        DataFusionError::Context(_, error) | DataFusionError::Diagnostic(_, error) => unwrap(*error),
        DataFusionError::Shared(error) => match our_error(&error) {
            Some(ours) => copy(ours),
            None => classify(DataFusionError::Shared(error)),
        },
        DataFusionError::Collection(mut errors) if !errors.is_empty() => unwrap(errors.swap_remove(0)),
        other => classify(other),
    }
}

fn classify(error: DataFusionError) -> Error {
    let kind = match error.find_root() {
        DataFusionError::SQL(..)
        | DataFusionError::Plan(_)
        | DataFusionError::SchemaError(..)
        | DataFusionError::NotImplemented(_)
        | DataFusionError::Configuration(_) => {
            return Error::config("the query cannot be planned").source(words(&error));
        }
        DataFusionError::ResourcesExhausted(_) => {
            return Error::config("the query needs more memory than it may have")
                .remedy("raise memory in the configuration, or read fewer rows or columns")
                .source(words(&error));
        }
        _ if is_gone(&error) => {
            return Error::transient("a file of a table has gone while the query ran: the table was compacted")
                .remedy("ask again")
                .source(words(&error));
        }
        _ if is_out_of_disk(&error) => {
            return Error::config("the query needs more disk to spill to than it may have")
                .remedy("raise memory in the configuration, eight times of which a query may spill, or read fewer rows or columns")
                // DataFusion's own words name a setting that there is not here.
                .source(Words { text: "the disk space that a query may spill to is used up".to_owned(), sqlstate: "53200" });
        }
        DataFusionError::ObjectStore(_) | DataFusionError::IoError(_) => ErrorKind::Transient,
        DataFusionError::ParquetError(_) => ErrorKind::Corrupt,
        DataFusionError::Internal(_) | DataFusionError::ExecutionJoin(_) => ErrorKind::Internal,
        _ => ErrorKind::Data,
    };
    Error::new(kind, "could not answer the query").source(words(&error))
}

/// True if a file is not there any more. What Parquet says of it are words.
fn is_gone(error: &DataFusionError) -> bool {
    match error.find_root() {
        DataFusionError::ObjectStore(error) => matches!(&**error, object_store::Error::NotFound { .. }),
        DataFusionError::ParquetError(error) => match &**error {
            ParquetError::External(error) => matches!(error.downcast_ref(), Some(object_store::Error::NotFound { .. })),
            other => {
                let words = other.to_string();
                words.contains("Object at location") && words.contains("not found")
            }
        },
        _ => false,
    }
}

/// True if a query has spilled as much as it may. DataFusion says so where Arrow writes, and of Arrow's error the words alone are left.
fn is_out_of_disk(error: &DataFusionError) -> bool {
    match error.find_root() {
        DataFusionError::ArrowError(error, _) => {
            matches!(&**error, ArrowError::IoError(words, _) if words.contains("disk space during the spilling process"))
        }
        _ => false,
    }
}

/// What DataFusion says, once: its errors repeat the causes that they also name as their source.
pub(super) fn words(error: &DataFusionError) -> Words {
    Words { text: error.strip_backtrace(), sqlstate: super::state::of_cause(error) }
}

/// What DataFusion says, and the SQLSTATE that clients of PostgreSQL know it by.
#[derive(Debug)]
pub(super) struct Words {
    text: String,
    pub(super) sqlstate: &'static str,
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Words {}

fn our_error(error: &DataFusionError) -> Option<&Error> {
    match error.find_root() {
        DataFusionError::External(error) => error.downcast_ref(),
        _ => None,
    }
}

/// The same words; the cause stays with the shared original.
fn copy(error: &Error) -> Error {
    Error::new(error.kind(), error.to_string())
}
