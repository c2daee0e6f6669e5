//! Transforms: what happens to changes between the log and the change log.

use std::sync::Arc;

use crate::change::ChangeBatch;
use crate::error::Result;
use crate::relation::Relation;

/// Maps the changes of relations to changes of other relations: masks, filters, projections.
///
/// Runs before anything is written anywhere: what a transform hides is in no file, no state, no metric and no error.
pub trait Transform: Send + Sync {
    /// Plans a relation: what it becomes, or nothing if its changes are not carried. Called once per schema version,
    /// before its first batch. An error of kind `Config` or `Schema` names the rule and the column.
    fn output(&mut self, relation: &Arc<Relation>) -> Result<Vec<Arc<Relation>>>;

    /// True if it has to be told of tables that were followed before: it makes something of columns that they have no more, or of changes that come
    /// before theirs.
    fn recalls(&self) -> bool {
        false
    }

    /// Told before the first [`output`](Self::output), of a table that was followed before: what it has become since, with the columns that
    /// it has no more at the end. No changes come of it. Returns what it becomes, for the next transform; nothing if it does not fit.
    fn recall(&mut self, relation: &Arc<Relation>) -> Vec<Arc<Relation>> {
        self.output(relation).unwrap_or_default()
    }

    /// Applies the plan to a batch of a relation that `output` was called with. The changes of a batch keep their order
    /// and positions; untouched columns pass by reference.
    fn apply(&self, batch: ChangeBatch) -> Result<Vec<ChangeBatch>>;
}

/// What a relation becomes when it goes through all of them, one behind the other; each plans what the one before makes of it.
pub fn output_of_all(transforms: &mut [Box<dyn Transform>], relation: &Arc<Relation>) -> Result<Vec<Arc<Relation>>> {
    let mut outputs = vec![Arc::clone(relation)];
    for transform in transforms {
        let mut next = Vec::with_capacity(outputs.len());
        for relation in &outputs {
            next.extend(transform.output(relation)?);
        }
        outputs = next;
    }
    Ok(outputs)
}

/// What a batch becomes when it goes through all of them, one behind the other, without batches that no row is left of.
pub fn apply_all(transforms: &[Box<dyn Transform>], batch: ChangeBatch) -> Result<Vec<ChangeBatch>> {
    let mut batches = vec![batch];
    for transform in transforms {
        let mut next = Vec::with_capacity(batches.len());
        for batch in batches {
            next.extend(transform.apply(batch)?);
        }
        batches = next;
    }
    batches.retain(|batch| batch.rows() > 0);
    Ok(batches)
}

/// Tells transforms, each of what those before it make of it, of a table that was followed before. Returns what it becomes in the end.
pub fn recall_all(transforms: &mut [Box<dyn Transform>], relation: &Arc<Relation>) -> Vec<Arc<Relation>> {
    let recalled = vec![Arc::clone(relation)];
    transforms.iter_mut().fold(recalled, |relations, transform| relations.iter().flat_map(|relation| transform.recall(relation)).collect())
}
