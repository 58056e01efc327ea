//! The end of exchanges, and of the daemon itself.
//!
//! Does: close at a client's request ([`close`]), collect exchanges whose lease has expired
//! ([`collect`], [`sweep`] at one daemon at a time, and [`one_shot`] for an operator), drain
//! ([`drain`]). Does not:
//! announce (`exchange`). Invariant: an exchange is removed only if it was closed or
//! claimed.

pub mod close;
pub mod collect;
pub mod drain;
mod handover;
pub mod lease_tracker;
pub mod one_shot;
mod release;
pub mod sweep;
mod sweeper_lease;

use std::time::Duration;

/// How long segments without a marker must be watched before they are orphans. The marker of an
/// exchange may appear within `announcement` after its announcement, later than its first segment.
pub(crate) fn orphan_observation_time(announcement: Duration) -> Duration {
    announcement * 2
}
