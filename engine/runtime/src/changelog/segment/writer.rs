//! Appends to a segment.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use logweir_core::{ChangeBatch, Error, LogMark, MetadataColumn, Relation, RelationId, RelationName, Result, TimestampMicros};

use super::batch::Encoding;
use super::file_failed;
use super::frame::{HEADER_BYTES, Header, Kind, padded};
use super::index::Index;
use super::log::Segment;
use super::name::SegmentName;
use super::outline;
use super::reader::{SEALED, TRAILER_BYTES};

/// What the mark is that a segment begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// The first entry of the log.
    Entry,
    /// The last entry of the segment before.
    Behind,
    /// Not the last entry of the segment before: what follows the mark begins there.
    Within,
}

/// A relation of the segment.
struct Known {
    number: u32,
    relation: Arc<Relation>,
    schema_bytes: usize,
}

/// The segment that is written to.
pub(super) struct SegmentWriter {
    file: File,
    name: SegmentName,
    path: PathBuf,
    /// Its end, where the next frame goes.
    bytes: u64,
    index: Index,
    relations: HashMap<RelationId, Known>,
    frame: Vec<u8>,
}

impl SegmentWriter {
    /// Begins a segment behind a mark. The mark is an entry of its own in the first segment of a log.
    pub(super) fn create(directory: &Path, name: SegmentName, mark: &LogMark, opening: Opening) -> Result<Self> {
        let path = directory.join(name.to_string());
        outline::forget(&path);
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        let file = file.map_err(|error| file_failed("could not create a segment of the change log", &path, error))?;
        let mut header = mark_header(name.first_entry, mark);
        (header.repeats, header.within) = (opening != Opening::Entry, opening == Opening::Within);
        let index = Index::begin(&header);
        let mut writer = SegmentWriter { file, name, path, bytes: 0, index, relations: HashMap::new(), frame: Vec::new() };
        writer.write_mark(header, mark)?;
        Ok(writer)
    }

    /// Goes on with a segment that ends at `bytes`; its relations are `relations`, by number.
    pub(super) fn resume(
        directory: &Path,
        name: SegmentName,
        bytes: u64,
        index: Index,
        relations: Vec<Arc<Relation>>,
        encoding: &Encoding,
    ) -> Result<Self> {
        let path = directory.join(name.to_string());
        let open = || {
            let file = OpenOptions::new().append(true).open(&path)?;
            file.set_len(bytes)?;
            file.sync_all()?;
            Ok(file)
        };
        outline::forget(&path);
        let file = open().map_err(|error| file_failed("could not repair a segment of the change log", &path, error))?;
        let known = |(number, relation): (usize, Arc<Relation>)| {
            let schema_bytes = encoding.schema(relation.schema())?.len();
            Ok((relation.id(), Known { number: number as u32, relation, schema_bytes }))
        };
        let relations = relations.into_iter().enumerate().map(known).collect::<Result<_>>()?;
        Ok(SegmentWriter { file, name, path, bytes, index, relations, frame: Vec::new() })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn first_entry(&self) -> u64 {
        self.index.first_entry
    }

    pub(super) fn name(&self) -> SegmentName {
        self.name
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a relation, also one that the segment has: without a number left out, what is missing can be told from what never was.
    pub(super) fn relation(&mut self, entry: u64, relation: &Arc<Relation>, encoding: &Encoding) -> Result<()> {
        let number = self.known(relation).map_or(self.index.relations.len() as u32, |known| known.number);
        self.write_relation(entry, relation, number, false, encoding)
    }

    fn known(&self, relation: &Arc<Relation>) -> Option<&Known> {
        let known = self.relations.get(&relation.id())?;
        (Arc::ptr_eq(&known.relation, relation) || known.relation == *relation).then_some(known)
    }

    fn write_relation(&mut self, entry: u64, relation: &Arc<Relation>, number: u32, repeats: bool, encoding: &Encoding) -> Result<()> {
        let json = serde_json::to_vec(relation.as_ref())
            .map_err(|error| Error::internal("a relation could not be written as JSON").source(error))?;
        let schema = encoding.schema(relation.schema())?;
        self.begin();
        self.frame.extend_from_slice(&(json.len() as u64).to_le_bytes());
        self.frame.extend_from_slice(&json);
        let payload_bytes = self.frame.len() - HEADER_BYTES;
        self.frame.resize(HEADER_BYTES + padded(payload_bytes as u64) as usize, 0);
        self.frame.extend_from_slice(&schema);
        let header = Header {
            kind: Kind::Relation,
            repeats,
            within: false,
            relation: number,
            payload_bytes: 0,
            entry,
            last: self.index.last,
            time: self.index.last_time,
            memory_bytes: 0,
            rows: 0,
        };
        self.append(header, Some((relation.name(), relation.version())))?;
        self.relations.insert(relation.id(), Known { number, relation: Arc::clone(relation), schema_bytes: schema.len() });
        Ok(())
    }

    /// Appends changes.
    pub(super) fn changes(&mut self, entry: u64, batch: &ChangeBatch, encoding: &Encoding) -> Result<()> {
        if self.known(&batch.relation).is_none() {
            self.write_relation(entry, &batch.relation, self.index.relations.len() as u32, true, encoding)?;
        }
        let known = self.known(&batch.relation).ok_or_else(|| Error::internal("a relation was written and is not known"))?;
        let (number, schema_bytes) = (known.number, known.schema_bytes);
        self.begin();
        encoding.changes(batch, schema_bytes, &mut self.frame)?;
        let header = Header {
            kind: Kind::Changes,
            repeats: false,
            within: false,
            relation: number,
            payload_bytes: 0,
            entry,
            last: batch.last,
            time: commit_time(batch),
            memory_bytes: batch.bytes() as u64,
            rows: u32::try_from(batch.rows()).map_err(|_| Error::internal("a batch has more rows than can be counted"))?,
        };
        self.append(header, None)
    }

    /// Appends a mark.
    pub(super) fn mark(&mut self, entry: u64, mark: &LogMark) -> Result<()> {
        self.write_mark(mark_header(entry, mark), mark)
    }

    fn write_mark(&mut self, header: Header, mark: &LogMark) -> Result<()> {
        self.begin();
        serde_json::to_writer(&mut self.frame, mark)
            .map_err(|error| Error::internal("a mark could not be written as JSON").source(error))?;
        self.append(header, None)
    }

    fn begin(&mut self) {
        self.frame.clear();
        self.frame.resize(HEADER_BYTES, 0);
    }

    /// Writes the frame whose payload lies in `self.frame`.
    fn append(&mut self, mut header: Header, relation: Option<(&RelationName, u32)>) -> Result<()> {
        header.payload_bytes = (self.frame.len() - HEADER_BYTES) as u64;
        self.frame.resize(header.frame_bytes() as usize, 0);
        let (head, payload) = self.frame.split_at_mut(HEADER_BYTES);
        head.copy_from_slice(&header.encode(payload));
        self.write()?;
        self.index.note(&header, self.bytes, relation);
        self.bytes += header.frame_bytes();
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        // What a failed write leaves is cut off when the log is opened again.
        let written = self.file.write_all(&self.frame);
        written.map_err(|error| file_failed("could not write to the change log", &self.path, error))
    }

    /// Makes everything that was appended durable.
    pub(super) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|error| file_failed("could not make the change log durable", &self.path, error))
    }

    /// Ends the segment.
    pub(super) fn seal(mut self, now: TimestampMicros) -> Result<Segment> {
        self.index.ended_at = now;
        let at = self.bytes;
        let index = self.index.clone();
        self.begin();
        serde_json::to_writer(&mut self.frame, &index)
            .map_err(|error| Error::internal("an index could not be written as JSON").source(error))?;
        let header = Header {
            kind: Kind::Index,
            repeats: true,
            within: false,
            relation: 0,
            payload_bytes: 0,
            entry: index.next_entry,
            last: index.last,
            time: index.last_time,
            memory_bytes: 0,
            rows: 0,
        };
        self.append(header, None)?;
        self.frame.clear();
        self.frame.extend_from_slice(&at.to_le_bytes());
        self.frame.extend_from_slice(&SEALED);
        self.write()?;
        self.sync()?;
        Ok(Segment::new(self.name, self.path, &index, self.bytes + TRAILER_BYTES))
    }
}

fn mark_header(entry: u64, mark: &LogMark) -> Header {
    Header {
        kind: Kind::Mark,
        repeats: false,
        within: false,
        relation: 0,
        payload_bytes: 0,
        entry,
        last: mark.position,
        time: mark.commit_time,
        memory_bytes: 0,
        rows: 0,
    }
}

/// The commit time of the last change: none in the batch is later.
fn commit_time(batch: &ChangeBatch) -> Option<TimestampMicros> {
    use arrow_array::cast::AsArray;
    use arrow_array::types::TimestampMicrosecondType;
    let column = batch.metadata(MetadataColumn::Timestamp).as_primitive_opt::<TimestampMicrosecondType>()?;
    column.values().last().copied().map(TimestampMicros)
}
