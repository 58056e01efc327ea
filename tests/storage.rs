//! The conformance suite on the stores that need no server: the file system and memory.

#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // numbers of the tests' own

mod storage_conformance;

use std::path::Path;

use stopover::config::BaseDirectoryConfig;
use stopover::runtime::Runtime;
use stopover::storage::Storage;

fn open(uris: &[String]) -> Storage {
    open_with(uris, &[])
}

fn open_with(uris: &[String], options: &[(&str, &str)]) -> Storage {
    let configs: Vec<_> = uris
        .iter()
        .map(|uri| BaseDirectoryConfig {
            uri: uri.clone(),
            options: options
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect(),
            ..Default::default()
        })
        .collect();
    Storage::open(&configs, &Runtime::seeded(7)).unwrap()
}

fn files_below(folder: &Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_conforms_and_is_empty_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("not/yet created");
    let storage = open(&[format!(
        "file://{}/not/yet%20created/",
        folder.path().display()
    )]);
    storage_conformance::all(&storage).await;
    assert_eq!(files_below(&base), Vec::<std::path::PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn several_file_systems_conform_together() {
    let folder = tempfile::tempdir().unwrap();
    let uris: Vec<_> = (0..3)
        .map(|n| format!("file://{}/base{n}", folder.path().display()))
        .collect();
    storage_conformance::all(&open_with(&uris, &[("fsync", "false")])).await;
    for n in 0..3 {
        let left = files_below(&folder.path().join(format!("base{n}")));
        assert_eq!(left, Vec::<std::path::PathBuf>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_conforms() {
    storage_conformance::all(&open(&["memory://conformance".into()])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_and_a_file_system_conform_together() {
    let folder = tempfile::tempdir().unwrap();
    let uris = [
        format!("file://{}", folder.path().display()),
        "memory://mixed/prefix".into(),
    ];
    storage_conformance::all(&open(&uris)).await;
}

#[tokio::test]
async fn stores_in_memory_of_the_same_uri_share_their_content() {
    let (one, other) = (
        open(&["memory://shared".into()]),
        open(&["memory://shared".into()]),
    );
    let exchange = "shared".parse().unwrap();
    storage_conformance::announce(&one, &exchange, bytes::Bytes::from_static(b"{}")).await;
    assert!(other.get_marker(&exchange).await.unwrap().is_some());
    assert!(
        open(&["memory://another".into()])
            .get_marker(&exchange)
            .await
            .unwrap()
            .is_none()
    );
}

/// For a store that no test can start. `STOPOVER_TEST_BASE_DIRECTORY` is its URI, then options as
/// `option=value`, separated by spaces. The store should be empty; the suite removes its objects.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a store: STOPOVER_TEST_BASE_DIRECTORY='gs://bucket/prefix option=value'"]
async fn a_store_of_your_choice_conforms() {
    let given = std::env::var_os("STOPOVER_TEST_BASE_DIRECTORY")
        .expect("STOPOVER_TEST_BASE_DIRECTORY names the store and its options")
        .into_string()
        .unwrap();
    let (uri, options) = given.split_once(' ').unwrap_or((&given, ""));
    let options: Vec<_> = options
        .split_whitespace()
        .filter_map(|o| o.split_once('='))
        .collect();
    let storage = open_with(&[uri.into()], &options);
    assert!(storage.probe().await[0].healthy, "{:?}", storage.status());
    storage_conformance::all(&storage).await;
}
