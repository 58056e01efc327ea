//! Bounds on what announcements can make this daemon hold besides pages.
//!
//! Does: count the exchanges that were announced here and are open as far as this daemon knows, and
//! the background tasks for their markers. Does not: know what the tasks do (`pending_marker`).
//! Invariant: no sequence of requests makes a number exceed its limit.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::error::ExchangeError;
use crate::id::ExchangeId;

/// Background tasks of one kind at a time. A daemon that writes that many markers at a time
/// announces thousands of exchanges a second, or waits for its base directories.
pub(super) const MAX_MARKER_TASKS: usize = 1024;

/// Permits for the background tasks for markers, by kind.
#[derive(Debug)]
pub(super) struct MarkerTasks {
    /// Tasks that write markers.
    pub writes: TaskSlots,
    /// Tasks that poll for markers which other daemons write.
    pub polls: TaskSlots,
    /// Tasks that remove markers which may be written after their exchange was closed.
    pub removals: TaskSlots,
}

impl Default for MarkerTasks {
    fn default() -> Self {
        let slots = || TaskSlots(Arc::new(Semaphore::new(MAX_MARKER_TASKS)));
        Self {
            writes: slots(),
            polls: slots(),
            removals: slots(),
        }
    }
}

/// Permits for background tasks of one kind.
#[derive(Debug)]
pub(super) struct TaskSlots(Arc<Semaphore>);

impl TaskSlots {
    /// A permit for one task, to be dropped at its end; `None` if as many as permitted are running.
    pub(super) fn try_acquire(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).try_acquire_owned().ok()
    }
}

/// The exchanges that were announced through this daemon and are open, as far as it knows: their
/// leases have not run out since the last renewal here, and they were not found closed.
#[derive(Debug)]
pub(super) struct AnnouncedHere {
    limit: AtomicUsize,
    state: Mutex<Announced>,
}

#[derive(Debug, Default)]
struct Announced {
    /// The end of each lease; `None`: never.
    ends: HashMap<ExchangeId, Option<Instant>>,
    /// No lease ends before this time.
    earliest: Option<Instant>,
}

impl AnnouncedHere {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit: AtomicUsize::new(limit),
            state: Mutex::default(),
        }
    }

    pub(super) fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Counts an exchange that is announced now; `true` if it was not counted before.
    ///
    /// # Errors
    /// As many as permitted are open.
    pub(super) fn admit(
        &self,
        exchange: &ExchangeId,
        lease: Duration,
        now: Instant,
    ) -> Result<bool, ExchangeError> {
        let limit = self.limit.load(Ordering::Relaxed);
        let mut state = self.state.lock();
        let known = state.ends.contains_key(exchange);
        if !known && state.ends.len() >= limit {
            state.remove_expired(now);
            if state.ends.len() >= limit {
                return Err(ExchangeError::TooManyAnnounced { limit });
            }
        }
        state.insert(exchange, now.checked_add(lease));
        Ok(!known)
    }

    /// Records a renewal, if the exchange is counted.
    pub(super) fn renewed(&self, exchange: &ExchangeId, lease: Duration, now: Instant) {
        let mut state = self.state.lock();
        if state.ends.contains_key(exchange) {
            state.insert(exchange, now.checked_add(lease));
        }
    }

    /// Counts an exchange no longer.
    pub(super) fn remove(&self, exchange: &ExchangeId) {
        self.state.lock().ends.remove(exchange);
    }
}

impl Announced {
    fn insert(&mut self, exchange: &ExchangeId, end: Option<Instant>) {
        if let Some(end) = end {
            self.earliest = Some(self.earliest.map_or(end, |earliest| earliest.min(end)));
        }
        self.ends.insert(exchange.clone(), end);
    }

    fn remove_expired(&mut self, now: Instant) {
        if self.earliest.is_none_or(|earliest| now < earliest) {
            return;
        }
        self.ends.retain(|_, end| end.is_none_or(|end| now < end));
        self.earliest = self.ends.values().copied().flatten().min();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(60);

    fn id(number: u32) -> ExchangeId {
        format!("q-{number}").parse().unwrap()
    }

    #[test]
    fn exchanges_count_until_they_are_closed_or_their_lease_has_run_out() {
        let (here, now) = (AnnouncedHere::new(2), Instant::now());
        assert!(here.admit(&id(1), LEASE, now).unwrap());
        assert!(here.admit(&id(2), LEASE, now).unwrap());
        assert!(!here.admit(&id(2), LEASE, now).unwrap(), "it is counted");
        let refused = here.admit(&id(3), LEASE, now).unwrap_err().to_string();
        assert!(
            refused.contains("limits.max_announced_exchanges"),
            "{refused}"
        );
        here.remove(&id(1));
        assert!(here.admit(&id(3), LEASE, now).unwrap());
        here.renewed(&id(2), LEASE, now + LEASE / 2);
        here.renewed(&id(9), LEASE, now);
        assert!(
            here.admit(&id(4), LEASE, now + LEASE).is_ok(),
            "3 has ended"
        );
        assert!(
            here.admit(&id(5), LEASE, now + LEASE).is_err(),
            "2 was renewed"
        );
        assert!(here.admit(&id(5), LEASE, now + LEASE * 2).is_ok());
        here.set_limit(3);
        assert!(
            here.admit(&id(6), Duration::MAX, now).is_ok(),
            "a lease without end"
        );
    }

    #[test]
    fn a_task_has_its_permit_until_it_ends() {
        let tasks = MarkerTasks::default();
        let mut permits: Vec<_> = (0..MAX_MARKER_TASKS)
            .map(|_| tasks.writes.try_acquire().unwrap())
            .collect();
        assert!(tasks.writes.try_acquire().is_none());
        assert!(tasks.polls.try_acquire().is_some(), "each kind has its own");
        permits.pop();
        assert!(tasks.writes.try_acquire().is_some());
    }
}
