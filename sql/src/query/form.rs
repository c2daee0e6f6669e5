//! What a landed file looks like: the names that writers and readers agree on.
//!
//! It is the public form of a row (see the user pages), written by the destinations and read here; the two crates do not
//! know each other.

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};

pub(super) const TIMESTAMP: &str = "_metadata_timestamp";
pub(super) const SEQUENCE: &str = "_metadata_sequence";
pub(super) const CHANGE_TYPE: &str = "_metadata_change_type";
pub(super) const DELETED: &str = "_metadata_deleted";
pub(super) const UNCHANGED: &str = "_metadata_unchanged";
/// There where it was asked for.
pub(super) const BEFORE: &str = "_metadata_before";

/// The metadata columns of a file, for a table that has none yet.
pub(super) fn metadata_fields() -> Fields {
    let timestamp = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let source = Fields::from(vec![
        text("database"),
        text("schema"),
        text("table"),
        text("log_file"),
        Field::new("log_position", DataType::UInt64, true),
        text("transaction"),
    ]);
    Fields::from(vec![
        Field::new(TIMESTAMP, timestamp(), true),
        text(SEQUENCE),
        text(CHANGE_TYPE),
        Field::new(DELETED, DataType::Boolean, true),
        Field::new("_metadata_read_timestamp", timestamp(), true),
        text("_metadata_read_method"),
        Field::new("_metadata_source", DataType::Struct(source), true),
        Field::new(UNCHANGED, DataType::new_list(DataType::Utf8, true), true),
    ])
}

/// Columns that begin so are not the table's.
pub(super) const METADATA_PREFIX: &str = "_metadata_";

/// What follows the name of a schema for the schema of its changes.
pub(super) const CHANGES_SUFFIX: &str = "_changes";

/// Key-value metadata of a file's footer.
pub(super) mod footer {
    /// The relation's name, JSON.
    pub(crate) const RELATION: &str = "logweir.relation";
    /// The table in the source, JSON, where the relation has another name. Missing in files of before.
    pub(crate) const ORIGIN: &str = "logweir.origin";
    /// The schema version, decimal: of the table in the source.
    pub(crate) const SCHEMA_VERSION: &str = "logweir.schema_version";
    /// The names of the declared key's columns, a JSON list; empty if there is none.
    pub(crate) const KEY: &str = "logweir.key";
    /// The stream's name.
    pub(crate) const STREAM: &str = "logweir.stream";
    /// The position of the file's first change, as text.
    pub(crate) const FIRST: &str = "logweir.first";
    /// The position of the file's last change, as text.
    pub(crate) const LAST: &str = "logweir.last";
    /// `true` if each row's position is greater than that of the row before, and its timestamp not less. Missing in files of before.
    pub(crate) const IN_LOG_ORDER: &str = "logweir.in_log_order";
    /// Up to which commit time, in microseconds since 1970, only what stands is left. Missing where nothing was compacted.
    pub(crate) const COMPACTED: &str = "logweir.compacted";
    /// And up to which position, as text. Missing in files of before.
    pub(crate) const COMPACTED_THROUGH: &str = "logweir.compacted_through";
}
