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

/// Sweeps the base directories of one daemon.
pub struct Sweeper {
    runtime: Runtime,
    storage: Storage,
    closing: Closing,
    metrics: Arc<Metrics>,
    lease: LeaseConfig,
    collector: Collector,
    /// Probe objects of the last sweep, by when each was first listed.
    probes: HashMap<ProbeObject, Instant>,
}

impl Sweeper {
    /// A sweeper that collects exchanges which are not renewed for `lease.duration`.
    pub fn new(
        runtime: Runtime,
        storage: Storage,
        closing: Closing,
        metrics: Arc<Metrics>,
        lease: LeaseConfig,
    ) -> Self {
        let (duration, interval) = (lease.duration, lease.sweep_interval);
        Self {
            collector: Collector::new(storage.clone(), runtime.clone(), duration, interval),
            probes: HashMap::new(),
            runtime,
            storage,
            closing,
            metrics,
            lease,
        }
    }

    /// Sweeps as long as the daemon runs.
    pub async fn run(mut self) {
        let interval = self.lease.sweep_interval;
        loop {
            // 25 % jitter either way, so that a fleet's daemons do not list at the same moment.
            let jitter = self.runtime.random.next_u64() % 512;
            let pause = interval.mul_f64(0.75 + jitter as f64 / 1024.0);
            self.runtime.clock.sleep(pause).await;
            let idle = self.closing.ingest.idle_exchanges(interval);
            self.closing.check_open(idle).await;
            let exchanges = self.sweep_exchanges().await;
            let probes = self.sweep_probes().await;
            if let Err(error) = exchanges.and(probes) {
                tracing::warn!(%error, "sweep incomplete; the next one retries");
            }
        }
    }

    async fn sweep_exchanges(&mut self) -> Result<(), StorageError> {
        // Before the list: an exchange that is cached now and not listed then has no objects left.
        let mut cached = self.closing.cached_exchanges();
        let inspections = self.collector.inspect_all().await?;
        for inspection in &inspections {
            cached.remove(&inspection.exchange);
        }
        self.closing.check_open(cached).await;
        let mut failed = None;
        for inspection in inspections {
            // An exchange that cannot be read or removed does not stop the others.
            if let Err(error) = self.collect_if_expired(inspection).await {
                failed = Some(error);
            }
        }
        self.storage.remove_stale_temporaries().await?;
        failed.map_or(Ok(()), Err)
    }

    async fn collect_if_expired(&mut self, inspection: Inspection) -> Result<(), StorageError> {
        let (exchange, observation) = (inspection.exchange, inspection.outcome?);
        if observation.verdict != Verdict::Expired {
            return Ok(());
        }
        let closing = &self.closing;
        let claimed = || closing.mark_and_release(&exchange);
        let collected = self.collector.collect(&exchange, &observation, claimed);
        match collected.await? {
            Some(objects) => {
                self.metrics.exchanges_collected.inc();
                tracing::info!(%exchange, objects, marker = ?observation.marker,
                    lease_seconds = self.lease.duration.as_secs(),
                    "exchange collected: not renewed for a whole lease");
            }
            None => tracing::info!(%exchange, "lease renewed during collection; exchange retained"),
        }
        Ok(())
    }

    /// Removes probe objects that have existed for a whole lease: a probe takes seconds, so their
    /// daemons died or could not delete them. If the object of a running probe is
    /// removed anyway, the probe is repeated.
    async fn sweep_probes(&mut self) -> Result<(), StorageError> {
        let storage = &self.storage;
        let listed = storage.list_probes().await?;
        let now = self.runtime.clock.now();
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
