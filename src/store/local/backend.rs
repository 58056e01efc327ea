//! The trait [`Store`] over a folder.
//!
//! Does: run each operation on a thread that may block (`threads`). Does not: implement them
//! (`publish`, `read`, `swap`, `tree`). Invariant: an operation that has started runs to its end,
//! even if its future is dropped; that is why `StoreLimits::LOCAL` is not cancellable.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::error::failure;
use super::payload::Payload;
use super::permissions::Permissions;
use super::read::{read_range, read_tail};
use super::root::Root;
use super::space::Space;
use super::swap;
use super::threads::Threads;
use crate::config::units::SizeOrPercent;
use crate::store::keys::{Folder, Key};
use crate::store::{DeleteOutcome, ObjectMeta, Precondition, Result, Store, Tail, Versioned};

/// Files below a folder.
#[derive(Debug, Clone)]
pub struct LocalStore {
    root: Arc<Root>,
    threads: Arc<Threads>,
}

/// How the content of files reaches the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteMode {
    /// Not synced: the kernel writes it back later.
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
        Self {
            root: Arc::new(Root::new(root, fsync, direct, writer)),
            threads: Arc::default(),
        }
    }

    /// The same store, with files and folders that the group may also read and write.
    #[must_use]
    pub fn shared_with_group(mut self) -> Self {
        if let Some(root) = Arc::get_mut(&mut self.root) {
            root.permissions = Permissions::GROUP;
        }
        self
    }

    /// The same store, which refuses segments while its file system has less free space than this.
    #[must_use]
    pub fn with_min_free(mut self, min_free: SizeOrPercent) -> Self {
        if let Some(root) = Arc::get_mut(&mut self.root) {
            root.space = Space::new(root.folder.clone(), min_free);
        }
        self
    }

    /// From now on its file system seems to have so many bytes in total, and so many of them free.
    #[cfg(test)]
    pub(crate) fn set_space(&self, total: u64, free: u64) {
        *self.root.space.pretended.lock() = Some((total, free));
    }

    /// From now on nothing finds space, or everything does.
    #[cfg(test)]
    pub(crate) fn fill(&self, full: bool) {
        let ordering = std::sync::atomic::Ordering::Relaxed;
        self.root.content.full.store(full, ordering);
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Root) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let root = Arc::clone(&self.root);
        let checked = move || {
            // Before: nothing is written to another folder. After: what was not found, or was
            // written, is not believed if the folder has disappeared meanwhile.
            root.anchor.check(&root.folder)?;
            let result = work(&root);
            root.anchor.check(&root.folder)?;
            result
        };
        self.threads.run(checked).await
    }
}

#[async_trait]
impl Store for LocalStore {
    async fn put(&self, key: &Key, content: Vec<Bytes>) -> Result<()> {
        let path = self.root.path(key)?;
        let (payload, _owner) = Payload::owned(content);
        self.blocking(move |root| root.put(&path, &payload)).await
    }

    async fn put_if(&self, key: &Key, content: Bytes, expected: &Precondition) -> Result<bool> {
        let (path, expected) = (self.root.path(key)?, expected.clone());
        let (payload, _owner) = Payload::owned(vec![content]);
        self.blocking(move |root| root.put_if(&path, &payload, &expected))
            .await
    }

    async fn get_versioned(&self, key: &Key) -> Result<Versioned> {
        let path = self.root.path(key)?;
        self.blocking(move |root| {
            swap::read(root, &path).map_err(|error| failure("reading", &path, error))
        })
        .await
    }

    async fn get_tail(&self, key: &Key, max: u64) -> Result<Tail> {
        let path = self.root.path(key)?;
        self.blocking(move |root| read_tail(root, &path, max)).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        let path = self.root.path(key)?;
        self.blocking(move |root| read_range(root, &path, &range))
            .await
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
            .map(|key| self.root.path(key))
            .collect::<Result<Vec<_>, _>>()?;
        self.blocking(move |root| root.delete(&paths)).await
    }

    async fn delete_if(&self, key: &Key, version: Option<&str>) -> Result<DeleteOutcome> {
        let (path, version) = (self.root.path(key)?, version.map(str::to_owned));
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
