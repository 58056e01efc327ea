//! How densely the partitions of an exchange are read at this daemon.
//!
//! Does: remember which partitions were asked for lately. Does not: fetch, or decide what to fetch
//! (`planner`). Invariant: bounded, whatever handles are sent.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;

use lru::LruCache;
use parking_lot::Mutex;

use crate::id::ExchangeId;

/// Exchanges that are remembered, those read last.
const EXCHANGES: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");
/// Partitions of one of them: enough to tell how dense they are.
const PARTITIONS: usize = 4096;

/// What was asked for, by exchange.
pub struct ReadDensity(Mutex<LruCache<ExchangeId, BTreeSet<u32>>>);

impl Default for ReadDensity {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(EXCHANGES)))
    }
}

impl ReadDensity {
    /// A partition is being read here.
    pub fn saw(&self, exchange: &ExchangeId, partition: u32) {
        let mut seen = self.0.lock();
        let partitions = seen.get_or_insert_mut_ref(exchange, BTreeSet::new);
        if partitions.len() < PARTITIONS {
            partitions.insert(partition);
        }
    }

    /// Of the partitions around those that are read here, the share that is; 0 while there is one
    /// only, of which nothing can be told.
    pub fn density(&self, exchange: &ExchangeId) -> f64 {
        let seen = self.0.lock();
        let Some(partitions) = seen.peek(exchange).filter(|seen| seen.len() > 1) else {
            return 0.0;
        };
        let (first, last) = (partitions.first(), partitions.last());
        let span = last.zip(first).map_or(0, |(last, first)| last - first);
        partitions.len() as f64 / (f64::from(span) + 1.0)
    }

    /// Forgets a closed exchange.
    pub fn forget(&self, exchange: &ExchangeId) {
        self.0.lock().pop(exchange);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn density_is_the_share_of_the_partitions_between_the_first_and_the_last() {
        let (neighbours, exchange) = (ReadDensity::default(), "q-1".parse().unwrap());
        assert_eq!(neighbours.density(&exchange), 0.0);
        neighbours.saw(&exchange, 10);
        neighbours.saw(&exchange, 10);
        assert_eq!(neighbours.density(&exchange), 0.0);
        neighbours.saw(&exchange, 11);
        assert_eq!(neighbours.density(&exchange), 1.0);
        neighbours.saw(&exchange, 15);
        assert_eq!(neighbours.density(&exchange), 0.5);
        neighbours.saw(&exchange, u32::MAX);
        assert!(neighbours.density(&exchange) < 0.001);
        neighbours.forget(&exchange);
        assert_eq!(neighbours.density(&exchange), 0.0);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let neighbours = ReadDensity::default();
        let name = |n: u32| format!("q-{n}").parse::<ExchangeId>().unwrap();
        for n in 0..10_000 {
            neighbours.saw(&name(0), n);
            neighbours.saw(&name(n + 1), n);
        }
        let seen = neighbours.0.lock();
        assert_eq!(seen.len(), EXCHANGES.get());
        assert_eq!(seen.peek(&name(0)).unwrap().len(), PARTITIONS);
    }
}
