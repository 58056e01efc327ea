//! The exchanges of the fleet that this daemon knows.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::bounds::{AnnouncedHere, MarkerTasks};
use super::status::{LateMarker, Status, StatusCache};
use super::unfinished::UnfinishedCloses;
use crate::id::ExchangeId;
use crate::runtime::Runtime;
use crate::storage::{DigestExchanges, Storage};

/// What [`Exchanges`] needs from the rest of the daemon.
#[derive(Clone)]
pub struct ExchangesDeps {
    pub runtime: Runtime,
    pub storage: Storage,
}

/// On which terms this daemon announces exchanges.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// How long an exchange stays open without a renewal.
    pub lease: Duration,
    /// How long its marker may be missing after it was announced, unless the fleet has agreed upon
    /// a shorter time ([`Storage::announcement`]).
    pub announcement: Duration,
    /// The most partitions that it may have.
    pub max_partitions: u32,
    /// The most exchanges that are announced through this daemon and open.
    pub max_announced: usize,
}

/// The exchanges that the daemons share. Cheap to clone.
#[derive(Clone)]
pub struct Exchanges {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) deps: ExchangesDeps,
    pub(super) terms: Terms,
    max_partitions: AtomicU32,
    pub(super) announced_here: AnnouncedHere,
    pub(super) marker_tasks: MarkerTasks,
    pub(super) status: StatusCache,
    pub(super) unfinished: UnfinishedCloses,
    /// The exchanges in the last digest of the fleet's sweeper, and when it was read.
    digest: Mutex<Option<(DigestExchanges, Instant)>>,
}

impl Exchanges {
    /// Exchanges that are announced on these terms.
    pub fn new(deps: ExchangesDeps, terms: Terms) -> Self {
        deps.storage.set_announcement(terms.announcement);
        let shared = Shared {
            deps,
            max_partitions: AtomicU32::new(terms.max_partitions),
            announced_here: AnnouncedHere::new(terms.max_announced),
            marker_tasks: MarkerTasks::default(),
            terms,
            status: StatusCache::default(),
            unfinished: UnfinishedCloses::default(),
            digest: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Whether this daemon knows an exchange to be open or announced, and not closed since.
    pub(crate) fn is_known_open(&self, exchange: &ExchangeId) -> bool {
        matches!(self.shared.status.get(exchange), Some(Status::Open { .. }))
    }

    /// Largest number of partitions of an exchange that this daemon announces.
    pub fn max_partitions(&self) -> u32 {
        self.shared.max_partitions.load(Ordering::Relaxed)
    }

    /// Changes it for announcements from now on.
    pub fn set_max_partitions(&self, most: u32) {
        self.shared.max_partitions.store(most, Ordering::Relaxed);
    }

    /// Changes how many exchanges may be announced through this daemon and open.
    pub fn set_max_announced(&self, most: usize) {
        self.shared.announced_here.set_limit(most);
    }

    /// Records the exchanges in a digest that was just read.
    pub(crate) fn record_digest(&self, digest: &DigestExchanges) {
        let now = self.shared.deps.runtime.clock.now();
        *self.shared.digest.lock() = Some((digest.clone(), now));
    }

    /// The time that remains at least of the lease of an exchange, by the last digest: it may have
    /// been renewed since. `None` if the digest does not contain the exchange. Sends no request.
    pub fn lease_left_at_least(&self, exchange: &ExchangeId) -> Option<Duration> {
        let last = self.shared.digest.lock();
        let (digest, read) = last.as_ref()?;
        let entry = digest.get(exchange)?;
        let since = self.shared.deps.runtime.clock.now() - *read;
        Some(entry.lease?.saturating_sub(entry.unrenewed + since))
    }

    /// Records that an exchange is closed. The caller then releases what this daemon holds of it.
    /// Returns its marker if that was not observed yet.
    pub(crate) fn mark_closed(&self, exchange: &ExchangeId) -> Option<LateMarker> {
        let pending = self.shared.status.pending(exchange);
        self.shared.status.mark_closed(exchange);
        self.shared.announced_here.remove(exchange);
        pending.map(|(descriptor, pending)| LateMarker {
            descriptor,
            until: pending.until,
        })
    }

    /// Waits until some exchange, closed through another daemon, was found closed by this one;
    /// returns all found since the last call. For one caller, which releases what is held of them.
    pub(crate) async fn found_closed(&self) -> BTreeSet<ExchangeId> {
        let found = self.shared.status.found_closed().await;
        for exchange in &found {
            self.shared.announced_here.remove(exchange);
        }
        found
    }
}
