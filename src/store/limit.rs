//! Bounded concurrency of one base directory.
//!
//! Does: let at most so many operations run at a time; the others wait, each query in its turn, so
//! that one with thousands of fetches does not hold up another's single one. Does not: fail
//! anything. Invariant: a permit is given back when the work has ended, not when its caller lost
//! interest: work that outlives its future (blocking file operations) carries the permit along.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::keys::{self, Folder, Key};
use super::retry::RetryPolicy;
use super::{DeleteOutcome, ObjectMeta, Precondition, Store, StoreError, Tail, Versioned};
use crate::fair::{FairPermit, FairSemaphore};

tokio::task_local! {
    static PERMIT: Arc<FairPermit>;
}

/// A share in the permit under which the current operation runs; hold it where the work goes on
/// although the operation's future may be dropped.
pub fn carried_permit() -> Option<Arc<FairPermit>> {
    PERMIT.try_with(Arc::clone).ok()
}

/// Wraps a store with a bound on concurrent operations.
#[derive(Debug)]
pub struct Limit {
    inner: Arc<dyn Store>,
    permits: FairSemaphore,
}

impl Limit {
    /// Wraps a store; `max` operations at a time, at least one.
    pub fn new(inner: Arc<dyn Store>, max: usize) -> Self {
        Self {
            inner,
            permits: FairSemaphore::new(max as u64, None),
        }
    }

    async fn within<T>(&self, path: &str, work: impl Future<Output = T>) -> T {
        let permit = self.permits.acquire(keys::query(path), 1).await;
        PERMIT.scope(Arc::new(permit), work).await
    }
}

#[async_trait]
impl Store for Limit {
    async fn put(&self, key: &Key, content: Vec<Bytes>) -> Result<(), StoreError> {
        self.within(key.as_str(), self.inner.put(key, content))
            .await
    }

    async fn put_if(
        &self,
        key: &Key,
        content: Bytes,
        expected: &Precondition,
    ) -> Result<bool, StoreError> {
        self.within(key.as_str(), self.inner.put_if(key, content, expected))
            .await
    }

    async fn get_versioned(&self, key: &Key) -> Result<Versioned, StoreError> {
        self.within(key.as_str(), self.inner.get_versioned(key))
            .await
    }

    async fn get_tail(&self, key: &Key, max: u64) -> Result<Tail, StoreError> {
        self.within(key.as_str(), self.inner.get_tail(key, max))
            .await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.within(key.as_str(), self.inner.get_range(key, range))
            .await
    }

    async fn list(&self, folder: &Folder) -> Result<Vec<ObjectMeta>, StoreError> {
        self.within(folder.as_str(), self.inner.list(folder)).await
    }

    async fn list_folders(&self, folder: &Folder) -> Result<Vec<String>, StoreError> {
        self.within(folder.as_str(), self.inner.list_folders(folder))
            .await
    }

    async fn delete(&self, keys: Vec<Key>) -> Result<u64, StoreError> {
        let first = keys.first().cloned();
        let path = first.as_ref().map_or("", Key::as_str);
        self.within(path, self.inner.delete(keys)).await
    }

    async fn delete_if(
        &self,
        key: &Key,
        version: Option<&str>,
    ) -> Result<DeleteOutcome, StoreError> {
        self.within(key.as_str(), self.inner.delete_if(key, version))
            .await
    }

    async fn remove_stale_temporaries(&self, folder: &Folder) -> Result<u64, StoreError> {
        self.within(folder.as_str(), self.inner.remove_stale_temporaries(folder))
            .await
    }

    fn needs_keep_object(&self) -> bool {
        self.inner.needs_keep_object()
    }
}

/// What one base directory is allowed.
#[derive(Debug, Clone, Copy)]
pub struct StoreLimits {
    /// Operations at a time.
    pub concurrency: usize,
    /// How patiently failed operations are repeated.
    pub retry: RetryPolicy,
}

impl StoreLimits {
    /// For stores behind a network: enough to fill it, few enough for one connection each.
    pub const REMOTE: Self = Self {
        concurrency: 64,
        retry: RetryPolicy::REMOTE,
    };
    /// For file systems and memory: more would only queue in the kernel.
    pub const LOCAL: Self = Self {
        concurrency: 32,
        retry: RetryPolicy::LOCAL,
    };
}
