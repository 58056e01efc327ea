//! How uploads over `http://` are protected: by SHA-256 unless an option says otherwise.

use bytes::Bytes;
use stopover::config::BaseDirectoryConfig;
use stopover::storage::Storage;

use crate::recorder::{RecordedRequest, Recorder};
use crate::{
    Gateway, open, permanent, probed_elsewhere, segment, storage_conformance, without_keys,
};

const CRC: (&str, &str) = ("upload_checksum", "crc64nvme");

/// Opens and probes a base directory, as a starting daemon does.
async fn opened(config: BaseDirectoryConfig) -> Storage {
    let storage = open(&[config]);
    assert!(storage.probe().await[0].healthy, "{:?}", storage.status());
    storage
}

/// The put of a segment.
async fn upload(recorder: &Recorder, storage: &Storage) -> RecordedRequest {
    let exchange = "q-1".parse().unwrap();
    let parts = vec![Bytes::from_static(b"some "), Bytes::from_static(b"bytes")];
    let put = storage.put_segment(&exchange, segment(1), parts);
    put.await.unwrap();
    let mut puts = recorder.puts(".seg");
    assert_eq!(puts.len(), 1, "{puts:?}");
    puts.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_carry_a_crc_that_the_server_verifies_if_configured() {
    let gateway = Gateway::start("bucket", "key", "secret-of-key");
    let recorder = Recorder::of_server(gateway.port).await;
    let storage = opened(recorder.config("s3://bucket/p", &[CRC])).await;
    let put = upload(&recorder, &storage).await;
    assert_eq!(put.signed, "UNSIGNED-PAYLOAD");
    assert!(put.crc.is_some(), "{put:?}");
    let exchange = "q-2".parse().unwrap();
    storage_conformance::announce(&storage, &exchange, Bytes::from_static(b"{}")).await;
    let marker = &recorder.puts("-q-2")[0];
    assert!(marker.crc.is_some(), "markers carry it too: {marker:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_conforms_with_a_crc() {
    let gateway = Gateway::start("bucket", "key", "secret-of-key");
    let mut config = gateway.config("s3://bucket/p");
    config.options.insert(CRC.0.into(), CRC.1.into());
    storage_conformance::all(&opened(config).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_option_decides_and_the_default_is_sha_256() {
    for (option, hashed, checked) in [
        (None, true, false),
        (Some(("upload_checksum", "sha256")), true, false),
        (Some(CRC), false, true),
        (Some(("aws_unsigned_payload", "false")), true, false),
        (Some(("aws_unsigned_payload", "true")), false, false),
        (Some(("aws_checksum_algorithm", "crc64nvme")), true, true),
        (Some(("aws_checksum_algorithm", "sha256")), true, false),
    ] {
        let recorder = Recorder::of_fake().await;
        let options: Vec<_> = option.into_iter().collect();
        let storage = opened(recorder.config("s3://bucket/p", &options)).await;
        let put = upload(&recorder, &storage).await;
        let found = (put.is_hashed(), put.crc.is_some());
        assert_eq!(found, (hashed, checked), "{option:?}: {put:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_costs_no_request_besides_the_probe() {
    let gateway = Gateway::start("bucket", "key", "secret-of-key");
    let recorder = Recorder::of_server(gateway.port).await;
    opened(recorder.config("s3://bucket/p", &[])).await;
    // Before the identity is created, two puts of which one is refused; then one plain put, and two
    // conditional ones whose conditions hold, then do not.
    assert_eq!(recorder.puts("/v2/probes/").len(), 2 + 1 + 2 * 2);
    assert_eq!(gateway.files(), permanent("bucket/p"), "no probe is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_decides_where_no_option_does() {
    let keys = [
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret-of-key"),
    ];
    for (setting, hashed, checked) in [
        (None, true, false),
        (Some(("AWS_UNSIGNED_PAYLOAD", "true")), false, false),
        (Some(("AWS_CHECKSUM_ALGORITHM", "crc64nvme")), true, true),
    ] {
        let recorder = Recorder::of_fake().await;
        let configs = [without_keys(recorder.config("s3://bucket/p", &[]))];
        let environment: Vec<_> = keys.into_iter().chain(setting).collect();
        assert_eq!(probed_elsewhere(&configs, &environment), "true None");
        let probe = &recorder.puts("/v2/probes/")[0];
        let found = (probe.is_hashed(), probe.crc.is_some());
        assert_eq!(found, (hashed, checked), "{setting:?}: {probe:?}");
    }
}
