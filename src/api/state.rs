//! What the handlers are given.
//!
//! Does: hold the daemon's parts and the bounds of the API. Does not: build the parts (`app` does).

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRef;
use tokio::time::Instant;

use super::limits::BodyLimits;
use crate::catalog::Catalog;
use crate::config::{LimitsConfig, QueryConfig};
use crate::exchange::Exchanges;
use crate::fair::{FairPermit, FairSemaphore};
use crate::gc::close::Closing;
use crate::http::credentials::Credentials;
use crate::http::stall::{Contention, StallPolicy};
use crate::id::ExchangeId;
use crate::ingest::Ingest;
use crate::memory::MemoryPool;
use crate::read::Reader;
use crate::runtime::Runtime;
use crate::storage::Storage;
use crate::telemetry::metrics::Metrics;

/// The state as handlers get it.
pub type SharedState = Arc<ApiState>;

/// A request that is over, for the metrics.
#[derive(Debug, Clone, Copy)]
pub struct FinishedRequest<'a> {
    /// The pattern of its route (`/v1/exchanges/{exchange}`), or `unmatched`: a bounded set.
    pub route: &'a str,
    /// Its method, `other` if it is none of the usual: a bounded set.
    pub method: &'static str,
    /// Hundreds of its status, 1 to 5; `None` if the client left before there was one.
    pub status_class: Option<u16>,
    /// From the head of the request to the last byte of the answer.
    pub duration: Duration,
}

/// Told of each request when it begins and when its answer has been taken, or its client has left.
pub trait RequestObserver: Send + Sync {
    /// A request began.
    fn started(&self) {}
    /// It ended; comes exactly once for each that began.
    fn finished(&self, _request: &FinishedRequest<'_>) {}
}

/// Observes nothing.
pub struct NoObserver;

impl RequestObserver for NoObserver {}

/// The parts of the daemon that the API speaks to.
pub struct Parts {
    /// The writing side.
    pub ingest: Ingest,
    /// Commit records and handles.
    pub commits: Catalog,
    /// The reading side.
    pub reader: Reader,
    /// Announcement, lease, whether an exchange is open.
    pub exchanges: Exchanges,
    /// Closes exchanges.
    pub closing: Closing,
    /// The base directories, for `readyz`.
    pub storage: Storage,
    /// The counters that the dashboard shows.
    pub metrics: Arc<Metrics>,
    /// Memory of writing, shown on the dashboard.
    pub write_memory: MemoryPool,
    /// Memory of reading, shown on the dashboard.
    pub read_memory: MemoryPool,
    /// Clock, randomness, tasks.
    pub runtime: Runtime,
    /// Who may ask.
    pub credentials: Credentials,
    /// All metrics as Prometheus text.
    pub render_metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Told of each request.
    pub observer: Arc<dyn RequestObserver>,
}

/// How many requests are served at a time; more wait, each query in its turn.
#[derive(Clone)]
pub struct Slots {
    /// One for each read that is streamed.
    pub reads: FairSemaphore,
    /// One for each request with pages that is taken.
    pub writes: FairSemaphore,
}

impl Slots {
    /// From the configuration.
    pub fn new(limits: &LimitsConfig, query: &QueryConfig) -> Self {
        let reads = limits.max_concurrent_reads as u64;
        Self {
            reads: FairSemaphore::new(reads, query.max_concurrent_reads),
            // The number of connections bounds them all together.
            writes: FairSemaphore::new(FairSemaphore::UNBOUNDED, query.max_concurrent_writes),
        }
    }
}

/// All that a handler needs.
pub struct ApiState {
    /// The daemon's parts.
    pub parts: Parts,
    /// Bounds on bodies.
    pub body_limits: BodyLimits,
    /// How many requests are served at a time.
    pub slots: Slots,
    /// What clients that take nothing hold up.
    pub pressure: Contention,
    /// With clients that take nothing of a response.
    pub patience: StallPolicy,
    /// How long clients are told that an idle connection stays open: a little less than it does.
    pub keep_alive: Duration,
    /// When the daemon began to serve.
    pub started: Instant,
}

impl ApiState {
    /// The state for these parts under these limits.
    pub fn new(parts: Parts, limits: &LimitsConfig, slots: Slots) -> SharedState {
        let clock = parts.runtime.clock.clone();
        let (write, read) = (&parts.write_memory, &parts.read_memory);
        let pressure = Contention::new(write, read, &slots.reads);
        Arc::new(Self {
            started: clock.now(),
            body_limits: BodyLimits::new(limits, clock.clone()),
            patience: StallPolicy::new(limits.read_stall_timeout, clock, pressure.clone()),
            pressure,
            slots,
            keep_alive: limits.header_timeout * 4 / 5,
            parts,
        })
    }
}

impl FromRef<SharedState> for BodyLimits {
    fn from_ref(state: &SharedState) -> Self {
        state.body_limits.clone()
    }
}

impl ApiState {
    /// Waits until one more read of this exchange's query may be streamed.
    pub async fn read_slot(&self, exchange: &ExchangeId) -> FairPermit {
        self.slots.reads.acquire(exchange.query(), 1).await
    }

    /// Waits until one more request with pages of this exchange's query may be taken.
    pub async fn write_slot(&self, exchange: &ExchangeId) -> FairPermit {
        self.slots.writes.acquire(exchange.query(), 1).await
    }
}
