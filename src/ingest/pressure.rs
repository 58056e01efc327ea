//! Makes room when writers wait for memory.
//!
//! Does: seal the largest open segments before they are full, so that their upload gives memory
//! back. Invariant: as long as anybody waits, what is being uploaded or already durable covers what
//! they wait for, or nothing is left to seal.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::Ingest;
use super::exchange::ExchangeState;
use crate::fair::Shortage;
use crate::id::ExchangeId;

impl Ingest {
    /// Makes room as long as the daemon runs.
    pub(super) async fn relieve(self) {
        let parts = &self.shared.parts;
        let (pool, clock) = (parts.pool.clone(), parts.runtime.clock.clone());
        pool.run_reclaim_loop(
            |pause| clock.sleep(pause),
            |pool| self.seal_for(&pool.shortage()),
        )
        .await;
    }

    /// Seals until what is on its way to the store covers what is short: of all exchanges for those
    /// who wait for the pool, of its own for a query that is at its limit.
    fn seal_for(&self, shortage: &Shortage) {
        let in_flight = &self.shared.in_flight_bytes;
        while in_flight.load(Ordering::Acquire) < shortage.capacity && self.seal_largest(None) {}
        for (query, bytes) in &shortage.limited {
            while self.in_flight_of(query) < *bytes && self.seal_largest(Some(query)) {}
        }
    }

    fn exchanges_of(&self, query: Option<&str>) -> Vec<(ExchangeId, Arc<Mutex<ExchangeState>>)> {
        let table = self.shared.exchanges.lock();
        let mine = table
            .iter()
            .filter(|(id, _)| query.is_none_or(|query| id.query() == query));
        mine.map(|(id, state)| (id.clone(), Arc::clone(state)))
            .collect()
    }

    fn in_flight_of(&self, query: &str) -> u64 {
        let exchanges = self.exchanges_of(Some(query));
        let bytes = exchanges.iter().map(|(_, s)| s.lock().in_flight_bytes());
        bytes.sum()
    }

    /// Seals the exchange that holds most, of one query if one is named; `false` if nobody holds
    /// anything unsealed.
    fn seal_largest(&self, query: Option<&str>) -> bool {
        let largest = self
            .exchanges_of(query)
            .into_iter()
            .map(|(id, state)| {
                let bytes = state.lock().open_bytes();
                (bytes, id, state)
            })
            .max_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        let Some((1.., id, state)) = largest else {
            return false;
        };
        let sealed = self.seal(&mut state.lock());
        self.upload(&state, &id, sealed);
        true
    }
}
