//! What this daemon has last learned about each exchange: open, with its descriptor, or closed.
//!
//! Does: cache, and queue the exchanges that were found closed until their data is released. Does
//! not: ask the base directories. Invariant: a closed exchange never becomes open again, and the
//! absence of a marker that was never seen closes none before its time.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::descriptor::Descriptor;
use super::error::MarkerFailure;
use crate::id::ExchangeId;

/// Exchanges remembered, open or closed. A late writer to a closed one gets 410 instead of 404.
const CAPACITY: NonZeroUsize = NonZeroUsize::new(100_000).expect("not zero");

#[derive(Debug, Clone)]
pub(super) enum Status {
    Open {
        descriptor: Arc<Descriptor>,
        marker: MarkerState,
    },
    Closed,
}

/// What is known of the marker of an exchange that is open.
#[derive(Debug, Clone)]
pub(super) enum MarkerState {
    /// It was there at this time.
    Seen { confirmed: Instant },
    /// It was not seen yet.
    Awaited(Awaited),
    /// It could not be written or read in time.
    Failed(Arc<MarkerFailure>),
}

/// A marker that was not seen yet.
#[derive(Debug, Clone)]
pub(super) struct Awaited {
    /// Until then its absence means "not yet".
    pub until: Instant,
    /// What a task of this daemon does about it.
    pub pursuit: Pursuit,
    /// Notified when that is known.
    pub settled: Arc<Notify>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pursuit {
    None,
    /// It reads from time to time whether the marker is there.
    Seeks,
    Writes,
}

impl Awaited {
    fn new(until: Instant, pursuit: Pursuit) -> Self {
        Self {
            until,
            pursuit,
            settled: Arc::default(),
        }
    }
}

/// The marker of an exchange that was closed before the marker was seen.
#[derive(Debug)]
pub(crate) struct LateMarker {
    pub(super) descriptor: Arc<Descriptor>,
    pub(super) until: Instant,
}

pub(super) struct StatusCache {
    inner: Mutex<Inner>,
    /// Wakes the one caller of [`StatusCache::found_closed`].
    found: Notify,
}

struct Inner {
    statuses: LruCache<ExchangeId, Status>,
    /// Found closed, and not yet returned by [`StatusCache::found_closed`].
    found_closed: BTreeSet<ExchangeId>,
}

impl Inner {
    /// Replaces a status, and wakes those that wait for the marker.
    fn put(&mut self, exchange: ExchangeId, status: Status) {
        let before = self.statuses.put(exchange, status);
        if let Some(Status::Open {
            marker: MarkerState::Awaited(awaited),
            ..
        }) = before
        {
            awaited.settled.notify_waiters();
        }
    }
}

impl Default for StatusCache {
    fn default() -> Self {
        Self {
            inner: Mutex::new(Inner {
                statuses: LruCache::new(CAPACITY),
                found_closed: BTreeSet::new(),
            }),
            found: Notify::new(),
        }
    }
}

impl StatusCache {
    pub(super) fn get(&self, exchange: &ExchangeId) -> Option<Status> {
        self.inner.lock().statuses.get(exchange).cloned()
    }

    pub(super) fn is_closed(&self, exchange: &ExchangeId) -> bool {
        matches!(self.get(exchange), Some(Status::Closed))
    }

    /// The descriptor and the marker that was not seen yet, if that is so.
    pub(super) fn awaited(&self, exchange: &ExchangeId) -> Option<(Arc<Descriptor>, Awaited)> {
        match self.get(exchange) {
            Some(Status::Open {
                descriptor,
                marker: MarkerState::Awaited(awaited),
            }) => Some((descriptor, awaited)),
            _ => None,
        }
    }

    /// Records that the marker of an exchange was there at `confirmed`; `false` if the exchange was
    /// closed meanwhile.
    pub(super) fn confirm_open(&self, descriptor: Arc<Descriptor>, confirmed: Instant) -> bool {
        let mut inner = self.inner.lock();
        let exchange = descriptor.exchange.clone();
        if matches!(inner.statuses.get(&exchange), Some(Status::Closed)) {
            return false;
        }
        let marker = MarkerState::Seen { confirmed };
        inner.put(exchange, Status::Open { descriptor, marker });
        true
    }

    /// Records an exchange whose marker may not be there before `until`, unless more is known of
    /// it. Returns what is known now.
    pub(super) fn learn(&self, descriptor: Arc<Descriptor>, until: Instant) -> Status {
        let mut inner = self.inner.lock();
        let exchange = descriptor.exchange.clone();
        let new = || Status::Open {
            descriptor,
            marker: MarkerState::Awaited(Awaited::new(until, Pursuit::None)),
        };
        inner.statuses.get_or_insert(exchange, new).clone()
    }

    /// Whether the caller shall do this about the marker of an exchange: nobody does as much, and
    /// the marker was not seen. A failure before counts for nothing.
    pub(super) fn pursue(&self, exchange: &ExchangeId, how: Pursuit, until: Instant) -> bool {
        let mut inner = self.inner.lock();
        let Some(Status::Open { marker, .. }) = inner.statuses.get_mut(exchange) else {
            return false;
        };
        match marker {
            MarkerState::Seen { .. } => false,
            MarkerState::Awaited(awaited) => {
                let before = awaited.pursuit;
                awaited.pursuit = before.max(how);
                before < how
            }
            MarkerState::Failed(_) => {
                *marker = MarkerState::Awaited(Awaited::new(until, how));
                true
            }
        }
    }

    /// Records that the marker of an exchange could not be written, or not be looked for.
    pub(super) fn marker_failed(&self, exchange: &ExchangeId, failure: MarkerFailure) {
        let mut inner = self.inner.lock();
        let Some(Status::Open { descriptor, marker }) = inner.statuses.get(exchange).cloned()
        else {
            return;
        };
        if matches!(marker, MarkerState::Awaited(_)) {
            let marker = MarkerState::Failed(Arc::new(failure));
            inner.put(exchange.clone(), Status::Open { descriptor, marker });
        }
    }

    /// Records that an exchange is closed; the caller releases what is held of it.
    pub(super) fn mark_closed(&self, exchange: &ExchangeId) {
        let mut inner = self.inner.lock();
        inner.put(exchange.clone(), Status::Closed);
    }

    /// Records that an exchange turned out to be closed, and queues it for
    /// [`StatusCache::found_closed`].
    pub(super) fn report_closed(&self, exchange: &ExchangeId) {
        let mut inner = self.inner.lock();
        inner.put(exchange.clone(), Status::Closed);
        inner.found_closed.insert(exchange.clone());
        self.found.notify_one();
    }

    /// Waits for reported exchanges and returns them; each report is returned once.
    pub(super) async fn found_closed(&self) -> BTreeSet<ExchangeId> {
        loop {
            let found = std::mem::take(&mut self.inner.lock().found_closed);
            if !found.is_empty() {
                return found;
            }
            self.found.notified().await;
        }
    }
}
