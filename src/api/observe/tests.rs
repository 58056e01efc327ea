//! The layers around a small router: ids, panics, closed connections, tokens.

use std::path::Path;

use axum::Router;
use axum::http;
use axum::middleware;
use axum::routing::{get, post};
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::*;
use crate::api::authorization::{AccessState, require_access};
use crate::config::ServerConfig;
use crate::http::credentials::Credentials;
use crate::runtime::{Clock, Runtime};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::registry::MetricsRegistry;

/// The lines of a metric in the text for Prometheus.
fn counted(requests: &HttpMetrics) -> Vec<String> {
    let registry = MetricsRegistry::new(&Metrics::default(), String::new(), Clock::default());
    registry.extend(|registry| requests.register(registry));
    let text = registry.encode();
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix("stopover_http_requests_total"));
    let mut lines: Vec<String> = lines.map(str::to_owned).collect();
    lines.sort();
    lines
}

fn service(token_file: Option<&Path>) -> (Router, HttpMetrics) {
    let config = ServerConfig {
        token_file: token_file.map(Path::to_owned),
        ..ServerConfig::default()
    };
    let credentials = Credentials::open(&config, &Clock::default()).unwrap();
    let access = AccessState::new(&credentials, &Runtime::seeded(1));
    let requests = HttpMetrics::default();
    let state = ObserveState {
        requests: requests.clone(),
        runtime: Runtime::seeded(1),
        limits: Live::new(LimitsConfig::default()),
    };
    let router = Router::new()
        .route("/v1/exchanges/{exchange}", get(async || "pages"))
        .route("/healthz", get(async || "alive"))
        .route(
            "/openapi.json",
            get(async || -> &str { panic!("a secret cause") }),
        )
        .route("/metrics", get(async || std::future::pending::<()>().await))
        .route("/v1/read", post(async |body: String| body))
        .layer(middleware::from_fn_with_state(access, require_access))
        .layer(middleware::from_fn_with_state(state, observe));
    (router, requests)
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &'static str) -> Request {
    let mut request = http::Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", "localhost");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::from(body)).unwrap()
}

async fn send(router: &Router, request: Request) -> Response {
    router.clone().oneshot(request).await.unwrap()
}

#[tokio::test]
async fn a_request_id_is_echoed_if_it_is_safe_to_log_and_replaced_otherwise() {
    let (router, _) = service(None);
    let id = async |headers: &[(&str, &str)]| {
        let response = send(&router, request("GET", "/v1/exchanges/1", headers, "")).await;
        response.headers()["x-request-id"]
            .to_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(id(&[("x-request-id", "abc-1.2_3")]).await, "abc-1.2_3");
    let long = "x".repeat(129);
    let generated = [
        id(&[]).await,
        id(&[("x-request-id", "")]).await,
        id(&[("x-request-id", "a b")]).await,
        id(&[("x-request-id", &long)]).await,
    ];
    for (i, id) in generated.iter().enumerate() {
        assert_eq!(id.len(), 16, "{id}");
        assert!(!generated[..i].contains(id));
    }
}

#[tokio::test]
async fn a_panic_is_a_problem_that_does_not_reveal_its_cause() {
    let (router, requests) = service(None);
    let response = send(&router, request("GET", "/openapi.json", &[], "")).await;
    assert_eq!(response.status(), 500);
    assert!(
        response
            .extensions()
            .get::<Problem>()
            .unwrap()
            .cause()
            .contains("secret")
    );
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    assert!(text.contains("urn:stopover:problem:internal") && !text.contains("secret"));
    assert!(counted(&requests)[0].contains(r#"status="5xx""#));
}

#[tokio::test]
async fn a_request_is_finished_once_when_its_response_has_been_sent() {
    let (router, requests) = service(None);
    let response = send(&router, request("GET", "/v1/exchanges/7", &[], "")).await;
    assert!(counted(&requests).is_empty(), "its body has not been sent");
    drop(response.into_body().collect().await.unwrap());
    drop(send(&router, request("BREW", "/v1/exchanges/7", &[], "")).await);
    drop(send(&router, request("GET", "/nowhere", &[], "")).await);
    let expected = [
        r#"{route="/v1/exchanges/{exchange}",method="GET",status="2xx"} 1"#,
        r#"{route="/v1/exchanges/{exchange}",method="other",status="4xx"} 1"#,
        r#"{route="unmatched",method="GET",status="4xx"} 1"#,
    ];
    assert_eq!(counted(&requests), expected);
    assert_eq!(requests.in_flight(), 0);
}

#[tokio::test]
async fn a_client_that_disconnects_before_the_response_is_counted_without_a_status() {
    let (router, requests) = service(None);
    let mut pending = Box::pin(router.oneshot(request("GET", "/metrics", &[], "")));
    assert!(futures::poll!(&mut pending).is_pending());
    assert_eq!(requests.in_flight(), 1);
    drop(pending);
    let counted = counted(&requests);
    assert_eq!((counted.len(), requests.in_flight()), (1, 0));
    assert!(counted[0].contains("/metrics") && !counted[0].contains("xx"));
}

#[tokio::test]
async fn only_a_response_to_an_unread_body_closes_the_connection() {
    let (router, _) = service(None);
    let closes = async |request| {
        let response = send(&router, request).await;
        let headers = response.headers();
        let closes = headers.get(CONNECTION).is_some_and(|v| v == "close");
        let stays = headers.get(KEEP_ALIVE).is_some_and(|v| v == "timeout=24");
        assert!(!(closes && stays));
        closes
    };
    assert!(closes(request("POST", "/nowhere", &[], "unread")).await);
    assert!(closes(request("POST", "/v1/exchanges/1", &[], "unread")).await);
    assert!(!closes(request("POST", "/v1/read", &[], "read")).await);
    assert!(!closes(request("GET", "/nowhere", &[], "")).await);
    let mut http2 = request("POST", "/nowhere", &[], "unread");
    *http2.version_mut() = Version::HTTP_2;
    assert!(!closes(http2).await);
}

#[tokio::test]
async fn a_target_longer_than_the_limit_is_refused() {
    let (router, _) = service(None);
    let long = format!("/v1/exchanges/1?{}", "y".repeat(MAX_URI));
    let response = send(&router, request("GET", &long, &[], "")).await;
    assert_eq!(response.status(), 400);
}

#[tokio::test]
async fn a_request_has_exactly_one_host() {
    let (router, _) = service(None);
    let hosts = [("host", "localhost"), ("host", "localhost")];
    for (count, version, status) in [
        (0, Version::HTTP_11, 400),
        (0, Version::HTTP_10, 200),
        (1, Version::HTTP_11, 200),
        (2, Version::HTTP_11, 400),
    ] {
        let mut request = request("GET", "/v1/exchanges/1", &hosts[..count.max(1)], "");
        *request.version_mut() = version;
        if count == 0 {
            request.headers_mut().clear();
        }
        let response = send(&router, request).await;
        assert_eq!(response.status(), status, "{count} in {version:?}");
    }
}

#[tokio::test]
async fn with_tokens_configured_only_the_probes_need_none() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "the-token-0123456789\n").unwrap();
    let (router, _) = service(Some(file.path()));
    for path in [
        "/v1/exchanges/1",
        "/nowhere",
        "/openapi.json",
        "/healthz/",
        "//healthz",
    ] {
        let response = send(&router, request("GET", path, &[], "")).await;
        assert_eq!(response.status(), 401, "{path}");
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
    }
    let response = send(&router, request("GET", "/healthz", &[], "")).await;
    assert_eq!(response.status(), 200);
    let token = [("authorization", "Bearer the-token-0123456789")];
    let response = send(&router, request("GET", "/v1/exchanges/1", &token, "")).await;
    assert_eq!(response.status(), 200);
}
