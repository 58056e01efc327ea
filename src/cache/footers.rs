//! Footers of segments, fetched once and kept.
//!
//! Does: read a footer from memory, from the cache, or with one request for the object's tail (a
//! second one if the footer is longer than that), and count those that are damaged. Does not:
//! interpret it. Invariant: a footer that it answers names the exchange and the segment under whose
//! address it was found; one that is kept holds its reservation.
//!
//! Footers are held from the memory for reading, where caches make room for them. But planning
//! never waits for memory: a plan needs all footers of its exchange at once, and two that waited
//! for what the other holds would wait for ever. Where there is no room, a footer is held beside
//! the budget for as long as the plan lives, and is not kept.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;

use super::hot::HotSegments;
use crate::catalog::CatalogError;
use crate::id::{ExchangeId, SegmentAddress, SegmentId};
use crate::memory::{MemoryPool, Reclaim, ReservedBytes};
use crate::segment::footer::Footer;
use crate::segment::layout::{TRAILER, Trailer};
use crate::storage::{ListedSegment, Storage, StoreErrorKind};
use crate::telemetry::metrics::Metrics;

/// Bytes of the tail that is asked for first. A footer costs about 10 bytes a block.
const TAIL: u64 = 128 << 10;
/// Bytes that a footer takes besides what it holds: its reservation, its places in the cache and in
/// the lists of a plan.
const BESIDES: u64 = 512;

/// The cache. Cheap to clone.
#[derive(Clone)]
pub struct Footers {
    storage: Storage,
    hot: HotSegments,
    max_footer_size: u64,
    metrics: Arc<Metrics>,
    pool: MemoryPool,
    cache: Arc<Mutex<Cache>>,
}

/// By exchange, as they are used: who plans needs all of them.
type Cache = LruCache<ExchangeId, Kept>;

/// What is kept of an exchange.
#[derive(Default)]
struct Kept {
    footers: HashMap<SegmentId, Arc<Footer>>,
    /// Bytes that they hold of the pool.
    bytes: u64,
    /// When any of them was last used.
    stamp: u64,
}

struct Reclaimer(Arc<Mutex<Cache>>);

impl Reclaim for Reclaimer {
    fn idle_since(&self, of_query: Option<&str>) -> Option<u64> {
        next(&self.0.lock(), of_query).map(|(_, kept)| kept.stamp)
    }

    fn reclaim(&self, of_query: Option<&str>) -> Option<u64> {
        let mut cache = self.0.lock();
        let exchange = next(&cache, of_query)?.0.clone();
        cache.pop(&exchange).map(|kept| kept.bytes)
    }
}

/// What was used longest ago, of one query if one is named.
fn next<'a>(cache: &'a Cache, of_query: Option<&str>) -> Option<(&'a ExchangeId, &'a Kept)> {
    let mut longest_ago_first = cache.iter().rev();
    longest_ago_first.find(|(exchange, _)| of_query.is_none_or(|query| exchange.query() == query))
}

impl Footers {
    /// An empty cache over a pool. Footers above `max_footer_size` bytes are refused.
    pub fn new(
        storage: Storage,
        hot: HotSegments,
        max_footer_size: u64,
        metrics: Arc<Metrics>,
        pool: MemoryPool,
    ) -> Self {
        let cache = Arc::new(Mutex::new(LruCache::unbounded()));
        pool.add_reclaimer(Arc::new(Reclaimer(Arc::clone(&cache))));
        Self {
            storage,
            hot,
            max_footer_size,
            metrics,
            pool,
            cache,
        }
    }

    /// The footer of a listed segment; `None` if it is gone by now.
    pub async fn get(&self, listed: &ListedSegment) -> Result<Option<Arc<Footer>>, CatalogError> {
        let id = listed.address.segment;
        if let Some(hot) = self.hot.get(id) {
            return Ok(Some(Arc::clone(&hot.footer)));
        }
        if let Some(kept) = self.kept(&listed.address) {
            return Ok(Some(kept));
        }
        match self.fetch(&listed.address).await {
            Ok(footer) => Ok(Some(self.keep(footer))),
            Err(CatalogError::Storage(e)) if e.kind() == StoreErrorKind::NotFound => Ok(None),
            Err(error) => {
                if error.is_damage() {
                    self.metrics.corruptions.inc();
                }
                Err(error)
            }
        }
    }

    async fn fetch(&self, address: &SegmentAddress) -> Result<Footer, CatalogError> {
        let corrupt = |reason: String| CatalogError::Corrupt {
            segment: address.clone(),
            reason: reason.into(),
        };
        let tail = self.storage.get_tail(address, TAIL).await?;
        let trailer = Trailer::decode(&tail.bytes, tail.object_size).map_err(corrupt)?;
        let length = u64::from(trailer.footer_length);
        if length > self.max_footer_size {
            return Err(corrupt(format!(
                "its footer has {length} bytes; limits.max_footer_size is {}",
                self.max_footer_size
            )));
        }
        let end = tail.bytes.len() - TRAILER;
        let bytes: Bytes = match end.checked_sub(length as usize) {
            Some(start) => tail.bytes.slice(start..end),
            None => {
                let range = trailer.footer_offset..trailer.footer_offset + length;
                self.storage.get_range(address, range).await?
            }
        };
        let mut footer = Footer::decode(&bytes, &trailer).map_err(corrupt)?;
        if footer.exchange != address.exchange || footer.segment != address.segment {
            let (exchange, segment) = (&footer.exchange, footer.segment);
            return Err(corrupt(format!(
                "it holds segment {segment} of exchange {exchange}"
            )));
        }
        // All of them share one name.
        footer.exchange = address.exchange.clone();
        Ok(footer)
    }

    fn kept(&self, address: &SegmentAddress) -> Option<Arc<Footer>> {
        let mut cache = self.cache.lock();
        let kept = cache.get_mut(&address.exchange)?;
        kept.stamp = self.pool.stamp();
        kept.footers.get(&address.segment).cloned()
    }

    /// Keeps a footer if there is room for it; it holds its memory for as long as anybody has it.
    fn keep(&self, mut footer: Footer) -> Arc<Footer> {
        let bytes = footer.memory() + BESIDES;
        let Some(reserved) = self.pool.try_reserve(footer.exchange.query(), bytes) else {
            return Arc::new(footer);
        };
        let hold = |index| ReservedBytes::into_bytes(index, reserved);
        footer.blocks = footer.blocks.held(hold);
        let (exchange, id) = (footer.exchange.clone(), footer.segment);
        let footer = Arc::new(footer);
        let mut cache = self.cache.lock();
        let kept = cache.get_or_insert_mut(exchange, Kept::default);
        kept.stamp = self.pool.stamp();
        // Another plan may have fetched it at the same time: the one before is held by that alone.
        if kept.footers.insert(id, Arc::clone(&footer)).is_none() {
            kept.bytes += bytes;
        }
        footer
    }

    /// Bytes kept.
    pub fn bytes(&self) -> u64 {
        self.cache.lock().iter().map(|(_, kept)| kept.bytes).sum()
    }

    /// The exchanges of which any footer is kept.
    pub fn exchanges(&self) -> HashSet<ExchangeId> {
        let cache = self.cache.lock();
        cache.iter().map(|(exchange, _)| exchange.clone()).collect()
    }

    /// Forgets a closed exchange.
    pub fn forget(&self, exchange: &ExchangeId) {
        self.cache.lock().pop(exchange);
    }
}
