//! Traces of requests, at a collector of the tests' own, and a collector that is slow or away.

use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::trace::v1::Span;
use reqwest::{Method, StatusCode};
use serde_json::json;
use stopover::config::Config;
use stopover::telemetry::metrics::DropReason;

use crate::support::collector::{Behaviour, Collector, attribute, failed};
use crate::support::frames::batch;
use crate::support::{BATCH, BaseFolder, TestServer, ok_json, sink};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// The header of a caller with this span.
fn traceparent(span: u64, flags: &str) -> String {
    format!("00-{TRACE}-{span:016x}-{flags}")
}

fn traced(folder: &BaseFolder, collector: &Collector) -> Config {
    let mut config = folder.config();
    config.tracing.collector = Some(collector.url.clone());
    config.tracing.service_name = "spool".into();
    config.tracing.headers = vec![("authorization".into(), "Bearer hush".into())];
    config.tracing.export_interval = Duration::from_millis(5);
    config
}

/// Sends a request below the caller's span; it must succeed.
async fn call(
    server: &TestServer,
    (method, path): (Method, &str),
    span: u64,
    body: impl Into<reqwest::Body>,
) -> String {
    let body = body.into();
    let mut request = server.request(method, path);
    request = request.header("traceparent", traceparent(span, "01"));
    request = request.header(
        "content-type",
        match path {
            path if path.contains("/pages") => BATCH,
            "/v1/read" => "text/plain",
            _ => "application/json",
        },
    );
    if body.as_bytes().is_some_and(<[u8]>::is_empty) {
        request = request.header("content-length", "0");
    }
    let response = request.body(body).send().await.unwrap();
    let status = response.status();
    let bytes = response.bytes().await.unwrap();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert!(status.is_success(), "{path}: {text}");
    text
}

/// The only span of this name.
fn only<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let found: Vec<&Span> = spans.iter().filter(|span| span.name == name).collect();
    assert_eq!(found.len(), 1, "{name}: {found:#?}");
    found[0]
}

/// The only span of this name for this task.
fn of_task<'a>(spans: &'a [Span], name: &str, task: u32) -> &'a Span {
    let task = Some(task.to_string());
    let found = spans
        .iter()
        .filter(|span| span.name == name && attribute(span, "stopover.task") == task);
    let found: Vec<&Span> = found.collect();
    assert_eq!(found.len(), 1, "{name}: {found:#?}");
    found[0]
}

fn below(spans: &[Span], parent: &Span, name: &str) -> usize {
    let below = |span: &&Span| span.parent_span_id == parent.span_id && span.name == name;
    spans.iter().filter(below).count()
}

#[tokio::test]
async fn the_trace_of_a_query_shows_what_its_requests_did_and_waited_for() {
    let collector = Collector::start(Behaviour::default()).await;
    let folder = BaseFolder::new();
    let mut config = traced(&folder, &collector);
    config.segment.commit_linger = Duration::from_secs(10);
    let server = TestServer::open(&config).await;
    let announcement = json!({"partitions": 1, "ordered": false}).to_string();
    call(&server, (Method::PUT, "/v1/exchanges/q1"), 1, announcement).await;
    for task in [0, 1] {
        let at = sink("q1", task, 0);
        call(&server, (Method::PUT, &at), 2, "").await;
        let pages = format!("{at}/pages?batch=0");
        let body = batch(&[(0, b"a page")]);
        call(&server, (Method::POST, &pages), 10 + u64::from(task), body).await;
    }
    let (first, second) = (sink("q1", 0, 0) + "/finish", sink("q1", 1, 0) + "/finish");
    // Both commit with one segment: each waits for the other, which was declared.
    tokio::join!(
        call(&server, (Method::POST, &first), 20, ""),
        call(&server, (Method::POST, &second), 21, ""),
    );
    // Another daemon has nothing in memory.
    let reader = TestServer::open(&traced(&folder, &collector)).await;
    let chosen = json!({"attempts": [[0, 0], [1, 0]], "target_size": 1 << 20}).to_string();
    let lines = call(
        &reader,
        (Method::POST, "/v1/exchanges/q1/handles"),
        30,
        chosen,
    )
    .await;
    let line: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    let handle = line["handle"].as_str().unwrap().to_owned();
    call(&reader, (Method::POST, "/v1/read"), 40, handle).await;
    server.shut_down().await;
    reader.shut_down().await;
    expect_the_whole_trace(&collector.spans());
    assert_eq!(collector.resource("service.name").as_deref(), Some("spool"));
    assert!(collector.resource("service.instance.id").is_some());
    assert_eq!(collector.header("content-type"), "application/x-protobuf");
    assert_eq!(collector.header("authorization"), "Bearer hush");
}

/// Names, parents and links of the spans of one query.
fn expect_the_whole_trace(spans: &[Span]) {
    assert!(
        spans.iter().all(|span| hex(&span.trace_id) == TRACE),
        "{spans:#?}"
    );
    let parent = |span: &Span| u64::from_be_bytes(span.parent_span_id[..].try_into().unwrap());
    let (sink_0, sink_1) = (of_task(spans, "sink", 0), of_task(spans, "sink", 1));
    for (name, task, caller) in [("batch", 0, 10), ("batch", 1, 11), ("finish", 0, 20)] {
        assert_eq!(parent(of_task(spans, name, task)), caller, "{name} {task}");
    }
    let batch_0 = of_task(spans, "batch", 0);
    assert_eq!(
        attribute(batch_0, "stopover.exchange").as_deref(),
        Some("q1")
    );
    assert_eq!(below(spans, batch_0, "sink"), 1);
    assert_eq!(
        attribute(sink_0, "stopover.outcome").as_deref(),
        Some("finished")
    );
    let segment = only(spans, "segment");
    assert_eq!(segment.parent_span_id, sink_0.span_id);
    let links: Vec<_> = segment.links.iter().map(|link| &link.span_id).collect();
    assert_eq!(links, [&sink_1.span_id]);
    assert_eq!(below(spans, segment, "PUT"), 1);
    let plan = only(spans, "plan");
    assert_eq!(parent(plan), 30);
    assert!(below(spans, plan, "LIST") >= 1 && below(spans, plan, "GET") >= 1);
    let read = only(spans, "read");
    assert_eq!((parent(read), below(spans, read, "GET")), (40, 1));
    assert!(spans.iter().all(|span| !failed(span)), "{spans:#?}");
    assert!(
        spans
            .iter()
            .all(|span| span.end_time_unix_nano >= span.start_time_unix_nano)
    );
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn the_span_of_a_sink_tells_that_it_was_aborted() {
    let collector = Collector::start(Behaviour::default()).await;
    let folder = BaseFolder::new();
    let server = TestServer::open(&traced(&folder, &collector)).await;
    let announcement = json!({"partitions": 1, "ordered": false}).to_string();
    call(&server, (Method::PUT, "/v1/exchanges/q1"), 1, announcement).await;
    let at = sink("q1", 3, 0);
    let pages = format!("{at}/pages?batch=0");
    let body = batch(&[(0, b"a page")]);
    call(&server, (Method::POST, &pages), 10, body).await;
    let abort = format!("{at}/abort");
    call(&server, (Method::POST, &abort), 11, "").await;
    server.shut_down().await;
    let spans = collector.spans();
    let aborted = of_task(&spans, "sink", 3);
    assert_eq!(
        attribute(aborted, "stopover.outcome").as_deref(),
        Some("aborted")
    );
}

#[tokio::test]
async fn a_wait_for_memory_is_a_span_of_the_batch_that_waits_and_of_no_other() {
    let collector = Collector::start(Behaviour::default()).await;
    let folder = BaseFolder::new();
    let server = TestServer::open(&traced(&folder, &collector)).await;
    server.announce("q1", 1).await;
    let pool = server.daemon.write_pool.clone();
    let held = pool.try_reserve("another", pool.capacity()).unwrap();
    let release = async {
        while pool.waiting() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(held);
    };
    let waits = sink("q1", 1, 0) + "/pages?batch=0";
    let waiting = call(&server, (Method::POST, &waits), 2, batch(&[(0, b"later")]));
    tokio::join!(waiting, release);
    let at_once = sink("q1", 0, 0) + "/pages?batch=0";
    let body = batch(&[(0, b"at once")]);
    call(&server, (Method::POST, &at_once), 1, body).await;
    server.shut_down().await;
    let spans = collector.spans();
    let wait = only(&spans, "wait for memory");
    assert_eq!(wait.parent_span_id, of_task(&spans, "batch", 1).span_id);
}

#[tokio::test]
async fn a_request_that_fails_or_whose_client_leaves_is_a_failed_span() {
    let collector = Collector::start(Behaviour::default()).await;
    let folder = BaseFolder::new();
    let server = TestServer::open(&traced(&folder, &collector)).await;
    server.announce("q1", 1).await;
    let pool = server.daemon.write_pool.clone();
    let held = pool.try_reserve("another", pool.capacity() - pool.used());
    let pages = sink("q1", 0, 0) + "/pages?batch=0";
    let leaves = server.post(&pages, BATCH, batch(&[(0, b"never")]));
    assert!(
        tokio::time::timeout(Duration::from_millis(200), leaves)
            .await
            .is_err()
    );
    server.expect_no_request_in_progress().await;
    drop(held);
    let refused = server.post_empty(&(sink("q1", 7, 0) + "/finish")).await;
    assert_eq!(refused.status(), StatusCode::NOT_FOUND);
    server.shut_down().await;
    let spans = collector.spans();
    assert!(failed(of_task(&spans, "batch", 0)));
    let refused = of_task(&spans, "finish", 7);
    assert_eq!(
        attribute(refused, "http.response.status_code").as_deref(),
        Some("404")
    );
    assert!(!failed(refused), "the client is at fault, not the daemon");
}

#[tokio::test]
async fn the_caller_decides_what_is_sampled_unless_configured_otherwise() {
    let (folder, collector) = (
        BaseFolder::new(),
        Collector::start(Behaviour::default()).await,
    );
    let list = async |server: &TestServer, flags: &str| {
        let request = server.request(Method::GET, "/v1/exchanges");
        let request = request.header("traceparent", traceparent(1, flags));
        ok_json(request.send().await.unwrap()).await;
    };
    for (parent_based, ratio, flags, sampled) in [
        (true, 1.0, "00", false),
        (true, 0.0, "01", true),
        (false, 0.0, "01", false),
        (false, 1.0, "00", true),
    ] {
        let mut config = traced(&folder, &collector);
        config.tracing.parent_based = parent_based;
        config.tracing.sampling_ratio = ratio;
        let server = TestServer::open(&config).await;
        let before = collector.spans().len();
        list(&server, flags).await;
        server.shut_down().await;
        let named = collector.spans()[before..]
            .iter()
            .any(|span| span.name == "list exchanges");
        assert_eq!(named, sampled, "{parent_based} {ratio} {flags}");
    }
}

#[tokio::test]
async fn what_watches_the_daemon_or_is_refused_a_token_is_not_traced() {
    let (folder, collector) = (
        BaseFolder::new(),
        Collector::start(Behaviour::default()).await,
    );
    let tokens = folder.path().join("tokens");
    std::fs::write(&tokens, "a-token-of-enough-length\n").unwrap();
    let mut config = traced(&folder, &collector);
    config.base_directories[0].uri += "/base";
    config.server.token_file = Some(tokens);
    let mut server = TestServer::open(&config).await;
    let refused = server.get("/v1/exchanges").await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    server.token = Some("a-token-of-enough-length".into());
    for path in [
        "/healthz",
        "/readyz",
        "/metrics",
        "/",
        "/v1/daemon",
        "/v1/nothing",
    ] {
        server.get(path).await;
    }
    server.shut_down().await;
    assert_eq!(collector.spans(), []);
}

#[tokio::test]
async fn without_an_endpoint_no_request_has_a_span() {
    let folder = BaseFolder::new();
    let server = TestServer::open(&folder.config()).await;
    let header = |_: &str| Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    assert!(!server.daemon.traces.is_on());
    assert!(server.daemon.traces.start("batch", header).is_none());
    server.announce("q1", 1).await;
    assert_eq!(server.metric("stopover_spans_exported_total").await, 0);
    server.shut_down().await;
}

/// Writes `count` batches, which must all be accepted.
async fn write(server: &TestServer, count: u32) {
    server.announce("q1", 1).await;
    for number in 0..count {
        server
            .add(&sink("q1", 0, 0), number, batch(&[(0, b"a page")]))
            .await;
    }
    server.post_empty(&(sink("q1", 0, 0) + "/finish")).await;
}

#[tokio::test]
async fn a_collector_that_hangs_costs_spans_and_neither_requests_nor_the_stop() {
    let hangs = Behaviour {
        hangs: true,
        ..Behaviour::default()
    };
    let (folder, collector) = (BaseFolder::new(), Collector::start(hangs).await);
    let mut config = traced(&folder, &collector);
    config.tracing.max_queue_size = 8;
    config.tracing.max_batch_size = 4;
    config.tracing.export_timeout = Duration::from_secs(1);
    let server = TestServer::open(&config).await;
    write(&server, 50).await;
    let dropped = r#"stopover_spans_dropped_total{reason="queue_full"}"#;
    assert!(server.metric(dropped).await >= 30);
    let metrics = server.daemon.metrics.clone();
    let stopping = Instant::now();
    server.shut_down().await;
    assert!(
        stopping.elapsed() < Duration::from_secs(15),
        "bounded by export_timeout"
    );
    assert!(metrics.dropped_spans(DropReason::ExportFailed) >= 1);
    assert!(collector.requests() >= 1 && collector.spans().is_empty());
}

#[tokio::test]
async fn a_collector_that_is_away_loses_counted_spans_and_no_request_fails() {
    let folder = BaseFolder::new();
    let mut config = folder.config();
    // Nothing listens there: the port is reserved, and the listener is gone.
    let gone = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    config.tracing.collector = Some(format!("http://{gone}/v1/traces").parse().unwrap());
    config.tracing.export_timeout = Duration::from_millis(200);
    let server = TestServer::open(&config).await;
    write(&server, 10).await;
    let metrics = server.daemon.metrics.clone();
    server.shut_down().await;
    assert!(metrics.dropped_spans(DropReason::ExportFailed) >= 10);
    assert_eq!(metrics.spans_exported.get(), 0);
}

#[tokio::test]
async fn spans_that_a_collector_could_not_take_are_sent_again() {
    let behaviour = Behaviour {
        unavailable: AtomicU32::new(1),
        ..Behaviour::default()
    };
    let (folder, collector) = (BaseFolder::new(), Collector::start(behaviour).await);
    let server = TestServer::open(&traced(&folder, &collector)).await;
    server.announce("q1", 1).await;
    collector.expect_spans(1).await;
    assert!(collector.requests() >= 2);
    let metrics = server.daemon.metrics.clone();
    server.shut_down().await;
    assert_eq!(metrics.dropped_spans(DropReason::ExportFailed), 0);
}
