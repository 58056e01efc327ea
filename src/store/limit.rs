//! Bounded concurrency of one store.
//!
//! Does: let a fixed number of operations run at a time, and fewer large puts while they time out
//! (`upload_window`); the others wait in a queue that is fair between queries, so that one with
//! thousands of reads does not delay another's single one. Does not: fail anything, or end what
//! hangs (`deadline`, which this wraps). Invariant: a permit is released when the work has ended or
//! its deadline has passed, not when its caller stopped waiting: work that cannot be cancelled runs
//! in a task that owns the permit.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::keys::{self, Folder, Key};
use super::upload_window::{Started, UploadWindow};
use super::{
    DeleteOutcome, ObjectMeta, Observed, Precondition, Result, Store, StoreError, StoreLimits,
    Tail, Versioned,
};
use crate::fair::{FairPermit, FairSemaphore};
use crate::runtime::TaskGroup;
use crate::telemetry::traces::{SpanRef, waiting};

/// Size in bytes from which a put counts as large: one that shares the bandwidth of the store with
/// others for seconds.
const LARGE: usize = 1 << 20;

/// Permits of the semaphore for large puts; each put holds its share, so that the window limits
/// their number.
const UPLOAD_SHARES: u64 = 1 << 16;

/// Wraps a store with a bound on concurrent operations.
#[derive(Debug)]
pub struct Limit {
    inner: Arc<dyn Store>,
    permits: FairSemaphore,
    uploads: Arc<Uploads>,
    cancellable: bool,
    tasks: TaskGroup,
}

/// The span of an operation that waits for a slot.
const WAIT: &str = "wait for base directory";

impl Limit {
    /// Wraps a store with `limits.concurrency`, at least one; `tasks` runs what cannot be
    /// cancelled.
    pub fn new(inner: Arc<dyn Store>, limits: StoreLimits, tasks: TaskGroup) -> Self {
        Self {
            inner,
            permits: FairSemaphore::new(limits.concurrency as u64, None),
            uploads: Arc::new(Uploads::new(limits.concurrency)),
            cancellable: limits.cancellable,
            tasks,
        }
    }

    /// Runs an operation on `path` under a permit.
    async fn run<T, F>(&self, path: &str, operation: impl FnOnce(Arc<dyn Store>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let permit = self.permits.acquire(keys::query(path), 1);
        let permit = waiting(WAIT, permit).await;
        let work = operation(Arc::clone(&self.inner));
        if self.cancellable {
            let _permit = permit;
            return work.await;
        }
        let (sender, result) = oneshot::channel();
        let span = SpanRef::current();
        self.tasks.spawn(async move {
            let result = span.run(work).await;
            drop(permit);
            let _ = sender.send(result);
        });
        result
            .await
            .unwrap_or_else(|error| Err(StoreError::interrupted(error)))
    }
}

/// The large puts of one store.
#[derive(Debug)]
struct Uploads {
    shares: FairSemaphore,
    window: Mutex<UploadWindow>,
    in_flight: AtomicU32,
}

impl Uploads {
    fn new(most: usize) -> Self {
        Self {
            shares: FairSemaphore::new(UPLOAD_SHARES, None),
            window: Mutex::new(UploadWindow::new(u32::try_from(most).unwrap_or(u32::MAX))),
            in_flight: AtomicU32::new(0),
        }
    }

    /// Waits for a slot in the window.
    async fn start(self: &Arc<Self>, path: &str) -> Upload {
        loop {
            let size = self.window.lock().size();
            let share = UPLOAD_SHARES / u64::from(size);
            let permit = self.shares.acquire(keys::query(path), share).await;
            let window = self.window.lock();
            // After a reduction meanwhile the share is too small.
            if window.size() >= size {
                self.in_flight.fetch_add(1, Ordering::Relaxed);
                return Upload {
                    started: window.start(),
                    uploads: Arc::clone(self),
                    _permit: permit,
                };
            }
        }
    }
}

/// A large put in flight.
#[derive(Debug)]
struct Upload {
    started: Started,
    uploads: Arc<Uploads>,
    _permit: FairPermit,
}

impl Upload {
    fn end(self, result: &Result<()>) {
        let mut window = self.uploads.window.lock();
        match result {
            Ok(()) => window.succeed(),
            Err(error) if error.timed_out => {
                let in_flight = self.uploads.in_flight.load(Ordering::Relaxed);
                window.time_out(self.started, in_flight);
                tracing::info!(
                    uploads = window.size(),
                    "an upload timed out; fewer uploads are sent to this store at a time"
                );
            }
            Err(_) => {}
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.uploads.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[warn(clippy::missing_trait_methods)] // a default would hide what the inner store says
#[async_trait]
impl Store for Limit {
    async fn put(&self, key: &Key, content: Vec<Bytes>) -> Result<()> {
        let at = key.clone();
        let large = content.iter().map(Bytes::len).sum::<usize>() >= LARGE;
        let upload = match large {
            true => Some(waiting(WAIT, self.uploads.start(key.as_str())).await),
            false => None,
        };
        let put = |store: Arc<dyn Store>| async move {
            let result = store.put(&at, content).await;
            if let Some(upload) = upload {
                upload.end(&result);
            }
            result
        };
        self.run(key.as_str(), put).await
    }

    async fn put_if(&self, key: &Key, content: Bytes, expected: &Precondition) -> Result<bool> {
        let (at, expected) = (key.clone(), expected.clone());
        let put =
            |store: Arc<dyn Store>| async move { store.put_if(&at, content, &expected).await };
        self.run(key.as_str(), put).await
    }

    async fn get_versioned(&self, key: &Key) -> Result<Versioned> {
        let at = key.clone();
        let get = |store: Arc<dyn Store>| async move { store.get_versioned(&at).await };
        self.run(key.as_str(), get).await
    }

    async fn get_tail(&self, key: &Key, max: u64) -> Result<Tail> {
        let at = key.clone();
        let get = |store: Arc<dyn Store>| async move { store.get_tail(&at, max).await };
        self.run(key.as_str(), get).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        let at = key.clone();
        let get = |store: Arc<dyn Store>| async move { store.get_range(&at, range).await };
        self.run(key.as_str(), get).await
    }

    async fn list(&self, folder: &Folder) -> Result<Vec<ObjectMeta>> {
        let below = folder.clone();
        let list = |store: Arc<dyn Store>| async move { store.list(&below).await };
        self.run(folder.as_str(), list).await
    }

    async fn list_after(
        &self,
        folder: &Folder,
        after: Option<&Key>,
        max: usize,
    ) -> Result<Vec<ObjectMeta>> {
        let (below, after) = (folder.clone(), after.cloned());
        let list = |store: Arc<dyn Store>| async move {
            store.list_after(&below, after.as_ref(), max).await
        };
        self.run(folder.as_str(), list).await
    }

    async fn first_keys(&self, max: usize) -> Result<Vec<Key>> {
        let list = |store: Arc<dyn Store>| async move { store.first_keys(max).await };
        self.run("", list).await
    }

    async fn list_folders(&self, folder: &Folder) -> Result<Vec<String>> {
        let within = folder.clone();
        let list = |store: Arc<dyn Store>| async move { store.list_folders(&within).await };
        self.run(folder.as_str(), list).await
    }

    async fn delete(&self, keys: Vec<Key>) -> Result<u64> {
        let first = keys.first().cloned();
        let path = first.as_ref().map_or("", Key::as_str);
        let delete = |store: Arc<dyn Store>| async move { store.delete(keys).await };
        self.run(path, delete).await
    }

    async fn delete_if(&self, key: &Key, version: Option<&str>) -> Result<DeleteOutcome> {
        let (at, version) = (key.clone(), version.map(str::to_owned));
        let delete =
            |store: Arc<dyn Store>| async move { store.delete_if(&at, version.as_deref()).await };
        self.run(key.as_str(), delete).await
    }

    async fn remove_stale_temporaries(&self, folder: &Folder) -> Result<u64> {
        let below = folder.clone();
        let remove =
            |store: Arc<dyn Store>| async move { store.remove_stale_temporaries(&below).await };
        self.run(folder.as_str(), remove).await
    }

    async fn can_write_when_full(&self) -> bool {
        let write = |store: Arc<dyn Store>| async move { Ok(store.can_write_when_full().await) };
        self.run("", write).await.unwrap_or(false)
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
