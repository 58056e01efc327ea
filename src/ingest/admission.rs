//! A batch on its way in: checked before its body is read, reserved for, then appended.
//!
//! Does: make each step the only way to the next, so that no body is read without memory for it.
//! Does not: read the body. Invariant: no caller that holds a batch waits for memory. What a batch
//! uses beyond its bytes is reserved after the fact if there is room; otherwise its exchange
//! reserves it together with the next body, before that is read. If batches in memory could wait,
//! many of them could wait for each other.

use bytes::Bytes;

use super::error::IngestError;
use super::exchange::{ExchangeState, SharedExchange};
use super::service::Ingest;
use super::sink::{Sink, SinkState};
use super::types::Appended;
use crate::id::SinkId;
use crate::memory::{Reservation, ReservedBytes, WeakReservation};
use crate::segment::frame::{BatchVerifier, VerifiedBatch};

/// A batch that may be appended as far as is known without its body. Next: [`Admission::reserve`].
pub struct Admission<'a> {
    ingest: &'a Ingest,
    sink: &'a SinkId,
    number: Option<u32>,
}

/// A batch with memory for its body, which may be read now. Next: [`ReservedAdmission::append`].
pub struct ReservedAdmission<'a> {
    admission: Admission<'a>,
    reservation: Reservation,
}

impl Ingest {
    /// Records that an attempt will be written at this daemon, so that the first sinks to finish
    /// know how many others to wait for.
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
        state.declare(sink.task_attempt);
        Ok(())
    }

    /// Admits the batch with this number, or the next one, unless it can be refused without its
    /// body.
    ///
    /// # Errors
    /// The sink was aborted or failed, its exchange is closed, or it is new and the daemon is
    /// stopping.
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
            Some(SinkState::Failed(source)) => Err(state.closed_or(IngestError::SinkFailed {
                sink: sink.clone(),
                source,
            })),
            Some(_) => Ok(()),
            None => self.check_accepts_new(),
        }
    }

    fn check_accepts_new(&self) -> Result<(), IngestError> {
        if self.is_draining() {
            return Err(IngestError::Draining);
        }
        Ok(())
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
        state.insert(sink.task_attempt, Sink::open(sink.clone()));
        self.shared.deps.metrics.sinks_open.inc();
        Ok(())
    }

    pub(super) fn check_room(&self, sinks: usize) -> Result<(), IngestError> {
        let limit = self.shared.max_sinks;
        if sinks < limit {
            return Ok(());
        }
        Err(IngestError::Full {
            what: "sinks in this exchange",
            limit: limit as u64,
            setting: "limits.max_sinks_per_exchange",
        })
    }

    /// Appends a batch whose bytes hold their reservation, which `memory` names.
    fn append(
        &self,
        sink: &SinkId,
        number: Option<u32>,
        batch: VerifiedBatch,
        memory: WeakReservation,
    ) -> Result<Appended, IngestError> {
        let (pages, bytes) = (batch.pages, batch.page_bytes);
        let (overhead, reservation) = (batch.memory_overhead(), memory.clone());
        let exchange = self.get_or_open(&sink.exchange)?;
        let (appended, sealed) = {
            let mut state = exchange.lock();
            check_first_batch(&state, sink, number)?;
            self.open_sink(&mut state, sink)?;
            let appended = state.append(sink.task_attempt, number, batch, memory)?;
            (appended, self.seal_if_due(&mut state))
        };
        let metrics = &self.shared.deps.metrics;
        if appended.repeated {
            metrics.batches_repeated.inc();
        } else {
            metrics.batches.inc();
            metrics.pages_written.inc_by(pages);
            metrics.bytes_written.inc_by(bytes);
            self.reserve_overhead(&exchange, overhead, &reservation);
        }
        self.start_upload(&exchange, sealed);
        Ok(appended)
    }

    /// Reserves what a batch in memory uses beyond its bytes, or counts it as unreserved.
    fn reserve_overhead(&self, exchange: &SharedExchange, bytes: u64, memory: &WeakReservation) {
        match self.shared.deps.pool.try_reserve(exchange.query(), bytes) {
            Some(more) => memory.grow(more),
            None => exchange.unreserved().add(bytes),
        }
    }
}

/// A batch after the first must not open a sink: a daemon that has restarted may get the rest of an
/// attempt whose first batches it has lost.
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
    /// Waits, in the fair order of the queries, for memory for a body of `bytes` and for what
    /// earlier batches of the exchange use without a reservation.
    ///
    /// # Errors
    /// The memory budget could never hold the body.
    pub async fn reserve(self, bytes: u64) -> Result<ReservedAdmission<'a>, IngestError> {
        let pool = &self.ingest.shared.deps.pool;
        let exchange = self.ingest.get(&self.sink.exchange);
        let unreserved = exchange.map(|exchange| exchange.unreserved().clone());
        let mut repayment = unreserved
            .unwrap_or_default()
            .start_repayment(pool.query_limit().saturating_sub(bytes));
        let wanted = bytes + repayment.bytes;
        let reservation = pool.reserve(self.sink.exchange.query(), wanted).await?;
        repayment.bytes = 0;
        Ok(ReservedAdmission {
            admission: self,
            reservation,
        })
    }
}

impl ReservedAdmission<'_> {
    /// Bytes reserved: the body's, and those of earlier batches.
    pub fn bytes(&self) -> u64 {
        self.reservation.bytes()
    }

    /// Ends the check of the body and appends it: all of it or nothing, without waiting.
    ///
    /// # Errors
    /// A damaged frame, a batch out of order, or a sink that accepts no more pages.
    pub fn append(self, check: BatchVerifier, body: Bytes) -> Result<Appended, IngestError> {
        let Admission {
            ingest,
            sink,
            number,
        } = self.admission;
        let (body, memory) = ReservedBytes::into_transferable(body, self.reservation);
        let batch = check.finish(body)?;
        ingest.append(sink, number, batch, memory)
    }
}
