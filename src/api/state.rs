//! The state that handlers share.
//!
//! Does: hold the daemon's parts, the limits of the API and its slots. Does not: build the parts
//! (`app` does).

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use axum::extract::FromRef;
use tokio::time::Instant;

use super::leases::Leases;
use super::limits::BodyLimits;
use super::startup::Startup;
use crate::catalog::Catalog;
use crate::config::{LimitsConfig, Live, QueryConfig, ServerConfig};
use crate::dashboard::history::History;
use crate::exchange::Exchanges;
use crate::fair::{FairPermit, FairSemaphore};
use crate::gc::close::Closing;
use crate::http::credentials::Credentials;
use crate::http::stall::{Contention, StallPolicy};
use crate::id::ExchangeId;
use crate::ingest::Ingest;
use crate::memory::MemoryPool;
use crate::read::Reader;
use crate::reload::Reloader;
use crate::runtime::Runtime;
use crate::storage::Storage;
use crate::telemetry::http::HttpMetrics;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::recent::RecentProblems;
use crate::telemetry::registry::MetricsRegistry;
use crate::telemetry::traces::{Traces, waiting};

/// The span of a request that waits for a slot.
const WAIT: &str = "wait for request slot";

/// The state of the router.
pub type SharedState = Arc<ApiState>;

/// The parts of the daemon that the API calls.
pub struct ApiDeps {
    pub ingest: Ingest,
    pub commits: Catalog,
    pub reader: Reader,
    pub exchanges: Exchanges,
    pub closing: Closing,
    pub storage: Storage,
    /// For the dashboard, as are the pools.
    pub metrics: Arc<Metrics>,
    pub write_memory: MemoryPool,
    pub read_memory: MemoryPool,
    pub runtime: Runtime,
    pub credentials: Credentials,
    /// Whether the daemon is still starting.
    pub startup: Startup,
    /// All metrics, for `/metrics`.
    pub registry: MetricsRegistry,
    /// Metrics of requests.
    pub requests: HttpMetrics,
    /// Starts the span of a request.
    pub traces: Traces,
    /// The last warnings and errors of the log.
    pub recent: RecentProblems,
}

/// Where a daemon is.
pub struct Location {
    /// The name of its machine or pod.
    pub host: String,
    /// URIs by which nodes on other machines reach it.
    pub advertise: Vec<String>,
    /// Its availability zone.
    pub zone: Option<String>,
}

impl Location {
    /// The configured addresses, on a host of this name.
    pub fn new(host: String, server: &ServerConfig) -> Self {
        let zone = Some(server.zone.clone());
        Self {
            host,
            advertise: server.advertise.clone(),
            zone: zone.filter(|zone| !zone.is_empty()),
        }
    }
}

/// How many requests of each kind run at a time. Further requests wait, fairly by query.
#[derive(Clone)]
pub struct Slots {
    /// One for each streamed read.
    pub reads: FairSemaphore,
    /// One for each page request.
    pub writes: FairSemaphore,
    /// For lists of exchanges, which take memory for each exchange that there is.
    pub lists: FairSemaphore,
}

impl Slots {
    /// The configured numbers of slots.
    pub fn new(limits: &LimitsConfig, query: &QueryConfig) -> Self {
        let reads = limits.max_concurrent_reads as u64;
        Self {
            reads: FairSemaphore::new(reads, query.max_concurrent_reads),
            // Their sum is bounded by the number of connections.
            writes: FairSemaphore::new(FairSemaphore::UNBOUNDED, query.max_concurrent_writes),
            lists: FairSemaphore::new(1, None),
        }
    }
}

/// What a handler needs.
pub struct ApiState {
    pub parts: ApiDeps,
    pub location: Location,
    pub body_limits: BodyLimits,
    pub slots: Slots,
    /// How long responses may stall.
    pub stall_policy: StallPolicy,
    /// The limits, some of which may change.
    pub limits: Live<LimitsConfig>,
    /// Reads the configuration again; set once the daemon runs.
    pub reloader: OnceLock<Reloader>,
    /// The address on which it listens; set once it does.
    pub listen: OnceLock<SocketAddr>,
    /// For the uptime on the dashboard.
    pub started: Instant,
    /// For its plots.
    pub history: History,
    /// For its list of exchanges.
    pub leases: Leases,
}

impl ApiState {
    /// Combines the parts with the configured limits.
    pub fn new(
        parts: ApiDeps,
        location: Location,
        limits: Live<LimitsConfig>,
        slots: Slots,
    ) -> SharedState {
        let current = limits.get();
        let clock = parts.runtime.clock.clone();
        let (write, read) = (&parts.write_memory, &parts.read_memory);
        let body_limits = BodyLimits::new(&current, clock.clone());
        let contention = Contention::new(write, &[read, &body_limits.handles], &slots.reads);
        Arc::new(Self {
            started: clock.now(),
            history: History::default(),
            leases: Leases::default(),
            body_limits,
            stall_policy: StallPolicy::new(current.response_stall_timeout, clock, contention),
            slots,
            limits,
            reloader: OnceLock::new(),
            listen: OnceLock::new(),
            location,
            parts,
        })
    }

    /// All memory pools of the daemon, by name.
    pub fn pools(&self) -> Vec<(&'static str, MemoryPool)> {
        let (parts, limits) = (&self.parts, &self.body_limits);
        vec![
            ("write", parts.write_memory.clone()),
            ("read", parts.read_memory.clone()),
            ("request", limits.control_bodies.clone()),
            ("handle", limits.handles.clone()),
            ("sink", parts.ingest.sink_memory().clone()),
        ]
    }

    /// What is insecure about the credentials of every address, for the dashboard. No file is read
    /// for it.
    pub fn credential_warnings(&self) -> Vec<String> {
        match self.reloader.get() {
            Some(reloader) => reloader.credential_warnings(),
            None => self.parts.credentials.warnings(),
        }
    }

    /// Waits for a slot for a streamed read of this exchange's query.
    pub async fn read_slot(&self, exchange: &ExchangeId) -> FairPermit {
        let slot = self.slots.reads.acquire(exchange.query(), 1);
        waiting(WAIT, slot).await
    }

    /// Waits for a slot for a page request of this exchange's query.
    pub async fn write_slot(&self, exchange: &ExchangeId) -> FairPermit {
        let slot = self.slots.writes.acquire(exchange.query(), 1);
        waiting(WAIT, slot).await
    }
}

impl FromRef<SharedState> for BodyLimits {
    fn from_ref(state: &SharedState) -> Self {
        Self {
            body_timeout: state.limits.get().body_timeout,
            ..state.body_limits.clone()
        }
    }
}
