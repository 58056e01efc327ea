//! Tests of the wrappers by themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::faulty::FaultyStore;
use crate::runtime::TaskGroup;
use crate::storage::{Tail, placement};
use crate::store::keys::{self, Folder, Key};
use crate::store::limit::{Limit, carried_permit};
use crate::store::meter::CATALOG;
use crate::store::retry::RetryPolicy;
use crate::store::{DeleteOutcome, ObjectMeta, Precondition, Store, StoreError, Versioned};

/// Counts how many puts are at work at a time; a put goes on for a second, also when its caller
/// leaves.
#[derive(Debug, Default)]
struct Busy {
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

#[async_trait]
impl Store for Busy {
    async fn put(&self, _: &Key, _: Vec<Bytes>) -> Result<(), StoreError> {
        let (now, most, permit) = (
            Arc::clone(&self.now),
            Arc::clone(&self.most),
            carried_permit(),
        );
        let (done, ended) = tokio::sync::oneshot::channel();
        TaskGroup::default().spawn(async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(1)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            drop(permit);
            let _ = done.send(());
        });
        ended.await.unwrap();
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

#[tokio::test(start_paused = true)]
async fn no_more_operations_run_at_a_time_than_allowed() {
    let busy = Busy::default();
    let most = Arc::clone(&busy.most);
    let limit = Limit::new(Arc::new(busy), 3);
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

#[tokio::test(start_paused = true)]
async fn a_permit_stays_with_work_that_goes_on_after_its_caller_has_left() {
    let busy = Busy::default();
    let most = Arc::clone(&busy.most);
    let limit = Limit::new(Arc::new(busy), 2);
    let key = keys::probe(1);
    for _ in 0..6 {
        // The caller loses patience; the work does not stop.
        let put = limit.put(&key, Vec::new());
        let _ = tokio::time::timeout(Duration::from_millis(10), put).await;
    }
    limit.put(&key, Vec::new()).await.unwrap();
    assert_eq!(most.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_zero_still_lets_one_through() {
    let limit = Limit::new(FaultyStore::new(), 0);
    limit.put(&keys::probe(1), Vec::new()).await.unwrap();
}

#[test]
fn waits_double_up_to_the_longest_and_never_begin_together() {
    let policy = RetryPolicy::REMOTE;
    let full = |number| policy.wait(number, u64::MAX).as_millis();
    assert_eq!(
        [full(1), full(2), full(3), full(100)],
        [100, 200, 400, 5000]
    );
    let half = |number| policy.wait(number, 0).as_millis();
    assert_eq!([half(1), half(2), half(u32::MAX)], [50, 100, 2500]);
}

#[test]
fn an_order_holds_every_base_directory_once() {
    for bits in 0..32_usize {
        let healthy: Vec<bool> = (0..5).map(|i| bits & (1 << i) != 0).collect();
        for turn in 0..7 {
            let mut order = placement::round_robin(turn, &healthy);
            let sick = order.iter().position(|&i| !healthy[i]).unwrap_or(5);
            assert!(
                order[sick..].iter().all(|&i| !healthy[i]),
                "healthy ones come first"
            );
            order.sort_unstable();
            assert_eq!(order, [0, 1, 2, 3, 4]);
        }
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
