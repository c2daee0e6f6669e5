//! What updated rows were before: the old rows of one relation version under construction, beside the new ones.
//!
//! Builders of their own, made only for tables that were asked for, and filled from the first old row on. The log has the old row
//! whole under `REPLICA IDENTITY FULL`, and else its key where that changed.

use logweir_core::{BeforeImages, BeforeImagesBuilder, Error};

use crate::buffer::{RowError, Target, append_cell};
use crate::message::{Bytes, Cell, cell, column_count};
use crate::types::{ColumnBuilder, ColumnType};

/// See the module.
#[derive(Debug)]
pub(crate) struct BeforeBuffer {
    builders: Vec<ColumnBuilder>,
    rows: BeforeImagesBuilder,
}

impl BeforeBuffer {
    pub(crate) fn new(types: &[ColumnType]) -> Self {
        let builders = types.iter().map(|column| ColumnBuilder::new(column, 0)).collect();
        BeforeBuffer { builders, rows: BeforeImagesBuilder::new(types.len()) }
    }

    /// The old row of row `row`, of which all values are known if it is `whole`, else those of its key. The bytes it takes.
    pub(crate) fn append(&mut self, row: usize, mut old: Bytes<'_>, targets: &[Target], whole: bool) -> Result<usize, RowError> {
        let length = old.0.len();
        if column_count(&mut old)? != targets.len() {
            return Err(RowError::Format(Error::corrupt("an old row in the log has another number of columns than its table")));
        }
        let missing = self.rows.begin(row);
        self.append_nulls(missing);
        for (index, target) in targets.iter().enumerate() {
            let cell = cell(&mut old)?;
            let Some(column) = target.column else { continue };
            let Some(builder) = self.builders.get_mut(column) else { continue };
            let cell = if whole || target.key { cell } else { Cell::Unchanged };
            if !append_cell(builder, index, *target, cell)? {
                self.rows.lacks(column, row);
            }
        }
        Ok(length - old.0.len())
    }

    fn append_nulls(&mut self, count: usize) {
        for builder in &mut self.builders {
            (0..count).for_each(|_| builder.append_null());
        }
    }

    /// The old rows of the first `rows` rows; `None` if none of them has one. The buffer is empty again.
    pub(crate) fn finish(&mut self, rows: usize) -> Option<BeforeImages> {
        let missing = self.rows.missing(rows)?;
        self.append_nulls(missing);
        let columns = self.builders.iter_mut().map(ColumnBuilder::finish).collect();
        self.rows.finish(rows, columns)
    }
}
