//! Room: what one query may store, and what stays free on a file system.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use stopover::config::BaseDirectoryConfig;

use crate::support::{BaseFolder, RAW, TestServer, ok_json, sink};

async fn write(server: &TestServer, exchange: &str, task: u32, size: usize) -> reqwest::Response {
    let sink = sink(exchange, task, 0);
    let pages = format!("{sink}/pages?partition=0");
    ok_json(server.post(&pages, RAW, vec![7; size]).await).await;
    server.post_empty(&format!("{sink}/finish")).await
}

const A: &str = "q1-00000000-0000-0000-0000-000000000001";
const B: &str = "q1-00000000-0000-0000-0000-000000000002";
const OTHER: &str = "q2-00000000-0000-0000-0000-000000000003";

/// Story: a query whose join had no condition filled the bucket, and the first bill showed it.
#[tokio::test]
async fn a_query_that_stores_too_much_ends_by_name_and_the_others_and_its_close_do_not() {
    let base_folder = BaseFolder::new();
    let mut config = base_folder.config();
    config.query.max_stored_size = Some(1 << 20);
    let server = TestServer::open(&config).await;
    for exchange in [A, B, OTHER] {
        server.announce(exchange, 1).await;
    }
    ok_json(write(&server, A, 0, 600 << 10).await).await;
    let refused = write(&server, B, 0, 600 << 10).await;
    assert_eq!(refused.status(), 507);
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(problem["type"], "urn:stopover:problem:too-much-stored");
    assert_eq!(problem["retryable"], false);
    let detail = problem["detail"].as_str().unwrap();
    for part in ["query q1 ", "of 1MiB", "raise query.max_stored_size"] {
        assert!(detail.contains(part), "{detail}");
    }
    // Repeated, by another attempt, and to its pages: the same.
    let again = server
        .post_empty(&format!("{}/finish", sink(B, 0, 0)))
        .await;
    assert_eq!(again.status(), 507);
    let pages = format!("{}/pages?partition=0", sink(B, 0, 0));
    assert_eq!(server.post(&pages, RAW, "more").await.status(), 507);
    ok_json(write(&server, B, 1, 300 << 10).await).await;
    ok_json(write(&server, OTHER, 0, 900 << 10).await).await;
    // What its other exchange stored is free once that is closed.
    assert_eq!(write(&server, B, 2, 600 << 10).await.status(), 507);
    assert_eq!(
        server.delete(&format!("/v1/exchanges/{A}")).await.status(),
        204
    );
    ok_json(write(&server, B, 3, 600 << 10).await).await;
    for exchange in [B, OTHER] {
        server.delete(&format!("/v1/exchanges/{exchange}")).await;
    }
    server.expect_all_gauges_at_zero().await;
    server.shut_down().await;
}

/// A file system of its own in memory; only root may mount one.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={size}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "stopover-test"])
            .arg(folder.path())
            .output();
        let mounted = mounted.is_ok_and(|output| output.status.success());
        mounted.then(|| Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

#[tokio::test]
async fn a_file_system_below_min_free_is_full_by_name_and_takes_part_again_once_it_has_room() {
    let Some(mounted) = Mounted::new("32m") else {
        eprintln!("skipped: a file system can only be mounted by root");
        return;
    };
    let mut config = BaseFolder::new().config();
    config.base_directories = vec![BaseDirectoryConfig {
        uri: format!("file://{}", mounted.path().join("base").display()),
        name: "small".into(),
        options: [("min_free".to_owned(), "8MiB".into())].into(),
    }];
    let server = TestServer::open(&config).await;
    server.announce(A, 1).await;
    ok_json(write(&server, A, 0, 1 << 20).await).await;
    std::fs::write(mounted.ballast(), vec![1; 23 << 20]).unwrap();

    let refused = write(&server, A, 1, 1 << 20).await;
    let problem: Value = refused.json().await.unwrap();
    let detail = problem["detail"].as_str().unwrap();
    for part in ["small: writing ", "8MiB must stay free (min_free = 8MiB)"] {
        assert!(detail.contains(part), "{detail}");
    }
    let ready: Value = server.get("/readyz").await.json().await.unwrap();
    assert_eq!(ready["base_directories"][0]["full"], true, "{ready}");
    assert_eq!(ready["ready"], false);
    assert_eq!(
        server.metric("stopover_storage_full{base=\"small\"}").await,
        1
    );
    // What it holds is read, and what closes makes room.
    let read = server.get(&format!("/v1/exchanges/{A}/partitions/0")).await;
    assert_eq!(read.bytes().await.unwrap().len(), 1 << 20);
    assert_eq!(
        server.delete(&format!("/v1/exchanges/{A}")).await.status(),
        204
    );
    std::fs::remove_file(mounted.ballast()).unwrap();
    for _ in 0..400 {
        if server.get("/readyz").await.status() == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(
        server.metric("stopover_storage_full{base=\"small\"}").await,
        0
    );
    server.announce(B, 1).await;
    ok_json(write(&server, B, 0, 1 << 20).await).await;
    server.delete(&format!("/v1/exchanges/{B}")).await;
    server.shut_down().await;
}
