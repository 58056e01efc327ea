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
    async fn run<P, T, F>(
        &self,
        path: &P,
        operation: impl FnOnce(Arc<dyn Store>, P) -> F,
    ) -> Result<T>
    where
        P: Clone + AsRef<str>,
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let permit = self.permits.acquire(keys::query(path.as_ref()), 1).await;
        let work = operation(Arc::clone(&self.inner), path.clone());
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
        self.run(
            key,
            |store, key| async move { store.put(&key, content).await },
        )
        .await
    }

    async fn put_if(&self, key: &Key, content: Bytes, expected: &Precondition) -> Result<bool> {
        let expected = expected.clone();
        self.run(key, |store, key| async move {
            store.put_if(&key, content, &expected).await
        })
        .await
    }

    async fn get_versioned(&self, key: &Key) -> Result<Versioned> {
        self.run(
            key,
            |store, key| async move { store.get_versioned(&key).await },
        )
        .await
    }

    async fn get_tail(&self, key: &Key, max: u64) -> Result<Tail> {
        self.run(
            key,
            |store, key| async move { store.get_tail(&key, max).await },
        )
        .await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        self.run(key, |store, key| async move {
            store.get_range(&key, range).await
        })
        .await
    }

    async fn list(&self, folder: &Folder) -> Result<Vec<ObjectMeta>> {
        self.run(
            folder,
            |store, folder| async move { store.list(&folder).await },
        )
        .await
    }

    async fn list_folders(&self, folder: &Folder) -> Result<Vec<String>> {
        self.run(folder, |store, folder| async move {
            store.list_folders(&folder).await
        })
        .await
    }

    async fn delete(&self, keys: Vec<Key>) -> Result<u64> {
        let first = keys.first().map_or_else(String::new, Key::to_string);
        self.run(&first, |store, _| async move { store.delete(keys).await })
            .await
    }

    async fn delete_if(&self, key: &Key, version: Option<&str>) -> Result<DeleteOutcome> {
        let version = version.map(str::to_owned);
        self.run(key, |store, key| async move {
            store.delete_if(&key, version.as_deref()).await
        })
        .await
    }

    async fn remove_stale_temporaries(&self, folder: &Folder) -> Result<u64> {
        self.run(folder, |store, folder| async move {
            store.remove_stale_temporaries(&folder).await
        })
        .await
    }

    fn needs_keep_object(&self) -> bool {
        self.inner.needs_keep_object()
    }
}
