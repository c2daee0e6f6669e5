//! Whether the publication holds what is followed, all of it.

use std::collections::HashMap;

use logweir_core::{Finding, Result};

use super::{Subject, error, list, names, quoted, statements, warning};
use crate::catalog::{Kind, Table};
use crate::publication::{Members, Publication, create_statement, named};
use crate::quote::literal;
use crate::slots::START_ANEW;
use crate::types::Oid;
use crate::wire::Connection;

pub(super) async fn check(connection: &mut Connection, subject: &Subject<'_>) -> Result<Vec<Finding>> {
    match &subject.publication {
        None => Ok(missing(subject)),
        Some(publication) => {
            let members = publication.members(connection).await?;
            Ok(existing(subject, publication, &members))
        }
    }
}

/// What stands in the way of a publication that is not there.
fn missing(subject: &Subject<'_>) -> Vec<Finding> {
    let facts = &subject.facts;
    let tables: Vec<&Table> = named(&subject.tables, facts.version).collect();
    let statement = create_statement(&facts.publication, tables.iter().copied(), facts.version);
    let name = &subject.options.publication;
    if let Some(slot) = subject.slot().filter(|slot| slot.plugin.as_deref() == Some("pgoutput")) {
        return vec![error(
            "publication",
            format!("there is no publication {name}, and the replication slot {} cannot be read with one that is made now", slot.slot_name),
            format!("run SELECT pg_drop_replication_slot({}); {statement}, then {START_ANEW}", literal(&slot.slot_name)),
        )];
    }
    if !subject.options.create {
        let place = if facts.in_recovery { " on the primary, as an owner of the tables" } else { " as an owner of the tables" };
        return vec![error(
            "publication",
            format!("there is no publication {name}, and create is false"),
            format!("run {statement}{place}"),
        )];
    }
    if facts.in_recovery {
        return vec![error(
            "publication",
            format!("there is no publication {name}, and a standby cannot make one"),
            format!("run {statement} on the primary, as an owner of the tables"),
        )];
    }
    let mut findings = Vec::new();
    if !facts.may_create {
        findings.push(error(
            "privilege_create",
            format!("the publication {name} cannot be made by {}: CREATE on the database is missing", facts.user),
            format!("run GRANT CREATE ON DATABASE {} TO {}", facts.database, facts.user),
        ));
    }
    let foreign: Vec<&Table> = tables.into_iter().filter(|table| !table.owned).collect();
    if !foreign.is_empty() {
        findings.push(error(
            "table_owner",
            format!("the publication {name} cannot be made by {}, who does not own its tables: {}", facts.user, names(&foreign)),
            format!("run {statement} as an owner of the tables"),
        ));
    }
    findings
}

/// What a publication that is there does not send.
fn existing(subject: &Subject<'_>, publication: &Publication, members: &Members) -> Vec<Finding> {
    let facts = &subject.facts;
    let name = &publication.quoted;
    let mut findings = operations(publication);
    let mut partitions = HashMap::<Oid, Vec<&Table>>::new();
    for table in subject.tables.iter().filter(|table| table.kind == Kind::Ordinary) {
        if let Some(root) = table.root {
            partitions.entry(root).or_default().push(table);
        }
    }
    let of = |table: &Table| partitions.get(&table.oid).map_or(&[][..], Vec::as_slice);
    let followed: Vec<&Table> = named(&subject.tables, facts.version).collect();
    let lacking: Vec<&Table> = followed.iter().copied().filter(|table| !publication.holds(members, table, of(table))).collect();
    // To a publication that we made, tables that are ours are added by and by.
    let added = |table: &&Table| publication.ours && publication.owned && table.owned && subject.options.create;
    let lacking: Vec<&Table> = lacking.into_iter().filter(|table| !added(table)).collect();
    if !lacking.is_empty() {
        findings.push(error(
            "publication_tables",
            format!("the publication {name} lacks followed tables, whose changes do not arrive: {}", names(&lacking)),
            format!("run ALTER PUBLICATION {name} ADD TABLE {}", quoted(&lacking)),
        ));
    }
    for (code, what, filtered) in [
        ("row_filter", "only rows that pass a filter of the publication arrive, and a row that no longer does arrives as a delete", true),
        ("column_list", "only some columns are in the publication; the others do not arrive", false),
    ] {
        let limited = |table: &&Table| members.tables.get(&table.oid).is_some_and(|part| if filtered { part.rows } else { part.columns });
        let limited: Vec<&Table> = followed.iter().copied().filter(limited).collect();
        if !limited.is_empty() {
            findings.push(warning(
                code,
                format!("{what}: {}", names(&limited)),
                statements(&limited, |table| {
                    format!("ALTER PUBLICATION {name} DROP TABLE {0}; ALTER PUBLICATION {name} ADD TABLE {0}", table.quoted)
                }),
            ));
        }
    }
    findings.extend(partitioned(subject, publication, &followed));
    findings
}

/// Kinds of change that the publication leaves out.
fn operations(publication: &Publication) -> Vec<Finding> {
    let name = &publication.quoted;
    let mend = format!("run ALTER PUBLICATION {name} SET (publish = 'insert, update, delete, truncate')");
    let missing: Vec<&str> = [("insert", publication.insert), ("update", publication.update), ("delete", publication.delete)]
        .into_iter()
        .filter_map(|(operation, published)| (!published).then_some(operation))
        .collect();
    if !missing.is_empty() {
        let message = format!("the publication {name} leaves out changes, which never arrive: {}", list(&missing));
        return vec![error("publication_operations", message, mend)];
    }
    if !publication.truncate {
        let message = format!("the publication {name} leaves out truncate: rows of a truncated table stay in the destinations");
        return vec![warning("publication_operations", message, mend)];
    }
    Vec::new()
}

/// Partitions that arrive under names of their own.
fn partitioned(subject: &Subject<'_>, publication: &Publication, followed: &[&Table]) -> Option<Finding> {
    if publication.via_root || subject.facts.version < 130_000 {
        return None;
    }
    let roots: Vec<&Table> = followed.iter().copied().filter(|table| table.kind == Kind::Partitioned).collect();
    if roots.is_empty() {
        return None;
    }
    let mend = format!("run ALTER PUBLICATION {} SET (publish_via_partition_root = true)", publication.quoted);
    // Partitions are tables of the filter only if it accepts their names.
    let unseen: Vec<&Table> =
        roots.iter().copied().filter(|root| !subject.tables.iter().any(|table| table.root == Some(root.oid))).collect();
    Some(if unseen.is_empty() {
        let message =
            format!("changes of partitions arrive under the partitions' names, each a table of its own: those of {}", names(&roots));
        warning("partitions", message, mend)
    } else {
        let message = format!(
            "changes of partitions arrive under the partitions' names, which the patterns do not accept: those of {}",
            names(&unseen)
        );
        error("partitions", message, mend)
    })
}
