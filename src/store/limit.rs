//! Bounded concurrency of one store.
//!
//! Does: let a fixed number of operations run at a time; the others wait in a queue that is fair
//! between queries, so that one with thousands of reads does not delay another's single one. Does
//! not: fail anything. Invariant: a permit is released when the work has ended, not when its caller
//! stopped waiting: work that cannot be cancelled runs in a task that owns the permit.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::oneshot;

use super::keys::{self, Folder, Key};
use super::{
    DeleteOutcome, ObjectMeta, Precondition, Result, Store, StoreError, StoreLimits, Tail,
    Versioned,
};
use crate::fair::FairSemaphore;
use crate::runtime::TaskGroup;

/// Wraps a store with a bound on concurrent operations.
#[derive(Debug)]
pub struct Limit {
    inner: Arc<dyn Store>,
    permits: FairSemaphore,
    cancellable: bool,
    tasks: TaskGroup,
}

impl Limit {
    /// Wraps a store with `limits.concurrency`, at least one; `tasks` runs what cannot be
    /// cancelled.
    pub fn new(inner: Arc<dyn Store>, limits: StoreLimits, tasks: TaskGroup) -> Self {
        Self {
            inner,
            permits: FairSemaphore::new(limits.concurrency as u64, None),
            cancellable: limits.cancellable,
            tasks,
        }
    }

    /// Runs an operation on `path` under a permit.
    async fn run<T, F>(&self, path: &str, operation: impl FnOnce(Arc<dyn Store>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let permit = self.permits.acquire(keys::query(path), 1).await;
        let work = operation(Arc::clone(&self.inner));
        if self.cancellable {
            let _permit = permit;
            return work.await;
        }
        let (sender, result) = oneshot::channel();
        self.tasks.spawn(async move {
            let result = work.await;
            drop(permit);
            let _ = sender.send(result);
        });
        result
            .await
            .unwrap_or_else(|error| Err(StoreError::interrupted(error)))
    }
}

#[async_trait]
impl Store for Limit {
    async fn put(&self, key: &Key, content: Vec<Bytes>) -> Result<()> {
        let at = key.clone();
        let put = |store: Arc<dyn Store>| async move { store.put(&at, content).await };
        self.run(key.as_str(), put).await
    }

    async fn put_if(&self, key: &Key, content: Bytes, expected: &Precondition) -> Result<bool> {
        let (at, expected) = (key.clone(), expected.clone());
        let put =
            |store: Arc<dyn Store>| async move { store.put_if(&at, content, &expected).await };
        self.run(key.as_str(), put).await
    }

    async fn get_versioned(&self, key: &Key) -> Result<Versioned> {
        let at = key.clone();
        let get = |store: Arc<dyn Store>| async move { store.get_versioned(&at).await };
        self.run(key.as_str(), get).await
    }

    async fn get_tail(&self, key: &Key, max: u64) -> Result<Tail> {
        let at = key.clone();
        let get = |store: Arc<dyn Store>| async move { store.get_tail(&at, max).await };
        self.run(key.as_str(), get).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        let at = key.clone();
        let get = |store: Arc<dyn Store>| async move { store.get_range(&at, range).await };
        self.run(key.as_str(), get).await
    }

    async fn list(&self, folder: &Folder) -> Result<Vec<ObjectMeta>> {
        let below = folder.clone();
        let list = |store: Arc<dyn Store>| async move { store.list(&below).await };
        self.run(folder.as_str(), list).await
    }

    async fn first_keys(&self, max: usize) -> Result<Vec<Key>> {
        let list = |store: Arc<dyn Store>| async move { store.first_keys(max).await };
        self.run("", list).await
    }

    async fn list_folders(&self, folder: &Folder) -> Result<Vec<String>> {
        let within = folder.clone();
        let list = |store: Arc<dyn Store>| async move { store.list_folders(&within).await };
        self.run(folder.as_str(), list).await
    }

    async fn delete(&self, keys: Vec<Key>) -> Result<u64> {
        let first = keys.first().cloned();
        let path = first.as_ref().map_or("", Key::as_str);
        let delete = |store: Arc<dyn Store>| async move { store.delete(keys).await };
        self.run(path, delete).await
    }

    async fn delete_if(&self, key: &Key, version: Option<&str>) -> Result<DeleteOutcome> {
        let (at, version) = (key.clone(), version.map(str::to_owned));
        let delete =
            |store: Arc<dyn Store>| async move { store.delete_if(&at, version.as_deref()).await };
        self.run(key.as_str(), delete).await
    }

    async fn remove_stale_temporaries(&self, folder: &Folder) -> Result<u64> {
        let below = folder.clone();
        let remove =
            |store: Arc<dyn Store>| async move { store.remove_stale_temporaries(&below).await };
        self.run(folder.as_str(), remove).await
    }

    async fn can_write_when_full(&self) -> bool {
        let write = |store: Arc<dyn Store>| async move { Ok(store.can_write_when_full().await) };
        self.run("", write).await.unwrap_or(false)
    }

    fn needs_keep_object(&self) -> bool {
        self.inner.needs_keep_object()
    }
}
