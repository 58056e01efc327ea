//! Bodies that claim or cost more than their bytes: handles, batches, announcements.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::join_all;

use super::target::{BATCH, JSON, PAGE, TEXT, Target};
use crate::support::frames::frame;
use crate::support::raw::RawClient;
use crate::support::sink;

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7F) as u8 | 0x80);
        number >>= 7;
    }
    out.push((number & 0x7F) as u8);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// A handle of the exchange with this many ranges of this length, with a right checksum; what a
/// handle held before handles were sealed.
fn forged_handle(exchange: &str, ranges: u64, length: u64) -> String {
    let mut out = vec![1];
    put_text(&mut out, exchange);
    // Partition, page bytes, base directories.
    [0, 0, 1].iter().for_each(|n| put(&mut out, *n));
    put_text(&mut out, "base");
    put(&mut out, 1);
    out.extend_from_slice(&7u64.to_le_bytes());
    put(&mut out, ranges);
    for sequence in 0..ranges {
        // Base directory, daemon, sequence, offset, length, gap, pages.
        let fields = [0, 0, sequence, 64, length, 0, 1];
        fields.iter().for_each(|n| put(&mut out, *n));
        out.extend_from_slice(&[0; 4]);
    }
    let crc = stopover::crc::checksum(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    URL_SAFE_NO_PAD.encode(out)
}

/// Story: 78 bytes, an exchange that was never announced and one range of 2^48-1 bytes: all parts
/// were planned before any was fetched, and the process ended for lack of memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_handle_of_some_bytes_costs_no_memory() {
    let target = Target::start(64, &[]).await;
    let lengths = [
        1,
        33,
        1 << 20,
        1 << 32,
        (1 << 47) - 1,
        (1 << 48) - 1,
        1 << 48,
        u64::MAX,
    ];
    for exchange in ["never-announced", "kept"] {
        for length in lengths {
            let handle = forged_handle(exchange, 1, length);
            let mut client = target.connect().await;
            let size = handle.len().to_string();
            let headers = [TEXT, ("content-length", &size), ("connection", "close")];
            client.send_head("POST /v1/read", &headers).await;
            client.send(&handle).await;
            let answer = String::from_utf8_lossy(&client.rest().await).into_owned();
            // Refused, or a stream that ends with an error.
            assert!(
                answer.contains("urn:stopover:problem:"),
                "{length}: {answer}"
            );
            assert!(!answer.contains(" 500 "), "{length}: {answer}");
        }
    }
    target.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_handle_is_refused_whichever_bit_was_changed() {
    let target = Target::start(64, &[]).await;
    let handle = target.handles("kept", 0).await.remove(0);
    let read = target
        .send("POST /v1/read", &[TEXT], handle.as_bytes())
        .await;
    assert_eq!(read.status, 200, "{read:?}");
    let bytes = URL_SAFE_NO_PAD.decode(&handle).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let changed = URL_SAFE_NO_PAD.encode(changed);
        let answer = target
            .send("POST /v1/read", &[TEXT], changed.as_bytes())
            .await;
        // Another base directory or another key is named, or the seal is wrong.
        let refused = answer.status == 400 || answer.problem_type() == "unknown-base-directory";
        assert!(refused, "bit {bit}: {answer:?}");
    }
    for cut in 0..handle.len() {
        let answer = target
            .send("POST /v1/read", &[TEXT], &handle.as_bytes()[..cut])
            .await;
        assert_eq!(answer.status, 400, "{cut} letters: {answer:?}");
    }
    target.assert_unharmed().await;
}

/// Story: a reader that had sent a handle of very many ranges and then stopped held five times the
/// memory of its body, and its reservation ended before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handles_of_very_many_ranges_cost_no_memory() {
    let target = Target::start(64, &[]).await;
    // 53 MB each.
    let handle = forged_handle("kept", 3_000_000, 33);
    assert!(handle.len() > 50 << 20);
    let mut readers = Vec::new();
    for _ in 0..4 {
        let mut reader = target.connect().await;
        let length = handle.len().to_string();
        let headers = [TEXT, ("content-length", &length)];
        reader.send_head("POST /v1/read", &headers).await;
        reader.try_send(&handle).await;
        readers.push(reader);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    target.assert_unharmed().await;
}

/// Story: four batches of 32 MiB, of pages of one byte that alternate between two partitions,
/// took six times the budget: what a batch costs besides its bytes was counted after it was read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_of_tiny_pages_stay_within_the_budget() {
    let target = Target::start(256, &[]).await;
    let pages = [frame(0, b"x"), frame(1, b"y")].concat();
    let body = pages.repeat((32 << 20) / pages.len());
    let sent = (0..4).map(|task| {
        let line = format!("POST {}/pages?batch=0", sink("kept", 10 + task, 0));
        let (target, body) = (&target, &body);
        async move {
            let mut client = target.connect().await;
            let length = body.len().to_string();
            client
                .send_head(&line, &[BATCH, ("content-length", &length)])
                .await;
            client.try_send(body).await;
            // Taken, refused, or waiting for memory.
            let answer = tokio::time::timeout(Duration::from_secs(20), client.status()).await;
            if let Ok(Some(status)) = answer {
                assert_ne!(status, 500);
            }
            client
        }
    });
    let clients: Vec<RawClient> = join_all(sent).await;
    drop(clients);
    target.assert_unharmed().await;
}

/// Story: two announcements that claimed bodies of 64 MiB and sent nothing kept every request with
/// a body above 16 KiB waiting for `limits.body_timeout`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_announcements_with_large_bodies_delay_no_client() {
    let target = Target::start(64, &[]).await;
    let mut idle = Vec::new();
    for n in 0..8 {
        let mut client = target.connect().await;
        let headers = [JSON, ("content-length", "67108864")];
        let line = format!("PUT /v1/exchanges/idle-{n}");
        client.send_head(&line, &headers).await;
        idle.push(client);
    }
    let attempts = vec![[0, 0]; 3000];
    let body = serde_json::json!({"attempts": attempts, "target_size": 1 << 20}).to_string();
    assert!(body.len() > 16 << 10);
    let asked = Instant::now();
    let line = "POST /v1/exchanges/kept/handles";
    let answer = target.send(line, &[JSON], body.as_bytes()).await;
    assert!(answer.status < 500, "{answer:?}");
    assert!(
        asked.elapsed() < Duration::from_secs(10),
        "{:?}",
        asked.elapsed()
    );
    target.assert_unharmed().await;
}

/// Routes whose bodies are a hundred bytes long accept no body of megabytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_with_small_bodies_refuse_large_ones_by_their_length() {
    let target = Target::start(64, &[]).await;
    let finish = format!("POST {}/finish", sink("kept", 1, 0));
    for line in ["PUT /v1/exchanges/large", &finish] {
        let mut client = target.connect().await;
        let headers = [JSON, ("content-length", "1048576")];
        client.send_head(line, &headers).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 413, "{line}: {answer:?}");
    }
    target.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_that_stop_in_the_middle_keep_no_writer_waiting() {
    let settings = ["--set", "limits.body_timeout=3s"];
    let target = Target::start(64, &settings).await;
    let mut stopped = Vec::new();
    for task in 0..4 {
        let mut client = target.connect().await;
        let line = format!("POST {}/pages?batch=0", sink("kept", 100 + task, 0));
        client
            .send_head(&line, &[BATCH, ("content-length", "16000000")])
            .await;
        client.send(&frame(0, &[7; 10_000])).await;
        stopped.push(client);
    }
    let asked = Instant::now();
    target.write("kept", 1, PAGE).await;
    // Two at a time fit into the memory for writing.
    assert!(
        asked.elapsed() < Duration::from_secs(19),
        "{:?}",
        asked.elapsed()
    );
    target.assert_unharmed_with(&[PAGE, PAGE]).await;
}
