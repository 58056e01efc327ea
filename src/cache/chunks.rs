//! Chunks of segments, fetched once and shared by the readers of neighbouring partitions.
//!
//! Does: fetch a chunk once however many readers want it at the same time, and cache it until
//! memory is short, least recently used evicted first. Does not: interpret its bytes. Invariant:
//! cached chunks hold their reservation and never exceed the cache's share of the pool.
//!
//! Each fetch runs in its own task: if the first reader drove it, a client that stops reading would
//! delay all others that want the chunk. But that reader starts it, so that it requests memory
//! before anything that the reader requests next.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::lru::Lru;
use crate::id::{ExchangeId, SegmentAddress};
use crate::memory::{MemoryPool, OverCapacity};
use crate::runtime::TaskGroup;
use crate::storage::StorageError;

/// Identifies a chunk.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ChunkKey {
    /// With the exchange, so that a forged handle cannot reach another exchange's chunk.
    pub segment: SegmentAddress,
    /// Number of the chunk in the segment.
    pub chunk: u64,
    /// Offset at which the chunk ends. Part of the key because chunks have several sizes (each at
    /// least twice the next, so number and end identify one), and because a forged handle could
    /// claim another end of the blocks.
    pub end: u64,
}

/// Why a range of a segment could not be fetched.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchError {
    #[error(transparent)]
    OverCapacity(#[from] OverCapacity),
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The task of the fetch ended without a result.
    #[error("fetch interrupted: the daemon is stopping")]
    Interrupted,
}

/// A chunk that is cached or being fetched.
type Fetched = Shared<BoxFuture<'static, Result<Bytes, FetchError>>>;

/// The cache. Cheap to clone.
#[derive(Clone)]
pub struct ChunkCache {
    chunks: Arc<Mutex<Lru<ChunkKey, Fetched>>>,
    pool: MemoryPool,
    share: u64,
}

impl ChunkCache {
    /// An empty cache that holds at most `share` bytes of the pool.
    pub fn new(pool: MemoryPool, share: u64) -> Self {
        Self {
            chunks: Lru::registered(&pool),
            pool,
            share,
        }
    }

    /// Returns a chunk, and whether it was cached or being fetched already. If not, `fetch` runs in
    /// `tasks`.
    ///
    /// # Errors
    /// Those of `fetch`, for all readers that waited for it; the next reader fetches again.
    pub async fn get(
        &self,
        tasks: &TaskGroup,
        key: ChunkKey,
        fetch: impl Future<Output = Result<Bytes, FetchError>> + Send + 'static,
    ) -> Result<(Bytes, bool), FetchError> {
        let (sender, receiver) = oneshot::channel();
        let tick = self.pool.next_use_tick();
        let (fetched, hit) = {
            let mut chunks = self.chunks.lock();
            match chunks.get(&key, tick) {
                Some(fetched) => (fetched.clone(), true),
                None => {
                    let received =
                        async move { receiver.await.map_err(|_| FetchError::Interrupted)? };
                    let fetched = received.boxed().shared();
                    chunks.insert(
                        key.clone(),
                        key.segment.exchange.clone(),
                        fetched.clone(),
                        0,
                        tick,
                    );
                    (fetched, false)
                }
            }
        };
        if !hit {
            self.start(tasks, key, fetched.clone(), fetch, sender);
        }
        Ok((fetched.await?, hit))
    }

    fn start(
        &self,
        tasks: &TaskGroup,
        key: ChunkKey,
        fetched: Fetched,
        fetch: impl Future<Output = Result<Bytes, FetchError>> + Send + 'static,
        sender: oneshot::Sender<Result<Bytes, FetchError>>,
    ) {
        let mut fetch = fetch.boxed();
        let early = (&mut fetch).now_or_never();
        let cache = self.clone();
        tasks.spawn(async move {
            let result = match early {
                Some(result) => result,
                None => fetch.await,
            };
            cache.complete(&key, &fetched, &result);
            // The receiver is gone if all readers were dropped.
            let _ = sender.send(result);
        });
    }

    /// Counts a chunk that has arrived, or removes it if its fetch failed, unless it was removed
    /// during the fetch.
    fn complete(&self, key: &ChunkKey, fetched: &Fetched, result: &Result<Bytes, FetchError>) {
        {
            let mut chunks = self.chunks.lock();
            if !chunks.peek(key).is_some_and(|f| f.ptr_eq(fetched)) {
                return;
            }
            let Ok(bytes) = result else {
                chunks.remove(key);
                return;
            };
            chunks.grow(key, bytes.len() as u64);
            while chunks.bytes() > self.share && chunks.evict(None).is_some() {}
        }
        self.pool.reclaim_for_waiters();
    }

    /// Whether a chunk is cached or being fetched.
    pub fn contains(&self, key: &ChunkKey) -> bool {
        self.chunks.lock().peek(key).is_some()
    }

    /// The most bytes that are cached.
    pub fn share(&self) -> u64 {
        self.share
    }

    /// Bytes that are cached.
    pub fn bytes(&self) -> u64 {
        self.chunks.lock().bytes()
    }

    /// The exchanges that have a chunk here.
    pub fn exchanges(&self) -> HashSet<ExchangeId> {
        self.chunks.lock().exchanges()
    }

    /// Removes the chunks of a closed exchange.
    pub fn forget(&self, exchange: &ExchangeId) {
        self.chunks.lock().forget(exchange);
    }

    /// Removes the chunks of a segment, so that damaged ones are fetched again.
    pub fn forget_segment(&self, at: &SegmentAddress) {
        let mut chunks = self.chunks.lock();
        chunks.remove_where(|key, _| key.segment == *at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Runtime;

    fn key(exchange: &str, sequence: u64, chunk: u64) -> ChunkKey {
        ChunkKey {
            segment: SegmentAddress {
                exchange: exchange.parse().unwrap(),
                base: "a".parse().unwrap(),
                segment: crate::id::SegmentId {
                    daemon: crate::id::DaemonId(1),
                    sequence,
                },
            },
            chunk,
            end: 6,
        }
    }

    struct Story {
        runtime: Runtime,
        cache: ChunkCache,
    }

    impl Story {
        fn new(share: u64) -> Self {
            let cache = ChunkCache::new(MemoryPool::new("read", 100), share);
            let runtime = Runtime::seeded(1);
            Self { runtime, cache }
        }

        /// Gets a chunk of 6 bytes, fetched by `fetch` if it is not cached.
        async fn get(
            &self,
            key: ChunkKey,
            fetch: Result<Bytes, FetchError>,
        ) -> Result<bool, FetchError> {
            let got = self
                .cache
                .get(&self.runtime.tasks, key, async move { fetch });
            let (bytes, hit) = got.await?;
            assert_eq!(bytes.as_ref(), b"012345");
            Ok(hit)
        }

        async fn hit(&self, key: ChunkKey) -> bool {
            self.get(key, Ok(Bytes::from_static(b"012345")))
                .await
                .unwrap()
        }
    }

    #[tokio::test]
    async fn a_chunk_is_fetched_once_and_the_least_recently_used_leave_beyond_the_share() {
        let story = Story::new(17);
        let [one, two, three] = [0, 1, 2].map(|chunk| key("q", 1, chunk));
        assert!(!story.hit(one.clone()).await && story.hit(one.clone()).await);
        assert!(!story.hit(two.clone()).await);
        assert_eq!((story.cache.bytes(), story.cache.share()), (12, 17));
        assert!(story.hit(one.clone()).await);
        assert!(!story.hit(three.clone()).await);
        assert_eq!(story.cache.bytes(), 12);
        let cached = |key| story.cache.contains(key);
        assert!(cached(&one) && !cached(&two) && cached(&three));
        // As much as the share may be cached.
        let story = Story::new(12);
        assert!(!story.hit(one.clone()).await && !story.hit(two.clone()).await);
        assert!(story.hit(one).await && story.hit(two).await);
    }

    #[tokio::test]
    async fn a_chunk_that_could_not_be_fetched_is_fetched_again() {
        let story = Story::new(100);
        let failed = story.get(key("q", 1, 0), Err(FetchError::Interrupted));
        assert!(failed.await.is_err());
        assert!(!story.cache.contains(&key("q", 1, 0)));
        assert_eq!(story.cache.bytes(), 0);
        assert!(!story.hit(key("q", 1, 0)).await);
    }

    #[tokio::test]
    async fn the_chunks_of_a_segment_or_of_an_exchange_are_forgotten_and_no_others() {
        let story = Story::new(100);
        let keys = [
            key("q", 1, 0),
            key("q", 1, 1),
            key("q", 2, 0),
            key("r", 1, 0),
        ];
        for key in &keys {
            story.hit(key.clone()).await;
        }
        let names: [ExchangeId; 2] = ["q", "r"].map(|name| name.parse().unwrap());
        assert_eq!(story.cache.exchanges(), names.clone().into());
        let cached = || keys.each_ref().map(|key| story.cache.contains(key));
        story.cache.forget_segment(&keys[0].segment);
        assert_eq!(cached(), [false, false, true, true]);
        story.cache.forget(&names[0]);
        assert_eq!(cached(), [false, false, false, true]);
        assert_eq!(story.cache.bytes(), 6);
    }

    /// Story: the task of a chunk requested its memory only when it ran, after the reader had
    /// requested memory for the parts behind the chunk. When memory was short, the chunk waited for
    /// what those parts held, and the reader, which emits parts in order, waited for the chunk: a
    /// deadlock.
    #[tokio::test]
    async fn a_chunk_is_queued_for_memory_before_anything_that_is_requested_after_it() {
        let runtime = Runtime::seeded(1);
        let pool = MemoryPool::new("read", 10);
        let cache = ChunkCache::new(pool.clone(), 10);
        let key = key("q", 1, 0);
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
