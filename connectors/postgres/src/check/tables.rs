//! Whether the followed tables can be followed: their identities, privileges, columns.

use std::collections::HashMap;

use logweir_core::{Finding, Pattern, Result};

use super::{Subject, error, list, names, quoted, statements, warning};
use crate::catalog::{self, Generated, Persistence, ReplicaIdentity, Shape, Table};
use crate::options::Arrays;
use crate::publication;
use crate::types::{Oid, TypeCatalog, TypeOptions};
use crate::wire::Connection;

pub(super) async fn check(connection: &mut Connection, subject: &Subject<'_>) -> Result<Vec<Finding>> {
    let followable: Vec<&Table> = subject.tables.iter().filter(|table| table.is_followable()).collect();
    let mut findings = unfollowable(subject);
    if followable.is_empty() {
        if findings.is_empty() {
            let patterns: Vec<&str> = subject.filter.include.iter().map(|pattern| pattern.as_str()).collect();
            let patterns = if patterns.is_empty() { "every table".to_owned() } else { list(&patterns) };
            findings.push(error(
                "no_tables",
                format!("no table of the database {} fits the patterns: {patterns}", subject.facts.database),
                "check tables: include and exclude (a pattern is over schema.table), and the database of the source's profile",
            ));
        }
        return Ok(findings);
    }
    let shapes = catalog::shapes(connection, followable.iter().map(|table| table.oid)).await?;
    findings.extend(identities(subject, &followable, &shapes));
    if subject.options.backfill.is_some() {
        findings.extend(readable(subject, &followable, &shapes));
    }
    let arriving: Vec<&Table> = followable.iter().copied().filter(|table| table.arrives(subject.publication.as_ref())).collect();
    findings.extend(cut_keys(connection, subject, &shapes).await?);
    findings.extend(generated(subject, &arriving, &shapes));
    let mut types = TypeCatalog::new();
    catalog::learn_types(connection, &mut types, shapes.values().flat_map(|shape| &shape.columns).map(|column| column.type_oid)).await?;
    findings.extend(columns(subject, &arriving, &shapes, &types));
    Ok(findings)
}

/// What the patterns accept and no log tells of.
fn unfollowable(subject: &Subject<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let unlogged: Vec<&Table> = subject.tables.iter().filter(|table| table.persistence == Persistence::Unlogged).collect();
    if !unlogged.is_empty() {
        findings.push(warning(
            "unlogged",
            format!("nothing of unlogged tables is in the log: {}", names(&unlogged)),
            statements(&unlogged, |table| format!("ALTER TABLE {} SET LOGGED", table.quoted)),
        ));
    }
    // With a wildcard nobody meant them; by name somebody did.
    let meant = |table: &&Table| {
        let name = table.name.to_string();
        table.persistence == Persistence::Permanent
            && !table.is_followable()
            && subject.filter.include.iter().any(|pattern| pattern.as_str() == name)
    };
    for table in subject.tables.iter().filter(meant) {
        findings.push(error(
            "not_a_table",
            format!("{} is {}, whose rows are not in this server's log", table.name, table.kind.as_str()),
            format!("follow the tables that it gets its rows from, and take {} out of tables: include", table.name),
        ));
    }
    findings
}

/// Whether the log says which row an update or a delete meant.
fn identities(subject: &Subject<'_>, tables: &[&Table], shapes: &HashMap<Oid, Shape>) -> Vec<Finding> {
    // What is not published is not asked for its identity.
    let published = subject.publication.as_ref().is_none_or(|publication| publication.update || publication.delete);
    let mut none = Vec::new();
    let mut keyless = Vec::new();
    let mut partial = Vec::new();
    for table in tables {
        // Rows lie in partitions, and theirs is the identity that counts.
        if table.kind == catalog::Kind::Partitioned {
            continue;
        }
        if table.identity != ReplicaIdentity::Full && Pattern::any_matches(&subject.filter.before_images, &table.name) {
            partial.push(*table);
        }
        let Some(shape) = shapes.get(&table.oid) else { continue };
        match table.identity {
            ReplicaIdentity::Full if shape.primary_key().is_empty() => keyless.push(*table),
            ReplicaIdentity::Full => {}
            identity if shape.identity(identity).is_empty() => none.push(*table),
            _ => {}
        }
    }
    let mut findings = Vec::new();
    if published && !none.is_empty() {
        let causes: Vec<String> = none.iter().map(|table| format!("{} ({})", table.name, cause(table, shapes.get(&table.oid)))).collect();
        findings.push(error(
            "replica_identity",
            format!(
                "tables without a replica identity, on which UPDATE and DELETE fail at the source once they are published: {}",
                list(&causes)
            ),
            statements(&none, |table| format!("ALTER TABLE {} REPLICA IDENTITY {}", table.quoted, identity(shapes.get(&table.oid)))),
        ));
    }
    if !keyless.is_empty() {
        findings.push(warning(
            "no_primary_key",
            format!("tables without a primary key, whose rows are told apart by all their values: {}", names(&keyless)),
            "run ALTER TABLE … ADD PRIMARY KEY (…) on each",
        ));
    }
    if !partial.is_empty() {
        findings.push(warning(
            "before_images",
            format!("tables whose log has no whole row before an update, so that _metadata_before is NULL: {}", names(&partial)),
            statements(&partial, |table| format!("ALTER TABLE {} REPLICA IDENTITY FULL", table.quoted)),
        ));
    }
    findings
}

/// Keys of which a column does not arrive. What is left of one tells no rows apart, so it counts as none: rows are told apart by all
/// that arrives of them. Where the log has whole rows, or inserts alone, that is enough; updates and deletes need the key.
async fn cut_keys(connection: &mut Connection, subject: &Subject<'_>, shapes: &HashMap<Oid, Shape>) -> Result<Vec<Finding>> {
    let known = subject.facts.version >= 180_000;
    let unsent = match &subject.publication {
        Some(_) => publication::unsent_key_columns(connection, &subject.options.publication).await?,
        // The one that will be made sends generated columns, where the server can.
        None if known => Vec::new(),
        None => shapes.iter().flat_map(|(oid, shape)| generated_keys(subject, *oid, shape)).collect(),
    };
    let mut findings = Vec::new();
    let updates = subject.publication.as_ref().is_none_or(|publication| publication.update || publication.delete);
    let (mut needed, mut useful, mut remedies) = (Vec::new(), Vec::new(), Vec::new());
    for (oid, column) in unsent {
        let Some(table) = subject.tables.iter().find(|table| table.oid == oid) else { continue };
        let is_generated = shapes
            .get(&oid)
            .is_some_and(|shape| shape.columns.iter().any(|found| found.name == column && found.generated == Generated::Stored));
        let remedy = match &subject.publication {
            Some(publication) if !is_generated => {
                format!("ALTER PUBLICATION {0} DROP TABLE {1}; ALTER PUBLICATION {0} ADD TABLE {1}", publication.quoted, table.quoted)
            }
            Some(publication) if known => format!("ALTER PUBLICATION {} SET (publish_generated_columns = stored)", publication.quoted),
            _ => format!("ALTER TABLE {} REPLICA IDENTITY FULL", table.quoted),
        };
        let name = format!("{}.{column}", table.name);
        // From 18 on the server holds a generated column against whole rows, too.
        if updates && (table.identity != ReplicaIdentity::Full || (known && is_generated)) {
            needed.push(name);
            if !remedies.contains(&remedy) {
                remedies.push(remedy);
            }
        } else {
            useful.push(name);
        }
    }
    if !needed.is_empty() {
        findings.push(error(
            "key_not_published",
            format!("updates and deletes cannot be followed where a column of a table's key is not published: {}", list(&needed)),
            format!("run {}", remedies.join("; ")),
        ));
    }
    if !useful.is_empty() {
        findings.push(warning(
            "key_not_published",
            format!("keys of which a column is not published, so that rows are told apart by all their values: {}", list(&useful)),
            "nothing, if no two rows are alike in all that arrives of them; else publish whole keys",
        ));
    }
    Ok(findings)
}

/// The generated columns of what tells a table's rows apart.
fn generated_keys(subject: &Subject<'_>, oid: Oid, shape: &Shape) -> Vec<(Oid, String)> {
    let Some(table) = subject.tables.iter().find(|table| table.oid == oid) else { return Vec::new() };
    let key = if table.identity == ReplicaIdentity::Full { shape.primary_key() } else { shape.identity(table.identity) };
    let in_key = shape.columns.iter().filter(|column| column.generated != Generated::No && key.contains(&column.number));
    in_key.map(|column| (oid, column.name.clone())).collect()
}

/// Why a table has no replica identity.
fn cause(table: &Table, shape: Option<&Shape>) -> &'static str {
    let primary = shape.is_some_and(|shape| !shape.primary_key().is_empty());
    match table.identity {
        ReplicaIdentity::Default if primary => "its primary key is deferrable",
        ReplicaIdentity::Default => "no primary key",
        ReplicaIdentity::Index => "the index chosen for it is gone or invalid",
        ReplicaIdentity::Nothing | ReplicaIdentity::Full => "set to NOTHING",
    }
}

/// The best replica identity that a table can have.
fn identity(shape: Option<&Shape>) -> String {
    let candidate = shape.and_then(|shape| shape.indexes.iter().find(|index| index.primary && index.usable).or_else(|| shape.candidate()));
    match candidate {
        Some(index) if index.primary => "DEFAULT".to_owned(),
        Some(index) => format!("USING INDEX {}", index.quoted),
        None => "FULL".to_owned(),
    }
}

/// Whether the rows that are there may be read.
fn readable(subject: &Subject<'_>, tables: &[&Table], shapes: &HashMap<Oid, Shape>) -> Vec<Finding> {
    let Some(backfill) = &subject.options.backfill else { return Vec::new() };
    let user = &subject.facts.user;
    let wanted = |table: &&Table| {
        let name = table.name.to_string();
        table.root.is_none() && !backfill.exclude.iter().any(|pattern| pattern.matches(&name))
    };
    let tables: Vec<&Table> = tables.iter().copied().filter(wanted).collect();
    let mut findings = Vec::new();
    let mut schemas: Vec<&str> = tables.iter().filter(|table| !table.schema_usable).map(|table| table.quoted_schema.as_str()).collect();
    schemas.dedup();
    if !schemas.is_empty() {
        findings.push(error(
            "privilege_usage",
            format!("backfill cannot look into schemas: USAGE is missing on {}", list(&schemas)),
            format!("run GRANT USAGE ON SCHEMA {} TO {user}", schemas.join(", ")),
        ));
    }
    let unreadable = |table: &&Table| {
        let columns = shapes.get(&table.oid).map_or(&[][..], |shape| &shape.columns);
        columns.iter().any(|column| !column.readable && subject.filter.accepts_column(&table.name, &column.name))
    };
    let denied: Vec<&Table> = tables.iter().copied().filter(unreadable).collect();
    if !denied.is_empty() {
        findings.push(error(
            "privilege_select",
            format!("backfill cannot read tables: SELECT is missing on {}", names(&denied)),
            format!("run GRANT SELECT ON {} TO {user}", quoted(&denied)),
        ));
    }
    let hidden: Vec<&Table> = tables.into_iter().filter(|table| table.row_security).collect();
    if !hidden.is_empty() {
        findings.push(error(
            "row_security",
            format!("row security may hide rows from backfill, though not from the log: {}", names(&hidden)),
            format!("run ALTER ROLE {user} BYPASSRLS"),
        ));
    }
    findings
}

/// Columns that are computed and do not arrive.
fn generated(subject: &Subject<'_>, tables: &[&Table], shapes: &HashMap<Oid, Shape>) -> Vec<Finding> {
    let known = subject.facts.version >= 180_000;
    let published = subject.publication.as_ref().map_or(known, |publication| publication.generated);
    let mut stored = Vec::new();
    let mut computed = Vec::new();
    for table in tables {
        for column in shapes.get(&table.oid).map_or(&[][..], |shape| &shape.columns) {
            let name = format!("{}.{}", table.name, column.name);
            match column.generated {
                _ if !subject.filter.accepts_column(&table.name, &column.name) => {}
                Generated::Stored if !published => stored.push(name),
                Generated::Virtual => computed.push(name),
                _ => {}
            }
        }
    }
    let mut findings = Vec::new();
    if !stored.is_empty() {
        let remedy = match &subject.publication {
            Some(publication) if known => format!("run ALTER PUBLICATION {} SET (publish_generated_columns = stored)", publication.quoted),
            _ => "compute them where the rows are landed, or upgrade the server to 18; exclude_columns takes note of it".to_owned(),
        };
        findings.push(warning("generated_columns", format!("generated columns do not arrive: {}", list(&stored)), remedy));
    }
    if !computed.is_empty() {
        findings.push(warning(
            "generated_columns",
            format!("virtual generated columns are in no log and do not arrive: {}", list(&computed)),
            "compute them where the rows are landed, or make them STORED; exclude_columns takes note of it",
        ));
    }
    findings
}

/// Columns whose values arrive otherwise than somebody may expect, or not at all.
fn columns(subject: &Subject<'_>, tables: &[&Table], shapes: &HashMap<Oid, Shape>, types: &TypeCatalog) -> Vec<Finding> {
    let options = TypeOptions { arrays: subject.options.arrays, ..TypeOptions::default() };
    let mut unknown = Vec::new();
    let mut nested = Vec::new();
    for table in tables {
        for column in shapes.get(&table.oid).map_or(&[][..], |shape| &shape.columns) {
            if !subject.filter.accepts_column(&table.name, &column.name) {
                continue;
            }
            let name = || format!("{}.{} ({})", table.name, column.name, column.type_text);
            if types.column_type(column.type_oid, column.typmod, options).is_passthrough() {
                unknown.push(name());
            }
            if column.dimensions > 1 && options.arrays == Arrays::List {
                nested.push(name());
            }
        }
    }
    let mut findings = Vec::new();
    if !unknown.is_empty() {
        findings.push(warning(
            "column_type",
            format!("columns of types that are not known here arrive as the server's text of them: {}", list(&unknown)),
            "none if text will do; else exclude_columns, or a cast in a column of a known type",
        ));
    }
    if !nested.is_empty() {
        findings.push(warning(
            "array_dimensions",
            format!("arrays declared with several dimensions are no lists, and one that has them stops the stream: {}", list(&nested)),
            "write arrays: text in the source's profile, or exclude the columns with exclude_columns",
        ));
    }
    findings
}
