//! Gets the bytes of a part: from memory, from the shared chunks, or from a base directory.
//!
//! Does: reserve memory before it fetches, and tell a lost segment from one that cannot be reached.
//! Does not: check what is in the bytes. Invariant: the bytes it answers are exactly as many as
//! were wanted, and hold a reservation until the last slice of them is gone.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::density::ReadDensity;
use super::planner::{Chunks, Part, is_shared, is_short, rest, shared_size};
use super::{ReadError, ReaderDeps};
use crate::cache::chunks::{ChunkCache, ChunkKey};
use crate::catalog::handle::Handle;
use crate::config::ReadConfig;
use crate::id::{ExchangeId, SegmentAddress};
use crate::memory::{OverCapacity, ReservedBytes};
use crate::storage::{StorageError, StoreErrorKind};

/// One part of a handle, to be fetched.
#[derive(Debug, Clone)]
pub struct PlannedPart {
    /// Which of the handle's ranges.
    pub range: usize,
    /// Where the segment lies.
    pub address: SegmentAddress,
    /// What of it.
    pub part: Part,
    /// Whether the range ends with it.
    pub last: bool,
}

/// Gets parts. Cheap to clone.
#[derive(Clone)]
pub struct Fetcher {
    parts: ReaderDeps,
    cache: ChunkCache,
    neighbours: Arc<ReadDensity>,
    chunk_size: u64,
}

impl Fetcher {
    /// A fetcher within its pool; chunks are at most a sixteenth of what one query may hold of it,
    /// so that many readers fit.
    pub fn new(parts: ReaderDeps, config: &ReadConfig) -> Self {
        let share = (parts.pool.capacity() as f64 * config.cache_share) as u64;
        let chunk_size = config.chunk_size.min(parts.pool.query_limit() / 16);
        let chunk_size = chunk_size.max(4096);
        Self {
            cache: ChunkCache::new(parts.pool.clone(), share),
            neighbours: Arc::default(),
            parts,
            chunk_size,
        }
    }

    /// What it works with.
    pub fn parts(&self) -> &ReaderDeps {
        &self.parts
    }

    /// The most that is fetched in one part, but for a page that is longer.
    pub fn chunk_size(&self) -> u64 {
        self.chunk_size
    }

    /// Bytes of chunks kept.
    pub fn cached_bytes(&self) -> u64 {
        self.cache.bytes()
    }

    /// The exchanges of which chunks are kept.
    pub fn kept(&self) -> HashSet<ExchangeId> {
        self.cache.exchanges()
    }

    /// Forgets a closed exchange.
    pub fn forget(&self, exchange: &ExchangeId) {
        self.cache.forget(exchange);
        self.neighbours.forget(exchange);
    }

    /// A read of this handle begins.
    pub fn begin(&self, handle: &Handle) {
        self.neighbours.saw(&handle.exchange, handle.partition);
    }

    /// Forgets what is kept of a segment in which damage was found: it may have been done here or
    /// on the way here, and the next reader is to fetch it anew.
    pub fn distrust(&self, at: &SegmentAddress) {
        self.cache.forget_segment(at);
        self.parts.commits.hot().remove(at);
    }

    /// The parts of one range of a handle, in order.
    pub fn plan(&self, handle: &Handle, index: usize) -> Vec<PlannedPart> {
        let range = &handle.ranges[index];
        let bytes = range.offset..range.offset + range.length;
        let size = shared_size(self.chunk_size, handle.ranges.len(), self.cache.share());
        let with_neighbours = |size| {
            let density = self.neighbours.density(&handle.exchange);
            is_shared(range.length, range.blocks_end, size, density)
        };
        let cut = match size.filter(|size| is_short(range.length, *size)) {
            Some(size) if self.kept_whole(handle, index, size) || with_neighbours(size) => {
                Chunks::new(size, range.blocks_end).cut(bytes)
            }
            _ => rest(bytes, self.chunk_size, self.chunk_size),
        };
        planned(handle, index, cut)
    }

    /// Whether all chunks of a range are here already.
    fn kept_whole(&self, handle: &Handle, index: usize, size: u64) -> bool {
        let range = &handle.ranges[index];
        let address = handle.address(range);
        let bytes = range.offset..range.offset + range.length;
        let chunks = Chunks::new(size, range.blocks_end);
        chunks.of(&bytes).all(|chunk| {
            self.cache
                .has(&chunk_key(&address, chunk, chunks.end(chunk)))
        })
    }

    /// The parts of what is left of a range after so many bytes, fetched for this reader alone. The
    /// first is as long as the item at its beginning, if that is known.
    pub fn plan_rest(
        &self,
        handle: &Handle,
        index: usize,
        taken: u64,
        item: Option<u64>,
    ) -> Vec<PlannedPart> {
        let range = &handle.ranges[index];
        let bytes = range.offset + taken..range.offset + range.length;
        let first = item.unwrap_or(0).max(self.chunk_size);
        planned(handle, index, rest(bytes, first, self.chunk_size))
    }

    /// The bytes of a part, in one or more pieces.
    ///
    /// # Errors
    /// A lost segment, or a base directory that does not answer.
    pub async fn get(&self, planned: &PlannedPart) -> Result<Vec<Bytes>, ReadError> {
        let wanted = planned.part.wanted();
        let length = wanted.end - wanted.start;
        let hot = self.parts.commits.hot().get(planned.address.segment);
        let hot = hot.filter(|segment| segment.address.exchange == planned.address.exchange);
        if let Some(pieces) = hot.and_then(|segment| segment.range(wanted.clone())) {
            self.parts.metrics.cache_hit_bytes.inc_by(length);
            return Ok(pieces);
        }
        let (bytes, hit) = match &planned.part {
            Part::Exact(range) => (
                get_reserved(&self.parts, &planned.address, range.clone()).await?,
                false,
            ),
            Part::Shared {
                chunk,
                fetch,
                wanted,
            } => {
                let key = chunk_key(&planned.address, *chunk, fetch.end);
                let (parts, at) = (self.parts.clone(), planned.address.clone());
                let range = fetch.clone();
                let fetched = async move { get_reserved(&parts, &at, range).await };
                let (bytes, hit) = self
                    .cache
                    .get(&self.parts.runtime.tasks, key, fetched)
                    .await?;
                let from = (wanted.start - fetch.start) as usize;
                (bytes.slice(from..from + length as usize), hit)
            }
        };
        let metrics = &self.parts.metrics;
        let counter = if hit {
            &metrics.cache_hit_bytes
        } else {
            &metrics.cache_miss_bytes
        };
        counter.inc_by(length);
        Ok(vec![bytes])
    }
}

fn chunk_key(at: &SegmentAddress, chunk: u64, end: u64) -> ChunkKey {
    ChunkKey {
        exchange: at.exchange.clone(),
        base: at.base.clone(),
        segment: at.segment,
        chunk,
        end,
    }
}

fn planned(handle: &Handle, index: usize, cut: Vec<Part>) -> Vec<PlannedPart> {
    let address = handle.address(&handle.ranges[index]);
    let count = cut.len();
    let planned = |(n, part)| PlannedPart {
        range: index,
        address: address.clone(),
        part,
        last: n + 1 == count,
    };
    cut.into_iter().enumerate().map(planned).collect()
}

/// Reserves memory for a range and fetches it.
async fn get_reserved(
    parts: &ReaderDeps,
    at: &SegmentAddress,
    range: Range<u64>,
) -> Result<Bytes, ReadError> {
    let length = range.end - range.start;
    let reservation = parts
        .pool
        .reserve(at.exchange.query(), length)
        .await
        .map_err(|e| too_large(at, &e))?;
    let bytes = parts
        .storage
        .get_range(at, range)
        .await
        .map_err(|e| lost(at, e))?;
    Ok(ReservedBytes::into_bytes(bytes, reservation))
}

/// What is asked for here is a chunk, which always fits, or one page.
fn too_large(at: &SegmentAddress, error: &OverCapacity) -> ReadError {
    let reason = format!("a page of it is damaged, or larger than this daemon can serve: {error}");
    ReadError::Corrupt {
        segment: at.clone(),
        reason: reason.into(),
    }
}

fn lost(at: &SegmentAddress, error: StorageError) -> ReadError {
    match error.kind() {
        StoreErrorKind::NotFound => ReadError::Lost {
            segment: at.clone(),
        },
        StoreErrorKind::Corrupt => ReadError::Corrupt {
            segment: at.clone(),
            reason: error.to_string().into(),
        },
        StoreErrorKind::Unavailable | StoreErrorKind::Refused => ReadError::Storage(error),
    }
}
