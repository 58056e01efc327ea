//! A store that kills its daemon at the n-th call, or holds that call.
//!
//! Does: count the calls of the first run of the first daemon to all its base directories, and kill
//! the run at one of them: before the call, during it, or after it took effect and before its
//! answer. Or hold that one call there, while the daemon continues, until the test releases it.
//! Wraps simulated stores, or `LocalStore` in real folders. Invariant: it kills or holds once.

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
use tokio::sync::watch;

use crate::process::Process;
use crate::store::Site;

/// The run that is killed: the first of the first daemon.
const CRASHING_RUN: u64 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Before,
    /// The call was sent: an object store completes it; a file system leaves a partial file.
    During,
    After,
}

#[derive(Debug)]
pub struct CrashPoint {
    at: usize,
    when: When,
    armed: AtomicBool,
    calls: AtomicUsize,
    /// The folder of the base directories, if they are real ones of `LocalStore`.
    folder: Option<PathBuf>,
    /// Holds the call instead of killing the run.
    hold: Option<watch::Sender<Hold>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    NotReached,
    Held,
    Released,
}

impl CrashPoint {
    /// Holds the call, before it or after it took effect, instead of killing the run.
    pub fn holding(at: usize, when: When) -> Arc<Self> {
        let mut held = Self::at(at, when, None);
        held.hold = Some(watch::Sender::new(Hold::NotReached));
        Arc::new(held)
    }

    fn at(at: usize, when: When, folder: Option<&Path>) -> Self {
        Self {
            at,
            when,
            armed: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
            folder: folder.map(Path::to_path_buf),
            hold: None,
        }
    }

    /// Waits until the call is held.
    pub async fn wait_until_held(&self) {
        let hold = self.hold.as_ref().expect("a point that holds");
        let _ = hold.subscribe().wait_for(|hold| *hold == Hold::Held).await;
    }

    /// Lets the call that is held continue.
    pub fn release(&self) {
        let hold = self.hold.as_ref().expect("a point that holds");
        hold.send_replace(Hold::Released);
    }

    async fn wait_until_released(&self, hold: &watch::Sender<Hold>) {
        self.arm(false);
        hold.send_replace(Hold::Held);
        let released = |hold: &Hold| *hold == Hold::Released;
        let _ = hold.subscribe().wait_for(released).await;
    }
    pub fn new(at: usize, when: When, folder: Option<&Path>) -> Arc<Self> {
        Arc::new(Self::at(at, when, folder))
    }

    pub fn arm(&self, armed: bool) {
        self.armed.store(armed, Ordering::Relaxed);
    }

    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    pub fn wrap(
        self: &Arc<Self>,
        simulated: Arc<dyn Store>,
        site: &Site,
        process: &Arc<Process>,
    ) -> Arc<dyn Store> {
        let root = self
            .folder
            .as_ref()
            .map(|folder| folder.join(site.name.as_str()));
        let inner: Arc<dyn Store> = match &root {
            Some(root) => Arc::new(LocalStore::new(
                root.clone(),
                WriteMode::Unsynced,
                process.incarnation,
            )),
            None => simulated,
        };
        Arc::new(CrashingStore {
            crash_point: Arc::clone(self),
            inner,
            process: Arc::clone(process),
            root,
        })
    }

    /// All files below the folder, except those of the base directory itself.
    pub fn leftovers(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders: Vec<PathBuf> = self.folder.iter().cloned().collect();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.path() {
                    path if path.is_dir() => folders.push(path),
                    path if is_permanent(&path) => {}
                    path => found.push(path.display().to_string()),
                }
            }
        }
        found
    }
}

fn is_permanent(path: &std::path::Path) -> bool {
    let permanent = [".keep", "identity", "members", "sweeper"];
    permanent.iter().any(|name| path.ends_with(name))
}

#[derive(Debug)]
struct CrashingStore {
    crash_point: Arc<CrashPoint>,
    inner: Arc<dyn Store>,
    process: Arc<Process>,
    root: Option<PathBuf>,
}

impl CrashingStore {
    async fn intercept<T>(&self, put_key: Option<&Key>, call: impl Future<Output = T>) -> T {
        let counts = self.crash_point.armed.load(Ordering::Relaxed)
            && self.process.incarnation == CRASHING_RUN;
        if !counts || self.crash_point.calls.fetch_add(1, Ordering::Relaxed) != self.crash_point.at
        {
            return call.await;
        }
        if let Some(hold) = &self.crash_point.hold {
            if self.crash_point.when == When::Before {
                self.crash_point.wait_until_released(hold).await;
                return call.await;
            }
            let result = call.await;
            self.crash_point.wait_until_released(hold).await;
            return result;
        }
        match (self.crash_point.when, &self.root, put_key) {
            (When::Before, ..) => {}
            (When::During, Some(root), Some(key)) => leave_partial_file(root, key),
            (When::During, ..) => {
                let mut call = pin!(call);
                let _ = futures::poll!(call.as_mut());
            }
            (When::After, ..) => drop(call.await),
        }
        self.crash_point.arm(false);
        self.process.kill("at a storage call");
        std::future::pending().await
    }
}

/// Leaves what `LocalStore` does when its process dies during a put.
fn leave_partial_file(root: &Path, key: &Key) {
    let path = root.join(format!("{key}.00000000000000ff-0.tmp"));
    std::fs::create_dir_all(path.parent().expect("the file is below the root")).unwrap();
    std::fs::write(path, b"half").unwrap();
}

#[async_trait]
impl Store for CrashingStore {
    async fn put(&self, key: &Key, content: Vec<Bytes>) -> Result<(), StoreError> {
        self.intercept(Some(key), self.inner.put(key, content))
            .await
    }

    async fn put_if(
        &self,
        key: &Key,
        content: Bytes,
        expected: &Precondition,
    ) -> Result<bool, StoreError> {
        self.intercept(Some(key), self.inner.put_if(key, content, expected))
            .await
    }

    async fn get_versioned(&self, key: &Key) -> Result<Versioned, StoreError> {
        self.intercept(None, self.inner.get_versioned(key)).await
    }

    async fn get_tail(&self, key: &Key, max: u64) -> Result<Tail, StoreError> {
        self.intercept(None, self.inner.get_tail(key, max)).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.intercept(None, self.inner.get_range(key, range)).await
    }

    async fn list(&self, folder: &Folder) -> Result<Vec<ObjectMeta>, StoreError> {
        self.intercept(None, self.inner.list(folder)).await
    }

    async fn list_folders(&self, folder: &Folder) -> Result<Vec<String>, StoreError> {
        self.intercept(None, self.inner.list_folders(folder)).await
    }

    async fn delete(&self, keys: Vec<Key>) -> Result<u64, StoreError> {
        self.intercept(None, self.inner.delete(keys)).await
    }

    async fn delete_if(
        &self,
        key: &Key,
        version: Option<&str>,
    ) -> Result<DeleteOutcome, StoreError> {
        self.intercept(None, self.inner.delete_if(key, version))
            .await
    }

    async fn remove_stale_temporaries(&self, folder: &Folder) -> Result<u64, StoreError> {
        self.intercept(None, self.inner.remove_stale_temporaries(folder))
            .await
    }

    fn needs_keep_object(&self) -> bool {
        self.inner.needs_keep_object()
    }
}
