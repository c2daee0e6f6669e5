//! Asks a server for the shape of its tables, in the words of `information_schema` common to all versions.

use logweir_core::{RelationName, Result, TableFilter};
use mysql_async::Row;

use crate::catalog::{ColumnShape, TableShape};
use crate::server::{Facts, Flavour, Server, get};

/// Schemas that are the server's own and never followed.
const SYSTEM_SCHEMAS: [&str; 5] = ["mysql", "information_schema", "performance_schema", "sys", "ndbinfo"];

/// True if the schema is the server's own.
pub(crate) fn is_system_schema(schema: &str) -> bool {
    SYSTEM_SCHEMAS.iter().any(|name| schema.eq_ignore_ascii_case(name))
}

/// A table and its storage engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) name: RelationName,
    pub(crate) engine: String,
    /// MariaDB keeps the past of its rows, as rows.
    pub(crate) versioned: bool,
}

/// The tables there are that `filter` accepts, in order of their names.
pub(crate) async fn tables(server: &mut Server, filter: &TableFilter) -> Result<Vec<Table>> {
    const DOING: &str = "could not list the server's tables";
    let rows = server
        .ask(
            DOING,
            "SELECT TABLE_SCHEMA, TABLE_NAME, ENGINE, TABLE_TYPE FROM information_schema.TABLES \
             WHERE TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') ORDER BY TABLE_SCHEMA, TABLE_NAME",
            (),
        )
        .await?;
    let mut tables = Vec::new();
    for row in rows {
        let name = RelationName::new(get::<String>(&row, 0, DOING)?, get::<String>(&row, 1, DOING)?);
        if !is_system_schema(&name.schema) && filter.accepts(&name) {
            let engine = get::<Option<String>>(&row, 2, DOING)?.unwrap_or_default();
            let versioned = get::<String>(&row, 3, DOING)?.eq_ignore_ascii_case("SYSTEM VERSIONED");
            tables.push(Table { name, engine, versioned });
        }
    }
    Ok(tables)
}

/// The shape of a table now; `None` if there is no such table, or none that we may see.
pub(crate) async fn shape(server: &mut Server, facts: &Facts, name: &RelationName) -> Result<Option<TableShape>> {
    const DOING: &str = "could not read the shape of a table";
    // Reference systems are known to MySQL from 8.0 on; MariaDB keeps them elsewhere and in every value.
    let srid = match facts.flavour {
        Flavour::Mysql if facts.version >= (8, 0, 3) => "SRS_ID",
        _ => "NULL",
    };
    let columns = format!(
        "SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, CHARACTER_SET_NAME, {srid} FROM information_schema.COLUMNS \
         WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION"
    );
    let rows = server.ask(DOING, &columns, (name.schema.as_str(), name.table.as_str())).await?;
    if rows.is_empty() {
        return Ok(None);
    }
    // The server opens every table of the schema to list its constraints: with thousands of tables that is dear, so only
    // tables that may have such a column are asked about.
    let mut may_hold_json = false;
    for row in &rows {
        may_hold_json |= get::<String>(row, 1, DOING)?.eq_ignore_ascii_case("longtext");
    }
    let json = match facts.flavour {
        Flavour::Mariadb if may_hold_json && facts.version >= (10, 4, 3) => json_columns(server, name).await?,
        _ => Vec::new(),
    };
    let columns = rows
        .iter()
        .map(|row| {
            let column: String = get(row, 0, DOING)?;
            let data_type = get::<String>(row, 1, DOING)?.to_ascii_lowercase();
            Ok(ColumnShape {
                data_type: if json.contains(&column) { "json".to_owned() } else { data_type },
                name: column,
                column_type: get(row, 2, DOING)?,
                charset: get::<Option<String>>(row, 3, DOING)?.map(|charset| charset.to_ascii_lowercase()),
                srid: get(row, 4, DOING)?,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let rows = server
        .ask(
            DOING,
            "SELECT INDEX_NAME, COLUMN_NAME, NULLABLE, SUB_PART FROM information_schema.STATISTICS \
             WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? AND NON_UNIQUE = 0 ORDER BY INDEX_NAME, SEQ_IN_INDEX",
            (name.schema.as_str(), name.table.as_str()),
        )
        .await?;
    let parts = rows.iter().map(IndexPart::of).collect::<Result<Vec<_>>>()?;
    Ok(Some(TableShape { columns, key: key(&parts) }))
}

/// The columns that MariaDB declares as JSON: to it a LONGTEXT with a constraint of the column. That is named as the column was when it was made;
/// what it says is kept up with the column's name.
async fn json_columns(server: &mut Server, name: &RelationName) -> Result<Vec<String>> {
    const DOING: &str = "could not read the JSON columns of a table";
    let rows = server
        .ask(
            DOING,
            "SELECT c.COLUMN_NAME FROM information_schema.COLUMNS c JOIN information_schema.CHECK_CONSTRAINTS k \
             ON k.CONSTRAINT_SCHEMA = c.TABLE_SCHEMA AND k.TABLE_NAME = c.TABLE_NAME \
             WHERE c.TABLE_SCHEMA = ? AND c.TABLE_NAME = ? AND c.DATA_TYPE = 'longtext' \
             AND k.LEVEL = 'Column' AND k.CHECK_CLAUSE = CONCAT('json_valid(`', REPLACE(c.COLUMN_NAME, '`', '``'), '`)')",
            (name.schema.as_str(), name.table.as_str()),
        )
        .await?;
    rows.iter().map(|row| get(row, 0, DOING)).collect()
}

/// A column of a unique index.
#[derive(Debug)]
struct IndexPart {
    index: String,
    /// None for an expression.
    column: Option<String>,
    nullable: bool,
    /// Only the beginning of the value counts.
    prefix: bool,
}

impl IndexPart {
    fn of(row: &Row) -> Result<Self> {
        const DOING: &str = "could not read the keys of a table";
        Ok(IndexPart {
            index: get(row, 0, DOING)?,
            column: get(row, 1, DOING)?,
            nullable: get::<Option<String>>(row, 2, DOING)?.is_some_and(|nullable| nullable.eq_ignore_ascii_case("YES")),
            prefix: get::<Option<u64>>(row, 3, DOING)?.is_some(),
        })
    }
}

/// The primary key; else the first unique index, by name, whose columns identify a row; else nothing.
fn key(parts: &[IndexPart]) -> Vec<String> {
    let mut indexes: Vec<&[IndexPart]> = parts.chunk_by(|a, b| a.index == b.index).collect();
    indexes.sort_by_key(|parts| parts.first().is_none_or(|part| !part.index.eq_ignore_ascii_case("PRIMARY")));
    let identifies = |parts: &&[IndexPart]| {
        let is_primary = parts.first().is_some_and(|part| part.index.eq_ignore_ascii_case("PRIMARY"));
        parts.iter().all(|part| part.column.is_some() && !part.nullable && (is_primary || !part.prefix))
    };
    indexes.into_iter().find(identifies).map_or_else(Vec::new, |parts| parts.iter().filter_map(|part| part.column.clone()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(index: &str, column: &str, nullable: bool, prefix: bool) -> IndexPart {
        IndexPart { index: index.into(), column: (!column.is_empty()).then(|| column.into()), nullable, prefix }
    }

    #[test]
    fn the_key_is_the_primary_key_or_stands_in_for_one() {
        let unique = [part("A", "x", false, false), part("A", "y", false, false)];
        assert_eq!(key(&unique), ["x", "y"]);
        let mut with_primary: Vec<_> = unique.into_iter().collect();
        with_primary.push(part("PRIMARY", "id", false, true));
        assert_eq!(key(&with_primary), ["id"]);
        let unfit = [part("A", "x", true, false), part("B", "y", false, true), part("C", "", false, false), part("D", "z", false, false)];
        assert_eq!(key(&unfit), ["z"]);
        assert!(key(&unfit[..3]).is_empty());
    }

    #[test]
    fn system_schemas() {
        assert!(is_system_schema("MySQL") && !is_system_schema("shop"));
    }
}
