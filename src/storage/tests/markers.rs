//! Tests of an exchange's beginning and end over stores that fail: where its marker lies, who may
//! renew it or claim its end, and what goes before what when it is removed.

use super::*;

/// Announces an exchange as a client does: look, then write.
async fn announce(storage: &Storage, exchange: &ExchangeId, content: Bytes) {
    let seen = storage.observe_markers(exchange).await;
    assert!(storage.put_marker(exchange, &content, &seen).await.unwrap());
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
    let first = storage.create_marker(&exchange(), &content).await;
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
    let again = storage.create_marker(&exchange(), &other).await.unwrap();
    assert!(again.is_none());
    let seen = storage.observe_markers(&exchange()).await;
    assert_eq!(seen.marker().unwrap(), before);
    // Nor over a tombstone.
    assert!(storage.claim(&exchange(), &seen).await.unwrap());
    let again = storage.create_marker(&exchange(), &other).await.unwrap();
    assert!(again.is_none());
    assert!(storage.observe_markers(&exchange()).await.is_claimed());
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
    let first = storage.create_marker(&exchange(), &content).await;
    let (besides, written) = first.unwrap().expect("none at its home");
    assert_eq!(besides.marker().unwrap(), elsewhere);
    storage.withdraw_marker(&exchange(), written).await;
    assert_eq!(storage.get_marker(&exchange()).await.unwrap(), elsewhere);

    // What somebody has renewed since is not taken back.
    let first = storage.create_marker(&exchange(), &content).await;
    let (_, written) = first.unwrap().expect("none at its home");
    announce(&storage, &exchange(), content).await;
    storage.withdraw_marker(&exchange(), written).await;
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
    let first = storage.create_marker(&exchange(), &content).await;
    let (besides, written) = first.unwrap().expect("put elsewhere");
    assert_eq!(besides.marker().unwrap(), None);
    assert_eq!(storage.inventory(&exchange()).await.unwrap().objects, 2);
    storage.withdraw_marker(&exchange(), written).await;
    assert_eq!(storage.list_exchanges().await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn a_marker_that_may_lie_where_nobody_can_look_is_an_error() {
    let (storage, stores) = storage(&["a", "b"]);
    stores[0].always("get", Fault::Fails(Unavailable));
    let error = storage.get_marker(&exchange()).await.unwrap_err();
    assert_eq!((error.base.as_str(), error.kind()), ("a", Unavailable));
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
    let seen = storage.observe_markers(&exchange()).await;
    stores[0].next("put", Fault::FailsAfterwards(Unavailable));
    announce(&storage, &exchange(), content).await;
    assert!(!storage.claim(&exchange(), &seen).await.unwrap());
    let seen = storage.observe_markers(&exchange()).await;
    stores[0].next("put", Fault::FailsAfterwards(Unavailable));
    storage.claim(&exchange(), &seen).await.unwrap_err();
    let seen = storage.observe_markers(&exchange()).await;
    assert!(seen.is_claimed(), "it took place");
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
    let seen = storage.observe_markers(&exchange()).await;
    stores[homes[0]].next("put", Fault::Fails(Unavailable));
    assert!(
        storage
            .put_marker(&exchange(), &content, &seen)
            .await
            .unwrap()
    );
    assert!(!storage.claim(&exchange(), &seen).await.unwrap());
    let after = storage.observe_markers(&exchange()).await;
    assert!(
        !after.is_claimed() && after.marker().unwrap().is_some(),
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
    let seen = storage.observe_markers(&exchange()).await;
    storage.claim(&exchange(), &seen).await.unwrap_err();
    stores[homes[1]].heal();
    let seen = storage.observe_markers(&exchange()).await;
    for home in homes {
        stores[home].always("put", Fault::Fails(Refused));
        storage.claim(&exchange(), &seen).await.unwrap_err();
        stores[home].heal();
        let seen = storage.observe_markers(&exchange()).await;
        assert!(seen.marker().unwrap().is_some(), "{home}");
    }
    assert!(storage.has_marker(&exchange()).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_fails_takes_back_what_it_put_where_there_was_nothing() {
    let (storage, stores) = storage(&["a", "b"]);
    let homes = homes(&storage);
    for fault in [Fault::Fails(Refused), Fault::FailsAfterwards(Refused)] {
        let seen = storage.observe_markers(&exchange()).await;
        stores[homes[1]].next("put", fault);
        storage.claim(&exchange(), &seen).await.unwrap_err();
        assert_eq!(storage.list_exchanges().await.unwrap(), []);
    }
    // A marker at its home that cannot be replaced stays, and stays alone.
    announce(&storage, &exchange(), Bytes::from_static(b"{}")).await;
    let seen = storage.observe_markers(&exchange()).await;
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
    assert_eq!(error.kind(), Unavailable, "calling it again may help");
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
