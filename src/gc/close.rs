//! Closing an exchange: one sequence over all modules that hold a part of it.
//!
//! Does: mark it closed, drop what this daemon holds of it, remove its objects. Does not: detect
//! that an exchange was closed through another daemon: the modules below report that
//! ([`Exchanges::found_closed`]), and [`Closing::release_found_closed`] does the rest. Invariant:
//! an exchange is marked before anything of it is dropped, so that a request which arrives in
//! between sees the mark and adds nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::stream::{self, StreamExt as _};

use crate::catalog::Catalog;
use crate::exchange::{ExchangeError, Exchanges};
use crate::id::ExchangeId;
use crate::ingest::Ingest;
use crate::read::Reader;
use crate::storage::Cleared;
use crate::telemetry::metrics::Metrics;

/// Exchanges that are checked at a time.
const CHECK_CONCURRENCY: usize = 16;

/// The modules that hold a part of an exchange. Cheap to clone.
#[derive(Clone)]
pub struct Closing {
    pub exchanges: Exchanges,
    pub ingest: Ingest,
    pub catalog: Catalog,
    pub reader: Reader,
    pub metrics: Arc<Metrics>,
}

impl Closing {
    /// Removes an exchange everywhere; what a base directory does not remove now is removed in the
    /// background, if another one has answered.
    ///
    /// # Errors
    /// [`ExchangeError::Storage`]; the background, another call, or the sweeper, removes what is
    /// left.
    pub async fn close(&self, exchange: &ExchangeId) -> Result<Cleared, ExchangeError> {
        let known = self.exchanges.is_known_open(exchange);
        let late = self.exchanges.mark_closed(exchange);
        self.release(exchange);
        if let Some(late) = late {
            self.exchanges.remove_late_marker(late);
        }
        let cleared = self.exchanges.remove(exchange).await?;
        if known || cleared.segments > 0 {
            self.metrics.exchanges_closed.inc();
        }
        Ok(cleared)
    }

    /// Marks an exchange closed at this daemon and drops what it holds of it.
    pub(super) fn mark_and_release(&self, exchange: &ExchangeId) {
        self.exchanges.mark_closed(exchange);
        self.release(exchange);
    }

    fn release(&self, exchange: &ExchangeId) {
        self.ingest.forget(exchange);
        self.catalog.forget(exchange);
        self.reader.forget(exchange);
    }

    /// Drops what is held of exchanges as soon as they are found to be closed through another
    /// daemon. One task runs it, as long as the daemon runs.
    pub async fn release_found_closed(self) {
        loop {
            for exchange in self.exchanges.found_closed().await {
                self.release(&exchange);
            }
        }
    }

    /// Checks in the base directories whether these exchanges are open. Those that are not are
    /// released by [`Closing::release_found_closed`].
    pub(super) async fn check_open(&self, exchanges: impl IntoIterator<Item = ExchangeId>) {
        let checks = exchanges.into_iter().map(async |exchange| {
            if let Err(error) = self.exchanges.is_open(&exchange).await {
                tracing::warn!(%exchange, %error, "cannot check whether the exchange is open");
            }
        });
        let checks = stream::iter(checks).buffered(CHECK_CONCURRENCY);
        checks.collect::<()>().await;
    }

    /// The exchanges of which this daemon has cached data, open or closed. Sorted, so that an
    /// iteration has the same order on every run.
    pub(super) fn cached_exchanges(&self) -> BTreeSet<ExchangeId> {
        let cached = self.catalog.cached_exchanges().into_iter();
        cached.chain(self.reader.cached_exchanges()).collect()
    }
}
