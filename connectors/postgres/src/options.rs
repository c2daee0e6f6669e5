//! How a server is reached, and what is asked of it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use crate::lsn::Lsn;

/// PostgreSQL's default port.
pub const DEFAULT_PORT: u16 = 5432;

/// How long a server may be out of reach at the start.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// How a live server is reached, and how its log is read.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// Name or address of the server, or the directory of its socket (begins with `/`).
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The user; needs REPLICATION and SELECT on the followed tables.
    pub user: String,
    /// The user's password.
    pub password: Option<SecretString>,
    /// The database whose tables are followed.
    pub database: String,
    /// Name of the logical replication slot.
    pub slot: String,
    /// Name of the publication.
    pub publication: String,
    /// Whether slot and publication are created if they are missing.
    pub create: bool,
    /// Encryption of the connection.
    pub tls: TlsOptions,
    /// How long the server may be out of reach at the start; a single attempt takes no longer than this either.
    pub connect_timeout: Duration,
    /// Where the log begins without a checkpoint.
    pub start: Start,
    /// Whether large transactions are sent before they commit.
    pub streaming: Streaming,
    /// Whether prepared transactions are sent when they are prepared (fixed when the slot is created).
    pub two_phase: bool,
    /// Whether changes that the server itself received by replication are sent.
    pub origin: Origin,
    /// Whether values are asked for in binary form where every followed column allows it.
    pub binary: bool,
    /// Whether a new slot is kept in step on standbys (17 and later).
    pub failover: bool,
    /// How arrays are carried.
    pub arrays: Arrays,
    /// Bytes of write-ahead log that the slot may hold back before the stream gives it up; no bound without it.
    pub max_retained_wal: Option<u64>,
    /// How often a message is written into the log, so that it moves while nobody changes anything; never without it.
    pub heartbeat: Option<Duration>,
    /// Where transactions that are not whole yet are kept when memory does not hold them; the system's temporary directory
    /// without it.
    pub spill: Option<PathBuf>,
    /// Whether and how rows that were there before are read.
    pub backfill: Option<BackfillOptions>,
}

impl PostgresOptions {
    /// Options with the defaults: port 5432, no password, TLS off, slot and publication `logweir`, start now, no backfill.
    pub fn new(host: impl Into<String>, user: impl Into<String>, database: impl Into<String>) -> Self {
        PostgresOptions {
            host: host.into(),
            port: DEFAULT_PORT,
            user: user.into(),
            password: None,
            database: database.into(),
            slot: "logweir".to_owned(),
            publication: "logweir".to_owned(),
            create: true,
            tls: TlsOptions::default(),
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            start: Start::Now,
            streaming: Streaming::Off,
            two_phase: false,
            origin: Origin::Any,
            binary: true,
            failover: false,
            arrays: Arrays::List,
            max_retained_wal: None,
            heartbeat: None,
            spill: None,
            backfill: None,
        }
    }

    /// `host:port/database`, for messages.
    pub fn address(&self) -> String {
        format!("{}:{}/{}", self.host, self.port, self.database)
    }
}

/// A name of a slot and of a publication for a stream: `logweir_`, then the stream's name in lower case with `_` for whatever
/// else a slot's name must not hold.
pub fn default_name(stream: &str) -> String {
    let fitting = |c: char| match c.to_ascii_lowercase() {
        c if c.is_ascii_lowercase() || c.is_ascii_digit() => c,
        _ => '_',
    };
    // All of it is ASCII, so that a character is a byte of the server's bound.
    "logweir_".chars().chain(stream.chars().map(fitting)).take(NAME_BYTES_MAX).collect()
}

/// The longest name that a server keeps whole.
const NAME_BYTES_MAX: usize = 63;

/// Encryption of the connection to a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// Whether to encrypt, and what to believe.
    pub mode: TlsMode,
    /// PEM file with the certificates of the authorities to trust. Without it those of the public web are.
    pub ca: Option<PathBuf>,
    /// PEM file with our own certificate chain, for servers that ask for one.
    pub cert: Option<PathBuf>,
    /// PEM file with our certificate's private key.
    pub key: Option<PathBuf>,
}

/// What a connection demands of the server's encryption, named as libpq names it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// Not encrypted.
    #[default]
    Disable,
    /// Encrypted if the server can; the certificate is not looked at.
    Prefer,
    /// Encrypted; the certificate is not looked at.
    Require,
    /// The certificate is signed by a trusted authority.
    VerifyCa,
    /// The certificate is signed by a trusted authority and names the host.
    VerifyFull,
}

/// Where the log begins without a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// A slot that is created now begins now; a slot that is there goes on where it stands.
    Now,
    /// Where the slot stands.
    Earliest,
    /// At this place, which the slot must not have passed.
    Lsn(Lsn),
}

/// `now`, `earliest` or the number.
impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Start::Now => f.write_str("now"),
            Start::Earliest => f.write_str("earliest"),
            Start::Lsn(lsn) => lsn.fmt(f),
        }
    }
}

/// Whether large transactions are sent before they commit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Streaming {
    /// Only committed transactions are sent; the server keeps the large ones on its own disk.
    #[default]
    Off,
    /// From 14 on; kept on our disk until they commit.
    On,
    /// From 16 on; the server says where a subtransaction was aborted.
    Parallel,
}

/// Whether changes that the server itself received by replication are sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Origin {
    /// All changes.
    #[default]
    Any,
    /// Only changes that were made on this server (16 and later).
    None,
}

/// How arrays are carried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Arrays {
    /// As a list of their elements. An array of several dimensions or with other bounds than 1 is no such list and is refused.
    #[default]
    List,
    /// As the server's text, whatever their shape.
    Text,
}

/// Whether and how rows that were there before are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackfillOptions {
    /// Patterns over `schema.table` of the tables that are left out.
    pub exclude: Vec<logweir_core::Pattern>,
    /// Rows that a chunk has, about.
    pub chunk_rows: u64,
    /// Connections that read side by side.
    pub tasks: usize,
}

impl Default for BackfillOptions {
    fn default() -> Self {
        BackfillOptions { exclude: Vec::new(), chunk_rows: 100_000, tasks: 4 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let mut options = PostgresOptions::new("db", "weir", "shop");
        options.password = Some(SecretString::from("hunter2"));
        assert!(!format!("{options:?}").contains("hunter2"));
        assert_eq!(options.address(), "db:5432/shop");
    }

    #[test]
    fn names_are_made_of_the_stream() {
        for (stream, name) in [("shop", "logweir_shop"), ("Shop-2.eu", "logweir_shop_2_eu"), ("größe", "logweir_gr__e")] {
            assert_eq!(default_name(stream), name);
        }
        assert_eq!(default_name(&"x".repeat(64)).len(), 63);
    }
}
