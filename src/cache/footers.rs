//! Footers of segments, fetched once and cached.
//!
//! Does: get a footer from memory, from the cache, or with one request for the object's tail (a
//! second one if the footer is longer), and count damaged ones. Does not: interpret it, or reserve
//! memory: the caller does, since it needs many footers at once (`catalog::load`). Invariant: a
//! returned footer names the exchange and segment of the address under which it was found, is
//! cached, and holds its reservation until its last user drops it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::hot::HotSegments;
use super::lru::Lru;
use crate::human::count;
use crate::id::{BaseName, ExchangeId, SegmentAddress, SegmentId};
use crate::memory::{MemoryPool, Reservation, ReservedBytes};
use crate::runtime::TaskGroup;
use crate::segment::error::FormatError;
use crate::segment::footer::Footer;
use crate::segment::layout::{TRAILER_LEN, Trailer};
use crate::storage::{Storage, StorageError, StoreErrorKind};
use crate::telemetry::metrics::Metrics;

/// Bytes of the tail that the first request reads, unless the pool is small. A footer has about 10
/// bytes a block.
const FIRST_TAIL: u64 = 128 << 10;
/// Memory that is reserved for a footer before it is requested, as a multiple of its encoded
/// length: for its bytes and what is decoded from them. Commit records need the most, five times
/// their length.
const EXPANSION: u64 = 4;
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
    #[error(
        "{segment}: its footer has {}; limits.max_footer_size is {limit}",
        count(*length, "byte")
    )]
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
    max_footer_size: Arc<AtomicU64>,
    metrics: Arc<Metrics>,
    pool: MemoryPool,
    tasks: TaskGroup,
    /// Evicted by exchange, because a plan needs all footers of its exchange.
    cached: Arc<Mutex<Lru<ExchangeId, Footers>>>,
}

/// A footer in the cache.
#[derive(Debug, Clone)]
pub struct CachedFooter {
    pub footer: Arc<Footer>,
    /// How many plans of its exchange this daemon had made when it first cached the footer.
    pub round: u32,
}

/// The answer to a request for the tail of a segment.
pub enum Fetched {
    Footer(CachedFooter),
    /// The footer is longer than the tail.
    Long(Trailer),
}

/// Memory that a footer needs as long as it is cached or used.
pub fn footer_memory(footer: &Footer) -> u64 {
    footer.memory_size() + FOOTER_OVERHEAD
}

/// Memory that fetching a long footer needs: its bytes, and what is decoded from them.
pub fn long_footer_memory(trailer: &Trailer) -> u64 {
    u64::from(trailer.footer_length) * EXPANSION + FOOTER_OVERHEAD
}

/// Bytes of a footer that are decoded in a step, about: a block has some ten.
const BYTES_PER_STEP: usize = 8;

/// The cached footers of an exchange.
#[derive(Default)]
struct Footers {
    by_id: HashMap<SegmentId, (BaseName, CachedFooter)>,
    /// How many plans were made with them.
    rounds: u32,
}

impl FooterCache {
    /// An empty cache over a pool. Footers above `max_footer_size` bytes are refused; `tasks`
    /// decodes long ones.
    pub fn new(
        storage: Storage,
        hot: HotSegments,
        max_footer_size: u64,
        metrics: Arc<Metrics>,
        pool: MemoryPool,
        tasks: TaskGroup,
    ) -> Self {
        Self {
            storage,
            hot,
            max_footer_size: Arc::new(AtomicU64::new(max_footer_size)),
            metrics,
            cached: Lru::registered(&pool),
            pool,
            tasks,
        }
    }

    /// Changes the size above which footers are refused.
    pub fn set_max_footer_size(&self, most: u64) {
        self.max_footer_size.store(most, Ordering::Relaxed);
    }

    /// Bytes of the tail that the first request reads.
    fn first_tail(&self) -> u64 {
        FIRST_TAIL.min(self.pool.query_limit() / 64).max(512)
    }

    /// Memory that [`FooterCache::fetch`] needs.
    pub fn tail_memory(&self) -> u64 {
        self.first_tail() * EXPANSION + FOOTER_OVERHEAD
    }

    /// The footer of a segment, if it is cached.
    pub fn cached(&self, address: &SegmentAddress) -> Option<CachedFooter> {
        let tick = self.pool.next_use_tick();
        let mut cached = self.cached.lock();
        let footers = cached.get(&address.exchange, tick)?;
        let (_, footer) = footers.by_id.get(&address.segment)?;
        Some(footer.clone())
    }

    /// The addresses of the segments of an exchange whose footers are in memory: cached, or of a
    /// hot segment.
    pub fn in_memory(&self, exchange: &ExchangeId) -> Vec<SegmentAddress> {
        let mut found: HashMap<SegmentId, BaseName> = HashMap::new();
        if let Some(footers) = self.cached.lock().peek(exchange) {
            let cached = footers.by_id.iter();
            found.extend(cached.map(|(id, (base, _))| (*id, base.clone())));
        }
        for segment in self.hot.of_exchange(exchange) {
            let SegmentAddress { base, segment, .. } = segment.address.clone();
            found.entry(segment).or_insert(base);
        }
        let address = |(segment, base)| SegmentAddress {
            exchange: exchange.clone(),
            base,
            segment,
        };
        let mut addresses: Vec<_> = found.into_iter().map(address).collect();
        addresses.sort_unstable_by_key(|address| address.segment);
        addresses
    }

    /// Records that a plan was made with the cached footers of an exchange.
    pub fn end_round(&self, exchange: &ExchangeId) {
        let tick = self.pool.next_use_tick();
        if let Some(footers) = self.cached.lock().get(exchange, tick) {
            footers.rounds = footers.rounds.saturating_add(1);
        }
    }

    /// The footer of a segment that this daemon wrote, if it is in memory, with the memory that
    /// caching it needs: the footer may outlive the segment.
    pub fn hot(&self, address: &SegmentAddress) -> Option<(Arc<Footer>, u64)> {
        let footer = Arc::clone(&self.hot.get(&address.exchange, address.segment)?.footer);
        let memory = footer_memory(&footer);
        (footer.exchange == address.exchange).then_some((footer, memory))
    }

    /// Caches the footer of a segment that this daemon wrote, if memory is free.
    pub fn remember(&self, address: &SegmentAddress, footer: &Footer) {
        let query = address.exchange.query();
        if let Some(memory) = self.pool.try_reserve(query, footer_memory(footer)) {
            self.insert(&address.base, footer.clone(), memory);
        }
    }

    /// Requests the tail of a segment under a reservation of [`FooterCache::tail_memory`], and
    /// caches its footer; `None` if the segment has been removed.
    ///
    /// # Errors
    /// [`FooterError`] if the object cannot be read or is damaged.
    pub async fn fetch(
        &self,
        address: &SegmentAddress,
        memory: Reservation,
    ) -> Result<Option<Fetched>, FooterError> {
        let tail = match self.storage.get_tail(address, self.first_tail()).await {
            Ok(tail) => tail,
            Err(e) if e.kind() == StoreErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.counted(error.into())),
        };
        let trailer = self.trailer(address, &tail.bytes, tail.object_size);
        let trailer = trailer.map_err(|error| self.counted(error))?;
        let end = tail.bytes.len() - TRAILER_LEN;
        let length = usize::try_from(trailer.footer_length).unwrap_or(usize::MAX);
        let Some(start) = end.checked_sub(length) else {
            return Ok(Some(Fetched::Long(trailer)));
        };
        let footer = self.decode(address, &tail.bytes[start..end], &trailer);
        let footer = footer.await?;
        drop(tail);
        let footer = self.insert(&address.base, footer, memory);
        Ok(Some(Fetched::Footer(footer)))
    }

    /// Requests a footer that is longer than the tail, and caches it, under a reservation of
    /// [`long_footer_memory`].
    ///
    /// # Errors
    /// As [`FooterCache::fetch`].
    pub async fn fetch_long(
        &self,
        address: &SegmentAddress,
        trailer: &Trailer,
        memory: Reservation,
    ) -> Result<Option<CachedFooter>, FooterError> {
        let length = u64::from(trailer.footer_length);
        let range = trailer.footer_offset..trailer.footer_offset + length;
        match self.storage.get_range(address, range).await {
            Ok(bytes) => {
                let footer = self.decode(address, &bytes, trailer).await?;
                drop(bytes);
                Ok(Some(self.insert(&address.base, footer, memory)))
            }
            Err(e) if e.kind() == StoreErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.counted(error.into())),
        }
    }

    fn counted(&self, error: FooterError) -> FooterError {
        if error.is_damage() {
            self.metrics.integrity_failures.inc();
        }
        error
    }

    fn trailer(
        &self,
        address: &SegmentAddress,
        tail: &[u8],
        object_size: u64,
    ) -> Result<Trailer, FooterError> {
        let trailer =
            Trailer::decode(tail, object_size).map_err(|source| FooterError::Malformed {
                segment: address.clone(),
                source,
            })?;
        let length = u64::from(trailer.footer_length);
        let limit = self.max_footer_size.load(Ordering::Relaxed);
        if length > limit {
            return Err(FooterError::TooLarge {
                segment: address.clone(),
                length,
                limit,
            });
        }
        Ok(trailer)
    }

    async fn decode(
        &self,
        address: &SegmentAddress,
        bytes: &[u8],
        trailer: &Trailer,
    ) -> Result<Footer, FooterError> {
        let steps = bytes.len() / BYTES_PER_STEP;
        let decoded = self.tasks.compute(steps, || Footer::decode(bytes, trailer));
        let mut footer = decoded.await.map_err(|source| {
            self.counted(FooterError::Malformed {
                segment: address.clone(),
                source,
            })
        })?;
        if footer.exchange != address.exchange || footer.segment != address.segment {
            return Err(self.counted(FooterError::Misplaced {
                segment: address.clone(),
                found: footer.segment,
                exchange: footer.exchange,
            }));
        }
        // All footers of an exchange share one allocation of its id.
        footer.exchange = address.exchange.clone();
        Ok(footer)
    }

    /// Caches the footer of a segment in a base directory. Of its reservation, what it does not
    /// need is released.
    pub fn insert(
        &self,
        base: &BaseName,
        mut footer: Footer,
        mut memory: Reservation,
    ) -> CachedFooter {
        let bytes = footer_memory(&footer);
        memory.shrink_to(bytes);
        let bind = |index| ReservedBytes::into_bytes(index, memory);
        footer.blocks = footer.blocks.map_encoded(bind);
        let (exchange, id) = (footer.exchange.clone(), footer.segment);
        let footer = Arc::new(footer);
        let tick = self.pool.next_use_tick();
        let mut cached = self.cached.lock();
        if let Some(footers) = cached.get(&exchange, tick) {
            let round = match footers.by_id.get(&id) {
                // Another plan has cached it meanwhile. Only that plan still uses the replaced one.
                Some((_, before)) => before.round,
                None => footers.rounds,
            };
            let footer = CachedFooter { footer, round };
            let entry = (base.clone(), footer.clone());
            if footers.by_id.insert(id, entry).is_none() {
                cached.grow(&exchange, bytes);
            }
            return footer;
        }
        let footer = CachedFooter { footer, round: 0 };
        let footers = Footers {
            by_id: HashMap::from([(id, (base.clone(), footer.clone()))]),
            rounds: 0,
        };
        cached.insert(exchange.clone(), exchange, footers, bytes, tick);
        footer
    }

    /// Bytes that are cached.
    pub fn bytes(&self) -> u64 {
        self.cached.lock().bytes()
    }

    /// The segments of an exchange whose footers are cached.
    pub fn ids(&self, exchange: &ExchangeId) -> Vec<SegmentId> {
        let cached = self.cached.lock();
        let footers = cached.peek(exchange);
        footers.map_or_else(Vec::new, |footers| footers.by_id.keys().copied().collect())
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
