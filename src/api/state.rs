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
use crate::http::credentials::Credentials;
use crate::http::stall::{Contention, StallPolicy};
use crate::id::ExchangeId;
use crate::ingest::Ingest;
use crate::memory::MemoryPool;
use crate::read::Reader;
use crate::runtime::Runtime;
use crate::storage::Storage;
use crate::telemetry::http::HttpMetrics;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::registry::MetricsRegistry;

/// The state as handlers get it.
pub type SharedState = Arc<ApiState>;

/// The parts of the daemon that the API speaks to.
pub struct ApiDeps {
    /// The writing side.
    pub ingest: Ingest,
    /// Commit records and handles.
    pub commits: Catalog,
    /// The reading side.
    pub reader: Reader,
    /// Announcement, lease, close.
    pub exchanges: Exchanges,
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
    /// All metrics, for `/metrics`.
    pub registry: MetricsRegistry,
    /// Metrics of requests.
    pub requests: HttpMetrics,
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
    pub parts: ApiDeps,
    /// Bounds on bodies.
    pub body_limits: BodyLimits,
    /// How many requests are served at a time.
    pub slots: Slots,
    /// What clients that take nothing hold up.
    pub contention: Contention,
    /// With clients that take nothing of a response.
    pub stall_policy: StallPolicy,
    /// How long clients are told that an idle connection stays open: a little less than it does.
    pub keep_alive: Duration,
    /// When the daemon began to serve.
    pub started: Instant,
}

impl ApiState {
    /// The state for these parts under these limits.
    pub fn new(parts: ApiDeps, limits: &LimitsConfig, slots: Slots) -> SharedState {
        let clock = parts.runtime.clock.clone();
        let (write, read) = (&parts.write_memory, &parts.read_memory);
        let contention = Contention::new(write, read, &slots.reads);
        Arc::new(Self {
            started: clock.now(),
            body_limits: BodyLimits::new(limits, clock.clone()),
            stall_policy: StallPolicy::new(limits.read_stall_timeout, clock, contention.clone()),
            contention,
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
