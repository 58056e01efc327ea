//! Exports spans in batches: OTLP over HTTP, as protobuf.
//!
//! Does: gather a batch, post it, repeat what may be repeated, and count the outcome. Does not:
//! delay what it records: an unavailable collector only fills the queue. Invariant: every span that
//! was removed from the queue is counted as exported or as dropped; once the daemon stops, the
//! export ends within `tracing.export_timeout`. The values of headers are in no message.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanData;
use prost::Message as _;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, StatusCode};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::config::TracingConfig;
use crate::runtime::{Clock, Runtime};
use crate::telemetry::metrics::{DropReason, Metrics};

/// How often an export is tried.
const MAX_TRIES: u32 = 3;
/// Pause after the first failure; it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Most bytes of a response that are read.
const MAX_RESPONSE: usize = 64 << 10;

/// Removes spans from the queue and posts them.
pub(super) struct Exporter {
    queue: mpsc::Receiver<SpanData>,
    resource: ResourceAttributesWithSchema,
    client: Client,
    endpoint: Url,
    headers: HeaderMap,
    max_batch_size: usize,
    interval: Duration,
    timeout: Duration,
    clock: Clock,
    metrics: Arc<Metrics>,
    /// Whether the last export failed, so that an unavailable collector is logged once.
    failing: bool,
}

/// Why an export failed.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("{0}")]
    Request(String),
    #[error("the collector answered {0}")]
    Status(StatusCode),
    #[error("no answer within tracing.export_timeout ({0:?})")]
    Timeout(Duration),
}

impl ExportError {
    fn of(error: reqwest::Error) -> Self {
        let error = error.without_url();
        let cause = error.source().map(|cause| format!(": {cause}"));
        Self::Request(format!("{error}{}", cause.unwrap_or_default()))
    }

    fn may_be_repeated(&self) -> bool {
        const REPEATED: [u16; 4] = [429, 502, 503, 504];
        match self {
            Self::Status(status) => REPEATED.contains(&status.as_u16()),
            Self::Request(_) | Self::Timeout(_) => true,
        }
    }
}

impl Exporter {
    /// An exporter to this endpoint.
    ///
    /// # Errors
    /// The client cannot be set up, such as for lack of root certificates.
    pub(super) fn new(
        config: &TracingConfig,
        endpoint: &Url,
        resource: &Resource,
        queue: mpsc::Receiver<SpanData>,
        metrics: &Arc<Metrics>,
        runtime: &Runtime,
    ) -> Result<Self, reqwest::Error> {
        let mut headers = HeaderMap::new();
        for (name, value) in &config.headers {
            // Both were checked when the configuration was loaded.
            let name = HeaderName::from_bytes(name.as_bytes());
            let value = HeaderValue::from_str(value.expose());
            if let (Ok(name), Ok(mut value)) = (name, value) {
                value.set_sensitive(true);
                headers.insert(name, value);
            }
        }
        let content = HeaderValue::from_static("application/x-protobuf");
        headers.insert(CONTENT_TYPE, content);
        let client = Client::builder().no_proxy();
        let client = client.redirect(reqwest::redirect::Policy::none());
        Ok(Self {
            queue,
            resource: resource.into(),
            client: client.build()?,
            endpoint: endpoint.clone(),
            headers,
            max_batch_size: config.max_batch_size,
            interval: config.export_interval,
            timeout: config.export_timeout,
            clock: runtime.clock.clone(),
            metrics: Arc::clone(metrics),
            failing: false,
        })
    }

    /// Exports until the daemon stops, and then what is left.
    pub(super) async fn run(mut self, stopping: CancellationToken) {
        let (clock, limit) = (self.clock.clone(), self.timeout);
        let too_late = async {
            stopping.cancelled().await;
            clock.sleep(limit).await;
        };
        tokio::select! {
            biased;
            () = self.export_all(&stopping) => {}
            () = too_late => tracing::warn!("stopping before all traces were exported"),
        }
    }

    async fn export_all(&mut self, stopping: &CancellationToken) {
        loop {
            let batch = self.next_batch(stopping).await;
            if batch.is_empty() {
                return;
            }
            self.export(batch).await;
        }
    }

    /// The next spans; none if the daemon stops and the queue is empty.
    async fn next_batch(&mut self, stopping: &CancellationToken) -> Vec<SpanData> {
        let mut batch = Vec::new();
        let mut stopped = tokio::select! {
            biased;
            received = self.queue.recv_many(&mut batch, self.max_batch_size) => received == 0,
            () = stopping.cancelled() => true,
        };
        let (clock, interval) = (self.clock.clone(), self.interval);
        let mut full = std::pin::pin!(clock.sleep(interval));
        while !stopped && batch.len() < self.max_batch_size {
            let room = self.max_batch_size - batch.len();
            tokio::select! {
                biased;
                () = stopping.cancelled() => stopped = true,
                () = &mut full => return batch,
                received = self.queue.recv_many(&mut batch, room) => stopped = received == 0,
            }
        }
        while stopped && batch.len() < self.max_batch_size {
            let Ok(span) = self.queue.try_recv() else {
                break;
            };
            batch.push(span);
        }
        batch
    }

    async fn export(&mut self, batch: Vec<SpanData>) {
        let count = batch.len() as u64;
        let resource_spans = group_spans_by_resource_and_scope(batch, &self.resource);
        let body = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
        // What is cut off when the daemon stops counts as failed.
        let uncounted = Uncounted {
            metrics: Arc::clone(&self.metrics),
            spans: count,
        };
        match self.post_repeatedly(body).await {
            Ok(rejected) => {
                uncounted.exported(count.saturating_sub(rejected));
                if std::mem::take(&mut self.failing) {
                    tracing::info!("traces are exported again");
                }
            }
            Err(error) => {
                drop(uncounted);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(%error, endpoint = self.endpoint.as_str(),
                        "traces cannot be exported; spans are dropped until they can");
                }
            }
        }
    }

    async fn post_repeatedly(&self, body: Vec<u8>) -> Result<u64, ExportError> {
        let body = bytes::Bytes::from(body);
        let (mut tries, mut pause) = (1, FIRST_PAUSE);
        loop {
            let posted = self.clock.within(self.timeout, self.post(body.clone()));
            match posted
                .await
                .unwrap_or(Err(ExportError::Timeout(self.timeout)))
            {
                Err(error) if tries < MAX_TRIES && error.may_be_repeated() => {
                    self.clock.sleep(pause).await;
                    (tries, pause) = (tries + 1, pause * 2);
                }
                outcome => return outcome,
            }
        }
    }

    /// Posts a batch; returns how many of its spans the collector rejected.
    async fn post(&self, body: bytes::Bytes) -> Result<u64, ExportError> {
        let request = self.client.post(self.endpoint.clone());
        let request = request.headers(self.headers.clone()).body(body);
        let mut response = request.send().await.map_err(ExportError::of)?;
        if !response.status().is_success() {
            return Err(ExportError::Status(response.status()));
        }
        let mut content = Vec::new();
        while content.len() < MAX_RESPONSE
            && let Some(more) = response.chunk().await.map_err(ExportError::of)?
        {
            content.extend_from_slice(&more);
        }
        // A response that cannot be decoded has no count of rejected spans.
        let answer = ExportTraceServiceResponse::decode(&*content).unwrap_or_default();
        let rejected = answer
            .partial_success
            .map_or(0, |partial| partial.rejected_spans);
        Ok(u64::try_from(rejected).unwrap_or(0))
    }
}

/// Spans whose export has no outcome yet: they count as dropped if this is dropped first.
struct Uncounted {
    metrics: Arc<Metrics>,
    spans: u64,
}

impl Uncounted {
    /// So many were exported; the collector rejected the others.
    fn exported(mut self, count: u64) {
        self.metrics.spans_exported.inc_by(count);
        let rejected = std::mem::take(&mut self.spans).saturating_sub(count);
        self.metrics
            .count_dropped_spans(DropReason::Rejected, rejected);
    }
}

impl Drop for Uncounted {
    fn drop(&mut self) {
        self.metrics
            .count_dropped_spans(DropReason::ExportFailed, self.spans);
    }
}
