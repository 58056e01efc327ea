//! Makes room when writers wait for memory.
//!
//! Does: seal the largest open segments before they are full, so that their upload gives memory
//! back. Invariant: as long as anybody waits, what is being uploaded or already durable covers what
//! they wait for, or nothing is left to seal.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Ingest;

/// How often the need is looked at while somebody waits, and how late a missed signal is noticed.
const LOOK: Duration = Duration::from_millis(20);

/// Runs as long as the daemon.
pub async fn relieve(ingest: Ingest) {
    let pool = ingest.shared.parts.pool.clone();
    let clock = ingest.shared.parts.runtime.clock.clone();
    loop {
        pool.pressure().await;
        while pool.waiting() > 0 {
            pool.reclaim(pool.waiting());
            while ingest.shared.in_flight_bytes.load(Ordering::Acquire) < pool.waiting()
                && ingest.seal_largest()
            {}
            clock.sleep(LOOK).await;
        }
    }
}

impl Ingest {
    /// Seals the exchange that holds most; `false` if nobody holds anything unsealed.
    fn seal_largest(&self) -> bool {
        let exchanges: Vec<_> = {
            let table = self.shared.exchanges.lock();
            table
                .iter()
                .map(|(id, state)| (id.clone(), Arc::clone(state)))
                .collect()
        };
        let largest = exchanges
            .into_iter()
            .map(|(id, state)| {
                let bytes = state.lock().open_bytes();
                (bytes, id, state)
            })
            .max_by_key(|(bytes, ..)| *bytes);
        let Some((1.., id, state)) = largest else {
            return false;
        };
        let sealed = self.seal(&mut state.lock());
        self.upload(&state, &id, sealed);
        true
    }
}
