//! Exchanges from announcement to close, leases, collection, and the daemon's own end.

use crate::id::ExchangeId;
use crate::storage::StorageError;

/// What is announced of an exchange.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExchangeSpec {
    /// Output partitions.
    pub partitions: u32,
    /// Whether pages of a partition keep the order of their sink.
    pub ordered: bool,
}

/// Why an exchange cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LifecycleError {
    /// Never announced, as far as can be known.
    #[error("exchange {0} is not known: announce it with PUT, or it was closed before")]
    NotFound(ExchangeId),
    /// Closed.
    #[error("exchange {0} is closed")]
    Closed(ExchangeId),
    /// Announced before with other properties.
    #[error(
        "exchange {exchange} was announced with {} partitions, ordered={}; now {} partitions, \
         ordered={} are asked for: use another id",
        before.partitions, before.ordered, now.partitions, now.ordered
    )]
    Conflict {
        /// Which.
        exchange: ExchangeId,
        /// What it is.
        before: ExchangeSpec,
        /// What was asked.
        now: ExchangeSpec,
    },
    /// A bound was reached.
    #[error("{partitions} partitions are more than limits.max_partitions, {limit}")]
    TooManyPartitions {
        /// What was asked.
        partitions: u32,
        /// The bound.
        limit: u32,
    },
    /// An exchange of no partitions.
    #[error("an exchange has at least one partition")]
    NoPartitions,
    /// A marker that cannot be read.
    #[error("the announcement of exchange {exchange} cannot be read: {reason}")]
    Unreadable {
        /// Which.
        exchange: ExchangeId,
        /// Why.
        reason: String,
    },
    /// The store did not answer.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Answer to an announcement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// Whether it is new.
    pub created: bool,
    /// Its lease, in seconds.
    pub lease_seconds: u64,
}

/// The exchanges that the daemons share. Cheap to clone.
#[derive(Clone)]
pub struct Exchanges {
    _private: (),
}

#[allow(unused_variables, clippy::unused_async)]
impl Exchanges {
    /// Announces an exchange or renews its lease.
    pub async fn announce(
        &self,
        exchange: &ExchangeId,
        spec: ExchangeSpec,
    ) -> Result<Announced, LifecycleError> {
        unimplemented!()
    }

    /// What an open exchange is; asks the store when this daemon has not seen it lately.
    pub async fn lookup(&self, exchange: &ExchangeId) -> Result<ExchangeSpec, LifecycleError> {
        unimplemented!()
    }

    /// Removes an exchange everywhere; `Ok` also when there was nothing.
    pub async fn close(&self, exchange: &ExchangeId) -> Result<(), LifecycleError> {
        unimplemented!()
    }

    /// All exchanges that left anything, with what they are where that can be read.
    pub async fn list(&self) -> Result<Vec<(ExchangeId, Option<ExchangeSpec>)>, LifecycleError> {
        unimplemented!()
    }

    /// Whether the daemon is stopping.
    pub fn draining(&self) -> bool {
        unimplemented!()
    }
}
