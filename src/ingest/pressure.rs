//! Frees memory when writers wait for it.
//!
//! Does: seal the largest open segments before they are full, so that their upload releases memory.
//! Invariant: while any writer waits, the bytes being uploaded or already durable are at least
//! those that the writers wait for, or nothing is left to seal.

use std::sync::atomic::Ordering;

use super::exchange::SharedExchange;
use super::service::Ingest;
use crate::fair::Shortage;

impl Ingest {
    /// Runs as long as the daemon.
    pub(super) async fn run_pressure_loop(self) {
        let deps = &self.shared.deps;
        let (pool, clock) = (deps.pool.clone(), deps.runtime.clock.clone());
        pool.run_reclaim_loop(
            |pause| clock.sleep(pause),
            |pool| self.seal_for_waiters(&pool.shortage()),
        )
        .await;
    }

    /// Seals until the bytes in flight cover the shortage: segments of any exchange for waiters
    /// that the whole pool cannot serve, and a query's own segments if it is at its limit.
    fn seal_for_waiters(&self, shortage: &Shortage) {
        let in_flight = &self.shared.in_flight_bytes;
        while in_flight.load(Ordering::Acquire) < shortage.capacity && self.seal_largest(None) {}
        for (query, bytes) in &shortage.limited {
            while self.in_flight_of(query) < *bytes && self.seal_largest(Some(query)) {}
        }
    }

    fn exchanges_of(&self, query: Option<&str>) -> impl Iterator<Item = SharedExchange> {
        let exchanges = self.exchanges().into_iter();
        exchanges.filter(move |exchange| query.is_none_or(|query| exchange.query() == query))
    }

    fn in_flight_of(&self, query: &str) -> u64 {
        let exchanges = self.exchanges_of(Some(query));
        exchanges.map(|e| e.lock().in_flight_bytes).sum()
    }

    /// Seals the largest open segment, of `query` if it is `Some`; `false` if all are empty.
    fn seal_largest(&self, query: Option<&str>) -> bool {
        let largest = self
            .exchanges_of(query)
            .map(|exchange| {
                let bytes = exchange.lock().open_bytes();
                (bytes, exchange)
            })
            .max_by(|a, b| (a.0, a.1.id()).cmp(&(b.0, b.1.id())));
        let Some((1.., exchange)) = largest else {
            return false;
        };
        let sealed = self.seal(&mut exchange.lock());
        self.start_upload(&exchange, sealed);
        true
    }
}
