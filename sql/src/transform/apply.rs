//! Applies a planned rule to a batch.
//!
//! Fates first: which rows are carried, and how. Then each column of the target is made for the rows that it is made for, and
//! nothing is computed for a row that does not pass: an expression that divides by what the condition rules out never fails.

use std::cell::OnceCell;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, DictionaryArray, Int8Array, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array,
};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::{filter, take};
use arrow::datatypes::Int8Type;
use logweir_core::{BeforeImages, ChangeBatch, ChangeType, Error, MetadataColumn, Relation, Result, Unchanged};

use super::before::images;
use super::cases::{Fate, all_unchanged, any_unchanged, fates, without};
use super::evaluate::Reason;
use super::plan::{Lookup, Output, RulePlan};
use super::reference::Pinned;
use super::rows::{Rows, unexpected};
use super::rule::Unresolved;

/// A change that the target cannot have.
#[derive(Debug, Clone, Copy)]
pub(super) struct BadRow {
    pub(super) row: usize,
    /// The column of the target; `None` if it is the condition.
    pub(super) column: Option<usize>,
    pub(super) reason: Reason,
}

/// What a rule makes of a batch.
pub(super) struct Applied {
    /// What is carried. The row of an update that is bad leaves the target, as far as its key can be computed: what later changes leave out
    /// must not be taken from a version before it.
    pub(super) batch: Option<ChangeBatch>,
    /// Ascending by row.
    pub(super) bad: Vec<BadRow>,
}

const LEFT_OUT: Reason = Reason("the log left a value out because it did not change, and the row may be new to the target");
const PARTLY_LEFT_OUT: Reason = Reason("the log left out one of the values that it is made of, because that one did not change");

/// Applies a rule. `batch` has been [resolved](super::cases::resolve). With `before_images`, what updated rows were before is carried, too.
pub(super) fn apply(
    plan: &RulePlan,
    target: &Arc<Relation>,
    unresolved: Unresolved,
    before_images: bool,
    batch: &ChangeBatch,
) -> Result<Applied> {
    let lookups = plan.lookups.iter().map(Lookup::pin).collect::<Result<Vec<_>>>()?;
    let mut applied = apply_pinned(plan, &lookups, target, unresolved, batch)?;
    if before_images && let Some(carried) = &mut applied.batch {
        carried.before = images(plan, &lookups, batch, carried)?;
    }
    Ok(applied)
}

fn apply_pinned(
    plan: &RulePlan,
    lookups: &[Pinned<'_>],
    target: &Arc<Relation>,
    unresolved: Unresolved,
    batch: &ChangeBatch,
) -> Result<Applied> {
    if let Some(batch) = every_row(plan, lookups, target, batch)? {
        return Ok(Applied { batch: Some(batch), bad: Vec::new() });
    }
    let mut fates = fates(plan, batch, lookups)?;
    let mut bad: Vec<BadRow> = Vec::new();
    for (row, fate) in fates.iter().enumerate() {
        if let Fate::Bad(reason) = *fate {
            bad.push(BadRow { row, column: None, reason });
        }
    }
    let left_out = LeftOut::of(plan, batch);
    left_out.judge(unresolved, &mut fates, &mut bad);
    for bad in &bad {
        fates[bad.row] = without(plan.filter.as_ref(), batch, bad.row);
    }
    loop {
        match assemble(plan, lookups, target, &left_out, &fates, batch)? {
            Ok(batch) => {
                bad.sort_by_key(|bad| bad.row);
                return Ok(Applied { batch, bad });
            }
            Err(found) => {
                // Each time around at least one row fewer is carried, or carried with its key alone.
                for BadRow { row, .. } in &found {
                    fates[*row] =
                        if matches!(fates[*row], Fate::Key(_)) { Fate::Dropped } else { without(plan.filter.as_ref(), batch, *row) };
                }
                bad.extend(found);
            }
        }
    }
}

/// The rule, which is: without a condition, for changes with all their values, every row is carried as it is and nothing is to be settled.
/// `None` if that is not so, or if something cannot be computed.
fn every_row(plan: &RulePlan, lookups: &[Pinned<'_>], target: &Arc<Relation>, batch: &ChangeBatch) -> Result<Option<ChangeBatch>> {
    let bare = |code: &i8| ChangeType::from_code(*code).is_none_or(|change_type| change_type == ChangeType::Truncate);
    if plan.filter.is_some() || batch.unchanged.is_some() || batch.change_type_codes().iter().any(bare) || batch.rows() == 0 {
        return Ok(None);
    }
    let rows = Rows::all(batch);
    let mut columns = Vec::with_capacity(target.schema().fields().len());
    for (index, output) in plan.outputs.iter().enumerate() {
        columns.push(match output {
            Output::Pass(source) => rows.source(*source, plan.columns[index].field.data_type())?,
            Output::Computed(computed, cast) => {
                let evaluated = rows.evaluate_to(computed, cast.as_ref(), lookups)?;
                if evaluated.failed.is_some() {
                    return Ok(None);
                }
                evaluated.values
            }
        });
    }
    columns.extend(batch.records.columns()[batch.relation.columns().len()..].iter().map(Arc::clone));
    let records = RecordBatch::try_new(Arc::clone(target.schema()), columns)
        .map_err(|_| Error::internal("a transformed batch does not fit its relation").context("target", target.name()))?;
    let memory = Arc::clone(&batch.memory);
    Ok(Some(ChangeBatch { relation: Arc::clone(target), records, unchanged: None, before: None, last: batch.last, memory }))
}

/// What the log left out, by column of the target; `None` for a column that is whole in every row.
struct LeftOut {
    columns: Vec<Option<LeftOutColumn>>,
}

struct LeftOutColumn {
    /// Nothing of what it is made of changed, so it did not either.
    unchanged: BooleanBuffer,
    /// Something of what it is made of is not known.
    partly: BooleanBuffer,
}

impl LeftOut {
    fn of(plan: &RulePlan, batch: &ChangeBatch) -> Self {
        let unchanged = batch.unchanged.as_ref();
        let column = |output: &Output| {
            let depends = output.depends();
            let any = any_unchanged(&depends, unchanged)?;
            let unchanged = all_unchanged(&depends, unchanged, batch.rows());
            let partly = &any & &!&unchanged;
            Some(LeftOutColumn { unchanged, partly })
        };
        LeftOut { columns: plan.outputs.iter().map(column).collect() }
    }

    /// Takes out the rows that would arrive with a value that nobody has.
    fn judge(&self, unresolved: Unresolved, fates: &mut [Fate], bad: &mut Vec<BadRow>) {
        for (index, column) in self.columns.iter().enumerate() {
            let Some(LeftOutColumn { unchanged, partly }) = column else { continue };
            for (row, fate) in fates.iter_mut().enumerate() {
                let reason = match *fate {
                    Fate::New(_) if unchanged.value(row) && unresolved == Unresolved::Fail => LEFT_OUT,
                    Fate::New(change_type) | Fate::Whole(change_type) if partly.value(row) && !change_type.deletes() => PARTLY_LEFT_OUT,
                    _ => continue,
                };
                *fate = Fate::Bad(reason);
                bad.push(BadRow { row, column: Some(index), reason });
            }
        }
    }
}

/// Which rows of a batch are carried, and which of these with what.
struct Carried {
    /// Any of them.
    rows: BooleanArray,
    count: usize,
    /// With all values.
    whole: BooleanArray,
    /// With a key at least.
    keyed: BooleanArray,
    change_types: Vec<i8>,
    /// For each row carried its place in the batch, null for those that carry no values.
    whole_places: OnceCell<UInt32Array>,
    /// The same, by the place among those that are carried whole.
    spread_places: OnceCell<UInt32Array>,
    whole_count: usize,
    /// Among the rows carried those that carry their key alone.
    keys_alone: OnceCell<BooleanBuffer>,
}

impl Carried {
    fn of(fates: &[Fate]) -> Self {
        let mut change_types = Vec::with_capacity(fates.len());
        for fate in fates {
            match fate {
                Fate::Whole(change_type) | Fate::New(change_type) | Fate::Key(change_type) => change_types.push(change_type.code()),
                Fate::Bare => change_types.push(ChangeType::Truncate.code()),
                Fate::Dropped | Fate::Bad(_) => {}
            }
        }
        let mask = |is: fn(&Fate) -> bool| BooleanArray::new(fates.iter().map(is).collect(), None);
        let whole = mask(|fate| matches!(fate, Fate::Whole(_) | Fate::New(_)));
        Carried {
            rows: mask(|fate| !matches!(fate, Fate::Dropped | Fate::Bad(_))),
            count: change_types.len(),
            whole_count: whole.true_count(),
            whole,
            keyed: mask(|fate| matches!(fate, Fate::Whole(_) | Fate::New(_) | Fate::Key(_))),
            change_types,
            whole_places: OnceCell::new(),
            spread_places: OnceCell::new(),
            keys_alone: OnceCell::new(),
        }
    }

    /// A column of the batch for all rows carried, with null in those that carry no values. The values of rows that are not carried whole are
    /// not under the nulls either: whoever writes buffers would write them.
    fn whole_of(&self, column: &ArrayRef) -> Result<ArrayRef> {
        let whole = self.whole.values();
        let Some(first) = whole.set_indices().next() else { return Ok(new_null_array(column.data_type(), self.count)) };
        let places = self.whole_places.get_or_init(|| {
            let rows = self.rows.values().set_indices();
            let (places, has): (Vec<u32>, Vec<bool>) =
                rows.map(|row| if whole.value(row) { (row as u32, true) } else { (first as u32, false) }).unzip();
            UInt32Array::new(places.into(), Some(NullBuffer::from(has)))
        });
        take(column, places, None).map_err(unexpected)
    }

    /// Spreads values of the rows of `mask` over all rows carried; null in the others.
    fn spread(&self, values: &ArrayRef, mask: &BooleanArray) -> Result<ArrayRef> {
        if values.len() == self.count {
            return Ok(Arc::clone(values));
        }
        let places = || {
            let mut next = 0;
            let place = |row: usize| {
                let has = mask.value(row);
                next += u32::from(has);
                (next.saturating_sub(1), has)
            };
            let (places, has): (Vec<u32>, Vec<bool>) = self.rows.values().set_indices().map(place).unzip();
            UInt32Array::new(places.into(), Some(NullBuffer::from(has)))
        };
        let places = match mask.true_count() == self.whole_count {
            true => self.spread_places.get_or_init(places),
            false => &places(),
        };
        take(values, places, None).map_err(unexpected)
    }
}

type Assembled = std::result::Result<Option<ChangeBatch>, Vec<BadRow>>;

fn assemble(
    plan: &RulePlan,
    lookups: &[Pinned<'_>],
    target: &Arc<Relation>,
    left_out: &LeftOut,
    fates: &[Fate],
    batch: &ChangeBatch,
) -> Result<Assembled> {
    let carried = Carried::of(fates);
    if carried.count == 0 {
        return Ok(Ok(None));
    }
    let whole = Rows::of(batch, &carried.whole);
    let all = Rows::of(batch, &carried.rows);
    // Only a truncate has no key.
    let bare = (carried.keyed.true_count() < carried.count).then(|| Rows::of(batch, &carried.keyed));
    let keyed = bare.as_ref().unwrap_or(&all);
    let without_values = carried.whole_count < carried.count;

    let mut columns = Vec::with_capacity(target.schema().fields().len());
    let mut unchanged = Vec::new();
    let mut nothing = Vec::new();
    let mut bad = Vec::new();
    for (index, output) in plan.outputs.iter().enumerate() {
        let is_key = target.key_declared() && target.key().contains(&index);
        let (rows, mask) = if is_key { (keyed, &carried.keyed) } else { (&whole, &carried.whole) };
        let mut not_computed = None;
        let values = match output {
            // In one go: filtering and spreading would copy the column twice.
            Output::Pass(source) if without_values && !is_key && *source < batch.relation.columns().len() => {
                carried.whole_of(batch.records.column(*source))?
            }
            Output::Pass(source) => rows.source(*source, plan.columns[index].field.data_type())?,
            Output::Computed(computed, cast) => {
                let evaluated = rows.evaluate_to(computed, cast.as_ref(), lookups)?;
                if let Some(failed) = evaluated.failed {
                    let places = mask.values().set_indices().enumerate();
                    let mut rows_failed = vec![false; batch.rows()];
                    for (row, reason) in places.filter_map(|(place, row)| failed.of(place).map(|reason| (row, reason))) {
                        // A value that the log left out was computed from nothing.
                        let left_out =
                            left_out.columns[index].as_ref().is_some_and(|column| column.unchanged.value(row) || column.partly.value(row));
                        if !left_out {
                            rows_failed[row] = true;
                        }
                        let deletes = matches!(fates[row], Fate::Whole(change_type) if change_type.deletes());
                        if !left_out && (is_key || !deletes) {
                            bad.push(BadRow { row, column: Some(index), reason });
                        }
                    }
                    not_computed = Some(BooleanBuffer::from(rows_failed));
                }
                evaluated.values
            }
        };
        columns.push(carried.spread(&values, mask)?);

        // A delete that carries its key alone leaves the rest as it was, and so does one whose other values cannot be computed.
        let mut bits = left_out.columns[index].as_ref().map(|column| &column.unchanged | &column.partly);
        if let Some(failed) = not_computed {
            bits = Some(bits.map_or(failed.clone(), |bits| &bits | &failed));
        }
        let select = |bits: BooleanBuffer| -> Result<BooleanBuffer> {
            let bits: ArrayRef = Arc::new(BooleanArray::new(bits, None));
            Ok(all.select(&bits)?.as_boolean().values().clone())
        };
        let mut bits = bits.map(|bits| select(&bits & carried.keyed.values())).transpose()?;
        if bits.as_ref().is_some_and(|bits| bits.count_set_bits() > 0) {
            nothing.push(index);
        }
        if without_values && !is_key {
            let alone = match carried.keys_alone.get() {
                Some(alone) => alone.clone(),
                None => {
                    let alone = select(carried.keyed.values() & &!carried.whole.values())?;
                    carried.keys_alone.get_or_init(|| alone).clone()
                }
            };
            bits = Some(bits.map_or(alone.clone(), |bits| &bits | &alone));
        }
        if let Some(bits) = bits.filter(|bits| bits.count_set_bits() > 0) {
            unchanged.push((index, bits));
        }
    }
    if !bad.is_empty() {
        bad.sort_by_key(|bad| bad.row);
        bad.dedup_by_key(|bad| bad.row);
        return Ok(Err(bad));
    }
    // What is computed from nothing is nothing.
    for (index, bits) in unchanged.iter().filter(|(index, _)| nothing.contains(index)) {
        let column = &mut columns[*index];
        *column = arrow::compute::nullif(column, &BooleanArray::new(bits.clone(), None)).map_err(unexpected)?;
    }
    for column in 0..MetadataColumn::COUNT {
        let source = batch.records.column(batch.relation.columns().len() + column);
        columns.push(if column == MetadataColumn::ChangeType as usize {
            let names = Arc::clone(source.as_dictionary::<Int8Type>().values());
            let codes = Int8Array::from(carried.change_types.clone());
            Arc::new(DictionaryArray::<Int8Type>::try_new(codes, names).map_err(unexpected)?)
        } else {
            all.select(source)?
        });
    }
    let options = RecordBatchOptions::new().with_row_count(Some(carried.count));
    let records = RecordBatch::try_new_with_options(Arc::clone(target.schema()), columns, &options)
        .map_err(|_| Error::internal("a transformed batch does not fit its relation").context("target", target.name()))?;
    let unchanged = (!unchanged.is_empty()).then_some(Unchanged { columns: unchanged });
    let mut out =
        ChangeBatch { relation: Arc::clone(target), records, unchanged, before: None, last: batch.last, memory: Arc::clone(&batch.memory) };
    out.last = out.position(carried.count - 1);
    Ok(Ok(Some(out)))
}

/// Rows of a batch, by index, ascending.
pub(super) fn rows_of(array: &ArrayRef, rows: &[usize]) -> Result<ArrayRef> {
    let mut wanted = vec![false; array.len()];
    rows.iter().for_each(|row| wanted[*row] = true);
    filter(array, &BooleanArray::from(wanted)).map_err(unexpected)
}

/// The rows of a batch with these numbers, ascending; `None` if there are none.
pub(super) fn selected(batch: &ChangeBatch, rows: &[usize]) -> Result<Option<ChangeBatch>> {
    let Some(last) = rows.last() else { return Ok(None) };
    let bits = |bits: &BooleanBuffer| -> Result<BooleanBuffer> {
        let array: ArrayRef = Arc::new(BooleanArray::new(bits.clone(), None));
        Ok(rows_of(&array, rows)?.as_boolean().values().clone())
    };
    let unchanged = |unchanged: &Unchanged| -> Result<Unchanged> {
        let columns = unchanged.columns.iter().map(|(index, column)| Ok((*index, bits(column)?)));
        Ok(Unchanged { columns: columns.collect::<Result<_>>()? })
    };
    let columns = batch.records.columns().iter().map(|column| rows_of(column, rows)).collect::<Result<_>>()?;
    let before = match &batch.before {
        Some(before) => Some(BeforeImages {
            columns: before.columns.iter().map(|column| rows_of(column, rows)).collect::<Result<_>>()?,
            present: bits(&before.present)?,
            absent: before.absent.as_ref().map(unchanged).transpose()?,
        }),
        None => None,
    };
    Ok(Some(ChangeBatch {
        relation: Arc::clone(&batch.relation),
        records: RecordBatch::try_new(batch.records.schema(), columns).map_err(unexpected)?,
        unchanged: batch.unchanged.as_ref().map(unchanged).transpose()?,
        before,
        last: batch.position(*last),
        memory: Arc::clone(&batch.memory),
    }))
}
