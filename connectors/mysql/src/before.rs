//! What updated rows were before: the images of one relation version under construction, beside its rows.
//!
//! The same steps as for the rows themselves, each with a builder of its own. Made only for tables that were asked for, and
//! filled from the first update on.

use logweir_core::{BeforeImages, BeforeImagesBuilder};

use crate::buffer::{RowError, TableColumn, cell_error};
use crate::reader::Cursor;
use crate::rows::{Cell, bit};
use crate::step::{Scratch, Step};

/// See the module.
#[derive(Debug)]
pub(crate) struct BeforeBuffer {
    steps: Vec<Step>,
    rows: BeforeImagesBuilder,
}

impl BeforeBuffer {
    pub(crate) fn new(columns: &[TableColumn]) -> Self {
        let step = |column: &TableColumn| match &column.plan {
            Some(plan) => Step::new(&plan.kind, column.wire, 0, 0),
            None => Step::Skip(column.wire),
        };
        let carried = columns.iter().filter(|column| column.plan.is_some()).count();
        BeforeBuffer { steps: columns.iter().map(step).collect(), rows: BeforeImagesBuilder::new(carried) }
    }

    /// The image of row `row`, full and with no value that would not fit its step.
    pub(crate) fn append(&mut self, row: usize, nulls_len: usize, cursor: &mut Cursor<'_>, scratch: &mut Scratch) -> Result<(), RowError> {
        let nulls = cursor.take(nulls_len)?;
        self.begin(row);
        for (i, step) in self.steps.iter_mut().enumerate() {
            if bit(nulls, i) {
                step.append_null();
            } else {
                step.append(cursor, scratch).map_err(|error| cell_error(i, error))?;
            }
        }
        Ok(())
    }

    /// The image of row `row`; `targets` are the indexes of its columns in the relation.
    pub(crate) fn append_cells(
        &mut self,
        row: usize,
        cells: &[Cell<'_>],
        targets: &[Option<usize>],
        scratch: &mut Scratch,
    ) -> Result<(), RowError> {
        self.begin(row);
        for (i, (step, cell)) in self.steps.iter_mut().zip(cells).enumerate() {
            match cell {
                Cell::Value(bytes) => step.append(&mut Cursor::new(bytes), scratch).map_err(|error| cell_error(i, error))?,
                Cell::Null => step.append_null(),
                Cell::Absent => {
                    step.append_null();
                    if let Some(target) = targets.get(i).copied().flatten() {
                        self.rows.lacks(target, row);
                    }
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, row: usize) {
        let missing = self.rows.begin(row);
        self.append_nulls(missing);
    }

    fn append_nulls(&mut self, count: usize) {
        for step in &mut self.steps {
            (0..count).for_each(|_| step.append_null());
        }
    }

    /// The images of the first `rows` rows; `None` if none of them has one. The buffer is empty again.
    pub(crate) fn finish(&mut self, rows: usize) -> Option<BeforeImages> {
        let missing = self.rows.missing(rows)?;
        self.append_nulls(missing);
        let columns = self.steps.iter_mut().filter_map(Step::finish).collect();
        self.rows.finish(rows, columns)
    }
}
