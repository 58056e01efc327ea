//! A map whose entries are evicted, least recently used first, when their pool is short of memory.
//!
//! Does: count the bytes of entries and choose the one to evict. Does not: reserve memory; the
//! values own their reservations. Invariant: `bytes` is the sum over all entries.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use crate::id::ExchangeId;
use crate::memory::{MemoryPool, Reclaim};

/// The map. Methods that count as a use get the tick of that use
/// ([`MemoryPool::next_use_tick`]).
pub(super) struct Lru<K, V> {
    entries: LruCache<K, Entry<V>>,
    bytes: u64,
}

struct Entry<V> {
    value: V,
    exchange: ExchangeId,
    /// 0 while the value is being fetched; such an entry cannot be evicted.
    bytes: u64,
    last_use: u64,
}

impl<K: Clone + Eq + Hash, V> Lru<K, V> {
    /// An empty map.
    pub(super) fn new() -> Self {
        let entries = LruCache::unbounded();
        Self { entries, bytes: 0 }
    }

    /// An empty map from which a pool evicts.
    pub(super) fn registered(pool: &MemoryPool) -> Arc<Mutex<Self>>
    where
        K: Send + 'static,
        V: Send + 'static,
    {
        let lru = Arc::new(Mutex::new(Self::new()));
        pool.add_reclaimer(Arc::clone(&lru) as Arc<dyn Reclaim>);
        lru
    }

    /// A value, marked as used.
    pub(super) fn get(&mut self, key: &K, tick: u64) -> Option<&mut V> {
        let entry = self.entries.get_mut(key)?;
        entry.last_use = tick;
        Some(&mut entry.value)
    }

    /// A value, not marked as used.
    pub(super) fn peek(&self, key: &K) -> Option<&V> {
        self.entries.peek(key).map(|entry| &entry.value)
    }

    /// Inserts or replaces a value of `bytes`, marked as used.
    pub(super) fn insert(&mut self, key: K, exchange: ExchangeId, value: V, bytes: u64, tick: u64) {
        self.bytes += bytes;
        let entry = Entry {
            value,
            exchange,
            bytes,
            last_use: tick,
        };
        if let Some(replaced) = self.entries.put(key, entry) {
            self.bytes -= replaced.bytes;
        }
    }

    /// Adds to the bytes of an entry.
    pub(super) fn grow(&mut self, key: &K, bytes: u64) {
        if let Some(entry) = self.entries.peek_mut(key) {
            entry.bytes += bytes;
            self.bytes += bytes;
        }
    }

    /// Removes an entry.
    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.pop(key)?;
        self.bytes -= entry.bytes;
        Some(entry.value)
    }

    /// Removes all entries of a closed exchange.
    pub(super) fn forget(&mut self, exchange: &ExchangeId) {
        self.remove_where(|_, of| of == exchange);
    }

    /// Removes all entries whose key and exchange satisfy `condition`.
    pub(super) fn remove_where(&mut self, condition: impl Fn(&K, &ExchangeId) -> bool) {
        let entries = self.entries.iter();
        let matching = entries.filter(|(key, entry)| condition(key, &entry.exchange));
        let keys: Vec<K> = matching.map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.remove(&key);
        }
    }

    /// Removes the least recently used entry, of one query if it is named, and returns it with its
    /// bytes.
    pub(super) fn evict(&mut self, of_query: Option<&str>) -> Option<(K, V, u64)> {
        let (key, entry) = self.victim(of_query)?;
        let (key, bytes) = (key.clone(), entry.bytes);
        let value = self.remove(&key)?;
        Some((key, value, bytes))
    }

    /// When the entry that [`Lru::evict`] would remove was last used.
    pub(super) fn victim_last_use(&self, of_query: Option<&str>) -> Option<u64> {
        self.victim(of_query).map(|(_, entry)| entry.last_use)
    }

    fn victim(&self, of_query: Option<&str>) -> Option<(&K, &Entry<V>)> {
        let mut least_recent_first = self.entries.iter().rev();
        least_recent_first.find(|(_, entry)| {
            entry.bytes > 0 && of_query.is_none_or(|query| entry.exchange.query() == query)
        })
    }

    /// Bytes of all entries.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The keys of an exchange's entries.
    pub(super) fn keys(&self, exchange: &ExchangeId) -> Vec<K> {
        let entries = self.entries.iter();
        let of_exchange = entries.filter(|(_, entry)| entry.exchange == *exchange);
        of_exchange.map(|(key, _)| key.clone()).collect()
    }

    /// The exchanges that have an entry.
    pub(super) fn exchanges(&self) -> HashSet<ExchangeId> {
        let entries = self.entries.iter();
        entries.map(|(_, entry)| entry.exchange.clone()).collect()
    }
}

impl<K: Clone + Eq + Hash + Send, V: Send> Reclaim for Mutex<Lru<K, V>> {
    fn victim_last_use(&self, of_query: Option<&str>) -> Option<u64> {
        self.lock().victim_last_use(of_query)
    }

    fn reclaim(&self, of_query: Option<&str>) -> Option<u64> {
        // The value is dropped after the lock has been released.
        let evicted = self.lock().evict(of_query);
        evicted.map(|(_, _, bytes)| bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eviction_prefers_the_least_recent_use_and_spares_entries_without_bytes() {
        let (a, b): (ExchangeId, ExchangeId) = ("a".parse().unwrap(), "b".parse().unwrap());
        let mut lru = Lru::new();
        lru.insert(0, a.clone(), "fetching", 0, 0);
        lru.insert(1, a.clone(), "one", 10, 1);
        lru.insert(2, b.clone(), "two", 20, 2);
        lru.insert(3, a.clone(), "three", 30, 3);
        assert_eq!(lru.get(&1, 4), Some(&mut "one"));
        assert_eq!((lru.bytes(), lru.exchanges()), (60, [a, b.clone()].into()));
        assert_eq!(lru.victim_last_use(None), Some(2));
        assert_eq!(lru.victim_last_use(Some("a")), Some(3));
        assert_eq!(lru.evict(Some("a")), Some((3, "three", 30)));
        lru.forget(&b);
        assert_eq!(lru.evict(None), Some((1, "one", 10)));
        assert_eq!((lru.evict(None), lru.bytes()), (None, 0));
        lru.grow(&0, 5);
        assert_eq!(lru.evict(None), Some((0, "fetching", 5)));
    }

    #[test]
    fn a_value_that_is_replaced_counts_no_longer_and_keys_are_those_of_an_exchange() {
        let (a, b): (ExchangeId, ExchangeId) = ("a".parse().unwrap(), "b".parse().unwrap());
        let mut lru = Lru::new();
        lru.insert(1, a.clone(), "one", 10, 1);
        lru.insert(2, b.clone(), "two", 5, 2);
        lru.insert(1, a.clone(), "other", 3, 3);
        assert_eq!((lru.bytes(), lru.peek(&1)), (8, Some(&"other")));
        assert_eq!((lru.keys(&a), lru.keys(&b)), (vec![1], vec![2]));
        lru.remove_where(|key, exchange| *key == 2 && *exchange == a);
        assert_eq!(lru.bytes(), 8, "both must match");
        assert_eq!((lru.remove(&1), lru.bytes()), (Some("other"), 5));
        assert_eq!((lru.remove(&1), lru.keys(&a)), (None, vec![]));
    }

    #[test]
    fn a_pool_that_lacks_memory_evicts_from_a_registered_map() {
        let pool = MemoryPool::new("test", 10);
        let lru = Lru::registered(&pool);
        let exchange: ExchangeId = "a".parse().unwrap();
        let held = pool.try_reserve("a", 10).unwrap();
        lru.lock().insert(1, exchange.clone(), held, 10, 1);
        assert_eq!(lru.reclaim(Some("b")), None, "nothing is of this query");
        assert!(pool.try_reserve("b", 4).is_some());
        assert_eq!(lru.lock().bytes(), 0);
        let held = pool.try_reserve("a", 7).unwrap();
        lru.lock().insert(2, exchange, held, 7, 2);
        assert_eq!((lru.reclaim(None), pool.used()), (Some(7), 0));
    }

    #[test]
    fn a_pool_evicts_the_least_recent_use_of_all_its_maps() {
        let pool = MemoryPool::new("test", 20);
        let (older, newer) = (Lru::registered(&pool), Lru::registered(&pool));
        let exchange: ExchangeId = "a".parse().unwrap();
        for (lru, tick) in [(&older, 3), (&newer, 5)] {
            let held = pool.try_reserve("a", 10).unwrap();
            lru.lock().insert(1, exchange.clone(), held, 10, tick);
        }
        assert!(
            older.lock().peek(&1).is_some(),
            "which does not count as a use"
        );
        let held = pool.try_reserve("b", 10).unwrap();
        assert_eq!((older.lock().bytes(), newer.lock().bytes()), (0, 10));
        assert!(older.lock().peek(&1).is_none());
        drop(held);
    }
}
