//! The exchanges of the fleet as this daemon knows them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::error::ExchangeError;
use super::status::{Status, StatusCache};
use crate::id::ExchangeId;
use crate::runtime::Runtime;
use crate::storage::Storage;

/// What [`Exchanges`] needs from the rest of the daemon.
#[derive(Clone)]
pub struct ExchangesDeps {
    pub runtime: Runtime,
    pub storage: Storage,
}

/// The exchanges that the daemons share. Cheap to clone.
#[derive(Clone)]
pub struct Exchanges {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) deps: ExchangesDeps,
    pub(super) lease: Duration,
    pub(super) max_partitions: AtomicU32,
    pub(super) status: StatusCache,
}

impl Exchanges {
    /// Exchanges with this lease and at most this many partitions each.
    pub fn new(deps: ExchangesDeps, lease: Duration, max_partitions: u32) -> Self {
        let shared = Shared {
            deps,
            lease,
            max_partitions: AtomicU32::new(max_partitions),
            status: StatusCache::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Whether this daemon has seen an exchange open, and not closed since.
    pub(crate) fn is_known_open(&self, exchange: &ExchangeId) -> bool {
        matches!(self.shared.status.get(exchange), Some(Status::Open { .. }))
    }

    /// Largest number of partitions of an exchange that this daemon announces.
    pub fn max_partitions(&self) -> u32 {
        self.shared.max_partitions.load(Ordering::Relaxed)
    }

    /// Changes it for announcements from now on.
    pub fn set_max_partitions(&self, most: u32) {
        self.shared.max_partitions.store(most, Ordering::Relaxed);
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

    /// Removes every object of a closed exchange from every base directory; returns how many
    /// segments.
    ///
    /// # Errors
    /// [`ExchangeError::Storage`]; another call, or the sweeper, removes what is left.
    pub(crate) async fn remove(&self, exchange: &ExchangeId) -> Result<u64, ExchangeError> {
        Ok(self.shared.deps.storage.remove_exchange(exchange).await?)
    }
}
