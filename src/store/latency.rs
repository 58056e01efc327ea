//! How long the operations of base directories took in the last minutes, by quantile.
//!
//! Does: count durations in logarithmic buckets, in windows of five minutes. Does not: export them
//! (`metrics` has the histogram). Invariant: memory depends on the number of base directories
//! alone, and data older than three windows is dropped.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::id::BaseName;

/// The length of a window.
const WINDOW: Duration = Duration::from_secs(300);
/// Windows that are retained.
const WINDOWS: usize = 3;
/// Each bucket ends at √2 times the end of the one before.
const BUCKETS: usize = 40;
const FIRST: f64 = 125e-6;

/// The durations of one operation on one base directory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OperationLatency {
    /// `put`, `get`, `list` or `delete`.
    pub operation: &'static str,
    /// How many ended in the last ten to fifteen minutes.
    pub count: u64,
    pub median: Duration,
    /// The 99th percentile.
    pub p99: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    number: u64,
    counts: [u32; BUCKETS],
}

type Windows = [Option<Window>; WINDOWS];

/// The durations of all operations. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Latencies {
    /// The first operation.
    started: Arc<OnceLock<Instant>>,
    windows: Arc<Mutex<BTreeMap<(BaseName, &'static str), Windows>>>,
}

impl Latencies {
    fn window(&self, now: Instant) -> u64 {
        now.saturating_duration_since(*self.started.get_or_init(|| now))
            .as_secs()
            / WINDOW.as_secs()
    }

    pub(super) fn record(
        &self,
        base: &BaseName,
        operation: &'static str,
        elapsed: Duration,
        now: Instant,
    ) {
        let number = self.window(now);
        let mut windows = self.windows.lock();
        let windows = windows.entry((base.clone(), operation)).or_default();
        let slot = &mut windows[usize::try_from(number).unwrap_or(0) % WINDOWS];
        let window = match slot {
            Some(window) if window.number == number => window,
            _ => slot.insert(Window {
                number,
                counts: [0; BUCKETS],
            }),
        };
        let count = &mut window.counts[bucket(elapsed)];
        *count = count.saturating_add(1);
    }

    /// The operations of a base directory that ended recently.
    pub(super) fn of(&self, base: &BaseName, now: Instant) -> Vec<OperationLatency> {
        let oldest = self.window(now).saturating_sub(WINDOWS as u64 - 1);
        let windows = self.windows.lock();
        let own = windows.iter().filter(|((name, _), _)| name == base);
        let all = own.filter_map(|((_, operation), windows)| {
            let mut counts = [0_u64; BUCKETS];
            let recent = windows
                .iter()
                .flatten()
                .filter(|window| window.number >= oldest);
            for window in recent {
                let pairs = counts.iter_mut().zip(window.counts);
                pairs.for_each(|(all, count)| *all += u64::from(count));
            }
            let count = counts.iter().sum();
            (count > 0).then(|| OperationLatency {
                operation,
                count,
                median: quantile(&counts, count.div_ceil(2)),
                p99: quantile(&counts, count - count / 100),
            })
        });
        all.collect()
    }
}

/// The end of a bucket.
fn end(bucket: usize) -> Duration {
    let power = i32::try_from(bucket).unwrap_or(i32::MAX);
    Duration::from_secs_f64(FIRST * std::f64::consts::SQRT_2.powi(power))
}

fn bucket(elapsed: Duration) -> usize {
    (0..BUCKETS - 1)
        .find(|bucket| elapsed <= end(*bucket))
        .unwrap_or(BUCKETS - 1)
}

/// The end of the bucket with the `rank`-th shortest duration.
fn quantile(counts: &[u64; BUCKETS], rank: u64) -> Duration {
    let mut seen = 0;
    let found = counts.iter().position(|count| {
        seen += count;
        seen >= rank
    });
    end(found.unwrap_or(BUCKETS - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_at_most_a_bucket_above_what_was_recorded() {
        let (start, base) = (Instant::now(), "main".parse().unwrap());
        let latencies = Latencies::default();
        for millis in 1..=1000 {
            latencies.record(&base, "put", Duration::from_millis(millis), start);
        }
        let [put] = latencies.of(&base, start)[..] else {
            panic!("one operation");
        };
        assert_eq!((put.operation, put.count), ("put", 1000));
        let within = |found: Duration, exact: u64| {
            let exact = Duration::from_millis(exact);
            found >= exact && found <= exact.mul_f64(1.42)
        };
        assert!(within(put.median, 500), "{put:?}");
        assert!(within(put.p99, 990), "{put:?}");
        for n in 0..1000 {
            let elapsed = Duration::from_millis(if n < 990 { 1 } else { 1000 });
            latencies.record(&base, "get", elapsed, start);
        }
        let get = latencies.of(&base, start)[0];
        assert!(within(get.median, 1) && within(get.p99, 1), "{get:?}");
        assert!(latencies.of(&"other".parse().unwrap(), start).is_empty());
    }

    #[test]
    fn what_is_older_than_a_quarter_of_an_hour_is_forgotten() {
        let (start, base) = (Instant::now(), "main".parse().unwrap());
        let latencies = Latencies::default();
        latencies.record(&base, "get", Duration::from_secs(3600), start);
        let later = start + 2 * WINDOW;
        assert_eq!(latencies.of(&base, later)[0].count, 1);
        assert!(latencies.of(&base, later + WINDOW).is_empty());
        latencies.record(&base, "get", Duration::from_millis(1), later + WINDOW);
        let [get] = latencies.of(&base, later + WINDOW)[..] else {
            panic!("one operation");
        };
        assert!(
            get.count == 1 && get.p99 < Duration::from_millis(2),
            "{get:?}"
        );
        assert!(latencies.of(&base, later + 9 * WINDOW).is_empty());
        latencies.record(&base, "get", Duration::ZERO, later + 9 * WINDOW);
        assert_eq!(latencies.of(&base, later + 9 * WINDOW)[0].count, 1);
    }

    #[test]
    fn each_duration_belongs_to_the_first_bucket_whose_end_it_does_not_exceed() {
        assert_eq!(bucket(Duration::ZERO), 0);
        for n in 0..BUCKETS - 1 {
            assert_eq!(bucket(end(n)), n);
            assert_eq!(bucket(end(n) + Duration::from_nanos(1)), n + 1);
        }
        let last = end(BUCKETS - 1);
        for longer in [last, last + Duration::from_secs(1), 100 * last] {
            assert_eq!(bucket(longer), BUCKETS - 1);
        }
    }
}
