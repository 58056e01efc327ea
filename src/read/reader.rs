//! The entry points of reading: by handle, and by partition.
//!
//! Does: decode and check a request, and open its stream. Does not: fetch (`fetch`) or verify
//! (`stream`). Invariant: a request that is refused has read nothing.

use std::collections::HashSet;

use super::error::ReadError;
use super::fetch::{Fetcher, ReaderDeps};
use super::stream::{self, ByteStream};
use crate::catalog::Selection;
use crate::catalog::handle::Handle;
use crate::config::ReadConfig;
use crate::id::ExchangeId;
use crate::segment::scan::PageFormat;

/// An open read of a partition.
pub struct PartitionRead {
    /// Bytes of the whole stream, if its format is [`PageFormat::Raw`].
    pub length: Option<u64>,
    /// Bytes of memory that the stream needs for its ranges.
    pub memory_size: u64,
    pub stream: ByteStream,
}

/// A read that has been checked and can be opened.
#[derive(Debug)]
pub struct ReadRequest {
    handle: Handle,
    skip: u64,
}

impl ReadRequest {
    #[cfg(test)]
    pub(super) fn new(handle: Handle, skip: u64) -> Self {
        Self { handle, skip }
    }

    /// The exchange that is read.
    pub fn exchange(&self) -> &ExchangeId {
        &self.handle.exchange
    }

    /// The output partition that is read.
    pub fn partition(&self) -> u32 {
        self.handle.partition
    }

    /// Bytes of memory that it needs.
    pub fn memory_size(&self) -> u64 {
        self.handle.memory_size()
    }
}

/// The reading side of a daemon. Cheap to clone.
#[derive(Clone)]
pub struct Reader {
    fetcher: Fetcher,
    fetch_concurrency: usize,
}

impl Reader {
    /// A reader within its pool, whose reclaim loop starts in the runtime's task group.
    pub fn new(deps: ReaderDeps, config: &ReadConfig) -> Self {
        let fetch_concurrency = config.fetch_concurrency.max(1);
        let (pool, clock) = (deps.pool.clone(), deps.runtime.clock.clone());
        deps.runtime.tasks.spawn_until_stopped(async move {
            pool.run_reclaim_loop(|pause| clock.sleep(pause), |_| ())
                .await;
        });
        Self {
            fetcher: Fetcher::new(deps, config),
            fetch_concurrency,
        }
    }

    /// The exchanges that have cached chunks.
    pub fn cached_exchanges(&self) -> HashSet<ExchangeId> {
        self.fetcher.chunks.exchanges()
    }

    /// Removes the cached chunks of a closed exchange.
    pub fn forget(&self, exchange: &ExchangeId) {
        self.fetcher.forget(exchange);
    }

    /// Bytes of cached chunks.
    pub fn cached_bytes(&self) -> u64 {
        self.fetcher.chunks.bytes()
    }

    /// Decodes the text of a handle that is to be read after `skip` pages.
    ///
    /// # Errors
    /// [`ReadError::InvalidHandle`] or [`ReadError::SkipBeyondEnd`]; all other errors end the
    /// stream.
    pub async fn decode(&self, text: &str, skip: u64) -> Result<ReadRequest, ReadError> {
        let handle = self.fetcher.deps.catalog.open_handle(text).await?;
        let pages = handle.pages();
        if skip > pages {
            return Err(ReadError::SkipBeyondEnd { skip, pages });
        }
        Ok(ReadRequest { handle, skip })
    }

    /// Opens a read in [`PageFormat::Records`].
    pub fn read(&self, request: ReadRequest) -> ByteStream {
        self.open(request.handle, request.skip, PageFormat::Records)
    }

    /// Decodes a handle and opens its read.
    ///
    /// # Errors
    /// As [`Reader::decode`].
    pub async fn read_handle(&self, handle: &str, skip: u64) -> Result<ByteStream, ReadError> {
        Ok(self.read(self.decode(handle, skip).await?))
    }

    /// Opens a read of one partition.
    ///
    /// # Errors
    /// [`ReadError::Catalog`] if the commit records cannot be read or have no such attempts.
    pub async fn read_partition(
        &self,
        exchange: &ExchangeId,
        partition: u32,
        selection: Selection,
        format: PageFormat,
    ) -> Result<PartitionRead, ReadError> {
        let catalog = &self.fetcher.deps.catalog;
        let handle = catalog.partition_handle(exchange, partition, selection);
        let handle = handle.await?;
        let length = (format == PageFormat::Raw).then_some(handle.bytes);
        Ok(PartitionRead {
            length,
            memory_size: handle.memory_size(),
            stream: self.open(handle, 0, format),
        })
    }

    fn open(&self, handle: Handle, skip: u64, format: PageFormat) -> ByteStream {
        self.fetcher.deps.metrics.reads.inc();
        self.fetcher.record_read(&handle);
        stream::stream(
            self.fetcher.clone(),
            self.fetch_concurrency,
            handle,
            skip,
            format,
        )
    }
}
