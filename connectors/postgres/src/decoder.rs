//! Decodes the messages of pgoutput into Arrow batches. No I/O: messages in, batches out.
//!
//! Only whole transactions come here, in the order of their commits (see `transactions` for those that are sent before
//! they are whole). A Relation message compiles into a plan, a builder per column; a row message walks its tuple once.
//!
//! The position of a change is the place of its transaction's commit record and its number in the transaction. A mark
//! stands one byte before the place where the next commit record may begin: records begin at multiples of eight, so no
//! change has that position, and rows of a backfill that is made at a mark find room behind it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use logweir_core::{
    ChangeBatch, Column, Error, Incarnation, LogPosition, Pattern, Relation, RelationName, Result, ResultExt, TableFilter, TimestampMicros,
};
use serde::{Deserialize, Serialize};

use crate::buffer::{RowBuffer, RowContext, RowError, Target};
use crate::carried;
use crate::lsn::Lsn;
use crate::message::{self, Begin, Bytes, RelationShape, tag};
use crate::types::{ColumnType, Oid, TypeCatalog, TypeInfo, TypeKind, TypeOptions};

/// Versions that a table's shape may have over the life of a stream.
const VERSIONS_MAX: u32 = 1_000_000;

/// The first OID that is not of the server itself (`FirstNormalObjectId`): types below keep their names.
const FIRST_OWN_TYPE: Oid = 16_384;

/// The position of a mark: everything that committed before `lsn` lies before it, everything else behind it.
pub(crate) fn mark_position(incarnation: Incarnation, lsn: Lsn) -> LogPosition {
    LogPosition::new(incarnation, 0, lsn.0.saturating_sub(1), 0, false)
}

/// How a decoder is set up.
#[derive(Debug, Clone)]
pub(crate) struct DecoderOptions {
    /// The tables and columns wanted; others are skipped undecoded.
    pub(crate) tables: TableFilter,
    /// The tables of whose updates the rows as they were before are handed out too.
    pub(crate) before_images: Vec<Pattern>,
    /// First word of every position.
    pub(crate) incarnation: Incarnation,
    /// Transactions that committed before this place were handed out already.
    pub(crate) from: Lsn,
    /// Where the last of them that had changes ended.
    pub(crate) changed: Lsn,
    /// The log's clock there.
    pub(crate) commit_time: Option<TimestampMicros>,
    /// Relation versions known from the checkpoint.
    pub(crate) relations: Vec<Arc<Relation>>,
    /// Where the checkpoint stands: later versions are met again.
    pub(crate) resume: Option<LogPosition>,
    pub(crate) types: TypeOptions,
    /// Bytes held in builders at which batches are cut, at the end of the transaction.
    pub(crate) flush_bytes: usize,
    /// Bytes held in builders at which batches are cut even inside a transaction (without a mark).
    pub(crate) flush_bytes_max: usize,
}

/// What is ready to be handed out.
#[derive(Debug)]
pub(crate) enum Decoded {
    Relation(Arc<Relation>),
    Changes(ChangeBatch),
    /// Everything that committed before this place has been handed out, and nothing behind it; and the log's clock here.
    Mark(Lsn, Option<TimestampMicros>),
}

/// What must be known before a message can be taken. The message is to be given again afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Question {
    /// Types to look up.
    pub(crate) types: Vec<Oid>,
    /// A table whose key is asked for: its log has whole rows and does not say what identifies them, or it is not known whether
    /// all of its key is published.
    pub(crate) key_of: Option<Oid>,
}

/// Whether a message was taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    Go,
    Ask(Question),
}

/// What a change of a table's shape asks of a backfill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reshaped {
    pub(crate) oid: Oid,
    pub(crate) name: RelationName,
    /// Columns that are new: what they hold in rows that did not change is in no log.
    pub(crate) added: Vec<String>,
    /// A column has another type: likewise.
    pub(crate) retyped: bool,
    /// The table is another one under the same name.
    pub(crate) recreated: bool,
}

/// What identifies the rows of a table, as the catalog says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Key {
    /// The columns of its primary key, none if it has none. They count where the log has whole rows.
    pub(crate) columns: Vec<String>,
    /// Its rows are whole in the log, also those of all of its partitions.
    pub(crate) whole_rows: bool,
    /// It has a column that is not published.
    pub(crate) cut: bool,
}

/// A table that the log has described.
#[derive(Debug)]
struct Table {
    shape: RelationShape,
    /// `None` if it is not followed.
    buffer: Option<RowBuffer>,
    /// Has changes that were not handed out.
    active: bool,
    /// Its log does not say which row an update or delete is about: of its key a column is not published.
    unidentified: bool,
}

/// The versions of a name.
#[derive(Debug, Default)]
struct Versions {
    known: Vec<Arc<Relation>>,
    current: Option<Arc<Relation>>,
    version: u32,
    announced: HashSet<u32>,
}

#[derive(Debug)]
struct Open {
    row: RowContext,
    /// It was handed out before.
    skip: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct PgoutputDecoder {
    options: DecoderOptions,
    types: TypeCatalog,
    /// Names of types, as the log says them; for those that the catalog does not know any more.
    type_names: HashMap<Oid, (String, String)>,
    keys: HashMap<Oid, Key>,
    /// Whether the key of a table has a column that is not published, as far as it was looked at. `None` if nobody looks.
    cut_keys: Option<HashMap<Oid, bool>>,
    /// Descriptions of tables that had no change since: one may be of a part of a transaction that was taken back.
    described: HashMap<Oid, RelationShape>,
    tables: Vec<Table>,
    by_oid: HashMap<Oid, usize>,
    versions: HashMap<RelationName, Versions>,
    active: Vec<usize>,
    held_bytes: usize,
    open: Option<Open>,
    commit_time: Option<TimestampMicros>,
    /// Everything that committed before was taken.
    passed: Lsn,
    /// Where the last transaction with changes ended.
    changed: Lsn,
    /// A transaction with changes became whole since the last mark.
    whole: bool,
    /// Changes of the open transaction may have been made ready.
    ahead: bool,
    ready: VecDeque<Decoded>,
    reshaped: Vec<Reshaped>,
}

impl PgoutputDecoder {
    pub(crate) fn new(mut options: DecoderOptions) -> Self {
        let mut versions: HashMap<RelationName, Versions> = HashMap::new();
        for relation in std::mem::take(&mut options.relations) {
            versions.entry(relation.name().clone()).or_default().known.push(relation);
        }
        for entry in versions.values_mut() {
            entry.known.sort_by_key(|relation| relation.version());
            let resume = options.resume.unwrap_or(LogPosition::MIN);
            entry.current = entry.known.iter().rev().find(|relation| relation.since() <= resume).map(Arc::clone);
            entry.version = entry.current.as_ref().map_or(0, |relation| relation.version());
        }
        PgoutputDecoder {
            types: TypeCatalog::new(),
            type_names: HashMap::new(),
            keys: HashMap::new(),
            cut_keys: None,
            described: HashMap::new(),
            tables: Vec::new(),
            by_oid: HashMap::new(),
            versions,
            active: Vec::new(),
            held_bytes: 0,
            open: None,
            commit_time: options.commit_time,
            passed: options.from,
            changed: options.changed,
            whole: false,
            ahead: false,
            ready: VecDeque::new(),
            reshaped: Vec::new(),
            options,
        }
    }

    /// Takes a message that belongs between [`begin`](Self::begin) and [`commit`](Self::commit), or a description.
    /// `lsn` is where the change stands. With `streamed` a transaction id stands before its body.
    pub(crate) fn message(&mut self, payload: &[u8], streamed: bool, lsn: Lsn) -> Result<Flow> {
        let mut bytes = Bytes(payload);
        let kind = bytes.u8()?;
        if streamed && kind != tag::ORIGIN {
            bytes.u32()?;
        }
        let body = bytes.0;
        match kind {
            tag::INSERT | tag::UPDATE | tag::DELETE => {
                if let Flow::Ask(question) = self.settle(Bytes(body).u32()?)? {
                    return Ok(Flow::Ask(question));
                }
                self.row(kind, body, lsn)?;
            }
            tag::RELATION => {
                let shape = message::relation(body)?;
                self.described.insert(shape.oid, shape);
            }
            tag::TYPE => {
                let mut bytes = Bytes(body);
                let oid = bytes.u32()?;
                let schema = bytes.text()?;
                self.type_names.insert(oid, (schema.to_owned(), bytes.text()?.to_owned()));
            }
            tag::TRUNCATE => {
                let relations = message::truncate(body)?;
                for oid in &relations {
                    if let Flow::Ask(question) = self.settle(*oid)? {
                        return Ok(Flow::Ask(question));
                    }
                }
                self.truncate(&relations, lsn)?;
            }
            // Where a change came from first, and messages of applications: nothing of rows.
            tag::ORIGIN | tag::MESSAGE => {}
            other => return Err(Error::corrupt("the log has a message of an unknown kind").context("kind", other)),
        }
        Ok(Flow::Go)
    }

    /// A whole transaction begins.
    pub(crate) fn begin(&mut self, begin: Begin, now: TimestampMicros) -> Result<()> {
        if self.open.is_some() {
            return Err(Error::corrupt("a transaction of the log begins inside another one"));
        }
        let commit_time = self.commit_time.map_or(begin.commit_time, |time| time.max(begin.commit_time));
        let row = RowContext {
            incarnation: self.options.incarnation,
            commit_lsn: begin.commit_lsn,
            xid: begin.xid,
            ordinal: 0,
            commit_time,
            read_time: now,
            lsn: begin.commit_lsn,
        };
        self.open = Some(Open { row, skip: begin.commit_lsn < self.options.from });
        Ok(())
    }

    /// The open transaction is whole; its commit record ends at `end`.
    pub(crate) fn commit(&mut self, end: Lsn) -> Result<()> {
        let open = self.open.take().ok_or_else(|| Error::corrupt("a transaction of the log ends that did not begin"))?;
        self.ahead = false;
        if open.skip {
            return Ok(());
        }
        if open.row.ordinal > 0 {
            self.commit_time = Some(open.row.commit_time);
            self.changed = self.changed.max(end);
            self.whole = true;
        }
        self.passed = self.passed.max(end);
        if self.held_bytes >= self.options.flush_bytes { self.flush().map(|_| ()) } else { Ok(()) }
    }

    /// True between the beginning and the end of a transaction.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Nothing commits before `lsn` that was not taken. Of no use inside a transaction.
    pub(crate) fn pass(&mut self, lsn: Lsn) {
        if self.open.is_none() {
            self.passed = self.passed.max(lsn);
        }
    }

    /// Everything that committed before was taken.
    pub(crate) fn passed(&self) -> Lsn {
        self.passed
    }

    /// Where the last transaction with changes ended.
    pub(crate) fn changed(&self) -> Lsn {
        self.changed
    }

    /// The log's clock.
    pub(crate) fn commit_time(&self) -> Option<TimestampMicros> {
        self.commit_time
    }

    /// Takes note that something which the log holds before `lsn` was handed out otherwise: as rows of a backfill.
    pub(crate) fn note_seen(&mut self, lsn: Lsn) {
        self.changed = self.changed.max(lsn);
    }

    /// Raises the log's clock, between two transactions.
    pub(crate) fn advance_clock(&mut self, time: TimestampMicros) {
        self.commit_time = self.commit_time.max(Some(time));
    }

    /// True if changes wait that were not handed out.
    pub(crate) fn holds_changes(&self) -> bool {
        self.held_bytes > 0
    }

    /// Makes a mark at the end of every transaction from now on.
    pub(crate) fn mark_each_transaction(&mut self) {
        self.options.flush_bytes = 0;
    }

    /// Cuts batches at the end of the last whole transaction and makes a mark, if one ended since the last mark. Inside
    /// a transaction it does nothing. True if anything became ready.
    pub(crate) fn flush(&mut self) -> Result<bool> {
        if self.open.is_some() || !self.whole {
            return Ok(false);
        }
        self.hand_out()?;
        self.whole = false;
        self.ready.push_back(Decoded::Mark(self.passed, self.commit_time));
        Ok(true)
    }

    /// What became whole before a fault is made ready, with a mark; what is left of the open transaction is not handed out.
    /// The decoder is of no use afterwards.
    pub(crate) fn abandon(&mut self) -> Result<()> {
        if self.open.take().is_none() {
            return self.flush().map(|_| ());
        }
        // Behind changes of the open transaction there can be no mark at its beginning.
        if !self.whole || self.ahead {
            return Ok(());
        }
        let boundary = mark_position(self.options.incarnation, self.passed);
        for index in std::mem::take(&mut self.active) {
            let batch = self.tables[index].buffer.as_mut().map(RowBuffer::cut).transpose()?.flatten();
            self.ready.extend(batch.and_then(|batch| batch.up_to(boundary)).map(Decoded::Changes));
        }
        self.ready.push_back(Decoded::Mark(self.passed, self.commit_time));
        Ok(())
    }

    /// The next thing that is ready.
    pub(crate) fn next(&mut self) -> Option<Decoded> {
        self.ready.pop_front()
    }

    /// True if something is ready.
    pub(crate) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// What changes of shape asked for since the last call.
    pub(crate) fn take_reshaped(&mut self) -> Vec<Reshaped> {
        std::mem::take(&mut self.reshaped)
    }

    /// What the catalog says of types; `asked` for but not there are gone and pass as text.
    pub(crate) fn learn(&mut self, asked: &[Oid], found: Vec<TypeInfo>) {
        for oid in asked.iter().filter(|oid| !found.iter().any(|info| info.oid == **oid)) {
            let (schema, name) = self.type_names.get(oid).cloned().unwrap_or_else(|| (String::new(), oid.to_string()));
            self.types.learn(TypeInfo { oid: *oid, schema, name, kind: TypeKind::Base, sendable: false });
        }
        for info in found {
            self.types.learn(info);
        }
    }

    /// The columns of a table's primary key; none if it has none, or is gone.
    pub(crate) fn provide_key(&mut self, oid: Oid, key: Key) {
        self.keys.insert(oid, key);
    }

    /// Whether the keys of published tables have a column that is not published. The log describes what is published only: the rest
    /// of such a key would look like a whole one, under which different rows are the same. It is no key, then.
    pub(crate) fn learn_cut_keys(&mut self, cut_keys: HashMap<Oid, bool>) {
        let known = self.cut_keys.get_or_insert_default();
        for (oid, cut) in cut_keys {
            // Its description says the same as before, and means something else from the next change on.
            if known.insert(oid, cut).is_some_and(|before| before != cut)
                && let Some(table) = self.by_oid.get(&oid).and_then(|index| self.tables.get(*index))
            {
                self.described.entry(oid).or_insert_with(|| table.shape.clone());
            }
        }
    }

    fn hand_out(&mut self) -> Result<()> {
        self.ahead = self.open.is_some();
        for index in std::mem::take(&mut self.active) {
            let table = &mut self.tables[index];
            table.active = false;
            if let Some(batch) = table.buffer.as_mut().map(RowBuffer::cut).transpose()?.flatten() {
                self.ready.push_back(Decoded::Changes(batch));
            }
        }
        self.held_bytes = 0;
        Ok(())
    }

    #[inline]
    fn row(&mut self, kind: u8, body: &[u8], lsn: Lsn) -> Result<()> {
        let message = message::row(kind, body)?;
        let Some(open) = &mut self.open else {
            return Err(Error::corrupt("the log has a change outside a transaction"));
        };
        if open.skip {
            return Ok(());
        }
        let Some(index) = self.by_oid.get(&message.relation).copied() else {
            return Err(Error::corrupt("the log has a change of a table that it did not describe"));
        };
        let table = &mut self.tables[index];
        let Some(buffer) = &mut table.buffer else {
            open.row.ordinal += 1;
            return Ok(());
        };
        if table.unidentified && kind != tag::INSERT {
            return Err(unidentified(&table.shape, lsn));
        }
        open.row.lsn = lsn;
        let before = buffer.bytes();
        let appended = match kind {
            tag::INSERT => buffer.insert(&mut open.row, &message),
            tag::UPDATE => buffer.update(&mut open.row, &message),
            _ => buffer.delete(&mut open.row, &message),
        };
        self.held_bytes += buffer.bytes() - before;
        if !table.active {
            table.active = true;
            self.active.push(index);
        }
        if let Err(error) = appended {
            return Err(self.row_error(index, error, lsn));
        }
        if self.held_bytes >= self.options.flush_bytes_max {
            self.hand_out()?;
        }
        Ok(())
    }

    #[cold]
    fn row_error(&self, table: usize, error: RowError, lsn: Lsn) -> Error {
        let table = &self.tables[table];
        let error = match error {
            RowError::Format(error) => error,
            RowError::Binary => Error::schema(BINARY_REFUSED),
            RowError::Value(column, value) => {
                let name = table.buffer.as_ref().and_then(|buffer| buffer.column_name(column));
                let source_type = table.buffer.as_ref().and_then(|buffer| {
                    buffer.relation().columns().iter().find(|column| Some(column.name()) == name).map(|column| column.source_type.clone())
                });
                let error =
                    Error::data(value.problem).context("column", name.unwrap_or_default()).context("type", source_type.unwrap_or_default());
                match value.remedy {
                    Some(remedy) => error.remedy(remedy),
                    None => error.remedy("leave the column out with exclude_columns, or correct the row"),
                }
            }
        };
        error.context("relation", format!("{}.{}", table.shape.schema, table.shape.table)).context("position", lsn)
    }

    fn truncate(&mut self, relations: &[Oid], lsn: Lsn) -> Result<()> {
        let Some(open) = &mut self.open else {
            return Err(Error::corrupt("the log has a change outside a transaction"));
        };
        if open.skip {
            return Ok(());
        }
        open.row.lsn = lsn;
        for oid in relations {
            let index = self.by_oid.get(oid).copied();
            let index = index.ok_or_else(|| Error::corrupt("the log empties a table that it did not describe"))?;
            let table = &mut self.tables[index];
            let Some(buffer) = &mut table.buffer else {
                open.row.ordinal += 1;
                continue;
            };
            let before = buffer.bytes();
            buffer.truncate(&mut open.row);
            self.held_bytes += buffer.bytes() - before;
            if !table.active {
                table.active = true;
                self.active.push(index);
            }
        }
        Ok(())
    }

    /// Takes what was described last, now that a change of the table comes.
    #[inline]
    fn settle(&mut self, oid: Oid) -> Result<Flow> {
        if self.described.is_empty() || self.open.as_ref().is_none_or(|open| open.skip) {
            return Ok(Flow::Go);
        }
        let Some(shape) = self.described.remove(&oid) else { return Ok(Flow::Go) };
        let flow = self.relation(shape.clone())?;
        if flow != Flow::Go {
            self.described.insert(oid, shape);
        }
        Ok(flow)
    }

    /// Takes the description of a table.
    fn relation(&mut self, shape: RelationShape) -> Result<Flow> {
        let name = RelationName::new(&shape.schema, &shape.table);
        if !self.options.tables.accepts(&name) {
            self.install(shape, None)?;
            return Ok(Flow::Go);
        }
        if let Some(question) = self.question(&shape, &name) {
            return Ok(Flow::Ask(question));
        }
        // Where whole rows are logged, the key is the catalog's to say, and it is asked whenever the table is described.
        let key = self.keys.remove(&shape.oid);
        if let (Some(key), Some(known)) = (&key, &mut self.cut_keys) {
            known.insert(shape.oid, key.cut);
        }
        let cut = self.cut_keys.as_ref().is_some_and(|known| known.get(&shape.oid) == Some(&true));
        let key = key.filter(|_| shape.replica_identity == b'f');
        let unidentified = cut && shape.replica_identity != b'f';
        let whole_rows = key.as_ref().is_none_or(|key| key.whole_rows);
        let (relation, types, targets) = self.compile(&name, &shape, key.as_ref().map(|key| key.columns.as_slice()), cut)?;
        if relation.columns().is_empty() {
            self.install(shape, None)?;
            return Ok(Flow::Go);
        }
        let unchanged = self.by_oid.get(&shape.oid).and_then(|index| self.tables.get(*index)).is_some_and(|table| {
            table.shape == shape
                && table.unidentified == unidentified
                && table.buffer.as_ref().is_some_and(|buffer| buffer.is_of(&relation, whole_rows))
        });
        if !unchanged {
            // Before the new version is announced, what is of the old one.
            self.cut(&name)?;
            let recreated = self.announce(&name, shape.oid, &relation);
            let oid = shape.oid;
            let before_images = Pattern::any_matches(&self.options.before_images, &name);
            self.install(shape, Some(RowBuffer::new(relation, &types, targets, whole_rows, before_images)))?;
            self.tables[self.by_oid[&oid]].unidentified = unidentified;
            if recreated && let Some(open) = self.open.as_mut().filter(|open| !open.skip) {
                // The rows of the table that had the name are gone with it.
                let index = self.by_oid[&oid];
                if let Some(buffer) = &mut self.tables[index].buffer {
                    buffer.truncate(&mut open.row);
                    self.held_bytes += buffer.bytes();
                    self.tables[index].active = true;
                    self.active.push(index);
                }
            }
        }
        Ok(Flow::Go)
    }

    /// The description of a table by the catalog, for a backfill: the relation that its rows are of, and how their
    /// columns are read. Between two transactions only.
    pub(crate) fn describe(&mut self, shape: &RelationShape, key: Option<&[String]>, cut: bool) -> Result<Described> {
        let name = RelationName::new(&shape.schema, &shape.table);
        if let Some(question) = self.question_types(shape, &name) {
            return Ok(Described::Ask(question));
        }
        let (relation, types, _) = self.compile(&name, shape, key, cut)?;
        let mut recreated = false;
        if !relation.columns().is_empty() {
            self.cut(&name)?;
            recreated = self.announce(&name, shape.oid, &relation);
        }
        Ok(Described::Known { relation, types, recreated })
    }

    /// The tables that the log has described by this name.
    pub(crate) fn oids(&self, name: &RelationName) -> Vec<Oid> {
        let named = |table: &&Table| table.shape.schema == name.schema && table.shape.table == name.table;
        self.tables.iter().filter(named).map(|table| table.shape.oid).collect()
    }

    fn question_types(&self, shape: &RelationShape, name: &RelationName) -> Option<Question> {
        let mut types = Vec::new();
        for column in shape.columns.iter().filter(|column| self.options.tables.accepts_column(name, &column.name)) {
            types.extend(self.types.unknown(column.type_oid));
        }
        types.sort_unstable();
        types.dedup();
        (!types.is_empty()).then_some(Question { types, key_of: None })
    }

    fn question(&self, shape: &RelationShape, name: &RelationName) -> Option<Question> {
        let mut question = self.question_types(shape, name).unwrap_or_default();
        let installed = self.by_oid.get(&shape.oid).and_then(|index| self.tables.get(*index));
        let another = installed.is_some_and(|table| table.buffer.is_some() && table.shape != *shape);
        let unsure = self.cut_keys.as_ref().is_some_and(|known| another || !known.contains_key(&shape.oid));
        if (unsure || shape.replica_identity == b'f') && !self.keys.contains_key(&shape.oid) {
            question.key_of = Some(shape.oid);
        }
        (question != Question::default()).then_some(question)
    }

    /// Where the changes that follow stand.
    fn since(&self) -> LogPosition {
        match &self.open {
            Some(open) => LogPosition::new(self.options.incarnation, 0, open.row.commit_lsn.0, open.row.ordinal + 1, false),
            None => mark_position(self.options.incarnation, self.passed),
        }
    }

    /// The version with this shape, and how its rows are read.
    ///
    /// Of a key that is `cut`, only a part is published: then the table has none, and its rows are told apart by all their values.
    fn compile(&mut self, name: &RelationName, shape: &RelationShape, key: Option<&[String]>, cut: bool) -> Result<Plan> {
        let before = self.versions.get(name).and_then(|versions| versions.current.clone());
        let key = key.map(|key| key_of_its_time(key, shape, before.as_deref()));
        let key = key.as_deref();
        let mut columns: Vec<Column> = Vec::new();
        let mut types = Vec::new();
        let mut targets = Vec::with_capacity(shape.columns.len());
        let mut keys = Vec::new();
        for column in &shape.columns {
            let in_key = match key {
                _ if cut => false,
                Some(key) if shape.replica_identity == b'f' => key.contains(&column.name),
                _ => shape.replica_identity != b'f' && column.flags & 1 != 0,
            };
            if !self.options.tables.accepts_column(name, &column.name) {
                if in_key {
                    return Err(Error::config("a column of a table's key is left out")
                        .context("relation", name)
                        .context("column", &column.name)
                        .remedy("take it out of exclude_columns, or exclude the table"));
                }
                targets.push(Target { column: None, key: false, binary: true });
                continue;
            }
            let column_type = self.types.column_type(column.type_oid, column.typmod, self.options.types).also_called(self.former_names(
                column.type_oid,
                column.typmod,
                before.as_deref(),
            ));
            let index = columns.len();
            if in_key {
                keys.push(index);
            }
            columns.push(carried::column(&column.name, column.type_oid, column.typmod, column.flags, &column_type));
            targets.push(Target { column: Some(index), key: in_key, binary: column_type.is_binary() });
            types.push(column_type);
        }
        if let Some(key) = key {
            // In the key's own order.
            keys.sort_by_key(|index| key.iter().position(|name| name == columns[*index].name()));
        }
        stamp(&mut columns, shape.oid);
        if keys.is_empty() {
            // All columns stand in for one.
            targets.iter_mut().for_each(|target| target.key = target.column.is_some());
        }
        let since = self.since();
        let versions = self.versions.entry(name.clone()).or_default();
        let relation = versions.of(name, columns, keys, since).context("relation", name)?;
        Ok((relation, types, targets))
    }

    /// What a type was called by before its present name: by the log, whose changes may be older than that, and in the version before. A mask
    /// that knows it by such a name holds on.
    fn former_names(&self, oid: Oid, typmod: i32, before: Option<&Relation>) -> Vec<String> {
        if oid < FIRST_OWN_TYPE {
            return Vec::new();
        }
        let told = self.type_names.get(&oid).map(|(schema, name)| self.types.names_of_its_time(oid, schema, name));
        let mut names = told.unwrap_or_default();
        for (of, with, _, column_type) in before.iter().flat_map(|before| before.columns()).filter_map(carried::column_type_of) {
            if (of, with) == (oid, typmod) {
                names.push(column_type.source_type().to_owned());
                names.extend(column_type.may_be().iter().cloned());
            }
        }
        names
    }

    /// Makes a version known before its first change; true if the table is another one under the same name.
    fn announce(&mut self, name: &RelationName, oid: Oid, relation: &Arc<Relation>) -> bool {
        let had_another_name = |(other, versions): (&RelationName, &Versions)| {
            other != name && versions.current.as_deref().and_then(relation_oid) == Some(oid)
        };
        let renamed =
            self.versions.get(name).is_none_or(|versions| versions.current.is_none()) && self.versions.iter().any(had_another_name);
        if renamed {
            // Under this name nothing was landed yet.
            self.reshaped.push(Reshaped { oid, name: name.clone(), added: Vec::new(), retyped: false, recreated: true });
        }
        let versions = self.versions.entry(name.clone()).or_default();
        let mut recreated = false;
        if let Some(before) = versions.current.as_ref().filter(|before| !Arc::ptr_eq(before, relation)) {
            recreated = relation_oid(before).is_some_and(|before| before != oid);
            let mut added = Vec::new();
            let mut retyped = false;
            for column in relation.columns() {
                match before.columns().iter().find(|before| before.name() == column.name()) {
                    Some(before) => retyped |= is_retyped(&before.source_type, &column.source_type),
                    None => added.push(column.name().to_owned()),
                }
            }
            // A column that is new where another is gone may be that one under a new name.
            let is_gone = |before: &Column| !relation.columns().iter().any(|column| column.name() == before.name());
            retyped |= !added.is_empty() && before.columns().iter().any(is_gone);
            if recreated || retyped || !added.is_empty() {
                self.reshaped.push(Reshaped { oid, name: name.clone(), added, retyped, recreated });
            }
        }
        versions.current = Some(Arc::clone(relation));
        if versions.announced.insert(relation.version()) {
            self.ready.push_back(Decoded::Relation(Arc::clone(relation)));
        }
        recreated
    }

    /// Makes what is held of tables of this name ready.
    fn cut(&mut self, name: &RelationName) -> Result<()> {
        for index in std::mem::take(&mut self.active) {
            let table = &mut self.tables[index];
            let Some(buffer) = table.buffer.as_mut().filter(|buffer| buffer.relation().name() == name) else {
                self.active.push(index);
                continue;
            };
            table.active = false;
            self.ahead |= self.open.is_some();
            self.held_bytes -= buffer.bytes();
            self.ready.extend(buffer.cut()?.map(Decoded::Changes));
        }
        Ok(())
    }

    /// Puts a table in the place of what the log had described under its OID.
    fn install(&mut self, shape: RelationShape, buffer: Option<RowBuffer>) -> Result<()> {
        match self.by_oid.get(&shape.oid).copied() {
            Some(index) => {
                // It may have had another name.
                let before = self.tables[index].buffer.as_ref().map(|buffer| buffer.relation().name().clone());
                if let Some(before) = before {
                    self.cut(&before)?;
                }
                self.tables[index].shape = shape;
                self.tables[index].buffer = buffer;
                self.tables[index].unidentified = false;
            }
            None => {
                self.by_oid.insert(shape.oid, self.tables.len());
                self.tables.push(Table { shape, buffer, active: false, unidentified: false });
            }
        }
        Ok(())
    }
}

/// An update or delete that is of no known row. To carry it as one of a row without a key is no way out: of an update the log does
/// not have the old row then, which would stay, and of a delete only what is left of its key, which is no row's. Where inserts alone
/// are published none comes; from 18 on the server itself refuses it.
#[cold]
fn unidentified(shape: &RelationShape, lsn: Lsn) -> Error {
    Error::schema("of the key of a table a column is not published: the log does not say which row was updated or deleted")
        .context("relation", format!("{}.{}", shape.schema, shape.table))
        .context("position", lsn)
        .remedy(
            "run check, which has the statement that mends it, and start again; where the key was not whole when the row was changed, this \
             place of the log cannot be passed even then: begin the stream anew, or leave the table out of tables:",
        )
}

/// The key of a table at a place in the log: what the catalog says now, or what it was before where that does not fit the
/// columns of that time.
fn key_of_its_time(now: &[String], shape: &RelationShape, before: Option<&Relation>) -> Vec<String> {
    let fits = |key: &[String]| key.iter().all(|name| shape.columns.iter().any(|column| column.name == *name));
    if fits(now) {
        return now.to_vec();
    }
    let before = before
        .filter(|before| before.key_declared())
        .map_or_else(Vec::new, |before| before.key().iter().map(|index| before.columns()[*index].name().to_owned()).collect());
    if fits(&before) { before } else { Vec::new() }
}

/// True if a column's values may have changed with its type. A text of another greatest length is the same text.
fn is_retyped(before: &str, after: &str) -> bool {
    let is_text = |name: &str| name == "text" || (name.starts_with("character varying") && !name.ends_with("[]"));
    before != after && !(is_text(before) && is_text(after))
}

/// The first column says which table it is of: another one of the same name and shape is another relation.
fn stamp(columns: &mut [Column], oid: Oid) {
    if let Some(detail) = columns.first_mut().and_then(|column| column.detail.as_object_mut()) {
        detail.insert("relation".to_owned(), oid.into());
    }
}

fn relation_oid(relation: &Relation) -> Option<Oid> {
    let detail = &relation.columns().first()?.detail;
    detail.get("relation")?.as_u64().and_then(|oid| Oid::try_from(oid).ok())
}

type Plan = (Arc<Relation>, Vec<ColumnType>, Vec<Target>);

/// What came of the description of a table by the catalog.
pub(crate) enum Described {
    /// `recreated`: the name was another table's, whose rows are gone with it.
    Known {
        relation: Arc<Relation>,
        types: Vec<ColumnType>,
        recreated: bool,
    },
    Ask(Question),
}

/// The message of the error that a value in binary form gives whose column has none here: the log is to be read as text.
pub(crate) const BINARY_REFUSED: &str = "a value came in a binary form that is not known";

impl Versions {
    /// The version with this shape at this place.
    ///
    /// A number is given once: one of a reader before us that lies behind where we resume is a version of its own, also where we never come to
    /// it. What was there in its place then, the log says again; what the catalog said, it may say otherwise now.
    fn of(&mut self, name: &RelationName, columns: Vec<Column>, key: Vec<usize>, since: LogPosition) -> Result<Arc<Relation>> {
        let greatest = self.known.last().map_or(0, |known| known.version()).max(self.version);
        let relation = Relation::new(name.clone(), greatest.saturating_add(1), since, columns, key);
        if let Some(current) = self.current.as_ref().filter(|current| current.same_shape(&relation)) {
            return Ok(Arc::clone(current));
        }
        let is_it = |known: &&Arc<Relation>| known.version() > self.version && known.since() == since && known.same_shape(&relation);
        let relation = match self.known.iter().find(is_it) {
            Some(known) => Arc::clone(known),
            None if greatest >= VERSIONS_MAX => return Err(Error::schema("the shape of a table changes without end")),
            None => Arc::new(relation),
        };
        self.version = relation.version();
        Ok(relation)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
