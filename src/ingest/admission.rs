//! A batch on its way in: checked before its body is read, then memory is reserved, then it is
//! appended.
//!
//! Does: make each step the only way to the next, so that no body is read without memory for it,
//! and count what a batch needs besides its bytes while it is read. Does not: read the body.
//! Invariant: all memory of a batch is reserved, and no caller that holds a batch waits for memory:
//! if batches in memory could wait, many of them could wait for each other. What a batch needs
//! besides its bytes is estimated and reserved before it is read. If it needs more and nothing is
//! free, it is refused, and estimated better when the client sends it again.

use bytes::Bytes;

use super::error::IngestError;
use super::exchange::{BatchMemory, ExchangeState};
use super::overhead::OverheadEstimate;
use super::service::{Ingest, Shared};
use super::sink::{Sink, SinkState};
use super::types::Appended;
use crate::fair::FairPermit;
use crate::id::ExchangeId;
use crate::id::SinkId;
use crate::memory::{Reservation, ReservedBytes, WeakReservation};
use crate::segment::frame::{BatchVerifier, VerifiedBatch};
use crate::telemetry::traces::waiting;

/// A batch that passed all checks that do not need its body. Next: [`Admission::reserve`].
pub struct Admission<'a> {
    ingest: &'a Ingest,
    sink: &'a SinkId,
    number: Option<u32>,
}

/// A batch with memory for its body, which may be read now. Next: [`ReservedAdmission::append`].
pub struct ReservedAdmission<'a> {
    admission: Admission<'a>,
    /// Bytes of the body.
    length: u64,
    held: BatchMemory<Reservation>,
}

/// The least growth of a reservation, if that much is free: each growth has a cost.
const GROWTH: u64 = 64 << 10;

impl Ingest {
    /// Records that an attempt will be written at this daemon, so that the first sinks to finish
    /// wait for the right number of others.
    ///
    /// # Errors
    /// As for the first batch of the attempt.
    pub fn declare_sink(&self, sink: &SinkId) -> Result<(), IngestError> {
        self.check_accepts(sink)?;
        let exchange = self.get_or_open(&sink.exchange)?;
        let mut state = exchange.lock();
        state.check_not_closed(&sink.exchange)?;
        state.last_request = self.shared.deps.runtime.clock.now();
        self.check_room(state.known_sinks())?;
        let memory = self.shared.sinks.declared(exchange.query());
        state.declare(sink.task_attempt, memory);
        Ok(())
    }

    /// Withdraws a declaration: the attempt will not be written at this daemon. A sink that has
    /// pages remains.
    pub fn withdraw_sink(&self, sink: &SinkId) {
        let Some(exchange) = self.get(&sink.exchange) else {
            return;
        };
        exchange.lock().withdraw(sink.task_attempt);
        self.reevaluate_seal(&exchange);
    }

    /// Admits the batch with this number, or the next one, unless it can be refused without its
    /// body.
    ///
    /// # Errors
    /// The sink was aborted or failed, its exchange is closed, or it is new and the daemon is
    /// stopping or has no memory for another one.
    pub fn admit<'a>(
        &'a self,
        sink: &'a SinkId,
        number: Option<u32>,
    ) -> Result<Admission<'a>, IngestError> {
        self.check_accepts(sink)?;
        Ok(Admission {
            ingest: self,
            sink,
            number,
        })
    }

    fn check_accepts(&self, sink: &SinkId) -> Result<(), IngestError> {
        let Some(exchange) = self.get(&sink.exchange) else {
            return self.check_accepts_new();
        };
        let state = exchange.lock();
        match state.sink(sink.task_attempt).map(Sink::state) {
            Some(SinkState::Aborted) => Err(IngestError::SinkAborted { sink: sink.clone() }),
            Some(SinkState::Failed(source)) => {
                Err(state.closed_or(IngestError::of_failed(sink.clone(), source)))
            }
            Some(_) => Ok(()),
            None => self.check_accepts_new(),
        }
    }

    fn check_accepts_new(&self) -> Result<(), IngestError> {
        if self.is_draining() {
            return Err(IngestError::Draining);
        }
        self.shared.sinks.check_room()
    }

    /// Opens the sink unless it exists.
    pub(super) fn open_sink(
        &self,
        state: &mut ExchangeState,
        sink: &SinkId,
    ) -> Result<(), IngestError> {
        state.check_not_closed(&sink.exchange)?;
        state.last_request = self.shared.deps.runtime.clock.now();
        if state.sink(sink.task_attempt).is_some() {
            return Ok(());
        }
        self.check_accepts_new()?;
        self.check_room(state.sinks())?;
        let memory = self.shared.sinks.open(sink.exchange.query())?;
        state.insert(sink.task_attempt, Sink::open(sink.clone(), memory));
        self.shared.deps.metrics.sinks_open.inc();
        Ok(())
    }

    pub(super) fn check_room(&self, sinks: usize) -> Result<(), IngestError> {
        let limit = self.shared.limits.get().max_sinks_per_exchange;
        if sinks < limit {
            return Ok(());
        }
        Err(IngestError::Full {
            what: "sinks in this exchange",
            limit: limit as u64,
            setting: "limits.max_sinks_per_exchange",
        })
    }

    /// Appends a batch whose bytes hold their reservation; `memory` is a weak handle to it.
    fn append(
        &self,
        sink: &SinkId,
        number: Option<u32>,
        batch: VerifiedBatch,
        memory: BatchMemory<WeakReservation>,
    ) -> Result<Appended, IngestError> {
        let (pages, bytes) = (batch.pages, batch.page_bytes);
        let is_foreign = memory.share.is_some();
        let exchange = self.get_or_open(&sink.exchange)?;
        let (appended, sealed) = {
            let mut state = exchange.lock();
            check_first_batch(&state, sink, number)?;
            self.open_sink(&mut state, sink)?;
            let of_sink = self.shared.sinks.batch(exchange.query())?;
            let full = self.seal_before(&mut state, &batch)?;
            let appended = state.append(sink.task_attempt, number, batch, memory, of_sink)?;
            (appended, [full, self.seal_if_due(&mut state)])
        };
        let metrics = &self.shared.deps.metrics;
        if appended.repeated {
            metrics.batches_repeated.inc();
        } else {
            metrics.batches.inc();
            metrics.pages_written.inc_by(pages);
            metrics.bytes_written.inc_by(bytes);
            if is_foreign {
                metrics.foreign_bytes_written.inc_by(bytes);
            }
        }
        for sealed in sealed {
            self.start_upload(&exchange, sealed);
        }
        Ok(appended)
    }

    fn estimated_overhead(&self, exchange: &ExchangeId, length: u64) -> u64 {
        match self.get(exchange) {
            Some(exchange) => exchange.overhead().for_body(length),
            None => OverheadEstimate::default().for_body(length),
        }
    }
}

/// A batch after the first must not open a sink: a restarted daemon may get the rest of an attempt
/// whose first batches it has lost.
fn check_first_batch(
    state: &ExchangeState,
    sink: &SinkId,
    number: Option<u32>,
) -> Result<(), IngestError> {
    match number {
        Some(given @ 1..) if !state.closed && state.sink(sink.task_attempt).is_none() => {
            Err(IngestError::BatchOutOfOrder {
                sink: sink.clone(),
                given,
                expected: 0,
            })
        }
        _ => Ok(()),
    }
}

impl<'a> Admission<'a> {
    /// Waits, in the fair order of the queries, for memory for a body of `length` bytes and for
    /// what it is expected to need besides.
    ///
    /// # Errors
    /// The memory budget could never hold the body.
    pub async fn reserve(self, length: u64) -> Result<ReservedAdmission<'a>, IngestError> {
        let pool = &self.ingest.shared.deps.pool;
        let wanted = self.wanted(length);
        let reservation = pool.reserve(self.sink.exchange.query(), wanted);
        let reservation = waiting("wait for memory", reservation).await?;
        Ok(self.reserved(length, reservation, None))
    }

    /// The same for a foreign sink, whose client has a daemon of its own as a fallback: without
    /// waiting, and within the share of foreign sinks.
    ///
    /// # Errors
    /// Their share, or all memory, is in use.
    pub fn reserve_foreign(self, length: u64) -> Result<ReservedAdmission<'a>, IngestError> {
        let Shared { deps, foreign, .. } = &*self.ingest.shared;
        let query = self.sink.exchange.query();
        let share = foreign.try_acquire(query, length);
        let reservation = share
            .is_some()
            .then(|| deps.pool.try_reserve(query, self.wanted(length)));
        let Some(reservation) = reservation.flatten() else {
            deps.metrics.foreign_refused.inc();
            let limit = foreign.capacity();
            return Err(IngestError::ForeignShareFull { length, limit });
        };
        Ok(self.reserved(length, reservation, share))
    }

    /// Bytes that a batch of `length` bytes is expected to need. An estimate refuses nothing: the
    /// batch may need less.
    fn wanted(&self, length: u64) -> u64 {
        let expected = self.ingest.estimated_overhead(&self.sink.exchange, length);
        let limit = self.ingest.shared.deps.pool.query_limit();
        length + expected.min(limit.saturating_sub(length))
    }

    fn reserved(
        self,
        length: u64,
        pool: Reservation,
        share: Option<FairPermit>,
    ) -> ReservedAdmission<'a> {
        ReservedAdmission {
            admission: self,
            length,
            held: BatchMemory { pool, share },
        }
    }
}

impl ReservedAdmission<'_> {
    /// Bytes reserved: the body's, and what it is expected to need besides.
    pub fn bytes(&self) -> u64 {
        self.held.pool.bytes()
    }

    /// Reserves what the batch needs besides its bytes, as far as it has been verified, without
    /// waiting.
    ///
    /// # Errors
    /// More is needed than one query may hold, or than is free now.
    pub fn reserve_overhead(&mut self, check: &BatchVerifier) -> Result<(), IngestError> {
        let Admission { ingest, sink, .. } = self.admission;
        let (length, overhead) = (self.length, check.memory_overhead());
        let missing = (length + overhead).saturating_sub(self.held.pool.bytes());
        if missing == 0 {
            return Ok(());
        }
        let (pool, query) = (&ingest.shared.deps.pool, sink.exchange.query());
        let limit = pool.query_limit();
        if length + overhead > limit {
            return Err(IngestError::TooManyRuns {
                length,
                overhead,
                limit,
            });
        }
        let more = pool
            .try_reserve(query, missing.max(GROWTH))
            .or_else(|| pool.try_reserve(query, missing));
        if let Some(more) = more {
            self.held.pool.absorb(more);
            return Ok(());
        }
        let exchange = ingest.get_or_open(&sink.exchange)?;
        exchange
            .overhead()
            .record(length, overhead, check.verified());
        Err(IngestError::MemoryShort { length, overhead })
    }

    /// Ends the check of the body and appends it: all of it or nothing, without waiting.
    ///
    /// # Errors
    /// A damaged frame, a batch out of order, a sink that accepts no more pages, or as
    /// [`ReservedAdmission::reserve_overhead`].
    pub fn append(
        mut self,
        mut check: BatchVerifier,
        body: Bytes,
    ) -> Result<Appended, IngestError> {
        check.update(&body);
        self.reserve_overhead(&check)?;
        let Admission {
            ingest,
            sink,
            number,
        } = self.admission;
        let (length, overhead) = (self.length, check.memory_overhead());
        self.held.pool.shrink_to(length + overhead);
        let (pool, share) = (self.held.pool, self.held.share);
        let (body, pool) = ReservedBytes::into_transferable(body, pool);
        let memory = BatchMemory { pool, share };
        let batch = check.finish(body)?;
        let appended = ingest.append(sink, number, batch, memory)?;
        if let Some(exchange) = ingest.get(&sink.exchange) {
            exchange.overhead().record(length, overhead, length);
        }
        Ok(appended)
    }
}
