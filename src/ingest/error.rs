//! Why ingest refuses a request, and why a sink failed.

use std::sync::Arc;

use super::stored::TooMuchStored;
use super::types::ClientTotals;
use crate::catalog::{CatalogError, Totals};
use crate::exchange::ExchangeError;
use crate::human::count;
use crate::id::{ExchangeId, SinkId};
use crate::memory::OverCapacity;
use crate::segment::frame::FrameError;
use crate::storage::StorageError;

/// Why ingest refused a request. Each message names what the client can do.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    #[error("{sink} is not held by this daemon and is not committed: run the task again")]
    SinkNotFound { sink: SinkId },
    #[error("{sink} was aborted")]
    SinkAborted { sink: SinkId },
    #[error("{sink} is finished and accepts no more pages")]
    SinkFinished { sink: SinkId },
    #[error("{sink} could not be written ({source}): run the task again")]
    SinkFailed {
        sink: SinkId,
        source: Arc<SinkFailure>,
    },
    #[error(transparent)]
    TooMuchStored(TooMuchStored),
    #[error("got batch {given} of {sink}, expected {expected}: send the missing batches first")]
    BatchOutOfOrder {
        sink: SinkId,
        given: u32,
        expected: u64,
    },
    #[error(
        "{sink}: the finish claims {}, {}, {}, checksum {:?}; {}, {}, {}, checksum {} arrived",
        count(claim.batches, "batch"), count(claim.pages, "page"), count(claim.bytes, "byte"),
        claim.checksum,
        count(held.batches, "batch"), count(held.pages, "page"), count(held.bytes, "byte"),
        held.checksum
    )]
    CountMismatch {
        sink: SinkId,
        claim: ClientTotals,
        held: Totals,
    },
    #[error("exchange {exchange} is closed")]
    ExchangeClosed { exchange: ExchangeId },
    #[error("this daemon is stopping and accepts no new sinks: use another one")]
    Draining,
    #[error("too many {what} (limit {limit}): wait, or raise {setting}")]
    Full {
        /// What there are too many of, in the plural.
        what: &'static str,
        limit: u64,
        setting: &'static str,
    },
    #[error(transparent)]
    OverCapacity(#[from] OverCapacity),
    /// Foreign sinks do not wait.
    #[error(
        "no memory is free for a batch of {} of a foreign sink, which may hold {limit} bytes \
         together: send it to the client's own daemon, or raise memory.home_share or memory.budget",
        count(*length, "byte")
    )]
    ForeignShareFull { length: u64, limit: u64 },
    /// Each change of partition begins a run.
    #[error(
        "a batch of {} needs {} of memory besides, for its pages and their partitions, but one \
         query may hold {limit}: send fewer pages at a time, sorted by partition, or raise \
         memory.budget or query.max_write_memory",
        count(*length, "byte"), count(*overhead, "byte")
    )]
    TooManyRuns {
        length: u64,
        overhead: u64,
        limit: u64,
    },
    #[error(
        "a batch of {} needs at least {} of memory besides, and not that much is free: send it \
         again",
        count(*length, "byte"), count(*overhead, "byte")
    )]
    MemoryShort { length: u64, overhead: u64 },
    #[error(
        "the index of this batch may need {}, more than half of limits.max_footer_size ({limit}): \
         send fewer pages at a time, sorted by partition, or raise it",
        count(*length, "byte")
    )]
    IndexTooLarge { length: u64, limit: u64 },
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Nothing of the exchange can be acknowledged.
    #[error(transparent)]
    Exchange(ExchangeError),
    /// The commit records could not be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

impl IngestError {
    /// Why a request to a failed sink is refused.
    pub(super) fn of_failed(sink: SinkId, failure: Arc<SinkFailure>) -> Self {
        match &*failure {
            SinkFailure::TooMuchStored(why) => Self::TooMuchStored(why.clone()),
            _ => Self::SinkFailed {
                sink,
                source: failure,
            },
        }
    }
}

/// Why a sink failed.
#[derive(Debug, thiserror::Error)]
pub enum SinkFailure {
    /// A segment that holds its pages or its commit record could not be stored.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Its query has reached its limit.
    #[error(transparent)]
    TooMuchStored(#[from] TooMuchStored),
    /// A reader would refuse the index.
    #[error(
        "the index of its segment has {}; limits.max_footer_size is {limit}: raise it",
        count(*length, "byte")
    )]
    FooterTooLarge { length: u64, limit: u64 },
    /// An earlier segment of it was dropped instead of stored, since all its sinks had failed or
    /// were aborted.
    #[error("an earlier segment was dropped")]
    SegmentDropped,
    #[error("the exchange is closed")]
    ExchangeClosed,
    /// A bug: the task that uploads a segment ended without a result.
    #[error("the upload of a segment panicked: {message}")]
    Panicked {
        /// The panic's message.
        message: String,
    },
}
