//! Footers of segments, fetched once and kept.
//!
//! Does: read a footer from memory, from the cache, or with one request for the object's tail (a
//! second one if the footer is longer than that), and count those that are damaged. Does not:
//! interpret it. Invariant: a footer that it answers names the exchange and the segment under whose
//! address it was found.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::Arc;

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;

use super::CommitError;
use super::hot::HotSegments;
use crate::id::{ExchangeId, SegmentAddress, SegmentId};
use crate::segment::footer::Footer;
use crate::segment::layout::{TRAILER, Trailer};
use crate::storage::{ListedSegment, Storage, StorageErrorKind};
use crate::telemetry::metrics::Metrics;

/// Bytes of the tail that is asked for first. A footer costs about 10 bytes a block.
const TAIL: u64 = 128 << 10;
/// Footers are kept up to this many blocks in all, at 32 bytes each.
const KEPT_BLOCKS: usize = 1 << 20;

/// The cache. Cheap to clone.
#[derive(Clone)]
pub struct Footers {
    storage: Storage,
    hot: HotSegments,
    max_footer_size: u64,
    metrics: Arc<Metrics>,
    cache: Arc<Mutex<Cache>>,
}

struct Cache {
    entries: LruCache<SegmentId, Arc<Footer>>,
    blocks: usize,
}

impl Footers {
    /// An empty cache. Footers above `max_footer_size` bytes are refused.
    pub fn new(
        storage: Storage,
        hot: HotSegments,
        max_footer_size: u64,
        metrics: Arc<Metrics>,
    ) -> Self {
        let room = NonZeroUsize::new(KEPT_BLOCKS).expect("not zero");
        let cache = Cache {
            entries: LruCache::new(room),
            blocks: 0,
        };
        Self {
            storage,
            hot,
            max_footer_size,
            metrics,
            cache: Arc::new(Mutex::new(cache)),
        }
    }

    /// The footer of a listed segment; `None` if it is gone by now.
    pub async fn get(&self, listed: &ListedSegment) -> Result<Option<Arc<Footer>>, CommitError> {
        let id = listed.address.segment;
        if let Some(hot) = self.hot.get(id) {
            return Ok(Some(Arc::clone(&hot.footer)));
        }
        if let Some(footer) = self.cache.lock().entries.get(&id) {
            return Ok(Some(Arc::clone(footer)));
        }
        match self.fetch(&listed.address).await {
            Ok(footer) => {
                let footer = Arc::new(footer);
                self.keep(id, Arc::clone(&footer));
                Ok(Some(footer))
            }
            Err(CommitError::Storage(e)) if e.kind == StorageErrorKind::NotFound => Ok(None),
            Err(error) => {
                if error.is_damage() {
                    self.metrics.corruptions.inc();
                }
                Err(error)
            }
        }
    }

    async fn fetch(&self, address: &SegmentAddress) -> Result<Footer, CommitError> {
        let corrupt = |reason: String| CommitError::Corrupt {
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
        let footer = Footer::decode(&bytes, &trailer).map_err(corrupt)?;
        if footer.exchange != address.exchange || footer.segment != address.segment {
            let (exchange, segment) = (&footer.exchange, footer.segment);
            return Err(corrupt(format!(
                "it holds segment {segment} of exchange {exchange}"
            )));
        }
        Ok(footer)
    }

    fn keep(&self, id: SegmentId, footer: Arc<Footer>) {
        let mut cache = self.cache.lock();
        cache.blocks += footer.blocks.len();
        if let Some(before) = cache.entries.put(id, footer) {
            cache.blocks -= before.blocks.len();
        }
        while cache.blocks > KEPT_BLOCKS {
            let Some((_, oldest)) = cache.entries.pop_lru() else {
                break;
            };
            cache.blocks -= oldest.blocks.len();
        }
    }

    /// The exchanges of which any footer is kept.
    pub fn exchanges(&self) -> HashSet<ExchangeId> {
        let cache = self.cache.lock();
        let footers = cache.entries.iter();
        footers.map(|(_, footer)| footer.exchange.clone()).collect()
    }

    /// Forgets a closed exchange.
    pub fn forget(&self, exchange: &ExchangeId) {
        let mut cache = self.cache.lock();
        let gone: Vec<SegmentId> = cache
            .entries
            .iter()
            .filter(|(_, footer)| footer.exchange == *exchange)
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            let blocks = cache
                .entries
                .pop(&id)
                .map_or(0, |footer| footer.blocks.len());
            cache.blocks -= blocks;
        }
    }
}
