//! Estimates how much memory a batch will need besides its bytes.
//!
//! Does: learn from the batches of an exchange. Does not: reserve. Invariant: an estimate only
//! decides how much is reserved before a body is read; what the batch really needs is counted while
//! it is read.

use std::sync::atomic::{AtomicU64, Ordering};

/// Initial estimate, in bytes for each KiB of a body: a run for each 2 KiB.
const INITIAL: u64 = 128;
/// Bodies from this size on are estimated separately from smaller ones: a single page of one byte
/// needs twenty times its size, which does not predict the need of a batch of many pages.
const LARGE: u64 = 64 << 10;
/// An estimate that was too high approaches the latest batch by this part of the difference.
const DECAY: u64 = 8;

/// The estimates of one exchange, in bytes for each KiB: for small bodies and for large ones.
#[derive(Debug)]
pub(super) struct OverheadEstimate([AtomicU64; 2]);

impl Default for OverheadEstimate {
    fn default() -> Self {
        Self([INITIAL; 2].map(AtomicU64::new))
    }
}

impl OverheadEstimate {
    fn of(&self, length: u64) -> &AtomicU64 {
        &self.0[usize::from(length >= LARGE)]
    }

    /// The memory that a body of `length` bytes is expected to need besides.
    pub(super) fn for_body(&self, length: u64) -> u64 {
        let per_kib = self.of(length).load(Ordering::Relaxed);
        length.saturating_mul(per_kib) >> 10
    }

    /// Records what a body of `length` bytes needed: `overhead` for the first `verified` bytes.
    pub(super) fn record(&self, length: u64, overhead: u64, verified: u64) {
        let seen = (overhead << 10).div_ceil(verified.max(1));
        let next = |old: u64| Some(seen.max(old - old.saturating_sub(seen).div_ceil(DECAY)));
        let _ = self
            .of(length)
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_rises_at_once_and_falls_slowly() {
        let estimate = OverheadEstimate::default();
        assert_eq!(estimate.for_body(1 << 20), 128 << 10);
        estimate.record(1 << 20, 1 << 20, 1 << 18);
        assert_eq!(estimate.for_body(1 << 20), 4 << 20);
        estimate.record(1 << 20, 0, 1 << 20);
        assert_eq!(estimate.for_body(1 << 20), 7 << 19);
        for _ in 0..100 {
            estimate.record(1 << 20, 0, 1 << 20);
        }
        assert_eq!(estimate.for_body(1 << 20), 0);
    }

    #[test]
    fn a_tiny_batch_says_nothing_about_large_ones() {
        let estimate = OverheadEstimate::default();
        estimate.record(13, 780, 13);
        assert!(estimate.for_body(13) >= 780);
        assert_eq!(estimate.for_body(1 << 20), 128 << 10);
        assert_eq!(estimate.for_body(LARGE), LARGE / 8);
    }
}
