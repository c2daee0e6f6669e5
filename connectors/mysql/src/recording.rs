//! The files of a recording: which there are, in which order, and their bytes one piece after the other.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use logweir_core::{Error, Pattern, Result};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::inflate::Inflate;
use crate::offset::file_number;

/// Read from the store at once: large enough that a bucket's latency does not matter, and while one piece is decoded the
/// next is on its way, so twice this is held.
const PIECE_BYTES: u64 = 4 * 1024 * 1024;

/// Handed to the decoder at once.
pub(crate) const RUN_BYTES: usize = 1024 * 1024;

/// Attempts to read a piece, on top of those that the store makes by itself.
const ATTEMPTS_MAX: u32 = 8;

/// More files than this are a pattern that says something else than was meant.
const FILES_MAX: usize = 1_000_000;

/// A file of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecordedFile {
    pub(crate) path: Path,
    /// Its name without directories and compression: what the server called it.
    pub(crate) name: String,
    pub(crate) number: u32,
    pub(crate) bytes: u64,
}

/// The files that fit the pattern, in log order, without gaps.
pub(crate) async fn list(store: &Arc<dyn ObjectStore>, pattern: &str) -> Result<Vec<RecordedFile>> {
    let pattern = pattern.trim_start_matches('/');
    // The directories before the first wildcard need not be searched beyond.
    let fixed = pattern.split('/').take_while(|part| !part.contains(['*', '?']));
    let parts = pattern.split('/').count();
    let directories: Vec<&str> = fixed.take(parts.saturating_sub(1)).collect();
    let prefix = (!directories.is_empty()).then(|| Path::from(directories.join("/")));
    let failed = |error: object_store::Error| store_error("could not list the recorded binlog files", error).context("path", pattern);
    let objects = if directories.len() + 1 == parts {
        store.list_with_delimiter(prefix.as_ref()).await.map_err(failed)?.objects
    } else {
        store.list(prefix.as_ref()).try_collect().await.map_err(failed)?
    };
    let mut files = Vec::new();
    for object in objects {
        let (path, base) = (object.location.to_string(), object.location.filename().unwrap_or_default().to_owned());
        if !fits(pattern, &path) {
            continue;
        }
        let name = Inflate::of(&base).map_err(|error| Error::internal("could not prepare to decompress").source(error))?.1.to_owned();
        // Beside its binlogs a server keeps an index of them, which a pattern like `mysql-bin.*` names too.
        let Ok(number) = file_number(&name) else { continue };
        files.push(RecordedFile { path: object.location, name, number, bytes: object.size });
        if files.len() > FILES_MAX {
            return Err(Error::config("too many files fit the path of the recording")
                .context("path", pattern)
                .context("files", files.len()));
        }
    }
    files.sort_by_key(|file| file.number);
    in_order(&files)?;
    Ok(files)
}

/// One file per number, and every number.
fn in_order(files: &[RecordedFile]) -> Result<()> {
    for pair in files.windows(2) {
        let [before, after] = pair else { continue };
        let told = |message: &'static str| Error::config(message).context("file", &before.path).context("next file", &after.path);
        if before.number == after.number {
            return Err(told("two files of the recording have the same number").remedy("choose a path that names each file once"));
        }
        if u64::from(before.number) + 1 < u64::from(after.number) {
            return Err(told("a file of the recording is missing: the numbers have a gap").remedy("add the files in between"));
        }
    }
    Ok(())
}

/// True if the path fits, directory by directory.
fn fits(pattern: &str, path: &str) -> bool {
    let (mut patterns, mut parts) = (pattern.split('/'), path.split('/'));
    loop {
        match (patterns.next(), parts.next()) {
            (Some(pattern), Some(part)) if Pattern::new(pattern).matches(part) => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

/// What a store's error means.
pub(crate) fn store_error(doing: &'static str, error: object_store::Error) -> Error {
    let made = match &error {
        object_store::Error::NotFound { .. } => {
            Error::log_gone(doing).remedy("put the file back, or start the stream anew with an empty state")
        }
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            Error::denied(doing).remedy("check the credentials and that they allow listing and reading")
        }
        object_store::Error::InvalidPath { .. } | object_store::Error::NotSupported { .. } => Error::config(doing),
        _ => Error::transient(doing),
    };
    made.source(error)
}

/// The bytes of one file, decompressed.
pub(crate) struct RecordedBytes {
    store: Arc<dyn ObjectStore>,
    file: RecordedFile,
    inflate: Inflate,
    /// Where the next piece to ask for begins.
    fetched: u64,
    fetching: Option<Fetch>,
    piece: Bytes,
    finished: bool,
}

/// A piece on its way, given up when dropped.
struct Fetch(JoinHandle<Result<Bytes>>);

impl Drop for Fetch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl RecordedBytes {
    /// The bytes of `file` from its beginning.
    pub(crate) fn open(store: &Arc<dyn ObjectStore>, file: &RecordedFile) -> Result<Self> {
        let base = file.path.filename().unwrap_or_default();
        let (inflate, _) = Inflate::of(base).map_err(|error| Error::internal("could not prepare to decompress").source(error))?;
        let store = Arc::clone(store);
        Ok(RecordedBytes { store, file: file.clone(), inflate, fetched: 0, fetching: None, piece: Bytes::new(), finished: false })
    }

    /// Goes to `offset` of the file, where nothing stands between that and where it is. False if the file is compressed: then
    /// the way there must be read.
    pub(crate) fn seek(&mut self, offset: u64) -> bool {
        if !matches!(self.inflate, Inflate::Plain) {
            return false;
        }
        self.fetching = None;
        self.piece = Bytes::new();
        self.fetched = offset.min(self.file.bytes);
        self.finished = false;
        true
    }

    /// Fills `output` up to about [`RUN_BYTES`]. False at the end. Cancel safe.
    pub(crate) async fn read(&mut self, output: &mut Vec<u8>) -> Result<bool> {
        loop {
            let before = output.len();
            let taken = self.inflate.push(&self.piece, output, RUN_BYTES).map_err(|error| self.damaged(error))?;
            let _ = self.piece.split_to(taken);
            if output.len() > before || output.len() >= RUN_BYTES {
                return Ok(true);
            }
            if taken > 0 {
                continue;
            }
            if self.fetching.is_none() && self.fetched < self.file.bytes {
                self.fetching = Some(self.fetch());
            }
            if let Some(fetch) = &mut self.fetching {
                let piece =
                    (&mut fetch.0).await.map_err(|error| Error::internal("reading a recorded file was broken off").source(error))?;
                self.fetching = None;
                self.piece = piece?;
                // The next one while this one is decoded.
                if self.fetched < self.file.bytes {
                    self.fetching = Some(self.fetch());
                }
                continue;
            }
            if self.finished {
                return Ok(false);
            }
            self.finished = true;
            let before = output.len();
            self.inflate.finish(output).map_err(|error| {
                Error::corrupt("a recorded file ends in the middle of its compression").context("file", &self.file.path).source(error)
            })?;
            if output.len() > before {
                return Ok(true);
            }
        }
    }

    fn damaged(&self, error: std::io::Error) -> Error {
        Error::corrupt("a recorded file cannot be decompressed").context("file", &self.file.path).source(error)
    }

    fn fetch(&mut self) -> Fetch {
        let range = self.fetched..(self.fetched + PIECE_BYTES).min(self.file.bytes);
        self.fetched = range.end;
        let (store, path) = (Arc::clone(&self.store), self.file.path.clone());
        Fetch(tokio::spawn(async move {
            let mut attempt = 0;
            loop {
                let failed = match store.get_range(&path, range.clone()).await {
                    Ok(bytes) if bytes.len() as u64 == range.end - range.start => return Ok(bytes),
                    Ok(_) => Error::corrupt("a recorded file became shorter while it was read"),
                    Err(error) => store_error("could not read a recorded file", error),
                };
                let failed = failed.context("file", &path).context("offset", range.start);
                attempt += 1;
                if !failed.is_transient() || attempt >= ATTEMPTS_MAX {
                    return Err(failed);
                }
                tracing::warn!(attempt, error = failed.report(), "could not read a recorded file, trying again");
                sleep(Duration::from_millis(100 << attempt)).await;
            }
        }))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use object_store::PutPayload;
    use object_store::memory::InMemory;

    async fn store(files: &[(&str, Vec<u8>)]) -> Arc<dyn ObjectStore> {
        let store = InMemory::new();
        for (path, bytes) in files {
            store.put(&Path::from(*path), PutPayload::from(bytes.clone())).await.unwrap();
        }
        Arc::new(store)
    }

    async fn names(files: &[&str], pattern: &str) -> Result<Vec<String>> {
        let files: Vec<_> = files.iter().map(|file| (*file, vec![])).collect();
        Ok(list(&store(&files).await, pattern).await?.into_iter().map(|file| file.name).collect())
    }

    #[tokio::test]
    async fn files_come_in_the_order_of_their_numbers() {
        let files = ["a/b.1000000", "a/b.999999.zst", "a/b.index", "a/c/b.1000001", "a/b.999998.gz", "x.000001"];
        assert_eq!(names(&files, "a/b.*").await.unwrap(), ["b.999998", "b.999999", "b.1000000"]);
        assert_eq!(names(&files, "/a/*/b.*").await.unwrap(), ["b.1000001"]);
        assert_eq!(names(&files, "x.000001").await.unwrap(), ["x.000001"]);
        assert!(names(&files, "y.*").await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn gaps_and_doubles_are_refused() {
        assert!(names(&["b.000001", "b.000003"], "b.*").await.unwrap_err().to_string().contains("gap"));
        assert!(names(&["b.000001", "b.000001.gz"], "b.*").await.unwrap_err().to_string().contains("same number"));
    }

    #[tokio::test]
    async fn bytes_are_the_same_compressed_or_not() {
        let bytes: Vec<u8> = (0..3_000_000u32).flat_map(|i| (i / 9).to_le_bytes()).collect();
        let zstd = zstd::encode_all(bytes.as_slice(), 1).unwrap();
        let store = store(&[("a.000001", bytes.clone()), ("a.000002.zst", zstd)]).await;
        for file in list(&store, "a.*").await.unwrap() {
            let mut reading = RecordedBytes::open(&store, &file).unwrap();
            let mut whole = Vec::new();
            let mut output = Vec::new();
            while reading.read(&mut output).await.unwrap() {
                assert!(output.len() <= RUN_BYTES);
                whole.append(&mut output);
            }
            assert!(whole == bytes, "{}", file.path);
            assert_eq!(reading.seek(bytes.len() as u64 - 4), file.number == 1);
        }
    }
}
