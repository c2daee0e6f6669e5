//! Files in an object store: a multipart upload, then its completion.
//!
//! An upload that is begun and never decided on costs storage for ever, invisibly. So each is noted in an object of its own
//! under `_logweir/uploads/` after it is begun and before its first part is sent, and the note is removed after the
//! completion; the next start aborts what is noted and not named by the checkpoint. A crash between the beginning and
//! the note leaves an upload without parts, which holds no bytes.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use logweir_core::{ConsumerName, Error, Result};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{Token, foreign_token};
use crate::error::store_error;
use crate::layout::private_folder;

/// Full parts on their way at a time, over all files of a writer: what one connection cannot carry, four can. Counted in
/// bytes, so that many small files go up side by side in the same memory.
const PARTS_IN_FLIGHT: usize = 4;

/// The grain of that count, and the least a part counts.
const IN_FLIGHT_UNIT_BYTES: usize = 256 * 1024;

/// Completions, aborts and removals on their way at a time: each waits for an answer and holds next to nothing.
const REQUESTS_IN_FLIGHT: usize = 32;

/// S3 takes no more parts than this in an upload.
const PARTS_MAX: usize = 10_000;

/// The uploads of a consumer.
#[derive(Clone)]
pub(crate) struct MultipartStaging {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn ObjectStore>,
    multipart: Arc<dyn MultipartStore>,
    prefix: Path,
    /// Notes of uploads, relative to the prefix.
    notes: String,
    part_bytes: usize,
    in_flight: Arc<Semaphore>,
}

/// The content of a note.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    path: String,
    upload: String,
}

impl Shared {
    fn path(&self, relative: &str) -> Result<Path> {
        let full = if self.prefix.is_root() { relative.to_owned() } else { format!("{}/{relative}", self.prefix) };
        Path::parse(&full).map_err(|error| Error::config("no object can have this path").context("path", full).source(error))
    }

    /// The note of the upload that becomes `path`: under the file's name, which is never used twice.
    fn note_path(&self, path: &str) -> Result<Path> {
        self.path(&format!("{}/{}.json", self.notes, path.rsplit('/').next().unwrap_or(path)))
    }

    async fn remove_note(&self, path: &str) -> Result<()> {
        let note = self.note_path(path)?;
        match self.store.delete(&note).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(store_error(error, "could not remove the note of an upload", note)),
        }
    }
}

impl MultipartStaging {
    pub(crate) fn new(
        store: Arc<dyn ObjectStore>,
        multipart: Arc<dyn MultipartStore>,
        prefix: Path,
        consumer: &ConsumerName,
        part_bytes: usize,
    ) -> Self {
        let notes = private_folder("uploads", consumer);
        let in_flight = Arc::new(Semaphore::new(PARTS_IN_FLIGHT * units(part_bytes)));
        MultipartStaging { shared: Arc::new(Shared { store, multipart, prefix, notes, part_bytes, in_flight }) }
    }

    /// A new upload; nothing is sent before there is a part.
    pub(crate) fn create(&self, path: String) -> Upload {
        Upload {
            shared: Arc::clone(&self.shared),
            path,
            begun: None,
            buffer: BytesMut::new(),
            sending: JoinSet::new(),
            parts: Vec::new(),
            bytes: 0,
        }
    }

    pub(crate) async fn commit(&self, tokens: Vec<Token>) -> Result<()> {
        stream::iter(tokens).map(|token| self.complete(token)).buffer_unordered(REQUESTS_IN_FLIGHT).try_collect().await
    }

    async fn complete(&self, token: Token) -> Result<()> {
        let Token::Multipart { path, upload, parts, bytes, .. } = token else { return Err(foreign_token()) };
        let full = self.shared.path(&path)?;
        let parts = parts.into_iter().map(|content_id| PartId { content_id }).collect();
        if let Err(error) = self.shared.multipart.complete_multipart(&full, &upload, parts).await {
            // Done before, or done now with the answer lost: either way the object is there, whole, as objects are.
            let there = match self.shared.store.head(&full).await {
                Ok(object) => Some(object.size),
                Err(object_store::Error::NotFound { .. }) => None,
                Err(other) => return Err(store_error(other, "could not look at an object", &full)),
            };
            match there {
                Some(found) if found == bytes => {}
                Some(found) => {
                    return Err(Error::corrupt("an object does not have the size it was staged with")
                        .context("path", &full)
                        .context("bytes", found)
                        .context("expected", bytes));
                }
                None if is_upload_gone(&error) => {
                    return Err(Error::corrupt("an upload that the checkpoint names is gone, and so is its object")
                        .context("path", &full)
                        .context("upload", upload)
                        .remedy("let no lifecycle rule abort uploads younger than a week; the changes of this file must be read again")
                        .source(error));
                }
                None => return Err(store_error(error, "could not complete an upload", &full)),
            }
        }
        self.shared.remove_note(&path).await
    }

    /// Aborts the noted uploads that are not among `kept`, and removes every note.
    pub(crate) async fn discard_others(&self, kept: &HashSet<&str>) -> Result<()> {
        let folder = self.shared.path(&self.shared.notes)?;
        let notes: Vec<Path> = (self.shared.store.list(Some(&folder)))
            .map_ok(|object| object.location)
            .try_collect()
            .await
            .map_err(|error| store_error(error, "could not list the notes of uploads", &folder))?;
        stream::iter(notes).map(|note| self.discard(note, kept)).buffer_unordered(REQUESTS_IN_FLIGHT).try_collect().await
    }

    async fn discard(&self, note_path: Path, kept: &HashSet<&str>) -> Result<()> {
        let read = async { self.shared.store.get(&note_path).await?.bytes().await };
        let bytes = read.await.map_err(|error| store_error(error, "could not read the note of an upload", &note_path))?;
        let note: Note = serde_json::from_slice(&bytes).map_err(|error| {
            Error::corrupt("the note of an upload cannot be read")
                .context("path", &note_path)
                .remedy("remove the object; the upload it belonged to is aborted by a lifecycle rule or by hand")
                .source(error)
        })?;
        if !kept.contains(note.upload.as_str()) {
            let path = self.shared.path(&note.path)?;
            match self.shared.multipart.abort_multipart(&path, &note.upload).await {
                Ok(()) => tracing::info!(%path, "aborted an upload that an earlier run did not finish"),
                // Aborted before, or completed and the note outlived it.
                Err(error) if is_upload_gone(&error) => {}
                Err(error) => return Err(store_error(error, "could not abort an upload", &path)),
            }
        }
        self.shared.remove_note(&note.path).await
    }
}

fn units(bytes: usize) -> usize {
    bytes.div_ceil(IN_FLIGHT_UNIT_BYTES).max(1)
}

/// True if the store does not know the upload any more.
fn is_upload_gone(error: &object_store::Error) -> bool {
    match error {
        object_store::Error::NotFound { source, .. } => !source.to_string().contains("NoSuchBucket"),
        // The store that lives in memory has no kind for it.
        object_store::Error::Generic { store: "InMemory", .. } => true,
        _ => false,
    }
}

/// An upload under way. Parts are sent in the background while the next ones are encoded.
pub(crate) struct Upload {
    shared: Arc<Shared>,
    path: String,
    begun: Option<(Path, String)>,
    buffer: BytesMut,
    sending: JoinSet<Result<(usize, PartId)>>,
    parts: Vec<Option<PartId>>,
    bytes: u64,
}

impl Upload {
    pub(crate) fn memory_bytes(&self) -> usize {
        self.buffer.len() + self.sending.len() * self.shared.part_bytes
    }

    pub(crate) async fn append(&mut self, bytes: Vec<u8>) -> Result<()> {
        self.bytes += bytes.len() as u64;
        self.buffer.extend_from_slice(&bytes);
        drop(bytes);
        // Parts of one size, but for the last: some stores insist on it.
        while self.buffer.len() >= self.shared.part_bytes {
            let part = self.buffer.split_to(self.shared.part_bytes).freeze();
            self.send(part).await?;
        }
        Ok(())
    }

    async fn send(&mut self, part: Bytes) -> Result<()> {
        while let Some(sent) = self.sending.try_join_next() {
            self.sent(sent)?;
        }
        let (path, upload) = self.begin().await?;
        let index = self.parts.len();
        if index >= PARTS_MAX {
            return Err(Error::internal("a file has more parts than a store takes").context("path", path));
        }
        self.parts.push(None);
        let units = u32::try_from(units(part.len())).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.shared.in_flight).acquire_many_owned(units).await;
        let permit = permit.map_err(|error| Error::internal("uploads have ended").source(error))?;
        let multipart = Arc::clone(&self.shared.multipart);
        self.sending.spawn(async move {
            let sent = multipart.put_part(&path, &upload, index, PutPayload::from_bytes(part)).await;
            drop(permit);
            let part = sent.map_err(|error| store_error(error, "could not upload a part of a file", &path))?;
            Ok((index, part))
        });
        Ok(())
    }

    /// Begins the upload and notes it, once.
    async fn begin(&mut self) -> Result<(Path, String)> {
        if let Some(begun) = &self.begun {
            return Ok(begun.clone());
        }
        let path = self.shared.path(&self.path)?;
        let upload = self.shared.multipart.create_multipart(&path).await;
        let upload = upload.map_err(|error| store_error(error, "could not begin an upload", &path))?;
        let note = serde_json::to_vec(&Note { path: self.path.clone(), upload: upload.clone() })
            .map_err(|error| Error::internal("could not note an upload").source(error))?;
        let note_path = self.shared.note_path(&self.path)?;
        if let Err(error) = self.shared.store.put(&note_path, PutPayload::from(note)).await {
            // Nobody else will know of it. Should this fail too, what stays holds no bytes.
            let _ = self.shared.multipart.abort_multipart(&path, &upload).await;
            return Err(store_error(error, "could not note an upload", &note_path));
        }
        Ok(self.begun.insert((path, upload)).clone())
    }

    fn sent(&mut self, sent: Result<Result<(usize, PartId)>, tokio::task::JoinError>) -> Result<()> {
        // What it panicked with may hold values, and is told by the hook as far as it may be.
        let (index, part) = sent.map_err(|_| Error::internal("an upload ended by a panic"))??;
        self.parts[index] = Some(part);
        Ok(())
    }

    pub(crate) async fn finish(mut self, rows: u64) -> Result<Token> {
        let rest = self.buffer.split().freeze();
        if !rest.is_empty() || self.parts.is_empty() {
            self.send(rest).await?;
        }
        while let Some(sent) = self.sending.join_next().await {
            self.sent(sent)?;
        }
        let parts: Option<Vec<String>> = self.parts.into_iter().map(|part| part.map(|part| part.content_id)).collect();
        let (Some((_, upload)), Some(parts)) = (self.begun, parts) else {
            return Err(Error::internal("an upload lacks a part that was sent").context("path", self.path));
        };
        Ok(Token::Multipart { path: self.path, upload, parts, bytes: self.bytes, rows })
    }
}
