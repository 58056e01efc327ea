//! Chunks of segments that were fetched lately, shared by the readers of neighbouring partitions.
//!
//! Does: fetch a chunk once however many readers want it at the same time, and keep it while memory
//! allows, least recently used out first. Does not: know what is in a chunk. Invariant: kept chunks
//! hold their reservation and never more than their share of the pool.
//!
//! The fetch is a task of its own: were it driven by the reader who came first, a client that stops
//! reading would hold up all others who want the chunk. But it is begun by that reader, so that it
//! asks for memory before whatever that reader asks for next.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use lru::LruCache;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::id::{BaseName, ExchangeId, SegmentAddress, SegmentId};
use crate::memory::{MemoryPool, Reclaim};
use crate::read::ReadError;
use crate::runtime::TaskGroup;

/// What names a chunk.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ChunkKey {
    /// The exchange, so that a made-up handle cannot reach another exchange's chunk.
    pub exchange: ExchangeId,
    /// The base directory.
    pub base: BaseName,
    /// The segment.
    pub segment: SegmentId,
    /// Number of the chunk.
    pub chunk: u64,
    /// Where it ends: part of the name, as chunks have several sizes (each at least twice the next,
    /// so that number and end tell them apart) and a handle could lie about the end of the blocks.
    pub end: u64,
}

type Fetched = Shared<BoxFuture<'static, Result<Bytes, ReadError>>>;

/// A chunk that is here or on its way.
struct Slot {
    fetched: Fetched,
    /// Bytes counted for it; 0 while it is on its way.
    size: AtomicU64,
    /// When it was last used.
    stamp: AtomicU64,
}

impl Slot {
    fn awaiting(receiver: oneshot::Receiver<Result<Bytes, ReadError>>) -> Self {
        let given_up = |_| ReadError::Interrupted;
        let fetched = async move { receiver.await.map_err(given_up)? };
        Self {
            fetched: fetched.boxed().shared(),
            size: AtomicU64::new(0),
            stamp: AtomicU64::new(0),
        }
    }

    fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }
}

struct State {
    slots: LruCache<ChunkKey, Arc<Slot>>,
    bytes: u64,
}

impl State {
    /// What has been used longest ago, of one query if one is named.
    fn next(&self, of_query: Option<&str>) -> Option<(&ChunkKey, &Arc<Slot>)> {
        let mut longest_ago_first = self.slots.iter().rev();
        longest_ago_first.find(|(key, slot)| {
            slot.size() > 0 && of_query.is_none_or(|query| key.exchange.query() == query)
        })
    }

    /// Evicts that; answers its bytes.
    fn evict(&mut self, of_query: Option<&str>) -> Option<u64> {
        let key = self.next(of_query)?.0.clone();
        let slot = self.slots.pop(&key)?;
        Some(self.uncount(&slot))
    }

    fn uncount(&mut self, slot: &Slot) -> u64 {
        let size = slot.size.swap(0, Ordering::Relaxed);
        self.bytes -= size;
        size
    }

    /// Whether this very slot is in the table.
    fn holds(&self, key: &ChunkKey, slot: &Arc<Slot>) -> bool {
        self.slots
            .peek(key)
            .is_some_and(|kept| Arc::ptr_eq(kept, slot))
    }
}

/// The cache. Cheap to clone.
#[derive(Clone)]
pub struct ChunkCache {
    state: Arc<Mutex<State>>,
    pool: MemoryPool,
    share: u64,
}

struct Reclaimer(Arc<Mutex<State>>);

impl Reclaim for Reclaimer {
    fn victim_last_use(&self, of_query: Option<&str>) -> Option<u64> {
        let state = self.0.lock();
        let (_, slot) = state.next(of_query)?;
        Some(slot.stamp.load(Ordering::Relaxed))
    }

    fn reclaim(&self, of_query: Option<&str>) -> Option<u64> {
        self.0.lock().evict(of_query)
    }
}

impl ChunkCache {
    /// An empty cache that keeps at most `share` bytes of the pool.
    pub fn new(pool: MemoryPool, share: u64) -> Self {
        let state = Arc::new(Mutex::new(State {
            slots: LruCache::unbounded(),
            bytes: 0,
        }));
        pool.add_reclaimer(Arc::new(Reclaimer(Arc::clone(&state))));
        Self { state, pool, share }
    }

    /// The chunk, and whether it was here or on its way already. Only if not, `fetch` runs, in
    /// `tasks`.
    ///
    /// # Errors
    /// Those of `fetch`, for all who waited; the next reader tries again.
    pub async fn get(
        &self,
        tasks: &TaskGroup,
        key: ChunkKey,
        fetch: impl Future<Output = Result<Bytes, ReadError>> + Send + 'static,
    ) -> Result<(Bytes, bool), ReadError> {
        let (sender, receiver) = oneshot::channel();
        let (slot, hit) = {
            let mut state = self.state.lock();
            match state.slots.get(&key) {
                Some(slot) => (Arc::clone(slot), true),
                None => {
                    let slot = Arc::new(Slot::awaiting(receiver));
                    state.slots.put(key.clone(), Arc::clone(&slot));
                    (slot, false)
                }
            }
        };
        slot.stamp
            .store(self.pool.next_use_tick(), Ordering::Relaxed);
        let fetched = slot.fetched.clone();
        if !hit {
            self.start(tasks, key, slot, fetch, sender);
        }
        Ok((fetched.await?, hit))
    }

    fn start(
        &self,
        tasks: &TaskGroup,
        key: ChunkKey,
        slot: Arc<Slot>,
        fetch: impl Future<Output = Result<Bytes, ReadError>> + Send + 'static,
        sender: oneshot::Sender<Result<Bytes, ReadError>>,
    ) {
        let mut fetch = fetch.boxed();
        let early = (&mut fetch).now_or_never();
        let cache = self.clone();
        tasks.spawn(async move {
            let result = match early {
                Some(result) => result,
                None => fetch.await,
            };
            cache.settle(&key, &slot, &result);
            // Nobody waits any more if every reader left.
            let _ = sender.send(result);
        });
    }

    /// Counts a chunk that has arrived, or takes its slot away, unless it was evicted on its way.
    fn settle(&self, key: &ChunkKey, slot: &Arc<Slot>, result: &Result<Bytes, ReadError>) {
        {
            let mut state = self.state.lock();
            if !state.holds(key, slot) {
                return;
            }
            let Ok(bytes) = result else {
                state.slots.pop(key);
                return;
            };
            slot.size.store(bytes.len() as u64, Ordering::Relaxed);
            state.bytes += bytes.len() as u64;
            while state.bytes > self.share && state.evict(None).is_some() {}
        }
        self.pool.reclaim_for_waiters();
    }

    /// Whether a chunk is here or on its way.
    pub fn has(&self, key: &ChunkKey) -> bool {
        self.state.lock().slots.contains(key)
    }

    /// The most that is kept.
    pub fn share(&self) -> u64 {
        self.share
    }

    /// Bytes kept.
    pub fn bytes(&self) -> u64 {
        self.state.lock().bytes
    }

    /// The exchanges of which anything is kept.
    pub fn exchanges(&self) -> HashSet<ExchangeId> {
        let state = self.state.lock();
        state
            .slots
            .iter()
            .map(|(key, _)| key.exchange.clone())
            .collect()
    }

    /// Forgets a closed exchange.
    pub fn forget(&self, exchange: &ExchangeId) {
        self.forget_where(|key| key.exchange == *exchange);
    }

    /// Forgets the chunks of a segment, so that damaged ones are fetched again.
    pub fn forget_segment(&self, at: &SegmentAddress) {
        self.forget_where(|key| {
            (&key.exchange, &key.base, key.segment) == (&at.exchange, &at.base, at.segment)
        });
    }

    fn forget_where(&self, gone: impl Fn(&ChunkKey) -> bool) {
        let mut state = self.state.lock();
        let gone: Vec<ChunkKey> = state
            .slots
            .iter()
            .filter(|(key, _)| gone(key))
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            if let Some(slot) = state.slots.pop(&key) {
                state.uncount(&slot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Runtime;

    /// Story: a chunk was asked for by its task, which ran after the reader had asked for the parts
    /// behind it. Where memory was short, the chunk waited for what those held, and the reader, who
    /// gives parts out in order, for the chunk: for ever.
    #[tokio::test]
    async fn a_chunk_takes_its_place_in_the_queue_before_what_is_asked_for_after_it() {
        let runtime = Runtime::seeded(1);
        let pool = MemoryPool::new("read", 10);
        let cache = ChunkCache::new(pool.clone(), 10);
        let key = ChunkKey {
            exchange: "q".parse().unwrap(),
            base: "a".parse().unwrap(),
            segment: SegmentId {
                daemon: crate::id::DaemonId(1),
                sequence: 1,
            },
            chunk: 0,
            end: 6,
        };
        let held = pool.reserve("q", 10).await.unwrap();
        let other = pool.clone();
        let fetch = async move {
            let reserved = other.reserve("q", 6).await.unwrap();
            let bytes = Bytes::from_static(b"012345");
            Ok(crate::memory::ReservedBytes::into_bytes(bytes, reserved))
        };
        let mut chunk = Box::pin(cache.get(&runtime.tasks, key, fetch));
        assert!((&mut chunk).now_or_never().is_none(), "nothing is free");
        let mut later = Box::pin(pool.reserve("q", 6));
        assert!((&mut later).now_or_never().is_none(), "nothing is free");
        drop(held);
        assert!((&mut later).now_or_never().is_none(), "the chunk is first");
        let (bytes, hit) = chunk.await.unwrap();
        assert_eq!((bytes.as_ref(), hit), (b"012345".as_ref(), false));
        drop(bytes);
        assert_eq!(later.await.unwrap().bytes(), 6);
    }
}
