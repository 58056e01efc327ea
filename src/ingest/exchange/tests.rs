//! Claims about the state of an exchange: which sinks a finish waits for, what is sealed, and what
//! is counted.

use std::time::Duration;

use super::*;
use crate::id::SinkId;
use crate::ingest::seal_policy::{Decision, SealPolicy};
use crate::ingest::sink_memory::SinkPool;
use crate::memory::{MemoryPool, ReservedBytes};
use crate::segment::frame::{FRAME_HEADER_LEN, verify_batch, write_frame_header};

/// Bytes of the pages that are written.
const PAGE: usize = 20;
/// Bytes of their frames.
const FRAME: u64 = (FRAME_HEADER_LEN + PAGE) as u64;

struct Story {
    state: ExchangeState,
    sinks: SinkPool,
    pool: MemoryPool,
    foreign: crate::fair::FairSemaphore,
    now: Instant,
}

/// A batch of a page for each of these partitions, and its memory.
fn batch(pool: &MemoryPool, partitions: &[u32]) -> (VerifiedBatch, WeakReservation) {
    let mut frames = Vec::new();
    for partition in partitions {
        let mut frame = vec![7; FRAME_HEADER_LEN + PAGE];
        write_frame_header(&mut frame, *partition);
        frames.extend(frame);
    }
    let reserved = pool.try_reserve("q", frames.len() as u64).unwrap();
    let (bytes, memory) = ReservedBytes::into_transferable(frames.into(), reserved);
    (verify_batch(bytes, 1000, 1 << 20).unwrap(), memory)
}

impl Story {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            state: ExchangeState::new(now),
            sinks: SinkPool::of_budget(1 << 20),
            pool: MemoryPool::new("write", 1 << 20),
            foreign: crate::fair::FairSemaphore::new(1 << 20, None),
            now,
        }
    }

    fn attempt(task: u32) -> TaskAttempt {
        TaskAttempt::new(task, 0).unwrap()
    }

    fn declare(&mut self, task: u32) {
        let memory = self.sinks.declared("q");
        self.state.declare(Self::attempt(task), memory);
    }

    fn open(&mut self, task: u32) {
        let (exchange, task_attempt) = ("q".parse().unwrap(), Self::attempt(task));
        let id = SinkId {
            exchange,
            task_attempt,
        };
        let sink = Sink::open(id, self.sinks.open("q").unwrap());
        self.state.insert(task_attempt, sink);
    }

    /// Appends a page for each of these partitions.
    fn append(&mut self, task: u32, partitions: &[u32]) -> Result<Appended, IngestError> {
        let (batch, pool) = batch(&self.pool, partitions);
        let memory = BatchMemory { pool, share: None };
        let of_sink = self.sinks.batch("q").unwrap();
        self.state
            .append(Self::attempt(task), None, batch, memory, of_sink)
    }

    /// Opens a sink and appends a page.
    fn write(&mut self, task: u32) {
        self.open(task);
        self.append(task, &[0]).unwrap();
    }

    /// Seals, and returns the segment with the tasks that commit with it.
    fn seal(&mut self, sequence: u64, threshold: u64) -> (Sealed, Vec<u32>) {
        let sealed = self.state.seal(sequence, threshold, 1 << 20).unwrap();
        let tasks = sealed.commits.iter().map(|c| c.attempt.task).collect();
        (sealed, tasks)
    }

    /// A whole sink that was declared.
    fn declare_and_finish(&mut self, task: u32) {
        self.declare(task);
        self.open(task);
        self.finish(task);
    }

    fn finish(&mut self, task: u32) {
        let finish = self.state.finish(Self::attempt(task), None, self.now);
        finish.unwrap();
    }

    fn commit(&mut self, sequence: u64) {
        let sealed = self.state.seal(sequence, 0, 1 << 20).unwrap();
        let (bytes, kind) = (sealed.pages.bytes, sealed.kind);
        for commit in sealed.commits {
            assert!(self.state.settle(commit.attempt, SinkState::Finished));
        }
        self.state.upload_completed(bytes, kind, self.now);
    }

    fn waits(&self) -> bool {
        let policy = SealPolicy {
            target_size: 100,
            commit_linger: Duration::from_secs(1),
        };
        match policy.decide(&self.state.seal_inputs(self.now)) {
            Decision::Seal => false,
            Decision::RecheckAfter(_) => true,
            Decision::Idle => panic!("a sink is finishing"),
        }
    }
}

#[test]
fn a_finish_waits_for_the_declared_sinks_and_for_no_others() {
    let mut exchange = Story::new();
    exchange.declare(0);
    exchange.declare(1);
    exchange.open(0);
    exchange.finish(0);
    assert!(exchange.waits(), "task 1 is declared");
    exchange.open(1);
    assert!(exchange.waits(), "task 1 is writing");
    exchange.finish(1);
    assert!(!exchange.waits(), "all have finished");
    exchange.commit(1);
    assert_eq!(exchange.state.unsettled, 0);
}

#[test]
fn a_finish_does_not_wait_for_a_sink_that_was_withdrawn() {
    let mut exchange = Story::new();
    exchange.declare(0);
    exchange.declare(1);
    exchange.open(0);
    exchange.finish(0);
    assert!(exchange.waits(), "task 1 is declared");
    exchange.state.withdraw(Story::attempt(1));
    assert!(!exchange.waits(), "task 1 is written at another daemon");
    exchange.state.withdraw(Story::attempt(0));
    assert_eq!(exchange.state.unsettled, 1, "a sink is not withdrawn");
}

#[test]
fn a_finish_does_not_wait_for_an_aborted_sink() {
    let mut exchange = Story::new();
    for task in [0, 1] {
        exchange.declare(task);
        exchange.open(task);
    }
    exchange.finish(0);
    assert!(exchange.waits());
    assert!(exchange.state.abort(Story::attempt(1)));
    assert!(!exchange.waits(), "no other sink is open");
    assert_eq!(exchange.state.unsettled, 1);
}

/// Story: with eight writers, a sink released by an upload was the only one known when it
/// finished. It was committed alone, and the eight split into two groups, each of which waited
/// for the upload of the other.
#[test]
fn after_one_group_commit_a_finish_waits_for_as_many_sinks_again() {
    let mut exchange = Story::new();
    for task in [0, 1] {
        exchange.declare_and_finish(task);
    }
    exchange.commit(1);
    exchange.declare_and_finish(2);
    assert!(exchange.waits());
}

#[test]
fn without_declared_sinks_a_finish_waits_for_the_whole_linger() {
    let mut exchange = Story::new();
    exchange.open(0);
    exchange.finish(0);
    assert!(exchange.waits());
}

#[test]
fn pages_are_counted_in_the_open_segment_until_their_sink_aborts() {
    let mut exchange = Story::new();
    exchange.write(0);
    exchange.write(1);
    exchange.append(1, &[0, 0, 5]).unwrap();
    assert_eq!(exchange.state.open_bytes(), 5 * FRAME);
    let inputs = exchange.state.seal_inputs(exchange.now);
    assert_eq!(inputs.open_bytes, 5 * FRAME);
    assert!(exchange.state.abort(Story::attempt(1)));
    assert!(!exchange.state.abort(Story::attempt(1)));
    assert!(!exchange.state.abort(Story::attempt(9)), "there is none");
    assert_eq!(exchange.state.open_bytes(), FRAME);
    assert_eq!(exchange.pool.used(), FRAME, "its memory is free");
    let (sealed, _) = exchange.seal(1, 0);
    assert_eq!(sealed.pages.batches.len(), 1);
    assert_eq!(sealed.pages.memory.len(), 1);
    assert_eq!(sealed.pages.bytes, FRAME);
}

#[test]
fn a_repeated_batch_adds_nothing_to_the_open_segment() {
    let mut exchange = Story::new();
    exchange.write(0);
    let (batch, pool) = batch(&exchange.pool, &[0]);
    let memory = BatchMemory { pool, share: None };
    let of_sink = exchange.sinks.batch("q").unwrap();
    let attempt = Story::attempt(0);
    let appended = exchange
        .state
        .append(attempt, Some(0), batch, memory, of_sink)
        .unwrap();
    assert!(appended.repeated);
    assert_eq!(exchange.state.open_bytes(), FRAME);
    assert_eq!(exchange.pool.used(), FRAME);
}

#[test]
fn a_foreign_sink_holds_its_share_until_the_segment_is_dropped() {
    let mut exchange = Story::new();
    for task in [0, 1] {
        exchange.open(task);
        let (batch, pool) = batch(&exchange.pool, &[0]);
        let share = exchange.foreign.try_acquire("q", FRAME);
        assert!(share.is_some());
        let memory = BatchMemory { pool, share };
        let of_sink = exchange.sinks.batch("q").unwrap();
        let attempt = Story::attempt(task);
        let appended = exchange.state.append(attempt, None, batch, memory, of_sink);
        appended.unwrap();
    }
    assert!(exchange.state.abort(Story::attempt(0)));
    assert_eq!(exchange.foreign.held(), FRAME);
    let (sealed, _) = exchange.seal(1, 0);
    assert_eq!(exchange.foreign.held(), FRAME);
    drop(sealed);
    assert_eq!(exchange.foreign.held(), 0);
}

#[test]
fn a_batch_has_room_while_the_index_needs_at_most_half_of_a_footer() {
    let one = MAX_BLOCK_ENTRY + MAX_SINK_ENTRY;
    let mut exchange = Story::new();
    let room = |exchange: &Story, partitions: &[u32], footer| {
        let (batch, _) = batch(&exchange.pool, partitions);
        exchange.state.has_room_for(&batch, footer)
    };
    assert!(room(&exchange, &[0], 2 * one).unwrap());
    assert!(room(&exchange, &[0], 2 * one - 1).is_err());
    let three_runs = 2 * (one + 2 * MAX_BLOCK_ENTRY);
    assert!(room(&exchange, &[0, 1, 0], three_runs).unwrap());
    assert!(room(&exchange, &[0, 1, 0], three_runs - 2).is_err());
    exchange.write(0);
    assert!(!room(&exchange, &[0], 2 * one).unwrap());
    assert!(!room(&exchange, &[0], 4 * one - 2).unwrap());
    assert!(room(&exchange, &[0], 4 * one).unwrap());
    exchange.write(1);
    assert!(!room(&exchange, &[0], 4 * one).unwrap());
    assert!(exchange.state.abort(Story::attempt(1)));
    assert!(room(&exchange, &[0], 4 * one).unwrap());
}

#[test]
fn nothing_is_sealed_without_pages_and_finishing_sinks() {
    let mut exchange = Story::new();
    assert!(exchange.state.seal(1, 0, 1 << 20).is_none());
    exchange.open(0);
    assert!(exchange.state.seal(1, 0, 1 << 20).is_none());
    exchange.finish(0);
    let (sealed, tasks) = exchange.seal(1, 0);
    assert_eq!((sealed.kind, tasks), (CommitKind::Group, vec![0]));
    exchange.write(1);
    let (sealed, tasks) = exchange.seal(2, 0);
    assert_eq!((sealed.kind, tasks), (CommitKind::None, vec![]));
    assert_eq!((sealed.sequence, sealed.pages.bytes), (2, FRAME));
}

#[test]
fn a_commit_lists_the_segments_that_were_sealed_before_it() {
    let mut exchange = Story::new();
    exchange.write(0);
    exchange.write(1);
    let (first, _) = exchange.seal(1, 0);
    exchange.append(0, &[0]).unwrap();
    let (second, _) = exchange.seal(2, 0);
    exchange.append(0, &[0]).unwrap();
    exchange.finish(0);
    let (third, _) = exchange.seal(3, u64::MAX);
    let [commit] = &third.commits[..] else {
        panic!("one sink commits");
    };
    let prior = commit.prior_segments.iter().map(|prior| prior.sequence);
    assert_eq!(prior.collect::<Vec<_>>(), [1, 2]);
    assert_eq!((commit.totals.batches, commit.totals.pages), (3, 3));
    let of = |task| {
        let sink = exchange.state.sink(Story::attempt(task)).unwrap();
        sink.prior_segments.len()
    };
    assert_eq!((of(0), of(1)), (3, 1));
    assert_eq!(exchange.state.in_flight_bytes, 4 * FRAME);
    for sealed in [first, second, third] {
        let (bytes, kind) = (sealed.pages.bytes, sealed.kind);
        exchange.state.upload_completed(bytes, kind, exchange.now);
    }
    assert_eq!(exchange.state.in_flight_bytes, 0);
}

#[test]
fn a_large_segment_commits_only_sinks_whose_earlier_segments_are_stored() {
    let mut exchange = Story::new();
    exchange.write(0);
    let (first, _) = exchange.seal(1, 0);
    exchange.append(0, &[0]).unwrap();
    exchange.write(1);
    exchange.finish(0);
    exchange.finish(1);
    let (second, tasks) = exchange.seal(2, 2 * FRAME);
    assert_eq!((second.kind, tasks), (CommitKind::Group, vec![1]));
    assert!(exchange.state.seal_deferred(3, 1 << 20).is_none());
    first.outcome.report(Ok("main".parse().unwrap()));
    assert!(exchange.state.seal_deferred(3, 1 << 20).is_none());
    second.outcome.report(Ok("main".parse().unwrap()));
    let deferred = exchange.state.seal_deferred(3, 1 << 20).unwrap();
    assert_eq!(deferred.kind, CommitKind::Deferred);
    assert_eq!(deferred.commits[0].attempt, Story::attempt(0));
    assert_eq!(deferred.commits[0].prior_segments.len(), 2);
    assert_eq!((deferred.sequence, deferred.pages.bytes), (3, 0));
}

#[test]
fn a_smaller_segment_commits_sinks_whose_earlier_segments_are_uploading() {
    let mut exchange = Story::new();
    exchange.write(0);
    let (_first, _) = exchange.seal(1, 0);
    exchange.append(0, &[0]).unwrap();
    exchange.finish(0);
    let (second, tasks) = exchange.seal(2, FRAME + 1);
    assert_eq!((second.kind, tasks), (CommitKind::Group, vec![0]));
}

#[test]
fn one_segment_of_deferred_commits_is_uploaded_at_a_time() {
    let mut exchange = Story::new();
    let mut sealed = Vec::new();
    for task in [0, 1] {
        exchange.write(task);
        sealed.push(exchange.seal(1, 0).0);
    }
    exchange.finish(0);
    exchange.finish(1);
    assert_eq!(exchange.seal(3, 0).1, [0; 0]);
    sealed[0].outcome.report(Ok("main".parse().unwrap()));
    let deferred = exchange.state.seal_deferred(4, 1 << 20).unwrap();
    assert_eq!(deferred.commits[0].attempt, Story::attempt(0));
    sealed[1].outcome.report(Ok("main".parse().unwrap()));
    assert!(exchange.state.seal_deferred(5, 1 << 20).is_none());
    exchange
        .state
        .upload_completed(0, CommitKind::Deferred, exchange.now);
    let deferred = exchange.state.seal_deferred(5, 1 << 20).unwrap();
    assert_eq!(deferred.commits[0].attempt, Story::attempt(1));
}

#[test]
fn commit_records_that_do_not_fit_into_half_a_footer_commit_later() {
    let record = MAX_SINK_ENTRY + max_commit_record(0);
    for (room, now, later) in [
        (MAX_FIXED_PART + 2 * record, 2, 1),
        (MAX_FIXED_PART + 2 * record - 1, 1, 1),
        (MAX_FIXED_PART + 3 * record, 3, 0),
        (0, 1, 1),
    ] {
        let mut exchange = Story::new();
        for task in 0..3 {
            exchange.open(task);
            exchange.finish(task);
        }
        let sealed = exchange.state.seal(1, 0, 2 * room).unwrap();
        assert_eq!(sealed.commits.len(), now, "{room}");
        let deferred = exchange.state.seal_deferred(2, 2 * room);
        assert_eq!(deferred.map_or(0, |d| d.commits.len()), later, "{room}");
    }
    // A record with predecessors is longer.
    let mut exchange = Story::new();
    for task in [0, 1] {
        exchange.write(task);
    }
    let (_first, _) = exchange.seal(1, 0);
    exchange.finish(0);
    exchange.finish(1);
    let room = 2 * (MAX_FIXED_PART + 2 * (MAX_SINK_ENTRY + max_commit_record(1)) - 1);
    let sealed = exchange.state.seal(2, u64::MAX, room).unwrap();
    assert_eq!(sealed.commits.len(), 1);
}

#[test]
fn a_sink_settles_once_and_is_counted_by_how() {
    let mut exchange = Story::new();
    (0..3).for_each(|task| exchange.write(task));
    exchange.declare(3);
    exchange.declare(2);
    assert_eq!(exchange.state.unsettled, 3);
    assert_eq!(
        (exchange.state.sinks(), exchange.state.known_sinks()),
        (3, 4)
    );
    exchange.finish(0);
    assert!(
        exchange
            .state
            .settle(Story::attempt(0), SinkState::Finished)
    );
    assert!(
        !exchange
            .state
            .settle(Story::attempt(0), SinkState::Finished)
    );
    assert_eq!((exchange.state.unsettled, exchange.state.finished), (2, 1));
    assert_eq!(exchange.state.open_bytes(), 3 * FRAME);
    let failed = || SinkState::Failed(Arc::new(SinkFailure::SegmentDropped));
    assert!(exchange.state.settle(Story::attempt(1), failed()));
    assert_eq!(exchange.state.open_bytes(), 2 * FRAME, "its pages are gone");
    assert!(!exchange.state.settle(Story::attempt(0), failed()));
    assert_eq!(exchange.state.open_bytes(), 2 * FRAME);
    assert!(!exchange.state.settle(Story::attempt(9), failed()));
    assert_eq!((exchange.state.unsettled, exchange.state.finished), (1, 1));
    exchange.state.mark_outcome_unknown(&[Story::attempt(1)]);
    let unknown = |task| {
        let sink = exchange.state.sink(Story::attempt(task));
        sink.unwrap().outcome_unknown
    };
    assert!(unknown(1) && !unknown(0));
}

#[test]
fn a_closed_exchange_fails_its_sinks_drops_its_pages_and_accepts_nothing() {
    let mut exchange = Story::new();
    let (id, base): (ExchangeId, BaseName) = ("q".parse().unwrap(), "main".parse().unwrap());
    (0..3).for_each(|task| exchange.write(task));
    exchange.declare(7);
    exchange.finish(0);
    exchange
        .state
        .settle(Story::attempt(1), SinkState::Finished);
    assert!(exchange.state.check_not_closed(&id).is_ok());
    assert!(exchange.state.add_stored(&base, 5) && exchange.state.add_stored(&base, 6));
    assert_eq!(exchange.state.close(), 2);
    assert!(exchange.state.check_not_closed(&id).is_err());
    assert_eq!((exchange.state.unsettled, exchange.pool.used()), (0, 0));
    assert!(exchange.state.seal(1, 0, 1 << 20).is_none());
    assert_eq!(exchange.state.known_sinks(), 3, "none is declared");
    assert!(!exchange.state.add_stored(&base, 7));
    assert_eq!(exchange.state.take_stored(), [(base, 11)].into());
    assert_eq!(exchange.state.take_stored(), [].into());
    for task in [0, 2] {
        let refused = exchange.append(task, &[0]).unwrap_err();
        let IngestError::ExchangeClosed { .. } = refused else {
            panic!("{refused}");
        };
    }
    let refused = exchange.append(1, &[0]).unwrap_err();
    assert!(matches!(refused, IngestError::SinkFinished { .. }));
    assert_eq!(exchange.state.close(), 0);
}

#[test]
fn a_failed_sink_of_an_open_exchange_is_not_told_as_closed() {
    let mut exchange = Story::new();
    exchange.write(0);
    let failed = SinkState::Failed(Arc::new(SinkFailure::SegmentDropped));
    exchange.state.settle(Story::attempt(0), failed);
    let refused = exchange.append(0, &[0]).unwrap_err();
    let IngestError::SinkFailed { .. } = refused else {
        panic!("{refused}");
    };
}

#[test]
fn an_exchange_keeps_what_its_batches_needed_to_itself() {
    let [one, other] =
        ["q-1", "q-2"].map(|id| SharedExchange::new(id.parse().unwrap(), Instant::now()));
    let before = one.overhead().for_body(1 << 20);
    one.clone().overhead().record(1 << 20, 1 << 20, 1 << 20);
    assert_eq!(one.overhead().for_body(1 << 20), 1 << 20);
    assert_eq!(other.overhead().for_body(1 << 20), before);
}
