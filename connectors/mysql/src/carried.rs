//! What a table would be carried as, before anything was logged of it: for `discover` and `check`.
//!
//! The decoder decides types by what a table map says. Here the table map that the server would write is foretold from
//! the declared types, so that both come to the same answer by the same code.

use logweir_core::{Error, LogPosition, Relation, RelationName, Result, TableFilter};

use crate::catalog::{ColumnShape, TableShape};
use crate::column::ColumnPlan;
use crate::table_map::{MappedColumn, types};
use crate::value::charset::Charset;

/// The relation that a table of this shape is carried as, before anything was logged of it.
pub(crate) fn relation(name: &RelationName, shape: &TableShape, filter: &TableFilter) -> Result<Relation> {
    Ok(relation_of(name, shape, &plans(name, shape, filter)?))
}

/// How the columns of a table of this shape are carried, with their indexes in it.
pub(crate) fn plans(name: &RelationName, shape: &TableShape, filter: &TableFilter) -> Result<Vec<(usize, ColumnPlan)>> {
    let mut plans = Vec::new();
    for (ordinal, column) in shape.columns.iter().enumerate().filter(|(_, column)| filter.accepts_column(name, &column.name)) {
        let cannot = |problem: String| {
            Error::schema(problem).context("relation", name).context("column", &column.name).context("type", &column.column_type)
        };
        let mapped = mapped(column).ok_or_else(|| cannot("a column has a type that cannot be carried".to_owned()))?;
        let plan = ColumnPlan::merge(&mapped, &column.name, Some(column)).map_err(|error| match error.remedy {
            Some(remedy) => cannot(error.problem).remedy(remedy),
            None => cannot(error.problem),
        })?;
        plans.push((ordinal, plan));
    }
    Ok(plans)
}

/// The relation of a table of this shape whose columns are carried so.
pub(crate) fn relation_of(name: &RelationName, shape: &TableShape, plans: &[(usize, ColumnPlan)]) -> Relation {
    let columns: Vec<_> = plans.iter().map(|(ordinal, plan)| plan.column(*ordinal, None)).collect();
    let index = |key: &String| columns.iter().position(|column| column.name() == key);
    // A key with an excluded column identifies nothing.
    let key = shape.key.iter().map(index).collect::<Option<Vec<_>>>().unwrap_or_default();
    Relation::new(name.clone(), 1, LogPosition::MIN, columns, key)
}

/// How a column of this shape will be written in a table map; `None` for types that are not known.
fn mapped(column: &ColumnShape) -> Option<MappedColumn> {
    use types::*;
    // What stands in the first parentheses: lengths, precision and scale.
    let arguments = column.column_type.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map_or("", |(arguments, _)| arguments);
    let mut numbers = arguments.split(',').map(|number| number.trim().parse::<u64>().ok());
    let first = numbers.next().flatten();
    let second = numbers.next().flatten();
    let bytes_per_character = match &column.charset {
        Some(charset) => Charset::from_name(charset)?.max_bytes() as u64,
        None => 1,
    };
    let characters = || first.unwrap_or(1).saturating_mul(bytes_per_character);
    let fraction = || first.unwrap_or(0);
    let compressed = column.column_type.contains("COMPRESSED") || column.column_type.contains("compressed");
    let blob = |length: u64| (if compressed { BLOB_COMPRESSED } else { BLOB }, length);
    let (code, length) = match column.data_type.as_str() {
        "tinyint" => (TINY, 0),
        "smallint" => (SHORT, 0),
        "mediumint" => (INT24, 0),
        "int" => (LONG, 0),
        "bigint" => (LONGLONG, 0),
        "float" => (FLOAT, 4),
        "double" => (DOUBLE, 8),
        "decimal" => (NEWDECIMAL, first.unwrap_or(10)),
        "bit" => (BIT, first.unwrap_or(1) / 8),
        "year" => (YEAR, 0),
        "date" => (DATE, 0),
        "time" => (TIME2, fraction()),
        "datetime" => (DATETIME2, fraction()),
        "timestamp" => (TIMESTAMP2, fraction()),
        "char" | "binary" => (STRING, characters()),
        "uuid" | "inet6" => (STRING, 16),
        "inet4" => (STRING, 4),
        "varchar" | "varbinary" if compressed => (VARCHAR_COMPRESSED, characters() + 1),
        "varchar" | "varbinary" => (VARCHAR, characters()),
        "tinytext" | "tinyblob" => blob(1),
        "text" | "blob" => blob(2),
        "mediumtext" | "mediumblob" => blob(3),
        "longtext" | "longblob" => blob(4),
        "json" if column.column_type.eq_ignore_ascii_case("json") => (JSON, 4),
        // MariaDB's.
        "json" => (BLOB, 4),
        "enum" => (ENUM, 1),
        "set" => (SET, 1),
        "vector" => (VECTOR, 4),
        "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring" | "multipolygon" | "geometrycollection"
        | "geomcollection" => (GEOMETRY, 4),
        _ => return None,
    };
    let scale = match column.data_type.as_str() {
        "decimal" => second.unwrap_or(0),
        "bit" => first.unwrap_or(1) % 8,
        _ => 0,
    };
    Some(MappedColumn { code, length: u16::try_from(length).ok()?, scale: u8::try_from(scale).ok()?, ..MappedColumn::default() })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn shapes_become_relations() {
        let column = |column_type: &str, charset: Option<&str>| ColumnShape {
            name: column_type.to_owned(),
            data_type: column_type.split(['(', ' ']).next().unwrap_or_default().to_owned(),
            column_type: column_type.to_owned(),
            charset: charset.map(str::to_owned),
            srid: None,
        };
        let types = [
            ("int(11) unsigned", None, "UInt32"),
            ("tinyint(1)", None, "Int8"),
            ("decimal(40,2)", None, "Decimal256(40, 2)"),
            ("decimal(12,4) unsigned", None, "Decimal128(12, 4)"),
            ("varchar(255)", Some("utf8mb4"), "Utf8"),
            ("varbinary(65530)", None, "Binary"),
            ("binary(16)", None, "Binary"),
            ("longtext", Some("latin1"), "Utf8"),
            ("timestamp(6)", None, "Timestamp(µs, \"UTC\")"),
            ("datetime", None, "Timestamp(µs)"),
            ("enum('a','b')", Some("utf8mb4"), "Utf8"),
            ("bit(12)", None, "UInt64"),
            ("json", None, "Utf8"),
            ("point", None, "Binary"),
            ("inet6", None, "Utf8"),
        ];
        let columns = types.iter().map(|(column_type, charset, _)| column(column_type, *charset)).collect();
        let shape = TableShape { columns, key: vec!["tinyint(1)".into()] };
        let relation = relation(&RelationName::new("s", "t"), &shape, &TableFilter::all()).unwrap();
        assert_eq!(relation.key(), [1]);
        for (column, (_, _, expected)) in relation.columns().iter().zip(types) {
            assert_eq!(column.field.data_type().to_string(), expected, "{}", column.name());
        }
        let unknown = TableShape { columns: vec![column("xmltype", None)], key: vec![] };
        let error = super::relation(&RelationName::new("s", "t"), &unknown, &TableFilter::all()).unwrap_err();
        assert!(error.to_string().contains("xmltype"), "{error}");
    }
}
