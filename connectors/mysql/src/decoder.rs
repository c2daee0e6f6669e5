//! Decodes a binlog into Arrow batches. No I/O: bytes in, events out.
//!
//! Bytes come in any cut; events are taken from them where they lie, and only one that is cut in two is put together in a
//! buffer. What the events mean is in `dispatch`. Here is what surrounds it: framing, checksums, where an event stands in
//! its file, and when changes are handed out. They are cut at the end of a transaction and followed by a mark; a transaction
//! too large for that is cut inside, without one.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use logweir_core::{
    Error, Incarnation, LogEvent, LogMark, LogPosition, Pattern, Relation, RelationName, Result, SourceOffset, TableFilter, TimestampMicros,
};

use crate::catalog::TableShape;
use crate::dispatch::{Flow, Slot, Transaction};
use crate::event::{self, EVENT_BYTES_MAX, EventHeader, HEADER_LEN, Rotate};
use crate::format::{CHECKSUM_LEN, Format, checksum_fits};
use crate::offset::{BinlogOffset, GtidState, file_number};
use crate::payload::PayloadReader;
use crate::step::Scratch;
use crate::table::Table;

/// What a binlog file begins with.
const MAGIC: [u8; 4] = [0xfe, b'b', b'i', b'n'];

/// A buffer for cut events larger than this is given back.
const PENDING_KEPT_BYTES: usize = 1 << 20;

/// How a decoder is set up.
#[derive(Debug, Clone)]
pub struct DecoderOptions {
    /// The tables and columns wanted; others are skipped undecoded.
    pub tables: TableFilter,
    /// The tables of whose updates the rows as they were before are handed out too.
    pub before_images: Vec<Pattern>,
    /// First word of every position.
    pub incarnation: Incarnation,
    /// The mark to go on from: positions, timestamps and versions continue from it.
    pub resume: Option<LogMark>,
    /// Relation versions known from the checkpoint.
    pub relations: Vec<Arc<Relation>>,
    /// True if a server can be asked for the shape of a table: then `decode` asks once for every table (and again after
    /// a DDL statement that may touch it), unless the checkpoint's relation says the same as the log. False for recordings.
    pub has_catalog: bool,
    /// Bytes held in builders at which batches are cut, at the end of the transaction.
    pub flush_bytes: usize,
    /// Bytes held in builders at which batches are cut even inside a transaction (without a mark).
    pub flush_bytes_max: usize,
    /// The transactions before the start, where they are known to the last one; marks then carry the state on. `None`: it
    /// is learned where a file begins, from the list every file begins with.
    pub gtid: Option<GtidState>,
    /// Changes at or before this position were handed out already (inside a transaction, before a fault) and are not
    /// decoded again.
    pub skip_through: Option<LogPosition>,
    /// The server's identity, put into marks.
    pub server: Option<String>,
}

impl Default for DecoderOptions {
    /// Every table of a recording.
    fn default() -> Self {
        DecoderOptions {
            tables: TableFilter::all(),
            before_images: Vec::new(),
            incarnation: 0,
            resume: None,
            relations: Vec::new(),
            has_catalog: false,
            flush_bytes: 8 << 20,
            flush_bytes_max: 32 << 20,
            gtid: None,
            skip_through: None,
            server: None,
        }
    }
}

/// What came of a call of [`BinlogDecoder::decode`].
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded {
    /// Every byte was taken (an incomplete event is kept until the rest of it comes).
    All,
    /// Nothing more is taken until [`BinlogDecoder::provide_shape`] was called for this relation; then call `decode`
    /// again with the bytes from `consumed` on.
    NeedsShape {
        /// The table.
        relation: RelationName,
        /// Bytes taken.
        consumed: usize,
    },
}

/// A binlog decoder: give it bytes in any cut, take events.
#[derive(Debug)]
pub struct BinlogDecoder {
    pub(crate) options: DecoderOptions,
    ready: VecDeque<LogEvent>,
    /// The beginning of an event whose end has not come.
    pending: Vec<u8>,
    failed: Option<Error>,
    /// Bytes of the magic number still to come.
    magic_left: usize,
    pub(crate) file: String,
    pub(crate) file_number: u32,
    /// Where the next event begins.
    pub(crate) offset: u64,
    /// Where the event that is read ends.
    pub(crate) event_end: u64,
    /// The bytes are a conversation with a server: it leaves events out and says where the others end.
    pub(crate) live: bool,
    pub(crate) format: Option<Format>,
    pub(crate) tables: Vec<Table>,
    pub(crate) by_name: HashMap<RelationName, usize>,
    /// What the table ids of the current statements stand for.
    pub(crate) slots: HashMap<u64, Slot>,
    /// Tables with changes that were not handed out.
    pub(crate) active: Vec<usize>,
    pub(crate) transaction: Option<Transaction>,
    /// Name of the open transaction, written when a change needs it.
    pub(crate) transaction_name: String,
    /// The greatest commit time of a whole transaction with changes.
    pub(crate) commit_time: Option<TimestampMicros>,
    pub(crate) gtid: Option<GtidState>,
    /// The place in the file that no open transaction lies before.
    pub(crate) whole_until: u64,
    /// A transaction became whole since the last mark.
    pub(crate) whole: bool,
    /// Bytes held in buffers and parts.
    pub(crate) held_bytes: usize,
    /// Where reading a compressed transaction waits for the shape of a table.
    pub(crate) payload: Option<PayloadReader>,
    pub(crate) scratch: Scratch,
    pub(crate) inflated: Vec<u8>,
}

impl BinlogDecoder {
    /// A decoder at the start of `file` (a binlog file's name, whose number after the last dot is part of every position),
    /// at `offset` in it. A file's magic number is skipped at offset 0.
    pub fn new(options: DecoderOptions, file: &str, offset: u64) -> Result<Self> {
        let mut decoder = BinlogDecoder {
            ready: VecDeque::new(),
            pending: Vec::new(),
            failed: None,
            magic_left: if offset == 0 { MAGIC.len() } else { 0 },
            file: file.to_owned(),
            file_number: file_number(file)?,
            offset,
            event_end: offset,
            live: false,
            format: None,
            tables: Vec::new(),
            by_name: HashMap::new(),
            slots: HashMap::new(),
            active: Vec::new(),
            transaction: None,
            transaction_name: String::new(),
            commit_time: options.resume.as_ref().and_then(|mark| mark.commit_time),
            gtid: options.gtid.clone(),
            whole_until: offset.max(MAGIC.len() as u64),
            whole: false,
            held_bytes: 0,
            payload: None,
            scratch: Scratch::default(),
            inflated: Vec::new(),
            options,
        };
        let mut known: HashMap<RelationName, Vec<Arc<Relation>>> = HashMap::new();
        for relation in std::mem::take(&mut decoder.options.relations) {
            known.entry(relation.name().clone()).or_default().push(relation);
        }
        let resume = decoder.options.resume.as_ref().map(|mark| mark.position);
        for (name, relations) in known {
            decoder.by_name.insert(name.clone(), decoder.tables.len());
            decoder.tables.push(Table::new(name, relations, resume, &decoder.options.before_images));
        }
        if let Some(mark) = &decoder.options.resume {
            for name in BinlogOffset::of(mark)?.doubtful {
                if let Some(table) = decoder.by_name.get(&name).and_then(|index| decoder.tables.get_mut(*index)) {
                    table.forget();
                }
            }
        }
        Ok(decoder)
    }

    /// Goes on with the next recorded file; the previous one must have ended on an event boundary.
    pub fn next_file(&mut self, file: &str) -> Result<()> {
        self.unless_failed()?;
        let result = self.begin_file(file);
        self.note(result)
    }

    fn begin_file(&mut self, file: &str) -> Result<()> {
        if !self.pending.is_empty() {
            return Err(self.at(Error::corrupt("a binlog file ends in the middle of an event"), self.offset));
        }
        self.abandon()?;
        self.enter_file(file, 0)?;
        self.magic_left = MAGIC.len();
        self.whole_until = MAGIC.len() as u64;
        Ok(())
    }

    /// Takes bytes of the log: the content of a binlog file, or the events of a network stream one after the other
    /// (without packet headers and status bytes). Any cut gives the same events. Before an error is returned,
    /// everything up to the last whole transaction, and a mark, is ready to be taken; the error is returned again ever after.
    pub fn decode(&mut self, bytes: &[u8], now: TimestampMicros) -> Result<Decoded> {
        self.unless_failed()?;
        let result = self.frames(bytes, now);
        self.note(result)
    }

    /// The answer to [`Decoded::NeedsShape`]; `None` if the table is no longer there.
    pub fn provide_shape(&mut self, relation: &RelationName, shape: Option<TableShape>) -> Result<()> {
        self.unless_failed()?;
        if let Some(table) = self.by_name.get(relation).and_then(|index| self.tables.get_mut(*index)) {
            table.describe(shape);
        }
        Ok(())
    }

    /// Makes a mark at the end of every transaction from now on.
    pub fn mark_each_transaction(&mut self) {
        self.options.flush_bytes = 0;
    }

    /// Cuts batches at the end of the last whole transaction, if one ended since the last mark, and makes a mark.
    /// Inside a transaction it does nothing but that. True if anything became ready.
    pub fn flush(&mut self) -> Result<bool> {
        if !self.whole || self.failed.is_some() {
            return Ok(false);
        }
        self.hand_out(false)?;
        Ok(true)
    }

    /// A mark of the place that the log has been passed to: for an idle log, where nothing but events without rows went by.
    /// `None` inside a transaction, and while changes or events wait that must be handed out before.
    pub fn mark(&self) -> Option<LogMark> {
        if self.transaction.is_some() || self.held_bytes > 0 || !self.ready.is_empty() || self.failed.is_some() {
            return None;
        }
        self.make_mark().ok()
    }

    /// The next event that is ready.
    pub fn next_event(&mut self) -> Option<LogEvent> {
        self.ready.pop_front()
    }

    fn unless_failed(&self) -> Result<()> {
        self.failed.as_ref().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// After an error nothing more is read; what is whole is handed out.
    fn note<T>(&mut self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result {
            // Whatever else goes wrong now, the first error is the one to tell.
            if self.whole {
                let _ = self.hand_out(false);
            }
            self.failed = Some(error.clone());
            self.pending = Vec::new();
            self.active.clear();
            self.tables.clear();
            self.by_name.clear();
        }
        result
    }

    /// Takes events out of bytes.
    fn frames(&mut self, bytes: &[u8], now: TimestampMicros) -> Result<Decoded> {
        let mut rest = bytes;
        self.magic(&mut rest)?;
        loop {
            let flow = if self.pending.is_empty() {
                let Some(header) = rest.first_chunk::<HEADER_LEN>() else {
                    self.pending.extend_from_slice(rest);
                    return Ok(Decoded::All);
                };
                let Some((event, behind)) = rest.split_at_checked(self.event_size(header)?) else {
                    self.pending.extend_from_slice(rest);
                    return Ok(Decoded::All);
                };
                let flow = self.event(event, now)?;
                if matches!(flow, Flow::Go) {
                    rest = behind;
                }
                flow
            } else {
                if !self.complete_pending(&mut rest, HEADER_LEN) {
                    return Ok(Decoded::All);
                }
                let size = match self.pending.first_chunk::<HEADER_LEN>() {
                    Some(header) => self.event_size(header)?,
                    None => return Ok(Decoded::All),
                };
                if !self.complete_pending(&mut rest, size) {
                    return Ok(Decoded::All);
                }
                let mut event = std::mem::take(&mut self.pending);
                let flow = self.event(&event, now)?;
                if matches!(flow, Flow::Go) {
                    event.clear();
                    event.shrink_to(PENDING_KEPT_BYTES);
                }
                self.pending = event;
                flow
            };
            if let Flow::Ask(relation) = flow {
                return Ok(Decoded::NeedsShape { relation, consumed: bytes.len() - rest.len() });
            }
        }
    }

    /// Makes the cut event `size` bytes long; false if there are not enough bytes yet.
    fn complete_pending(&mut self, rest: &mut &[u8], size: usize) -> bool {
        let missing = size.saturating_sub(self.pending.len()).min(rest.len());
        let (taken, behind) = rest.split_at(missing);
        self.pending.extend_from_slice(taken);
        *rest = behind;
        self.pending.len() >= size
    }

    fn magic(&mut self, rest: &mut &[u8]) -> Result<()> {
        while self.magic_left > 0
            && let Some((first, behind)) = rest.split_first()
        {
            if MAGIC.get(MAGIC.len() - self.magic_left) != Some(first) {
                let error = Error::corrupt("the file does not begin as a binlog does");
                return Err(self
                    .at(error, self.offset)
                    .remedy("check that the path names binlog files only, and that they are not encrypted"));
            }
            self.magic_left -= 1;
            self.offset += 1;
            *rest = behind;
        }
        Ok(())
    }

    fn event_size(&self, header: &[u8; HEADER_LEN]) -> Result<usize> {
        let header = EventHeader::parse(header);
        if header.event_size < HEADER_LEN as u32 || header.event_size > EVENT_BYTES_MAX {
            return Err(self.at(Error::corrupt("an event has an impossible size"), self.offset).context("size", header.event_size));
        }
        Ok(header.event_size as usize)
    }

    /// Reads one event, given whole.
    fn event(&mut self, event: &[u8], now: TimestampMicros) -> Result<Flow> {
        let Some(header) = event.first_chunk::<HEADER_LEN>().map(EventHeader::parse) else { return Ok(Flow::Go) };
        let body = self.checked_body(event, &header)?;
        if header.event_type == event::ROTATE && header.is_artificial() {
            self.rotated_by_server(body)?;
            return Ok(Flow::Go);
        }
        let (start, end) = self.place(&header);
        self.event_end = end;
        if header.event_type == event::FORMAT_DESCRIPTION {
            if !header.is_artificial() {
                // A file begins: whatever was open in the one before was never finished.
                self.abandon()?;
            }
        } else if let Flow::Ask(relation) = self.dispatch(&header, body, start, end, now, false)? {
            return Ok(Flow::Ask(relation));
        }
        if header.event_type != event::ROTATE || !self.live {
            self.offset = end;
        }
        if self.transaction.is_none() && !header.is_artificial() {
            self.whole_until = self.offset;
        }
        Ok(Flow::Go)
    }

    /// The body of an event without its checksum, which is verified.
    fn checked_body<'e>(&mut self, event: &'e [u8], header: &EventHeader) -> Result<&'e [u8]> {
        let body = event.get(HEADER_LEN..).unwrap_or_default();
        let without_checksum = || body.get(..body.len().saturating_sub(CHECKSUM_LEN)).unwrap_or_default();
        if header.event_type == event::FORMAT_DESCRIPTION {
            let format = Format::parse(event).map_err(|error| self.at(Error::corrupt(error.reason()), self.offset))?;
            if format.checksums && !checksum_fits(event, header) {
                return Err(self.bad_checksum());
            }
            self.format = Some(format);
            return Ok(body);
        }
        if header.event_type == event::ROTATE && header.is_artificial() {
            // Comes before the format, or still in that of the file before: its own checksum tells whether it has one.
            return Ok(if checksum_fits(event, header) { without_checksum() } else { body });
        }
        match self.format {
            Some(Format { checksums: true, .. }) if checksum_fits(event, header) => Ok(without_checksum()),
            Some(Format { checksums: true, .. }) => Err(self.bad_checksum()),
            Some(_) => Ok(body),
            None => Err(self.at(Error::corrupt("the log does not begin with a format description"), self.offset)),
        }
    }

    fn bad_checksum(&self) -> Error {
        self.at(Error::corrupt("the checksum of an event does not fit"), self.offset)
            .remedy("copy the binlog file again, or look for a fault of the disk or network with mysqlbinlog --verify-binlog-checksum")
    }

    /// The server says where the events that follow stand.
    fn rotated_by_server(&mut self, body: &[u8]) -> Result<()> {
        let rotate = Rotate::parse(body).ok();
        let parsed = rotate.and_then(|rotate| Some((rotate.position, std::str::from_utf8(rotate.file).ok()?)));
        let (position, file) = parsed.ok_or_else(|| self.at(Error::corrupt("a rotation names no file"), self.offset))?;
        self.live = true;
        if self.transaction.is_none() || file != self.file {
            self.abandon()?;
            self.enter_file(file, position)?;
        }
        Ok(())
    }

    /// Goes on in a file.
    pub(crate) fn enter_file(&mut self, file: &str, offset: u64) -> Result<()> {
        self.file_number = file_number(file)?;
        if self.file != file {
            file.clone_into(&mut self.file);
        }
        self.offset = offset;
        self.whole_until = offset;
        Ok(())
    }

    /// Where an event begins and ends in its file.
    fn place(&self, header: &EventHeader) -> (u64, u64) {
        if header.is_artificial() {
            return (self.offset, self.offset);
        }
        let size = u64::from(header.event_size);
        let mut end = self.offset + size;
        if self.live {
            // A server leaves out what we have, so offsets do not add up; but it says, in 32 bits, where each event ends.
            let low = u64::from(header.log_pos);
            let said = (end & !u64::from(u32::MAX)) | low;
            end = if said < end { said + (1 << 32) } else { said };
        }
        (end - size, end)
    }

    /// An error with its place.
    pub(crate) fn at(&self, error: Error, offset: u64) -> Error {
        error.context("file", &self.file).context("position", offset)
    }

    /// Hands out what is held: all of it, without a mark, or what is whole, followed by one.
    pub(crate) fn hand_out(&mut self, unfinished_too: bool) -> Result<()> {
        let mut still_active = Vec::new();
        self.held_bytes = 0;
        for index in std::mem::take(&mut self.active) {
            let Some(table) = self.tables.get_mut(index) else { continue };
            table.cut()?;
            let mut kept = Vec::new();
            for mut part in table.parts.drain(..) {
                let rows = part.batch.rows();
                let committed = if unfinished_too { rows } else { part.committed };
                if committed < rows {
                    let rest = part.batch.slice(committed, rows - committed);
                    let bytes = part.bytes / rows * (rows - committed);
                    kept.push(crate::buffer::Part { batch: rest, committed: 0, bytes });
                    if committed == 0 {
                        continue;
                    }
                    part.batch = part.batch.slice(0, committed);
                }
                let relation = &part.batch.relation;
                if table.announced != relation.version() {
                    table.announced = relation.version();
                    self.ready.push_back(LogEvent::Relation(Arc::clone(relation)));
                }
                self.ready.push_back(LogEvent::Changes(part.batch));
            }
            table.parts = kept;
            table.active = !table.parts.is_empty();
            if table.active {
                self.held_bytes += table.bytes();
                still_active.push(index);
            }
        }
        self.active = still_active;
        if unfinished_too {
            // From here on a mark would lie before changes that were handed out.
            self.whole = false;
        } else if self.whole {
            self.whole = false;
            let mark = self.make_mark()?;
            self.ready.push_back(LogEvent::Mark(mark));
        }
        self.scratch.shrink();
        Ok(())
    }

    fn make_mark(&self) -> Result<LogMark> {
        // Only who can ask has doubts that outlive a restart.
        let doubtful = self.tables.iter().filter(|table| self.options.has_catalog && table.is_doubtful());
        let doubtful = doubtful.map(|table| table.name.clone()).collect();
        let offset = BinlogOffset {
            file: self.file.clone(),
            position: self.whole_until,
            incarnation: self.options.incarnation,
            gtid: self.gtid.clone(),
            server: self.options.server.clone(),
            doubtful,
        };
        let position = LogPosition::new(self.options.incarnation, self.file_number, self.whole_until, 0, false);
        let offset: SourceOffset = offset.to_source_offset()?;
        Ok(LogMark { position, offset, commit_time: self.commit_time })
    }
}
