//! The request limits of an object store that divides its load by ranges of keys, as S3 does.
//!
//! Does: count requests per range of keys, refuse what exceeds a range's limit, divide a range that
//! has been over its limit for a while. Does not: merge ranges again, or delay anything. Invariant:
//! every key is in one range; the same requests at the same times have the same answers.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;
use stopover::store::{StoreError, StoreErrorKind};
use tokio::time::Instant;

/// Recent keys of a range, at whose median it is divided.
const RECENT: usize = 200;

/// The limits of each range.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Requests per second that write.
    pub puts: u32,
    /// Requests per second that read.
    pub gets: u32,
    /// For how long a range must refuse requests, second after second, until it is divided.
    pub divided_after: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Put,
    Get,
}

#[derive(Debug, Default)]
struct KeyRange {
    /// The second to which the counts belong, since the start.
    second: u64,
    counts: [u32; 2],
    /// Seconds in a row in which it has refused requests.
    busy_seconds: u64,
    refused: bool,
    recent: VecDeque<String>,
}

impl KeyRange {
    /// Counts a request; whether it is granted.
    fn grants(&mut self, second: u64, kind: Kind, limits: Limits) -> bool {
        if second != self.second {
            let busy = self.refused && second == self.second + 1;
            self.busy_seconds = if busy { self.busy_seconds + 1 } else { 0 };
            (self.second, self.counts, self.refused) = (second, [0; 2], false);
        }
        let (count, limit) = match kind {
            Kind::Put => (&mut self.counts[0], limits.puts),
            Kind::Get => (&mut self.counts[1], limits.gets),
        };
        let granted = *count < limit;
        *count += u32::from(granted);
        self.refused |= !granted;
        granted
    }
}

#[derive(Debug)]
struct State {
    /// By the first key of each.
    ranges: BTreeMap<String, KeyRange>,
    granted: u64,
    refused: u64,
}

/// The ranges of one bucket.
#[derive(Debug)]
pub struct KeyRanges {
    limits: Limits,
    start: Instant,
    /// What a key is taken for.
    name: fn(&str) -> String,
    state: Mutex<State>,
}

impl KeyRanges {
    /// One range for all keys, each of which is taken for what `name` returns.
    pub fn new(limits: Limits, name: fn(&str) -> String) -> Self {
        Self {
            limits,
            start: Instant::now(),
            name,
            state: Mutex::new(State {
                ranges: [(String::new(), KeyRange::default())].into(),
                granted: 0,
                refused: 0,
            }),
        }
    }

    /// Grants or refuses a request.
    pub fn request(&self, key: &str, kind: Kind) -> Result<(), StoreError> {
        let (key, second) = ((self.name)(key), self.start.elapsed().as_secs());
        let mut state = self.state.lock();
        let range = state.ranges.range_mut(..=key.clone()).next_back();
        let (first, range) = range.expect("one range begins at the first key of all");
        let first = first.clone();
        range.recent.push_back(key);
        if range.recent.len() > RECENT {
            range.recent.pop_front();
        }
        let granted = range.grants(second, kind, self.limits);
        if range.busy_seconds >= self.limits.divided_after.as_secs() {
            range.busy_seconds = 0;
            let mut recent: Vec<_> = range.recent.drain(..).collect();
            recent.sort_unstable();
            let median = recent.swap_remove(recent.len() / 2);
            if median != first {
                state.ranges.insert(median, KeyRange::default());
            }
        }
        if granted {
            state.granted += 1;
            return Ok(());
        }
        state.refused += 1;
        let message = "503 Slow Down: please reduce your request rate";
        Err(StoreError::new(StoreErrorKind::Unavailable, message))
    }

    /// How many ranges there are, and how many requests were granted and refused so far.
    pub fn counts(&self) -> (usize, u64, u64) {
        let state = self.state.lock();
        (state.ranges.len(), state.granted, state.refused)
    }
}
