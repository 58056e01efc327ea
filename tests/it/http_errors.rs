//! Provokes every error of the table in docs/protocol.md that a client or a store can cause.

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use stopover::api::problem::ProblemType;

use crate::support::frames::{End, batch, frame, parse};
use crate::support::{BATCH, BaseFolder, RAW, TestServer, ok_json, sink};

/// An answer and the problem type that it must have.
type Case = (ProblemType, Response);

/// Checks an answer against the table and returns the problem.
async fn check(problem_type: ProblemType, response: Response) -> Value {
    let (url, status) = (response.url().clone(), response.status().as_u16());
    let media_type = response.headers().get("content-type").cloned();
    let text = response.text().await.unwrap();
    assert_eq!(
        media_type.unwrap(),
        "application/problem+json",
        "{url}: {text}"
    );
    let problem: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(problem["type"], problem_type.urn(), "{url}: {text}");
    assert_eq!(status, problem_type.status(), "{url}: {text}");
    assert_eq!(problem["status"], problem_type.status());
    assert_eq!(problem["retryable"], problem_type.retryable());
    assert_eq!(problem["title"], problem_type.title());
    assert!(problem["detail"].as_str().unwrap().len() > 10, "{text}");
    problem
}

const MALFORMED_ANNOUNCEMENTS: [&str; 4] = [
    "",
    "{",
    r#"{"partitions":1}"#,
    r#"{"partitions":1,"ordered":false,"x":1}"#,
];

async fn malformed(server: &TestServer) -> Vec<Case> {
    let pages = format!("{}/pages", sink("e", 0, 0));
    let page = || batch(&[(0, b"x")]);
    let mut answers = vec![
        server.get("/v1/exchanges/a.b").await,
        server.get("/v1/exchanges/..%2f..%2fetc").await,
        server.get("/v1/exchanges/%00").await,
        server.get("/v1/exchanges/e?verbose=1").await,
        server.get("/v1/exchanges/e/partitions/2").await,
        server.get("/v1/exchanges/e/partitions/-1").await,
        server
            .get("/v1/exchanges/e/partitions/0?task=0&task=0")
            .await,
        server
            .post(
                "/v1/exchanges/e/sinks/1048576/0/pages?batch=0",
                BATCH,
                page(),
            )
            .await,
        server
            .post("/v1/exchanges/e/sinks/0/128/pages?batch=0", BATCH, page())
            .await,
        server.post(&pages, BATCH, page()).await,
        server
            .post(&format!("{pages}?batch=4294967296"), BATCH, page())
            .await,
        server
            .post(&format!("{pages}?batch=0&partition=0"), BATCH, page())
            .await,
        server.post(&pages, RAW, "x").await,
        server
            .put_json(
                "/v1/exchanges/n",
                &json!({"partitions": 0, "ordered": false}),
            )
            .await,
        server
            .put_json(
                "/v1/exchanges/n",
                &json!({"partitions": 65_537, "ordered": false}),
            )
            .await,
        server
            .post_json(
                "/v1/exchanges/e/handles",
                &json!({"attempts": [], "target_size": 0}),
            )
            .await,
        server
            .post_json(
                "/v1/exchanges/e/handles",
                &json!({"attempts": [[0, 200]], "target_size": 1}),
            )
            .await,
    ];
    for text in MALFORMED_ANNOUNCEMENTS {
        let put = server.request(Method::PUT, "/v1/exchanges/n");
        let put = put.header("content-type", "application/json").body(text);
        answers.push(put.send().await.unwrap());
    }
    answers
        .into_iter()
        .map(|answer| (ProblemType::InvalidRequest, answer))
        .collect()
}

async fn invalid_frames(server: &TestServer) -> Vec<Case> {
    let pages = format!("{}/pages", sink("e", 0, 0));
    let numbered = format!("{pages}?batch=0");
    let mut damaged = batch(&[(0, b"some page")]);
    *damaged.last_mut().unwrap() ^= 1;
    let whole = batch(&[(0, b"one"), (1, b"two")]);
    let bodies = [
        Vec::new(),
        whole[..whole.len() - 1].to_vec(),
        b"short".to_vec(),
        batch(&[(2, b"x")]),
        frame(0, b""),
    ];
    let mut cases = Vec::new();
    for body in bodies {
        cases.push((
            ProblemType::InvalidFrame,
            server.post(&numbered, BATCH, body).await,
        ));
    }
    let raw_pages = [("partition=2", "x"), ("partition=0", "")];
    for (query, page) in raw_pages {
        let answer = server.post(&format!("{pages}?{query}"), RAW, page).await;
        cases.push((ProblemType::InvalidFrame, answer));
    }
    let answer = server.post(&numbered, BATCH, damaged).await;
    cases.push((ProblemType::ChecksumMismatch, answer));
    cases
}

async fn refused_bodies(server: &TestServer) -> Vec<Case> {
    let pages = format!("{}/pages", sink("e", 0, 0));
    let numbered = format!("{pages}?batch=0");
    let raw = format!("{pages}?partition=0");
    let whole = batch(&[(0, b"one"), (1, b"two")]);
    let large = vec![7; 5 << 20];
    let large_page = frame(0, &vec![7; (1 << 20) + 1]);
    let chunks = futures::stream::iter([Ok::<_, std::io::Error>(whole.clone())]);
    let chunked = reqwest::Body::wrap_stream(chunks);
    let handles = "/v1/exchanges/e/handles";
    let text = "text/plain";
    let mut cases = vec![
        (
            ProblemType::LengthRequired,
            server.post(&numbered, BATCH, chunked).await,
        ),
        (
            ProblemType::PageTooLarge,
            server.post(&raw, RAW, large.clone()).await,
        ),
    ];
    for (problem_type, path, media_type, body) in [
        (ProblemType::BodyTooLarge, numbered.as_str(), BATCH, large),
        (ProblemType::PageTooLarge, &numbered, BATCH, large_page),
        (ProblemType::UnsupportedMediaType, &numbered, text, whole),
        (
            ProblemType::UnsupportedMediaType,
            "/v1/read",
            RAW,
            b"{}".to_vec(),
        ),
        (
            ProblemType::UnsupportedMediaType,
            handles,
            RAW,
            b"{}".to_vec(),
        ),
        (
            ProblemType::InvalidHandle,
            "/v1/read",
            text,
            b"no handle".to_vec(),
        ),
        (ProblemType::InvalidHandle, "/v1/read", text, Vec::new()),
    ] {
        cases.push((problem_type, server.post(path, media_type, body).await));
    }
    let request = server.request(Method::GET, "/v1/exchanges");
    let response = request.header("stopover-protocol", "999").send().await;
    cases.push((ProblemType::UnsupportedProtocol, response.unwrap()));
    cases
}

async fn wrong_routes(server: &TestServer) -> Vec<Case> {
    let options = server
        .request(Method::OPTIONS, "/v1/exchanges/e")
        .send()
        .await
        .unwrap();
    let mut allowed: Vec<&str> = options.headers()["allow"]
        .to_str()
        .unwrap()
        .split(',')
        .map(str::trim)
        .collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["DELETE", "GET", "HEAD", "PUT"]);
    vec![
        (ProblemType::MethodNotAllowed, options),
        (ProblemType::MethodNotAllowed, server.get("/v1/read").await),
        (
            ProblemType::MethodNotAllowed,
            server.delete("/healthz").await,
        ),
        (ProblemType::NotFound, server.get("/v2/exchanges").await),
        (ProblemType::NotFound, server.get("/v1/exchanges/").await),
        (
            ProblemType::NotFound,
            server.get("/v1/exchanges/e/partitions/0/").await,
        ),
        (ProblemType::NotFound, server.get("/etc/passwd").await),
    ]
}

async fn wrong_state(server: &TestServer) -> Vec<Case> {
    let path = |task, rest: &str| format!("{}/{rest}", sink("e", task, 0));
    let page = || batch(&[(0, b"x")]);
    let wrong = json!({"batches": 1, "pages": 2, "bytes": 1});
    let lost = json!({"batches": 1, "pages": 1, "bytes": 1});
    let other = json!({"partitions": 3, "ordered": false});
    let not_chosen = json!({"attempts": [[77, 0]], "target_size": 1});
    server.add(&sink("e", 2, 0), 0, page()).await;
    server.add(&sink("e", 3, 0), 0, page()).await;
    ok_json(server.post_empty(&path(3, "finish")).await).await;
    ok_json(server.post_empty(&path(4, "abort")).await).await;
    vec![
        (
            ProblemType::ExchangeConflict,
            server.put_json("/v1/exchanges/e", &other).await,
        ),
        (
            ProblemType::BatchOutOfOrder,
            server.post(&path(1, "pages?batch=1"), BATCH, page()).await,
        ),
        (
            ProblemType::BatchOutOfOrder,
            server.post(&path(2, "pages?batch=2"), BATCH, page()).await,
        ),
        (
            ProblemType::CountMismatch,
            server.post_json(&path(2, "finish"), &wrong).await,
        ),
        (
            ProblemType::SinkFinished,
            server.post(&path(3, "pages?batch=1"), BATCH, page()).await,
        ),
        (
            ProblemType::SinkAborted,
            server.post(&path(4, "pages?batch=0"), BATCH, page()).await,
        ),
        (
            ProblemType::SinkAborted,
            server.post_empty(&path(4, "finish")).await,
        ),
        (
            ProblemType::SinkNotFound,
            server.post_json(&path(5, "finish"), &lost).await,
        ),
        (
            ProblemType::AttemptNotCommitted,
            server
                .post_json("/v1/exchanges/e/handles", &not_chosen)
                .await,
        ),
    ]
}

async fn closed(server: &TestServer) -> Vec<Case> {
    ok_json(server.announce_and_close("gone").await).await;
    let chosen = json!({"attempts": [[77, 0]], "target_size": 1});
    let pages = format!("{}/pages?batch=0", sink("gone", 0, 0));
    let answers = [
        server.get("/v1/exchanges/gone").await,
        server.get("/v1/exchanges/gone/partitions/0").await,
        server
            .post_json("/v1/exchanges/gone/handles", &chosen)
            .await,
        server.post(&pages, BATCH, batch(&[(0, b"x")])).await,
    ];
    answers
        .map(|answer| (ProblemType::ExchangeClosed, answer))
        .into()
}

async fn never_announced(server: &TestServer) -> Vec<Case> {
    let never = sink("never", 0, 0);
    let chosen = json!({"attempts": [[0, 0]], "target_size": 1});
    let answers = [
        server.get("/v1/exchanges/never").await,
        server.get("/v1/exchanges/never/partitions/0").await,
        server
            .post(
                &format!("{never}/pages?batch=0"),
                BATCH,
                batch(&[(0, b"x")]),
            )
            .await,
        server.post_empty(&format!("{never}/finish")).await,
        server.post_empty(&format!("{never}/abort")).await,
        server
            .post_json("/v1/exchanges/never/handles", &chosen)
            .await,
    ];
    answers
        .into_iter()
        .map(|answer| (ProblemType::ExchangeNotFound, answer))
        .collect()
}

impl TestServer {
    /// Announces and closes an exchange; returns the listing of all exchanges.
    async fn announce_and_close(&self, exchange: &str) -> Response {
        self.announce(exchange, 1).await;
        assert_eq!(
            self.delete(&format!("/v1/exchanges/{exchange}"))
                .await
                .status(),
            204
        );
        self.get("/v1/exchanges").await
    }

    /// Writes one finished page to partition 0 and returns its handle.
    async fn one_page(&self, exchange: &str) -> String {
        self.announce(exchange, 2).await;
        let sink = sink(exchange, 0, 0);
        self.add(&sink, 0, batch(&[(0, b"the only page of this exchange")]))
            .await;
        ok_json(self.post_empty(&format!("{sink}/finish")).await).await;
        let handles = self.handles(exchange, &json!([[0, 0]]), 1 << 20).await;
        handles[0]["handle"].as_str().unwrap().to_owned()
    }
}

/// The problem type of a failed read, before its head or within its body.
async fn failed_read(server: &TestServer, handle: &str) -> ProblemType {
    let response = server.read(handle, 0).await;
    let problem = if response.status().is_success() {
        match parse(&response.bytes().await.unwrap()) {
            (_, End::Problem(problem)) => problem,
            (pages, end) => panic!("{end:?} after {} pages", pages.len()),
        }
    } else {
        response.json().await.unwrap()
    };
    let kind = problem["type"].as_str().unwrap().to_owned();
    let problem_type = ProblemType::ALL
        .iter()
        .find(|problem_type| problem_type.urn() == kind)
        .unwrap();
    assert_eq!(problem["retryable"], problem_type.retryable());
    *problem_type
}

/// Damages a segment, then reads it through a daemon that has nothing cached.
async fn read_after(harm: impl FnOnce(&BaseFolder)) -> ProblemType {
    let base_folder = BaseFolder::new();
    let writer = TestServer::open(&base_folder.config()).await;
    let handle = writer.one_page("s").await;
    writer.shut_down().await;
    harm(&base_folder);
    let reader = TestServer::open(&base_folder.config()).await;
    let problem_type = failed_read(&reader, &handle).await;
    reader.shut_down().await;
    problem_type
}

#[tokio::test]
async fn missing_and_damaged_segments_are_distinguished() {
    let gone = |base_folder: &BaseFolder| std::fs::remove_file(&base_folder.segments()[0]).unwrap();
    assert_eq!(read_after(gone).await, ProblemType::DataLost);
    let damage = |base_folder: &BaseFolder| {
        let path = &base_folder.segments()[0];
        let mut bytes = std::fs::read(path).unwrap();
        let page = bytes
            .windows(13)
            .position(|w| w == b"the only page")
            .unwrap();
        bytes[page] ^= 1;
        std::fs::write(path, bytes).unwrap();
    };
    assert_eq!(read_after(damage).await, ProblemType::DataCorrupt);
}

async fn draining() -> Vec<Case> {
    let base_folder = BaseFolder::new();
    let server = TestServer::open(&base_folder.config()).await;
    server.announce("e", 2).await;
    server.daemon.ingest.drain();
    let pages = format!("{}/pages?batch=0", sink("e", 0, 0));
    let answer = server.post(&pages, BATCH, batch(&[(0, b"x")])).await;
    vec![(ProblemType::Draining, answer)]
}

async fn starting() -> Vec<Case> {
    let base_folder = BaseFolder::new();
    let server = TestServer::open(&base_folder.config()).await;
    server.daemon.startup.begin();
    vec![(ProblemType::Starting, server.get("/v1/exchanges").await)]
}

async fn full() -> Vec<Case> {
    let base_folder = BaseFolder::new();
    let mut config = base_folder.config();
    config.limits.max_sinks_per_exchange = 1;
    let server = TestServer::open(&config).await;
    server.announce("e", 2).await;
    server.add(&sink("e", 0, 0), 0, batch(&[(0, b"x")])).await;
    let second = format!("{}/pages?batch=0", sink("e", 1, 0));
    let answer = server.post(&second, BATCH, batch(&[(0, b"x")])).await;
    vec![(ProblemType::Overloaded, answer)]
}

async fn slow() -> Vec<Case> {
    let base_folder = BaseFolder::new();
    let mut config = base_folder.config();
    config.limits.body_timeout = Duration::from_millis(200);
    let server = TestServer::open(&config).await;
    server.announce("e", 2).await;
    let never = futures::stream::pending::<Result<Vec<u8>, std::io::Error>>();
    let pages = server
        .request(Method::POST, &format!("{}/pages?batch=0", sink("e", 0, 0)))
        .header("content-type", BATCH)
        .header("content-length", "100")
        .body(reqwest::Body::wrap_stream(never));
    let answer = pages.send().await.unwrap();
    server.expect_all_gauges_at_zero().await;
    vec![(ProblemType::Timeout, answer)]
}

async fn unwritable() -> Vec<Case> {
    let base_folder = BaseFolder::new();
    let server = TestServer::open(&base_folder.config()).await;
    server.announce("e", 2).await;
    let sink = sink("e", 0, 0);
    server.add(&sink, 0, batch(&[(0, b"x")])).await;
    // A file in place of the folder: nothing can be written below it, not even by root.
    std::fs::remove_dir_all(base_folder.path()).unwrap();
    std::fs::write(base_folder.path(), "").unwrap();
    // The commit failed here; whether another daemon committed the attempt cannot be looked up.
    let unknown = server.post_empty(&format!("{sink}/finish")).await;
    let failed = server
        .post(&format!("{sink}/pages?batch=1"), BATCH, batch(&[(0, b"x")]))
        .await;
    let list = server.get("/v1/exchanges").await;
    std::fs::remove_file(base_folder.path()).unwrap();
    vec![
        (ProblemType::StorageUnavailable, unknown),
        (ProblemType::SinkFailed, failed),
        (ProblemType::StorageUnavailable, list),
    ]
}

async fn unauthorized() -> Vec<Case> {
    let base_folder = BaseFolder::new();
    let mut config = base_folder.config();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "some-token-0123456789\n").unwrap();
    config.server.token_file = Some(file.path().to_owned());
    let server = TestServer::open(&config).await;
    vec![(ProblemType::Unauthorized, server.get("/nowhere").await)]
}

#[tokio::test]
async fn every_error_of_the_table_is_answered_as_documented() {
    let base_folder = BaseFolder::new();
    let mut config = base_folder.config();
    config.limits.max_batch_size = 4 << 20;
    config.limits.max_page_size = 1 << 20;
    let server = TestServer::open(&config).await;
    server.announce("e", 2).await;
    let mut cases = malformed(&server).await;
    cases.extend(invalid_frames(&server).await);
    cases.extend(refused_bodies(&server).await);
    cases.extend(wrong_routes(&server).await);
    cases.extend(wrong_state(&server).await);
    cases.extend(closed(&server).await);
    cases.extend(never_announced(&server).await);
    cases.extend(draining().await);
    cases.extend(starting().await);
    cases.extend(full().await);
    cases.extend(slow().await);
    cases.extend(unwritable().await);
    cases.extend(unauthorized().await);

    let mut seen = BTreeSet::new();
    for (problem_type, response) in cases {
        let problem = check(problem_type, response).await;
        seen.insert(problem_type.as_str());
        if problem_type == ProblemType::BatchOutOfOrder {
            assert!(problem["expected"].is_u64(), "{problem}");
        }
    }
    // Provoked elsewhere: damaged segments (above), a panic (the unit tests of `observe`),
    // `forbidden`, which needs tokens with scopes, a handle of another fleet (`identity`), a query
    // over its limit (`room`), and a file that cannot be read again (`reload`).
    seen.extend(["data-lost", "data-corrupt", "internal", "forbidden"]);
    seen.extend([
        "unknown-base-directory",
        "too-much-stored",
        "invalid-configuration",
    ]);
    let all: BTreeSet<&str> = ProblemType::ALL
        .iter()
        .map(|problem_type| problem_type.as_str())
        .collect();
    assert_eq!(seen, all);
    server.shut_down().await;
}

#[tokio::test]
async fn declaring_an_attempt_opens_no_sink_and_changes_nothing() {
    let base_folder = BaseFolder::new();
    let server = TestServer::open(&base_folder.config()).await;
    check(
        ProblemType::ExchangeNotFound,
        server.put_empty(&sink("e", 0, 0)).await,
    )
    .await;
    server.announce("e", 2).await;
    for task in [0, 0, 1] {
        let declared = server.put_empty(&sink("e", task, 0)).await;
        assert_eq!(declared.status(), StatusCode::NO_CONTENT);
    }
    assert_eq!(
        server.daemon.ingest.unsettled_sinks(),
        0,
        "a drain does not wait for declared sinks"
    );
    // One of them is written; the other is not.
    server
        .add(&sink("e", 0, 0), 0, batch(&[(0, b"page")]))
        .await;
    assert_eq!(server.daemon.ingest.unsettled_sinks(), 1);
    let claim = json!({"batches": 1, "pages": 1, "bytes": 4});
    let finish = format!("{}/finish", sink("e", 0, 0));
    ok_json(server.post_json(&finish, &claim).await).await;
    assert_eq!(server.daemon.ingest.unsettled_sinks(), 0);
    let never = format!("{}/finish", sink("e", 1, 0));
    let claim = json!({"batches": 1, "pages": 1, "bytes": 4});
    check(
        ProblemType::SinkNotFound,
        server.post_json(&never, &claim).await,
    )
    .await;
    let again = server.put_empty(&sink("e", 0, 0)).await;
    assert_eq!(again.status(), StatusCode::NO_CONTENT, "already finished");
    ok_json(
        server
            .post_empty(&format!("{}/abort", sink("e", 2, 0)))
            .await,
    )
    .await;
    check(
        ProblemType::SinkAborted,
        server.put_empty(&sink("e", 2, 0)).await,
    )
    .await;

    server.daemon.ingest.drain();
    check(
        ProblemType::Draining,
        server.put_empty(&sink("e", 3, 0)).await,
    )
    .await;
    server.delete("/v1/exchanges/e").await;
    check(
        ProblemType::ExchangeClosed,
        server.put_empty(&sink("e", 3, 0)).await,
    )
    .await;
    server.shut_down().await;
}
