//! The memory budget: page bytes are held only under a [`Reservation`].
//!
//! Does: count bytes, make those wait who would exceed a pool or their query's limit, and ask
//! caches to give back what they can spare. Does not: hold bytes itself, or decide whose turn it is
//! among queries (`fair` does). Invariant: the sum of live reservations of a pool never exceeds its
//! capacity, that of one query never its limit; waiting never fails.
//!
//! Writing and reading have a pool each: readers that do not progress (their task waits for its own
//! sink) must never take the memory which sinks need to progress, or the two would wait for each
//! other.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::Notify;

use crate::fair::{FairPermit, FairSemaphore, Shortage};

/// Gives memory back on demand.
pub trait Reclaim: Send + Sync {
    /// Drops about `bytes` of what is not needed now, of one query's if one is named; answers how
    /// much was dropped.
    fn reclaim(&self, bytes: u64, of_query: Option<&str>) -> u64;
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
}

/// Bytes that were granted; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    permit: FairPermit,
}

/// A reservation that could never be granted.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "{wanted} bytes were asked of the {pool} memory, of which one query may hold {most}: raise \
     memory.budget or query.max_{pool}_memory, or send less at a time"
)]
pub struct OverCapacity {
    /// Which pool.
    pub pool: &'static str,
    /// What was asked.
    pub wanted: u64,
    /// What one query may hold.
    pub most: u64,
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
        }))
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
                wanted: bytes,
                most: self.0.bytes.limit(),
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
            let (own, all) = self.0.bytes.missing(query, bytes);
            if own > 0 {
                self.reclaim(own, Some(query));
            }
            if all > 0 {
                self.reclaim(all, None);
            }
            self.0.bytes.try_acquire(query, bytes)
        })?;
        Some(Reservation { permit })
    }

    /// Asks the caches for about `bytes`, of one query's if one is named; answers how much they
    /// dropped.
    fn reclaim(&self, bytes: u64, of_query: Option<&str>) -> u64 {
        let reclaimers = self.0.reclaimers.read().clone();
        let mut freed = 0;
        for reclaimer in reclaimers {
            if freed >= bytes {
                break;
            }
            freed += reclaimer.reclaim(bytes - freed, of_query);
        }
        freed
    }

    /// Asks the caches for what those need who wait.
    pub fn reclaim_for_waiting(&self) {
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
    pub async fn until_short(&self) {
        let mut told = std::pin::pin!(self.0.short.notified());
        told.as_mut().enable();
        if self.waiting() == 0 {
            told.await;
        }
    }

    /// Resolves when somebody began to wait since the last call. For one caller.
    pub async fn pressure(&self) {
        self.0.pressure.notified().await;
    }
}

impl Reservation {
    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.permit.amount()
    }
}

/// Bytes together with what was reserved for them. Slices taken with [`ReservedBytes::into_bytes`]
/// keep the reservation alive until the last of them is gone.
pub struct ReservedBytes {
    bytes: Bytes,
    _reservation: Reservation,
}

impl AsRef<[u8]> for ReservedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl ReservedBytes {
    /// Binds bytes to their reservation: the result, and each slice of it, holds the reservation.
    pub fn into_bytes(bytes: Bytes, reservation: Reservation) -> Bytes {
        Bytes::from_owner(Self {
            bytes,
            _reservation: reservation,
        })
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

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

    #[tokio::test]
    async fn a_cache_gives_back_before_anybody_waits() {
        struct Cache(Mutex<Vec<Reservation>>);
        impl Reclaim for Cache {
            fn reclaim(&self, _: u64, _: Option<&str>) -> u64 {
                self.0.lock().pop().map_or(0, |r| r.bytes())
            }
        }
        let pool = MemoryPool::new("test", 100);
        let held = pool.reserve("q", 90).await.unwrap();
        pool.add_reclaimer(Arc::new(Cache(Mutex::new(vec![held]))));
        assert_eq!(pool.reserve("q", 50).await.unwrap().bytes(), 50);
    }
}
