//! Fetches footers while tasks finish, so that few are missing when the last one has finished.
//!
//! Does: list the segments of an exchange, and cache the footers that are not in memory. Does not:
//! decide when (`prefetch`), plan, or wait for memory. Invariant: one look at an exchange at a
//! time.

use super::error::CatalogError;
use super::lookup::Catalog;
use crate::id::ExchangeId;

/// A look at an exchange that is due. It ends when it is dropped.
pub struct Look {
    catalog: Catalog,
    exchange: ExchangeId,
}

impl Catalog {
    /// Records that attempts were chosen; returns a look if it is due, for the caller to run.
    pub fn chosen(&self, exchange: &ExchangeId, attempts: usize) -> Option<Look> {
        let begins = self.prefetch.begins(exchange, attempts);
        begins.then(|| Look {
            catalog: self.clone(),
            exchange: exchange.clone(),
        })
    }
}

impl Look {
    /// Caches the footers that memory is free for.
    ///
    /// # Errors
    /// A footer cannot be read. A plan that needs the same will say so again.
    pub async fn run(self) -> Result<(), CatalogError> {
        let Self { catalog, exchange } = &self;
        let listed = catalog.storage.list_segments_in_set(exchange).await;
        catalog.loader.prefetch(exchange, &listed.segments).await
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        self.catalog.prefetch.end(&self.exchange);
    }
}
