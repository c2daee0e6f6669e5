//! What the configuration consists of.
//!
//! These types are the only list of keys there is: the JSON Schema is derived from them (its descriptions are the
//! comments here), and a file is checked against that schema. What a later version brings is listed too, marked
//! `x-later`, so that its refusal can say so instead of calling the key unknown.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

use super::change_log::{Acknowledge, ChangeLog};
use super::profiles::{OptionValue, Profile};
use super::secret::Secret;
use super::sql_endpoint::SqlEndpoint;
use super::units::{NAME_PATTERN, Size, Span};

const MIB: u64 = 1 << 20;

/// The configuration of logweir.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Where checkpoints are kept: the one thing that must survive.
    #[serde(default)]
    pub(crate) state: State,
    /// One budget for everything the process buffers, shared by its streams.
    #[serde(default = "default_memory")]
    pub(crate) memory: Size,
    /// The HTTP endpoint; without this key there is none.
    pub(crate) http: Option<Http>,
    /// The SQL endpoint, which speaks PostgreSQL's protocol; without this key there is none.
    pub(crate) sql: Option<SqlEndpoint>,
    /// How long an endpoint that cannot be reached is tried again at the start.
    #[serde(default = "default_connect_timeout")]
    pub(crate) connect_timeout: Span,
    /// Keys that masks and SQL name, by an id of your choice: secrets of at least 32 random bytes.
    #[serde(default)]
    pub(crate) keys: BTreeMap<Name, Secret>,
    /// The databases and destinations there are, by a name of your choice.
    pub(crate) profiles: BTreeMap<Name, Profile>,
    /// What flows from where to where, by a name of your choice.
    pub(crate) streams: BTreeMap<Name, Stream>,
}

fn default_memory() -> Size {
    Size(1024 * MIB)
}

fn default_connect_timeout() -> Span {
    Span(Duration::from_secs(30))
}

/// Where checkpoints are kept.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, deny_unknown_fields)]
pub(crate) enum State {
    /// A directory of this machine, locked by the process that uses it.
    Directory {
        /// The directory; a relative path begins at the configuration file's directory.
        dir: PathBuf,
    },
    /// A prefix of an object store; a newer process takes over from an older one.
    Bucket {
        /// `s3://bucket/prefix`, or `file:///directory`.
        #[schemars(extend("format" = "store-url"))]
        url: String,
        /// Options of the object store.
        #[serde(default)]
        options: BTreeMap<String, OptionValue>,
    },
    /// A table in PostgreSQL.
    Postgres {
        /// The connection.
        #[expect(dead_code, reason = "refused before it is read")]
        #[schemars(extend("x-later" = "state in PostgreSQL is not available yet; use `dir` or `url`"))]
        postgres: Later,
    },
}

impl Default for State {
    fn default() -> Self {
        State::Directory { dir: PathBuf::from("logweir-state") }
    }
}

/// The HTTP endpoint.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Http {
    /// Address and port: serves /metrics, /healthz, /readyz and /status, without authentication.
    #[schemars(with = "String", extend("format" = "socket"))]
    pub(crate) listen: SocketAddr,
}

/// What flows from one source to its destinations.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stream {
    /// The profile that changes come from.
    pub(crate) source: String,
    /// Which tables; all but the server's own when left out.
    #[serde(default)]
    pub(crate) tables: Tables,
    /// Patterns over `schema.table` in the source: the tables whose updates are landed with the row before, as `_metadata_before`.
    #[serde(default)]
    pub(crate) before_images: Vec<TablePattern>,
    /// Whether rows that exist already are read, too.
    #[serde(default)]
    pub(crate) backfill: Backfill,
    /// Where the log begins when there is no checkpoint: `now` for a server, `earliest` for files when left out.
    pub(crate) start: Option<Start>,
    /// Which columns are masked before anything is written anywhere. The first rule that is for a column holds.
    #[serde(default)]
    pub(crate) mask: Masks,
    /// JavaScript that rows go through, after the masks. The first rule that fits a table holds.
    #[serde(default)]
    pub(crate) udf: Vec<Udf>,
    /// SQL over single tables, after the masks. Every rule that fits a table holds.
    #[serde(default)]
    pub(crate) transforms: Vec<SqlRule>,
    /// Small tables that `transforms` look values up in, by a name of your choice.
    #[serde(default)]
    pub(crate) references: BTreeMap<Name, Reference>,
    /// What happens to a change that a transform cannot carry.
    #[serde(default)]
    pub(crate) on_bad_value: OnBadValue,
    /// Where changes are kept on their way, and for how long. On disk beside the checkpoint when left out; `memory` where that is in a bucket.
    pub(crate) change_log: Option<ChangeLog>,
    /// When the source may forget a change.
    #[serde(default)]
    pub(crate) acknowledge: Acknowledge,
    /// Where changes go.
    #[schemars(length(min = 1))]
    pub(crate) destinations: Vec<Destination>,
}

/// Which tables and columns a stream follows. Patterns know `*` (any characters) and `?` (one character).
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tables {
    /// Patterns over `schema.table`; every table when left out.
    #[serde(default)]
    pub(crate) include: Vec<TablePattern>,
    /// Patterns over `schema.table`: stronger than `include`.
    #[serde(default)]
    pub(crate) exclude: Vec<TablePattern>,
    /// Patterns over `schema.table.column`: columns that are never read.
    #[serde(default)]
    pub(crate) exclude_columns: Vec<ColumnPattern>,
}

/// Whether rows that exist already are read, too.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Backfill {
    /// Only the log is followed, from `start` on.
    #[default]
    None,
    /// All tables.
    All,
    /// With options.
    #[serde(untagged)]
    Some(BackfillOptions),
}

/// Which rows are read, and how.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct BackfillOptions {
    /// Patterns over `schema.table` of tables whose rows are not read; their changes are followed.
    pub(crate) exclude: Vec<TablePattern>,
    /// Rows that are read in one go, about.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub(crate) chunk_rows: u64,
    /// Connections that read side by side.
    #[schemars(range(min = 1, max = 64))]
    pub(crate) tasks: usize,
}

impl Default for BackfillOptions {
    fn default() -> Self {
        let logweir_postgres::options::BackfillOptions { chunk_rows, tasks, .. } = Default::default();
        BackfillOptions { exclude: Vec::new(), chunk_rows, tasks }
    }
}

/// Where the log begins without a checkpoint.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Start {
    /// The end of the log.
    Now,
    /// The oldest place there is: the first file, or where the slot stands.
    Earliest,
    /// A place in a file.
    #[serde(untagged)]
    Position(StartPosition),
    /// After a set of transactions.
    #[serde(untagged)]
    Gtid(StartGtid),
    /// A log sequence number.
    #[serde(untagged)]
    Lsn(StartLsn),
    /// A time.
    #[serde(untagged)]
    Timestamp(StartTimestamp),
}

/// A place in a file.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StartPosition {
    /// The name of the binlog file: `mysql-bin.000042`.
    pub(crate) file: String,
    /// The offset of an event that begins a transaction.
    #[schemars(range(min = 4))]
    pub(crate) position: u64,
}

/// After a set of transactions.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StartGtid {
    /// MySQL: `uuid:1-42`; MariaDB: `0-1-42`.
    pub(crate) gtid: String,
}

/// A log sequence number.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StartLsn {
    /// PostgreSQL: `16/B374D848`.
    #[schemars(with = "String", extend("format" = "lsn"))]
    pub(crate) lsn: logweir_postgres::Lsn,
}

/// A time.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StartTimestamp {
    /// The time.
    #[expect(dead_code, reason = "refused before it is read")]
    #[schemars(extend("x-later" = "a start at a time is not available yet; use `now`, `earliest` or a place in the log"))]
    timestamp: Later,
}

/// Masking rules.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Masks {
    /// The rules; other columns stay clear.
    Rules(Vec<Mask>),
    /// The rules, and what becomes of other columns.
    Options(MaskOptions),
}

impl Default for Masks {
    fn default() -> Self {
        Masks::Rules(Vec::new())
    }
}

impl Masks {
    pub(crate) fn rules(&self) -> &[Mask] {
        match self {
            Masks::Rules(rules) => rules,
            Masks::Options(options) => &options.rules,
        }
    }

    /// True if columns must have the names that the log has for them.
    pub(crate) fn need_names(&self) -> bool {
        let names = match self {
            Masks::Rules(_) => MaskNames::Log,
            Masks::Options(options) => options.names,
        };
        names == MaskNames::Log && self.rules().iter().any(|rule| !rule.columns.is_empty() || rule.names.is_some())
    }

    pub(crate) fn unlisted(&self) -> Unlisted {
        match self {
            Masks::Rules(_) => Unlisted::Keep,
            Masks::Options(options) => options.unlisted,
        }
    }
}

/// Masking rules, and what becomes of other columns.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MaskOptions {
    /// What becomes of columns that no rule is for.
    #[serde(default)]
    pub(crate) unlisted: Unlisted,
    /// Whose names of columns the rules go by.
    #[serde(default)]
    pub(crate) names: MaskNames,
    /// The rules. The first that is for a column holds.
    pub(crate) rules: Vec<Mask>,
}

/// Whose names of columns masking rules go by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MaskNames {
    /// Those of the log: of one that has none (MySQL and MariaDB without `binlog_row_metadata = FULL`) nothing is taken.
    #[default]
    Log,
    /// Those that the server has when it is asked, where the log has none: no followed table is altered while the stream is stopped or behind.
    Server,
}

/// What becomes of columns that no masking rule is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unlisted {
    /// They stay clear.
    #[default]
    Keep,
    /// The stream stops before anything of their table is written.
    Fail,
}

/// A masking rule. What it says of its columns must hold together.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mask {
    /// Patterns over `schema.table.column`; any of them.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub(crate) columns: Vec<ColumnPattern>,
    /// A regular expression over the whole name of a column, whatever the case of its letters.
    #[schemars(extend("format" = "column-names"))]
    pub(crate) names: Option<String>,
    /// Patterns over the source's types, such as `varchar*`; any of them.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub(crate) types: Vec<String>,
    /// What is done to the values.
    pub(crate) with: MaskWith,
    /// The key of `hash`, `tokenize` and of `number` with `noise`: a secret, or the id of one of `keys`.
    pub(crate) key: Option<MaskKey>,
    /// What is left of a `date`.
    pub(crate) to: Option<DateUnit>,
    /// The step that a `number` is rounded to.
    #[schemars(range(min = 0))]
    pub(crate) round: Option<f64>,
    /// The share of a `number` that is added or taken away, at most: 0.1 for a tenth.
    #[schemars(range(min = 0, max = 1))]
    pub(crate) noise: Option<f64>,
}

/// What is left of a date.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DateUnit {
    /// The year.
    Year,
    /// The quarter.
    Quarter,
    /// The month.
    Month,
    /// The day, of a moment.
    Day,
    /// The hour, of a moment.
    Hour,
}

/// The key of a mask.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum MaskKey {
    /// A secret.
    Secret(Secret),
    /// The id of one of `keys`.
    Named(String),
}

/// What masking does to a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MaskWith {
    /// HMAC-SHA-256 with `key`, as hexadecimal text: equal values stay equal.
    Hash,
    /// Only the end of a text stays.
    Partial,
    /// Only the first character and the domain of an address stay.
    Email,
    /// Nothing stays. In quotes: `"null"`.
    Null,
    /// Another value of the same form, with `key`, which turns it back: digits stay digits, letters letters.
    Tokenize,
    /// The beginning of the year, quarter, month, day or hour: `to`.
    Date,
    /// The nearest multiple of `round`, or at most a share of `noise` more or less.
    Number,
    /// Everything stays: the column is decided on.
    Keep,
}

impl MaskWith {
    /// The word for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            MaskWith::Hash => "hash",
            MaskWith::Partial => "partial",
            MaskWith::Email => "email",
            MaskWith::Null => "null",
            MaskWith::Tokenize => "tokenize",
            MaskWith::Date => "date",
            MaskWith::Number => "number",
            MaskWith::Keep => "keep",
        }
    }
}

/// A function in JavaScript that the rows of tables go through.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Udf {
    /// Which tables: a pattern over `schema.table`.
    pub(crate) table: TablePattern,
    /// The script. A relative path begins at the configuration file's directory.
    pub(crate) file: PathBuf,
    /// The function in it: it gets a row as JSON, and returns it as JSON or null.
    #[serde(default = "default_udf_function")]
    pub(crate) function: String,
    /// How much processor time a call may take.
    #[serde(default = "default_udf_time")]
    pub(crate) time: Span,
    /// How much memory the script may take, with all that it holds.
    #[serde(default = "default_udf_memory")]
    pub(crate) memory: Size,
    /// Columns that the function adds, with their types: boolean, int, bigint, double, decimal(p,s), text, json, bytes, date, time,
    /// timestamp or timestamptz.
    #[serde(default)]
    pub(crate) columns: BTreeMap<String, UdfColumn>,
    /// What becomes of a value that the log left out, because it did not change, in a row that the function may not have let pass before.
    #[serde(default)]
    pub(crate) unresolved: Unresolved,
}

fn default_udf_function() -> String {
    "process".to_owned()
}

fn default_udf_time() -> Span {
    Span(logweir_sql::UdfLimits::DEFAULT_TIME)
}

fn default_udf_memory() -> Size {
    Size(logweir_sql::UdfLimits::DEFAULT_MEMORY_BYTES as u64)
}

/// The type of a column that a function adds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UdfColumn(pub(crate) logweir_sql::UdfType);

impl<'de> Deserialize<'de> for UdfColumn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map(UdfColumn).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for UdfColumn {
    fn schema_name() -> Cow<'static, str> {
        "UdfColumn".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        const NAMES: &str = "boolean|int|bigint|double|decimal\\([0-9]+, ?[0-9]+\\)|text|json|bytes|date|time|timestamp|timestamptz";
        json_schema!({ "type": "string", "format": "udf-type", "pattern": format!("^({NAMES})$") })
    }
}

/// What the changes of a table become.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SqlRule {
    /// Which tables: a pattern over `schema.table`.
    pub(crate) table: TablePattern,
    /// A SELECT over the table, by its own name or as `source`.
    #[schemars(extend("format" = "sql"))]
    pub(crate) sql: String,
    /// The table that it becomes: `schema.table`, with `{schema}` and `{table}` for the names of the source; the table's own name when
    /// left out.
    pub(crate) into: Option<String>,
    /// The columns that identify a row; what became of the table's key when left out. Must hold these.
    #[serde(default)]
    pub(crate) key: Vec<String>,
    /// What becomes of a value that the log left out, because it did not change, in a row that may be new to the target.
    #[serde(default)]
    pub(crate) unresolved: Unresolved,
    /// What happens when the table changes so that the SQL no longer fits.
    #[serde(default)]
    pub(crate) schema_change: SchemaChange,
    /// What happens when the table is emptied and its target holds rows of other tables, too.
    #[serde(default)]
    pub(crate) shared_truncate: SharedTruncate,
}

/// What becomes of a value that the log left out in a row that may be new to the target.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unresolved {
    /// What `on_bad_value` says.
    #[default]
    Fail,
    /// It is marked as unchanged, although there may be no earlier row.
    Keep,
}

impl From<Unresolved> for logweir_sql::Unresolved {
    fn from(unresolved: Unresolved) -> Self {
        match unresolved {
            Unresolved::Fail => logweir_sql::Unresolved::Fail,
            Unresolved::Keep => logweir_sql::Unresolved::Keep,
        }
    }
}

/// What happens when the SQL no longer fits its table.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SchemaChange {
    /// The stream stops before the first change of the new kind.
    #[default]
    Fail,
    /// Columns that are gone are NULL. In quotes: `"null"`.
    Null,
}

/// What happens when a table is emptied that shares its target.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SharedTruncate {
    /// The stream stops.
    #[default]
    Fail,
    /// Its rows stay in the target.
    Ignore,
}

/// A small table that transforms look values up in. It is in memory as a whole.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged, deny_unknown_fields)]
pub(crate) enum Reference {
    /// A file on this machine.
    Path {
        /// The file: Parquet, CSV with a header (.csv) or a JSON object a line (.json, .jsonl, .ndjson). A relative path begins at the
        /// configuration file's directory.
        path: PathBuf,
        /// How often it is read again; never when left out.
        refresh: Option<Span>,
        /// How much memory it may take; 64MiB when left out.
        max_size: Option<Size>,
    },
    /// A file in an object store.
    Bucket {
        /// The file: `s3://bucket/reference/countries.parquet`.
        #[schemars(extend("format" = "store-url"))]
        url: String,
        /// Options of the object store.
        #[serde(default)]
        options: BTreeMap<String, OptionValue>,
        /// How often it is read again; never when left out.
        refresh: Option<Span>,
        /// How much memory it may take; 64MiB when left out.
        max_size: Option<Size>,
    },
    /// What a database answers.
    Query {
        /// The profile of the database.
        profile: String,
        /// The query, in the database's own SQL. It may only read.
        query: String,
        /// How often it is asked again; never when left out.
        refresh: Option<Span>,
        /// How much memory the answer may take; 64MiB when left out.
        max_size: Option<Size>,
    },
}

/// What happens to a change that a transform cannot carry.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnBadValue {
    /// The stream stops and names its place.
    #[default]
    Fail,
    /// The change is kept aside, in the table `logweir.quarantine` of every destination.
    Quarantine,
}

/// Where changes go, and in which form.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Destination {
    /// The profile of the destination.
    pub(crate) profile: String,
    /// The name of this destination in checkpoints and metrics; the profile's when left out. Must be unique in the stream.
    pub(crate) name: Option<Name>,
    /// What is written.
    #[serde(default)]
    #[expect(dead_code, reason = "has one value yet")]
    pub(crate) mode: Mode,
    /// In which format.
    #[serde(default)]
    #[expect(dead_code, reason = "has one value yet")]
    pub(crate) format: Format,
    /// In which columns.
    #[serde(default)]
    #[expect(dead_code, reason = "has one value yet")]
    pub(crate) layout: Layout,
    /// When a file is finished.
    #[serde(default)]
    pub(crate) rotate: Rotate,
    /// The directories below the profile's url. Placeholders: {schema}, {table}, {stream}, {yyyy}, {mm}, {dd}, {hh}.
    #[serde(default = "default_path")]
    #[schemars(extend("format" = "path-template"))]
    pub(crate) path: String,
    /// SQL over single tables, for this destination alone, after those of the stream. A filter here sees no rows as they were before: an update
    /// whose row does not pass becomes a delete.
    #[serde(default)]
    pub(crate) transforms: Vec<SqlRule>,
    /// Compacts its files from time to time while the stream runs: of each key the newest change stays. Never when left out; `logweir
    /// compact` does it once.
    pub(crate) compact: Option<Compact>,
}

/// When files are compacted, and which.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Compact {
    /// How often.
    #[serde(default = "default_compact_every")]
    pub(crate) every: Span,
    /// How long every change is kept, by its commit time.
    #[serde(default = "default_compact_keep")]
    pub(crate) keep: Span,
}

fn default_compact_every() -> Span {
    Span(Duration::from_secs(24 * 60 * 60))
}

fn default_compact_keep() -> Span {
    Span(Duration::from_secs(7 * 24 * 60 * 60))
}

impl Destination {
    /// The name of the destination in its stream.
    pub(crate) fn name(&self) -> &str {
        self.name.as_ref().map_or(&self.profile, |name| &name.0)
    }
}

fn default_path() -> String {
    logweir_files::FilesOptions::DEFAULT_PATH.to_owned()
}

/// What is written.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// Every change is appended.
    #[default]
    Changes,
    /// The current state.
    #[schemars(extend("x-later" = "`mode: table` is not available yet; `changes` appends every change, and `logweir sql` shows the current state"))]
    Table,
}

/// In which format.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Format {
    /// Parquet.
    #[default]
    Parquet,
    /// Avro.
    #[schemars(extend("x-later" = "Avro is not available yet; use `parquet`"))]
    Avro,
    /// JSON.
    #[schemars(extend("x-later" = "JSON is not available yet; use `parquet`"))]
    Json,
}

/// In which columns.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Layout {
    /// The table's columns, then `_metadata_*`.
    #[default]
    Flat,
    /// Datastream's event records.
    #[schemars(extend("x-later" = "`layout: datastream` is not available yet; use `flat`"))]
    Datastream,
}

/// When a file is finished.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Rotate {
    /// How long changes wait to become visible, at most.
    pub(crate) interval: Span,
    /// The size at which a file is finished earlier.
    pub(crate) size: Size,
}

impl Default for Rotate {
    fn default() -> Self {
        Rotate {
            interval: Span(logweir_files::FilesOptions::DEFAULT_ROTATE_INTERVAL),
            size: Size(logweir_files::FilesOptions::DEFAULT_ROTATE_BYTES),
        }
    }
}

/// A name of a profile, stream or destination.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(transparent)]
pub(crate) struct Name(pub(crate) String);

impl JsonSchema for Name {
    fn schema_name() -> Cow<'static, str> {
        "Name".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "name", "pattern": NAME_PATTERN })
    }
}

macro_rules! pattern_text {
    ($type:ident, $format:literal, $pattern:literal, $description:literal) => {
        #[doc = $description]
        #[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
        #[serde(transparent)]
        pub(crate) struct $type(pub(crate) String);

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "format": $format, "pattern": $pattern, "description": $description })
            }
        }
    };
}

pattern_text!(TablePattern, "table-pattern", "[.*]", "A pattern over `schema.table`.");
pattern_text!(ColumnPattern, "column-pattern", "[.*]", "A pattern over `schema.table.column`.");

/// Something that a later version understands; refused before it is read.
#[derive(Debug, Clone)]
pub(crate) struct Later;

impl<'de> Deserialize<'de> for Later {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Later)
    }
}

impl JsonSchema for Later {
    fn schema_name() -> Cow<'static, str> {
        "Later".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        Schema::from(true)
    }

    fn inline_schema() -> bool {
        true
    }
}
