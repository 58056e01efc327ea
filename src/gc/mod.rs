//! The end of exchanges that nobody renews, and of the daemon itself.
//!
//! Does: watch ([`watch`]), collect ([`collect`], [`sweep`], [`once`]), drain ([`drain`]). Does not:
//! announce or close (`exchange`). Invariant: an exchange is removed only after its end was claimed.

pub mod collect;
pub mod drain;
pub mod once;
pub mod sweep;
pub mod watch;
