//! The finishing sinks of one exchange, from their finish to the upload of their commit record.
//!
//! Does: form groups that commit together, record their sizes, and queue deferred commits. Does
//! not: settle sinks. Invariant: at most one segment of deferred commits is being uploaded.

use tokio::time::Instant;

use super::seal_policy::SealInputs;
use crate::id::TaskAttempt;

#[derive(Debug, Default)]
pub(super) struct CommitQueue {
    /// Sinks that commit with the next sealed segment.
    finishing: Vec<TaskAttempt>,
    first_finish: Option<Instant>,
    /// Finishing sinks whose pages are all sealed, and whose commit records did not fit into a
    /// footer or wait until all pages are stored.
    deferred: Vec<TaskAttempt>,
    deferred_uploading: bool,
    /// Segments with the commit records of a group that are being uploaded.
    group_uploads: usize,
    last_commit: Option<Instant>,
    /// Sizes of the last two groups that were sealed, the latest first.
    recent_group_sizes: [usize; 2],
}

impl CommitQueue {
    /// Adds a sink to the next group.
    pub(super) fn push(&mut self, attempt: TaskAttempt, now: Instant) {
        self.finishing.push(attempt);
        self.first_finish.get_or_insert(now);
    }

    /// Removes a sink that was aborted or failed.
    pub(super) fn remove(&mut self, attempt: TaskAttempt) {
        self.finishing.retain(|waiting| *waiting != attempt);
        self.deferred.retain(|waiting| *waiting != attempt);
        if self.finishing.is_empty() {
            self.first_finish = None;
        }
    }

    pub(super) fn clear(&mut self) {
        self.finishing = Vec::new();
        self.deferred = Vec::new();
        self.first_finish = None;
    }

    /// Whether the next group has any sinks.
    pub(super) fn has_finishing(&self) -> bool {
        !self.finishing.is_empty()
    }

    /// What the seal policy decides by. As many sinks are expected to finish together as in the
    /// larger of the last two groups, and before the first group `first_group_size`.
    pub(super) fn seal_inputs(
        &self,
        open_bytes: u64,
        first_group_size: Option<usize>,
        now: Instant,
    ) -> SealInputs {
        let since = |at| now.saturating_duration_since(at);
        let recent = self.recent_group_sizes.into_iter().max();
        SealInputs {
            open_bytes,
            oldest_finish_age: self.first_finish.map(since),
            commit_uploading: self.group_uploads > 0,
            since_last_commit: self.last_commit.map(since),
            finishing: self.finishing.len(),
            expected_group_size: recent.filter(|size| *size > 0).or(first_group_size),
        }
    }

    /// Ends the current group for a segment that is being sealed. Returns the sinks that commit
    /// with it; those for which `commits_now` is false are deferred.
    pub(super) fn next_group(
        &mut self,
        mut commits_now: impl FnMut(TaskAttempt) -> bool,
    ) -> Vec<TaskAttempt> {
        self.first_finish = None;
        if !self.finishing.is_empty() {
            self.recent_group_sizes = [self.finishing.len(), self.recent_group_sizes[0]];
        }
        let finishing = std::mem::take(&mut self.finishing).into_iter();
        let (group, deferred): (Vec<_>, Vec<_>) = finishing.partition(|a| commits_now(*a));
        self.deferred.extend(deferred);
        self.group_uploads += usize::from(!group.is_empty());
        group
    }

    /// The deferred sinks that are ready to commit; `None` if there are none, or if earlier ones
    /// are being uploaded.
    pub(super) fn next_deferred(
        &mut self,
        mut ready: impl FnMut(TaskAttempt) -> bool,
    ) -> Option<Vec<TaskAttempt>> {
        if self.deferred_uploading {
            return None;
        }
        let deferred = std::mem::take(&mut self.deferred).into_iter();
        let (ready, deferred): (Vec<_>, Vec<_>) = deferred.partition(|a| ready(*a));
        self.deferred = deferred;
        self.deferred_uploading = !ready.is_empty();
        self.deferred_uploading.then_some(ready)
    }

    /// The upload of a group's segment has completed.
    pub(super) fn group_uploaded(&mut self, now: Instant) {
        self.group_uploads -= 1;
        self.last_commit = Some(now);
    }

    /// The upload of deferred commits has completed.
    pub(super) fn deferred_uploaded(&mut self) {
        self.deferred_uploading = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn sink(task: u32) -> TaskAttempt {
        TaskAttempt::new(task, 0).unwrap()
    }

    fn queue(tasks: std::ops::Range<u32>, now: Instant) -> CommitQueue {
        let mut queue = CommitQueue::default();
        tasks.for_each(|task| queue.push(sink(task), now));
        queue
    }

    #[test]
    fn a_group_is_as_old_as_its_first_finish_and_ends_with_the_segment() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut queue = queue(0..1, at(0));
        queue.push(sink(1), at(3));
        let inputs = queue.seal_inputs(7, None, at(5));
        assert_eq!(inputs.oldest_finish_age, Some(Duration::from_secs(5)));
        assert_eq!((inputs.open_bytes, inputs.finishing), (7, 2));
        assert_eq!(queue.next_group(|_| true), [sink(0), sink(1)]);
        assert!(!queue.has_finishing());
        assert_eq!(queue.seal_inputs(0, None, at(6)).oldest_finish_age, None);
        queue.push(sink(2), at(7));
        let inputs = queue.seal_inputs(0, None, at(9));
        assert_eq!(inputs.oldest_finish_age, Some(Duration::from_secs(2)));
    }

    #[test]
    fn the_larger_of_the_last_two_groups_is_expected_and_before_the_first_what_was_declared() {
        let now = Instant::now();
        let mut queue = CommitQueue::default();
        let mut sizes = vec![queue.seal_inputs(0, Some(9), now).expected_group_size];
        for size in [3, 1, 1] {
            (0..size).for_each(|task| queue.push(sink(task), now));
            queue.next_group(|_| true);
            // A segment that is sealed because it is full says nothing about groups.
            assert_eq!(queue.next_group(|_| true), []);
            sizes.push(queue.seal_inputs(0, Some(9), now).expected_group_size);
        }
        assert_eq!(sizes, [Some(9), Some(3), Some(3), Some(1)]);
    }

    #[test]
    fn a_commit_is_uploading_until_the_segments_of_all_groups_are_stored() {
        let start = Instant::now();
        let later = start + Duration::from_secs(2);
        let mut queue = queue(0..1, start);
        assert!(!queue.seal_inputs(0, None, start).commit_uploading);
        queue.next_group(|_| true);
        queue.push(sink(1), start);
        queue.next_group(|_| true);
        // A group whose sinks are all deferred uploads no commit record.
        queue.push(sink(2), start);
        assert_eq!(queue.next_group(|_| false), []);
        queue.group_uploaded(start);
        assert!(queue.seal_inputs(0, None, start).commit_uploading);
        queue.group_uploaded(start);
        let inputs = queue.seal_inputs(0, None, later);
        assert!(!inputs.commit_uploading);
        assert_eq!(inputs.since_last_commit, Some(later - start));
    }

    #[test]
    fn deferred_sinks_commit_once_they_are_ready_one_segment_at_a_time() {
        let mut queue = queue(0..4, Instant::now());
        assert_eq!(queue.next_group(|a| a == sink(0)), [sink(0)]);
        assert_eq!(queue.next_deferred(|_| false), None);
        assert_eq!(queue.next_deferred(|a| a == sink(2)), Some(vec![sink(2)]));
        assert_eq!(queue.next_deferred(|_| true), None, "one is uploaded");
        queue.deferred_uploaded();
        let rest = queue.next_deferred(|_| true);
        assert_eq!(rest, Some(vec![sink(1), sink(3)]));
        queue.deferred_uploaded();
        assert_eq!(queue.next_deferred(|_| true), None);
    }

    #[test]
    fn a_sink_that_was_aborted_commits_in_no_group() {
        let now = Instant::now();
        let mut queue = queue(0..3, now);
        queue.remove(sink(1));
        assert!(queue.seal_inputs(0, None, now).oldest_finish_age.is_some());
        assert_eq!(queue.next_group(|a| a == sink(0)), [sink(0)]);
        queue.push(sink(3), now);
        queue.remove(sink(3));
        assert_eq!(queue.seal_inputs(0, None, now).oldest_finish_age, None);
        queue.remove(sink(2));
        assert_eq!(queue.next_deferred(|_| true), None);
    }

    #[test]
    fn a_cleared_queue_commits_nothing() {
        let now = Instant::now();
        let mut queue = queue(0..2, now);
        queue.next_group(|a| a == sink(0));
        queue.push(sink(2), now);
        queue.clear();
        assert!(!queue.has_finishing());
        assert_eq!(queue.seal_inputs(0, None, now).oldest_finish_age, None);
        assert_eq!(queue.next_deferred(|_| true), None);
    }
}
