//! Why an exchange cannot be used.

use std::sync::Arc;
use std::time::Duration;

use super::descriptor::{DescriptorError, ExchangeSpec};
use super::marker::MarkerError;
use crate::human::count;
use crate::id::ExchangeId;
use crate::storage::StorageError;

/// Why the marker of an exchange was not written, or not found.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MarkerFailure {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(
        "no base directory accepted it within lease.announcement_timeout, {} s", limit.as_secs()
    )]
    Late { limit: Duration },
    #[error("the exchange was announced with other properties")]
    Conflict,
    #[error("what is stored cannot be decoded")]
    Damaged,
}

/// Why an exchange cannot be announced, found or closed.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    #[error(
        "exchange {exchange} is not known: it was never announced, was closed before this daemon \
         saw it, or was announced at a daemon with other base directories (here: {places}; compare \
         `stopover members`); announce a new one with PUT"
    )]
    NotFound {
        exchange: ExchangeId,
        /// The base directories of this daemon, with their identities.
        places: String,
    },
    #[error("exchange {exchange} is closed")]
    Closed { exchange: ExchangeId },
    #[error(
        "exchange {exchange} was announced with {}, ordered={}; this request has {}, ordered={}: \
         use another id",
        count(before.partitions, "partition"), before.ordered,
        count(now.partitions, "partition"), now.ordered
    )]
    Conflict {
        exchange: ExchangeId,
        before: ExchangeSpec,
        now: ExchangeSpec,
    },
    /// Every try to write the marker met another writer's.
    #[error("exchange {exchange} is being announced by several clients at once: retry")]
    Contended { exchange: ExchangeId },
    #[error(
        "an exchange with {} exceeds limits.max_partitions, {limit}",
        count(*partitions, "partition")
    )]
    TooManyPartitions { partitions: u32, limit: u32 },
    #[error(
        "{} that were announced through this daemon are open, as many as \
         limits.max_announced_exchanges permits: close some, retry, or announce through another \
         daemon",
        count(*limit, "exchange")
    )]
    TooManyAnnounced { limit: usize },
    #[error(
        "the markers of {} are being written, the most at a time: retry, and see whether the base \
         directories are slow",
        count(*limit, "exchange")
    )]
    TooManyMarkers { limit: usize },
    #[error("an exchange needs at least one partition")]
    NoPartitions,
    #[error("the marker of exchange {exchange} cannot be decoded: {source}")]
    Unreadable {
        exchange: ExchangeId,
        source: MarkerError,
    },
    /// Nothing of the exchange can be acknowledged.
    #[error("the marker of exchange {exchange} was not written: {failure}")]
    NotAnnounced {
        exchange: ExchangeId,
        failure: Arc<MarkerFailure>,
    },
    #[error("the descriptor (header Stopover-Exchange) cannot be used: {0}")]
    Descriptor(#[from] DescriptorError),
    #[error("the descriptor (header Stopover-Exchange) is of exchange {described}, not {exchange}")]
    OtherDescriptor {
        exchange: ExchangeId,
        described: ExchangeId,
    },
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl ExchangeError {
    pub(super) fn closed(exchange: &ExchangeId) -> Self {
        let exchange = exchange.clone();
        Self::Closed { exchange }
    }

    pub(super) fn not_announced(exchange: &ExchangeId, failure: Arc<MarkerFailure>) -> Self {
        let exchange = exchange.clone();
        Self::NotAnnounced { exchange, failure }
    }

    pub(super) fn unreadable(exchange: &ExchangeId, source: MarkerError) -> Self {
        let exchange = exchange.clone();
        Self::Unreadable { exchange, source }
    }
}
