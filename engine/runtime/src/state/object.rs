//! The checkpoint in an object store.
//!
//! `PREFIX/STREAM/checkpoint.json` holds one line that names the owner, then the document. Every write is conditional
//! on the version read last, so of two owners one loses. A claim rewrites the object under a new owner's token: the
//! newer takes over at once, and the older's next save is refused. There is no lease and no clock: a lost network
//! cannot make two owners, only end one.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use logweir_core::{Error, Result, StateStore};
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion};
use rand::Rng;
use serde::{Deserialize, Serialize};

use super::{check_stream_name, holder};

/// Rounds of read and conditional write before a claim gives up: each lost round means that another owner came between.
const CLAIM_ROUNDS_MAX: usize = 8;

/// Format of the owner's line.
const FORMAT: u32 = 1;

/// Keeps a stream's document in an object store that has conditional puts; a newer owner takes over.
pub struct ObjectStateStore {
    store: Arc<dyn ObjectStore>,
    path: Path,
    /// Set by a claim.
    owner: Option<Owner>,
}

struct Owner {
    token: String,
    version: UpdateVersion,
}

/// The first line of the object.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: u32,
    /// Whose writes count.
    owner: String,
    /// Who that is, for people.
    holder: String,
    /// False until the first save: a claim alone decides nothing.
    saved: bool,
}

/// An object as it was read.
struct Found {
    header: Header,
    document: Vec<u8>,
    version: UpdateVersion,
}

impl Found {
    fn into_document(self) -> Option<Vec<u8>> {
        self.header.saved.then_some(self.document)
    }
}

impl fmt::Debug for ObjectStateStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectStateStore({} in {})", self.path, self.store)
    }
}

impl ObjectStateStore {
    /// The store of `stream` below `prefix`. Touches nothing yet.
    pub fn new(store: Arc<dyn ObjectStore>, prefix: &Path, stream: &str) -> Result<Self> {
        check_stream_name(stream)?;
        Ok(ObjectStateStore { store, path: prefix.clone().join(stream).join("checkpoint.json"), owner: None })
    }

    async fn find(&self) -> Result<Option<Found>> {
        let failed = |error| self.failed("could not read the checkpoint", error);
        let object = match self.store.get(&self.path).await {
            Ok(object) => object,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let version = UpdateVersion { e_tag: object.meta.e_tag.clone(), version: object.meta.version.clone() };
        let bytes = object.bytes().await.map_err(failed)?;
        let line = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
        let header: Header = serde_json::from_slice(&bytes[..line]).map_err(|error| {
            Error::corrupt("the checkpoint does not begin with its owner's line").context("object", &self.path).source(error).remedy(
                "restore the object from a copy made after the stream's last run, or remove it to begin anew at the configured start",
            )
        })?;
        if header.format > FORMAT {
            return Err(Error::config("the checkpoint was written by a newer version of logweir")
                .context("object", &self.path)
                .context("format", header.format)
                .remedy("run that version or a newer one"));
        }
        Ok(Some(Found { header, document: bytes.get(line + 1..).unwrap_or_default().to_vec(), version }))
    }

    /// Writes unless somebody else did since `version`; `Ok(None)` says that somebody did.
    async fn put(&self, token: &str, document: Option<&[u8]>, version: Option<UpdateVersion>) -> Result<Option<UpdateVersion>> {
        let header = Header { format: FORMAT, owner: token.to_owned(), holder: holder(), saved: document.is_some() };
        let mut bytes =
            serde_json::to_vec(&header).map_err(|error| Error::internal("an owner's line could not be written").source(error))?;
        bytes.push(b'\n');
        bytes.extend_from_slice(document.unwrap_or_default());
        let mode = version.map_or(PutMode::Create, PutMode::Update);
        match self.store.put_opts(&self.path, PutPayload::from(bytes), PutOptions::from(mode)).await {
            Ok(put) => Ok(Some(put.into())),
            Err(StoreError::Precondition { .. } | StoreError::AlreadyExists { .. }) => Ok(None),
            Err(error @ StoreError::NotFound { .. }) => Err(Error::config("could not write the checkpoint: its bucket does not exist")
                .context("object", &self.path)
                .source(error)
                .remedy("create the bucket, or correct the state's url")),
            Err(error) => Err(self.failed("could not write the checkpoint", error)),
        }
    }

    fn fenced(&self, header: Option<&Header>) -> Error {
        Error::fenced("another process has taken over the stream")
            .context("state", &self.path)
            .context("held by", header.map_or("nobody: the checkpoint was removed", |header| &header.holder))
            .remedy("run the stream in one process only")
    }

    fn failed(&self, what: &'static str, error: StoreError) -> Error {
        let failure = match &error {
            StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => {
                Error::denied(what).remedy("give these credentials the right to read and write objects under the state's prefix")
            }
            StoreError::NotImplemented { .. } | StoreError::NotSupported { .. } => Error::config(what).remedy(
                "the store has no conditional writes, which fencing needs: keep the state in a local directory (state: { dir: … })",
            ),
            StoreError::InvalidPath { .. } | StoreError::UnknownConfigurationKey { .. } => {
                Error::config(what).remedy("correct the state's url")
            }
            _ => Error::transient(what),
        };
        failure.context("object", &self.path).source(error)
    }
}

#[async_trait]
impl StateStore for ObjectStateStore {
    async fn claim(&mut self) -> Result<Option<Vec<u8>>> {
        if let Some(owner) = &mut self.owner {
            // Ours already: read anew, and never take back what a newer owner took over.
            let token = owner.token.clone();
            let found = self.find().await?;
            return match found {
                Some(found) if found.header.owner == token => {
                    self.owner = Some(Owner { token, version: found.version.clone() });
                    Ok(found.into_document())
                }
                other => Err(self.fenced(other.as_ref().map(|found| &found.header))),
            };
        }
        // Not part of what a simulation replays: it only has to differ from every other owner's.
        let token = format!("{:032x}", rand::rng().random::<u128>());
        for _ in 0..CLAIM_ROUNDS_MAX {
            let found = self.find().await?;
            let version = found.as_ref().map(|found| found.version.clone());
            let document = found.and_then(Found::into_document);
            if let Some(version) = self.put(&token, document.as_deref(), version).await? {
                self.owner = Some(Owner { token, version });
                return Ok(document);
            }
            // Either another owner came between, or our own write did succeed and its answer was lost.
            if let Some(found) = self.find().await?.filter(|found| found.header.owner == token) {
                self.owner = Some(Owner { token, version: found.version.clone() });
                return Ok(found.into_document());
            }
        }
        Err(Error::transient("could not claim the stream: other processes claim it again and again")
            .context("state", &self.path)
            .remedy("run the stream in one process only"))
    }

    async fn save(&mut self, document: &[u8]) -> Result<()> {
        let Some(owner) = &self.owner else {
            return Err(Error::internal("a checkpoint was saved before its store was claimed"));
        };
        let (token, mut version) = (owner.token.clone(), owner.version.clone());
        // The second round is for an earlier save of ours whose answer was lost: the object is ours, at a version that we
        // have not seen. A third cannot be needed, for nobody else writes under our token.
        for _ in 0..2 {
            if let Some(version) = self.put(&token, Some(document), Some(version)).await? {
                self.owner = Some(Owner { token, version });
                return Ok(());
            }
            let found = self.find().await?;
            match found {
                Some(found) if found.header.owner == token => version = found.version,
                other => return Err(self.fenced(other.as_ref().map(|found| &found.header))),
            }
        }
        Err(Error::transient("could not write the checkpoint: its object changes under our own name").context("object", &self.path))
    }

    async fn peek(&self) -> Result<Option<Vec<u8>>> {
        Ok(self.find().await?.and_then(Found::into_document))
    }

    fn location(&self) -> String {
        self.path.to_string()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use logweir_core::ErrorKind;
    use object_store::memory::InMemory;

    use super::*;

    fn store(memory: &Arc<InMemory>) -> ObjectStateStore {
        ObjectStateStore::new(Arc::clone(memory) as Arc<dyn ObjectStore>, &Path::from("state"), "shop").unwrap()
    }

    #[tokio::test]
    async fn a_newer_owner_takes_over_and_the_older_is_refused_for_good() {
        let memory = Arc::new(InMemory::new());
        let (mut old, mut new) = (store(&memory), store(&memory));
        assert_eq!(old.claim().await.unwrap(), None);
        old.save(b"one").await.unwrap();
        assert_eq!(new.claim().await.unwrap().unwrap(), b"one");
        assert_eq!(old.save(b"two").await.unwrap_err().kind(), ErrorKind::Fenced);
        assert_eq!(old.claim().await.unwrap_err().kind(), ErrorKind::Fenced);
        new.save(b"three").await.unwrap();
        assert_eq!(old.peek().await.unwrap().unwrap(), b"three");
    }

    #[tokio::test]
    async fn a_save_whose_answer_was_lost_does_not_fence_us_out() {
        let memory = Arc::new(InMemory::new());
        let mut ours = store(&memory);
        ours.claim().await.unwrap();
        let before = ours.owner.as_ref().unwrap().version.clone();
        ours.save(b"one").await.unwrap();
        // As if the answer to that save had never come.
        ours.owner.as_mut().unwrap().version = before;
        ours.save(b"two").await.unwrap();
        assert_eq!(ours.peek().await.unwrap().unwrap(), b"two");
    }

    #[tokio::test]
    async fn bytes_of_another_make_are_named() {
        let memory = Arc::new(InMemory::new());
        memory.put(&Path::from("state/shop/checkpoint.json"), PutPayload::from_static(b"hello")).await.unwrap();
        let error = store(&memory).claim().await.unwrap_err();
        assert_eq!((error.kind(), error.get_context("object")), (ErrorKind::Corrupt, Some("state/shop/checkpoint.json")));
    }
}
