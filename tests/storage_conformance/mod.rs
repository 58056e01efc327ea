//! What every base directory owes, as functions over `&Storage`: one suite for all kinds of store.
//!
//! Does: put each sentence of `Storage`'s documentation to the test. Does not: open stores.
//! Invariant: every check uses exchanges of its own name and removes them, so that checks share a
//! store.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use stopover::id::{DaemonId, ExchangeId, SegmentAddress, SegmentId};
use stopover::storage::{Storage, StorageFailure, StoreErrorKind};

/// All checks, one after the other.
pub async fn all(storage: &Storage) {
    a_segment_comes_back_byte_for_byte(storage).await;
    many_pieces_are_one_segment(storage).await;
    the_tail_of_an_empty_segment_is_empty(storage).await;
    a_range_beyond_the_object_is_corrupt_never_shorter(storage).await;
    what_does_not_exist_is_not_found(storage).await;
    putting_a_segment_again_leaves_one(storage).await;
    lists_are_sorted_and_hold_only_the_exchange(storage).await;
    a_marker_written_again_has_another_version(storage).await;
    a_marker_that_changed_is_neither_renewed_nor_claimed(storage).await;
    of_renewals_and_claims_that_race_one_succeeds(storage).await;
    of_first_announcements_that_race_one_is_written(storage).await;
    a_claimed_exchange_has_ended_and_goes_with_its_tombstones(storage).await;
    exchanges_with_anything_left_are_listed(storage).await;
    a_removed_exchange_leaves_nothing_and_its_neighbours_stay(storage).await;
    removed_segments_are_gone_and_the_others_stay(storage).await;
    lists_and_removals_go_beyond_a_page(storage).await;
    puts_succeed_while_neighbours_are_removed(storage).await;
    a_probe_finds_a_working_store_healthy_and_leaves_no_exchange(storage).await;
}

fn exchange(name: &str) -> ExchangeId {
    format!("conformance-{name}").parse().unwrap()
}

fn segment(sequence: u64) -> SegmentId {
    SegmentId {
        daemon: DaemonId(0xC0FFEE),
        sequence,
    }
}

/// Bytes that differ from place to place, so that a shifted range is seen.
fn content(length: usize) -> Bytes {
    (0..length).map(|i| (i * 31 + i / 251) as u8).collect()
}

async fn put(storage: &Storage, exchange: &ExchangeId, n: u64, bytes: Bytes) -> SegmentAddress {
    storage
        .put_segment(exchange, segment(n), vec![bytes])
        .await
        .unwrap()
}

/// Announces an exchange as a client does: look, then write.
pub async fn announce(storage: &Storage, exchange: &ExchangeId, content: Bytes) {
    let seen = storage.observe_markers(exchange).await;
    assert!(storage.put_marker(exchange, &content, &seen).await.unwrap());
}

pub async fn a_segment_comes_back_byte_for_byte(storage: &Storage) {
    let exchange = exchange("bytes");
    let bytes = content(1_000_003);
    let pieces = vec![
        bytes.slice(..7),
        Bytes::new(),
        bytes.slice(7..900_000),
        bytes.slice(900_000..),
    ];
    let at = storage
        .put_segment(&exchange, segment(1), pieces)
        .await
        .unwrap();
    assert_eq!((&at.exchange, at.segment), (&exchange, segment(1)));
    let tail = storage.get_tail(&at, 100).await.unwrap();
    assert_eq!(tail.object_size, 1_000_003);
    assert_eq!(tail.bytes, bytes.slice(1_000_003 - 100..));
    let all = storage.get_tail(&at, 1 << 30).await.unwrap();
    assert_eq!((all.bytes, all.object_size), (bytes.clone(), 1_000_003));
    let none = storage.get_tail(&at, 0).await.unwrap();
    assert_eq!((none.bytes.len(), none.object_size), (0, 1_000_003));
    for range in [
        0..1,
        6..9,
        0..1_000_003,
        999_999..1_000_003,
        500_000..800_000,
    ] {
        let expected = bytes.slice(range.start as usize..range.end as usize);
        assert_eq!(storage.get_range(&at, range).await.unwrap(), expected);
    }
    assert_eq!(storage.remove_exchange(&exchange).await.unwrap(), 1);
}

pub async fn many_pieces_are_one_segment(storage: &Storage) {
    let exchange = exchange("pieces");
    // More pieces than one vectored write takes (1,024), some of them empty.
    let bytes = content(64_000);
    let pieces: Vec<Bytes> = (0..5_000)
        .map(|i| bytes.slice((i * 13).min(64_000)..((i + 1) * 13).min(64_000)))
        .collect();
    assert_eq!(pieces.iter().map(Bytes::len).sum::<usize>(), 64_000);
    let at = storage
        .put_segment(&exchange, segment(1), pieces)
        .await
        .unwrap();
    assert_eq!(storage.get_range(&at, 0..64_000).await.unwrap(), bytes);
    storage.remove_exchange(&exchange).await.unwrap();
}

pub async fn the_tail_of_an_empty_segment_is_empty(storage: &Storage) {
    let exchange = exchange("empty");
    let at = put(storage, &exchange, 1, Bytes::new()).await;
    let tail = storage.get_tail(&at, 100).await.unwrap();
    assert_eq!((tail.bytes.len(), tail.object_size), (0, 0));
    storage.remove_exchange(&exchange).await.unwrap();
}

pub async fn a_range_beyond_the_object_is_corrupt_never_shorter(storage: &Storage) {
    let exchange = exchange("short");
    let at = put(storage, &exchange, 1, content(1000)).await;
    for range in [
        999..1001,
        0..1001,
        1000..1001,
        5000..6000,
        (1 << 60)..(1 << 60) + 1,
    ] {
        let error = storage.get_range(&at, range.clone()).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{range:?}: {error}");
    }
    storage.remove_exchange(&exchange).await.unwrap();
}

pub async fn what_does_not_exist_is_not_found(storage: &Storage) {
    let exchange = exchange("missing");
    let base = storage.status()[0].name.clone();
    let at = SegmentAddress {
        exchange: exchange.clone(),
        base,
        segment: segment(9),
    };
    let error = storage.get_tail(&at, 10).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::NotFound, "{error}");
    let error = storage.get_range(&at, 0..10).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::NotFound, "{error}");
    let elsewhere = SegmentAddress {
        base: "unheard-of".parse().unwrap(),
        ..at.clone()
    };
    let error = storage.get_tail(&elsewhere, 10).await.unwrap_err();
    let unknown = matches!(error.source, StorageFailure::UnknownBase { .. });
    assert!(unknown, "{error}");
    assert_eq!(storage.list_segments(&exchange).await.unwrap(), []);
    assert_eq!(storage.get_marker(&exchange).await.unwrap(), None);
    assert_eq!(storage.remove_exchange(&exchange).await.unwrap(), 0);
    storage.remove_segments(&[at]).await.unwrap();
}

pub async fn putting_a_segment_again_leaves_one(storage: &Storage) {
    let exchange = exchange("again");
    let bases = storage.status().len();
    // Once round, so that each base directory is written twice.
    let mut places = BTreeSet::new();
    for _ in 0..2 * bases {
        places.insert(put(storage, &exchange, 1, content(500)).await.base);
    }
    assert_eq!(places.len(), bases, "segments take turns");
    let listed = storage.list_segments(&exchange).await.unwrap();
    assert_eq!(listed.len(), bases);
    for found in listed {
        assert_eq!(found.size, 500);
        assert_eq!(
            storage.get_range(&found.address, 0..500).await.unwrap(),
            content(500)
        );
    }
    storage.remove_exchange(&exchange).await.unwrap();
}

pub async fn lists_are_sorted_and_hold_only_the_exchange(storage: &Storage) {
    let (one, longer) = (exchange("list"), exchange("list-2"));
    for n in [3, 1, 300, 2] {
        put(storage, &one, n, content(n as usize)).await;
    }
    put(storage, &longer, 7, content(7)).await;
    announce(storage, &one, Bytes::from_static(b"{}")).await;
    let listed = storage.list_segments(&one).await.unwrap();
    let found: Vec<_> = listed
        .iter()
        .map(|l| (l.address.segment.sequence, l.size))
        .collect();
    assert_eq!(found, [(1, 1), (2, 2), (3, 3), (300, 300)]);
    assert!(listed.iter().all(|l| l.address.exchange == one));
    for exchange in [one, longer] {
        storage.remove_exchange(&exchange).await.unwrap();
    }
}

pub async fn a_marker_written_again_has_another_version(storage: &Storage) {
    let exchange = exchange("marker");
    let (first, second) = (
        Bytes::from_static(b"{\"a\":1}"),
        Bytes::from_static(b"{\"a\":2}"),
    );
    announce(storage, &exchange, first.clone()).await;
    let one = storage.get_marker(&exchange).await.unwrap().unwrap();
    assert_eq!(one.bytes, first);
    assert_eq!(
        storage.get_marker(&exchange).await.unwrap().unwrap(),
        one,
        "nothing happened"
    );
    announce(storage, &exchange, first).await;
    let same = storage.get_marker(&exchange).await.unwrap().unwrap();
    assert_ne!(same.version, one.version, "the same content, written again");
    announce(storage, &exchange, second.clone()).await;
    let other = storage.get_marker(&exchange).await.unwrap().unwrap();
    assert_eq!(other.bytes, second);
    assert!(other.version != one.version && other.version != same.version);
    assert_eq!(storage.remove_exchange(&exchange).await.unwrap(), 1);
    assert_eq!(storage.get_marker(&exchange).await.unwrap(), None);
}

pub async fn a_marker_that_changed_is_neither_renewed_nor_claimed(storage: &Storage) {
    let exchange = exchange("changed");
    let content = Bytes::from_static(b"{}");
    let nothing = storage.observe_markers(&exchange).await;
    announce(storage, &exchange, content.clone()).await;
    let before = storage.observe_markers(&exchange).await;
    announce(storage, &exchange, content.clone()).await;
    for stale in [&nothing, &before] {
        assert!(
            !storage
                .put_marker(&exchange, &content, stale)
                .await
                .unwrap()
        );
        assert!(!storage.claim(&exchange, stale).await.unwrap());
    }
    assert!(storage.has_marker(&exchange).await.unwrap());
    let now = storage.observe_markers(&exchange).await;
    storage.remove_exchange(&exchange).await.unwrap();
    let renewed = storage.put_marker(&exchange, &content, &now).await.unwrap();
    assert!(!renewed, "a renewal brought back what was closed meanwhile");
    assert_eq!(storage.get_marker(&exchange).await.unwrap(), None);
}

pub async fn of_renewals_and_claims_that_race_one_succeeds(storage: &Storage) {
    let content = Bytes::from_static(b"{}");
    for round in 0..20 {
        let exchange = exchange(&format!("claims-{round}"));
        announce(storage, &exchange, content.clone()).await;
        let seen = storage.observe_markers(&exchange).await;
        let claims = futures::future::join_all((0..4).map(|_| storage.claim(&exchange, &seen)));
        let renewals = (0..4).map(|_| storage.put_marker(&exchange, &content, &seen));
        let (claims, renewals) = futures::join!(claims, futures::future::join_all(renewals));
        let claimed = claims
            .into_iter()
            .filter(|won| *won.as_ref().unwrap())
            .count();
        let renewed = renewals
            .into_iter()
            .filter(|won| *won.as_ref().unwrap())
            .count();
        let open = storage.has_marker(&exchange).await.unwrap();
        // A claim needs every base directory, a renewal one: both may lose, never both win.
        assert!(claimed <= 1 && renewed <= 1, "{claimed} {renewed}");
        assert_eq!(open, renewed == 1, "{claimed} claimed, {renewed} renewed");
        assert!(!open || claimed == 0, "a claim took a live exchange");
        storage.remove_exchange(&exchange).await.unwrap();
    }
}

pub async fn of_first_announcements_that_race_one_is_written(storage: &Storage) {
    let content = Bytes::from_static(b"{}");
    for round in 0..10 {
        let exchange = exchange(&format!("first-{round}"));
        let first = (0..4).map(|_| storage.create_marker(&exchange, &content));
        let first = futures::future::join_all(first).await;
        let written = first.into_iter().filter_map(Result::unwrap).count();
        assert_eq!(written, 1);
        assert!(storage.has_marker(&exchange).await.unwrap());
        assert_eq!(storage.remove_exchange(&exchange).await.unwrap(), 1);
    }
}

pub async fn a_claimed_exchange_has_ended_and_goes_with_its_tombstones(storage: &Storage) {
    let exchange = exchange("claimed");
    announce(storage, &exchange, Bytes::from_static(b"{}")).await;
    for n in 0..4 {
        put(storage, &exchange, n, content(10)).await;
    }
    let seen = storage.observe_markers(&exchange).await;
    assert!(!seen.is_claimed());
    assert!(storage.claim(&exchange, &seen).await.unwrap());
    let ended = storage.observe_markers(&exchange).await;
    assert!(ended.is_claimed() && ended.marker().unwrap().is_none());
    assert!(!storage.has_marker(&exchange).await.unwrap());
    let content = Bytes::from_static(b"{}");
    for look in [&seen, &ended] {
        assert!(!storage.put_marker(&exchange, &content, look).await.unwrap());
    }
    // Whoever claimed it may have died: another goes on.
    assert!(storage.claim(&exchange, &ended).await.unwrap());
    assert_eq!(storage.remove_claimed(&exchange).await.unwrap(), 4);
    assert!(!storage.list_exchanges().await.unwrap().contains(&exchange));
    assert_eq!(
        storage.remove_unannounced(&exchange).await.unwrap(),
        Some(0)
    );
    assert!(!storage.list_exchanges().await.unwrap().contains(&exchange));
}

pub async fn exchanges_with_anything_left_are_listed(storage: &Storage) {
    let (announced, written) = (exchange("listed-a"), exchange("listed-b"));
    announce(storage, &announced, Bytes::from_static(b"{}")).await;
    put(storage, &written, 1, content(1)).await;
    put(storage, &written, 2, content(1)).await;
    let listed = storage.list_exchanges().await.unwrap();
    let ours: Vec<_> = listed
        .into_iter()
        .filter(|e| e.as_str().starts_with("conformance-listed-"))
        .collect();
    assert_eq!(ours, [announced.clone(), written.clone()]);
    for exchange in [announced, written] {
        storage.remove_exchange(&exchange).await.unwrap();
    }
}

pub async fn a_removed_exchange_leaves_nothing_and_its_neighbours_stay(storage: &Storage) {
    let (going, staying) = (exchange("remove"), exchange("remove-not"));
    for exchange in [&going, &staying] {
        announce(storage, exchange, Bytes::from_static(b"{}")).await;
        for n in 0..4 {
            put(storage, exchange, n, content(10)).await;
        }
    }
    assert_eq!(storage.remove_exchange(&going).await.unwrap(), 5);
    assert_eq!(storage.list_segments(&going).await.unwrap(), []);
    assert_eq!(storage.get_marker(&going).await.unwrap(), None);
    assert!(!storage.list_exchanges().await.unwrap().contains(&going));
    assert_eq!(storage.list_segments(&staying).await.unwrap().len(), 4);
    assert!(storage.get_marker(&staying).await.unwrap().is_some());
    assert_eq!(storage.remove_exchange(&going).await.unwrap(), 0, "again");
    storage.remove_exchange(&staying).await.unwrap();
}

pub async fn removed_segments_are_gone_and_the_others_stay(storage: &Storage) {
    let exchange = exchange("segments");
    let mut at = Vec::new();
    for n in 0..5 {
        at.push(put(storage, &exchange, n, content(10)).await);
    }
    storage.remove_segments(&at[1..4]).await.unwrap();
    storage.remove_segments(&at[1..4]).await.unwrap();
    storage.remove_segments(&[]).await.unwrap();
    let listed = storage.list_segments(&exchange).await.unwrap();
    let left: Vec<_> = listed.into_iter().map(|l| l.address).collect();
    assert_eq!(left, [at[0].clone(), at[4].clone()]);
    storage.remove_exchange(&exchange).await.unwrap();
}

pub async fn lists_and_removals_go_beyond_a_page(storage: &Storage) {
    const COUNT: u64 = 2_100;
    let exchange = exchange("pages");
    let puts = futures::stream::iter(0..COUNT).map(|n| {
        let content = vec![Bytes::from(n.to_string())];
        storage.put_segment(&exchange, segment(n), content)
    });
    let at: Vec<_> = puts.buffered(16).try_collect().await.unwrap();
    let listed = storage.list_segments(&exchange).await.unwrap();
    let listed: Vec<_> = listed.into_iter().map(|l| l.address).collect();
    assert!(listed == at, "{} listed of {COUNT}", listed.len());
    assert_eq!(storage.remove_exchange(&exchange).await.unwrap(), COUNT);
    assert_eq!(storage.list_segments(&exchange).await.unwrap(), []);
}

pub async fn puts_succeed_while_neighbours_are_removed(storage: &Storage) {
    let round = async |worker: u64| {
        let exchange = exchange(&format!("race-{}", worker / 2));
        for n in 0..25 {
            let at = put(storage, &exchange, worker * 1000 + n, content(100)).await;
            storage.remove_segments(&[at]).await.unwrap();
        }
    };
    futures::future::join_all((0..8).map(round)).await;
    for worker in 0..4 {
        let exchange = exchange(&format!("race-{worker}"));
        assert_eq!(storage.list_segments(&exchange).await.unwrap(), []);
        storage.remove_exchange(&exchange).await.unwrap();
    }
}

pub async fn a_probe_finds_a_working_store_healthy_and_leaves_no_exchange(storage: &Storage) {
    let status = storage.probe().await;
    assert!(
        status.iter().all(|s| s.healthy && s.error.is_none()),
        "{status:?}"
    );
    assert_eq!(storage.list_exchanges().await.unwrap(), []);
    assert_eq!(storage.remove_stale_temporaries().await.unwrap(), 0);
}
