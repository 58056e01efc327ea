//! What goes wrong, and how often: on the way to a store, and on the way to a daemon.
//!
//! To add a fault: a field here, its draw in `fate`, its effect in `store` or `net`.

use std::time::Duration;

use crate::chance::Chance;

/// The longest slow way there or back.
pub const SLOW_WAY: Duration = Duration::from_secs(6);

/// How often in a thousand operations of a store go wrong, and how.
#[derive(Debug, Clone, Default)]
pub struct StoreWeather {
    /// Longest usual way there or back, in milliseconds.
    pub delay: u64,
    /// Takes seconds instead.
    pub slow: u64,
    /// Fails, and nothing happened.
    pub fails: u64,
    /// Answers 503 SlowDown at once.
    pub throttles: u64,
    /// Took place, and fails all the same.
    pub fails_afterwards: u64,
    /// Fails, and takes place later.
    pub late: u64,
    /// A delete that removes some of its keys, and fails.
    pub halfway: u64,
    /// A put that another client's delete got in the way of.
    pub contended: u64,
    /// A read whose bytes are damaged on the way.
    pub damages: u64,
}

/// What becomes of one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Works,
    Fails,
    Throttled,
    FailsAfterwards,
    Late(Duration),
    Halfway,
    Contended,
    Damaged,
}

/// Kinds of operations, as far as fates differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Put,
    Read,
    List,
    Delete,
}

impl StoreWeather {
    pub fn fate(&self, operation: Operation, chance: &Chance) -> Fate {
        let drawn = chance.below(1000);
        let mut bound = 0;
        let mut within = |share: u64| {
            bound += share;
            drawn < bound
        };
        if within(self.fails) {
            return Fate::Fails;
        }
        if within(self.throttles) {
            return Fate::Throttled;
        }
        let writes = matches!(operation, Operation::Put | Operation::Delete);
        if writes && within(self.fails_afterwards) {
            return Fate::FailsAfterwards;
        }
        if writes && within(self.late) {
            return Fate::Late(chance.millis(100, 20_000));
        }
        match operation {
            Operation::Delete if within(self.halfway) => Fate::Halfway,
            Operation::Put if within(self.contended) => Fate::Contended,
            Operation::Read if within(self.damages) => Fate::Damaged,
            _ => Fate::Works,
        }
    }

    /// The time of one way.
    pub fn way(&self, chance: &Chance) -> Duration {
        if chance.yes(self.slow) {
            return chance.millis(500, SLOW_WAY.as_millis() as u64);
        }
        chance.millis(0, self.delay)
    }

    /// The same place without faults.
    pub fn calm(&self) -> Self {
        Self {
            delay: self.delay,
            ..Self::default()
        }
    }
}

/// How often in a thousand requests to a daemon go wrong, and how.
#[derive(Debug, Clone, Default)]
pub struct NetWeather {
    /// Longest usual way there or back, in milliseconds.
    pub delay: u64,
    /// Takes seconds instead.
    pub slow: u64,
    /// The request never arrives.
    pub loses_requests: u64,
    /// The request is carried out and its answer never arrives.
    pub loses_answers: u64,
    /// A body breaks off.
    pub cuts_uploads: u64,
    /// A body comes in pieces with pauses.
    pub trickles: u64,
}

impl NetWeather {
    /// The time of one way.
    pub fn way(&self, chance: &Chance) -> Duration {
        if chance.yes(self.slow) {
            return chance.millis(300, 4000);
        }
        chance.millis(0, self.delay)
    }

    /// The same network without faults.
    pub fn calm(&self) -> Self {
        Self {
            delay: self.delay,
            ..Self::default()
        }
    }
}
