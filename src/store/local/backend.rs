//! The trait [`Store`] over a folder.
//!
//! Does: run each operation on a thread that may block. Does not: implement them (`publish`,
//! `read`, `swap`, `tree`). Invariant: an operation that has started runs to its end, even if its
//! future is dropped; that is why `StoreLimits::LOCAL` is not cancellable.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::error::failure;
use super::read::{read_range, read_tail};
use super::root::Root;
use super::swap;
use crate::store::keys::{Folder, Key};
use crate::store::{
    DeleteOutcome, ObjectMeta, Precondition, Result, Store, StoreError, Tail, Versioned,
};

/// Files below a folder.
#[derive(Debug, Clone)]
pub struct LocalStore(Arc<Root>);

/// How the content of files reaches the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteMode {
    /// Whenever the kernel writes it back.
    Unsynced,
    /// Through the page cache, then synced.
    Cached,
    /// Large files bypass the page cache; all are synced.
    Direct,
}

impl LocalStore {
    /// Files below `root`. `writer` distinguishes the temporaries of this process and is drawn at
    /// random for each run of a daemon.
    pub fn new(root: PathBuf, mode: WriteMode, writer: u64) -> Self {
        let (fsync, direct) = (mode != WriteMode::Unsynced, mode == WriteMode::Direct);
        Self(Arc::new(Root::new(root, fsync, direct, writer)))
    }

    /// From now on nothing finds space, or everything does.
    #[cfg(test)]
    pub(crate) fn fill(&self, full: bool) {
        let ordering = std::sync::atomic::Ordering::Relaxed;
        self.0.content.full.store(full, ordering);
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Root) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let root = Arc::clone(&self.0);
        let task = tokio::task::spawn_blocking(move || {
            // Before: nothing is written to another folder. After: what was not found, or was
            // written, is not believed if the folder has disappeared meanwhile.
            root.anchor.check(&root.folder)?;
            let result = work(&root);
            root.anchor.check(&root.folder)?;
            result
        });
        task.await
            .unwrap_or_else(|error| Err(StoreError::interrupted(error)))
    }
}

#[async_trait]
impl Store for LocalStore {
    async fn put(&self, key: &Key, content: Vec<Bytes>) -> Result<()> {
        let path = self.0.path(key)?;
        self.blocking(move |root| root.put(&path, &content)).await
    }

    async fn put_if(&self, key: &Key, content: Bytes, expected: &Precondition) -> Result<bool> {
        let (path, expected) = (self.0.path(key)?, expected.clone());
        self.blocking(move |root| root.put_if(&path, &content, &expected))
            .await
    }

    async fn get_versioned(&self, key: &Key) -> Result<Versioned> {
        let path = self.0.path(key)?;
        self.blocking(move |_| swap::read(&path).map_err(|error| failure("reading", &path, error)))
            .await
    }

    async fn get_tail(&self, key: &Key, max: u64) -> Result<Tail> {
        let path = self.0.path(key)?;
        self.blocking(move |_| read_tail(&path, max)).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        let path = self.0.path(key)?;
        self.blocking(move |_| read_range(&path, &range)).await
    }

    async fn list(&self, folder: &Folder) -> Result<Vec<ObjectMeta>> {
        let folder = folder.clone();
        self.blocking(move |root| root.list(&folder)).await
    }

    async fn first_keys(&self, max: usize) -> Result<Vec<Key>> {
        self.blocking(move |root| root.first_keys(max)).await
    }

    async fn list_folders(&self, folder: &Folder) -> Result<Vec<String>> {
        let folder = folder.clone();
        self.blocking(move |root| root.list_folders(&folder)).await
    }

    async fn delete(&self, keys: Vec<Key>) -> Result<u64> {
        let paths = keys
            .iter()
            .map(|key| self.0.path(key))
            .collect::<Result<Vec<_>, _>>()?;
        self.blocking(move |root| root.delete(&paths)).await
    }

    async fn delete_if(&self, key: &Key, version: Option<&str>) -> Result<DeleteOutcome> {
        let (path, version) = (self.0.path(key)?, version.map(str::to_owned));
        self.blocking(move |root| root.delete_if(&path, version.as_deref()))
            .await
    }

    async fn can_write_when_full(&self) -> bool {
        let written = self.blocking(|root| Ok(root.is_reserve_writable()));
        written.await.unwrap_or(false)
    }

    async fn remove_stale_temporaries(&self, folder: &Folder) -> Result<u64> {
        let folder = folder.clone();
        self.blocking(move |root| root.remove_stale_temporaries(&folder))
            .await
    }
}
