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

    /// Applies the plan to a batch of a relation that `output` was called with. The changes of a batch keep their order
    /// and positions; untouched columns pass by reference.
    fn apply(&self, batch: ChangeBatch) -> Result<Vec<ChangeBatch>>;
}
