//! Opens a change log for writing: who may, and where it goes on.

use std::fs::File;
use std::io::{self, Read as _};
use std::sync::Arc;

use logweir_core::{Error, LogMark, LogPosition, Relation, Result, TimestampMicros};

use super::batch::Encoding;
use super::frame::Kind;
use super::index::Index;
use super::log::{Segment, SegmentLog, Uploads};
use super::name::{SegmentName, keep_valid};
use super::place::{Listed, SegmentPlace, local_files, local_segments, remove};
use super::reader::{Frame, Place, SegmentReader};
use super::store::{Partial, remove_old_partials};
use super::writer::SegmentWriter;
use super::{LOCK_TRIES, LOCK_TRIES_STORE, SegmentOptions, file_failed, lock, sync_directory};

/// The right to write: the directory's lock and, with a store, a number that is higher than that of any writer before.
///
/// A number says which writer came later, not which may write: of two processes that want a stream the one that has lost it may come later with its
/// number. So it is taken while the process owns the stream, and used only if it still owns it then: whoever owns it later takes a higher one.
#[derive(Debug)]
pub struct SegmentClaim {
    options: SegmentOptions,
    place: SegmentPlace,
    writer: u64,
    lock: File,
}

impl SegmentLog {
    /// Becomes the log's writer. Nothing of what it holds is touched yet.
    pub fn claim(options: SegmentOptions) -> Result<SegmentClaim> {
        let (directory, place) = (&options.directory, options.place());
        std::fs::create_dir_all(directory).map_err(|error| file_failed("could not create the change log's directory", directory, error))?;
        let lock = lock(directory, if place.store.is_some() { LOCK_TRIES_STORE } else { LOCK_TRIES })?;
        place.remove_sealed()?;
        remove_old_partials(directory);
        let local = local_files(directory)?.iter().map(|segment| segment.name.writer).max().unwrap_or(0);
        let writer = match &place.store {
            Some(store) => store.claim(local)?,
            // Of a log that was in a store once, what is here goes on.
            None => local,
        };
        Ok(SegmentClaim { place, writer, lock, options })
    }

    /// [Claims](Self::claim) the log and [opens](SegmentClaim::open) it.
    pub fn open(options: SegmentOptions, mark: Option<LogPosition>) -> Result<Self> {
        Self::claim(options)?.open(mark)
    }
}

impl SegmentClaim {
    /// Opens the log and cuts it off behind `mark`. Without a mark, or where the log does not hold everything through it, it
    /// begins anew: everything in the directory goes, and with the first sync everything in the store. [`mark`](SegmentLog::mark) tells which.
    pub fn open(self, mark: Option<LogPosition>) -> Result<SegmentLog> {
        self.open_or(mark, |_| Ok(()))
    }

    /// The same where the source may have forgotten what the log holds, so that nobody else has it: an error of kind `Corrupt` instead of a log
    /// that begins anew over segments that are there.
    pub fn open_only_copy(self, mark: Option<LogPosition>) -> Result<SegmentLog> {
        self.open_or(mark, |log| {
            let error = Error::corrupt("the change log does not hold what the checkpoint says, and the source may have forgotten it")
                .context("directory", log.options.directory.display());
            Err(match &log.place.store {
                None => error.remedy(
                    "nothing was removed. Put the directory back from a copy; or move it away and start again: the stream then reads from where the \
                     slowest destination is, and says so if the source has that no more",
                ),
                Some(store) => error.context("store", store).remedy(
                    "nothing was removed. Put the objects back from a copy; or move them away and start again: the stream then reads from where the \
                     slowest destination is, and says so if the source has that no more",
                ),
            })
        })
    }

    /// `unfit` has a say before a log that is there goes.
    fn open_or(self, mark: Option<LogPosition>, unfit: impl FnOnce(&SegmentLog) -> Result<()>) -> Result<SegmentLog> {
        let SegmentClaim { options, place, writer, lock } = self;
        let mut log = SegmentLog {
            encoding: Encoding::new(options.compression)?,
            place,
            writer,
            sealed: Vec::new(),
            active: None,
            uploads: Uploads::default(),
            tidy: false,
            mark: None,
            at_mark: false,
            next_entry: 0,
            appended_at: TimestampMicros(0),
            _lock: lock,
            options,
        };
        let segments = log.find()?;
        let kept = match mark {
            Some(mark) => log.resume(&segments, mark)?,
            None => false,
        };
        if !kept {
            if mark.is_some() && !segments.is_empty() {
                unfit(&log)?;
            }
            log.sealed.clear();
        }
        let kept_files = log.names();
        for segment in local_files(&log.options.directory)?.iter().filter(|segment| !kept_files.contains(&segment.name)) {
            tracing::debug!(segment = %segment.path.display(), "a segment that is not of the change log, or lies behind the checkpoint, goes");
            remove(&segment.path)?;
        }
        sync_directory(&log.options.directory)?;
        log.tell_readers()?;
        if let Some(store) = log.place.store.clone()
            && kept
            && segments.iter().any(|segment| segment.object.is_none())
        {
            tracing::info!(store = %store, "the change log was in its directory only until now: it is uploaded");
            log.upload(&store)?;
        }
        Ok(log)
    }
}

impl SegmentLog {
    /// The segments that count: those of the store, if that has any.
    fn find(&self) -> Result<Vec<Listed>> {
        let directory = &self.options.directory;
        let Some(store) = &self.place.store else { return local_segments(directory) };
        let objects = store.list()?.objects;
        if objects.is_empty() {
            return local_segments(directory);
        }
        let mut segments: Vec<Listed> = objects.into_iter().map(|object| self.place.listed(object)).collect();
        keep_valid(&mut segments, |segment| segment.name);
        Ok(segments)
    }

    /// Goes on behind `mark`, the last whole frame that is still right. False if the log does not hold it.
    fn resume(&mut self, files: &[Listed], mark: LogPosition) -> Result<bool> {
        let mut resumed = None;
        // In the last segment that begins at or before the mark; what begins within that which follows the mark lies behind it.
        for (at, file) in files.iter().enumerate().rev() {
            let Place::Frame(opening) = self.place.opening(file)?.ok_or_else(|| moved(file))? else { continue };
            if opening.kind == Kind::Mark && opening.last <= mark {
                let was_local = file.is_local();
                let mut found = scan(self.open_listed(file)?, mark)?;
                if found.is_none() && was_local && file.object.is_some() {
                    // What is wrong may be the copy.
                    remove(&file.path)?;
                    found = scan(self.open_listed(file)?, mark)?;
                }
                resumed = found.map(|found| (at, found));
                if resumed.is_some() || !(opening.within && opening.last == mark) {
                    break;
                }
            }
        }
        let Some((at, found)) = resumed else { return Ok(false) };
        // Older ones are checked when they are read: who needs them is told what is wrong with them, and nobody else minds.
        for file in files[..at].iter().rev() {
            let segment = sealed_segment(file, self.sealed.last(), mark)?;
            self.sealed.push(segment);
        }
        self.sealed.reverse();
        let name = self.own(&files[at], found.bytes)?;
        self.next_entry = found.index.next_entry;
        self.mark = Some(found.mark);
        self.at_mark = true;
        let directory = &self.options.directory;
        self.active = Some(SegmentWriter::resume(directory, name, found.bytes, found.index, found.relations, &self.encoding)?);
        Ok(true)
    }

    fn open_listed(&self, file: &Listed) -> Result<SegmentReader> {
        self.place.open_copy(file)?.ok_or_else(|| moved(file))
    }

    /// The file to go on in behind its first `bytes` bytes: without a store the same one. With one a copy under a name of this writer's own, for other processes may put the other one,
    /// or download it over what is written here.
    fn own(&self, file: &Listed, bytes: u64) -> Result<SegmentName> {
        if self.place.store.is_none() {
            return Ok(file.name);
        }
        let name = SegmentName { first_entry: file.first_entry(), writer: self.writer };
        let mut copy = Partial::create(&self.options.directory, &name.to_string())?;
        let unread = |error| file_failed("could not read a segment of the change log", &file.path, error);
        let mut from = File::open(&file.path).map_err(unread)?.take(bytes);
        io::copy(&mut from, &mut copy.file).map_err(|error| copy.failed(error))?;
        copy.finish()?;
        Ok(name)
    }
}

/// What was listed is gone.
fn moved(file: &Listed) -> Error {
    Error::transient("the change log has changed while it was opened").context("segment", file.name)
}

/// A segment that ends at or before `mark`. One whose index is damaged goes together with the one behind it.
fn sealed_segment(file: &Listed, following: Option<&Segment>, mark: LogPosition) -> Result<Segment> {
    let (name, path, bytes, stored) = (file.name, file.path.clone(), file.bytes(), file.object.is_some());
    if let Some(object) = file.object
        && !file.is_local()
    {
        return Ok(Segment { name, path, last: None, ended_at: object.put_at, bytes, stored });
    }
    if let Some(mut reader) = SegmentReader::open(file.first_entry(), &path)?
        && let Some(index) = reader.index()?
    {
        return Ok(Segment { stored, ..Segment::new(name, path, index, bytes) });
    }
    tracing::warn!(
        segment = %path.display(),
        "the index of a segment of the change log is damaged: a destination that still needs the segment goes by its changes, and says so if \
         they are damaged, too"
    );
    let (last, ended_at) = following.map_or((Some(mark), TimestampMicros(i64::MAX)), |following| (following.last, following.ended_at));
    Ok(Segment { name, path, last, ended_at, bytes, stored })
}

/// Where a segment is cut off.
struct Found {
    mark: LogMark,
    /// The end of the mark's frame.
    bytes: u64,
    index: Index,
    relations: Vec<Arc<Relation>>,
}

/// Reads a segment up to a mark, the last of its position. `None` if it does not hold everything from its beginning through it.
fn scan(mut reader: SegmentReader, position: LogPosition) -> Result<Option<Found>> {
    let mut index: Option<Index> = None;
    let mut relations: Vec<Arc<Relation>> = Vec::new();
    let mut found = None;
    while let Place::Frame(header) = reader.place()? {
        if header.last > position {
            break;
        }
        let offset = reader.offset();
        let index = match &mut index {
            Some(index) => index,
            None if header.kind == Kind::Mark => index.insert(Index::begin(&header)),
            None => return Ok(None),
        };
        match header.kind {
            Kind::Changes => {
                if !reader.is_whole(&header)? {
                    break;
                }
                reader.step(&header);
                index.note(&header, offset, None);
            }
            _ => match reader.read(&header, &Arc::default())? {
                None => break,
                Some(Frame::Relation(relation)) => {
                    index.note(&header, offset, Some((relation.name(), relation.version())));
                    // One that is announced again keeps its number.
                    if relations.len() < index.relations.len() {
                        relations.push(relation);
                    }
                }
                Some(Frame::Mark(mark)) => {
                    index.note(&header, offset, None);
                    if mark.position == position && !header.within {
                        found = Some(Found { mark, bytes: reader.offset(), index: index.clone(), relations: relations.clone() });
                    }
                }
                Some(Frame::Changes(_)) => {}
            },
        }
    }
    Ok(found)
}
