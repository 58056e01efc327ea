//! All base directories of a daemon together.
//!
//! Does: open them, bring them up, probe them, report their health. Does not: read or write objects
//! (`segments`, `markers`, `exchanges`).

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::Notify;

use super::base::{BaseDirectory, BaseStatus};
use super::error::Result;
use crate::config::BaseDirectoryConfig;
use crate::id::BaseName;
use crate::runtime::Runtime;
use crate::store::metrics::StorageMetrics;
use crate::store::open::open_all;
use crate::store::retry::RetryPolicy;
use crate::store::{Store, StoreLimits};

/// All base directories of a daemon. Cheap to clone.
///
/// # Examples
/// ```
/// use bytes::Bytes;
/// use stopover::config::BaseDirectoryConfig;
/// use stopover::id::{DaemonId, SegmentId};
/// use stopover::runtime::Runtime;
/// use stopover::storage::Storage;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config = BaseDirectoryConfig {
///     uri: "memory://example".into(),
///     ..BaseDirectoryConfig::default()
/// };
/// let storage = Storage::open(&[config], &Runtime::system())?;
/// let id = SegmentId { daemon: DaemonId(1), sequence: 0 };
/// let address = storage.put_segment(&"query-1".parse()?, id, vec![Bytes::from("bytes")]).await?;
/// assert_eq!(storage.get_range(&address, 1..3).await?, "yt".as_bytes());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Storage {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub bases: Vec<Arc<BaseDirectory>>,
    /// How a put that failed in every base directory is retried.
    pub put_retry: RetryPolicy,
    /// Position in the rotation for the next segment.
    pub turn: AtomicUsize,
    pub metrics: StorageMetrics,
    /// Notified when the health of a base directory changes.
    pub health_changed: Arc<Notify>,
    pub runtime: Runtime,
}

impl Storage {
    /// Opens all configured base directories without accessing them. Their metrics are
    /// [`Storage::metrics`].
    ///
    /// # Errors
    /// If one is misconfigured, two are the same, or there is none.
    pub fn open(configs: &[BaseDirectoryConfig], runtime: &Runtime) -> Result<Self> {
        let opened = open_all(configs, runtime)?.into_iter().map(|base| {
            let store = (base.name, base.uri.to_string(), base.opened.store);
            (store, base.opened.limits)
        });
        Ok(Self::with_limits(opened, runtime))
    }

    /// Storage over given stores (name, URI for people, store), for tests and simulation.
    pub fn from_stores(
        stores: Vec<(BaseName, String, Arc<dyn Store>)>,
        limits: StoreLimits,
        runtime: &Runtime,
    ) -> Self {
        let stores = stores.into_iter().map(|store| (store, limits));
        Self::with_limits(stores, runtime)
    }

    fn with_limits(
        stores: impl Iterator<Item = ((BaseName, String, Arc<dyn Store>), StoreLimits)>,
        runtime: &Runtime,
    ) -> Self {
        let metrics = StorageMetrics::default();
        let health_changed = Arc::default();
        // A put may end up anywhere, so all base directories share the longest policy: one remote
        // base directory makes puts to local ones retry for 60 s too.
        let mut put_retry = RetryPolicy::LOCAL;
        let mut bases = Vec::new();
        for ((name, uri, store), limits) in stores {
            if limits.retry.max_elapsed > put_retry.max_elapsed || bases.is_empty() {
                put_retry = limits.retry;
            }
            let (metrics, changed) = (&metrics, &health_changed);
            bases.push(BaseDirectory::new(
                name, uri, store, limits, metrics, changed, runtime,
            ));
        }
        Self {
            inner: Arc::new(Inner {
                bases,
                put_retry,
                // Daemons that start together should not all begin with the same base directory.
                turn: AtomicUsize::new(usize::try_from(runtime.random.next_u64()).unwrap_or(0)),
                metrics,
                health_changed,
                runtime: runtime.clone(),
            }),
        }
    }

    /// Metrics of the base directories, to be registered once.
    pub fn metrics(&self) -> &StorageMetrics {
        &self.inner.metrics
    }

    /// Brings up all base directories at once, for at most `within`. Those that have not answered
    /// by then are out of order until their background probes succeed.
    pub async fn start(&self, within: Duration) -> Vec<BaseStatus> {
        join_all(self.inner.bases.iter().map(|base| base.start(within))).await;
        self.status()
    }

    /// Probes all base directories concurrently and updates their health.
    pub async fn probe(&self) -> Vec<BaseStatus> {
        join_all(self.inner.bases.iter().map(BaseDirectory::probe)).await;
        self.status()
    }

    /// The last known health of all base directories, without accessing them.
    pub fn status(&self) -> Vec<BaseStatus> {
        self.inner.bases.iter().map(|base| base.status()).collect()
    }
}
