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

/// All files and empty folders besides its identity and the list of members.
fn left_below(base: &Path) -> Vec<std::path::PathBuf> {
    let permanent = ["identity", "members", "sweeper"].map(|name| base.join("v2").join(name));
    let mut left = files_below(base);
    left.retain(|path| !permanent.contains(path));
    left
}

/// All files and empty folders.
fn files_below(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    if paths.is_empty() {
        return vec![folder.to_owned()];
    }
    let (folders, mut files): (Vec<_>, Vec<_>) = paths.into_iter().partition(|p| p.is_dir());
    files.extend(folders.iter().flat_map(|folder| files_below(folder)));
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_conforms_and_holds_only_its_reserve_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("not/yet created");
    let storage = open(&[format!(
        "file://{}/not/yet%20created/",
        folder.path().display()
    )]);
    storage_conformance::all(&storage).await;
    assert_eq!(left_below(&base), [base.join("v2/markers/.keep")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_file_systems_conform_together() {
    let folder = tempfile::tempdir().unwrap();
    let uris: Vec<_> = (0..3)
        .map(|n| format!("file://{}/base{n}", folder.path().display()))
        .collect();
    storage_conformance::all(&open_with(&uris, &[("fsync", "false")])).await;
    for n in 0..3 {
        let base = folder.path().join(format!("base{n}"));
        assert_eq!(left_below(&base), [base.join("v2/markers/.keep")]);
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
