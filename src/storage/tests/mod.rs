//! Tests of storage over stores that fail: failover, health, retries, and the text of errors.

mod closing;
mod frozen;
mod identity;
mod markers;
mod probes;
mod room;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;

use super::StoreErrorKind::{Corrupt, NotFound, Refused, Unavailable};
use super::{Storage, StorageError, StoreLimits, placement};
use crate::id::{BaseName, DaemonId, ExchangeId, SegmentAddress, SegmentId};
use crate::runtime::Runtime;
use crate::store::Store;
use crate::store::keys::{self, Key};
use crate::store::tests::faulty::{Fault, FaultyStore};

fn storage(names: &[&str]) -> (Storage, Vec<Arc<FaultyStore>>) {
    let stores: Vec<_> = names.iter().map(|_| FaultyStore::new()).collect();
    (over(names, &stores, 3), stores)
}

/// The storage of one of several daemons over the same stores, which are identified.
fn over(names: &[&str], stores: &[Arc<FaultyStore>], seed: u64) -> Storage {
    let storage = unidentified(names, stores, seed);
    let storage_of = &storage;
    // On a thread of its own: the caller is no async function.
    std::thread::scope(|scope| {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        scope.spawn(move || runtime.block_on(storage_of.probe()));
    });
    stores.iter().for_each(|store| store.clear_log());
    storage
}

/// A daemon that has done nothing yet, on stores that another one has identified.
fn just_started(names: &[&str]) -> (Storage, Vec<Arc<FaultyStore>>) {
    let (_, stores) = storage(names);
    (unidentified(names, &stores, 5), stores)
}

fn unidentified(names: &[&str], stores: &[Arc<FaultyStore>], seed: u64) -> Storage {
    let bases = names.iter().zip(stores).map(|(name, store)| {
        let store: Arc<dyn Store> = Arc::<FaultyStore>::clone(store);
        (name.parse().unwrap(), format!("faulty://{name}"), store)
    });
    Storage::from_stores(bases.collect(), StoreLimits::REMOTE, &Runtime::seeded(seed))
}

fn exchange() -> ExchangeId {
    "query_1-x".parse().unwrap()
}

fn segment(sequence: u64) -> SegmentId {
    SegmentId {
        daemon: DaemonId(0xC0FFEE),
        sequence,
    }
}

async fn put(storage: &Storage, n: u64) -> Result<SegmentAddress, StorageError> {
    storage
        .put_segment(
            &exchange(),
            segment(n),
            vec![Bytes::from_static(b"segment")],
        )
        .await
}

fn healthy(storage: &Storage) -> Vec<bool> {
    storage
        .status()
        .into_iter()
        .map(|status| status.healthy)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_failed_put_goes_to_another_base_directory_and_the_first_is_excluded() {
    let (storage, stores) = storage(&["a", "b", "c"]);
    stores[1].always("put", Fault::Fails(Unavailable));
    let mut used = BTreeSet::new();
    for n in 0..30 {
        used.insert(put(&storage, n).await.unwrap().base.to_string());
    }
    assert_eq!(used, BTreeSet::from(["a".to_string(), "c".to_string()]));
    assert_eq!(
        stores[1].count("put v2/segments"),
        1,
        "excluded after the first failure"
    );
    assert_eq!(healthy(&storage), [true, false, true]);
    let reason = storage.status()[1].error.clone().unwrap();
    assert!(reason.contains("injected failure of put"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn a_base_directory_is_healthy_again_once_a_background_probe_succeeds() {
    let (storage, stores) = storage(&["a", "b"]);
    stores[0].always("put", Fault::Fails(Refused));
    for n in 0..4 {
        put(&storage, n).await.unwrap();
    }
    assert_eq!(healthy(&storage), [false, true]);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(healthy(&storage), [false, true], "it still fails");
    let probes = stores[0].count("put v2/probes");
    assert!((10..60).contains(&probes), "{probes} probes in ten minutes");
    stores[0].heal();
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(healthy(&storage), [true, true]);
    let probes = stores[0].count("put v2/probes");
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(
        stores[0].count("put v2/probes"),
        probes,
        "a healthy base directory is not probed"
    );
    let bases = [
        put(&storage, 10).await.unwrap().base,
        put(&storage, 11).await.unwrap().base,
    ];
    assert_ne!(bases[0], bases[1]);
}

#[tokio::test(start_paused = true)]
async fn when_all_fail_the_error_names_each_base_directory_and_its_reason() {
    let (storage, stores) = storage(&["a", "b"]);
    stores[0].always("put", Fault::Fails(Refused));
    stores[1].always("put", Fault::Fails(Unavailable));
    let start = tokio::time::Instant::now();
    let error = put(&storage, 1).await.unwrap_err();
    assert_eq!((error.base.as_str(), error.kind()), ("all", Unavailable));
    for words in [
        "a: injected failure of put",
        "b: injected failure of put",
        "put of v2/segments/",
    ] {
        assert!(error.to_string().contains(words), "{error}");
    }
    let waited = start.elapsed();
    assert!(
        (50..=60).contains(&waited.as_secs()),
        "retried for a minute, not {waited:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_put_that_every_base_directory_refuses_fails_at_once() {
    let (storage, stores) = storage(&["a", "b"]);
    for store in &stores {
        store.always("put", Fault::Fails(Refused));
    }
    let start = tokio::time::Instant::now();
    let error = put(&storage, 1).await.unwrap_err();
    assert_eq!((error.base.as_str(), error.kind()), ("all", Refused));
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(
        (
            stores[0].count("put v2"),
            stores[1].count("put v2/segments")
        ),
        (1, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn when_all_are_unhealthy_all_are_tried_and_one_that_works_is_healthy_again() {
    let (storage, stores) = storage(&["only"]);
    for _ in 0..3 {
        stores[0].next("put", Fault::Fails(Unavailable));
    }
    assert_eq!(put(&storage, 1).await.unwrap().base.as_str(), "only");
    assert_eq!(healthy(&storage), [true]);
}

/// Story: MinIO asks to wait for 60 s, older ones for 120 s, with every 503 and 429. The first such
/// answer failed a put where there was one base directory.
#[tokio::test(start_paused = true)]
async fn a_put_outlasts_a_store_that_asks_for_a_wait_longer_than_the_retries_last() {
    for asked in [60, 120].map(Duration::from_secs) {
        let (storage, stores) = storage(&["only"]);
        stores[0].next("put", Fault::Throttled(asked));
        // Those of background probes.
        for _ in 0..2 {
            stores[0].next("put", Fault::Throttled(asked));
        }
        let start = tokio::time::Instant::now();
        put(&storage, 1).await.unwrap();
        let waited = start.elapsed().as_secs();
        assert!((10..60).contains(&waited), "{waited} s");
        assert_eq!(stores[0].count("put v2/segments"), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_put_that_was_applied_leaves_the_segment_twice_and_readable() {
    let (storage, stores) = storage(&["a", "b"]);
    for store in &stores {
        store.next("put", Fault::FailsAfterwards(Unavailable));
    }
    let at = put(&storage, 1).await.unwrap();
    let listed = storage.list_segments(&exchange()).await.unwrap();
    let bases: Vec<_> = listed.iter().map(|l| l.address.base.as_str()).collect();
    assert_eq!(bases, ["a", "b"]);
    for found in &listed {
        assert_eq!((found.address.segment, found.size), (at.segment, 7));
        let bytes = storage.get_range(&found.address, 0..7).await.unwrap();
        assert_eq!(bytes, "segment".as_bytes());
    }
    assert_eq!(storage.remove_exchange(&exchange()).await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_contended_put_is_retried_at_the_same_store_which_stays_healthy() {
    let (storage, stores) = just_started(&["only"]);
    stores[0].next("put", Fault::Contended);
    stores[0].next("put", Fault::Contended);
    put(&storage, 1).await.unwrap();
    assert_eq!(stores[0].count("put"), 3);
    assert_eq!(healthy(&storage), [true]);
    let base: BaseName = "only".parse().unwrap();
    assert_eq!(storage.metrics().requests(&base, "put", "unavailable"), 2);
    assert_eq!(storage.metrics().requests(&base, "put", "ok"), 1);
}

#[tokio::test(start_paused = true)]
async fn reads_are_retried_while_a_retry_may_help() {
    let (storage, stores) = storage(&["only"]);
    let at = put(&storage, 1).await.unwrap();
    for _ in 0..5 {
        stores[0].next("get", Fault::Fails(Unavailable));
    }
    assert_eq!(
        storage.get_range(&at, 0..7).await.unwrap(),
        "segment".as_bytes()
    );
    for kind in [NotFound, Corrupt, Refused] {
        let asked = stores[0].count("get");
        stores[0].next("get", Fault::Fails(kind));
        let error = storage.get_tail(&at, 3).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.base.as_str(), error.operation),
            (kind, "only", "get")
        );
        assert_eq!(
            stores[0].count("get"),
            asked + 1,
            "{kind:?} is not repeated"
        );
    }
    stores[0].always("get", Fault::Fails(Unavailable));
    let start = tokio::time::Instant::now();
    assert_eq!(
        storage.get_tail(&at, 3).await.unwrap_err().kind(),
        Unavailable
    );
    assert!(
        start.elapsed() <= Duration::from_secs(60),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(
        healthy(&storage),
        [true],
        "reads do not affect where segments go"
    );
}

#[tokio::test(start_paused = true)]
async fn a_result_shorter_than_the_range_is_corrupt() {
    let (storage, stores) = storage(&["only"]);
    let at = put(&storage, 1).await.unwrap();
    stores[0].next("get", Fault::Short);
    assert_eq!(
        storage.get_range(&at, 0..7).await.unwrap_err().kind(),
        Corrupt
    );
    let empty = std::ops::Range { start: 3, end: 3 };
    assert_eq!(
        storage.get_range(&at, empty).await.unwrap_err().kind(),
        Corrupt
    );
}

#[tokio::test(start_paused = true)]
async fn a_list_that_fails_in_one_base_directory_is_an_error_that_names_it() {
    let (storage, stores) = storage(&["a", "b"]);
    put(&storage, 1).await.unwrap();
    stores[1].always("list", Fault::Fails(Unavailable));
    for error in [
        storage.list_segments(&exchange()).await.unwrap_err(),
        storage.list_exchanges().await.unwrap_err(),
    ] {
        assert_eq!(
            (error.base.as_str(), error.operation, error.kind()),
            ("b", "list", Unavailable)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn keys_that_stopover_did_not_write_are_ignored_and_counted() {
    let (storage, stores) = just_started(&["only"]);
    let at = put(&storage, 1).await.unwrap();
    let stray = Key::listed(format!("{}/readme.txt", keys::segments(&exchange())));
    stores[0]
        .put(&stray, vec![Bytes::from_static(b"?")])
        .await
        .unwrap();
    let hidden = Key::listed("v2/segments/.hidden/x");
    stores[0]
        .put(&hidden, vec![Bytes::from_static(b"?")])
        .await
        .unwrap();
    let listed = storage.list_segments(&exchange()).await.unwrap();
    assert_eq!(listed.iter().map(|l| &l.address).collect::<Vec<_>>(), [&at]);
    assert_eq!(storage.list_exchanges().await.unwrap(), [exchange()]);
    let mut registry = prometheus_client::registry::Registry::default();
    storage.metrics().register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(
        text.contains("stopover_storage_ignored_keys_total{base=\"only\"} 2"),
        "{text}"
    );
    assert!(
        text.contains("stopover_storage_healthy{base=\"only\"} 1"),
        "{text}"
    );
    assert!(
        text.contains("stopover_storage_written_bytes_total{base=\"only\"} 7"),
        "{text}"
    );
    assert_eq!(
        storage.remove_exchange(&exchange()).await.unwrap(),
        1,
        "only the segment"
    );
    assert_eq!(storage.list_exchanges().await.unwrap(), [exchange()]);
    for foreign in [&stray, &hidden] {
        stores[0].get_versioned(foreign).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn background_probes_end_with_the_daemon() {
    let runtime = Runtime::seeded(5);
    let (_, stores) = self::storage(&["only"]);
    let store = Arc::clone(&stores[0]);
    store.always("put", Fault::Fails(Refused));
    let inner: Arc<dyn Store> = Arc::<FaultyStore>::clone(&store);
    let bases = vec![("only".parse().unwrap(), "faulty://only".into(), inner)];
    let storage = Storage::from_stores(bases, StoreLimits::REMOTE, &runtime);
    put(&storage, 1).await.unwrap_err();
    runtime.tasks.shut_down().await;
    let probes = store.count("put");
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(store.count("put"), probes);
}

/// Story: one of two base directories did not answer, and the daemon served nothing for 160 s: a
/// probe of 40 s, then an unbounded try of conditional writes.
#[tokio::test(start_paused = true)]
async fn a_silent_base_directory_delays_the_start_by_the_time_limit_and_no_longer() {
    let (storage, stores) = storage(&["good", "silent"]);
    let within = Duration::from_secs(20);
    for operation in ["put", "get", "list", "delete"] {
        stores[1].always(operation, Fault::Takes(Duration::from_secs(1 << 20)));
    }
    let start = tokio::time::Instant::now();
    let status = storage.start(within).await;
    assert_eq!(start.elapsed(), within);
    assert_eq!((status[0].healthy, status[1].healthy), (true, false));
    for error in [&status[1].error, &status[1].unreadable] {
        let error = error.as_deref().unwrap();
        assert!(error.contains("server.start_timeout (20s)"), "{error}");
    }
    assert_eq!(storage.opening_obstacles(), [""; 0], "the other one works");
    let set = storage.in_order(&exchange()).await.unwrap();
    assert_eq!(set.len(), 1);

    stores[1].heal();
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(
        healthy(&storage),
        [true, true],
        "brought up in the background"
    );
    assert_eq!(storage.opening_obstacles(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_silent_step_after_the_probe_is_within_the_same_time_limit() {
    let (storage, stores) = storage(&["only"]);
    // The probe puts once, the test of preconditions next.
    stores[0].next("put", Fault::Takes(Duration::from_secs(5)));
    stores[0].next("put", Fault::Takes(Duration::from_secs(1 << 20)));
    let start = tokio::time::Instant::now();
    storage.start(Duration::from_secs(20)).await;
    assert_eq!(start.elapsed(), Duration::from_secs(20));
}

#[tokio::test(start_paused = true)]
async fn exchanges_are_opened_without_a_base_directory_that_cannot_be_read_until_it_can_be() {
    let (storage, stores) = storage(&["a", "b"]);
    stores[1].always("get", Fault::Fails(Refused));
    assert_eq!(storage.opening_obstacles(), [""; 0], "not known yet");
    storage.get_marker(&exchange()).await.unwrap_err();
    storage.health_changed().await;
    assert_eq!(healthy(&storage), [true, true], "segments can still be put");
    assert_eq!(storage.opening_obstacles(), [""; 0]);
    assert_eq!(storage.in_order(&exchange()).await.unwrap().len(), 1);
    stores[1].heal();
    storage.health_changed().await;
    assert_eq!(storage.in_order(&exchange()).await.unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_idle_daemon_notices_with_its_next_list_that_a_base_directory_is_gone() {
    let (storage, stores) = storage(&["a", "b"]);
    for operation in ["get", "list", "put"] {
        stores[1].always(operation, Fault::Fails(Refused));
    }
    storage.list_exchanges().await.unwrap_err();
    storage.health_changed().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(healthy(&storage), [true, false]);
    assert_eq!(storage.in_order(&exchange()).await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_can_be_read_so_exchanges_are_opened_elsewhere() {
    let (storage, stores) = storage(&["a", "full"]);
    stores[1].always("put", Fault::Fails(Unavailable));
    storage.probe().await;
    assert_eq!(healthy(&storage), [true, false]);
    assert_eq!(storage.opening_obstacles(), [""; 0]);
    stores[0].always("put", Fault::Fails(Unavailable));
    storage.probe().await;
    assert_eq!(storage.opening_obstacles().len(), 2, "none can be written");
}
