//! Seeded random numbers.
//!
//! Invariant: a draw depends only on the seed, the label and the number of earlier draws.

use std::time::Duration;

use stopover::runtime::Random;

/// An independent stream of random numbers: draws from other streams do not affect it.
#[derive(Debug, Clone)]
pub struct Rng(Random);

impl Rng {
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

    /// A number below `n`; `n` must not be 0.
    pub fn below(&self, n: u64) -> u64 {
        self.next() % n
    }

    /// A number in `low..=high`.
    pub fn between(&self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// `true` in `per_mille` of 1,000 draws.
    pub fn chance(&self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    pub fn millis(&self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.between(low, high))
    }

    pub fn pick<'a, T>(&self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
}
