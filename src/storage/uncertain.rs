//! Markers that were put and may appear late.
//!
//! Does: remember where, for a bounded number of exchanges. Does not: resolve them (`exchanges`).
//! Invariant: what is remembered stays so: a put that timed out may be applied seconds later, also
//! after another put to the same place has succeeded.

use std::num::NonZeroUsize;

use lru::LruCache;
use parking_lot::Mutex;

use crate::id::ExchangeId;
use crate::store::{Precondition, StoreError, StoreErrorKind};

/// Exchanges remembered. Of one that is forgotten, the sweeper collects a late marker.
const CAPACITY: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");

/// The base directories in which a marker of an exchange may appear late, by index.
#[derive(Debug)]
pub(super) struct UncertainMarkers(Mutex<LruCache<ExchangeId, Vec<usize>>>);

impl Default for UncertainMarkers {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(CAPACITY)))
    }
}

impl UncertainMarkers {
    fn add(&self, exchange: &ExchangeId, base: usize) {
        let mut uncertain = self.0.lock();
        let bases = uncertain.get_or_insert_mut(exchange.clone(), Vec::new);
        if !bases.contains(&base) {
            bases.push(base);
        }
    }

    /// Remembers a put into a base directory that may still be applied, if it creates a marker:
    /// perhaps after the exchange was closed. A renewal cannot, as its condition fails then.
    pub(super) fn attempted(
        &self,
        exchange: &ExchangeId,
        base: Option<usize>,
        expected: &Precondition,
        put: Result<bool, StoreError>,
    ) -> Result<bool, StoreError> {
        let may_follow =
            |error: &StoreError| error.kind == StoreErrorKind::Unavailable && !error.settled;
        let creates = !matches!(expected, Precondition::Version(_));
        if creates
            && put.as_ref().is_err_and(may_follow)
            && let Some(base) = base
        {
            self.add(exchange, base);
        }
        put
    }

    pub(super) fn contains(&self, exchange: &ExchangeId, base: usize) -> bool {
        let uncertain = self.0.lock();
        let bases = uncertain.peek(exchange);
        bases.is_some_and(|bases| bases.contains(&base))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(kind: StoreErrorKind, settled: bool) -> StoreError {
        let error = StoreError::new(kind, "it failed");
        StoreError { settled, ..error }
    }

    #[test]
    fn only_a_put_that_creates_a_marker_and_may_still_be_applied_is_remembered() {
        use Precondition::{Absent, StrictlyAbsent, Version};
        use StoreErrorKind::{Refused, Unavailable};
        let late = || Err(failed(Unavailable, false));
        let cases = [
            (Absent, late(), true),
            (StrictlyAbsent, late(), true),
            (Version("1".into()), late(), false),
            (Absent, Ok(true), false),
            (Absent, Ok(false), false),
            (Absent, Err(failed(Unavailable, true)), false),
            (Absent, Err(failed(Refused, false)), false),
        ];
        for (number, (expected, put, remembered)) in cases.into_iter().enumerate() {
            let markers = UncertainMarkers::default();
            let exchange: ExchangeId = "q".parse().unwrap();
            let ok = put.as_ref().ok().copied();
            let answer = markers.attempted(&exchange, Some(3), &expected, put);
            assert_eq!(answer.ok(), ok, "the answer is passed on");
            assert_eq!(markers.contains(&exchange, 3), remembered, "case {number}");
            assert!(!markers.contains(&exchange, 2));
            assert!(!markers.contains(&"r".parse().unwrap(), 3));
        }
    }

    #[test]
    fn what_is_remembered_stays_so_after_a_put_that_succeeds() {
        let markers = UncertainMarkers::default();
        let exchange: ExchangeId = "q".parse().unwrap();
        let attempt = |base, put| {
            let answer = markers.attempted(&exchange, Some(base), &Precondition::Absent, put);
            drop(answer);
        };
        for base in [1, 2, 1] {
            attempt(base, Err(failed(StoreErrorKind::Unavailable, false)));
        }
        attempt(1, Ok(true));
        assert!(markers.contains(&exchange, 1) && markers.contains(&exchange, 2));
        let held = markers.0.lock().peek(&exchange).map(Vec::len);
        assert_eq!(held, Some(2), "each base directory once");
    }
}
