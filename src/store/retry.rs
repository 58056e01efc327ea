//! Patience: tries again what may succeed the next time.
//!
//! Does: repeat reads, lists and deletes that failed as `Unavailable` until the policy's max_elapsed
//! is over, and puts that another client's delete got in the way of, a few times. Does not: repeat
//! other puts, because the facade gives them to another base directory first. Invariant: a failure
//! that a retry cannot cure is answered at once.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::keys::{Folder, Key};
use super::{
    DeleteOutcome, ObjectMeta, Precondition, Store, StoreError, StoreErrorKind, Tail, Versioned,
};
use crate::runtime::Runtime;

/// A put that was contended is repeated this often.
const CONTENDED_RETRIES: u32 = 4;

/// How long and how often an operation is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// No new try begins after this long since the first.
    pub max_elapsed: Duration,
    /// Wait before the second try; doubles after each.
    pub first_wait: Duration,
    /// Longest wait between two tries.
    pub longest_wait: Duration,
}

impl RetryPolicy {
    /// For stores behind a network: throttling and fail-overs of a server take seconds.
    pub const REMOTE: Self = Self {
        max_elapsed: Duration::from_secs(60),
        first_wait: Duration::from_millis(100),
        longest_wait: Duration::from_secs(5),
    };
    /// For file systems and memory: what fails there stays failed.
    pub const LOCAL: Self = Self {
        max_elapsed: Duration::from_secs(2),
        first_wait: Duration::from_millis(50),
        longest_wait: Duration::from_millis(500),
    };

    /// The wait before try `number` (the first repeat is 1), with the upper half drawn at random so
    /// that clients which failed together do not come back together.
    pub fn wait(&self, number: u32, random: u64) -> Duration {
        let doubled = self
            .first_wait
            .saturating_mul(1 << number.saturating_sub(1).min(16));
        let full = doubled.min(self.longest_wait);
        full.mul_f64(0.5 + 0.5 * (random as f64 / u64::MAX as f64))
    }
}

/// Wraps a store with max_elapsed.
#[derive(Debug)]
pub struct Retry {
    inner: Arc<dyn Store>,
    policy: RetryPolicy,
    runtime: Runtime,
}

impl Retry {
    /// Wraps a store.
    pub fn new(inner: Arc<dyn Store>, policy: RetryPolicy, runtime: Runtime) -> Self {
        Self {
            inner,
            policy,
            runtime,
        }
    }

    async fn patiently<T, F>(&self, work: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let deadline = self.runtime.clock.now() + self.policy.max_elapsed;
        let mut number = 0;
        loop {
            let error = match work().await {
                Err(error) if error.kind == StoreErrorKind::Unavailable => error,
                other => return other,
            };
            number += 1;
            let wait = self.policy.wait(number, self.runtime.random.next_u64());
            if self.runtime.clock.now() + wait > deadline {
                return Err(error);
            }
            tracing::debug!(%error, number, "trying again");
            self.runtime.clock.sleep(wait).await;
        }
    }

    async fn despite_contention<T, F>(&self, work: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut number = 0;
        loop {
            match work().await {
                Err(error) if error.contended && number < CONTENDED_RETRIES => {
                    number += 1;
                    let wait = self.policy.wait(number, self.runtime.random.next_u64());
                    tracing::debug!(%error, number, "trying a contended put again");
                    self.runtime.clock.sleep(wait).await;
                }
                other => return other,
            }
        }
    }
}

#[async_trait]
impl Store for Retry {
    async fn put(&self, key: &Key, content: Vec<Bytes>) -> Result<(), StoreError> {
        self.despite_contention(|| self.inner.put(key, content.clone()))
            .await
    }

    async fn put_if(
        &self,
        key: &Key,
        content: Bytes,
        expected: &Precondition,
    ) -> Result<bool, StoreError> {
        self.despite_contention(|| self.inner.put_if(key, content.clone(), expected))
            .await
    }

    async fn get_versioned(&self, key: &Key) -> Result<Versioned, StoreError> {
        self.patiently(|| self.inner.get_versioned(key)).await
    }

    async fn get_tail(&self, key: &Key, max: u64) -> Result<Tail, StoreError> {
        self.patiently(|| self.inner.get_tail(key, max)).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.patiently(|| self.inner.get_range(key, range.clone()))
            .await
    }

    async fn list(&self, folder: &Folder) -> Result<Vec<ObjectMeta>, StoreError> {
        self.patiently(|| self.inner.list(folder)).await
    }

    async fn list_folders(&self, folder: &Folder) -> Result<Vec<String>, StoreError> {
        self.patiently(|| self.inner.list_folders(folder)).await
    }

    async fn delete(&self, keys: Vec<Key>) -> Result<u64, StoreError> {
        self.patiently(|| self.inner.delete(keys.clone())).await
    }

    async fn delete_if(
        &self,
        key: &Key,
        version: Option<&str>,
    ) -> Result<DeleteOutcome, StoreError> {
        self.patiently(|| self.inner.delete_if(key, version)).await
    }

    async fn remove_stale_temporaries(&self, folder: &Folder) -> Result<u64, StoreError> {
        self.patiently(|| self.inner.remove_stale_temporaries(folder))
            .await
    }

    fn needs_keep_object(&self) -> bool {
        self.inner.needs_keep_object()
    }
}
