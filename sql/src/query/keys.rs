//! One key over files of several schema versions.
//!
//! A row is found again by its key, so every file's rows go by the key that the file was written under. Where a key column was
//! renamed, the one at its place in the older key is the same column under its older name. Where the key became
//! another one, no change says which older row it is about: the current state is refused rather than guessed.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use logweir_core::{Error, RelationName};

use super::error::wrap;
use super::form::CHANGES_SUFFIX;
use super::inventory::FileGroup;
use super::unify::exact_or_same;

/// Two versions, next to each other in the log, of which neither's key is the other's.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct KeyChanged {
    older: String,
    newer: String,
}

impl KeyChanged {
    /// Why there is no current state, and what there is instead.
    pub(super) fn error(&self, table: &RelationName) -> Error {
        let RelationName { schema, table: name, .. } = table;
        Error::config("the table's key has changed, so its rows cannot be followed to a current state")
            .context("table", table)
            .context("version and key", &self.older)
            .context("then", &self.newer)
            .remedy(format!("query {schema}{CHANGES_SUFFIX}.{name}, which has every change"))
    }
}

/// For each of `groups`, oldest first, the names under which it has the columns of the newest one's key, in that key's order.
pub(super) fn key_names(groups: &[FileGroup]) -> std::result::Result<Vec<Vec<String>>, KeyChanged> {
    let mut names: Vec<Vec<String>> = Vec::with_capacity(groups.len());
    // Step by step, for a name that was given up may be another column's by now.
    for (i, group) in groups.iter().enumerate().rev() {
        let own = match (groups.get(i + 1), names.last()) {
            (Some(newer), Some(newest_key)) => {
                let matched = matched(group, newer).ok_or_else(|| KeyChanged { older: told(group), newer: told(newer) })?;
                // `newest_key` has the newer group's names, maybe in another order than its own key.
                let place = |name: &String| newer.key.iter().position(|own| own == name);
                newest_key.iter().filter_map(|name| place(name).map(|place| matched[place].to_owned())).collect()
            }
            _ => group.key.clone(),
        };
        names.push(own);
    }
    names.reverse();
    Ok(names)
}

/// For each column of the newer key, the older name of it.
fn matched<'a>(older: &'a FileGroup, newer: &'a FileGroup) -> Option<Vec<&'a str>> {
    let landed = |group: &FileGroup| group.key.iter().all(|name| group.schema.field_with_name(name).is_ok());
    if older.key.len() != newer.key.len() || !landed(older) || !landed(newer) {
        return None;
    }
    // The same columns in another order are the same key.
    if newer.key.iter().all(|name| older.key.contains(name)) {
        return Some(newer.key.iter().map(String::as_str).collect());
    }
    older.key.iter().zip(&newer.key).map(|(old, new)| (old == new || renamed(older, old, newer, new)).then_some(old.as_str())).collect()
}

/// Whether `old` can have become `new`: a name that goes, one that comes, and values that compare.
fn renamed(older: &FileGroup, old: &str, newer: &FileGroup, new: &str) -> bool {
    let data_type = |group: &FileGroup, name: &str| group.schema.field_with_name(name).ok().map(|field| field.data_type().clone());
    if data_type(newer, old).is_some() || data_type(older, new).is_some() {
        return false;
    }
    let types: (Option<DataType>, Option<DataType>) = (data_type(older, old), data_type(newer, new));
    matches!(types, (Some(a), Some(b)) if exact_or_same(&a, &b))
}

fn told(group: &FileGroup) -> String {
    let key = if group.key.is_empty() { "none".to_owned() } else { group.key.join(", ") };
    format!("{} ({key})", group.version)
}

/// A table that can be described but not read, for a reason. Only reading fails, so that one such table does not keep the others from being
/// listed.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) schema: SchemaRef,
    pub(super) error: Error,
}

#[async_trait]
impl TableProvider for Refused {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(&self, _: &dyn Session, _: Option<&Vec<usize>>, _: &[Expr], _: Option<usize>) -> Result<Arc<dyn ExecutionPlan>> {
        Err(wrap(self.error.clone()))
    }
}
