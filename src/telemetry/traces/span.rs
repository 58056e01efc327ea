//! Spans, and the current one of a task.
//!
//! Does: create them below the current one, attach attributes, links and failures. Does not: choose
//! the tracer, which is part of a request's span. Invariant: a [`Span`] ends when it is dropped;
//! without a span, nothing is formatted and nothing is allocated.

use std::fmt::Display;
use std::future::Future;
use std::pin::pin;
use std::task::Poll;

use opentelemetry::context::FutureExt as _;
use opentelemetry::trace::{SpanKind, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, ContextGuard, KeyValue, Value};
use opentelemetry_sdk::trace::SdkTracer;

/// Longest text of an attribute, in bytes.
const MAX_TEXT: usize = 512;
/// Most links of a span.
pub(super) const MAX_LINKS: u32 = 128;

/// What makes spans; a value of the context of every span.
#[derive(Debug, Clone)]
pub(super) struct Recorder(pub SdkTracer);

/// A span, or none. It ends when it is dropped.
#[derive(Debug, Default)]
pub struct Span(SpanRef);

/// A reference to a span that its owner ends, or none. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct SpanRef(Option<Context>);

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(context) = &self.0.0 {
            context.span().end();
        }
    }
}

impl Span {
    /// No span.
    pub fn none() -> Self {
        Self::default()
    }

    /// A span below the current one; none if there is none.
    pub fn child(name: &'static str) -> Self {
        SpanRef::current().child(name)
    }

    /// The same for a request to another program.
    pub fn client(name: &'static str) -> Self {
        SpanRef::current().start(name, SpanKind::Client)
    }

    /// The span of a request; none if it is not sampled.
    pub(super) fn server(recorder: &Recorder, name: &'static str, caller: &Context) -> Self {
        let parent = caller.with_value(recorder.clone());
        SpanRef(Some(parent)).start(name, SpanKind::Server)
    }

    /// For those that create spans below it.
    pub fn handle(&self) -> SpanRef {
        self.0.clone()
    }

    /// Runs `work` with this span as the current one. Without a span, the current one stays.
    pub async fn run<F: Future>(&self, work: F) -> F::Output {
        self.0.run(work).await
    }
}

impl std::ops::Deref for Span {
    type Target = SpanRef;

    fn deref(&self) -> &SpanRef {
        &self.0
    }
}

impl SpanRef {
    /// The current span of this task.
    pub fn current() -> Self {
        let recorded = |context: &Context| context.get::<Recorder>().is_some();
        Self(Context::map_current(|context| {
            recorded(context).then(|| context.clone())
        }))
    }

    /// A span below this one; none if this is none.
    pub fn child(&self, name: &'static str) -> Span {
        self.start(name, SpanKind::Internal)
    }

    fn start(&self, name: &'static str, kind: SpanKind) -> Span {
        let Some((parent, recorder)) = self.0.as_ref().zip(self.recorder()) else {
            return Span::none();
        };
        let builder = recorder.0.span_builder(name).with_kind(kind);
        let span = recorder.0.build_with_context(builder, parent);
        let context = parent.with_span(span);
        let recorded = context.span().is_recording();
        Span(Self(recorded.then_some(context)))
    }

    fn recorder(&self) -> Option<&Recorder> {
        self.0.as_ref()?.get::<Recorder>()
    }

    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// Runs `work` with this span as the current one. Without a span, the current one stays.
    pub async fn run<F: Future>(&self, work: F) -> F::Output {
        match &self.0 {
            None => work.await,
            Some(context) => work.with_context(context.clone()).await,
        }
    }

    /// Makes it the current span until the guard is dropped, which must not happen after an await.
    pub fn enter(&self) -> Option<ContextGuard> {
        self.0.clone().map(Context::attach)
    }

    /// Sets an attribute.
    pub fn set(&self, key: &'static str, value: impl Display) {
        if let Some(context) = &self.0 {
            let text = shortened(value.to_string());
            context.span().set_attribute(KeyValue::new(key, text));
        }
    }

    /// Sets an attribute that is a number.
    pub fn set_number(&self, key: &'static str, value: u64) {
        if let Some(context) = &self.0 {
            let value = Value::I64(i64::try_from(value).unwrap_or(i64::MAX));
            context.span().set_attribute(KeyValue::new(key, value));
        }
    }

    /// Refers to another span that is not above this one.
    pub fn link(&self, other: &Self) {
        if let Some((context, other)) = self.0.as_ref().zip(other.0.as_ref()) {
            let other = other.span().span_context().clone();
            context.span().add_link(other, Vec::new());
        }
    }

    /// Marks it as failed.
    pub fn fail(&self, why: impl Display) {
        if let Some(context) = &self.0 {
            let why = shortened(why.to_string());
            context.span().set_status(Status::error(why));
        }
    }
}

/// Runs `work`, which gets a span of this name below the current one if it has to wait.
pub async fn waiting<F: Future>(name: &'static str, work: F) -> F::Output {
    let current = SpanRef::current();
    if current.is_none() {
        return work.await;
    }
    let mut work = pin!(work);
    if let Poll::Ready(done) = futures::poll!(work.as_mut()) {
        return done;
    }
    current.child(name).run(work).await
}

fn shortened(mut text: String) -> String {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}
