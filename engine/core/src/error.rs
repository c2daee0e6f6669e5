//! One error type for the whole house.
//!
//! A kind exists only where some caller acts differently on it. What happened is the message, with what it
//! happened to as context, and what to do as the remedy. Row values and secrets are never part of an error.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// The result of everything that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// May go away by itself: retried with backoff.
    Transient,
    /// The configuration, or the way the source or destination is set up, must be changed by a person.
    Config,
    /// A credential or a privilege is missing; the message names it.
    Denied,
    /// The log no longer holds the position asked for: a new start or a backfill is needed.
    LogGone,
    /// A relation has a shape that cannot be followed.
    Schema,
    /// A value cannot be carried.
    Data,
    /// A newer owner of the stream exists, or another process holds it.
    Fenced,
    /// Bytes are not what their format says.
    Corrupt,
    /// A mistake of ours.
    Internal,
}

impl ErrorKind {
    /// The kind in lower case, as it appears in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorKind::Transient => "transient",
            ErrorKind::Config => "config",
            ErrorKind::Denied => "denied",
            ErrorKind::LogGone => "log_gone",
            ErrorKind::Schema => "schema",
            ErrorKind::Data => "data",
            ErrorKind::Fenced => "fenced",
            ErrorKind::Corrupt => "corrupt",
            ErrorKind::Internal => "internal",
        }
    }
}

/// What went wrong, with what, and what mends it.
///
/// Displayed on one line: `message (name: value, …); remedy`. The cause is the [`source`](std::error::Error::source).
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    context: Vec<(&'static str, String)>,
    remedy: Option<Cow<'static, str>>,
    // Shared, so that who has failed for good can say so again.
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $kind:ident;)*) => {
        $($(#[$doc])*
        pub fn $name(message: impl Into<Cow<'static, str>>) -> Self {
            Self::new(ErrorKind::$kind, message)
        })*
    };
}

impl Error {
    /// An error of `kind`; the message is lower case, without a full stop, and says what was being done.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Error(Box::new(Inner { kind, message: message.into(), context: Vec::new(), remedy: None, source: None }))
    }

    constructors! {
        /// See [`ErrorKind::Transient`].
        transient => Transient;
        /// See [`ErrorKind::Config`].
        config => Config;
        /// See [`ErrorKind::Denied`].
        denied => Denied;
        /// See [`ErrorKind::LogGone`].
        log_gone => LogGone;
        /// See [`ErrorKind::Schema`].
        schema => Schema;
        /// See [`ErrorKind::Data`].
        data => Data;
        /// See [`ErrorKind::Fenced`].
        fenced => Fenced;
        /// See [`ErrorKind::Corrupt`].
        corrupt => Corrupt;
        /// See [`ErrorKind::Internal`].
        internal => Internal;
    }

    /// Adds what it happened to. Never a row's value, never a secret.
    #[must_use]
    pub fn context(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        self.0.context.push((name, value.to_string()));
        self
    }

    /// Adds what a person can do about it: a sentence without a full stop, with the exact statement where there is one.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<Cow<'static, str>>) -> Self {
        self.0.remedy = Some(remedy.into());
        self
    }

    /// Wraps the cause.
    #[must_use]
    pub fn source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(Arc::from(source.into()));
        self
    }

    /// What a caller does about it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// True if trying again may help.
    pub fn is_transient(&self) -> bool {
        self.0.kind == ErrorKind::Transient
    }

    /// What went wrong, without context.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The value of a piece of context, if it was given.
    pub fn get_context(&self, name: &str) -> Option<&str> {
        self.0.context.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_str())
    }

    /// What a person can do, if known.
    pub fn get_remedy(&self) -> Option<&str> {
        self.0.remedy.as_deref()
    }

    /// The whole story on one line: this error and every cause behind it.
    pub fn report(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let message = error.to_string();
            // Many an error of others shows its cause itself and hands it out again.
            if !text.ends_with(&message) {
                text.push_str(": ");
                text.push_str(&message);
            }
            cause = error.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        for (i, (name, value)) in self.0.context.iter().enumerate() {
            f.write_str(if i == 0 { " (" } else { ", " })?;
            write!(f, "{name}: {value}")?;
        }
        if !self.0.context.is_empty() {
            f.write_str(")")?;
        }
        if let Some(remedy) = &self.0.remedy {
            write!(f, "; {remedy}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.report())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// Adds context to the error of a result on its way up.
pub trait ResultExt<T> {
    /// See [`Error::context`].
    fn context(self, name: &'static str, value: impl fmt::Display) -> Result<T>;
}

impl<T> ResultExt<T> for Result<T> {
    fn context(self, name: &'static str, value: impl fmt::Display) -> Result<T> {
        self.map_err(|error| error.context(name, value))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_as_one_line() {
        let error = Error::config("binlog_format must be ROW")
            .context("found", "STATEMENT")
            .remedy("run SET GLOBAL binlog_format = 'ROW'")
            .source(std::io::Error::other("the cause"));
        assert_eq!(error.report(), "binlog_format must be ROW (found: STATEMENT); run SET GLOBAL binlog_format = 'ROW': the cause");
    }

    #[test]
    fn a_cause_that_was_told_is_not_told_again() {
        let inner = Error::transient("could not connect").source(std::io::Error::other(Error::transient("refused")));
        assert_eq!(inner.report(), "could not connect: refused");
    }
}
