//! Databases and destinations, and how they are reached.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::model::Later;
use super::secret::Secret;
use super::units::{SLOT_PATTERN, Size, Span};

/// A database or a destination.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Profile {
    /// A MySQL or MariaDB server.
    Mysql(Box<Mysql>),
    /// Binlog files, recorded earlier.
    MysqlFiles(MysqlFiles),
    /// Files on a disk or in an object store.
    Files(Files),
    /// A PostgreSQL server, or one that speaks its protocol.
    Postgres(Box<Postgres>),
    /// A SQL Server.
    #[schemars(extend("x-later" = "SQL Server is not available yet"))]
    Sqlserver(Later),
    /// An Oracle database.
    #[schemars(extend("x-later" = "Oracle is not available yet"))]
    Oracle(Later),
    /// BigQuery.
    #[schemars(extend("x-later" = "BigQuery is not available yet"))]
    Bigquery(Later),
    /// Iceberg tables.
    #[schemars(extend("x-later" = "Iceberg is not available yet"))]
    Iceberg(Later),
    /// Delta tables.
    #[schemars(extend("x-later" = "Delta is not available yet"))]
    Delta(Later),
}

impl Profile {
    /// The key of its kind.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Profile::Mysql(_) => "mysql",
            Profile::MysqlFiles(_) => "mysql_files",
            Profile::Files(_) => "files",
            Profile::Postgres(_) => "postgres",
            Profile::Sqlserver(_) => "sqlserver",
            Profile::Oracle(_) => "oracle",
            Profile::Bigquery(_) => "bigquery",
            Profile::Iceberg(_) => "iceberg",
            Profile::Delta(_) => "delta",
        }
    }
}

/// The kinds of profile that changes come from; the other ones are destinations.
pub(crate) const SOURCE_KINDS: [&str; 5] = ["mysql", "mysql_files", "postgres", "sqlserver", "oracle"];

/// A MySQL or MariaDB server.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mysql {
    /// Host name or address.
    pub(crate) host: String,
    /// Port.
    #[serde(default = "default_mysql_port")]
    #[schemars(range(min = 1))]
    pub(crate) port: u16,
    /// The user; needs REPLICATION SLAVE, REPLICATION CLIENT and SELECT on the followed tables.
    pub(crate) user: String,
    /// The password.
    pub(crate) password: Option<Secret>,
    /// The number this process has among the server's replicas. Must be unique among them; random when left out.
    #[schemars(range(min = 1))]
    pub(crate) server_id: Option<u32>,
    /// Encryption of the connection; off when left out.
    pub(crate) tls: Option<Tls<MysqlTlsMode>>,
    /// How long the server is tried again at the start; the general `connect_timeout` when left out.
    pub(crate) connect_timeout: Option<Span>,
}

fn default_mysql_port() -> u16 {
    3306
}

/// A PostgreSQL server, or one that speaks its protocol.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Postgres {
    /// Host name or address, or the directory of the server's socket.
    pub(crate) host: String,
    /// Port.
    #[serde(default = "default_postgres_port")]
    #[schemars(range(min = 1))]
    pub(crate) port: u16,
    /// The user; needs REPLICATION, and SELECT on the followed tables.
    pub(crate) user: String,
    /// The password.
    pub(crate) password: Option<Secret>,
    /// The database whose tables are followed.
    pub(crate) database: String,
    /// The replication slot. One slot feeds one stream; `logweir_` and the stream's name when left out.
    #[schemars(extend("format" = "slot", "pattern" = SLOT_PATTERN))]
    pub(crate) slot: Option<String>,
    /// The publication; `logweir_` and the stream's name when left out.
    #[schemars(extend("format" = "publication"))]
    pub(crate) publication: Option<String>,
    /// Whether the slot and the publication are made if they are not there.
    #[serde(default = "yes")]
    pub(crate) create: bool,
    /// Encryption of the connection; off when left out.
    pub(crate) tls: Option<Tls<PostgresTlsMode>>,
    /// How long the server is tried again at the start; the general `connect_timeout` when left out.
    pub(crate) connect_timeout: Option<Span>,
    /// Whether large transactions are sent before they commit.
    #[serde(default)]
    pub(crate) streaming: Streaming,
    /// Whether prepared transactions are sent when they are prepared. Fixed when the slot is made.
    #[serde(default)]
    pub(crate) two_phase: bool,
    /// Whether changes that the server itself got by replication are sent.
    #[serde(default)]
    pub(crate) origin: Origin,
    /// Whether values are asked for in binary form, which is faster, where every followed column allows it.
    #[serde(default = "yes")]
    pub(crate) binary: bool,
    /// Whether a slot that is made is kept in step on standbys, so that it survives a failover (PostgreSQL 17 and later).
    #[serde(default)]
    pub(crate) failover: bool,
    /// How arrays are carried.
    #[serde(default)]
    pub(crate) arrays: Arrays,
    /// How much log the slot may hold back at the server before the stream gives it up; without a bound when left out.
    pub(crate) max_retained_wal: Option<Size>,
    /// How often a message is written into the server's log, which moves the stream's place on while nobody changes anything;
    /// never when left out.
    pub(crate) heartbeat: Option<Span>,
    /// Where transactions wait on disk until they are whole, if memory does not hold them; a directory beside the checkpoint
    /// when left out, or the system's temporary directory if the state is not on this machine. A relative path begins at the
    /// configuration file's directory.
    pub(crate) spill: Option<PathBuf>,
}

fn default_postgres_port() -> u16 {
    logweir_postgres::options::DEFAULT_PORT
}

fn yes() -> bool {
    true
}

/// Whether large transactions are sent before they commit.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Streaming {
    /// Only committed transactions are sent; the server keeps large ones on its own disk until then.
    #[default]
    Off,
    /// From PostgreSQL 14 on: kept on our disk until they commit.
    On,
    /// From PostgreSQL 16 on: the same, told in more detail.
    Parallel,
}

/// Whether changes that the server itself got by replication are sent.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Origin {
    /// All changes.
    #[default]
    Any,
    /// Only changes made on this server (PostgreSQL 16 and later).
    None,
}

/// How arrays are carried.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Arrays {
    /// As lists. An array of several dimensions, or whose first index is not 1, stops the stream.
    #[default]
    List,
    /// As the server's text, whatever their shape.
    Text,
}

/// Encryption of a connection.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tls<Mode: Default> {
    /// What is demanded of the server.
    #[serde(default)]
    pub(crate) mode: Mode,
    /// PEM file with the certificates that sign the server's; the system's when left out.
    pub(crate) ca: Option<PathBuf>,
    /// PEM file with this client's certificate.
    pub(crate) cert: Option<PathBuf>,
    /// PEM file with the key of `cert`.
    pub(crate) key: Option<PathBuf>,
}

/// What is demanded of a MySQL server's certificate.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MysqlTlsMode {
    /// Not encrypted.
    Disable,
    /// Encrypted if the server can.
    #[schemars(extend("x-later" = "`prefer` would go on in the clear where a server cannot encrypt; for MySQL use `require`, `verify_ca` or `verify_full`, or `disable`"))]
    Prefer,
    /// Encrypted; the certificate is not looked at.
    Require,
    /// The certificate is signed by `ca`.
    VerifyCa,
    /// The certificate is signed by `ca` and names the host.
    #[default]
    VerifyFull,
}

/// What is demanded of a PostgreSQL server's certificate.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PostgresTlsMode {
    /// Not encrypted.
    Disable,
    /// Encrypted if the server can; the certificate is not looked at.
    Prefer,
    /// Encrypted; the certificate is not looked at.
    Require,
    /// The certificate is signed by `ca`.
    VerifyCa,
    /// The certificate is signed by `ca` and names the host.
    #[default]
    VerifyFull,
}

/// Recorded binlog files.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, deny_unknown_fields)]
pub(crate) enum MysqlFiles {
    /// On this machine.
    Path {
        /// The files, with `*` and `?`: `/backup/binlog/mysql-bin.*`. A relative path begins at the configuration file's
        /// directory. Files named .zst or .gz are decompressed.
        path: String,
    },
    /// In an object store.
    Bucket {
        /// The files: `s3://bucket/binlog/mysql-bin.*`.
        #[schemars(extend("format" = "store-url"))]
        url: String,
        /// Options of the object store.
        #[serde(default)]
        options: BTreeMap<String, OptionValue>,
    },
}

/// Files on a disk or in an object store.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Files {
    /// The place: `file:///absolute/directory` or `s3://bucket/prefix`.
    #[schemars(extend("format" = "store-url"))]
    pub(crate) url: String,
    /// Options of the object store, named as object_store names them: endpoint, region, allow_http, access_key_id,
    /// secret_access_key. What is not given is taken from the environment (AWS_*).
    #[serde(default)]
    pub(crate) options: BTreeMap<String, OptionValue>,
}

/// An option of an object store: text, or a secret.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum OptionValue {
    /// A secret.
    Secret(Secret),
    /// As it stands here.
    Text(String),
    /// A truth value.
    Bool(bool),
    /// A number.
    Number(i64),
}
