//! The exchanges of the fleet as this daemon knows them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::error::ExchangeError;
use super::status::StatusCache;
use crate::id::ExchangeId;
use crate::runtime::Runtime;
use crate::storage::Storage;
use crate::telemetry::metrics::Metrics;

/// What [`Exchanges`] needs from the rest of the daemon.
#[derive(Clone)]
pub struct ExchangesDeps {
    pub runtime: Runtime,
    pub storage: Storage,
    pub metrics: Arc<Metrics>,
}

/// The exchanges that the daemons share. Cheap to clone.
#[derive(Clone)]
pub struct Exchanges {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) deps: ExchangesDeps,
    pub(super) lease: Duration,
    pub(super) max_partitions: u32,
    pub(super) status: StatusCache,
}

impl Exchanges {
    /// Exchanges with this lease and at most this many partitions each.
    pub fn new(deps: ExchangesDeps, lease: Duration, max_partitions: u32) -> Self {
        let shared = Shared {
            deps,
            lease,
            max_partitions,
            status: StatusCache::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Largest number of partitions of an exchange that this daemon announces.
    pub fn max_partitions(&self) -> u32 {
        self.shared.max_partitions
    }

    /// Records that an exchange is closed. The caller then releases what this daemon holds of it.
    pub(crate) fn mark_closed(&self, exchange: &ExchangeId) {
        self.shared.status.mark_closed(exchange);
    }

    /// Waits until some exchange, closed through another daemon, was found closed by this one;
    /// returns all found since the last call. For one caller, which releases what is held of them.
    pub(crate) async fn found_closed(&self) -> BTreeSet<ExchangeId> {
        self.shared.status.found_closed().await
    }

    /// Removes every object of a closed exchange from every base directory; returns how many.
    ///
    /// # Errors
    /// [`ExchangeError::Storage`]; another call, or the sweeper, removes what is left.
    pub(crate) async fn remove(&self, exchange: &ExchangeId) -> Result<u64, ExchangeError> {
        let deps = &self.shared.deps;
        let removed = deps.storage.remove_exchange(exchange).await?;
        if removed > 0 {
            deps.metrics.exchanges_closed.inc();
        }
        Ok(removed)
    }
}
