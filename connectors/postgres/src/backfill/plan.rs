//! What the catalog says: which tables are published, where their rows lie, how they are read.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use logweir_core::{Error, Pattern, Relation, RelationName, Result, TableFilter};

use crate::lsn::Lsn;
use crate::message::{RelationColumn, RelationShape};
use crate::publication::{has_cut_key, is_sent, key_columns};
use crate::quote::{identifier, literal, relation};
use crate::server::{Facts, number};
use crate::types::{ColumnType, Oid, TypeCatalog, TypeInfo};
use crate::wire::{Connection, Rows};

use super::key::{KeyBound, RangeKey};
use super::standing::{Known, Operations, Part, Parts, Rewritten, Traces};
use super::state::PendingPart;
use super::wave::Range;

/// Bounds of a chunk, in blocks of the table.
const CHUNK_BLOCKS: std::ops::RangeInclusive<u64> = 16..=65_536;
/// Rows that a block is taken to have where nobody has counted them.
const BLOCK_ROWS_GUESS: f64 = 50.0;

/// So many rows are looked at for one that is older than the file of its table.
const ROWS_LOOKED_AT: u32 = 1_000;

/// The first version that reads a range of blocks without reading the rest.
const RANGES_OF_BLOCKS: u32 = 140_000;

/// What a look at the server found.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// What is to be read: parts that were not known, and those of tables that are read again.
    pub(crate) found: Vec<PendingPart>,
    /// Everything that is known from now on.
    pub(crate) known: Parts,
    /// Names of the tables found, for messages.
    pub(crate) names: Vec<RelationName>,
    /// Known tables whose changes did not all arrive.
    pub(crate) gaps: Vec<Gap>,
    /// Whether the key of a published table has a column that is not published.
    pub(crate) cut_keys: HashMap<Oid, bool>,
    /// Tables of which a part is published, or followed, no more.
    pub(crate) left: Vec<RelationName>,
    /// What the publication sends no more.
    pub(crate) narrowed: Option<Operations>,
}

/// A table that was known, and of which changes are in no log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) oid: Oid,
    pub(crate) name: RelationName,
    /// Its rows are wanted, so it is read again.
    pub(crate) wanted: bool,
}

/// A published table, and a place where its rows lie.
struct Listed {
    part: Part,
    name: RelationName,
    exact: bool,
    cut: bool,
}

/// What a survey is asked.
pub(crate) struct Surveyed<'a> {
    pub(crate) publication: &'a str,
    /// What was known before.
    pub(crate) known: &'a Parts,
    /// Tables to be read again, known or not. Without them the connection's snapshot is exact, and nothing has to be waited for.
    pub(crate) again: Option<&'a [Oid]>,
    pub(crate) tables: &'a TableFilter,
    /// Tables whose rows are not wanted; `None` if those of no table are.
    pub(crate) exclude: Option<&'a [Pattern]>,
}

/// Looks which published tables, and partitions of them, are not known; and whether the others have been published all the time.
pub(crate) async fn survey(connection: &mut Connection, asked: Surveyed<'_>) -> Result<Survey> {
    // Before the list: what changes in between is found by the next look.
    let traces = Traces::read(connection, asked.publication).await?;
    // A partitioned table that is published as a whole has its rows in its leaves; what is attached later is found later.
    let rows = connection
        .query(&format!(
            "SELECT c.oid, n.nspname, c.relname, c.relreplident = 'n' OR NOT EXISTS (SELECT FROM pg_catalog.pg_index AS i WHERE i.indrelid = c.oid \
             AND CASE c.relreplident WHEN 'i' THEN i.indisreplident ELSE i.indisprimary END), COALESCE(leaf.oid, c.oid), {} \
             FROM pg_catalog.pg_publication_tables AS p JOIN pg_catalog.pg_namespace AS n ON n.nspname = p.schemaname \
             JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = p.tablename \
             LEFT JOIN LATERAL pg_catalog.pg_partition_tree(c.oid) AS tree ON c.relkind = 'p' AND tree.isleaf \
             LEFT JOIN pg_catalog.pg_class AS leaf ON leaf.oid = tree.relid AND leaf.relkind = 'r' \
             WHERE p.pubname = {} AND (c.relkind = 'r' OR leaf.oid IS NOT NULL) ORDER BY 1, 5",
            has_cut_key(connection.version()),
            literal(asked.publication)
        ))
        .await?;
    let mut listed = Vec::with_capacity(rows.len());
    let mut cut_keys = HashMap::new();
    for row in 0..rows.len() {
        let (Some(oid), Some(schema), Some(table)) = (number::<Oid>(&rows, row, 0), rows.get(row, 1), rows.get(row, 2)) else { continue };
        let Some(part) = number::<Oid>(&rows, row, 4) else { continue };
        let name = RelationName::new(schema, table);
        let cut = rows.get(row, 5) == Some("t");
        cut_keys.insert(oid, cut);
        if asked.tables.accepts(&name) && !traces.is_unlogged(part) {
            listed.push(Listed { part: (part, oid), name, exact: cut || rows.get(row, 3) == Some("t"), cut });
        }
    }
    let mut known = BTreeMap::new();
    let mut gaps: Vec<Gap> = Vec::new();
    let wanted =
        |name: &RelationName| asked.exclude.is_some_and(|exclude| !exclude.iter().any(|pattern| pattern.matches(&name.to_string())));
    for Listed { part, name, cut, .. } in &listed {
        let now = traces.standing(*part, *cut);
        let (gap, now) = match known_before(asked.known, *part) {
            None | Some(Known::Somehow) => (false, now),
            Some(Known::Left) => (true, now),
            // It was dropped or moved between two questions.
            Some(Known::Published(before)) if now.ways.is_empty() => (false, before.clone()),
            Some(Known::Published(before)) => {
                (!before.lasts(&now) || is_written_anew(connection, part.0, before.rewritten(&now), asked.known.horizon()).await?, now)
            }
        };
        if gap && !gaps.iter().any(|gap| gap.oid == part.1) {
            gaps.push(Gap { oid: part.1, name: name.clone(), wanted: wanted(name) });
        }
        known.insert(*part, Known::Published(now));
    }
    let before =
        asked.known.iter().filter_map(|(_, known)| if let Known::Published(before) = known { Some(before.left_out) } else { None });
    let narrowed = before.map(|before| traces.left_out.without(before)).find(|narrowed| !narrowed.is_empty());
    let mut left = Vec::new();
    for (part, before) in asked.known.iter().filter(|(part, _)| !known.contains_key(part)).collect::<Vec<_>>() {
        // One that was dropped does not come back.
        let is_listed = || known.range((part.0, Oid::MIN)..=(part.0, Oid::MAX)).next().is_some();
        if !traces.has(part.0) || (*before == Known::Somehow && is_listed()) {
            continue;
        }
        if *before != Known::Left && !left.contains(&part.1) {
            left.push(part.1);
        }
        known.insert(part, Known::Left);
    }
    let mut found = Vec::new();
    let mut names = Vec::new();
    for Listed { part, name, exact, .. } in listed {
        let is_again = |oid: &Oid| *oid == part.1;
        let again = asked.again.is_some_and(|again| again.iter().any(is_again)) || gaps.iter().any(|gap| is_again(&gap.oid));
        if !wanted(&name) || (known_before(asked.known, part).is_some() && !again) {
            continue;
        }
        if names.last() != Some(&name) {
            names.push(name);
        }
        found.push(PendingPart::new(part.1, part.0, exact));
    }
    if !found.is_empty() && asked.again.is_some() {
        // Whatever is under way now may have changed one of them unnoticed, and has a lower number than a new transaction: the
        // snapshot's own bound is too low for that, it is the last transaction that has ended.
        let now = connection.query("SELECT pg_catalog.txid_current(), pg_catalog.pg_current_wal_insert_lsn()").await?;
        let (Some(ended), Some(after)) = (number::<u64>(&now, 0, 0), number::<Lsn>(&now, 0, 1)) else {
            return Err(Error::corrupt("the server did not say where its log ends"));
        };
        for part in &mut found {
            (part.after, part.ended) = (after, ended);
        }
    }
    // What cannot be merged goes first, while a snapshot is exact.
    found.sort_by_key(|part| (!part.exact, part.oid, part.part));
    Ok(Survey {
        found,
        known: Parts::new(known, traces.horizon),
        names,
        gaps,
        cut_keys,
        left: names_of(connection, &left).await?,
        narrowed,
    })
}

/// What was known of a part. Before it was noted how parts are published it was not noted either as which table.
fn known_before(known: &Parts, part: Part) -> Option<&Known> {
    known.get(part).or_else(|| known.get((part.0, part.0)).filter(|known| **known == Known::Somehow))
}

/// The names of tables that are there.
async fn names_of(connection: &mut Connection, tables: &[Oid]) -> Result<Vec<RelationName>> {
    if tables.is_empty() {
        return Ok(Vec::new());
    }
    let rows = connection
        .query(&format!(
            "SELECT n.nspname, c.relname FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
             WHERE c.oid = ANY ({})",
            oid_array(tables.iter().copied())
        ))
        .await?;
    Ok((0..rows.len()).filter_map(|row| Some(RelationName::new(rows.get(row, 0)?, rows.get(row, 1)?))).collect())
}

/// True if rows of a table may have changed unlogged since all transactions below `horizon` had ended, as far as can be told: one
/// without values stored apart that was emptied and filled again looks the same.
async fn is_written_anew(connection: &mut Connection, part: Oid, rewritten: Rewritten, horizon: u64) -> Result<bool> {
    match rewritten {
        Rewritten::No => return Ok(false),
        Rewritten::Yes => return Ok(true),
        Rewritten::Unclear => {}
    }
    let name = connection
        .query(&format!(
            "SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) FROM pg_catalog.pg_class AS c \
             JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = {part}"
        ))
        .await?;
    let Some(name) = name.first() else { return Ok(false) };
    match connection.query(&format!("SELECT xmin FROM ONLY {name} LIMIT {ROWS_LOOKED_AT}")).await {
        Ok(rows) => Ok(!(0..rows.len()).filter_map(|row| number::<u32>(&rows, row, 0)).any(|xmin| is_older(xmin, horizon))),
        Err(error) if error.is_transient() => Err(error),
        // Gone meanwhile, or not for us to see: then reading it again says so.
        Err(_) => Ok(true),
    }
}

/// True if the transaction began before `horizon`: a row has half of its number.
fn is_older(xmin: u32, horizon: u64) -> bool {
    ((horizon as u32).wrapping_sub(xmin) as i32) > 0
}

/// The expression for the snapshot of the present transaction.
pub(crate) fn current_snapshot(facts: &Facts) -> &'static str {
    if facts.version >= 130_000 { "pg_catalog.pg_current_snapshot()" } else { "pg_catalog.txid_current_snapshot()" }
}

fn oid_array(oids: impl Iterator<Item = Oid>) -> String {
    let list: Vec<String> = oids.map(|oid| oid.to_string()).collect();
    format!("'{{{}}}'::pg_catalog.oid[]", list.join(","))
}

/// A table as its rows are read.
#[derive(Debug)]
pub(crate) struct TableShape {
    /// As the log would describe it.
    pub(crate) shape: RelationShape,
    /// The columns of its primary key, in order.
    pub(crate) key: Vec<String>,
    /// Its key has a column that is not published.
    pub(crate) cut: bool,
    /// Which rows are published.
    pub(crate) filter: Option<String>,
}

/// A column of a COPY in binary format, in a form that can be read.
pub(crate) fn copied(column: &str, column_type: &ColumnType) -> String {
    let name = identifier(column);
    // As the type's own output function writes it, which a cast may not be. Of a row of NULLs `IS NULL` says yes.
    if column_type.is_binary() {
        name
    } else {
        format!("CASE WHEN pg_catalog.num_nulls({name}) = 0 THEN pg_catalog.format('%s', {name}) END")
    }
}

/// Where the rows of a part lie.
#[derive(Debug)]
pub(crate) struct PartShape {
    name: RelationName,
    blocks: u64,
    rows_per_block: f64,
    /// The file of its rows.
    file: Oid,
    /// It has values that are stored apart from their rows.
    toasted: bool,
    /// Its primary key, if ranges of it can be read.
    key: Option<RangeKey>,
    /// Where its last range ended, looked up for a place that does not know.
    found: Option<KeyBound>,
}

/// What is needed to read parts.
#[derive(Debug, Default)]
pub(crate) struct Shapes {
    /// By the OID of the published table. A table that is not here is gone.
    pub(crate) tables: HashMap<Oid, TableShape>,
    pub(crate) parts: HashMap<Oid, PartShape>,
    pub(crate) types: Vec<TypeInfo>,
}

/// How a part is read, in full.
#[derive(Debug)]
pub(crate) struct TablePlan {
    /// What its rows are of.
    pub(crate) relation: Arc<Relation>,
    pub(crate) types: Vec<ColumnType>,
    select: String,
    filter: Option<String>,
    /// The part.
    pub(crate) name: RelationName,
    /// The part's own OID, and the file that it had when it was looked at.
    pub(crate) part: Oid,
    pub(crate) file: Oid,
    pub(crate) way: Way,
    /// Chunks that it has, about.
    pub(crate) chunks: u64,
    /// Rows that a chunk has, about.
    pub(crate) chunk_rows: u64,
}

/// What chunks of a part are.
#[derive(Debug)]
pub(crate) enum Way {
    /// So many blocks of all that there were when it was looked at.
    Blocks { each: u64, all: u64 },
    /// Ranges of the key, from behind `after`.
    Key { key: RangeKey, after: Option<KeyBound> },
    /// It is read in one piece.
    Whole,
}

impl TablePlan {
    /// The plan of a part whose table is described as `relation`, with columns of these types. `exact`: by the exact snapshot
    /// of a slot.
    pub(crate) fn new(
        facts: &Facts,
        relation: Arc<Relation>,
        types: Vec<ColumnType>,
        (table, part): (&TableShape, &PartShape),
        pending: &PendingPart,
        exact: bool,
        chunk_rows: u64,
    ) -> Self {
        let columns: Vec<String> =
            relation.columns().iter().zip(&types).map(|(column, column_type)| copied(column.name(), column_type)).collect();
        let blocks = (chunk_rows as f64 / part.rows_per_block) as u64;
        let each = blocks.clamp(*CHUNK_BLOCKS.start(), *CHUNK_BLOCKS.end());
        // Whole rows in the log leave nothing out.
        let left_out = part.toasted && table.shape.replica_identity != b'f';
        // Before 14 a range of row places is found by reading the whole table.
        let blocks_will_do = facts.version >= RANGES_OF_BLOCKS && (exact || !left_out) && pending.place.is_none();
        let way = match &part.key {
            _ if blocks_will_do => Way::Blocks { each, all: part.blocks },
            Some(key) => {
                let after = pending.place.as_ref().and_then(|place| place.bound(key, part.found.as_ref()));
                Way::Key { key: key.clone(), after }
            }
            None => Way::Whole,
        };
        TablePlan {
            select: format!("SELECT {} FROM ONLY {}", columns.join(", "), self::relation(&part.name)),
            filter: table.filter.clone(),
            name: part.name.clone(),
            part: pending.part,
            file: part.file,
            relation,
            types,
            way,
            chunks: part.blocks.div_ceil(each).max(1),
            chunk_rows,
        }
    }

    /// Chunks that are read of a part, and chunks that it has, about. `read` were counted, perhaps by a plan with others.
    /// `next_block` of a part that is not read whole.
    pub(crate) fn count(&self, next_block: Option<u64>, read: u64) -> (u64, u64) {
        let Some(next_block) = next_block else { return (read, read) };
        let read = match &self.way {
            Way::Blocks { each, .. } => next_block / each,
            Way::Key { .. } | Way::Whole => read,
        };
        (read, self.chunks.max(read + 1))
    }

    /// True if `part` counts as read up to a place that is of no use for this plan.
    pub(crate) fn begins_anew(&self, part: &PendingPart) -> bool {
        match &self.way {
            Way::Blocks { .. } => part.place.is_some() || self.is_rewritten(part),
            Way::Key { after, .. } => part.next_block > 0 || (part.place.is_some() && after.is_none()),
            Way::Whole => !part.is_at_start(),
        }
    }

    /// True if the blocks that were counted are of another file.
    pub(crate) fn is_rewritten(&self, part: &PendingPart) -> bool {
        part.file != 0 && part.file != self.file
    }

    /// The statement that asks which file the part has now.
    pub(crate) fn file_statement(&self) -> String {
        format!("SELECT pg_catalog.pg_relation_filenode({})", self.part)
    }

    /// The statement that reads a range.
    pub(crate) fn copy_statement(&self, range: &Range) -> String {
        let mut conditions = Vec::new();
        match range {
            Range::Blocks { first, end } => {
                if *first > 0 {
                    conditions.push(format!("ctid >= '({first},0)'::pg_catalog.tid"));
                }
                if let Some(end) = end {
                    conditions.push(format!("ctid < '({end},0)'::pg_catalog.tid"));
                }
            }
            Range::Key { after, end } => {
                if let Way::Key { key, .. } = &self.way {
                    conditions.extend(after.as_ref().map(|after| key.behind(after)));
                    conditions.extend(end.as_ref().map(|end| key.up_to(&end.bound)));
                }
            }
        }
        conditions.extend(self.filter.iter().map(|filter| format!("({filter})")));
        let condition = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
        format!("COPY ({}{condition}) TO STDOUT (FORMAT binary)", self.select)
    }
}

/// Asks for everything that is needed to read these parts.
pub(crate) async fn plan_tables(connection: &mut Connection, facts: &Facts, publication: &str, parts: &[PendingPart]) -> Result<Shapes> {
    let mut shapes = Shapes::default();
    let tables = oid_array(parts.iter().map(|part| part.oid));
    let filter = if facts.version >= 150_000 { "p.rowfilter" } else { "NULL" };
    let rows = connection
        .query(&format!(
            "SELECT c.oid, n.nspname, c.relname, c.relreplident, a.attname, a.atttypid, a.atttypmod, \
             COALESCE(c.relreplident = 'f' OR a.attnum = ANY ({}), false), \
             pg_catalog.array_position({}, a.attnum), {filter}, {} \
             FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
             JOIN pg_catalog.pg_publication_tables AS p ON p.pubname = {} AND p.schemaname = n.nspname AND p.tablename = c.relname \
             JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND {} \
             LEFT JOIN pg_catalog.pg_index AS identity ON identity.indrelid = c.oid AND \
             CASE c.relreplident WHEN 'd' THEN identity.indisprimary WHEN 'i' THEN identity.indisreplident ELSE false END \
             LEFT JOIN pg_catalog.pg_index AS key ON key.indrelid = c.oid AND key.indisprimary \
             WHERE c.oid = ANY ({tables}) ORDER BY c.oid, a.attnum",
            key_columns("identity"),
            key_columns("key"),
            has_cut_key(facts.version),
            literal(publication),
            is_sent(facts.version)
        ))
        .await?;
    let mut keys: HashMap<Oid, Vec<(u32, String)>> = HashMap::new();
    for row in 0..rows.len() {
        let text = |column: usize| rows.get(row, column).unwrap_or_default();
        let (Some(oid), Some(type_oid)) = (number::<Oid>(&rows, row, 0), number::<Oid>(&rows, row, 5)) else { continue };
        let table = shapes.tables.entry(oid).or_insert_with(|| TableShape {
            shape: RelationShape {
                oid,
                schema: text(1).to_owned(),
                table: text(2).to_owned(),
                replica_identity: text(3).bytes().next().unwrap_or(b'd'),
                columns: Vec::new(),
            },
            key: Vec::new(),
            cut: rows.get(row, 10) == Some("t"),
            filter: rows.get(row, 9).map(str::to_owned),
        });
        if let Some(place) = number::<u32>(&rows, row, 8) {
            keys.entry(oid).or_default().push((place, text(4).to_owned()));
        }
        table.shape.columns.push(RelationColumn {
            flags: u8::from(text(7) == "t"),
            name: text(4).to_owned(),
            type_oid,
            typmod: number(&rows, row, 6).unwrap_or(-1),
        });
    }
    for (oid, mut key) in keys {
        key.sort_unstable();
        if let Some(table) = shapes.tables.get_mut(&oid) {
            table.key = key.into_iter().map(|(_, name)| name).collect();
        }
    }
    let places = oid_array(parts.iter().map(|part| part.part));
    let rows = connection
        .query(&format!(
            "SELECT c.oid, n.nspname, c.relname, pg_catalog.pg_relation_size(c.oid), c.reltuples, c.relpages, \
             c.reltoastrelid <> 0 AND pg_catalog.pg_relation_size(c.reltoastrelid) > 0, pg_catalog.pg_relation_filenode(c.oid) \
             FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = ANY ({places})"
        ))
        .await?;
    for row in 0..rows.len() {
        let (Some(oid), Some(schema), Some(table)) = (number::<Oid>(&rows, row, 0), rows.get(row, 1), rows.get(row, 2)) else { continue };
        let (tuples, pages) = (number::<f64>(&rows, row, 4).unwrap_or(0.0), number::<f64>(&rows, row, 5).unwrap_or(0.0));
        let rows_per_block = if tuples > 0.0 && pages > 0.0 { (tuples / pages).max(0.1) } else { BLOCK_ROWS_GUESS };
        let blocks = number::<u64>(&rows, row, 3).unwrap_or(0).div_ceil(facts.block_size.max(1));
        let (name, toasted) = (RelationName::new(schema, table), rows.get(row, 6) == Some("t"));
        let file = number(&rows, row, 7).unwrap_or_default();
        shapes.parts.insert(oid, PartShape { name, blocks, rows_per_block, file, toasted, key: None, found: None });
    }
    let keys = RangeKey::read(&connection.query(&RangeKey::statement(&places)).await?);
    for (oid, key) in keys {
        if let Some(part) = shapes.parts.get_mut(&oid) {
            part.key = key;
        }
    }
    for pending in parts {
        if let (Some(place), Some(part)) = (&pending.place, shapes.parts.get_mut(&pending.part))
            && let Some(key) = &part.key
        {
            part.found = place.find(connection, &part.name, key).await?;
        }
    }
    let types = shapes.tables.values().flat_map(|table| table.shape.columns.iter().map(|column| column.type_oid));
    let types = types.collect::<Vec<_>>();
    shapes.types = look_up(connection, types).await?;
    Ok(shapes)
}

/// Asks for types that are not built in, and for those that they are made of.
pub(crate) async fn look_up(connection: &mut Connection, oids: Vec<Oid>) -> Result<Vec<TypeInfo>> {
    let mut catalog = TypeCatalog::new();
    let mut found = Vec::new();
    let mut gone = Vec::new();
    loop {
        let mut unknown: Vec<Oid> = oids.iter().filter_map(|oid| catalog.unknown(*oid)).filter(|oid| !gone.contains(oid)).collect();
        unknown.sort_unstable();
        unknown.dedup();
        if unknown.is_empty() {
            return Ok(found);
        }
        let rows = connection.query(&TypeCatalog::query(&unknown)).await?;
        let infos = parse_types(&rows)?;
        gone.extend(unknown.iter().filter(|oid| !infos.iter().any(|info| info.oid == **oid)));
        for info in infos {
            catalog.learn(info.clone());
            found.push(info);
        }
    }
}

fn parse_types(rows: &Rows) -> Result<Vec<TypeInfo>> {
    let parse = |row: &Vec<Option<String>>| {
        let row: Vec<Option<&str>> = row.iter().map(Option::as_deref).collect();
        TypeCatalog::parse_row(&row)
    };
    rows.rows.iter().map(parse).collect()
}

/// The columns of a table's primary key, in order.
pub(crate) async fn primary_key(connection: &mut Connection, oid: Oid) -> Result<Vec<String>> {
    let rows = connection
        .query(&format!(
            "SELECT a.attname FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid \
             AND a.attnum = ANY ({0}) WHERE i.indrelid = {oid} AND i.indisprimary ORDER BY pg_catalog.array_position({0}, a.attnum)",
            key_columns("i")
        ))
        .await?;
    Ok((0..rows.len()).filter_map(|row| rows.get(row, 0).map(str::to_owned)).collect())
}
