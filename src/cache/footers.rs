//! Footers of segments, fetched once and cached.
//!
//! Does: get a footer from memory, from the cache, or with one request for the object's tail (a
//! second one if the footer is longer), and count damaged ones. Does not: interpret it. Invariant:
//! a returned footer names the exchange and segment of the address under which it was found; a
//! cached one holds its reservation.
//!
//! Footers are reserved from the read pool, where caches make room for them. But planning never
//! waits for memory: a plan needs all footers of its exchange at once, and two plans could wait for
//! each other forever. If there is no room, a footer is held outside the budget until the plan
//! ends, and is not cached.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::hot::HotSegments;
use super::lru::Lru;
use crate::id::{ExchangeId, SegmentAddress, SegmentId};
use crate::memory::{MemoryPool, ReservedBytes};
use crate::segment::error::FormatError;
use crate::segment::footer::Footer;
use crate::segment::layout::{TRAILER_LEN, Trailer};
use crate::storage::{ListedSegment, Storage, StorageError, StoreErrorKind};
use crate::telemetry::metrics::Metrics;

/// Bytes of the tail that the first request reads. A footer has about 10 bytes a block.
const FIRST_TAIL: u64 = 128 << 10;
/// Memory that a footer needs besides its content: its reservation, and its entries in the cache
/// and in the lists of a plan.
const FOOTER_OVERHEAD: u64 = 512;

/// Why a footer could not be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FooterError {
    #[error("{segment}: {source}")]
    Malformed {
        segment: SegmentAddress,
        source: FormatError,
    },
    #[error("{segment}: its footer has {length} bytes; limits.max_footer_size is {limit}")]
    TooLarge {
        segment: SegmentAddress,
        length: u64,
        limit: u64,
    },
    /// The object is stored under the key of another segment.
    #[error("{segment}: it contains segment {found} of exchange {exchange}")]
    Misplaced {
        segment: SegmentAddress,
        found: SegmentId,
        exchange: ExchangeId,
    },
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl FooterError {
    /// Whether the base directory returned something else than what was written.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Malformed { .. } | Self::TooLarge { .. } | Self::Misplaced { .. } => true,
            Self::Storage(error) => error.kind() == StoreErrorKind::Corrupt,
        }
    }
}

/// The cache. Cheap to clone.
#[derive(Clone)]
pub struct FooterCache {
    storage: Storage,
    hot: HotSegments,
    max_footer_size: u64,
    metrics: Arc<Metrics>,
    pool: MemoryPool,
    /// Evicted by exchange, because a plan needs all footers of its exchange.
    cached: Arc<Mutex<Lru<ExchangeId, Footers>>>,
}

/// The cached footers of an exchange.
type Footers = HashMap<SegmentId, Arc<Footer>>;

impl FooterCache {
    /// An empty cache over a pool. Footers above `max_footer_size` bytes are refused.
    pub fn new(
        storage: Storage,
        hot: HotSegments,
        max_footer_size: u64,
        metrics: Arc<Metrics>,
        pool: MemoryPool,
    ) -> Self {
        Self {
            storage,
            hot,
            max_footer_size,
            metrics,
            cached: Lru::registered(&pool),
            pool,
        }
    }

    /// The footer of a listed segment; `None` if the segment has been removed since.
    ///
    /// # Errors
    /// [`FooterError`] if the object cannot be read or is damaged.
    pub async fn get(&self, listed: &ListedSegment) -> Result<Option<Arc<Footer>>, FooterError> {
        let address = &listed.address;
        if let Some(hot) = self.hot.get(&address.exchange, address.segment) {
            return Ok(Some(Arc::clone(&hot.footer)));
        }
        if let Some(cached) = self.cached(address) {
            return Ok(Some(cached));
        }
        match self.fetch(address).await {
            Ok(footer) => Ok(Some(self.insert(footer))),
            Err(FooterError::Storage(e)) if e.kind() == StoreErrorKind::NotFound => Ok(None),
            Err(error) => {
                if error.is_damage() {
                    self.metrics.integrity_failures.inc();
                }
                Err(error)
            }
        }
    }

    async fn fetch(&self, address: &SegmentAddress) -> Result<Footer, FooterError> {
        let malformed = |source| FooterError::Malformed {
            segment: address.clone(),
            source,
        };
        let tail = self.storage.get_tail(address, FIRST_TAIL).await?;
        let trailer = Trailer::decode(&tail.bytes, tail.object_size).map_err(malformed)?;
        let length = u64::from(trailer.footer_length);
        if length > self.max_footer_size {
            return Err(FooterError::TooLarge {
                segment: address.clone(),
                length,
                limit: self.max_footer_size,
            });
        }
        let end = tail.bytes.len() - TRAILER_LEN;
        let bytes: Bytes = match end.checked_sub(trailer.footer_length as usize) {
            Some(start) => tail.bytes.slice(start..end),
            None => {
                let range = trailer.footer_offset..trailer.footer_offset + length;
                self.storage.get_range(address, range).await?
            }
        };
        let mut footer = Footer::decode(&bytes, &trailer).map_err(malformed)?;
        if footer.exchange != address.exchange || footer.segment != address.segment {
            return Err(FooterError::Misplaced {
                segment: address.clone(),
                found: footer.segment,
                exchange: footer.exchange,
            });
        }
        // All footers of an exchange share one allocation of its id.
        footer.exchange = address.exchange.clone();
        Ok(footer)
    }

    fn cached(&self, address: &SegmentAddress) -> Option<Arc<Footer>> {
        let tick = self.pool.next_use_tick();
        let mut cached = self.cached.lock();
        let footers = cached.get(&address.exchange, tick)?;
        footers.get(&address.segment).cloned()
    }

    /// Caches a footer if there is memory for it. The reservation lasts until the last user drops
    /// the footer.
    fn insert(&self, mut footer: Footer) -> Arc<Footer> {
        let bytes = footer.memory_size() + FOOTER_OVERHEAD;
        let Some(reserved) = self.pool.try_reserve(footer.exchange.query(), bytes) else {
            return Arc::new(footer);
        };
        let bind = |index| ReservedBytes::into_bytes(index, reserved);
        footer.blocks = footer.blocks.map_encoded(bind);
        let (exchange, id) = (footer.exchange.clone(), footer.segment);
        let footer = Arc::new(footer);
        let tick = self.pool.next_use_tick();
        let mut cached = self.cached.lock();
        match cached.get(&exchange, tick) {
            Some(footers) => {
                // If another plan has inserted the footer meanwhile, only that plan still uses the
                // replaced one.
                if footers.insert(id, Arc::clone(&footer)).is_none() {
                    cached.grow(&exchange, bytes);
                }
            }
            None => {
                let footers = HashMap::from([(id, Arc::clone(&footer))]);
                cached.insert(exchange.clone(), exchange, footers, bytes, tick);
            }
        }
        footer
    }

    /// Bytes that are cached.
    pub fn bytes(&self) -> u64 {
        self.cached.lock().bytes()
    }

    /// The exchanges that have a footer here.
    pub fn exchanges(&self) -> HashSet<ExchangeId> {
        self.cached.lock().exchanges()
    }

    /// Removes the footers of a closed exchange.
    pub fn forget(&self, exchange: &ExchangeId) {
        self.cached.lock().remove(exchange);
    }
}
