//! Bytes that the batches of an exchange use without a reservation.
//!
//! Does: count them, and pass them to the next request that can reserve them. Does not: reserve.
//! Invariant: each byte is counted until it is reserved.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The count of one exchange.
#[derive(Debug, Default, Clone)]
pub struct UnreservedBytes(Arc<AtomicU64>);

impl UnreservedBytes {
    pub fn add(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Removes up to `max` bytes from the count for a caller that is about to reserve them.
    pub fn start_repayment(self, max: u64) -> RepaymentGuard {
        let rest = |all: u64| Some(all.saturating_sub(max));
        let before = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest);
        RepaymentGuard {
            bytes: before.unwrap_or(0).min(max),
            unreserved: self,
        }
    }
}

/// Bytes about to be reserved; counted again on drop, in case the caller was cancelled.
#[derive(Debug)]
pub struct RepaymentGuard {
    unreserved: UnreservedBytes,
    /// Set to 0 once they are reserved.
    pub bytes: u64,
}

impl Drop for RepaymentGuard {
    fn drop(&mut self) {
        self.unreserved.add(self.bytes);
    }
}
