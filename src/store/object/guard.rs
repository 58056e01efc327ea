//! A client whose panics are errors.
//!
//! Does: run each operation so that a panic of the client in it becomes an error. Does not: prevent
//! them: what is known to cause one is refused when a base directory is opened (`client`); what
//! remains comes from outside at any time, such as a token file that was replaced. Invariant: no
//! configuration and no token ends a task of the daemon.

use std::ops::Range;
use std::panic::AssertUnwindSafe;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt as _;

use super::ObjectBackend;
use crate::store::keys::{Folder, Key};
use crate::store::{
    DeleteOutcome, ObjectMeta, Observed, Precondition, Result, Store, StoreError, StoreErrorKind,
    Tail, Versioned,
};

/// What an operation fails with instead of a panic.
pub(super) const PANICKED: &str = "the store's client cannot make a request of what it was given: \
    check the options of this base directory, the variables of the store's tools, and the files \
    with tokens that they name";

/// Wraps the store of a client.
#[derive(Debug)]
pub(super) struct Guard(pub ObjectBackend);

async fn guarded<T>(operation: impl Future<Output = Result<T>>) -> Result<T> {
    // Sound: after a panic nothing of the operation is used, and the client has no state of its own
    // but caches, which it fills in one step.
    let caught = AssertUnwindSafe(operation).catch_unwind().await;
    caught.unwrap_or_else(|_| Err(StoreError::new(StoreErrorKind::Refused, PANICKED)))
}

#[warn(clippy::missing_trait_methods)] // a default would hide what the inner store says
#[async_trait]
impl Store for Guard {
    async fn put(&self, key: &Key, content: Vec<Bytes>) -> Result<()> {
        guarded(self.0.put(key, content)).await
    }

    async fn put_if(&self, key: &Key, content: Bytes, expected: &Precondition) -> Result<bool> {
        guarded(self.0.put_if(key, content, expected)).await
    }

    async fn get_versioned(&self, key: &Key) -> Result<Versioned> {
        guarded(self.0.get_versioned(key)).await
    }

    async fn get_tail(&self, key: &Key, max: u64) -> Result<Tail> {
        guarded(self.0.get_tail(key, max)).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        guarded(self.0.get_range(key, range)).await
    }

    async fn list(&self, folder: &Folder) -> Result<Vec<ObjectMeta>> {
        guarded(self.0.list(folder)).await
    }

    async fn list_after(
        &self,
        folder: &Folder,
        after: Option<&Key>,
        max: usize,
    ) -> Result<Vec<ObjectMeta>> {
        guarded(self.0.list_after(folder, after, max)).await
    }

    async fn first_keys(&self, max: usize) -> Result<Vec<Key>> {
        guarded(self.0.first_keys(max)).await
    }

    async fn list_folders(&self, folder: &Folder) -> Result<Vec<String>> {
        guarded(self.0.list_folders(folder)).await
    }

    async fn delete(&self, keys: Vec<Key>) -> Result<u64> {
        guarded(self.0.delete(keys)).await
    }

    async fn delete_if(&self, key: &Key, version: Option<&str>) -> Result<DeleteOutcome> {
        guarded(self.0.delete_if(key, version)).await
    }

    async fn remove_stale_temporaries(&self, folder: &Folder) -> Result<u64> {
        guarded(self.0.remove_stale_temporaries(folder)).await
    }

    async fn can_write_when_full(&self) -> bool {
        let asked = async { Ok(self.0.can_write_when_full().await) };
        guarded(asked).await.unwrap_or(false)
    }

    fn needs_keep_object(&self) -> bool {
        self.0.needs_keep_object()
    }

    fn distrust_conditions(&self) {
        self.0.distrust_conditions();
    }

    fn observed(&self) -> Observed {
        self.0.observed()
    }
}
