//! The memory budget: page bytes are held only under a [`Reservation`].
//!
//! Does: count bytes, and block reservations that would exceed the pool or the query's limit, after
//! evicting cache entries, least recently used first. Does not: own the bytes, or order the queries
//! that wait (`fair` does). Invariant: the live reservations of a pool never exceed its capacity,
//! nor those of one query its limit; waiting never fails.
//!
//! Writing and reading have one pool each. A reader may make no progress because its task waits for
//! its own sink: if it could hold memory that the sink needs, the two would wait for each other.
//! Reservations may move to the other pool if no request waits for its memory
//! ([`WeakReservation::transfer_to`]).

mod pool;
mod reclaim;
mod reserved_bytes;

pub use self::pool::{MemoryPool, OverCapacity, Reservation};
pub use self::reclaim::Reclaim;
pub use self::reserved_bytes::{ReservedBytes, WeakReservation};

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests;
