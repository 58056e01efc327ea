//! For how long nobody has renewed an exchange, as far as the one who watches can vouch for it.
//!
//! Pure but for the instants it is given. Does: add up the time between looks that saw the same.
//! Does not: look, or end anything. Invariant: only time in which it looked, and in which a renewal
//! could have been written, counts. A watcher that was stopped, suspended or cut off from a base
//! directory for an hour has not watched for an hour: whoever renews may have been held up by the
//! very same thing. So no two looks are enough, however far apart.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::id::ExchangeId;

/// A lease takes at least this many gaps between looks to run out.
const LEAST_GAPS: u32 = 4;

/// What was seen of an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MarkerState {
    /// Its announcement, at this version.
    Open(String),
    /// Objects without an announcement.
    Missing,
    /// Its end was claimed and not carried out to the end.
    Tombstone,
}

/// One look at an exchange.
#[derive(Debug, Clone, Copy)]
pub struct Poll {
    /// Just before it was asked for.
    pub asked: Instant,
    /// When the answer was there.
    pub answered: Instant,
    /// Whether a renewal could have been written then, as far as is known.
    pub writable: bool,
}

/// What is known of an exchange after a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may go now.
    Expired,
    /// It was not renewed for as long as it has been watched: this long.
    Unrenewed(Duration),
    /// It is seen for the first time, or was renewed since the last look.
    Fresh,
}

#[derive(Debug)]
struct Watched {
    sight: MarkerState,
    /// Time that counts.
    silent: Duration,
    last: Poll,
}

/// Watches exchanges over time.
#[derive(Debug)]
pub struct LeaseTracker {
    lease: Duration,
    longest_gap: Duration,
    seen: HashMap<ExchangeId, Watched>,
}

impl LeaseTracker {
    /// A watch that takes exchanges for dead which were silent for `lease`, by one who means to
    /// look every `interval`. A gap of more than twice that is not time in which it watched.
    pub fn new(lease: Duration, interval: Duration) -> Self {
        Self {
            lease,
            longest_gap: (interval * 2).min(lease / LEAST_GAPS),
            seen: HashMap::new(),
        }
    }

    /// Notes what is seen now.
    pub fn see(&mut self, id: &ExchangeId, sight: MarkerState, look: Poll) -> Verdict {
        if sight == MarkerState::Tombstone {
            // Whoever claimed it has watched for a whole lease.
            return Verdict::Expired;
        }
        let Some(watched) = self.seen.get_mut(id).filter(|w| w.sight == sight) else {
            let silent = Duration::ZERO;
            let last = look;
            let watched = Watched {
                sight,
                silent,
                last,
            };
            self.seen.insert(id.clone(), watched);
            return Verdict::Fresh;
        };
        if watched.last.writable && look.writable {
            let gap = look.asked.saturating_duration_since(watched.last.answered);
            watched.silent += gap.min(self.longest_gap);
        }
        watched.last = look;
        if watched.silent >= self.lease && look.writable {
            return Verdict::Expired;
        }
        Verdict::Unrenewed(watched.silent)
    }

    /// Nothing can be said of it now: it is watched from the start again.
    pub fn lose(&mut self, id: &ExchangeId) {
        self.seen.remove(id);
    }

    /// Forgets all but these; `ids` is sorted.
    pub fn keep_only(&mut self, ids: &[ExchangeId]) {
        self.seen.retain(|id, _| ids.binary_search(id).is_ok());
    }

    /// Whether any exchange has been silent for half of the lease, which none is that somebody
    /// renews every third of it.
    pub fn suspects(&self) -> bool {
        self.seen.values().any(|w| w.silent >= self.lease / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(900);
    const INTERVAL: Duration = Duration::from_secs(60);

    struct Watcher {
        watch: LeaseTracker,
        id: ExchangeId,
        start: Instant,
    }

    impl Watcher {
        fn new(interval: Duration) -> Self {
            Self {
                watch: LeaseTracker::new(LEASE, interval),
                id: "q".parse().unwrap(),
                start: Instant::now(),
            }
        }

        fn look_when(&mut self, seconds: u64, version: &str, writable: bool) -> Verdict {
            let at = self.start + Duration::from_secs(seconds);
            let look = Poll {
                asked: at,
                answered: at,
                writable,
            };
            self.watch
                .see(&self.id, MarkerState::Open(version.into()), look)
        }

        fn look(&mut self, seconds: u64, version: &str) -> Verdict {
            self.look_when(seconds, version, true)
        }
    }

    #[test]
    fn an_exchange_is_over_only_after_a_whole_lease_without_renewal() {
        let mut watcher = Watcher::new(INTERVAL);
        for seconds in (0..900).step_by(60) {
            assert_ne!(watcher.look(seconds, "a"), Verdict::Expired, "{seconds}");
        }
        assert_eq!(watcher.look(890, "b"), Verdict::Fresh, "renewed");
        for seconds in (950..1790).step_by(60) {
            assert_ne!(watcher.look(seconds, "b"), Verdict::Expired, "{seconds}");
        }
        assert_eq!(watcher.look(1790, "b"), Verdict::Expired);
    }

    #[test]
    fn a_watcher_that_was_stopped_between_two_looks_has_not_watched_meanwhile() {
        let mut watcher = Watcher::new(INTERVAL);
        watcher.look(0, "a");
        // Stopped for ten hours: so may everybody have been.
        let gap = 2 * INTERVAL;
        assert_eq!(watcher.look(36_000, "a"), Verdict::Unrenewed(gap));
        assert_eq!(watcher.look(72_000, "a"), Verdict::Unrenewed(2 * gap));
        // Whoever renews every third of a lease has had its turn long before this.
        for n in 1..11 {
            assert_ne!(watcher.look(72_000 + 60 * n, "a"), Verdict::Expired, "{n}");
        }
        assert_eq!(watcher.look(72_660, "a"), Verdict::Expired);
    }

    #[test]
    fn it_takes_several_looks_also_where_they_are_far_apart() {
        let mut watcher = Watcher::new(Duration::from_secs(899));
        for n in 0..4 {
            assert_ne!(watcher.look(n * 899, "a"), Verdict::Expired, "{n}");
        }
        assert_eq!(watcher.look(4 * 899, "a"), Verdict::Expired);
    }

    #[test]
    fn time_in_which_no_renewal_could_be_written_does_not_count() {
        let mut watcher = Watcher::new(INTERVAL);
        for seconds in (0..=840).step_by(60) {
            watcher.look(seconds, "a");
        }
        // The disk is full for an hour.
        for seconds in (900..4500).step_by(60) {
            let verdict = watcher.look_when(seconds, "a", false);
            assert_eq!(verdict, Verdict::Unrenewed(Duration::from_secs(840)));
        }
        assert_ne!(
            watcher.look(4500, "a"),
            Verdict::Expired,
            "it has just ended"
        );
        assert_eq!(watcher.look(4560, "a"), Verdict::Expired);
    }

    #[test]
    fn a_slow_look_does_not_count_as_silence() {
        let mut watcher = Watcher::new(INTERVAL);
        for n in 0..100 {
            let at = watcher.start + Duration::from_secs(60) * n;
            let look = Poll {
                asked: at,
                answered: at + Duration::from_secs(60),
                writable: true,
            };
            let verdict = watcher.watch.see(&watcher.id, MarkerState::Missing, look);
            assert!(
                matches!(verdict, Verdict::Fresh | Verdict::Unrenewed(Duration::ZERO)),
                "{verdict:?}"
            );
        }
    }

    #[test]
    fn what_was_out_of_sight_is_watched_from_the_start_again() {
        let mut watcher = Watcher::new(INTERVAL);
        for seconds in (0..900).step_by(60) {
            watcher.look(seconds, "a");
        }
        let id = watcher.id.clone();
        watcher.watch.lose(&id);
        assert_eq!(watcher.look(900, "a"), Verdict::Fresh);
        watcher.watch.keep_only(&[]);
        assert_eq!(watcher.look(960, "a"), Verdict::Fresh);
    }

    #[test]
    fn suspects_are_those_that_everybody_alive_would_have_renewed() {
        let mut watcher = Watcher::new(INTERVAL);
        for n in 0..20 {
            watcher.look(n * 300, &n.to_string());
            assert!(!watcher.watch.suspects());
        }
        for seconds in (5_700..6_300).step_by(60) {
            watcher.look(seconds, "last");
        }
        assert!(watcher.watch.suspects());
    }
}
