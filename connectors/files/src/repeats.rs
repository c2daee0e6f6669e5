//! Whether the values of a column repeat.
//!
//! A column is first written with a dictionary, which the encoder gives up when it has become too large. A column of ever new values
//! pays for that in every row group, and gains nothing. Values that were drawn at random from `d` different ones hold about
//! `n² / 2d` repetitions among `n`, so a few thousand tell whether the dictionary of a whole row group would be given up.

use std::hash::{DefaultHasher, Hash, Hasher};

use arrow_array::cast::AsArray;
use arrow_array::{Array, downcast_primitive_array};
use arrow_buffer::ToByteSlice;
use arrow_schema::DataType;
use parquet::file::properties::DEFAULT_DICTIONARY_PAGE_SIZE_LIMIT;

/// Values that are looked at. Enough that the largest dictionary of eight bytes a value shows 64 repetitions.
const SAMPLE_VALUES: usize = 4096;

/// Fewer say too little.
const SAMPLE_VALUES_MIN: usize = SAMPLE_VALUES / 2;

/// Bytes before each text in a dictionary.
const LENGTH_BYTES: usize = 4;

/// True if a dictionary of the column that `arrays` hold, one behind the other, would very likely be given up. Of few rows, and
/// of types that are no plain values, it is never said.
pub(crate) fn are_rare<'a>(arrays: impl Iterator<Item = &'a dyn Array> + Clone) -> bool {
    let rows: usize = arrays.clone().map(Array::len).sum();
    let step = rows / SAMPLE_VALUES;
    if step == 0 {
        return false;
    }
    let mut sample = Sample::default();
    let mut skip = 0;
    for array in arrays {
        sample.take(array, skip, step);
        let taken = array.len().saturating_sub(skip).div_ceil(step);
        skip = skip + taken * step - array.len();
    }
    sample.has_few_repetitions()
}

#[derive(Default)]
struct Sample {
    hashes: Vec<u64>,
    /// Bytes of them in a dictionary.
    bytes: usize,
}

impl Sample {
    /// Every `step`-th value behind the first `skip`; nulls are in no dictionary.
    fn take(&mut self, array: &dyn Array, skip: usize, step: usize) {
        let rows = (skip..array.len()).step_by(step).filter(|row| array.is_valid(*row));
        downcast_primitive_array!(
            array => {
                let width = stored_bytes(array.data_type());
                rows.for_each(|row| self.add(array.value(row).to_byte_slice(), width));
            }
            DataType::Utf8 => {
                let texts = array.as_string::<i32>();
                rows.for_each(|row| self.add_text(texts.value(row).as_bytes()));
            }
            DataType::LargeUtf8 => {
                let texts = array.as_string::<i64>();
                rows.for_each(|row| self.add_text(texts.value(row).as_bytes()));
            }
            DataType::Binary => {
                let values = array.as_binary::<i32>();
                rows.for_each(|row| self.add_text(values.value(row)));
            }
            DataType::LargeBinary => {
                let values = array.as_binary::<i64>();
                rows.for_each(|row| self.add_text(values.value(row)));
            }
            _ => {}
        );
    }

    fn add_text(&mut self, bytes: &[u8]) {
        self.add(bytes, LENGTH_BYTES + bytes.len());
    }

    fn add(&mut self, bytes: &[u8], stored: usize) {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        self.hashes.push(hasher.finish());
        self.bytes += stored;
    }

    fn has_few_repetitions(&mut self) -> bool {
        let values = self.hashes.len();
        if values < SAMPLE_VALUES_MIN {
            return false;
        }
        self.hashes.sort_unstable();
        self.hashes.dedup();
        let repetitions = values - self.hashes.len();
        // d > limit / (bytes / n), with d = n² / (2 repetitions).
        2 * repetitions * DEFAULT_DICTIONARY_PAGE_SIZE_LIMIT < values * self.bytes
    }
}

/// Bytes of a value of a primitive type in a file.
fn stored_bytes(data_type: &DataType) -> usize {
    match data_type {
        DataType::Decimal128(..=9, _) | DataType::Decimal256(..=9, _) => 4,
        DataType::Decimal128(..=18, _) | DataType::Decimal256(..=18, _) => 8,
        // The smallest integer is of 32 bits.
        data_type => data_type.primitive_width().unwrap_or(0).max(4),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, BooleanArray, Decimal128Array, Int32Array, Int64Array, StringArray};

    use super::*;

    fn rare(arrays: &[ArrayRef]) -> bool {
        are_rare(arrays.iter().map(AsRef::as_ref))
    }

    /// As if drawn at random from `different` values.
    fn drawn(rows: u64, different: u64) -> impl Iterator<Item = i64> {
        (0..rows).map(move |row| {
            let mut value = row.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((value ^ (value >> 31)) % different) as i64
        })
    }

    #[test]
    fn a_dictionary_is_given_up_where_it_would_become_too_large() {
        // A MiB holds 131,072 values of eight bytes, 262,144 of four.
        for (different, eight, four) in [(10, false, false), (30_000, false, false), (190_000, true, false), (1 << 40, true, true)] {
            let long: ArrayRef = Arc::new(Int64Array::from_iter_values(drawn(65_536, different)));
            assert_eq!(rare(&[long]), eight, "{different} of eight bytes");
            let short: ArrayRef = Arc::new(Int32Array::from_iter_values(drawn(65_536, different).map(|value| value as i32)));
            assert_eq!(rare(&[short]), four, "{different} of four bytes");
            let decimals = Decimal128Array::from_iter_values(drawn(65_536, different).map(i128::from));
            let decimals: ArrayRef = Arc::new(decimals.with_precision_and_scale(12, 2).unwrap());
            assert_eq!(rare(&[decimals]), eight, "{different} decimals of eight bytes");
        }
        for (different, expected) in [(1000, false), (15_000, false), (60_000, true), (1 << 40, true)] {
            let texts: ArrayRef = Arc::new(StringArray::from_iter_values(drawn(65_536, different).map(|value| format!("{value:032}"))));
            assert_eq!(rare(&[texts]), expected, "{different} of 32 letters");
        }
    }

    #[test]
    fn of_what_says_little_nothing_is_said() {
        let new = |rows| -> ArrayRef { Arc::new(Int64Array::from_iter_values(0..rows)) };
        assert!(rare(&[new(4096)]) && !rare(&[new(4095)]) && !rare(&[]));
        let mostly_null: ArrayRef = Arc::new((0..40_000_i64).map(|i| (i % 25 == 0).then_some(i)).collect::<Int64Array>());
        assert!(!rare(&[mostly_null]));
        let flags: ArrayRef = Arc::new((0..40_000).map(|i| Some(i % 2 == 0)).collect::<BooleanArray>());
        assert!(!rare(&[flags]));
    }

    #[test]
    fn every_part_has_its_share() {
        let new: ArrayRef = Arc::new(Int64Array::from_iter_values(0..5000));
        let same: ArrayRef = Arc::new(Int64Array::from_iter_values(std::iter::repeat_n(7, 5000)));
        assert!(!rare(&[Arc::clone(&new), Arc::clone(&same)]) && !rare(&[same, new]));
        // Parts smaller than a step, and none of a step's length.
        let parts: Vec<ArrayRef> =
            (0..900).map(|part| Arc::new(Int64Array::from_iter_values(part * 7..part * 7 + 7)) as ArrayRef).collect();
        assert!(rare(&parts));
    }
}
