//! How uploads are protected over `http://`: by a CRC where the server verifies it, by SHA-256
//! wherever that is not certain.

use std::time::{Duration, Instant};

use bytes::Bytes;
use stopover::config::BaseDirectoryConfig;
use stopover::storage::Storage;

use crate::front::{Front, Heard};
use crate::{Gateway, open, probed_elsewhere, segment, storage_conformance, without_keys};

/// Requests that the question costs: a damaged put, a look, an undamaged put, a delete.
const COST: usize = 4;

fn takes_all(_: &axum::http::HeaderMap) -> bool {
    false
}

async fn put_segment(storage: &Storage) {
    let exchange = "q-1".parse().unwrap();
    let pieces = vec![Bytes::from_static(b"some "), Bytes::from_static(b"bytes")];
    let put = storage.put_segment(&exchange, segment(1), pieces);
    put.await.unwrap();
}

/// Opens and probes a base directory, as a daemon does when it starts.
async fn opened(config: BaseDirectoryConfig) -> Storage {
    let storage = open(&[config]);
    assert!(storage.probe().await[0].healthy, "{:?}", storage.status());
    storage
}

/// The put of a segment into a base directory that was opened.
async fn upload(front: &Front, storage: &Storage) -> Heard {
    put_segment(storage).await;
    let mut puts = front.puts(".seg");
    assert_eq!(puts.len(), 1, "{puts:?}");
    puts.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_carry_a_crc_once_the_server_was_seen_to_verify_it() {
    let gateway = Gateway::start("bucket", "key", "secret-of-key");
    let front = Front::before(gateway.port).await;
    let storage = opened(front.config("s3://bucket/p", &[])).await;
    let probes = front.puts(".probe");
    let seen: Vec<_> = probes
        .iter()
        .map(|put| (put.status.as_u16(), put.is_hashed(), put.crc.is_some()))
        .collect();
    assert_eq!(
        seen,
        [(200, true, false), (400, false, true), (200, false, true)],
        "the probe of health, one that is damaged, the same undamaged: {probes:?}"
    );
    assert_eq!(probes[1].crc, probes[2].crc, "the damage came afterwards");
    assert_eq!(gateway.files(), ["bucket/p/v1/.keep"], "no probe is left");
    let put = upload(&front, &storage).await;
    assert_eq!(put.signed, "UNSIGNED-PAYLOAD");
    assert!(put.crc.is_some(), "{put:?}");
    let exchange = "q-1".parse().unwrap();
    storage_conformance::announce(&storage, &exchange, Bytes::from_static(b"{}")).await;
    let marker = &front.puts("exchange.json")[0];
    assert!(marker.is_hashed(), "markers stay as they are: {marker:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_question_is_asked_once_and_costs_four_requests() {
    let gateway = Gateway::start("bucket", "key", "secret-of-key");
    let (asks, told) = (
        Front::before(gateway.port).await,
        Front::before(gateway.port).await,
    );
    opened(told.config("s3://bucket/told", &[("aws_unsigned_payload", "false")])).await;
    let storage = opened(asks.config("s3://bucket/asks", &[])).await;
    let at_opening = told.heard().len();
    assert_eq!(asks.heard().len(), at_opening + COST);
    storage.probe().await;
    let at_health = at_opening - 1; // what keeps the folder is there by then
    assert_eq!(asks.heard().len(), at_opening + COST + at_health);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_what_was_damaged_gets_a_sha_256() {
    let front = Front::alone(takes_all).await;
    let storage = opened(front.config("s3://bucket/p", &[])).await;
    let asked = front.puts(".probe");
    assert!(asked.iter().any(|put| put.crc.is_some()), "{asked:?}");
    assert_eq!(front.objects(), ["/bucket/p/v1/.keep"], "no probe is left");
    let put = upload(&front, &storage).await;
    assert!(put.is_hashed() && put.crc.is_none(), "{put:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_all_uploads_with_a_checksum_gets_a_sha_256() {
    let front = Front::alone(|headers| headers.contains_key("x-amz-checksum-crc64nvme")).await;
    let storage = opened(front.config("s3://bucket/p", &[])).await;
    let put = upload(&front, &storage).await;
    assert!(put.is_hashed() && put.crc.is_none(), "{put:?}");
    let objects = front.objects();
    assert!(!objects.iter().any(|path| path.contains(".probe")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_configured_wins_and_nothing_is_asked() {
    for (name, value, hashed, checked) in [
        ("aws_unsigned_payload", "false", true, false),
        ("aws_unsigned_payload", "true", false, false),
        ("aws_checksum_algorithm", "crc64nvme", true, true),
        ("aws_checksum_algorithm", "sha256", true, false),
    ] {
        let front = Front::alone(takes_all).await;
        let storage = opened(front.config("s3://bucket/p", &[(name, value)])).await;
        let put = upload(&front, &storage).await;
        let found = (put.is_hashed(), put.crc.is_some());
        assert_eq!(found, (hashed, checked), "{name} = {value}: {put:?}");
        let probes = front.puts(".probe");
        assert_eq!(probes.len(), 1, "{name} = {value}: {probes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_environment_says_wins_too() {
    let keys = [
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret-of-key"),
    ];
    for (said, puts) in [
        (None, 2), // the probe of health, and one that is damaged and taken
        (Some(("AWS_UNSIGNED_PAYLOAD", "false")), 1),
        (Some(("AWS_CHECKSUM_ALGORITHM", "crc64nvme")), 1),
        (Some(("AWS_SKIP_SIGNATURE", "true")), 1),
    ] {
        let front = Front::alone(takes_all).await;
        let configs = [without_keys(front.config("s3://bucket/p", &[]))];
        let environment: Vec<_> = keys.into_iter().chain(said).collect();
        assert_eq!(probed_elsewhere(&configs, &environment), "true None");
        let probes = front.puts(".probe");
        assert_eq!(probes.len(), puts, "{said:?}: {probes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_at_the_start_is_asked_when_it_is_back() {
    let mut gateway = Gateway::start("bucket", "key", "secret-of-key");
    let front = Front::before(gateway.port).await;
    gateway.stop();
    let storage = open(&[front.config("s3://bucket/p", &[])]);
    assert!(!storage.probe().await[0].healthy);
    let asked = front.heard().iter().any(|heard| heard.crc.is_some());
    assert!(!asked, "who does not work is not asked for more");
    gateway.run();
    let give_up = Instant::now() + Duration::from_secs(60);
    while !storage.status()[0].healthy {
        assert!(Instant::now() < give_up, "{:?}", storage.status());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let put = upload(&front, &storage).await;
    assert_eq!(put.signed, "UNSIGNED-PAYLOAD");
    assert!(put.crc.is_some(), "{put:?}");
}
