//! Sweeps: collects expired exchanges and removes what late writers and dead daemons left.
//!
//! Does: hold the sweeper's lease if no other daemon does; then, at intervals, inspect every
//! exchange, publish what was observed, and collect those that were not renewed for their whole
//! lease; remove old probe objects. Without the lease, read what the sweeper publishes. In both
//! cases, release cached data of exchanges closed through other daemons. Does not: use any wall
//! clock, its own or the store's. Invariant: an exchange is collected only after its markers were
//! observed unchanged for the whole lease, by this daemon and those that swept before it; any
//! number of daemons may sweep at once.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::close::Closing;
use super::collect::{Collected, Collector, Inspection, Lease};
use super::lease_tracker::Verdict;
use super::release::Releaser;
use super::sweeper_lease::{Polled, Published, SweeperLease};
use crate::config::LeaseConfig;
use crate::runtime::Runtime;
use crate::storage::{ProbeObject, Storage, StorageError, StorageFailure};
use crate::telemetry::metrics::Metrics;

/// The time between two sweeps, as a share of the interval in which other daemons read the digest:
/// they learn that an exchange has closed within two intervals, the duration of a sweep included.
const SWEEP_INTERVAL_SHARE: f64 = 15.0 / 16.0;

/// Sweeps the base directories of one daemon while it holds the sweeper's lease.
pub struct Sweeper {
    runtime: Runtime,
    storage: Storage,
    closing: Closing,
    metrics: Arc<Metrics>,
    lease: LeaseConfig,
    sweeper_lease: SweeperLease,
    releaser: Releaser,
    collector: Collector,
    /// Whether this daemon swept last time.
    sweeping: bool,
    /// Whether this daemon has compared its base directories with those of the fleet.
    compared: bool,
    /// When the digest was published last.
    published: Instant,
    /// Probe objects of the last sweep, by when each was first listed.
    probes: HashMap<ProbeObject, Instant>,
}

/// Why a sweep is incomplete.
#[derive(Debug, thiserror::Error)]
enum SweepError {
    #[error("another daemon sweeps now")]
    Lost,
    #[error("no base directory accepts the digest of the sweeper")]
    NotWritable,
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Sweeper {
    /// A sweeper that collects exchanges which are not renewed for their own lease, and orphans
    /// after `lease.duration`.
    pub fn new(
        runtime: Runtime,
        storage: Storage,
        closing: Closing,
        metrics: Arc<Metrics>,
        lease: LeaseConfig,
    ) -> Self {
        let interval = lease.sweep_interval;
        let shared = (runtime.clone(), storage.clone());
        Self {
            sweeper_lease: SweeperLease::new(shared.0, shared.1, Arc::clone(&metrics), interval),
            releaser: Releaser::new(closing.clone(), interval),
            collector: collector(&runtime, &storage, &lease),
            sweeping: false,
            compared: false,
            published: runtime.clock.now(),
            probes: HashMap::new(),
            runtime,
            storage,
            closing,
            metrics,
            lease,
        }
    }

    /// Sweeps, or follows the daemon that does, as long as the daemon runs.
    pub async fn run(mut self) {
        let interval = self.lease.sweep_interval;
        // A fleet's daemons do not poll at the same moment.
        let phase = self.runtime.random.next_u64() % 1024;
        let mut pause = interval.mul_f64(phase as f64 / 1024.0);
        loop {
            self.runtime.clock.sleep(pause).await;
            let started = self.runtime.clock.now();
            self.sweeping = self.sweep_if_holder().await;
            self.metrics.sweeper.set(self.sweeping.into());
            let period = match self.sweeping {
                true => interval.mul_f64(SWEEP_INTERVAL_SHARE),
                false => interval,
            };
            let elapsed = self.runtime.clock.now().saturating_duration_since(started);
            pause = period.saturating_sub(elapsed).max(interval / 8);
        }
    }

    /// Sweeps if this daemon holds the sweeper's lease or can acquire it; returns whether it does.
    async fn sweep_if_holder(&mut self) -> bool {
        let mut polled = self.sweeper_lease.poll().await;
        if let Some(digest) = polled.digest().filter(|_| !polled.mine) {
            self.compare_members(digest.members).await;
            self.releaser.release_closed(Some(&digest.exchanges)).await;
            return false;
        }
        if let Some(digest) = polled.digest().filter(|_| !self.sweeping) {
            // It was written by this daemon, which had no answer.
            self.collector = collector(&self.runtime, &self.storage, &self.lease);
            self.collector.inherit(&digest.exchanges);
        }
        let complete = self.storage.check_members().await;
        self.compared = true;
        if let Err(error) = complete {
            self.collector.interrupt();
            return self.decline(&polled, &error).await;
        }
        if !polled.mine {
            match self.begin(&polled).await {
                Published::Yes => polled = self.sweeper_lease.poll().await,
                // If the digest cannot be written but expired exchanges can be claimed, as on a
                // full disk, each daemon sweeps by itself.
                Published::Nowhere if self.storage.can_write_markers().await => {}
                Published::Nowhere | Published::Lost => {
                    self.releaser.release_closed(None).await;
                    return false;
                }
            }
        }
        if !self.sweeping {
            tracing::info!("this daemon sweeps for the fleet now");
        }
        let exchanges = self.sweep_exchanges(&polled).await;
        if matches!(exchanges, Err(SweepError::Lost)) {
            tracing::info!("another daemon sweeps for the fleet now");
            return false;
        }
        let probes = self.sweep_probes().await;
        if let Err(error) = exchanges.and(probes.map_err(SweepError::from)) {
            tracing::warn!(%error, "sweep incomplete; the next one retries");
        }
        true
    }

    /// Checks whether this daemon has all base directories of the fleet, at its start, when the
    /// list has changed, and while it has not.
    async fn compare_members(&mut self, generation: u64) {
        let known = self.storage.members().map_or(0, |list| list.generation);
        let hindered = self.storage.collection_obstacle().is_some();
        if self.compared && !hindered && known >= generation {
            return;
        }
        match self.storage.check_members().await {
            Ok(()) => self.compared = true,
            Err(error) => tracing::debug!(%error, "cannot collect"),
        }
    }

    /// Does not sweep, and hands the lease to another daemon if this one lacks a base directory.
    async fn decline(&mut self, polled: &Polled, error: &StorageError) -> bool {
        tracing::debug!(%error, "this daemon cannot sweep");
        let incomplete = matches!(error.source, StorageFailure::Incomplete(_));
        if polled.mine && incomplete {
            let exchanges = self.collector.digest().clone();
            self.sweeper_lease.publish(polled, &exchanges, false).await;
        }
        self.releaser.release_closed(None).await;
        polled.mine && !incomplete
    }

    /// Begins to sweep where the last sweeper has stopped.
    async fn begin(&mut self, polled: &Polled) -> Published {
        if !self.sweeping {
            self.collector = collector(&self.runtime, &self.storage, &self.lease);
        }
        for digest in polled.left_behind() {
            self.collector.inherit(&digest.exchanges);
        }
        let exchanges = self.collector.digest().clone();
        self.sweeper_lease.publish(polled, &exchanges, true).await
    }

    async fn sweep_exchanges(&mut self, polled: &Polled) -> Result<(), SweepError> {
        let inspections = self.collector.inspect_all().await?;
        self.publish(polled).await?;
        let digest = self.collector.digest();
        self.releaser.release_closed(Some(digest)).await;
        let mut failed = None;
        for inspection in inspections {
            let now = self.runtime.clock.now();
            if now.saturating_duration_since(self.published) >= self.lease.sweep_interval {
                let polled = self.sweeper_lease.poll().await;
                self.publish(&polled).await?;
            }
            // An exchange that cannot be read or removed does not stop the others.
            if let Err(error) = self.collect_if_expired(inspection).await {
                failed = Some(error);
            }
        }
        self.storage.remove_stale_temporaries().await?;
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Publishes to the fleet what was observed, and that this daemon sweeps.
    async fn publish(&mut self, polled: &Polled) -> Result<(), SweepError> {
        if !polled.mine && polled.digest().is_some() {
            return Err(SweepError::Lost);
        }
        self.published = self.runtime.clock.now();
        match self
            .sweeper_lease
            .publish(polled, self.collector.digest(), true)
            .await
        {
            Published::Yes => Ok(()),
            Published::Lost => Err(SweepError::Lost),
            Published::Nowhere if self.storage.can_write_markers().await => Ok(()),
            Published::Nowhere => Err(SweepError::NotWritable),
        }
    }

    async fn collect_if_expired(&mut self, inspection: Inspection) -> Result<(), StorageError> {
        let Inspection {
            exchange,
            listed,
            lease: _,
            outcome,
        } = inspection;
        let observation = outcome?;
        if observation.verdict != Verdict::Expired {
            return Ok(());
        }
        let lease_seconds = self.collector.lease_of(&exchange).as_secs();
        let closing = &self.closing;
        let claimed = || closing.mark_and_release(&exchange);
        let collector = &mut self.collector;
        let collected = collector.collect(&exchange, &listed, &observation, claimed);
        match collected.await? {
            Collected::Removed(segments) => {
                self.metrics.exchanges_collected.inc();
                tracing::info!(%exchange, segments, marker = ?observation.marker, lease_seconds,
                    "exchange collected: not renewed for a whole lease");
            }
            Collected::Retained => {
                tracing::info!(%exchange, "changed during its collection; exchange retained");
            }
            Collected::Foreign => {
                tracing::debug!(%exchange, "its folder holds nothing that Stopover wrote");
            }
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

/// A collector that uses each exchange's own lease, and the daemon's lease for orphans.
fn collector(runtime: &Runtime, storage: &Storage, lease: &LeaseConfig) -> Collector {
    let own = Lease::OfExchange {
        otherwise: lease.duration,
    };
    let (storage, runtime) = (storage.clone(), runtime.clone());
    Collector::new(storage, runtime, own, lease.sweep_interval)
}
