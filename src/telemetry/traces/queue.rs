//! The queue of spans that have ended.
//!
//! Does: accept sampled spans from the SDK without ever waiting. Does not: export them
//! (`exporter`). Invariant: it holds at most `tracing.max_queue_size` spans; further ones are
//! dropped and counted.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use tokio::sync::mpsc;

use crate::telemetry::metrics::{DropReason, Metrics};

#[derive(Debug)]
pub(super) struct SpanQueue {
    pub sender: mpsc::Sender<SpanData>,
    pub metrics: Arc<Metrics>,
}

impl SpanProcessor for SpanQueue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.sender.try_send(span).is_err() {
            self.metrics.count_dropped_spans(DropReason::QueueFull, 1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}
