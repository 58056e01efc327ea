//! When to seal a segment. Pure: a view of the exchange's open segment in, a decision out.
//!
//! A segment is sealed when it is full, or for finishing sinks: not at once, but `commit_linger`
//! after the first of them came or after the last commit upload ended, whichever is later, and
//! not while another commit of the exchange is being uploaded. So sinks that finish together, or
//! while an upload is under way, share one PUT, and those which an upload has just released can
//! join again. Once as many finish as in the larger of the last two groups, nobody else is
//! expected, and they go at once; the first group goes once all finish that clients said will be
//! written here.
//!
//! A segment that is worth a PUT of its own ([`SealPolicy::worth_a_put`]) does not wait for another
//! upload, only for company.

use std::time::Duration;

/// What the policy looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// Bytes of frames in the open segment.
    pub open_bytes: u64,
    /// For how long the oldest finishing sink has waited; `None` if none waits.
    pub finish_waits: Option<Duration>,
    /// Whether a segment with commit records is being uploaded.
    pub commit_uploading: bool,
    /// For how long no segment with commit records has been uploaded; `None` if none ever was.
    pub commit_quiet: Option<Duration>,
    /// How many sinks finish.
    pub finishing: usize,
    /// How many are likely to finish together, as far as that is known.
    pub expected: Option<usize>,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Seal now.
    Seal,
    /// Look again after this time.
    LookAgain(Duration),
    /// Nothing until something happens.
    Rest,
}

/// The settings of the policy.
#[derive(Debug, Clone, Copy)]
pub struct SealPolicy {
    /// Bytes that make a segment full.
    pub target_size: u64,
    /// How long a finish waits for company.
    pub commit_linger: Duration,
}

impl SealPolicy {
    /// Bytes from which a segment is uploaded beside another one for those who wait for it: what
    /// that costs in requests is bounded by the bytes.
    pub fn worth_a_put(&self) -> u64 {
        self.target_size / 2
    }

    /// Bytes from which a segment does not wait for the earlier ones of those who finish with it:
    /// they commit in a segment of their own, once all have landed. A smaller one takes hardly
    /// longer to upload than that would.
    pub fn worth_a_follower(&self) -> u64 {
        self.target_size / 8
    }

    /// Decides.
    pub fn decide(&self, view: &View) -> Decision {
        if view.open_bytes >= self.target_size {
            return Decision::Seal;
        }
        let Some(waits) = view.finish_waits else {
            return Decision::Rest;
        };
        let alone = view.open_bytes >= self.worth_a_put();
        if view.commit_uploading && !alone {
            return Decision::Rest;
        }
        if view
            .expected
            .is_some_and(|expected| view.finishing >= expected)
        {
            return Decision::Seal;
        }
        let quiet = view.commit_quiet.filter(|_| !alone);
        let waited = quiet.map_or(waits, |quiet| quiet.min(waits));
        match self.commit_linger.checked_sub(waited) {
            None | Some(Duration::ZERO) => Decision::Seal,
            Some(left) => Decision::LookAgain(left),
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
    const IDLE: View = View {
        open_bytes: 10,
        finish_waits: None,
        commit_uploading: false,
        commit_quiet: None,
        finishing: 1,
        expected: None,
    };

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn pages_alone_wait_until_the_segment_is_full() {
        assert_eq!(POLICY.decide(&IDLE), Decision::Rest);
        assert_eq!(
            POLICY.decide(&View {
                open_bytes: 100,
                ..IDLE
            }),
            Decision::Seal
        );
    }

    #[test]
    fn a_finish_waits_for_company_and_no_longer() {
        let at = |wait| {
            POLICY.decide(&View {
                finish_waits: Some(ms(wait)),
                ..IDLE
            })
        };
        assert_eq!(at(5), Decision::LookAgain(ms(15)));
        assert_eq!(at(20), Decision::Seal);
    }

    #[test]
    fn a_finish_rests_while_another_commit_is_uploaded_unless_the_segment_is_full() {
        let busy = View {
            finish_waits: Some(ms(500)),
            commit_uploading: true,
            ..IDLE
        };
        assert_eq!(POLICY.decide(&busy), Decision::Rest);
        assert_eq!(
            POLICY.decide(&View {
                open_bytes: 100,
                ..busy
            }),
            Decision::Seal
        );
    }

    #[test]
    fn a_segment_that_is_worth_a_put_waits_for_company_only() {
        let large = View {
            open_bytes: 50,
            finish_waits: Some(ms(5)),
            commit_uploading: true,
            commit_quiet: Some(ms(1)),
            ..IDLE
        };
        assert_eq!(POLICY.decide(&large), Decision::LookAgain(ms(15)));
        let waited = View {
            finish_waits: Some(ms(20)),
            ..large
        };
        assert_eq!(POLICY.decide(&waited), Decision::Seal);
        let smaller = View {
            open_bytes: 49,
            ..waited
        };
        assert_eq!(POLICY.decide(&smaller), Decision::Rest);
    }

    #[test]
    fn nobody_lingers_once_as_many_are_there_as_came_before() {
        let at = |finishing, commit_uploading| {
            POLICY.decide(&View {
                finish_waits: Some(ms(1)),
                commit_uploading,
                commit_quiet: Some(ms(1)),
                finishing,
                expected: Some(3),
                ..IDLE
            })
        };
        assert_eq!(at(2, false), Decision::LookAgain(ms(19)));
        assert_eq!(at(3, false), Decision::Seal);
        assert_eq!(at(3, true), Decision::Rest, "one commit at a time");
    }

    #[test]
    fn after_an_upload_the_released_sinks_may_join_again() {
        let view = View {
            finish_waits: Some(ms(500)),
            commit_quiet: Some(ms(1)),
            ..IDLE
        };
        assert_eq!(POLICY.decide(&view), Decision::LookAgain(ms(19)));
    }
}
