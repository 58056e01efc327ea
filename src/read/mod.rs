//! The reading side: a handle in, verified records out.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;

use crate::commit::CommitError;
use crate::id::{ExchangeId, SegmentAddress};
use crate::storage::StorageError;

/// Why a read failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// `skip` is beyond the end.
    #[error("skip={skip} is beyond the {pages} pages of this handle")]
    SkipBeyondEnd {
        /// What was asked.
        skip: u64,
        /// What there is.
        pages: u64,
    },
    /// The partition does not exist.
    #[error("partition {partition} does not exist: the exchange has {partitions}")]
    NoSuchPartition {
        /// What was asked.
        partition: u32,
        /// How many there are.
        partitions: u32,
    },
    /// A segment is gone.
    #[error("{segment} does not exist any more: its exchange was closed, or data was lost")]
    Lost {
        /// Which.
        segment: SegmentAddress,
    },
    /// Bytes read back are not what was written.
    #[error("{segment}: {reason}")]
    Corrupt {
        /// Which.
        segment: SegmentAddress,
        /// What does not fit.
        reason: Arc<str>,
    },
    /// The handle or the commit records are at fault.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The store did not answer.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Bytes of a response, in order. After an error nothing more comes.
pub type ByteStream = BoxStream<'static, Result<Bytes, ReadError>>;

/// What a partition read gives.
pub struct PartitionRead {
    /// Bytes that the stream will give in all, if it gives raw pages.
    pub length: Option<u64>,
    /// The bytes.
    pub stream: ByteStream,
}

/// How a partition is given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageFormat {
    /// Page bytes one after another.
    Raw,
    /// Block records, page frames and the end record.
    Records,
}

/// Narrows a partition read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Selection {
    /// Only this task.
    pub task: Option<u32>,
    /// This attempt instead of the newest.
    pub attempt: Option<u32>,
}

/// The reading side of a daemon. Cheap to clone.
#[derive(Clone)]
pub struct Reader {
    _private: (),
}

#[allow(unused_variables, clippy::unused_async)]
impl Reader {
    /// Opens a read of a handle (its text), after `skip` pages. The stream gives block records, page
    /// frames and the end record; an error that it gives becomes an error record in `api`. Everything that
    /// can be refused without touching a page is refused here, not in the stream.
    pub async fn read_handle(&self, handle: &str, skip: u64) -> Result<ByteStream, ReadError> {
        unimplemented!()
    }

    /// Opens a read of one partition.
    pub async fn read_partition(
        &self,
        exchange: &ExchangeId,
        partition: u32,
        selection: Selection,
        format: PageFormat,
    ) -> Result<PartitionRead, ReadError> {
        unimplemented!()
    }
}
