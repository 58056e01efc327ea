//! How long a client may take nothing of a response.
//!
//! Does: measure patience with one client, shorter while others wait for the memory that its
//! response holds. Does not: cut anything off (`stall` and `server` do). Invariant: patience is
//! never longer than
//! `limits.read_stall_timeout`.
//!
//! Readers that have stopped can hold all memory for reading while those who would make them go on
//! wait for it: the probe side of a join stops until the build side has been read. So under
//! pressure who takes nothing is cut off soon, and resumes with `skip` when it wants more.

use std::time::Duration;

use crate::clock::Clock;
use crate::memory::MemoryPool;

/// Patience while others wait for memory.
const PRESSED: Duration = Duration::from_secs(2);
/// How often pressure is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Patience with clients that take nothing. Cheap to clone.
#[derive(Clone)]
pub struct Patience {
    stall: Duration,
    clock: Clock,
    shared: Option<MemoryPool>,
}

impl Patience {
    /// Patience for `stall`, or less while somebody waits for memory of `shared`.
    pub fn new(stall: Duration, clock: Clock, shared: Option<MemoryPool>) -> Self {
        Self {
            stall,
            clock,
            shared,
        }
    }

    /// How long a client may take nothing, as things are now.
    pub fn allowed(&self) -> Duration {
        let pressed = self.shared.as_ref().is_some_and(|pool| pool.waiting() > 0);
        if pressed {
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
        let patience = Patience::new(Duration::from_secs(120), clock, Some(pool.clone()));
        let held = pool.reserve(80).await.unwrap();
        assert_eq!(patience.allowed(), Duration::from_secs(120));
        let other = pool.clone();
        let waiter = tokio::spawn(async move { other.reserve(80).await.map(drop) });
        tokio::task::yield_now().await;
        assert_eq!(patience.allowed(), PRESSED);
        assert_eq!(patience.left(PRESSED), None);
        patience.clone().wear_out().await;
        drop(held);
        waiter.await.unwrap().unwrap();
        assert_eq!(patience.allowed(), Duration::from_secs(120));
    }
}
