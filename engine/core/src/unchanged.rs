//! Values that are not there: neither a value nor NULL.
//!
//! Logs leave out what did not change, and the rows as they were before are logged in part or not at all. Which values these are
//! stands in bits beside the columns, made when the first one comes: nearly every batch has none.

use arrow_array::ArrayRef;
use arrow_buffer::{BooleanBuffer, BooleanBufferBuilder};

use crate::change::BeforeImages;

/// Rows that bits are made for at first.
const ROWS_EXPECTED: usize = 1024;

/// Which values of a batch the source did not log because they did not change: neither a value nor NULL.
///
/// A column without an entry has none. In the batch itself such a place is null.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unchanged {
    /// Column index and one bit per row, set where unchanged; ascending by column.
    pub columns: Vec<(usize, BooleanBuffer)>,
}

impl Unchanged {
    /// True if column `column` of row `row` is unchanged.
    pub fn is_unchanged(&self, column: usize, row: usize) -> bool {
        self.columns.iter().any(|(index, bits)| *index == column && bits.value(row))
    }

    /// Rows `offset..offset + length`.
    #[must_use]
    pub fn slice(&self, offset: usize, length: usize) -> Self {
        Unchanged { columns: self.columns.iter().map(|(index, bits)| (*index, bits.slice(offset, length))).collect() }
    }
}

/// An [`Unchanged`] under construction.
#[derive(Debug, Default)]
pub struct UnchangedBuilder {
    /// By column; made when the first such value comes.
    columns: Vec<Option<BooleanBufferBuilder>>,
    any: bool,
}

impl UnchangedBuilder {
    /// For rows of this many columns.
    pub fn new(columns: usize) -> Self {
        UnchangedBuilder { columns: (0..columns).map(|_| None).collect(), any: false }
    }

    /// The value of this row is not there. Rows come in order; what an earlier row with this number left, one that failed, is gone.
    #[inline]
    pub fn mark(&mut self, column: usize, row: usize) {
        let Some(bits) = self.columns.get_mut(column) else { return };
        let bits = bits.get_or_insert_with(|| BooleanBufferBuilder::new(row + ROWS_EXPECTED));
        bits.truncate(row);
        bits.append_n(row - bits.len(), false);
        bits.append(true);
        self.any = true;
    }

    /// What there is of the first `rows` rows; `None` if nothing was marked. The builder is empty again.
    pub fn finish(&mut self, rows: usize) -> Option<Unchanged> {
        std::mem::take(&mut self.any).then(|| {
            let mut columns = Vec::new();
            for (index, bits) in self.columns.iter_mut().enumerate() {
                if let Some(mut bits) = bits.take() {
                    bits.append_n(rows.saturating_sub(bits.len()), false);
                    columns.push((index, bits.finish().slice(0, rows)));
                }
            }
            Unchanged { columns }
        })
    }
}

/// Which rows of a batch under construction have a before image, and what the images lack. The values are in builders of whoever
/// decodes them, and these stay empty until the first image comes: a batch without updates has no such columns.
#[derive(Debug)]
pub struct BeforeImagesBuilder {
    /// As many bits as the builders of the values have rows.
    present: BooleanBufferBuilder,
    absent: UnchangedBuilder,
}

impl BeforeImagesBuilder {
    /// For rows of this many columns.
    pub fn new(columns: usize) -> Self {
        BeforeImagesBuilder { present: BooleanBufferBuilder::new(0), absent: UnchangedBuilder::new(columns) }
    }

    /// The image of this row comes next. Before its values, each column is to be given as many nulls as is returned: for the
    /// rows that have none.
    #[inline]
    #[must_use = "columns have a value for each row"]
    pub fn begin(&mut self, row: usize) -> usize {
        let missing = row.saturating_sub(self.present.len());
        self.present.append_n(missing, false);
        self.present.append(true);
        missing
    }

    /// The image of this row does not hold the value of this column, which is given a null.
    #[inline]
    pub fn lacks(&mut self, column: usize, row: usize) {
        self.absent.mark(column, row);
    }

    /// Nulls that each column is to be given before it is finished; `None` if no image came, and nothing is to be finished.
    pub fn missing(&self, rows: usize) -> Option<usize> {
        (!self.present.is_empty()).then(|| rows.saturating_sub(self.present.len()))
    }

    /// The images of the first `rows` rows, with the columns' values; `None` if none of them has one. The builder is empty again.
    pub fn finish(&mut self, rows: usize, columns: Vec<ArrayRef>) -> Option<BeforeImages> {
        let mut present = std::mem::replace(&mut self.present, BooleanBufferBuilder::new(0));
        present.append_n(rows.saturating_sub(present.len()), false);
        let present = present.finish().slice(0, rows);
        let absent = self.absent.finish(rows);
        // A row that failed may have left values behind.
        let whole = |column: ArrayRef| if column.len() > rows { column.slice(0, rows) } else { column };
        let columns = columns.into_iter().map(whole).collect();
        (present.count_set_bits() > 0).then_some(BeforeImages { columns, present, absent })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use arrow_array::builder::Int32Builder;
    use arrow_array::{Array, Int32Array};

    use super::*;

    #[test]
    fn bits_are_made_when_a_value_is_not_there() {
        let mut builder = UnchangedBuilder::new(3);
        assert_eq!(builder.finish(5), None);
        builder.mark(1, 2);
        builder.mark(1, 4);
        builder.mark(0, 5);
        // That row failed, and came again with a value.
        let unchanged = builder.finish(5).unwrap();
        let places: Vec<_> = (0..3).flat_map(|column| (0..5).map(move |row| (column, row))).collect();
        let marked: Vec<_> = places.into_iter().filter(|(column, row)| unchanged.is_unchanged(*column, *row)).collect();
        assert_eq!(marked, [(1, 2), (1, 4)]);
        assert!(unchanged.slice(2, 2).is_unchanged(1, 0));
        assert_eq!(builder.finish(5), None, "it begins anew");
    }

    #[test]
    fn images_have_a_place_in_each_row() {
        let mut builder = BeforeImagesBuilder::new(1);
        assert_eq!(builder.missing(7), None);
        let mut values = Int32Builder::new();
        for (row, value) in [(1, Some(10)), (2, None), (4, Some(40))] {
            (0..builder.begin(row)).for_each(|_| values.append_null());
            values.append_option(value);
            if value.is_none() {
                builder.lacks(0, row);
            }
        }
        assert_eq!(builder.missing(6), Some(1));
        values.append_null();
        let images = builder.finish(6, vec![Arc::new(values.finish())]).unwrap();
        assert_eq!(images.columns[0].to_data(), Int32Array::from(vec![None, Some(10), None, None, Some(40), None]).to_data());
        let holds: Vec<bool> = (0..6).map(|row| images.holds(0, row)).collect();
        assert_eq!(holds, [false, true, false, false, true, false]);
        assert!(images.present.value(2));
        let part = images.slice(3, 2);
        assert_eq!((part.present.count_set_bits(), part.holds(0, 1)), (1, true));
        assert_eq!(builder.missing(6), None, "it begins anew");
    }

    #[test]
    fn an_image_of_a_row_that_failed_is_none() {
        let mut builder = BeforeImagesBuilder::new(1);
        assert_eq!(builder.begin(0), 0);
        let left: ArrayRef = Arc::new(Int32Array::from(vec![1]));
        assert!(builder.finish(0, vec![left]).is_none());
    }
}
