//! Base directories: the only shared state. Object keys and `object_store` types stop here.
//!
//! Does: put, get, list and delete segments and exchange markers in one or many base directories;
//! place new segments round-robin over the healthy ones. Does not: know what is inside a segment.
//! Invariant: a method that answered `Ok` has done durably what its name says.

mod error;
mod exchanges;
mod health;
mod markers;
pub mod placement;
mod probe;
mod segments;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use bytes::Bytes;

use crate::config::BaseDirectoryConfig;
use crate::id::{BaseName, SegmentAddress};
use crate::runtime::Runtime;

pub use crate::store::limit::StoreLimits;
pub use crate::store::meter::StorageMetrics;
pub use crate::store::retry::RetryPolicy;
pub use crate::store::{Remedy, StoreError, StoreErrorKind, Tail};
pub use error::{StorageError, StorageFailure};
pub use markers::{ObservedMarkers, WrittenMarker};
pub use probe::ProbeObject;

use crate::store::Store;
use crate::store::open::open_all;
use health::Base;

/// The announcement of an exchange, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// Its content.
    pub bytes: Bytes,
    /// Changes whenever the marker is written again (lease renewal), by the store's own reckoning.
    pub version: String,
}

/// One segment found by a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedSegment {
    /// Where it lies.
    pub address: SegmentAddress,
    /// Bytes of the object.
    pub size: u64,
}

/// What something left in the base directories.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Health of one base directory, for `readyz` and the dashboard.
#[derive(Debug, Clone)]
pub struct BaseStatus {
    /// Its name.
    pub name: BaseName,
    /// Its URI, without credentials.
    pub uri: String,
    /// Whether new segments go there.
    pub healthy: bool,
    /// Why not.
    pub error: Option<String>,
}

/// All base directories of a daemon. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Storage {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    bases: Vec<Arc<Base>>,
    /// How long a put that failed everywhere is begun again.
    put_patience: RetryPolicy,
    /// Whose turn it is to take the next segment.
    turn: AtomicUsize,
    metrics: StorageMetrics,
    runtime: Runtime,
}

impl Storage {
    /// Opens every configured base directory; does not touch them yet. Storage counts into metrics
    /// of its own ([`Storage::metrics`]).
    pub fn open(configs: &[BaseDirectoryConfig], runtime: &Runtime) -> Result<Self, StorageError> {
        let metrics = StorageMetrics::default();
        let opened = open_all(configs, runtime)?;
        let bases = opened.into_iter().map(|o| {
            let base = Base::new(o.name, o.uri, o.store, o.limits, &metrics, runtime);
            (base, o.limits)
        });
        let (bases, limits): (Vec<_>, Vec<_>) = bases.unzip();
        Ok(Self::over(bases, &limits, metrics, runtime))
    }

    /// Storage over given stores (name, URI for people, store), for tests and simulation: all else
    /// is as in a daemon.
    pub fn from_stores(
        stores: Vec<(BaseName, String, Arc<dyn Store>)>,
        limits: StoreLimits,
        runtime: &Runtime,
    ) -> Self {
        let metrics = StorageMetrics::default();
        let bases = stores
            .into_iter()
            .map(|(name, uri, store)| Base::new(name, uri, store, limits, &metrics, runtime));
        Self::over(bases.collect(), &[limits], metrics.clone(), runtime)
    }

    fn over(
        bases: Vec<Arc<Base>>,
        limits: &[StoreLimits],
        metrics: StorageMetrics,
        runtime: &Runtime,
    ) -> Self {
        let max_elapsed = limits
            .iter()
            .map(|limits| limits.retry)
            .max_by_key(|r| r.max_elapsed);
        // Daemons that start together should not all begin with the same base directory.
        let turn = AtomicUsize::new(runtime.random.next_u64() as usize);
        Self {
            inner: Arc::new(Inner {
                bases,
                put_patience: max_elapsed.unwrap_or(RetryPolicy::LOCAL),
                turn,
                metrics,
                runtime: runtime.clone(),
            }),
        }
    }

    /// Metrics of the base directories, to be registered once.
    pub fn metrics(&self) -> &StorageMetrics {
        &self.inner.metrics
    }

    /// Writes, reads, reads a range of, lists and deletes a probe object in each base directory, at
    /// once, and remembers who is healthy.
    pub async fn probe(&self) -> Vec<BaseStatus> {
        futures::future::join_all(self.inner.bases.iter().map(Base::probe)).await;
        self.status()
    }

    /// Names of the base directories that overwrite what a conditional write should have spared:
    /// there a lease that is renewed in the instant of its collection may be lost. Those that do
    /// not work now are not among them.
    pub async fn bases_ignoring_preconditions(&self) -> Vec<BaseName> {
        let runtime = &self.inner.runtime;
        let asked = self.inner.bases.iter().map(async |base| {
            let honoured = probe::honours_conditions(&*base.direct, runtime).await;
            matches!(honoured, Ok(false)).then(|| base.name.clone())
        });
        let asked = futures::future::join_all(asked).await;
        asked.into_iter().flatten().collect()
    }

    /// Health as last seen, without touching the stores.
    pub fn status(&self) -> Vec<BaseStatus> {
        self.inner.bases.iter().map(|base| base.status()).collect()
    }
}
