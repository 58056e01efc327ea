//! Provokes every error of the table in docs/protocol.md that a client or a store can cause.

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use stopover::api::problem::ProblemType;

use crate::support::frames::{End, batch, frame, parse};
use crate::support::{BATCH, Bases, Door, RAW, ok_json, sink};

/// An answer and the problem type that it must have.
type Case = (ProblemType, Response);

/// Checks an answer against the table and returns the problem.
async fn check(slug: ProblemType, response: Response) -> Value {
    let (url, status) = (response.url().clone(), response.status().as_u16());
    let media_type = response.headers().get("content-type").cloned();
    let text = response.text().await.unwrap();
    assert_eq!(
        media_type.unwrap(),
        "application/problem+json",
        "{url}: {text}"
    );
    let problem: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(problem["type"], slug.urn(), "{url}: {text}");
    assert_eq!(status, slug.status(), "{url}: {text}");
    assert_eq!(problem["status"], slug.status());
    assert_eq!(problem["retryable"], slug.retryable());
    assert_eq!(problem["title"], slug.title());
    assert!(problem["detail"].as_str().unwrap().len() > 10, "{text}");
    problem
}

async fn malformed(door: &Door) -> Vec<Case> {
    let pages = format!("{}/pages", sink("e", 0, 0));
    let page = || batch(&[(0, b"x")]);
    let json_texts = [
        "",
        "{",
        r#"{"partitions":1}"#,
        r#"{"partitions":1,"ordered":false,"x":1}"#,
    ];
    let mut answers = vec![
        door.get("/v1/exchanges/a.b").await,
        door.get("/v1/exchanges/..%2f..%2fetc").await,
        door.get("/v1/exchanges/%00").await,
        door.get("/v1/exchanges/e?verbose=1").await,
        door.get("/v1/exchanges/e/partitions/2").await,
        door.get("/v1/exchanges/e/partitions/-1").await,
        door.get("/v1/exchanges/e/partitions/0?task=0&task=0").await,
        door.post(
            "/v1/exchanges/e/sinks/1048576/0/pages?batch=0",
            BATCH,
            page(),
        )
        .await,
        door.post("/v1/exchanges/e/sinks/0/128/pages?batch=0", BATCH, page())
            .await,
        door.post(&pages, BATCH, page()).await,
        door.post(&format!("{pages}?batch=4294967296"), BATCH, page())
            .await,
        door.post(&format!("{pages}?batch=0&partition=0"), BATCH, page())
            .await,
        door.post(&pages, RAW, "x").await,
        door.put_json(
            "/v1/exchanges/n",
            &json!({"partitions": 0, "ordered": false}),
        )
        .await,
        door.put_json(
            "/v1/exchanges/n",
            &json!({"partitions": 65_537, "ordered": false}),
        )
        .await,
        door.post_json(
            "/v1/exchanges/e/handles",
            &json!({"attempts": [], "target_size": 0}),
        )
        .await,
        door.post_json(
            "/v1/exchanges/e/handles",
            &json!({"attempts": [[0, 200]], "target_size": 1}),
        )
        .await,
    ];
    for text in json_texts {
        let put = door.request(Method::PUT, "/v1/exchanges/n");
        let put = put.header("content-type", "application/json").body(text);
        answers.push(put.send().await.unwrap());
    }
    answers
        .into_iter()
        .map(|answer| (ProblemType::InvalidRequest, answer))
        .collect()
}

async fn invalid_frames(door: &Door) -> Vec<Case> {
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
            door.post(&numbered, BATCH, body).await,
        ));
    }
    let raw_pages = [("partition=2", "x"), ("partition=0", "")];
    for (query, page) in raw_pages {
        let answer = door.post(&format!("{pages}?{query}"), RAW, page).await;
        cases.push((ProblemType::InvalidFrame, answer));
    }
    let answer = door.post(&numbered, BATCH, damaged).await;
    cases.push((ProblemType::ChecksumMismatch, answer));
    cases
}

async fn refused_bodies(door: &Door) -> Vec<Case> {
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
            door.post(&numbered, BATCH, chunked).await,
        ),
        (
            ProblemType::PageTooLarge,
            door.post(&raw, RAW, large.clone()).await,
        ),
    ];
    for (slug, path, media_type, body) in [
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
        cases.push((slug, door.post(path, media_type, body).await));
    }
    cases
}

async fn wrong_routes(door: &Door) -> Vec<Case> {
    let options = door
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
        (ProblemType::MethodNotAllowed, door.get("/v1/read").await),
        (ProblemType::MethodNotAllowed, door.delete("/healthz").await),
        (ProblemType::NotFound, door.get("/v2/exchanges").await),
        (ProblemType::NotFound, door.get("/v1/exchanges/").await),
        (
            ProblemType::NotFound,
            door.get("/v1/exchanges/e/partitions/0/").await,
        ),
        (ProblemType::NotFound, door.get("/etc/passwd").await),
    ]
}

async fn wrong_state(door: &Door) -> Vec<Case> {
    let path = |task, rest: &str| format!("{}/{rest}", sink("e", task, 0));
    let page = || batch(&[(0, b"x")]);
    let wrong = json!({"batches": 1, "pages": 2, "bytes": 1});
    let lost = json!({"batches": 1, "pages": 1, "bytes": 1});
    let other = json!({"partitions": 3, "ordered": false});
    let not_chosen = json!({"attempts": [[77, 0]], "target_size": 1});
    door.add(&sink("e", 2, 0), 0, page()).await;
    door.add(&sink("e", 3, 0), 0, page()).await;
    ok_json(door.post_nothing(&path(3, "finish")).await).await;
    ok_json(door.post_nothing(&path(4, "abort")).await).await;
    ok_json(door.delete_and_remember("gone").await).await;
    vec![
        (
            ProblemType::ExchangeConflict,
            door.put_json("/v1/exchanges/e", &other).await,
        ),
        (
            ProblemType::BatchOutOfOrder,
            door.post(&path(1, "pages?batch=1"), BATCH, page()).await,
        ),
        (
            ProblemType::BatchOutOfOrder,
            door.post(&path(2, "pages?batch=2"), BATCH, page()).await,
        ),
        (
            ProblemType::CountMismatch,
            door.post_json(&path(2, "finish"), &wrong).await,
        ),
        (
            ProblemType::SinkFinished,
            door.post(&path(3, "pages?batch=1"), BATCH, page()).await,
        ),
        (
            ProblemType::SinkAborted,
            door.post(&path(4, "pages?batch=0"), BATCH, page()).await,
        ),
        (
            ProblemType::SinkAborted,
            door.post_nothing(&path(4, "finish")).await,
        ),
        (
            ProblemType::SinkNotFound,
            door.post_json(&path(5, "finish"), &lost).await,
        ),
        (
            ProblemType::AttemptNotCommitted,
            door.post_json("/v1/exchanges/e/handles", &not_chosen).await,
        ),
        (
            ProblemType::ExchangeClosed,
            door.get("/v1/exchanges/gone").await,
        ),
        (
            ProblemType::ExchangeClosed,
            door.get("/v1/exchanges/gone/partitions/0").await,
        ),
        (
            ProblemType::ExchangeClosed,
            door.post_json("/v1/exchanges/gone/handles", &not_chosen)
                .await,
        ),
        (
            ProblemType::ExchangeClosed,
            door.post(
                &format!("{}/pages?batch=0", sink("gone", 0, 0)),
                BATCH,
                page(),
            )
            .await,
        ),
    ]
}

async fn never_announced(door: &Door) -> Vec<Case> {
    let never = sink("never", 0, 0);
    let chosen = json!({"attempts": [[0, 0]], "target_size": 1});
    let answers = [
        door.get("/v1/exchanges/never").await,
        door.get("/v1/exchanges/never/partitions/0").await,
        door.post(
            &format!("{never}/pages?batch=0"),
            BATCH,
            batch(&[(0, b"x")]),
        )
        .await,
        door.post_nothing(&format!("{never}/finish")).await,
        door.post_nothing(&format!("{never}/abort")).await,
        door.post_json("/v1/exchanges/never/handles", &chosen).await,
    ];
    answers
        .into_iter()
        .map(|answer| (ProblemType::ExchangeNotFound, answer))
        .collect()
}

impl Door {
    /// Announces and closes an exchange; returns the listing of all exchanges.
    async fn delete_and_remember(&self, exchange: &str) -> Response {
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
        ok_json(self.post_nothing(&format!("{sink}/finish")).await).await;
        let handles = self.handles(exchange, &json!([[0, 0]]), 1 << 20).await;
        handles[0]["handle"].as_str().unwrap().to_owned()
    }
}

/// The problem type of a failed read, before its head or within its body.
async fn failed_read(door: &Door, handle: &str) -> ProblemType {
    let response = door.read(handle, 0).await;
    let problem = if response.status().is_success() {
        match parse(&response.bytes().await.unwrap()) {
            (_, End::Problem(problem)) => problem,
            (pages, end) => panic!("{end:?} after {} pages", pages.len()),
        }
    } else {
        response.json().await.unwrap()
    };
    let kind = problem["type"].as_str().unwrap().to_owned();
    let slug = ProblemType::ALL
        .iter()
        .find(|slug| slug.urn() == kind)
        .unwrap();
    assert_eq!(problem["retryable"], slug.retryable());
    *slug
}

/// Damages a segment, then reads it through a daemon that has nothing cached.
async fn read_after(harm: impl FnOnce(&Bases), base_name: &str) -> ProblemType {
    let bases = Bases::new();
    let writer = Door::open(&bases.config()).await;
    let handle = writer.one_page("s").await;
    writer.shut_down().await;
    harm(&bases);
    let reader = Door::open(&bases.config_named(base_name)).await;
    let slug = failed_read(&reader, &handle).await;
    reader.shut_down().await;
    slug
}

#[tokio::test]
async fn missing_damaged_and_unreachable_segments_are_distinguished() {
    let gone = |bases: &Bases| std::fs::remove_file(&bases.segments()[0]).unwrap();
    assert_eq!(read_after(gone, "main").await, ProblemType::DataLost);
    let damage = |bases: &Bases| {
        let path = &bases.segments()[0];
        let mut bytes = std::fs::read(path).unwrap();
        let page = bytes
            .windows(13)
            .position(|w| w == b"the only page")
            .unwrap();
        bytes[page] ^= 1;
        std::fs::write(path, bytes).unwrap();
    };
    assert_eq!(read_after(damage, "main").await, ProblemType::DataCorrupt);
    assert_eq!(
        read_after(|_| (), "other").await,
        ProblemType::StorageUnavailable
    );
}

async fn stopping() -> Vec<Case> {
    let bases = Bases::new();
    let door = Door::open(&bases.config()).await;
    door.announce("e", 2).await;
    door.daemon.ingest.drain();
    let pages = format!("{}/pages?batch=0", sink("e", 0, 0));
    let answer = door.post(&pages, BATCH, batch(&[(0, b"x")])).await;
    vec![(ProblemType::Draining, answer)]
}

async fn full() -> Vec<Case> {
    let bases = Bases::new();
    let mut config = bases.config();
    config.limits.max_sinks_per_exchange = 1;
    let door = Door::open(&config).await;
    door.announce("e", 2).await;
    door.add(&sink("e", 0, 0), 0, batch(&[(0, b"x")])).await;
    let second = format!("{}/pages?batch=0", sink("e", 1, 0));
    let answer = door.post(&second, BATCH, batch(&[(0, b"x")])).await;
    vec![(ProblemType::Overloaded, answer)]
}

async fn slow() -> Vec<Case> {
    let bases = Bases::new();
    let mut config = bases.config();
    config.limits.body_timeout = Duration::from_millis(200);
    let door = Door::open(&config).await;
    door.announce("e", 2).await;
    let never = futures::stream::pending::<Result<Vec<u8>, std::io::Error>>();
    let pages = door
        .request(Method::POST, &format!("{}/pages?batch=0", sink("e", 0, 0)))
        .header("content-type", BATCH)
        .header("content-length", "100")
        .body(reqwest::Body::wrap_stream(never));
    let answer = pages.send().await.unwrap();
    door.expect_all_gauges_at_zero().await;
    vec![(ProblemType::Timeout, answer)]
}

async fn unwritable() -> Vec<Case> {
    let bases = Bases::new();
    let door = Door::open(&bases.config()).await;
    door.announce("e", 2).await;
    let sink = sink("e", 0, 0);
    door.add(&sink, 0, batch(&[(0, b"x")])).await;
    // A file in place of the folder: nothing can be written below it, not even by root.
    std::fs::remove_dir_all(bases.path()).unwrap();
    std::fs::write(bases.path(), "").unwrap();
    // The commit failed here; whether another daemon committed the attempt cannot be looked up.
    let not_known = door.post_nothing(&format!("{sink}/finish")).await;
    let failed = door
        .post(&format!("{sink}/pages?batch=1"), BATCH, batch(&[(0, b"x")]))
        .await;
    let list = door.get("/v1/exchanges").await;
    std::fs::remove_file(bases.path()).unwrap();
    vec![
        (ProblemType::StorageUnavailable, not_known),
        (ProblemType::SinkFailed, failed),
        (ProblemType::StorageUnavailable, list),
    ]
}

async fn unauthorized() -> Vec<Case> {
    let bases = Bases::new();
    let mut config = bases.config();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "some-token-0123456789\n").unwrap();
    config.server.token_file = Some(file.path().to_owned());
    let door = Door::open(&config).await;
    vec![(ProblemType::Unauthorized, door.get("/nowhere").await)]
}

#[tokio::test]
async fn every_error_of_the_table_is_answered_as_documented() {
    let bases = Bases::new();
    let mut config = bases.config();
    config.limits.max_batch_size = 4 << 20;
    config.limits.max_page_size = 1 << 20;
    let door = Door::open(&config).await;
    door.announce("e", 2).await;
    let mut cases = malformed(&door).await;
    cases.extend(invalid_frames(&door).await);
    cases.extend(refused_bodies(&door).await);
    cases.extend(wrong_routes(&door).await);
    cases.extend(wrong_state(&door).await);
    cases.extend(never_announced(&door).await);
    cases.extend(stopping().await);
    cases.extend(full().await);
    cases.extend(slow().await);
    cases.extend(unwritable().await);
    cases.extend(unauthorized().await);

    let mut seen = BTreeSet::new();
    for (slug, response) in cases {
        let problem = check(slug, response).await;
        seen.insert(slug.as_str());
        if slug == ProblemType::BatchOutOfOrder {
            assert!(problem["expected"].is_u64(), "{problem}");
        }
    }
    // Provoked elsewhere: damaged segments (above), a panic (the unit tests of `observe`), and
    // `forbidden`, which needs tokens with scopes.
    seen.extend(["data-lost", "data-corrupt", "internal", "forbidden"]);
    let all: BTreeSet<&str> = ProblemType::ALL.iter().map(|slug| slug.as_str()).collect();
    assert_eq!(seen, all);
    door.shut_down().await;
}

#[tokio::test]
async fn declaring_an_attempt_opens_no_sink_and_changes_nothing() {
    let bases = Bases::new();
    let door = Door::open(&bases.config()).await;
    check(
        ProblemType::ExchangeNotFound,
        door.put_nothing(&sink("e", 0, 0)).await,
    )
    .await;
    door.announce("e", 2).await;
    for task in [0, 0, 1] {
        let declared = door.put_nothing(&sink("e", task, 0)).await;
        assert_eq!(declared.status(), StatusCode::NO_CONTENT);
    }
    assert_eq!(
        door.daemon.ingest.unsettled_sinks(),
        0,
        "a drain does not wait for declared sinks"
    );
    // One of them is written; the other is not.
    door.add(&sink("e", 0, 0), 0, batch(&[(0, b"page")])).await;
    assert_eq!(door.daemon.ingest.unsettled_sinks(), 1);
    let claim = json!({"batches": 1, "pages": 1, "bytes": 4});
    let finish = format!("{}/finish", sink("e", 0, 0));
    ok_json(door.post_json(&finish, &claim).await).await;
    assert_eq!(door.daemon.ingest.unsettled_sinks(), 0);
    let never = format!("{}/finish", sink("e", 1, 0));
    let claim = json!({"batches": 1, "pages": 1, "bytes": 4});
    check(
        ProblemType::SinkNotFound,
        door.post_json(&never, &claim).await,
    )
    .await;
    let again = door.put_nothing(&sink("e", 0, 0)).await;
    assert_eq!(again.status(), StatusCode::NO_CONTENT, "already finished");
    ok_json(
        door.post_nothing(&format!("{}/abort", sink("e", 2, 0)))
            .await,
    )
    .await;
    check(
        ProblemType::SinkAborted,
        door.put_nothing(&sink("e", 2, 0)).await,
    )
    .await;

    door.daemon.ingest.drain();
    check(
        ProblemType::Draining,
        door.put_nothing(&sink("e", 3, 0)).await,
    )
    .await;
    door.delete("/v1/exchanges/e").await;
    check(
        ProblemType::ExchangeClosed,
        door.put_nothing(&sink("e", 3, 0)).await,
    )
    .await;
    door.shut_down().await;
}
