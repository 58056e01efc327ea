//! The sets of exchanges that this daemon knows.
//!
//! Does: store them, for a bounded number of exchanges. Does not: interpret sets (`base_set`).
//! Invariant: a set only grows: if an exchange was announced several times, the members of all
//! announcements count.

use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use crate::id::{BaseId, ExchangeId};

/// Exchanges whose sets are stored. For any other, all base directories count as members.
const CAPACITY: NonZeroUsize = NonZeroUsize::new(100_000).expect("not zero");

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
}
