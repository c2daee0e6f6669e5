//! A source table we follow, at a schema version.

use std::fmt;
use std::sync::Arc;

use arrow_schema::{Field, FieldRef, Schema, SchemaRef};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::metadata::metadata_fields;
use crate::position::LogPosition;

/// The name of a relation. A MySQL database is a schema, and such a name has no `database`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RelationName {
    /// The database above the schema, where the source has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// The schema.
    pub schema: String,
    /// The table.
    pub table: String,
}

impl RelationName {
    /// The schema of logweir's own tables: changes that were set aside, and what queries tell about streams.
    pub const OWN_SCHEMA: &str = "logweir";

    /// An error of kind `Config` if no table of a source may have this name, because logweir's own tables do.
    pub fn check_source(&self) -> Result<()> {
        if self.schema == Self::OWN_SCHEMA {
            return Err(Error::config("a table of the source is in a schema called logweir, as logweir's own tables are")
                .context("table", self)
                .remedy("leave the schema out: tables: { exclude: [\"logweir.*\"] }"));
        }
        Ok(())
    }

    /// A name without a database above the schema.
    pub fn new(schema: impl Into<String>, table: impl Into<String>) -> Self {
        RelationName { database: None, schema: schema.into(), table: table.into() }
    }
}

/// `schema.table`: the form of configuration patterns, messages and metrics.
impl fmt::Display for RelationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.table)
    }
}

/// A column of a relation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Name, Arrow type, nullability and metadata as it is carried. Columns are nullable even where the source
    /// says NOT NULL: a truncate and an unchanged column have no value.
    pub field: FieldRef,
    /// The source's own name of the type, in full: `decimal(10,2) unsigned`, `enum('a','b')`.
    pub source_type: String,
    /// What the connector needs beyond that to read the column again after a restart. Opaque to the engine, but for
    /// [`MAY_BE`](Self::MAY_BE).
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub detail: serde_json::Value,
}

impl Column {
    /// The key of [`detail`](Self::detail) under which a connector lists what else the source may call the type, where the log does not say
    /// and nobody can be asked: a `longtext` of MariaDB may be a `json`.
    pub const MAY_BE: &str = "may_be";

    /// What else the source may call the type.
    pub fn may_be(&self) -> impl Iterator<Item = &str> {
        self.detail.get(Self::MAY_BE).and_then(|names| names.as_array()).into_iter().flatten().filter_map(|name| name.as_str())
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.field.name()
    }
}

/// What tells a version of a relation from every other. Where several tables go into one, versions are those of each.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelationId {
    /// The name.
    pub name: RelationName,
    /// The table that it was made from, where a transform gave it another name.
    pub origin: Option<RelationName>,
    /// The version.
    pub version: u32,
}

/// A table at one schema version. Immutable; a change of schema makes a new one with a greater version.
#[derive(Clone, Serialize, Deserialize)]
#[serde(from = "RelationData", into = "RelationData")]
pub struct Relation {
    data: RelationData,
    schema: SchemaRef,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct RelationData {
    name: RelationName,
    version: u32,
    since: LogPosition,
    columns: Vec<Column>,
    key: Vec<usize>,
    key_declared: bool,
    /// The table that it was made from, where a transform gave it another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<RelationName>,
}

impl Relation {
    /// A relation at `version` (from 1, raised by one at each change of schema), which holds for changes from
    /// `since` on. `key` names columns by index, in the key's own order, and must be in range; empty where the
    /// source declares none, and then all columns together are the key.
    pub fn new(name: RelationName, version: u32, since: LogPosition, columns: Vec<Column>, key: Vec<usize>) -> Self {
        debug_assert!(key.iter().all(|&i| i < columns.len()), "a key column is a column");
        let key_declared = !key.is_empty();
        let key = if key_declared { key } else { (0..columns.len()).collect() };
        RelationData { name, version, since, columns, key, key_declared, origin: None }.into()
    }

    /// The same relation with other columns: what a transform makes of it. Name, version and place stay.
    pub fn with_columns(&self, columns: Vec<Column>, key: Vec<usize>) -> Self {
        let key_declared = self.data.key_declared && !key.is_empty();
        RelationData { columns, key, key_declared, ..self.data.clone() }.into()
    }

    /// What a transform makes of the relation: another name, columns and key. Version, place and origin stay. Without a
    /// key all columns together are one, whatever the source declares.
    pub fn transformed(&self, name: RelationName, columns: Vec<Column>, key: Vec<usize>) -> Self {
        debug_assert!(key.iter().all(|&i| i < columns.len()), "a key column is a column");
        let key_declared = !key.is_empty();
        let key = if key_declared { key } else { (0..columns.len()).collect() };
        let origin = (name != *self.origin()).then(|| self.origin().clone());
        RelationData { name, version: self.data.version, since: self.data.since, columns, key, key_declared, origin }.into()
    }

    /// The name.
    pub fn name(&self) -> &RelationName {
        &self.data.name
    }

    /// The name of the table in the source: another one than [`name`](Self::name) where a transform renamed it.
    pub fn origin(&self) -> &RelationName {
        self.data.origin.as_ref().unwrap_or(&self.data.name)
    }

    /// The name of the table in the source, where a transform gave it another one.
    pub fn renamed_from(&self) -> Option<&RelationName> {
        self.data.origin.as_ref()
    }

    /// What tells it from every other.
    pub fn id(&self) -> RelationId {
        RelationId { name: self.data.name.clone(), origin: self.data.origin.clone(), version: self.data.version }
    }

    /// The schema version, from 1: of the table in the source.
    pub fn version(&self) -> u32 {
        self.data.version
    }

    /// The position of the first change with this version.
    pub fn since(&self) -> LogPosition {
        self.data.since
    }

    /// The columns, in the table's order.
    pub fn columns(&self) -> &[Column] {
        &self.data.columns
    }

    /// True if it has a column of this name, whatever the case of its letters: as most sources compare names.
    pub fn has_column(&self, name: &str) -> bool {
        self.columns().iter().any(|column| column.name().eq_ignore_ascii_case(name))
    }

    /// The relation with those of `earlier` at its end that it does not have: of each name the first. Its key stays.
    pub fn with_gone_columns<'a>(&self, earlier: impl IntoIterator<Item = &'a Column>) -> Self {
        let mut with_gone = self.data.clone();
        for column in earlier {
            if !with_gone.columns.iter().any(|known| known.name().eq_ignore_ascii_case(column.name())) {
                with_gone.columns.push(column.clone());
            }
        }
        if !with_gone.key_declared {
            with_gone.key = (0..with_gone.columns.len()).collect();
        }
        with_gone.into()
    }

    /// The columns that identify a row, by index, in the key's order. Never empty unless there are no columns.
    pub fn key(&self) -> &[usize] {
        &self.data.key
    }

    /// True if the source declares the key; false if all columns stand in for one.
    pub fn key_declared(&self) -> bool {
        self.data.key_declared
    }

    /// The Arrow schema of this relation's batches: its columns, then [`metadata_fields`].
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// True if both describe the same columns and key, whatever their version and place.
    pub fn same_shape(&self, other: &Relation) -> bool {
        self.data.name == other.data.name
            && self.data.columns == other.data.columns
            && self.data.key == other.data.key
            && self.data.key_declared == other.data.key_declared
    }
}

impl From<RelationData> for Relation {
    fn from(data: RelationData) -> Self {
        let columns = data.columns.iter().map(|column| Arc::clone(&column.field));
        let metadata = metadata_fields().iter().map(Arc::clone);
        let schema = Arc::new(Schema::new(columns.chain(metadata).collect::<Vec<FieldRef>>()));
        Relation { data, schema }
    }
}

impl From<Relation> for RelationData {
    fn from(relation: Relation) -> Self {
        relation.data
    }
}

impl PartialEq for Relation {
    fn eq(&self, other: &Self) -> bool {
        self.data == other.data
    }
}

impl Eq for Relation {}

impl fmt::Debug for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} v{} (", self.data.name, self.data.version)?;
        for (i, column) in self.data.columns.iter().enumerate() {
            let field: &Field = &column.field;
            let key = if self.data.key_declared && self.data.key.contains(&i) { " key" } else { "" };
            write!(f, "{}{} {}{key}", if i == 0 { "" } else { ", " }, field.name(), field.data_type())?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use arrow_schema::DataType;

    fn column(name: &str) -> Column {
        Column { field: Arc::new(Field::new(name, DataType::Int32, true)), source_type: "int".into(), detail: serde_json::Value::Null }
    }

    #[test]
    fn a_relation_survives_the_checkpoint() {
        let relation = Relation::new(RelationName::new("shop", "orders"), 2, LogPosition::MIN, vec![column("id"), column("n")], vec![0]);
        let text = serde_json::to_string(&relation).unwrap();
        assert_eq!(serde_json::from_str::<Relation>(&text).unwrap(), relation);
    }

    #[test]
    fn without_a_key_all_columns_are_one() {
        let relation = Relation::new(RelationName::new("shop", "log"), 1, LogPosition::MIN, vec![column("a"), column("b")], vec![]);
        assert_eq!((relation.key(), relation.key_declared()), (&[0, 1][..], false));
    }
}
