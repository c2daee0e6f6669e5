//! What was seen of segments, kept for who looks next.
//!
//! A sealed segment has an index; one that is written to has none, and who looks for the newest changes would step over all its frames, each time.
//! So what a process has seen of it stays: where its frames begin, and the index that it would have by now. The next look goes on from there.
//!
//! A segment is never changed but at its end. There it is cut off when its log is opened again, and goes on with other frames: the writer
//! [forgets](forget) what was seen then, and whoever is in another process finds another frame where the last one was.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use super::frame::{Header, Kind};
use super::index::Index;
use logweir_core::RelationName;

/// Segments that are remembered: of each stream the last one or two are asked for.
const SEGMENTS_MAX: usize = 32;
/// Frames that are remembered of a segment; those behind are stepped over each time. Some hundred bytes each.
const FRAMES_MAX: usize = 1 << 17;

/// The frames of a segment, as far as they were seen.
#[derive(Debug, Default)]
pub(super) struct Outline {
    frames: Vec<(u64, Header)>,
    index: Option<Index>,
}

impl Outline {
    /// Where what was not seen yet begins, and the number that comes there; `None` if nothing was seen.
    pub(super) fn end(&self) -> Option<(u64, u64)> {
        self.frames.last().map(|(offset, header)| (offset + header.frame_bytes(), header.entry + u64::from(!header.repeats)))
    }

    /// The last frame that was seen.
    pub(super) fn last(&self) -> Option<(u64, Header)> {
        self.frames.last().copied()
    }

    /// True if no more is remembered.
    pub(super) fn is_full(&self) -> bool {
        self.frames.len() >= FRAMES_MAX
    }

    /// Takes note of the next frame, as an [index](Index::note) does. A segment begins with a mark; false if this one does not.
    pub(super) fn note(&mut self, header: &Header, offset: u64, relation: Option<(&RelationName, u32)>) -> bool {
        match &mut self.index {
            Some(index) => index.note(header, offset, relation),
            None if header.kind == Kind::Mark => {
                self.index.insert(Index::begin(header)).note(header, offset, None);
            }
            None => return false,
        }
        self.frames.push((offset, *header));
        true
    }

    /// The frame that begins at `offset`. `hint` is where it may be, and where the one behind it may be then.
    pub(super) fn at(&self, offset: u64, hint: &mut usize) -> Option<Header> {
        let place = match self.frames.get(*hint) {
            Some((at, _)) if *at == offset => *hint,
            _ => self.frames.binary_search_by_key(&offset, |(at, _)| *at).ok()?,
        };
        *hint = place + 1;
        Some(self.frames[place].1)
    }

    /// The index of what was seen.
    pub(super) fn index(&self) -> Option<&Index> {
        self.index.as_ref()
    }
}

/// What was seen of a segment, shared.
pub(super) type Shared = Arc<Mutex<Outline>>;

#[derive(Default)]
struct Known {
    /// With when they were asked for last.
    segments: HashMap<PathBuf, (u64, Shared)>,
    asked: u64,
}

static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);

/// What was seen of the segment in this file.
pub(super) fn of(path: &Path) -> Shared {
    let mut known = locked(&KNOWN);
    known.asked += 1;
    let asked = known.asked;
    if let Some((last, outline)) = known.segments.get_mut(path) {
        *last = asked;
        return Arc::clone(outline);
    }
    if known.segments.len() >= SEGMENTS_MAX
        && let Some(oldest) = known.segments.iter().min_by_key(|(_, (asked, _))| *asked).map(|(path, _)| path.clone())
    {
        known.segments.remove(&oldest);
    }
    let outline = Shared::default();
    known.segments.insert(path.to_owned(), (asked, Arc::clone(&outline)));
    outline
}

/// What was seen of the segment in this file, if anything is remembered.
pub(super) fn known(path: &Path) -> Option<Shared> {
    locked(&KNOWN).segments.get(path).map(|(_, outline)| Arc::clone(outline))
}

/// The file is cut off, or another one: what was seen does not count any more, for those who go by it now neither.
pub(super) fn forget(path: &Path) {
    let forgotten = locked(&KNOWN).segments.remove(path);
    if let Some((_, outline)) = forgotten {
        *locked(&outline) = Outline::default();
    }
}

// Every change of what it guards is complete before anything could panic.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
