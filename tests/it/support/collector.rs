//! An OpenTelemetry collector of the tests' own: it receives OTLP over HTTP and keeps the spans.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{Span, status::StatusCode as SpanStatus};
use parking_lot::Mutex;
use prost::Message as _;
use url::Url;

/// How the next requests are answered.
#[derive(Debug, Default)]
pub struct Behaviour {
    /// So many requests are answered with 503.
    pub unavailable: AtomicU32,
    /// Requests are never answered.
    pub hangs: bool,
}

#[derive(Debug, Default)]
struct Received {
    spans: Vec<Span>,
    resources: Vec<KeyValue>,
    headers: HeaderMap,
    requests: usize,
}

#[derive(Clone)]
pub struct Collector {
    pub url: Url,
    received: Arc<Mutex<Received>>,
    behaviour: Arc<Behaviour>,
}

impl Collector {
    pub async fn start(behaviour: Behaviour) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let collector = Self {
            url: format!("http://{address}/v1/traces").parse().unwrap(),
            received: Arc::default(),
            behaviour: Arc::new(behaviour),
        };
        let router = Router::new().route("/v1/traces", post(receive));
        let router = router.with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        collector
    }

    pub fn spans(&self) -> Vec<Span> {
        self.received.lock().spans.clone()
    }

    pub fn requests(&self) -> usize {
        self.received.lock().requests
    }

    pub fn header(&self, name: &str) -> String {
        let received = self.received.lock();
        received.headers[name].to_str().unwrap().to_owned()
    }

    /// An attribute of the last resource.
    pub fn resource(&self, key: &str) -> Option<String> {
        text(&self.received.lock().resources, key)
    }

    /// Waits until that many spans have come.
    pub async fn expect_spans(&self, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.spans().len() < count {
            let names: Vec<_> = self.spans().into_iter().map(|span| span.name).collect();
            assert!(Instant::now() < deadline, "only these came: {names:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn receive(
    State(collector): State<Collector>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, Vec<u8>) {
    collector.received.lock().requests += 1;
    if collector.behaviour.hangs {
        std::future::pending::<()>().await;
    }
    let unavailable = &collector.behaviour.unavailable;
    let lowered =
        unavailable.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1));
    if lowered.is_ok() {
        return (StatusCode::SERVICE_UNAVAILABLE, Vec::new());
    }
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    let mut received = collector.received.lock();
    received.headers = headers;
    for resource in request.resource_spans {
        received.resources = resource.resource.unwrap().attributes;
        let spans = resource
            .scope_spans
            .into_iter()
            .flat_map(|scope| scope.spans);
        received.spans.extend(spans);
    }
    (StatusCode::OK, Vec::new())
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{key} is {other:?}"),
    }
}

/// An attribute of a span, as text.
pub fn attribute(span: &Span, key: &str) -> Option<String> {
    text(&span.attributes, key)
}

pub fn failed(span: &Span) -> bool {
    let status = span.status.as_ref();
    status.is_some_and(|status| status.code() == SpanStatus::Error)
}
