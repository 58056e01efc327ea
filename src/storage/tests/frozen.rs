//! Tests of stores that never answer, and of stores that are slow.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;

use super::{exchange, healthy, put, segment, storage};
use crate::runtime::Runtime;
use crate::storage::StoreErrorKind::Unavailable;
use crate::storage::{Storage, StoreLimits};
use crate::store::keys::{Folder, Key};
use crate::store::tests::faulty::{Fault, FaultyStore};
use crate::store::{DeleteOutcome, ObjectMeta, Precondition, Result, Store, Tail, Versioned};

/// Story: one of two file systems was frozen. Its puts had no deadline and held their slots: 4 of
/// 12 finishes were answered, the others waited, and both base directories counted as healthy.
#[tokio::test(start_paused = true)]
async fn puts_are_answered_by_the_base_directory_that_works_while_another_hangs() {
    let (storage, stores) = storage(&["frozen", "works"]);
    for operation in ["put", "get", "list", "delete"] {
        stores[0].always(operation, Fault::Hangs);
    }
    let puts = (0..100).map(|n| put(&storage, n));
    let used: BTreeSet<String> = join_all(puts)
        .await
        .into_iter()
        .map(|at| at.unwrap().base.to_string())
        .collect();
    assert_eq!(used, BTreeSet::from(["works".to_owned()]));
    assert_eq!(healthy(&storage), [false, true]);
    let reason = storage.status()[0].error.clone().unwrap();
    assert!(reason.contains("was not answered within"), "{reason}");
    let asked = stores[0].count("put v2/segments");
    put(&storage, 100).await.unwrap();
    assert_eq!(
        stores[0].count("put v2/segments"),
        asked,
        "it is left out meanwhile"
    );
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(healthy(&storage), [false, true]);
    stores[0].heal();
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(healthy(&storage), [true, true]);
}

/// A store whose puts share its bandwidth: `n` concurrent puts take `n` times ten seconds each.
#[derive(Debug)]
struct Shared {
    inner: Arc<FaultyStore>,
    puts: AtomicU32,
    most: AtomicU32,
}

#[async_trait::async_trait]
impl Store for Shared {
    async fn put(&self, key: &Key, content: Vec<Bytes>) -> Result<()> {
        let _in_flight = InFlight::new(&self.puts);
        let sharing = self.puts.load(Ordering::SeqCst);
        self.most.fetch_max(sharing, Ordering::SeqCst);
        // All begin together: the first must count the others, too.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let sharing = self.puts.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(10) * sharing).await;
        self.inner.put(key, content).await
    }

    async fn put_if(&self, key: &Key, content: Bytes, expected: &Precondition) -> Result<bool> {
        self.inner.put_if(key, content, expected).await
    }

    async fn delete_if(&self, key: &Key, version: Option<&str>) -> Result<DeleteOutcome> {
        self.inner.delete_if(key, version).await
    }

    async fn get_versioned(&self, key: &Key) -> Result<Versioned> {
        self.inner.get_versioned(key).await
    }

    async fn get_tail(&self, key: &Key, max: u64) -> Result<Tail> {
        self.inner.get_tail(key, max).await
    }

    async fn get_range(&self, key: &Key, range: std::ops::Range<u64>) -> Result<Bytes> {
        self.inner.get_range(key, range).await
    }

    async fn list(&self, folder: &Folder) -> Result<Vec<ObjectMeta>> {
        self.inner.list(folder).await
    }

    async fn list_folders(&self, folder: &Folder) -> Result<Vec<String>> {
        self.inner.list_folders(folder).await
    }

    async fn delete(&self, keys: Vec<Key>) -> Result<u64> {
        self.inner.delete(keys).await
    }

    async fn remove_stale_temporaries(&self, folder: &Folder) -> Result<u64> {
        self.inner.remove_stale_temporaries(folder).await
    }
}

/// One more in flight until it is dropped, also when the put times out.
struct InFlight<'a>(&'a AtomicU32);

impl<'a> InFlight<'a> {
    fn new(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Story: four uploads shared a slow store, each took longer than a put may, and all failed, again
/// and again, though two at a time would have been stored.
#[tokio::test(start_paused = true)]
async fn puts_that_time_out_together_succeed_with_fewer_at_a_time() {
    let store = Arc::new(Shared {
        inner: FaultyStore::new(),
        puts: AtomicU32::new(0),
        most: AtomicU32::new(0),
    });
    let mut limits = StoreLimits::REMOTE;
    limits.deadline.bytes_per_second = u64::MAX;
    limits.deadline.timeout = Duration::from_secs(25);
    let shared: Arc<dyn Store> = Arc::<Shared>::clone(&store);
    let bases = vec![("slow".parse().unwrap(), "test".to_owned(), shared)];
    let storage = Storage::from_stores(bases, limits, &Runtime::seeded(3));
    let large = vec![Bytes::from(vec![0; 1 << 20])];
    let puts = (0..4).map(|n| {
        let (storage, large, exchange) = (&storage, large.clone(), exchange());
        async move { storage.put_segment(&exchange, segment(n), large).await }
    });
    for put in join_all(puts).await {
        put.unwrap();
    }
    assert_eq!(store.most.load(Ordering::SeqCst), 4, "they began together");
    assert_eq!(
        store.inner.count("put v2/segments"),
        4,
        "each was stored once"
    );
}

#[tokio::test(start_paused = true)]
async fn a_read_of_a_store_that_hangs_fails_by_its_deadline() {
    let (storage, stores) = storage(&["only"]);
    let at = put(&storage, 1).await.unwrap();
    stores[0].always("get", Fault::Hangs);
    let start = tokio::time::Instant::now();
    let error = storage.get_range(&at, 0..7).await.unwrap_err();
    assert_eq!(error.kind(), Unavailable);
    assert!(
        start.elapsed() <= Duration::from_secs(120),
        "{:?}",
        start.elapsed()
    );
}
