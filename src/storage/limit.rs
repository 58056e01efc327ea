//! Bounded concurrency of one base directory.
//!
//! Does: let at most so many operations run at a time; the others wait in order. Does not: fail
//! anything. Invariant: a permit is given back when the work has ended, not when its caller lost
//! interest: work that outlives its future (blocking file operations) carries the permit along.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Tail;
use super::keys::{Folder, Key};
use super::store::{Expected, Found, Store, StoreError, Taken, Versioned};

tokio::task_local! {
    static PERMIT: Arc<OwnedSemaphorePermit>;
}

/// A share in the permit under which the current operation runs; hold it where the work goes on
/// although the operation's future may be dropped.
pub fn carried_permit() -> Option<Arc<OwnedSemaphorePermit>> {
    PERMIT.try_with(Arc::clone).ok()
}

/// Wraps a store with a bound on concurrent operations.
#[derive(Debug)]
pub struct Limit {
    inner: Arc<dyn Store>,
    permits: Arc<Semaphore>,
}

impl Limit {
    /// Wraps a store; `max` operations at a time, at least one.
    pub fn new(inner: Arc<dyn Store>, max: usize) -> Self {
        Self {
            inner,
            permits: Arc::new(Semaphore::new(max.clamp(1, Semaphore::MAX_PERMITS))),
        }
    }

    async fn within<T>(&self, work: impl Future<Output = T>) -> T {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        // The semaphore is never closed; were it, running without a permit is the lesser evil.
        match permit {
            Ok(permit) => PERMIT.scope(Arc::new(permit), work).await,
            Err(_) => work.await,
        }
    }
}

#[async_trait]
impl Store for Limit {
    async fn put(&self, key: &Key, content: Vec<Bytes>) -> Result<(), StoreError> {
        self.within(self.inner.put(key, content)).await
    }

    async fn put_if(
        &self,
        key: &Key,
        content: Bytes,
        expected: &Expected,
    ) -> Result<bool, StoreError> {
        self.within(self.inner.put_if(key, content, expected)).await
    }

    async fn get_versioned(&self, key: &Key) -> Result<Versioned, StoreError> {
        self.within(self.inner.get_versioned(key)).await
    }

    async fn get_tail(&self, key: &Key, max: u64) -> Result<Tail, StoreError> {
        self.within(self.inner.get_tail(key, max)).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.within(self.inner.get_range(key, range)).await
    }

    async fn list(&self, folder: &Folder) -> Result<Vec<Found>, StoreError> {
        self.within(self.inner.list(folder)).await
    }

    async fn list_folders(&self, folder: &Folder) -> Result<Vec<String>, StoreError> {
        self.within(self.inner.list_folders(folder)).await
    }

    async fn delete(&self, keys: Vec<Key>) -> Result<u64, StoreError> {
        self.within(self.inner.delete(keys)).await
    }

    async fn take(&self, key: &Key, version: Option<&str>) -> Result<Taken, StoreError> {
        self.within(self.inner.take(key, version)).await
    }

    async fn remove_stale_temporaries(&self, folder: &Folder) -> Result<u64, StoreError> {
        self.within(self.inner.remove_stale_temporaries(folder))
            .await
    }

    fn wants_keep(&self) -> bool {
        self.inner.wants_keep()
    }
}
