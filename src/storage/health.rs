//! The health of one base directory, as a value.
//!
//! Does: hold the last failures, of puts and of reads, and whether a background probe runs. Does
//! not: probe (`base`). Invariant: a base directory with a failure has exactly one background
//! probe.

use parking_lot::Mutex;

/// Shared by all operations on one base directory.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failure: Option<String>,
    /// Whether the last put or probe failed because there is no space.
    full: bool,
    unreadable: Option<String>,
    probing: bool,
}

/// What changed with a failure.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failed {
    /// There was no such failure before.
    pub is_new: bool,
    /// The caller must start the background probe.
    pub start_probing: bool,
}

impl Health {
    /// The last failure of a put or probe; `None` if healthy.
    pub(super) fn failure(&self) -> Option<String> {
        self.0.lock().failure.clone()
    }

    /// Why it could not be read last; `None` if it could, or was not read since the start.
    pub(super) fn unreadable(&self) -> Option<String> {
        self.0.lock().unreadable.clone()
    }

    /// Whether it fails because there is no space.
    pub(super) fn is_full(&self) -> bool {
        self.0.lock().full
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.0.lock().failure.is_none()
    }

    /// Neither puts nor reads failed last.
    pub(super) fn works(&self) -> bool {
        let state = self.0.lock();
        state.failure.is_none() && state.unreadable.is_none()
    }

    /// Records a successful put or probe; returns whether the base directory was unhealthy.
    pub(super) fn succeed(&self) -> bool {
        let mut state = self.0.lock();
        state.full = false;
        state.failure.take().is_some()
    }

    /// Records a successful read; returns whether the base directory was unreadable.
    pub(super) fn succeed_read(&self) -> bool {
        self.0.lock().unreadable.take().is_some()
    }

    /// Records a failed put or probe.
    pub(super) fn fail(&self, reason: String, full: bool) -> Failed {
        let mut state = self.0.lock();
        let was_full = std::mem::replace(&mut state.full, full);
        let mut failed = state.fail(|state| &mut state.failure, reason);
        failed.is_new |= full && !was_full;
        failed
    }

    /// Records a failed read.
    pub(super) fn fail_read(&self, reason: String) -> Failed {
        self.0.lock().fail(|state| &mut state.unreadable, reason)
    }

    /// Ends the background probe if nothing failed last; returns whether it did. Under the lock, so
    /// that a failure at the same moment starts another.
    pub(super) fn stop_probing_if_it_works(&self) -> bool {
        let mut state = self.0.lock();
        state.probing = state.failure.is_some() || state.unreadable.is_some();
        !state.probing
    }
}

impl State {
    fn fail(
        &mut self,
        which: impl FnOnce(&mut Self) -> &mut Option<String>,
        reason: String,
    ) -> Failed {
        Failed {
            is_new: which(self).replace(reason).is_none(),
            start_probing: !std::mem::replace(&mut self.probing, true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_put_makes_unhealthy_and_is_new_until_one_succeeds() {
        let health = Health::default();
        assert!(health.is_healthy() && health.works());
        assert!(!health.succeed(), "it was healthy");
        let first = health.fail("one".into(), false);
        assert!(first.is_new && first.start_probing);
        let second = health.fail("two".into(), false);
        assert!(!second.is_new && !second.start_probing);
        assert_eq!(health.failure().as_deref(), Some("two"));
        assert!(!health.is_healthy() && !health.works());
        assert_eq!(health.unreadable(), None);
        assert!(health.succeed() && health.is_healthy() && health.works());
        assert!(health.fail("three".into(), false).is_new);
    }

    #[test]
    fn a_failed_read_is_told_apart_from_a_failed_put() {
        let health = Health::default();
        assert!(!health.succeed_read());
        let failed = health.fail_read("gone".into());
        assert!(failed.is_new && failed.start_probing);
        assert!(!health.fail_read("gone".into()).is_new);
        assert_eq!(health.unreadable().as_deref(), Some("gone"));
        assert!(health.is_healthy() && !health.works());
        let put = health.fail("full".into(), true);
        assert!(put.is_new && !put.start_probing, "one probe for both");
        assert!(health.succeed_read() && !health.works());
        assert_eq!(health.unreadable(), None);
    }

    #[test]
    fn a_base_directory_that_becomes_full_is_told_as_new() {
        let health = Health::default();
        assert!(health.fail("no connection".into(), false).is_new);
        assert!(!health.is_full());
        assert!(health.fail("no space".into(), true).is_new);
        assert!(health.is_full());
        assert!(!health.fail("no space".into(), true).is_new);
        assert!(!health.fail("no connection".into(), false).is_new);
        assert!(!health.is_full());
        health.fail("no space".into(), true);
        health.succeed();
        assert!(!health.is_full());
    }

    #[test]
    fn the_probe_ends_only_when_puts_and_reads_work_and_then_another_can_start() {
        let health = Health::default();
        health.fail("put".into(), false);
        health.fail_read("read".into());
        assert!(!health.stop_probing_if_it_works());
        health.succeed();
        assert!(!health.stop_probing_if_it_works());
        assert!(!health.fail_read("read".into()).start_probing);
        health.succeed_read();
        assert!(health.stop_probing_if_it_works());
        assert!(health.fail("put".into(), false).start_probing);
    }
}
