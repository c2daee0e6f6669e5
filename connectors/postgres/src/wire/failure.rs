//! What the server's errors mean: who can do something about them, and what.

use std::fmt;

use logweir_core::{Error, ErrorKind, Result};

use super::frame::Frame;
use super::message::Fields;

/// Details are kept of these classes only: they speak of connections, privileges, objects and resources. Those of others
/// may show a row's values ("Key (id)=(7) already exists", "Failing row contains …").
const CLASSES_WITH_DETAIL: [&str; 9] = ["08", "0A", "28", "3D", "42", "53", "55", "57", "58"];

/// The class whose very message may show a value, in quotes or after a colon.
const CLASS_WITH_VALUES: &str = "22";

/// No message of a server that is worth reading is longer.
const TEXT_CHARACTERS_MAX: usize = 2_000;

/// An error as a server tells it, without what may show a row's values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerError {
    severity: String,
    code: String,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
    context: Option<String>,
}

impl ServerError {
    /// Reads an ErrorResponse or NoticeResponse.
    pub(super) fn parse(frame: Frame<'_>) -> Result<Self> {
        let mut error = ServerError::default();
        let mut fields = Fields::new(frame);
        loop {
            match fields.u8()? {
                0 => break,
                // The severity in English; servers before 9.6 send only `S`, in the language of their messages.
                b'V' => error.severity = fields.text()?,
                b'S' if error.severity.is_empty() => error.severity = fields.text()?,
                b'C' => error.code = fields.text()?,
                b'M' => error.message = plain(&fields.text()?),
                b'D' => error.detail = Some(plain(&fields.text()?)),
                b'H' => error.hint = Some(plain(&fields.text()?)),
                b'W' => error.context = Some(plain(&fields.text()?)),
                _ => {
                    fields.text()?;
                }
            }
        }
        if !CLASSES_WITH_DETAIL.contains(&error.class()) {
            error.detail = None;
        }
        // What a function raises is made of whatever it looks at, under whatever code.
        if error.class() == "P0" || error.context.as_ref().is_some_and(|context| context.contains("RAISE")) {
            error.hint = None;
            error.message = "a function of the server raised an error".to_owned();
        }
        if error.class() == CLASS_WITH_VALUES {
            error.hint = None;
            error.message = without_values(&error.message);
        }
        // Of a COPY or a function it shows lines and arguments, of a walsender which change of which slot it was.
        error.context = error.context.filter(|context| context.starts_with("slot \""));
        Ok(error)
    }

    /// `ERROR`, `FATAL` or `PANIC`.
    pub fn severity(&self) -> &str {
        &self.severity
    }

    /// The five characters that say what it is.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// What the server says, without values.
    pub fn message(&self) -> &str {
        &self.message
    }

    fn class(&self) -> &str {
        self.code.get(..2).unwrap_or_default()
    }

    /// True if `text` is part of what the server says. Only of one that says it in English (`lc_messages`, which only a
    /// superuser may set): where a code alone would do, it decides alone.
    fn says(&self, text: &str) -> bool {
        self.message.contains(text) || self.detail.as_ref().is_some_and(|detail| detail.contains(text))
    }
}

/// `permission denied for table orders (42501)`, with detail and hint where there are.
impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)?;
        for more in [&self.detail, &self.hint, &self.context].into_iter().flatten() {
            write!(f, ": {more}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ServerError {}

/// On one line and of bearable length.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT_CHARACTERS_MAX).collect()
}

/// The message up to where values may begin, with quoted text left out.
fn without_values(message: &str) -> String {
    let message = message.split(": ").next().unwrap_or_default();
    let quoted = message.split('"').enumerate();
    quoted.map(|(i, part)| if i % 2 == 0 { part } else { "\"…\"" }).collect()
}

/// The error of `doing` something ("could not connect to the server").
pub(super) fn failure(doing: &'static str, error: ServerError) -> Error {
    let kind = kind(&error);
    let remedy = remedy(&error);
    let wrapped = Error::new(kind, doing).context("sqlstate", &error.code).source(error);
    match remedy {
        Some(remedy) => wrapped.remedy(remedy),
        None => wrapped,
    }
}

fn kind(error: &ServerError) -> ErrorKind {
    match error.code.as_str() {
        // The server does not understand us: no network comes between.
        "08P01" => ErrorKind::Config,
        // A database that was dropped does not come back, and a limit on slots is raised by a person.
        "57P04" | "53400" => ErrorKind::Config,
        // Too many connections, out of memory, disk full; shutting down, starting up, cancelled; deadlock, conflict with
        // recovery; object in use (a slot that another connection still holds), lock not available.
        "55006" | "55P03" => ErrorKind::Transient,
        "42501" => ErrorKind::Denied,
        // A table was dropped while the server looked at it, or was asked about it.
        "XX000" if error.says("could not open relation") => ErrorKind::Transient,
        "58P01" if error.says("has already been removed") => ErrorKind::LogGone,
        "55000" if error.says("can no longer get changes from replication slot") || error.says("invalidated") => ErrorKind::LogGone,
        "58030" => ErrorKind::Transient,
        _ => match error.class() {
            "08" | "40" | "53" | "57" => ErrorKind::Transient,
            "28" => ErrorKind::Denied,
            _ => ErrorKind::Config,
        },
    }
}

fn remedy(error: &ServerError) -> Option<&'static str> {
    Some(match error.code.as_str() {
        "28P01" => "check user and password",
        "28000" if error.says("replication connection") => {
            "add a line for replication to pg_hba.conf and reload it: host <database> <user> <address> scram-sha-256 \
             (a logical walsender is matched by its database, a line for the database `replication` is not enough)"
        }
        "28000" if error.says("no encryption") => {
            "set tls: { mode: require } or stricter, or add a line for this user, database and address to pg_hba.conf"
        }
        "28000" if error.says("pg_hba.conf") => {
            "add a line for this user, database and address to pg_hba.conf and reload it: hostssl <database> <user> <address> scram-sha-256"
        }
        "28000" if error.says("certificate") => "give a certificate and key that the server trusts: tls: { cert: …, key: … }",
        "28000" if error.says("is not permitted to log in") => "run ALTER ROLE <user> LOGIN",
        "28000" if error.says("does not exist") => "check user and password",
        "3D000" => "check database",
        "53300" if error.says("max_wal_senders") => "raise max_wal_senders, or end streams that are not needed",
        "53300" => "raise max_connections, or close connections that are not needed",
        "42501" if error.says("REPLICATION") || error.says("replication role") || error.says("start WAL sender") => {
            "run ALTER ROLE <user> REPLICATION (on RDS: GRANT rds_replication TO <user>)"
        }
        "08P01" if error.says("unsupported startup parameter") => {
            "connect to the server itself: a connection pooler stands between, and replication does not work through one"
        }
        "42704" if error.says("publication") => {
            "the log has changes of a time at which the publication was not there, and cannot be read past them: drop the slot, remove what was \
             landed and the stream's checkpoint, and start anew with backfill: all"
        }
        "55006" => "end what uses it, or name another slot: in the source's profile",
        "55000" if error.says("wal_level") => "set wal_level = logical in postgresql.conf and restart the server",
        "53400" if error.says("replication slots") => "raise max_replication_slots, or drop slots that are not needed",
        _ => return None,
    })
}

/// The code that a server gave for an error, if it came from a server.
pub fn sqlstate(error: &Error) -> Option<&str> {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<ServerError>() {
            return Some(error.code());
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn body(fields: &[(u8, &str)]) -> Vec<u8> {
        let mut body = Vec::new();
        for (field, text) in fields {
            body.push(*field);
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
        body.push(0);
        body
    }

    fn server(fields: &[(u8, &str)]) -> ServerError {
        ServerError::parse(Frame { tag: b'E', body: &body(fields) }).unwrap()
    }

    #[test]
    fn kinds() {
        for (code, message, kind) in [
            ("28P01", "password authentication failed for user \"weir\"", ErrorKind::Denied),
            ("42501", "permission denied for table orders", ErrorKind::Denied),
            ("57P03", "the database system is starting up", ErrorKind::Transient),
            ("57P01", "terminating connection due to administrator command", ErrorKind::Transient),
            ("53300", "sorry, too many clients already", ErrorKind::Transient),
            ("40001", "canceling statement due to conflict with recovery", ErrorKind::Transient),
            ("55006", "replication slot \"logweir\" is active for PID 7", ErrorKind::Transient),
            ("58P01", "requested WAL segment 000000010000000000000001 has already been removed", ErrorKind::LogGone),
            ("55000", "can no longer get changes from replication slot \"logweir\"", ErrorKind::LogGone),
            ("55000", "logical decoding requires wal_level >= logical", ErrorKind::Config),
            ("42704", "replication slot \"logweir\" does not exist", ErrorKind::Config),
            ("3D000", "database \"shop\" does not exist", ErrorKind::Config),
            ("", "", ErrorKind::Config),
        ] {
            let error = failure("could not ask the server", server(&[(b'V', "ERROR"), (b'C', code), (b'M', message)]));
            assert_eq!(error.kind(), kind, "{code} {message}");
            assert_eq!(sqlstate(&error), Some(code));
        }
    }

    #[test]
    fn what_was_said_is_the_cause() {
        let error = failure(
            "could not stream from the server",
            server(&[(b'S', "FEHLER"), (b'V', "ERROR"), (b'C', "55006"), (b'M', "replication slot \"s\" is active for PID 7")]),
        );
        assert_eq!(
            error.report(),
            "could not stream from the server (sqlstate: 55006); end what uses it, or name another slot: in the source's profile: replication slot \"s\" is active for PID 7 (55006)"
        );
        assert_eq!(sqlstate(&Error::config("no server")), None);
    }

    #[test]
    fn values_are_not_told() {
        for (fields, told) in [
            (
                &[
                    (b'C', "23505"),
                    (b'M', "duplicate key value violates unique constraint \"k\""),
                    (b'D', "Key (id)=(4711) already exists."),
                ][..],
                "duplicate key value violates unique constraint \"k\" (23505)",
            ),
            (
                &[(b'C', "22P02"), (b'M', "invalid input syntax for type integer: \"4711\""), (b'W', "COPY t, line 1: \"4711\"")],
                "invalid input syntax for type integer (22P02)",
            ),
            (
                &[(b'C', "22003"), (b'M', "value \"4711\" is out of range for type integer")],
                "value \"…\" is out of range for type integer (22003)",
            ),
            (
                &[(b'C', "P0001"), (b'M', "no 4711"), (b'D', "4711"), (b'H', "not 4711"), (b'q', "SELECT 4711")],
                "a function of the server raised an error (P0001)",
            ),
            (
                &[(b'C', "22023"), (b'M', "no 4711"), (b'W', "PL/pgSQL function shop.guard() line 3 at RAISE")],
                "a function of the server raised an error (22023)",
            ),
            (
                &[
                    (b'C', "22021"),
                    (b'M', "invalid byte sequence for encoding \"UTF8\": 0x4711"),
                    (b'W', "slot \"s\", output plugin \"pgoutput\", in the change callback"),
                ],
                "invalid byte sequence for encoding \"…\" (22021): slot \"s\", output plugin \"pgoutput\", in the change callback",
            ),
        ] {
            let error = server(fields);
            assert_eq!(error.to_string(), told);
            assert!(!format!("{:?}", failure("could not ask the server", error)).contains("4711"));
        }
    }

    #[test]
    fn remedies() {
        for (code, message, remedy) in [
            (
                "28000",
                "no pg_hba.conf entry for replication connection from host \"10.0.0.1\", user \"weir\", no encryption",
                "for replication",
            ),
            ("28000", "no pg_hba.conf entry for host \"10.0.0.1\", user \"weir\", database \"shop\", no encryption", "mode: require"),
            ("28000", "connection requires a valid client certificate", "certificate and key"),
            ("42501", "must be superuser or replication role to start walsender", "ALTER ROLE <user> REPLICATION"),
            ("08P01", "unsupported startup parameter: statement_timeout", "pooler"),
        ] {
            let error = failure("could not connect to the server", server(&[(b'C', code), (b'M', message)]));
            assert!(error.get_remedy().unwrap().contains(remedy), "{error}");
        }
    }

    #[test]
    fn cut_anywhere_it_is_an_error() {
        let whole = body(&[(b'V', "ERROR"), (b'C', "28P01"), (b'M', "no")]);
        for cut in 0..whole.len() {
            assert!(ServerError::parse(Frame { tag: b'E', body: &whole[..cut] }).is_err(), "{cut}");
        }
    }
}
