//! State stores: where the decision is kept.

use async_trait::async_trait;

use crate::error::Result;

/// Keeps one document per stream, replaced whole and atomically. A store value belongs to one stream.
///
/// **Fencing.** At most one owner's saves succeed. A store either refuses a second owner at [`claim`](StateStore::claim) while the
/// first lives (local directory: a lock), or lets the newer one take over, after which every save of the older fails
/// (object store: a conditional put). Both are [`ErrorKind::Fenced`](crate::ErrorKind::Fenced).
///
/// **Durability.** When `save` returns, the document survives a crash of the process and of the machine. A save that
/// fails or is cut short leaves the old document or the new one, never a part.
#[async_trait]
pub trait StateStore: Send + Sync {
    /// Becomes the owner and returns the newest document, if any. Called before any save. An owner may call it again to
    /// read the document anew, after a save whose outcome it does not know; one that has been replaced meanwhile is
    /// fenced and takes nothing back.
    async fn claim(&mut self) -> Result<Option<Vec<u8>>>;

    /// Replaces the document. Only the owner may.
    async fn save(&mut self, document: &[u8]) -> Result<()>;

    /// The newest document, without becoming the owner: for a look from outside, while an owner may be running.
    async fn peek(&self) -> Result<Option<Vec<u8>>>;

    /// Where the document is, for messages: a path, a URL without credentials.
    fn location(&self) -> String;
}
