//! All that one daemon holds of one exchange: its sinks and the segment that they fill together.
//!
//! Synchronous state under one lock, no I/O. Does: append, seal, decide. Does not: upload or wait.
//! Invariant: a run is in the open segment, in a sealed one, or gone with its sink; a commit record
//! is made only for a sink whose earlier segments are all known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use super::admission::Owed;
use super::seal_policy::View;
use super::sink::{Sink, SinkState, UploadSlot, Uploaded};
use super::{Appended, IngestError};
use crate::id::{ExchangeId, TaskAttempt};
use crate::memory::WeakReservation;
use crate::segment::frame::VerifiedBatch;
use crate::segment::writer::SinkRun;

/// A finishing sink in a sealed segment.
#[derive(Debug)]
pub struct PendingCommit {
    /// Which attempt.
    pub attempt: TaskAttempt,
    /// What it holds.
    pub totals: crate::catalog::Totals,
    /// Its earlier segments.
    pub earlier: Vec<UploadSlot>,
}

/// The pages of a segment.
#[derive(Debug, Default)]
pub struct Pages {
    /// In the order in which they came.
    pub pieces: Vec<SinkRun>,
    /// Bytes of their frames.
    pub bytes: u64,
    /// What these bytes hold of the memory for writing, batch by batch.
    pub memory: Vec<WeakReservation>,
}

/// A segment that takes no more pages and waits for its upload.
#[derive(Debug)]
pub struct Sealed {
    /// Its sequence number.
    pub sequence: u64,
    /// What it holds.
    pub pages: Pages,
    /// Who finishes with it.
    pub commits: Vec<PendingCommit>,
    /// It holds nothing but commits of sinks whose pages went before.
    pub follower: bool,
    /// Tells the sinks' later segments where it ended up.
    pub uploaded: watch::Sender<Uploaded>,
}

/// State of one exchange at this daemon.
#[derive(Debug)]
pub struct ExchangeState {
    id: ExchangeId,
    /// Its sinks; sorted, so that what is done to all is done in the same order on every run.
    sinks: BTreeMap<TaskAttempt, Sink>,
    /// Sinks that have not been decided.
    undecided: usize,
    /// Attempts that clients said will be written here, and that have not begun.
    expected: BTreeSet<TaskAttempt>,
    /// Whether clients say so at all.
    told: bool,
    /// What waits to be sealed.
    open: Pages,
    /// Bytes of memory that its batches have not reserved yet.
    pub owed: Arc<Owed>,
    /// Bytes sealed whose upload has not ended.
    in_flight_bytes: u64,
    finishing: Vec<TaskAttempt>,
    /// Finishing sinks whose pages are all sealed and not all stored.
    following: Vec<TaskAttempt>,
    follower_uploading: bool,
    first_finish: Option<Instant>,
    commit_uploads: usize,
    last_commit: Option<Instant>,
    /// Sinks in the last two groups that finished together, the newest first.
    groups: [usize; 2],
    /// When a client or an upload last touched it.
    pub touched: Instant,
    look_pending: bool,
    /// Closed: nothing is taken any more, what is uploaded is removed again.
    pub closed: bool,
}

impl ExchangeState {
    /// An exchange without sinks.
    pub fn new(id: ExchangeId, now: Instant) -> Self {
        Self {
            id,
            sinks: BTreeMap::new(),
            undecided: 0,
            expected: BTreeSet::new(),
            told: false,
            open: Pages::default(),
            owed: Arc::default(),
            in_flight_bytes: 0,
            finishing: Vec::new(),
            following: Vec::new(),
            follower_uploading: false,
            first_finish: None,
            commit_uploads: 0,
            last_commit: None,
            groups: [0; 2],
            touched: now,
            look_pending: false,
            closed: false,
        }
    }

    /// Bytes of frames that wait to be sealed.
    pub fn open_bytes(&self) -> u64 {
        self.open.bytes
    }

    /// Bytes that are being uploaded.
    pub fn in_flight_bytes(&self) -> u64 {
        self.in_flight_bytes
    }

    /// The upload of so many bytes has ended, well or not.
    pub fn upload_ended(&mut self, bytes: u64) {
        self.in_flight_bytes -= bytes;
    }

    /// What the seal policy looks at.
    pub fn view(&self, now: Instant) -> View {
        let since = |at| now.saturating_duration_since(at);
        View {
            open_bytes: self.open.bytes,
            finish_waits: self.first_finish.map(since),
            commit_uploading: self.commit_uploads > 0,
            commit_quiet: self.last_commit.map(since),
            finishing: self.finishing.len(),
            expected: self.company(),
        }
    }

    /// How many are likely to finish together, as far as that is known: as many as in the larger of
    /// the last two groups, or before the first group all that are said to be written here.
    fn company(&self) -> Option<usize> {
        let before = self.groups.into_iter().max().filter(|most| *most > 0);
        before.or_else(|| self.told.then(|| self.undecided + self.expected.len()))
    }

    /// Sinks that have not been decided.
    pub fn undecided(&self) -> usize {
        self.undecided
    }

    /// Sinks that it has.
    pub fn sinks(&self) -> usize {
        self.sinks.len()
    }

    /// Sinks that it has or will have.
    pub fn known_sinks(&self) -> usize {
        self.sinks.len() + self.expected.len()
    }

    /// A sink, if it has begun here.
    pub fn sink(&self, attempt: TaskAttempt) -> Option<&Sink> {
        self.sinks.get(&attempt)
    }

    /// A sink to be changed, but for its end ([`ExchangeState::decide`], [`ExchangeState::abort`]).
    pub fn sink_mut(&mut self, attempt: TaskAttempt) -> Option<&mut Sink> {
        self.sinks.get_mut(&attempt)
    }

    /// An attempt will be written here, a client says.
    pub fn expect(&mut self, attempt: TaskAttempt) {
        self.told = true;
        if !self.sinks.contains_key(&attempt) {
            self.expected.insert(attempt);
        }
    }

    /// A sink begins, open or aborted from the start.
    pub fn begin(&mut self, attempt: TaskAttempt, sink: Sink) {
        self.expected.remove(&attempt);
        self.undecided += usize::from(sink.state() == SinkState::Open);
        self.sinks.insert(attempt, sink);
    }

    /// Takes a batch for a sink that exists.
    ///
    /// # Errors
    /// As [`Sink::append`].
    pub fn append(
        &mut self,
        attempt: TaskAttempt,
        number: Option<u32>,
        batch: VerifiedBatch,
        memory: WeakReservation,
    ) -> Result<Appended, IngestError> {
        let sink = self
            .sinks
            .get_mut(&attempt)
            .expect("the caller made the sink");
        let appended = sink.append(number, &batch)?;
        if !appended.repeated {
            for run in batch.runs {
                self.open.bytes += run.frames.len() as u64;
                self.open.pieces.push(SinkRun { sink: attempt, run });
            }
            self.open.memory.push(memory);
        }
        Ok(appended)
    }

    /// Queues a sink for the next commit.
    pub fn queue_commit(&mut self, attempt: TaskAttempt, now: Instant) {
        self.finishing.push(attempt);
        self.first_finish.get_or_insert(now);
    }

    /// Drops an open sink and its pages.
    pub fn abort(&mut self, attempt: TaskAttempt) -> bool {
        let aborted = self.sinks.get_mut(&attempt).is_some_and(Sink::abort);
        if aborted {
            self.undecided -= 1;
            self.drop_pieces_of(attempt);
        }
        aborted
    }

    fn drop_pieces_of(&mut self, attempt: TaskAttempt) {
        let open = &mut self.open;
        open.pieces.retain(|piece| piece.sink != attempt);
        open.memory.retain(WeakReservation::is_held);
        let bytes = open.pieces.iter().map(|p| p.run.frames.len() as u64);
        open.bytes = bytes.sum();
        self.finishing.retain(|waiting| *waiting != attempt);
        self.following.retain(|waiting| *waiting != attempt);
        if self.finishing.is_empty() {
            self.first_finish = None;
        }
    }

    /// Seals the open segment; `None` if there is nothing to write. Finishing sinks commit with it.
    /// But if it holds at least `worth_a_follower` bytes, those whose earlier segments are still on
    /// their way do not hold it up: they commit later ([`ExchangeState::seal_follower`]).
    pub fn seal(&mut self, sequence: u64, worth_a_follower: u64) -> Option<Sealed> {
        if self.open.pieces.is_empty() && self.finishing.is_empty() {
            return None;
        }
        let pages = std::mem::take(&mut self.open);
        self.in_flight_bytes += pages.bytes;
        self.first_finish = None;
        if !self.finishing.is_empty() {
            self.groups = [self.finishing.len(), self.groups[0]];
        }
        let (now, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.finishing)
            .into_iter()
            .partition(|attempt| pages.bytes < worth_a_follower || self.has_landed(*attempt));
        self.following.extend(later);
        let commits = self.pending_commits(now);
        self.commit_uploads += usize::from(!commits.is_empty());
        let uploaded = watch::Sender::new(None);
        let mut writers: Vec<TaskAttempt> = pages.pieces.iter().map(|p| p.sink).collect();
        writers.sort_unstable();
        writers.dedup();
        for attempt in writers {
            if let Some(sink) = self.sinks.get_mut(&attempt) {
                sink.slots.push(UploadSlot {
                    sequence,
                    uploaded: uploaded.subscribe(),
                });
            }
        }
        Some(Sealed {
            sequence,
            pages,
            commits,
            follower: false,
            uploaded,
        })
    }

    /// Seals the commits of sinks whose segments have all ended their upload since; one such
    /// segment at a time, so that those who become ready meanwhile share the next.
    pub fn seal_follower(&mut self, sequence: u64) -> Option<Sealed> {
        if self.follower_uploading {
            return None;
        }
        let (ready, following): (Vec<_>, Vec<_>) = std::mem::take(&mut self.following)
            .into_iter()
            .partition(|attempt| self.has_landed(*attempt));
        self.following = following;
        let commits = self.pending_commits(ready);
        self.follower_uploading = !commits.is_empty();
        self.follower_uploading.then(|| Sealed {
            sequence,
            pages: Pages::default(),
            commits,
            follower: true,
            uploaded: watch::Sender::new(None),
        })
    }

    /// Whether all segments that were sealed for a sink have ended their upload.
    fn has_landed(&self, attempt: TaskAttempt) -> bool {
        let ended = |slot: &UploadSlot| slot.uploaded.borrow().is_some();
        self.sinks
            .get(&attempt)
            .is_none_or(|sink| sink.slots.iter().all(ended))
    }

    fn pending_commits(&self, attempts: Vec<TaskAttempt>) -> Vec<PendingCommit> {
        let pending = attempts.into_iter().filter_map(|attempt| {
            let sink = self.sinks.get(&attempt)?;
            let (totals, earlier) = (sink.totals(), sink.slots.clone());
            Some(PendingCommit {
                attempt,
                totals,
                earlier,
            })
        });
        pending.collect()
    }

    /// A segment with pages and commit records has ended its upload, well or not.
    pub fn commit_uploaded(&mut self, now: Instant) {
        self.commit_uploads -= 1;
        self.last_commit = Some(now);
    }

    /// A segment with nothing but commit records has ended its upload, well or not.
    pub fn follower_uploaded(&mut self) {
        self.follower_uploading = false;
    }

    /// Whether the caller is to look if the exchange is still open; not if somebody is about to.
    pub fn begin_look(&mut self) -> bool {
        !std::mem::replace(&mut self.look_pending, true)
    }

    /// The look takes place now: what is stored later needs another one.
    pub fn end_look(&mut self) {
        self.look_pending = false;
    }

    /// Decides a sink; `true` if this decided it.
    pub fn decide(&mut self, attempt: TaskAttempt, to: SinkState) -> bool {
        let failed = matches!(to, SinkState::Failed(_));
        let decided = self
            .sinks
            .get_mut(&attempt)
            .is_some_and(|sink| sink.decide(to));
        self.undecided -= usize::from(decided);
        if decided && failed {
            self.drop_pieces_of(attempt);
        }
        decided
    }

    /// Ends it: undecided sinks fail, pages go.
    pub fn close(&mut self) {
        self.closed = true;
        let reason: Arc<str> = format!("exchange {} is closed", self.id).into();
        for sink in self.sinks.values_mut() {
            sink.decide(SinkState::Failed(Arc::clone(&reason)));
        }
        self.undecided = 0;
        self.expected = BTreeSet::new();
        self.open = Pages::default();
        self.finishing = Vec::new();
        self.following = Vec::new();
        self.first_finish = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SinkId;
    use crate::ingest::seal_policy::{Decision, SealPolicy};
    use std::time::Duration;

    struct Story {
        state: ExchangeState,
        now: Instant,
    }

    impl Story {
        fn new() -> Self {
            let now = Instant::now();
            let state = ExchangeState::new("q".parse().unwrap(), now);
            Self { state, now }
        }

        fn attempt(task: u32) -> TaskAttempt {
            TaskAttempt::new(task, 0).unwrap()
        }

        fn expect(&mut self, task: u32) {
            self.state.expect(Self::attempt(task));
        }

        fn begin(&mut self, task: u32) {
            let (exchange, task_attempt) = ("q".parse().unwrap(), Self::attempt(task));
            let sink = Sink::open(SinkId {
                exchange,
                task_attempt,
            });
            self.state.begin(task_attempt, sink);
        }

        fn finish(&mut self, task: u32) {
            let attempt = Self::attempt(task);
            let sink = self.state.sink_mut(attempt).unwrap();
            assert!(sink.finish(None).unwrap());
            self.state.queue_commit(attempt, self.now);
        }

        fn commit(&mut self, sequence: u64) {
            let sealed = self.state.seal(sequence, 0).unwrap();
            for commit in sealed.commits {
                assert!(self.state.decide(commit.attempt, SinkState::Finished));
            }
            self.state.commit_uploaded(self.now);
        }

        fn waits(&self) -> bool {
            let policy = SealPolicy {
                target_size: 100,
                commit_linger: Duration::from_secs(1),
            };
            match policy.decide(&self.state.view(self.now)) {
                Decision::Seal => false,
                Decision::LookAgain(_) => true,
                Decision::Rest => panic!("somebody finishes"),
            }
        }
    }

    #[test]
    fn a_finish_waits_for_those_that_were_announced_and_for_nobody_else() {
        let mut exchange = Story::new();
        exchange.expect(0);
        exchange.expect(1);
        exchange.begin(0);
        exchange.finish(0);
        assert!(exchange.waits(), "task 1 is coming");
        exchange.begin(1);
        assert!(exchange.waits(), "task 1 is writing");
        exchange.finish(1);
        assert!(!exchange.waits(), "all are there");
        exchange.commit(1);
        assert_eq!(exchange.state.undecided(), 0);
    }

    #[test]
    fn whoever_is_given_up_is_not_waited_for() {
        let mut exchange = Story::new();
        for task in [0, 1] {
            exchange.expect(task);
            exchange.begin(task);
        }
        exchange.finish(0);
        assert!(exchange.waits());
        assert!(exchange.state.abort(Story::attempt(1)));
        assert!(!exchange.waits(), "nobody else writes");
        assert_eq!(exchange.state.undecided(), 1);
    }

    /// Story: where eight write in turn, a sink that an upload had just released was the only one
    /// known when it finished. It went alone, and the eight fell apart into two groups, each of
    /// which waited for the upload of the other.
    #[test]
    fn once_a_group_has_been_seen_one_like_it_is_waited_for_whoever_is_known() {
        let mut exchange = Story::new();
        for task in [0, 1] {
            exchange.expect(task);
            exchange.begin(task);
            exchange.finish(task);
        }
        exchange.commit(1);
        exchange.expect(2);
        exchange.begin(2);
        exchange.finish(2);
        assert!(exchange.waits());
    }

    #[test]
    fn where_clients_announce_nothing_a_finish_waits_as_long_as_it_may() {
        let mut exchange = Story::new();
        exchange.begin(0);
        exchange.finish(0);
        assert!(exchange.waits());
    }
}
