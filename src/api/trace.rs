//! The span of a request, from its authorization to the last byte of its response.
//!
//! Does: start it below the caller's span (`traceparent`), make it the current one while the
//! request is handled and its response is streamed, and end it. Does not: trace what is refused
//! before, or watches the daemon (`operations`). Invariant: without `tracing.collector` a request
//! passes unchanged.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Frame, SizeHint};

use super::operations;
use super::problem::Problem;
use crate::telemetry::traces::{Span, Traces};

/// Traces the requests that have a name.
pub(super) async fn trace(State(traces): State<Traces>, request: Request, next: Next) -> Response {
    let name = match traces.is_on() {
        true => name(&request),
        false => None,
    };
    let Some((name, route)) = name else {
        return next.run(request).await;
    };
    let headers = request.headers();
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let span = traces.start(name, header);
    if span.is_none() {
        return next.run(request).await;
    }
    span.set("http.request.method", request.method());
    span.set("http.route", route.as_str());
    let span = RequestSpan {
        span,
        complete: false,
    };
    let response = span.span.run(next.run(request)).await;
    let status = response.status();
    let http_status = u64::from(status.as_u16());
    span.span
        .set_number("http.response.status_code", http_status);
    if status.is_server_error() {
        match response.extensions().get::<Problem>() {
            Some(problem) => span.span.fail(problem.cause()),
            None => span.span.fail(status),
        }
    }
    response.map(|body| {
        let mut traced = TracedBody { body, span };
        traced.note_end();
        Body::new(traced)
    })
}

fn name(request: &Request) -> Option<(&'static str, MatchedPath)> {
    let route = request.extensions().get::<MatchedPath>()?;
    let name = operations::name(request.method(), route.as_str())?;
    Some((name, route.clone()))
}

/// The span, which failed unless the whole response was sent.
struct RequestSpan {
    span: Span,
    complete: bool,
}

impl Drop for RequestSpan {
    fn drop(&mut self) {
        if !self.complete {
            self.span
                .fail("the client disconnected, or the response failed");
        }
    }
}

/// A response whose stream runs within the span.
struct TracedBody {
    body: Body,
    span: RequestSpan,
}

impl TracedBody {
    fn note_end(&mut self) {
        self.span.complete |= http_body::Body::is_end_stream(&self.body);
    }
}

impl http_body::Body for TracedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let entered = self.span.span.enter();
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        drop(entered);
        match &polled {
            Poll::Ready(None) => self.span.complete = true,
            Poll::Ready(Some(_)) => self.note_end(),
            Poll::Pending => {}
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
