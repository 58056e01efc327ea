//! How long a client may take nothing of a response.
//!
//! Does: measure patience with one client, shorter while others wait for what its response holds.
//! Does not: cut anything off (`stall` and `server` do). Invariant: patience is never longer than
//! `limits.read_stall_timeout`.
//!
//! Readers that have stopped can hold what those wait for who would make them go on. The probe side
//! of a join stops until the build side has been read: then it is memory for reading, or a slot. Or
//! a task stops reading until its own sink has been taken: then it is memory for writing, of which
//! a response holds the segments that are served before they have left it. So under pressure who
//! takes nothing is cut off soon, and resumes with `skip` when it wants more.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::fair::FairSemaphore;
use crate::memory::MemoryPool;

/// Patience while others wait for memory.
const PRESSED: Duration = Duration::from_secs(2);
/// How often pressure is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// What responses hold and others may wait for. Cheap to clone.
#[derive(Clone)]
pub struct Pressure(Arc<[Waited]>);

enum Waited {
    Memory(MemoryPool),
    Slots(FairSemaphore),
}

impl Pressure {
    /// Nothing that anybody waits for.
    pub fn none() -> Self {
        Self(Arc::from([]))
    }

    /// Memory of these pools, and slots for reads.
    pub fn new(pools: &[&MemoryPool], slots: &FairSemaphore) -> Self {
        let pools = pools.iter().map(|pool| Waited::Memory((*pool).clone()));
        Self(pools.chain([Waited::Slots(slots.clone())]).collect())
    }

    fn is_felt(&self) -> bool {
        self.0.iter().any(|waited| match waited {
            Waited::Memory(pool) => pool.waiting() > 0,
            Waited::Slots(slots) => slots.waiting() > 0,
        })
    }
}

/// Patience with clients that take nothing. Cheap to clone.
#[derive(Clone)]
pub struct Patience {
    stall: Duration,
    clock: Clock,
    pressure: Pressure,
}

impl Patience {
    /// Patience for `stall`, or less under pressure.
    pub fn new(stall: Duration, clock: Clock, pressure: Pressure) -> Self {
        Self {
            stall,
            clock,
            pressure,
        }
    }

    /// How long a client may take nothing, as things are now.
    pub fn allowed(&self) -> Duration {
        if self.pressure.is_felt() {
            self.stall.min(PRESSED)
        } else {
            self.stall
        }
    }

    /// How long to wait before looking again at a client that has taken nothing for `silent`;
    /// `None` when patience is over.
    pub fn left(&self, silent: Duration) -> Option<Duration> {
        let left = self
            .allowed()
            .checked_sub(silent)
            .filter(|left| !left.is_zero());
        left.map(|left| left.min(LOOK))
    }

    /// Ends when a client that takes nothing from now on has used up all patience.
    pub async fn wear_out(self) {
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
        let pressure = Pressure::new(&[&pool], &FairSemaphore::new(1, None));
        let patience = Patience::new(Duration::from_secs(120), clock, pressure);
        let held = pool.reserve("q", 80).await.unwrap();
        assert_eq!(patience.allowed(), Duration::from_secs(120));
        let other = pool.clone();
        let waiter = tokio::spawn(async move { other.reserve("q", 80).await.map(drop) });
        tokio::task::yield_now().await;
        assert_eq!(patience.allowed(), PRESSED);
        assert_eq!(patience.left(PRESSED), None);
        patience.clone().wear_out().await;
        drop(held);
        waiter.await.unwrap().unwrap();
        assert_eq!(patience.allowed(), Duration::from_secs(120));
    }

    #[tokio::test]
    async fn patience_is_short_while_somebody_waits_for_a_slot() {
        let (pool, slots) = (MemoryPool::new("read", 1), FairSemaphore::new(1, None));
        let pressure = Pressure::new(&[&pool], &slots);
        let patience = Patience::new(Duration::from_secs(120), Clock::default(), pressure);
        let _held = slots.acquire("q", 1).await;
        let waiter = slots.acquire("q", 1);
        assert_eq!(patience.allowed(), PRESSED);
        drop(waiter);
        assert_eq!(patience.allowed(), Duration::from_secs(120));
    }
}
