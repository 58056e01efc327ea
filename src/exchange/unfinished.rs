//! Closes that a base directory has kept from being completed.
//!
//! Does: remember them. Does not: complete them (`removal`). Invariant: the number remembered is
//! bounded. What is forgotten, because of the bound or because the daemon ends, is collected by the
//! sweeper after a lease.

use std::collections::BTreeSet;

use parking_lot::Mutex;

use crate::id::ExchangeId;

/// Exchanges remembered.
const CAPACITY: usize = 10_000;

/// Exchanges of which a base directory still has objects.
#[derive(Debug, Default)]
pub(super) struct UnfinishedCloses(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    exchanges: BTreeSet<ExchangeId>,
    /// Whether a task completes them.
    running: bool,
}

impl UnfinishedCloses {
    /// Remembers one; returns whether a task must be started for it.
    pub(super) fn add(&self, exchange: &ExchangeId) -> bool {
        let mut state = self.0.lock();
        if state.exchanges.len() >= CAPACITY {
            return false;
        }
        state.exchanges.insert(exchange.clone());
        !std::mem::replace(&mut state.running, true)
    }

    pub(super) fn remove(&self, exchange: &ExchangeId) {
        self.0.lock().exchanges.remove(exchange);
    }

    /// All of them; if there are none, the task that asks ends.
    pub(super) fn all(&self) -> BTreeSet<ExchangeId> {
        let mut state = self.0.lock();
        state.running = !state.exchanges.is_empty();
        state.exchanges.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_task_completes_what_is_remembered_and_ends_when_nothing_is() {
        let (closes, id) = (UnfinishedCloses::default(), "q".parse().unwrap());
        assert!(closes.add(&id), "a task must be started");
        assert!(!closes.add(&"r".parse().unwrap()), "it runs");
        assert_eq!(closes.all().len(), 2);
        closes.remove(&id);
        closes.remove(&"r".parse().unwrap());
        assert!(closes.all().is_empty());
        assert!(closes.add(&id), "it has ended");
    }

    #[test]
    fn the_number_remembered_is_bounded() {
        let closes = UnfinishedCloses::default();
        for number in 0..=CAPACITY {
            closes.add(&format!("q{number}").parse().unwrap());
        }
        assert_eq!(closes.all().len(), CAPACITY);
    }
}
