//! What ingest is asked and what it answers; no behaviour.

use std::sync::Arc;

use crate::catalog::Totals;
use crate::id::SinkId;
use crate::memory::OverCapacity;
use crate::storage::StorageError;

/// What a client says it sent, to be compared with what arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Batches.
    pub batches: u64,
    /// Pages.
    pub pages: u64,
    /// Page bytes.
    pub bytes: u64,
    /// CRC-32C over the frames' `crc` fields.
    pub checksum: Option<u32>,
}

/// Answer to a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Its number.
    pub batch: u32,
    /// The number that the next batch must have.
    pub next: u64,
    /// Whether it had been taken before.
    pub repeated: bool,
}

/// Answer to an abort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aborted {
    /// The attempt is aborted.
    Aborted,
    /// It had finished before: nothing changed.
    AlreadyFinished,
}

/// Why ingest refused. Each names what a client may do.
#[derive(Debug, Clone, thiserror::Error)]
pub enum IngestError {
    /// Not held here and not committed.
    #[error("{sink} is not held by this daemon and is not committed: run the task again")]
    SinkNotFound {
        /// Which.
        sink: SinkId,
    },
    /// Aborted before.
    #[error("{sink} was aborted")]
    SinkAborted {
        /// Which.
        sink: SinkId,
    },
    /// Finished before.
    #[error("{sink} is finished and takes no more pages")]
    SinkFinished {
        /// Which.
        sink: SinkId,
    },
    /// Its bytes could not be written.
    #[error("{sink} could not be written ({reason}): run the task again")]
    SinkFailed {
        /// Which.
        sink: SinkId,
        /// Why.
        reason: Arc<str>,
    },
    /// A batch is missing before this one.
    #[error("batch {given} of {sink} came, but {expected} is next: send the missing batches first")]
    BatchOutOfOrder {
        /// Which sink.
        sink: SinkId,
        /// What came.
        given: u32,
        /// What should have come.
        expected: u64,
    },
    /// The client's counts are not what arrived.
    #[error(
        "{sink}: the finish claims {} batches, {} pages, {} bytes, checksum {:?}; \
         {} batches, {} pages, {} bytes, checksum {} arrived",
        claim.batches, claim.pages, claim.bytes, claim.checksum,
        held.batches, held.pages, held.bytes, held.checksum
    )]
    CountMismatch {
        /// Which sink.
        sink: SinkId,
        /// What was said.
        claim: Claim,
        /// What is held.
        held: Totals,
    },
    /// The exchange was closed.
    #[error("exchange {0} is closed")]
    ExchangeClosed(crate::id::ExchangeId),
    /// The daemon stops.
    #[error("this daemon is stopping and takes no new sinks: use another one")]
    Draining,
    /// A bound was reached.
    #[error("{what} is full at {limit}: wait, or raise {setting}")]
    Full {
        /// What is full.
        what: &'static str,
        /// The bound.
        limit: u64,
        /// The setting that holds it.
        setting: &'static str,
    },
    /// More memory asked for than there is.
    #[error(transparent)]
    OverCapacity(#[from] OverCapacity),
    /// The store had to be asked and did not answer.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The commit records could not be read.
    #[error(transparent)]
    Commit(#[from] crate::catalog::CatalogError),
}
