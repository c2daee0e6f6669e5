//! What a filter makes of a change: the four cases.
//!
//! | before passes | after passes | becomes |
//! |---|---|---|
//! | yes | yes | an update |
//! | no | yes | an insert |
//! | yes | no | a delete |
//! | no | no | nothing |
//!
//! Most logs have the row before an update in part or not at all. Where it is not known whether that row passed, an update whose
//! row passes stays an update, and one whose row does not becomes a delete of its key, which does no harm to a target that
//! never had it. Such a delete carries the key alone: the other values are those of a row that must not pass.
//!
//! A filter that names key columns alone says the same of a row before and after an update, so it needs no row before. Where it
//! names the kind of a change (`_metadata_change_type <> 'DELETE'`), it is about the change, not the row: one that does not pass
//! is as if it had not been. Other metadata and reference tables may have been others when the row passed.

use arrow::array::{Array, AsArray};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use logweir_core::{ChangeBatch, ChangeType, LogPosition, Result, Unchanged};

use super::evaluate::{Failed, Reason};
use super::plan::{Computed, Depends, RulePlan};
use super::reference::Pinned;
use super::rows::Rows;

/// What becomes of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It does not concern the target.
    Dropped,
    /// It is carried, with its values.
    Whole(ChangeType),
    /// It is carried, and the row may be one that the target does not have: nothing of it may be left to an earlier one.
    New(ChangeType),
    /// The row is gone; its key alone is carried.
    Key(ChangeType),
    /// It has no values.
    Bare,
    /// It cannot be carried.
    Bad(Reason),
}

/// Whether rows pass a filter, as far as that is known.
struct Passes {
    passes: BooleanBuffer,
    known: BooleanBuffer,
    failed: Option<Failed>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Passed {
    Yes,
    No,
    Unknown,
}

impl Passes {
    fn of(filter: &Computed, rows: &Rows<'_>, unchanged: Option<&Unchanged>, lookups: &[Pinned<'_>]) -> Result<Self> {
        let evaluated = rows.evaluate(filter, lookups)?;
        let values = evaluated.values.as_boolean();
        // Neither true nor false does not pass.
        let passes = match values.nulls() {
            Some(nulls) => values.values() & nulls.inner(),
            None => values.values().clone(),
        };
        let mut known = BooleanBuffer::new_set(rows.count());
        if let Some(unknown) = any_unchanged(&filter.depends, unchanged) {
            known = &known & &!&unknown;
        }
        Ok(Passes { passes, known, failed: evaluated.failed })
    }

    fn of_row(&self, row: usize) -> Passed {
        match (self.known.value(row), self.passes.value(row)) {
            (false, _) => Passed::Unknown,
            (true, true) => Passed::Yes,
            (true, false) => Passed::No,
        }
    }

    fn failed(&self, row: usize) -> Option<Reason> {
        self.failed.as_ref().and_then(|failed| failed.of(row))
    }
}

/// Rows in which the log left out a column that a value depends on; `None` if there are none.
pub(super) fn any_unchanged(depends: &Depends, unchanged: Option<&Unchanged>) -> Option<BooleanBuffer> {
    let columns = unchanged.into_iter().flat_map(|unchanged| &unchanged.columns);
    columns.filter(|(index, _)| depends.sources.contains(index)).map(|(_, bits)| bits.clone()).reduce(|a, b| &a | &b)
}

/// Rows in which the log left out every column that a value depends on, so that the value is the one before.
pub(super) fn all_unchanged(depends: &Depends, unchanged: Option<&Unchanged>, rows: usize) -> BooleanBuffer {
    let none = || BooleanBuffer::new_unset(rows);
    if depends.kind || depends.metadata || depends.sources.is_empty() {
        return none();
    }
    let of = |index: &usize| {
        let mut columns = unchanged.into_iter().flat_map(|unchanged| &unchanged.columns);
        columns.find(|(column, _)| column == index).map(|(_, bits)| bits.clone())
    };
    depends.sources.iter().map(of).reduce(|a, b| Some(&a? & &b?)).flatten().unwrap_or_else(none)
}

/// What the filter makes of each change of a batch.
pub(super) fn fates(plan: &RulePlan, batch: &ChangeBatch, lookups: &[Pinned<'_>]) -> Result<Vec<Fate>> {
    let filter = plan.filter.as_ref();
    let codes = batch.change_type_codes();
    let change_type = |row: usize| ChangeType::from_code(codes[row]).unwrap_or(ChangeType::Truncate);
    let Some(filter) = filter else {
        let fate = |row: usize| match change_type(row) {
            ChangeType::Truncate => Fate::Bare,
            other => Fate::Whole(other),
        };
        return Ok((0..codes.len()).map(fate).collect());
    };
    let relation = &batch.relation;
    let after = Passes::of(filter, &Rows::all(batch), batch.unchanged.as_ref(), lookups)?;
    // Metadata was other, and a reference table may have been, when the row passed.
    let lasting = !filter.depends.metadata && !filter.depends.references;
    let before = match &batch.before {
        Some(before) if lasting => {
            let passes = Passes::of(filter, &Rows::over(batch, &before.columns), before.absent.as_ref(), lookups)?;
            Some((passes, &before.present))
        }
        _ => None,
    };
    let of_kinds = plan.kinds.as_ref().map(|kinds| Passes::of(kinds, &Rows::all(batch), None, lookups)).transpose()?;
    // Also where the log leaves out what the rest of the condition needs, and where the table is read again.
    let of_other_kind = |row: usize| of_kinds.as_ref().is_some_and(|kinds| kinds.of_row(row) == Passed::No && kinds.failed(row).is_none());
    let same_before = filter.depends.of_key_alone(relation);
    // A table that was changed otherwise than by changes of its rows is read again. What was landed of it is not what the log says
    // that a row was.
    let read_again = relation.version() > 1;
    let mut fates = Vec::with_capacity(codes.len());
    for row in 0..codes.len() {
        let change_type = change_type(row);
        let failed = after.failed(row);
        fates.push(match (change_type, after.of_row(row)) {
            (ChangeType::Truncate, _) => Fate::Bare,
            _ if of_other_kind(row) => Fate::Dropped,
            // Of a row that is gone the key says enough.
            (ChangeType::Delete | ChangeType::UpdateDelete, passed) => match passed {
                _ if failed.is_some() => Fate::Key(change_type),
                Passed::Yes => Fate::Whole(change_type),
                Passed::No if lasting && (same_before || !read_again) => Fate::Dropped,
                Passed::No | Passed::Unknown => Fate::Key(change_type),
            },
            (_, passed) if failed.is_some() && passed != Passed::Unknown => Fate::Bad(failed.unwrap_or(NOT_COMPUTED)),
            (_, Passed::Unknown) => Fate::Bad(Reason("the condition needs a value that the log left out because it did not change")),
            (ChangeType::Insert, Passed::Yes) => Fate::New(ChangeType::Insert),
            (ChangeType::Read, Passed::Yes) => Fate::New(ChangeType::Read),
            (ChangeType::Read, Passed::No) if read_again => Fate::Key(ChangeType::Delete),
            (ChangeType::Insert | ChangeType::Read, Passed::No) => Fate::Dropped,
            (ChangeType::UpdateInsert, passed) => {
                let second_half = row > 0 && is_second_half(batch, codes, row);
                let before = match &before {
                    _ if same_before && !second_half => passed,
                    // Of both halves it is the first that says whether the row under its old key is let go.
                    _ if second_half && filter.depends.kind => after.of_row(row - 1),
                    Some((before, present)) if present.value(row) && before.failed(row).is_none() => before.of_row(row),
                    // The first half is the row before, too.
                    _ if second_half && lasting && after.failed(row - 1).is_none() => after.of_row(row - 1),
                    _ => Passed::Unknown,
                };
                match (before, passed) {
                    (Passed::Yes, Passed::Yes) => Fate::Whole(ChangeType::UpdateInsert),
                    (Passed::No, Passed::Yes) => Fate::New(ChangeType::Insert),
                    (_, Passed::Yes) => Fate::New(ChangeType::UpdateInsert),
                    // The row under its old key has gone already.
                    _ if second_half => Fate::Dropped,
                    (Passed::No, _) if same_before || !read_again => Fate::Dropped,
                    _ => Fate::Key(ChangeType::Delete),
                }
            }
        });
    }
    if !relation.key_declared() {
        // All columns are the key, so there is nothing that could be carried of a row but all of it, and this one does not pass, or nobody
        // knows. The log has it as it was landed: if it does not pass now, it did not then.
        for fate in &mut fates {
            if let Fate::Key(_) = *fate {
                *fate = Fate::Dropped;
            }
        }
    }
    Ok(fates)
}

const NOT_COMPUTED: Reason = Reason("the condition cannot be computed");

/// What becomes of the target's row when a change cannot be carried.
pub(super) fn without(filter: Option<&Computed>, batch: &ChangeBatch, row: usize) -> Fate {
    // Where the condition is about the kind of a change, one that is not carried is as if it had not been.
    let of_kind = filter.is_some_and(|filter| filter.depends.kind);
    if !of_kind && may_have_landed(batch, row) { Fate::Key(ChangeType::Delete) } else { Fate::Dropped }
}

/// True if a target may have an earlier version of the row that a change makes, under the same key.
pub(crate) fn may_have_landed(batch: &ChangeBatch, row: usize) -> bool {
    let codes = batch.change_type_codes();
    // Without a key the update's first half, which is a row of its own, finds it.
    batch.relation.key_declared()
        && match ChangeType::from_code(codes[row]) {
            // A table that was changed otherwise than by changes of its rows is read again.
            Some(ChangeType::Read) => batch.relation.version() > 1,
            // The row under its old key has gone already.
            Some(ChangeType::UpdateInsert) => row == 0 || !is_second_half(batch, codes, row),
            _ => false,
        }
}

/// True for the insert of a key change whose delete stands before it.
pub(crate) fn is_second_half(batch: &ChangeBatch, codes: &[i8], row: usize) -> bool {
    let change = |position: LogPosition| (position.incarnation(), position.file(), position.commit(), position.ordinal());
    codes[row - 1] == ChangeType::UpdateDelete.code() && change(batch.position(row - 1)) == change(batch.position(row))
}

/// Fills what the log left out from the rows before, as far as these hold it.
pub(crate) fn resolve(batch: ChangeBatch) -> Result<ChangeBatch> {
    use arrow::compute::kernels::zip::zip;
    let (Some(unchanged), Some(before)) = (&batch.unchanged, &batch.before) else { return Ok(batch) };
    let mut columns = batch.records.columns().to_vec();
    let mut left = Vec::new();
    for (index, bits) in &unchanged.columns {
        let mut held = bits & &before.present;
        if let Some((_, absent)) = before.absent.iter().flat_map(|absent| &absent.columns).find(|(column, _)| column == index) {
            held = &held & &!absent;
        }
        if held.count_set_bits() > 0 {
            let mask = arrow::array::BooleanArray::new(held.clone(), None::<NullBuffer>);
            columns[*index] = zip(&mask, &before.columns[*index], &columns[*index]).map_err(super::rows::unexpected)?;
        }
        let still = bits & &!&held;
        if still.count_set_bits() > 0 {
            left.push((*index, still));
        }
    }
    let records = arrow::array::RecordBatch::try_new(batch.records.schema(), columns).map_err(super::rows::unexpected)?;
    let unchanged = (!left.is_empty()).then_some(Unchanged { columns: left });
    Ok(ChangeBatch { records, unchanged, ..batch })
}
