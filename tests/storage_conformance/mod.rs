//! The conformance suite: what every base directory must do, as functions over `&Storage`.
//!
//! Does: test each sentence of `Storage`'s documentation. Does not: open stores. Invariant: every
//! check uses its own exchanges and removes them, so that checks can share a store.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use stopover::id::{DaemonId, ExchangeId, SegmentAddress, SegmentId};
use stopover::storage::{Storage, StorageFailure, StoreErrorKind};

/// Runs all checks in sequence.
pub async fn all(storage: &Storage) {
    a_segment_is_read_back_byte_for_byte(storage).await;
    a_segment_may_consist_of_many_buffers(storage).await;
    the_tail_of_an_empty_segment_is_empty(storage).await;
    a_range_beyond_the_object_is_an_error_and_never_truncated(storage).await;
    missing_objects_are_reported_as_not_found(storage).await;
    a_segment_put_again_is_listed_once_per_base_directory(storage).await;
    lists_are_sorted_and_contain_only_their_exchange(storage).await;
    every_write_of_a_marker_gives_it_a_new_version(storage).await;
    lists_and_reads_of_a_marker_agree_until_it_is_written_again(storage).await;
    renewals_and_claims_with_a_stale_version_fail(storage).await;
    at_most_one_of_racing_renewals_and_claims_succeeds(storage).await;
    exactly_one_of_racing_first_announcements_succeeds(storage).await;
    a_claimed_exchange_cannot_be_renewed_and_is_removed_with_its_tombstones(storage).await;
    exchanges_with_any_object_are_listed(storage).await;
    removing_an_exchange_removes_all_of_it_and_no_other(storage).await;
    only_the_given_segments_are_removed(storage).await;
    lists_and_removals_span_several_pages(storage).await;
    puts_succeed_during_removals_in_the_same_exchange(storage).await;
    a_probe_reports_a_working_store_healthy_and_leaves_no_exchange(storage).await;
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

/// Bytes that depend on their offset, so that a shifted range differs.
fn content(length: usize) -> Bytes {
    (0..length).map(|i| (i * 31 + i / 251) as u8).collect()
}

async fn put(storage: &Storage, exchange: &ExchangeId, n: u64, bytes: Bytes) -> SegmentAddress {
    storage
        .put_segment(exchange, segment(n), vec![bytes])
        .await
        .unwrap()
}

/// Announces an exchange as the daemon does: reads the markers, then writes one.
pub async fn announce(storage: &Storage, exchange: &ExchangeId, content: Bytes) {
    let seen = storage.observe_markers(exchange).await;
    assert!(storage.put_marker(exchange, &content, &seen).await.unwrap());
}

pub async fn a_segment_is_read_back_byte_for_byte(storage: &Storage) {
    let exchange = exchange("bytes");
    let bytes = content(1_000_003);
    let buffers = vec![
        bytes.slice(..7),
        Bytes::new(),
        bytes.slice(7..900_000),
        bytes.slice(900_000..),
    ];
    let at = storage
        .put_segment(&exchange, segment(1), buffers)
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

pub async fn a_segment_may_consist_of_many_buffers(storage: &Storage) {
    let exchange = exchange("buffers");
    // More buffers than one vectored write accepts (1,024), some of them empty.
    let bytes = content(64_000);
    let buffers: Vec<Bytes> = (0..5_000)
        .map(|i| bytes.slice((i * 13).min(64_000)..((i + 1) * 13).min(64_000)))
        .collect();
    assert_eq!(buffers.iter().map(Bytes::len).sum::<usize>(), 64_000);
    let at = storage
        .put_segment(&exchange, segment(1), buffers)
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

pub async fn a_range_beyond_the_object_is_an_error_and_never_truncated(storage: &Storage) {
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

pub async fn missing_objects_are_reported_as_not_found(storage: &Storage) {
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
    let unknown_base = SegmentAddress {
        base: "unknown".parse().unwrap(),
        ..at.clone()
    };
    let error = storage.get_tail(&unknown_base, 10).await.unwrap_err();
    let unknown = matches!(error.source, StorageFailure::UnknownBase { .. });
    assert!(unknown, "{error}");
    assert_eq!(storage.list_segments(&exchange).await.unwrap(), []);
    assert_eq!(storage.get_marker(&exchange).await.unwrap(), None);
    assert_eq!(storage.remove_exchange(&exchange).await.unwrap(), 0);
    storage.remove_segments(&[at]).await.unwrap();
}

pub async fn a_segment_put_again_is_listed_once_per_base_directory(storage: &Storage) {
    let exchange = exchange("again");
    let bases = storage.status().len();
    // Twice as many puts as base directories, so that each is written twice.
    let mut used = BTreeSet::new();
    for _ in 0..2 * bases {
        used.insert(put(storage, &exchange, 1, content(500)).await.base);
    }
    assert_eq!(
        used.len(),
        bases,
        "segments alternate between base directories"
    );
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

pub async fn lists_are_sorted_and_contain_only_their_exchange(storage: &Storage) {
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

pub async fn every_write_of_a_marker_gives_it_a_new_version(storage: &Storage) {
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
        "unchanged without a write"
    );
    announce(storage, &exchange, first).await;
    let same = storage.get_marker(&exchange).await.unwrap().unwrap();
    assert_ne!(same.version, one.version, "the same content, written again");
    announce(storage, &exchange, second.clone()).await;
    let other = storage.get_marker(&exchange).await.unwrap().unwrap();
    assert_eq!(other.bytes, second);
    assert!(other.version != one.version && other.version != same.version);
    assert_eq!(storage.remove_exchange(&exchange).await.unwrap(), 0);
    assert_eq!(storage.get_marker(&exchange).await.unwrap(), None);
}

pub async fn lists_and_reads_of_a_marker_agree_until_it_is_written_again(storage: &Storage) {
    let exchange = exchange("tags");
    let content = Bytes::from_static(b"{}");
    announce(storage, &exchange, content.clone()).await;
    let listed = storage.survey().await.unwrap().remove(&exchange).unwrap();
    assert!(listed.has_marker());
    let read = storage.observe_markers(&exchange).await;
    assert!(read.are_as_listed(&listed), "{read:?} {listed:?}");
    let again = storage.survey().await.unwrap().remove(&exchange).unwrap();
    assert_eq!(
        listed.version(),
        again.version(),
        "unchanged without a write"
    );
    announce(storage, &exchange, content).await;
    let renewed = storage.survey().await.unwrap().remove(&exchange).unwrap();
    assert_ne!(listed.version(), renewed.version());
    let read = storage.observe_markers(&exchange).await;
    assert!(read.are_as_listed(&renewed) && !read.are_as_listed(&listed));
    assert!(storage.claim(&exchange, &read).await.unwrap());
    let claimed = storage.survey().await.unwrap().remove(&exchange).unwrap();
    assert!(!claimed.has_marker() && claimed.version().is_some());
    storage.remove_exchange(&exchange).await.unwrap();
}

pub async fn renewals_and_claims_with_a_stale_version_fail(storage: &Storage) {
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
    assert!(
        !renewed,
        "a renewal reopened an exchange that was closed meanwhile"
    );
    assert_eq!(storage.get_marker(&exchange).await.unwrap(), None);
}

pub async fn at_most_one_of_racing_renewals_and_claims_succeeds(storage: &Storage) {
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
        // A claim needs all base directories, a renewal one: both may fail, never both succeed.
        assert!(claimed <= 1 && renewed <= 1, "{claimed} {renewed}");
        assert_eq!(open, renewed == 1, "{claimed} claimed, {renewed} renewed");
        assert!(
            !open || claimed == 0,
            "a claim succeeded on an open exchange"
        );
        storage.remove_exchange(&exchange).await.unwrap();
    }
}

pub async fn exactly_one_of_racing_first_announcements_succeeds(storage: &Storage) {
    let content = Bytes::from_static(b"{}");
    for round in 0..10 {
        let exchange = exchange(&format!("first-{round}"));
        let set = storage.in_order(&exchange).await.unwrap();
        let first = (0..4).map(|number| storage.create_marker(&exchange, &content, number, &set));
        let first = futures::future::join_all(first).await;
        let written = first.into_iter().filter_map(Result::unwrap).count();
        assert_eq!(written, 1);
        assert!(storage.has_marker(&exchange).await.unwrap());
        let survey = storage.survey().await.unwrap();
        let inventory = storage.inventory(&exchange, &survey[&exchange]);
        assert_eq!(inventory.await.unwrap().objects, 1);
        storage.remove_exchange(&exchange).await.unwrap();
        assert!(!storage.has_marker(&exchange).await.unwrap());
    }
}

pub async fn a_claimed_exchange_cannot_be_renewed_and_is_removed_with_its_tombstones(
    storage: &Storage,
) {
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
    for observed in [&seen, &ended] {
        assert!(
            !storage
                .put_marker(&exchange, &content, observed)
                .await
                .unwrap()
        );
    }
    // The daemon that claimed it may have died: another one can continue.
    assert!(storage.claim(&exchange, &ended).await.unwrap());
    assert_eq!(storage.remove_claimed(&exchange).await.unwrap(), 4);
    assert!(!storage.list_exchanges().await.unwrap().contains(&exchange));
    assert_eq!(
        storage.remove_unannounced(&exchange).await.unwrap(),
        Some(0)
    );
    assert!(!storage.list_exchanges().await.unwrap().contains(&exchange));
}

pub async fn exchanges_with_any_object_are_listed(storage: &Storage) {
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

pub async fn removing_an_exchange_removes_all_of_it_and_no_other(storage: &Storage) {
    let (removed, other) = (exchange("remove"), exchange("remove-not"));
    for exchange in [&removed, &other] {
        announce(storage, exchange, Bytes::from_static(b"{}")).await;
        for n in 0..4 {
            put(storage, exchange, n, content(10)).await;
        }
    }
    assert_eq!(storage.remove_exchange(&removed).await.unwrap(), 4);
    assert_eq!(storage.list_segments(&removed).await.unwrap(), []);
    assert_eq!(storage.get_marker(&removed).await.unwrap(), None);
    assert!(!storage.list_exchanges().await.unwrap().contains(&removed));
    assert_eq!(storage.list_segments(&other).await.unwrap().len(), 4);
    assert!(storage.get_marker(&other).await.unwrap().is_some());
    assert_eq!(storage.remove_exchange(&removed).await.unwrap(), 0, "again");
    storage.remove_exchange(&other).await.unwrap();
}

pub async fn only_the_given_segments_are_removed(storage: &Storage) {
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

pub async fn lists_and_removals_span_several_pages(storage: &Storage) {
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
    let known = (0..COUNT - 10).map(segment).collect();
    let new = storage.list_new_segments(&exchange, &known).await;
    assert!(new.complete, "{:?}", new.failure);
    let mut new: Vec<_> = new.segments.into_iter().map(|l| l.address).collect();
    assert!(new.iter().all(|found| at.contains(found)));
    let new = new.split_off(new.len() - 10);
    assert_eq!(
        new,
        at[at.len() - 10..],
        "a list that begins behind what is known"
    );
    assert_eq!(storage.remove_exchange(&exchange).await.unwrap(), COUNT);
    assert_eq!(storage.list_segments(&exchange).await.unwrap(), []);
}

pub async fn puts_succeed_during_removals_in_the_same_exchange(storage: &Storage) {
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

pub async fn a_probe_reports_a_working_store_healthy_and_leaves_no_exchange(storage: &Storage) {
    let status = storage.probe().await;
    assert!(
        status.iter().all(|s| s.healthy && s.error.is_none()),
        "{status:?}"
    );
    assert_eq!(storage.list_exchanges().await.unwrap(), []);
    assert_eq!(storage.remove_stale_temporaries().await.unwrap(), 0);
}
