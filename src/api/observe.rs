//! The outermost layer: request ids, one log line per failure, panics, request metrics.
//!
//! Does: observe each request and its response. Does not: parse bodies. Invariant: each request is
//! counted as finished exactly once, when its response has been sent completely or its client has
//! disconnected. The response to a request whose body was not read closes an HTTP/1.1 connection:
//! otherwise the rest of the body would be parsed as the next request.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{CONNECTION, HOST, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::time::Instant;
use tracing::Instrument;

use super::problem::Problem;
use crate::config::{LimitsConfig, Live};
use crate::http::limits::MAX_URI;
use crate::runtime::{Random, Runtime};
use crate::storage::Remedy;
use crate::telemetry::http::HttpMetrics;
use crate::telemetry::logs::panic_message;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
/// How the names of Stopover's own headers begin; each has one value.
const OWN_PREFIX: &str = "stopover-";
const MAX_REQUEST_ID: usize = 128;
/// How long the body of a refused HTTP/2 request is read.
const LINGER: Duration = Duration::from_secs(2);
/// How many bytes of it are read at most.
const LINGER_BYTES: usize = 256 << 20;

/// The state of the layer.
#[derive(Clone)]
pub(super) struct ObserveState {
    pub requests: HttpMetrics,
    pub runtime: Runtime,
    /// For how long clients may reuse an idle connection.
    pub limits: Live<LimitsConfig>,
}

/// Wraps all routes.
pub(super) async fn observe(
    State(state): State<ObserveState>,
    request: Request,
    next: Next,
) -> Response {
    let id = request_id(request.headers(), &state.runtime.random);
    let route: Arc<str> = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("unmatched", MatchedPath::as_str)
        .into();
    let mut guard = RequestGuard::new(state.requests, route, request.method());
    let span = tracing::info_span!(
        "request",
        id = id.to_str().unwrap_or_default(),
        method = %request.method(),
        path = %shortened(request.uri().path()),
    );
    let version = request.version();
    let linger = (version >= Version::HTTP_2).then(|| state.runtime.clone());
    let (request, body_read) = track_body(request, linger);
    let mut response = respond(request, next).instrument(span.clone()).await;
    span.in_scope(|| log(&response));
    let headers = response.headers_mut();
    if version < Version::HTTP_2 {
        let (name, value) = if body_read.load(Ordering::Acquire) {
            (KEEP_ALIVE, keep_alive(&state.limits.get()))
        } else {
            (CONNECTION, HeaderValue::from_static("close"))
        };
        headers.insert(name, value);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REQUEST_ID, id);
    guard.status_class = Some(response.status().as_u16() / 100);
    response.map(|body| {
        // The request counts as unfinished until the body, and with it this closure, is dropped.
        Body::new(body.map_err(move |error| {
            let _guard = &guard;
            error
        }))
    })
}

/// Runs the routes; turns a panic into a response.
async fn respond(request: Request, next: Next) -> Response {
    if let Err(problem) = check_head(&request) {
        return problem.into_response();
    }
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(panic) => {
            let message = panic_message(&*panic);
            Problem::internal(format!("panic: {message}")).into_response()
        }
    }
}

/// Refuses what concerns every route: a target that is too long, any number of Host headers but one
/// (RFC 9112, section 3.2), and a header of Stopover's own that is given more than once: of two, a
/// proxy may have checked the other one.
fn check_head(request: &Request) -> Result<(), Problem> {
    let target = request.uri().path_and_query();
    if target.is_some_and(|target| target.as_str().len() > MAX_URI) {
        let detail = format!("path and query are limited to {MAX_URI} bytes");
        return Err(Problem::invalid(detail));
    }
    if request.headers().get_all(HOST).iter().nth(1).is_some() {
        return Err(Problem::invalid("Host is given more than once"));
    }
    for name in request.headers().keys() {
        if name.as_str().starts_with(OWN_PREFIX)
            && request.headers().get_all(name).iter().nth(1).is_some()
        {
            let detail = format!("the header {name} is given more than once");
            return Err(Problem::invalid(detail));
        }
    }
    if request.version() == Version::HTTP_11 && !request.headers().contains_key(HOST) {
        return Err(Problem::invalid("a request in HTTP/1.1 needs a Host"));
    }
    Ok(())
}

/// The header that limits how long clients may reuse an idle connection. It is shorter than the
/// server's own timeout, so that client pools do not reuse a connection that is about to be closed.
fn keep_alive(limits: &LimitsConfig) -> HeaderValue {
    let timeout = limits.header_timeout * 4 / 5;
    let text = format!("timeout={}", timeout.as_secs().max(1));
    HeaderValue::from_str(&text).expect("ASCII")
}

fn log(response: &Response) {
    let status = response.status().as_u16();
    let Some(failure) = response.extensions().get::<Problem>() else {
        return tracing::debug!(status, "request completed");
    };
    let (problem, cause) = (failure.problem_type().as_str(), failure.cause());
    if failure.problem_type().remedy() == Remedy::Bug {
        tracing::error!(status, problem, %cause, "internal error: this is a bug");
    } else if status >= 500 {
        tracing::warn!(status, problem, %cause, "request failed");
    } else {
        tracing::debug!(status, problem, %cause, "request refused");
    }
}

/// The client's id if it is short and safe to log, otherwise a random one.
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
        HeaderValue::from_str(&id).expect("ASCII")
    })
}

fn shortened(path: &str) -> &str {
    path.char_indices()
        .nth(512)
        .map_or(path, |(end, _)| &path[..end])
}

fn method_name(method: &Method) -> &'static str {
    let mut known = ["GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS"].into_iter();
    known.find(|name| method == name).unwrap_or("other")
}

/// Counts the request as finished when it is dropped.
struct RequestGuard {
    requests: HttpMetrics,
    route: Arc<str>,
    method: &'static str,
    /// Hundreds of the status; `None` until there is a response.
    status_class: Option<u16>,
    started: Instant,
}

impl RequestGuard {
    fn new(requests: HttpMetrics, route: Arc<str>, method: &Method) -> Self {
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

/// Wraps the body of a request; the flag becomes true when the body has been read to its end.
fn track_body(request: Request, linger: Option<Runtime>) -> (Request, Arc<AtomicBool>) {
    let ended = http_body::Body::is_end_stream(request.body());
    let ended = Arc::new(AtomicBool::new(ended));
    let tracked = |body| TrackedBody {
        body,
        ended: Arc::clone(&ended),
        linger,
    };
    (request.map(|body| Body::new(tracked(body))), ended)
}

struct TrackedBody {
    body: Body,
    ended: Arc<AtomicBool>,
    /// Set for HTTP/2, where a dropped body resets the stream, and many clients, curl among them,
    /// then ignore a response that they have received. So an unread body is read for a short time.
    linger: Option<Runtime>,
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        if self.ended.load(Ordering::Acquire) {
            return;
        }
        if let Some(runtime) = self.linger.take() {
            let (body, clock) = (std::mem::take(&mut self.body), runtime.clock.clone());
            runtime.tasks.spawn_until_stopped(async move {
                let _ = clock.within(LINGER, discard(body)).await;
            });
        }
    }
}

async fn discard(mut body: Body) {
    let mut left = LINGER_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        let received = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(received) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

impl http_body::Body for TrackedBody {
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
