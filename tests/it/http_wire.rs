//! Clients that are slow, disconnect, or send what a well-behaved client would not, byte by byte
//! over TCP.

use std::time::{Duration, Instant};

use serde_json::json;
use stopover::runtime::Random;

use crate::support::frames::batch;
use crate::support::raw::{Http2Client, RawClient};
use crate::support::{BATCH, BaseFolder, RAW, TestServer, ok_json, sink};

const PAGES: &str = "POST /v1/exchanges/w/sinks/0/0/pages?batch=0";

async fn start_server(base_folder: &BaseFolder) -> TestServer {
    let server = TestServer::open(&base_folder.config()).await;
    server.announce("w", 2).await;
    server
}

fn page_head(length: &str) -> [(&str, &str); 2] {
    [("content-type", BATCH), ("content-length", length)]
}

#[tokio::test]
async fn a_body_sent_byte_by_byte_is_accepted_and_blocks_no_other_request() {
    let base_folder = BaseFolder::new();
    let server = start_server(&base_folder).await;
    let body = batch(&[(0, &[7; 200])]);
    let mut slow = RawClient::connect(server.address).await;
    slow.send_head(PAGES, &page_head(&body.len().to_string()))
        .await;
    let other = sink("w", 1, 0);
    for (i, byte) in body.iter().enumerate() {
        slow.send([*byte]).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        if i == 100 {
            server.add(&other, 0, batch(&[(1, b"quick")])).await;
            ok_json(server.post_empty(&format!("{other}/finish")).await).await;
        }
    }
    let answer = slow.answer().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    ok_json(
        server
            .post_empty(&format!("{}/finish", sink("w", 0, 0)))
            .await,
    )
    .await;
    let read = server.get("/v1/exchanges/w/partitions/0").await;
    assert_eq!(read.bytes().await.unwrap(), vec![7; 200]);
    server.shut_down().await;
}

#[tokio::test]
async fn a_client_that_disconnects_within_its_body_leaves_nothing_behind() {
    let base_folder = BaseFolder::new();
    let server = start_server(&base_folder).await;
    for sent in [0, 1, 5000] {
        let mut client = RawClient::connect(server.address).await;
        client.send_head(PAGES, &page_head("1000000")).await;
        client.send(vec![7; sent]).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(
            server.daemon.write_pool.used() >= 1_000_000,
            "no memory is reserved for the body"
        );
        drop(client);
        server.expect_all_gauges_at_zero().await;
    }
    let exchange = ok_json(server.get("/v1/exchanges/w").await).await;
    assert_eq!(exchange["committed"], json!([]));
    server.shut_down().await;
}

#[tokio::test]
async fn a_truncated_body_is_not_accepted() {
    let base_folder = BaseFolder::new();
    let server = start_server(&base_folder).await;
    let body = batch(&[(0, b"one"), (0, b"two")]);
    let first_frame = body.len() / 2;
    let mut client = RawClient::connect(server.address).await;
    client
        .send_head(PAGES, &page_head(&body.len().to_string()))
        .await;
    client.send(&body[..first_frame]).await;
    client.close_sending().await;
    let answer = String::from_utf8(client.rest().await).unwrap();
    assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    server.expect_all_gauges_at_zero().await;
    let accepted = server.add(&sink("w", 0, 0), 0, body).await;
    assert_eq!(accepted["repeated"], false);
    server.shut_down().await;
}

/// A request with some bytes changed, dropped or duplicated.
fn garbled(request: &[u8], random: &Random) -> Vec<u8> {
    let mut garbled = request.to_vec();
    for _ in 0..=random.next_u64() % 4 {
        if garbled.is_empty() {
            break;
        }
        let at = (random.next_u64() as usize) % garbled.len();
        match random.next_u64() % 4 {
            0 => garbled[at] = random.next_u64() as u8,
            1 => drop(garbled.drain(at..(at + 7).min(garbled.len()))),
            2 => garbled.insert(at, garbled[at]),
            _ => garbled.truncate(at.max(1)),
        }
    }
    garbled
}

#[tokio::test]
async fn garbled_requests_cause_no_server_error_and_leave_nothing_behind() {
    let base_folder = BaseFolder::new();
    let mut config = base_folder.config();
    config.limits.header_timeout = Duration::from_millis(200);
    config.limits.body_timeout = Duration::from_millis(200);
    let server = TestServer::open(&config).await;
    server.announce("w", 2).await;
    let body = batch(&[(0, b"some page"), (1, b"another page")]);
    let head = format!(
        "{PAGES} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {BATCH}\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    let pages = [head.as_bytes(), &body].concat();
    let json = br#"{"attempts":[[0,0]],"target_size":1}"#;
    let head = "POST /v1/exchanges/w/handles HTTP/1.1\r\nhost: localhost\r\n\
                content-type: application/json\r\ncontent-length: 36\r\n\r\n";
    let handles = [head.as_bytes(), json].concat();
    let random = Random::seeded(7);
    let mut statuses = std::collections::BTreeMap::<u16, u32>::new();
    for round in 0..300 {
        let request = garbled(if round % 2 == 0 { &pages } else { &handles }, &random);
        let mut client = RawClient::connect(server.address).await;
        client.send(&request).await;
        client.close_sending().await;
        let answer = client.rest().await;
        if let Some(status) = answer.get(9..12) {
            let status = std::str::from_utf8(status).unwrap().parse().unwrap();
            assert!(status < 500, "{}", String::from_utf8_lossy(&request));
            *statuses.entry(status).or_default() += 1;
        }
    }
    assert!(
        statuses.len() >= 4,
        "too few different answers: {statuses:?}"
    );
    server.expect_no_request_in_progress().await;
    assert_eq!(server.delete("/v1/exchanges/w").await.status(), 204);
    server.expect_all_gauges_at_zero().await;
    server.shut_down().await;
}

#[tokio::test]
async fn a_client_that_disconnects_while_it_waits_for_memory_leaves_the_queue() {
    let base_folder = BaseFolder::new();
    let server = start_server(&base_folder).await;
    let pool = &server.daemon.write_pool;
    let all = pool.reserve("q", pool.capacity()).await.unwrap();
    let mut client = RawClient::connect(server.address).await;
    let body = batch(&[(0, b"page")]);
    client
        .send_head(PAGES, &page_head(&body.len().to_string()))
        .await;
    while pool.waiting() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(client);
    drop(all);
    server.expect_all_gauges_at_zero().await;
    server.shut_down().await;
}

#[tokio::test]
async fn a_body_is_not_requested_before_memory_for_all_of_it_is_reserved() {
    let base_folder = BaseFolder::new();
    let server = start_server(&base_folder).await;
    let pool = &server.daemon.write_pool;
    let all = pool.reserve("q", pool.capacity()).await.unwrap();
    let body = batch(&[(0, b"page")]);
    let length = body.len().to_string();
    let mut client = RawClient::connect(server.address).await;
    let [media_type, length] = page_head(&length);
    client
        .send_head(PAGES, &[media_type, length, ("expect", "100-continue")])
        .await;
    let early = tokio::time::timeout(Duration::from_millis(200), client.answer_head()).await;
    assert!(early.is_err(), "{early:?}");
    drop(all);
    assert_eq!(client.answer_head().await.status, 100);
    client.send(body).await;
    assert_eq!(client.answer().await.status, 200);
    server.shut_down().await;
}

#[tokio::test]
async fn a_refusal_replaces_100_continue_and_closes_the_connection() {
    let base_folder = BaseFolder::new();
    let server = start_server(&base_folder).await;
    let refused = [
        (PAGES, "999999999999", BATCH, "body-too-large"),
        (PAGES, "5", "text/plain", "unsupported-media-type"),
        (
            "POST /v1/exchanges/never/sinks/0/0/pages?batch=0",
            "5",
            BATCH,
            "exchange-not-found",
        ),
        ("POST /nowhere", "5", BATCH, "not-found"),
        (
            "POST /v1/exchanges/w/sinks/0/0/pages?partition=9",
            "5",
            RAW,
            "invalid-frame",
        ),
    ];
    for (line, length, media_type, problem_type) in refused {
        let mut client = RawClient::connect(server.address).await;
        let headers = [
            ("content-type", media_type),
            ("content-length", length),
            ("expect", "100-continue"),
        ];
        client.send_head(line, &headers).await;
        let answer = client.answer().await;
        assert_eq!(answer.problem_type(), problem_type);
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(client.is_closed().await);
    }
    server.shut_down().await;
}

#[tokio::test]
async fn a_client_that_sends_its_whole_body_first_receives_the_refusal() {
    let base_folder = BaseFolder::new();
    let server = start_server(&base_folder).await;
    let length = 40 << 20;
    let mut client = RawClient::connect(server.address).await;
    client
        .send_head(PAGES, &page_head(&length.to_string()))
        .await;
    client.send(vec![7; length]).await;
    assert_eq!(client.answer().await.problem_type(), "body-too-large");
    server.shut_down().await;
}

#[tokio::test]
async fn a_chunked_page_request_is_refused_with_length_required() {
    let base_folder = BaseFolder::new();
    let server = start_server(&base_folder).await;
    let mut client = RawClient::connect(server.address).await;
    let headers = [("content-type", BATCH), ("transfer-encoding", "chunked")];
    client.send_head(PAGES, &headers).await;
    client.send("5\r\nhello\r\n0\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!(
        (answer.status, answer.problem_type().as_str()),
        (411, "length-required")
    );
    server.shut_down().await;
}

#[tokio::test]
async fn a_content_length_beside_chunked_encoding_smuggles_no_second_request() {
    let base_folder = BaseFolder::new();
    let server = start_server(&base_folder).await;
    let mut client = RawClient::connect(server.address).await;
    let smuggled = "0\r\n\r\nDELETE /v1/exchanges/w HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let length = smuggled.len().to_string();
    let headers = [
        ("content-type", BATCH),
        ("content-length", &length),
        ("transfer-encoding", "chunked"),
    ];
    client.send_head(PAGES, &headers).await;
    client.send(smuggled).await;
    assert!((400..500).contains(&client.answer().await.status));
    assert_eq!(server.get("/v1/exchanges/w").await.status(), 200);
    server.shut_down().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let base_folder = BaseFolder::new();
    let server = start_server(&base_folder).await;
    let mut client = RawClient::connect(server.address).await;
    let mut wire = Vec::new();
    for number in 0..5u8 {
        let body = batch(&[(0, &[number; 10])]);
        let path = format!("/v1/exchanges/w/sinks/0/0/pages?batch={number}");
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {BATCH}\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        wire.extend(head.into_bytes());
        wire.extend(body);
    }
    client.send(wire).await;
    for number in 0..5 {
        let answer = client.answer().await;
        let accepted: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        let expected = json!({"batch": number, "next": number + 1, "repeated": false});
        assert_eq!((answer.status, accepted), (200, expected));
    }
    server.shut_down().await;
}

#[tokio::test]
async fn a_connection_stays_usable_after_a_refusal_whose_body_was_read() {
    let base_folder = BaseFolder::new();
    let server = start_server(&base_folder).await;
    let mut client = RawClient::connect(server.address).await;
    for _ in 0..2 {
        client.send_head(PAGES, &page_head("5")).await;
        client.send("short").await;
        let answer = client.answer().await;
        assert_eq!(
            (answer.problem_type().as_str(), answer.header("connection")),
            ("invalid-frame", None)
        );
    }
    client.send_head("GET /nowhere", &[]).await;
    assert_eq!(client.answer().await.problem_type(), "not-found");
    client.send_head("HEAD /healthz", &[]).await;
    assert_eq!(client.answer_head().await.status, 200);
    server.shut_down().await;
}

#[tokio::test]
async fn targets_and_heads_beyond_the_limits_are_refused() {
    let base_folder = BaseFolder::new();
    let server = start_server(&base_folder).await;
    let mut client = RawClient::connect(server.address).await;
    client
        .send_head(&format!("GET /{}", "x".repeat(5000)), &[])
        .await;
    assert_eq!(client.answer().await.problem_type(), "invalid-request");
    let names: Vec<String> = (0..65).map(|i| format!("x-{i}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "y")).collect();
    client.send_head("GET /healthz", &many).await;
    assert_eq!(client.answer().await.status, 431);
    server.shut_down().await;
}

#[tokio::test]
async fn a_read_whose_client_disconnects_releases_its_memory() {
    let base_folder = BaseFolder::new();
    let server = start_server(&base_folder).await;
    let sink = sink("w", 0, 0);
    let page = vec![7; 1 << 20];
    for number in 0..20 {
        server.add(&sink, number, batch(&[(0, &page)])).await;
    }
    ok_json(server.post_empty(&format!("{sink}/finish")).await).await;
    let mut client = RawClient::connect(server.address).await;
    client
        .send_head("GET /v1/exchanges/w/partitions/0", &[])
        .await;
    let head = client.answer_head().await;
    assert_eq!(head.header("content-length"), Some("20971520"));
    drop(client);
    assert_eq!(server.delete("/v1/exchanges/w").await.status(), 204);
    server.expect_all_gauges_at_zero().await;
    server.shut_down().await;
}

#[tokio::test]
async fn a_reader_that_receives_nothing_is_cut_off_and_its_memory_released() {
    let base_folder = BaseFolder::new();
    let mut config = base_folder.config();
    config.limits.response_stall_timeout = Duration::from_millis(300);
    let server = TestServer::open(&config).await;
    server.announce("w", 2).await;
    let sink = sink("w", 0, 0);
    let page = vec![7; 1 << 20];
    for number in 0..30 {
        server.add(&sink, number, batch(&[(0, &page)])).await;
    }
    ok_json(server.post_empty(&format!("{sink}/finish")).await).await;
    let mut client = RawClient::connect(server.address).await;
    client
        .send_head("GET /v1/exchanges/w/partitions/0", &[])
        .await;
    assert_eq!(client.answer_head().await.status, 200);
    server.expect_no_request_in_progress().await;
    server.shut_down().await;
}

#[tokio::test]
async fn a_coordinator_that_receives_no_handles_is_cut_off_and_its_footers_released() {
    let base_folder = BaseFolder::new();
    let mut config = base_folder.config();
    config.limits.response_stall_timeout = Duration::from_millis(300);
    config.server.http2 = true;
    let (writer, planner) = (
        TestServer::open(&config).await,
        TestServer::open(&config).await,
    );
    writer.announce("w", 10_000).await;
    let sink = sink("w", 0, 0);
    let pages: Vec<(u32, &[u8])> = (0..10_000).map(|p| (p, &b"page"[..])).collect();
    writer.add(&sink, 0, batch(&pages)).await;
    ok_json(writer.post_empty(&format!("{sink}/finish")).await).await;
    // Over HTTP/2 the connection itself is idle, not stalled: the client opens no flow-control
    // window.
    let mut client = Http2Client::connect(planner.address).await;
    let wanted = br#"{"attempts":[[0,0]],"target_size":1}"#;
    client
        .send_request("/v1/exchanges/w/handles", "application/json", wanted)
        .await;
    let (pool, commits) = (&planner.daemon.read_pool, &planner.daemon.catalog);
    let deadline = Instant::now() + Duration::from_secs(10);
    while commits.footer_bytes() == 0 {
        assert!(Instant::now() < deadline, "no plan was started");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(pool.try_reserve("r", pool.capacity()).is_none(), "planning");
    while pool.try_reserve("r", pool.capacity()).is_none() {
        assert!(
            Instant::now() < deadline,
            "{} bytes are still reserved",
            pool.used()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    writer.shut_down().await;
    drop(client);
    planner.shut_down().await;
}

#[tokio::test]
async fn an_idle_connection_stays_open_for_the_advertised_keep_alive() {
    let base_folder = BaseFolder::new();
    let mut config = base_folder.config();
    config.limits.header_timeout = Duration::from_millis(2500);
    let server = TestServer::open(&config).await;
    let mut client = RawClient::connect(server.address).await;
    for _ in 0..2 {
        client.send_head("GET /healthz", &[]).await;
        let answer = client.answer().await;
        assert_eq!(answer.header("keep-alive"), Some("timeout=2"));
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    assert!(client.is_closed().await);
    server.shut_down().await;
}

#[tokio::test]
async fn a_read_beyond_the_limit_waits_until_another_ends() {
    let base_folder = BaseFolder::new();
    let mut config = base_folder.config();
    config.limits.max_concurrent_reads = 1;
    let server = TestServer::open(&config).await;
    server.announce("w", 2).await;
    let sink = sink("w", 0, 0);
    let page = vec![7; 1 << 20];
    for number in 0..30 {
        server.add(&sink, number, batch(&[(0, &page)])).await;
    }
    server.add(&sink, 30, batch(&[(1, b"quick")])).await;
    ok_json(server.post_empty(&format!("{sink}/finish")).await).await;
    let mut first = RawClient::connect(server.address).await;
    first
        .send_head("GET /v1/exchanges/w/partitions/0", &[])
        .await;
    assert_eq!(first.answer_head().await.status, 200);
    let mut second = Box::pin(server.get("/v1/exchanges/w/partitions/1"));
    let early = tokio::time::timeout(Duration::from_millis(200), &mut second).await;
    assert!(early.is_err(), "two reads run at the same time");
    drop(first);
    assert_eq!((&mut second).await.bytes().await.unwrap(), "quick");
    drop(second);
    server.shut_down().await;
}

#[tokio::test]
async fn the_same_routes_work_over_clear_text_http2() {
    let base_folder = BaseFolder::new();
    let mut config = base_folder.config();
    config.server.http2 = true;
    let server = TestServer::open(&config).await;
    server.announce("w", 2).await;
    let path = PAGES.strip_prefix("POST ").unwrap();
    let body = batch(&[(1, b"over HTTP/2")]);
    let mut answers = Vec::new();
    for (path, body) in [
        (path, body.as_slice()),
        ("/v1/exchanges/w/sinks/0/0/finish", b"{}"),
        (
            "/v1/exchanges/w/sinks/0/0/finish",
            br#"{"batches":1,"pages":1,"bytes":11}"#,
        ),
    ] {
        let media_type = if path.ends_with("finish") {
            "application/json"
        } else {
            BATCH
        };
        let mut client = Http2Client::connect(server.address).await;
        let answer = client.post(path, media_type, body).await;
        answers.push(serde_json::from_slice::<serde_json::Value>(&answer).unwrap());
    }
    assert_eq!(
        answers[0],
        json!({"batch": 0, "next": 1, "repeated": false})
    );
    assert_eq!(answers[1]["type"], "urn:stopover:problem:invalid-request");
    assert_eq!(answers[2]["state"], "finished");
    let read = server.get("/v1/exchanges/w/partitions/1").await;
    assert_eq!(read.bytes().await.unwrap(), "over HTTP/2");
    server.shut_down().await;
}
