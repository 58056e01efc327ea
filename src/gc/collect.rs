//! Inspecting every exchange once, and collecting those that have expired.
//!
//! Does: list, read markers, track leases, claim, remove. Does not: decide when to inspect (`sweep`
//! and `one_shot` do) or when a lease has expired (`lease_tracker`). Invariant: an exchange is
//! removed only after it was claimed, which fails if it was renewed since the inspection; any
//! number of daemons may do this at once.

use std::time::Duration;

use futures::stream::{self, StreamExt as _};

use super::lease_tracker::{LeaseState, LeaseTracker, Poll, Verdict};
use crate::id::ExchangeId;
use crate::runtime::Runtime;
use crate::storage::{ObservedMarkers, Storage, StorageError};

/// Exchanges inspected at a time.
const INSPECTION_CONCURRENCY: usize = 16;

/// One exchange as it was inspected.
#[derive(Debug)]
pub struct Inspection {
    pub exchange: ExchangeId,
    /// An error if its markers could not be read.
    pub outcome: Result<Observation, StorageError>,
}

#[derive(Debug)]
pub struct Observation {
    pub marker: LeaseState,
    pub verdict: Verdict,
    /// What a claim is conditional on.
    markers: ObservedMarkers,
}

/// Tracks the leases of all exchanges in some base directories.
#[derive(Debug)]
pub struct Collector {
    storage: Storage,
    runtime: Runtime,
    leases: LeaseTracker,
}

impl Collector {
    /// A collector of exchanges that are not renewed for `lease`; the caller inspects them every
    /// `interval`.
    pub fn new(storage: Storage, runtime: Runtime, lease: Duration, interval: Duration) -> Self {
        Self {
            storage,
            runtime,
            leases: LeaseTracker::new(lease, interval),
        }
    }

    /// Inspects every exchange once.
    ///
    /// # Errors
    /// The exchanges cannot be listed. An error with one exchange is in its [`Inspection`].
    pub async fn inspect_all(&mut self) -> Result<Vec<Inspection>, StorageError> {
        let ids = self.storage.list_exchanges().await?;
        self.leases.retain(&ids);
        let writable = self.writable().await;
        let (storage, clock) = (&self.storage, &self.runtime.clock);
        let polls = stream::iter(ids)
            .map(async |id| {
                let asked = clock.now();
                let markers = storage.observe_markers(&id).await;
                let answered = clock.now();
                let poll = Poll {
                    asked,
                    answered,
                    writable,
                };
                (id, markers, poll)
            })
            .buffered(INSPECTION_CONCURRENCY);
        let polls: Vec<_> = polls.collect().await;
        let inspections = polls
            .into_iter()
            .map(|(id, markers, poll)| self.observe(id, markers, poll));
        Ok(inspections.collect())
    }

    /// Whether a renewal could be written now. Once a lease is half over, the base directories are
    /// probed, since the last known status may be wrong: a full disk is readable, and an idle
    /// daemon has not noticed that it is full.
    async fn writable(&self) -> bool {
        let status = match self.leases.any_half_expired() {
            true => self.storage.probe().await,
            false => self.storage.status(),
        };
        status.iter().all(|base| base.healthy)
    }

    fn observe(
        &mut self,
        exchange: ExchangeId,
        markers: ObservedMarkers,
        poll: Poll,
    ) -> Inspection {
        let marker = match markers.marker() {
            Ok(Some(marker)) => LeaseState::Open(marker.version),
            Ok(None) if markers.is_claimed() => LeaseState::Tombstone,
            Ok(None) => LeaseState::Missing,
            Err(error) => {
                self.leases.reset(&exchange);
                let outcome = Err(error);
                return Inspection { exchange, outcome };
            }
        };
        let verdict = self.leases.observe(&exchange, marker.clone(), poll);
        let outcome = Ok(Observation {
            marker,
            verdict,
            markers,
        });
        Inspection { exchange, outcome }
    }

    /// Collects an expired exchange and returns the number of removed objects; `None` if it has not
    /// expired or was renewed since. `claimed` is called between the claim, after which no renewal
    /// can succeed, and the removal.
    ///
    /// # Errors
    /// The store failed; the next inspection shows what is left.
    pub async fn collect(
        &mut self,
        exchange: &ExchangeId,
        observation: &Observation,
        claimed: impl FnOnce(),
    ) -> Result<Option<u64>, StorageError> {
        if observation.verdict != Verdict::Expired {
            return Ok(None);
        }
        if !self.storage.claim(exchange, &observation.markers).await? {
            self.leases.reset(exchange);
            return Ok(None);
        }
        claimed();
        let removed = self.storage.remove_claimed(exchange).await?;
        self.leases.reset(exchange);
        Ok(Some(removed))
    }
}
