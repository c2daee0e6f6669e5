//! Errors as gRPC tells them.

use logweir_core::Error;
use logweir_sql::sqlstate;
use tonic::{Code, Status};

/// What a client is told when the process ends.
pub(crate) fn stopping() -> Status {
    Status::unavailable("the server is stopping")
}

/// An error of a query, with its causes and what helps.
pub(crate) fn of(error: &Error) -> Status {
    let state = sqlstate(error);
    let code = match (&state[..2], state) {
        (_, "42501") => Code::PermissionDenied,
        (_, "42P01" | "3D000") => Code::NotFound,
        (_, "55000") => Code::FailedPrecondition,
        ("0A", _) => Code::Unimplemented,
        ("22" | "25" | "42" | "54", _) => Code::InvalidArgument,
        ("53", _) => Code::ResourceExhausted,
        ("58", _) => Code::Unavailable,
        ("XX", "XX001") => Code::DataLoss,
        _ => Code::Internal,
    };
    Status::new(code, error.report())
}
