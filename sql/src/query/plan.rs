//! A landed table as logical plans: every change, and the current state.
//!
//! ```text
//! changes   union of the files of each schema, columns cast to their common type
//! state     changes ─ after the last truncate ─ unchanged values filled in ─ merged: the last row per key, if it is no delete
//! ```
//!
//! The two steps in the middle are left out where the footers say that there is nothing to do, which is the rule. The plan
//! spills, and a filter on the key reaches the files.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, TimeUnit};
use datafusion::catalog::TableProvider;
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::datasource::MemTable;
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::provider_as_source;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, lit};
use datafusion::prelude::ident;
use logweir_core::{Error, LogPosition, RelationName, TimestampMicros};

use super::floor::BehindTruncate;
use super::follow::{Behind, Followed};
use super::form::{CHANGE_TYPE, DELETED, SEQUENCE, TIMESTAMP, UNCHANGED};
use super::inventory::{FileGroup, Inventory, is_metadata};
use super::keys::{Refused, key_names};
use super::scan::{GroupScan, TailScan, as_readable, readable};
use super::tail::Tail;
use super::unchanged::Resolved;
use super::unify::{Columns, UnifiedColumn, Version, cast_to_common, unify};
use crate::civil::write_iso_timestamp;
use crate::merge::{Merged, OrderedFiles, OrderedVersion};

/// Plans over what lies in `store`.
#[derive(Debug)]
pub(super) struct TablePlans<'a> {
    pub(super) name: &'a RelationName,
    pub(super) store: &'a ObjectStoreUrl,
    pub(super) inventory: &'a Inventory,
    /// Nothing that was committed later is seen.
    pub(super) as_of: Option<TimestampMicros>,
}

impl TablePlans<'_> {
    /// Every change, as landed: the columns of every version, and the metadata.
    pub(super) fn changes(&self) -> Result<LogicalPlan> {
        self.union(&self.changes_columns(), |_| true)
    }

    /// The same, and what comes in the log behind `after`.
    pub(super) fn followed(&self, tail: &Arc<dyn Tail>, after: LogPosition, behind: &Arc<Behind>) -> Result<Followed> {
        let columns = self.changes_columns();
        let changes = self.union(&columns, |_| true)?;
        let values = |i: usize, group: &FileGroup| columns.iter().map(|column| value(column, i, group)).collect();
        Followed::new(changes, self.inventory, values, (self.name, tail, after), behind)
    }

    fn changes_columns(&self) -> Vec<UnifiedColumn> {
        let mut columns = self.columns(Columns::Ever);
        columns.extend(unify(&self.schemas(is_metadata), Columns::Ever));
        columns
    }

    /// One row per key that is there now, with the columns there are now.
    pub(super) fn state(&self) -> Result<LogicalPlan> {
        let mut columns = self.columns(Columns::Current);
        match key_names(&self.inventory.groups) {
            Ok(keys) => self.follow_key(&mut columns, &keys),
            Err(changed) => {
                let fields: Vec<FieldRef> = columns.iter().map(|column| Arc::clone(&column.field)).collect();
                let none = Refused { schema: Arc::new(Schema::new(fields)), error: changed.error(self.name) };
                return LogicalPlanBuilder::scan("state", provider_as_source(Arc::new(none)), None)?.build();
            }
        }
        let names: Vec<&str> = columns.iter().map(|column| column.field.name().as_str()).collect();
        let newest = self.inventory.newest();
        // Without a declared key all columns are one, and equal rows are one row.
        let key: Vec<&str> = if newest.key.is_empty() { names.clone() } else { newest.key.iter().map(String::as_str).collect() };

        let truncates = self.inventory.groups.iter().any(|group| group.truncates);
        let unchanged = self.inventory.groups.iter().any(|group| group.unchanged);
        let wanted: &[&str] =
            if unchanged { &[TIMESTAMP, SEQUENCE, CHANGE_TYPE, DELETED, UNCHANGED] } else { &[TIMESTAMP, SEQUENCE, CHANGE_TYPE, DELETED] };
        let mut read = columns.clone();
        read.extend(unify(&self.schemas(|field| wanted.contains(&field.name().as_str())), Columns::Ever));

        let mut rows = LogicalPlanBuilder::from(self.union(&read, |_| true)?);
        if truncates {
            rows = self.after_last_truncate(rows)?;
        }
        if unchanged {
            let resolved = Resolved::new(rows.build()?, key.iter().map(ToString::to_string).collect());
            rows = LogicalPlanBuilder::scan("resolved", provider_as_source(Arc::new(resolved)), None)?;
        }
        // Rows are told apart by their numbers in the files there, so none of their rows may be left out.
        let by_order = !newest.key.is_empty() && !unchanged && self.as_of.is_none();
        let files = if by_order { self.ordered_files(&read, &key, names.len())? } else { None };
        let key = key.into_iter().map(str::to_owned).collect();
        let merged = Merged::new(rows.build()?, key, &names, [TIMESTAMP, SEQUENCE, DELETED])?.of_files(files);
        LogicalPlanBuilder::scan("state", provider_as_source(Arc::new(merged)), None)?.build()
    }

    /// Why nobody may read it: what was compacted is not what it was before.
    pub(super) fn refusal(&self) -> Option<Error> {
        let (as_of, compacted) = (self.as_of?, self.inventory.compacted()?);
        if as_of.0 >= compacted {
            return None;
        }
        let mut since = Vec::new();
        write_iso_timestamp(&mut since, compacted, TimeUnit::Microsecond, true);
        let since = String::from_utf8_lossy(&since).into_owned();
        let error = Error::config("the table was compacted: what it was at that time is not known any more");
        Some(error.context("table", self.name).context("known since", since).remedy("ask for a later time"))
    }

    /// All there is in the order of the log, if it can be brought into it; `read` are the table's columns and, behind `width`, what decides.
    fn ordered_files(&self, read: &[UnifiedColumn], key: &[&str], width: usize) -> Result<Option<OrderedFiles>> {
        let Some(order) = self.inventory.in_log_order() else { return Ok(None) };
        let version = |(i, group): (usize, &FileGroup)| {
            let named = |name: &str| {
                let column = read.iter().find(|column| column.field.name() == name);
                column.map_or_else(|| internal_err!("a merge lacks the column {name}"), |column| value(column, i, group))
            };
            Ok(OrderedVersion {
                schema: readable(group),
                key: key.iter().map(|name| named(name)).collect::<Result<_>>()?,
                columns: read[..width].iter().map(|column| value(column, i, group)).collect::<Result<_>>()?,
                deleted: named(DELETED)?,
                change_type: if group.truncates { Some(named(CHANGE_TYPE)?) } else { None },
            })
        };
        let tails = self.inventory.groups.iter().map(in_flight).collect::<Result<Vec<_>>>()?;
        Ok(Some(OrderedFiles {
            store: self.store.clone(),
            versions: self.inventory.groups.iter().enumerate().map(version).collect::<Result<_>>()?,
            files: order.files.iter().map(|(group, file)| (*group, file.meta.clone())).collect(),
            in_flight: order.in_flight.iter().map(|(group, batch)| (*group, tails[*group][*batch].clone())).collect(),
            rows: self.inventory.groups.iter().map(|group| group.rows() + group.rows_in_flight()).sum(),
            keys: order.keys,
        }))
    }

    /// Gives the key's columns the names that they have in each group, `keys`.
    fn follow_key(&self, columns: &mut [UnifiedColumn], keys: &[Vec<String>]) {
        let schemas = self.schemas(|field| !is_metadata(field));
        for (place, name) in self.inventory.newest().key.iter().enumerate() {
            if let Some(column) = columns.iter_mut().find(|column| column.field.name() == name) {
                *column = column.called(&schemas, keys.iter().map(|key| key.get(place).cloned()).collect());
            }
        }
    }

    /// Rows after the newest TRUNCATE, which is itself among the rows that go.
    fn after_last_truncate(&self, rows: LogicalPlanBuilder) -> Result<LogicalPlanBuilder> {
        let place = unify(&self.schemas(|field| [TIMESTAMP, SEQUENCE, CHANGE_TYPE].contains(&field.name().as_str())), Columns::Ever);
        let behind = BehindTruncate::new(rows.build()?, self.union(&place, |group| group.truncates)?);
        LogicalPlanBuilder::scan("behind_truncate", provider_as_source(Arc::new(behind)), None)
    }

    fn columns(&self, columns: Columns) -> Vec<UnifiedColumn> {
        unify(&self.schemas(|field| !is_metadata(field)), columns)
    }

    /// The fields of each group that `wanted` names.
    fn schemas(&self, wanted: impl Fn(&Field) -> bool) -> Vec<Version> {
        let version = |group: &FileGroup| {
            let fields = group.schema.fields().iter().filter(|field| wanted(field)).map(Arc::clone).collect();
            Version { origin: group.origin.clone(), fields }
        };
        self.inventory.groups.iter().map(version).collect()
    }

    /// The rows of all groups that have files and `wanted`, as `columns`.
    fn union(&self, columns: &[UnifiedColumn], wanted: impl Fn(&FileGroup) -> bool) -> Result<LogicalPlan> {
        let mut union: Option<LogicalPlanBuilder> = None;
        for (i, group) in self.inventory.groups.iter().enumerate() {
            if group.is_empty() || !wanted(group) {
                continue;
            }
            let mut parts: Vec<Arc<dyn TableProvider>> = Vec::with_capacity(2);
            if !group.files.is_empty() {
                parts.push(Arc::new(GroupScan::new(self.store.clone(), group)));
            }
            if !group.tail.is_empty() {
                parts.push(Arc::new(MemTable::try_new(readable(group), vec![in_flight(group)?])?));
            }
            for part in &group.parts {
                parts.push(Arc::new(TailScan::new(readable(group), part.clone())));
            }
            for part in parts {
                let scan = LogicalPlanBuilder::scan(format!("v{}", group.version), provider_as_source(part), None)?;
                let values = columns.iter().map(|column| value(column, i, group)).collect::<Result<Vec<Expr>>>()?;
                let mut rows = scan;
                if let Some(as_of) = self.as_of {
                    let moment = ScalarValue::TimestampMicrosecond(Some(as_of.0), Some("UTC".into()));
                    rows = rows.filter(ident(TIMESTAMP).lt_eq(lit(moment)))?;
                }
                let rows = rows.project(values)?;
                union = Some(match union {
                    Some(union) => union.union(rows.build()?)?,
                    None => rows,
                });
            }
        }
        match union {
            Some(union) => union.build(),
            None => {
                let fields: Vec<FieldRef> = columns.iter().map(|column| Arc::clone(&column.field)).collect();
                let empty = Arc::new(EmptyTable::new(Arc::new(Schema::new(fields))));
                LogicalPlanBuilder::scan("empty", provider_as_source(empty), None)?.build()
            }
        }
    }
}

/// Changes in the order of the log.
pub(super) fn in_log_order(changes: LogicalPlan) -> Result<LogicalPlan> {
    LogicalPlanBuilder::from(changes).sort([ident(TIMESTAMP).sort(true, true), ident(SEQUENCE).sort(true, true)])?.build()
}

/// Rows that are in no file, as the files of their group have them.
fn in_flight(group: &FileGroup) -> Result<Vec<RecordBatch>> {
    let schema = readable(group);
    group.tail.iter().map(|batch| as_readable(batch, &schema)).collect()
}

/// A column's value in the rows of group `i`.
fn value(column: &UnifiedColumn, i: usize, group: &FileGroup) -> Result<Expr> {
    let name = column.field.name();
    let target: &DataType = column.field.data_type();
    let value = match &column.names[i] {
        Some(own) => cast_to_common(ident(own), group.schema.field_with_name(own)?.data_type(), target),
        None => Expr::Literal(ScalarValue::try_from(target)?, None),
    };
    Ok(value.alias(name))
}
