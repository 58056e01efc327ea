//! Copies of what the base directories hold, evicted when memory is short.
//!
//! Does: cache the segments that this daemon wrote ([`hot`]), footers ([`footers`]) and fetched
//! chunks ([`chunks`]). Does not: determine which attempts are committed (`catalog`). Invariant:
//! every copy holds a reservation, and all of it can be read again from a base directory.

pub mod chunks;
pub mod footers;
pub mod hot;
mod lru;
