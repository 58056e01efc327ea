//! The end of exchanges that nobody renews, and of the daemon itself.
//!
//! Does: watch ([`lease_tracker`]), collect ([`collect`], [`sweep`], [`one_shot`]), drain ([`drain`]). Does not:
//! announce or close (`exchange`). Invariant: an exchange is removed only after its end was claimed.

pub mod collect;
pub mod drain;
pub mod lease_tracker;
pub mod one_shot;
pub mod sweep;
