//! Sets tracing up as configured.
//!
//! Does: build the sampler, the resource and the tracer, and start the export. Does not: read the
//! environment: what the SDK would read from it is set here. Invariant: a configuration that cannot
//! be used leaves tracing off; the daemon runs without it.

use std::sync::Arc;

use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Context, InstrumentationScope, KeyValue, SpanId, TraceId};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{IdGenerator, Sampler, SdkTracerProvider, ShouldSample, SpanLimits};
use tokio::sync::mpsc;

use super::exporter::Exporter;
use super::queue::SpanQueue;
use super::span::{MAX_LINKS, Recorder, Span};
use crate::config::TracingConfig;
use crate::runtime::{Random, Runtime};
use crate::telemetry::metrics::Metrics;

/// Most attributes of a span.
const MAX_ATTRIBUTES: u32 = 32;
/// Most events of a span; none has any.
const MAX_EVENTS: u32 = 8;

/// Starts traces; off unless an endpoint is configured. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Traces(Option<Arc<Recorder>>);

impl Traces {
    /// Whether spans are recorded.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The span of a request below that of its caller, by the headers of W3C Trace Context.
    pub fn start<'a>(&self, name: &'static str, header: impl Fn(&str) -> Option<&'a str>) -> Span {
        let Some(recorder) = &self.0 else {
            return Span::none();
        };
        let headers = Headers {
            traceparent: header("traceparent"),
            tracestate: header("tracestate"),
        };
        let propagator = TraceContextPropagator::new();
        let caller = propagator.extract_with_context(&Context::new(), &headers);
        Span::server(recorder, name, &caller)
    }
}

struct Headers<'a> {
    traceparent: Option<&'a str>,
    tracestate: Option<&'a str>,
}

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => self.traceparent,
            "tracestate" => self.tracestate,
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}

/// Ids from the generator that is passed in.
#[derive(Debug)]
struct Ids(Random);

impl Ids {
    /// Never zero, which means no id.
    fn next(&self) -> u64 {
        self.0.next_u64().max(1)
    }
}

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        let (high, low) = (u128::from(self.next()), u128::from(self.next()));
        TraceId::from(high << 64 | low)
    }

    fn new_span_id(&self) -> SpanId {
        SpanId::from(self.next())
    }
}

fn sampler(config: &TracingConfig) -> Box<dyn ShouldSample> {
    let own = Sampler::TraceIdRatioBased(config.sampling_ratio);
    match config.parent_based {
        true => Box::new(Sampler::ParentBased(Box::new(own))),
        false => Box::new(own),
    }
}

fn resource(config: &TracingConfig, instance: &str) -> Resource {
    let own = [
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id", instance.to_owned()),
    ];
    let own = own.map(|(key, value)| KeyValue::new(key, value));
    let given = config.resource_attributes.iter();
    let given = given.map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    let name = KeyValue::new("service.name", config.service_name.clone());
    // Of the same attribute, the last one counts.
    let all = own.into_iter().chain(given).chain([name]);
    Resource::builder_empty().with_attributes(all).build()
}

/// Starts to record and to export, as the instance of this name, if it is configured. What is left
/// is exported when the runtime's tasks are shut down, within `tracing.export_timeout`.
pub fn open(
    config: &TracingConfig,
    instance: &str,
    metrics: &Arc<Metrics>,
    runtime: &Runtime,
) -> Traces {
    let Some(endpoint) = &config.collector else {
        return Traces::default();
    };
    let (sender, receiver) = mpsc::channel(config.max_queue_size);
    let resource = resource(config, instance);
    let exporter = Exporter::new(config, endpoint, &resource, receiver, metrics, runtime);
    let exporter = match exporter {
        Ok(exporter) => exporter,
        Err(error) => {
            tracing::error!(%error, "no traces are recorded: the client cannot be set up");
            return Traces::default();
        }
    };
    let metrics = Arc::clone(metrics);
    let limits = SpanLimits {
        max_events_per_span: MAX_EVENTS,
        max_attributes_per_span: MAX_ATTRIBUTES,
        max_links_per_span: MAX_LINKS,
        max_attributes_per_event: MAX_ATTRIBUTES,
        max_attributes_per_link: MAX_ATTRIBUTES,
    };
    let provider = SdkTracerProvider::builder()
        .with_sampler(sampler(config))
        .with_id_generator(Ids(Random::from_system()))
        .with_span_limits(limits)
        .with_resource(resource)
        .with_span_processor(SpanQueue { sender, metrics })
        .build();
    let scope = InstrumentationScope::builder("stopover");
    let scope = scope.with_version(env!("CARGO_PKG_VERSION")).build();
    let stopping = runtime.tasks.stop_token();
    runtime.tasks.spawn(exporter.run(stopping));
    tracing::info!(endpoint = endpoint.as_str(), "exporting traces");
    Traces(Some(Arc::new(Recorder(provider.tracer_with_scope(scope)))))
}
