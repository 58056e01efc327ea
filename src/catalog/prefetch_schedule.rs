//! When to prefetch new footers while the tasks of an exchange finish.
//!
//! Does: count the attempts that were chosen, and decide when a prefetch is due. Does not: fetch
//! (`prefetch_run`). Invariant: one prefetch of an exchange at a time, and their number grows with
//! the logarithm of the number of tasks.

use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use crate::id::ExchangeId;

/// Exchanges whose progress is recorded. For others, planning is only slower.
const CAPACITY: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");
/// New attempts that a prefetch needs, at least: fewer footers are planned as fast without it.
const MIN_ATTEMPTS: usize = 16;
/// A prefetch is due once this share of all chosen attempts is new, `1 / SHARE`.
const SHARE: usize = 8;

/// How many chosen attempts of an exchange were reported to this daemon.
#[derive(Debug, Default)]
struct Progress {
    chosen: usize,
    since_last_prefetch: usize,
    running: bool,
}

/// The progress of exchanges whose tasks finish. Cheap to clone.
#[derive(Clone)]
pub(super) struct PrefetchSchedule(Arc<Mutex<LruCache<ExchangeId, Progress>>>);

impl Default for PrefetchSchedule {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(LruCache::new(CAPACITY))))
    }
}

impl PrefetchSchedule {
    /// Counts chosen attempts. If a prefetch is due and none is running, records that one starts
    /// and returns true.
    pub(super) fn start_if_due(&self, exchange: &ExchangeId, attempts: usize) -> bool {
        let mut all = self.0.lock();
        let progress = all.get_or_insert_mut(exchange.clone(), Progress::default);
        progress.chosen = progress.chosen.saturating_add(attempts);
        progress.since_last_prefetch = progress.since_last_prefetch.saturating_add(attempts);
        let due = progress.since_last_prefetch >= MIN_ATTEMPTS.max(progress.chosen / SHARE);
        if progress.running || !due {
            return false;
        }
        progress.running = true;
        progress.since_last_prefetch = 0;
        true
    }

    /// Records that the running prefetch of an exchange has ended.
    pub(super) fn end(&self, exchange: &ExchangeId) {
        if let Some(progress) = self.0.lock().peek_mut(exchange) {
            progress.running = false;
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
    fn prefetches_are_rare_one_at_a_time_and_leave_at_most_an_eighth_to_the_plan() {
        let (schedule, x): (_, ExchangeId) = (PrefetchSchedule::default(), "q".parse().unwrap());
        let mut starts = Vec::new();
        for chosen in 1..=100_000 {
            if schedule.start_if_due(&x, 1) {
                starts.push(chosen);
                assert!(!schedule.start_if_due(&x, 0), "one is running");
                schedule.end(&x);
            }
        }
        assert_eq!(starts[..3], [16, 32, 48]);
        assert!(starts.len() < 80, "{} prefetches", starts.len());
        assert!(starts.last().unwrap() * 8 / 7 >= 99_000, "{starts:?}");
        schedule.forget(&x);
        assert!(!schedule.start_if_due(&x, 15));
        assert!(schedule.start_if_due(&x, 1), "it starts from zero");
    }
}
