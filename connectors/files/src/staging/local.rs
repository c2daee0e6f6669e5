//! Files on a disk: a temporary file, then a rename.
//!
//! Whatever a token names must be found again after a power cut, so files are synced, and so is every folder that gains or
//! loses a name, before anybody relies on it.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use logweir_core::{ConsumerName, Error, Result};

use super::{Token, foreign_token};
use crate::error::io_error;
use crate::layout::private_folder;

/// The staging folder of a consumer.
pub(crate) struct LocalStaging {
    root: PathBuf,
    /// Relative to the root.
    folder: String,
}

impl LocalStaging {
    pub(crate) fn new(root: &Path, consumer: &ConsumerName) -> Self {
        LocalStaging { root: root.to_owned(), folder: private_folder("staging", consumer) }
    }

    fn folder(&self) -> PathBuf {
        self.root.join(&self.folder)
    }

    pub(crate) async fn create(&self, path: String) -> Result<LocalFile> {
        let name = path.rsplit('/').next().unwrap_or(&path);
        let staged = format!("{}/{name}.tmp", self.folder);
        let folder = self.folder();
        let full = self.root.join(&staged);
        blocking(move || {
            create_folder(&folder)?;
            let file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&full)
                .map_err(|error| io_error(error, "could not create a file", full.display()))?;
            Ok(LocalFile { file, full, staged, path, bytes: 0 })
        })
        .await
    }

    pub(crate) async fn sync(&self) -> Result<()> {
        let folder = self.folder();
        blocking(move || if folder.exists() { sync_folder(&folder) } else { Ok(()) }).await
    }

    pub(crate) async fn commit(&self, tokens: Vec<Token>) -> Result<()> {
        let root = self.root.clone();
        blocking(move || {
            let mut changed = BTreeSet::new();
            for token in tokens {
                let Token::Local { staged, path, bytes, .. } = token else { return Err(foreign_token()) };
                let (staged, path) = (root.join(staged), root.join(path));
                rename(&staged, &path, bytes)?;
                // Also when an earlier attempt did the rename: it may have died before this.
                changed.extend([&path, &staged].iter().filter_map(|path| path.parent()).map(Path::to_owned));
            }
            changed.iter().filter(|folder| folder.exists()).try_for_each(|folder| sync_folder(folder))
        })
        .await
    }

    pub(crate) async fn discard_all(&self) -> Result<()> {
        let folder = self.folder();
        blocking(move || {
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(io_error(error, "could not list the staging folder", folder.display())),
            };
            for entry in entries {
                let path = entry.map_err(|error| io_error(error, "could not list the staging folder", folder.display()))?.path();
                tracing::info!(path = %path.display(), "removes a file that an earlier run did not finish");
                fs::remove_file(&path).map_err(|error| io_error(error, "could not remove a leftover", path.display()))?;
            }
            Ok(())
        })
        .await
    }
}

/// A temporary file.
pub(crate) struct LocalFile {
    file: File,
    full: PathBuf,
    staged: String,
    path: String,
    bytes: u64,
}

impl LocalFile {
    pub(crate) async fn append(&mut self, bytes: Vec<u8>) -> Result<()> {
        // A second handle on the same open file, so that ours stays when the write fails.
        let file = self.file.try_clone().map_err(|error| io_error(error, "could not write a file", self.full.display()))?;
        let full = self.full.clone();
        self.bytes += bytes.len() as u64;
        blocking(move || (&file).write_all(&bytes).map_err(|error| io_error(error, "could not write a file", full.display()))).await
    }

    pub(crate) async fn finish(self, rows: u64) -> Result<Token> {
        let LocalFile { file, full, staged, path, bytes } = self;
        blocking(move || file.sync_all().map_err(|error| io_error(error, "could not sync a file", full.display()))).await?;
        Ok(Token::Local { staged, path, bytes, rows })
    }
}

/// Moves a staged file to its place, or sees that this was done before.
fn rename(staged: &Path, path: &Path, bytes: u64) -> Result<()> {
    let there = size(path)?;
    match (size(staged)?, there) {
        (Some(found), None) if found == bytes => {
            if let Some(folder) = path.parent() {
                create_folder(folder)?;
            }
            // A plain rename would replace, but nobody else makes such a name and there is nothing under it.
            fs::rename(staged, path).map_err(|error| io_error(error, "could not rename a finished file", path.display()))
        }
        (None, Some(found)) if found == bytes => Ok(()),
        (None, None) => Err(Error::corrupt("a file that the checkpoint names is missing")
            .context("staged", staged.display())
            .context("path", path.display())
            .remedy("restore one of the two; it holds changes that no other file holds")),
        (Some(_), Some(_)) => Err(Error::config("another file is in the place of a finished one")
            .context("path", path.display())
            .remedy("move that file away; logweir never overwrites")),
        (Some(found), None) | (None, Some(found)) => Err(Error::corrupt("a file does not have the size it was staged with")
            .context("path", if there.is_some() { path.display() } else { staged.display() })
            .context("bytes", found)
            .context("expected", bytes)),
    }
}

fn size(path: &Path) -> Result<Option<u64>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error(error, "could not look at a file", path.display())),
    }
}

/// Creates a folder and those above it, each made durable in the one above.
pub(crate) fn create_folder(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = folder.parent();
    if let Some(above) = above {
        create_folder(above)?;
    }
    match fs::create_dir(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
        Err(error) => return Err(io_error(error, "could not create a folder", folder.display())),
    }
    above.map_or(Ok(()), sync_folder)
}

fn sync_folder(folder: &Path) -> Result<()> {
    // The folder above a relative path of one name is the empty path.
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| io_error(error, "could not sync a folder", folder.display()))
}

/// Runs `work` where it may wait for the disk.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    // What it panicked with may hold values, and is told by the hook as far as it may be.
    done.map_err(|_| Error::internal("work on files ended by a panic"))?
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use logweir_core::ErrorKind;

    fn consumer() -> ConsumerName {
        ConsumerName { stream: "shop".into(), destination: "lake".into() }
    }

    async fn staged(staging: &LocalStaging, path: &str) -> Token {
        let mut file = staging.create(path.to_owned()).await.unwrap();
        file.append(b"some".to_vec()).await.unwrap();
        file.append(b" bytes".to_vec()).await.unwrap();
        let token = file.finish(3).await.unwrap();
        staging.sync().await.unwrap();
        token
    }

    #[tokio::test]
    async fn a_file_appears_once_however_often_it_is_committed() {
        let root = tempfile::tempdir().unwrap();
        let staging = LocalStaging::new(root.path(), &consumer());
        let token = staged(&staging, "a/b/c.parquet").await;
        let path = root.path().join("a/b/c.parquet");
        assert!(!path.exists());
        for _ in 0..2 {
            staging.commit(vec![token.clone()]).await.unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"some bytes");
        }
        staging.discard_all().await.unwrap();
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_lost_a_cut_and_a_foreign_file_are_errors_that_name_it() {
        let root = tempfile::tempdir().unwrap();
        let staging = LocalStaging::new(root.path(), &consumer());

        let token = staged(&staging, "a/lost.parquet").await;
        staging.discard_all().await.unwrap();
        let error = staging.commit(vec![token]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.get_context("path").unwrap().ends_with("a/lost.parquet"), "{error}");

        let token = staged(&staging, "a/cut.parquet").await;
        let cut = root.path().join(&staging.folder).join("cut.parquet.tmp");
        File::options().write(true).open(cut).unwrap().set_len(3).unwrap();
        assert_eq!(staging.commit(vec![token]).await.unwrap_err().kind(), ErrorKind::Corrupt);

        let token = staged(&staging, "a/foreign.parquet").await;
        fs::create_dir_all(root.path().join("a")).unwrap();
        fs::write(root.path().join("a/foreign.parquet"), b"theirs").unwrap();
        assert_eq!(staging.commit(vec![token]).await.unwrap_err().kind(), ErrorKind::Config);
        assert_eq!(fs::read(root.path().join("a/foreign.parquet")).unwrap(), b"theirs");
    }
}
