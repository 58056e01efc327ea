//! Loads the footers of an exchange within the read memory.
//!
//! Does: reserve memory, then fetch footers concurrently. Does not: interpret them. Invariant: what
//! is loaded is reserved until it is dropped, and loads do not wait for each other's memory.
//!
//! A plan needs all footers of its exchange at once. If two loads held footers and waited for more
//! memory, they could wait for each other for ever. So a load first uses what is free after the
//! caches were evicted. If that is not enough, it drops all that it holds and loads again, this
//! time waiting for memory; only one load does so at a time. The memory that it waits for is held
//! by reads, which do not wait for memory while they hold any, and by plans that are being sent.

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::task::coop::consume_budget;

use super::error::CatalogError;
use super::plan::KnownSegment;
use crate::cache::footers::{
    CachedFooter, Fetched, FooterCache, FooterError, footer_memory, long_footer_memory,
};
use crate::fair::FairSemaphore;
use crate::id::{ExchangeId, SegmentAddress};
use crate::memory::{MemoryPool, Reservation};
use crate::segment::footer::Footer;
use crate::storage::ListedSegment;

/// Footers fetched at a time: as many requests as one remote base directory accepts, since planning
/// a large exchange is mostly waiting for them.
const CONCURRENCY: usize = 64;
/// Memory that a plan needs for each commit record besides the footers: its entries in maps; or
/// that a summary needs, with the answer that is made of it.
pub(super) const COMMIT_MEMORY: u64 = 256;
/// Memory that it needs for each sink of a segment: whether it is chosen, and its counts.
const SINK_MEMORY: u64 = 32;

/// Loads footers. Cheap to clone.
#[derive(Clone)]
pub(super) struct FooterLoader {
    footers: FooterCache,
    pool: MemoryPool,
    /// Permits one load at a time to wait for memory.
    waiting_turn: FairSemaphore,
}

/// The footers of an exchange, and the memory for planning with them.
pub(super) struct LoadedFooters {
    pub segments: Vec<KnownSegment>,
    pub memory: Reservation,
}

/// One load.
struct Load<'a> {
    loader: &'a FooterLoader,
    exchange: &'a ExchangeId,
    /// Whether to wait for memory.
    waits: bool,
    /// Memory of the footers that are loaded.
    held: u64,
}

/// Why a load ends early.
enum LoadError {
    /// It does not wait, and not enough memory is free.
    NoRoom,
    Failed(CatalogError),
}

impl From<FooterError> for LoadError {
    fn from(error: FooterError) -> Self {
        Self::Failed(error.into())
    }
}

impl FooterLoader {
    /// A loader whose footers hold reservations of `pool`.
    pub(super) fn new(footers: FooterCache, pool: MemoryPool) -> Self {
        Self {
            footers,
            pool,
            waiting_turn: FairSemaphore::new(1, None),
        }
    }

    /// Loads the footers of listed segments, without those that have been removed since.
    ///
    /// # Errors
    /// A footer cannot be read or is damaged, or all together need more memory than one query may
    /// hold.
    pub(super) async fn load(
        &self,
        exchange: &ExchangeId,
        listed: &[ListedSegment],
    ) -> Result<LoadedFooters, CatalogError> {
        match self.start(exchange, false).run(listed).await {
            Ok(loaded) => return Ok(loaded),
            Err(LoadError::Failed(error)) => return Err(error),
            Err(LoadError::NoRoom) => {}
        }
        let _turn = self.waiting_turn.acquire(exchange.query(), 1).await;
        match self.start(exchange, true).run(listed).await {
            Ok(loaded) => Ok(loaded),
            Err(LoadError::Failed(error)) => Err(error),
            Err(LoadError::NoRoom) => unreachable!("a load that waits for memory gets it or fails"),
        }
    }

    /// Caches the footers of listed segments, as far as memory is free.
    ///
    /// # Errors
    /// As [`FooterLoader::load`].
    pub(super) async fn prefetch(
        &self,
        exchange: &ExchangeId,
        listed: &[ListedSegment],
    ) -> Result<(), CatalogError> {
        match self.start(exchange, false).run(listed).await {
            Err(LoadError::Failed(error)) => Err(error),
            Ok(_) | Err(LoadError::NoRoom) => Ok(()),
        }
    }

    /// The footers of these segments that are in memory, if all that they need is free.
    pub(super) async fn load_in_memory(
        &self,
        exchange: &ExchangeId,
        addresses: &[SegmentAddress],
    ) -> Option<LoadedFooters> {
        let mut load = self.start(exchange, false);
        let mut segments = Vec::with_capacity(addresses.len());
        for address in addresses {
            if let Some(footer) = load.in_memory(address).await.ok()? {
                load.add(&mut segments, address, footer);
            }
            consume_budget().await;
        }
        load.finish(segments).await.ok()
    }

    fn start<'a>(&'a self, exchange: &'a ExchangeId, waits: bool) -> Load<'a> {
        Load {
            loader: self,
            exchange,
            waits,
            held: 0,
        }
    }
}

impl Load<'_> {
    async fn run(mut self, listed: &[ListedSegment]) -> Result<LoadedFooters, LoadError> {
        let mut segments = Vec::with_capacity(listed.len());
        let mut missing = Vec::new();
        for ListedSegment { address, .. } in listed {
            match self.in_memory(address).await? {
                Some(footer) => self.add(&mut segments, address, footer),
                None => missing.push(address),
            }
            consume_budget().await;
        }
        for group in missing.chunks(self.group_size()) {
            self.fetch_group(group, &mut segments).await?;
        }
        self.finish(segments).await
    }

    /// The footers with the memory for planning with them.
    async fn finish(mut self, segments: Vec<KnownSegment>) -> Result<LoadedFooters, LoadError> {
        let needed = segments.iter().map(|known: &KnownSegment| {
            let Footer { commits, sinks, .. } = &*known.footer;
            commits.len() as u64 * COMMIT_MEMORY + sinks.len() as u64 * SINK_MEMORY
        });
        let memory = self.reserve(needed.sum()).await?;
        Ok(LoadedFooters { segments, memory })
    }

    /// How many footers are fetched at a time: their tails need at most a quarter of what the query
    /// may hold.
    fn group_size(&self) -> usize {
        let tail = self.loader.footers.tail_memory();
        let fitting = self.loader.pool.query_limit() / 4 / tail;
        usize::try_from(fitting).map_or(CONCURRENCY, |fitting| fitting.clamp(1, CONCURRENCY))
    }

    /// Fetches footers, all at a time.
    async fn fetch_group(
        &mut self,
        missing: &[&SegmentAddress],
        segments: &mut Vec<KnownSegment>,
    ) -> Result<(), LoadError> {
        let footers = &self.loader.footers;
        let tail = footers.tail_memory();
        let mut memory = self.reserve(missing.len() as u64 * tail).await?;
        let fetches = missing.iter().map(|address| {
            let memory = memory.split_off(tail);
            async move { Ok::<_, LoadError>((*address, footers.fetch(address, memory).await?)) }
        });
        let fetched = stream::iter(fetches.collect::<Vec<_>>()).buffered(CONCURRENCY);
        let fetched: Vec<_> = fetched.try_collect().await?;
        for (address, fetched) in fetched {
            let footer = match fetched {
                Some(Fetched::Footer(footer)) => Some(footer),
                Some(Fetched::Long(trailer)) => {
                    let memory = self.reserve(long_footer_memory(&trailer)).await?;
                    let footers = &self.loader.footers;
                    footers.fetch_long(address, &trailer, memory).await?
                }
                None => None,
            };
            if let Some(footer) = footer {
                self.add(segments, address, footer);
            }
        }
        Ok(())
    }

    /// A footer that is cached, or that of a hot segment, which is then cached.
    async fn in_memory(
        &mut self,
        address: &SegmentAddress,
    ) -> Result<Option<CachedFooter>, LoadError> {
        let footers = &self.loader.footers;
        if let Some(cached) = footers.cached(address) {
            return Ok(Some(cached));
        }
        let Some((hot, bytes)) = footers.hot(address) else {
            return Ok(None);
        };
        let memory = self.reserve(bytes).await?;
        let footer = Footer::clone(&hot);
        let footers = &self.loader.footers;
        Ok(Some(footers.insert(&address.base, footer, memory)))
    }

    fn add(
        &mut self,
        segments: &mut Vec<KnownSegment>,
        address: &SegmentAddress,
        CachedFooter { footer, round }: CachedFooter,
    ) {
        self.held += footer_memory(&footer);
        let address = address.clone();
        segments.push(KnownSegment {
            address,
            footer,
            round,
        });
    }

    async fn reserve(&mut self, bytes: u64) -> Result<Reservation, LoadError> {
        let (pool, query) = (&self.loader.pool, self.exchange.query());
        if !self.waits {
            return pool.try_reserve(query, bytes).ok_or(LoadError::NoRoom);
        }
        let too_large = |needed, limit| {
            LoadError::Failed(CatalogError::PlanTooLarge {
                exchange: self.exchange.clone(),
                needed,
                limit,
            })
        };
        let (needed, limit) = (self.held + bytes, pool.query_limit());
        if needed > limit {
            return Err(too_large(needed, limit));
        }
        let reserved = pool.reserve(query, bytes).await;
        reserved.map_err(|error| too_large(error.requested, error.limit))
    }
}
