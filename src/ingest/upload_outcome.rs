//! The outcome of a segment's upload, for the later segments that wait for it.
//!
//! Does: hold it, and wake waiters in the order in which they started to wait; a `watch` channel
//! would wake them in random order, which would make simulations irreproducible. Does not: upload.
//! Invariant: it is set once; a reporter that is dropped before that reports that the segment was
//! dropped.

use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

use super::error::SinkFailure;
use crate::id::BaseName;

/// Where a segment was stored, or why it was not.
pub(super) type UploadResult = Result<BaseName, Arc<SinkFailure>>;

#[derive(Debug, Default)]
struct Shared {
    result: OnceLock<UploadResult>,
    known: Notify,
}

/// Reports the outcome of one upload.
#[derive(Debug, Default)]
pub(super) struct OutcomeReporter(Arc<Shared>);

impl OutcomeReporter {
    /// The outcome, once it is reported.
    pub(super) fn outcome(&self) -> UploadOutcome {
        UploadOutcome(Arc::clone(&self.0))
    }

    pub(super) fn report(&self, result: UploadResult) {
        // Only the first result counts.
        let _ = self.0.result.set(result);
        self.0.known.notify_waiters();
    }
}

impl Drop for OutcomeReporter {
    fn drop(&mut self) {
        if self.0.result.get().is_none() {
            self.report(Err(Arc::new(SinkFailure::SegmentDropped)));
        }
    }
}

/// The outcome of one upload, which may be pending. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct UploadOutcome(Arc<Shared>);

impl UploadOutcome {
    pub(super) fn is_known(&self) -> bool {
        self.0.result.get().is_some()
    }

    /// Waits until it is known.
    pub(super) async fn wait(&self) -> UploadResult {
        loop {
            let known = self.0.known.notified();
            tokio::pin!(known);
            known.as_mut().enable();
            if let Some(result) = self.0.result.get() {
                return result.clone();
            }
            known.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::FutureExt as _;
    use futures::stream::{FuturesUnordered, StreamExt as _};

    #[tokio::test]
    async fn those_that_wait_are_woken_in_the_order_in_which_they_came() {
        let reporter = OutcomeReporter::default();
        let waiting = (0..20).map(|number| {
            let outcome = reporter.outcome();
            async move { outcome.wait().await.map(|_| number).unwrap() }
        });
        // It returns them in the order in which they were woken.
        let mut waiting: FuturesUnordered<_> = waiting.collect();
        assert_eq!(waiting.next().now_or_never(), None);
        reporter.report(Ok("main".parse().unwrap()));
        let woken: Vec<u32> = waiting.collect().await;
        assert_eq!(woken, (0..20).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_reporter_that_is_dropped_reports_that_the_segment_was_dropped() {
        let reporter = OutcomeReporter::default();
        let outcome = reporter.outcome();
        assert!(!outcome.is_known());
        drop(reporter);
        let dropped = outcome.wait().await.unwrap_err();
        assert!(matches!(*dropped, SinkFailure::SegmentDropped));
    }
}
