//! Whether a base directory takes new segments, and the work of finding out again.
//!
//! Does: remember the last failure of each base directory, log each change once, probe an unhealthy
//! one in the background until it works; have a store that works asked for checksums. Does not:
//! decide where anything is put (`placement`). Invariant: an unhealthy base directory has exactly
//! one background probe, which ends with the daemon.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::probe;
use super::{BaseStatus, StorageError};
use crate::id::BaseName;
use crate::runtime::Runtime;
use crate::store::limit::{Limit, StoreLimits};
use crate::store::meter::{Meter, StorageMetrics};
use crate::store::object::checksums::Checksums;
use crate::store::retry::{Retry, RetryPolicy};
use crate::store::{Store, StoreError};

/// Waits between background probes: from the first to the longest, doubling.
const PROBES: RetryPolicy = RetryPolicy {
    max_elapsed: Duration::MAX,
    first_wait: Duration::from_secs(1),
    longest_wait: Duration::from_secs(30),
};

/// One base directory: its store in all wrappers, and its health.
#[derive(Debug)]
pub(super) struct Base {
    pub name: BaseName,
    pub uri: String,
    /// Patient with reads, lists and deletes.
    pub store: Arc<dyn Store>,
    /// The same without max_elapsed, for those who have somewhere else to turn to.
    pub direct: Arc<dyn Store>,
    checksums: Option<Arc<Checksums>>,
    health: Mutex<Health>,
    metrics: StorageMetrics,
    runtime: Runtime,
}

#[derive(Debug, Default)]
struct Health {
    failure: Option<String>,
    probing: bool,
}

impl Base {
    pub fn new(
        name: BaseName,
        uri: String,
        store: Arc<dyn Store>,
        limits: StoreLimits,
        metrics: &StorageMetrics,
        runtime: &Runtime,
    ) -> Arc<Self> {
        let checksums = store.checksums();
        let meter = Meter::new(store, &name, metrics.clone(), runtime.clock.clone());
        let direct: Arc<dyn Store> = Arc::new(Limit::new(Arc::new(meter), limits.concurrency));
        let retry = Retry::new(Arc::clone(&direct), limits.retry, runtime.clone());
        metrics.set_healthy(&name, true);
        Arc::new(Self {
            name,
            uri,
            store: Arc::new(retry),
            direct,
            checksums,
            health: Mutex::default(),
            metrics: metrics.clone(),
            runtime: runtime.clone(),
        })
    }

    pub fn is_healthy(&self) -> bool {
        self.health.lock().failure.is_none()
    }

    /// The store to ask: with retries, unless it is known not to work, which is not worth a
    /// minute's max_elapsed.
    pub fn patient_if_healthy(&self) -> &Arc<dyn Store> {
        if self.is_healthy() {
            &self.store
        } else {
            &self.direct
        }
    }

    pub fn status(&self) -> BaseStatus {
        let error = self.health.lock().failure.clone();
        let (name, uri) = (self.name.clone(), self.uri.clone());
        BaseStatus {
            name,
            uri,
            healthy: error.is_none(),
            error,
        }
    }

    /// The error of an operation here, as callers see it.
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

    /// It worked just now.
    pub fn recovered(&self) {
        if self.health.lock().failure.take().is_some() {
            self.metrics.set_healthy(&self.name, true);
            tracing::info!(base = %self.name, "base directory works again");
        }
    }

    /// A put or a probe failed: it is left out until a probe succeeds.
    pub fn failed(self: &Arc<Self>, error: &StoreError) {
        let mut health = self.health.lock();
        let first = health.failure.replace(error.to_string()).is_none();
        let start_probing = !std::mem::replace(&mut health.probing, true);
        drop(health);
        if first {
            self.metrics.set_healthy(&self.name, false);
            tracing::warn!(base = %self.name, uri = %self.uri, %error, "left out for new segments");
        }
        if start_probing {
            let base = Arc::downgrade(self);
            self.runtime
                .tasks
                .spawn_until_stopped(probe_until_healthy(base, self.runtime.clone()));
        }
    }

    /// Probes once and remembers the outcome.
    pub async fn probe(self: &Arc<Self>) {
        match probe::run(&*self.direct, &self.runtime).await {
            Ok(()) => {
                self.settle_checksums().await;
                self.recovered();
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Finds out how to upload once the store works; if it does not answer, the next probe that
    /// succeeds asks again.
    async fn settle_checksums(&self) {
        let unknown = |checksums: &&Arc<Checksums>| checksums.verified().is_none();
        let Some(checksums) = self.checksums.as_ref().filter(unknown) else {
            return;
        };
        match probe::verifies_checksums(&*self.direct, checksums, &self.runtime).await {
            Ok(verified) => {
                checksums.settle(verified);
                let hash = if verified { "CRC-64/NVME" } else { "SHA-256" };
                tracing::info!(base = %self.name, verifies_crc64nvme = verified,
                    "uploads are protected by {hash}");
            }
            Err(error) => tracing::info!(base = %self.name, %error,
                "uploads are protected by SHA-256: whether the store verifies a CRC is not known"),
        }
    }

    /// Ends the background probe if the base directory is healthy; under the lock, so that a
    /// failure at the same moment starts another.
    fn stop_probing_if_healthy(&self) -> bool {
        let mut health = self.health.lock();
        health.probing = health.failure.is_some();
        !health.probing
    }
}

async fn probe_until_healthy(base: Weak<Base>, runtime: Runtime) {
    let mut number = 0;
    loop {
        number += 1;
        runtime
            .clock
            .sleep(PROBES.wait(number, runtime.random.next_u64()))
            .await;
        let Some(base) = base.upgrade() else { return };
        if base.stop_probing_if_healthy() {
            return;
        }
        base.probe().await;
        if base.stop_probing_if_healthy() {
            return;
        }
    }
}
