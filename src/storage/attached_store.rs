//! A store that is used only once its base directory was identified.
//!
//! Does: wait for the identity before each operation, and for what is to be known of conditions
//! before a conditional write; treat an abandoned base directory as empty.
//! Does not: read the identity (`attachment`). Invariant: nothing is written to a base directory
//! that was not identified, and nothing is believed to be absent there.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::attachment::Attachment;
use super::membership::MemberState;
use super::roster::Role;
use crate::store::keys::{Folder, Key};
use crate::store::{
    DeleteOutcome, ObjectMeta, Observed, Precondition, Result, Store, StoreError, StoreErrorKind,
    Tail, Versioned,
};

/// Wraps a store.
#[derive(Debug)]
pub(super) struct AttachedStore(pub Arc<Attachment>);

impl AttachedStore {
    /// The store; `None` if the base directory was abandoned.
    async fn get(&self) -> Result<Option<&dyn Store>> {
        if self.0.role() == Role::Member(MemberState::Abandoned) {
            return Ok(None);
        }
        self.0.ensure().await?;
        Ok(Some(&*self.0.raw))
    }

    /// The store, for an operation that needs an object.
    async fn needed(&self, kind: StoreErrorKind) -> Result<&dyn Store> {
        let abandoned = "the base directory was abandoned (`stopover members`)";
        self.get()
            .await?
            .ok_or_else(|| StoreError::new(kind, abandoned))
    }
}

#[warn(clippy::missing_trait_methods)] // a default would hide what the inner store says
#[async_trait]
impl Store for AttachedStore {
    async fn put(&self, key: &Key, content: Vec<Bytes>) -> Result<()> {
        let store = self.needed(StoreErrorKind::Refused).await?;
        store.put(key, content).await
    }

    async fn put_if(&self, key: &Key, content: Bytes, expected: &Precondition) -> Result<bool> {
        let store = self.needed(StoreErrorKind::Refused).await?;
        self.0.learn_conditions().await?;
        store.put_if(key, content, expected).await
    }

    async fn get_versioned(&self, key: &Key) -> Result<Versioned> {
        let store = self.needed(StoreErrorKind::NotFound).await?;
        store.get_versioned(key).await
    }

    async fn get_tail(&self, key: &Key, max: u64) -> Result<Tail> {
        let store = self.needed(StoreErrorKind::NotFound).await?;
        store.get_tail(key, max).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        let store = self.needed(StoreErrorKind::NotFound).await?;
        store.get_range(key, range).await
    }

    async fn list(&self, folder: &Folder) -> Result<Vec<ObjectMeta>> {
        match self.get().await? {
            Some(store) => store.list(folder).await,
            None => Ok(Vec::new()),
        }
    }

    async fn list_after(
        &self,
        folder: &Folder,
        after: Option<&Key>,
        max: usize,
    ) -> Result<Vec<ObjectMeta>> {
        match self.get().await? {
            Some(store) => store.list_after(folder, after, max).await,
            None => Ok(Vec::new()),
        }
    }

    async fn first_keys(&self, max: usize) -> Result<Vec<Key>> {
        match self.get().await? {
            Some(store) => store.first_keys(max).await,
            None => Ok(Vec::new()),
        }
    }

    async fn list_folders(&self, folder: &Folder) -> Result<Vec<String>> {
        match self.get().await? {
            Some(store) => store.list_folders(folder).await,
            None => Ok(Vec::new()),
        }
    }

    async fn delete(&self, keys: Vec<Key>) -> Result<u64> {
        match self.get().await? {
            Some(store) => store.delete(keys).await,
            None => Ok(0),
        }
    }

    async fn delete_if(&self, key: &Key, version: Option<&str>) -> Result<DeleteOutcome> {
        match self.get().await? {
            Some(store) => store.delete_if(key, version).await,
            None => Ok(DeleteOutcome::Absent),
        }
    }

    async fn remove_stale_temporaries(&self, folder: &Folder) -> Result<u64> {
        match self.get().await? {
            Some(store) => store.remove_stale_temporaries(folder).await,
            None => Ok(0),
        }
    }

    async fn can_write_when_full(&self) -> bool {
        match self.get().await {
            Ok(Some(store)) => store.can_write_when_full().await,
            // Nothing has to be written to it.
            Ok(None) => true,
            Err(_) => false,
        }
    }

    fn needs_keep_object(&self) -> bool {
        self.0.raw.needs_keep_object()
    }

    fn distrust_conditions(&self) {
        self.0.raw.distrust_conditions();
    }

    fn observed(&self) -> Observed {
        self.0.raw.observed()
    }
}
