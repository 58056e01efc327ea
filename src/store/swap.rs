//! A store that can be replaced by another one for the same location, such as one with new
//! credentials.
//!
//! Does: forward every operation to the newest store. Does not: check that both have the same
//! location (`open`). Invariant: an operation is executed by one store from start to end.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::RwLock;

use super::keys::{Folder, Key};
use super::{DeleteOutcome, ObjectMeta, Observed, Precondition, Result, Store, Tail, Versioned};

/// Wraps a store.
#[derive(Debug)]
pub struct Swap(RwLock<Arc<dyn Store>>);

impl Swap {
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self(RwLock::new(store))
    }

    /// Replaces the store for operations that begin from now on. The server is still the same: what
    /// it was seen to lack, it lacks.
    pub fn replace(&self, store: Arc<dyn Store>) {
        let mut current = self.0.write();
        if current.observed().checks_then_writes {
            store.distrust_conditions();
        }
        *current = store;
    }

    fn current(&self) -> Arc<dyn Store> {
        Arc::clone(&self.0.read())
    }
}

#[warn(clippy::missing_trait_methods)] // a default would hide what the inner store says
#[async_trait]
impl Store for Swap {
    async fn put(&self, key: &Key, content: Vec<Bytes>) -> Result<()> {
        self.current().put(key, content).await
    }

    async fn put_if(&self, key: &Key, content: Bytes, expected: &Precondition) -> Result<bool> {
        self.current().put_if(key, content, expected).await
    }

    async fn get_versioned(&self, key: &Key) -> Result<Versioned> {
        self.current().get_versioned(key).await
    }

    async fn get_tail(&self, key: &Key, max: u64) -> Result<Tail> {
        self.current().get_tail(key, max).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        self.current().get_range(key, range).await
    }

    async fn list(&self, folder: &Folder) -> Result<Vec<ObjectMeta>> {
        self.current().list(folder).await
    }

    async fn list_after(
        &self,
        folder: &Folder,
        after: Option<&Key>,
        max: usize,
    ) -> Result<Vec<ObjectMeta>> {
        self.current().list_after(folder, after, max).await
    }

    async fn first_keys(&self, max: usize) -> Result<Vec<Key>> {
        self.current().first_keys(max).await
    }

    async fn list_folders(&self, folder: &Folder) -> Result<Vec<String>> {
        self.current().list_folders(folder).await
    }

    async fn delete(&self, keys: Vec<Key>) -> Result<u64> {
        self.current().delete(keys).await
    }

    async fn delete_if(&self, key: &Key, version: Option<&str>) -> Result<DeleteOutcome> {
        self.current().delete_if(key, version).await
    }

    async fn remove_stale_temporaries(&self, folder: &Folder) -> Result<u64> {
        self.current().remove_stale_temporaries(folder).await
    }

    async fn can_write_when_full(&self) -> bool {
        self.current().can_write_when_full().await
    }

    fn needs_keep_object(&self) -> bool {
        self.current().needs_keep_object()
    }

    fn distrust_conditions(&self) {
        self.current().distrust_conditions();
    }

    fn observed(&self) -> Observed {
        self.current().observed()
    }
}
