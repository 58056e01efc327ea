//! A bounded number of bytes, shared fairly among queries, with caches that can be evicted.
//!
//! Does: grant reservations, and evict the least recently used entry of all registered caches when
//! memory is short. Does not: access the content of caches. Invariant: `reserve` reports a waiter
//! only after its request has been queued.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::Notify;

use super::reclaim::Reclaim;
use crate::fair::{FairPermit, FairSemaphore, Shortage};
use crate::human::count;

/// How often reclaim is retried while a request waits.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// A pool of memory. Cheap to clone.
#[derive(Clone)]
pub struct MemoryPool(Arc<Inner>);

struct Inner {
    name: &'static str,
    bytes: FairSemaphore,
    /// Wakes the reclaim loop.
    waiter_queued: Notify,
    /// Wakes callers of [`MemoryPool::shortage_begins`].
    shortage_started: Notify,
    reclaimers: RwLock<Vec<Arc<dyn Reclaim>>>,
    use_ticks: AtomicU64,
}

/// Bytes granted to a query; dropping it releases them.
#[derive(Debug)]
pub struct Reservation {
    permit: FairPermit,
}

/// A request for more than a query may ever hold.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "a request needs {} of {pool} memory, but one query may hold {limit}: raise memory.budget or \
     query.max_{pool}_memory, or send less at a time",
    count(*requested, "byte")
)]
pub struct OverCapacity {
    pub pool: &'static str,
    pub requested: u64,
    /// What one query may hold, in bytes.
    pub limit: u64,
}

impl MemoryPool {
    /// A pool of `capacity` bytes, all of which one query may hold.
    pub fn new(name: &'static str, capacity: u64) -> Self {
        Self::limited(name, capacity, None)
    }

    /// A pool of `capacity` bytes, of which one query may hold `limit`.
    pub fn limited(name: &'static str, capacity: u64, limit: Option<u64>) -> Self {
        Self(Arc::new(Inner {
            name,
            bytes: FairSemaphore::new(capacity, limit),
            waiter_queued: Notify::new(),
            shortage_started: Notify::new(),
            reclaimers: RwLock::default(),
            use_ticks: AtomicU64::new(0),
        }))
    }

    /// Changes what one query may hold; `None`: all of it. What is held beyond stays held.
    pub fn set_query_limit(&self, limit: Option<u64>) {
        self.0.bytes.set_bounds(self.capacity(), limit);
        self.0.waiter_queued.notify_one();
    }

    /// Changes the capacity of a pool without a limit for each query.
    pub fn set_capacity(&self, capacity: u64) {
        self.0.bytes.set_bounds(capacity, None);
        self.0.waiter_queued.notify_one();
    }

    /// The next tick of the pool's logical clock, by which caches compare the last use of entries.
    pub fn next_use_tick(&self) -> u64 {
        self.0.use_ticks.fetch_add(1, Ordering::Relaxed)
    }

    /// Registers a cache whose entries hold memory of this pool. The pool owns the reclaimer, so
    /// the reclaimer must not own the pool.
    pub fn add_reclaimer(&self, reclaimer: Arc<dyn Reclaim>) {
        self.0.reclaimers.write().push(reclaimer);
    }

    /// Waits until `bytes` are granted to a query.
    ///
    /// ```
    /// use stopover::memory::MemoryPool;
    ///
    /// # futures::executor::block_on(async {
    /// let pool = MemoryPool::new("read", 1024);
    /// let reservation = pool.reserve("query-1", 1000).await?;
    /// assert_eq!((reservation.bytes(), pool.used()), (1000, 1000));
    /// assert!(pool.try_reserve("query-2", 25).is_none());
    /// drop(reservation);
    /// assert_eq!(pool.used(), 0);
    /// # Ok::<(), stopover::memory::OverCapacity>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// [`OverCapacity`] if the pool could never grant them.
    pub async fn reserve(&self, query: &str, bytes: u64) -> Result<Reservation, OverCapacity> {
        let over = || OverCapacity {
            pool: self.0.name,
            requested: bytes,
            limit: self.0.bytes.limit(),
        };
        if !self.0.bytes.fits(bytes) {
            return Err(over());
        }
        if let Some(reservation) = self.try_reserve(query, bytes) {
            return Ok(reservation);
        }
        let granted = self.0.bytes.acquire(query, bytes);
        // `acquire` has queued the request, so listeners woken below see `waiting() > 0`.
        self.0.waiter_queued.notify_one();
        self.0.shortage_started.notify_waiters();
        let permit = granted.await;
        // The limit was lowered just before the request was queued, which reduced it.
        if permit.amount() < bytes {
            return Err(over());
        }
        Ok(Reservation { permit })
    }

    /// Grants `bytes` now, after evicting cache entries if necessary, or not at all; fails
    /// while any request is queued.
    pub fn try_reserve(&self, query: &str, bytes: u64) -> Option<Reservation> {
        self.try_reserve_free(query, bytes).or_else(|| {
            let (own, _) = self.0.bytes.missing(query, bytes);
            self.reclaim(own, Some(query));
            // What the query's own entries released counts for the pool as well.
            let (_, all) = self.0.bytes.missing(query, bytes);
            self.reclaim(all, None);
            self.try_reserve_free(query, bytes)
        })
    }

    /// As [`MemoryPool::try_reserve`], without evicting anything.
    pub(super) fn try_reserve_free(&self, query: &str, bytes: u64) -> Option<Reservation> {
        let permit = self.0.bytes.try_acquire(query, bytes)?;
        Some(Reservation { permit })
    }

    /// Evicts entries of at least `bytes`, of `of_query` if it is `Some`: the least recently used
    /// first, across all caches.
    fn reclaim(&self, bytes: u64, of_query: Option<&str>) {
        let reclaimers = self.0.reclaimers.read().clone();
        let mut freed = 0;
        while freed < bytes {
            let victims = reclaimers
                .iter()
                .filter_map(|r| Some((r.victim_last_use(of_query)?, r)));
            let Some((_, least_recent)) = victims.min_by_key(|(last_use, _)| *last_use) else {
                break;
            };
            // `None` if another thread evicted it meanwhile.
            freed += least_recent.reclaim(of_query).unwrap_or(0);
        }
    }

    /// While any request waits, evicts cache entries and calls `also`, then pauses with `sleep`.
    /// One attempt is not enough: a response may still hold what was evicted, and what was free
    /// when a request was queued may be granted to another one first. Never returns; one
    /// task per pool runs it.
    pub async fn run_reclaim_loop<S: Future>(
        self,
        sleep: impl Fn(Duration) -> S,
        also: impl Fn(&Self),
    ) {
        loop {
            self.0.waiter_queued.notified().await;
            while self.waiting() > 0 {
                self.reclaim_for_waiters();
                also(&self);
                sleep(RETRY_INTERVAL).await;
            }
        }
    }

    /// Evicts what waiting requests lack.
    pub fn reclaim_for_waiters(&self) {
        if self.waiting() == 0 {
            return;
        }
        let shortage = self.shortage();
        self.reclaim(shortage.capacity, None);
        for (query, bytes) in &shortage.limited {
            self.reclaim(*bytes, Some(query));
        }
    }

    /// Bytes reserved.
    pub fn used(&self) -> u64 {
        self.0.bytes.held()
    }

    /// Bytes that requests wait for.
    pub fn waiting(&self) -> u64 {
        self.0.bytes.waiting()
    }

    /// Bytes that requests wait for, by reason.
    pub fn shortage(&self) -> Shortage {
        self.0.bytes.shortage()
    }

    /// Each query with the bytes that it holds and waits for, by name.
    pub fn queries(&self) -> Vec<(Arc<str>, u64, u64)> {
        self.0.bytes.parties()
    }

    /// Bytes that can be reserved in total.
    pub fn capacity(&self) -> u64 {
        self.0.bytes.capacity()
    }

    /// Bytes that one query may hold.
    pub fn query_limit(&self) -> u64 {
        self.0.bytes.limit()
    }

    /// Resolves as soon as a request waits.
    pub async fn shortage_begins(&self) {
        let mut started = std::pin::pin!(self.0.shortage_started.notified());
        // Registered before the check, so that a shortage that starts in between is not missed.
        started.as_mut().enable();
        if self.waiting() == 0 {
            started.await;
        }
    }
}

impl Reservation {
    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.permit.amount()
    }

    pub(super) fn query(&self) -> &str {
        self.permit.party()
    }

    /// Releases what exceeds `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        self.permit.shrink_to(bytes);
    }

    /// Splits off `bytes`, or fewer if it holds fewer.
    pub fn split_off(&mut self, bytes: u64) -> Self {
        let permit = self.permit.split_off(bytes);
        Self { permit }
    }

    /// Merges another reservation of the same pool and query into this one; any other is released.
    pub fn absorb(&mut self, other: Self) {
        self.permit.absorb(other.permit);
    }
}
