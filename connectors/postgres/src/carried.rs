//! A column as it is carried, and as a checkpoint keeps it.
//!
//! Catalog and decoder both make columns, so that what `discover` shows is what arrives. A checkpoint holds the decision
//! itself and not only the type's number: after a restart a column is read as it was, whatever the server has become.

use std::sync::Arc;

use arrow_schema::Field;
use logweir_core::Column;
use serde::{Deserialize, Serialize};

use crate::types::{ColumnType, Oid};

/// Of a column's flags: it is part of the replica identity.
pub(crate) const FLAG_KEY: u8 = 1;

/// What is needed to read the column again after a restart.
#[derive(Serialize, Deserialize)]
struct Detail<T> {
    oid: Oid,
    typmod: i32,
    flags: u8,
    #[serde(rename = "type")]
    column_type: T,
}

/// The column of a relation: what the log says of it, and the decision how it is carried.
pub(crate) fn column(name: &str, type_oid: Oid, typmod: i32, flags: u8, column_type: &ColumnType) -> Column {
    let field = Field::new(name, column_type.data_type(), true).with_metadata(column_type.metadata());
    let detail = Detail { oid: type_oid, typmod, flags, column_type };
    // Plain data always has a JSON form; a column without one would be read anew from the catalog.
    let mut detail = serde_json::to_value(&detail).unwrap_or_default();
    if !column_type.may_be().is_empty() {
        detail[Column::MAY_BE] = column_type.may_be().into();
    }
    Column { field: Arc::new(field), source_type: column_type.source_type().to_owned(), detail }
}

/// What a column was made of: type, modifier, flags, decision. `None` if it was not made by [`column`].
pub(crate) fn column_type_of(column: &Column) -> Option<(Oid, i32, u8, ColumnType)> {
    let Detail { oid, typmod, flags, column_type } = Detail::<ColumnType>::deserialize(&column.detail).ok()?;
    Some((oid, typmod, flags, column_type))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::types::{TypeCatalog, TypeOptions};

    #[test]
    fn a_column_comes_back_from_a_checkpoint() {
        let types = TypeCatalog::new();
        // numeric(10,2), jsonb, text[].
        for (oid, typmod) in [(1700, (10 << 16 | 2) + 4), (3802, -1), (1009, -1)] {
            let column_type = types.column_type(oid, typmod, TypeOptions::default());
            let column = column("amount", oid, typmod, FLAG_KEY, &column_type);
            assert_eq!(column.field.data_type(), &column_type.data_type());
            assert!(column.field.is_nullable());
            let text = serde_json::to_string(&column).unwrap();
            let again: Column = serde_json::from_str(&text).unwrap();
            assert_eq!(again, column);
            assert_eq!(column_type_of(&again).unwrap(), (oid, typmod, FLAG_KEY, column_type));
        }
        let other = Column {
            detail: serde_json::json!({ "oid": "x" }),
            ..column("a", 25, -1, 0, &types.column_type(25, -1, TypeOptions::default()))
        };
        assert!(column_type_of(&other).is_none());
    }
}
