//! A store that ends its daemon at the n-th call.
//!
//! Does: count the calls of the first run of the first daemon, to all its base directories, and
//! kill it at one of them: before the call, with the call under way, or after it took place and
//! before its answer. Lies over simulated stores, or over `LocalStore` in real folders. Invariant:
//! it acts once.

use std::future::Future;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use stopover::storage::Tail;
use stopover::store::keys::{Folder, Key};
use stopover::store::local::{LocalStore, WriteMode};
use stopover::store::{DeleteOutcome, ObjectMeta, Precondition, Store, StoreError, Versioned};

use crate::nest::Nest;
use crate::store::Site;

/// The run that is ended: the first of the first daemon.
const VICTIM: u64 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Before,
    /// Sent: an object store goes on; a file system leaves a file that is not whole.
    UnderWay,
    After,
}

#[derive(Debug)]
pub struct Tap {
    at: usize,
    when: When,
    armed: AtomicBool,
    calls: AtomicUsize,
    /// Where `LocalStore` keeps the base directories.
    folder: Option<PathBuf>,
}

impl Tap {
    pub fn new(at: usize, when: When, folder: Option<&Path>) -> Arc<Self> {
        Arc::new(Self {
            at,
            when,
            armed: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
            folder: folder.map(Path::to_path_buf),
        })
    }

    pub fn arm(&self, armed: bool) {
        self.armed.store(armed, Ordering::Relaxed);
    }

    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    pub fn over(
        self: &Arc<Self>,
        simulated: Arc<dyn Store>,
        site: &Site,
        nest: &Arc<Nest>,
    ) -> Arc<dyn Store> {
        let root = self
            .folder
            .as_ref()
            .map(|folder| folder.join(site.name.as_str()));
        let inner: Arc<dyn Store> = match &root {
            Some(root) => Arc::new(LocalStore::new(
                root.clone(),
                WriteMode::Unsynced,
                nest.incarnation,
            )),
            None => simulated,
        };
        Arc::new(TappedStore {
            tap: Arc::clone(self),
            inner,
            nest: Arc::clone(nest),
            root,
        })
    }

    /// Files below the folder, but for those that keep folders.
    pub fn leftovers(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders: Vec<PathBuf> = self.folder.iter().cloned().collect();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.path() {
                    path if path.is_dir() => folders.push(path),
                    path if path.ends_with(".keep") => {}
                    path => found.push(path.display().to_string()),
                }
            }
        }
        found
    }
}

#[derive(Debug)]
struct TappedStore {
    tap: Arc<Tap>,
    inner: Arc<dyn Store>,
    nest: Arc<Nest>,
    root: Option<PathBuf>,
}

impl TappedStore {
    async fn pass<T>(&self, torn: Option<&Key>, call: impl Future<Output = T>) -> T {
        let counts = self.tap.armed.load(Ordering::Relaxed) && self.nest.incarnation == VICTIM;
        if !counts || self.tap.calls.fetch_add(1, Ordering::Relaxed) != self.tap.at {
            return call.await;
        }
        match (self.tap.when, &self.root, torn) {
            (When::Before, ..) => {}
            (When::UnderWay, Some(root), Some(key)) => leave_half_a_file(root, key),
            (When::UnderWay, ..) => {
                let mut call = pin!(call);
                let _ = futures::poll!(call.as_mut());
            }
            (When::After, ..) => drop(call.await),
        }
        self.tap.arm(false);
        self.nest.kill("at a storage call");
        std::future::pending().await
    }
}

/// What `LocalStore` leaves when its process dies in the midst of a put.
fn leave_half_a_file(root: &Path, key: &Key) {
    let path = root.join(format!("{key}.00000000000000ff-0.tmp"));
    std::fs::create_dir_all(path.parent().expect("it lies below the root")).unwrap();
    std::fs::write(path, b"half").unwrap();
}

#[async_trait]
impl Store for TappedStore {
    async fn put(&self, key: &Key, content: Vec<Bytes>) -> Result<(), StoreError> {
        self.pass(Some(key), self.inner.put(key, content)).await
    }

    async fn put_if(
        &self,
        key: &Key,
        content: Bytes,
        expected: &Precondition,
    ) -> Result<bool, StoreError> {
        self.pass(Some(key), self.inner.put_if(key, content, expected))
            .await
    }

    async fn get_versioned(&self, key: &Key) -> Result<Versioned, StoreError> {
        self.pass(None, self.inner.get_versioned(key)).await
    }

    async fn get_tail(&self, key: &Key, max: u64) -> Result<Tail, StoreError> {
        self.pass(None, self.inner.get_tail(key, max)).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.pass(None, self.inner.get_range(key, range)).await
    }

    async fn list(&self, folder: &Folder) -> Result<Vec<ObjectMeta>, StoreError> {
        self.pass(None, self.inner.list(folder)).await
    }

    async fn list_folders(&self, folder: &Folder) -> Result<Vec<String>, StoreError> {
        self.pass(None, self.inner.list_folders(folder)).await
    }

    async fn delete(&self, keys: Vec<Key>) -> Result<u64, StoreError> {
        self.pass(None, self.inner.delete(keys)).await
    }

    async fn delete_if(
        &self,
        key: &Key,
        version: Option<&str>,
    ) -> Result<DeleteOutcome, StoreError> {
        self.pass(None, self.inner.delete_if(key, version)).await
    }

    async fn remove_stale_temporaries(&self, folder: &Folder) -> Result<u64, StoreError> {
        self.pass(None, self.inner.remove_stale_temporaries(folder))
            .await
    }

    fn needs_keep_object(&self) -> bool {
        self.inner.needs_keep_object()
    }
}
