//! Seeded draws.
//!
//! Invariant: what is drawn depends on the seed, the label and the order of the draws alone.

use std::time::Duration;

use stopover::runtime::Random;

/// A stream of draws of its own: who draws more elsewhere does not shift it.
#[derive(Debug, Clone)]
pub struct Chance(Random);

impl Chance {
    pub fn new(seed: u64, label: &str) -> Self {
        let mixed = label.bytes().fold(seed ^ 0x5EED, |hash, byte| {
            (hash ^ u64::from(byte))
                .wrapping_mul(0x0100_0000_01B3)
                .rotate_left(23)
        });
        Self(Random::seeded(mixed))
    }

    pub fn next(&self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `n`, which is not 0.
    pub fn below(&self, n: u64) -> u64 {
        self.next() % n
    }

    /// A number of `low..=high`.
    pub fn between(&self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// `true` so often in a thousand.
    pub fn yes(&self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    pub fn millis(&self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.between(low, high))
    }

    pub fn pick<'a, T>(&self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
}
