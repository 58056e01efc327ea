//! The memory budget: page bytes are held only under a [`Reservation`].
//!
//! Does: count bytes, make those wait (first come, first served) who would exceed a pool, and ask
//! caches to give back what they can spare. Does not: hold bytes itself. Invariant: the sum of live
//! reservations of a pool never exceeds its capacity; waiting never fails.
//!
//! Writing and reading have a pool each: readers that do not progress (their task waits for its own
//! sink) must never take the memory which sinks need to progress, or the two would wait for each
//! other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Gives memory back on demand.
pub trait Reclaim: Send + Sync {
    /// Drops about `bytes` of what is not needed now; answers how much was dropped.
    fn reclaim(&self, bytes: u64) -> u64;
}

/// A bounded number of bytes. Cheap to clone.
#[derive(Clone)]
pub struct MemoryPool(Arc<Inner>);

struct Inner {
    name: &'static str,
    capacity: u64,
    permits: Arc<Semaphore>,
    waiting: AtomicU64,
    pressure: Notify,
    reclaimers: RwLock<Vec<Arc<dyn Reclaim>>>,
}

/// Bytes that were granted; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    permit: OwnedSemaphorePermit,
}

/// A reservation that could never be granted.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "{wanted} bytes were asked of the {pool} memory of {capacity} bytes: raise memory.budget or \
     lower limits.max_batch_size"
)]
pub struct OverCapacity {
    /// Which pool.
    pub pool: &'static str,
    /// What was asked.
    pub wanted: u64,
    /// What there is in all.
    pub capacity: u64,
}

impl MemoryPool {
    /// A pool of `capacity` bytes.
    pub fn new(name: &'static str, capacity: u64) -> Self {
        let permits = usize::try_from(capacity)
            .unwrap_or(usize::MAX)
            .min(Semaphore::MAX_PERMITS);
        Self(Arc::new(Inner {
            name,
            capacity: permits as u64,
            permits: Arc::new(Semaphore::new(permits)),
            waiting: AtomicU64::new(0),
            pressure: Notify::new(),
            reclaimers: RwLock::default(),
        }))
    }

    /// Registers a cache whose bytes are reserved here and may be given back.
    pub fn add_reclaimer(&self, reclaimer: Arc<dyn Reclaim>) {
        self.0.reclaimers.write().push(reclaimer);
    }

    /// Waits until `bytes` are granted.
    ///
    /// # Errors
    /// [`OverCapacity`] if the pool could never grant them.
    pub async fn reserve(&self, bytes: u64) -> Result<Reservation, OverCapacity> {
        let wanted = self.checked(bytes)?;
        if let Some(reservation) = self.try_reserve(bytes) {
            return Ok(reservation);
        }
        let waiting = Waiting::new(&self.0, bytes);
        self.0.pressure.notify_one();
        let permits = Arc::clone(&self.0.permits);
        let permit = permits
            .acquire_many_owned(wanted)
            .await
            .expect("the pool is never closed");
        drop(waiting);
        Ok(Reservation { permit })
    }

    /// Grants `bytes` now, after reclaiming if need be, or not at all. Does not overtake those who
    /// wait.
    pub fn try_reserve(&self, bytes: u64) -> Option<Reservation> {
        let wanted = u32::try_from(bytes).ok()?;
        if self.waiting() > 0 {
            self.reclaim(bytes + self.waiting());
            return None;
        }
        let permits = &self.0.permits;
        if let Ok(permit) = Arc::clone(permits).try_acquire_many_owned(wanted) {
            return Some(Reservation { permit });
        }
        self.reclaim(bytes.saturating_sub(permits.available_permits() as u64));
        let permit = Arc::clone(permits).try_acquire_many_owned(wanted).ok()?;
        Some(Reservation { permit })
    }

    fn checked(&self, bytes: u64) -> Result<u32, OverCapacity> {
        u32::try_from(bytes)
            .ok()
            .filter(|_| bytes <= self.0.capacity)
            .ok_or(OverCapacity {
                pool: self.0.name,
                wanted: bytes,
                capacity: self.0.capacity,
            })
    }

    /// Asks the caches for about `bytes`; answers how much they dropped.
    pub fn reclaim(&self, bytes: u64) -> u64 {
        let reclaimers = self.0.reclaimers.read().clone();
        let mut freed = 0;
        for reclaimer in reclaimers {
            if freed >= bytes {
                break;
            }
            freed += reclaimer.reclaim(bytes - freed);
        }
        freed
    }

    /// Bytes granted now, with those set aside for whoever waits first.
    pub fn used(&self) -> u64 {
        self.0.capacity - self.0.permits.available_permits() as u64
    }

    /// Bytes that callers wait for now.
    pub fn waiting(&self) -> u64 {
        self.0.waiting.load(Ordering::Acquire)
    }

    /// Bytes in all.
    pub fn capacity(&self) -> u64 {
        self.0.capacity
    }

    /// Resolves when somebody began to wait since the last call. For one caller.
    pub async fn pressure(&self) {
        self.0.pressure.notified().await;
    }
}

/// Counts a waiter, also if it is dropped while it waits.
struct Waiting<'a>(&'a Inner, u64);

impl<'a> Waiting<'a> {
    fn new(inner: &'a Inner, bytes: u64) -> Self {
        inner.waiting.fetch_add(bytes, Ordering::AcqRel);
        Self(inner, bytes)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(self.1, Ordering::AcqRel);
    }
}

impl Reservation {
    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.permit.num_permits() as u64
    }

    /// Gives back all but `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        let surplus = self.bytes().saturating_sub(bytes);
        drop(self.permit.split(surplus as usize));
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
        let first = pool.reserve(80).await.unwrap();
        let other = pool.clone();
        let second = tokio::spawn(async move { other.reserve(40).await.unwrap() });
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
        let _held = pool.reserve(80).await.unwrap();
        let other = pool.clone();
        let waiter = tokio::spawn(async move { other.reserve(40).await.map(drop) });
        tokio::task::yield_now().await;
        waiter.abort();
        assert!(waiter.await.unwrap_err().is_cancelled());
        assert_eq!((pool.used(), pool.waiting()), (80, 0));
    }

    #[tokio::test]
    async fn more_than_the_pool_holds_is_refused_and_says_what_to_do() {
        let error = MemoryPool::new("write", 100)
            .reserve(101)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("memory.budget"));
    }

    #[tokio::test]
    async fn slices_keep_their_reservation_until_the_last_is_gone() {
        let pool = MemoryPool::new("test", 100);
        let reservation = pool.reserve(10).await.unwrap();
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
            fn reclaim(&self, _: u64) -> u64 {
                self.0.lock().pop().map_or(0, |r| r.bytes())
            }
        }
        let pool = MemoryPool::new("test", 100);
        let held = pool.reserve(90).await.unwrap();
        pool.add_reclaimer(Arc::new(Cache(Mutex::new(vec![held]))));
        assert_eq!(pool.reserve(50).await.unwrap().bytes(), 50);
    }
}
