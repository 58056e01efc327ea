//! Tests of how an exchange starts and ends over stores that fail: where its marker is written,
//! which renewal or claim succeeds, and in which order its objects are removed.

use super::*;
use crate::storage::InitOptions;
use crate::store::tests::fake_s3::{FakeS3, Oddity};

async fn in_order(storage: &Storage) -> Vec<crate::id::BaseId> {
    storage.in_order(&exchange()).await.unwrap()
}

/// Announces an exchange: observe, then write.
pub(super) async fn announce(storage: &Storage, exchange: &ExchangeId, content: Bytes) {
    let observed = storage.observe_markers(exchange).await;
    assert!(
        storage
            .put_marker(exchange, &content, &observed)
            .await
            .unwrap()
    );
}

/// How many objects the exchange has.
async fn objects(storage: &Storage) -> u64 {
    let listed = storage
        .survey()
        .await
        .unwrap()
        .remove(&exchange())
        .unwrap_or_default();
    storage
        .inventory(&exchange(), &listed)
        .await
        .unwrap()
        .objects
}

/// Indexes of the base directories in the order in which the exchange prefers them.
fn preferred(storage: &Storage) -> Vec<usize> {
    let names: Vec<_> = storage
        .status()
        .into_iter()
        .map(|status| status.name)
        .collect();
    placement::rendezvous(&exchange(), &names)
}

#[tokio::test(start_paused = true)]
async fn a_marker_goes_to_the_preferred_base_directory_and_elsewhere_while_that_fails() {
    let (storage, stores) = storage(&["a", "b", "c"]);
    let preferred = preferred(&storage);
    let marker = Bytes::from_static(b"{}");
    announce(&storage, &exchange(), marker.clone()).await;
    assert_eq!(stores[preferred[0]].count("put"), 1);
    let first = storage.get_marker(&exchange()).await.unwrap().unwrap();
    stores[preferred[0]].always("put", Fault::Fails(Unavailable));
    announce(&storage, &exchange(), marker.clone()).await;
    assert_eq!(stores[preferred[1]].count("put"), 1);
    let renewed = storage.get_marker(&exchange()).await.unwrap().unwrap();
    assert_eq!(renewed.bytes, marker);
    assert_ne!(
        renewed.version, first.version,
        "a renewal in another base directory is observed beside the old marker"
    );
    announce(&storage, &exchange(), marker).await;
    let again = storage.get_marker(&exchange()).await.unwrap().unwrap();
    assert_ne!(again.version, renewed.version);
    assert_eq!(stores[preferred[1]].count("put"), 2);
    assert_eq!(stores[preferred[2]].count("put"), 0);
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
    let first = storage
        .create_marker(&exchange(), &content, 1, &in_order(&storage).await)
        .await;
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
    let again = storage
        .create_marker(&exchange(), &other, 2, &in_order(&storage).await)
        .await
        .unwrap();
    assert!(again.is_none());
    let observed = storage.observe_markers(&exchange()).await;
    assert_eq!(observed.marker().unwrap(), before);
    // Nor is a tombstone overwritten.
    assert!(storage.claim(&exchange(), &observed).await.unwrap());
    let again = storage
        .create_marker(&exchange(), &other, 2, &in_order(&storage).await)
        .await
        .unwrap();
    assert!(again.is_none());
    assert!(storage.observe_markers(&exchange()).await.is_claimed());
}

#[tokio::test(start_paused = true)]
async fn a_first_announcement_returns_what_exists_elsewhere_and_can_be_withdrawn() {
    let (storage, stores) = storage(&["a", "b"]);
    let preferred = preferred(&storage);
    let content = Bytes::from_static(b"{}");
    // It was announced in another base directory while the preferred one rejected writes.
    stores[preferred[0]].next("put", Fault::Fails(Unavailable));
    announce(&storage, &exchange(), content.clone()).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(healthy(&storage), [true, true]);
    let elsewhere = storage.get_marker(&exchange()).await.unwrap();
    let first = storage
        .create_marker(&exchange(), &content, 1, &in_order(&storage).await)
        .await;
    let (besides, written) = first.unwrap().expect("none in the preferred one");
    assert_eq!(besides.marker().unwrap(), elsewhere);
    storage.withdraw_marker(&exchange(), written).await;
    assert_eq!(storage.get_marker(&exchange()).await.unwrap(), elsewhere);

    // What was renewed since is not withdrawn.
    let first = storage
        .create_marker(&exchange(), &content, 1, &in_order(&storage).await)
        .await;
    let (_, written) = first.unwrap().expect("none in the preferred one");
    announce(&storage, &exchange(), content).await;
    storage.withdraw_marker(&exchange(), written).await;
    assert_eq!(objects(&storage).await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_first_announcement_whose_failed_put_was_applied_is_withdrawn_everywhere() {
    let (storage, stores) = storage(&["a", "b"]);
    let preferred = preferred(&storage);
    stores[preferred[0]].always("put", Fault::FailsAfterwards(Unavailable));
    // The observation comes after the puts: it finds both and recognises both.
    for store in &stores {
        store.next("get", Fault::Takes(Duration::from_secs(3)));
    }
    let content = Bytes::from_static(b"{}");
    let first = storage
        .create_marker(&exchange(), &content, 1, &in_order(&storage).await)
        .await;
    let (besides, written) = first.unwrap().expect("put elsewhere");
    assert_eq!(besides.marker().unwrap(), None);
    assert_eq!(objects(&storage).await, 2);
    storage.withdraw_marker(&exchange(), written).await;
    assert_eq!(storage.list_exchanges().await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn a_marker_that_may_be_in_a_base_directory_that_does_not_respond_is_an_error() {
    let (storage, stores) = storage(&["a", "b"]);
    stores[0].always("get", Fault::Fails(Unavailable));
    let error = storage.get_marker(&exchange()).await.unwrap_err();
    assert_eq!((error.base.as_str(), error.kind()), ("a", Unavailable));
    stores[0].heal();
    assert_eq!(storage.get_marker(&exchange()).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn the_version_keeps_changing_while_a_base_directory_does_not_respond() {
    // For the sweeper an unchanged version means that the lease was not renewed. It must not
    // conclude that while the renewing daemon can reach a base directory that the sweeper cannot.
    let (storage, stores) = storage(&["a", "b"]);
    let preferred = preferred(&storage);
    announce(&storage, &exchange(), Bytes::from_static(b"{}")).await;
    stores[preferred[1]].always("get", Fault::Fails(Unavailable));
    let one = storage.get_marker(&exchange()).await.unwrap().unwrap();
    let two = storage.get_marker(&exchange()).await.unwrap().unwrap();
    assert_ne!(one.version, two.version);
    stores[preferred[1]].heal();
    let one = storage.get_marker(&exchange()).await.unwrap().unwrap();
    assert_eq!(storage.get_marker(&exchange()).await.unwrap().unwrap(), one);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_or_claim_whose_response_was_lost_recognises_its_own_write() {
    let (storage, stores) = storage(&["only"]);
    let content = Bytes::from_static(b"{}");
    stores[0].next("put", Fault::FailsAfterwards(Unavailable));
    announce(&storage, &exchange(), content.clone()).await;
    let observed = storage.observe_markers(&exchange()).await;
    stores[0].next("put", Fault::FailsAfterwards(Unavailable));
    announce(&storage, &exchange(), content).await;
    assert!(!storage.claim(&exchange(), &observed).await.unwrap());
    let observed = storage.observe_markers(&exchange()).await;
    stores[0].next("put", Fault::FailsAfterwards(Unavailable));
    storage.claim(&exchange(), &observed).await.unwrap_err();
    let observed = storage.observe_markers(&exchange()).await;
    assert!(observed.is_claimed(), "it was applied");
    assert!(storage.claim(&exchange(), &observed).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_went_elsewhere_beats_a_claim_that_began_at_the_preferred_one() {
    // The sweeper and the renewing daemon observed at the same time. Then the preferred base
    // directory failed for the latter, which renewed in another one while the sweeper claimed
    // there.
    let (storage, stores) = storage(&["a", "b"]);
    let preferred = preferred(&storage);
    let content = Bytes::from_static(b"{}");
    announce(&storage, &exchange(), content.clone()).await;
    let observed = storage.observe_markers(&exchange()).await;
    stores[preferred[0]].next("put", Fault::Fails(Unavailable));
    assert!(
        storage
            .put_marker(&exchange(), &content, &observed)
            .await
            .unwrap()
    );
    assert!(!storage.claim(&exchange(), &observed).await.unwrap());
    let after = storage.observe_markers(&exchange()).await;
    assert!(
        !after.is_claimed() && after.marker().unwrap().is_some(),
        "it is open"
    );
    // It stays open: renewals avoid the tombstone in the preferred base directory.
    announce(&storage, &exchange(), content).await;
    assert!(storage.has_marker(&exchange()).await.unwrap());
    storage.remove_exchange(&exchange()).await.unwrap();
    assert_eq!(storage.list_exchanges().await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_claimed_while_a_base_directory_cannot_be_read_or_written() {
    let (storage, stores) = storage(&["a", "b"]);
    let preferred = preferred(&storage);
    announce(&storage, &exchange(), Bytes::from_static(b"{}")).await;
    stores[preferred[1]].always("get", Fault::Fails(Unavailable));
    let observed = storage.observe_markers(&exchange()).await;
    storage.claim(&exchange(), &observed).await.unwrap_err();
    stores[preferred[1]].heal();
    let observed = storage.observe_markers(&exchange()).await;
    for first in preferred {
        stores[first].always("put", Fault::Fails(Refused));
        storage.claim(&exchange(), &observed).await.unwrap_err();
        stores[first].heal();
        let observed = storage.observe_markers(&exchange()).await;
        assert!(observed.marker().unwrap().is_some(), "{first}");
    }
    assert!(storage.has_marker(&exchange()).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_failed_claim_withdraws_what_it_put_where_there_was_nothing() {
    let (storage, stores) = storage(&["a", "b"]);
    let preferred = preferred(&storage);
    for fault in [Fault::Fails(Refused), Fault::FailsAfterwards(Refused)] {
        let observed = storage.observe_markers(&exchange()).await;
        stores[preferred[1]].next("put", fault);
        storage.claim(&exchange(), &observed).await.unwrap_err();
        assert_eq!(storage.list_exchanges().await.unwrap(), []);
    }
    // A marker that cannot be replaced remains, and remains the only object.
    announce(&storage, &exchange(), Bytes::from_static(b"{}")).await;
    let observed = storage.observe_markers(&exchange()).await;
    stores[preferred[0]].next("put", Fault::Fails(Refused));
    storage.claim(&exchange(), &observed).await.unwrap_err();
    assert!(storage.has_marker(&exchange()).await.unwrap());
    assert_eq!(objects(&storage).await, 1);
}

#[tokio::test(start_paused = true)]
async fn late_writers_that_claim_an_exchange_at_the_same_time_leave_nothing() {
    let names = ["a", "b", "c"];
    let (storage, stores) = storage(&names);
    for store in &stores {
        for operation in ["get", "put", "list", "delete"] {
            store.always(operation, Fault::Late);
        }
    }
    for round in 0..200 {
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
async fn a_late_writer_removes_nothing_that_was_announced_again_in_between() {
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
    assert_eq!(storage.remove_exchange(&exchange()).await.unwrap(), 3);
    let log = stores[0].log();
    let deletes: Vec<_> = log
        .iter()
        .filter(|line| line.starts_with("delete"))
        .collect();
    assert_eq!(deletes.len(), 2, "{deletes:?}");
    assert_eq!(*deletes[0], format!("delete {}", keys::marker(&exchange())));
    assert_eq!(deletes[1].matches(".seg").count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_close_costs_a_delete_and_a_list_and_one_more_delete_where_there_are_segments() {
    let (storage, stores) = storage(&["a", "b", "c"]);
    for n in 0..2 {
        put(&storage, n).await.unwrap();
    }
    announce(&storage, &exchange(), Bytes::from_static(b"{}")).await;
    let before: Vec<_> = stores.iter().map(|store| store.log().len()).collect();
    storage.remove_exchange(&exchange()).await.unwrap();
    let requests = stores
        .iter()
        .zip(before)
        .map(|(store, before)| store.log().split_off(before));
    let mut requests: Vec<_> = requests.map(|log| log.len()).collect();
    requests.sort_unstable();
    assert_eq!(requests, [2, 3, 3]);
    assert_eq!(storage.list_exchanges().await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn a_failing_base_directory_does_not_prevent_the_others_from_being_cleared() {
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
        text.contains("a: injected failure of delete")
            && text.contains("b: injected failure of list"),
        "{text}"
    );
    assert_eq!(error.kind(), Unavailable, "calling it again may help");
    stores.iter().for_each(|store| store.heal());
    let left = storage.list_segments(&exchange()).await.unwrap();
    assert_eq!(left.len(), 6);
    assert!(left.iter().all(|l| l.address.base.as_str() != "c"));
    storage.remove_exchange(&exchange()).await.unwrap();
    assert_eq!(storage.list_exchanges().await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn while_a_marker_may_remain_the_segments_remain_in_every_base_directory() {
    let (storage, stores) = storage(&["a", "b", "c"]);
    for n in 0..9 {
        put(&storage, n).await.unwrap();
    }
    announce(&storage, &exchange(), Bytes::from_static(b"{}")).await;
    let left = async || storage.list_segments(&exchange()).await.unwrap().len();
    let first = stores
        .iter()
        .find(|store| store.count("put v2/markers/") == 1);
    let first = first.unwrap();
    first.next("delete", Fault::Fails(Refused));
    let error = storage.remove_exchange(&exchange()).await.unwrap_err();
    assert!(error.object.starts_with("v2/markers/"), "{error}");
    assert_eq!(left().await, 9);
    assert!(storage.get_marker(&exchange()).await.unwrap().is_some());
    // It is unknown whether there is a marker.
    first.next("delete", Fault::Fails(Refused));
    first.next("get", Fault::Fails(Refused));
    storage.remove_exchange(&exchange()).await.unwrap_err();
    assert_eq!(left().await, 9);
    assert_eq!(storage.remove_exchange(&exchange()).await.unwrap(), 9);
}

/// Story: a store that answers 200 to a put whose condition fails was known as such and warned of,
/// and its conditions were relied on all the same. A second daemon's announcement replaced the
/// marker or the tombstone of the first one's exchange, and both of two claims succeeded.
#[tokio::test]
async fn where_conditions_are_ignored_an_exchange_is_announced_and_claimed_once() {
    for oddity in [Oddity::None, Oddity::IgnoresConditions] {
        let server = FakeS3::start(oddity).await;
        let daemon = |seed| Storage::open(&[server.config()], &Runtime::seeded(seed)).unwrap();
        let (one, two) = (daemon(3), daemon(4));
        one.init(None, InitOptions::default()).await.unwrap();
        assert!(one.probe().await[0].healthy);
        // The other one has not been probed: it finds out with its first conditional write.
        assert_eq!(two.get_marker(&exchange()).await.unwrap(), None);
        let set = in_order(&one).await;
        let [first, other] = ["{}", "{\"of\":2}"].map(Bytes::from);

        let created = one.create_marker(&exchange(), &first, 1, &set).await;
        assert!(created.unwrap().is_some(), "{oddity:?}");
        let announced_elsewhere = async || {
            let created = two.create_marker(&exchange(), &other, 2, &set).await;
            let placed = two.place_marker(&exchange(), &other, 2, &set).await;
            created.unwrap().is_some() || placed.unwrap()
        };
        assert!(!announced_elsewhere().await, "{oddity:?}");
        let marker = one.get_marker(&exchange()).await.unwrap().unwrap();
        assert_eq!(marker.bytes, first, "{oddity:?}");

        let observed = one.observe_markers(&exchange()).await;
        assert!(one.claim(&exchange(), &observed).await.unwrap());
        assert!(!two.claim(&exchange(), &observed).await.unwrap());
        assert!(
            !two.put_marker(&exchange(), &other, &observed)
                .await
                .unwrap()
        );
        assert!(!announced_elsewhere().await, "{oddity:?}");
        let observed = one.observe_markers(&exchange()).await;
        assert!(observed.is_claimed(), "{oddity:?}");
    }
}
