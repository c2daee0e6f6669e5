//! Whether a table has been published all the time since it was last looked at.
//!
//! The log of a table that leaves the publication and comes back does not say so, nor what happened in between. The catalog
//! does: whatever publishes a table is a row there, and none of these rows comes back as it was. What is compared is
//!
//! * the number of the row by which a publication names a table or a schema: dropped and added again it has another one.
//!   A table may be published in several ways, and has not left while one of them lasts;
//! * which transaction wrote the row that a partition is attached by, for each step up to the table that it is published as;
//! * which transaction wrote the row that says in which schema a table is: its name may have been none that is followed;
//! * the file of its rows, because `SET UNLOGGED` and `SET LOGGED` write a table anew. So does much else: see
//!   [`Rewritten`].
//!
//! So do the operations that the publication sends: what it left out for a while is missing. And whether its key is published whole: with another key rows that were landed before are not found again.
//!
//! The number of the transaction that wrote a row of the catalog stays when the row is frozen, and when the catalog is rewritten.
//! A server that was made by `pg_upgrade` or from a dump is another cluster, whose log is not taken for this one's.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use logweir_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::quote::literal;
use crate::server::number;
use crate::types::Oid;
use crate::wire::Connection;

/// More tables than any publication has.
const RUN_MAX: Oid = 10_000_000;

/// Where rows lie, and the table that they are published as: the same one, or one that it is a partition of.
pub(crate) type Part = (Oid, Oid);

/// How a part was published when it was last looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Standing {
    /// What publishes it, each way with all that it hangs on: `16400.745`. None if that could not be told.
    pub(crate) ways: Vec<String>,
    /// The file of its rows, and the table of the values that are stored apart. Left out where the server does not let it become
    /// unlogged, because a publication names it.
    pub(crate) files: Option<(Oid, Oid)>,
    /// Of its key a column is not published, so it counts as none.
    pub(crate) cut: bool,
    /// What the publication does not send of it.
    pub(crate) left_out: Operations,
}

/// A set of operations, a bit for each of [`OPERATIONS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Operations(u8);

/// What a publication can leave out, and its letter in a mark.
const OPERATIONS: [(char, &str); 4] = [('i', "insert"), ('u', "update"), ('d', "delete"), ('t', "truncate")];

impl Operations {
    /// Those of these that are not among others.
    pub(crate) fn without(self, others: Operations) -> Operations {
        Operations(self.0 & !others.0)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn members(self) -> impl Iterator<Item = (char, &'static str)> {
        OPERATIONS.into_iter().enumerate().filter_map(move |(bit, operation)| (self.0 >> bit & 1 == 1).then_some(operation))
    }

    fn of(letters: &str) -> Option<Self> {
        letters.chars().try_fold(Operations::default(), |set, letter| {
            let bit = OPERATIONS.iter().position(|(known, _)| *known == letter)?;
            Some(Operations(set.0 | 1 << bit))
        })
    }
}

impl fmt::Display for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.members().map(|(_, name)| name).collect();
        f.write_str(&names.join(", "))
    }
}

/// What is known of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Known {
    /// It was looked at by a version that took no note of how it was published.
    Somehow,
    Published(Standing),
    /// It is not published any more; rows of it may have been landed.
    Left,
}

/// Whether a table was rewritten by a statement under which its rows may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rewritten {
    No,
    /// `ALTER TABLE` gives a table another table for its values stored apart. `VACUUM FULL`, `CLUSTER` and `TRUNCATE` leave it that.
    Yes,
    /// It has no such table. If rows of it are older, `ALTER TABLE` did not write them.
    Unclear,
}

impl Standing {
    /// True if it cannot have left in between, nothing is sent that was left out, and its rows are told apart as before.
    pub(crate) fn lasts(&self, now: &Standing) -> bool {
        self.cut == now.cut && self.left_out.without(now.left_out).is_empty() && self.ways.iter().any(|way| now.ways.contains(way))
    }

    pub(crate) fn rewritten(&self, now: &Standing) -> Rewritten {
        match (self.files, now.files) {
            (Some(before), Some(now)) if before.0 == now.0 => Rewritten::No,
            (Some((_, before)), Some((_, now))) if before != 0 && now != 0 => {
                if before == now {
                    Rewritten::No
                } else {
                    Rewritten::Yes
                }
            }
            (Some(_), Some(_)) => Rewritten::Unclear,
            _ => Rewritten::No,
        }
    }
}

/// What the catalog says of all tables, as far as it takes to tell how they are published.
#[derive(Debug, Default)]
pub(crate) struct Traces {
    tables: HashMap<Oid, Trace>,
    /// The publication's rows that name tables, by table, and schemas, by schema.
    named: HashMap<Oid, Oid>,
    schemas: HashMap<Oid, Oid>,
    /// The publication, if it is one of all tables.
    all: Option<Oid>,
    /// What the publication does not send.
    pub(crate) left_out: Operations,
    /// Every transaction below has ended.
    pub(crate) horizon: u64,
}

#[derive(Debug)]
struct Trace {
    schema: Oid,
    /// The transaction that put it there.
    moved: u32,
    /// The table that it is a partition of, and the transaction that attached it.
    parent: Option<(Oid, u32)>,
    file: Oid,
    apart: Oid,
    logged: bool,
}

impl Traces {
    pub(crate) async fn read(connection: &mut Connection, publication: &str) -> Result<Self> {
        let mut traces = Traces::default();
        let rows = connection
            .query(&format!(
                "SELECT oid, puballtables, pg_catalog.txid_snapshot_xmin(pg_catalog.txid_current_snapshot()), \
                 CASE WHEN pubinsert THEN '' ELSE 'i' END || CASE WHEN pubupdate THEN '' ELSE 'u' END || \
                 CASE WHEN pubdelete THEN '' ELSE 'd' END || CASE WHEN pubtruncate THEN '' ELSE 't' END FROM pg_catalog.pg_publication WHERE pubname = {}",
                literal(publication)
            ))
            .await?;
        let Some(oid) = number::<Oid>(&rows, 0, 0) else { return Ok(traces) };
        traces.all = (rows.get(0, 1) == Some("t")).then_some(oid);
        traces.horizon = number(&rows, 0, 2).unwrap_or_default();
        traces.left_out = rows.get(0, 3).and_then(Operations::of).unwrap_or_default();
        let named = connection.query(&format!("SELECT prrelid, oid FROM pg_catalog.pg_publication_rel WHERE prpubid = {oid}")).await?;
        traces.named = (0..named.len()).filter_map(|row| Some((number(&named, row, 0)?, number(&named, row, 1)?))).collect();
        if connection.version() >= 150_000 {
            let schemas =
                connection.query(&format!("SELECT pnnspid, oid FROM pg_catalog.pg_publication_namespace WHERE pnpubid = {oid}")).await?;
            traces.schemas = (0..schemas.len()).filter_map(|row| Some((number(&schemas, row, 0)?, number(&schemas, row, 1)?))).collect();
        }
        let rows = connection
            .query(
                "SELECT c.oid, c.relnamespace, d.xmin, i.inhparent, i.xmin, c.relfilenode, c.reltoastrelid, c.relpersistence \
                 FROM pg_catalog.pg_class AS c \
                 LEFT JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid \
                 AND d.objsubid = 0 AND d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass \
                 LEFT JOIN pg_catalog.pg_inherits AS i ON i.inhrelid = c.oid AND c.relispartition \
                 WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'",
            )
            .await?;
        for row in 0..rows.len() {
            let (Some(oid), Some(schema)) = (number(&rows, row, 0), number(&rows, row, 1)) else { continue };
            let trace = Trace {
                schema,
                moved: number(&rows, row, 2).unwrap_or_default(),
                parent: number(&rows, row, 3).zip(number(&rows, row, 4)),
                file: number(&rows, row, 5).unwrap_or_default(),
                apart: number(&rows, row, 6).unwrap_or_default(),
                logged: rows.get(row, 7) == Some("p"),
            };
            traces.tables.insert(oid, trace);
        }
        Ok(traces)
    }

    /// True if the table is there, published or not.
    pub(crate) fn has(&self, table: Oid) -> bool {
        self.tables.contains_key(&table)
    }

    /// True if what happens to the rows of `part` is in no log.
    pub(crate) fn is_unlogged(&self, part: Oid) -> bool {
        self.tables.get(&part).is_some_and(|trace| !trace.logged)
    }

    /// How the rows of `part`, which the publication is known to send, are published as those of `table`.
    pub(crate) fn standing(&self, (part, table): Part, cut: bool) -> Standing {
        let Some(first) = self.tables.get(&part) else { return Standing::default() };
        let mut ways = Vec::new();
        // What a way up to here hangs on; complete once it has come to `table`.
        let mut path = self.tables.get(&table).map_or_else(String::new, |trace| format!(".{}", trace.moved));
        let mut below = Vec::new();
        let mut passed = false;
        let mut place = part;
        // No table is its own ancestor; the bound is for a catalog that says so.
        for _ in 0..=self.tables.len() {
            let Some(trace) = self.tables.get(&place) else { break };
            let whole = (place == part).then_some(self.all).flatten();
            let schema = self.schemas.get(&trace.schema).map(|way| format!("{way}.{}", trace.moved));
            let here = whole.into_iter().chain(self.named.get(&place).copied()).map(|way| way.to_string()).chain(schema);
            passed |= place == table;
            if passed {
                ways.extend(here.chain(below.drain(..)).map(|way| format!("{way}{path}")));
            } else {
                // It counts with the way up to the table that it is published as.
                below.extend(here);
            }
            let Some((parent, attached)) = trace.parent else { break };
            path.push_str(&format!(".{attached}"));
            place = parent;
        }
        ways.sort_unstable();
        let files = (!self.named.contains_key(&part)).then_some((first.file, first.apart));
        Standing { ways, files, cut, left_out: self.left_out }
    }
}

/// Parts that were looked at, as a mark holds them: one text, made when they change and not with every mark.
///
/// `@800` every transaction below had ended then, `16385-16390` looked at somehow, `16400=left`, `16402/16400=16500.745|16501.745:16403.16405`: rows in 16402 published as those
/// of 16400 in two ways, with file and table of values stored apart. `-ud` behind the ways if updates and deletes are left out, `!` at the end if a part of its key is not published.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    parts: Arc<BTreeMap<Part, Known>>,
    horizon: u64,
    text: Arc<str>,
}

impl Default for Parts {
    fn default() -> Self {
        Parts::new(BTreeMap::new(), 0)
    }
}

impl PartialEq for Parts {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Parts {}

impl Parts {
    pub(crate) fn new(parts: BTreeMap<Part, Known>, horizon: u64) -> Self {
        let text = Arc::from(written(&parts, horizon));
        Parts { parts: Arc::new(parts), horizon, text }
    }

    /// Every transaction below had ended when they were looked at.
    pub(crate) fn horizon(&self) -> u64 {
        self.horizon
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    pub(crate) fn get(&self, part: Part) -> Option<&Known> {
        self.parts.get(&part)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Part, &Known)> {
        self.parts.iter().map(|(part, known)| (*part, known))
    }

    /// True if the same is known of the same parts, whenever that was.
    pub(crate) fn says_the_same(&self, other: &Parts) -> bool {
        self.parts == other.parts
    }

    /// True if it was published when it was last looked at.
    pub(crate) fn is_published(&self, part: Part) -> bool {
        self.get(part).is_some_and(|known| *known != Known::Left)
    }
}

fn written(parts: &BTreeMap<Part, Known>, horizon: u64) -> String {
    let mut text = if horizon > 0 { format!("@{horizon}") } else { String::new() };
    let mut comma = if text.is_empty() { "" } else { "," };
    let mut write = |entry: fmt::Arguments<'_>| {
        // Writing to a string does not fail.
        let _ = fmt::Write::write_fmt(&mut text, entry);
    };
    let mut entries = parts.iter().peekable();
    while let Some(((part, table), known)) = entries.next() {
        write(format_args!("{comma}{part}"));
        comma = ",";
        if part != table {
            write(format_args!("/{table}"));
        }
        match known {
            Known::Somehow if part == table => {
                let mut last = *part;
                while let Some((next, _)) = entries
                    .next_if(|((next, table), known)| next == table && last.checked_add(1) == Some(*next) && **known == Known::Somehow)
                {
                    last = next.0;
                }
                if last > *part {
                    write(format_args!("-{last}"));
                }
            }
            Known::Somehow => {}
            Known::Left => write(format_args!("=left")),
            Known::Published(standing) => write(format_args!("={standing}")),
        }
    }
    text
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.ways.join("|"))?;
        if !self.left_out.is_empty() {
            write!(f, "-{}", self.left_out.members().map(|(letter, _)| letter).collect::<String>())?;
        }
        if let Some((file, apart)) = self.files {
            write!(f, ":{file}.{apart}")?;
        }
        f.write_str(if self.cut { "!" } else { "" })
    }
}

impl FromStr for Standing {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::corrupt("a table's standing is written as 16500.745|16501.745:16403.16405");
        let (text, cut) = text.strip_suffix('!').map_or((text, false), |text| (text, true));
        let (ways, files) = text.split_once(':').map_or((text, None), |(ways, files)| (ways, Some(files)));
        let files = match files {
            Some(files) => {
                let (file, apart) = files.split_once('.').ok_or_else(bad)?;
                Some((file.parse().map_err(|_| bad())?, apart.parse().map_err(|_| bad())?))
            }
            None => None,
        };
        let (ways, left_out) = ways.split_once('-').unwrap_or((ways, ""));
        let left_out = Operations::of(left_out).ok_or_else(bad)?;
        Ok(Standing { ways: ways.split('|').filter(|way| !way.is_empty()).map(str::to_owned).collect(), files, cut, left_out })
    }
}

impl FromStr for Parts {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::corrupt("a set of tables is written as 16385-16390,16400");
        let oid = |text: &str| text.parse::<Oid>().map_err(|_| bad());
        let mut parts = BTreeMap::new();
        let mut horizon = 0;
        for entry in text.split(',').filter(|entry| !entry.is_empty()) {
            if let Some(number) = entry.strip_prefix('@') {
                horizon = number.parse().map_err(|_| bad())?;
                continue;
            }
            let (place, known) = match entry.split_once('=') {
                Some((place, "left")) => (place, Known::Left),
                Some((place, standing)) => (place, Known::Published(standing.parse()?)),
                None => (entry, Known::Somehow),
            };
            if let Some((first, last)) = place.split_once('-') {
                let (first, last) = (oid(first)?, oid(last)?);
                if last < first || last - first >= RUN_MAX {
                    return Err(bad());
                }
                parts.extend((first..=last).map(|table| ((table, table), known.clone())));
            } else {
                let (part, table) = place.split_once('/').unwrap_or((place, place));
                parts.insert((oid(part)?, oid(table)?), known);
            }
        }
        Ok(Parts::new(parts, horizon))
    }
}

impl Serialize for Parts {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Parts {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(|error: Error| serde::de::Error::custom(error.message()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn trace(schema: Oid, parent: Option<(Oid, u32)>) -> Trace {
        Trace { schema, moved: 700, parent, file: 50, apart: 60, logged: true }
    }

    /// The partitions 3 and 4 of 2, which is one of 1; and 5 beside them, in another schema.
    fn traces() -> Traces {
        let tables = [(1, None), (2, Some((1, 801))), (3, Some((2, 802))), (4, Some((2, 803))), (5, None)];
        let mut tables: HashMap<Oid, Trace> = tables.into_iter().map(|(oid, parent)| (oid, trace(10, parent))).collect();
        tables.insert(5, trace(11, None));
        Traces { tables, horizon: 900, ..Traces::default() }
    }

    #[test]
    fn a_way_hangs_on_every_step() {
        let by_root = Traces { named: [(1, 90)].into(), ..traces() };
        assert_eq!(by_root.standing((3, 1), false).ways, ["90.700.802.801"]);
        // Under its own name the partition is published as long as it is attached.
        assert_eq!(by_root.standing((3, 3), false).ways, ["90.700.802.801"]);
        assert!(by_root.standing((5, 5), false).ways.is_empty());
        let by_itself = Traces { named: [(3, 91)].into(), ..traces() };
        assert_eq!(by_itself.standing((3, 3), false), Standing { ways: vec!["91.700".to_owned()], ..Standing::default() });
        let all = Traces { all: Some(80), ..traces() };
        assert_eq!(all.standing((3, 3), false), Standing { ways: vec!["80.700".to_owned()], files: Some((50, 60)), ..Standing::default() });
        assert_eq!(all.standing((3, 1), false).ways, ["80.700.802.801"]);
        let by_schema = Traces { schemas: [(11, 95)].into(), ..traces() };
        assert_eq!(by_schema.standing((5, 5), false).ways, ["95.700.700"]);
    }

    #[test]
    fn one_way_that_lasts_is_enough() {
        let standing = |ways: &[&str]| Standing { ways: ways.iter().map(|way| (*way).to_owned()).collect(), ..Standing::default() };
        assert!(standing(&["1.7", "2.7"]).lasts(&standing(&["2.7", "3.7"])));
        assert!(!standing(&["1.7"]).lasts(&standing(&["2.7"])));
    }

    #[test]
    fn what_was_left_out_is_missed_when_it_comes_again() {
        let standing =
            |letters| Standing { ways: vec!["1.7".to_owned()], left_out: Operations::of(letters).unwrap(), ..Standing::default() };
        assert!(standing("").lasts(&standing("ud")) && standing("ud").lasts(&standing("ud")));
        assert!(!standing("ud").lasts(&standing("u")) && !standing("t").lasts(&standing("")) && !standing("d").lasts(&standing("u")));
        assert_eq!(Operations::of("dt").unwrap().to_string(), "delete, truncate");
    }

    #[test]
    fn what_rewrites_a_table() {
        let standing = |files| Standing { files: Some(files), ..Standing::default() };
        assert_eq!(standing((1, 2)).rewritten(&standing((1, 3))), Rewritten::No);
        assert_eq!(standing((1, 2)).rewritten(&standing((5, 2))), Rewritten::No);
        assert_eq!(standing((1, 2)).rewritten(&standing((5, 3))), Rewritten::Yes);
        assert_eq!(standing((1, 0)).rewritten(&standing((5, 0))), Rewritten::Unclear);
        assert_eq!(Standing::default().rewritten(&standing((5, 0))), Rewritten::No);
    }

    #[test]
    fn parts_survive_the_checkpoint() {
        let text = "@800,16385-16387,16390,16392/16390,16400=left,16402/16400=16500.745|16501.745:16403.16405,16404=7.8!,16406=7.8-ud:9.10";
        let parts: Parts = serde_json::from_str(&format!("\"{text}\"")).unwrap();
        assert_eq!(parts.iter().count(), 9);
        assert_eq!(parts.get((16400, 16400)), Some(&Known::Left));
        assert_eq!(serde_json::to_string(&parts).unwrap(), format!("\"{text}\""));
        for bad in ["x", "2-1", "1-99999999999", "1=7:8", "1=7-x", "1/", "@"] {
            assert!(bad.parse::<Parts>().is_err(), "{bad}");
        }
    }
}
