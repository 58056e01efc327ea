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
