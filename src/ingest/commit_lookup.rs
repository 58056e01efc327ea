//! The outcome of attempts that this daemon has to look up in the commit records.
//!
//! Does: look up attempts that are not held here, and those whose commit failed with an unknown
//! outcome. Does not: settle sinks. Invariant: an outcome that is returned is final and the same at
//! every daemon; if the outcome cannot be determined yet, the result is an error.

use std::sync::Arc;

use super::error::{IngestError, SinkFailure};
use super::service::Ingest;
use super::sink;
use super::types::{Aborted, ClientTotals};
use crate::catalog::Totals;
use crate::id::SinkId;

impl Ingest {
    /// Whether finishing an attempt that is not held commits it as empty.
    pub(super) fn commits_empty(
        &self,
        sink: &SinkId,
        claim: Option<ClientTotals>,
    ) -> Result<bool, IngestError> {
        let Some(claim) = claim.filter(|claim| claim.batches == 0) else {
            return Ok(false);
        };
        sink::check_claim(sink, Some(claim), Totals::default())?;
        Ok(true)
    }

    /// The totals in the attempt's commit record.
    pub(super) async fn committed_totals(
        &self,
        sink: &SinkId,
        claim: Option<ClientTotals>,
    ) -> Result<Totals, IngestError> {
        let found = self.find_committed(sink).await?;
        let totals = found.ok_or_else(|| IngestError::SinkNotFound { sink: sink.clone() })?;
        sink::check_claim(sink, claim, totals)?;
        Ok(totals)
    }

    pub(super) async fn find_committed(
        &self,
        sink: &SinkId,
    ) -> Result<Option<Totals>, IngestError> {
        let catalog = &self.shared.deps.catalog;
        let found = catalog.find_commit(&sink.exchange, sink.task_attempt);
        Ok(found.await?)
    }

    /// Whether an attempt failed here while its commit record was being stored.
    pub(super) fn is_outcome_unknown(&self, sink: &SinkId) -> bool {
        self.get(&sink.exchange).is_some_and(|exchange| {
            let state = exchange.lock();
            let held = state.sink(sink.task_attempt);
            !state.closed && held.is_some_and(|sink| sink.outcome_unknown)
        })
    }

    /// Aborts such an attempt. If its record is found, it has finished; if not, it may still appear
    /// later, so the abort is not confirmed either.
    pub(super) async fn abort_with_unknown_outcome(
        &self,
        sink: &SinkId,
        source: Arc<SinkFailure>,
    ) -> Result<Aborted, IngestError> {
        match self.find_committed(sink).await? {
            Some(_) => Ok(Aborted::AlreadyFinished),
            None => Err(IngestError::of_failed(sink.clone(), source)),
        }
    }
}
