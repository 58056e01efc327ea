//! The composition root: builds a daemon from its configuration and runs it until it is stopped.
//!
//! Does: construct every part with its dependencies, in one place; run a daemon from start to end.
//! Does not: contain any other logic. Invariant: the daemon listens before anything can wait, and
//! no later step of its start takes longer than `server.start_timeout`.

mod drain;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::api::startup::Startup;
use crate::api::state::{ApiDeps, ApiState, Location, SharedState, Slots};
use crate::cache::hot::HotSegments;
use crate::catalog::Catalog;
use crate::config::{Config, LimitsConfig, Live, Loaded, ServerConfig};
use crate::exchange::{Exchanges, ExchangesDeps, Terms};
use crate::gc::close::Closing;
use crate::gc::sweep::Sweeper;
use crate::http::credentials::{CredentialError, Credentials, warnings_of};
use crate::http::limits::ServerLimits;
use crate::http::reachability;
use crate::http::server::{BindError, Server};
use crate::human::count;
use crate::id::DaemonId;
use crate::ingest::{Ingest, IngestDeps};
use crate::memory::MemoryPool;
use crate::read::{Reader, ReaderDeps};
use crate::reload::{Adjustable, Reloader};
use crate::runtime::Runtime;
use crate::storage::{Storage, StorageError};
use crate::telemetry::http::HttpMetrics;
use crate::telemetry::logs::LogControl;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::pools::{PoolCollector, SlotCollector};
use crate::telemetry::process;
use crate::telemetry::recent::RecentProblems;
use crate::telemetry::registry::MetricsRegistry;
use crate::telemetry::traces::{self, Traces};

/// All parts of a daemon except its HTTP server.
#[derive(Clone)]
pub struct Daemon {
    pub runtime: Runtime,
    pub storage: Storage,
    pub exchanges: Exchanges,
    pub ingest: Ingest,
    pub catalog: Catalog,
    pub hot: HotSegments,
    pub reader: Reader,
    pub closing: Closing,
    pub write_pool: MemoryPool,
    pub read_pool: MemoryPool,
    pub startup: Startup,
    pub metrics: Arc<Metrics>,
    /// Some of which may change.
    pub limits: Live<LimitsConfig>,
    pub traces: Traces,
    /// The last warnings and errors of the process's log.
    pub recent: RecentProblems,
}

impl Daemon {
    /// Builds a daemon on the base directories of its configuration, without touching them.
    ///
    /// # Errors
    /// A base directory cannot be opened as configured.
    pub fn build(config: &Config, runtime: &Runtime) -> Result<Self, StorageError> {
        let metrics = Arc::new(Metrics::default());
        let storage = Storage::open(&config.base_directories, runtime)?;
        Ok(Self::assemble(config, runtime, storage, metrics))
    }

    /// Builds a daemon on base directories that are open already, as tests and the simulation do.
    pub fn assemble(
        config: &Config,
        runtime: &Runtime,
        storage: Storage,
        metrics: Arc<Metrics>,
    ) -> Self {
        let limits = Live::new(config.limits.clone());
        let (write_pool, read_pool) = memory_pools(config);
        let exchanges = Exchanges::new(
            ExchangesDeps {
                runtime: runtime.clone(),
                storage: storage.clone(),
            },
            terms(config),
        );
        let hot = HotSegments::new(write_pool.clone(), read_pool.clone());
        let catalog = Catalog::new(
            storage.clone(),
            hot.clone(),
            config.limits.max_footer_size,
            Arc::clone(&metrics),
            read_pool.clone(),
            runtime.tasks.clone(),
        );
        let deps = IngestDeps {
            daemon: DaemonId(runtime.random.next_u64()),
            runtime: runtime.clone(),
            storage: storage.clone(),
            catalog: catalog.clone(),
            hot: hot.clone(),
            pool: write_pool.clone(),
            exchanges: exchanges.clone(),
            metrics: Arc::clone(&metrics),
        };
        let ingest = Ingest::start(deps, config, limits.clone());
        let run = ingest.daemon().to_string();
        let traces = traces::open(&config.tracing, &run, &metrics, runtime);
        let deps = ReaderDeps {
            storage: storage.clone(),
            catalog: catalog.clone(),
            hot: hot.clone(),
            pool: read_pool.clone(),
            runtime: runtime.clone(),
            metrics: Arc::clone(&metrics),
        };
        let reader = Reader::new(deps, &config.read);
        let closing = Closing {
            exchanges: exchanges.clone(),
            ingest: ingest.clone(),
            catalog: catalog.clone(),
            reader: reader.clone(),
            metrics: Arc::clone(&metrics),
        };
        start_collecting(config, runtime, &storage, &closing);
        Self {
            runtime: runtime.clone(),
            storage,
            exchanges,
            ingest,
            catalog,
            hot,
            reader,
            closing,
            write_pool,
            read_pool,
            startup: Startup::default(),
            metrics,
            limits,
            traces,
            recent: RecentProblems::default(),
        }
    }
}

/// The memory for writing and for reading.
fn memory_pools(config: &Config) -> (MemoryPool, MemoryPool) {
    let (memory, query) = (config.memory.split(), &config.query);
    (
        MemoryPool::limited("write", memory.write, query.max_write_memory),
        MemoryPool::limited("read", memory.read, query.max_read_memory),
    )
}

fn terms(config: &Config) -> Terms {
    Terms {
        lease: config.lease.duration,
        announcement: config.lease.announcement_timeout,
        max_partitions: config.limits.max_partitions,
        max_announced: config.limits.max_announced_exchanges,
    }
}

/// Starts to release what is found closed, and to collect what is no longer renewed.
fn start_collecting(config: &Config, runtime: &Runtime, storage: &Storage, closing: &Closing) {
    let sweeper = Sweeper::new(
        runtime.clone(),
        storage.clone(),
        closing.clone(),
        Arc::clone(&closing.metrics),
        config.lease.clone(),
    );
    let release = closing.clone().release_found_closed();
    runtime.tasks.spawn_until_stopped(release);
    runtime.tasks.spawn_until_stopped(sweeper.run());
}

/// Why a daemon could not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("cannot install signal handlers")]
    Signals(#[source] std::io::Error),
}

/// The phase of a running daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Liveness, readiness and metrics are answered at this address.
    Listening(SocketAddr),
    /// All requests are.
    Serving(SocketAddr),
    /// No new sinks are accepted; open ones may finish. Reported again while there are any.
    Draining(DrainProgress),
}

pub use drain::DrainProgress;

/// Runs a daemon until SIGTERM or SIGINT, then drains and stops it. It listens at once and answers
/// liveness, readiness and metrics; all else is served once the base directories have been opened,
/// or have timed out. `report` is called with each phase. Returns how many sinks were cut off,
/// whose tasks will run again.
///
/// # Errors
/// The daemon could not start.
pub async fn run(
    loaded: &Loaded,
    log: LogControl,
    runtime: &Runtime,
    report: impl Fn(Phase),
) -> Result<usize, RunError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;
    let hangup = signal(SignalKind::hangup()).map_err(RunError::Signals)?;
    let config = &loaded.config;
    let mut daemon = Daemon::build(config, runtime)?;
    daemon.recent = log.recent().clone();
    daemon.startup.begin();
    let credentials = Credentials::open(&config.server, &runtime.clock)?;
    credentials.log_warnings();
    let state = daemon.api_state(config, credentials.clone());
    let limits = ServerLimits::new(&config.server, &config.limits);
    let stall_policy = state.stall_policy.clone();
    let listen = config.server.listen;
    let mut server = Server::bind(listen, limits, stall_policy, credentials.clone()).await?;
    server.use_live_limits(state.limits.clone());
    let admin = AdminServer::bind(config, &state, &credentials).await?;
    let mut reloaded = vec![credentials];
    reloaded.extend(admin.as_ref().map(|admin| admin.credentials.clone()));
    let reloader = Reloader::new(daemon.adjustable(log, &state, reloaded), loaded.clone());
    let interval = config.server.reload_interval;
    let reload = reload(reloader.clone(), runtime.clone(), hangup, interval);
    runtime.tasks.spawn_until_stopped(reload);
    let sampling = api::sample_history(Arc::clone(&state));
    runtime.tasks.spawn_until_stopped(sampling);
    // Nothing else sets these two.
    let _ = state.reloader.set(reloader);
    let address = server.address();
    let _ = state.listen.set(address);
    let stop = CancellationToken::new();
    let serving = server.run(api::router(Arc::clone(&state)), runtime, stop.clone());
    let watched = async {
        match admin {
            Some(admin) => admin.run(state, runtime, stop.clone()).await,
            None => drop(state),
        }
    };
    let (run, host) = (daemon.ingest.daemon(), process::host_name());
    let starting = async {
        tracing::info!(%run, host, %address, "listening; bringing up the base directories");
        report(Phase::Listening(address));
        daemon.start(config.server.start_timeout).await;
        tracing::info!(%run, host, %address, budget = config.memory.resolve(), "serving");
        reachability::report(&config.server);
        report(Phase::Serving(address));
    };
    let starting = stop.run_until_cancelled(starting);
    let stopping = async {
        either(&mut terminate, &mut interrupt).await;
        let second_signal = either(&mut terminate, &mut interrupt);
        let timeout = config.server.drain_timeout;
        let progress = |progress| report(Phase::Draining(progress));
        let cut_off = daemon.drain(timeout, second_signal, progress).await;
        stop.cancel();
        cut_off
    };
    let ((), (), _, cut_off) = tokio::join!(serving, watched, starting, stopping);
    runtime.tasks.shut_down().await;
    tracing::info!("stopped");
    Ok(cut_off)
}

/// The server of `server.admin_listen`.
struct AdminServer {
    server: Server,
    credentials: Credentials,
}

impl AdminServer {
    /// Binds it, if it is configured.
    async fn bind(
        config: &Config,
        state: &SharedState,
        main: &Credentials,
    ) -> Result<Option<Self>, RunError> {
        let (Some(listen), Some(credentials)) = (config.server.admin_listen, main.open_admin()?)
        else {
            return Ok(None);
        };
        credentials.log_warnings();
        let limits = ServerLimits::new(&config.server, &config.limits).admin();
        let stall_policy = state.stall_policy.clone();
        let server = Server::bind(listen, limits, stall_policy, credentials.clone()).await?;
        Ok(Some(Self {
            server,
            credentials,
        }))
    }

    async fn run(self, state: SharedState, runtime: &Runtime, stop: CancellationToken) {
        let address = self.server.address();
        tracing::info!(%address, "showing probes, metrics and the page");
        let router = api::admin_router(state, &self.credentials);
        self.server.run(router, runtime, stop).await;
    }
}

/// Logs each time that new exchanges can no longer be opened, or can be again, and sets the metric.
async fn report_opening(storage: Storage, metrics: Arc<Metrics>) {
    let mut was_open = true;
    loop {
        let obstacles = storage.opening_obstacles();
        let is_open = obstacles.is_empty();
        metrics.accepts_exchanges.set(is_open.into());
        match (was_open, is_open) {
            (true, false) => tracing::error!(
                obstacles = obstacles.join("; "),
                "no new exchange can be opened: queries that start now fail or wait"
            ),
            (false, true) => tracing::info!("new exchanges can be opened again"),
            _ => {}
        }
        was_open = is_open;
        storage.health_changed().await;
    }
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        biased;
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

impl Daemon {
    /// Brings up the base directories, and serves with those that work. If none does, the daemon
    /// runs all the same: it is not ready, and becomes ready when one works.
    pub async fn start(&self, within: Duration) {
        for base in self.storage.start(within).await {
            match &base.error {
                None => tracing::info!(base = %base.name, uri = %base.uri,
                    "base directory is usable"),
                Some(error) => tracing::error!(base = %base.name, uri = %base.uri, %error,
                    "base directory is unusable; probing it in the background"),
            }
        }
        self.startup.complete();
        let (storage, metrics) = (self.storage.clone(), Arc::clone(&self.metrics));
        let reporting = report_opening(storage, metrics);
        self.runtime.tasks.spawn_until_stopped(reporting);
    }
}

/// Which credentials a daemon with this configuration requires, as text for people.
///
/// # Errors
/// A token or certificate file cannot be used.
pub fn describe_credentials(config: &ServerConfig, runtime: &Runtime) -> Result<String, RunError> {
    let credentials = Credentials::open(config, &runtime.clock)?;
    let describe_tokens = |credentials: &Credentials| match credentials.tokens() {
        Some(tokens) if tokens.count() == 1 => "the token is required".to_owned(),
        Some(tokens) => format!("one of {} is required", count(tokens.count(), "token")),
        None => "no token is required".to_owned(),
    };
    let tokens = describe_tokens(&credentials);
    let admin = credentials.open_admin()?;
    let warnings = warnings_of(std::iter::once(&credentials).chain(&admin));
    let admin = admin.zip(config.admin_listen);
    let admin = admin.map_or_else(String::new, |(admin, listen)| {
        format!("; on {listen}: {}", describe_tokens(&admin))
    });
    let tls = match credentials.tls() {
        None => "plain HTTP",
        Some(tls) if tls.requires_client_certificate() => "TLS with client certificates",
        Some(_) => "TLS",
    };
    let warnings: String = warnings
        .into_iter()
        .map(|warning| format!("\nwarning: {warning}"))
        .collect();
    Ok(format!("{tls}; {tokens}{admin}{warnings}"))
}

/// Reloads changed token and certificate files at intervals, and everything on SIGHUP.
async fn reload(reloader: Reloader, runtime: Runtime, mut hangup: Signal, interval: Duration) {
    loop {
        let forced = tokio::select! {
            biased;
            _ = hangup.recv() => true,
            () = runtime.clock.sleep(interval) => false,
        };
        let reloader = reloader.clone();
        let reload = tokio::task::spawn_blocking(move || match forced {
            // It has been logged.
            true => drop(reloader.reload()),
            false => reloader.reload_credentials(false),
        });
        if let Err(error) = reload.await {
            tracing::error!(%error, "reloading the configuration panicked");
        }
    }
}

impl Daemon {
    /// What settings act on that may change.
    fn adjustable(
        &self,
        log: LogControl,
        state: &SharedState,
        credentials: Vec<Credentials>,
    ) -> Adjustable {
        Adjustable {
            log,
            limits: self.limits.clone(),
            exchanges: self.exchanges.clone(),
            catalog: self.catalog.clone(),
            ingest: self.ingest.clone(),
            storage: self.storage.clone(),
            write_memory: self.write_pool.clone(),
            read_memory: self.read_pool.clone(),
            read_slots: state.slots.reads.clone(),
            write_slots: state.slots.writes.clone(),
            stall_policy: state.stall_policy.clone(),
            credentials,
            runtime: self.runtime.clone(),
        }
    }

    /// What the API needs of this daemon.
    pub fn api_state(&self, config: &Config, credentials: Credentials) -> SharedState {
        let slots = Slots::new(&config.limits, &config.query);
        let requests = HttpMetrics::default();
        let run = self.ingest.daemon().to_string();
        let registry = MetricsRegistry::new(&self.metrics, run, self.runtime.clock.clone());
        registry.extend(|r| {
            self.storage.metrics().register(r);
            requests.register(r);
            credentials.metrics().register(r);
        });
        let parts = ApiDeps {
            ingest: self.ingest.clone(),
            commits: self.catalog.clone(),
            reader: self.reader.clone(),
            exchanges: self.exchanges.clone(),
            closing: self.closing.clone(),
            storage: self.storage.clone(),
            metrics: Arc::clone(&self.metrics),
            write_memory: self.write_pool.clone(),
            read_memory: self.read_pool.clone(),
            runtime: self.runtime.clone(),
            credentials,
            startup: self.startup.clone(),
            registry,
            requests,
            traces: self.traces.clone(),
            recent: self.recent.clone(),
        };
        let location = Location::new(process::host_name(), &config.server);
        let state = ApiState::new(parts, location, self.limits.clone(), slots);
        state.parts.registry.extend(|r| {
            r.register_collector(Box::new(PoolCollector::new(state.pools())));
            let slots = vec![
                ("write", state.slots.writes.clone()),
                ("read", state.slots.reads.clone()),
            ];
            r.register_collector(Box::new(SlotCollector::new(slots)));
        });
        state
    }
}
