//! Traces: spans of what a request waits for, for an OpenTelemetry collector.
//!
//! Does: make spans ([`span`]), queue those that have ended (`queue`), export them as OTLP over
//! HTTP (`exporter`). Does not: decide what has a span. Invariant: without `tracing.collector`, and
//! for requests that are not sampled, no span is allocated; a collector that is slow or unavailable
//! delays only the export: when the queue is full, spans are dropped and counted.

mod exporter;
mod open;
mod queue;
pub mod span;

pub use self::open::{Traces, open};
pub use self::span::{Span, SpanRef, waiting};
