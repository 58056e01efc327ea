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
