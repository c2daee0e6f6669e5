//! The writing end of a change log on disk.

use std::collections::HashSet;
use std::fs::File;
use std::path::PathBuf;

use logweir_core::{Error, LogMark, LogPosition, Result, TimestampMicros};

use super::batch::Encoding;
use super::frame::Kind;
use super::index::Index;
use super::name::SegmentName;
use super::place::{Listed, SegmentPlace, remove};
use super::reader::Place;
use super::store::{Object, SegmentStore};
use super::writer::{Opening, SegmentWriter};
use super::{SegmentOptions, sync_directory};
use crate::changelog::window::Entry;

/// A segment ends between two transactions, unless it has come to this many times its size.
const SEGMENT_OVERSIZE: u64 = 4;
/// With a store each sync uploads the segment that is written to from its beginning. It ends before that has come to more than this many times its
/// size in all,
const UPLOADS_MAX: u64 = 4;
/// unless it is not more than this: where little is written, say 4 KB a second, segments shall not become too many. That is one in a minute and a half.
const UPLOADED_BYTES_MIN: u64 = 16 << 20;

/// A sealed segment, to whom keeps or removes it.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) name: SegmentName,
    pub(super) path: PathBuf,
    /// Nothing in it lies behind this position. `None` if it was not looked at: it is in the store only.
    pub(super) last: Option<LogPosition>,
    pub(super) ended_at: TimestampMicros,
    pub(super) bytes: u64,
    /// The store has it.
    pub(super) stored: bool,
}

impl Segment {
    /// One that only the directory has.
    pub(super) fn new(name: SegmentName, path: PathBuf, index: &Index, bytes: u64) -> Self {
        Segment { name, path, last: Some(index.last), ended_at: index.ended_at, bytes, stored: false }
    }

    fn listed(&self) -> Listed {
        let object = self.stored.then_some(Object { name: self.name, bytes: self.bytes, put_at: self.ended_at });
        Listed { name: self.name, path: self.path.clone(), object }
    }
}

/// What was uploaded of the segment that is written to.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    /// Its first so many bytes are in the store.
    bytes: u64,
    /// Bytes of all uploads of it.
    total: u64,
}

/// The writing end of a change log on disk. There is one: its directory is locked. Of those that share a store the one with the highest number counts.
///
/// It blocks, and with a store it must be used within a runtime.
pub struct SegmentLog {
    pub(super) options: SegmentOptions,
    pub(super) place: SegmentPlace,
    /// What its segments have in their names.
    pub(super) writer: u64,
    pub(super) encoding: Encoding,
    pub(super) sealed: Vec<Segment>,
    pub(super) active: Option<SegmentWriter>,
    pub(super) uploads: Uploads,
    /// Nothing is in the store that should not be, as far as is known.
    pub(super) tidy: bool,
    /// The last mark appended.
    pub(super) mark: Option<LogMark>,
    /// Nothing was appended since.
    pub(super) at_mark: bool,
    pub(super) next_entry: u64,
    /// When something was appended last.
    pub(super) appended_at: TimestampMicros,
    pub(super) _lock: File,
}

impl SegmentLog {
    /// The mark that it ends with; `None` if it is empty.
    pub fn mark(&self) -> Option<&LogMark> {
        self.mark.as_ref()
    }

    /// The number of the next entry.
    pub fn next_entry(&self) -> u64 {
        self.next_entry
    }

    /// The number of the oldest entry.
    pub fn first_entry(&self) -> u64 {
        let active = self.active.as_ref().map_or(self.next_entry, SegmentWriter::first_entry);
        self.sealed.first().map_or(active, |segment| segment.name.first_entry)
    }

    /// Bytes on disk, or in the store.
    pub fn bytes(&self) -> u64 {
        let active = self.active.as_ref().map_or(0, SegmentWriter::bytes);
        self.sealed.iter().map(|segment| segment.bytes).sum::<u64>() + active
    }

    /// Appends entry number [`next_entry`](Self::next_entry). The first of an empty log is a mark.
    pub fn append(&mut self, entry: &Entry, now: TimestampMicros) -> Result<()> {
        let number = self.next_entry;
        if let Some(active) = &self.active {
            let limit = self.options.segment_bytes();
            if active.bytes() >= if self.at_mark { limit } else { limit.saturating_mul(SEGMENT_OVERSIZE) } {
                self.seal(now)?;
            }
        }
        self.appended_at = now;
        let directory = &self.options.directory;
        let name = SegmentName { first_entry: number, writer: self.writer };
        let active = match (&mut self.active, &self.mark, entry) {
            (Some(active), ..) => active,
            (none, Some(mark), _) => {
                let opening = if self.at_mark { Opening::Behind } else { Opening::Within };
                let created = SegmentWriter::create(directory, name, mark, opening)?;
                sync_directory(directory)?;
                none.insert(created)
            }
            (none, None, Entry::Mark(mark)) => {
                *none = Some(SegmentWriter::create(directory, name, mark, Opening::Entry)?);
                sync_directory(directory)?;
                self.mark = Some(mark.clone());
                self.at_mark = true;
                self.next_entry += 1;
                return Ok(());
            }
            (_, None, _) => return Err(Error::internal("a change log began with something else than a mark")),
        };
        match entry {
            Entry::Relation(relation) => active.relation(number, relation, &self.encoding)?,
            Entry::Changes(batch) => active.changes(number, batch, &self.encoding)?,
            Entry::Mark(mark) => {
                active.mark(number, mark)?;
                self.mark = Some(mark.clone());
            }
        }
        self.at_mark = matches!(entry, Entry::Mark(_));
        self.next_entry += 1;
        Ok(())
    }

    /// Makes everything that was appended durable: on disk, and in the store. After an error of kind `Fenced` another writer has gone on.
    pub fn sync(&mut self) -> Result<()> {
        let Some(store) = self.place.store.clone() else { return self.sync_active() };
        if self.at_mark && self.is_uploaded_enough() {
            self.seal(self.appended_at)?;
        }
        self.sync_active()?;
        self.upload(&store)
    }

    fn sync_active(&self) -> Result<()> {
        self.active.as_ref().map_or(Ok(()), SegmentWriter::sync)
    }

    /// True if the next upload of the segment that is written to shall be its last.
    fn is_uploaded_enough(&self) -> bool {
        let Some(active) = &self.active else { return false };
        let bytes = active.bytes();
        bytes >= self.options.segment_bytes() || self.uploads.total + bytes > bytes.saturating_mul(UPLOADS_MAX).max(UPLOADED_BYTES_MIN)
    }

    /// Puts what the store does not have, the oldest first: what it has is without a gap at any time.
    pub(super) fn upload(&mut self, store: &SegmentStore) -> Result<()> {
        for segment in self.sealed.iter_mut().filter(|segment| !segment.stored) {
            store.put(segment.name, &segment.path, segment.bytes)?;
            segment.stored = true;
        }
        if let Some(active) = &self.active
            && active.bytes() > self.uploads.bytes
        {
            store.put(active.name(), active.path(), active.bytes())?;
            self.uploads.bytes = active.bytes();
            self.uploads.total += active.bytes();
        }
        if !self.tidy {
            self.tidy(store)?;
            self.tidy = true;
        }
        Ok(())
    }

    /// Removes from the store what is not of this log: what lay behind the mark where it went on, the files that it went on from, and what a writer that was taken
    /// for dead has put since.
    fn tidy(&self, store: &SegmentStore) -> Result<()> {
        let listing = store.list()?;
        // Who has a higher number and has put something owned the stream after this one had it.
        if listing.objects.iter().any(|object| object.name.writer > self.writer) {
            return Err(Error::fenced("another process has taken over the change log")
                .context("store", store)
                .remedy("run the stream in one process only, and give each stream a change_log.url of its own"));
        }
        let ours = self.names();
        for object in listing.objects.iter().filter(|object| !ours.contains(&object.name)) {
            store.remove(object.name)?;
        }
        for writer in listing.writers.into_iter().filter(|writer| *writer < self.writer) {
            store.remove_writer(writer)?;
        }
        Ok(())
    }

    /// The segments that there are.
    pub(super) fn names(&self) -> HashSet<SegmentName> {
        self.sealed.iter().map(|segment| segment.name).chain(self.active.as_ref().map(SegmentWriter::name)).collect()
    }

    fn seal(&mut self, now: TimestampMicros) -> Result<()> {
        if let Some(active) = self.active.take() {
            self.sealed.push(active.seal(now)?);
            self.uploads = Uploads::default();
            self.tidy = false;
            self.tell_readers()?;
        }
        Ok(())
    }

    /// Tells those who read on this machine what they need not ask the store for.
    pub(super) fn tell_readers(&self) -> Result<()> {
        match self.place.store {
            Some(_) => self.place.write_sealed(self.sealed.iter().map(|segment| (segment.name, segment.bytes))),
            None => Ok(()),
        }
    }

    /// Removes what was kept long enough, and what is too much; nothing that lies behind `needed`, if that is said. True if what is
    /// left is more than may be kept, and some of it can go later: the segment that is written to stays in any case, or the last one.
    pub fn retain(&mut self, now: TimestampMicros, needed: Option<LogPosition>) -> Result<bool> {
        let removable = self.sealed.len() - usize::from(self.active.is_none() && !self.sealed.is_empty());
        let mut gone = 0;
        let mut bytes = self.bytes();
        while gone < removable {
            let segment = &self.sealed[gone];
            let old = now.since(segment.ended_at) > self.options.retain_age;
            if !(old || bytes > self.options.retain_bytes) {
                break;
            }
            if let Some(needed) = needed
                && self.last_of(gone)? > needed
            {
                break;
            }
            let segment = &self.sealed[gone];
            if let Some(store) = &self.place.store {
                store.remove(segment.name)?;
            }
            remove(&segment.path)?;
            bytes -= segment.bytes;
            gone += 1;
        }
        self.sealed.drain(..gone);
        if gone > 0 {
            self.tell_readers()?;
        }
        if self.place.store.is_some() {
            let stored = self.sealed.iter().filter(|segment| segment.stored);
            let stored: std::collections::HashMap<_, _> = stored.map(|segment| (segment.name, segment.bytes)).collect();
            self.place.make_room(|name| stored.get(&name).copied(), false);
        }
        Ok(bytes > self.options.retain_bytes && gone < removable)
    }

    /// Nothing in a sealed segment lies behind this.
    fn last_of(&mut self, at: usize) -> Result<LogPosition> {
        if let Some(last) = self.sealed[at].last {
            return Ok(last);
        }
        let active = self.active.as_ref().map(|active| Listed { name: active.name(), path: active.path().to_owned(), object: None });
        let mut last = self.mark.as_ref().map_or(LogPosition::MAX, |mark| mark.position);
        for later in self.sealed[at + 1..].iter().map(Segment::listed).chain(active) {
            // A later one begins with the last entry of the one before it, unless it says that it begins within what follows a mark.
            if let Some(Place::Frame(opening)) = self.place.opening(&later)?
                && opening.kind == Kind::Mark
                && !opening.within
            {
                last = opening.last;
                break;
            }
        }
        self.sealed[at].last = Some(last);
        Ok(last)
    }
}

impl std::fmt::Debug for SegmentLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SegmentLog({}, {} to {})", self.options.directory.display(), self.first_entry(), self.next_entry)
    }
}
