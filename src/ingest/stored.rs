//! How much queries have stored, and the limit on that.
//!
//! Does: count the segments that this daemon uploads, by query, until their exchange is closed.
//! Does not: count what other daemons have stored, or what this one had stored before it was
//! started. Invariant: what is counted for an exchange is in its `stored_bytes` too, and is
//! subtracted when the exchange is closed, whatever uploads are in progress.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::config::units::format_size_like;
use crate::human::count;

/// A segment that its query may not store.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "query {query} may not store {} more: it has {} at this daemon, of {} that \
     query.max_stored_size permits: let it exchange less, or raise query.max_stored_size",
    count(*size, "byte"), format_size_like(*.stored, *.limit), format_size_like(*.limit, *.limit)
)]
pub struct TooMuchStored {
    pub query: String,
    pub stored: u64,
    pub size: u64,
    pub limit: u64,
}

/// Bytes stored, by query.
#[derive(Debug)]
pub(super) struct StoredBytes {
    /// `u64::MAX` is "unlimited".
    limit: AtomicU64,
    queries: Mutex<BTreeMap<String, u64>>,
}

impl StoredBytes {
    pub(super) fn new(limit: Option<u64>) -> Self {
        Self {
            limit: AtomicU64::new(limit.unwrap_or(u64::MAX)),
            queries: Mutex::default(),
        }
    }

    /// Changes the limit; what is stored already counts.
    pub(super) fn set_limit(&self, limit: Option<u64>) {
        let limit = limit.unwrap_or(u64::MAX);
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Counts a segment that is about to be uploaded.
    ///
    /// # Errors
    /// Its query would exceed its limit.
    pub(super) fn add(&self, query: &str, size: u64) -> Result<(), TooMuchStored> {
        let limit = self.limit.load(Ordering::Relaxed);
        let mut queries = self.queries.lock();
        let stored = queries.get(query).copied().unwrap_or(0);
        if stored.saturating_add(size) > limit {
            return Err(TooMuchStored {
                query: query.to_owned(),
                stored,
                size,
                limit,
            });
        }
        queries.insert(query.to_owned(), stored + size);
        Ok(())
    }

    /// Discounts what could not be uploaded, or was removed.
    pub(super) fn remove(&self, query: &str, size: u64) {
        let mut queries = self.queries.lock();
        if let Some(stored) = queries.get_mut(query) {
            *stored -= size;
            if *stored == 0 {
                queries.remove(query);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_stores_up_to_its_limit_and_no_more() {
        let stored = StoredBytes::new(Some(10));
        stored.add("q", 4).unwrap();
        stored.add("q", 6).unwrap();
        let refused = stored.add("q", 1).unwrap_err();
        let found = (refused.stored, refused.size, refused.limit);
        assert_eq!((found, &*refused.query), ((10, 1, 10), "q"));
        stored.add("r", 10).unwrap();
        stored.remove("q", 4);
        assert!(stored.add("q", 5).is_err());
        stored.add("q", 4).unwrap();
        stored.remove("never", 4);
    }

    #[test]
    fn a_limit_that_is_changed_counts_what_is_stored_already() {
        let stored = StoredBytes::new(None);
        stored.add("q", 1 << 40).unwrap();
        stored.set_limit(Some(1 << 40));
        assert!(stored.add("q", 1).is_err());
        stored.set_limit(None);
        stored.add("q", 1).unwrap();
    }

    #[test]
    fn a_query_whose_segments_are_all_removed_is_forgotten() {
        let stored = StoredBytes::new(Some(10));
        stored.add("q", 4).unwrap();
        stored.add("q", 5).unwrap();
        stored.remove("q", 4);
        assert_eq!(stored.queries.lock().get("q"), Some(&5));
        stored.remove("q", 5);
        assert!(stored.queries.lock().is_empty());
    }
}
