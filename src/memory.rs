//! The memory budget: page bytes are held only under a [`Reservation`].
//!
//! Does: count bytes, make those wait who would exceed a pool or their query's limit, and ask
//! caches to give back what has been of no use for longest. Does not: hold bytes itself, or decide
//! whose turn it is among queries (`fair` does). Invariant: the sum of live reservations of a pool
//! never exceeds its capacity, that of one query never its limit; waiting never fails.
//!
//! Writing and reading have a pool each: readers that do not progress (their task waits for its own
//! sink) must never take the memory which sinks need to progress, or the two would wait for each
//! other. What nobody waits for may go from one to the other ([`WeakReservation`]).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::fair::{FairPermit, FairSemaphore, Shortage};

/// How often the need is looked at while somebody waits, and how late a missed signal is noticed.
const LOOK: Duration = Duration::from_millis(20);

/// Gives memory back on demand.
pub trait Reclaim: Send + Sync {
    /// When that was last used, by [`MemoryPool::stamp`], which [`Reclaim::reclaim`] would give
    /// back next, of one query's if one is named; `None` if it has nothing to give.
    fn victim_last_use(&self, of_query: Option<&str>) -> Option<u64>;

    /// Gives back what was used longest ago, of one query's if one is named; answers how many bytes
    /// that were, `None` if it has nothing to give.
    fn reclaim(&self, of_query: Option<&str>) -> Option<u64>;
}

/// A bounded number of bytes, shared fairly among queries. Cheap to clone.
#[derive(Clone)]
pub struct MemoryPool(Arc<Inner>);

struct Inner {
    name: &'static str,
    bytes: FairSemaphore,
    pressure: Notify,
    short: Notify,
    reclaimers: RwLock<Vec<Arc<dyn Reclaim>>>,
    uses: AtomicU64,
}

/// Bytes that were granted; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    permit: FairPermit,
}

/// A reservation that could never be granted.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "{requested} bytes were asked of the {pool} memory, of which one query may hold {limit}: raise \
     memory.budget or query.max_{pool}_memory, or send less at a time"
)]
pub struct OverCapacity {
    /// Which pool.
    pub pool: &'static str,
    /// What was asked.
    pub requested: u64,
    /// What one query may hold.
    pub limit: u64,
}

impl MemoryPool {
    /// A pool of `capacity` bytes, all of which one query may hold while nobody else wants any.
    pub fn new(name: &'static str, capacity: u64) -> Self {
        Self::limited(name, capacity, None)
    }

    /// A pool of `capacity` bytes, of which one query may hold `limit`.
    pub fn limited(name: &'static str, capacity: u64, limit: Option<u64>) -> Self {
        Self(Arc::new(Inner {
            name,
            bytes: FairSemaphore::new(capacity, limit),
            pressure: Notify::new(),
            short: Notify::new(),
            reclaimers: RwLock::default(),
            uses: AtomicU64::new(0),
        }))
    }

    /// A number that grows with each call: what has the lower one was used longer ago.
    pub fn next_use_tick(&self) -> u64 {
        self.0.uses.fetch_add(1, Ordering::Relaxed)
    }

    /// Registers a cache whose bytes are reserved here and may be given back.
    pub fn add_reclaimer(&self, reclaimer: Arc<dyn Reclaim>) {
        self.0.reclaimers.write().push(reclaimer);
    }

    /// Waits until `bytes` are granted to a query.
    ///
    /// # Errors
    /// [`OverCapacity`] if the pool could never grant them.
    pub async fn reserve(&self, query: &str, bytes: u64) -> Result<Reservation, OverCapacity> {
        if !self.0.bytes.fits(bytes) {
            return Err(OverCapacity {
                pool: self.0.name,
                requested: bytes,
                limit: self.0.bytes.limit(),
            });
        }
        if let Some(reservation) = self.try_reserve(query, bytes) {
            return Ok(reservation);
        }
        let granted = self.0.bytes.acquire(query, bytes);
        // It counts as waiting already: who is told looks at once.
        self.0.pressure.notify_one();
        self.0.short.notify_waiters();
        let permit = granted.await;
        Ok(Reservation { permit })
    }

    /// Grants `bytes` now, after reclaiming if need be, or not at all. Does not overtake those who
    /// wait.
    pub fn try_reserve(&self, query: &str, bytes: u64) -> Option<Reservation> {
        let permit = self.0.bytes.try_acquire(query, bytes).or_else(|| {
            let (own, _) = self.0.bytes.missing(query, bytes);
            self.reclaim(own, Some(query));
            // What the query itself gave back counts for all.
            let (_, all) = self.0.bytes.missing(query, bytes);
            self.reclaim(all, None);
            self.0.bytes.try_acquire(query, bytes)
        })?;
        Some(Reservation { permit })
    }

    /// Asks the caches for at least `bytes`, of one query's if one is named: what was used longest
    /// ago first, whichever cache it is in.
    fn reclaim(&self, bytes: u64, of_query: Option<&str>) {
        let reclaimers = self.0.reclaimers.read().clone();
        let mut freed = 0;
        while freed < bytes {
            let idle = reclaimers
                .iter()
                .filter_map(|r| Some((r.victim_last_use(of_query)?, r)));
            let Some((_, longest)) = idle.min_by_key(|(since, _)| *since) else {
                break;
            };
            // Nothing if somebody else was faster.
            freed += longest.reclaim(of_query).unwrap_or(0);
        }
    }

    /// Makes room as long as anybody waits: asks the caches again, and does `besides` what else
    /// helps, with a `sleep` in between. What a cache gave back may be held by a response still,
    /// and what was free when somebody began to wait may be taken when their turn comes. Runs as
    /// long as the daemon, once.
    pub async fn run_reclaim_loop<S: Future>(
        self,
        sleep: impl Fn(Duration) -> S,
        besides: impl Fn(&Self),
    ) {
        loop {
            self.pressure().await;
            while self.waiting() > 0 {
                self.reclaim_for_waiters();
                besides(&self);
                sleep(LOOK).await;
            }
        }
    }

    /// Asks the caches for what those need who wait.
    pub fn reclaim_for_waiters(&self) {
        if self.waiting() == 0 {
            return;
        }
        let shortage = self.shortage();
        if shortage.capacity > 0 {
            self.reclaim(shortage.capacity, None);
        }
        for (query, bytes) in &shortage.limited {
            self.reclaim(*bytes, Some(query));
        }
    }

    /// Bytes granted now.
    pub fn used(&self) -> u64 {
        self.0.bytes.held()
    }

    /// Bytes that callers wait for now.
    pub fn waiting(&self) -> u64 {
        self.0.bytes.waiting()
    }

    /// Bytes that callers wait for, by the reason.
    pub fn shortage(&self) -> Shortage {
        self.0.bytes.shortage()
    }

    /// What each query holds and waits for, by name.
    pub fn queries(&self) -> Vec<(Arc<str>, u64, u64)> {
        self.0.bytes.parties()
    }

    /// Bytes in all.
    pub fn capacity(&self) -> u64 {
        self.0.bytes.capacity()
    }

    /// Bytes that one query may hold.
    pub fn query_limit(&self) -> u64 {
        self.0.bytes.limit()
    }

    /// Resolves as soon as somebody waits.
    pub async fn shortage_begins(&self) {
        let mut told = std::pin::pin!(self.0.short.notified());
        told.as_mut().enable();
        if self.waiting() == 0 {
            told.await;
        }
    }

    /// Resolves when somebody began to wait since the last call. For one caller.
    async fn pressure(&self) {
        self.0.pressure.notified().await;
    }
}

impl Reservation {
    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.permit.amount()
    }
}

/// What bytes hold of a pool for as long as any of them are alive. Does not keep them alive.
#[derive(Debug, Clone)]
pub struct WeakReservation(Weak<Mutex<Reservation>>);

impl WeakReservation {
    /// Whether any of the bytes are alive.
    pub fn is_held(&self) -> bool {
        self.0.strong_count() > 0
    }

    /// Has the bytes hold more of their pool, which was granted to the same query; not if they are
    /// gone or have been carried over into another pool since.
    pub fn add(&self, more: Reservation) {
        if let Some(held) = self.0.upgrade() {
            held.lock().permit.absorb(more.permit);
        }
    }

    /// Has the bytes held from another pool from now on, if that has room which nobody waits for;
    /// answers how many the former pool got back. `None` if there is no room.
    pub fn transfer_to(&self, to: &MemoryPool) -> Option<u64> {
        let Some(held) = self.0.upgrade() else {
            return Some(0);
        };
        let mut reservation = held.lock();
        let permit = &reservation.permit;
        let granted = to.0.bytes.try_acquire(permit.party(), permit.amount())?;
        *reservation = Reservation { permit: granted };
        Some(reservation.bytes())
    }
}

/// Bytes together with what was reserved for them. Slices taken with [`ReservedBytes::into_bytes`]
/// keep the reservation alive until the last of them is gone.
pub struct ReservedBytes {
    bytes: Bytes,
    _reservation: Arc<Mutex<Reservation>>,
}

impl AsRef<[u8]> for ReservedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl ReservedBytes {
    /// Binds bytes to their reservation: the result, and each slice of it, holds the reservation.
    pub fn into_bytes(bytes: Bytes, reservation: Reservation) -> Bytes {
        Self::into_transferable(bytes, reservation).0
    }

    /// As [`ReservedBytes::into_bytes`], for bytes that may be carried over into another pool.
    pub fn into_transferable(bytes: Bytes, reservation: Reservation) -> (Bytes, WeakReservation) {
        let reservation = Arc::new(Mutex::new(reservation));
        let holding = WeakReservation(Arc::downgrade(&reservation));
        let owner = Self {
            bytes,
            _reservation: reservation,
        };
        (Bytes::from_owner(owner), holding)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_would_exceed_the_pool_waits_until_bytes_come_back() {
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
    async fn a_waiter_that_leaves_is_not_counted_and_takes_nothing() {
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
    async fn more_than_the_pool_holds_is_refused_and_says_what_to_do() {
        let error = MemoryPool::new("write", 100)
            .reserve("q", 101)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("memory.budget"));
    }

    #[tokio::test]
    async fn slices_keep_their_reservation_until_the_last_is_gone() {
        let pool = MemoryPool::new("test", 100);
        let reservation = pool.reserve("q", 10).await.unwrap();
        let bytes = ReservedBytes::into_bytes(Bytes::from_static(b"0123456789"), reservation);
        let slice = bytes.slice(2..4);
        drop(bytes);
        assert_eq!((pool.used(), slice.as_ref()), (10, b"23".as_ref()));
        drop(slice);
        assert_eq!(pool.used(), 0);
    }

    /// What is kept of one query, with the time of its use, in that order; responses may hold some
    /// of it as well.
    struct Cache {
        query: &'static str,
        kept: Mutex<Vec<(u64, Arc<Reservation>)>>,
    }

    impl Cache {
        fn of(query: &'static str, pool: &MemoryPool) -> Arc<Self> {
            let kept = Mutex::default();
            let cache = Arc::new(Self { query, kept });
            pool.add_reclaimer(cache.clone());
            cache
        }

        fn keep(&self, since: u64, bytes: Reservation) -> Arc<Reservation> {
            let bytes = Arc::new(bytes);
            self.kept.lock().push((since, Arc::clone(&bytes)));
            bytes
        }

        fn kept(&self) -> Vec<u64> {
            self.kept.lock().iter().map(|(since, _)| *since).collect()
        }
    }

    impl Reclaim for Cache {
        fn victim_last_use(&self, of_query: Option<&str>) -> Option<u64> {
            let mine = of_query.is_none_or(|query| query == self.query);
            let kept = self.kept.lock();
            kept.first().filter(|_| mine).map(|(since, _)| *since)
        }

        fn reclaim(&self, _: Option<&str>) -> Option<u64> {
            let mut kept = self.kept.lock();
            (!kept.is_empty()).then(|| kept.remove(0).1.bytes())
        }
    }

    #[tokio::test]
    async fn caches_give_back_before_anybody_waits_what_was_used_longest_ago_first() {
        let pool = MemoryPool::new("test", 100);
        let take = |bytes| pool.try_reserve("q", bytes).unwrap();
        let (one, other) = (Cache::of("q", &pool), Cache::of("q", &pool));
        for (cache, since) in [(&one, 1), (&other, 2), (&other, 3), (&one, 4)] {
            cache.keep(since, take(20));
        }
        let granted = pool.reserve("q", 70).await.unwrap();
        assert_eq!((one.kept(), other.kept()), (vec![4], Vec::new()));
        assert_eq!((granted.bytes(), pool.used()), (70, 90));
        assert!(
            pool.try_reserve("q", 40).is_none(),
            "all is asked for in vain"
        );
    }

    #[tokio::test]
    async fn bytes_are_carried_over_with_every_slice_of_them_or_not_at_all() {
        let (from, to) = (MemoryPool::new("a", 100), MemoryPool::new("b", 15));
        let (bytes, holding) = {
            let reservation = from.reserve("q", 10).await.unwrap();
            ReservedBytes::into_transferable(Bytes::from_static(b"0123456789"), reservation)
        };
        let slice = bytes.slice(2..4);
        drop(bytes);
        holding.add(from.try_reserve("q", 3).unwrap());
        let full = to.reserve("r", 6).await.unwrap();
        assert_eq!(holding.transfer_to(&to), None);
        assert_eq!((from.used(), to.used()), (13, 6));
        drop(full);
        assert_eq!(holding.transfer_to(&to), Some(13));
        assert_eq!((from.used(), to.used()), (0, 13));
        assert_eq!(to.queries(), [("q".into(), 13, 0)]);
        holding.add(from.try_reserve("q", 3).unwrap());
        assert_eq!((from.used(), to.used()), (0, 13), "that comes too late");
        drop(slice);
        assert_eq!((from.used(), to.used()), (0, 0));
        holding.add(to.try_reserve("q", 3).unwrap());
        assert_eq!(to.used(), 0, "nothing is left that could hold it");
        assert_eq!(
            holding.transfer_to(&to),
            Some(0),
            "nothing is left to carry"
        );
    }

    fn relieved(pool: MemoryPool) -> MemoryPool {
        tokio::spawn(pool.clone().run_reclaim_loop(tokio::time::sleep, |_| ()));
        pool
    }

    /// The answer, unless it is waited for much longer than a look takes.
    async fn soon<T>(answer: impl Future<Output = T>) -> T {
        let answer = tokio::time::timeout(10 * LOOK, answer).await;
        answer.expect("what is kept is asked for again")
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_the_next_that_is_kept_where_the_first_is_still_in_use() {
        let pool = relieved(MemoryPool::new("read", 120));
        let cache = Cache::of("q", &pool);
        let take = || pool.try_reserve("q", 40).unwrap();
        // Asked twice, for the query and for all, and twice in vain.
        let in_use = (cache.keep(1, take()), cache.keep(2, take()));
        cache.keep(3, take());
        let granted = soon(pool.reserve("q", 40)).await.unwrap();
        assert_eq!((granted.bytes(), pool.used()), (40, 120));
        drop(in_use);
    }

    #[tokio::test(start_paused = true)]
    async fn a_query_that_was_at_its_limit_gets_the_room_of_what_others_kept_meanwhile() {
        let pool = relieved(MemoryPool::limited("read", 100, Some(60)));
        let cache = Cache::of("r", &pool);
        let held = pool.try_reserve("q", 30).unwrap();
        let mut waiting = Box::pin(pool.reserve("q", 40));
        assert!(futures::poll!(&mut waiting).is_pending());
        cache.keep(1, pool.try_reserve("r", 60).unwrap());
        let other = pool.try_reserve("s", 10).unwrap();
        drop(held);
        // Now it is its turn, 30 are free, and nothing happens any more.
        assert!(futures::poll!(&mut waiting).is_pending());
        assert_eq!(soon(waiting).await.unwrap().bytes(), 40);
        drop(other);
    }
}
