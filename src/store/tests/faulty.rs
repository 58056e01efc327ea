//! A store that fails on demand.
//!
//! Does: fail the next operations of a kind, before or after applying them, and log all operations.
//! Does not: fail at random. Invariant: without faults it behaves like the store that it wraps.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use object_store::memory::InMemory;
use parking_lot::Mutex;

use crate::store::keys::{Folder, Key};
use crate::store::object::ObjectBackend;
use crate::store::object::redact::Redactor;
use crate::store::{
    DeleteOutcome, ObjectMeta, Precondition, Store, StoreError, StoreErrorKind, Tail, Versioned,
};

/// How an operation fails.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// It fails without being applied.
    Fails(StoreErrorKind),
    /// It is applied and fails all the same.
    FailsAfterwards(StoreErrorKind),
    /// It fails without being applied, and the store asks for this wait.
    Throttled(Duration),
    /// It collides with another client's delete.
    Contended,
    /// Half of the bytes are returned.
    Short,
    /// It takes this long.
    Takes(Duration),
    /// It never returns.
    Hangs,
    /// It waits first: each time differently, occasionally long.
    Late,
}

#[derive(Debug)]
pub(crate) struct FaultyStore {
    inner: ObjectBackend,
    faults: Mutex<Vec<(&'static str, VecDeque<Fault>)>>,
    always: Mutex<Vec<(&'static str, Fault)>>,
    log: Mutex<Vec<String>>,
}

impl FaultyStore {
    pub(crate) fn new() -> Arc<Self> {
        let memory = Arc::new(InMemory::new());
        let inner = ObjectBackend::new(memory, "prefix".into(), Redactor::default(), false);
        Arc::new(Self {
            inner,
            faults: Mutex::default(),
            always: Mutex::default(),
            log: Mutex::default(),
        })
    }

    /// Fails the next operation of this kind that has no fault yet.
    pub(crate) fn next(&self, operation: &'static str, fault: Fault) {
        let mut faults = self.faults.lock();
        match faults.iter_mut().find(|(name, _)| *name == operation) {
            Some((_, queue)) => queue.push_back(fault),
            None => faults.push((operation, [fault].into())),
        }
    }

    /// Fails every operation of this kind from now on.
    pub(crate) fn always(&self, operation: &'static str, fault: Fault) {
        self.always.lock().push((operation, fault));
    }

    /// Removes all faults.
    pub(crate) fn heal(&self) {
        self.always.lock().clear();
        self.faults.lock().clear();
    }

    /// All operations so far, as `operation object`.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().clone()
    }

    /// Forgets the operations so far.
    pub(crate) fn clear_log(&self) {
        self.log.lock().clear();
    }

    /// Number of operations so far that begin like this.
    pub(crate) fn count(&self, operation: &str) -> usize {
        self.log
            .lock()
            .iter()
            .filter(|line| line.starts_with(operation))
            .count()
    }

    fn fault(&self, operation: &'static str, object: impl std::fmt::Display) -> Option<Fault> {
        self.log.lock().push(format!("{operation} {object}"));
        let mut faults = self.faults.lock();
        let queue = faults.iter_mut().find(|(name, _)| *name == operation);
        let next = queue.and_then(|(_, queue)| queue.pop_front());
        let always = || {
            let always = self.always.lock();
            always
                .iter()
                .find(|(name, _)| *name == operation)
                .map(|(_, fault)| fault.clone())
        };
        next.or_else(always)
    }

    /// Never returns if an operation that is not logged shall hang.
    async fn unless_hanging(&self, operation: &'static str) {
        let always = self.always.lock().clone();
        if always.iter().any(|(name, _)| *name == operation) {
            std::future::pending::<()>().await;
        }
    }

    async fn run<T>(
        &self,
        operation: &'static str,
        object: impl std::fmt::Display,
        work: impl Future<Output = Result<T, StoreError>>,
        shorten: impl Fn(T) -> T,
    ) -> Result<T, StoreError> {
        let failure = |kind| StoreError::new(kind, format!("injected failure of {operation}"));
        match self.fault(operation, object) {
            None => work.await,
            Some(Fault::Fails(kind)) => Err(failure(kind)),
            Some(Fault::FailsAfterwards(kind)) => {
                work.await?;
                Err(failure(kind))
            }
            Some(Fault::Throttled(wait)) => Err(StoreError {
                retry_after: Some(wait),
                settled: true,
                ..failure(StoreErrorKind::Unavailable)
            }),
            Some(Fault::Contended) => Err(StoreError {
                contended: true,
                ..failure(StoreErrorKind::Unavailable)
            }),
            Some(Fault::Short) => work.await.map(shorten),
            Some(Fault::Takes(long)) => {
                tokio::time::sleep(long).await;
                work.await
            }
            Some(Fault::Hangs) => std::future::pending().await,
            Some(Fault::Late) => {
                let operations = self.log.lock().len() as u64;
                let long = if operations % 7 == 3 { 600 } else { 0 };
                let wait = Duration::from_millis(operations * 31 % 47 + long);
                tokio::time::sleep(wait).await;
                work.await
            }
        }
    }
}

fn whole<T>(value: T) -> T {
    value
}

#[async_trait]
impl Store for FaultyStore {
    async fn put(&self, key: &Key, content: Vec<Bytes>) -> Result<(), StoreError> {
        self.run("put", key, self.inner.put(key, content), whole)
            .await
    }

    async fn put_if(
        &self,
        key: &Key,
        content: Bytes,
        expected: &Precondition,
    ) -> Result<bool, StoreError> {
        self.run("put", key, self.inner.put_if(key, content, expected), whole)
            .await
    }

    async fn get_versioned(&self, key: &Key) -> Result<Versioned, StoreError> {
        self.run("get", key, self.inner.get_versioned(key), whole)
            .await
    }

    async fn get_tail(&self, key: &Key, max: u64) -> Result<Tail, StoreError> {
        self.run("get", key, self.inner.get_tail(key, max), whole)
            .await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        let half = |bytes: Bytes| bytes.slice(..bytes.len() / 2);
        self.run("get", key, self.inner.get_range(key, range), half)
            .await
    }

    async fn list(&self, folder: &Folder) -> Result<Vec<ObjectMeta>, StoreError> {
        self.run("list", folder, self.inner.list(folder), whole)
            .await
    }

    async fn first_keys(&self, max: usize) -> Result<Vec<Key>, StoreError> {
        self.run("list", "", self.inner.first_keys(max), whole)
            .await
    }

    async fn list_folders(&self, folder: &Folder) -> Result<Vec<String>, StoreError> {
        self.run("list", folder, self.inner.list_folders(folder), whole)
            .await
    }

    async fn delete(&self, keys: Vec<Key>) -> Result<u64, StoreError> {
        let object = keys.iter().map(Key::as_str).collect::<Vec<_>>().join(" ");
        self.run("delete", object, self.inner.delete(keys), whole)
            .await
    }

    async fn delete_if(
        &self,
        key: &Key,
        version: Option<&str>,
    ) -> Result<DeleteOutcome, StoreError> {
        self.run("delete", key, self.inner.delete_if(key, version), whole)
            .await
    }

    async fn remove_stale_temporaries(&self, folder: &Folder) -> Result<u64, StoreError> {
        self.unless_hanging("sweep").await;
        self.inner.remove_stale_temporaries(folder).await
    }

    async fn can_write_when_full(&self) -> bool {
        self.unless_hanging("reserve").await;
        self.inner.can_write_when_full().await
    }
}
