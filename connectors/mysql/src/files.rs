//! The recorded source: binlog files on disk or in a bucket, read to their end by the same decoder as a live log.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use arrow_array::RecordBatch;
use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use logweir_core::{
    ChangeBatch, ChangeType, Clock, Error, Finding, LogEvent, LogMark, LogPosition, LogReader, LogStart, MemoryBudget, MemoryPermit,
    Pattern, Relation, RelationName, Result, Severity, Source, SystemClock, TableFilter,
};
use object_store::ObjectStore;

use crate::decoder::{BinlogDecoder, Decoded, DecoderOptions};
use crate::format::{CHECKSUM_LEN, Format};
use crate::offset::BinlogOffset;
use crate::options::{BinlogFilesOptions, FIRST_POSITION, Start};
use crate::recording::{RecordedBytes, RecordedFile, list};

const MAGIC: [u8; 4] = [0xfe, b'b', b'i', b'n'];
const MAGIC_ENCRYPTED: [u8; 4] = [0xfd, b'b', b'i', b'n'];
const HEADER_LEN: usize = 19;

/// A format description is some hundred bytes; what claims more than this is none.
const FORMAT_BYTES_MAX: usize = 64 * 1024;

/// See the live reader: the decoder's share of the budget, and its bounds.
const DECODER_BUDGET_SHARE: usize = 16;
const FLUSH_BYTES: std::ops::RangeInclusive<usize> = 256 * 1024..=16 * 1024 * 1024;

/// A recording of a server's log.
#[derive(Debug)]
pub struct BinlogFilesSource {
    options: BinlogFilesOptions,
}

impl BinlogFilesSource {
    /// A source over recorded files; nothing is opened yet.
    pub fn new(options: BinlogFilesOptions) -> Self {
        BinlogFilesSource { options }
    }

    async fn files(&self) -> Result<Vec<RecordedFile>> {
        list(&self.options.store, &self.options.pattern).await
    }

    fn none(&self) -> Error {
        Error::config("no binlog file fits the path of the recording")
            .context("path", &self.options.pattern)
            .remedy("check path: it names files such as mysql-bin.000001, with * and ?, compressed as .zst or .gz or not")
    }
}

/// No rows of a relation.
fn empty(relation: &Arc<Relation>) -> ChangeBatch {
    ChangeBatch {
        relation: Arc::clone(relation),
        records: RecordBatch::new_empty(Arc::clone(relation.schema())),
        unchanged: None,
        before: None,
        last: LogPosition::MIN,
        memory: Arc::new(MemoryPermit::uncounted()),
    }
}

#[async_trait]
impl Source for BinlogFilesSource {
    async fn check(&self, _tables: &TableFilter, mark: Option<&LogMark>) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        let mut found = |code: &'static str, error: &Error| {
            findings.push(Finding {
                severity: Severity::Error,
                code,
                message: error.to_string(),
                remedy: error.get_remedy().unwrap_or("replace the file").to_owned(),
            });
        };
        match self.files().await {
            Ok(files) if files.is_empty() => found("no_files", &self.none()),
            Ok(files) => {
                for file in &files {
                    match Head::read(&self.options.store, file).await {
                        Ok(_) => {}
                        Err(error) if error.is_transient() => return Err(error),
                        Err(error) => found("file", &error),
                    }
                }
                match mark {
                    Some(mark) => resume(&files, mark).map_or_else(|error| found(Finding::CHECKPOINT, &error), drop),
                    None => begin(&self.options, &files).map_or_else(|error| found("start", &error), drop),
                }
            }
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => found("files", &error),
        }
        Ok(findings)
    }

    /// A recording is all there is of its tables: it is read through, and every table's last shape is the answer.
    async fn relations(&self, tables: &TableFilter) -> Result<Vec<Relation>> {
        let memory = MemoryBudget::new(*FLUSH_BYTES.end());
        let start = LogStart { resume: None, relations: Vec::new(), tables: tables.clone(), before_images: Vec::new(), memory };
        let mut reader = self.open_log(start).await?;
        let mut relations: HashMap<RelationName, Arc<Relation>> = HashMap::new();
        while let Some(event) = reader.next().await? {
            if let LogEvent::Relation(relation) = event {
                relations.insert(relation.name().clone(), relation);
            }
        }
        let mut relations: Vec<Relation> = relations.into_values().map(Arc::unwrap_or_clone).collect();
        relations.sort_by(|a, b| a.name().cmp(b.name()));
        Ok(relations)
    }

    /// A recording is not asked, it is read up to the first rows.
    async fn sample(&self, tables: &TableFilter, table: &RelationName, rows_max: usize) -> Result<Option<ChangeBatch>> {
        if !tables.accepts(table) {
            return Ok(None);
        }
        let followed = TableFilter { include: vec![Pattern::new(table.to_string())], ..tables.clone() };
        let memory = MemoryBudget::new(*FLUSH_BYTES.end());
        let start = LogStart { resume: None, relations: Vec::new(), tables: followed, before_images: Vec::new(), memory };
        let mut reader = self.open_log(start).await?;
        let mut known = None;
        while let Some(event) = reader.next().await? {
            match event {
                LogEvent::Relation(relation) if relation.name() == table => known = Some(relation),
                // A truncate has no values to show.
                LogEvent::Changes(batch)
                    if batch.relation.name() == table
                        && batch.change_type_codes().iter().any(|code| *code != ChangeType::Truncate.code()) =>
                {
                    let rows = batch.rows().min(rows_max);
                    return Ok(Some(if rows == 0 { empty(&batch.relation) } else { batch.slice(0, rows) }));
                }
                _ => {}
            }
        }
        // A table that is described and has no change.
        Ok(known.map(|relation| empty(&relation)))
    }

    async fn open_log(&self, start: LogStart) -> Result<Box<dyn LogReader>> {
        let files = self.files().await?;
        let Some(last) = files.last().cloned() else { return Err(self.none()) };
        let (first, mark) = match start.resume {
            Some(mark) => (resume(&files, &mark)?, mark),
            None => begin(&self.options, &files)?,
        };
        let at_end = first == files.len();
        let offset = BinlogOffset::of(&mark)?;
        let flush_bytes = (start.memory.total_bytes() / DECODER_BUDGET_SHARE).clamp(*FLUSH_BYTES.start(), *FLUSH_BYTES.end());
        let options = DecoderOptions {
            tables: start.tables,
            before_images: start.before_images,
            incarnation: offset.incarnation,
            resume: Some(mark.clone()),
            relations: start.relations,
            has_catalog: false,
            flush_bytes,
            flush_bytes_max: flush_bytes * 2,
            gtid: offset.gtid.clone(),
            skip_through: None,
            server: offset.server.clone(),
        };
        let mut files: VecDeque<RecordedFile> = files.into_iter().skip(first).collect();
        let current = files.pop_front().unwrap_or(last);
        // The magic number is read along, unless the way begins behind it.
        let from = if offset.position > FIRST_POSITION { offset.position } else { 0 };
        let mut decoder = BinlogDecoder::new(options, if at_end { &offset.file } else { &current.name }, from)?;
        if from > 0 {
            // As a live server does in the middle of a file: the format first, in an event without a place.
            let head = Head::read(&self.options.store, &current).await?;
            decoder.decode(&head.without_place(), SystemClock.now())?;
        }
        let reading = if at_end { None } else { Some(Reading::open(&self.options.store, current, from)?) };
        Ok(Box::new(FilesReader {
            store: Arc::clone(&self.options.store),
            memory: start.memory,
            files,
            reading,
            decoder,
            buffer: Vec::new(),
            opening_mark: Some(mark.clone()),
            last_mark: mark,
            announced: HashSet::new(),
            waiting: None,
            failed: None,
            finished: at_end,
        }))
    }
}

/// The file a mark lies in; behind all of them if the last one ends by naming its successor, which was not recorded.
fn resume(files: &[RecordedFile], mark: &LogMark) -> Result<usize> {
    let offset = BinlogOffset::of(mark)?;
    let next = files.last().and_then(|last| last.number.checked_add(1));
    if offset.position == FIRST_POSITION && next == Some(mark.position.file()) {
        return Ok(files.len());
    }
    files.iter().position(|file| file.name == offset.file).ok_or_else(|| {
        Error::log_gone("the recording no longer has the file to go on from")
            .context("file", &offset.file)
            .context("position", offset.position)
            .remedy("put the file back, or start the stream anew with an empty state")
    })
}

/// The file a fresh start begins in, and its mark.
fn begin(options: &BinlogFilesOptions, files: &[RecordedFile]) -> Result<(usize, LogMark)> {
    let (file, position) = match &options.start {
        Start::Now | Start::Earliest => (0, FIRST_POSITION),
        Start::Position { file, position } => {
            let found = files.iter().position(|found| found.name == *file).ok_or_else(|| {
                Error::config("the start names a file that the recording does not have")
                    .context("file", file)
                    .context("path", &options.pattern)
                    .remedy("choose one of the recorded files, or leave start out")
            })?;
            (found, (*position).max(FIRST_POSITION))
        }
        Start::Gtid(_) => {
            return Err(Error::config("a recording cannot be started by GTIDs").remedy("start at a file and position, or leave start out"));
        }
    };
    let name = files.get(file).map(|file| file.name.clone()).unwrap_or_default();
    let offset = BinlogOffset { file: name, position, incarnation: 0, gtid: None, server: None, doubtful: Vec::new() };
    let mark = LogMark { position: offset.log_position()?, offset: offset.to_source_offset()?, commit_time: None };
    Ok((file, mark))
}

/// Refuses a file that does not begin as a binlog file does.
fn check_magic(bytes: &[u8], file: &RecordedFile) -> Result<()> {
    match bytes.get(..4).unwrap_or(bytes) {
        magic if magic == MAGIC => Ok(()),
        magic if magic == MAGIC_ENCRYPTED => Err(Error::config("a recorded file is encrypted")
            .context("file", &file.path)
            .remedy("record with mysqlbinlog --read-from-remote-server --raw, which writes files in the clear")),
        _ => Err(Error::corrupt("a recorded file does not begin as a binlog file does")
            .context("file", &file.path)
            .context("offset", 0)
            .remedy("check path: it may name other files too")),
    }
}

/// The beginning of a file: its format description.
struct Head {
    format: Vec<u8>,
    checksums: bool,
}

impl Head {
    async fn read(store: &Arc<dyn ObjectStore>, file: &RecordedFile) -> Result<Self> {
        let told = |message: &'static str, offset: usize| Error::corrupt(message).context("file", &file.path).context("offset", offset);
        let mut reading = RecordedBytes::open(store, file)?;
        let mut bytes = Vec::new();
        let wanted = |bytes: &[u8]| -> usize {
            let size = bytes.get(13..17).map_or(0, |size| u32::from_le_bytes([size[0], size[1], size[2], size[3]]) as usize);
            (FIRST_POSITION as usize + HEADER_LEN.max(size)).min(FORMAT_BYTES_MAX)
        };
        while bytes.len() < wanted(&bytes) && reading.read(&mut bytes).await? {}
        check_magic(&bytes, file)?;
        let format = bytes.get(FIRST_POSITION as usize..wanted(&bytes)).unwrap_or_default().to_vec();
        if format.get(4) != Some(&15) {
            return Err(told("a recorded file does not begin with its format description", FIRST_POSITION as usize));
        }
        let checksums = Format::parse(&format).map_err(|error| told(error.reason(), FIRST_POSITION as usize))?.checksums;
        Ok(Head { format, checksums })
    }

    /// The format description as an event that stands nowhere in the file: its next position is 0.
    fn without_place(&self) -> Vec<u8> {
        let mut event = self.format.clone();
        if let Some(next) = event.get_mut(13..17) {
            next.fill(0);
        }
        if let Some(flags) = event.get_mut(17) {
            // Not "in use": the flag is outside of the checksum.
            *flags &= !1;
        }
        if self.checksums
            && let Some((covered, stored)) = event.split_last_chunk_mut::<CHECKSUM_LEN>()
        {
            *stored = crc32fast::hash(covered).to_le_bytes();
        }
        event
    }
}

/// A file being read.
struct Reading {
    file: RecordedFile,
    bytes: RecordedBytes,
    /// Bytes still to be dropped on the way to where the decoder begins.
    skip: u64,
    /// True while the magic number is still to come.
    magic: bool,
    events: Events,
}

impl Reading {
    /// Reads `file` from the offset `from`.
    fn open(store: &Arc<dyn ObjectStore>, file: RecordedFile, from: u64) -> Result<Self> {
        let mut bytes = RecordedBytes::open(store, &file)?;
        let skip = if bytes.seek(from) { 0 } else { from };
        // The first event begins behind the magic number.
        let events = Events { offset: from.max(FIRST_POSITION), ..Events::default() };
        Ok(Reading { file, bytes, skip, magic: from == 0, events })
    }

    /// Fills `buffer`; false at the end of the file.
    async fn read(&mut self, buffer: &mut Vec<u8>) -> Result<bool> {
        while self.bytes.read(buffer).await? {
            if self.skip == 0 {
                let mut events = buffer.as_slice();
                if std::mem::take(&mut self.magic) {
                    check_magic(events, &self.file)?;
                    events = events.get(MAGIC.len()..).unwrap_or_default();
                }
                self.events.follow(events);
                return Ok(true);
            }
            let dropped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(buffer.len());
            buffer.drain(..dropped);
            self.skip -= dropped as u64;
            if !buffer.is_empty() {
                self.events.follow(buffer);
                return Ok(true);
            }
        }
        if std::mem::take(&mut self.magic) {
            check_magic(&[], &self.file)?;
        }
        if self.skip > 0 {
            return Err(Error::log_gone("a recorded file is shorter than when it was read")
                .context("file", &self.file.path)
                .remedy("put the whole file back"));
        }
        Ok(false)
    }
}

/// Follows the boundaries of events, to know whether a file ends on one.
#[derive(Debug, Default)]
struct Events {
    /// Where the event begins that the last byte belongs to, or the next one.
    offset: u64,
    /// Bytes of it seen.
    seen: u64,
    header: Vec<u8>,
}

impl Events {
    fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.header.len() < HEADER_LEN {
                let taken = (HEADER_LEN - self.header.len()).min(bytes.len());
                let (head, rest) = bytes.split_at(taken);
                self.header.extend_from_slice(head);
                self.seen += taken as u64;
                bytes = rest;
                continue;
            }
            let left = self.size().saturating_sub(self.seen);
            let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
            self.seen += taken as u64;
            bytes = bytes.get(taken..).unwrap_or_default();
            self.settle();
        }
        if self.header.len() == HEADER_LEN {
            self.settle();
        }
    }

    /// Sizes below a header's are the decoder's to complain of; here they only must not stand still.
    fn size(&self) -> u64 {
        let size = self.header.get(9..13).map_or(0, |size| u32::from_le_bytes([size[0], size[1], size[2], size[3]]));
        u64::from(size).max(HEADER_LEN as u64)
    }

    fn settle(&mut self) {
        if self.seen >= self.size() {
            self.offset += self.seen;
            self.seen = 0;
            self.header.clear();
        }
    }

    fn is_inside(&self) -> bool {
        self.seen > 0
    }
}

/// Reads a recording to its end.
struct FilesReader {
    store: Arc<dyn ObjectStore>,
    memory: MemoryBudget,
    files: VecDeque<RecordedFile>,
    reading: Option<Reading>,
    decoder: BinlogDecoder,
    /// Bytes the decoder has not taken.
    buffer: Vec<u8>,
    opening_mark: Option<LogMark>,
    last_mark: LogMark,
    announced: HashSet<(RelationName, u32)>,
    waiting: Option<(ChangeBatch, BoxFuture<'static, MemoryPermit>)>,
    failed: Option<Error>,
    finished: bool,
}

impl FilesReader {
    fn take_ready(&mut self) -> Option<LogEvent> {
        if let Some(mark) = self.opening_mark.take() {
            return Some(LogEvent::Mark(mark));
        }
        loop {
            match self.decoder.next_event()? {
                LogEvent::Relation(relation) if !self.announced.insert((relation.name().clone(), relation.version())) => {}
                LogEvent::Mark(mark) if mark.position < self.last_mark.position => {}
                event => return Some(event),
            }
        }
    }

    /// Decodes what there is, or reads more, or ends.
    async fn step(&mut self) -> Result<()> {
        if !self.buffer.is_empty() {
            match self.decoder.decode(&self.buffer, SystemClock.now())? {
                Decoded::All => self.buffer.clear(),
                Decoded::NeedsShape { relation, consumed } => {
                    self.buffer.drain(..consumed);
                    self.decoder.provide_shape(&relation, None)?;
                }
            }
            return Ok(());
        }
        let Some(reading) = &mut self.reading else { return self.finish() };
        if reading.read(&mut self.buffer).await? {
            return Ok(());
        }
        if reading.events.is_inside() {
            let (path, offset) = (reading.file.path.clone(), reading.events.offset);
            return Err(Error::corrupt("a recorded file ends in the middle of an event")
                .context("file", path)
                .context("offset", offset)
                .remedy("copy the file again, whole; what lies before was read"));
        }
        match self.files.pop_front() {
            None => self.reading = None,
            Some(file) => {
                self.decoder.next_file(&file.name)?;
                self.reading = Some(Reading::open(&self.store, file, 0)?);
            }
        }
        Ok(())
    }

    /// The end of the last file.
    fn finish(&mut self) -> Result<()> {
        self.finished = true;
        if !self.decoder.flush()? {
            match self.decoder.mark() {
                Some(mark) if mark.position > self.last_mark.position => self.opening_mark = Some(mark),
                Some(_) => {}
                None => tracing::warn!(
                    file = BinlogOffset::of(&self.last_mark).map(|offset| offset.file).unwrap_or_default(),
                    "the recording ends inside a transaction, which is left out"
                ),
            }
        }
        Ok(())
    }
}

#[async_trait]
impl LogReader for FilesReader {
    fn mark_each_transaction(&mut self) {
        self.decoder.mark_each_transaction();
    }

    async fn next(&mut self) -> Result<Option<LogEvent>> {
        loop {
            if let Some((_, acquiring)) = &mut self.waiting {
                let permit = acquiring.await;
                if let Some((mut batch, _)) = self.waiting.take() {
                    batch.memory = Arc::new(permit);
                    return Ok(Some(LogEvent::Changes(batch)));
                }
            }
            match self.take_ready() {
                Some(LogEvent::Changes(batch)) => {
                    let (memory, bytes) = (self.memory.clone(), batch.bytes());
                    self.waiting = Some((batch, async move { memory.acquire(bytes).await }.boxed()));
                    continue;
                }
                Some(LogEvent::Mark(mark)) => {
                    self.last_mark = mark.clone();
                    return Ok(Some(LogEvent::Mark(mark)));
                }
                Some(event) => return Ok(Some(event)),
                None => {}
            }
            if let Some(error) = self.failed.take() {
                self.failed = Some(error.clone());
                return Err(error);
            }
            if self.finished {
                return Ok(None);
            }
            if let Err(error) = self.step().await {
                // What came whole before is still handed out. A decoder that failed itself has it ready.
                let _ = self.decoder.flush();
                self.failed = Some(error);
            }
        }
    }

    async fn acknowledge(&mut self, _mark: &LogMark) -> Result<()> {
        Ok(())
    }

    async fn end(&mut self) -> Result<Option<LogPosition>> {
        Ok(None)
    }
}
