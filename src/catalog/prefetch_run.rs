//! Fetches footers while tasks finish, so that few are missing when the last one has finished.
//!
//! Does: list the segments of an exchange, and cache the footers that are not in memory. Does not:
//! decide when (`prefetch_schedule`), plan, or wait for memory. Invariant: one prefetch of an
//! exchange at a time.

use super::error::CatalogError;
use super::lookup::Catalog;
use crate::id::ExchangeId;

/// A prefetch of footers that is due. Dropping it allows the next one for its exchange.
pub struct FooterPrefetch {
    catalog: Catalog,
    exchange: ExchangeId,
}

impl Catalog {
    /// Records that attempts were chosen. Returns a prefetch if one is due; the caller runs it.
    pub fn record_chosen(&self, exchange: &ExchangeId, attempts: usize) -> Option<FooterPrefetch> {
        let due = self.prefetches.start_if_due(exchange, attempts);
        due.then(|| FooterPrefetch {
            catalog: self.clone(),
            exchange: exchange.clone(),
        })
    }
}

impl FooterPrefetch {
    /// Caches the footers for which memory is free.
    ///
    /// # Errors
    /// A footer cannot be read. A plan that needs it will report the same error.
    pub async fn run(self) -> Result<(), CatalogError> {
        let Self { catalog, exchange } = &self;
        let listed = catalog.storage.list_segments_in_set(exchange).await;
        catalog.loader.prefetch(exchange, &listed.segments).await
    }
}

impl Drop for FooterPrefetch {
    fn drop(&mut self) {
        self.catalog.prefetches.end(&self.exchange);
    }
}
