//! What page bytes one run of a daemon holds, seen from outside, against what it has reserved.
//!
//! Does: count the bytes that were handed to the run and are not gone yet (of bodies with pages, of
//! ranges of segments), and those that it has handed to a store and that are not answered; after
//! every step of every task of the run, compare them with the pools, and the pools with what they
//! may give. Does not: see copies that the daemon makes. Invariant: it changes nothing.

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

/// The meter of one run.
pub struct Meter {
    simulation: Arc<Simulation>,
    incarnation: u64,
    pools: OnceLock<[MemoryPool; 2]>,
    /// Of bodies that are being read and of puts under way.
    writing: Count,
    /// Of ranges that were fetched.
    reading: Count,
}

/// Counts bytes until it is dropped.
struct Held {
    bytes: Bytes,
    amount: u64,
    count: Count,
}

impl Held {
    fn new(bytes: Bytes, amount: u64, count: &Count) -> Self {
        count.fetch_add(amount, Ordering::Relaxed);
        let count = Arc::clone(count);
        Self {
            bytes,
            amount,
            count,
        }
    }

    /// Bytes that count for as long as any slice of them is there.
    fn counted(bytes: Bytes, count: &Count) -> Bytes {
        let amount = bytes.len() as u64;
        Bytes::from_owner(Self::new(bytes, amount, count))
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Held {
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

    /// From now on these pools are looked at.
    pub fn look_at(&self, daemon: &Daemon) {
        let pools = [daemon.write_pool.clone(), daemon.read_pool.clone()];
        assert!(self.pools.set(pools).is_ok(), "a run is one daemon");
    }

    /// The body of a request with pages.
    pub fn body(&self, body: Body) -> Body {
        let count = Arc::clone(&self.writing);
        Body::new(body.map_frame(move |frame| frame.map_data(|data| Held::counted(data, &count))))
    }

    pub fn over(self: &Arc<Self>, store: Arc<dyn Store>) -> Arc<dyn Store> {
        Arc::new(MeteredStore {
            meter: Arc::clone(self),
            inner: store,
        })
    }

    /// Looks once: a step of the run is over.
    pub fn check(&self) {
        let Some([write, read]) = self.pools.get() else {
            return;
        };
        self.compare("writing", write, &self.writing);
        self.compare("reading", read, &self.reading);
    }

    fn compare(&self, what: &str, pool: &MemoryPool, count: &Count) {
        let (seen, run) = (count.load(Ordering::Relaxed), self.incarnation);
        if let Err(why) = fits(pool, seen) {
            let broken = format_args!("promise 7: {run:x}, {what}: {why}");
            self.simulation.violate(broken);
        }
        if pool.waiting() > 0 {
            self.simulation.count("somebody waits for memory");
            if !pool.shortage().limited.is_empty() {
                self.simulation.count("a query waits at its limit");
            }
        }
    }
}

/// Whether so many bytes may be there, and what each holds may be held.
fn fits(pool: &MemoryPool, seen: u64) -> Result<(), String> {
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

/// The footer of a segment; `None` if it is none.
pub fn footer_of(content: &[Bytes]) -> Option<Footer> {
    let bytes = content.concat();
    let trailer = Trailer::decode(&bytes, bytes.len() as u64).ok()?;
    let footer = &bytes[trailer.footer_offset as usize..bytes.len() - TRAILER_LEN];
    Footer::decode(footer, &trailer).ok()
}

fn is_segment(key: &Key) -> bool {
    key.as_str().ends_with(".seg")
}

/// Bytes of a segment that came from clients: pages and their headers.
fn frames(content: &[Bytes]) -> u64 {
    let blocks = footer_of(content).map_or(Blocks::default(), |footer| footer.blocks);
    blocks.iter().map(|b| b.length() - RECORD_LEN as u64).sum()
}

/// A store whose daemon's bytes are counted.
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
            Held::new(Bytes::new(), amount, &self.meter.writing)
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
            true => Held::counted(bytes, &self.meter.reading),
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

    fn wants_keep(&self) -> bool {
        self.inner.wants_keep()
    }
}

#[test]
fn bytes_that_are_held_and_not_reserved_are_found() {
    let pool = MemoryPool::limited("test", 100, Some(60));
    assert_eq!(fits(&pool, 0), Ok(()));
    assert!(fits(&pool, 1).is_err());
    let reserved = pool.try_reserve("q", 60);
    assert_eq!(fits(&pool, 60), Ok(()));
    assert!(fits(&pool, 61).is_err());
    drop(reserved);
    assert!(fits(&pool, 60).is_err(), "given back too early");
    let count = Count::default();
    let slice = Held::counted(Bytes::from_static(b"0123456789"), &count).slice(2..4);
    assert_eq!(count.load(Ordering::Relaxed), 10, "a slice keeps the whole");
    drop(slice);
    assert_eq!(count.load(Ordering::Relaxed), 0);
}
