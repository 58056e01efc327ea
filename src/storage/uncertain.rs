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
