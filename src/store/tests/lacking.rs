//! Tests of stores that lack something: what each does without it.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::fake_s3::{FakeS3, Kind, Oddity, config_of};
use super::http::opened;
use crate::id::{DaemonId, ExchangeId, SegmentId};
use crate::runtime::Runtime;
use crate::store::retry::{Retry, RetryPolicy};
use crate::store::swap::Swap;
use crate::store::{Precondition, Retention, Store, StoreErrorKind, keys};

fn text(text: &'static str) -> Vec<Bytes> {
    vec![Bytes::from_static(text.as_bytes())]
}

/// Story: on a server without DeleteObjects, writes went on and nothing was ever deleted. A close
/// took a minute of retries and left everything.
#[tokio::test]
async fn where_many_objects_cannot_be_deleted_with_one_request_each_is_deleted_by_itself() {
    for oddity in [
        Oddity::Answers(Kind::Delete, 400),
        Oddity::Answers(Kind::Delete, 403),
        Oddity::Answers(Kind::Delete, 404),
        Oddity::Answers(Kind::Delete, 405),
        Oddity::Answers(Kind::Delete, 411),
        Oddity::Answers(Kind::Delete, 501),
        Oddity::NoBulkDelete,
    ] {
        let server = FakeS3::start(oddity).await;
        let store = opened(server.config());
        for round in 1..=2 {
            let all: Vec<_> = (1..=30).map(keys::probe).collect();
            for key in &all {
                store.put(key, text("x")).await.unwrap();
            }
            assert_eq!(store.delete(all).await.unwrap(), 30, "{oddity:?}");
            assert_eq!(store.list(&keys::probes()).await.unwrap(), [], "{oddity:?}");
            assert_eq!(server.count(Kind::Delete), 1, "it is not asked again");
            assert_eq!(server.count(Kind::DeleteOne), 30 * round);
        }
    }
}

#[tokio::test]
async fn a_failure_of_a_server_is_no_reason_to_delete_one_by_one() {
    for status in [500, 503, 429] {
        let server = FakeS3::start(Oddity::Answers(Kind::Delete, status)).await;
        let deleted = opened(server.config()).delete(vec![keys::probe(1)]).await;
        assert_eq!(deleted.unwrap_err().kind, StoreErrorKind::Unavailable);
        assert_eq!(server.count(Kind::DeleteOne), 0);
    }
}

#[tokio::test]
async fn where_bulk_deletes_work_no_other_is_sent() {
    let server = FakeS3::start(Oddity::None).await;
    let store = opened(server.config());
    store.put(&keys::probe(1), text("x")).await.unwrap();
    store.delete(vec![keys::probe(1)]).await.unwrap();
    assert_eq!(server.count(Kind::DeleteOne), 0);
}

#[tokio::test]
async fn conditions_that_are_refused_are_checked_first_unless_they_worked_before() {
    for status in [400, 405, 501] {
        let server = FakeS3::start(Oddity::Answers(Kind::Create, status)).await;
        let store = opened(server.config());
        let key = keys::probe(1);
        for (content, written) in [("first", true), ("second", false)] {
            let put = store.put_if(&key, content.into(), &Precondition::Absent);
            assert_eq!(put.await.unwrap(), written, "{status}");
        }
        assert!(store.observed().checks_then_writes, "{status}");
        let strict = Precondition::StrictlyAbsent;
        let put = store.put_if(&keys::probe(2), "x".into(), &strict).await;
        assert_eq!(put.unwrap_err().kind, StoreErrorKind::Refused, "{status}");
    }
    // Once a condition was honoured, a refusal is something else.
    let server = FakeS3::start(Oddity::Answers(Kind::Replace, 400)).await;
    let store = opened(server.config());
    let key = keys::probe(1);
    for written in [true, false] {
        let content = format!("{written}").into();
        let put = store.put_if(&key, content, &Precondition::Absent).await;
        assert_eq!(put.unwrap(), written);
    }
    assert!(!store.observed().checks_then_writes);
}

/// Story: a server that answers 200 to a put whose condition fails had no error that would have
/// shown it, so nothing was ever checked before it was written.
#[tokio::test]
async fn conditions_that_are_ignored_are_checked_first_once_that_is_known() {
    let server = FakeS3::start(Oddity::IgnoresConditions).await;
    let swap = Swap::new(opened(server.config()));
    let key = keys::probe(1);
    let put = async |content: &'static str, expected: &Precondition| {
        let put = swap.put_if(&key, content.into(), expected).await;
        put.unwrap()
    };
    assert!(put("first", &Precondition::Absent).await);
    let old = Precondition::Version(swap.get_versioned(&key).await.unwrap().version);
    assert!(put("second", &Precondition::Absent).await, "it ignores it");
    swap.distrust_conditions();
    // Also by a client with other credentials.
    for _ in 0..2 {
        assert!(swap.observed().checks_then_writes);
        assert!(!put("third", &Precondition::Absent).await);
        assert!(!put("third", &old).await);
        assert!(put("second", &Precondition::Absent).await, "it is there");
        swap.replace(opened(server.config()));
    }
    let new = swap.get_versioned(&key).await.unwrap();
    assert_eq!(new.bytes, "second".as_bytes());
    assert!(put("third", &Precondition::Version(new.version)).await);
    assert!(!put("fourth", &Precondition::Absent).await);
}

#[tokio::test]
async fn conditions_that_are_forbidden_name_the_option_that_does_without() {
    let server = FakeS3::start(Oddity::Answers(Kind::Create, 403)).await;
    let (key, absent) = (keys::probe(1), Precondition::Absent);
    let put = opened(server.config())
        .put_if(&key, "x".into(), &absent)
        .await;
    let error = put.unwrap_err().to_string();
    assert!(error.contains("conditional_writes = false"), "{error}");
    let config = config_of(server.address, &[("conditional_writes", "false")]);
    let store = opened(config);
    assert!(store.put_if(&key, "x".into(), &absent).await.unwrap());
    assert!(!store.put_if(&key, "y".into(), &absent).await.unwrap());
    assert!(store.observed().checks_then_writes);
}

#[tokio::test]
async fn the_end_of_an_object_is_read_without_suffix_ranges() {
    for oddity in [Oddity::None, Oddity::NoSuffix] {
        let server = FakeS3::start(oddity).await;
        let store = opened(server.config());
        store
            .put(&keys::probe(1), text("0123456789"))
            .await
            .unwrap();
        for (max, expected) in [(3, "789"), (100, "0123456789"), (0, "")] {
            let tail = store.get_tail(&keys::probe(1), max).await.unwrap();
            assert_eq!(
                (&tail.bytes[..], tail.object_size),
                (expected.as_bytes(), 10)
            );
        }
        store.put(&keys::probe(3), text("")).await.unwrap();
        let empty = store.get_tail(&keys::probe(3), 3).await.unwrap();
        assert_eq!((empty.bytes.len(), empty.object_size), (0, 0), "{oddity:?}");
        let missing = store.get_tail(&keys::probe(2), 3).await.unwrap_err();
        assert_eq!(missing.kind, StoreErrorKind::NotFound);
    }
}

#[tokio::test]
async fn a_store_that_asks_to_wait_is_left_alone_for_that_long() {
    let server = FakeS3::start(Oddity::Throttles(Kind::List, 2)).await;
    let store = opened(server.config());
    let error = store.list(&keys::probes()).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Unavailable);
    assert_eq!(error.retry_after, Some(Duration::from_secs(2)));
    assert!(error.to_string().contains("503 SlowDown"), "{error}");

    let server = FakeS3::start(Oddity::Throttles(Kind::List, 2)).await;
    let retry = Retry::new(
        opened(server.config()),
        RetryPolicy::REMOTE,
        Runtime::seeded(1),
    );
    let start = Instant::now();
    assert_eq!(retry.list(&keys::probes()).await.unwrap(), []);
    assert!(start.elapsed() >= Duration::from_secs(2));
    assert_eq!(server.count(Kind::List), 2);
}

#[tokio::test]
async fn an_upload_checksum_that_the_server_does_not_know_is_named() {
    let server = FakeS3::start(Oddity::RefusesChecksum).await;
    let store = opened(server.config());
    store.put(&keys::probe(1), text("x")).await.unwrap();
    store.delete(vec![keys::probe(1)]).await.unwrap();
    let config = config_of(server.address, &[("upload_checksum", "crc64nvme")]);
    let put = opened(config).put(&keys::probe(1), text("x")).await;
    let error = put.unwrap_err().to_string();
    assert!(error.contains("remove upload_checksum"), "{error}");
    let server = FakeS3::start(Oddity::WantsChecksum).await;
    let config = config_of(server.address, &[("upload_checksum", "crc64nvme")]);
    opened(config)
        .put(&keys::probe(1), text("x"))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_server_is_reached_by_ipv6() {
    let server = FakeS3::start_at("[::1]:0", Oddity::None).await;
    let store = opened(server.config());
    store.put(&keys::probe(1), text("x")).await.unwrap();
    assert_eq!(store.list(&keys::probes()).await.unwrap().len(), 1);
}

/// Story: of three closed exchanges in a bucket with versions, 60 MB and 24 delete markers stayed.
#[tokio::test]
async fn earlier_versions_are_deleted_where_that_is_wanted() {
    for (delete_versions, left) in [("false", 7), ("true", 1)] {
        let server = FakeS3::start(Oddity::Versions).await;
        let config = config_of(server.address, &[("delete_versions", delete_versions)]);
        let store = opened(config);
        for n in [1, 1, 2] {
            store.put(&keys::probe(n), text("x")).await.unwrap();
        }
        let kept = keys::probe(12);
        store.put(&kept, text("kept")).await.unwrap();
        store.delete(vec![keys::probe(1)]).await.unwrap();
        store
            .delete(vec![keys::probe(2), keys::probe(3)])
            .await
            .unwrap();
        let listed = store.list(&keys::probes()).await.unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].key, kept);
        // Without: those of 1 and 2, the kept one, and the marks of three deletes.
        assert_eq!(
            server.versions(),
            left,
            "delete_versions = {delete_versions}"
        );
        let warned = (delete_versions == "false").then_some(Retention::Versions);
        assert_eq!(store.observed().retention, warned);
    }
}

/// Story: a server that ignores the delimiter answers with objects and no folders. A sweep found no
/// exchange whose marker was gone, and its segments stayed for ever.
#[tokio::test]
async fn folders_are_found_where_lists_ignore_the_delimiter() {
    for oddity in [Oddity::None, Oddity::IgnoresDelimiter] {
        let server = FakeS3::start(oddity).await;
        let mut expected = Vec::new();
        for number in 0..3 {
            let exchange: ExchangeId = format!("q-{number}").parse().unwrap();
            for daemon in 0..600 {
                let segment = SegmentId {
                    daemon: DaemonId(daemon),
                    sequence: 0,
                };
                server.add(&keys::segment(&exchange, segment), "x".into());
            }
            let folder = keys::segments(&exchange).to_string();
            expected.push(folder.rsplit_once('/').unwrap().1.to_owned());
        }
        let (store, all) = (opened(server.config()), keys::all_segments());
        let mut listed = store.list_folders(&all).await.unwrap();
        listed.sort_unstable();
        expected.sort_unstable();
        assert_eq!(listed, expected, "{oddity:?}");
    }
}
