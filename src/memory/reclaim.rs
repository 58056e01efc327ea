//! What a cache implements so that a pool can evict its entries.
//!
//! Does not: choose among caches (`pool` does).

/// A cache whose entries hold memory of a pool and can be evicted.
pub trait Reclaim: Send + Sync {
    /// When the entry that [`Reclaim::reclaim`] would evict was last used, as a tick of
    /// [`MemoryPool::next_use_tick`](super::MemoryPool::next_use_tick). With a query named, only
    /// its entries count. `None` if there is nothing to evict.
    fn victim_last_use(&self, of_query: Option<&str>) -> Option<u64>;

    /// Evicts the least recently used entry, of one query if it is named, and returns the bytes
    /// that it held; `None` if there is nothing to evict.
    fn reclaim(&self, of_query: Option<&str>) -> Option<u64>;
}
