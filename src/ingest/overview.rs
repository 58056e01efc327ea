//! What this daemon holds of exchanges, for display.
//!
//! Does: copy counts and states. Does not: query other daemons or base directories. Invariant: a
//! lock is held for one exchange at a time, and the amount that is copied is bounded by the caller.

use std::time::Duration;

use super::exchange::SharedExchange;
use super::service::Ingest;
use super::sink::SinkState;
use crate::id::{BaseName, ExchangeId, TaskAttempt};

/// What this daemon holds of an exchange.
#[derive(Debug, Clone)]
pub struct ExchangeOverview {
    pub exchange: ExchangeId,
    /// Since its first request here.
    pub age: Duration,
    /// Since its last request here.
    pub idle: Duration,
    /// Sinks that are open or finishing.
    pub open: usize,
    pub finished: usize,
    /// Sinks that were aborted or failed.
    pub given_up: usize,
    /// Bytes of pages that are not stored yet.
    pub held: u64,
    /// Bytes of its segments that were stored here, by base directory.
    pub stored: Vec<(BaseName, u64)>,
}

impl ExchangeOverview {
    /// Bytes that were stored here.
    pub fn stored_bytes(&self) -> u64 {
        self.stored.iter().map(|(_, bytes)| bytes).sum()
    }
}

/// One attempt.
#[derive(Debug, Clone)]
pub struct SinkOverview {
    pub attempt: TaskAttempt,
    /// `open`, `finishing`, `finished`, `aborted` or `failed`.
    pub state: &'static str,
    /// Why it failed.
    pub failure: Option<String>,
    pub pages: u64,
    /// Page bytes.
    pub bytes: u64,
}

impl Ingest {
    /// All exchanges, those with the latest request first.
    pub fn exchange_overviews(&self) -> Vec<ExchangeOverview> {
        let all = self.exchanges().into_iter();
        let mut overviews: Vec<_> = all.map(|exchange| self.overview_of(&exchange)).collect();
        overviews.sort_by_key(|overview| overview.idle);
        overviews
    }

    /// One exchange with up to `most` of its sinks, those that are not finished first.
    pub fn exchange_overview(
        &self,
        exchange: &ExchangeId,
        most: usize,
    ) -> Option<(ExchangeOverview, Vec<SinkOverview>)> {
        let exchange = self.get(exchange)?;
        let overview = self.overview_of(&exchange);
        let state = exchange.lock();
        let (finished, others): (Vec<_>, Vec<_>) = state
            .sinks
            .iter()
            .partition(|(_, sink)| matches!(sink.state(), SinkState::Finished));
        let shown = others.into_iter().chain(finished).take(most);
        let sinks = shown.map(|(attempt, sink)| {
            let (state, totals) = (sink.state(), sink.totals());
            SinkOverview {
                attempt: *attempt,
                state: name(&state),
                failure: match state {
                    SinkState::Failed(failure) => Some(failure.to_string()),
                    _ => None,
                },
                pages: totals.pages,
                bytes: totals.bytes,
            }
        });
        Some((overview, sinks.collect()))
    }

    fn overview_of(&self, exchange: &SharedExchange) -> ExchangeOverview {
        let now = self.shared.deps.runtime.clock.now();
        let state = exchange.lock();
        let settled = state.sinks() - state.unsettled;
        ExchangeOverview {
            exchange: exchange.id().clone(),
            age: now.saturating_duration_since(state.opened),
            idle: now.saturating_duration_since(state.last_request),
            open: state.unsettled,
            finished: state.finished,
            given_up: settled.saturating_sub(state.finished),
            held: state.open_bytes() + state.in_flight_bytes,
            stored: state.stored.clone().into_iter().collect(),
        }
    }
}

fn name(state: &SinkState) -> &'static str {
    match state {
        SinkState::Open => "open",
        SinkState::Finishing => "finishing",
        SinkState::Finished => "finished",
        SinkState::Aborted => "aborted",
        SinkState::Failed(_) => "failed",
    }
}
