//! The rows of a batch as an expression sees them: just the columns it names, of just the rows that are wanted.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{FilterBuilder, FilterPredicate, take};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use logweir_core::{ChangeBatch, Error, Result};

use super::evaluate::{Evaluated, evaluate_each};
use super::metadata::PublicColumn;
use super::plan::{Computed, Input};
use super::reference::{Found, Pinned};

/// See the module. Columns are selected when they are first asked for.
pub(super) struct Rows<'a> {
    batch: &'a ChangeBatch,
    /// The columns of the table: those of the batch, or the ones before its updates.
    sources: &'a [ArrayRef],
    selection: Option<FilterPredicate>,
    count: usize,
    selected: RefCell<HashMap<Input, ArrayRef>>,
    found: RefCell<HashMap<usize, Found>>,
}

impl<'a> Rows<'a> {
    /// All rows of a batch.
    pub(super) fn all(batch: &'a ChangeBatch) -> Self {
        Self::over(batch, batch.records.columns())
    }

    /// All rows of a batch with other values in the table's columns.
    pub(super) fn over(batch: &'a ChangeBatch, sources: &'a [ArrayRef]) -> Self {
        Rows { batch, sources, selection: None, count: batch.rows(), selected: RefCell::default(), found: RefCell::default() }
    }

    /// The rows of a batch that are set in `wanted`.
    pub(super) fn of(batch: &'a ChangeBatch, wanted: &BooleanArray) -> Self {
        Self::of_sources(batch, batch.records.columns(), wanted)
    }

    /// The same with other values in the table's columns.
    pub(super) fn of_sources(batch: &'a ChangeBatch, sources: &'a [ArrayRef], wanted: &BooleanArray) -> Self {
        let mut rows = Self::over(batch, sources);
        if wanted.true_count() < batch.rows() {
            let selection = FilterBuilder::new(wanted).optimize().build();
            rows.count = selection.count();
            rows.selection = Some(selection);
        }
        rows
    }

    /// How many.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// An array that has a value for each row of the batch, cut to the rows wanted.
    pub(super) fn select(&self, array: &ArrayRef) -> Result<ArrayRef> {
        match &self.selection {
            Some(selection) => selection.filter(array.as_ref()).map_err(unexpected),
            None => Ok(Arc::clone(array)),
        }
    }

    /// A column of the table; nulls of the type for one that this version of the table does not have.
    pub(super) fn source(&self, index: usize, data_type: &DataType) -> Result<ArrayRef> {
        if index >= self.batch.relation.columns().len() {
            return Ok(new_null_array(data_type, self.count));
        }
        self.cached(Input::Source(index), || match self.sources.get(index) {
            Some(column) => self.select(column),
            None => Err(Error::internal("a batch has fewer columns than its relation")),
        })
    }

    fn metadata(&self, column: PublicColumn) -> Result<ArrayRef> {
        self.cached(Input::Metadata(column), || self.select(&column.of(self.batch)?))
    }

    fn cached(&self, input: Input, make: impl FnOnce() -> Result<ArrayRef>) -> Result<ArrayRef> {
        if let Some(column) = self.selected.borrow().get(&input) {
            return Ok(Arc::clone(column));
        }
        let column = make()?;
        self.selected.borrow_mut().insert(input, Arc::clone(&column));
        Ok(column)
    }

    fn reference(&self, join: usize, column: usize, lookups: &[Pinned<'_>]) -> Result<ArrayRef> {
        let lookup = lookups.get(join).ok_or_else(|| Error::internal("a rule reads a reference table that it does not join"))?;
        if !self.found.borrow().contains_key(&join) {
            let keys = lookup.source().iter().map(|computed| {
                // A key that cannot be computed finds nothing.
                self.evaluate(computed, &[]).map(|evaluated| evaluated.values)
            });
            let found = lookup.find(keys.collect::<Result<_>>()?)?;
            self.found.borrow_mut().insert(join, found);
        }
        match self.found.borrow().get(&join) {
            Some(found) => take(found.rows.column(column), &found.places, None).map_err(unexpected),
            None => Err(Error::internal("what was looked up is gone")),
        }
    }

    /// Evaluates an expression over the rows.
    pub(super) fn evaluate(&self, computed: &Computed, lookups: &[Pinned<'_>]) -> Result<Evaluated> {
        self.evaluate_to(computed, None, lookups)
    }

    /// The same, cast to a type.
    pub(super) fn evaluate_to(&self, computed: &Computed, to: Option<&DataType>, lookups: &[Pinned<'_>]) -> Result<Evaluated> {
        let columns = computed.inputs.iter().zip(computed.schema.fields()).map(|(input, field)| match *input {
            Input::Source(index) => self.source(index, field.data_type()),
            Input::Metadata(column) => self.metadata(column),
            Input::Reference(join, column) => self.reference(join, column, lookups),
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(self.count));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&computed.schema), columns, &options).map_err(unexpected)?;
        evaluate_each(&computed.expr, to, &batch)
    }
}

/// Arrow refuses what was planned: our mistake. Its own words are left out, for they may quote a value.
pub(crate) fn unexpected(_: ArrowError) -> Error {
    Error::internal("the columns of a batch do not fit the rule that they were planned for")
}
