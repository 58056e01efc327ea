//! The trace of one query through Trino, the plugin and the daemons.
//!
//! Does: receive the spans of all of them as an OpenTelemetry collector, and check that those of a
//! query are one tree. Does not: check the spans of single requests; `tests/it/traces.rs` does.

#![allow(clippy::disallowed_methods)] // the collector runs as a spawned task

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

use crate::process::wait_until;

/// Spans from the lowest to the query, with or without others between them.
type Chain = &'static [&'static str];

/// What the trace of any query contains.
pub const USUAL: &[Chain] = &[
    &[
        "PUT",
        "segment",
        "sink",
        "stopover.sink",
        "stopover.exchange",
        "query",
    ],
    &["batch", "stopover.sink", "stopover.exchange", "query"],
    &["finish", "stopover.sink", "stopover.exchange", "query"],
    &["plan", "stopover.exchange", "query"],
    &["read", "stopover.read", "query"],
];

/// What that of a query contains whose pages do not all fit into the daemons' memory. Whether it
/// waits for memory depends on the disk.
pub const FROM_STORE: &[Chain] = &[&["GET", "read", "stopover.read", "query"]];

/// A collector for OTLP over HTTP. Cheap to clone.
#[derive(Clone)]
pub struct Traces {
    pub url: String,
    /// `None` while nothing is recorded.
    recorded: Arc<Mutex<Option<Vec<Span>>>>,
}

impl Traces {
    pub async fn listen() -> Result<Self> {
        let recorded = Arc::<Mutex<Option<Vec<Span>>>>::default();
        let spans = Arc::clone(&recorded);
        let receive = async move |body: Bytes| {
            let mut recorded = spans.lock().expect("no receiver panics");
            let Some(spans) = recorded.as_mut() else {
                return StatusCode::OK;
            };
            let Ok(request) = ExportTraceServiceRequest::decode(body) else {
                return StatusCode::BAD_REQUEST;
            };
            let scopes = request.resource_spans.into_iter();
            let scopes = scopes.flat_map(|resource| resource.scope_spans);
            spans.extend(scopes.flat_map(|scope| scope.spans));
            StatusCode::OK
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/v1/traces", listener.local_addr()?);
        let router = Router::new().route("/v1/traces", post(receive));
        let router = router.layer(DefaultBodyLimit::max(64 << 20));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { url, recorded })
    }

    /// Keeps what arrives from now on.
    pub fn record(&self) {
        *self.recorded.lock().expect("no receiver panics") = Some(Vec::new());
    }

    /// Waits until the trace of a query contains all of these, and prints them.
    pub async fn expect_tree(&self, query: &str, chains: &[Chain]) -> Result<()> {
        let missing = || {
            let recorded = self.recorded.lock().expect("no receiver panics");
            let spans = recorded.as_deref().unwrap_or_default();
            chains
                .iter()
                .find(|chain| find(spans, query, chain).is_none())
        };
        let complete = || async { Ok(missing().is_none()) };
        let waited = wait_until("the trace of the query", Duration::from_secs(60), complete).await;
        let spans = self.recorded.lock().expect("no receiver panics").take();
        let spans = spans.context("nothing was recorded")?;
        for chain in chains {
            let found = find(&spans, query, chain);
            let names = || {
                let mut names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
                names.sort_unstable();
                names.dedup();
                names.join(", ")
            };
            let found = found.with_context(|| {
                let ways = spans
                    .iter()
                    .filter(|span| span.name == chain[0])
                    .map(|span| {
                        let way = up(&spans, span);
                        way.iter()
                            .map(|span| span.name.as_str())
                            .collect::<Vec<_>>()
                            .join(" < ")
                    });
                let longest = ways.max_by_key(String::len).unwrap_or_default();
                format!(
                    "no trace of {query} has {chain:?}; the longest: {longest:?}; of: {}",
                    names()
                )
            })?;
            println!("    trace: {}", found.join(" < "));
        }
        waited
    }
}

/// A span and those above it.
fn up<'a>(spans: &'a [Span], span: &'a Span) -> Vec<&'a Span> {
    let above = |span: &&'a Span| {
        let mut all = spans.iter();
        all.find(|other| other.trace_id == span.trace_id && other.span_id == span.parent_span_id)
    };
    std::iter::successors(Some(span), above).collect()
}

/// The names of the spans from the first of a chain up to the root of the trace.
fn find<'a>(spans: &'a [Span], query: &str, chain: &[&str]) -> Option<Vec<&'a str>> {
    let first = spans.iter().filter(|span| span.name == chain[0]);
    let mut ways = first.map(|span| up(spans, span));
    let way = ways.find(|way| {
        let mut names = way.iter().map(|span| span.name.as_str());
        chain.iter().all(|name| names.any(|found| found == *name))
            && way.iter().any(|span| is_of(span, query))
    })?;
    Some(way.into_iter().map(|span| span.name.as_str()).collect())
}

/// Whether Trino's span of a query is that of this one.
fn is_of(span: &Span, query: &str) -> bool {
    let mut attributes = span.attributes.iter();
    attributes.any(|attribute| {
        let value = attribute
            .value
            .as_ref()
            .and_then(|value| value.value.as_ref());
        matches!(value, Some(Value::StringValue(text)) if text == query)
    })
}
