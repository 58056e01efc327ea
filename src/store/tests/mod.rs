//! Tests of the wrappers, and what other tests share.

mod deadline;
pub(crate) mod fake_s3;
pub(crate) mod faulty;
mod http;
mod lacking;
mod open;
mod pods;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use prometheus_client::registry::Registry;

use self::faulty::{Fault, FaultyStore};
use super::keys::{self, Folder, Key};
use super::limit::Limit;
use super::meter::Meter;
use super::metrics::{CATALOG, StorageMetrics};
use super::retry::{Retry, RetryPolicy};
use super::{
    DeleteOutcome, ObjectMeta, Precondition, Store, StoreError, StoreErrorKind, StoreLimits, Tail,
    Versioned,
};
use crate::id::BaseName;
use crate::runtime::{Clock, Runtime, TaskGroup};

/// Counts how many puts run at a time; each takes a second.
#[derive(Debug, Default)]
struct Busy {
    now: AtomicUsize,
    most: Arc<AtomicUsize>,
}

#[async_trait]
impl Store for Busy {
    async fn put(&self, _: &Key, _: Vec<Bytes>) -> Result<(), StoreError> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.now.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }

    async fn put_if(&self, _: &Key, _: Bytes, _: &Precondition) -> Result<bool, StoreError> {
        unreachable!()
    }

    async fn delete_if(&self, _: &Key, _: Option<&str>) -> Result<DeleteOutcome, StoreError> {
        unreachable!()
    }

    async fn get_versioned(&self, _: &Key) -> Result<Versioned, StoreError> {
        unreachable!()
    }

    async fn get_tail(&self, _: &Key, _: u64) -> Result<Tail, StoreError> {
        unreachable!()
    }

    async fn get_range(&self, _: &Key, _: std::ops::Range<u64>) -> Result<Bytes, StoreError> {
        unreachable!()
    }

    async fn list(&self, _: &Folder) -> Result<Vec<ObjectMeta>, StoreError> {
        unreachable!()
    }

    async fn list_folders(&self, _: &Folder) -> Result<Vec<String>, StoreError> {
        unreachable!()
    }

    async fn delete(&self, _: Vec<Key>) -> Result<u64, StoreError> {
        unreachable!()
    }

    async fn remove_stale_temporaries(&self, _: &Folder) -> Result<u64, StoreError> {
        unreachable!()
    }
}

fn limited(inner: Arc<dyn Store>, concurrency: usize, cancellable: bool) -> Limit {
    let limits = StoreLimits {
        concurrency,
        cancellable,
        ..StoreLimits::LOCAL
    };
    Limit::new(inner, limits, TaskGroup::default())
}

#[tokio::test(start_paused = true)]
async fn no_more_operations_run_at_a_time_than_allowed() {
    for cancellable in [true, false] {
        let busy = Busy::default();
        let most = Arc::clone(&busy.most);
        let limit = limited(Arc::new(busy), 3, cancellable);
        let start = tokio::time::Instant::now();
        let key = keys::probe(1);
        let puts = (0..10).map(|_| limit.put(&key, Vec::new()));
        futures::future::try_join_all(puts).await.unwrap();
        assert_eq!(most.load(Ordering::SeqCst), 3);
        assert_eq!(
            start.elapsed().as_secs(),
            4,
            "ten puts of a second, three at a time"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_permit_is_held_by_work_that_goes_on_after_its_caller_stopped_waiting() {
    let busy = Busy::default();
    let most = Arc::clone(&busy.most);
    let limit = limited(Arc::new(busy), 2, false);
    let key = keys::probe(1);
    for _ in 0..6 {
        // The caller stops waiting; the work goes on.
        let put = limit.put(&key, Vec::new());
        let _ = tokio::time::timeout(Duration::from_millis(10), put).await;
    }
    limit.put(&key, Vec::new()).await.unwrap();
    assert_eq!(most.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_operation_releases_its_permit_at_once() {
    let limit = limited(Arc::new(Busy::default()), 1, true);
    let key = keys::probe(1);
    let start = tokio::time::Instant::now();
    let put = limit.put(&key, Vec::new());
    let _ = tokio::time::timeout(Duration::from_millis(10), put).await;
    limit.put(&key, Vec::new()).await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_millis(1010));
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_zero_still_permits_one_operation() {
    let limit = limited(FaultyStore::new(), 0, true);
    limit.put(&keys::probe(1), Vec::new()).await.unwrap();
}

#[test]
fn waits_double_up_to_the_longest_and_are_spread_at_random() {
    let policy = RetryPolicy::REMOTE;
    let full = |number| policy.wait(number, u64::MAX, None).as_millis();
    assert_eq!(
        [full(1), full(2), full(3), full(100)],
        [100, 200, 400, 5000]
    );
    let half = |number| policy.wait(number, 0, None).as_millis();
    assert_eq!([half(1), half(2), half(u32::MAX)], [50, 100, 2500]);
}

/// The metrics as Prometheus gets them.
fn exported(metrics: &StorageMetrics) -> String {
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    text
}

/// Story: MinIO asks to wait for 60 s, older ones for 120 s, with every 503 and 429. That is all of
/// the time for retries and more, so the first such answer failed a read, a list or a delete.
#[tokio::test(start_paused = true)]
async fn a_store_that_asks_for_a_wait_longer_than_the_retries_last_is_asked_again_meanwhile() {
    for asked in [60, 120].map(Duration::from_secs) {
        let faulty = FaultyStore::new();
        let (policy, runtime) = (RetryPolicy::REMOTE, Runtime::seeded(1));
        let retry = Retry::new(faulty.clone(), policy, runtime);
        let key = keys::probe(1);
        retry.put(&key, vec!["x".into()]).await.unwrap();
        let timed = async |operation: &'static str, work: BoxFuture<'_, ()>| {
            faulty.next(operation, Fault::Throttled(asked));
            let start = tokio::time::Instant::now();
            work.await;
            assert_eq!(start.elapsed(), policy.longest_asked_wait, "{operation}");
        };
        let probes = keys::probes();
        let list = retry.list(&probes);
        let list = list.map(|listed| assert_eq!(listed.unwrap().len(), 1));
        timed("list", list.boxed()).await;
        timed(
            "get",
            retry
                .get_tail(&key, 1)
                .map(|tail| drop(tail.unwrap()))
                .boxed(),
        )
        .await;
        timed(
            "delete",
            retry
                .delete(vec![key])
                .map(|n| assert_eq!(n.unwrap(), 1))
                .boxed(),
        )
        .await;

        // One that goes on like that is not asked often.
        faulty.always("list", Fault::Throttled(asked));
        faulty.clear_log();
        let start = tokio::time::Instant::now();
        let error = retry.list(&keys::probes()).await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Unavailable);
        assert!(start.elapsed() <= policy.max_elapsed);
        let tries = faulty.count("list");
        assert!((4..=8).contains(&tries), "{tries} tries in a minute");
    }
}

#[tokio::test]
async fn operations_that_a_cloud_answered_cost_its_list_price() {
    let base: BaseName = "cloud".parse().unwrap();
    let (metrics, faulty) = (StorageMetrics::default(), FaultyStore::new());
    metrics.add_base(&base);
    let store: Arc<dyn Store> = faulty.clone();
    let store = Meter::new(store, base, true, metrics.clone(), Clock::default());
    let key = keys::marker(&"q-1".parse().unwrap());
    let content = || vec![Bytes::from_static(b"content")];
    for _ in 0..3 {
        store.put(&key, content()).await.unwrap();
    }
    faulty.next("put", Fault::Fails(StoreErrorKind::Unavailable));
    store.put(&key, content()).await.unwrap_err();
    store.get_tail(&key, 1).await.unwrap();
    store.list(&keys::markers()).await.unwrap();
    store.delete(vec![key]).await.unwrap();
    let text = exported(&metrics);
    let dollars = |operation: &str| -> f64 {
        let labels = format!("{{base=\"cloud\",operation=\"{operation}\"}} ");
        let series = format!("stopover_storage_request_dollars_total{labels}");
        let value = text.lines().find_map(|line| line.strip_prefix(&series));
        value.unwrap().parse().unwrap()
    };
    let of_1000 = ["put", "list", "get", "delete"].map(|operation| dollars(operation) * 1e3);
    let expected = [0.015, 0.005, 0.0004, 0.0];
    for (got, expected) in of_1000.iter().zip(expected) {
        assert!((got - expected).abs() < 1e-9, "{of_1000:?}");
    }
}

#[test]
fn the_page_of_metrics_has_exactly_the_rows_of_storage() {
    let page = include_str!("../../../docs/metrics.md");
    let rows: Vec<_> = page
        .lines()
        .filter(|l| l.starts_with("| `stopover_storage_"))
        .collect();
    let expected: Vec<String> = CATALOG.iter().map(|definition| definition.row()).collect();
    assert!(
        rows == expected,
        "docs/metrics.md should have:\n{}",
        expected.join("\n")
    );
}
