//! Compares the page bytes that one run of a daemon holds, observed from outside, with what it has
//! reserved.
//!
//! Does: count the bytes that the run received and has not dropped (of bodies with pages and of
//! ranges of segments), and those of its unanswered puts; after every poll of every task of the
//! run, compare them with the pools, and the pools with their limits. Does not: see copies that the
//! daemon makes. Invariant: it changes nothing.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use stopover::app::Daemon;
use stopover::memory::MemoryPool;
use stopover::segment::blocks::Blocks;
use stopover::segment::footer::Footer;
use stopover::segment::layout::{RECORD_LEN, TRAILER_LEN, Trailer};
use stopover::storage::Tail;
use stopover::store::keys::{Folder, Key};
use stopover::store::{DeleteOutcome, ObjectMeta, Precondition, Store, StoreError, Versioned};

use crate::simulation::Simulation;

type Count = Arc<AtomicU64>;

pub struct Meter {
    simulation: Arc<Simulation>,
    incarnation: u64,
    pools: OnceLock<[MemoryPool; 2]>,
    /// Bytes of request bodies and of puts in flight.
    writing: Count,
    /// Bytes of fetched ranges.
    reading: Count,
}

/// Bytes that are counted until dropped.
struct CountedBytes {
    bytes: Bytes,
    amount: u64,
    count: Count,
}

impl CountedBytes {
    fn new(bytes: Bytes, amount: u64, count: &Count) -> Self {
        count.fetch_add(amount, Ordering::Relaxed);
        let count = Arc::clone(count);
        Self {
            bytes,
            amount,
            count,
        }
    }

    /// Bytes that are counted until the last slice of them is dropped.
    fn counted(bytes: Bytes, count: &Count) -> Bytes {
        let amount = bytes.len() as u64;
        Bytes::from_owner(Self::new(bytes, amount, count))
    }
}

impl AsRef<[u8]> for CountedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for CountedBytes {
    fn drop(&mut self) {
        self.count.fetch_sub(self.amount, Ordering::Relaxed);
    }
}

impl Meter {
    pub fn new(simulation: &Arc<Simulation>, incarnation: u64) -> Arc<Self> {
        Arc::new(Self {
            simulation: Arc::clone(simulation),
            incarnation,
            pools: OnceLock::new(),
            writing: Count::default(),
            reading: Count::default(),
        })
    }

    /// From now on [`Meter::check`] compares with the pools of this daemon.
    pub fn observe(&self, daemon: &Daemon) {
        let pools = [daemon.write_pool.clone(), daemon.read_pool.clone()];
        assert!(self.pools.set(pools).is_ok(), "a run is one daemon");
    }

    /// Counts the body of a request with pages.
    pub fn body(&self, body: Body) -> Body {
        let count = Arc::clone(&self.writing);
        Body::new(
            body.map_frame(move |frame| frame.map_data(|data| CountedBytes::counted(data, &count))),
        )
    }

    pub fn wrap(self: &Arc<Self>, store: Arc<dyn Store>) -> Arc<dyn Store> {
        Arc::new(MeteredStore {
            meter: Arc::clone(self),
            inner: store,
        })
    }

    /// Compares once, after a poll.
    pub fn check(&self) {
        let Some([write, read]) = self.pools.get() else {
            return;
        };
        self.compare("writing", write, &self.writing);
        self.compare("reading", read, &self.reading);
    }

    fn compare(&self, what: &str, pool: &MemoryPool, count: &Count) {
        let (seen, run) = (count.load(Ordering::Relaxed), self.incarnation);
        if let Err(why) = check_pool(pool, seen) {
            let broken = format_args!("promise 7: {run:x}, {what}: {why}");
            self.simulation.violate(broken);
        }
        if pool.waiting() > 0 {
            self.simulation.count("a request waits for memory");
            if !pool.shortage().limited.is_empty() {
                self.simulation.count("a query waits at its limit");
            }
        }
    }
}

/// Checks that the bytes seen are reserved, and that pool and queries are within their limits.
fn check_pool(pool: &MemoryPool, seen: u64) -> Result<(), String> {
    let (used, capacity) = (pool.used(), pool.capacity());
    if used > capacity {
        return Err(format!("{used} bytes are reserved of {capacity}"));
    }
    if seen > used {
        return Err(format!("{seen} bytes are held, {used} are reserved"));
    }
    let (queries, limit) = (pool.queries(), pool.query_limit());
    if let Some((query, held, _)) = queries.iter().find(|query| query.1 > limit) {
        return Err(format!("{query} holds {held} bytes of {limit}"));
    }
    let sum: u64 = queries.iter().map(|query| query.1).sum();
    match sum == used {
        true => Ok(()),
        false => Err(format!("queries hold {sum} bytes, {used} are reserved")),
    }
}

/// The footer of a segment; `None` if the content is no segment.
pub fn footer_of(content: &[Bytes]) -> Option<Footer> {
    let bytes = content.concat();
    let trailer = Trailer::decode(&bytes, bytes.len() as u64).ok()?;
    let footer = &bytes[trailer.footer_offset as usize..bytes.len() - TRAILER_LEN];
    Footer::decode(footer, &trailer).ok()
}

fn is_segment(key: &Key) -> bool {
    key.as_str().ends_with(".seg")
}

/// How many bytes of a segment came from clients: pages and their headers.
fn frames(content: &[Bytes]) -> u64 {
    let blocks = footer_of(content).map_or(Blocks::default(), |footer| footer.blocks);
    blocks.iter().map(|b| b.length() - RECORD_LEN as u64).sum()
}

/// A store that counts what the daemon puts and gets.
struct MeteredStore {
    meter: Arc<Meter>,
    inner: Arc<dyn Store>,
}

impl std::fmt::Debug for MeteredStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "metered {:?}", self.inner)
    }
}

#[async_trait]
impl Store for MeteredStore {
    async fn put(&self, key: &Key, content: Vec<Bytes>) -> Result<(), StoreError> {
        let _held = is_segment(key).then(|| {
            let amount = frames(&content);
            CountedBytes::new(Bytes::new(), amount, &self.meter.writing)
        });
        self.inner.put(key, content).await
    }

    async fn put_if(
        &self,
        key: &Key,
        content: Bytes,
        expected: &Precondition,
    ) -> Result<bool, StoreError> {
        self.inner.put_if(key, content, expected).await
    }

    async fn get_versioned(&self, key: &Key) -> Result<Versioned, StoreError> {
        self.inner.get_versioned(key).await
    }

    async fn get_tail(&self, key: &Key, max: u64) -> Result<Tail, StoreError> {
        self.inner.get_tail(key, max).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        let bytes = self.inner.get_range(key, range).await?;
        Ok(match is_segment(key) {
            true => CountedBytes::counted(bytes, &self.meter.reading),
            false => bytes,
        })
    }

    async fn list(&self, folder: &Folder) -> Result<Vec<ObjectMeta>, StoreError> {
        self.inner.list(folder).await
    }

    async fn list_folders(&self, folder: &Folder) -> Result<Vec<String>, StoreError> {
        self.inner.list_folders(folder).await
    }

    async fn delete(&self, keys: Vec<Key>) -> Result<u64, StoreError> {
        self.inner.delete(keys).await
    }

    async fn delete_if(
        &self,
        key: &Key,
        version: Option<&str>,
    ) -> Result<DeleteOutcome, StoreError> {
        self.inner.delete_if(key, version).await
    }

    async fn remove_stale_temporaries(&self, folder: &Folder) -> Result<u64, StoreError> {
        self.inner.remove_stale_temporaries(folder).await
    }

    fn needs_keep_object(&self) -> bool {
        self.inner.needs_keep_object()
    }
}

#[test]
fn unreserved_bytes_in_memory_are_detected() {
    let pool = MemoryPool::limited("test", 100, Some(60));
    assert_eq!(check_pool(&pool, 0), Ok(()));
    assert!(check_pool(&pool, 1).is_err());
    let reserved = pool.try_reserve("q", 60);
    assert_eq!(check_pool(&pool, 60), Ok(()));
    assert!(check_pool(&pool, 61).is_err());
    drop(reserved);
    assert!(check_pool(&pool, 60).is_err(), "released too early");
    let count = Count::default();
    let slice = CountedBytes::counted(Bytes::from_static(b"0123456789"), &count).slice(2..4);
    assert_eq!(
        count.load(Ordering::Relaxed),
        10,
        "a slice retains all bytes"
    );
    drop(slice);
    assert_eq!(count.load(Ordering::Relaxed), 0);
}
