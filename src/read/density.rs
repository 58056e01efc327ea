//! How densely the partitions of an exchange are read at this daemon.
//!
//! Does: record which partitions were read recently. Does not: fetch, or decide what to fetch
//! (`planner`). Invariant: bounded, whatever handles clients send.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;

use lru::LruCache;
use parking_lot::Mutex;

use crate::id::ExchangeId;

/// Number of exchanges that are recorded, the most recently read.
const EXCHANGES: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");
/// Number of partitions recorded for each: enough to estimate their density.
const PARTITIONS: usize = 4096;

/// The partitions that were read, by exchange.
pub(super) struct ReadDensity(Mutex<LruCache<ExchangeId, BTreeSet<u32>>>);

impl Default for ReadDensity {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(EXCHANGES)))
    }
}

impl ReadDensity {
    /// Records that a partition is read here.
    pub(super) fn record(&self, exchange: &ExchangeId, partition: u32) {
        let mut exchanges = self.0.lock();
        let partitions = exchanges.get_or_insert_mut_ref(exchange, BTreeSet::new);
        if partitions.len() < PARTITIONS {
            partitions.insert(partition);
        }
    }

    /// The share of partitions that are read here, among those from the first to the last one read
    /// here. 0 if fewer than two were read, since one is not enough for an estimate.
    pub(super) fn density(&self, exchange: &ExchangeId) -> f64 {
        let exchanges = self.0.lock();
        let Some(partitions) = exchanges.peek(exchange).filter(|p| p.len() > 1) else {
            return 0.0;
        };
        let (first, last) = (partitions.first(), partitions.last());
        let span = last.zip(first).map_or(0, |(last, first)| last - first);
        partitions.len() as f64 / (f64::from(span) + 1.0)
    }

    /// Removes a closed exchange.
    pub(super) fn forget(&self, exchange: &ExchangeId) {
        self.0.lock().pop(exchange);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn density_is_the_share_of_the_partitions_between_the_first_and_the_last() {
        let (density, exchange) = (ReadDensity::default(), "q-1".parse().unwrap());
        assert_eq!(density.density(&exchange), 0.0);
        density.record(&exchange, 10);
        density.record(&exchange, 10);
        assert_eq!(density.density(&exchange), 0.0);
        density.record(&exchange, 11);
        assert_eq!(density.density(&exchange), 1.0);
        density.record(&exchange, 15);
        assert_eq!(density.density(&exchange), 0.5);
        density.record(&exchange, u32::MAX);
        assert!(density.density(&exchange) < 0.001);
        density.forget(&exchange);
        assert_eq!(density.density(&exchange), 0.0);
    }

    #[test]
    fn the_records_are_bounded() {
        let density = ReadDensity::default();
        let name = |n: u32| format!("q-{n}").parse::<ExchangeId>().unwrap();
        for n in 0..10_000 {
            density.record(&name(0), n);
            density.record(&name(n + 1), n);
        }
        let exchanges = density.0.lock();
        assert_eq!(exchanges.len(), EXCHANGES.get());
        assert_eq!(exchanges.peek(&name(0)).unwrap().len(), PARTITIONS);
    }
}
