//! Tests of the facade over stores that fail: fail-over, health, patience, and what errors say.

mod checksums;
mod faulty;
mod local;
mod opening;
mod wrappers;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;

use self::faulty::{Fault, FaultyStore};
use super::StorageErrorKind::{Corrupt, NotFound, Refused, Unavailable};
use super::{Limits, Storage, StorageError, Tail, placement};
use crate::clock::Runtime;
use crate::id::{BaseName, DaemonId, ExchangeId, SegmentAddress, SegmentId};
use crate::storage::keys::{Folder, Key};
use crate::storage::store::{Expected, Found, Store, StoreError, Taken, Versioned};

fn storage(names: &[&str]) -> (Storage, Vec<Arc<FaultyStore>>) {
    let stores: Vec<_> = names.iter().map(|_| FaultyStore::new()).collect();
    (over(names, &stores, 3), stores)
}

/// What one of several daemons has over the same stores.
fn over(names: &[&str], stores: &[Arc<FaultyStore>], seed: u64) -> Storage {
    let bases = names.iter().zip(stores).map(|(name, store)| {
        let store: Arc<dyn Store> = Arc::<FaultyStore>::clone(store);
        (name.parse().unwrap(), format!("faulty://{name}"), store)
    });
    Storage::from_stores(bases.collect(), Limits::REMOTE, &Runtime::seeded(seed))
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

/// Announces an exchange as a client does: look, then write.
async fn announce(storage: &Storage, exchange: &ExchangeId, content: Bytes) {
    let seen = storage.markers(exchange).await;
    assert!(storage.put_marker(exchange, &content, &seen).await.unwrap());
}

fn healthy(storage: &Storage) -> Vec<bool> {
    storage
        .status()
        .into_iter()
        .map(|status| status.healthy)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_failed_put_goes_to_another_base_directory_and_the_first_is_left_out() {
    let (storage, stores) = storage(&["a", "b", "c"]);
    stores[1].always("put", Fault::Fails(Unavailable));
    let mut used = BTreeSet::new();
    for n in 0..30 {
        used.insert(put(&storage, n).await.unwrap().base.to_string());
    }
    assert_eq!(used, BTreeSet::from(["a".to_string(), "c".to_string()]));
    assert_eq!(
        stores[1].count("put v1"),
        1,
        "left out after the first failure"
    );
    assert_eq!(healthy(&storage), [true, false, true]);
    let reason = storage.status()[1].error.clone().unwrap();
    assert!(reason.contains("told to fail put"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn a_base_directory_is_taken_back_once_a_background_probe_succeeds() {
    let (storage, stores) = storage(&["a", "b"]);
    stores[0].always("put", Fault::Fails(Refused));
    for n in 0..4 {
        put(&storage, n).await.unwrap();
    }
    assert_eq!(healthy(&storage), [false, true]);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(healthy(&storage), [false, true], "it still fails");
    let probes = stores[0].count("put .probe");
    assert!((10..60).contains(&probes), "{probes} probes in ten minutes");
    stores[0].heal();
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(healthy(&storage), [true, true]);
    let probes = stores[0].count("put .probe");
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(
        stores[0].count("put .probe"),
        probes,
        "nobody probes what is healthy"
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
    assert_eq!((error.base.as_str(), error.kind), ("all", Unavailable));
    for words in [
        "a: told to fail put",
        "b: told to fail put",
        "put of v1/query_1-x/segments/",
    ] {
        assert!(error.to_string().contains(words), "{error}");
    }
    let waited = start.elapsed();
    assert!(
        (50..=60).contains(&waited.as_secs()),
        "patient for a minute, not {waited:?}"
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
    assert_eq!((error.base.as_str(), error.kind), ("all", Refused));
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(
        (stores[0].count("put v1"), stores[1].count("put v1")),
        (1, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn when_all_are_unhealthy_all_are_tried_and_who_works_is_healthy_again() {
    let (storage, stores) = storage(&["only"]);
    for _ in 0..3 {
        stores[0].next("put", Fault::Fails(Unavailable));
    }
    assert_eq!(put(&storage, 1).await.unwrap().base.as_str(), "only");
    assert_eq!(healthy(&storage), [true]);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_took_place_though_it_failed_leaves_the_segment_twice_and_readable() {
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
async fn a_contended_put_is_repeated_where_it_was_and_marks_nobody() {
    let (storage, stores) = storage(&["only"]);
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
async fn reads_are_repeated_while_a_repeat_may_help() {
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
            (error.kind, error.base.as_str(), error.operation),
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
        storage.get_tail(&at, 3).await.unwrap_err().kind,
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
        "reads do not decide where segments go"
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_shorter_than_the_range_is_corrupt() {
    let (storage, stores) = storage(&["only"]);
    let at = put(&storage, 1).await.unwrap();
    stores[0].next("get", Fault::Short);
    assert_eq!(
        storage.get_range(&at, 0..7).await.unwrap_err().kind,
        Corrupt
    );
    let empty = std::ops::Range { start: 3, end: 3 };
    assert_eq!(
        storage.get_range(&at, empty).await.unwrap_err().kind,
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
            (error.base.as_str(), error.operation, error.kind),
            ("b", "list", Unavailable)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn keys_that_are_nothing_of_ours_are_ignored_and_counted() {
    let (storage, stores) = storage(&["only"]);
    let at = put(&storage, 1).await.unwrap();
    let stray = super::keys::Key::listed("v1/query_1-x/segments/readme.txt");
    stores[0]
        .put(&stray, vec![Bytes::from_static(b"?")])
        .await
        .unwrap();
    let hidden = super::keys::Key::listed("v1/.hidden/x");
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
        2,
        "strays go with the rest"
    );
}

/// Indexes of the base directories in the order in which the exchange prefers them.
fn homes(storage: &Storage) -> Vec<usize> {
    let names: Vec<_> = storage
        .status()
        .into_iter()
        .map(|status| status.name)
        .collect();
    placement::rendezvous(&exchange(), &names)
}

#[tokio::test(start_paused = true)]
async fn a_marker_goes_to_its_home_and_elsewhere_while_that_fails() {
    let (storage, stores) = storage(&["a", "b", "c"]);
    let homes = homes(&storage);
    let marker = Bytes::from_static(b"{}");
    announce(&storage, &exchange(), marker.clone()).await;
    assert_eq!(stores[homes[0]].count("put"), 1);
    let first = storage.get_marker(&exchange()).await.unwrap().unwrap();
    stores[homes[0]].always("put", Fault::Fails(Unavailable));
    announce(&storage, &exchange(), marker.clone()).await;
    assert_eq!(stores[homes[1]].count("put"), 1);
    let renewed = storage.get_marker(&exchange()).await.unwrap().unwrap();
    assert_eq!(renewed.bytes, marker);
    assert_ne!(
        renewed.version, first.version,
        "a renewal elsewhere is seen beside the old marker"
    );
    announce(&storage, &exchange(), marker).await;
    let again = storage.get_marker(&exchange()).await.unwrap().unwrap();
    assert_ne!(again.version, renewed.version);
    assert_eq!(stores[homes[1]].count("put"), 2);
    assert_eq!(stores[homes[2]].count("put"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_first_announcement_takes_one_round_trip_and_a_renewal_two() {
    let (storage, stores) = storage(&["a", "b"]);
    let one = Duration::from_millis(40);
    for store in &stores {
        for operation in ["get", "put"] {
            store.always(operation, Fault::Takes(one));
        }
    }
    let content = Bytes::from_static(b"{}");
    let start = tokio::time::Instant::now();
    let first = storage.put_first_marker(&exchange(), &content).await;
    let (besides, _) = first.unwrap().expect("there was none");
    assert_eq!(start.elapsed(), one);
    assert_eq!(besides.marker().unwrap(), None);
    assert!(storage.has_marker(&exchange()).await.unwrap());
    let start = tokio::time::Instant::now();
    announce(&storage, &exchange(), content).await;
    assert_eq!(start.elapsed(), 2 * one);
}

#[tokio::test(start_paused = true)]
async fn a_first_announcement_writes_nothing_where_there_is_one() {
    let (storage, _) = storage(&["a", "b"]);
    announce(&storage, &exchange(), Bytes::from_static(b"{\"a\":1}")).await;
    let before = storage.get_marker(&exchange()).await.unwrap();
    let other = Bytes::from_static(b"{\"a\":2}");
    let again = storage.put_first_marker(&exchange(), &other).await.unwrap();
    assert!(again.is_none());
    let seen = storage.markers(&exchange()).await;
    assert_eq!(seen.marker().unwrap(), before);
    // Nor over a tombstone.
    assert!(storage.claim(&exchange(), &seen).await.unwrap());
    let again = storage.put_first_marker(&exchange(), &other).await.unwrap();
    assert!(again.is_none());
    assert!(storage.markers(&exchange()).await.ended());
}

#[tokio::test(start_paused = true)]
async fn a_first_announcement_tells_what_there_is_elsewhere_and_can_be_taken_back() {
    let (storage, stores) = storage(&["a", "b"]);
    let homes = homes(&storage);
    let content = Bytes::from_static(b"{}");
    // While its home took no writes it was announced elsewhere.
    stores[homes[0]].next("put", Fault::Fails(Unavailable));
    announce(&storage, &exchange(), content.clone()).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(healthy(&storage), [true, true]);
    let elsewhere = storage.get_marker(&exchange()).await.unwrap();
    let first = storage.put_first_marker(&exchange(), &content).await;
    let (besides, written) = first.unwrap().expect("none at its home");
    assert_eq!(besides.marker().unwrap(), elsewhere);
    storage.take_back_marker(&exchange(), written).await;
    assert_eq!(storage.get_marker(&exchange()).await.unwrap(), elsewhere);

    // What somebody has renewed since is not taken back.
    let first = storage.put_first_marker(&exchange(), &content).await;
    let (_, written) = first.unwrap().expect("none at its home");
    announce(&storage, &exchange(), content).await;
    storage.take_back_marker(&exchange(), written).await;
    assert_eq!(storage.remove_exchange(&exchange()).await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_first_announcement_whose_first_put_failed_after_the_fact_is_taken_back_everywhere() {
    let (storage, stores) = storage(&["a", "b"]);
    let homes = homes(&storage);
    stores[homes[0]].always("put", Fault::FailsAfterwards(Unavailable));
    // The look comes after the put: it finds both, and takes neither for somebody else's.
    for store in &stores {
        store.next("get", Fault::Takes(Duration::from_secs(3)));
    }
    let content = Bytes::from_static(b"{}");
    let first = storage.put_first_marker(&exchange(), &content).await;
    let (besides, written) = first.unwrap().expect("put elsewhere");
    assert_eq!(besides.marker().unwrap(), None);
    assert_eq!(storage.inventory(&exchange()).await.unwrap().objects, 2);
    storage.take_back_marker(&exchange(), written).await;
    assert_eq!(storage.list_exchanges().await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn a_marker_that_may_lie_where_nobody_can_look_is_an_error() {
    let (storage, stores) = storage(&["a", "b"]);
    stores[0].always("get", Fault::Fails(Unavailable));
    let error = storage.get_marker(&exchange()).await.unwrap_err();
    assert_eq!((error.base.as_str(), error.kind), ("a", Unavailable));
    stores[0].heal();
    assert_eq!(storage.get_marker(&exchange()).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn while_a_renewal_may_lie_where_nobody_can_look_the_version_never_stands_still() {
    // The sweeper takes an unchanged version for a lease that nobody renews: it must not while the
    // daemon that renews can reach a base directory which the sweeper cannot.
    let (storage, stores) = storage(&["a", "b"]);
    let homes = homes(&storage);
    announce(&storage, &exchange(), Bytes::from_static(b"{}")).await;
    stores[homes[1]].always("get", Fault::Fails(Unavailable));
    let one = storage.get_marker(&exchange()).await.unwrap().unwrap();
    let two = storage.get_marker(&exchange()).await.unwrap().unwrap();
    assert_ne!(one.version, two.version);
    stores[homes[1]].heal();
    let one = storage.get_marker(&exchange()).await.unwrap().unwrap();
    assert_eq!(storage.get_marker(&exchange()).await.unwrap().unwrap(), one);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_or_claim_whose_answer_was_lost_finds_its_own_writing() {
    let (storage, stores) = storage(&["only"]);
    let content = Bytes::from_static(b"{}");
    stores[0].next("put", Fault::FailsAfterwards(Unavailable));
    announce(&storage, &exchange(), content.clone()).await;
    let seen = storage.markers(&exchange()).await;
    stores[0].next("put", Fault::FailsAfterwards(Unavailable));
    announce(&storage, &exchange(), content).await;
    assert!(!storage.claim(&exchange(), &seen).await.unwrap());
    let seen = storage.markers(&exchange()).await;
    stores[0].next("put", Fault::FailsAfterwards(Unavailable));
    storage.claim(&exchange(), &seen).await.unwrap_err();
    let seen = storage.markers(&exchange()).await;
    assert!(seen.ended(), "it took place");
    assert!(storage.claim(&exchange(), &seen).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_went_elsewhere_beats_a_claim_that_began_at_the_home() {
    // The sweeper and the renewer looked at the same time; then the home took no more writes of the
    // renewer, which turned to another base directory while the sweeper was at the first one.
    let (storage, stores) = storage(&["a", "b"]);
    let homes = homes(&storage);
    let content = Bytes::from_static(b"{}");
    announce(&storage, &exchange(), content.clone()).await;
    let seen = storage.markers(&exchange()).await;
    stores[homes[0]].next("put", Fault::Fails(Unavailable));
    assert!(
        storage
            .put_marker(&exchange(), &content, &seen)
            .await
            .unwrap()
    );
    assert!(!storage.claim(&exchange(), &seen).await.unwrap());
    let after = storage.markers(&exchange()).await;
    assert!(
        !after.ended() && after.marker().unwrap().is_some(),
        "it lives"
    );
    // It goes on living: renewals pass by the tombstone at its home.
    announce(&storage, &exchange(), content).await;
    assert!(storage.has_marker(&exchange()).await.unwrap());
    storage.remove_exchange(&exchange()).await.unwrap();
    assert_eq!(storage.list_exchanges().await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_claimed_while_a_base_directory_cannot_be_asked_or_written() {
    let (storage, stores) = storage(&["a", "b"]);
    let homes = homes(&storage);
    announce(&storage, &exchange(), Bytes::from_static(b"{}")).await;
    stores[homes[1]].always("get", Fault::Fails(Unavailable));
    let seen = storage.markers(&exchange()).await;
    storage.claim(&exchange(), &seen).await.unwrap_err();
    stores[homes[1]].heal();
    let seen = storage.markers(&exchange()).await;
    for home in homes {
        stores[home].always("put", Fault::Fails(Refused));
        storage.claim(&exchange(), &seen).await.unwrap_err();
        stores[home].heal();
        let seen = storage.markers(&exchange()).await;
        assert!(seen.marker().unwrap().is_some(), "{home}");
    }
    assert!(storage.has_marker(&exchange()).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_fails_takes_back_what_it_put_where_there_was_nothing() {
    let (storage, stores) = storage(&["a", "b"]);
    let homes = homes(&storage);
    for fault in [Fault::Fails(Refused), Fault::FailsAfterwards(Refused)] {
        let seen = storage.markers(&exchange()).await;
        stores[homes[1]].next("put", fault);
        storage.claim(&exchange(), &seen).await.unwrap_err();
        assert_eq!(storage.list_exchanges().await.unwrap(), []);
    }
    // A marker at its home that cannot be replaced stays, and stays alone.
    announce(&storage, &exchange(), Bytes::from_static(b"{}")).await;
    let seen = storage.markers(&exchange()).await;
    stores[homes[0]].next("put", Fault::Fails(Refused));
    storage.claim(&exchange(), &seen).await.unwrap_err();
    let inventory = storage.inventory(&exchange()).await.unwrap();
    assert!(storage.has_marker(&exchange()).await.unwrap());
    assert_eq!(inventory.objects, 1);
}

#[tokio::test(start_paused = true)]
async fn late_writers_that_end_an_exchange_at_the_same_time_leave_nothing() {
    let names = ["a", "b", "c"];
    let (storage, stores) = storage(&names);
    for store in &stores {
        for operation in ["get", "put", "list", "delete"] {
            store.always(operation, Fault::Late);
        }
    }
    for round in 0..20 {
        put(&storage, round).await.unwrap();
        let others: Vec<_> = (0..3)
            .map(|n| over(&names, &stores, 10 + 3 * round + n))
            .collect();
        let exchange = exchange();
        let removals = others.iter().map(|s| s.remove_unannounced(&exchange));
        let removed: u64 = join_all(removals)
            .await
            .into_iter()
            .map(|removed| removed.unwrap().unwrap_or(0))
            .sum();
        assert!(removed > 0, "round {round}");
        assert_eq!(storage.list_exchanges().await.unwrap(), [], "round {round}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_writer_removes_nothing_that_was_announced_again_meanwhile() {
    let (storage, _) = storage(&["a", "b"]);
    put(&storage, 1).await.unwrap();
    announce(&storage, &exchange(), Bytes::from_static(b"{}")).await;
    assert_eq!(storage.remove_unannounced(&exchange()).await.unwrap(), None);
    assert_eq!(storage.list_segments(&exchange()).await.unwrap().len(), 1);
    storage.remove_exchange(&exchange()).await.unwrap();
    put(&storage, 2).await.unwrap();
    assert_eq!(
        storage.remove_unannounced(&exchange()).await.unwrap(),
        Some(1)
    );
    assert_eq!(storage.list_exchanges().await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn markers_are_removed_before_any_segment() {
    let (storage, stores) = storage(&["only"]);
    for n in 0..3 {
        put(&storage, n).await.unwrap();
    }
    announce(&storage, &exchange(), Bytes::from_static(b"{}")).await;
    assert_eq!(storage.remove_exchange(&exchange()).await.unwrap(), 4);
    let log = stores[0].log();
    let deletes: Vec<_> = log
        .iter()
        .filter(|line| line.starts_with("delete"))
        .collect();
    assert_eq!(deletes.len(), 2, "{deletes:?}");
    assert_eq!(deletes[0], "delete v1/query_1-x/exchange.json");
    assert_eq!(deletes[1].matches(".seg").count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_base_directory_that_fails_does_not_keep_the_others_from_being_cleared() {
    let (storage, stores) = storage(&["a", "b", "c"]);
    for n in 0..9 {
        put(&storage, n).await.unwrap();
    }
    announce(&storage, &exchange(), Bytes::from_static(b"{}")).await;
    stores[0].always("delete", Fault::Fails(Refused));
    stores[1].always("list", Fault::Fails(Unavailable));
    let error = storage.remove_exchange(&exchange()).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("a: told to fail delete") && text.contains("b: told to fail list"),
        "{text}"
    );
    assert_eq!(error.kind, Unavailable, "calling it again may help");
    stores.iter().for_each(|store| store.heal());
    let left = storage.list_segments(&exchange()).await.unwrap();
    assert_eq!(left.len(), 6);
    assert!(left.iter().all(|l| l.address.base.as_str() != "c"));
    storage.remove_exchange(&exchange()).await.unwrap();
    assert_eq!(storage.list_exchanges().await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn where_a_marker_may_stay_the_segments_stay_in_every_base_directory() {
    let (storage, stores) = storage(&["a", "b", "c"]);
    for n in 0..9 {
        put(&storage, n).await.unwrap();
    }
    announce(&storage, &exchange(), Bytes::from_static(b"{}")).await;
    let left = async || storage.list_segments(&exchange()).await.unwrap().len();
    let home = stores
        .iter()
        .find(|store| store.count("put v1/query_1-x/exchange.json") == 1);
    let home = home.unwrap();
    home.next("delete", Fault::Fails(Refused));
    let error = storage.remove_exchange(&exchange()).await.unwrap_err();
    assert!(error.object.ends_with("exchange.json"), "{error}");
    assert_eq!(left().await, 9);
    assert!(storage.get_marker(&exchange()).await.unwrap().is_some());
    // Whether there is one cannot be known.
    home.next("delete", Fault::Fails(Refused));
    home.next("get", Fault::Fails(Refused));
    storage.remove_exchange(&exchange()).await.unwrap_err();
    assert_eq!(left().await, 9);
    assert_eq!(storage.remove_exchange(&exchange()).await.unwrap(), 10);
}

/// Takes every condition for granted, as some servers do.
#[derive(Debug)]
struct Heedless(Arc<FaultyStore>);

#[async_trait::async_trait]
impl Store for Heedless {
    async fn put(&self, key: &Key, content: Vec<Bytes>) -> Result<(), StoreError> {
        self.0.put(key, content).await
    }

    async fn put_if(&self, key: &Key, content: Bytes, _: &Expected) -> Result<bool, StoreError> {
        self.0.put(key, vec![content]).await.map(|()| true)
    }

    async fn take(&self, key: &Key, version: Option<&str>) -> Result<Taken, StoreError> {
        self.0.take(key, version).await
    }

    async fn get_versioned(&self, key: &Key) -> Result<Versioned, StoreError> {
        self.0.get_versioned(key).await
    }

    async fn get_tail(&self, key: &Key, max: u64) -> Result<Tail, StoreError> {
        self.0.get_tail(key, max).await
    }

    async fn get_range(&self, key: &Key, range: std::ops::Range<u64>) -> Result<Bytes, StoreError> {
        self.0.get_range(key, range).await
    }

    async fn list(&self, folder: &Folder) -> Result<Vec<Found>, StoreError> {
        self.0.list(folder).await
    }

    async fn list_folders(&self, folder: &Folder) -> Result<Vec<String>, StoreError> {
        self.0.list_folders(folder).await
    }

    async fn delete(&self, keys: Vec<Key>) -> Result<u64, StoreError> {
        self.0.delete(keys).await
    }

    async fn remove_stale_temporaries(&self, folder: &Folder) -> Result<u64, StoreError> {
        self.0.remove_stale_temporaries(folder).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_ignores_conditions_is_found_out() {
    let stores: [(&str, Arc<dyn Store>); 3] = [
        ("heeds", FaultyStore::new()),
        ("ignores", Arc::new(Heedless(FaultyStore::new()))),
        ("fails", {
            let failing = FaultyStore::new();
            failing.always("put", Fault::Fails(Refused));
            failing
        }),
    ];
    let bases = stores.map(|(name, store)| (name.parse().unwrap(), name.to_owned(), store));
    let storage = Storage::from_stores(bases.into(), Limits::LOCAL, &Runtime::seeded(3));
    let found = storage.without_conditions().await;
    assert_eq!(found, ["ignores".parse::<BaseName>().unwrap()]);
}

#[tokio::test(start_paused = true)]
async fn a_probe_names_the_step_that_fails() {
    for (operation, step) in [
        ("put", "writing"),
        ("get", "reading"),
        ("list", "listing"),
        ("delete", "deleting"),
    ] {
        let (storage, stores) = storage(&["good", "bad"]);
        stores[1].always(operation, Fault::Fails(Refused));
        let status = storage.probe().await;
        assert!(status[0].healthy && !status[1].healthy, "{operation}");
        let error = status[1].error.clone().unwrap();
        assert!(error.starts_with(step), "{operation}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_finds_a_store_that_answers_too_little() {
    let (storage, stores) = storage(&["only"]);
    stores[0].always("get", Fault::Short);
    let error = storage.probe().await[0].error.clone().unwrap();
    assert!(
        error.contains("came back other than it was written"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn background_probes_end_with_the_daemon() {
    let runtime = Runtime::seeded(5);
    let store = FaultyStore::new();
    store.always("put", Fault::Fails(Refused));
    let inner: Arc<dyn Store> = Arc::<FaultyStore>::clone(&store);
    let bases = vec![("only".parse().unwrap(), "faulty://only".into(), inner)];
    let storage = Storage::from_stores(bases, Limits::REMOTE, &runtime);
    put(&storage, 1).await.unwrap_err();
    runtime.tasks.shut_down().await;
    let probes = store.count("put");
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(store.count("put"), probes);
}
