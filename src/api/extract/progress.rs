//! The progress of a request body that holds memory for which other requests may wait.
//!
//! Does: end a body that arrives too slowly while another request waits for memory. Does not: bound
//! the total time (`limits.body_timeout` does). Invariant: a body is ended only while another
//! request waits for memory.

use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body_util::BodyExt as _;
use tokio::time::Instant;

use crate::api::problem::{Problem, ProblemType};
use crate::human::count;
use crate::memory::MemoryPool;
use crate::runtime::Clock;

/// How often progress is checked.
const INTERVAL: Duration = Duration::from_secs(5);
/// Bytes that must arrive in each interval while another request waits.
const LEAST: usize = 64 << 10;

/// Reads a body while it makes progress.
pub(super) struct Progress<'a> {
    clock: &'a Clock,
    /// The pool that holds the body's memory.
    pool: &'a MemoryPool,
    since: Instant,
    /// Bytes that have arrived since then.
    arrived: usize,
}

impl<'a> Progress<'a> {
    /// Tracks a body whose memory is reserved in `pool`, starting now.
    pub(super) fn new(clock: &'a Clock, pool: &'a MemoryPool) -> Self {
        Self {
            clock,
            pool,
            since: clock.now(),
            arrived: 0,
        }
    }

    /// The next bytes of the body, or the error of its connection; `None` at its end.
    pub(super) async fn next(
        &mut self,
        body: &mut Body,
    ) -> Result<Option<Result<Bytes, axum::Error>>, Problem> {
        loop {
            let elapsed = self.clock.now().saturating_duration_since(self.since);
            let left = INTERVAL.saturating_sub(elapsed);
            if left.is_zero() {
                self.check()?;
                continue;
            }
            let Some(frame) = self.clock.within(left, body.frame()).await else {
                continue;
            };
            let Some(frame) = frame else { return Ok(None) };
            match frame.map(http_body::Frame::into_data) {
                Ok(Ok(data)) => {
                    self.arrived += data.len();
                    return Ok(Some(Ok(data)));
                }
                // Trailers.
                Ok(Err(_)) => {}
                Err(error) => return Ok(Some(Err(error))),
            }
        }
    }

    fn check(&mut self) -> Result<(), Problem> {
        if self.arrived < LEAST && self.pool.waiting() > 0 {
            return Err(Problem::new(
                ProblemType::Timeout,
                format!(
                    "{} of the body arrived within {INTERVAL:?} while another request \
                     waited for its memory: send it again, faster",
                    count(self.arrived, "byte")
                ),
            ));
        }
        (self.since, self.arrived) = (self.clock.now(), 0);
        Ok(())
    }
}
