//! What one daemon holds of one exchange: its sinks and the open segment that they share.
//!
//! Synchronous state under one lock, no I/O. Does: append, seal, settle. Does not: upload or wait.
//! Invariant: a run is in the open segment, in a sealed one, or dropped with its sink; a commit
//! record is made only for a sink whose earlier segments are all known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;
use tokio::time::Instant;

use super::commit_queue::CommitQueue;
use super::error::{IngestError, SinkFailure};
use super::overhead::OverheadEstimate;
use super::seal_policy::SealInputs;
use super::sink::{PriorSegment, Sink, SinkState};
use super::types::{Appended, ClientTotals};
use super::upload_outcome::OutcomeReporter;
use crate::catalog::Totals;
use crate::fair::FairPermit;
use crate::id::{BaseName, ExchangeId, TaskAttempt};
use crate::memory::{Reservation, WeakReservation};
use crate::segment::blocks::MAX_BLOCK_ENTRY;
use crate::segment::footer::{MAX_FIXED_PART, MAX_SINK_ENTRY, max_commit_record};
use crate::segment::frame::{Run, VerifiedBatch};

/// An exchange, shared by the requests and uploads that use it. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct SharedExchange(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    id: ExchangeId,
    overhead: OverheadEstimate,
    state: Mutex<ExchangeState>,
}

impl SharedExchange {
    /// An exchange without sinks.
    pub(super) fn new(id: ExchangeId, now: Instant) -> Self {
        Self(Arc::new(Inner {
            id,
            overhead: OverheadEstimate::default(),
            state: Mutex::new(ExchangeState::new(now)),
        }))
    }

    pub(super) fn id(&self) -> &ExchangeId {
        &self.0.id
    }

    pub(super) fn query(&self) -> &str {
        self.0.id.query()
    }

    /// What its batches are expected to need besides their bytes.
    pub(super) fn overhead(&self) -> &OverheadEstimate {
        &self.0.overhead
    }

    /// Locks the state. The caller holds no other lock of this module, and awaits nothing under it.
    pub(super) fn lock(&self) -> MutexGuard<'_, ExchangeState> {
        self.0.state.lock()
    }
}

/// A sink that commits with a sealed segment.
#[derive(Debug)]
pub(super) struct PendingCommit {
    pub attempt: TaskAttempt,
    pub totals: Totals,
    /// The segments with its blocks that were sealed before; they are stored first.
    pub prior_segments: Vec<PriorSegment>,
}

/// What holds the memory of a batch: `R` in the pool for writing.
#[derive(Debug)]
pub(super) struct BatchMemory<R> {
    pub pool: R,
    /// Its bytes within the share of foreign sinks, if it is of one.
    pub share: Option<FairPermit>,
}

/// The content of an open or sealed segment.
#[derive(Debug, Default)]
pub(super) struct Pages {
    /// The runs of each batch, in order of arrival.
    pub batches: Vec<(TaskAttempt, Vec<Run>)>,
    /// Bytes of their frames.
    pub bytes: u64,
    /// The most bytes that they can need in the index.
    pub index_size: u64,
    /// The reservations of these bytes in the pool for writing, one for each batch.
    pub memory: Vec<WeakReservation>,
    /// The permits of foreign sinks within their share, until the segment is stored.
    pub foreign: Vec<(TaskAttempt, FairPermit)>,
}

/// A segment that accepts no more pages and waits for its upload.
#[derive(Debug)]
pub(super) struct Sealed {
    pub sequence: u64,
    pub pages: Pages,
    /// The sinks that commit with it.
    pub commits: Vec<PendingCommit>,
    pub kind: CommitKind,
    /// Reports the outcome of the upload to later segments of the same sinks.
    pub outcome: OutcomeReporter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CommitKind {
    None,
    /// Those of a group, with pages.
    Group,
    /// Deferred ones, without pages.
    Deferred,
}

/// The state of one exchange at this daemon.
#[derive(Debug)]
pub(super) struct ExchangeState {
    /// Sorted, so that an iteration has the same order on every run.
    pub sinks: BTreeMap<TaskAttempt, Sink>,
    /// How many of them are open or finishing.
    pub unsettled: usize,
    /// How many of them have finished.
    pub finished: usize,
    /// Declared attempts without a sink yet, each with its memory.
    declared: BTreeMap<TaskAttempt, Reservation>,
    /// Whether clients of this exchange declare sinks at all.
    sinks_declared: bool,
    open: Pages,
    /// Bytes sealed whose upload has not completed.
    pub in_flight_bytes: u64,
    commits: CommitQueue,
    /// When a client last declared, wrote or finished a sink.
    pub last_request: Instant,
    /// Bytes of its stored segments by base directory.
    pub stored: BTreeMap<BaseName, u64>,
    /// When this daemon got its first request.
    pub opened: Instant,
    /// Whether a later check that the exchange is still open is scheduled. It covers the segments
    /// that are stored before it starts.
    pub open_check_scheduled: bool,
    /// Bytes of its segments that this daemon has stored or is storing, counted for its query.
    pub stored_bytes: u64,
    /// Set permanently when the exchange is closed: nothing is accepted, and a segment whose upload
    /// completes later is removed.
    pub closed: bool,
}

impl ExchangeState {
    fn new(now: Instant) -> Self {
        Self {
            sinks: BTreeMap::new(),
            unsettled: 0,
            finished: 0,
            declared: BTreeMap::new(),
            sinks_declared: false,
            open: Pages::default(),
            in_flight_bytes: 0,
            commits: CommitQueue::default(),
            last_request: now,
            stored: BTreeMap::new(),
            opened: now,
            open_check_scheduled: false,
            stored_bytes: 0,
            closed: false,
        }
    }

    pub(super) fn check_not_closed(&self, exchange: &ExchangeId) -> Result<(), IngestError> {
        if !self.closed {
            return Ok(());
        }
        let exchange = exchange.clone();
        Err(IngestError::ExchangeClosed { exchange })
    }

    /// Replaces the failure of a sink by "closed" if the exchange is closed: that is what the
    /// client can act on.
    pub(super) fn closed_or(&self, error: IngestError) -> IngestError {
        match error {
            IngestError::SinkFailed { sink, .. } if self.closed => IngestError::ExchangeClosed {
                exchange: sink.exchange,
            },
            error => error,
        }
    }

    /// Bytes of frames in the open segment.
    pub(super) fn open_bytes(&self) -> u64 {
        self.open.bytes
    }

    /// What the seal policy decides by.
    pub(super) fn seal_inputs(&self, now: Instant) -> SealInputs {
        let unsettled = self.unsettled + self.declared.len();
        let first_group_size = self.sinks_declared.then_some(unsettled);
        self.commits
            .seal_inputs(self.open.bytes, first_group_size, now)
    }

    /// The number of sinks in any state.
    pub(super) fn sinks(&self) -> usize {
        self.sinks.len()
    }

    /// The number of sinks in any state, and of those declared.
    pub(super) fn known_sinks(&self) -> usize {
        self.sinks.len() + self.declared.len()
    }

    pub(super) fn sink(&self, attempt: TaskAttempt) -> Option<&Sink> {
        self.sinks.get(&attempt)
    }

    /// Records that an attempt will be written at this daemon, if there is memory for that.
    pub(super) fn declare(&mut self, attempt: TaskAttempt, memory: Option<Reservation>) {
        self.sinks_declared = true;
        if !self.sinks.contains_key(&attempt) {
            self.declared.extend(memory.map(|memory| (attempt, memory)));
        }
    }

    /// Reverts [`ExchangeState::declare`].
    pub(super) fn withdraw(&mut self, attempt: TaskAttempt) {
        self.declared.remove(&attempt);
    }

    /// Adds a sink, open or already aborted.
    pub(super) fn insert(&mut self, attempt: TaskAttempt, sink: Sink) {
        self.declared.remove(&attempt);
        self.unsettled += usize::from(!sink.state().is_settled());
        self.sinks.insert(attempt, sink);
    }

    /// Appends a batch to an existing sink, and its runs to the open segment. `of_sink` is the
    /// memory that the sink itself needs for it.
    ///
    /// # Errors
    /// As [`Sink::append`], or the exchange is closed.
    pub(super) fn append(
        &mut self,
        attempt: TaskAttempt,
        number: Option<u32>,
        batch: VerifiedBatch,
        memory: BatchMemory<WeakReservation>,
        of_sink: Reservation,
    ) -> Result<Appended, IngestError> {
        let sink = self.sinks.get_mut(&attempt).expect("the caller opened it");
        let appended = sink.append(number, &batch, of_sink);
        let appended = appended.map_err(|error| self.closed_or(error))?;
        if !appended.repeated {
            self.open.bytes += frame_bytes(&batch.runs);
            self.open.index_size += index_size(&batch.runs);
            self.open.batches.push((attempt, batch.runs));
            self.open.memory.push(memory.pool);
            let share = memory.share.map(|share| (attempt, share));
            self.open.foreign.extend(share);
        }
        Ok(appended)
    }

    /// Starts to finish a sink that exists, or joins the finish under way; returns its totals and
    /// the channel on which it settles.
    ///
    /// # Errors
    /// As [`Sink::start_finish`], or the exchange is closed.
    pub(super) fn finish(
        &mut self,
        attempt: TaskAttempt,
        claim: Option<ClientTotals>,
        now: Instant,
    ) -> Result<(watch::Receiver<SinkState>, Totals), IngestError> {
        let sink = self.sinks.get_mut(&attempt).expect("the caller opened it");
        let first = sink.start_finish(claim);
        let (state_changes, totals) = (sink.subscribe(), sink.totals());
        if first.map_err(|error| self.closed_or(error))? {
            self.commits.push(attempt, now);
        }
        Ok((state_changes, totals))
    }

    /// Aborts an open sink and drops its pages; `false` if it is not open.
    pub(super) fn abort(&mut self, attempt: TaskAttempt) -> bool {
        let aborted = self.sinks.get_mut(&attempt).is_some_and(Sink::abort);
        if aborted {
            self.unsettled -= 1;
            self.drop_pages_of(attempt);
        }
        aborted
    }

    fn drop_pages_of(&mut self, attempt: TaskAttempt) {
        let open = &mut self.open;
        open.batches.retain(|(sink, _)| *sink != attempt);
        open.memory.retain(WeakReservation::is_held);
        open.foreign.retain(|(sink, _)| *sink != attempt);
        open.bytes = open.batches.iter().map(|(_, runs)| frame_bytes(runs)).sum();
        open.index_size = open.batches.iter().map(|(_, runs)| index_size(runs)).sum();
        self.commits.remove(attempt);
    }

    /// Whether the index of another batch fits into a footer of `max_footer_size` together with
    /// that of the open segment, if commit records need no more than half of it.
    ///
    /// # Errors
    /// The index of the batch does not even fit into a segment of its own.
    pub(super) fn has_room_for(
        &self,
        batch: &VerifiedBatch,
        max_footer_size: u64,
    ) -> Result<bool, IngestError> {
        let (length, room) = (index_size(&batch.runs), max_footer_size / 2);
        if length > room {
            let limit = max_footer_size;
            return Err(IngestError::IndexTooLarge { length, limit });
        }
        Ok(self.open.index_size + length <= room)
    }

    /// Seals the open segment; `None` if there is nothing to write. The finishing sinks commit with
    /// it, as long as their commit records fit into half of `max_footer_size`. A segment of at
    /// least `deferred_commit_threshold` bytes does not wait for earlier uploads. Sinks that cannot
    /// commit with it commit later ([`ExchangeState::seal_deferred`]).
    pub(super) fn seal(
        &mut self,
        sequence: u64,
        deferred_commit_threshold: u64,
        max_footer_size: u64,
    ) -> Option<Sealed> {
        if self.open.batches.is_empty() && !self.commits.has_finishing() {
            return None;
        }
        let pages = std::mem::take(&mut self.open);
        self.in_flight_bytes += pages.bytes;
        let waits_for_uploads = pages.bytes < deferred_commit_threshold;
        let mut room = CommitRoom::new(max_footer_size);
        let group = self.commits.next_group(|attempt| {
            (waits_for_uploads || uploads_completed(&self.sinks, attempt))
                && room.take(&self.sinks, attempt)
        });
        let kind = match group.is_empty() {
            true => CommitKind::None,
            false => CommitKind::Group,
        };
        let commits = self.pending_commits(group);
        let outcome = OutcomeReporter::default();
        let writers: BTreeSet<TaskAttempt> = pages.batches.iter().map(|(sink, _)| *sink).collect();
        for attempt in writers {
            if let Some(sink) = self.sinks.get_mut(&attempt) {
                sink.prior_segments.push(PriorSegment {
                    sequence,
                    outcome: outcome.outcome(),
                });
            }
        }
        Some(Sealed {
            sequence,
            pages,
            commits,
            kind,
            outcome,
        })
    }

    /// Seals the deferred commits whose uploads have all completed; one such segment at a time, so
    /// that sinks which become ready meanwhile share the next one.
    pub(super) fn seal_deferred(&mut self, sequence: u64, max_footer_size: u64) -> Option<Sealed> {
        let mut room = CommitRoom::new(max_footer_size);
        let ready = self.commits.next_deferred(|attempt| {
            uploads_completed(&self.sinks, attempt) && room.take(&self.sinks, attempt)
        })?;
        Some(Sealed {
            sequence,
            pages: Pages::default(),
            commits: self.pending_commits(ready),
            kind: CommitKind::Deferred,
            outcome: OutcomeReporter::default(),
        })
    }

    fn pending_commits(&self, attempts: Vec<TaskAttempt>) -> Vec<PendingCommit> {
        let pending = attempts.into_iter().filter_map(|attempt| {
            let sink = self.sinks.get(&attempt)?;
            Some(PendingCommit {
                attempt,
                totals: sink.totals(),
                prior_segments: sink.prior_segments.clone(),
            })
        });
        pending.collect()
    }

    /// Records that an upload has completed, successfully or not.
    pub(super) fn upload_completed(&mut self, bytes: u64, kind: CommitKind, now: Instant) {
        self.in_flight_bytes -= bytes;
        match kind {
            CommitKind::None => {}
            CommitKind::Group => self.commits.group_uploaded(now),
            CommitKind::Deferred => self.commits.deferred_uploaded(),
        }
    }

    /// Records that the commit of these sinks failed and may still have been applied.
    pub(super) fn mark_outcome_unknown(&mut self, attempts: &[TaskAttempt]) {
        for attempt in attempts {
            if let Some(sink) = self.sinks.get_mut(attempt) {
                sink.outcome_unknown = true;
            }
        }
    }

    /// Settles a sink unless it is settled; `true` if this call did.
    pub(super) fn settle(&mut self, attempt: TaskAttempt, to: SinkState) -> bool {
        let failed = matches!(to, SinkState::Failed(_));
        let finished = matches!(to, SinkState::Finished);
        let sink = self.sinks.get_mut(&attempt);
        let settled = sink.is_some_and(|sink| sink.settle(to));
        self.unsettled -= usize::from(settled);
        self.finished += usize::from(settled && finished);
        if settled && failed {
            self.drop_pages_of(attempt);
        }
        settled
    }

    /// Counts a stored segment; `false` if the exchange is closed.
    pub(super) fn add_stored(&mut self, base: &BaseName, size: u64) -> bool {
        if !self.closed {
            *self.stored.entry(base.clone()).or_default() += size;
        }
        !self.closed
    }

    /// What was counted as stored, which is counted no longer.
    pub(super) fn take_stored(&mut self) -> BTreeMap<BaseName, u64> {
        std::mem::take(&mut self.stored)
    }

    /// Closes the exchange: unsettled sinks fail, and pages are dropped. Returns how many failed.
    pub(super) fn close(&mut self) -> usize {
        self.closed = true;
        let failure = Arc::new(SinkFailure::ExchangeClosed);
        for sink in self.sinks.values_mut() {
            sink.settle(SinkState::Failed(Arc::clone(&failure)));
        }
        self.declared = BTreeMap::new();
        self.open = Pages::default();
        self.commits.clear();
        std::mem::take(&mut self.unsettled)
    }
}

fn frame_bytes(runs: &[Run]) -> u64 {
    runs.iter().map(|run| run.frames.len() as u64).sum()
}

/// The most bytes that the runs of a batch need in the index, if each becomes a block.
fn index_size(runs: &[Run]) -> u64 {
    runs.len() as u64 * MAX_BLOCK_ENTRY + MAX_SINK_ENTRY
}

/// The half of a footer that holds commit records. The first one always fits: if it is too large
/// for the footer, its upload fails.
struct CommitRoom {
    left: u64,
    used: bool,
}

impl CommitRoom {
    fn new(max_footer_size: u64) -> Self {
        Self {
            left: (max_footer_size / 2).saturating_sub(MAX_FIXED_PART),
            used: false,
        }
    }

    fn take(&mut self, sinks: &BTreeMap<TaskAttempt, Sink>, attempt: TaskAttempt) -> bool {
        let predecessors = sinks.get(&attempt).map_or(0, |s| s.prior_segments.len());
        let size = MAX_SINK_ENTRY + max_commit_record(predecessors);
        let fits = size <= self.left || !self.used;
        if fits {
            (self.left, self.used) = (self.left.saturating_sub(size), true);
        }
        fits
    }
}

/// Whether all segments sealed with pages of a sink are stored or have failed.
fn uploads_completed(sinks: &BTreeMap<TaskAttempt, Sink>, attempt: TaskAttempt) -> bool {
    sinks.get(&attempt).is_none_or(Sink::uploads_completed)
}

#[cfg(test)]
mod tests;
