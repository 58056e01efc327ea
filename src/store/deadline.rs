//! A deadline for every operation of one store.
//!
//! Does: end an operation that does not answer in time, so that its caller continues and its permit
//! and bytes are released. Does not: stop work that cannot be cancelled (a thread in a system call
//! continues: `local` bounds those), or watch the progress of a request (`object`). Invariant: no
//! call of this wrapper takes longer than its limit. An operation that was ended may still be
//! applied.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::keys::{Folder, Key};
use super::{
    DeleteOutcome, MAX_VERSIONED_SIZE, ObjectMeta, Observed, Precondition, Result, Store,
    StoreError, StoreErrorKind, Tail, Versioned,
};
use crate::runtime::Clock;

/// Keys of one bulk delete of an object store.
const KEYS_PER_REQUEST: usize = 1000;

/// How long operations may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadlinePolicy {
    /// For an answer: the limit of an operation that moves few bytes, and what any other has
    /// besides the time for its bytes.
    pub timeout: Duration,
    /// The slowest rate at which an operation may transfer bytes. Low, since a slow store is better
    /// than none: it only bounds a store that never finishes.
    pub bytes_per_second: u64,
}

impl DeadlinePolicy {
    /// For stores behind a network. The client of an object store detects by itself, within the
    /// timeout, that a request makes no progress.
    pub const REMOTE: Self = Self {
        timeout: Duration::from_secs(30),
        bytes_per_second: 128 << 10,
    };
    /// For file systems and memory: a slow write cannot be distinguished from one that hangs, so
    /// the rate is higher.
    pub const LOCAL: Self = Self {
        timeout: Duration::from_secs(30),
        bytes_per_second: 4 << 20,
    };

    /// Of an operation that moves this many bytes.
    pub fn transfer(&self, bytes: u64) -> Duration {
        let seconds = bytes as f64 / self.bytes_per_second.max(1) as f64;
        self.timeout + Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX / 2)
    }

    /// Of a list: pages of a thousand objects, or a folder with as many files.
    pub fn list(&self) -> Duration {
        self.timeout * 4
    }

    /// Of a delete of this many keys.
    pub fn delete(&self, keys: usize) -> Duration {
        let more = u32::try_from(keys / KEYS_PER_REQUEST).unwrap_or(u32::MAX);
        self.timeout.saturating_mul(more.saturating_add(1))
    }

    /// The limit of a search for stale temporaries, which visits every file and runs in the
    /// background.
    pub fn sweep(&self) -> Duration {
        self.timeout * 20
    }
}

/// Wraps a store with deadlines.
#[derive(Debug)]
pub struct Deadline {
    inner: Arc<dyn Store>,
    policy: DeadlinePolicy,
    clock: Clock,
}

impl Deadline {
    /// Wraps a store.
    pub fn new(inner: Arc<dyn Store>, policy: DeadlinePolicy, clock: Clock) -> Self {
        Self {
            inner,
            policy,
            clock,
        }
    }

    async fn within<T>(
        &self,
        limit: Duration,
        operation: &'static str,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let answered = self.clock.within(limit, work).await;
        answered.unwrap_or_else(|| Err(timed_out(operation, limit)))
    }
}

fn timed_out(operation: &'static str, limit: Duration) -> StoreError {
    let seconds = limit.as_secs_f64();
    let message = format!("the {operation} was not answered within {seconds:.0} s");
    StoreError {
        timed_out: true,
        hint: Some("if the store is slow but works, raise `timeout` of this base directory"),
        ..StoreError::new(StoreErrorKind::Unavailable, message)
    }
}

#[warn(clippy::missing_trait_methods)] // a default would hide what the inner store says
#[async_trait]
impl Store for Deadline {
    async fn put(&self, key: &Key, content: Vec<Bytes>) -> Result<()> {
        let size: usize = content.iter().map(Bytes::len).sum();
        let limit = self.policy.transfer(size as u64);
        self.within(limit, "put", self.inner.put(key, content))
            .await
    }

    async fn put_if(&self, key: &Key, content: Bytes, expected: &Precondition) -> Result<bool> {
        let limit = self.policy.transfer(content.len() as u64);
        let put = self.inner.put_if(key, content, expected);
        self.within(limit, "conditional put", put).await
    }

    async fn get_versioned(&self, key: &Key) -> Result<Versioned> {
        let limit = self.policy.transfer(MAX_VERSIONED_SIZE);
        self.within(limit, "get", self.inner.get_versioned(key))
            .await
    }

    async fn get_tail(&self, key: &Key, max: u64) -> Result<Tail> {
        let limit = self.policy.transfer(max);
        self.within(limit, "get", self.inner.get_tail(key, max))
            .await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        let limit = self.policy.transfer(range.end.saturating_sub(range.start));
        self.within(limit, "get", self.inner.get_range(key, range))
            .await
    }

    async fn list(&self, folder: &Folder) -> Result<Vec<ObjectMeta>> {
        let limit = self.policy.list();
        self.within(limit, "list", self.inner.list(folder)).await
    }

    async fn list_after(
        &self,
        folder: &Folder,
        after: Option<&Key>,
        max: usize,
    ) -> Result<Vec<ObjectMeta>> {
        let listed = self.inner.list_after(folder, after, max);
        self.within(self.policy.list(), "list", listed).await
    }

    async fn first_keys(&self, max: usize) -> Result<Vec<Key>> {
        let limit = self.policy.list();
        self.within(limit, "list", self.inner.first_keys(max)).await
    }

    async fn list_folders(&self, folder: &Folder) -> Result<Vec<String>> {
        let limit = self.policy.list();
        self.within(limit, "list", self.inner.list_folders(folder))
            .await
    }

    async fn delete(&self, keys: Vec<Key>) -> Result<u64> {
        let limit = self.policy.delete(keys.len());
        self.within(limit, "delete", self.inner.delete(keys)).await
    }

    async fn delete_if(&self, key: &Key, version: Option<&str>) -> Result<DeleteOutcome> {
        let limit = self.policy.transfer(MAX_VERSIONED_SIZE);
        let delete = self.inner.delete_if(key, version);
        self.within(limit, "conditional delete", delete).await
    }

    async fn remove_stale_temporaries(&self, folder: &Folder) -> Result<u64> {
        let limit = self.policy.sweep();
        let sweep = self.inner.remove_stale_temporaries(folder);
        self.within(limit, "sweep", sweep).await
    }

    async fn can_write_when_full(&self) -> bool {
        let limit = self.policy.transfer(0);
        let asked = async { Ok(self.inner.can_write_when_full().await) };
        let writable = self.within(limit, "write to the reserve", asked).await;
        writable.unwrap_or(false)
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
