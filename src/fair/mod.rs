//! A semaphore that shares its permits fairly among parties: here, queries.
//!
//! Does: grant permits (bytes, or slots), queue requests, and wake them in the order that
//! [`ledger`] decides. Does not: interpret permits. Invariant: a permit is released exactly once,
//! when it is dropped; a waiting request that is dropped has no effect; when a call returns, every
//! request that can be granted has been woken.

pub mod ledger;
mod semaphore;

pub use self::ledger::Shortage;
pub use self::semaphore::{FairPermit, FairSemaphore};

#[cfg(test)]
mod tests;
