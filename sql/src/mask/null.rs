//! The mask `null`: the column is there, its values are not.

use arrow::array::{Array, ArrayRef, new_null_array};

/// As many NULLs, of the same type. A dictionary's values go too.
pub(super) fn apply(array: &ArrayRef) -> ArrayRef {
    new_null_array(array.data_type(), array.len())
}
