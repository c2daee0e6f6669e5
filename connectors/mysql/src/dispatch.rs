//! What each event of a binlog means.
//!
//! Transactions begin with a GTID event or a BEGIN and end with an XID or a COMMIT; a statement outside of them is a
//! transaction by itself. Between, table maps compile into plans and rows events go through them. Whatever would make the
//! rows that are handed out wrong is an error that says what to change at the source.

use std::sync::Arc;

use logweir_core::{
    ChangeBatch, ChangeType, Error, LogPosition, MemoryPermit, MetadataBuilder, Relation, RelationName, Result, SourcePlace,
    TimestampMicros,
};

use crate::buffer::{Part, READ_METHOD, RowContext, RowError, Stop};
use crate::column::FULL_METADATA;
use crate::decoder::BinlogDecoder;
use crate::event::{self, EventHeader, Gtid, HEADER_LEN};
use crate::gtid::{MariadbGtidPosition, MysqlGtidSet};
use crate::offset::GtidState;
use crate::payload::{PayloadReader, inflate};
use crate::query::{Query, Statement, TableName};
use crate::reader::{Cursor, Truncated};
use crate::rows::{DUMMY_TABLE_ID, RowsHead, table_id};
use crate::table::{Compiled, Table};
use crate::table_map::{TableMap, TableMapError};

/// Table ids remembered at most: a server counts them up for ever.
const SLOTS_MAX: usize = 10_000;

/// Schemas of the servers themselves, followed only if a pattern names them.
const SYSTEM_SCHEMAS: [&str; 4] = ["mysql", "information_schema", "performance_schema", "sys"];

/// Whether to go on.
#[derive(Debug)]
pub(crate) enum Flow {
    Go,
    /// Not before the shape of this table is known.
    Ask(RelationName),
}

/// What a table id stands for.
#[derive(Debug)]
pub(crate) enum Slot {
    /// A table that is not wanted; with the names in its table map, to know it again.
    Skipped(Box<[u8]>),
    /// The plan with this generation of this table.
    Followed { table: usize, generation: u64 },
}

/// The transaction that is open.
#[derive(Debug)]
pub(crate) struct Transaction {
    /// Where it begins.
    start: u64,
    /// It ends with an event of its own.
    explicit: bool,
    /// Number of its last change.
    ordinal: u64,
    commit_time: TimestampMicros,
    gtid: Option<Gtid>,
    /// It is one phase of two.
    xa: bool,
    /// Changes of followed tables were met.
    rows: bool,
    /// Some were handed out already.
    handed_out: bool,
    /// Tables with changes in it.
    touched: Vec<usize>,
    savepoints: Vec<Savepoint>,
}

/// A place in a transaction that it may go back to.
#[derive(Debug)]
struct Savepoint {
    name: String,
    /// Number of the last change before it.
    ordinal: u64,
    /// Changes held of each table that had some.
    rows: Vec<(usize, usize)>,
    /// Changes behind it were handed out.
    passed: bool,
}

/// Savepoints remembered of a transaction at most.
const SAVEPOINTS_MAX: usize = 1000;

impl BinlogDecoder {
    /// Acts on an event that begins at `start` and ends at `end`. Asked again with the same event after `Flow::Ask`.
    pub(crate) fn dispatch(
        &mut self,
        header: &EventHeader,
        body: &[u8],
        start: u64,
        end: u64,
        now: TimestampMicros,
        nested: bool,
    ) -> Result<Flow> {
        use event::*;
        let truncated = |decoder: &Self| {
            decoder.at(Error::corrupt("an event is shorter than its type needs"), start).context("event", type_name(header.event_type))
        };
        match header.event_type {
            TABLE_MAP => return self.table_map(header, body, start),
            WRITE_ROWS_V1..=DELETE_ROWS_V1
            | WRITE_ROWS..=DELETE_ROWS
            | MARIADB_WRITE_ROWS_COMPRESSED_V1..=MARIADB_DELETE_ROWS_COMPRESSED => {
                self.rows(header, body, start, now)?;
            }
            PARTIAL_UPDATE_ROWS => self.partial_rows(body, start).map_err(|_| truncated(self))??,
            XID => self.end_transaction(end)?,
            XA_PREPARE => self.end_transaction(end)?,
            QUERY => {
                let query = Query::parse(body, 0).map_err(|_| truncated(self))?;
                return self.query(&query, header, start, end, now);
            }
            MARIADB_QUERY_COMPRESSED => {
                let (head, text) = Query::split(body, 0).map_err(|_| truncated(self))?;
                let mut inflated = std::mem::take(&mut self.inflated);
                let result = match inflate(text, &mut inflated) {
                    Ok(()) => self.query(&head.with_text(&inflated), header, start, end, now),
                    Err(error) => Err(self.at(Error::corrupt(error.reason()), start)),
                };
                self.keep_inflated(inflated);
                return result;
            }
            EXECUTE_LOAD_QUERY => {
                // File id, two offsets and how duplicates are treated.
                let query = Query::parse(body, 13).map_err(|_| truncated(self))?;
                return self.query(&query, header, start, end, now);
            }
            GTID | ANONYMOUS_GTID => {
                let gtid = MysqlGtid::parse(body).map_err(|_| truncated(self))?;
                let named = header.event_type == GTID;
                self.begin(header, start, Some(gtid.gtid).filter(|_| named), gtid.commit_micros)?;
            }
            GTID_TAGGED => {
                let gtid = MysqlGtid::parse_tagged(body).map_err(|_| truncated(self))?;
                self.begin(header, start, Some(gtid.gtid), gtid.commit_micros)?;
            }
            MARIADB_GTID => {
                let gtid = MariadbGtid::parse(body, header.server_id).map_err(|_| truncated(self))?;
                self.begin(header, start, Some(gtid.gtid), None)?;
                if let Some(transaction) = &mut self.transaction {
                    transaction.explicit = !gtid.standalone;
                    transaction.xa = gtid.xa;
                }
            }
            PREVIOUS_GTIDS if self.gtid.is_none() => {
                let set = previous_gtids(body).map_err(|_| truncated(self))?;
                self.gtid = Some(GtidState::Mysql(MysqlGtidSet::parse(&set)?));
            }
            // The list of a file that is not read from its beginning on says nothing of the place where reading began.
            MARIADB_GTID_LIST if self.gtid.is_none() && !header.is_artificial() && !self.live => {
                let position = gtid_list(body).map_err(|_| truncated(self))?;
                self.gtid = Some(GtidState::Mariadb(MariadbGtidPosition::parse(&position)?));
            }
            TRANSACTION_PAYLOAD if !nested => return self.payload(body, start, end, now),
            ROTATE => {
                let rotate = Rotate::parse(body).map_err(|_| truncated(self))?;
                let file = std::str::from_utf8(rotate.file).map_err(|_| truncated(self))?;
                self.abandon()?;
                // Of a recording the next file may be called otherwise, or not be there yet: its reader says when it comes.
                if self.live {
                    self.enter_file(file, rotate.position)?;
                }
            }
            INCIDENT => {
                return Err(self
                    .at(Error::log_gone("the server notes in its log that changes were lost"), start)
                    .remedy(self.start_behind("take a new copy of the tables")));
            }
            // A server that encrypts its files says so, and sends what it has decrypted.
            MARIADB_START_ENCRYPTION if self.live => {}
            MARIADB_START_ENCRYPTION => {
                return Err(self
                    .at(Error::config("the binlog file is encrypted"), start)
                    .remedy("read it from the server, which decrypts it, instead of from files"));
            }
            STOP
            | INTVAR
            | APPEND_BLOCK
            | DELETE_FILE
            | RAND
            | USER_VAR
            | BEGIN_LOAD_QUERY
            | HEARTBEAT
            | IGNORABLE
            | ROWS_QUERY
            | PREVIOUS_GTIDS
            | TRANSACTION_CONTEXT
            | VIEW_CHANGE
            | HEARTBEAT_V2
            | MARIADB_ANNOTATE_ROWS
            | MARIADB_BINLOG_CHECKPOINT
            | MARIADB_GTID_LIST => {}
            _ if header.flags & FLAG_IGNORABLE != 0 => {}
            unknown => {
                return Err(self
                    .at(Error::corrupt("the log has an event that is not known here"), start)
                    .context("event", format!("{} ({unknown})", type_name(unknown))));
            }
        }
        Ok(Flow::Go)
    }

    /// A transaction begins, or goes on after what only announced it.
    fn begin(&mut self, header: &EventHeader, start: u64, gtid: Option<Gtid>, micros: Option<i64>) -> Result<()> {
        if let Some(open) = &self.transaction
            && open.rows
        {
            return Err(self.at(Error::corrupt("a transaction begins inside of another one"), start));
        }
        self.end_without_rows(start);
        let time = TimestampMicros(micros.unwrap_or(i64::from(header.timestamp) * 1_000_000));
        self.transaction_name.clear();
        if let Some(gtid) = &gtid {
            gtid.write(&mut self.transaction_name);
        }
        self.transaction = Some(Transaction {
            start,
            explicit: false,
            ordinal: 0,
            commit_time: self.commit_time.map_or(time, |reached| reached.max(time)),
            gtid,
            xa: false,
            rows: false,
            handed_out: false,
            touched: Vec::new(),
            savepoints: Vec::new(),
        });
        Ok(())
    }

    /// The transaction, begun here if none is open.
    fn ensure_transaction(&mut self, header: &EventHeader, start: u64, explicit: bool) -> Result<()> {
        if self.transaction.is_none() {
            self.begin(header, start, None, None)?;
        }
        if let Some(transaction) = &mut self.transaction {
            transaction.explicit |= explicit;
        }
        Ok(())
    }

    fn end_without_rows(&mut self, end: u64) {
        if let Some(Transaction { gtid, .. }) = self.transaction.take() {
            self.passed(gtid);
            self.whole_until = end;
            self.whole = true;
        }
    }

    fn passed(&mut self, gtid: Option<Gtid>) {
        match (gtid, &mut self.gtid) {
            (Some(Gtid::Mysql { uuid, tag, number }), Some(GtidState::Mysql(set))) => set.add(uuid, &tag, number),
            (Some(Gtid::Mariadb { domain, server, sequence }), Some(GtidState::Mariadb(position))) => {
                position.set(domain, server, sequence)
            }
            _ => {}
        }
    }

    fn end_transaction(&mut self, end: u64) -> Result<()> {
        let Some(transaction) = self.transaction.take() else { return Ok(()) };
        if transaction.rows {
            self.commit_time = Some(transaction.commit_time);
        }
        for index in transaction.touched {
            if let Some(table) = self.tables.get_mut(index) {
                table.commit();
            }
        }
        self.passed(transaction.gtid);
        self.whole_until = end;
        self.whole = true;
        if self.held_bytes >= self.options.flush_bytes {
            self.hand_out(false)?;
        }
        Ok(())
    }

    /// The log ends inside of a transaction, or takes it back: none of it ever happened.
    pub(crate) fn abandon(&mut self) -> Result<()> {
        let Some(transaction) = self.transaction.take() else { return Ok(()) };
        if transaction.handed_out {
            let error = Error::corrupt("the log ends inside of a transaction whose first changes were handed out already");
            return Err(self.at(error, transaction.start).remedy("restart the stream: it goes on from its last checkpoint"));
        }
        for index in transaction.touched {
            if let Some(table) = self.tables.get_mut(index) {
                table.roll_back()?;
            }
        }
        self.held_bytes = self.active.iter().filter_map(|index| self.tables.get(*index)).map(Table::bytes).sum();
        Ok(())
    }

    /// True if changes of the table are wanted.
    fn follows(&self, name: &RelationName) -> bool {
        let filter = &self.options.tables;
        if SYSTEM_SCHEMAS.contains(&name.schema.as_str()) {
            let named = |text: &str| text.strip_prefix(name.schema.as_str()).is_some_and(|rest| rest.starts_with('.'));
            if !filter.include.iter().any(|pattern| named(pattern.as_str())) {
                return false;
            }
        }
        filter.accepts(name)
    }

    /// The table of this name, new if it was never met.
    fn table(&mut self, name: RelationName) -> usize {
        if let Some(index) = self.by_name.get(&name) {
            return *index;
        }
        let index = self.tables.len();
        self.by_name.insert(name.clone(), index);
        self.tables.push(Table::new(name, Vec::new(), None, &self.options.before_images));
        index
    }

    fn table_map(&mut self, header: &EventHeader, body: &[u8], start: u64) -> Result<Flow> {
        let Some(format) = self.format else { return Ok(Flow::Go) };
        let mut cursor = Cursor::new(body);
        let corrupt = |decoder: &Self, problem: &'static str| decoder.at(Error::corrupt(problem), start);
        let id = table_id(&mut cursor, &format).map_err(|_| corrupt(self, "a table map is too short"))?;
        cursor.skip(2).map_err(|_| corrupt(self, "a table map is too short"))?;
        let map = cursor.rest();
        // The way of nearly every table map: the same as last time.
        match self.slots.get(&id) {
            Some(Slot::Skipped(names)) if map.starts_with(names) => return Ok(Flow::Go),
            Some(Slot::Followed { table, generation })
                if self.tables.get(*table).is_some_and(|table| table.generation == *generation && table.is_compiled_from(map)) =>
            {
                return self.ensure_transaction(header, start, true).map(|()| Flow::Go);
            }
            _ => {}
        }
        if self.slots.len() >= SLOTS_MAX && self.transaction.as_ref().is_none_or(|transaction| !transaction.rows) {
            self.slots.clear();
        }
        let malformed = |decoder: &Self, error: TableMapError, name: Option<&RelationName>| {
            let error = match error {
                TableMapError::Truncated => corrupt(decoder, "a table map is too short"),
                TableMapError::Name => corrupt(decoder, "a name in a table map is not UTF-8"),
                TableMapError::Columns => corrupt(decoder, "a table map has an impossible number of columns"),
                TableMapError::Type(code) => {
                    decoder.at(Error::schema("a column has a type not known here"), start).context("type", code).remedy("exclude the table")
                }
            };
            match name {
                Some(name) => error.context("relation", name),
                None => error,
            }
        };
        let (schema, table) = TableMap::names(map).map_err(|error| malformed(self, error, None))?;
        let names_len = schema.len() + table.len() + 4;
        let name = RelationName::new(schema, table);
        let skipped = || Slot::Skipped(map.get(..names_len).unwrap_or_default().into());
        if !self.follows(&name) {
            self.slots.insert(id, skipped());
            return Ok(Flow::Go);
        }
        self.ensure_transaction(header, start, true)?;
        let since = self.next_position();
        let index = self.table(name);
        let Some(table) = self.tables.get(index) else { return Ok(Flow::Go) };
        if !table.is_compiled_from(map) {
            let parsed = TableMap::parse(map, &format).map_err(|error| malformed(self, error, Some(&table.name)))?;
            let (file, event_end, has_catalog) = (self.file.clone(), self.event_end, self.options.has_catalog);
            let Some(table) = self.tables.get_mut(index) else { return Ok(Flow::Go) };
            let compiled = table.compile(map, &parsed, since, &self.options.tables, has_catalog);
            let behind = |error: Error| match error.get_remedy() {
                Some(FULL_METADATA) => error.remedy(start_behind(FULL_METADATA, &file, event_end)),
                _ => error,
            };
            match compiled.map_err(|error| behind(error).context("file", &file).context("position", start))? {
                Compiled::Ready => {}
                Compiled::Nothing => {
                    self.slots.insert(id, skipped());
                    return Ok(Flow::Go);
                }
                Compiled::NeedsShape => return Ok(Flow::Ask(table.name.clone())),
            }
        }
        if let Some(table) = self.tables.get(index) {
            self.slots.insert(id, Slot::Followed { table: index, generation: table.generation });
        }
        Ok(Flow::Go)
    }

    /// The position of the next change of the open transaction.
    fn next_position(&self) -> LogPosition {
        let (start, ordinal) = self.transaction.as_ref().map_or((self.offset, 0), |transaction| (transaction.start, transaction.ordinal));
        LogPosition::new(self.options.incarnation, self.file_number, start, ordinal + 1, false)
    }

    fn rows(&mut self, header: &EventHeader, body: &[u8], start: u64, now: TimestampMicros) -> Result<()> {
        let Some(format) = self.format else { return Ok(()) };
        let mut cursor = Cursor::new(body);
        let Some(head) = RowsHead::parse(header.event_type, &mut cursor, &format) else { return Ok(()) };
        let head = head.map_err(|_| self.at(Error::corrupt("a rows event is too short"), start))?;
        let (index, generation) = match self.slots.get(&head.table_id) {
            Some(Slot::Skipped(_)) => return Ok(()),
            Some(Slot::Followed { table, generation }) => (*table, *generation),
            None if head.table_id == DUMMY_TABLE_ID => return Ok(()),
            None => {
                return Err(self
                    .at(Error::corrupt("rows come without a map of their table"), start)
                    .remedy("if a position was configured as the start, choose one where a transaction begins"));
            }
        };
        self.ensure_transaction(header, start, true)?;
        if !head.compressed {
            return self.append(index, generation, &head, cursor, start, now);
        }
        let mut inflated = std::mem::take(&mut self.inflated);
        let result = match inflate(cursor.rest(), &mut inflated) {
            Ok(()) => self.append(index, generation, &head, Cursor::new(&inflated), start, now),
            Err(error) => Err(self.at(Error::corrupt(error.reason()), start)),
        };
        self.keep_inflated(inflated);
        result
    }

    /// Appends the rows of an event, handing out what is held whenever that becomes too much.
    fn append(
        &mut self,
        index: usize,
        generation: u64,
        head: &RowsHead<'_>,
        mut cursor: Cursor<'_>,
        start: u64,
        now: TimestampMicros,
    ) -> Result<()> {
        loop {
            let finished = self.append_some(index, generation, head, &mut cursor, start, now)?;
            if !finished || self.held_bytes >= self.options.flush_bytes_max {
                if let Some(transaction) = &mut self.transaction {
                    transaction.handed_out = true;
                    for savepoint in &mut transaction.savepoints {
                        savepoint.passed |= savepoint.ordinal < transaction.ordinal;
                    }
                }
                self.hand_out(true)?;
            }
            if finished {
                return Ok(());
            }
        }
    }

    /// Appends rows until the end of the event, which is true, or until the buffer is full.
    fn append_some(
        &mut self,
        index: usize,
        generation: u64,
        head: &RowsHead<'_>,
        cursor: &mut Cursor<'_>,
        start: u64,
        now: TimestampMicros,
    ) -> Result<bool> {
        let (Some(transaction), Some(table)) = (&mut self.transaction, self.tables.get_mut(index)) else { return Ok(true) };
        let file = &self.file;
        let place = |error: Error, name: &RelationName| error.context("relation", name).context("file", file).context("position", start);
        if transaction.xa {
            return Err(place(Error::config("changes of a table come in an XA transaction, which is not supported"), &table.name)
                .remedy("exclude the table, or write to it without XA"));
        }
        if table.generation != generation || table.buffer.as_ref().is_none_or(|buffer| buffer.width() != head.columns) {
            return Err(place(Error::corrupt("rows do not fit the map of their table"), &table.name));
        }
        transaction.rows = true;
        if !table.touched {
            table.touched = true;
            transaction.touched.push(index);
        }
        if !table.active {
            table.active = true;
            self.active.push(index);
        }
        let mut row = RowContext {
            incarnation: self.options.incarnation,
            file: self.file_number,
            commit: transaction.start,
            ordinal: transaction.ordinal,
            half_done: false,
            skip_through: self.options.skip_through,
            commit_time: transaction.commit_time,
            read_time: now,
            file_name: file,
            event_offset: start,
            transaction: (!self.transaction_name.is_empty()).then_some(self.transaction_name.as_str()),
        };
        loop {
            let Some(buffer) = &mut table.buffer else { return Ok(true) };
            let before = buffer.bytes();
            let stop = buffer.append(head, cursor, &mut row, &mut self.scratch, self.options.flush_bytes_max);
            self.held_bytes += buffer.bytes() - before;
            transaction.ordinal = row.ordinal;
            match stop {
                Ok(Stop::End) => return Ok(true),
                Ok(Stop::Full) => return Ok(false),
                Ok(Stop::Srid(srids)) => {
                    let ordinal = row.ordinal + u64::from(!row.half_done);
                    let since = LogPosition::new(row.incarnation, row.file, row.commit, ordinal, row.half_done);
                    table.change_srids(&srids, since)?;
                }
                Err(error) => {
                    let name = &table.name;
                    let column = |index| buffer.column_name(index).unwrap_or_default();
                    let full_image = "run SET GLOBAL binlog_row_image = FULL on the server, let sessions reconnect";
                    let full_image = start_behind(full_image, file, self.event_end);
                    return Err(match error {
                        RowError::Truncated => place(Error::corrupt("rows do not fit the map of their table"), name),
                        RowError::Value(index, error) => place(Error::data(error.reason()), name).context("column", column(index)),
                        RowError::Default(index) => {
                            place(Error::config("an insert leaves out a column, whose default the binlog does not hold"), name)
                                .context("column", column(index))
                                .remedy(full_image)
                        }
                        RowError::Key(index) => place(Error::config("a change leaves out a column of the table's key"), name)
                            .context("column", column(index))
                            .remedy(full_image),
                    });
                }
            }
        }
    }

    /// PARTIAL_UPDATE_ROWS holds differences of JSON documents, not documents.
    fn partial_rows(&self, body: &[u8], start: u64) -> Result<Result<()>, Truncated> {
        let Some(format) = self.format else { return Ok(Ok(())) };
        let id = table_id(&mut Cursor::new(body), &format)?;
        let Some(Slot::Followed { table, .. }) = self.slots.get(&id) else { return Ok(Ok(())) };
        let mut error = self.at(Error::config("the binlog holds parts of JSON documents"), start);
        if let Some(table) = self.tables.get(*table) {
            error = error.context("relation", &table.name);
        }
        let remedy = "run SET GLOBAL binlog_row_value_options = '' on the server, let sessions reconnect";
        Ok(Err(error.remedy(self.start_behind(remedy))))
    }

    fn payload(&mut self, body: &[u8], start: u64, end: u64, now: TimestampMicros) -> Result<Flow> {
        let corrupt = |decoder: &Self, reason: &'static str| decoder.at(Error::corrupt(reason), start);
        let mut reader = match self.payload.take() {
            Some(reader) => reader,
            None => PayloadReader::new(body).map_err(|error| corrupt(self, error.reason()))?,
        };
        loop {
            let Some(event) = reader.event(body).map_err(|error| corrupt(self, error.reason()))? else { return Ok(Flow::Go) };
            let Some((header, body)) = event.split_first_chunk::<HEADER_LEN>() else { return Ok(Flow::Go) };
            if let Flow::Ask(relation) = self.dispatch(&EventHeader::parse(header), body, start, end, now, true)? {
                self.payload = Some(reader);
                return Ok(Flow::Ask(relation));
            }
            reader.consume();
        }
    }

    fn query(&mut self, query: &Query<'_>, header: &EventHeader, start: u64, end: u64, now: TimestampMicros) -> Result<Flow> {
        let rows = self.transaction.as_ref().is_some_and(|transaction| transaction.rows);
        let explicit = self.transaction.as_ref().is_some_and(|transaction| transaction.explicit);
        match query.statement() {
            Statement::Begin => return self.ensure_transaction(header, start, true).map(|()| Flow::Go),
            Statement::XaStart => {
                self.ensure_transaction(header, start, true)?;
                if let Some(transaction) = &mut self.transaction {
                    transaction.xa = true;
                }
                return Ok(Flow::Go);
            }
            Statement::Commit => {
                self.end_transaction(end)?;
                return Ok(Flow::Go);
            }
            Statement::Savepoint(name) => {
                if explicit {
                    self.set_savepoint(name);
                    return Ok(Flow::Go);
                }
            }
            Statement::RollbackTo(name) => {
                if rows {
                    self.roll_back_to(&name, start)?;
                }
                return Ok(Flow::Go);
            }
            Statement::Rollback if rows => {
                return Err(self
                    .at(Error::config("changes were logged and then rolled back: some of them are of tables without transactions"), start)
                    .remedy("use InnoDB tables, and not together with others in one transaction"));
            }
            Statement::Rollback => {
                self.end_transaction(end)?;
                return Ok(Flow::Go);
            }
            Statement::Truncate(name) => {
                if let Flow::Ask(relation) = self.truncate(name, header, start, now)? {
                    return Ok(Flow::Ask(relation));
                }
            }
            Statement::Dml(names) => self.refuse_dml(&names, query.schema, start)?,
            Statement::Ddl(names) => self.forget(&names),
            Statement::Unlogged(unlogged) => {
                self.empty(&unlogged.emptied, header, start, now)?;
                self.warn_of_unlogged(&unlogged.changed, start);
                self.forget(&unlogged.names);
            }
            Statement::XaEnd | Statement::Other => {}
        }
        if !explicit {
            // A transaction by itself.
            self.ensure_transaction(header, start, false)?;
            self.end_transaction(end)?;
        }
        Ok(Flow::Go)
    }

    fn truncate(&mut self, name: TableName, header: &EventHeader, start: u64, now: TimestampMicros) -> Result<Flow> {
        let name = RelationName::new(name.schema, name.table);
        if !self.follows(&name) {
            return Ok(Flow::Go);
        }
        self.ensure_transaction(header, start, false)?;
        let since = self.next_position();
        let index = if self.options.has_catalog {
            self.table(name)
        } else {
            // Of a table that was never met nothing can be carried, and nothing was.
            let Some(index) = self.by_name.get(&name) else { return Ok(Flow::Go) };
            *index
        };
        let Some(table) = self.tables.get_mut(index) else { return Ok(Flow::Go) };
        let relation = match table.current() {
            Some(relation) => Arc::clone(relation),
            None if !self.options.has_catalog => return Ok(Flow::Go),
            None if !table.was_asked() => return Ok(Flow::Ask(table.name.clone())),
            None => match table.describe_relation(since, &self.options.tables)? {
                Some(relation) => relation,
                None => return Ok(Flow::Go),
            },
        };
        self.append_truncate(index, &relation, start, now)?;
        Ok(Flow::Go)
    }

    /// The rows that were under these names are gone: for every followed table that has a shape, a truncate.
    fn empty(&mut self, names: &[TableName], header: &EventHeader, start: u64, now: TimestampMicros) -> Result<()> {
        for name in names {
            let emptied = |table: &RelationName| table.schema == name.schema && (name.table.is_empty() || table.table == name.table);
            let mut found: Vec<(RelationName, usize)> = Vec::new();
            found.extend(self.by_name.iter().filter(|(table, _)| emptied(table)).map(|(table, index)| (table.clone(), *index)));
            // In an order that the next run has, too.
            found.sort();
            for (table, index) in found {
                let relation = self.tables.get(index).and_then(|table| table.current().map(Arc::clone));
                if let Some(relation) = relation.filter(|_| self.follows(&table)) {
                    self.ensure_transaction(header, start, false)?;
                    self.append_truncate(index, &relation, start, now)?;
                }
            }
        }
        Ok(())
    }

    /// Rows that came or went without being logged cannot be carried; that must not go by in silence.
    fn warn_of_unlogged(&self, names: &[TableName], start: u64) {
        for name in names {
            let name = RelationName::new(&name.schema, &name.table);
            if self.follows(&name) {
                tracing::warn!(
                    relation = %name,
                    file = %self.file,
                    position = start,
                    "rows came into the table or left it by RENAME, partition maintenance or tablespace: the binlog does not hold them"
                );
            }
        }
    }

    fn set_savepoint(&mut self, name: String) {
        let Some(transaction) = &mut self.transaction else { return };
        // A savepoint of the same name moves here.
        transaction.savepoints.retain(|savepoint| !savepoint.name.eq_ignore_ascii_case(&name));
        if transaction.savepoints.len() >= SAVEPOINTS_MAX {
            transaction.savepoints.remove(0);
        }
        let rows = |index: &usize| Some((*index, self.tables.get(*index)?.open_rows()));
        let rows = transaction.touched.iter().filter_map(rows).collect();
        transaction.savepoints.push(Savepoint { name, ordinal: transaction.ordinal, rows, passed: false });
    }

    /// What was logged behind a savepoint never happened. MariaDB logs that, and the changes, where the transaction also used a
    /// temporary table. Their numbers are not given again, so that others keep theirs whatever was handed out before a fault.
    fn roll_back_to(&mut self, name: &str, start: u64) -> Result<()> {
        let Some(transaction) = &mut self.transaction else { return Ok(()) };
        let position = |ordinal| LogPosition::new(self.options.incarnation, self.file_number, transaction.start, ordinal, true);
        let (now, skipped) = (position(transaction.ordinal), self.options.skip_through);
        let found = transaction.savepoints.iter().rposition(|savepoint| savepoint.name.eq_ignore_ascii_case(name));
        let Some(savepoint) = found.and_then(|found| transaction.savepoints.get(found)) else {
            return Err(self
                .at(Error::config("rows were logged and rolled back to a savepoint that is not in the log"), start)
                .remedy(self.start_behind("use no temporary tables in transactions with savepoints")));
        };
        // Handed out before a fault counts, too; but if more than that was, the rollback had been passed.
        let before_fault = skipped.is_some_and(|through| position(savepoint.ordinal) < through && through <= now);
        if savepoint.passed || before_fault {
            return Err(self
                .at(Error::config("rows were logged and rolled back to a savepoint, in a transaction too large to be held back"), start)
                .remedy(self.start_behind("use no temporary tables in large transactions with savepoints")));
        }
        for index in &transaction.touched {
            let rows = savepoint.rows.iter().find(|(table, _)| table == index).map_or(0, |(_, rows)| *rows);
            if let Some(table) = self.tables.get_mut(*index) {
                table.roll_back_to(rows)?;
            }
        }
        transaction.savepoints.truncate(found.map_or(0, |found| found + 1));
        self.held_bytes = self.active.iter().filter_map(|index| self.tables.get(*index)).map(Table::bytes).sum();
        Ok(())
    }

    fn start_behind(&self, remedy: &str) -> String {
        start_behind(remedy, &self.file, self.event_end)
    }

    fn append_truncate(&mut self, index: usize, relation: &Arc<Relation>, start: u64, now: TimestampMicros) -> Result<()> {
        let (Some(transaction), Some(table)) = (&mut self.transaction, self.tables.get_mut(index)) else { return Ok(()) };
        transaction.ordinal += 1;
        let position = LogPosition::new(self.options.incarnation, self.file_number, transaction.start, transaction.ordinal, true);
        if self.options.skip_through.is_some_and(|through| position <= through) {
            return Ok(());
        }
        table.cut()?;
        let mut metadata = MetadataBuilder::new(READ_METHOD);
        let place = SourcePlace {
            log_position: start,
            log_file: Some(metadata.intern_file(&self.file)),
            transaction: (!self.transaction_name.is_empty()).then(|| metadata.intern_transaction(&self.transaction_name)),
        };
        metadata.push(transaction.commit_time, position, ChangeType::Truncate, now, place);
        let mut columns: Vec<_> =
            relation.columns().iter().map(|column| arrow_array::new_null_array(column.field.data_type(), 1)).collect();
        columns.extend(metadata.finish());
        let records = arrow_array::RecordBatch::try_new(Arc::clone(relation.schema()), columns)
            .map_err(|error| Error::internal("could not put a truncate together").context("relation", relation.name()).source(error))?;
        let memory = Arc::new(MemoryPermit::uncounted());
        let bytes = 256 + 16 * relation.columns().len();
        let batch = ChangeBatch { relation: Arc::clone(relation), records, unchanged: None, before: None, last: position, memory };
        table.parts.push(Part { batch, committed: 0, bytes });
        self.held_bytes += bytes;
        transaction.rows = true;
        if !table.touched {
            table.touched = true;
            transaction.touched.push(index);
        }
        if !table.active {
            table.active = true;
            self.active.push(index);
        }
        Ok(())
    }

    /// A statement that changes rows although rows should be logged.
    fn refuse_dml(&self, names: &[TableName], schema: &str, start: u64) -> Result<()> {
        let mut concerned = names.iter().map(|name| RelationName::new(&name.schema, &name.table)).filter(|name| self.follows(name));
        let error = Error::config("the binlog holds a statement instead of the rows it changed");
        let error = match concerned.next() {
            Some(name) => error.context("relation", name),
            // Which tables is not told: any of the default database, then.
            None if names.is_empty() && self.follows_any_of(schema) => error.context("schema", schema),
            None => return Ok(()),
        };
        let remedy = "run SET GLOBAL binlog_format = 'ROW' on the server, let sessions reconnect";
        Err(self.at(error, start).remedy(self.start_behind(remedy)))
    }

    fn follows_any_of(&self, schema: &str) -> bool {
        let filter = &self.options.tables;
        let system = SYSTEM_SCHEMAS.contains(&schema);
        if filter.include.is_empty() {
            return !system && !schema.is_empty();
        }
        let own = |text: &str| text.split_once('.').map_or(text, |(schema, _)| schema).to_owned();
        filter.include.iter().any(|pattern| logweir_core::Pattern::new(own(pattern.as_str())).matches(schema) && !system)
    }

    /// The shapes of these tables (of all, if none is named) may have changed.
    fn forget(&mut self, names: &[TableName]) {
        for table in &mut self.tables {
            // Whether names are case-sensitive is the server's secret; to ask once too often does no harm.
            let named = |name: &TableName| match name.table.as_str() {
                "" => name.schema.eq_ignore_ascii_case(&table.name.schema),
                named => named.eq_ignore_ascii_case(&table.name.table),
            };
            if names.is_empty() || names.iter().any(named) {
                table.forget();
            }
        }
    }

    fn keep_inflated(&mut self, mut inflated: Vec<u8>) {
        inflated.clear();
        inflated.shrink_to(1 << 20);
        self.inflated = inflated;
    }
}

/// A remedy for what stands in the log and cannot be read: what to do, and where to go on.
fn start_behind(remedy: &str, file: &str, end: u64) -> String {
    format!("{remedy}; then start at {file}:{end} with an empty state directory (what lies before is not carried)")
}
