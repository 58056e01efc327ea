//! Settling an attempt at its client's request: finish and abort.
//!
//! Does: queue commits, wait until the sink is settled, and look up the commit records before it
//! refuses. Does not: seal or upload. Invariant: an attempt is settled once; repeating a request
//! returns the same result.

use futures::future::join;

use super::error::IngestError;
use super::service::Ingest;
use super::sink::{Sink, SinkState};
use super::types::{Aborted, ClientTotals};
use crate::catalog::Totals;
use crate::id::SinkId;

impl Ingest {
    /// Makes an attempt durable and settles it; continues even if the caller is dropped. Returns
    /// once the marker of the exchange is durable, too: they are written at the same time.
    ///
    /// This daemon may hold only a prefix of an attempt that continued at another daemon, and a PUT
    /// that failed may have been applied: so the commit records are read before the finish is
    /// refused.
    ///
    /// # Errors
    /// The claim does not match what arrived, the attempt is unknown, was aborted or failed, the
    /// commit records cannot be read, or the marker cannot be written.
    pub async fn finish(
        &self,
        sink: &SinkId,
        claim: Option<ClientTotals>,
    ) -> Result<Totals, IngestError> {
        let exchanges = &self.shared.deps.exchanges;
        let marker = exchanges.wait_for_marker(&sink.exchange);
        let (finished, marker) = join(self.finish_attempt(sink, claim), marker).await;
        let totals = finished?;
        marker.map_err(IngestError::Exchange)?;
        Ok(totals)
    }

    async fn finish_attempt(
        &self,
        sink: &SinkId,
        claim: Option<ClientTotals>,
    ) -> Result<Totals, IngestError> {
        if !self.holds(sink) && !self.commits_empty(sink, claim)? {
            return self.committed_totals(sink, claim).await;
        }
        match self.finish_held(sink, claim).await {
            Err(
                refusal @ (IngestError::CountMismatch { .. }
                | IngestError::SinkAborted { .. }
                | IngestError::SinkFailed { .. }
                | IngestError::TooMuchStored(_)),
            ) => match self.committed_totals(sink, claim).await {
                Err(IngestError::SinkNotFound { .. } | IngestError::CountMismatch { .. }) => {
                    Err(refusal)
                }
                // Committed, or unknown for now: then the client retries.
                known => known,
            },
            other => other,
        }
    }

    async fn finish_held(
        &self,
        sink: &SinkId,
        claim: Option<ClientTotals>,
    ) -> Result<Totals, IngestError> {
        let exchange = self.get_or_open(&sink.exchange)?;
        let (mut state_changes, totals, sealed) = {
            let mut state = exchange.lock();
            self.open_sink(&mut state, sink)?;
            let now = self.shared.deps.runtime.clock.now();
            let (state_changes, totals) = state.finish(sink.task_attempt, claim, now)?;
            (state_changes, totals, self.seal_if_due(&mut state))
        };
        self.start_upload(&exchange, sealed);
        self.reevaluate_seal(&exchange);
        let settled = state_changes.wait_for(SinkState::is_settled).await;
        match settled.map(|state| state.clone()) {
            Ok(SinkState::Finished) => Ok(totals),
            Ok(SinkState::Failed(source)) => {
                let failed = IngestError::of_failed(sink.clone(), source);
                Err(exchange.lock().closed_or(failed))
            }
            _ => Err(IngestError::SinkAborted { sink: sink.clone() }),
        }
    }

    /// Drops an attempt, unless it finished.
    ///
    /// # Errors
    /// The attempt is not held here, or the outcome of its commit is unknown, and the commit
    /// records cannot be read or do not show it.
    pub async fn abort(&self, sink: &SinkId) -> Result<Aborted, IngestError> {
        if !self.holds(sink) && self.find_committed(sink).await?.is_some() {
            return Ok(Aborted::AlreadyFinished);
        }
        let exchange = self.get_or_open(&sink.exchange)?;
        let mut state_changes = {
            let mut state = exchange.lock();
            let attempt = sink.task_attempt;
            if state.sink(attempt).is_none() {
                self.check_room(state.sinks())?;
                let memory = self.shared.sinks.open(sink.exchange.query())?;
                state.insert(attempt, Sink::aborted(sink.clone(), memory));
            }
            let state_changes = state.sink(attempt).expect("just inserted").subscribe();
            if state.abort(attempt) {
                self.shared.deps.metrics.sinks_aborted.inc();
                self.shared.deps.metrics.sinks_open.dec();
            }
            state_changes
        };
        self.reevaluate_seal(&exchange);
        // A finish in progress settles first: an abort cannot undo what may be durable.
        let settled = state_changes.wait_for(SinkState::is_settled).await;
        match settled.map(|state| state.clone()) {
            Ok(SinkState::Finished) => Ok(Aborted::AlreadyFinished),
            Ok(SinkState::Failed(source)) if self.is_outcome_unknown(sink) => {
                self.abort_with_unknown_outcome(sink, source).await
            }
            _ => Ok(Aborted::Aborted),
        }
    }
}
