//! Fetches footers while tasks finish, so that few are missing when the last one has finished.
//!
//! Does: decide when a look at an exchange is due, list its segments, and cache the footers that
//! are not in memory. Does not: plan, or wait for memory. Invariant: one look at an exchange at a
//! time, and the number of looks grows with the logarithm of the number of tasks.

use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use super::error::CatalogError;
use super::lookup::Catalog;
use crate::id::ExchangeId;

/// Exchanges of which the progress is remembered. Without it, planning is only slower.
const CAPACITY: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");
/// Attempts that a look must be for, at least: a smaller exchange is planned as fast without.
const FEWEST: usize = 16;
/// A look is due once this share of all attempts is new, `1 / SHARE`.
const SHARE: usize = 8;

/// How many chosen attempts this daemon was told of.
#[derive(Debug, Default)]
struct Progress {
    told: usize,
    since_last_look: usize,
    looking: bool,
}

/// The progress of exchanges whose tasks finish. Cheap to clone.
#[derive(Clone)]
pub(super) struct Prefetch(Arc<Mutex<LruCache<ExchangeId, Progress>>>);

impl Default for Prefetch {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(LruCache::new(CAPACITY))))
    }
}

impl Prefetch {
    /// Counts chosen attempts; whether a look begins with them.
    fn begins(&self, exchange: &ExchangeId, attempts: usize) -> bool {
        let mut all = self.0.lock();
        let progress = all.get_or_insert_mut(exchange.clone(), Progress::default);
        progress.told = progress.told.saturating_add(attempts);
        progress.since_last_look = progress.since_last_look.saturating_add(attempts);
        let due = progress.since_last_look >= FEWEST.max(progress.told / SHARE);
        if progress.looking || !due {
            return false;
        }
        progress.looking = true;
        progress.since_last_look = 0;
        true
    }

    fn end(&self, exchange: &ExchangeId) {
        if let Some(progress) = self.0.lock().peek_mut(exchange) {
            progress.looking = false;
        }
    }

    pub(super) fn forget(&self, exchange: &ExchangeId) {
        self.0.lock().pop(exchange);
    }
}

/// A look at an exchange that is due. It ends when it is dropped.
pub struct Look {
    catalog: Catalog,
    exchange: ExchangeId,
}

impl Catalog {
    /// Records that attempts were chosen; returns a look if it is due, for the caller to run.
    pub fn chosen(&self, exchange: &ExchangeId, attempts: usize) -> Option<Look> {
        let begins = self.prefetch.begins(exchange, attempts);
        begins.then(|| Look {
            catalog: self.clone(),
            exchange: exchange.clone(),
        })
    }
}

impl Look {
    /// Caches the footers that memory is free for.
    ///
    /// # Errors
    /// As [`Catalog::find_commit`]. A plan that needs the same will say so again.
    pub async fn run(self) -> Result<(), CatalogError> {
        let Self { catalog, exchange } = &self;
        let listed = catalog.storage.list_segments(exchange).await?;
        catalog.loader.prefetch(exchange, &listed).await
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        self.catalog.prefetch.end(&self.exchange);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_rare_one_at_a_time_and_leave_at_most_an_eighth_to_the_plan() {
        let (prefetch, x): (_, ExchangeId) = (Prefetch::default(), "q".parse().unwrap());
        let mut looks = Vec::new();
        for told in 1..=100_000 {
            if prefetch.begins(&x, 1) {
                looks.push(told);
                assert!(!prefetch.begins(&x, 0), "one is under way");
                prefetch.end(&x);
            }
        }
        assert_eq!(looks[..3], [16, 32, 48]);
        assert!(looks.len() < 80, "{} looks", looks.len());
        assert!(looks.last().unwrap() * 8 / 7 >= 99_000, "{looks:?}");
        prefetch.forget(&x);
        assert!(!prefetch.begins(&x, 15));
    }
}
