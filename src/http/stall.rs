//! The stall timeout: how long a response may make no progress.
//!
//! Does: compute the timeout for one client, shorter while other requests wait for what its
//! response may hold. Does not: end responses (`server` and `api` do). Invariant: the timeout never
//! exceeds `limits.response_stall_timeout`.
//!
//! Stalled readers can deadlock the queries that they belong to. The probe side of a join does not
//! read until the build side has been read, and the build side may be waiting for read memory or a
//! read slot that the probe side's response holds. A task may stop reading until its sink accepts
//! pages, and the sink may be waiting for write memory that the response holds, because it serves
//! segments that are still in write memory. So under contention a stalled client is disconnected
//! early; it resumes with `skip`. While only writers wait, the timeout is longer, since most
//! responses hold no write memory.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Live;
use crate::fair::FairSemaphore;
use crate::memory::MemoryPool;
use crate::runtime::Clock;

/// Stall timeout while another request waits for read memory or a read slot.
const STALL_TIMEOUT_CONTENDED: Duration = Duration::from_secs(2);
/// Stall timeout while another request waits for write memory.
const STALL_TIMEOUT_WRITERS_WAITING: Duration = Duration::from_secs(10);
/// How often contention is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The resources that a response may hold and other requests may wait for. Cheap to clone.
#[derive(Clone)]
pub struct Contention(Arc<[Resource]>);

enum Resource {
    WriteMemory(MemoryPool),
    ReadMemory(MemoryPool),
    ReadSlots(FairSemaphore),
}

impl Contention {
    /// No resources, hence no contention.
    pub fn none() -> Self {
        Self(Arc::from([]))
    }

    /// Contention for write memory, for the pools that reads hold, and for read slots.
    pub fn new(write: &MemoryPool, read: &[&MemoryPool], slots: &FairSemaphore) -> Self {
        let read = read
            .iter()
            .map(|pool| Resource::ReadMemory((*pool).clone()));
        let others = [
            Resource::ReadSlots(slots.clone()),
            Resource::WriteMemory(write.clone()),
        ];
        Self(read.chain(others).collect())
    }

    /// The stall timeout that the current waiters impose; `None` if nothing is waited for.
    fn timeout(&self) -> Option<Duration> {
        self.0.iter().find_map(|resource| {
            let (waiting, timeout) = match resource {
                Resource::ReadMemory(pool) => (pool.waiting(), STALL_TIMEOUT_CONTENDED),
                Resource::ReadSlots(slots) => (slots.waiting(), STALL_TIMEOUT_CONTENDED),
                Resource::WriteMemory(pool) => (pool.waiting(), STALL_TIMEOUT_WRITERS_WAITING),
            };
            (waiting > 0).then_some(timeout)
        })
    }
}

/// How long responses may stall. Cheap to clone.
#[derive(Clone)]
pub struct StallPolicy {
    timeout: Live<Duration>,
    clock: Clock,
    contention: Contention,
}

impl StallPolicy {
    /// A timeout of `timeout`, or less under contention.
    pub fn new(timeout: Duration, clock: Clock, contention: Contention) -> Self {
        Self {
            timeout: Live::new(timeout),
            clock,
            contention,
        }
    }

    /// Changes the timeout, of all clones.
    pub fn set_timeout(&self, timeout: Duration) {
        self.timeout.set(timeout);
    }

    /// The clock that measures stalls.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The current stall timeout.
    pub fn current_timeout(&self) -> Duration {
        let timeout = self.timeout.get();
        let contended = self.contention.timeout().unwrap_or(timeout);
        contended.min(timeout)
    }

    /// How long to wait before rechecking a response that has stalled for `stalled`; `None` if the
    /// timeout has expired.
    pub fn recheck_after(&self, stalled: Duration) -> Option<Duration> {
        let left = self.current_timeout().saturating_sub(stalled);
        (!left.is_zero()).then_some(left.min(POLL_INTERVAL))
    }

    /// Completes when a response that makes no progress from now on has exceeded the timeout.
    pub async fn expired(self) {
        let since = self.clock.now();
        while let Some(wait) = self.recheck_after(self.clock.now().saturating_duration_since(since))
        {
            self.clock.sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    #[allow(clippy::disallowed_methods)]
    async fn the_stall_timeout_is_short_only_while_a_request_waits_for_memory() {
        let (pool, clock) = (MemoryPool::new("read", 100), Clock::default());
        let (other, slots) = (MemoryPool::new("write", 1), FairSemaphore::new(1, None));
        let contention = Contention::new(&other, &[&pool], &slots);
        let policy = StallPolicy::new(Duration::from_secs(120), clock, contention);
        let held = pool.reserve("q", 80).await.unwrap();
        assert_eq!(policy.current_timeout(), Duration::from_secs(120));
        let other = pool.clone();
        let waiter = tokio::spawn(async move { other.reserve("q", 80).await.map(drop) });
        tokio::task::yield_now().await;
        assert_eq!(policy.current_timeout(), STALL_TIMEOUT_CONTENDED);
        assert_eq!(policy.recheck_after(STALL_TIMEOUT_CONTENDED), None);
        policy.clone().expired().await;
        drop(held);
        waiter.await.unwrap().unwrap();
        assert_eq!(policy.current_timeout(), Duration::from_secs(120));
    }

    #[tokio::test]
    async fn the_stall_timeout_is_short_while_a_request_waits_for_a_slot() {
        let (read, write) = (MemoryPool::new("read", 1), MemoryPool::new("write", 1));
        let slots = FairSemaphore::new(1, None);
        let contention = Contention::new(&write, &[&read], &slots);
        let policy = StallPolicy::new(Duration::from_secs(120), Clock::default(), contention);
        let _held = slots.acquire("q", 1).await;
        let waiter = slots.acquire("q", 1);
        assert_eq!(policy.current_timeout(), STALL_TIMEOUT_CONTENDED);
        drop(waiter);
        let _held = write.reserve("q", 1).await;
        let mut writer = Box::pin(write.reserve("q", 1));
        assert!(futures::poll!(&mut writer).is_pending());
        assert_eq!(policy.current_timeout(), STALL_TIMEOUT_WRITERS_WAITING);
        drop(writer);
        assert_eq!(policy.current_timeout(), Duration::from_secs(120));
    }
}
