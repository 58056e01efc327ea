//! Fetches footers while tasks finish, so that few are missing when the last one has finished.
//!
//! Does: list the segments of an exchange, and cache the footers that are not in memory. Does not:
//! decide when (`prefetch_schedule`), plan, or wait for memory. Invariant: one prefetch of an
//! exchange at a time.

use std::collections::BTreeSet;

use super::error::CatalogError;
use super::lookup::Catalog;
use crate::id::{DaemonId, ExchangeId, TaskAttempt};
use crate::storage::{Highest, ListedSegment};

/// A prefetch of footers that is due. Dropping it allows the next one for its exchange.
pub struct FooterPrefetch {
    catalog: Catalog,
    exchange: ExchangeId,
    /// The attempts that were chosen last.
    attempts: Vec<TaskAttempt>,
    /// Daemons that the client queries itself.
    asked: BTreeSet<DaemonId>,
}

impl Catalog {
    /// Records that attempts were chosen. Returns a prefetch if one is due; the caller runs it. It
    /// omits what the daemons with the runs `asked` wrote, as the client queries these itself.
    pub fn record_chosen(
        &self,
        exchange: &ExchangeId,
        attempts: Vec<TaskAttempt>,
        asked: BTreeSet<DaemonId>,
    ) -> Option<FooterPrefetch> {
        let due = self.prefetches.start_if_due(exchange, attempts.len());
        due.then(|| FooterPrefetch {
            catalog: self.clone(),
            exchange: exchange.clone(),
            attempts,
            asked,
        })
    }

    /// Caches the footers of new segments for which memory is free, except those that `asked`
    /// wrote. Where there are many segments, the list continues behind the known ones of a daemon.
    pub(super) async fn fetch_new(
        &self,
        exchange: &ExchangeId,
        asked: &BTreeSet<DaemonId>,
    ) -> Result<(), CatalogError> {
        let known: Highest = self.footers.ids(exchange).into_iter().collect();
        let mut listed = self.storage.list_new_segments(exchange, &known).await;
        let is_asked = |found: &ListedSegment| asked.contains(&found.address.segment.daemon);
        listed.segments.retain(|found| !is_asked(found));
        self.loader.prefetch(exchange, &listed.segments).await
    }
}

impl FooterPrefetch {
    /// Caches the footers for which memory is free; sends no request if the attempts that were
    /// chosen last are known from memory.
    ///
    /// # Errors
    /// A footer cannot be read. A plan that needs it will report the same error.
    pub async fn run(self) -> Result<(), CatalogError> {
        let Self {
            catalog,
            exchange,
            attempts,
            asked,
        } = &self;
        if catalog.knows(exchange, attempts).await {
            return Ok(());
        }
        catalog.fetch_new(exchange, asked).await
    }
}

impl Drop for FooterPrefetch {
    fn drop(&mut self) {
        self.catalog.prefetches.end(&self.exchange);
    }
}
