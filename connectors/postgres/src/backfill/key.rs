//! Ranges of a key, for tables that are not read block by block.
//!
//! The values that a key can have are cut into ranges of about as many rows as a chunk is to have. Where a range ends is found
//! by a walk along the index from where the one before it ended; it is compared as the index compares: by the operators of its
//! own operator class, in the collation of the column, as a whole row of columns.
//!
//! **Why the merge is right whatever happens to rows meanwhile.** Ranges cut the *values of the key*, not the rows. So every
//! value of the key lies in one range, and is read at one mark by a snapshot that holds every transaction before the mark, and
//! perhaps some behind it. If the snapshot has a row under it, the row takes its position behind the mark; if it has none,
//! nothing of it was landed that the log does not take away. What the log has behind the mark wins, also where the snapshot
//! has seen it already. A row whose key is changed is two values of a key: the log has the end of the one and the beginning of
//! the other, and each is right by itself, whether its range was read before or is read later. This holds for the exact
//! snapshot of a slot, where all ranges have the same mark and nothing behind it is seen, and for snapshots of their own, where
//! ranges of different waves have different ones.
//!
//! **One thing is not in the log:** a value too large for its row, stored apart, that did not change. The log says
//! *unchanged*, and what it was must have been landed before. Under the same value of the key it has been, or the row is still
//! to be read. But a row that gets another key, behind the mark of one of both ranges, may never have been landed under the
//! old one: it came from a range that was not read into one that was, or its snapshot had seen it under the new one. So a table
//! that has such values is watched until the log has come to where its snapshots were, and such a change starts it over: it is
//! read again at a mark behind the change. After a few times it is read in one exact snapshot, which nothing is between
//! (`Fill::watch`).
//!
//! Where rows lie in ranges of blocks the same happens to any update, because a new version of a row may lie in a block that
//! was read. So tables with such values are read by blocks only in one exact snapshot, and else by their key.
//!
//! **How a restart finds its place.** A checkpoint holds no values of rows, and a key may be what a mask hides, so where a
//! range ended cannot be in it. A hash would give away what can be guessed, and a count is not stable. What is kept is where
//! the row lay that a range ended with, and which transaction wrote it there: that names one version of one row, whose key
//! cannot change. The row is looked up there. If it was updated or deleted since, its place is empty or has another
//! transaction's row, so several ends are kept, sparser the older they are, and the last that is still there is taken; the
//! ranges behind it are read again. Without any the table is read from its beginning. The place counts only as long as the
//! file of the index is the same one: a table that was rewritten, a key that was retyped, sorted otherwise or indexed anew has
//! another file.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use logweir_core::{RelationName, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::quote::{identifier, literal, relation};
use crate::server::number;
use crate::wire::{Connection, Rows};

/// Strategies of a btree: less, less or equal, equal, greater or equal, greater.
const STRATEGIES: usize = 5;
const LESS: usize = 0;
const LESS_OR_EQUAL: usize = 1;
const EQUAL: usize = 2;
const GREATER_OR_EQUAL: usize = 3;
const GREATER: usize = 4;

/// The server goes along the index and nowhere else, until the transaction ends or it may go any way again.
const INDEX_ONLY: &str = "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off";
const ANY_WAY: &str = "SET LOCAL enable_seqscan TO DEFAULT; SET LOCAL enable_bitmapscan TO DEFAULT";

/// Ends of ranges that a checkpoint keeps.
const ENDS_MAX: usize = 16;

/// Values of a key's columns, as the server writes them. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct KeyBound(Arc<[String]>);

impl fmt::Debug for KeyBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyBound(…)")
    }
}

/// One version of one row: where it lies, and the transaction that put it there. In text `block,line,transaction`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowVersion {
    block: u32,
    line: u16,
    transaction: u32,
}

impl RowVersion {
    /// `(12,3)` and `4711`, as the server writes them.
    fn parse(place: &str, transaction: &str) -> Option<Self> {
        let (block, line) = place.strip_prefix('(')?.strip_suffix(')')?.split_once(',')?;
        Some(RowVersion { block: block.parse().ok()?, line: line.parse().ok()?, transaction: transaction.parse().ok()? })
    }

    fn place(&self) -> String {
        format!("({},{})", self.block, self.line)
    }
}

impl fmt::Display for RowVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{}", self.block, self.line, self.transaction)
    }
}

impl FromStr for RowVersion {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        let mut parts = text.split(',');
        let mut part = || parts.next().ok_or(());
        let (block, line, transaction) = (part()?, part()?, part()?);
        Ok(RowVersion {
            block: block.parse().map_err(drop)?,
            line: line.parse().map_err(drop)?,
            transaction: transaction.parse().map_err(drop)?,
        })
    }
}

impl Serialize for RowVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RowVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|()| serde::de::Error::custom("a version of a row is written as block,line,transaction"))
    }
}

/// Where a range ends: with this row, and it belongs to it.
#[derive(Debug, Clone)]
pub(crate) struct KeyEnd {
    pub(crate) bound: KeyBound,
    row: Option<RowVersion>,
}

/// How far a part is read in the order of its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeyPlace {
    /// The file of the key's index.
    index: u32,
    /// The rows that ranges ended with, the last one first.
    ends: Vec<RowVersion>,
    /// Where the last one ended. Not known after a restart.
    #[serde(skip)]
    bound: Option<KeyBound>,
}

impl KeyPlace {
    /// Before everything.
    pub(crate) fn new(key: &RangeKey) -> Self {
        KeyPlace { index: key.index, ends: Vec::new(), bound: None }
    }

    /// Everything up to `end` is read.
    pub(crate) fn advance(&mut self, end: KeyEnd) {
        self.bound = Some(end.bound);
        if let Some(row) = end.row {
            self.ends.insert(0, row);
        }
        if self.ends.len() > ENDS_MAX {
            // Every second one of the older half.
            let mut place = 0;
            self.ends.retain(|_| {
                place += 1;
                place <= ENDS_MAX / 2 || place % 2 == 1
            });
        }
    }

    /// Where the last range ended, if `key` is still the same, and if it is known or was `found`.
    pub(crate) fn bound(&self, key: &RangeKey, found: Option<&KeyBound>) -> Option<KeyBound> {
        self.bound.as_ref().or(found).filter(|_| self.index == key.index).cloned()
    }

    /// Looks up the last end that is still where it was, if it is not known.
    pub(crate) async fn find(&self, connection: &mut Connection, table: &RelationName, key: &RangeKey) -> Result<Option<KeyBound>> {
        if self.bound.is_some() || self.index != key.index || self.ends.is_empty() {
            return Ok(None);
        }
        let places: Vec<String> = self.ends.iter().map(|end| format!("\"{}\"", end.place())).collect();
        let rows = connection
            .query(&format!(
                "SELECT ctid, xmin, {} FROM ONLY {} WHERE ctid = ANY ({}::pg_catalog.tid[])",
                key.names(),
                relation(table),
                literal(&format!("{{{}}}", places.join(",")))
            ))
            .await?;
        let found = |end: &RowVersion| {
            let is_it = |row: &usize| RowVersion::parse(rows.get(*row, 0)?, rows.get(*row, 1)?).filter(|row| row == end);
            let row = (0..rows.len()).find(|row| is_it(row).is_some())?;
            key.bound_of(&rows, row, 2)
        };
        Ok(self.ends.iter().find_map(found))
    }
}

/// A column of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct KeyColumn {
    name: String,
    /// Its type, of a domain what it is made of.
    cast: String,
    /// What its index compares by.
    operators: [String; STRATEGIES],
}

/// The primary key of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RangeKey {
    index: u32,
    columns: Vec<KeyColumn>,
}

impl RangeKey {
    /// The statement that asks for the keys of the parts of `list`, an array of OIDs; see [`RangeKey::read`].
    pub(crate) fn statement(list: &str) -> String {
        let operators: Vec<String> =
            (1..=STRATEGIES).map(|strategy| format!("pg_catalog.max(o.name) FILTER (WHERE o.strategy = {strategy})")).collect();
        format!(
            "SELECT i.indrelid, pg_catalog.pg_relation_filenode(i.indexrelid), a.attname, pg_catalog.format_type(base.type, -1), \
             operators.* \
             FROM pg_catalog.pg_index AS i \
             CROSS JOIN LATERAL ROWS FROM (pg_catalog.unnest(i.indkey::pg_catalog.int2[]), pg_catalog.unnest(i.indclass::pg_catalog.oid[])) \
             WITH ORDINALITY AS k (attnum, opclass, place) \
             JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
             JOIN pg_catalog.pg_opclass AS c ON c.oid = k.opclass \
             CROSS JOIN LATERAL (WITH RECURSIVE made (type, depth) AS (SELECT a.atttypid, 0 UNION ALL SELECT t.typbasetype, made.depth + 1 \
             FROM made JOIN pg_catalog.pg_type AS t ON t.oid = made.type AND t.typtype = 'd') \
             SELECT made.type FROM made ORDER BY made.depth DESC LIMIT 1) AS base \
             CROSS JOIN LATERAL (SELECT {} FROM (SELECT m.amopstrategy, pg_catalog.format('OPERATOR(%I.%s)', n.nspname, p.oprname) \
             FROM pg_catalog.pg_amop AS m JOIN pg_catalog.pg_operator AS p ON p.oid = m.amopopr \
             JOIN pg_catalog.pg_namespace AS n ON n.oid = p.oprnamespace WHERE m.amopfamily = c.opcfamily AND m.amoppurpose = 's' \
             AND m.amoplefttype = c.opcintype AND m.amoprighttype = c.opcintype) AS o (strategy, name)) AS operators \
             WHERE i.indrelid = ANY ({list}) AND i.indisprimary AND i.indisvalid ORDER BY 1, k.place",
            operators.join(", ")
        )
    }

    /// The keys that rows of the statement describe, with the part of each. A column that cannot be compared makes its key
    /// unfit for ranges.
    pub(crate) fn read(rows: &Rows) -> Vec<(u32, Option<RangeKey>)> {
        let mut keys: Vec<(u32, Option<RangeKey>)> = Vec::new();
        for row in 0..rows.len() {
            let (Some(part), Some(index)) = (number::<u32>(rows, row, 0), number::<u32>(rows, row, 1)) else { continue };
            if keys.last().is_none_or(|(last, _)| *last != part) {
                keys.push((part, Some(RangeKey { index, columns: Vec::new() })));
            }
            let Some((_, key)) = keys.last_mut() else { continue };
            match (KeyColumn::read(rows, row), &mut *key) {
                (Some(column), Some(known)) => known.columns.push(column),
                _ => *key = None,
            }
        }
        keys
    }

    /// Where the range ends that begins behind `after` and has this many rows; `None` if there are not that many. Found in the
    /// connection's snapshot.
    pub(crate) async fn find_end(
        &self,
        connection: &mut Connection,
        table: &RelationName,
        after: Option<&KeyBound>,
        rows_wanted: u64,
    ) -> Result<Option<KeyEnd>> {
        let (names, table) = (self.names(), relation(table));
        let condition = after.map_or_else(String::new, |after| format!(" WHERE {}", self.behind(after)));
        let skipped = rows_wanted.max(1) - 1;
        // However few rows the server expects behind the bound: there may be very many, and the index has them in order.
        let walk = format!("{INDEX_ONLY}; SELECT {names} FROM ONLY {table}{condition} ORDER BY {names} OFFSET {skipped} LIMIT 1");
        let rows = connection.query(&walk).await?;
        let Some(bound) = self.bound_of(&rows, 0, 0) else {
            connection.query(ANY_WAY).await?;
            return Ok(None);
        };
        // Beside the walk, which need not look at the rows themselves.
        let rows = connection.query(&format!("{ANY_WAY}; SELECT ctid, xmin FROM ONLY {table} WHERE {}", self.is(&bound))).await?;
        let row = RowVersion::parse(rows.get(0, 0).unwrap_or_default(), rows.get(0, 1).unwrap_or_default());
        Ok(Some(KeyEnd { bound, row }))
    }

    /// The condition for rows behind a bound.
    pub(crate) fn behind(&self, bound: &KeyBound) -> String {
        self.compare(bound, GREATER, GREATER, GREATER_OR_EQUAL)
    }

    /// The condition for rows up to a bound, with the one at it.
    pub(crate) fn up_to(&self, bound: &KeyBound) -> String {
        self.compare(bound, LESS, LESS_OR_EQUAL, LESS_OR_EQUAL)
    }

    /// The condition for the row at a bound.
    fn is(&self, bound: &KeyBound) -> String {
        let equal = self.columns.iter().zip(bound.0.iter()).map(|(column, value)| column.compare(EQUAL, value));
        equal.collect::<Vec<_>>().join(" AND ")
    }

    fn names(&self) -> String {
        let names: Vec<String> = self.columns.iter().map(|column| identifier(&column.name)).collect();
        names.join(", ")
    }

    fn bound_of(&self, rows: &Rows, row: usize, first: usize) -> Option<KeyBound> {
        let values = (0..self.columns.len()).map(|column| rows.get(row, first + column).map(str::to_owned));
        values.collect::<Option<Vec<String>>>().filter(|values| !values.is_empty()).map(|values| KeyBound(values.into()))
    }

    /// Column by column: a column decides by `each` unless it is equal, the last one by `last`. The first is bounded by `first`
    /// beside that: it is what a server judges by how many rows there are, and what it finds in the index at any rate.
    fn compare(&self, bound: &KeyBound, each: usize, last: usize, first: usize) -> String {
        let pairs: Vec<(&KeyColumn, &String)> = self.columns.iter().zip(bound.0.iter()).collect();
        let Some(((end, end_value), before)) = pairs.split_last() else { return "true".to_owned() };
        let Some((head, head_value)) = before.first() else { return end.compare(last, end_value) };
        let same = |column: &KeyColumn| column.operators[last] == end.operators[last] && column.operators[each] == end.operators[each];
        let whole = if self.columns.iter().all(same) {
            let values: Vec<String> = pairs.iter().map(|(column, value)| column.literal(value)).collect();
            format!("({}) {} ({})", self.names(), end.operators[last], values.join(", "))
        } else {
            before.iter().rev().fold(end.compare(last, end_value), |rest, (column, value)| {
                format!("({} OR ({} AND {rest}))", column.compare(each, value), column.compare(EQUAL, value))
            })
        };
        format!("{} AND {whole}", head.compare(first, head_value))
    }
}

impl KeyColumn {
    fn read(rows: &Rows, row: usize) -> Option<Self> {
        let text = |column: usize| rows.get(row, column).map(str::to_owned);
        let operators = (4..4 + STRATEGIES).map(text).collect::<Option<Vec<String>>>()?;
        Some(KeyColumn { name: text(2)?, cast: text(3)?, operators: operators.try_into().ok()? })
    }

    fn literal(&self, value: &str) -> String {
        format!("{}::{}", literal(value), self.cast)
    }

    fn compare(&self, strategy: usize, value: &str) -> String {
        format!("{} {} {}", identifier(&self.name), self.operators[strategy], self.literal(value))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn key(columns: &[(&str, &str)]) -> RangeKey {
        let column = |(name, schema): &(&str, &str)| KeyColumn {
            name: (*name).to_owned(),
            cast: format!("{schema}.t"),
            operators: ["<", "<=", "=", ">=", ">"].map(|operator| format!("OPERATOR({schema}.{operator})")),
        };
        RangeKey { index: 16400, columns: columns.iter().map(column).collect() }
    }

    fn bound(values: &[&str]) -> KeyBound {
        KeyBound(values.iter().map(|value| (*value).to_owned()).collect())
    }

    #[test]
    fn a_key_is_compared_as_its_index_compares() {
        let one = key(&[("a b", "p")]);
        assert_eq!(one.behind(&bound(&["it's"])), r#""a b" OPERATOR(p.>) 'it''s'::p.t"#);
        let two = key(&[("a", "p"), ("b", "p")]);
        assert_eq!(two.up_to(&bound(&["1", "2"])), r#""a" OPERATOR(p.<=) '1'::p.t AND ("a", "b") OPERATOR(p.<=) ('1'::p.t, '2'::p.t)"#);
        // A row has one operator, so columns that have others are compared one by one.
        let mixed = key(&[("a", "p"), ("b", "q")]);
        assert_eq!(
            mixed.behind(&bound(&["1", "2"])),
            r#""a" OPERATOR(p.>=) '1'::p.t AND ("a" OPERATOR(p.>) '1'::p.t OR ("a" OPERATOR(p.=) '1'::p.t AND "b" OPERATOR(q.>) '2'::q.t))"#
        );
    }

    #[test]
    fn a_place_holds_no_values_and_few_rows() {
        let key = key(&[("a", "p")]);
        let mut place = KeyPlace::new(&key);
        for block in 0..1000 {
            let row = RowVersion::parse(&format!("({block},7)"), "4711");
            place.advance(KeyEnd { bound: bound(&["secret"]), row });
        }
        let text = serde_json::to_string(&place).unwrap();
        assert!(text.starts_with(r#"{"index":16400,"ends":["999,7,4711","998,7,4711""#), "{text}");
        assert!(!text.contains("secret") && !format!("{place:?}").contains("secret"));
        assert!((ENDS_MAX / 2..=ENDS_MAX).contains(&place.ends.len()) && place.ends.last().unwrap().block < 900, "{text}");
        let read: KeyPlace = serde_json::from_str(&text).unwrap();
        assert_eq!((read.index, &read.ends), (place.index, &place.ends));
        assert_eq!(read.bound(&key, None), None);
        assert_eq!(read.bound(&key, Some(&bound(&["found"]))), Some(bound(&["found"])));
        // Another file of the index.
        assert_eq!(place.bound(&RangeKey { index: 1, ..key }, None), None);
        assert!(serde_json::from_str::<KeyPlace>(r#"{"index":1,"ends":["1,2"]}"#).is_err());
    }
}
