//! The memory that sinks use besides their pages, as long as their exchange is open.
//!
//! Does: bound it by a pool of its own, and count it by sink. Does not: wait; a sink is refused if
//! the pool is full. Invariant: sinks hold no memory of the write pool, since they hold theirs
//! until their exchange is closed: a batch as large as the write pool could wait for ever.

use super::error::IngestError;
use crate::memory::{MemoryPool, Reservation};

/// Bytes of a sink: its state and the channel that publishes it, some 700 bytes, and its entry in
/// the table.
const SINK_SIZE: u64 = 1 << 10;

/// Bytes that a batch adds to its sink until that is settled: the segment in which it is stored.
const PER_BATCH: u64 = 64;

/// Bytes of a declared attempt without a sink.
const DECLARED_SIZE: u64 = 64;

/// The pool is this part of the budget, and outside of it.
const SHARE: u64 = 16;
/// But at least this many bytes.
const LEAST: u64 = 8 << 20;

/// The memory of one sink.
#[derive(Debug)]
pub(super) struct SinkMemory(Reservation);

impl SinkMemory {
    /// Adds what another batch of the sink needs.
    pub(super) fn add(&mut self, batch: Reservation) {
        self.0.absorb(batch);
    }

    /// Releases what a settled sink no longer needs.
    pub(super) fn settle(&mut self) {
        self.0.shrink_to(SINK_SIZE);
    }
}

/// The pool of all sinks of a daemon. Cheap to clone.
#[derive(Clone)]
pub(super) struct SinkPool(MemoryPool);

impl SinkPool {
    /// The pool that belongs to a memory budget.
    pub(super) fn of_budget(budget: u64) -> Self {
        Self(MemoryPool::new("sink", (budget / SHARE).max(LEAST)))
    }

    pub(super) fn pool(&self) -> &MemoryPool {
        &self.0
    }

    /// The memory of a new sink of a query.
    ///
    /// # Errors
    /// Sinks hold as much as they may.
    pub(super) fn open(&self, query: &str) -> Result<SinkMemory, IngestError> {
        let reserved = self.0.try_reserve(query, SINK_SIZE);
        reserved.map(SinkMemory).ok_or_else(|| self.full())
    }

    /// What a batch needs in its sink.
    ///
    /// # Errors
    /// As [`SinkPool::open`].
    pub(super) fn batch(&self, query: &str) -> Result<Reservation, IngestError> {
        let reserved = self.0.try_reserve(query, PER_BATCH);
        reserved.ok_or_else(|| self.full())
    }

    /// Reserves what a declared attempt needs, if that is free.
    pub(super) fn declared(&self, query: &str) -> Option<Reservation> {
        self.0.try_reserve(query, DECLARED_SIZE)
    }

    /// Refuses a new sink if the pool is full now.
    ///
    /// # Errors
    /// As [`SinkPool::open`].
    pub(super) fn check_room(&self) -> Result<(), IngestError> {
        match self.0.used() + SINK_SIZE + PER_BATCH <= self.0.capacity() {
            true => Ok(()),
            false => Err(self.full()),
        }
    }

    fn full(&self) -> IngestError {
        IngestError::Full {
            what: "sinks of open exchanges for the memory of this daemon",
            limit: self.0.capacity() / SINK_SIZE,
            setting: "memory.budget",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sinks_are_refused_once_the_pool_is_full_and_release_it_when_they_are_dropped() {
        let sinks = SinkPool::of_budget(1 << 20);
        let most = LEAST / SINK_SIZE;
        let mut open: Vec<_> = (1..most).map(|_| sinks.open("q").unwrap()).collect();
        open[0].add(sinks.batch("q").unwrap());
        let refused = sinks.open("r").unwrap_err().to_string();
        assert!(refused.contains("limit 8192") && refused.contains("memory.budget"));
        assert!(sinks.check_room().is_err() && sinks.declared("r").is_some());
        open[0].settle();
        assert_eq!(sinks.pool().used(), (most - 1) * SINK_SIZE);
        open.push(sinks.open("r").unwrap());
        assert!(sinks.batch("r").is_err());
        drop(open);
        assert_eq!(sinks.pool().used(), 0);
        assert_eq!(SinkPool::of_budget(1 << 30).pool().capacity(), 64 << 20);
    }
}
