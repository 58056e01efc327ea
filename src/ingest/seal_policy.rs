//! When to seal a segment. Pure: the state of an exchange's open segment in, a decision out.
//!
//! A segment is sealed when it is full, or for finishing sinks: then not at once, but
//! `commit_linger` after the first of them finished or after the last commit upload completed,
//! whichever is later, and not while another commit of the exchange is being uploaded. So sinks
//! that finish together, or during an upload, share one PUT, and sinks that an upload has just
//! released can join the next group. The linger ends early once as many sinks finish as in the
//! larger of the last two groups, since no more are likely; before the first group, once all sinks
//! finish that clients have declared.
//!
//! A segment above the concurrent upload threshold lingers, but does not wait for other uploads.

use std::time::Duration;

/// What the policy decides by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealInputs {
    /// Bytes of frames in the open segment.
    pub open_bytes: u64,
    /// How long the oldest finishing sink has waited; `None` if no sink is finishing.
    pub oldest_finish_age: Option<Duration>,
    /// Whether a segment with commit records is being uploaded.
    pub commit_uploading: bool,
    /// Time since the last such upload completed; `None` before the first.
    pub since_last_commit: Option<Duration>,
    /// Number of finishing sinks.
    pub finishing: usize,
    /// How many sinks are likely to finish together, if known.
    pub expected_group_size: Option<usize>,
}

/// What to do with the open segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Seal,
    RecheckAfter(Duration),
    /// Nothing until an input changes.
    Idle,
}

/// The settings of the policy.
#[derive(Debug, Clone, Copy)]
pub struct SealPolicy {
    /// Bytes at which a segment is full.
    pub target_size: u64,
    /// How long a finish waits for others to share its PUT.
    pub commit_linger: Duration,
}

impl SealPolicy {
    /// Bytes from which a segment is uploaded for its finishing sinks while another commit is being
    /// uploaded: the extra requests are bounded by the bytes.
    pub fn concurrent_upload_threshold(&self) -> u64 {
        self.target_size / 2
    }

    /// Bytes from which a segment does not wait for the earlier uploads of its finishing sinks:
    /// they commit in a later segment, after those uploads. The upload of a smaller segment takes
    /// barely longer than that of the later one would.
    pub fn deferred_commit_threshold(&self) -> u64 {
        self.target_size / 8
    }

    pub fn decide(&self, inputs: &SealInputs) -> Decision {
        if inputs.open_bytes >= self.target_size {
            return Decision::Seal;
        }
        let Some(finish_age) = inputs.oldest_finish_age else {
            return Decision::Idle;
        };
        let concurrent = inputs.open_bytes >= self.concurrent_upload_threshold();
        if inputs.commit_uploading && !concurrent {
            return Decision::Idle;
        }
        let is_complete = |size| inputs.finishing >= size;
        if inputs.expected_group_size.is_some_and(is_complete) {
            return Decision::Seal;
        }
        let since_commit = inputs.since_last_commit.filter(|_| !concurrent);
        let lingered = since_commit.map_or(finish_age, |since| since.min(finish_age));
        match self.commit_linger.checked_sub(lingered) {
            None | Some(Duration::ZERO) => Decision::Seal,
            Some(left) => Decision::RecheckAfter(left),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: SealPolicy = SealPolicy {
        target_size: 100,
        commit_linger: Duration::from_millis(20),
    };
    const IDLE: SealInputs = SealInputs {
        open_bytes: 10,
        oldest_finish_age: None,
        commit_uploading: false,
        since_last_commit: None,
        finishing: 1,
        expected_group_size: None,
    };

    #[test]
    fn thresholds_are_shares_of_the_target_size() {
        assert_eq!(POLICY.concurrent_upload_threshold(), 50);
        assert_eq!(POLICY.deferred_commit_threshold(), 12);
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn pages_without_a_finish_wait_until_the_segment_is_full() {
        assert_eq!(POLICY.decide(&IDLE), Decision::Idle);
        assert_eq!(
            POLICY.decide(&SealInputs {
                open_bytes: 100,
                ..IDLE
            }),
            Decision::Seal
        );
    }

    #[test]
    fn a_finish_lingers_for_others_and_no_longer() {
        let at = |wait| {
            POLICY.decide(&SealInputs {
                oldest_finish_age: Some(ms(wait)),
                ..IDLE
            })
        };
        assert_eq!(at(5), Decision::RecheckAfter(ms(15)));
        assert_eq!(at(20), Decision::Seal);
    }

    #[test]
    fn a_finish_waits_for_the_upload_of_another_commit_unless_the_segment_is_full() {
        let busy = SealInputs {
            oldest_finish_age: Some(ms(500)),
            commit_uploading: true,
            ..IDLE
        };
        assert_eq!(POLICY.decide(&busy), Decision::Idle);
        assert_eq!(
            POLICY.decide(&SealInputs {
                open_bytes: 100,
                ..busy
            }),
            Decision::Seal
        );
    }

    #[test]
    fn a_segment_above_the_concurrent_upload_threshold_only_lingers() {
        let large = SealInputs {
            open_bytes: 50,
            oldest_finish_age: Some(ms(5)),
            commit_uploading: true,
            since_last_commit: Some(ms(1)),
            ..IDLE
        };
        assert_eq!(POLICY.decide(&large), Decision::RecheckAfter(ms(15)));
        let waited = SealInputs {
            oldest_finish_age: Some(ms(20)),
            ..large
        };
        assert_eq!(POLICY.decide(&waited), Decision::Seal);
        let smaller = SealInputs {
            open_bytes: 49,
            ..waited
        };
        assert_eq!(POLICY.decide(&smaller), Decision::Idle);
    }

    #[test]
    fn a_group_does_not_linger_once_it_is_as_large_as_expected() {
        let at = |finishing, commit_uploading| {
            POLICY.decide(&SealInputs {
                oldest_finish_age: Some(ms(1)),
                commit_uploading,
                since_last_commit: Some(ms(1)),
                finishing,
                expected_group_size: Some(3),
                ..IDLE
            })
        };
        assert_eq!(at(2, false), Decision::RecheckAfter(ms(19)));
        assert_eq!(at(3, false), Decision::Seal);
        assert_eq!(at(3, true), Decision::Idle, "one commit at a time");
    }

    #[test]
    fn after_an_upload_the_released_sinks_can_join_the_next_group() {
        let view = SealInputs {
            oldest_finish_age: Some(ms(500)),
            since_last_commit: Some(ms(1)),
            ..IDLE
        };
        assert_eq!(POLICY.decide(&view), Decision::RecheckAfter(ms(19)));
    }
}
