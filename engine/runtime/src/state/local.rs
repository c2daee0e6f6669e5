//! The checkpoint in a local directory.
//!
//! `DIR/STREAM/checkpoint.json` is replaced by writing a temporary file, syncing it, renaming it over the old one and
//! syncing the directory. `DIR/STREAM/lock` is locked for the owner's life; the kernel frees the lock however the
//! process ends, so there is nothing to clean up after a crash. Network file systems without locks are refused by the
//! lock call itself.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind as IoErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use logweir_core::{Error, Result, StateStore};

use super::{check_stream_name, holder};

const DOCUMENT: &str = "checkpoint.json";
const TEMPORARY: &str = "checkpoint.json.tmp";
const LOCK: &str = "lock";

/// The longest holder's description read from a lock file.
const HOLDER_BYTES_MAX: u64 = 512;

/// Keeps a stream's document in a local directory; a second owner is refused while the first lives.
#[derive(Debug)]
pub struct LocalStateStore {
    directory: Arc<Path>,
    /// Locked while it is open.
    lock: Option<File>,
}

impl LocalStateStore {
    /// The store of `stream` below `directory`. Touches nothing yet.
    pub fn new(directory: impl Into<PathBuf>, stream: &str) -> Result<Self> {
        check_stream_name(stream)?;
        Ok(LocalStateStore { directory: directory.into().join(stream).into(), lock: None })
    }

    /// Runs file work where it may block.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Path) -> Result<T> + Send + 'static) -> Result<T> {
        let directory = Arc::clone(&self.directory);
        let done = tokio::task::spawn_blocking(move || work(&directory)).await;
        // What it panicked with may hold values, and is told by the hook as far as it may be.
        done.map_err(|_| Error::internal("the state store's file work did not end"))?
    }
}

#[async_trait]
impl StateStore for LocalStateStore {
    async fn claim(&mut self) -> Result<Option<Vec<u8>>> {
        if self.lock.is_none() {
            self.lock = Some(self.blocking(lock).await?);
        }
        self.blocking(read).await
    }

    async fn save(&mut self, document: &[u8]) -> Result<()> {
        if self.lock.is_none() {
            return Err(Error::internal("a checkpoint was saved before its store was claimed"));
        }
        let document = document.to_vec();
        self.blocking(move |directory| replace(directory, &document)).await
    }

    async fn peek(&self) -> Result<Option<Vec<u8>>> {
        self.blocking(read).await
    }

    fn location(&self) -> String {
        self.directory.join(DOCUMENT).display().to_string()
    }
}

fn lock(directory: &Path) -> Result<File> {
    std::fs::create_dir_all(directory).map_err(|error| failed("could not create the state directory", directory, error))?;
    let path = directory.join(LOCK);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|error| failed("could not open the state directory's lock file", &path, error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = Vec::new();
            // Informative only; the lock itself is what counts.
            let _ = file.take(HOLDER_BYTES_MAX).read_to_end(&mut holder);
            let holder = String::from_utf8_lossy(&holder).trim().to_owned();
            return Err(Error::fenced("the stream is run by another process")
                .context("state", directory.display())
                .context("held by", if holder.is_empty() { "a process that has just started" } else { &holder })
                .remedy("stop that process first, or give this stream another name or state directory"));
        }
        Err(TryLockError::Error(error)) => return Err(failed("could not lock the state directory", &path, error)),
    }
    let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", holder()));
    written.map_err(|error| failed("could not write the state directory's lock file", &path, error))?;
    Ok(file)
}

fn read(directory: &Path) -> Result<Option<Vec<u8>>> {
    let path = directory.join(DOCUMENT);
    match std::fs::read(&path) {
        Ok(document) => Ok(Some(document)),
        Err(error) if error.kind() == IoErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("could not read the checkpoint", &path, error)),
    }
}

fn replace(directory: &Path, document: &[u8]) -> Result<()> {
    let (temporary, path) = (directory.join(TEMPORARY), directory.join(DOCUMENT));
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(document)?;
        file.sync_all()
    };
    write().map_err(|error| {
        // Frees what a full disk needs most; the next save truncates it anyway.
        let _ = std::fs::remove_file(&temporary);
        failed("could not write the checkpoint", &temporary, error)
    })?;
    let rename = || {
        std::fs::rename(&temporary, &path)?;
        File::open(directory)?.sync_all()
    };
    rename().map_err(|error| failed("could not replace the checkpoint", &path, error))
}

/// A full disk or a passing fault of the device may go away; a missing right does not.
fn failed(what: &'static str, path: &Path, error: std::io::Error) -> Error {
    let failure = match error.kind() {
        IoErrorKind::StorageFull | IoErrorKind::QuotaExceeded | IoErrorKind::FileTooLarge => {
            Error::transient(what).remedy("the disk is full: free some space, the stream then goes on by itself")
        }
        IoErrorKind::PermissionDenied | IoErrorKind::ReadOnlyFilesystem => {
            Error::denied(what).remedy("let the user that runs logweir write there")
        }
        IoErrorKind::NotADirectory | IoErrorKind::IsADirectory | IoErrorKind::Unsupported | IoErrorKind::InvalidFilename => {
            Error::config(what).remedy("choose another state directory, on a local file system")
        }
        _ => Error::transient(what),
    };
    failure.context("path", path.display()).source(error)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use logweir_core::ErrorKind;

    use super::*;

    #[tokio::test]
    async fn a_second_owner_is_told_who_holds_the_stream() {
        let directory = tempfile::tempdir().unwrap();
        let mut first = LocalStateStore::new(directory.path(), "shop").unwrap();
        assert_eq!(first.claim().await.unwrap(), None);
        first.save(b"one").await.unwrap();
        let mut second = LocalStateStore::new(directory.path(), "shop").unwrap();
        let error = second.claim().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Fenced);
        assert!(error.get_context("held by").unwrap().starts_with(&format!("process {} on ", std::process::id())), "{error}");
        assert_eq!(second.peek().await.unwrap().unwrap(), b"one");
        drop(first);
        assert_eq!(second.claim().await.unwrap().unwrap(), b"one");
    }

    #[tokio::test]
    async fn a_save_cut_short_leaves_the_old_document() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = LocalStateStore::new(directory.path(), "shop").unwrap();
        store.claim().await.unwrap();
        store.save(b"one").await.unwrap();
        // A process that died while it wrote left this.
        std::fs::write(directory.path().join("shop").join(TEMPORARY), b"tw").unwrap();
        assert_eq!(store.claim().await.unwrap().unwrap(), b"one");
        store.save(b"two").await.unwrap();
        assert_eq!(store.peek().await.unwrap().unwrap(), b"two");
        assert!(!directory.path().join("shop").join(TEMPORARY).exists());
    }

    #[tokio::test]
    async fn a_directory_that_cannot_be_is_a_mistake_in_the_configuration() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("file"), b"").unwrap();
        let mut store = LocalStateStore::new(directory.path().join("file"), "shop").unwrap();
        let error = store.claim().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    }

    #[test]
    fn a_name_that_is_no_directory_name_is_refused() {
        for name in ["", "..", ".hidden", "a/b", "a b", "ü"] {
            assert_eq!(LocalStateStore::new("/tmp", name).unwrap_err().kind(), ErrorKind::Config, "{name}");
        }
    }
}
