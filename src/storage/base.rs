//! One base directory: its store with all wrappers, and its health.
//!
//! Does: wrap the store, record failures and recoveries, log each change once, probe an unhealthy
//! base directory in the background until it works. Does not: decide where anything is put
//! (`placement`). Invariant: the background probe ends with the daemon.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::error::{Result, StorageError};
use super::health::Health;
use super::probe;
use crate::id::BaseName;
use crate::runtime::Runtime;
use crate::store::deadline::Deadline;
use crate::store::keys::Folder;
use crate::store::limit::Limit;
use crate::store::meter::Meter;
use crate::store::metrics::StorageMetrics;
use crate::store::retry::{Retry, RetryPolicy};
use crate::store::{ObjectMeta, Store, StoreError, StoreLimits};

/// Waits between background probes.
const PROBES: RetryPolicy = RetryPolicy {
    max_elapsed: Duration::MAX,
    first_wait: Duration::from_secs(1),
    longest_wait: Duration::from_secs(30),
};

/// One base directory.
#[derive(Debug)]
pub struct BaseDirectory {
    pub name: BaseName,
    pub uri: String,
    /// Retries reads, lists, deletes and contended puts.
    pub store: Arc<dyn Store>,
    /// The same without retries, for callers that have an alternative.
    pub no_retry: Arc<dyn Store>,
    /// The same with contended puts repeated only: a probe is to notice everything else.
    probed: Arc<dyn Store>,
    ignores_preconditions: AtomicBool,
    health: Health,
    metrics: StorageMetrics,
    runtime: Runtime,
}

/// Health of one base directory, for `readyz` and the dashboard.
#[derive(Debug, Clone)]
pub struct BaseStatus {
    /// Its name.
    pub name: BaseName,
    /// Its URI, without credentials.
    pub uri: String,
    /// Whether it is preferred for new segments.
    pub healthy: bool,
    /// The last failure, if it is unhealthy.
    pub error: Option<String>,
    /// The last probe found that it applies writes whose condition does not hold.
    pub ignores_preconditions: bool,
}

impl BaseDirectory {
    pub fn new(
        name: BaseName,
        uri: String,
        store: Arc<dyn Store>,
        limits: StoreLimits,
        metrics: &StorageMetrics,
        runtime: &Runtime,
    ) -> Arc<Self> {
        let clock = &runtime.clock;
        let deadline = Deadline::new(store, limits.deadline, clock.clone());
        let deadline = Arc::new(deadline);
        let meter = Meter::new(deadline, name.clone(), metrics.clone(), clock.clone());
        let limit = Limit::new(Arc::new(meter), limits, runtime.tasks.clone());
        let no_retry: Arc<dyn Store> = Arc::new(limit);
        let contended = RetryPolicy {
            max_elapsed: Duration::ZERO,
            ..limits.retry
        };
        let probed = Retry::new(Arc::clone(&no_retry), contended, runtime.clone());
        let retry = Retry::new(Arc::clone(&no_retry), limits.retry, runtime.clone());
        metrics.set_healthy(&name, true);
        Arc::new(Self {
            name,
            uri,
            store: Arc::new(retry),
            no_retry,
            probed: Arc::new(probed),
            ignores_preconditions: AtomicBool::new(false),
            health: Health::default(),
            metrics: metrics.clone(),
            runtime: runtime.clone(),
        })
    }

    pub fn is_healthy(&self) -> bool {
        self.health.is_healthy()
    }

    /// The store with retries if the base directory is healthy; a minute of retries is wasted on
    /// one that is known to fail.
    pub fn retrying_if_healthy(&self) -> &Arc<dyn Store> {
        match self.is_healthy() {
            true => &self.store,
            false => &self.no_retry,
        }
    }

    pub fn status(&self) -> BaseStatus {
        let error = self.health.failure();
        BaseStatus {
            name: self.name.clone(),
            uri: self.uri.clone(),
            healthy: error.is_none(),
            error,
            ignores_preconditions: self.ignores_preconditions.load(Ordering::Relaxed),
        }
    }

    /// The error of an operation on this base directory.
    pub fn error(
        &self,
        operation: &'static str,
        object: impl Into<String>,
        error: StoreError,
    ) -> StorageError {
        StorageError {
            base: self.name.to_string(),
            operation,
            object: object.into(),
            source: error.into(),
        }
    }

    /// All objects below a folder.
    ///
    /// # Errors
    /// If it cannot be listed.
    pub async fn list(&self, folder: &Folder) -> Result<Vec<ObjectMeta>> {
        let listed = self.store.list(folder).await;
        listed.map_err(|error| self.error("list", folder.as_str(), error))
    }

    /// Records a successful put or probe.
    pub fn recovered(&self) {
        if self.health.succeed() {
            self.metrics.set_healthy(&self.name, true);
            tracing::info!(base = %self.name, "base directory is healthy again");
        }
    }

    /// Records a failed put or probe: new segments avoid the base directory until a probe succeeds.
    pub fn failed(self: &Arc<Self>, error: &StoreError) {
        let failed = self.health.fail(error.to_string());
        if failed.was_healthy {
            self.metrics.set_healthy(&self.name, false);
            tracing::warn!(base = %self.name, uri = %self.uri, %error,
                "base directory unhealthy; tried last for new segments");
        }
        if failed.start_probing {
            let base = Arc::downgrade(self);
            let probing = probe_until_healthy(base, self.runtime.clone());
            self.runtime.tasks.spawn_until_stopped(probing);
        }
    }

    /// Probes once and updates the health.
    pub async fn probe(self: &Arc<Self>) {
        match probe::run(&*self.probed, &self.runtime).await {
            Ok(findings) => {
                let ignores = findings.ignores_preconditions;
                if !self.ignores_preconditions.swap(ignores, Ordering::Relaxed) && ignores {
                    tracing::warn!(base = %self.name, "store does not implement conditional \
                        writes: an exchange whose lease is renewed during its collection may be \
                        lost");
                }
                self.recovered();
            }
            Err(error) => self.failed(&error),
        }
    }
}

async fn probe_until_healthy(base: Weak<BaseDirectory>, runtime: Runtime) {
    let mut number = 0;
    loop {
        number += 1;
        let wait = PROBES.wait(number, runtime.random.next_u64());
        runtime.clock.sleep(wait).await;
        let Some(base) = base.upgrade() else { return };
        if base.health.stop_probing_if_healthy() {
            return;
        }
        base.probe().await;
        if base.health.stop_probing_if_healthy() {
            return;
        }
    }
}
