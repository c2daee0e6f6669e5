//! The two phases of a file: written where nobody looks, then made visible at once.
//!
//! | | on a disk | in an object store |
//! |---|---|---|
//! | stage | `_logweir/staging/…/<name>.tmp`, written and synced | every part of a multipart upload, not its completion |
//! | commit | rename | completion |
//! | again | the staged file is gone, the final one is there | the upload is gone, the object is there |
//! | leftovers | files in the staging folder | uploads noted in `_logweir/uploads/…` |
//!
//! A [`Token`] is all that a commit needs; the checkpoint keeps it. Its paths are relative to the destination's URL.

mod local;
mod multipart;

use std::collections::HashSet;
use std::path::Path as FilePath;
use std::sync::Arc;

use logweir_core::{ConsumerName, Error, Result, Staged};
use serde::{Deserialize, Serialize};

use local::{LocalFile, LocalStaging};
pub(crate) use local::{blocking, create_folder};
use multipart::{MultipartStaging, Upload};

use crate::store::Place;

/// A staged file, in the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Token {
    /// A file to be renamed.
    Local {
        /// Where it is.
        staged: String,
        /// Where it shall be.
        path: String,
        bytes: u64,
        rows: u64,
    },
    /// An upload to be completed.
    Multipart {
        /// The object it becomes.
        path: String,
        upload: String,
        /// What the store called the parts, in order.
        parts: Vec<String>,
        bytes: u64,
        rows: u64,
    },
}

impl Token {
    pub(crate) fn to_staged(&self) -> Result<Staged> {
        serde_json::to_value(self).map(Staged).map_err(|error| Error::internal("could not note a staged file").source(error))
    }

    /// Reads tokens back from a checkpoint.
    pub(crate) fn parse(staged: &[Staged]) -> Result<Vec<Token>> {
        let parse = |staged: &Staged| {
            Token::deserialize(&staged.0).map_err(|error| {
                Error::corrupt("a staged file in the checkpoint cannot be read")
                    .remedy("the checkpoint was made by another kind of destination or a newer version of logweir")
                    .source(error)
            })
        };
        staged.iter().map(parse).collect()
    }
}

/// Where the files of one consumer are staged.
pub(crate) enum Staging {
    Local(LocalStaging),
    Multipart(MultipartStaging),
}

impl Staging {
    pub(crate) fn new(place: &Place, consumer: &ConsumerName, part_bytes: usize) -> Self {
        match place {
            Place::Local(root) => Staging::Local(LocalStaging::new(FilePath::new(root), consumer)),
            Place::Remote { store, multipart, prefix } => {
                Staging::Multipart(MultipartStaging::new(Arc::clone(store), Arc::clone(multipart), prefix.clone(), consumer, part_bytes))
            }
        }
    }

    /// A new file that becomes `path` when it is committed.
    pub(crate) async fn create(&self, path: String) -> Result<StagedFile> {
        match self {
            Staging::Local(staging) => staging.create(path).await.map(StagedFile::Local),
            Staging::Multipart(staging) => Ok(StagedFile::Multipart(staging.create(path))),
        }
    }

    /// Makes finished files findable after a crash of the machine. Called before their tokens are handed out.
    pub(crate) async fn sync(&self) -> Result<()> {
        match self {
            Staging::Local(staging) => staging.sync().await,
            Staging::Multipart(_) => Ok(()),
        }
    }

    /// Makes files visible. Safe to repeat.
    pub(crate) async fn commit(&self, tokens: Vec<Token>) -> Result<()> {
        match self {
            Staging::Local(staging) => staging.commit(tokens).await,
            Staging::Multipart(staging) => staging.commit(tokens).await,
        }
    }

    /// Discards what earlier runs staged and `tokens` do not name. The tokens were committed before.
    pub(crate) async fn discard_others(&self, tokens: &[Token]) -> Result<()> {
        match self {
            Staging::Local(staging) => staging.discard_all().await,
            Staging::Multipart(staging) => {
                let kept: HashSet<&str> = tokens
                    .iter()
                    .filter_map(|token| match token {
                        Token::Multipart { upload, .. } => Some(upload.as_str()),
                        Token::Local { .. } => None,
                    })
                    .collect();
                staging.discard_others(&kept).await
            }
        }
    }
}

/// A file on its way to being staged. Dropped, it is a leftover.
pub(crate) enum StagedFile {
    Local(LocalFile),
    Multipart(Upload),
}

impl StagedFile {
    /// Takes the next bytes.
    pub(crate) async fn append(&mut self, bytes: Vec<u8>) -> Result<()> {
        match self {
            StagedFile::Local(file) => file.append(bytes).await,
            StagedFile::Multipart(upload) => upload.append(bytes).await,
        }
    }

    /// Bytes taken and still in memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        match self {
            StagedFile::Local(_) => 0,
            StagedFile::Multipart(upload) => upload.memory_bytes(),
        }
    }

    /// Makes everything durable, still invisible.
    pub(crate) async fn finish(self, rows: u64) -> Result<Token> {
        match self {
            StagedFile::Local(file) => file.finish(rows).await,
            StagedFile::Multipart(upload) => upload.finish(rows).await,
        }
    }
}

/// The checkpoint is of another destination than the one configured.
fn foreign_token() -> Error {
    Error::config("the checkpoint holds files that were staged at another kind of url")
        .remedy("configure the url the stream had before, let it end cleanly, and change the url then")
}
