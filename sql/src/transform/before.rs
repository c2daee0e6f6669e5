//! What updated rows were before, as a rule makes them.
//!
//! A target may see the row before an update only if it had that row: one that did not pass the condition stays out of it. An image is
//! there whole or not at all. What a column takes from metadata or from a reference table is that of the change.

use std::borrow::Cow;

use arrow::array::{Array, AsArray, BooleanArray, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::take;
use logweir_core::{BeforeImages, ChangeBatch, ChangeType, Result};

use super::cases::any_unchanged;
use super::evaluate::Evaluated;
use super::plan::{Output, RulePlan};
use super::reference::Pinned;
use super::rows::{Rows, unexpected};

/// The images of `carried`, which the rule has made of `batch`; `None` if it has none.
pub(super) fn images(plan: &RulePlan, lookups: &[Pinned<'_>], batch: &ChangeBatch, carried: &ChangeBatch) -> Result<Option<BeforeImages>> {
    let Some(before) = &batch.before else { return Ok(None) };
    let mut wanted = before.present.clone();
    let needed = plan.outputs.iter().map(Output::depends).chain(plan.filter.iter().map(|filter| Cow::Borrowed(&filter.depends)));
    for depends in needed {
        if let Some(absent) = any_unchanged(&depends, before.absent.as_ref()) {
            wanted = &wanted & &!&absent;
        }
    }
    let origins = origins(batch, carried);
    let mut carries = vec![false; batch.rows()];
    origins.iter().flatten().for_each(|row| carries[*row] = true);
    wanted = &wanted & &BooleanBuffer::from(carries);
    if wanted.count_set_bits() == 0 {
        return Ok(None);
    }

    let rows = Rows::of_sources(batch, &before.columns, &BooleanArray::new(wanted.clone(), None));
    let mut whole = vec![true; rows.count()];
    let mut judge = |evaluated: &Evaluated, holds: &dyn Fn(usize) -> bool| {
        for (row, whole) in whole.iter_mut().enumerate() {
            *whole &= holds(row) && evaluated.failed.as_ref().is_none_or(|failed| failed.of(row).is_none());
        }
    };
    if let Some(filter) = &plan.filter {
        let evaluated = rows.evaluate(filter, lookups)?;
        let passes = evaluated.values.as_boolean();
        judge(&evaluated, &|row| passes.is_valid(row) && passes.value(row));
    }
    let mut columns = Vec::with_capacity(plan.outputs.len());
    for (output, column) in plan.outputs.iter().zip(&plan.columns) {
        columns.push(match output {
            Output::Pass(source) => rows.source(*source, column.field.data_type())?,
            Output::Computed(computed, cast) => {
                let evaluated = rows.evaluate_to(computed, cast.as_ref(), lookups)?;
                judge(&evaluated, &|_| true);
                evaluated.values
            }
        });
    }

    // For each row of the batch its place among those that are wanted.
    let mut places = vec![None; batch.rows()];
    for (place, row) in wanted.set_indices().enumerate() {
        places[row] = whole[place].then_some(place as u32);
    }
    let places: UInt32Array = origins.into_iter().map(|row| row.and_then(|row| places[row])).collect();
    let present: BooleanBuffer = (0..places.len()).map(|row| places.is_valid(row)).collect();
    if present.count_set_bits() == 0 {
        return Ok(None);
    }
    let columns = columns.iter().map(|column| take(column, &places, None)).collect::<std::result::Result<_, _>>().map_err(unexpected)?;
    Ok(Some(BeforeImages { columns, present, absent: None }))
}

/// For each row carried as an update the row of the batch that it was made of. Both are in the order of the log.
fn origins(batch: &ChangeBatch, carried: &ChangeBatch) -> Vec<Option<usize>> {
    let mut next = 0;
    let origin = |(row, code): (usize, &i8)| {
        if *code != ChangeType::UpdateInsert.code() {
            return None;
        }
        let position = carried.position(row);
        next += (next..batch.rows()).take_while(|row| batch.position(*row) < position).count();
        (next < batch.rows() && batch.position(next) == position).then_some(next)
    };
    carried.change_type_codes().iter().enumerate().map(origin).collect()
}
