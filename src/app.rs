//! The composition root: builds a daemon from its configuration and runs it to its end.
//!
//! Does: give every part what it needs, in one place. Does not: decide anything else. Invariant:
//! `api` is bound only when every part behind it exists.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::api::state::{ApiDeps, ApiState, SharedState, Slots};
use crate::cache::hot::HotSegments;
use crate::catalog::Catalog;
use crate::config::{Config, ServerConfig};
use crate::exchange::{Exchanges, ExchangesDeps, Forget};
use crate::gc::{drain, sweep};
use crate::http::credentials::{CredentialError, Credentials};
use crate::http::limits::ServerLimits;
use crate::http::server::{BindError, Server};
use crate::id::{DaemonId, ExchangeId};
use crate::ingest::{Ingest, IngestDeps};
use crate::memory::MemoryPool;
use crate::read::{Reader, ReaderDeps};
use crate::runtime::Runtime;
use crate::storage::{Storage, StorageError};
use crate::telemetry::http::HttpMetrics;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::pools::{PoolCollector, SlotCollector};
use crate::telemetry::registry::MetricsRegistry;

/// All parts of a daemon but its door.
#[derive(Clone)]
pub struct Daemon {
    /// Time, randomness, background work.
    pub runtime: Runtime,
    /// Base directories.
    pub storage: Storage,
    /// Exchanges.
    pub exchanges: Exchanges,
    /// The writing side.
    pub ingest: Ingest,
    /// Commit records and handles.
    pub commits: Catalog,
    /// Segments written here that are still in memory.
    pub hot: HotSegments,
    /// The reading side.
    pub reader: Reader,
    /// Memory for writing.
    pub write_pool: MemoryPool,
    /// Memory for reading.
    pub read_pool: MemoryPool,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

struct ForgetEverywhere {
    ingest: Ingest,
    commits: Catalog,
    reader: Reader,
}

impl Forget for ForgetEverywhere {
    fn kept(&self) -> HashSet<ExchangeId> {
        let mut kept = self.commits.cached_exchanges();
        kept.extend(self.reader.cached_exchanges());
        kept
    }

    fn forget(&self, exchange: &ExchangeId) {
        self.ingest.forget(exchange);
        self.commits.forget(exchange);
        self.reader.forget(exchange);
    }
}

impl Daemon {
    /// Builds a daemon on the base directories of its configuration, without touching them.
    ///
    /// # Errors
    /// A base directory that cannot be opened as configured.
    pub fn build(config: &Config, runtime: &Runtime) -> Result<Self, StorageError> {
        let metrics = Arc::new(Metrics::default());
        let storage = Storage::open(&config.base_directories, runtime)?;
        Ok(Self::assemble(config, runtime, storage, metrics))
    }

    /// Builds a daemon on base directories that exist; the seam for tests and simulation.
    pub fn assemble(
        config: &Config,
        runtime: &Runtime,
        storage: Storage,
        metrics: Arc<Metrics>,
    ) -> Self {
        let memory = config.memory.split();
        let query = &config.query;
        let write_pool = MemoryPool::limited("write", memory.write, query.max_write_memory);
        let read_pool = MemoryPool::limited("read", memory.read, query.max_read_memory);
        let hot = HotSegments::new(write_pool.clone(), read_pool.clone());
        let max_footer_size = config.limits.max_footer_size;
        let counted = Arc::clone(&metrics);
        let pool = read_pool.clone();
        let commits = Catalog::new(storage.clone(), hot.clone(), max_footer_size, counted, pool);
        let parts = ExchangesDeps {
            runtime: runtime.clone(),
            storage: storage.clone(),
            metrics: Arc::clone(&metrics),
        };
        let exchanges = Exchanges::new(parts, &config.lease, config.limits.max_partitions);
        let parts = IngestDeps {
            daemon: DaemonId(runtime.random.next_u64()),
            runtime: runtime.clone(),
            storage: storage.clone(),
            commits: commits.clone(),
            hot: hot.clone(),
            pool: write_pool.clone(),
            gate: exchanges.gate(),
            metrics: Arc::clone(&metrics),
        };
        let ingest = Ingest::start(parts, &config.segment, &config.limits);
        let parts = ReaderDeps {
            storage: storage.clone(),
            catalog: commits.clone(),
            hot: hot.clone(),
            pool: read_pool.clone(),
            runtime: runtime.clone(),
            metrics: Arc::clone(&metrics),
        };
        let reader = Reader::new(parts, &config.read);
        let forget = ForgetEverywhere {
            ingest: ingest.clone(),
            commits: commits.clone(),
            reader: reader.clone(),
        };
        exchanges.add_forgetter(Arc::new(forget));
        runtime
            .tasks
            .spawn_until_stopped(sweep::sweep(exchanges.clone(), ingest.clone()));
        let runtime = runtime.clone();
        Self {
            runtime,
            storage,
            exchanges,
            ingest,
            commits,
            hot,
            reader,
            write_pool,
            read_pool,
            metrics,
        }
    }
}

/// Why a daemon did not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A base directory cannot be opened as configured.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A file of tokens or certificates cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// The address cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Signals cannot be received.
    #[error("signals cannot be received: {0}")]
    Signals(std::io::Error),
}

/// Runs a daemon until SIGTERM or SIGINT, then drains it and ends. `ready` is told the address once
/// requests are accepted.
///
/// # Errors
/// Whatever keeps it from starting.
pub async fn run(
    config: &Config,
    runtime: &Runtime,
    ready: impl FnOnce(SocketAddr),
) -> Result<(), RunError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;
    let hangup = signal(SignalKind::hangup()).map_err(RunError::Signals)?;
    let daemon = Daemon::build(config, runtime)?;
    let credentials = Credentials::open(&config.server, &runtime.clock)?;
    let state = daemon.api_state(config, credentials.clone());
    let limits = ServerLimits::new(&config.limits);
    let stall_policy = state.stall_policy.clone();
    let listen = config.server.listen;
    let server = Server::bind(listen, limits, stall_policy, credentials.clone()).await?;
    let renewal = renew(
        credentials,
        runtime.clone(),
        hangup,
        config.server.reload_interval,
    );
    runtime.tasks.spawn_until_stopped(renewal);
    tracing::info!("trying the base directories");
    for base in daemon.storage.probe().await {
        match &base.error {
            None => tracing::info!(base = %base.name, uri = %base.uri, "base directory is usable"),
            Some(error) => tracing::error!(base = %base.name, uri = %base.uri, %error,
                "base directory is not usable now; it is tried again"),
        }
    }
    for base in daemon.storage.bases_ignoring_preconditions().await {
        tracing::warn!(%base, "this store ignores conditions on writes: a lease that is renewed in \
            the instant of its collection may be lost");
    }
    let address = server.address();
    let router = api::router(state);
    let stop = CancellationToken::new();
    let serving = server.run(router, runtime, stop.clone());
    let ending = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        let timeout = config.server.drain_timeout;
        tracing::info!(
            seconds = timeout.as_secs(),
            "stopping: no new sinks, open ones may finish; the same signal again ends it at once"
        );
        // Who cannot wait for the open sinks sends the signal once more.
        let left = tokio::select! {
            left = drain::drain(&daemon.exchanges, &daemon.ingest, &runtime.clock, timeout) => left,
            _ = terminate.recv() => daemon.ingest.undecided(),
            _ = interrupt.recv() => daemon.ingest.undecided(),
        };
        if left > 0 {
            tracing::warn!(
                sinks = left,
                "sinks were still open; their tasks will run again"
            );
        }
        stop.cancel();
    };
    tracing::info!(%address, budget = config.memory.resolve(), "serving");
    ready(address);
    tokio::join!(serving, ending);
    runtime.tasks.shut_down().await;
    tracing::info!("stopped");
    Ok(())
}

/// What the doors of a daemon with this configuration would ask for, for people.
///
/// # Errors
/// A file of tokens or certificates that cannot be used.
pub fn explain_credentials(config: &ServerConfig, runtime: &Runtime) -> Result<String, RunError> {
    let credentials = Credentials::open(config, &runtime.clock)?;
    let tokens = match credentials.tokens() {
        Some(tokens) => format!("one of {} tokens", tokens.count()),
        None => "no token".to_owned(),
    };
    let tls = match credentials.tls() {
        None => "in clear",
        Some(tls) if tls.requires_client_certificate() => "TLS, with a certificate of the client",
        Some(_) => "TLS",
    };
    Ok(format!("{tls}; {tokens} is asked for"))
}

/// Has the files of tokens and certificates looked at now and then, and at once on SIGHUP.
async fn renew(credentials: Credentials, runtime: Runtime, mut hangup: Signal, interval: Duration) {
    loop {
        let forced = tokio::select! {
            _ = hangup.recv() => true,
            () = runtime.clock.sleep(interval) => false,
        };
        let credentials = credentials.clone();
        let read = tokio::task::spawn_blocking(move || credentials.reload(forced)).await;
        if let Err(error) = read {
            tracing::error!(%error, "tokens and certificates could not be looked at");
        }
    }
}

impl Daemon {
    /// What the API needs of this daemon.
    pub fn api_state(&self, config: &Config, credentials: Credentials) -> SharedState {
        let slots = Slots::new(&config.limits, &config.query);
        let requests = HttpMetrics::default();
        let registry = MetricsRegistry::new(&self.metrics);
        registry.extend(|r| {
            let pools = vec![
                ("write", self.write_pool.clone()),
                ("read", self.read_pool.clone()),
            ];
            r.register_collector(Box::new(PoolCollector::new(pools)));
            let slots = vec![
                ("write", slots.writes.clone()),
                ("read", slots.reads.clone()),
            ];
            r.register_collector(Box::new(SlotCollector::new(slots)));
            self.storage.metrics().register(r);
            requests.register(r);
            credentials.metrics().register(r);
        });
        let parts = ApiDeps {
            ingest: self.ingest.clone(),
            commits: self.commits.clone(),
            reader: self.reader.clone(),
            exchanges: self.exchanges.clone(),
            storage: self.storage.clone(),
            metrics: Arc::clone(&self.metrics),
            write_memory: self.write_pool.clone(),
            read_memory: self.read_pool.clone(),
            runtime: self.runtime.clone(),
            credentials,
            registry,
            requests,
        };
        ApiState::new(parts, &config.limits, slots)
    }
}
