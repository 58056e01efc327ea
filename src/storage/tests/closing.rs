//! The requests that closing and collecting cost, and what they leave.

use super::*;
use crate::store::tests::fake_s3::{FakeS3, Oddity};

const SEGMENTS: u64 = 10_000;

/// An open exchange with many segments, in a bucket.
async fn open_exchange() -> (FakeS3, Storage) {
    let server = FakeS3::start(Oddity::None).await;
    let storage = Storage::open(&[server.config()], &Runtime::seeded(3)).unwrap();
    assert!(storage.probe().await[0].healthy);
    let observed = storage.observe_markers(&exchange()).await;
    let marker = Bytes::from_static(b"{}");
    let announced = storage.put_marker(&exchange(), &marker, &observed).await;
    assert!(announced.unwrap());
    for n in 0..SEGMENTS {
        server.add(&keys::segment(&exchange(), segment(n)), Bytes::new());
    }
    server.take_counts();
    (server, storage)
}

/// What a base directory has besides exchanges.
const REST: [&str; 4] = [
    "v2/identity",
    "v2/markers/.keep",
    "v2/members",
    "v2/segments/.keep",
];

#[tokio::test]
async fn a_close_of_ten_thousand_segments_costs_21_requests_and_leaves_nothing_at_once() {
    let (server, storage) = open_exchange().await;
    let removed = storage.remove_exchange(&exchange()).await.unwrap();
    assert_eq!(removed, SEGMENTS);
    // A delete of the marker, then a list and a delete for each thousand segments.
    assert_eq!(server.take_counts(), [10, 0, 0, 11]);
    assert_eq!(server.keys(), REST);
    // Repeated, as by a client that has not got the answer: a delete and a list.
    assert_eq!(storage.remove_exchange(&exchange()).await.unwrap(), 0);
    assert_eq!(server.take_counts(), [1, 0, 0, 1]);
}

#[tokio::test]
async fn a_collection_of_ten_thousand_segments_costs_a_tombstone_more_and_leaves_nothing() {
    let (server, storage) = open_exchange().await;
    let observed = storage.observe_markers(&exchange()).await;
    assert!(storage.claim(&exchange(), &observed).await.unwrap());
    let removed = storage.remove_claimed(&exchange()).await.unwrap();
    assert_eq!(removed, SEGMENTS);
    // The marker is read, and replaced by a tombstone, which is read twice before its delete.
    assert_eq!(server.take_counts(), [10, 3, 1, 11]);
    assert_eq!(server.keys(), REST);
}

#[tokio::test(start_paused = true)]
async fn a_close_goes_on_without_a_member_that_does_not_answer_and_says_what_is_left() {
    let (storage, stores) = storage(&["a", "b"]);
    for n in 0..4 {
        put(&storage, n).await.unwrap();
    }
    markers::announce(&storage, &exchange(), Bytes::from_static(b"{}")).await;
    for operation in ["put", "get", "list", "delete"] {
        stores[1].always(operation, Fault::Fails(Unavailable));
    }
    let begun = tokio::time::Instant::now();
    let cleared = storage.clear_exchange(&exchange()).await.unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(6),
        "{:?}",
        begun.elapsed()
    );
    let left = cleared.left.unwrap().to_string();
    assert!(left.contains("base directory b"), "{left}");
    // Its marker may be there: a reader could take the rest for the whole.
    assert_eq!(cleared.segments, 0);
    assert_eq!(stores[0].count("delete v2/segments"), 0);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(!storage.can_clear(&exchange()), "nothing is sent meanwhile");
    stores[1].heal();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(storage.can_clear(&exchange()));
    let cleared = storage.clear_exchange(&exchange()).await.unwrap();
    assert!(cleared.left.is_none());
    assert_eq!(cleared.segments, 4);
    assert_eq!(storage.list_exchanges().await.unwrap(), []);
}

#[tokio::test]
async fn all_segments_are_found_where_lists_ignore_the_key_after_which_they_begin() {
    for oddity in [Oddity::None, Oddity::IgnoresStartAfter] {
        let server = FakeS3::start(oddity).await;
        let storage = Storage::open(&[server.config()], &Runtime::seeded(3)).unwrap();
        assert!(storage.probe().await[0].healthy);
        for n in 0..2500 {
            server.add(&keys::segment(&exchange(), segment(n)), Bytes::new());
        }
        let listed = storage.list_segments(&exchange()).await.unwrap();
        let found: Vec<_> = listed.iter().map(|found| found.address.segment).collect();
        assert_eq!(
            found,
            (0..2500).map(segment).collect::<Vec<_>>(),
            "{oddity:?}"
        );
    }
}
