//! The body of a streamed answer that holds memory: gives bytes as the client takes them, and lets
//! go of a client that stalls.
//!
//! Does: carry the permit of a read, turn a late failure into the stream's end, and give the memory
//! back when the client has taken nothing for as long as [`StallPolicy`] lasts. Does not: read.
//! Invariant: the permit and everything that the stream holds live exactly as long as the stream
//! can still give bytes.

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

use super::page_framing::error_record;
use super::problem::Problem;
use crate::fair::FairPermit;
use crate::http::stall::StallPolicy;
use crate::read::{ByteStream, ReadError};
use crate::runtime::{Clock, Runtime};

/// How a failure in the midst of a stream is told to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// An error record, then the end.
    ErrorRecord,
    /// The connection is cut, so that the response is shorter than its `Content-Length`.
    Cut,
}

struct Live {
    stream: ByteStream,
    _permit: Option<FairPermit>,
}

struct Shared {
    /// Gone once the stream has ended, failed or stalled.
    live: Option<Live>,
    /// Since when it is the client's turn; `None` while the stream is waited for.
    client_since: Option<Instant>,
}

/// A response body over a read, or a plan.
pub struct StreamBody {
    shared: Arc<Mutex<Shared>>,
    on_failure: OnFailure,
    remaining: Option<u64>,
    ended: bool,
    span: tracing::Span,
    clock: Clock,
    _gone: DropGuard,
}

impl StreamBody {
    /// A body that gives what `stream` gives; `length` if it is known.
    pub fn new(
        stream: ByteStream,
        length: Option<u64>,
        on_failure: OnFailure,
        permit: Option<FairPermit>,
        patience: StallPolicy,
        runtime: &Runtime,
    ) -> Self {
        let clock = runtime.clock.clone();
        let shared = Arc::new(Mutex::new(Shared {
            live: Some(Live {
                stream,
                _permit: permit,
            }),
            client_since: Some(clock.now()),
        }));
        let gone = CancellationToken::new();
        let span = tracing::Span::current();
        let watchdog = watch(Arc::clone(&shared), patience, clock.clone(), span.clone());
        let body_gone = gone.clone();
        runtime.tasks.spawn_until_stopped(async move {
            tokio::select! {
                biased;
                () = body_gone.cancelled() => {}
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
            _gone: gone.drop_guard(),
        }
    }

    fn fail(&mut self, error: ReadError) -> Option<Result<Frame<Bytes>, StreamCut>> {
        self.ended = true;
        let problem = Problem::from(error);
        let failure = problem.failure();
        self.span.in_scope(|| {
            let problem = failure.slug.as_str();
            tracing::error!(problem, cause = %failure.cause, "a read failed in its midst");
        });
        Some(match self.on_failure {
            OnFailure::ErrorRecord => Ok(Frame::data(error_record(&problem))),
            OnFailure::Cut => Err(StreamCut(failure.cause)),
        })
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        // The watchdog holds the shared state, too, until it has noticed.
        drop(self.shared.lock().live.take());
    }
}

/// Why a response was cut off.
#[derive(Debug, thiserror::Error)]
#[error("the response was cut off: {0}")]
pub struct StreamCut(String);

/// Drops the stream once the client has had its turn for longer than patience lasts.
async fn watch(
    shared: Arc<Mutex<Shared>>,
    patience: StallPolicy,
    clock: Clock,
    span: tracing::Span,
) {
    loop {
        let left = {
            let shared = shared.lock();
            if shared.live.is_none() {
                return;
            }
            let silent = shared.client_since.map_or(Duration::ZERO, |since| {
                clock.now().saturating_duration_since(since)
            });
            patience.left(silent)
        };
        let Some(left) = left else {
            drop(shared.lock().live.take());
            let _in_span = span.enter();
            tracing::info!("cut off a client that took nothing for too long; it may ask again");
            return;
        };
        clock.sleep(left).await;
    }
}

impl http_body::Body for StreamBody {
    type Data = Bytes;
    type Error = StreamCut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamCut>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let shared = Arc::clone(&self.shared);
        let mut shared = shared.lock();
        let Some(live) = shared.live.as_mut() else {
            self.ended = true;
            let why = "the client took nothing for limits.read_stall_timeout".to_owned();
            return Poll::Ready(Some(Err(StreamCut(why))));
        };
        let polled = Pin::new(&mut live.stream).poll_next(cx);
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
        let patience = StallPolicy::new(STALL, runtime.clock.clone(), Contention::none());
        let body = StreamBody::new(stream, None, on_failure, Some(permit), patience, &runtime);
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
    async fn a_late_failure_of_raw_pages_cuts_the_response() {
        let (body, _) = body(failing(), OnFailure::Cut);
        assert!(body.collect().await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_loses_the_stream_and_its_permit() {
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
    async fn a_client_is_not_blamed_for_a_slow_store() {
        let slow = futures::stream::once(async {
            tokio::time::sleep(STALL * 5).await;
            Ok(Bytes::from_static(b"page"))
        });
        let (mut body, _) = body(slow.boxed(), OnFailure::ErrorRecord);
        assert!(body.frame().await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn a_client_that_leaves_gives_the_permit_back() {
        let (body, permits) = body(futures::stream::pending().boxed(), OnFailure::ErrorRecord);
        assert_eq!(permits.held(), 1);
        drop(body);
        assert_eq!(permits.held(), 0);
    }
}
