//! A store whose puts and reads, or lists, take as long as the test decides: a fixed delay, or
//! until the test grants a permit.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use stopover::storage::Tail;
use stopover::store::keys::{Folder, Key};
use stopover::store::{DeleteOutcome, ObjectMeta, Precondition, Store, StoreError, Versioned};
use tokio::sync::Semaphore;

use super::key_ranges::{KeyRanges, Kind};

/// What each put and each ranged read waits for, or each list.
#[derive(Debug)]
pub enum Delay {
    Fixed(Duration),
    /// A permit, which the operation consumes.
    UntilPermitted(Arc<Semaphore>),
    /// The duration, and then refused if the range of its key is busy.
    OfRanges(Duration, Arc<KeyRanges>),
    /// Nothing; but the first operation panics once this is set.
    Panics(Arc<AtomicBool>),
    /// Puts and reads for nothing, but lists for the duration.
    OfLists(Duration),
}

impl Delay {
    async fn wait(&self, key: &Key, kind: Kind) -> Result<(), StoreError> {
        match self {
            Self::Fixed(duration) => tokio::time::sleep(*duration).await,
            Self::UntilPermitted(permits) => permits.acquire().await.unwrap().forget(),
            Self::OfRanges(duration, ranges) => {
                tokio::time::sleep(*duration).await;
                return ranges.request(key.as_str(), kind);
            }
            Self::Panics(next) => assert!(!next.swap(false, Ordering::SeqCst), "injected panic"),
            Self::OfLists(_) => {}
        }
        Ok(())
    }

    async fn wait_for_list(&self) {
        if let Self::OfLists(duration) = self {
            tokio::time::sleep(*duration).await;
        }
    }
}

#[derive(Debug)]
pub struct SlowStore {
    pub inner: Arc<dyn Store>,
    pub delay: Delay,
}

#[async_trait]
impl Store for SlowStore {
    async fn put(&self, key: &Key, content: Vec<Bytes>) -> Result<(), StoreError> {
        self.delay.wait(key, Kind::Put).await?;
        self.inner.put(key, content).await
    }

    async fn put_if(
        &self,
        key: &Key,
        content: Bytes,
        expected: &Precondition,
    ) -> Result<bool, StoreError> {
        self.inner.put_if(key, content, expected).await
    }

    async fn get_versioned(&self, key: &Key) -> Result<Versioned, StoreError> {
        self.inner.get_versioned(key).await
    }

    async fn get_tail(&self, key: &Key, max: u64) -> Result<Tail, StoreError> {
        self.inner.get_tail(key, max).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.delay.wait(key, Kind::Get).await?;
        self.inner.get_range(key, range).await
    }

    async fn list(&self, folder: &Folder) -> Result<Vec<ObjectMeta>, StoreError> {
        self.delay.wait_for_list().await;
        self.inner.list(folder).await
    }

    async fn list_folders(&self, folder: &Folder) -> Result<Vec<String>, StoreError> {
        self.delay.wait_for_list().await;
        self.inner.list_folders(folder).await
    }

    async fn delete(&self, keys: Vec<Key>) -> Result<u64, StoreError> {
        self.inner.delete(keys).await
    }

    async fn delete_if(
        &self,
        key: &Key,
        version: Option<&str>,
    ) -> Result<DeleteOutcome, StoreError> {
        self.inner.delete_if(key, version).await
    }

    async fn remove_stale_temporaries(&self, folder: &Folder) -> Result<u64, StoreError> {
        self.inner.remove_stale_temporaries(folder).await
    }
}
