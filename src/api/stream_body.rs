//! The body of a streamed response that holds memory.
//!
//! Does: own what a read holds (its permit, the memory of its handle), end the stream after a late
//! failure, and release the memory if the client reads nothing for the stall timeout of
//! [`StallPolicy`]. Does not: read. Invariant: what the read and its stream hold is released as
//! soon as the stream can produce no more bytes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::page_framing::{error_line, error_record};
use super::problem::{Problem, ProblemType};
use crate::http::stall::StallPolicy;
use crate::read::{ByteStream, ReadError};
use crate::runtime::{Clock, Runtime};
use crate::telemetry::traces::SpanRef;

/// What the client gets if the stream fails after the response head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnFailure {
    /// An error record, then the end of the body.
    ErrorRecord,
    /// A line of JSON with the problem as `error`, then the end of the body.
    ErrorLine,
    /// A truncated body: its connection is closed.
    Truncate,
}

struct Shared {
    /// The stream and what it holds; `None` once it has ended, failed or stalled.
    live: Option<(ByteStream, Held)>,
    /// Since when the body waits for the client to read; `None` while it waits for the stream.
    client_since: Option<Instant>,
}

/// What is released when the stream ends: permits and reservations.
type Held = Box<dyn Send>;

/// The response body of a read, or of a plan.
pub(super) struct StreamBody {
    shared: Arc<Mutex<Shared>>,
    on_failure: OnFailure,
    remaining: Option<u64>,
    ended: bool,
    span: tracing::Span,
    clock: Clock,
    _dropped: DropGuard,
}

impl StreamBody {
    /// A body with the bytes of `stream`: `length` bytes, if that is known. `held` is dropped after
    /// the stream.
    pub(super) fn new(
        stream: ByteStream,
        length: Option<u64>,
        on_failure: OnFailure,
        held: impl Send + 'static,
        stall_policy: StallPolicy,
        runtime: &Runtime,
    ) -> Self {
        let clock = runtime.clock.clone();
        let shared = Arc::new(Mutex::new(Shared {
            live: Some((stream, Box::new(held))),
            client_since: Some(clock.now()),
        }));
        let dropped = CancellationToken::new();
        let span = tracing::Span::current();
        let watchdog = end_when_stalled(Arc::clone(&shared), stall_policy, span.clone());
        let body_dropped = dropped.clone();
        runtime.tasks.spawn_until_stopped(async move {
            tokio::select! {
                biased;
                () = body_dropped.cancelled() => {}
                () = watchdog => {}
            }
        });
        Self {
            shared,
            on_failure,
            remaining: length,
            ended: false,
            span,
            clock,
            _dropped: dropped.drop_guard(),
        }
    }

    fn fail(&mut self, error: ReadError) -> Option<Result<Frame<Bytes>, Truncated>> {
        self.ended = true;
        let problem = Problem::from(error);
        // The status was sent as a success.
        SpanRef::current().fail(problem.cause());
        self.span.in_scope(|| {
            let (problem, cause) = (problem.problem_type().as_str(), problem.cause());
            tracing::error!(problem, %cause, "response failed after its head");
        });
        Some(match self.on_failure {
            OnFailure::ErrorRecord => Ok(Frame::data(error_record(&problem))),
            OnFailure::ErrorLine => Ok(Frame::data(error_line(&problem))),
            OnFailure::Truncate => Err(Truncated(problem.cause().to_owned())),
        })
    }

    /// The end of a body whose stream was dropped because the client read nothing.
    fn stalled(&mut self) -> Result<Frame<Bytes>, Truncated> {
        self.ended = true;
        let why = "the client read nothing for limits.response_stall_timeout";
        match self.on_failure {
            OnFailure::ErrorLine => {
                let problem = Problem::new(ProblemType::Timeout, format!("{why}: read faster"));
                Ok(Frame::data(error_line(&problem)))
            }
            OnFailure::ErrorRecord | OnFailure::Truncate => Err(Truncated(why.to_owned())),
        }
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        // The watchdog shares the state until it observes the drop.
        drop(self.shared.lock().live.take());
    }
}

/// Why a response was truncated; only hyper reads it.
#[derive(Debug, thiserror::Error)]
#[error("response truncated: {0}")]
pub(super) struct Truncated(String);

/// Drops the stream once the client has read nothing for the stall timeout.
async fn end_when_stalled(
    shared: Arc<Mutex<Shared>>,
    stall_policy: StallPolicy,
    span: tracing::Span,
) {
    let clock = stall_policy.clock();
    loop {
        let wait = {
            let shared = shared.lock();
            if shared.live.is_none() {
                return;
            }
            let stalled = shared.client_since.map_or(Duration::ZERO, |since| {
                clock.now().saturating_duration_since(since)
            });
            stall_policy.recheck_after(stalled)
        };
        let Some(wait) = wait else {
            drop(shared.lock().live.take());
            let _in_span = span.enter();
            tracing::info!("disconnected a client that read nothing for the stall timeout");
            return;
        };
        clock.sleep(wait).await;
    }
}

impl http_body::Body for StreamBody {
    type Data = Bytes;
    type Error = Truncated;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Truncated>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let shared = Arc::clone(&self.shared);
        let mut shared = shared.lock();
        let Some((stream, _)) = shared.live.as_mut() else {
            return Poll::Ready(Some(self.stalled()));
        };
        let polled = Pin::new(stream).poll_next(cx);
        shared.client_since = polled.is_ready().then(|| self.clock.now());
        match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(bytes))) => {
                self.remaining = self.remaining.map(|r| r.saturating_sub(bytes.len() as u64));
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Poll::Ready(Some(Err(error))) => {
                shared.live = None;
                Poll::Ready(self.fail(error))
            }
            Poll::Ready(None) => {
                shared.live = None;
                self.ended = true;
                Poll::Ready(None)
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fair::FairSemaphore;
    use crate::http::stall::Contention;
    use futures::StreamExt;
    use http_body_util::BodyExt;

    const STALL: Duration = Duration::from_secs(120);

    fn body(stream: ByteStream, on_failure: OnFailure) -> (StreamBody, FairSemaphore) {
        let permits = FairSemaphore::new(1, None);
        let permit = permits.try_acquire("q", 1).unwrap();
        let runtime = Runtime::seeded(1);
        let stall_policy = StallPolicy::new(STALL, runtime.clock.clone(), Contention::none());
        let body = StreamBody::new(stream, None, on_failure, permit, stall_policy, &runtime);
        (body, permits)
    }

    fn failing() -> ByteStream {
        let error = ReadError::SkipBeyondEnd { skip: 2, pages: 1 };
        futures::stream::iter([Ok(Bytes::from_static(b"page")), Err(error)]).boxed()
    }

    #[tokio::test]
    async fn a_late_failure_becomes_an_error_record_and_then_the_end() {
        let (body, permits) = body(failing(), OnFailure::ErrorRecord);
        let bytes = body.collect().await.unwrap().to_bytes();
        assert_eq!(bytes[..4], b"page"[..]);
        assert_eq!(bytes[4..8], [0xF2, 0xFF, 0xFF, 0xFF]);
        assert_eq!(permits.held(), 0);
    }

    #[tokio::test]
    async fn a_late_failure_of_raw_pages_truncates_the_response() {
        let (body, _) = body(failing(), OnFailure::Truncate);
        assert!(body.collect().await.is_err());
    }

    /// Story: the protocol promised that a failing list of handles ends with such a line, the
    /// plugin parsed it, and no code wrote it.
    #[tokio::test(start_paused = true)]
    async fn a_late_failure_of_lines_is_a_last_line_with_the_problem() {
        let (body, permits) = body(failing(), OnFailure::ErrorLine);
        let bytes = body.collect().await.unwrap().to_bytes();
        let line = bytes.strip_prefix(b"page").unwrap();
        let line: serde_json::Value = serde_json::from_slice(line).unwrap();
        assert_eq!(
            line["error"]["type"],
            "urn:stopover:problem:invalid-request"
        );
        assert_eq!((bytes.last(), permits.held()), (Some(&b'\n'), 0));
    }

    #[tokio::test(start_paused = true)]
    async fn lines_that_the_client_did_not_read_in_time_end_with_a_retryable_problem() {
        let endless = futures::stream::repeat_with(|| Ok(Bytes::from_static(b"page"))).boxed();
        let (mut body, permits) = body(endless, OnFailure::ErrorLine);
        tokio::time::sleep(STALL + Duration::from_secs(1)).await;
        assert_eq!(permits.held(), 0);
        let line = body.frame().await.unwrap().unwrap().into_data().unwrap();
        let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(line["error"]["retryable"], true);
        assert!(body.frame().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_loses_the_stream_and_its_permit() {
        let endless = futures::stream::repeat_with(|| Ok(Bytes::from_static(b"page"))).boxed();
        let (mut body, permits) = body(endless, OnFailure::ErrorRecord);
        for _ in 0..3 {
            tokio::time::sleep(STALL - Duration::from_secs(1)).await;
            assert!(body.frame().await.unwrap().is_ok());
        }
        assert_eq!(permits.held(), 1);
        tokio::time::sleep(STALL + Duration::from_secs(1)).await;
        assert_eq!(permits.held(), 0);
        assert!(body.frame().await.unwrap().is_err());
        assert!(body.frame().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_store_does_not_count_as_a_stalled_client() {
        let slow = futures::stream::once(async {
            tokio::time::sleep(STALL * 5).await;
            Ok(Bytes::from_static(b"page"))
        });
        let (mut body, _) = body(slow.boxed(), OnFailure::ErrorRecord);
        assert!(body.frame().await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn the_permit_of_a_disconnected_client_is_released() {
        let (body, permits) = body(futures::stream::pending().boxed(), OnFailure::ErrorRecord);
        assert_eq!(permits.held(), 1);
        drop(body);
        assert_eq!(permits.held(), 0);
    }
}
