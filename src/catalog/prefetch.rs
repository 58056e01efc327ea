//! When to look for new footers while the tasks of an exchange finish.
//!
//! Does: count the attempts that were chosen, and decide when a look is due. Does not: look
//! (`look`). Invariant: one look at an exchange at a time, and the number of looks grows with the
//! logarithm of the number of tasks.

use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

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
    pub(super) fn begins(&self, exchange: &ExchangeId, attempts: usize) -> bool {
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

    pub(super) fn end(&self, exchange: &ExchangeId) {
        if let Some(progress) = self.0.lock().peek_mut(exchange) {
            progress.looking = false;
        }
    }

    pub(super) fn forget(&self, exchange: &ExchangeId) {
        self.0.lock().pop(exchange);
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
