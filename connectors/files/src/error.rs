//! Errors of stores, disks and the Parquet encoder, in the house's own kinds.
//!
//! `object_store` keeps the HTTP status private, so it is read from the text of the error; where that fails the error
//! counts as transient, because the runtime's retry is bounded in pace and visible, and a wrong stop is not undone by itself.

use std::fmt::Display;
use std::io;

use logweir_core::{Error, ErrorKind};
use parquet::errors::ParquetError;

/// An error of an object store, met while `doing` something to `path`.
pub fn store_error(error: object_store::Error, doing: &'static str, path: impl Display) -> Error {
    let text = chain(&error);
    let new = |kind: ErrorKind| Error::new(kind, doing).context("path", &path);
    use object_store::Error as E;
    let shown = match &error {
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => new(ErrorKind::Denied)
            .remedy("allow the credentials GetObject, PutObject, DeleteObject, AbortMultipartUpload and ListBucket on this path"),
        // A listing says so with an error of no kind.
        _ if text.contains("NoSuchBucket") => {
            new(ErrorKind::Config).remedy("create the bucket, or correct the url and the options region and endpoint")
        }
        // An upload that somebody aborted, or an object that somebody removed: written again from the last checkpoint.
        E::NotFound { .. } => new(ErrorKind::Transient),
        E::NotSupported { .. } | E::NotImplemented { .. } | E::InvalidPath { .. } | E::UnknownConfigurationKey { .. } => {
            new(ErrorKind::Config)
        }
        _ if is_missing_credentials(&text) => {
            new(ErrorKind::Denied).remedy("set the options access_key_id and secret_access_key, or AWS_* in the environment")
        }
        _ => match status(&text) {
            Some(401 | 403) => new(ErrorKind::Denied),
            Some(408 | 409 | 429 | 500..) | None => match io_cause(&error) {
                Some(cause) => return io_error_kind(cause.kind(), doing, path).source(error),
                None => new(ErrorKind::Transient),
            },
            Some(_) => new(ErrorKind::Config).remedy("see what the store says; the options region and endpoint are the usual suspects"),
        },
    };
    shown.source(error)
}

/// An error of a local file.
pub(crate) fn io_error(error: io::Error, doing: &'static str, path: impl Display) -> Error {
    io_error_kind(error.kind(), doing, path).source(error)
}

fn io_error_kind(kind: io::ErrorKind, doing: &'static str, path: impl Display) -> Error {
    use io::ErrorKind as K;
    match kind {
        K::StorageFull | K::QuotaExceeded => Error::transient("the disk is full")
            .context("while", doing)
            .context("path", path)
            .remedy("free some space; the stream goes on by itself"),
        K::FileTooLarge => Error::transient("a file may not grow any further")
            .context("while", doing)
            .context("path", path)
            .remedy("raise the limit on file sizes (ulimit -f), or choose a smaller rotate size"),
        K::PermissionDenied | K::ReadOnlyFilesystem => {
            Error::denied(doing).context("path", path).remedy("give the user that runs logweir the right to write there")
        }
        K::InvalidFilename | K::InvalidInput | K::NotADirectory | K::IsADirectory => Error::config(doing).context("path", path),
        _ => Error::transient(doing).context("path", path),
    }
}

/// An error of the Parquet encoder about a relation. We check types before we encode, so it is our mistake.
pub(crate) fn parquet_error(error: ParquetError, relation: impl Display) -> Error {
    Error::internal("could not encode Parquet").context("relation", relation).source(error)
}

/// The message with every cause behind it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn io_cause<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a io::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<io::Error>() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// Without any credentials the store's client asks the cloud machine's own metadata service, which only exists there.
fn is_missing_credentials(text: &str) -> bool {
    ["169.254.169.254", "169.254.170.2", "metadata.google.internal"].iter().any(|host| text.contains(host))
}

fn status(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("status code: ")?;
    rest.get(..3)?.parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn kind_of(text: &str) -> ErrorKind {
        let error = object_store::Error::Generic { store: "S3", source: text.to_owned().into() };
        store_error(error, "could not write", "a/b").kind()
    }

    #[test]
    fn statuses_become_kinds() {
        assert_eq!(kind_of("Server returned non-2xx status code: 503 Service Unavailable"), ErrorKind::Transient);
        assert_eq!(kind_of("Server returned non-2xx status code: 429 Too Many Requests"), ErrorKind::Transient);
        assert_eq!(kind_of("Server returned non-2xx status code: 400 Bad Request"), ErrorKind::Config);
        assert_eq!(kind_of("Server returned non-2xx status code: 403 Forbidden"), ErrorKind::Denied);
        assert_eq!(kind_of("error sending request"), ErrorKind::Transient);
        assert_eq!(kind_of("Server returned non-2xx status code: 404 Not Found: <Code>NoSuchBucket</Code>"), ErrorKind::Config);
        assert_eq!(kind_of("Error performing PUT http://169.254.169.254/latest/api/token"), ErrorKind::Denied);
    }

    #[test]
    fn a_full_disk_says_so_and_where() {
        let error = io_error(io::Error::from(io::ErrorKind::StorageFull), "could not write", "/data/lake/a.tmp");
        assert_eq!(error.kind(), ErrorKind::Transient);
        assert!(error.to_string().contains("the disk is full") && error.to_string().contains("/data/lake/a.tmp"), "{error}");
    }

    #[test]
    fn a_full_disk_is_seen_through_a_store() {
        let error =
            object_store::Error::Generic { store: "LocalFileSystem", source: Box::new(io::Error::from(io::ErrorKind::StorageFull)) };
        assert!(store_error(error, "could not write", "a").to_string().starts_with("the disk is full"));
    }
}
