//! A publication: what a server sends of its changes, and the statements that make one.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use logweir_core::{Error, RelationName, Result, TableFilter};
use serde::Deserialize;

use crate::catalog::{self, Kind, ReplicaIdentity, Table, ask, rows};
use crate::options::PostgresOptions;
use crate::quote::{identifier, literal};
use crate::server;
use crate::types::Oid;
use crate::wire::Connection;

/// What the publications that are ours say of themselves, in front of the slot's name.
const PUBLICATION_COMMENT: &str = "created by logweir for the slot ";

/// A publication, as the catalog has it.
#[derive(Debug, Clone)]
pub(crate) struct Publication {
    oid: Oid,
    /// Its name, quoted where it must be.
    pub(crate) quoted: String,
    /// True if we own it or are a member of who does.
    pub(crate) owned: bool,
    /// True if it was made by logweir.
    pub(crate) ours: bool,
    pub(crate) all_tables: bool,
    pub(crate) insert: bool,
    pub(crate) update: bool,
    pub(crate) delete: bool,
    pub(crate) truncate: bool,
    /// Changes of partitions arrive as changes of the table that they are part of.
    pub(crate) via_root: bool,
    /// Columns that are computed when a row is written arrive.
    pub(crate) generated: bool,
}

/// The row of the catalog as its server has it: every version has more columns.
#[derive(Debug, Deserialize)]
struct CatalogRow {
    puballtables: bool,
    pubinsert: bool,
    pubupdate: bool,
    pubdelete: bool,
    pubtruncate: bool,
    /// From 13 on.
    #[serde(default)]
    pubviaroot: bool,
    /// From 18 on: `n` none, `s` stored.
    #[serde(default)]
    pubgencols: String,
}

/// What is published of a table that a publication names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Part {
    /// Only rows that pass a filter.
    pub(crate) rows: bool,
    /// Only some columns.
    pub(crate) columns: bool,
}

/// What a publication holds.
#[derive(Debug, Default)]
pub(crate) struct Members {
    /// Tables that it names.
    pub(crate) tables: HashMap<Oid, Part>,
    /// Schemas of which it holds every table.
    pub(crate) schemas: HashSet<String>,
    /// The names under which changes arrive.
    pub(crate) published: HashSet<RelationName>,
}

impl Publication {
    /// The publication of a name, if there is one.
    pub(crate) async fn find(connection: &mut Connection, name: &str) -> Result<Option<Publication>> {
        const ABOUT: &str = "the publication";
        let sql = format!(
            "SELECT p.oid, pg_catalog.quote_ident(p.pubname), pg_catalog.pg_has_role(p.pubowner, 'USAGE'), \
             pg_catalog.obj_description(p.oid, 'pg_publication'), pg_catalog.row_to_json(p) \
             FROM pg_catalog.pg_publication p WHERE p.pubname = {}",
            literal(name)
        );
        let answer = ask(connection, ABOUT, &sql).await?;
        let Some(row) = rows(&answer, ABOUT).next() else { return Ok(None) };
        let more: CatalogRow = serde_json::from_str(row.text(4)?)
            .map_err(|error| Error::corrupt("the server describes a publication in a way not known here").source(error))?;
        Ok(Some(Publication {
            oid: row.number(0)?,
            quoted: row.text(1)?.to_owned(),
            owned: row.flag(2)?,
            ours: row.get(3).is_some_and(|comment| comment.starts_with(PUBLICATION_COMMENT)),
            all_tables: more.puballtables,
            insert: more.pubinsert,
            update: more.pubupdate,
            delete: more.pubdelete,
            truncate: more.pubtruncate,
            via_root: more.pubviaroot,
            generated: more.pubgencols == "s",
        }))
    }

    /// What it holds.
    pub(crate) async fn members(&self, connection: &mut Connection) -> Result<Members> {
        const ABOUT: &str = "the tables of the publication";
        let mut members = Members::default();
        let parts = connection.version() >= 150_000;
        let (filter, list) = if parts { ("prqual IS NOT NULL", "prattrs IS NOT NULL") } else { ("false", "false") };
        let sql = format!("SELECT prrelid, {filter}, {list} FROM pg_catalog.pg_publication_rel WHERE prpubid = {}", self.oid);
        let answer = ask(connection, ABOUT, &sql).await?;
        for row in rows(&answer, ABOUT) {
            members.tables.insert(row.number(0)?, Part { rows: row.flag(1)?, columns: row.flag(2)? });
        }
        if parts {
            let sql = format!(
                "SELECT n.nspname FROM pg_catalog.pg_publication_namespace p JOIN pg_catalog.pg_namespace n ON n.oid = p.pnnspid \
                 WHERE p.pnpubid = {}",
                self.oid
            );
            let answer = ask(connection, ABOUT, &sql).await?;
            for row in rows(&answer, ABOUT) {
                members.schemas.insert(row.text(0)?.to_owned());
            }
        }
        let sql = format!(
            "SELECT t.schemaname, t.tablename FROM pg_catalog.pg_publication_tables t \
             JOIN pg_catalog.pg_publication p ON p.pubname = t.pubname WHERE p.oid = {}",
            self.oid
        );
        let answer = ask(connection, ABOUT, &sql).await?;
        for row in rows(&answer, ABOUT) {
            members.published.insert(RelationName::new(row.text(0)?, row.text(1)?));
        }
        Ok(members)
    }

    /// True if changes of the table arrive, under whatever name. `partitions` are those of it that hold rows.
    pub(crate) fn holds(&self, members: &Members, table: &Table, partitions: &[&Table]) -> bool {
        let named = |table: &Table| {
            self.all_tables
                || members.schemas.contains(&table.name.schema)
                || members.tables.contains_key(&table.oid)
                || members.published.contains(&table.name)
        };
        named(table) || !partitions.is_empty() && partitions.iter().all(|partition| named(partition))
    }
}

/// The tables that a publication of ours names to hold all of `tables`. Before 13 that cannot be a partitioned table.
pub(crate) fn named(tables: &[Table], version: u32) -> impl Iterator<Item = &Table> {
    tables.iter().filter(move |table| {
        let fits = if version >= 130_000 { table.root.is_none() } else { table.kind == Kind::Ordinary };
        table.is_followable() && fits
    })
}

/// The statement that makes a publication of tables, as logweir makes it.
pub(crate) fn create_statement<'a>(quoted: &str, tables: impl IntoIterator<Item = &'a Table>, version: u32) -> String {
    let names: Vec<&str> = tables.into_iter().map(|table| table.quoted.as_str()).collect();
    // Without tables it can be made, and tables be added later.
    let tables = if names.is_empty() { String::new() } else { format!(" FOR TABLE {}", names.join(", ")) };
    format!("CREATE PUBLICATION {quoted}{tables}{}", with(version))
}

/// How a publication of ours is made: partitions arrive as the table that they are part of, and columns that are computed when
/// a row is written arrive.
fn with(version: u32) -> &'static str {
    match version {
        180_000.. => " WITH (publish_via_partition_root = true, publish_generated_columns = stored)",
        130_000.. => " WITH (publish_via_partition_root = true)",
        _ => "",
    }
}

/// Makes the publication that the options name, of the tables that are followed.
pub(crate) async fn create(connection: &mut Connection, options: &PostgresOptions, filter: &TableFilter) -> Result<()> {
    let (name, version) = (identifier(&options.publication), connection.version());
    let tables = publishable(connection, filter, &Told::default()).await?;
    let statement = create_statement(&name, &tables, version);
    let comment = literal(&format!("{PUBLICATION_COMMENT}{}", options.slot));
    connection.query(&format!("BEGIN; {statement}; COMMENT ON PUBLICATION {name} IS {comment}; COMMIT")).await.map_err(|error| {
        error.context("publication", &options.publication).remedy(format!(
            "let the user own the tables and GRANT CREATE ON DATABASE {} TO {}; or run as an owner of the tables: {statement}",
            identifier(&options.database),
            identifier(&options.user)
        ))
    })?;
    tracing::info!(publication = options.publication, "created the publication");
    Ok(())
}

/// Tables that could not be published, and it was said.
pub(crate) type Told = Arc<Mutex<HashSet<Oid>>>;

fn is_news(told: &Told, table: &Table) -> bool {
    told.lock().unwrap_or_else(PoisonError::into_inner).insert(table.oid)
}

/// The followed tables that a publication of ours may name. Not those without a replica identity: from then on every UPDATE and
/// DELETE of one would fail in the application that sends it.
async fn publishable(connection: &mut Connection, filter: &TableFilter, told: &Told) -> Result<Vec<Table>> {
    let tables = catalog::tables(connection, filter).await?;
    let named: Vec<Table> = named(&tables, connection.version()).cloned().collect();
    let shapes = catalog::shapes(connection, named.iter().map(|table| table.oid)).await?;
    let has_identity = |table: &Table| {
        let shape = shapes.get(&table.oid);
        table.identity == ReplicaIdentity::Full || shape.is_some_and(|shape| !shape.identity(table.identity).is_empty())
    };
    let (publishable, others): (Vec<Table>, Vec<Table>) = named.into_iter().partition(has_identity);
    for table in others.iter().filter(|table| is_news(told, table)) {
        tracing::warn!(
            relation = %table.name,
            "a followed table has neither a primary key nor another replica identity and is left out of the publication, since its UPDATEs \
             and DELETEs would fail; run ALTER TABLE {} REPLICA IDENTITY FULL, or give it a primary key",
            table.quoted
        );
    }
    Ok(publishable)
}

/// Adds followed tables that are not in our publication yet.
pub(crate) async fn extend(connection: &mut Connection, publication: &Publication, filter: &TableFilter, told: &Told) -> Result<()> {
    let members = publication.members(connection).await?;
    let is_there = |table: &Table| members.tables.contains_key(&table.oid) || members.published.contains(&table.name);
    for table in publishable(connection, filter, told).await?.iter().filter(|table| !is_there(table)) {
        let statement = format!("ALTER PUBLICATION {} ADD TABLE {}", publication.quoted, table.quoted);
        match connection.query(&statement).await {
            Ok(_) => tracing::info!(publication = publication.quoted, relation = %table.name, "added a new table to the publication"),
            Err(error) if error.is_transient() => return Err(error),
            Err(error) if is_news(told, table) => {
                tracing::warn!(relation = %table.name, error = error.report(), "a followed table is not published; run {statement} as its owner");
            }
            Err(_) => {}
        }
    }
    Ok(())
}

/// The columns of the index `index` that are its key: what it includes beside them has no operator class.
pub(crate) fn key_columns(index: &str) -> String {
    format!("({index}.indkey::pg_catalog.int2[])[:pg_catalog.array_upper({index}.indclass::pg_catalog.oid[], 1)]")
}

/// The condition that the column `a` of a table is sent by the publication, which lists the table as `p`. Before 18 generated columns
/// are not in the log, whatever the view says.
pub(crate) fn is_sent(version: u32) -> &'static str {
    match version {
        180_000.. => "(p.attnames IS NULL OR a.attname = ANY (p.attnames))",
        150_000.. => "(a.attgenerated = '' AND (p.attnames IS NULL OR a.attname = ANY (p.attnames)))",
        _ => "(a.attgenerated = '')",
    }
}

/// The condition that the index `i` is what tells rows of its table `c` apart: its replica identity, or its primary key where the log has
/// whole rows.
const KEY_INDEX: &str = "CASE c.relreplident WHEN 'i' THEN i.indisreplident ELSE i.indisprimary END";

/// The condition that what tells rows of the table `c` apart has a column that is not sent.
pub(crate) fn has_cut_key(version: u32) -> String {
    has_key_without(is_sent(version))
}

fn has_key_without(is_sent: &str) -> String {
    format!(
        "EXISTS (SELECT FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = ANY ({}) \
         WHERE i.indrelid = c.oid AND {KEY_INDEX} AND NOT {is_sent})",
        key_columns("i"),
    )
}

/// The published tables, and whether the key of each has a column that is not sent.
pub(crate) async fn cut_keys(connection: &mut Connection, publication: &str) -> Result<HashMap<Oid, bool>> {
    let rows = connection
        .query(&format!(
            "SELECT c.oid, {} FROM pg_catalog.pg_publication_tables AS p JOIN pg_catalog.pg_namespace AS n ON n.nspname = p.schemaname \
             JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = p.tablename WHERE p.pubname = {}",
            has_cut_key(connection.version()),
            literal(publication)
        ))
        .await?;
    Ok((0..rows.len()).filter_map(|row| Some((server::number(&rows, row, 0)?, rows.get(row, 1) == Some("t")))).collect())
}

/// Whether the key of a table, which the publication sends, has a column that it does not send.
///
/// The log waits for the answer, so it does without the view: from 16 on that opens all of the publication's tables, and would wait for
/// whoever has locked any of them.
pub(crate) async fn is_key_cut(connection: &mut Connection, publication: &str, table: Oid) -> Result<bool> {
    // `p` is the publication, `r` its row for the table, if it has one.
    let is_sent = match connection.version() {
        180_000.. => "CASE WHEN r.prattrs IS NULL THEN a.attgenerated IN ('', p.pubgencols) ELSE a.attnum = ANY (r.prattrs) END",
        150_000.. => "(a.attgenerated = '' AND (r.prattrs IS NULL OR a.attnum = ANY (r.prattrs)))",
        _ => "(a.attgenerated = '')",
    };
    let rows = connection
        .query(&format!(
            "SELECT {} FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_publication AS p ON p.pubname = {} \
             LEFT JOIN pg_catalog.pg_publication_rel AS r ON r.prpubid = p.oid AND r.prrelid = c.oid WHERE c.oid = {table}",
            has_key_without(is_sent),
            literal(publication)
        ))
        .await?;
    Ok(rows.first() == Some("t"))
}

/// The columns of published tables' keys that are not sent, by table.
pub(crate) async fn unsent_key_columns(connection: &mut Connection, publication: &str) -> Result<Vec<(Oid, String)>> {
    let rows = connection
        .query(&format!(
            "SELECT c.oid, a.attname FROM pg_catalog.pg_publication_tables AS p JOIN pg_catalog.pg_namespace AS n ON n.nspname = p.schemaname \
             JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = p.tablename \
             JOIN pg_catalog.pg_index AS i ON i.indrelid = c.oid AND {KEY_INDEX} \
             JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = ANY ({}) WHERE p.pubname = {} AND NOT {} ORDER BY 1, 2",
            key_columns("i"),
            literal(publication),
            is_sent(connection.version())
        ))
        .await?;
    Ok((0..rows.len()).filter_map(|row| Some((server::number(&rows, row, 0)?, rows.get(row, 1)?.to_owned()))).collect())
}
