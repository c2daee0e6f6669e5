//! Compaction: files of changes become files of what stands.
//!
//! Of the oldest files of a table, those whose changes all lie before the changes of every other file, each key keeps its newest change, also
//! if that is a delete, unless a truncate came after it; the newest truncate stays too. Rows are copied as they are, with their metadata, into
//! new files of the same form, in the same folders; nothing is computed anew. So whoever takes the newest change of each key finds the same
//! rows as before, from any program; what is gone is the history of these files.
//!
//! ```text
//! list and read footers (inputs) ── which rows stand, on keys and places alone (decide) ── copy them (rewrite) ── commit ── remove the old
//! ```
//!
//! New files are visible before the old ones go, and those go in any order: with the new ones beside them, any of the old ones that are left
//! add up to the same rows, because what ended a row is kept. So a change may be there twice for a moment, under the same sequence, and none
//! that stands is missing, whatever is killed when, whoever lists files meanwhile, and if two compactions meet. A file is only taken if the
//! checkpoint says that it is visible for good, so a stream that runs, or one that is to recover, is not disturbed.
//!
//! A change that leaves values out (`_metadata_unchanged`) is kept, because it needs the change before it, which is kept too.

mod decide;
mod inputs;
mod reader;
mod rewrite;

use std::fs::{File, TryLockError};
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures::{StreamExt, TryStreamExt, stream};
use logweir_core::{ConsumerName, Error, LogPosition, RelationName, Result, TimestampMicros};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::error::{io_error, store_error};
use crate::layout::{PathTemplate, private_folder};
use crate::options::FilesOptions;
use crate::staging::{Staging, blocking, create_folder};
use crate::store::{Place, open_place, open_store};
use inputs::Input;

/// What a compacted file says in its footer: up to which commit time, in microseconds since 1970, only what stands is left.
pub const COMPACTED: &str = "logweir.compacted";
/// And up to which position: who looks from a place before it may miss what stood there.
pub const COMPACTED_THROUGH: &str = "logweir.compacted_through";

/// Bytes of a part of an upload.
const PART_BYTES: usize = 8 << 20;
/// Files removed at a time.
const REMOVALS: usize = 16;

/// Compacts the files of one consumer.
pub struct Compaction {
    options: FilesOptions,
    template: PathTemplate,
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    staging: Staging,
    memory_bytes: usize,
    /// On a disk: two at once would take each other's files for leftovers. In a bucket the one that is disturbed fails, and nothing is lost.
    _lock: Option<File>,
}

/// Which files may be taken.
#[derive(Debug, Clone, Copy)]
pub struct CompactionLimits {
    /// None with a change behind it: up to here everything is visible for good, whatever a recovery does.
    pub through: LogPosition,
    /// None with a change that was committed at this time or later.
    pub before: Option<TimestampMicros>,
}

/// What became of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compacted {
    /// Its files were replaced.
    Replaced {
        /// What was taken.
        from: Contents,
        /// What it became.
        to: Contents,
    },
    /// There was nothing to gain.
    AsItIs,
    /// It cannot be, with the reason.
    Not(&'static str),
}

/// How much files hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Contents {
    /// Files.
    pub files: usize,
    /// Their rows.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Compaction {
    /// Opens the destination that `options` describe, for the consumer that lands there, and removes what an earlier compaction that was cut
    /// off had staged. Keys take up to `memory_bytes` of memory; where that is not enough, files are looked at several times. An error of
    /// kind `Fenced` if another compaction is at work.
    pub async fn open(options: FilesOptions, consumer: &ConsumerName, memory_bytes: usize) -> Result<Self> {
        let template = options.validate()?;
        let (store, prefix) = open_store(&options.url, &options.options)?;
        let place = open_place(&options.url, &options.options)?;
        // A folder of its own: what the stream has staged is none of our business.
        let own = ConsumerName { stream: consumer.stream.clone(), destination: format!("{}~compaction", consumer.destination) };
        let lock = match &place {
            Place::Local(root) => {
                let path = root.join(private_folder("compaction", &own)).with_extension("lock");
                Some(blocking(move || lock(&path)).await?)
            }
            Place::Remote { .. } => None,
        };
        let staging = Staging::new(&place, &own, PART_BYTES);
        staging.discard_others(&[]).await?;
        Ok(Compaction { options, template, store, prefix, staging, memory_bytes, _lock: lock })
    }

    /// Compacts a table. Errors leave it as it was, or with changes that are there twice.
    pub async fn table(&self, table: &RelationName, limits: CompactionLimits) -> Result<Compacted> {
        self.compact(table, limits).await.map_err(|error| error.context("table", table))
    }

    async fn compact(&self, table: &RelationName, limits: CompactionLimits) -> Result<Compacted> {
        let (inputs, all) = match self.inputs(table, limits).await? {
            Ok(found) => found,
            Err(reason) => return Ok(Compacted::Not(reason)),
        };
        if inputs.is_empty() {
            return Ok(Compacted::AsItIs);
        }
        let key = match inputs::key(&all) {
            Ok(key) => key,
            Err(reason) => return Ok(Compacted::Not(reason)),
        };
        let kept = match self.decide(&inputs, &key).await? {
            Ok(kept) => kept,
            Err(reason) => return Ok(Compacted::Not(reason)),
        };
        let groups = self.worth_it(&inputs, &kept);
        if groups.is_empty() {
            return Ok(Compacted::AsItIs);
        }
        let replaced: Vec<&Input> = groups.iter().flatten().map(|index| &inputs[*index]).collect();
        let from = Contents {
            files: replaced.len(),
            rows: replaced.iter().map(|input| input.rows as u64).sum(),
            bytes: replaced.iter().map(|input| input.size).sum(),
        };
        let to = self.rewrite(&inputs, &groups, &kept).await?;
        self.remove(&replaced).await?;
        Ok(Compacted::Replaced { from, to })
    }

    /// The old files go; who fails here leaves changes that are there twice, and the next compaction takes them again.
    async fn remove(&self, inputs: &[&Input]) -> Result<()> {
        let remove = |input: &&Input| {
            let (store, path) = (Arc::clone(&self.store), input.path.clone());
            async move {
                match store.delete(&path).await {
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                    Err(error) => Err(store_error(error, "could not remove a file that was compacted", &path)),
                }
            }
        };
        let removals: Vec<_> = inputs.iter().map(remove).collect();
        stream::iter(removals).buffer_unordered(REMOVALS).try_collect().await
    }
}

fn lock(path: &FilePath) -> Result<File> {
    if let Some(folder) = path.parent() {
        create_folder(folder)?;
    }
    let file = File::create(path).map_err(|error| io_error(error, "could not open the lock of the compaction", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::fenced("another compaction of the destination is at work")
            .context("path", path.display())
            .remedy("wait until it has ended")),
        Err(TryLockError::Error(error)) => Err(io_error(error, "could not lock the compaction", path.display())),
    }
}

/// A name that no other run has.
fn run_name() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("c{:016x}{:08x}", now.as_nanos() as u64, std::process::id())
}
