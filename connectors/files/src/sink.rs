//! The destination: looks, recovers, opens writers.

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use logweir_core::{ConsumerName, Error, ErrorKind, Finding, Relation, Result, Severity, Sink, Staged, Writer, WriterContext};
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};

use crate::error::{io_error, store_error};
use crate::form::Form;
use crate::layout::{PRIVATE_FOLDER, PathTemplate, segment};
use crate::options::FilesOptions;
use crate::staging::{Staging, Token, blocking};
use crate::store::{Place, open_place};
use crate::writer::FilesWriter;

const MIB: u64 = 1024 * 1024;

/// Parts of an upload: above the 5 MiB that stores ask for, small enough that many files can have one waiting.
const PART_BYTES_MIN: u64 = 8 * MIB;

/// Parts of an upload at most, well below the 10,000 a store takes: a file may outgrow its rotation by a row group.
const PARTS_PLANNED: u64 = 5_000;

/// Below this a disk is worth a warning, whatever is written to it.
const FREE_BYTES_MIN: u64 = 1024 * MIB;

/// Files: on a disk, or in an object store.
pub struct FilesSink {
    options: FilesOptions,
    template: PathTemplate,
    place: Place,
}

impl FilesSink {
    /// The destination that `options` describe. Every mistake in them that can be seen without looking at the place is an
    /// error of kind `Config`.
    pub fn new(options: FilesOptions) -> Result<FilesSink> {
        let template = options.validate()?;
        let place = open_place(&options.url, &options.options)?;
        Ok(FilesSink { options, template, place })
    }

    /// The same in a store opened elsewhere. `store` and `multipart` must be the same place.
    pub fn with_store(
        options: FilesOptions,
        store: Arc<dyn ObjectStore>,
        multipart: Arc<dyn MultipartStore>,
        prefix: Path,
    ) -> Result<FilesSink> {
        let template = options.validate()?;
        Ok(FilesSink { options, template, place: Place::Remote { store, multipart, prefix } })
    }

    fn staging(&self, consumer: &ConsumerName) -> Staging {
        let part_bytes = PART_BYTES_MIN.max(self.options.rotate_bytes / PARTS_PLANNED);
        Staging::new(&self.place, consumer, usize::try_from(part_bytes).unwrap_or(usize::MAX))
    }

    /// A name that no other probe has.
    fn probe_name(&self) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        format!("probe-{}-{}-{}", segment(&self.options.stream), std::process::id(), now.as_nanos())
    }
}

#[async_trait]
impl Sink for FilesSink {
    async fn check(&self) -> Result<Vec<Finding>> {
        let checked = match &self.place {
            Place::Local(root) => {
                let (root, name) = (root.clone(), self.probe_name());
                let wanted = FREE_BYTES_MIN.max(self.options.rotate_bytes.saturating_mul(4));
                blocking(move || check_folder(&root, &name, wanted)).await
            }
            Place::Remote { store, multipart, prefix } => {
                let path = Path::from_iter(prefix.parts().chain(Path::from(PRIVATE_FOLDER).parts())).join(self.probe_name());
                check_store(store.as_ref(), multipart.as_ref(), &path).await.map(|()| Vec::new())
            }
        };
        match checked {
            Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::Config) => Ok(vec![finding(&error)]),
            other => other,
        }
    }

    fn check_relation(&self, relation: &Relation) -> Result<()> {
        Form::check(relation)
    }

    async fn recover(&self, consumer: &ConsumerName, staged: &[Staged]) -> Result<()> {
        let staging = self.staging(consumer);
        let tokens = Token::parse(staged)?;
        staging.commit(tokens.clone()).await?;
        staging.discard_others(&tokens).await
    }

    async fn open(&self, context: WriterContext) -> Result<Box<dyn Writer>> {
        let staging = self.staging(&context.consumer);
        Ok(Box::new(FilesWriter::new(&self.options, self.template.clone(), context, staging)))
    }
}

fn finding(error: &Error) -> Finding {
    let code = if error.kind() == ErrorKind::Denied { "files_denied" } else { "files_place" };
    let remedy = error.get_remedy().unwrap_or("correct the url of the destination and its options");
    Finding { severity: Severity::Error, code, message: error.report(), remedy: remedy.to_owned() }
}

/// Writes, renames and removes a file where the destination is or will be, and looks at the free space.
fn check_folder(root: &FilePath, name: &str, wanted: u64) -> Result<Vec<Finding>> {
    // Folders are made when the stream starts; until then the nearest one above shows whether they can be.
    let there: PathBuf = root
        .ancestors()
        .find(|folder| folder.exists())
        .ok_or_else(|| Error::config("no folder of the url exists").context("url", root.display()))?
        .to_owned();
    if !there.is_dir() {
        return Err(Error::config("the url leads through something that is not a folder").context("path", there.display()));
    }
    let (probe, renamed) = (there.join(format!(".{name}")), there.join(format!(".{name}-renamed")));
    let written = std::fs::write(&probe, b"probe").and_then(|()| std::fs::rename(&probe, &renamed));
    let removed = std::fs::remove_file(if written.is_ok() { &renamed } else { &probe });
    written.map_err(|error| io_error(error, "could not write to the folder of the destination", there.display()))?;
    removed.map_err(|error| io_error(error, "could not remove a file from the folder of the destination", there.display()))?;
    let mut findings = Vec::new();
    if let Some(free) = free_bytes(&there).filter(|&free| free < wanted) {
        findings.push(Finding {
            severity: Severity::Warning,
            code: "files_disk_space",
            message: format!("{} has {} MiB free, which will not last long", there.display(), free / MIB),
            remedy: format!("free at least {} MiB, or choose another folder", wanted / MIB),
        });
    }
    Ok(findings)
}

/// Bytes that a disk has free for us below an existing folder; `None` where that cannot be told.
#[cfg(unix)]
pub fn free_bytes(folder: &FilePath) -> Option<u64> {
    let found = rustix::fs::statvfs(folder).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Bytes that a disk has free for us below an existing folder; `None` where that cannot be told.
#[cfg(not(unix))]
pub fn free_bytes(_: &FilePath) -> Option<u64> {
    None
}

/// Goes once through everything a stream will ask of the store.
async fn check_store(store: &dyn ObjectStore, multipart: &dyn MultipartStore, path: &Path) -> Result<()> {
    let failed = |doing: &'static str| move |error| store_error(error, doing, path);
    let upload = multipart.create_multipart(path).await.map_err(failed("could not begin an upload"))?;
    let part = multipart.put_part(path, &upload, 0, PutPayload::from_static(b"probe")).await;
    let part = part.map_err(failed("could not upload a part"))?;
    multipart.complete_multipart(path, &upload, vec![part]).await.map_err(failed("could not complete an upload"))?;
    store.head(path).await.map_err(failed("could not look at an object"))?;
    let aborted = multipart.create_multipart(path).await.map_err(failed("could not begin an upload"))?;
    multipart.abort_multipart(path, &aborted).await.map_err(failed("could not abort an upload"))?;
    store.list_with_delimiter(path.parent().as_ref()).await.map_err(failed("could not list the bucket"))?;
    store.delete(path).await.map_err(failed("could not remove an object"))
}
