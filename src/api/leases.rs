//! When leases run out, as far as this daemon has renewed them; for the page.
//!
//! Does: remember the last renewal of each exchange. Does not: decide anything: leases are judged
//! by the markers in the base directories (`gc`). Invariant: a bounded number is remembered.

use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::id::ExchangeId;

const CAPACITY: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");

/// The end of each lease that was announced or renewed here.
pub struct Leases(Mutex<LruCache<ExchangeId, Instant>>);

impl Default for Leases {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(CAPACITY)))
    }
}

impl Leases {
    /// Records a renewal.
    pub fn renewed(&self, exchange: &ExchangeId, lease: Duration, now: Instant) {
        // A lease that never ends has no end to show.
        if let Some(end) = now.checked_add(lease) {
            self.0.lock().put(exchange.clone(), end);
        }
    }

    /// What is left of a lease; `None` if it was not renewed here, or has run out since.
    pub fn left(&self, exchange: &ExchangeId, now: Instant) -> Option<Duration> {
        let end = self.0.lock().peek(exchange).copied()?;
        end.checked_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_known_from_its_last_renewal_here_until_it_ends() {
        let (leases, now) = (Leases::default(), Instant::now());
        let exchange: ExchangeId = "q1".parse().unwrap();
        assert_eq!(leases.left(&exchange, now), None);
        let lease = Duration::from_secs(60);
        leases.renewed(&exchange, lease, now);
        leases.renewed(&exchange, lease, now + lease / 2);
        assert_eq!(leases.left(&exchange, now + lease), Some(lease / 2));
        assert_eq!(leases.left(&exchange, now + 2 * lease), None);
    }
}
