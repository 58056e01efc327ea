//! Which faults occur, and how often: between daemon and store, and between client and daemon.
//!
//! To add a fault: a field here, its case in `draw`, its effect in `store` or `net`.

use std::time::Duration;

use crate::rng::Rng;

/// Longest one-way latency of a slow operation of a store.
pub const MAX_SLOW_LATENCY: Duration = Duration::from_secs(6);

/// Faults of a store: in how many of 1,000 operations each occurs, if nothing else is said.
#[derive(Debug, Clone, Default)]
pub struct StoreFaults {
    /// Longest usual one-way latency, in milliseconds.
    pub delay: u64,
    /// The latency is seconds instead.
    pub slow: u64,
    /// The operation fails and has no effect.
    pub fails: u64,
    /// The store answers 503 SlowDown at once.
    pub throttles: u64,
    /// The operation takes effect and fails all the same.
    pub fails_after_effect: u64,
    /// The operation fails and takes effect later.
    pub late_effects: u64,
    /// A delete removes some of its keys and fails.
    pub partial_deletes: u64,
    /// A put conflicts with another client's delete.
    pub contended: u64,
    /// The bytes of a read are corrupted in transit.
    pub corrupts: u64,
    /// The operation is not answered: by an object store never, with or without its effect; by a
    /// file system as long as this is not zero.
    pub hangs: u64,
}

/// What happens to one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Works,
    Fails,
    Throttled,
    FailsAfterEffect,
    LateEffect(Duration),
    Partial,
    Contended,
    Corrupted,
    /// No space is left.
    Full,
    /// The store refuses it.
    Denied,
    /// There is no answer; whether there is an effect.
    Hangs(bool),
}

/// Kinds of operations, as far as their faults differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Put,
    Read,
    List,
    Delete,
}

impl StoreFaults {
    pub fn draw(&self, operation: Operation, rng: &Rng) -> Outcome {
        let drawn = rng.below(1000);
        let mut bound = 0;
        let mut within = |share: u64| {
            bound += share;
            drawn < bound
        };
        if within(self.fails) {
            return Outcome::Fails;
        }
        if within(self.throttles) {
            return Outcome::Throttled;
        }
        if within(self.hangs) {
            return Outcome::Hangs(rng.chance(500));
        }
        let writes = matches!(operation, Operation::Put | Operation::Delete);
        if writes && within(self.fails_after_effect) {
            return Outcome::FailsAfterEffect;
        }
        if writes && within(self.late_effects) {
            return Outcome::LateEffect(rng.millis(100, 20_000));
        }
        match operation {
            Operation::Delete if within(self.partial_deletes) => Outcome::Partial,
            Operation::Put if within(self.contended) => Outcome::Contended,
            Operation::Read if within(self.corrupts) => Outcome::Corrupted,
            _ => Outcome::Works,
        }
    }

    /// Draws a one-way latency.
    pub fn latency(&self, rng: &Rng) -> Duration {
        if rng.chance(self.slow) {
            return rng.millis(500, MAX_SLOW_LATENCY.as_millis() as u64);
        }
        rng.millis(0, self.delay)
    }

    /// The same store without faults.
    pub fn without_faults(&self) -> Self {
        Self {
            delay: self.delay,
            ..Self::default()
        }
    }
}

/// Faults of the network: in how many of 1,000 requests each occurs, if nothing else is said.
#[derive(Debug, Clone, Default)]
pub struct NetFaults {
    /// Longest usual one-way latency, in milliseconds.
    pub delay: u64,
    /// The latency is seconds instead.
    pub slow: u64,
    /// The request never arrives.
    pub loses_requests: u64,
    /// The daemon handles the request, but its answer never arrives.
    pub loses_answers: u64,
    /// A request body breaks off.
    pub cuts_uploads: u64,
    /// A request body arrives in pieces with pauses.
    pub trickles: u64,
    /// A request body stops in the middle, and its connection stays open: its client's machine is
    /// gone.
    pub halts_uploads: u64,
}

impl NetFaults {
    /// Draws a one-way latency.
    pub fn latency(&self, rng: &Rng) -> Duration {
        if rng.chance(self.slow) {
            return rng.millis(300, 4000);
        }
        rng.millis(0, self.delay)
    }

    /// The same network without faults.
    pub fn without_faults(&self) -> Self {
        Self {
            delay: self.delay,
            ..Self::default()
        }
    }
}
