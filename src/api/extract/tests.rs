//! Extractors with valid and invalid requests.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::Method;
use axum::routing::any;
use axum::{Router, http};
use http_body_util::BodyExt;
use serde::Deserialize;
use tower::ServiceExt;

use super::*;
use crate::api::limits::BodyLimits;
use crate::api::problem::{Problem, ProblemType};
use crate::config::LimitsConfig;
use crate::memory::MemoryPool;
use crate::read::MAX_SLICES_SIZE;
use crate::runtime::Clock;

fn limits() -> BodyLimits {
    let config = LimitsConfig {
        max_page_size: 100,
        max_batch_size: 200,
        max_control_body_size: 64,
        body_timeout: Duration::from_secs(1),
        ..LimitsConfig::default()
    };
    BodyLimits::new(&config, Clock::default())
}

fn request(uri: &str, headers: &[(&str, &str)], body: Body) -> Request {
    let mut request = http::Request::builder().method(Method::POST).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body).unwrap()
}

async fn from_head<T>(uri: &str, headers: &[(&str, &str)]) -> Result<T, ProblemType>
where
    T: FromRequestParts<BodyLimits, Rejection = Problem>,
{
    let (mut parts, _) = request(uri, headers, Body::empty()).into_parts();
    T::from_request_parts(&mut parts, &limits())
        .await
        .map_err(|problem| problem.problem_type())
}

/// Sends a path through a router with routes like the real ones; returns the id's text, or the
/// status of a refusal.
async fn through_path(path: &str) -> Result<String, u16> {
    let router = Router::new()
        .route(
            "/e/{exchange}",
            any(async |ExchangePath(id): ExchangePath| id.to_string()),
        )
        .route(
            "/s/{exchange}/{task}/{attempt}",
            any(async |SinkPath(sink): SinkPath| sink.to_string()),
        )
        .route(
            "/p/{exchange}/{partition}",
            any(async |path: PartitionPath| path.partition.to_string()),
        );
    let request = http::Request::get(path).body(Body::empty()).unwrap();
    let response = router.oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    if status == 200 { Ok(text) } else { Err(status) }
}

#[tokio::test]
async fn invalid_ids_are_refused_also_when_percent_encoded() {
    assert_eq!(through_path("/e/q_1-x").await.unwrap(), "q_1-x");
    for bad in [
        "/e/-x",
        "/e/a.b",
        "/e/..",
        "/e/..%2f..%2fetc",
        "/e/%2e%2e",
        "/e/a%00b",
        "/e/%ff",
        "/e/a%20b",
    ] {
        assert_eq!(through_path(bad).await, Err(400), "{bad}");
    }
    let long = format!("/e/{}", "x".repeat(161));
    assert_eq!(through_path(&long).await, Err(400));
}

#[tokio::test]
async fn task_attempt_and_partition_are_plain_decimals_within_their_bounds() {
    let good = through_path("/s/q/1048575/127").await.unwrap();
    assert_eq!(good, "task 1048575 attempt 127 of exchange q");
    assert_eq!(through_path("/p/q/0").await.unwrap(), "0");
    for bad in [
        "/s/q/1048576/0",
        "/s/q/0/128",
        "/s/q/+1/0",
        "/s/q/01/0",
        "/s/q/1e3/0",
        "/s/q/-1/0",
        "/s/q/0x1/0",
        "/s/q/99999999999999999999/0",
        "/p/q/4294967040",
        "/p/q/",
        "/p/q/1%20",
    ] {
        assert!(through_path(bad).await.is_err(), "{bad}");
    }
}

struct Two {
    number: Option<u64>,
    other: Option<u32>,
}

impl QueryParameters for Two {
    const NAMES: &'static [&'static str] = &["number", "other"];

    fn from_values(values: &Values<'_>) -> Result<Self, Problem> {
        Ok(Self {
            number: values.number("number", 10)?,
            other: values.number("other", u32::MAX)?,
        })
    }
}

#[tokio::test]
async fn query_parameters_are_found_by_name_and_optional() {
    let StrictQuery(two) = from_head::<StrictQuery<Two>>("/x?other=4294967295&number=10", &[])
        .await
        .unwrap();
    assert_eq!((two.number, two.other), (Some(10), Some(u32::MAX)));
    let StrictQuery(two) = from_head::<StrictQuery<Two>>("/x", &[]).await.unwrap();
    assert_eq!((two.number, two.other), (None, None));
}

#[tokio::test]
async fn unknown_repeated_and_malformed_query_parameters_are_refused() {
    for bad in [
        "/x?numbre=1",
        "/x?number=1&number=1",
        "/x?number=1&numb%65r=1",
        "/x?numb%65r=1",
        "/x?number=%31",
        "/x?number=",
        "/x?number",
        "/x?number=+1",
        "/x?number=%2B1",
        "/x?number=01",
        "/x?number=11",
        "/x?other=4294967296",
        "/x?Number=1",
    ] {
        let refused = from_head::<StrictQuery<Two>>(bad, &[]).await.map(drop);
        assert_eq!(refused, Err(ProblemType::InvalidRequest), "{bad}");
    }
    assert!(from_head::<NoQuery>("/x?", &[]).await.is_ok());
    assert!(from_head::<NoQuery>("/x?a=1", &[]).await.is_err());
}

const BATCH: &str = "application/vnd.stopover.pages";
const RAW: &str = "application/octet-stream";

async fn head(headers: &[(&str, &str)]) -> Result<(PageContent, usize), ProblemType> {
    let head = from_head::<PageHead>("/x", headers).await?;
    Ok((head.content, head.length))
}

#[tokio::test]
async fn the_head_of_a_page_request_determines_content_and_length() {
    let batch = head(&[("content-type", BATCH), ("content-length", "200")]).await;
    assert_eq!(batch, Ok((PageContent::Batch, 200)));
    let raw = [
        ("content-type", "Application/Octet-Stream; charset=x"),
        ("content-length", "100"),
    ];
    assert_eq!(head(&raw).await, Ok((PageContent::RawPage, 100)));
}

#[tokio::test]
async fn a_page_request_is_refused_by_its_head_alone() {
    let cases: &[(&[(&str, &str)], ProblemType)] = &[
        (
            &[("content-length", "5")],
            ProblemType::UnsupportedMediaType,
        ),
        (
            &[("content-type", "text/plain"), ("content-length", "5")],
            ProblemType::UnsupportedMediaType,
        ),
        (
            &[("content-type", RAW), ("content-type", BATCH)],
            ProblemType::InvalidRequest,
        ),
        (&[("content-type", RAW)], ProblemType::LengthRequired),
        (
            &[("content-type", RAW), ("content-length", "0")],
            ProblemType::InvalidFrame,
        ),
        (
            &[("content-type", RAW), ("content-length", "101")],
            ProblemType::PageTooLarge,
        ),
        (
            &[("content-type", BATCH), ("content-length", "201")],
            ProblemType::BodyTooLarge,
        ),
        (
            &[("content-type", BATCH), ("content-length", "-1")],
            ProblemType::InvalidRequest,
        ),
    ];
    for (headers, slug) in cases {
        assert_eq!(head(headers).await, Err(*slug), "{headers:?}");
    }
}

fn pieces(parts: &[&'static str]) -> Body {
    let parts: Vec<_> = parts.iter().map(|p| Ok::<_, std::io::Error>(*p)).collect();
    Body::from_stream(futures::stream::iter(parts))
}

#[tokio::test]
async fn a_body_of_the_announced_length_fills_one_buffer_of_exactly_that_size() {
    let mut seen = Vec::new();
    let inspect = |so_far: &[u8]| {
        seen.push(so_far.to_vec());
        Ok(())
    };
    let (body, pool) = (pieces(&["ab", "", "cde"]), MemoryPool::new("write", 100));
    let bytes = read_exactly(body, (3, 5), &limits(), &pool, inspect)
        .await
        .unwrap();
    assert_eq!(bytes, b"\0\0\0abcde");
    assert_eq!(seen.first().unwrap(), b"\0\0\0ab");
    assert_eq!(seen.last(), Some(&bytes));
    assert_eq!(bytes.capacity(), 8);
}

#[tokio::test]
async fn a_body_that_is_too_short_too_long_or_broken_is_refused() {
    let broken = futures::stream::iter([Ok("ab"), Err(std::io::Error::other("gone"))]);
    for body in [
        pieces(&["ab"]),
        pieces(&["abc", "def"]),
        Body::from_stream(broken),
    ] {
        let refused = five_bytes(body).await;
        assert_eq!(refused, Err(ProblemType::InvalidRequest));
    }
}

async fn five_bytes(body: Body) -> Result<Vec<u8>, ProblemType> {
    let pool = MemoryPool::new("write", 100);
    let read = read_exactly(body, (0, 5), &limits(), &pool, |_| Ok(())).await;
    read.map_err(|problem| problem.problem_type())
}

#[tokio::test]
async fn the_rest_of_a_body_is_not_read_once_it_is_refused() {
    let body = Body::from_stream(futures::stream::iter([
        Ok("ab"),
        Err(std::io::Error::other("")),
    ]));
    let (limits, pool) = (limits(), MemoryPool::new("write", 100));
    let refuse = |_: &[u8]| Err(Problem::new(ProblemType::Overloaded, "no memory"));
    let refused = read_exactly(body, (0, 5), &limits, &pool, refuse).await;
    assert_eq!(refused.unwrap_err().problem_type(), ProblemType::Overloaded);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_arrives_too_slowly_is_a_timeout() {
    let slow = futures::stream::unfold((), async |()| {
        tokio::time::sleep(Duration::from_millis(300)).await;
        Some((Ok::<_, std::io::Error>(Bytes::from_static(b"x")), ()))
    });
    let refused = five_bytes(Body::from_stream(slow)).await;
    assert_eq!(refused, Err(ProblemType::Timeout));
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Document {
    n: u32,
}

impl JsonBody for Document {
    const MAX_SIZE: u64 = u64::MAX;
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SmallDocument {}

impl JsonBody for SmallDocument {
    const MAX_SIZE: u64 = 10;
}

async fn json(headers: &[(&str, &str)], body: Body) -> Result<Option<Document>, ProblemType> {
    let request = request("/x", headers, body);
    OptionalJson::from_request(request, &limits())
        .await
        .map(|OptionalJson(document)| document.map(|(document, _)| document))
        .map_err(|problem: Problem| problem.problem_type())
}

const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");

#[tokio::test]
async fn json_is_read_completely_or_absent() {
    let given = json(&[JSON], Body::from(r#"{"n":7}"#)).await;
    assert_eq!(given, Ok(Some(Document { n: 7 })));
    assert_eq!(json(&[JSON], Body::empty()).await, Ok(None));
    assert_eq!(json(&[], Body::empty()).await, Ok(None));
    let needed = request("/x", &[JSON], Body::empty());
    let missing = StrictJson::<Document>::from_request(needed, &limits()).await;
    assert_eq!(
        missing.err().unwrap().problem_type(),
        ProblemType::InvalidRequest
    );
}

#[tokio::test]
async fn json_with_unknown_or_repeated_members_or_of_another_type_is_refused() {
    for bad in [
        r#"{"n":7,"m":1}"#,
        r#"{"n":7,"n":7}"#,
        r#"{"n":-1}"#,
        r#"{"n":4294967296}"#,
        r#"{"n":7.0}"#,
        r#"{"n":7"#,
        r#"{"n":7} x"#,
        "[]",
        "\u{feff}{\"n\":7}",
    ] {
        let refused = json(&[JSON], Body::from(bad)).await;
        assert_eq!(refused, Err(ProblemType::InvalidRequest), "{bad}");
    }
    for other in [&[][..], &[("content-type", "text/json")]] {
        let refused = json(other, Body::from(r#"{"n":7}"#)).await;
        assert_eq!(refused, Err(ProblemType::UnsupportedMediaType), "{other:?}");
    }
}

#[tokio::test]
async fn each_control_body_is_bounded_and_its_memory_released() {
    let limits = limits();
    let announced = request("/x", &[JSON, ("content-length", "65")], Body::from("x"));
    let unannounced = request("/x", &[JSON], Body::from(" ".repeat(65)));
    for request in [announced, unannounced] {
        let refused = StrictJson::<Document>::from_request(request, &limits).await;
        assert_eq!(
            refused.err().unwrap().problem_type(),
            ProblemType::BodyTooLarge
        );
        assert_eq!(limits.control_bodies.used(), 0);
    }
}

#[tokio::test]
async fn a_route_that_needs_little_refuses_a_body_that_the_setting_allows() {
    let padded = |bytes: usize| Body::from(format!("{{{}}}", " ".repeat(bytes - 2)));
    let post = async |headers: &[(&str, &str)], bytes| {
        let request = request("/x", headers, padded(bytes));
        let read = StrictJson::<SmallDocument>::from_request(request, &limits()).await;
        read.map(drop).map_err(|problem| problem.problem_type())
    };
    assert_eq!(post(&[JSON, ("content-length", "10")], 10).await, Ok(()));
    let announced = post(&[JSON, ("content-length", "11")], 11).await;
    assert_eq!(announced, Err(ProblemType::BodyTooLarge));
    assert_eq!(post(&[JSON], 11).await, Err(ProblemType::BodyTooLarge));
}

#[tokio::test]
async fn a_finish_is_read_while_large_bodies_hold_the_whole_request_pool() {
    let mut limits = limits();
    limits.max_control_body_size = 1 << 20;
    limits.control_bodies = MemoryPool::new("request", 1 << 20);
    let all = limits.control_bodies.reserve("q", 1 << 20).await.unwrap();
    let tiny = request(
        "/x",
        &[JSON, ("content-length", "7")],
        Body::from(r#"{"n":7}"#),
    );
    let StrictJson(document, _) = StrictJson::<Document>::from_request(tiny, &limits)
        .await
        .unwrap();
    assert_eq!(document, Document { n: 7 });
    let large = request("/x", &[JSON, ("content-length", "100000")], Body::from("x"));
    let mut waiting = Box::pin(StrictJson::<Document>::from_request(large, &limits));
    assert!(futures::poll!(&mut waiting).is_pending());
    drop(all);
    assert!(waiting.await.is_err());
}

#[tokio::test]
async fn what_was_parsed_from_a_large_body_keeps_its_reservation() {
    let mut limits = limits();
    limits.handles = MemoryPool::new("handle", 1 << 20);
    let text = "h".repeat(100_000);
    let headers = [("content-length", "100000")];
    let handle = TextBody::from_request(request("/x", &headers, Body::from(text)), &limits).await;
    let TextBody(_, mut reservation) = handle.ok().unwrap();
    assert_eq!(
        limits.handles.used(),
        700_000 + MAX_SLICES_SIZE,
        "for what is decoded and read, too"
    );
    reservation.shrink_to(300_000);
    assert_eq!(limits.handles.used(), 300_000);
    drop(reservation);
    assert_eq!(limits.handles.used(), 0);
    let headers = [("content-length", "1")];
    let small = request("/x", &headers, Body::from("h"));
    let small = TextBody::from_request(small, &limits).await;
    assert!(
        limits.handles.used() > 0,
        "a short text can name many ranges"
    );
    drop(small);
    assert_eq!(limits.handles.used(), 0);
}

/// Story: two clients announced the largest bodies and sent nothing. Until `limits.body_timeout`
/// all other clients with a body of more than some KiB waited.
#[tokio::test(start_paused = true)]
async fn a_body_that_is_not_sent_gives_way_to_one_that_is() {
    let mut limits = limits();
    limits.max_control_body_size = 1 << 20;
    limits.control_bodies = MemoryPool::new("request", 4 << 20);
    limits.body_timeout = Duration::from_secs(3600);
    let post = |length: usize, body: Body| {
        let length = length.to_string();
        let request = request("/x", &[JSON, ("content-length", &length)], body);
        let limits = limits.clone();
        async move {
            let read = StrictJson::<Document>::from_request(request, &limits).await;
            read.map(|StrictJson(document, _)| document.n)
                .map_err(|problem| problem.problem_type())
        }
    };
    let trickling = futures::stream::unfold((), async |()| {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Some((Ok::<_, std::io::Error>(Bytes::from_static(b" ")), ()))
    });
    let silent = futures::stream::pending::<Result<Bytes, std::io::Error>>();
    for slow in [Body::from_stream(silent), Body::from_stream(trickling)] {
        let mut holding = Box::pin(post(1 << 20, slow));
        let alone = tokio::time::timeout(Duration::from_secs(600), &mut holding);
        assert!(alone.await.is_err(), "nobody waits");
        let text = format!("{{\"n\":7}}{}", " ".repeat(100_000));
        let started = tokio::time::Instant::now();
        let served = post(text.len(), Body::from(text));
        let (cut, served) = futures::join!(holding, served);
        assert_eq!((cut, served), (Err(ProblemType::Timeout), Ok(7)));
        assert!(started.elapsed() <= Duration::from_secs(10));
    }
}

#[tokio::test(start_paused = true)]
async fn json_that_arrives_too_slowly_is_a_timeout() {
    let never = futures::stream::pending::<Result<Bytes, std::io::Error>>();
    let refused = json(&[JSON], Body::from_stream(never)).await;
    assert_eq!(refused, Err(ProblemType::Timeout));
}

#[tokio::test]
async fn a_line_end_that_a_shell_appends_to_a_handle_is_ignored() {
    let body = async |headers: &[(&str, &str)], body: &'static [u8]| {
        TextBody::from_request(request("/x", headers, Body::from(body)), &limits())
            .await
            .map(|TextBody(text, _)| text)
            .map_err(|problem| problem.problem_type())
    };
    assert_eq!(body(&[], b"abc\n").await.unwrap(), "abc");
    assert_eq!(
        body(&[("content-type", "text/plain")], b"abc")
            .await
            .unwrap(),
        "abc"
    );
    assert_eq!(
        body(&[JSON], b"abc").await,
        Err(ProblemType::UnsupportedMediaType)
    );
    assert_eq!(body(&[], b"\xff").await, Err(ProblemType::InvalidHandle));
}
