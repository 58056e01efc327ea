//! The last known status of each exchange: open, with its descriptor, or closed.
//!
//! Does: cache, and queue the exchanges that were found closed until their data is released. Does
//! not: read the base directories. Invariant: a closed exchange never becomes open again, and an
//! exchange whose marker was never observed is not closed before its deadline because the marker is
//! missing.

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
const CAPACITY: NonZeroUsize = NonZeroUsize::new(20_000).expect("not zero");

#[derive(Debug, Clone)]
pub(super) enum Status {
    Open {
        descriptor: Arc<Descriptor>,
        marker: MarkerState,
    },
    Closed,
}

/// The marker of an open exchange.
#[derive(Debug, Clone)]
pub(super) enum MarkerState {
    /// It was there at this time.
    Observed { confirmed: Instant },
    /// It was not observed yet.
    Pending(PendingMarker),
    /// It could not be written or read in time.
    Failed(Arc<MarkerFailure>),
}

/// A marker that was not observed yet.
#[derive(Debug, Clone)]
pub(super) struct PendingMarker {
    /// Until then a missing marker means "not yet".
    pub until: Instant,
    /// What a task of this daemon does about it.
    pub task: MarkerTask,
    /// Notified when the marker was observed or has failed.
    pub settled: Arc<Notify>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum MarkerTask {
    None,
    /// Polls the base directories for the marker.
    Poll,
    Write,
}

impl PendingMarker {
    fn new(until: Instant, task: MarkerTask) -> Self {
        Self {
            until,
            task,
            settled: Arc::default(),
        }
    }
}

/// The marker of an exchange that was closed before the marker was observed.
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
            marker: MarkerState::Pending(pending),
            ..
        }) = before
        {
            pending.settled.notify_waiters();
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

    /// The descriptor and the marker, if the marker was not observed yet.
    pub(super) fn pending(
        &self,
        exchange: &ExchangeId,
    ) -> Option<(Arc<Descriptor>, PendingMarker)> {
        match self.get(exchange) {
            Some(Status::Open {
                descriptor,
                marker: MarkerState::Pending(pending),
            }) => Some((descriptor, pending)),
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
        let marker = MarkerState::Observed { confirmed };
        inner.put(exchange, Status::Open { descriptor, marker });
        true
    }

    /// Records an exchange whose marker may be missing until `until`, unless its status is known.
    /// Returns its status.
    pub(super) fn record_pending(&self, descriptor: Arc<Descriptor>, until: Instant) -> Status {
        let mut inner = self.inner.lock();
        let exchange = descriptor.exchange.clone();
        let new = || Status::Open {
            descriptor,
            marker: MarkerState::Pending(PendingMarker::new(until, MarkerTask::None)),
        };
        inner.statuses.get_or_insert(exchange, new).clone()
    }

    /// Whether the caller has to start this task for the marker of an exchange: the marker was not
    /// observed, and no task that does at least as much is running. An earlier failure is ignored.
    pub(super) fn start_task(
        &self,
        exchange: &ExchangeId,
        task: MarkerTask,
        until: Instant,
    ) -> bool {
        let mut inner = self.inner.lock();
        let Some(Status::Open { marker, .. }) = inner.statuses.get_mut(exchange) else {
            return false;
        };
        match marker {
            MarkerState::Observed { .. } => false,
            MarkerState::Pending(pending) => {
                let running = pending.task;
                pending.task = running.max(task);
                running < task
            }
            MarkerState::Failed(_) => {
                *marker = MarkerState::Pending(PendingMarker::new(until, task));
                true
            }
        }
    }

    /// Records that the marker of an exchange could not be written or read.
    pub(super) fn marker_failed(&self, exchange: &ExchangeId, failure: MarkerFailure) {
        let mut inner = self.inner.lock();
        let Some(Status::Open { descriptor, marker }) = inner.statuses.get(exchange).cloned()
        else {
            return;
        };
        if matches!(marker, MarkerState::Pending(_)) {
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
