//! Promise 7 between queries: none starves another, and what one may use at a time is bounded.
//!
//! Exchange ids here have the form that the plugin gives them: the query, then a UUID.

use std::time::Duration;

use stopover::id::ExchangeId;

use crate::support::frames::batch;
use crate::support::raw::RawClient;
use crate::support::{BATCH, BaseFolder, TestServer, ok_json, sink};

const GREEDY: &str = "greedy-67e55044-10b1-426f-9247-bb680e5fe0c8";
const GREEDY_TOO: &str = "greedy-0f5c1d4e-7a0b-4a4f-8f6e-1f2d3c4b5a69";
const MODEST: &str = "modest-67e55044-10b1-426f-9247-bb680e5fe0c8";

const MIB: usize = 1 << 20;

/// A page request whose body never arrives: it holds, or waits for, memory for all of the body.
async fn silent_batch(server: &TestServer, exchange: &str, task: u32, bytes: usize) -> RawClient {
    let mut client = RawClient::connect(server.address).await;
    let line = format!("POST {}/pages?batch=0", sink(exchange, task, 0));
    let length = bytes.to_string();
    let headers = [("content-type", BATCH), ("content-length", length.as_str())];
    client.send_head(&line, &headers).await;
    client
}

/// Writes and finishes an attempt with `count` pages of 1 MiB in partition 0.
async fn write_mebibytes(server: &TestServer, exchange: &str, task: u32, count: u32) {
    let (sink, page) = (sink(exchange, task, 0), vec![7; MIB]);
    for number in 0..count {
        server.add(&sink, number, batch(&[(0, &page)])).await;
    }
    ok_json(server.post_empty(&format!("{sink}/finish")).await).await;
}

/// A read of partition 0 whose client does not read the body.
async fn stuck_read(server: &TestServer, exchange: &str) -> RawClient {
    let mut client = RawClient::connect(server.address).await;
    let line = format!("GET /v1/exchanges/{exchange}/partitions/0");
    client.send_head(&line, &[]).await;
    assert_eq!(client.answer_head().await.status, 200);
    client
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("not within 10 s: {what}");
}

#[tokio::test]
async fn a_batch_waits_for_one_batch_of_another_query_not_for_its_whole_queue() {
    let base_folder = BaseFolder::new();
    let server = TestServer::open(&base_folder.config()).await;
    server.announce(GREEDY, 1).await;
    server.announce(MODEST, 1).await;
    let pool = &server.daemon.write_pool;
    let all = pool.reserve("holder", pool.capacity()).await.unwrap();
    // Only three of these fit at a time, and none of them completes. Each waits for what it is
    // expected to need besides its bytes, too.
    let large = pool.capacity() / 4;
    let waiting = 50 * (large + large / 8);
    let mut silent = Vec::new();
    for task in 0..50 {
        silent.push(silent_batch(&server, GREEDY, task, large as usize).await);
    }
    eventually("all fifty batches wait", || pool.waiting() == waiting).await;
    let (sink, page) = (sink(MODEST, 0, 0), batch(&[(0, b"one small page")]));
    let one = server.add(&sink, 0, page);
    let release = async {
        eventually("the small batch waits", || pool.waiting() > waiting).await;
        drop(all);
    };
    tokio::time::timeout(Duration::from_secs(30), async {
        tokio::join!(one, release)
    })
    .await
    .expect("one small batch waited for fifty others");
    drop(silent);
    ok_json(server.post_empty(&format!("{sink}/finish")).await).await;
    server.shut_down().await;
}

#[tokio::test]
async fn a_query_at_its_memory_limit_waits_without_failing_or_blocking_others() {
    let base_folder = BaseFolder::new();
    let mut config = base_folder.config();
    config.query.max_write_memory = Some(2 << 20);
    config.limits.max_batch_size = 2 << 20;
    config.limits.max_page_size = 1 << 20;
    let server = TestServer::open(&config).await;
    for exchange in [GREEDY, GREEDY_TOO, MODEST] {
        server.announce(exchange, 1).await;
    }
    let silent = silent_batch(&server, GREEDY, 9, 2 * MIB).await;
    let pool = &server.daemon.write_pool;
    eventually("the query holds all that it may", || pool.used() == 2 << 20).await;
    // The limit applies to all exchanges of a query together.
    let (same, page) = (sink(GREEDY_TOO, 0, 0), vec![7; MIB]);
    let mut waits = Box::pin(server.add(&same, 0, batch(&[(0, &page)])));
    let early = tokio::time::timeout(Duration::from_millis(200), &mut waits).await;
    assert!(early.is_err(), "the query exceeds its limit");
    assert_eq!(pool.shortage().limited.len(), 1);
    write_mebibytes(&server, MODEST, 0, 8).await;
    drop(silent);
    waits.await;
    // The query writes many times its limit, one segment at a time.
    write_mebibytes(&server, GREEDY, 0, 12).await;
    let held = pool.queries();
    assert!(held.iter().all(|(_, held, _)| *held <= 2 << 20), "{held:?}");
    let read = server
        .get(&format!("/v1/exchanges/{GREEDY}/partitions/0"))
        .await;
    assert_eq!(read.bytes().await.unwrap().len(), 12 * MIB);
    server.shut_down().await;
}

#[tokio::test]
async fn many_sinks_of_a_query_with_a_low_limit_finish_without_waiting_for_full_segments() {
    let base_folder = BaseFolder::new();
    let mut config = base_folder.config();
    config.query.max_write_memory = Some(2 << 20);
    config.limits.max_batch_size = 1 << 20;
    config.limits.max_page_size = 1 << 19;
    let server = TestServer::open(&config).await;
    server.announce(GREEDY, 1).await;
    server.announce(GREEDY_TOO, 1).await;
    let page = vec![7; 300_000];
    let sinks = (0..20).map(|task| {
        let (server, page) = (&server, &page);
        async move {
            let exchange = if task % 2 == 0 { GREEDY } else { GREEDY_TOO };
            let sink = sink(exchange, task, 0);
            for number in 0..4 {
                server.add(&sink, number, batch(&[(0, page)])).await;
            }
            ok_json(server.post_empty(&format!("{sink}/finish")).await).await;
        }
    });
    futures::future::join_all(sinks).await;
    for exchange in [GREEDY, GREEDY_TOO] {
        let read = server
            .get(&format!("/v1/exchanges/{exchange}/partitions/0"))
            .await;
        assert_eq!(read.bytes().await.unwrap().len(), 10 * 4 * 300_000);
        server.delete(&format!("/v1/exchanges/{exchange}")).await;
    }
    server.expect_all_gauges_at_zero().await;
    server.shut_down().await;
}

#[tokio::test]
async fn reads_of_one_query_do_not_use_the_slots_of_another() {
    let base_folder = BaseFolder::new();
    let mut config = base_folder.config();
    config.limits.max_concurrent_reads = 2;
    config.query.max_concurrent_reads = Some(1);
    let server = TestServer::open(&config).await;
    for exchange in [GREEDY, MODEST] {
        server.announce(exchange, 1).await;
        write_mebibytes(&server, exchange, 0, 12).await;
    }
    let stuck = stuck_read(&server, GREEDY).await;
    let path = format!("/v1/exchanges/{GREEDY}/partitions/0");
    let mut second = Box::pin(server.get(&path));
    let early = tokio::time::timeout(Duration::from_millis(200), &mut second).await;
    assert!(
        early.is_err(),
        "two reads of one query run at the same time"
    );
    let read = server
        .get(&format!("/v1/exchanges/{MODEST}/partitions/0"))
        .await;
    assert_eq!(read.bytes().await.unwrap().len(), 12 * MIB);
    // The stuck read is cut off because another one waits for its slot.
    let served = tokio::time::timeout(Duration::from_secs(30), second).await;
    let served = served.expect("the stuck read kept its slot");
    assert_eq!(served.bytes().await.unwrap().len(), 12 * MIB);
    drop(stuck);
    server.expect_no_request_in_progress().await;
    server.shut_down().await;
}

#[tokio::test]
async fn a_stalled_reader_of_hot_segments_does_not_keep_writers_from_memory() {
    let base_folder = BaseFolder::new();
    let server = TestServer::open(&base_folder.config()).await;
    server.announce(GREEDY, 1).await;
    write_mebibytes(&server, GREEDY, 0, 24).await;
    let mut stuck = Vec::new();
    for _ in 0..4 {
        stuck.push(stuck_read(&server, GREEDY).await);
    }
    // The hot segments are evicted at once, but the responses hold their bytes until the stall
    // timeout, which is short under contention.
    let pool = &server.daemon.write_pool;
    let id: ExchangeId = MODEST.parse().unwrap();
    let all = pool.reserve(id.query(), pool.capacity());
    let granted = tokio::time::timeout(Duration::from_secs(30), all).await;
    assert!(granted.is_ok(), "{:?}", pool.queries());
    drop(stuck);
    server.shut_down().await;
}
