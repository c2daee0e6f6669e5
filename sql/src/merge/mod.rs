//! Changes reduced to current state, as an operator of DataFusion.
//!
//! ```text
//! Merged (table) ── scan: filters on the key and projections go below ──▶ MergeExec ── changes
//! ```
//!
//! [`MergeExec`] decides by [`LatestPerKey`](logweir_core::merge::LatestPerKey): of the rows of a key the one that is last by
//! `_metadata_timestamp` and `_metadata_sequence` stands, and none if that is a delete.
//!
//! Where the changes are files in the order of the log, and nothing is asked of them that their statistics could help with, a leaf
//! takes the place of all this: [`MergeScan`](scan::MergeScan), which reads of a row that does not stand the key alone.

mod accumulate;
mod exec;
mod files;
mod scan;
mod sorted;
mod table;

pub(crate) use scan::{OrderedFiles, OrderedVersion};
pub(crate) use table::Merged;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
