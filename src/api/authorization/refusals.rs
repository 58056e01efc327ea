//! The log of requests that were refused for lack of rights.
//!
//! Does: write one line a second at most, with the number of those left out. Does not: decide what
//! is refused. Invariant: whatever clients send, the log grows by a bounded amount.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::api::problem::Problem;
use crate::runtime::Clock;

/// Time between two lines.
const INTERVAL: Duration = Duration::from_secs(1);

/// Cheap to clone.
#[derive(Clone)]
pub struct RefusalLog {
    state: Arc<Mutex<State>>,
    clock: Clock,
}

#[derive(Default)]
struct State {
    last: Option<Instant>,
    left_out: u64,
}

impl RefusalLog {
    /// A log without lines.
    pub fn new(clock: Clock) -> Self {
        Self {
            state: Arc::default(),
            clock,
        }
    }

    /// Logs a refusal, unless another one was logged just before.
    pub fn report(&self, client: Option<SocketAddr>, route: Option<&str>, problem: &Problem) {
        let Some(left_out) = self.next() else {
            return;
        };
        let client = client.map_or_else(|| "unknown".to_owned(), |address| address.to_string());
        let route = route.unwrap_or("unmatched");
        let (kind, reason) = (problem.problem_type().as_str(), problem.cause());
        tracing::info!(%client, route, problem = kind, reason, left_out,
            "refused a request for lack of rights");
    }

    /// How many refusals were left out since the last line; `None` if this one is, too.
    fn next(&self) -> Option<u64> {
        let now = self.clock.now();
        let mut state = self.state.lock();
        let due = |last: Instant| now.saturating_duration_since(last) >= INTERVAL;
        if state.last.is_none_or(due) {
            state.last = Some(now);
            return Some(std::mem::take(&mut state.left_out));
        }
        state.left_out += 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn there_is_one_line_a_second_and_it_counts_what_was_left_out() {
        let log = RefusalLog::new(Clock::default());
        assert_eq!(log.next(), Some(0));
        for _ in 0..1000 {
            assert_eq!(log.next(), None);
        }
        tokio::time::sleep(INTERVAL).await;
        assert_eq!(log.next(), Some(1000));
        assert_eq!(log.next(), None);
    }
}
