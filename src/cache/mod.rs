//! Copies of what the base directories hold, given back when memory is short.
//!
//! Does: keep recently written segments ([`hot`]), footers ([`footers`]) and fetched chunks
//! ([`chunks`]). Does not: know which attempts are committed (`catalog`). Invariant: every copy
//! holds a reservation, and nothing is only here.

pub mod chunks;
pub mod footers;
pub mod hot;
