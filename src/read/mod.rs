//! The reading side: a handle in, verified records out.
//!
//! Does: plan the fetches, get bytes from memory or the base directories, check every page, stream.
//! Does not: keep an index or list anything, and knows nothing of `ingest`. Invariant: what a
//! stream gives has been checked against its checksums; a stream ends with an end record or with an
//! error, never just so.

mod density;
mod fetch;
mod planner;
mod stream;

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;

use self::fetch::Fetcher;
use crate::catalog::handle::Handle;
use crate::catalog::{Catalog, CatalogError};
use crate::config::ReadConfig;
use crate::id::{ExchangeId, SegmentAddress};
use crate::memory::MemoryPool;
use crate::runtime::Runtime;
use crate::storage::{Storage, StorageError};
use crate::telemetry::metrics::Metrics;

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
    /// The fetch ended without a result: the daemon is stopping.
    #[error("the fetch was interrupted: the daemon is stopping, read on at another one")]
    Interrupted,
    /// The handle or the commit records are at fault.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
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

/// What reading needs of the rest of the daemon.
#[derive(Clone)]
pub struct ReaderDeps {
    /// Where segments lie.
    pub storage: Storage,
    /// Commit records, and what was written here lately.
    pub catalog: Catalog,
    /// Memory for what is being read.
    pub pool: MemoryPool,
    /// Time and background work.
    pub runtime: Runtime,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// A read that can be begun.
#[derive(Debug)]
pub struct ReadRequest {
    handle: Handle,
    skip: u64,
}

impl ReadRequest {
    /// The exchange that it is about.
    pub fn exchange(&self) -> &ExchangeId {
        &self.handle.exchange
    }
}

/// The reading side of a daemon. Cheap to clone.
#[derive(Clone)]
pub struct Reader {
    fetcher: Fetcher,
    fetch_concurrency: usize,
}

impl Reader {
    /// A reader within the memory of its pool; its background work lives in the runtime's task
    /// group.
    pub fn new(parts: ReaderDeps, config: &ReadConfig) -> Self {
        let fetch_concurrency = config.fetch_concurrency.max(1);
        let (pool, clock) = (parts.pool.clone(), parts.runtime.clock.clone());
        parts.runtime.tasks.spawn_until_stopped(async move {
            pool.run_reclaim_loop(|pause| clock.sleep(pause), |_| ())
                .await;
        });
        Self {
            fetcher: Fetcher::new(parts, config),
            fetch_concurrency,
        }
    }

    /// The exchanges of which copies are kept here.
    pub fn cached_exchanges(&self) -> HashSet<ExchangeId> {
        self.fetcher.cached_exchanges()
    }

    /// Forgets a closed exchange.
    pub fn forget(&self, exchange: &ExchangeId) {
        self.fetcher.forget(exchange);
    }

    /// Bytes of fetched chunks that are kept.
    pub fn cached_bytes(&self) -> u64 {
        self.fetcher.cached_bytes()
    }

    /// What a handle's text asks for, to be read after `skip` pages.
    ///
    /// # Errors
    /// Everything that can be refused without touching a page; the rest comes in the stream.
    pub fn decode(text: &str, skip: u64) -> Result<ReadRequest, ReadError> {
        let handle = Handle::decode(text)
            .map_err(|reason| ReadError::Catalog(CatalogError::InvalidHandle { reason }))?;
        let pages = handle.pages();
        if skip > pages {
            return Err(ReadError::SkipBeyondEnd { skip, pages });
        }
        Ok(ReadRequest { handle, skip })
    }

    /// Opens a read. The stream gives block records, page frames and the end record.
    pub fn read(&self, request: ReadRequest) -> ByteStream {
        self.open(request.handle, request.skip, PageFormat::Records)
    }

    /// Opens a read of a handle (its text), after `skip` pages, at once.
    ///
    /// # Errors
    /// As [`Reader::decode`].
    pub async fn read_handle(&self, handle: &str, skip: u64) -> Result<ByteStream, ReadError> {
        Ok(self.read(Self::decode(handle, skip)?))
    }

    /// Opens a read of one partition.
    ///
    /// # Errors
    /// When the commit records cannot be read or hold no such attempt.
    pub async fn read_partition(
        &self,
        exchange: &ExchangeId,
        partition: u32,
        selection: Selection,
        format: PageFormat,
    ) -> Result<PartitionRead, ReadError> {
        let commits = &self.fetcher.parts().catalog;
        let Selection { task, attempt } = selection;
        let handle = commits
            .partition_handle(exchange, partition, task, attempt)
            .await?;
        let length = (format == PageFormat::Raw).then_some(handle.bytes);
        Ok(PartitionRead {
            length,
            stream: self.open(handle, 0, format),
        })
    }

    fn open(&self, handle: Handle, skip: u64, format: PageFormat) -> ByteStream {
        self.fetcher.parts().metrics.reads.inc();
        self.fetcher.begin(&handle);
        stream::stream(
            self.fetcher.clone(),
            self.fetch_concurrency,
            handle,
            skip,
            format,
        )
    }
}
