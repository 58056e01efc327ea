//! Gets the bytes of a part: from a hot segment, from a shared chunk, or from a base directory.
//!
//! Does: reserve memory before it fetches, and distinguish a lost segment from an unreachable one.
//! Does not: verify the bytes. Invariant: it returns exactly the wanted bytes, which hold a
//! reservation until their last slice is dropped.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::density::ReadDensity;
use super::error::{Damage, ReadError};
use super::planner::{Chunks, Part, Parts, is_shared, is_short, shared_size};
use crate::cache::chunks::{ChunkCache, ChunkKey, FetchError};
use crate::cache::hot::HotSegments;
use crate::catalog::Catalog;
use crate::catalog::handle::Handle;
use crate::config::ReadConfig;
use crate::id::{ExchangeId, SegmentAddress};
use crate::memory::{MemoryPool, ReservedBytes};
use crate::runtime::Runtime;
use crate::storage::{Storage, StoreErrorKind};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::{SpanRef, waiting};

/// The most slices of a part or of its verified pages that are held at a time: each tiny page of a
/// hot segment may be a slice of its own.
pub(super) const MAX_SLICES: usize = 256;

/// What the reading side needs from the rest of the daemon.
#[derive(Clone)]
pub struct ReaderDeps {
    pub storage: Storage,
    /// Commit records, for reads without a handle.
    pub catalog: Catalog,
    /// Segments that this daemon wrote recently.
    pub hot: HotSegments,
    /// The read pool.
    pub pool: MemoryPool,
    pub runtime: Runtime,
    pub metrics: Arc<Metrics>,
}

/// The parts of one range of a handle, made as they are fetched.
#[derive(Debug, Clone)]
pub(super) struct PlannedRange {
    /// Index of the range in the handle.
    range: usize,
    address: SegmentAddress,
    parts: Parts,
}

impl Iterator for PlannedRange {
    type Item = PlannedPart;

    fn next(&mut self) -> Option<PlannedPart> {
        let part = self.parts.next()?;
        Some(PlannedPart {
            range: self.range,
            address: self.address.clone(),
            part,
            last: self.parts.is_empty(),
        })
    }
}

/// One part of a handle that is to be fetched.
#[derive(Debug, Clone)]
pub(super) struct PlannedPart {
    /// Index of its range in the handle.
    pub range: usize,
    pub address: SegmentAddress,
    /// Which bytes, and how to get them.
    pub part: Part,
    pub last: bool,
}

/// Gets parts. Cheap to clone.
#[derive(Clone)]
pub(super) struct Fetcher {
    pub deps: ReaderDeps,
    pub chunks: ChunkCache,
    density: Arc<ReadDensity>,
    /// The most bytes of one fetch, unless a single page is longer.
    pub chunk_size: u64,
}

impl Fetcher {
    /// A fetcher within its pool. Chunks are at most a sixteenth of what one query may hold of it,
    /// so that several reads of a query fit.
    pub(super) fn new(deps: ReaderDeps, config: &ReadConfig) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share is from 0 to 1; a rounding error of some bytes does not matter"
        )]
        let share = (deps.pool.capacity() as f64 * config.cache_share) as u64;
        let chunk_size = config.chunk_size.min(deps.pool.query_limit() / 16);
        Self {
            chunks: ChunkCache::new(deps.pool.clone(), share),
            density: Arc::default(),
            deps,
            chunk_size: chunk_size.max(4096),
        }
    }

    /// Removes everything about a closed exchange.
    pub(super) fn forget(&self, exchange: &ExchangeId) {
        self.chunks.forget(exchange);
        self.density.forget(exchange);
    }

    /// Records that a read of this handle begins.
    pub(super) fn record_read(&self, handle: &Handle) {
        self.density.record(&handle.exchange, handle.partition);
    }

    /// Removes all copies of a segment in which damage was found: the stored object may be intact,
    /// so the next fetch reads it again.
    pub(super) fn evict_segment(&self, at: &SegmentAddress) {
        self.chunks.forget_segment(at);
        self.deps.hot.remove(at);
    }

    /// The parts of one range of a handle, in order.
    pub(super) fn plan(&self, handle: &Handle, index: usize) -> PlannedRange {
        let range = &handle.ranges[index];
        let bytes = range.offset..range.offset + range.length;
        let size = shared_size(self.chunk_size, handle.ranges.len(), self.chunks.share());
        let worth_sharing = |size| {
            let density = self.density.density(&handle.exchange);
            is_shared(range.length, range.blocks_end, size, density)
        };
        let parts = match size.filter(|size| is_short(range.length, *size)) {
            Some(size) if self.has_chunks(handle, index, size) || worth_sharing(size) => {
                Chunks::new(size, range.blocks_end).cut(bytes)
            }
            _ => Parts::exact(bytes, self.chunk_size, self.chunk_size),
        };
        planned(handle, index, parts)
    }

    /// Whether all chunks of a range are cached or being fetched.
    fn has_chunks(&self, handle: &Handle, index: usize, size: u64) -> bool {
        let range = &handle.ranges[index];
        let address = handle.address(range);
        let bytes = range.offset..range.offset + range.length;
        let chunks = Chunks::new(size, range.blocks_end);
        let key = |chunk| chunk_key(&address, chunk, chunks.end(chunk));
        let mut touched = chunks.of(&bytes);
        touched.all(|chunk| self.chunks.contains(&key(chunk)))
    }

    /// The parts of the rest of a range after `consumed` bytes, fetched for this reader alone. The
    /// first part covers the whole item at its beginning, if the item's length is known.
    pub(super) fn plan_rest(
        &self,
        handle: &Handle,
        index: usize,
        consumed: u64,
        item: Option<u64>,
    ) -> PlannedRange {
        let range = &handle.ranges[index];
        let bytes = range.offset + consumed..range.offset + range.length;
        let first = item.unwrap_or(0).max(self.chunk_size);
        planned(handle, index, Parts::exact(bytes, first, self.chunk_size))
    }

    /// Whether [`Fetcher::get`] needs no memory for a part now, because it is in a hot segment or
    /// in a chunk that is cached or being fetched.
    pub(super) fn is_cached(&self, planned: &PlannedPart) -> bool {
        let (at, wanted) = (&planned.address, planned.part.wanted());
        let hot = self.deps.hot.get(&at.exchange, at.segment);
        hot.is_some_and(|segment| segment.contains(wanted))
            || matches!(&planned.part, Part::Shared { chunk, fetch, .. }
                if self.chunks.contains(&chunk_key(at, *chunk, fetch.end)))
    }

    /// The bytes of a part, in one or more slices; if it has more than [`MAX_SLICES`], only those.
    ///
    /// # Errors
    /// [`ReadError`] if the segment is lost or damaged, or its base directory cannot be read.
    pub(super) async fn get(&self, planned: &PlannedPart) -> Result<Vec<Bytes>, ReadError> {
        let wanted = planned.part.wanted();
        let length = wanted.end - wanted.start;
        let at = &planned.address;
        let hot = self.deps.hot.get(&at.exchange, at.segment);
        let slices = hot.and_then(|segment| segment.first_slices(wanted.clone(), MAX_SLICES));
        if let Some(slices) = slices {
            let length = slices.iter().map(Bytes::len).sum::<usize>() as u64;
            self.deps.metrics.cache_hit_bytes.inc_by(length);
            return Ok(slices);
        }
        let failed = |error| read_error(&planned.address, error);
        let (bytes, hit) = match &planned.part {
            Part::Exact(range) => {
                let fetched = fetch_reserved(&self.deps, &planned.address, range.clone()).await;
                (fetched.map_err(failed)?, false)
            }
            Part::Shared {
                chunk,
                fetch,
                wanted,
            } => {
                let key = chunk_key(&planned.address, *chunk, fetch.end);
                let (deps, at, range) = (self.deps.clone(), planned.address.clone(), fetch.clone());
                // In a separate task, below the span of the reader that starts it.
                let span = SpanRef::current();
                let fetch_chunk = async move { span.run(fetch_reserved(&deps, &at, range)).await };
                let tasks = &self.deps.runtime.tasks;
                let chunk = self.chunks.get(tasks, key, fetch_chunk).await;
                let (bytes, hit) = chunk.map_err(failed)?;
                let start = usize::try_from(wanted.start - fetch.start);
                let length = usize::try_from(length);
                let (start, length) = start.ok().zip(length.ok()).expect("a chunk is in memory");
                (bytes.slice(start..start + length), hit)
            }
        };
        let metrics = &self.deps.metrics;
        let counter = if hit {
            &metrics.cache_hit_bytes
        } else {
            &metrics.cache_miss_bytes
        };
        counter.inc_by(length);
        Ok(vec![bytes])
    }
}

fn chunk_key(segment: &SegmentAddress, chunk: u64, end: u64) -> ChunkKey {
    ChunkKey {
        segment: segment.clone(),
        chunk,
        end,
    }
}

fn planned(handle: &Handle, index: usize, parts: Parts) -> PlannedRange {
    PlannedRange {
        range: index,
        address: handle.address(&handle.ranges[index]),
        parts,
    }
}

/// Reserves memory for a range, then fetches it.
async fn fetch_reserved(
    deps: &ReaderDeps,
    at: &SegmentAddress,
    range: Range<u64>,
) -> Result<Bytes, FetchError> {
    let length = range.end - range.start;
    let reservation = deps.pool.reserve(at.exchange.query(), length);
    let reservation = waiting("wait for memory", reservation).await?;
    let bytes = deps.storage.get_range(at, range).await?;
    Ok(ReservedBytes::into_bytes(bytes, reservation))
}

fn read_error(at: &SegmentAddress, error: FetchError) -> ReadError {
    let segment = at.clone();
    let source = match error {
        FetchError::Interrupted => return ReadError::Interrupted,
        FetchError::OverCapacity(error) => Damage::PageTooLarge(error),
        FetchError::Storage(error) => match error.kind() {
            StoreErrorKind::NotFound => return ReadError::Lost { segment },
            StoreErrorKind::Corrupt => Damage::Storage(error),
            StoreErrorKind::Unavailable | StoreErrorKind::Refused => {
                return ReadError::Storage(error);
            }
        },
    };
    let source = Box::new(source);
    ReadError::Corrupt { segment, source }
}
