//! Claims about pools: waiting, eviction, and reservations that move with their bytes.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::pool::RETRY_INTERVAL;
use super::*;

#[tokio::test]
async fn a_reservation_beyond_the_pool_waits_until_bytes_are_released() {
    let pool = MemoryPool::new("test", 100);
    let first = pool.reserve("q", 80).await.unwrap();
    let other = pool.clone();
    let second = tokio::spawn(async move { other.reserve("q", 40).await.unwrap() });
    tokio::task::yield_now().await;
    assert!(!second.is_finished());
    assert_eq!(pool.waiting(), 40);
    drop(first);
    let second = second.await.unwrap();
    assert_eq!((pool.used(), pool.waiting()), (40, 0));
    drop(second);
    assert_eq!(pool.used(), 0);
}

#[tokio::test]
async fn a_cancelled_waiter_is_not_counted_and_acquires_nothing() {
    let pool = MemoryPool::new("test", 100);
    let _held = pool.reserve("q", 80).await.unwrap();
    let other = pool.clone();
    let waiter = tokio::spawn(async move { other.reserve("q", 40).await.map(drop) });
    tokio::task::yield_now().await;
    waiter.abort();
    assert!(waiter.await.unwrap_err().is_cancelled());
    assert_eq!((pool.used(), pool.waiting()), (80, 0));
}

#[tokio::test]
async fn a_reservation_larger_than_the_pool_is_refused_with_advice() {
    let error = MemoryPool::new("write", 100)
        .reserve("q", 101)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("memory.budget"));
}

#[tokio::test]
async fn a_reservation_grows_and_shrinks_and_wakes_waiters() {
    let pool = MemoryPool::new("test", 100);
    let mut held = pool.reserve("q", 60).await.unwrap();
    held.absorb(pool.try_reserve("q", 30).unwrap());
    let waiting = pool.reserve("r", 40);
    let mut waiting = Box::pin(waiting);
    assert!(futures::poll!(&mut waiting).is_pending());
    held.shrink_to(60);
    assert_eq!(waiting.await.unwrap().bytes(), 40);
    assert_eq!((held.bytes(), pool.used()), (60, 60));
    held.shrink_to(70);
    assert_eq!(held.bytes(), 60, "it does not grow");
    let part = held.split_off(20);
    assert_eq!((held.bytes(), part.bytes(), pool.used()), (40, 20, 60));
    drop(part);
    assert_eq!((held.split_off(50).bytes(), held.bytes()), (40, 0));
}

#[tokio::test]
async fn bounds_that_are_changed_apply_to_what_waits() {
    let pool = MemoryPool::limited("test", 100, Some(30));
    assert_eq!((pool.capacity(), pool.query_limit()), (100, 30));
    assert!(pool.reserve("q", 31).await.is_err());
    let held = pool.reserve("q", 30).await.unwrap();
    let mut waiting = Box::pin(pool.reserve("q", 20));
    assert!(futures::poll!(&mut waiting).is_pending());
    assert_eq!(pool.shortage().limited, [("q".into(), 20)]);
    pool.set_query_limit(Some(60));
    assert_eq!((pool.query_limit(), pool.capacity()), (60, 100));
    let more = waiting.await.unwrap();
    pool.set_query_limit(None);
    assert_eq!(pool.query_limit(), 100);
    pool.set_capacity(40);
    assert_eq!((pool.capacity(), pool.query_limit()), (40, 40));
    assert_eq!(pool.used(), 50, "what is held stays held");
    assert!(pool.try_reserve("r", 1).is_none());
    drop((held, more));
    assert!(pool.try_reserve("r", 40).is_some());
}

#[tokio::test]
async fn a_shortage_begins_when_a_request_waits_and_not_before() {
    let pool = MemoryPool::new("test", 10);
    let mut begins = Box::pin(pool.shortage_begins());
    assert!(futures::poll!(&mut begins).is_pending());
    let held = pool.reserve("q", 10).await.unwrap();
    assert!(futures::poll!(&mut begins).is_pending(), "none waits");
    let mut waiting = Box::pin(pool.reserve("r", 1));
    assert!(futures::poll!(&mut waiting).is_pending());
    assert!(futures::poll!(&mut begins).is_ready());
    pool.shortage_begins().await;
    drop(held);
    waiting.await.unwrap();
    let mut begins = Box::pin(pool.shortage_begins());
    assert!(futures::poll!(&mut begins).is_pending(), "it has ended");
}

#[tokio::test(start_paused = true)]
async fn the_reclaim_loop_rests_while_no_request_waits() {
    let pool = MemoryPool::new("test", 10);
    let rounds = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&rounds);
    let count = move |_: &MemoryPool| *counted.lock() += 1;
    tokio::spawn(pool.clone().run_reclaim_loop(tokio::time::sleep, count));
    let held = pool.reserve("q", 10).await.unwrap();
    let mut waiting = Box::pin(pool.reserve("r", 1));
    assert!(futures::poll!(&mut waiting).is_pending());
    tokio::time::sleep(10 * RETRY_INTERVAL).await;
    assert!(*rounds.lock() >= 5, "{} rounds", rounds.lock());
    drop(held);
    waiting.await.unwrap();
    tokio::time::sleep(2 * RETRY_INTERVAL).await;
    let before = *rounds.lock();
    tokio::time::sleep(10 * RETRY_INTERVAL).await;
    assert_eq!(*rounds.lock(), before);
}

#[tokio::test]
async fn slices_hold_their_reservation_until_the_last_is_dropped() {
    let pool = MemoryPool::new("test", 100);
    let reservation = pool.reserve("q", 10).await.unwrap();
    let bytes = ReservedBytes::into_bytes(Bytes::from_static(b"0123456789"), reservation);
    let slice = bytes.slice(2..4);
    drop(bytes);
    assert_eq!((pool.used(), slice.as_ref()), (10, b"23".as_ref()));
    drop(slice);
    assert_eq!(pool.used(), 0);
}

/// Entries of one query with their last use, oldest first; a response may hold one as well.
struct Cache {
    query: &'static str,
    entries: Mutex<Vec<(u64, Arc<Reservation>)>>,
}

impl Cache {
    fn of(query: &'static str, pool: &MemoryPool) -> Arc<Self> {
        let entries = Mutex::default();
        let cache = Arc::new(Self { query, entries });
        pool.add_reclaimer(cache.clone());
        cache
    }

    fn insert(&self, last_use: u64, bytes: Reservation) -> Arc<Reservation> {
        let bytes = Arc::new(bytes);
        self.entries.lock().push((last_use, Arc::clone(&bytes)));
        bytes
    }

    fn last_uses(&self) -> Vec<u64> {
        self.entries
            .lock()
            .iter()
            .map(|(last_use, _)| *last_use)
            .collect()
    }
}

impl Reclaim for Cache {
    fn victim_last_use(&self, of_query: Option<&str>) -> Option<u64> {
        let mine = of_query.is_none_or(|query| query == self.query);
        let entries = self.entries.lock();
        entries
            .first()
            .filter(|_| mine)
            .map(|(last_use, _)| *last_use)
    }

    fn reclaim(&self, _: Option<&str>) -> Option<u64> {
        let mut entries = self.entries.lock();
        (!entries.is_empty()).then(|| entries.remove(0).1.bytes())
    }
}

#[tokio::test]
async fn the_least_recently_used_entries_of_all_caches_are_evicted_before_a_request_waits() {
    let pool = MemoryPool::new("test", 100);
    let reserve = |bytes| pool.try_reserve("q", bytes).unwrap();
    let (one, other) = (Cache::of("q", &pool), Cache::of("q", &pool));
    for (cache, last_use) in [(&one, 1), (&other, 2), (&other, 3), (&one, 4)] {
        cache.insert(last_use, reserve(20));
    }
    let granted = pool.reserve("q", 70).await.unwrap();
    assert_eq!((one.last_uses(), other.last_uses()), (vec![4], Vec::new()));
    assert_eq!((granted.bytes(), pool.used()), (70, 90));
    assert!(
        pool.try_reserve("q", 40).is_none(),
        "evicting everything is not enough"
    );
}

#[tokio::test]
async fn a_reservation_moves_with_every_slice_of_its_bytes_or_not_at_all() {
    let (from, to) = (MemoryPool::new("a", 100), MemoryPool::new("b", 15));
    let (bytes, weak) = {
        let reservation = from.reserve("q", 10).await.unwrap();
        ReservedBytes::into_transferable(Bytes::from_static(b"0123456789"), reservation)
    };
    let slice = bytes.slice(2..4);
    drop(bytes);
    assert!(weak.is_held());
    let full = to.reserve("r", 6).await.unwrap();
    assert_eq!(weak.transfer_to(&to), None);
    assert_eq!((from.used(), to.used()), (10, 6));
    drop(full);
    assert_eq!(weak.transfer_to(&to), Some(10));
    assert_eq!((from.used(), to.used()), (0, 10));
    assert_eq!(to.queries(), [("q".into(), 10, 0)]);
    drop(slice);
    assert_eq!((from.used(), to.used()), (0, 0));
    assert!(!weak.is_held());
    assert_eq!(weak.transfer_to(&to), Some(0), "the buffer was dropped");
}

fn with_reclaim_loop(pool: MemoryPool) -> MemoryPool {
    tokio::spawn(pool.clone().run_reclaim_loop(tokio::time::sleep, |_| ()));
    pool
}

/// The output, unless it takes much longer than one retry.
async fn soon<T>(answer: impl Future<Output = T>) -> T {
    let answer = tokio::time::timeout(10 * RETRY_INTERVAL, answer).await;
    answer.expect("reclaim is retried")
}

#[tokio::test(start_paused = true)]
async fn a_waiter_gets_the_next_cache_entry_if_the_first_is_still_in_use() {
    let pool = with_reclaim_loop(MemoryPool::new("read", 120));
    let cache = Cache::of("q", &pool);
    let reserve = || pool.try_reserve("q", 40).unwrap();
    // Both are evicted, one for the query and one for the pool, and neither frees anything.
    let in_use = (cache.insert(1, reserve()), cache.insert(2, reserve()));
    cache.insert(3, reserve());
    let granted = soon(pool.reserve("q", 40)).await.unwrap();
    assert_eq!((granted.bytes(), pool.used()), (40, 120));
    drop(in_use);
}

#[tokio::test(start_paused = true)]
async fn a_query_that_was_at_its_limit_gets_the_memory_of_entries_cached_meanwhile() {
    let pool = with_reclaim_loop(MemoryPool::limited("read", 100, Some(60)));
    let cache = Cache::of("r", &pool);
    let held = pool.try_reserve("q", 30).unwrap();
    let mut waiting = Box::pin(pool.reserve("q", 40));
    assert!(futures::poll!(&mut waiting).is_pending());
    cache.insert(1, pool.try_reserve("r", 60).unwrap());
    let other = pool.try_reserve("s", 10).unwrap();
    drop(held);
    // Now it is next and 30 are free, but nothing else will wake it.
    assert!(futures::poll!(&mut waiting).is_pending());
    assert_eq!(soon(waiting).await.unwrap().bytes(), 40);
    drop(other);
}
