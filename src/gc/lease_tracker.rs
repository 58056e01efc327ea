//! How long each exchange has been observed without a renewal.
//!
//! Pure: the caller passes the time. Does: add up the time between polls that showed the same
//! marker. Does not: poll, or collect anything. Invariant: only time counts in which the observer
//! polled, and in which a renewal could have been written. An observer that was stopped, suspended
//! or cut off from a base directory for an hour has not observed that hour, as the same event may
//! have held up the client that renews: a gap between two polls counts at most twice the poll
//! interval, and at most a quarter of the lease. So two polls are never enough, however far apart.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::id::ExchangeId;

/// A lease needs at least this many gaps between polls to expire.
const MIN_GAPS: u32 = 4;

/// The combined markers of an exchange in all base directories. Versions show only that something
/// has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseState {
    /// There is a marker, with this version.
    Open(String),
    /// There is none, only other objects.
    Missing,
    /// It was claimed, but not completely removed; the version of its tombstones.
    Tombstone(String),
}

/// When and how an exchange was polled.
#[derive(Debug, Clone, Copy)]
pub struct Poll {
    /// Just before the lists were requested.
    pub asked: Instant,
    /// When they had arrived.
    pub answered: Instant,
    /// Whether a renewal could have been written at that time, as far as is known.
    pub writable: bool,
}

/// What follows from the polls of an exchange so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may be collected now.
    Expired,
    /// It was not renewed in this time, which is less than a lease.
    Unrenewed(Duration),
    /// This was its first poll, or it was renewed since the last one.
    Fresh,
}

#[derive(Debug)]
struct Tracked {
    marker: LeaseState,
    lease: Duration,
    /// The time that counts.
    unrenewed: Duration,
    last: Poll,
}

/// Tracks exchanges over time.
#[derive(Debug)]
pub struct LeaseTracker {
    /// The most that a gap between two polls counts.
    max_gap: Duration,
    tracked: HashMap<ExchangeId, Tracked>,
}

impl LeaseTracker {
    /// A tracker; the caller polls every `interval`.
    pub fn new(interval: Duration) -> Self {
        Self {
            max_gap: interval * 2,
            tracked: HashMap::new(),
        }
    }

    /// Records what a poll of an exchange with this lease showed.
    pub fn observe(
        &mut self,
        id: &ExchangeId,
        marker: LeaseState,
        poll: Poll,
        lease: Duration,
    ) -> Verdict {
        let claimed = matches!(marker, LeaseState::Tombstone(_));
        let Some(tracked) = self.tracked.get_mut(id).filter(|t| t.marker == marker) else {
            let tracked = Tracked {
                marker,
                lease,
                unrenewed: Duration::ZERO,
                last: poll,
            };
            self.tracked.insert(id.clone(), tracked);
            return Verdict::Fresh;
        };
        if claimed {
            // Its claimant has observed it for a whole lease, and makes no progress.
            return Verdict::Expired;
        }
        if tracked.last.writable && poll.writable {
            let gap = poll.asked.saturating_duration_since(tracked.last.answered);
            tracked.unrenewed += gap.min(self.max_gap).min(lease / MIN_GAPS);
        }
        (tracked.last, tracked.lease) = (poll, lease);
        if tracked.unrenewed >= lease && poll.writable {
            return Verdict::Expired;
        }
        Verdict::Unrenewed(tracked.unrenewed)
    }

    /// Continues what another observer has observed of an exchange that was not tracked until this
    /// poll. The time since its last poll does not count, so nothing has expired yet.
    pub fn resume(
        &mut self,
        id: &ExchangeId,
        marker: LeaseState,
        poll: Poll,
        (lease, unrenewed): (Duration, Duration),
    ) -> Verdict {
        let tracked = Tracked {
            marker,
            lease,
            unrenewed,
            last: poll,
        };
        self.tracked.insert(id.clone(), tracked);
        Verdict::Unrenewed(unrenewed)
    }

    pub fn is_tracked(&self, id: &ExchangeId) -> bool {
        self.tracked.contains_key(id)
    }

    /// Nothing could be polled: the time until the next poll does not count.
    pub fn interrupt(&mut self) {
        for tracked in self.tracked.values_mut() {
            tracked.last.writable = false;
        }
    }

    /// Starts to track an exchange from zero: its state is unknown now.
    pub fn reset(&mut self, id: &ExchangeId) {
        self.tracked.remove(id);
    }

    /// Stops tracking all exchanges except those that still exist.
    pub fn retain(&mut self, exists: impl Fn(&ExchangeId) -> bool) {
        self.tracked.retain(|id, _| exists(id));
    }

    /// Whether any exchange was not renewed for half of the lease. A client that is alive renews
    /// after a third of it.
    pub fn any_half_expired(&self) -> bool {
        self.tracked.values().any(|t| t.unrenewed >= t.lease / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(900);
    const INTERVAL: Duration = Duration::from_secs(60);

    struct Observer {
        leases: LeaseTracker,
        id: ExchangeId,
        start: Instant,
    }

    impl Observer {
        fn new(interval: Duration) -> Self {
            Self {
                leases: LeaseTracker::new(interval),
                id: "q".parse().unwrap(),
                start: Instant::now(),
            }
        }

        fn poll_when(&mut self, seconds: u64, version: &str, writable: bool) -> Verdict {
            let at = self.start + Duration::from_secs(seconds);
            let poll = Poll {
                asked: at,
                answered: at,
                writable,
            };
            self.leases
                .observe(&self.id, LeaseState::Open(version.into()), poll, LEASE)
        }

        fn poll(&mut self, seconds: u64, version: &str) -> Verdict {
            self.poll_when(seconds, version, true)
        }
    }

    #[test]
    fn an_exchange_expires_only_after_a_whole_lease_without_renewal() {
        let mut observer = Observer::new(INTERVAL);
        for seconds in (0..900).step_by(60) {
            assert_ne!(observer.poll(seconds, "a"), Verdict::Expired, "{seconds}");
        }
        assert_eq!(observer.poll(890, "b"), Verdict::Fresh, "renewed");
        for seconds in (950..1790).step_by(60) {
            assert_ne!(observer.poll(seconds, "b"), Verdict::Expired, "{seconds}");
        }
        assert_eq!(observer.poll(1790, "b"), Verdict::Expired);
    }

    #[test]
    fn an_observer_that_was_stopped_between_two_polls_has_not_observed_meanwhile() {
        let mut observer = Observer::new(INTERVAL);
        observer.poll(0, "a");
        // Stopped for ten hours: the client may have been, too.
        let gap = 2 * INTERVAL;
        assert_eq!(observer.poll(36_000, "a"), Verdict::Unrenewed(gap));
        assert_eq!(observer.poll(72_000, "a"), Verdict::Unrenewed(2 * gap));
        // A client that renews after a third of a lease has done so long before this.
        for n in 1..11 {
            assert_ne!(observer.poll(72_000 + 60 * n, "a"), Verdict::Expired, "{n}");
        }
        assert_eq!(observer.poll(72_660, "a"), Verdict::Expired);
    }

    #[test]
    fn it_takes_several_polls_even_if_they_are_far_apart() {
        let mut observer = Observer::new(Duration::from_secs(899));
        for n in 0..4 {
            assert_ne!(observer.poll(n * 899, "a"), Verdict::Expired, "{n}");
        }
        assert_eq!(observer.poll(4 * 899, "a"), Verdict::Expired);
    }

    #[test]
    fn time_in_which_no_renewal_could_be_written_does_not_count() {
        let mut observer = Observer::new(INTERVAL);
        for seconds in (0..=840).step_by(60) {
            observer.poll(seconds, "a");
        }
        // The disk is full for an hour.
        for seconds in (900..4500).step_by(60) {
            let verdict = observer.poll_when(seconds, "a", false);
            assert_eq!(verdict, Verdict::Unrenewed(Duration::from_secs(840)));
        }
        assert_ne!(
            observer.poll(4500, "a"),
            Verdict::Expired,
            "the disk has just become writable"
        );
        assert_eq!(observer.poll(4560, "a"), Verdict::Expired);
    }

    #[test]
    fn the_duration_of_a_slow_poll_does_not_count() {
        let mut observer = Observer::new(INTERVAL);
        for n in 0..100 {
            let at = observer.start + Duration::from_secs(60) * n;
            let poll = Poll {
                asked: at,
                answered: at + Duration::from_secs(60),
                writable: true,
            };
            let verdict = observer
                .leases
                .observe(&observer.id, LeaseState::Missing, poll, LEASE);
            assert!(
                matches!(verdict, Verdict::Fresh | Verdict::Unrenewed(Duration::ZERO)),
                "{verdict:?}"
            );
        }
    }

    #[test]
    fn each_exchange_is_judged_by_its_own_lease() {
        let mut observer = Observer::new(INTERVAL);
        let other: ExchangeId = "other".parse().unwrap();
        for seconds in (0..1800).step_by(60) {
            let at = observer.start + Duration::from_secs(seconds);
            let poll = Poll {
                asked: at,
                answered: at,
                writable: true,
            };
            let marker = LeaseState::Open("a".into());
            let verdict = observer.leases.observe(&other, marker, poll, 2 * LEASE);
            assert_ne!(verdict, Verdict::Expired, "{seconds}");
            let expired = observer.poll(seconds, "a") == Verdict::Expired;
            assert_eq!(expired, seconds >= 900, "{seconds}");
        }
    }

    #[test]
    fn the_tombstones_of_a_claimant_that_goes_on_are_left_to_it() {
        let mut observer = Observer::new(INTERVAL);
        let mut poll = |seconds, version: &str| {
            let at = observer.start + Duration::from_secs(seconds);
            let poll = Poll {
                asked: at,
                answered: at,
                writable: false,
            };
            let marker = LeaseState::Tombstone(version.into());
            observer.leases.observe(&observer.id, marker, poll, LEASE)
        };
        assert_eq!(poll(0, "one"), Verdict::Fresh);
        assert_eq!(poll(60, "one, two"), Verdict::Fresh);
        assert_eq!(poll(120, "one, two"), Verdict::Expired, "it has died");
    }

    #[test]
    fn the_time_around_a_poll_that_failed_does_not_count() {
        let mut observer = Observer::new(INTERVAL);
        for n in 0..100 {
            let verdict = observer.poll(60 * n, "a");
            assert!(
                matches!(verdict, Verdict::Fresh | Verdict::Unrenewed(Duration::ZERO)),
                "{verdict:?}"
            );
            observer.leases.interrupt();
        }
    }

    #[test]
    fn an_exchange_whose_state_was_unknown_is_tracked_from_zero() {
        let mut observer = Observer::new(INTERVAL);
        for seconds in (0..900).step_by(60) {
            observer.poll(seconds, "a");
        }
        let id = observer.id.clone();
        assert!(observer.leases.is_tracked(&id));
        observer.leases.reset(&id);
        assert!(!observer.leases.is_tracked(&id));
        assert_eq!(observer.poll(900, "a"), Verdict::Fresh);
        observer.leases.retain(|_| false);
        assert_eq!(observer.poll(960, "a"), Verdict::Fresh);
    }

    #[test]
    fn the_time_between_two_observers_does_not_count_and_that_before_it_does() {
        let (mut first, mut second) = (Observer::new(INTERVAL), Observer::new(INTERVAL));
        for seconds in (0..=600).step_by(60) {
            first.poll(seconds, "a");
        }
        let at = |seconds| {
            let at = second.start + Duration::from_secs(seconds);
            Poll {
                asked: at,
                answered: at,
                writable: true,
            }
        };
        let watched = (LEASE, Duration::from_secs(600));
        let marker = LeaseState::Open("a".into());
        let resumed = second.leases.resume(&second.id, marker, at(5_000), watched);
        assert_eq!(resumed, Verdict::Unrenewed(Duration::from_secs(600)));
        for seconds in (5_060..5_300).step_by(60) {
            assert_ne!(second.poll(seconds, "a"), Verdict::Expired, "{seconds}");
        }
        assert_eq!(second.poll(5_300, "a"), Verdict::Expired);
        // One that was watched for a whole lease is polled once more.
        let whole = (LEASE, LEASE);
        let marker = LeaseState::Open("b".into());
        let poll = Poll {
            asked: second.start,
            answered: second.start,
            writable: true,
        };
        let resumed = second.leases.resume(&second.id, marker, poll, whole);
        assert_eq!(resumed, Verdict::Unrenewed(LEASE));
        assert_eq!(second.poll(60, "b"), Verdict::Expired);
    }

    #[test]
    fn half_expired_are_exchanges_that_a_live_client_would_have_renewed() {
        let mut observer = Observer::new(INTERVAL);
        for n in 0..20 {
            observer.poll(n * 300, &n.to_string());
            assert!(!observer.leases.any_half_expired());
        }
        for seconds in (5_700..6_300).step_by(60) {
            observer.poll(seconds, "last");
        }
        assert!(observer.leases.any_half_expired());
        // Half of the lease is enough.
        let mut observer = Observer::new(INTERVAL);
        for seconds in (0..=540).step_by(90) {
            observer.poll(seconds, "a");
            assert_eq!(observer.leases.any_half_expired(), seconds >= 450);
        }
    }
}
