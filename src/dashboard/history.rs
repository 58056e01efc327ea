//! What the daemon did in the last hour, in samples.
//!
//! Does: keep them, and say how much happened between two of them. Does not: take them (`api`
//! does). Invariant: it holds one hour at most, whatever the time between samples.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

/// Time between two samples.
pub const INTERVAL: Duration = Duration::from_secs(10);
/// An hour of them.
const CAPACITY: usize = 361;

/// Counters and gauges at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sample {
    /// Time since the start of the daemon.
    pub at: Duration,
    pub bytes_written: u64,
    pub bytes_read: u64,
    pub sinks_finished: u64,
    pub reads: u64,
    /// Shares of the pools for writing and reading that are in use, 0 to 1.
    pub write_share: f64,
    pub read_share: f64,
}

/// A value of a sample that only grows.
#[derive(Debug, Clone, Copy)]
pub enum Counter {
    BytesWritten,
    BytesRead,
    SinksFinished,
    Reads,
}

impl Sample {
    fn counter(&self, which: Counter) -> u64 {
        match which {
            Counter::BytesWritten => self.bytes_written,
            Counter::BytesRead => self.bytes_read,
            Counter::SinksFinished => self.sinks_finished,
            Counter::Reads => self.reads,
        }
    }
}

/// The samples. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct History(Arc<Mutex<VecDeque<Sample>>>);

/// Values over the last hour, the oldest first, each with its age relative to the newest.
pub type Series = Vec<(Duration, f64)>;

impl History {
    /// Adds a sample, and drops the oldest one beyond an hour.
    pub fn record(&self, sample: Sample) {
        let mut samples = self.0.lock();
        while samples.len() >= CAPACITY {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    /// How much a counter grew per second.
    pub fn rates(&self, counter: Counter) -> Series {
        let samples = self.0.lock();
        let newest = samples.back().map_or(Duration::ZERO, |sample| sample.at);
        let pairs = samples.iter().zip(samples.iter().skip(1));
        let rates = pairs.map(|(before, after)| {
            let seconds = after.at.saturating_sub(before.at).as_secs_f64().max(1e-3);
            let grown = after
                .counter(counter)
                .saturating_sub(before.counter(counter)) as f64;
            (newest.saturating_sub(after.at), grown / seconds)
        });
        rates.collect()
    }

    /// Shares of the pools for writing and for reading.
    pub fn shares(&self) -> (Series, Series) {
        let samples = self.0.lock();
        let newest = samples.back().map_or(Duration::ZERO, |sample| sample.at);
        let shares = samples.iter().map(|sample| {
            let age = newest.saturating_sub(sample.at);
            ((age, sample.write_share), (age, sample.read_share))
        });
        shares.unzip()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(seconds: u64, bytes_written: u64) -> Sample {
        Sample {
            at: Duration::from_secs(seconds),
            bytes_written,
            ..Sample::default()
        }
    }

    #[test]
    fn a_rate_is_the_growth_by_the_time_between_two_samples() {
        let history = History::default();
        assert!(history.rates(Counter::BytesWritten).is_empty());
        for (seconds, bytes) in [(0, 0), (10, 1000), (30, 1200)] {
            history.record(sample(seconds, bytes));
        }
        let rates = history.rates(Counter::BytesWritten);
        assert_eq!(
            rates,
            [(Duration::from_secs(20), 100.0), (Duration::ZERO, 10.0)]
        );
    }

    #[test]
    fn an_hour_is_kept_and_no_more() {
        let history = History::default();
        for index in 0..10_000 {
            history.record(sample(index * INTERVAL.as_secs(), 0));
        }
        let (values, _) = history.shares();
        assert_eq!(values.len(), CAPACITY);
        assert_eq!(values[0].0, Duration::from_secs(3600));
    }
}
