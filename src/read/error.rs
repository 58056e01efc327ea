//! Why a read fails.

use crate::catalog::CatalogError;
use crate::catalog::handle::HandleError;
use crate::human::count;
use crate::id::SegmentAddress;
use crate::memory::OverCapacity;
use crate::segment::scan::ScanError;
use crate::storage::StorageError;

/// Why a read fails.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    #[error("skip={skip} is beyond the end of this handle, which has {}", count(*pages, "page"))]
    SkipBeyondEnd { skip: u64, pages: u64 },
    #[error("partition {partition} does not exist: the exchange has {partitions}")]
    NoSuchPartition { partition: u32, partitions: u32 },
    #[error("invalid source handle: {0}")]
    InvalidHandle(#[from] HandleError),
    #[error("{segment} no longer exists: its exchange was closed, or data was lost")]
    Lost { segment: SegmentAddress },
    #[error("{segment}: {source}")]
    Corrupt {
        segment: SegmentAddress,
        source: Box<Damage>,
    },
    #[error("read interrupted: the daemon is stopping, resume at another one")]
    Interrupted,
    /// The commit records cannot be read, or have no such attempt.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// What is wrong with bytes of a segment.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Damage {
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// A chunk always fits into the pool, so this is the length of a page, real or damaged.
    #[error("a page is damaged or larger than this daemon can serve: {0}")]
    PageTooLarge(#[from] OverCapacity),
    /// The store returned something else than what was requested.
    #[error(transparent)]
    Storage(#[from] StorageError),
}
