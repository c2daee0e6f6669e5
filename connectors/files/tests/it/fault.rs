//! A store in memory that fails at a chosen request, before it is done or after.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartId, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, Result,
};

/// When a request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The store never hears of it.
    RequestLost,
    /// The store does it, and the answer is lost.
    AnswerLost,
}

#[derive(Debug, Clone)]
pub(crate) struct FaultyStore {
    inner: Arc<InMemory>,
    /// Requests until the fault; below zero after it.
    countdown: Arc<AtomicI64>,
    fault: Fault,
    /// Uploads begun and neither completed nor aborted.
    uploads: Arc<AtomicI64>,
}

impl FaultyStore {
    /// Fails once, at request number `at` from 0.
    pub(crate) fn new(at: i64, fault: Fault) -> Self {
        FaultyStore { inner: Arc::default(), countdown: Arc::new(AtomicI64::new(at)), fault, uploads: Arc::default() }
    }

    /// True once it failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.countdown.load(Ordering::SeqCst) < 0
    }

    /// The store without faults, to look into it.
    pub(crate) fn inner(&self) -> &InMemory {
        &self.inner
    }

    pub(crate) fn open_uploads(&self) -> i64 {
        self.uploads.load(Ordering::SeqCst)
    }

    fn error() -> object_store::Error {
        object_store::Error::Generic { store: "Faulty", source: "status code: 503 Slow Down".into() }
    }

    async fn request<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let fails = self.countdown.fetch_sub(1, Ordering::SeqCst) == 0;
        match (fails, self.fault) {
            (true, Fault::RequestLost) => Err(Self::error()),
            (true, Fault::AnswerLost) => work.await.and(Err(Self::error())),
            (false, _) => work.await,
        }
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyStore")
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.request(self.inner.put_opts(location, payload, options)).await
    }

    async fn put_multipart_opts(&self, location: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.request(self.inner.put_multipart_opts(location, options)).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.request(self.inner.get_opts(location, options)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations
            .then(move |location| {
                let store = store.clone();
                async move {
                    let location = location?;
                    let mut deleted = store.inner.delete_stream(futures::stream::iter([Ok(location)]).boxed());
                    store.request(async { deleted.next().await.unwrap() }).await
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        if self.countdown.fetch_sub(1, Ordering::SeqCst) == 0 {
            return futures::stream::iter([Err(Self::error())]).boxed();
        }
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.request(self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.request(self.inner.copy_opts(from, to, options)).await
    }
}

#[async_trait]
impl MultipartStore for FaultyStore {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        self.request(async {
            let upload = self.inner.create_multipart(path).await?;
            self.uploads.fetch_add(1, Ordering::SeqCst);
            Ok(upload)
        })
        .await
    }

    async fn put_part(&self, path: &Path, id: &MultipartId, part_idx: usize, data: PutPayload) -> Result<PartId> {
        self.request(self.inner.put_part(path, id, part_idx, data)).await
    }

    async fn complete_multipart(&self, path: &Path, id: &MultipartId, parts: Vec<PartId>) -> Result<PutResult> {
        self.request(async {
            let result = self.inner.complete_multipart(path, id, parts).await?;
            self.uploads.fetch_sub(1, Ordering::SeqCst);
            Ok(result)
        })
        .await
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Result<()> {
        self.request(async {
            self.inner.abort_multipart(path, id).await?;
            self.uploads.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        })
        .await
    }
}
