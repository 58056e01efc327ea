//! Sweeps: collects expired exchanges and removes what late writers and dead daemons left.
//!
//! Does: inspect every exchange at intervals and collect those that were not renewed for a whole
//! lease; release cached data of exchanges closed elsewhere; remove old probe objects. Does not:
//! use any wall clock, its own or the store's. Invariant: an exchange is collected only after this
//! daemon itself has observed it for the whole lease; any number of daemons may sweep at once.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::close::Closing;
use super::collect::{Collector, Inspection};
use super::lease_tracker::Verdict;
use crate::config::LeaseConfig;
use crate::runtime::Runtime;
use crate::storage::{ProbeObject, Storage, StorageError};
use crate::telemetry::metrics::Metrics;

/// What a sweeper needs from the rest of the daemon.
pub struct SweepDeps {
    pub runtime: Runtime,
    pub storage: Storage,
    pub closing: Closing,
    pub metrics: Arc<Metrics>,
}

struct Sweeper {
    deps: SweepDeps,
    lease: LeaseConfig,
    collector: Collector,
    /// Probe objects of the last sweep, by when each was first listed.
    probes: HashMap<ProbeObject, Instant>,
}

/// Sweeps as long as the daemon runs.
pub async fn run(deps: SweepDeps, lease: LeaseConfig) {
    let (storage, runtime) = (deps.storage.clone(), deps.runtime.clone());
    let interval = lease.sweep_interval;
    let mut sweeper = Sweeper {
        collector: Collector::new(storage, runtime.clone(), lease.duration, interval),
        probes: HashMap::new(),
        deps,
        lease,
    };
    loop {
        // 25 % jitter either way, so that the daemons of a fleet do not list at the same moment.
        let jitter = runtime.random.next_u64() % 512;
        let pause = interval.mul_f64(0.75 + jitter as f64 / 1024.0);
        runtime.clock.sleep(pause).await;
        sweeper.sweep().await;
    }
}

impl Sweeper {
    /// Does each step, whether or not the others fail.
    async fn sweep(&mut self) {
        let closing = &self.deps.closing;
        let idle = closing.ingest.idle_exchanges(self.lease.sweep_interval);
        closing.check_open(idle).await;
        let exchanges = self.sweep_exchanges().await;
        let probes = self.sweep_probes().await;
        if let Err(error) = exchanges.and(probes) {
            tracing::warn!(%error, "sweep incomplete; the next one retries");
        }
    }

    async fn sweep_exchanges(&mut self) -> Result<(), StorageError> {
        // Before the list: an exchange that is cached now and not listed then has no objects left.
        let mut cached = self.deps.closing.cached_exchanges();
        let inspections = self.collector.inspect_all().await?;
        for inspection in &inspections {
            cached.remove(&inspection.exchange);
        }
        self.deps.closing.check_open(cached).await;
        let mut failed = None;
        for inspection in inspections {
            // An exchange that cannot be read or removed does not stop the others.
            if let Err(error) = self.collect_if_expired(inspection).await {
                failed = Some(error);
            }
        }
        self.deps.storage.remove_stale_temporaries().await?;
        failed.map_or(Ok(()), Err)
    }

    async fn collect_if_expired(&mut self, inspection: Inspection) -> Result<(), StorageError> {
        let (exchange, observation) = (inspection.exchange, inspection.outcome?);
        if observation.verdict != Verdict::Expired {
            return Ok(());
        }
        tracing::info!(%exchange, marker = ?observation.marker,
            lease_seconds = self.lease.duration.as_secs(),
            "collecting exchange: not renewed for a whole lease");
        let closing = &self.deps.closing;
        let claimed = || closing.mark_and_release(&exchange);
        let collected = self.collector.collect(&exchange, &observation, claimed);
        match collected.await? {
            Some(_) => drop(self.deps.metrics.exchanges_collected.inc()),
            None => tracing::info!(%exchange, "lease renewed during collection; keeping exchange"),
        }
        Ok(())
    }

    /// Removes probe objects that have existed for a whole lease: a probe takes seconds, so their
    /// daemons died or could not delete them. A probe that loses its object in spite of that is
    /// repeated.
    async fn sweep_probes(&mut self) -> Result<(), StorageError> {
        let storage = &self.deps.storage;
        let listed = storage.list_probes().await?;
        let now = self.deps.runtime.clock.now();
        self.probes
            .retain(|probe, _| listed.binary_search(probe).is_ok());
        for probe in listed {
            let first_listed = *self.probes.entry(probe.clone()).or_insert(now);
            if now.saturating_duration_since(first_listed) >= self.lease.duration {
                storage.remove_probe(&probe).await?;
            }
        }
        Ok(())
    }
}
