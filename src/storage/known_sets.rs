//! The sets of exchanges that this daemon knows.
//!
//! Does: store them, for a bounded number of exchanges. Does not: interpret sets (`base_set`).
//! Invariant: a set only grows: if an exchange was announced several times, the members of all
//! announcements count, and so does a base directory in which a marker of it was found.

use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use crate::id::{BaseId, ExchangeId};

/// Exchanges whose sets are stored. For any other, all base directories count as members.
const CAPACITY: NonZeroUsize = NonZeroUsize::new(20_000).expect("not zero");

#[derive(Debug)]
pub(super) struct KnownSets(Mutex<LruCache<ExchangeId, Arc<[BaseId]>>>);

impl Default for KnownSets {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(CAPACITY)))
    }
}

impl KnownSets {
    pub(super) fn get(&self, exchange: &ExchangeId) -> Option<Arc<[BaseId]>> {
        self.0.lock().get(exchange).cloned()
    }

    pub(super) fn add(&self, exchange: &ExchangeId, set: &[BaseId]) {
        let mut sets = self.0.lock();
        let known = sets.get_or_insert(exchange.clone(), || set.into());
        let new = set.iter().filter(|id| !known.contains(id)).copied();
        let new: Vec<BaseId> = new.collect();
        if !new.is_empty() {
            let all = [&known[..], &new].concat();
            sets.put(exchange.clone(), all.into());
        }
    }

    /// Adds a base directory in which a marker of the exchange was found, if a set of the exchange
    /// is known: another announcement of it has put the marker there.
    pub(super) fn add_found(&self, exchange: &ExchangeId, base: BaseId) {
        let known = self.0.lock().peek(exchange).cloned();
        if known.is_some_and(|set| !set.contains(&base)) {
            self.add(exchange, &[base]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(sets: &KnownSets, exchange: &ExchangeId) -> Option<Vec<u64>> {
        let set = sets.get(exchange)?;
        Some(set.iter().map(|id| id.0).collect())
    }

    #[test]
    fn a_marker_that_was_found_makes_its_base_directory_a_member() {
        let (sets, exchange) = (KnownSets::default(), "q".parse().unwrap());
        sets.add_found(&exchange, BaseId(1));
        assert_eq!(known(&sets, &exchange), None, "all must answer for it");
        sets.add(&exchange, &[BaseId(2)]);
        sets.add_found(&exchange, BaseId(2));
        assert_eq!(known(&sets, &exchange), Some(vec![2]));
        sets.add_found(&exchange, BaseId(1));
        assert_eq!(known(&sets, &exchange), Some(vec![2, 1]));
    }
}
