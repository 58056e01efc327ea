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
