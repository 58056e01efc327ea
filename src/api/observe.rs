//! The outermost layer: request ids, one log line for a failure, panics, request metrics.
//!
//! Does: see each request and its answer from state. Does not: look into bodies. Invariant: a
//! request that began is counted exactly once as finished, when the last byte of its answer
//! was taken or its client left; an answer to a request whose body was not read closes its
//! connection, as the rest of the body would be taken for the next request.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{CONNECTION, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::time::Instant;
use tracing::Instrument;

use super::problem::{Failure, Problem, ProblemType};
use crate::http::limits::MAX_URI;
use crate::runtime::{Random, Runtime};
use crate::telemetry::http::HttpMetrics;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const MAX_REQUEST_ID: usize = 128;
/// How long the body of a refused request is read on, and how many bytes of it.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 256 << 20;

/// What the layer is given.
#[derive(Clone)]
pub struct ObserveState {
    /// Told of each request.
    pub requests: HttpMetrics,
    /// Mints request ids, and reads on what was refused.
    pub runtime: Runtime,
    /// How long an idle connection may be used again: told to clients, so that their pools do not
    /// hand out a connection which the server is about to close.
    pub keep_alive: Duration,
}

/// Wraps the whole service.
pub async fn observe(State(state): State<ObserveState>, request: Request, next: Next) -> Response {
    let id = request_id(request.headers(), &state.runtime.random);
    let route: Arc<str> = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("unmatched", MatchedPath::as_str)
        .into();
    let mut watch = RequestGuard::begin(state.requests, route, request.method());
    let span = tracing::info_span!(
        "request",
        id = id.to_str().unwrap_or_default(),
        method = %request.method(),
        path = %shortened(request.uri().path()),
    );
    let version = request.version();
    let lingering = (version >= Version::HTTP_2).then(|| state.runtime.clone());
    let (request, body_state) = track_body(request, lingering);
    let mut response = answer(request, next).instrument(span.clone()).await;
    span.in_scope(|| log(&response));
    let headers = response.headers_mut();
    if version < Version::HTTP_2 {
        let (name, value) = if body_state.unread() {
            (CONNECTION, HeaderValue::from_static("close"))
        } else {
            (KEEP_ALIVE, timeout(state.keep_alive))
        };
        headers.insert(name, value);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REQUEST_ID, id);
    watch.status_class = Some(response.status().as_u16() / 100);
    response.map(|body| {
        Body::new(GuardedBody {
            body,
            _watch: watch,
        })
    })
}

/// Runs the service; a panic becomes an answer.
async fn answer(request: Request, next: Next) -> Response {
    if request
        .uri()
        .path_and_query()
        .is_some_and(|p| p.as_str().len() > MAX_URI)
    {
        let detail = format!("path and query have at most {MAX_URI} bytes");
        return Problem::invalid(detail).into_response();
    }
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(panic) => {
            let text = panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "of unknown cause".to_owned());
            Problem::internal(format!("panic: {text}")).into_response()
        }
    }
}

fn timeout(keep_alive: Duration) -> HeaderValue {
    let text = format!("timeout={}", keep_alive.as_secs().max(1));
    HeaderValue::from_str(&text).expect("digits are a header value")
}

fn log(response: &Response) {
    let status = response.status().as_u16();
    match response.extensions().get::<Failure>() {
        Some(Failure { slug, cause }) if *slug == ProblemType::Internal => {
            tracing::error!(status, problem = slug.as_str(), %cause, "request met a defect");
        }
        Some(Failure { slug, cause }) if status >= 500 => {
            tracing::warn!(status, problem = slug.as_str(), %cause, "request failed");
        }
        Some(Failure { slug, cause }) => {
            tracing::debug!(status, problem = slug.as_str(), %cause, "request refused");
        }
        None => tracing::debug!(status, "request answered"),
    }
}

/// The client's id if it is printable and short, else a new one.
fn request_id(headers: &HeaderMap, random: &Random) -> HeaderValue {
    let given = headers.get(REQUEST_ID).filter(|value| {
        let bytes = value.as_bytes();
        (1..=MAX_REQUEST_ID).contains(&bytes.len())
            && bytes
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
    });
    given.cloned().unwrap_or_else(|| {
        let id = format!("{:016x}", random.next_u64());
        HeaderValue::from_str(&id).expect("hexadecimal digits are a header value")
    })
}

fn shortened(path: &str) -> &str {
    path.char_indices()
        .nth(512)
        .map_or(path, |(end, _)| &path[..end])
}

fn method_name(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "PUT" => "PUT",
        "POST" => "POST",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// Counts the request as finished when it is dropped.
struct RequestGuard {
    requests: HttpMetrics,
    route: Arc<str>,
    method: &'static str,
    status_class: Option<u16>,
    started: Instant,
}

impl RequestGuard {
    fn begin(requests: HttpMetrics, route: Arc<str>, method: &Method) -> Self {
        requests.started();
        Self {
            requests,
            route,
            method: method_name(method),
            status_class: None,
            started: Instant::now(),
        }
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let duration = self.started.elapsed();
        self.requests
            .finished(&self.route, self.method, self.status_class, duration);
    }
}

/// A response's body together with the watch over its request.
struct GuardedBody {
    body: Body,
    _watch: RequestGuard,
}

impl http_body::Body for GuardedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Whether a request's body was read to its end.
struct BodyState(Arc<AtomicBool>);

impl BodyState {
    fn unread(&self) -> bool {
        !self.0.load(Ordering::Acquire)
    }
}

fn track_body(request: Request, lingering: Option<Runtime>) -> (Request, BodyState) {
    let ended = Arc::new(AtomicBool::new(http_body::Body::is_end_stream(
        request.body(),
    )));
    let state = BodyState(Arc::clone(&ended));
    (
        request.map(|body| {
            Body::new(Tracked {
                body,
                ended,
                lingering,
            })
        }),
        state,
    )
}

struct Tracked {
    body: Body,
    ended: Arc<AtomicBool>,
    /// Over HTTP/2 a body that nobody read is read on for a moment. To drop it resets the stream,
    /// and many clients, curl among them, then do not look at the answer that came before.
    lingering: Option<Runtime>,
}

impl Drop for Tracked {
    fn drop(&mut self) {
        if self.ended.load(Ordering::Acquire) {
            return;
        }
        if let Some(runtime) = self.lingering.take() {
            let (body, clock) = (std::mem::take(&mut self.body), runtime.clock.clone());
            runtime.tasks.spawn_until_stopped(async move {
                tokio::select! {
                    biased; // the same on every run
                    () = read_on(body) => {}
                    () = clock.sleep(LINGER) => {}
                }
            });
        }
    }
}

async fn read_on(mut body: Body) {
    let mut left = LINGER_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        let came = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(came) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

impl http_body::Body for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None)) || self.body.is_end_stream() {
            self.ended.store(true, Ordering::Release);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
