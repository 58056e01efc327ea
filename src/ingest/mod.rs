//! The writing side: batches in, sealed and uploaded segments out, commits acknowledged.
//!
//! Does: hold sinks and their pages until they are durable, decide each attempt once. Does not:
//! speak HTTP, read pages back, or know how segments look. Invariant: `finish` answers `Ok` only
//! after the segment that holds the commit record, and every segment before it, has been stored.

mod admission;
mod commit_lookup;
mod exchange;
mod pressure;
pub mod seal_policy;
mod sealing;
pub mod sink;
mod types;
mod uploader;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use self::exchange::ExchangeState;
use self::seal_policy::SealPolicy;
use self::sink::{Sink, SinkState};
pub use self::types::{Aborted, Appended, Claim, IngestError};
use crate::cache::hot::HotSegments;
use crate::catalog::{Catalog, Totals};
use crate::config::{LimitsConfig, SegmentConfig};
use crate::exchange::Gate;
use crate::fair::FairSemaphore;
use crate::id::{DaemonId, ExchangeId, SinkId};
use crate::memory::{MemoryPool, WeakReservation};
use crate::runtime::Runtime;
use crate::segment::frame::VerifiedBatch;
use crate::storage::Storage;
use crate::telemetry::metrics::Metrics;

/// What ingest needs of the rest of the daemon.
#[derive(Clone)]
pub struct IngestDeps {
    /// Who this daemon is in segment keys.
    pub daemon: DaemonId,
    /// Time, randomness, background work.
    pub runtime: Runtime,
    /// Where segments go.
    pub storage: Storage,
    /// Commit records of others.
    pub commits: Catalog,
    /// Written segments that stay in memory.
    pub hot: HotSegments,
    /// Memory for what is being written.
    pub pool: MemoryPool,
    /// Tells whether an exchange is still open.
    pub gate: Arc<dyn Gate>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// The writing side of a daemon. Cheap to clone.
#[derive(Clone)]
pub struct Ingest {
    shared: Arc<Shared>,
}

struct Shared {
    parts: IngestDeps,
    policy: SealPolicy,
    max_exchanges: usize,
    max_sinks: usize,
    /// One slot for each upload at a time, shared fairly among queries.
    uploads: FairSemaphore,
    sequence: AtomicU64,
    draining: AtomicBool,
    in_flight_bytes: AtomicU64,
    /// Sorted, so that whoever goes through all of them takes the same order on every run.
    exchanges: Mutex<BTreeMap<ExchangeId, Arc<Mutex<ExchangeState>>>>,
}

impl Ingest {
    /// Starts the writing side; its background work lives in the runtime's task group.
    pub fn start(parts: IngestDeps, segment: &SegmentConfig, limits: &LimitsConfig) -> Self {
        // A quarter of what a query may hold: one segment fills while others are uploaded.
        let target_size = segment.target_size.min(parts.pool.query_limit() / 4).max(1);
        let shared = Shared {
            policy: SealPolicy {
                target_size,
                commit_linger: segment.commit_linger,
            },
            max_exchanges: limits.max_exchanges,
            max_sinks: limits.max_sinks_per_exchange,
            uploads: FairSemaphore::new(segment.upload_concurrency as u64, None),
            sequence: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            in_flight_bytes: AtomicU64::new(0),
            exchanges: Mutex::default(),
            parts,
        };
        let ingest = Self {
            shared: Arc::new(shared),
        };
        let tasks = ingest.shared.parts.runtime.tasks.clone();
        tasks.spawn_until_stopped(ingest.clone().relieve());
        ingest
    }

    /// Whether pages for this sink could be taken now; to refuse before the body is read.
    ///
    /// # Errors
    /// As [`Ingest::append`].
    pub fn check(&self, sink: &SinkId) -> Result<(), IngestError> {
        let Some(exchange) = self.get(&sink.exchange) else {
            return self.check_new();
        };
        let state = exchange.lock();
        match state.sink(sink.task_attempt).map(Sink::state) {
            Some(SinkState::Aborted) => Err(IngestError::SinkAborted { sink: sink.clone() }),
            Some(SinkState::Failed(reason)) => Err(self.failed(&state, sink, reason)),
            Some(_) => Ok(()),
            None => self.check_new(),
        }
    }

    fn failed(&self, state: &ExchangeState, sink: &SinkId, reason: Arc<str>) -> IngestError {
        if state.closed {
            return IngestError::ExchangeClosed(sink.exchange.clone());
        }
        IngestError::SinkFailed {
            sink: sink.clone(),
            reason,
        }
    }

    /// Takes note that an attempt will be written here, so that the first who finish know whom to
    /// wait for.
    ///
    /// # Errors
    /// As the first [`Ingest::append`] of it.
    pub fn expect(&self, sink: &SinkId) -> Result<(), IngestError> {
        self.check(sink)?;
        let exchange = self.get_or_open(&sink.exchange)?;
        let mut state = exchange.lock();
        if state.closed {
            return Err(IngestError::ExchangeClosed(sink.exchange.clone()));
        }
        state.touched = self.shared.parts.runtime.clock.now();
        self.check_room(state.known_sinks())?;
        state.expect(sink.task_attempt);
        Ok(())
    }

    fn check_new(&self) -> Result<(), IngestError> {
        if self.shared.draining.load(Ordering::Acquire) {
            return Err(IngestError::Draining);
        }
        Ok(())
    }

    /// Takes a batch: all of it or nothing, never halfway, without waiting. The batch's bytes hold
    /// their reservation ([`ReservedBytes`](crate::memory::ReservedBytes)), which `memory` names.
    /// Without a number it is the next.
    ///
    /// # Errors
    /// A batch out of order, or a sink that takes no more pages.
    pub fn append(
        &self,
        sink: &SinkId,
        number: Option<u32>,
        batch: VerifiedBatch,
        memory: WeakReservation,
    ) -> Result<Appended, IngestError> {
        let (pages, bytes) = (batch.pages, batch.page_bytes);
        let (overhead, held) = (batch.memory_overhead(), memory.clone());
        let exchange = self.get_or_open(&sink.exchange)?;
        let (appended, sealed) = {
            let mut state = exchange.lock();
            if number.is_some_and(|number| number > 0) {
                // A daemon that has restarted gets the rest of what it held: that opens no sink.
                self.check_held(&state, sink, number)?;
            }
            self.open_sink(&mut state, sink)?;
            let appended = match state.append(sink.task_attempt, number, batch, memory) {
                Err(IngestError::SinkFailed { sink, reason }) => {
                    return Err(self.failed(&state, &sink, reason));
                }
                other => other?,
            };
            (appended, self.seal_if_due(&mut state))
        };
        let metrics = &self.shared.parts.metrics;
        if appended.repeated {
            metrics.batches_repeated.inc();
        } else {
            metrics.batches.inc();
            metrics.pages_written.inc_by(pages);
            metrics.bytes_written.inc_by(bytes);
            self.charge(&exchange, sink.exchange.query(), overhead, &held);
        }
        self.upload(&exchange, &sink.exchange, sealed);
        Ok(appended)
    }

    /// Makes an attempt durable and decides it; goes on if the caller leaves.
    ///
    /// What is held here may be only the beginning of an attempt that went on at another daemon,
    /// and a put that failed may have taken place: so nothing is refused before the commit records
    /// were asked.
    ///
    /// # Errors
    /// Counts that are not what arrived, an aborted or unknown attempt, or bytes that could not be
    /// written.
    pub async fn finish(&self, sink: &SinkId, claim: Option<Claim>) -> Result<Totals, IngestError> {
        if !self.holds(sink) && !self.commits_empty(sink, claim)? {
            return self.committed(sink, claim).await;
        }
        match self.finish_here(sink, claim).await {
            Err(
                refusal @ (IngestError::CountMismatch { .. }
                | IngestError::SinkAborted { .. }
                | IngestError::SinkFailed { .. }),
            ) => match self.committed(sink, claim).await {
                Err(IngestError::SinkNotFound { .. } | IngestError::CountMismatch { .. }) => {
                    Err(refusal)
                }
                // Or it is not known now, and the client asks again.
                known => known,
            },
            other => other,
        }
    }

    async fn finish_here(
        &self,
        sink: &SinkId,
        claim: Option<Claim>,
    ) -> Result<Totals, IngestError> {
        let exchange = self.get_or_open(&sink.exchange)?;
        let (mut decided, totals, sealed) = {
            let mut state = exchange.lock();
            self.open_sink(&mut state, sink)?;
            let now = self.shared.parts.runtime.clock.now();
            let held = state.sink_mut(sink.task_attempt).expect("just opened");
            let first = match held.finish(claim) {
                Err(IngestError::SinkFailed { sink, reason }) => {
                    return Err(self.failed(&state, &sink, reason));
                }
                other => other?,
            };
            let (decided, totals) = (held.watch(), held.totals());
            if first {
                state.queue_commit(sink.task_attempt, now);
            }
            (decided, totals, self.seal_if_due(&mut state))
        };
        self.upload(&exchange, &sink.exchange, sealed);
        self.look_again(&exchange, &sink.exchange);
        let end = decided
            .wait_for(|s| !matches!(s, SinkState::Open | SinkState::Finishing))
            .await;
        match end.map(|state| state.clone()) {
            Ok(SinkState::Finished) => Ok(totals),
            Ok(SinkState::Failed(reason)) => {
                let state = exchange.lock();
                Err(self.failed(&state, sink, reason))
            }
            _ => Err(IngestError::SinkAborted { sink: sink.clone() }),
        }
    }

    /// Drops an attempt, unless it finished.
    ///
    /// # Errors
    /// When it is not known here and the commit records cannot be read.
    pub async fn abort(&self, sink: &SinkId) -> Result<Aborted, IngestError> {
        if !self.holds(sink) {
            let found = self
                .shared
                .parts
                .commits
                .find_commit(&sink.exchange, sink.task_attempt)
                .await?;
            if found.is_some() {
                return Ok(Aborted::AlreadyFinished);
            }
        }
        let exchange = self.get_or_open(&sink.exchange)?;
        let mut decided = {
            let mut state = exchange.lock();
            let attempt = sink.task_attempt;
            if state.sink(attempt).is_none() {
                self.check_room(state.sinks())?;
                state.begin(attempt, Sink::aborted(sink.clone()));
            }
            let decided = state.sink(attempt).expect("just begun").watch();
            if state.abort(attempt) {
                self.shared.parts.metrics.sinks_aborted.inc();
                self.shared.parts.metrics.sinks_open.dec();
            }
            decided
        };
        self.look_again(&exchange, &sink.exchange);
        // A finish under way is decided first: an abort cannot take back what may be durable.
        let end = decided
            .wait_for(|s| !matches!(s, SinkState::Open | SinkState::Finishing))
            .await;
        match end.map(|state| state.clone()) {
            Ok(SinkState::Finished) => Ok(Aborted::AlreadyFinished),
            Ok(SinkState::Failed(reason)) if self.is_doubtful(sink) => {
                self.abort_doubtful(sink, reason).await
            }
            _ => Ok(Aborted::Aborted),
        }
    }

    /// Ends all that is held of a closed exchange.
    pub fn forget(&self, exchange: &ExchangeId) {
        let Some(state) = self.shared.exchanges.lock().remove(exchange) else {
            return;
        };
        let mut state = state.lock();
        let undecided = state.undecided();
        state.close();
        let metrics = &self.shared.parts.metrics;
        metrics.sinks_open.dec_by(undecided as i64);
        metrics.exchanges_open.dec();
    }

    /// Exchanges that nobody has touched for `idle`.
    pub fn idle(&self, idle: Duration) -> Vec<ExchangeId> {
        let now = self.shared.parts.runtime.clock.now();
        let exchanges = self.shared.exchanges.lock();
        let is_idle = |state: &Arc<Mutex<ExchangeState>>| {
            now.saturating_duration_since(state.lock().touched) >= idle
        };
        exchanges
            .iter()
            .filter(|(_, s)| is_idle(s))
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// Refuses new sinks from now on.
    pub fn drain(&self) {
        self.shared.draining.store(true, Ordering::Release);
    }

    /// Exchanges with sinks that are not decided yet.
    pub fn unfinished(&self) -> Vec<ExchangeId> {
        let exchanges = self.shared.exchanges.lock();
        let unfinished = exchanges.iter().filter(|(_, s)| s.lock().undecided() > 0);
        unfinished.map(|(id, _)| id.clone()).collect()
    }

    /// Sinks that are not decided yet.
    pub fn undecided(&self) -> usize {
        let exchanges: Vec<_> = self.shared.exchanges.lock().values().cloned().collect();
        exchanges.iter().map(|state| state.lock().undecided()).sum()
    }

    fn get(&self, exchange: &ExchangeId) -> Option<Arc<Mutex<ExchangeState>>> {
        self.shared.exchanges.lock().get(exchange).cloned()
    }

    fn get_or_open(&self, id: &ExchangeId) -> Result<Arc<Mutex<ExchangeState>>, IngestError> {
        let mut exchanges = self.shared.exchanges.lock();
        if let Some(exchange) = exchanges.get(id) {
            return Ok(Arc::clone(exchange));
        }
        if exchanges.len() >= self.shared.max_exchanges {
            let limit = self.shared.max_exchanges as u64;
            let setting = "limits.max_exchanges";
            return Err(IngestError::Full {
                what: "the table of exchanges",
                limit,
                setting,
            });
        }
        let now = self.shared.parts.runtime.clock.now();
        let state = Arc::new(Mutex::new(ExchangeState::new(id.clone(), now)));
        exchanges.insert(id.clone(), Arc::clone(&state));
        drop(exchanges);
        self.shared.parts.metrics.exchanges_open.inc();
        // Asked after the insertion: a close marks the exchange first and forgets it then, so that
        // one of the two sees the other, and nothing is held of an exchange that has ended.
        if self.shared.parts.gate.is_known_closed(id) {
            self.forget(id);
            return Err(IngestError::ExchangeClosed(id.clone()));
        }
        Ok(state)
    }

    fn open_sink(&self, state: &mut ExchangeState, sink: &SinkId) -> Result<(), IngestError> {
        if state.closed {
            return Err(IngestError::ExchangeClosed(sink.exchange.clone()));
        }
        state.touched = self.shared.parts.runtime.clock.now();
        if state.sink(sink.task_attempt).is_some() {
            return Ok(());
        }
        self.check_new()?;
        self.check_room(state.sinks())?;
        state.begin(sink.task_attempt, Sink::open(sink.clone()));
        self.shared.parts.metrics.sinks_open.inc();
        Ok(())
    }

    fn check_held(
        &self,
        state: &ExchangeState,
        sink: &SinkId,
        number: Option<u32>,
    ) -> Result<(), IngestError> {
        if state.closed || state.sink(sink.task_attempt).is_some() {
            return Ok(());
        }
        Err(IngestError::BatchOutOfOrder {
            sink: sink.clone(),
            given: number.unwrap_or_default(),
            expected: 0,
        })
    }

    fn check_room(&self, sinks: usize) -> Result<(), IngestError> {
        let limit = self.shared.max_sinks;
        if sinks < limit {
            return Ok(());
        }
        let (what, setting) = ("the table of sinks", "limits.max_sinks_per_exchange");
        Err(IngestError::Full {
            what,
            limit: limit as u64,
            setting,
        })
    }

    fn holds(&self, sink: &SinkId) -> bool {
        self.get(&sink.exchange)
            .is_some_and(|state| state.lock().sink(sink.task_attempt).is_some())
    }
}
