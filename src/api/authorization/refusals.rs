//! The log of refusals for lack of rights.
//!
//! Does: log each refusal, up to a rate, and count those above it. Does not: refuse. Invariant: a
//! client that is refused at any rate causes a bounded number of lines.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::caller::Caller;
use crate::api::problem::Problem;

/// Lines within one [`WINDOW`].
const MAX_LINES: u64 = 10;
const WINDOW: Duration = Duration::from_secs(10);

/// Refusals that were logged recently.
#[derive(Debug, Default)]
pub(super) struct RefusalLog(Mutex<Recent>);

#[derive(Debug, Default)]
struct Recent {
    /// Since when lines are counted.
    since: Option<Instant>,
    lines: u64,
    /// Refusals since the last line.
    suppressed: u64,
}

impl Recent {
    /// Counts a refusal; returns how many were suppressed before it if it is to be logged.
    fn count(&mut self, now: Instant) -> Option<u64> {
        if self
            .since
            .is_none_or(|since| now.duration_since(since) >= WINDOW)
        {
            (self.since, self.lines) = (Some(now), 0);
        }
        if self.lines >= MAX_LINES {
            self.suppressed += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

impl RefusalLog {
    /// Logs a refusal, unless there were too many recently. The span of the request has its method
    /// and path.
    pub(super) fn report(&self, now: Instant, caller: &Caller, problem: &Problem) {
        let Some(suppressed) = self.0.lock().count(now) else {
            return;
        };
        tracing::info!(client = %caller, problem = problem.problem_type().as_str(),
            reason = problem.cause(), suppressed, "request refused for lack of rights");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn refusals_above_the_rate_are_counted_and_not_logged() {
        let mut recent = Recent::default();
        let start = Instant::now();
        let logged = |recent: &mut Recent, at: Instant| recent.count(at);
        for _ in 0..MAX_LINES {
            assert_eq!(logged(&mut recent, start), Some(0));
        }
        for _ in 0..1000 {
            assert_eq!(logged(&mut recent, start + WINDOW / 2), None);
        }
        assert_eq!(logged(&mut recent, start + WINDOW), Some(1000));
        assert_eq!(logged(&mut recent, start + WINDOW), Some(0));
    }
}
