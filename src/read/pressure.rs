//! Makes room when readers wait for memory.
//!
//! Does: ask the caches again as long as anybody waits. Does not: take from those who read.
//! Invariant: nobody waits for long beside memory that nobody uses: what a cache gave back may be
//! held by a response still, and what was free when a reader began to wait may hold a segment by
//! the time when its turn comes.

use std::time::Duration;

use crate::clock::Clock;
use crate::memory::MemoryPool;

/// How often the need is looked at while somebody waits.
const LOOK: Duration = Duration::from_millis(20);

/// Runs as long as the daemon.
pub async fn relieve(pool: MemoryPool, clock: Clock) {
    loop {
        pool.pressure().await;
        while pool.waiting() > 0 {
            clock.sleep(LOOK).await;
            pool.reclaim_for_waiting();
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;
    use crate::memory::{Reclaim, Reservation};
    use parking_lot::Mutex;
    use std::sync::Arc;

    /// What is kept of one query, of which responses may hold some as well.
    struct Cache {
        query: &'static str,
        kept: Mutex<Vec<Arc<Reservation>>>,
    }

    impl Cache {
        fn of(query: &'static str, pool: &MemoryPool) -> Arc<Self> {
            let kept = Mutex::default();
            let cache = Arc::new(Self { query, kept });
            pool.add_reclaimer(cache.clone());
            cache
        }
    }

    impl Reclaim for Cache {
        fn idle_since(&self, of_query: Option<&str>) -> Option<u64> {
            let mine = of_query.is_none_or(|query| query == self.query);
            (mine && !self.kept.lock().is_empty()).then_some(0)
        }

        fn reclaim(&self, _: Option<&str>) -> Option<u64> {
            self.kept.lock().pop().map(|kept| kept.bytes())
        }
    }

    fn relieved(pool: MemoryPool) -> MemoryPool {
        tokio::spawn(relieve(pool.clone(), Clock::default()));
        pool
    }

    /// The answer, unless it is waited for much longer than a look takes.
    async fn soon<T>(answer: impl Future<Output = T>) -> T {
        let answer = tokio::time::timeout(10 * LOOK, answer).await;
        answer.expect("what is kept is asked for again")
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_the_next_that_is_kept_where_the_first_is_still_in_use() {
        let pool = relieved(MemoryPool::new("read", 100));
        let take = || Arc::new(pool.try_reserve("q", 40).unwrap());
        let (unused, in_use) = (take(), take());
        let cache = Cache::of("q", &pool);
        *cache.kept.lock() = vec![unused, Arc::clone(&in_use)];
        let granted = soon(pool.reserve("q", 50)).await.unwrap();
        assert_eq!((granted.bytes(), pool.used()), (50, 90));
        drop(in_use);
    }

    #[tokio::test(start_paused = true)]
    async fn a_query_that_was_at_its_limit_gets_the_room_of_what_others_kept_meanwhile() {
        let pool = relieved(MemoryPool::limited("read", 100, Some(60)));
        let cache = Cache::of("r", &pool);
        let held = pool.try_reserve("q", 60).unwrap();
        let mut waiting = Box::pin(pool.reserve("q", 60));
        assert!(futures::poll!(&mut waiting).is_pending());
        let kept = pool.try_reserve("r", 40).unwrap();
        drop(held);
        // Now it is its turn, and nothing happens any more.
        let more = pool.try_reserve("r", 10);
        assert!(more.is_none());
        *cache.kept.lock() = vec![Arc::new(kept)];
        assert_eq!(soon(waiting).await.unwrap().bytes(), 60);
    }
}
