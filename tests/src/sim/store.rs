//! A state store on a disk that outlives the process.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use logweir_core::{Error, Result, StateStore};

use super::run::Life;

/// What is durable: the document, and who owns it.
#[derive(Debug, Default)]
pub struct Disk {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    document: Option<Vec<u8>>,
    owner: u64,
}

impl Disk {
    /// The durable document.
    pub fn document(&self) -> Option<Vec<u8>> {
        self.with(|kept| kept.document.clone())
    }

    /// True if the durable document holds the text.
    pub fn document_holds(&self, text: &str) -> bool {
        self.document().is_some_and(|document| String::from_utf8_lossy(&document).contains(text))
    }

    fn with<T>(&self, look: impl FnOnce(&mut Kept) -> T) -> T {
        look(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The disk as one process sees it; a newer process takes over.
pub struct SimStore {
    disk: Arc<Disk>,
    life: Arc<Life>,
    owner: Option<u64>,
}

impl SimStore {
    /// The disk, in this life.
    pub fn new(disk: Arc<Disk>, life: Arc<Life>) -> Self {
        SimStore { disk, life, owner: None }
    }

    fn fenced() -> Error {
        Error::fenced("another process has taken over the stream")
    }
}

#[async_trait]
impl StateStore for SimStore {
    async fn claim(&mut self) -> Result<Option<Vec<u8>>> {
        self.life.step().await;
        self.life.weather("the state store could not be reached")?;
        let owner = self.disk.with(|kept| match self.owner {
            Some(owner) if owner == kept.owner => Ok(owner),
            Some(_) => Err(Self::fenced()),
            None => {
                kept.owner += 1;
                Ok(kept.owner)
            }
        })?;
        self.owner = Some(owner);
        Ok(self.disk.document())
    }

    async fn save(&mut self, document: &[u8]) -> Result<()> {
        if self.owner.is_none() {
            return Err(Error::internal("a checkpoint was saved before its store was claimed"));
        }
        self.life.step().await;
        self.life.stall().await;
        self.life.weather("the checkpoint could not be written")?;
        self.disk.with(|kept| {
            if self.owner != Some(kept.owner) {
                return Err(Self::fenced());
            }
            kept.document = Some(document.to_vec());
            Ok(())
        })?;
        self.life.step().await;
        // Durable, and we shall never hear of it.
        self.life.weather("the answer to a write was lost")
    }

    async fn peek(&self) -> Result<Option<Vec<u8>>> {
        Ok(self.disk.document())
    }

    fn location(&self) -> String {
        "the simulated disk".into()
    }
}
