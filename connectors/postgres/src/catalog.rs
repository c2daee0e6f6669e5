//! What a server's catalog says of its tables, in questions that every version from 12 on understands.
//!
//! Answers are the server's text and are read with doubt: whatever they say, nothing here panics. Tables are asked for
//! with one question for all of them, their columns and keys with one for some hundred, because a server may have ten
//! thousand.

use std::collections::HashMap;
use std::str::FromStr;

use logweir_core::{Error, LogPosition, Relation, RelationName, Result, TableFilter};

use crate::carried::{self, FLAG_KEY};
use crate::options::{Arrays, PostgresOptions};
use crate::publication::Publication;
use crate::types::{Oid, TypeCatalog, TypeOptions};
use crate::wire::{Connection, Rows};

/// Tables or types that one question is about, at most.
const OIDS_PER_QUESTION: usize = 500;

/// What a relation of the catalog is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A table that holds its rows itself.
    Ordinary,
    /// A table whose rows lie in its partitions.
    Partitioned,
    /// A table on another server.
    Foreign,
    View,
    MaterializedView,
}

impl Kind {
    /// What it is called.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Kind::Ordinary => "a table",
            Kind::Partitioned => "a partitioned table",
            Kind::Foreign => "a foreign table",
            Kind::View => "a view",
            Kind::MaterializedView => "a materialized view",
        }
    }
}

/// How long what is written to a table lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Persistence {
    Permanent,
    /// Nothing of it is in the log.
    Unlogged,
    Temporary,
}

/// What the log holds of a row that is updated or deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplicaIdentity {
    /// The primary key.
    Default,
    /// The columns of a unique index.
    Index,
    /// All columns.
    Full,
    Nothing,
}

/// A relation of the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) oid: Oid,
    pub(crate) name: RelationName,
    /// Its name with the schema, quoted where it must be.
    pub(crate) quoted: String,
    pub(crate) quoted_schema: String,
    pub(crate) kind: Kind,
    pub(crate) persistence: Persistence,
    pub(crate) identity: ReplicaIdentity,
    /// The partitioned table at the top that it is a partition of.
    pub(crate) root: Option<Oid>,
    /// True if we own it or are a member of who does.
    pub(crate) owned: bool,
    /// True if we may look into its schema.
    pub(crate) schema_usable: bool,
    /// True if rows may be hidden from us when they are selected.
    pub(crate) row_security: bool,
}

impl Table {
    /// True if changes of its rows can be in the log, under its own name or its root's.
    pub(crate) fn is_followable(&self) -> bool {
        matches!(self.kind, Kind::Ordinary | Kind::Partitioned) && self.persistence == Persistence::Permanent
    }
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableColumn {
    pub(crate) name: String,
    /// Its number in the table, which outlives renames.
    pub(crate) number: i16,
    pub(crate) type_oid: Oid,
    pub(crate) typmod: i32,
    /// The type as the server writes it.
    pub(crate) type_text: String,
    pub(crate) not_null: bool,
    pub(crate) generated: Generated,
    /// Declared dimensions of an array. Nothing holds values to them.
    pub(crate) dimensions: u32,
    /// True if we may select it.
    pub(crate) readable: bool,
}

/// Whether a column is computed from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Generated {
    No,
    /// When a row is written. In the log from 18 on, where the publication says so.
    Stored,
    /// When a row is read. Never in the log.
    Virtual,
}

/// A unique index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Index {
    pub(crate) quoted: String,
    pub(crate) primary: bool,
    /// Chosen as the replica identity.
    pub(crate) identity: bool,
    /// True if the server takes it for a replica identity: valid, checked at once, over whole rows and plain columns.
    pub(crate) usable: bool,
    /// The numbers of its key columns.
    pub(crate) columns: Vec<i16>,
}

/// Columns and keys of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    /// In the table's order, without those that were dropped.
    pub(crate) columns: Vec<TableColumn>,
    /// Unique ones.
    pub(crate) indexes: Vec<Index>,
}

impl Shape {
    /// The numbers of the primary key's columns, in the key's order; empty without one.
    pub(crate) fn primary_key(&self) -> &[i16] {
        self.indexes.iter().find(|index| index.primary).map_or(&[], |index| &index.columns)
    }

    /// The numbers of the columns that the log holds of an updated or deleted row; empty if it holds none or all.
    pub(crate) fn identity(&self, identity: ReplicaIdentity) -> &[i16] {
        let chosen = |index: &&Index| match identity {
            // A key that is checked at the end of a transaction identifies nothing before.
            ReplicaIdentity::Default => index.primary && index.usable,
            ReplicaIdentity::Index => index.identity && index.usable,
            ReplicaIdentity::Full | ReplicaIdentity::Nothing => false,
        };
        self.indexes.iter().find(chosen).map_or(&[], |index| &index.columns)
    }

    /// A unique index that could be the replica identity.
    pub(crate) fn candidate(&self) -> Option<&Index> {
        let not_null = |number: &i16| self.columns.iter().any(|column| column.number == *number && column.not_null);
        self.indexes.iter().find(|index| index.usable && index.columns.iter().all(not_null))
    }
}

/// Schemas that are the server's own.
pub(crate) fn is_system_schema(schema: &str) -> bool {
    schema == "information_schema" || schema.starts_with("pg_")
}

/// All tables, views and the like that `filter` accepts, in order of their names.
pub(crate) async fn tables(connection: &mut Connection, filter: &TableFilter) -> Result<Vec<Table>> {
    const DOING: &str = "the tables there are";
    let answer = ask(
        connection,
        DOING,
        "SELECT c.oid, n.nspname, c.relname, pg_catalog.quote_ident(n.nspname), pg_catalog.quote_ident(c.relname), c.relkind, \
         c.relpersistence, c.relreplident, CASE WHEN c.relispartition THEN pg_catalog.pg_partition_root(c.oid)::pg_catalog.oid END, \
         pg_catalog.pg_has_role(c.relowner, 'USAGE'), pg_catalog.has_schema_privilege(n.oid, 'USAGE'), pg_catalog.row_security_active(c.oid) \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
         ORDER BY n.nspname, c.relname",
    )
    .await?;
    let mut tables = Vec::new();
    for row in rows(&answer, DOING) {
        let name = RelationName::new(row.text(1)?, row.text(2)?);
        if is_system_schema(&name.schema) || !filter.accepts(&name) {
            continue;
        }
        tables.push(Table {
            oid: row.number(0)?,
            quoted: format!("{}.{}", row.text(3)?, row.text(4)?),
            quoted_schema: row.text(3)?.to_owned(),
            kind: match row.text(5)? {
                "r" => Kind::Ordinary,
                "p" => Kind::Partitioned,
                "f" => Kind::Foreign,
                "v" => Kind::View,
                _ => Kind::MaterializedView,
            },
            persistence: match row.text(6)? {
                "p" => Persistence::Permanent,
                "u" => Persistence::Unlogged,
                _ => Persistence::Temporary,
            },
            identity: match row.text(7)? {
                "d" => ReplicaIdentity::Default,
                "i" => ReplicaIdentity::Index,
                "f" => ReplicaIdentity::Full,
                _ => ReplicaIdentity::Nothing,
            },
            root: row.optional_number(8)?,
            owned: row.flag(9)?,
            schema_usable: row.flag(10)?,
            row_security: row.flag(11)?,
            name,
        });
    }
    Ok(tables)
}

/// Columns and keys of tables. One that is dropped in between has no entry.
pub(crate) async fn shapes(connection: &mut Connection, tables: impl IntoIterator<Item = Oid>) -> Result<HashMap<Oid, Shape>> {
    let tables: Vec<Oid> = tables.into_iter().collect();
    let mut shapes = HashMap::<Oid, Shape>::with_capacity(tables.len());
    for some in tables.chunks(OIDS_PER_QUESTION) {
        columns(connection, some, &mut shapes).await?;
        indexes(connection, some, &mut shapes).await?;
    }
    Ok(shapes)
}

async fn columns(connection: &mut Connection, tables: &[Oid], shapes: &mut HashMap<Oid, Shape>) -> Result<()> {
    const DOING: &str = "the columns of tables";
    let answer = ask(
        connection,
        DOING,
        &format!(
            "SELECT attrelid, attname, attnum, atttypid, atttypmod, pg_catalog.format_type(atttypid, atttypmod), attnotnull, attgenerated, \
             attndims, pg_catalog.has_column_privilege(attrelid, attnum, 'SELECT') \
             FROM pg_catalog.pg_attribute WHERE attrelid IN ({}) AND attnum > 0 AND NOT attisdropped ORDER BY attrelid, attnum",
            list(tables)
        ),
    )
    .await?;
    for row in rows(&answer, DOING) {
        let column = TableColumn {
            name: row.text(1)?.to_owned(),
            number: row.number(2)?,
            type_oid: row.number(3)?,
            typmod: row.number(4)?,
            type_text: row.text(5)?.to_owned(),
            not_null: row.flag(6)?,
            generated: match row.text(7)? {
                "" => Generated::No,
                "v" => Generated::Virtual,
                _ => Generated::Stored,
            },
            dimensions: row.number(8)?,
            // Null if the table was dropped meanwhile.
            readable: row.get(9) == Some("t"),
        };
        shapes.entry(row.number(0)?).or_default().columns.push(column);
    }
    Ok(())
}

async fn indexes(connection: &mut Connection, tables: &[Oid], shapes: &mut HashMap<Oid, Shape>) -> Result<()> {
    const DOING: &str = "the keys of tables";
    let answer = ask(
        connection,
        DOING,
        &format!(
            "SELECT i.indrelid, pg_catalog.quote_ident(c.relname), i.indisprimary, i.indisreplident, \
             i.indisvalid AND i.indisready AND i.indislive AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL, \
             pg_catalog.array_to_string(i.indkey::pg_catalog.int2[], ' '), i.indnkeyatts \
             FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid \
             WHERE i.indrelid IN ({}) AND i.indisunique ORDER BY i.indrelid, c.relname",
            list(tables)
        ),
    )
    .await?;
    for row in rows(&answer, DOING) {
        let numbers = row.text(5)?.split(' ').map(str::parse).collect::<Result<Vec<i16>, _>>();
        let mut columns = numbers.map_err(|_| row.unexpected(5))?;
        // Behind the key stand columns that are only included.
        columns.truncate(row.number(6)?);
        let index = Index { quoted: row.text(1)?.to_owned(), primary: row.flag(2)?, identity: row.flag(3)?, usable: row.flag(4)?, columns };
        if let Some(shape) = shapes.get_mut(&row.number(0)?) {
            shape.indexes.push(index);
        }
    }
    Ok(())
}

/// Learns types from the server's catalog, and those that they are made of.
pub(crate) async fn learn_types(connection: &mut Connection, types: &mut TypeCatalog, oids: impl IntoIterator<Item = Oid>) -> Result<()> {
    const DOING: &str = "the types of columns";
    let mut wanted: Vec<Oid> = oids.into_iter().collect();
    loop {
        let mut unknown: Vec<Oid> = wanted.iter().filter_map(|oid| types.unknown(*oid)).collect();
        unknown.sort_unstable();
        unknown.dedup();
        let before = unknown.len();
        for some in unknown.chunks(OIDS_PER_QUESTION) {
            let answer = ask(connection, DOING, &TypeCatalog::query(some)).await?;
            for row in &answer.rows {
                let row: Vec<Option<&str>> = row.iter().map(Option::as_deref).collect();
                types.learn(TypeCatalog::parse_row(&row)?);
            }
        }
        // A type that was dropped has no row, and asking for it again would not help.
        wanted.retain(|oid| types.unknown(*oid).is_some_and(|unknown_now| unknown.binary_search(&unknown_now).is_err()));
        if wanted.is_empty() || before == 0 {
            return Ok(());
        }
    }
}

/// What the session's server and the configuration say of how values are carried.
pub(crate) async fn type_options(connection: &mut Connection, arrays: Arrays) -> Result<TypeOptions> {
    const DOING: &str = "the digits of money";
    let answer = ask(connection, DOING, "SELECT pg_catalog.scale(0::pg_catalog.money::pg_catalog.numeric)").await?;
    let money_scale = rows(&answer, DOING).next().map_or(Ok(2), |row| row.number(0))?;
    Ok(TypeOptions { arrays, money_scale })
}

/// The tables that are followed, as they would be carried if their rows changed now.
pub(crate) async fn relations(connection: &mut Connection, options: &PostgresOptions, filter: &TableFilter) -> Result<Vec<Relation>> {
    let publication = Publication::find(connection, &options.publication).await?;
    let mut tables = tables(connection, filter).await?;
    tables.retain(|table| table.is_followable() && table.arrives(publication.as_ref()));
    let shapes = shapes(connection, tables.iter().map(|table| table.oid)).await?;
    let mut types = TypeCatalog::new();
    learn_types(connection, &mut types, shapes.values().flat_map(|shape| &shape.columns).map(|column| column.type_oid)).await?;
    let type_options = type_options(connection, options.arrays).await?;
    let generated = publication.as_ref().map_or(connection.version() >= 180_000, |publication| publication.generated);
    let carried = |table: &Table| Some(relation(table, shapes.get(&table.oid)?, &types, type_options, filter, generated));
    Ok(tables.iter().filter_map(carried).collect())
}

impl Table {
    /// True if changes arrive under this name: partitions arrive as the table that they are part of, unless the publication
    /// says otherwise.
    pub(crate) fn arrives(&self, publication: Option<&Publication>) -> bool {
        match publication {
            Some(publication) if !publication.via_root => self.kind == Kind::Ordinary,
            _ => self.root.is_none(),
        }
    }
}

/// A table as it would be carried. `generated` says whether columns that are computed when a row is written are published.
pub(crate) fn relation(
    table: &Table,
    shape: &Shape,
    types: &TypeCatalog,
    options: TypeOptions,
    filter: &TableFilter,
    generated: bool,
) -> Relation {
    let identity = shape.identity(table.identity);
    let full = table.identity == ReplicaIdentity::Full;
    let wanted = shape.columns.iter().filter(|column| {
        let published = match column.generated {
            Generated::No => true,
            Generated::Stored => generated,
            Generated::Virtual => false,
        };
        published && filter.accepts_column(&table.name, &column.name)
    });
    let mut columns = Vec::new();
    let mut key = Vec::new();
    // With all columns in the log the primary key still says which of them tell rows apart.
    let key_numbers = if full { shape.primary_key() } else { identity };
    for column in wanted {
        if key_numbers.contains(&column.number) {
            key.push(columns.len());
        }
        let flags = if full || identity.contains(&column.number) { FLAG_KEY } else { 0 };
        let column_type = types.column_type(column.type_oid, column.typmod, options);
        columns.push(carried::column(&column.name, column.type_oid, column.typmod, flags, &column_type));
    }
    // A key with an excluded column identifies nothing.
    let key = if key.len() == key_numbers.len() { key } else { Vec::new() };
    Relation::new(table.name.clone(), 1, LogPosition::MIN, columns, key)
}

/// Asks a question of the catalog. `about` completes the sentence "could not learn …".
pub(crate) async fn ask(connection: &mut Connection, about: &'static str, sql: &str) -> Result<Rows> {
    connection.query(sql).await.map_err(|error| error.context("asked for", about))
}

/// The rows of an answer.
pub(crate) fn rows<'a>(answer: &'a Rows, about: &'static str) -> impl Iterator<Item = Row<'a>> {
    answer.rows.iter().map(move |values| Row { values, about })
}

/// A row of an answer, of which nothing is sure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row<'a> {
    values: &'a [Option<String>],
    about: &'static str,
}

impl<'a> Row<'a> {
    /// A value that may be null.
    pub(crate) fn get(&self, column: usize) -> Option<&'a str> {
        self.values.get(column)?.as_deref()
    }

    /// A value that is there.
    pub(crate) fn text(&self, column: usize) -> Result<&'a str> {
        self.get(column).ok_or_else(|| self.unexpected(column))
    }

    /// A number.
    pub(crate) fn number<T: FromStr>(&self, column: usize) -> Result<T> {
        self.text(column)?.parse().map_err(|_| self.unexpected(column))
    }

    /// A number that may be null.
    pub(crate) fn optional_number<T: FromStr>(&self, column: usize) -> Result<Option<T>> {
        self.get(column).map(|text| text.parse().map_err(|_| self.unexpected(column))).transpose()
    }

    /// A truth value.
    pub(crate) fn flag(&self, column: usize) -> Result<bool> {
        match self.text(column)? {
            "t" => Ok(true),
            "f" => Ok(false),
            _ => Err(self.unexpected(column)),
        }
    }

    fn unexpected(&self, column: usize) -> Error {
        Error::corrupt("the server's catalog answers in a way not known here").context("asked for", self.about).context("column", column)
    }
}

fn list(oids: &[Oid]) -> String {
    let texts: Vec<String> = oids.iter().map(Oid::to_string).collect();
    // A list must not be empty, and no relation has the number 0.
    if texts.is_empty() { "0".to_owned() } else { texts.join(",") }
}
