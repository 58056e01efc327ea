//! Why a read fails.

use crate::catalog::CatalogError;
use crate::catalog::handle::HandleError;
use crate::id::SegmentAddress;
use crate::memory::OverCapacity;
use crate::segment::scan::ScanError;
use crate::storage::StorageError;

/// Why a read fails.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The client wants to skip more pages than there are.
    #[error("skip={skip} is beyond the {pages} pages of this handle")]
    SkipBeyondEnd {
        /// As requested.
        skip: u64,
        /// Number of pages of the handle.
        pages: u64,
    },
    /// The exchange has fewer partitions.
    #[error("partition {partition} does not exist: the exchange has {partitions}")]
    NoSuchPartition {
        /// As requested.
        partition: u32,
        /// Number of partitions of the exchange.
        partitions: u32,
    },
    /// The text is not a source handle.
    #[error("invalid source handle: {0}")]
    InvalidHandle(#[from] HandleError),
    /// A segment that the handle refers to is missing.
    #[error("{segment} does not exist any more: its exchange was closed, or data was lost")]
    Lost {
        /// Where it should be.
        segment: SegmentAddress,
    },
    /// The bytes are not those that were written.
    #[error("{segment}: {source}")]
    Corrupt {
        /// Where they were read.
        segment: SegmentAddress,
        /// What is wrong with them.
        source: Box<Damage>,
    },
    /// The daemon is stopping.
    #[error("read interrupted: the daemon is stopping, resume at another one")]
    Interrupted,
    /// The commit records cannot be read, or have no such attempt.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A base directory cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// What is wrong with bytes of a segment.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Damage {
    /// They are not the expected blocks.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// A chunk always fits into the pool, so this is the length of a page, real or damaged.
    #[error("a page is damaged or larger than this daemon can serve: {0}")]
    PageTooLarge(#[from] OverCapacity),
    /// The store returned something else than what was requested.
    #[error(transparent)]
    Storage(#[from] StorageError),
}
