//! One sink: the state machine of one attempt of one task. Synchronous, no I/O.
//!
//! Open → Finishing → Finished, or Open → Aborted, or (Open, Finishing) → Failed. Invariant: a
//! settled sink (finished, aborted or failed) never changes again, so a repeated request gets the
//! same answer.

use std::sync::Arc;

use tokio::sync::watch;

use super::error::{IngestError, SinkFailure};
use super::sink_memory::SinkMemory;
use super::types::{Appended, ClientTotals};
use super::upload_outcome::UploadOutcome;
use crate::catalog::Totals;
use crate::crc::Checksum;
use crate::id::SinkId;
use crate::memory::Reservation;
use crate::segment::frame::VerifiedBatch;
use crate::telemetry::traces::{Span, SpanRef};

/// A sealed segment that holds blocks of a sink, whose commit record is in a later one.
#[derive(Debug, Clone)]
pub(super) struct PriorSegment {
    pub sequence: u64,
    pub outcome: UploadOutcome,
}

#[derive(Debug, Clone)]
pub(super) enum SinkState {
    /// Accepts pages.
    Open,
    /// Its client has requested the commit.
    Finishing,
    /// Committed.
    Finished,
    Aborted,
    /// Its pages or its commit record could not be stored, or its exchange was closed.
    Failed(Arc<SinkFailure>),
}

impl SinkState {
    /// Whether it can no longer change.
    pub(super) fn is_settled(&self) -> bool {
        !matches!(self, Self::Open | Self::Finishing)
    }
}

#[derive(Debug)]
pub(super) struct Sink {
    id: SinkId,
    state: watch::Sender<SinkState>,
    /// All but the checksum, which is `crc`.
    totals: Totals,
    crc: Checksum,
    /// Whether the PUT of its commit record failed and may still have been applied: then it may be
    /// committed although it failed.
    pub outcome_unknown: bool,
    /// Segments sealed so far with blocks of it, in order; emptied when it settles.
    pub prior_segments: Vec<PriorSegment>,
    memory: SinkMemory,
    /// From its first request to when it settles.
    span: Span,
}

impl Sink {
    /// Whether all segments sealed with its pages are stored or have failed.
    pub(super) fn uploads_completed(&self) -> bool {
        self.prior_segments
            .iter()
            .all(|segment| segment.outcome.is_known())
    }

    /// A sink without pages.
    pub(super) fn open(id: SinkId, memory: SinkMemory) -> Self {
        let span = Span::child("sink");
        span.set("stopover.exchange", &id.exchange);
        span.set_number("stopover.task", id.task_attempt.task.into());
        span.set_number("stopover.attempt", id.task_attempt.attempt.into());
        Self {
            span,
            id,
            state: watch::Sender::new(SinkState::Open),
            totals: Totals::default(),
            crc: Checksum::default(),
            outcome_unknown: false,
            prior_segments: Vec::new(),
            memory,
        }
    }

    /// A sink for an attempt that was aborted before it wrote anything here.
    pub(super) fn aborted(id: SinkId, memory: SinkMemory) -> Self {
        let sink = Self::open(id, memory);
        sink.state.send_replace(SinkState::Aborted);
        sink
    }

    /// Its span, for those of the segments that hold its pages.
    pub(super) fn span(&self) -> SpanRef {
        self.span.handle()
    }

    pub(super) fn state(&self) -> SinkState {
        self.state.borrow().clone()
    }

    /// The channel of its state, to wait until it settles.
    pub(super) fn subscribe(&self) -> watch::Receiver<SinkState> {
        self.state.subscribe()
    }

    /// What has been appended so far.
    pub(super) fn totals(&self) -> Totals {
        Totals {
            checksum: self.crc.value(),
            ..self.totals
        }
    }

    fn check_open(&self) -> Result<(), IngestError> {
        let sink = self.id.clone();
        match self.state() {
            SinkState::Open => Ok(()),
            SinkState::Finishing | SinkState::Finished => Err(IngestError::SinkFinished { sink }),
            SinkState::Aborted => Err(IngestError::SinkAborted { sink }),
            SinkState::Failed(source) => Err(IngestError::of_failed(sink, source)),
        }
    }

    /// Records a batch, with what the sink needs for it, or reports a duplicate. Unless it is a
    /// duplicate, the caller must add its runs to the open segment.
    ///
    /// # Errors
    /// An earlier batch is missing, or the sink is not open.
    pub(super) fn append(
        &mut self,
        number: Option<u32>,
        batch: &VerifiedBatch,
        memory: Reservation,
    ) -> Result<Appended, IngestError> {
        let next = self.totals.batches;
        let out_of_order = |given| IngestError::BatchOutOfOrder {
            sink: self.id.clone(),
            given,
            expected: next,
        };
        // Beyond the last number there is none.
        let given = number.or(u32::try_from(next).ok());
        let given = given.ok_or_else(|| out_of_order(u32::MAX))?;
        if u64::from(given) < next
            && !matches!(self.state(), SinkState::Aborted | SinkState::Failed(_))
        {
            return Ok(Appended {
                batch: given,
                next,
                repeated: true,
            });
        }
        self.check_open()?;
        if u64::from(given) > next {
            return Err(out_of_order(given));
        }
        self.totals.batches += 1;
        self.totals.pages += batch.pages;
        self.totals.bytes += batch.page_bytes;
        self.crc.update(&batch.crcs);
        self.memory.add(memory);
        Ok(Appended {
            batch: given,
            next: next + 1,
            repeated: false,
        })
    }

    /// Starts to finish. `true` if it was open, `false` if it was already finishing or finished.
    ///
    /// # Errors
    /// The claim does not match what arrived, or the sink was aborted or failed.
    pub(super) fn start_finish(
        &mut self,
        claim: Option<ClientTotals>,
    ) -> Result<bool, IngestError> {
        let state = self.state();
        if matches!(state, SinkState::Aborted | SinkState::Failed(_)) {
            self.check_open()?;
        }
        check_claim(&self.id, claim, self.totals())?;
        let first = matches!(state, SinkState::Open);
        if first {
            self.state.send_replace(SinkState::Finishing);
        }
        Ok(first)
    }

    /// Aborts it if it is open; `true` if it was.
    pub(super) fn abort(&mut self) -> bool {
        matches!(self.state(), SinkState::Open) && self.settle(SinkState::Aborted)
    }

    /// Settles it unless it is settled; `true` if this call did.
    pub(super) fn settle(&mut self, to: SinkState) -> bool {
        let unsettled = !self.state.borrow().is_settled();
        if unsettled {
            self.prior_segments = Vec::new();
            self.memory.settle();
            self.end_span(&to);
            self.state.send_replace(to);
        }
        unsettled
    }

    fn end_span(&mut self, settled: &SinkState) {
        let span = std::mem::take(&mut self.span);
        span.set_number("stopover.batches", self.totals.batches);
        span.set_number("stopover.pages", self.totals.pages);
        span.set_number("stopover.bytes", self.totals.bytes);
        match settled {
            SinkState::Aborted => span.set("stopover.outcome", "aborted"),
            SinkState::Failed(failure) => span.fail(failure),
            _ => span.set("stopover.outcome", "finished"),
        }
    }
}

/// Compares the counts that a client claims with what arrived.
///
/// # Errors
/// [`IngestError::CountMismatch`].
pub(super) fn check_claim(
    sink: &SinkId,
    claim: Option<ClientTotals>,
    held: Totals,
) -> Result<(), IngestError> {
    let Some(claim) = claim else { return Ok(()) };
    let same = claim.batches == held.batches
        && claim.pages == held.pages
        && claim.bytes == held.bytes
        && claim.checksum.is_none_or(|crc| crc == held.checksum);
    if same {
        return Ok(());
    }
    Err(IngestError::CountMismatch {
        sink: sink.clone(),
        claim,
        held,
    })
}
