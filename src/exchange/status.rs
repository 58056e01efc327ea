//! What this daemon has last learned about each exchange: open, with its properties, or closed.
//!
//! Does: cache, and queue the exchanges that were found closed until their data is released. Does
//! not: ask the base directories. Invariant: a closed exchange never becomes open again.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::descriptor::Descriptor;
use crate::id::ExchangeId;

/// Exchanges remembered, open or closed. A late writer to a closed one gets 410 instead of 404.
const CAPACITY: NonZeroUsize = NonZeroUsize::new(100_000).expect("not zero");

#[derive(Debug, Clone)]
pub(super) enum Status {
    Open {
        descriptor: Arc<Descriptor>,
        confirmed: Instant,
    },
    Closed,
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

    /// Records that an exchange was open at `confirmed`; `false` if it was closed meanwhile.
    pub(super) fn confirm_open(&self, descriptor: Arc<Descriptor>, confirmed: Instant) -> bool {
        let mut inner = self.inner.lock();
        let exchange = descriptor.exchange.clone();
        if matches!(inner.statuses.get(&exchange), Some(Status::Closed)) {
            return false;
        }
        let open = Status::Open {
            descriptor,
            confirmed,
        };
        inner.statuses.put(exchange, open);
        true
    }

    /// Records what a client's descriptor says of an exchange that is not known here.
    pub(super) fn learn(&self, descriptor: Descriptor, now: Instant) {
        let mut inner = self.inner.lock();
        inner
            .statuses
            .get_or_insert(descriptor.exchange.clone(), || Status::Open {
                descriptor: Arc::new(descriptor),
                confirmed: now,
            });
    }

    /// Records that an exchange is closed; the caller releases what is held of it.
    pub(super) fn mark_closed(&self, exchange: &ExchangeId) {
        let mut inner = self.inner.lock();
        inner.statuses.put(exchange.clone(), Status::Closed);
    }

    /// Records that an exchange turned out to be closed, and queues it for
    /// [`StatusCache::found_closed`].
    pub(super) fn report_closed(&self, exchange: &ExchangeId) {
        let mut inner = self.inner.lock();
        inner.statuses.put(exchange.clone(), Status::Closed);
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
