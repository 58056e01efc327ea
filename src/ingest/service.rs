//! The writing side of a daemon as one value: its dependencies, limits and table of exchanges.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::error::IngestError;
use super::exchange::{ExchangeState, SharedExchange};
use super::seal_policy::SealPolicy;
use super::sink_memory::SinkPool;
use super::stored::StoredBytes;
use crate::cache::hot::HotSegments;
use crate::catalog::Catalog;
use crate::config::{Config, LimitsConfig, Live};
use crate::exchange::Exchanges;
use crate::fair::FairSemaphore;
use crate::id::{DaemonId, ExchangeId, SinkId};
use crate::memory::MemoryPool;
use crate::runtime::Runtime;
use crate::storage::Storage;
use crate::telemetry::metrics::Metrics;

/// Values of the label `age`, each with the age that it is below.
const AGES: [(&str, Duration); 5] = [
    ("1m", Duration::from_secs(60)),
    ("10m", Duration::from_secs(600)),
    ("1h", Duration::from_secs(3600)),
    ("1d", Duration::from_secs(86_400)),
    ("older", Duration::MAX),
];

/// What ingest needs from the rest of the daemon.
#[derive(Clone)]
pub struct IngestDeps {
    /// This run's id, a part of its segments' names.
    pub daemon: DaemonId,
    pub runtime: Runtime,
    pub storage: Storage,
    /// Commit records of all daemons.
    pub catalog: Catalog,
    /// Segments that stay in memory after their upload.
    pub hot: HotSegments,
    /// Memory for pages that are being written.
    pub pool: MemoryPool,
    pub exchanges: Exchanges,
    pub metrics: Arc<Metrics>,
}

/// The writing side of a daemon. Cheap to clone.
#[derive(Clone)]
pub struct Ingest {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) deps: IngestDeps,
    pub(super) policy: SealPolicy,
    pub(super) limits: Live<LimitsConfig>,
    /// Bytes of the write memory that foreign sinks may hold until they are stored.
    pub(super) foreign: FairSemaphore,
    /// Memory of sinks besides their pages.
    pub(super) sinks: SinkPool,
    /// Upload slots, shared fairly among queries.
    pub(super) uploads: FairSemaphore,
    /// What each query has stored through this daemon.
    pub(super) stored: StoredBytes,
    /// The sequence number of the next segment.
    pub(super) sequence: AtomicU64,
    draining: AtomicBool,
    /// Bytes of all sealed segments whose upload has not completed.
    pub(super) in_flight_bytes: AtomicU64,
    /// Sorted, so that an iteration has the same order on every run.
    exchanges: Mutex<BTreeMap<ExchangeId, SharedExchange>>,
}

impl Ingest {
    /// Starts the writing side; its background work runs in the runtime's task group.
    pub fn start(deps: IngestDeps, config: &Config, limits: Live<LimitsConfig>) -> Self {
        let segment = &config.segment;
        let foreign = config.memory.foreign_share(deps.pool.capacity());
        // At most a quarter of what a query may hold: one segment fills while others are uploaded.
        let target_size = segment.target_size.min(deps.pool.query_limit() / 4).max(1);
        let shared = Shared {
            policy: SealPolicy {
                target_size,
                commit_linger: segment.commit_linger,
            },
            limits,
            foreign: FairSemaphore::new(foreign, None),
            sinks: SinkPool::of_budget(config.memory.resolve()),
            uploads: FairSemaphore::new(segment.upload_concurrency as u64, None),
            stored: StoredBytes::new(config.query.max_stored_size),
            sequence: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            in_flight_bytes: AtomicU64::new(0),
            exchanges: Mutex::default(),
            deps,
        };
        let ingest = Self {
            shared: Arc::new(shared),
        };
        let tasks = ingest.shared.deps.runtime.tasks.clone();
        tasks.spawn_until_stopped(ingest.clone().run_pressure_loop());
        ingest
    }

    /// The memory of sinks besides their pages.
    pub fn sink_memory(&self) -> &MemoryPool {
        self.shared.sinks.pool()
    }

    /// Changes how much a query may store from now on; `None`: as much as it likes.
    pub fn set_max_stored(&self, limit: Option<u64>) {
        self.shared.stored.set_limit(limit);
    }

    /// Bytes of the index of a segment at most.
    pub(super) fn max_footer_size(&self) -> u64 {
        self.shared.limits.get().max_footer_size
    }

    /// The id of this run of the daemon.
    pub fn daemon(&self) -> DaemonId {
        self.shared.deps.daemon
    }

    /// Refuses new sinks from now on.
    pub fn drain(&self) {
        self.shared.draining.store(true, Ordering::Release);
    }

    /// Whether new sinks are refused since the daemon is stopping.
    pub fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::Acquire)
    }

    /// Drops all that is held of a closed exchange; its unsettled sinks fail.
    pub fn forget(&self, exchange: &ExchangeId) {
        let removed = self.shared.exchanges.lock().remove(exchange);
        let Some(exchange) = removed else { return };
        let failed = {
            let mut state = exchange.lock();
            for (base, bytes) in state.take_stored() {
                let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
                self.shared.deps.storage.metrics().add_stored(&base, -bytes);
            }
            let stored = std::mem::take(&mut state.stored_bytes);
            self.shared.stored.remove(exchange.query(), stored);
            state.close()
        };
        let metrics = &self.shared.deps.metrics;
        metrics.sinks_open.dec_by(failed as i64);
        metrics.exchanges_with_sinks.dec();
    }

    /// Exchanges without a request for at least `idle`.
    pub fn idle_exchanges(&self, idle: Duration) -> Vec<ExchangeId> {
        let now = self.shared.deps.runtime.clock.now();
        self.ids_of(|state| now.saturating_duration_since(state.last_request) >= idle)
    }

    /// Sets the gauges of exchanges by age, for a scrape that follows.
    pub fn record_ages(&self) {
        let now = self.shared.deps.runtime.clock.now();
        let mut counts = [0; AGES.len()];
        for exchange in self.exchanges() {
            let age = now.saturating_duration_since(exchange.lock().opened);
            let older = AGES.iter().filter(|(_, below)| age >= *below).count();
            counts[older] += 1;
        }
        for ((age, _), count) in AGES.iter().zip(counts) {
            let gauge = &self.shared.deps.metrics.exchanges_by_age;
            gauge.get_or_create(&[("age", *age)]).set(count);
        }
    }

    /// Exchanges with unsettled sinks.
    pub fn unsettled_exchanges(&self) -> Vec<ExchangeId> {
        self.ids_of(|state| state.unsettled > 0)
    }

    fn ids_of(&self, include: impl Fn(&ExchangeState) -> bool) -> Vec<ExchangeId> {
        let all = self.exchanges().into_iter();
        all.filter(|exchange| include(&exchange.lock()))
            .map(|exchange| exchange.id().clone())
            .collect()
    }

    /// The number of sinks that are not settled.
    pub fn unsettled_sinks(&self) -> usize {
        let all = self.exchanges();
        all.iter().map(|e| e.lock().unsettled).sum()
    }

    /// A copy of the table, so that no caller locks an exchange under the table's lock.
    pub(super) fn exchanges(&self) -> Vec<SharedExchange> {
        self.shared.exchanges.lock().values().cloned().collect()
    }

    pub(super) fn get(&self, exchange: &ExchangeId) -> Option<SharedExchange> {
        self.shared.exchanges.lock().get(exchange).cloned()
    }

    pub(super) fn get_or_open(&self, id: &ExchangeId) -> Result<SharedExchange, IngestError> {
        let exchange = {
            let mut exchanges = self.shared.exchanges.lock();
            if let Some(exchange) = exchanges.get(id) {
                return Ok(exchange.clone());
            }
            let limit = self.shared.limits.get().max_exchanges;
            if exchanges.len() >= limit {
                return Err(IngestError::Full {
                    what: "exchanges at this daemon",
                    limit: limit as u64,
                    setting: "limits.max_exchanges",
                });
            }
            let now = self.shared.deps.runtime.clock.now();
            let exchange = SharedExchange::new(id.clone(), now);
            exchanges.insert(id.clone(), exchange.clone());
            exchange
        };
        self.shared.deps.metrics.exchanges_with_sinks.inc();
        // Checked after the insertion, while a close marks the exchange first and calls `forget`
        // second: so one of the two observes the other, and nothing of a closed exchange remains
        // here.
        if self.shared.deps.exchanges.is_known_closed(id) {
            self.forget(id);
            let exchange = id.clone();
            return Err(IngestError::ExchangeClosed { exchange });
        }
        Ok(exchange)
    }

    /// Whether this daemon has a sink for the attempt, in any state.
    pub(super) fn holds(&self, sink: &SinkId) -> bool {
        self.get(&sink.exchange)
            .is_some_and(|exchange| exchange.lock().sink(sink.task_attempt).is_some())
    }
}
