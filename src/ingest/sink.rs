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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crc::checksum;
    use crate::id::TaskAttempt;
    use crate::ingest::sink_memory::SinkPool;
    use crate::ingest::stored::TooMuchStored;
    use crate::ingest::upload_outcome::OutcomeReporter;

    struct Story {
        sink: Sink,
        pool: SinkPool,
    }

    impl Story {
        fn new() -> Self {
            let pool = SinkPool::of_budget(1 << 20);
            let id = SinkId {
                exchange: "q".parse().unwrap(),
                task_attempt: TaskAttempt::new(1, 2).unwrap(),
            };
            let sink = Sink::open(id, pool.open("q").unwrap());
            Self { sink, pool }
        }

        /// Appends a batch of two pages.
        fn append(&mut self, number: Option<u32>) -> Result<Appended, IngestError> {
            let batch = VerifiedBatch {
                pages: 2,
                page_bytes: 30,
                crcs: vec![7; 8],
                ..VerifiedBatch::default()
            };
            let memory = self.pool.batch("q").unwrap();
            self.sink.append(number, &batch, memory)
        }

        fn appended(&mut self, number: Option<u32>) -> (u32, u64, bool) {
            let appended = self.append(number).unwrap();
            (appended.batch, appended.next, appended.repeated)
        }
    }

    fn failed(failure: SinkFailure) -> SinkState {
        SinkState::Failed(Arc::new(failure))
    }

    #[test]
    fn batches_are_accepted_in_order_and_once() {
        let mut story = Story::new();
        assert_eq!(story.appended(Some(0)), (0, 1, false));
        assert_eq!(story.appended(None), (1, 2, false));
        assert_eq!(story.appended(Some(0)), (0, 2, true));
        assert_eq!(story.appended(Some(1)), (1, 2, true));
        let refused = story.append(Some(3)).unwrap_err();
        let IngestError::BatchOutOfOrder {
            given: 3,
            expected: 2,
            ..
        } = refused
        else {
            panic!("{refused}");
        };
        assert_eq!(story.appended(Some(2)), (2, 3, false));
        let expected = Totals {
            batches: 3,
            pages: 6,
            bytes: 90,
            checksum: checksum(&[7; 24]),
        };
        assert_eq!(story.sink.totals(), expected);
    }

    #[test]
    fn a_finish_whose_claim_differs_in_any_count_is_refused_and_changes_nothing() {
        let mut story = Story::new();
        story.append(None).unwrap();
        let right = ClientTotals {
            batches: 1,
            pages: 2,
            bytes: 30,
            checksum: Some(checksum(&[7; 8])),
        };
        let wrong = [
            ClientTotals {
                batches: 2,
                ..right
            },
            ClientTotals { pages: 1, ..right },
            ClientTotals { bytes: 31, ..right },
            ClientTotals {
                checksum: Some(1),
                ..right
            },
        ];
        for claim in wrong {
            let refused = story.sink.start_finish(Some(claim)).unwrap_err();
            assert!(matches!(refused, IngestError::CountMismatch { .. }));
            assert!(matches!(story.sink.state(), SinkState::Open));
        }
        let without = ClientTotals {
            checksum: None,
            ..right
        };
        assert!(story.sink.start_finish(Some(right)).unwrap());
        for claim in [Some(right), Some(without), None] {
            assert!(!story.sink.start_finish(claim).unwrap(), "it is finishing");
        }
        assert!(story.sink.start_finish(Some(wrong[0])).is_err());
    }

    #[test]
    fn a_sink_that_finishes_accepts_no_new_batch_and_is_not_aborted() {
        for finished in [false, true] {
            let mut story = Story::new();
            story.append(None).unwrap();
            story.sink.start_finish(None).unwrap();
            if finished {
                assert!(story.sink.settle(SinkState::Finished));
            }
            let refused = story.append(None).unwrap_err();
            assert!(matches!(refused, IngestError::SinkFinished { .. }));
            assert_eq!(story.appended(Some(0)), (0, 1, true));
            assert!(!story.sink.abort());
            assert!(!story.sink.start_finish(None).unwrap());
        }
    }

    #[test]
    fn an_aborted_sink_accepts_nothing_not_even_a_repeated_batch() {
        let mut story = Story::new();
        story.append(None).unwrap();
        assert!(story.sink.abort() && !story.sink.abort());
        for number in [Some(0), None] {
            let refused = story.append(number).unwrap_err();
            assert!(matches!(refused, IngestError::SinkAborted { .. }));
        }
        let refused = story.sink.start_finish(None).unwrap_err();
        assert!(matches!(refused, IngestError::SinkAborted { .. }));
        let id = story.sink.id.clone();
        let memory = story.pool.open("q").unwrap();
        let late = Sink::aborted(id, memory);
        assert!(matches!(late.state(), SinkState::Aborted));
    }

    #[test]
    fn a_failed_sink_tells_why() {
        let mut story = Story::new();
        story.append(None).unwrap();
        assert!(story.sink.settle(failed(SinkFailure::SegmentDropped)));
        let refused = story.append(Some(0)).unwrap_err();
        assert!(matches!(refused, IngestError::SinkFailed { .. }));
        let refused = story.sink.start_finish(None).unwrap_err();
        assert!(matches!(refused, IngestError::SinkFailed { .. }));
        let mut story = Story::new();
        let too_much = TooMuchStored {
            query: "q".into(),
            stored: 1,
            size: 2,
            limit: 2,
        };
        story
            .sink
            .settle(failed(SinkFailure::TooMuchStored(too_much)));
        let refused = story.append(None).unwrap_err();
        assert!(matches!(refused, IngestError::TooMuchStored(_)));
    }

    #[test]
    fn a_settled_sink_never_changes_and_releases_what_it_held_for_its_batches() {
        let settled = [
            SinkState::Finished,
            SinkState::Aborted,
            failed(SinkFailure::ExchangeClosed),
        ];
        for to in settled {
            let mut story = Story::new();
            let before = story.pool.pool().used();
            let reporter = OutcomeReporter::default();
            let outcome = reporter.outcome();
            story.append(None).unwrap();
            assert!(story.pool.pool().used() > before);
            let sequence = 1;
            let segment = PriorSegment { sequence, outcome };
            story.sink.prior_segments.push(segment);
            let changes = story.sink.subscribe();
            assert!(!story.sink.state().is_settled());
            assert!(story.sink.settle(to.clone()));
            assert!(changes.has_changed().unwrap());
            assert!(story.sink.state().is_settled());
            assert_eq!(story.pool.pool().used(), before);
            assert!(story.sink.prior_segments.is_empty());
            let shown = format!("{:?}", story.sink.state());
            assert!(!story.sink.settle(SinkState::Finished));
            assert!(!story.sink.settle(SinkState::Aborted) && !story.sink.abort());
            assert_eq!(format!("{:?}", story.sink.state()), shown);
        }
    }

    #[test]
    fn uploads_are_completed_once_the_outcome_of_each_segment_is_known() {
        let mut story = Story::new();
        assert!(story.sink.uploads_completed());
        let reporters = [OutcomeReporter::default(), OutcomeReporter::default()];
        for (sequence, reporter) in (1..).zip(&reporters) {
            let outcome = reporter.outcome();
            let segment = PriorSegment { sequence, outcome };
            story.sink.prior_segments.push(segment);
        }
        assert!(!story.sink.uploads_completed());
        reporters[1].report(Ok("main".parse().unwrap()));
        assert!(!story.sink.uploads_completed());
        reporters[0].report(Err(Arc::new(SinkFailure::SegmentDropped)));
        assert!(story.sink.uploads_completed());
    }
}
