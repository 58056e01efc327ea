//! The end of a daemon: waits for open sinks, and reports the progress.
//!
//! Does: drain, log and report what is left. Does not: decide when a sink is settled (`gc::drain`).
//! Invariant: reports never delay the end, and each drain is reported.

use std::convert::Infallible;
use std::time::Duration;

use super::Daemon;
use crate::gc::drain;
use crate::human::count;

/// How often progress is reported.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);
/// How often it is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// How far a drain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainProgress {
    /// Sinks that were open when it began.
    pub sinks: usize,
    /// Those that are still open.
    pub left: usize,
    /// The time after which they are cut off.
    pub remaining: Duration,
}

impl Daemon {
    /// Drains until all sinks are settled, or until `timeout` or `interrupted`. Returns how many
    /// were not.
    pub(super) async fn drain(
        &self,
        timeout: Duration,
        interrupted: impl Future<Output = ()>,
        report: impl Fn(DrainProgress),
    ) -> usize {
        tracing::info!(
            seconds = timeout.as_secs(),
            "stopping: no new sinks, open ones may finish; a second signal stops it at once"
        );
        // In this order, as a drain that ends at once is reported too.
        let left = tokio::select! {
            biased;
            never = self.report_drain(timeout, report) => match never {},
            left = drain::drain(&self.closing, &self.runtime.clock, timeout) => left,
            () = interrupted => self.ingest.unsettled_sinks(),
        };
        if left > 0 {
            tracing::warn!(
                sinks = left,
                "sinks were still open; their tasks will run again"
            );
        }
        left
    }

    /// Reports while sinks are open, and logs from time to time.
    async fn report_drain(&self, timeout: Duration, report: impl Fn(DrainProgress)) -> Infallible {
        let clock = &self.runtime.clock;
        let started = clock.now();
        let sinks = self.ingest.unsettled_sinks();
        let mut logged = started;
        loop {
            let now = clock.now();
            let remaining = timeout.saturating_sub(now - started);
            let left = self.ingest.unsettled_sinks();
            report(DrainProgress {
                sinks,
                left,
                remaining,
            });
            if now - logged >= LOG_INTERVAL {
                logged = now;
                let seconds = remaining.as_secs();
                tracing::info!(seconds, "waiting for {}", count(left, "open sink"));
            }
            clock.sleep(REPORT_INTERVAL).await;
        }
    }
}
