//! How the sources are set up: what a configuration says, checked, and turned into the client's own options.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use logweir_core::{Error, Result};
use mysql_async::{ClientIdentity, OptsBuilder, SslOpts};
use object_store::ObjectStore;
use secrecy::{ExposeSecret, SecretString};

use crate::gtid::{MariadbGtidPosition, MysqlGtidSet};

/// MySQL's default port.
pub const DEFAULT_PORT: u16 = 3306;

/// How long a server may be out of reach at the start.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// The first bytes of a binlog file are its magic number.
pub(crate) const FIRST_POSITION: u64 = 4;

/// The client refuses packets above this; it is the servers' own bound for what they send to replicas.
const PACKET_BYTES_MAX: usize = 1 << 30;

/// How a live server is reached.
#[derive(Debug, Clone)]
pub struct MysqlOptions {
    /// Name or address of the server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The user; needs REPLICATION SLAVE, REPLICATION CLIENT (MariaDB: BINLOG MONITOR) and SELECT on the followed tables.
    pub user: String,
    /// The user's password.
    pub password: Option<SecretString>,
    /// How we are known among the server's replicas; must differ from every other replica's. By default a source
    /// takes one at random from the upper half of the range when it is made, and keeps it as long as it lives.
    pub server_id: Option<u32>,
    /// Encryption of the connection.
    pub tls: TlsOptions,
    /// How long the server may be out of reach at the start; a single attempt takes no longer than this either.
    pub connect_timeout: Duration,
    /// Where the log begins without a checkpoint.
    pub start: Start,
}

impl MysqlOptions {
    /// Options with the defaults: port 3306, no password, no TLS, start now.
    pub fn new(host: impl Into<String>, user: impl Into<String>) -> Self {
        MysqlOptions {
            host: host.into(),
            port: DEFAULT_PORT,
            user: user.into(),
            password: None,
            server_id: None,
            tls: TlsOptions::default(),
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            start: Start::Now,
        }
    }

    /// `host:port`, for messages.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The client's options for one connection.
    pub(crate) fn client(&self) -> Result<OptsBuilder> {
        Ok(OptsBuilder::default()
            .ip_or_hostname(self.host.as_str())
            .tcp_port(self.port)
            // The host that was asked for, not a socket file that the server at it happens to name.
            .prefer_socket(false)
            .user(Some(self.user.as_str()))
            .pass(self.password.as_ref().map(|password| password.expose_secret()))
            .ssl_opts(self.tls.client()?)
            .max_allowed_packet(Some(PACKET_BYTES_MAX))
            .tcp_keepalive(Some(Duration::from_secs(60)))
            .connect_attribute("program_name", "logweir")
            // Text comes as UTF-8, times as they are in the log.
            .setup(vec!["SET NAMES utf8mb4, time_zone = '+00:00'"]))
    }
}

/// Encryption of the connection to a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// Whether to encrypt, and what to believe.
    pub mode: TlsMode,
    /// Certificates of the authorities to trust, PEM or DER. Without it those of the public web are.
    pub ca: Option<PathBuf>,
    /// Our own certificate chain, for servers that ask for one.
    pub cert: Option<PathBuf>,
    /// Our certificate's private key.
    pub key: Option<PathBuf>,
}

/// Whether a connection is encrypted, and what is believed about the other end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// Not encrypted. The password still does not cross the network in the clear.
    #[default]
    Disable,
    /// Encrypted; the server may be anybody.
    Require,
    /// Encrypted; the server's certificate must be signed by a trusted authority. Whatever name it bears would do, but the
    /// client of today asks for the host's name here too.
    VerifyCa,
    /// Encrypted; the server's certificate must be signed by a trusted authority for the host's name.
    VerifyFull,
}

impl TlsOptions {
    fn client(&self) -> Result<Option<SslOpts>> {
        if self.mode == TlsMode::Disable {
            return Ok(None);
        }
        // The client panics without a process-wide provider; that one is there already is as good.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let identity = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Some(ClientIdentity::new(cert.clone().into(), key.clone().into())),
            (None, None) => None,
            _ => return Err(Error::config("tls needs cert and key together").remedy("give both files, or neither")),
        };
        let roots = self.ca.iter().map(|ca| ca.clone().into()).collect::<Vec<_>>();
        Ok(Some(
            SslOpts::default()
                .with_client_identity(identity)
                .with_disable_built_in_roots(!roots.is_empty())
                .with_root_certs(roots)
                .with_danger_accept_invalid_certs(self.mode == TlsMode::Require)
                .with_danger_skip_domain_validation(self.mode != TlsMode::VerifyFull),
        ))
    }
}

/// Where a log begins without a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Start {
    /// At its end: what happens from now on.
    #[default]
    Now,
    /// At the beginning of the oldest file there is.
    Earliest,
    /// At an event's beginning in a file.
    Position {
        /// The file's name, as `SHOW BINARY LOGS` lists it.
        file: String,
        /// Offset of the event in bytes.
        position: u64,
    },
    /// After these transactions: a MySQL set (`uuid:1-5,…`) or a MariaDB position (`0-1-7,…`).
    Gtid(String),
}

impl Start {
    /// The GTIDs of a start, as a set of MySQL's.
    pub(crate) fn mysql_set(text: &str) -> Result<MysqlGtidSet> {
        MysqlGtidSet::parse(text)
    }

    /// The GTIDs of a start, as a position of MariaDB's.
    pub(crate) fn mariadb_position(text: &str) -> Result<MariadbGtidPosition> {
        MariadbGtidPosition::parse(text)
    }
}

/// `now`, `earliest`, `file:position` or the GTIDs.
impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Start::Now => f.write_str("now"),
            Start::Earliest => f.write_str("earliest"),
            Start::Position { file, position } => write!(f, "{file}:{position}"),
            Start::Gtid(gtids) => f.write_str(gtids),
        }
    }
}

/// Which recorded binlog files are read.
#[derive(Debug, Clone)]
pub struct BinlogFilesOptions {
    /// Where they are.
    pub store: Arc<dyn ObjectStore>,
    /// Their paths in the store: `*` stands for any run of characters but `/`, `?` for one. Names may end in `.zst` or `.gz`.
    pub pattern: String,
    /// Where to begin without a checkpoint: `Earliest` and `Now` are both the first file's beginning.
    pub start: Start,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let mut options = MysqlOptions::new("db", "weir");
        options.password = Some(SecretString::from("hunter2"));
        assert!(!format!("{options:?}").contains("hunter2"));
        assert_eq!(options.address(), "db:3306");
    }

    #[test]
    fn a_certificate_needs_its_key() {
        let mut tls = TlsOptions { mode: TlsMode::VerifyFull, cert: Some("c.pem".into()), ..TlsOptions::default() };
        assert!(tls.client().is_err());
        tls.key = Some("k.pem".into());
        let client = tls.client().unwrap().unwrap();
        assert!(!client.skip_domain_validation() && !client.accept_invalid_certs() && !client.disable_built_in_roots());
        tls.mode = TlsMode::Disable;
        assert!(tls.client().unwrap().is_none());
    }

    #[test]
    fn a_given_authority_replaces_the_public_ones() {
        let tls = TlsOptions { mode: TlsMode::VerifyCa, ca: Some("ca.pem".into()), ..TlsOptions::default() };
        let client = tls.client().unwrap().unwrap();
        assert!(client.disable_built_in_roots() && client.skip_domain_validation() && !client.accept_invalid_certs());
    }
}
