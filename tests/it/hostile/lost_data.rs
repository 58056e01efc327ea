//! Data that is removed underneath: never a shorter result, on any route.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::target::{PAGE, TEXT, Target};
use crate::support::process::Process;
use crate::support::raw::RawClient;

fn segments(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        match entry.path() {
            path if path.is_dir() => found.append(&mut segments(&path)),
            path if path.extension().is_some_and(|extension| extension == "seg") => {
                found.push(path);
            }
            _ => {}
        }
    }
    found
}

/// What a reader receives of partition 0, if the answer says that it is complete.
async fn complete_answer(
    address: SocketAddr,
    line: &str,
    kind: (&str, &str),
    body: &[u8],
) -> Option<Vec<u8>> {
    let mut client = RawClient::connect(address).await;
    let length = body.len().to_string();
    let headers = [kind, ("content-length", &length), ("connection", "close")];
    client.send_head(line, &headers).await;
    client.try_send(body).await;
    let head = client.answer_head().await;
    assert_ne!(head.status, 500, "{line}: {head:?}");
    let rest = client.rest().await;
    let whole = match head.header("content-length") {
        Some(length) => rest.len() == length.parse::<usize>().unwrap(),
        // Chunks: complete if the last one arrived.
        None => rest.ends_with(b"0\r\n\r\n"),
    };
    (head.status == 200 && whole).then_some(rest)
}

/// Story: the curl route answered 200 and an empty body when segments had been deleted underneath,
/// while a read by handle answered with an error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_whose_segments_were_deleted_underneath_is_never_a_shorter_result() {
    let writer = Target::start(64, &[]).await;
    for task in 0..3 {
        writer.announce(&format!("lost-{task}"), 2).await;
        writer.write(&format!("lost-{task}"), 0, PAGE).await;
        writer.write(&format!("lost-{task}"), 1, PAGE).await;
    }
    let handles = [
        writer.handles("lost-0", 0).await.remove(0),
        writer.handles("lost-1", 1).await.remove(0),
    ];
    // Another daemon, which has none of it in memory.
    let reader = Process::start(&writer.base.path().join("base"), &[]);
    let address: SocketAddr = reader.url.strip_prefix("http://").unwrap().parse().unwrap();
    let all = segments(&writer.base.path().join("base"));
    let lost = all
        .iter()
        .filter(|path| path.to_str().unwrap().contains("lost-"));
    let mut removed = 0;
    for path in lost {
        std::fs::remove_file(path).unwrap();
        removed += 1;
    }
    assert!(removed >= 3, "{removed} segments");
    for at in [writer.address, address] {
        for exchange in ["lost-0", "lost-1", "lost-2"] {
            let line = format!("GET /v1/exchanges/{exchange}/partitions/0");
            let read = complete_answer(at, &line, TEXT, b"").await;
            let expected = PAGE.repeat(2);
            assert!(
                read.is_none() || read.as_ref() == Some(&expected),
                "{line}: {read:?}"
            );
        }
        for handle in &handles {
            let read = complete_answer(at, "POST /v1/read", TEXT, handle.as_bytes()).await;
            let holds =
                |read: &[u8], wanted: &[u8]| read.windows(wanted.len()).any(|part| part == wanted);
            // A stream of records ends with its page, or with an error record.
            let told = |read: Vec<u8>| holds(&read, PAGE) || holds(&read, b"urn:stopover:problem:");
            assert!(read.is_none_or(told), "a complete read without its page");
        }
    }
    writer.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_read_counts_in_the_metric_of_bytes_read() {
    let target = Target::start(64, &[]).await;
    let metric = "stopover_pages_read_bytes_total";
    let before: f64 = target.metric(metric).await.iter().sum();
    target
        .send("GET /v1/exchanges/kept/partitions/0", &[], b"")
        .await;
    let read = target.metric(metric).await.iter().sum::<f64>() - before;
    assert!(read >= PAGE.len() as f64, "{read} bytes counted");
    let failures = target.metric("stopover_storage_put_failures_total").await;
    assert!(!failures.is_empty(), "absent until the first failure");
    target.assert_unharmed().await;
}
