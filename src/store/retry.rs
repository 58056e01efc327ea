//! Retries of failed operations.
//!
//! Does: repeat reads, lists and deletes that failed as `Unavailable` until the policy's time is
//! up, and contended puts a few times. Does not: repeat other puts: `storage` tries them on another
//! base directory first. Invariant: an operation has one owner of its retries
//! (docs/decisions/storage-failure-and-health.md), and a failure that a retry cannot cure is
//! returned at once.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use super::keys::{Folder, Key};
use super::{
    DeleteOutcome, ObjectMeta, Observed, Precondition, Result, Store, StoreError, StoreErrorKind,
    Tail, Versioned,
};
use crate::runtime::Runtime;

/// How many times a contended put is repeated.
const CONTENDED_RETRIES: u32 = 4;

/// How long and how often an operation is retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// No retry starts later than this after the first attempt.
    pub max_elapsed: Duration,
    /// Wait before the first retry; doubles with each.
    pub first_wait: Duration,
    /// Longest wait between two attempts.
    pub longest_wait: Duration,
    /// Longest wait that a store may ask for. Some ask for a minute or two whatever the reason,
    /// which would leave no time for a retry.
    pub longest_asked_wait: Duration,
}

impl RetryPolicy {
    /// For stores behind a network: throttling and failovers of a server take seconds.
    pub const REMOTE: Self = Self {
        max_elapsed: Duration::from_secs(60),
        first_wait: Duration::from_millis(100),
        longest_wait: Duration::from_secs(5),
        longest_asked_wait: Duration::from_secs(10),
    };
    /// For file systems and memory, whose failures are usually permanent.
    pub const LOCAL: Self = Self {
        max_elapsed: Duration::from_secs(2),
        first_wait: Duration::from_millis(50),
        longest_wait: Duration::from_millis(500),
        longest_asked_wait: Duration::from_millis(500),
    };

    /// The wait before the `number`th retry (from 1), at least what the store `asked` for, within
    /// bounds. `random` spreads it over its upper half, so that clients which failed together do
    /// not retry together.
    pub fn wait(&self, number: u32, random: u64, asked: Option<Duration>) -> Duration {
        let doubled = self
            .first_wait
            .saturating_mul(1 << number.saturating_sub(1).min(16));
        let full = doubled.min(self.longest_wait);
        let spread = full.mul_f64(0.5 + 0.5 * (random as f64 / u64::MAX as f64));
        spread.max(asked.unwrap_or_default().min(self.longest_asked_wait))
    }
}

/// Wraps a store with retries.
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

    async fn retrying<T, F>(&self, operation: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let retryable = |_, error: &StoreError| error.kind == StoreErrorKind::Unavailable;
        let deadline = self.runtime.clock.now() + self.policy.max_elapsed;
        self.repeat(operation, retryable, Some(deadline)).await
    }

    async fn retrying_contended<T, F>(&self, operation: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let retryable = |number, error: &StoreError| error.contended && number <= CONTENDED_RETRIES;
        self.repeat(operation, retryable, None).await
    }

    /// Repeats an operation while its error and the number of the retry permit it and the retry
    /// starts before the deadline.
    async fn repeat<T, F>(
        &self,
        operation: impl Fn() -> F,
        retryable: impl Fn(u32, &StoreError) -> bool,
        deadline: Option<Instant>,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let Runtime { clock, random, .. } = &self.runtime;
        let mut number = 0;
        loop {
            number += 1;
            let error = match operation().await {
                Err(error) if retryable(number, &error) => error,
                result => return result,
            };
            let asked = error.retry_after;
            let wait = self.policy.wait(number, random.next_u64(), asked);
            if deadline.is_some_and(|deadline| clock.now() + wait > deadline) {
                return Err(error);
            }
            tracing::debug!(%error, number, "retrying a failed operation");
            clock.sleep(wait).await;
        }
    }
}

#[warn(clippy::missing_trait_methods)] // a default would hide what the inner store says
#[async_trait]
impl Store for Retry {
    async fn put(&self, key: &Key, content: Vec<Bytes>) -> Result<()> {
        self.retrying_contended(|| self.inner.put(key, content.clone()))
            .await
    }

    async fn put_if(&self, key: &Key, content: Bytes, expected: &Precondition) -> Result<bool> {
        self.retrying_contended(|| self.inner.put_if(key, content.clone(), expected))
            .await
    }

    async fn get_versioned(&self, key: &Key) -> Result<Versioned> {
        self.retrying(|| self.inner.get_versioned(key)).await
    }

    async fn get_tail(&self, key: &Key, max: u64) -> Result<Tail> {
        self.retrying(|| self.inner.get_tail(key, max)).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        self.retrying(|| self.inner.get_range(key, range.clone()))
            .await
    }

    async fn list(&self, folder: &Folder) -> Result<Vec<ObjectMeta>> {
        self.retrying(|| self.inner.list(folder)).await
    }

    async fn list_after(
        &self,
        folder: &Folder,
        after: Option<&Key>,
        max: usize,
    ) -> Result<Vec<ObjectMeta>> {
        self.retrying(|| self.inner.list_after(folder, after, max))
            .await
    }

    async fn first_keys(&self, max: usize) -> Result<Vec<Key>> {
        self.retrying(|| self.inner.first_keys(max)).await
    }

    async fn list_folders(&self, folder: &Folder) -> Result<Vec<String>> {
        self.retrying(|| self.inner.list_folders(folder)).await
    }

    async fn delete(&self, keys: Vec<Key>) -> Result<u64> {
        self.retrying(|| self.inner.delete(keys.clone())).await
    }

    async fn delete_if(&self, key: &Key, version: Option<&str>) -> Result<DeleteOutcome> {
        self.retrying(|| self.inner.delete_if(key, version)).await
    }

    async fn remove_stale_temporaries(&self, folder: &Folder) -> Result<u64> {
        self.retrying(|| self.inner.remove_stale_temporaries(folder))
            .await
    }

    async fn can_write_when_full(&self) -> bool {
        self.inner.can_write_when_full().await
    }

    fn needs_keep_object(&self) -> bool {
        self.inner.needs_keep_object()
    }

    fn distrust_conditions(&self) {
        self.inner.distrust_conditions();
    }

    fn observed(&self) -> Observed {
        self.inner.observed()
    }
}
