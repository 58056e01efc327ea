//! How long a client may take nothing of a response.
//!
//! Does: measure patience with one client, shorter while others wait for what its response holds.
//! Does not: cut anything off (`stall` and `server` do). Invariant: patience is never longer than
//! `limits.read_stall_timeout`.
//!
//! Readers that have stopped can hold what those wait for who would make them go on. The probe side
//! of a join stops until the build side has been read: then it is memory for reading, or a slot.
//! Or a task stops reading until its own sink has been taken: then it is memory for writing, of
//! which a response holds the segments that are served before they have left it. So under contention
//! who takes nothing is cut off soon, and resumes with `skip` when it wants more; not so soon where
//! only writers wait, since most responses hold nothing of theirs.

use std::sync::Arc;
use std::time::Duration;

use crate::fair::FairSemaphore;
use crate::memory::MemoryPool;
use crate::runtime::Clock;

/// StallPolicy while others wait to read.
const STALL_TIMEOUT_CONTENDED: Duration = Duration::from_secs(2);
/// StallPolicy while others wait for memory to write.
const STALL_TIMEOUT_WRITERS_WAITING: Duration = Duration::from_secs(10);
/// How often contention is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// What responses hold and others may wait for. Cheap to clone.
#[derive(Clone)]
pub struct Contention(Arc<[Waited]>);

enum Waited {
    ToWrite(MemoryPool),
    ToRead(MemoryPool),
    Slots(FairSemaphore),
}

impl Contention {
    /// Nothing that anybody waits for.
    pub fn none() -> Self {
        Self(Arc::from([]))
    }

    /// Memory for writing and for reading, and slots for reads.
    pub fn new(write: &MemoryPool, read: &MemoryPool, slots: &FairSemaphore) -> Self {
        Self(Arc::from([
            Waited::ToRead(read.clone()),
            Waited::Slots(slots.clone()),
            Waited::ToWrite(write.clone()),
        ]))
    }

    /// The patience that is left under it; `None` if nobody waits.
    fn patience(&self) -> Option<Duration> {
        let felt = |waited: &Waited| match waited {
            Waited::ToRead(pool) => (pool.waiting() > 0).then_some(STALL_TIMEOUT_CONTENDED),
            Waited::Slots(slots) => (slots.waiting() > 0).then_some(STALL_TIMEOUT_CONTENDED),
            Waited::ToWrite(pool) => (pool.waiting() > 0).then_some(STALL_TIMEOUT_WRITERS_WAITING),
        };
        self.0.iter().find_map(felt)
    }
}

/// StallPolicy with clients that take nothing. Cheap to clone.
#[derive(Clone)]
pub struct StallPolicy {
    stall: Duration,
    clock: Clock,
    contention: Contention,
}

impl StallPolicy {
    /// StallPolicy for `stall`, or less under contention.
    pub fn new(stall: Duration, clock: Clock, contention: Contention) -> Self {
        Self {
            stall,
            clock,
            contention,
        }
    }

    /// How long a client may take nothing, as things are now.
    pub fn allowed(&self) -> Duration {
        let pressed = self.contention.patience();
        pressed.map_or(self.stall, |pressed| pressed.min(self.stall))
    }

    /// How long to wait before looking again at a client that has taken nothing for `silent`;
    /// `None` when patience is over.
    pub fn left(&self, silent: Duration) -> Option<Duration> {
        let left = self
            .allowed()
            .checked_sub(silent)
            .filter(|left| !left.is_zero());
        left.map(|left| left.min(POLL_INTERVAL))
    }

    /// Ends when a client that takes nothing from now on has used up all patience.
    pub async fn expired(self) {
        let since = self.clock.now();
        while let Some(wait) = self.left(self.clock.now().saturating_duration_since(since)) {
            self.clock.sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    #[allow(clippy::disallowed_methods)]
    async fn patience_is_short_only_while_somebody_waits_for_memory() {
        let (pool, clock) = (MemoryPool::new("read", 100), Clock::default());
        let (other, slots) = (MemoryPool::new("write", 1), FairSemaphore::new(1, None));
        let contention = Contention::new(&other, &pool, &slots);
        let patience = StallPolicy::new(Duration::from_secs(120), clock, contention);
        let held = pool.reserve("q", 80).await.unwrap();
        assert_eq!(patience.allowed(), Duration::from_secs(120));
        let other = pool.clone();
        let waiter = tokio::spawn(async move { other.reserve("q", 80).await.map(drop) });
        tokio::task::yield_now().await;
        assert_eq!(patience.allowed(), STALL_TIMEOUT_CONTENDED);
        assert_eq!(patience.left(STALL_TIMEOUT_CONTENDED), None);
        patience.clone().expired().await;
        drop(held);
        waiter.await.unwrap().unwrap();
        assert_eq!(patience.allowed(), Duration::from_secs(120));
    }

    #[tokio::test]
    async fn patience_is_short_while_somebody_waits_for_a_slot() {
        let (read, write) = (MemoryPool::new("read", 1), MemoryPool::new("write", 1));
        let slots = FairSemaphore::new(1, None);
        let contention = Contention::new(&write, &read, &slots);
        let patience = StallPolicy::new(Duration::from_secs(120), Clock::default(), contention);
        let _held = slots.acquire("q", 1).await;
        let waiter = slots.acquire("q", 1);
        assert_eq!(patience.allowed(), STALL_TIMEOUT_CONTENDED);
        drop(waiter);
        let _held = write.reserve("q", 1).await;
        let mut writer = Box::pin(write.reserve("q", 1));
        assert!(futures::poll!(&mut writer).is_pending());
        assert_eq!(patience.allowed(), STALL_TIMEOUT_WRITERS_WAITING);
        drop(writer);
        assert_eq!(patience.allowed(), Duration::from_secs(120));
    }
}
