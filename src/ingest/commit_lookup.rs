//! What the commit records say of attempts for which this daemon cannot answer by itself.
//!
//! Does: ask them for attempts that are not held here, and for those that failed with their commit
//! record under way: a put that failed may have taken place. Does not: decide sinks. Invariant: an
//! answer that names an outcome is true at every daemon and for ever; where nobody can know yet,
//! the answer is an error.

use std::sync::Arc;

use super::sink::{self, Sink};
use super::{Aborted, Claim, Ingest, IngestError};
use crate::catalog::Totals;
use crate::id::SinkId;

impl Ingest {
    /// Whether a finish of an attempt that is not held commits it as empty.
    pub(super) fn commits_empty(
        &self,
        sink: &SinkId,
        claim: Option<Claim>,
    ) -> Result<bool, IngestError> {
        let Some(claim) = claim.filter(|claim| claim.batches == 0) else {
            return Ok(false);
        };
        sink::check_claim(sink, Some(claim), Totals::default())?;
        Ok(true)
    }

    /// What the commit records say of it.
    pub(super) async fn committed(
        &self,
        sink: &SinkId,
        claim: Option<Claim>,
    ) -> Result<Totals, IngestError> {
        let found = self
            .shared
            .parts
            .commits
            .find_commit(&sink.exchange, sink.task_attempt)
            .await?;
        let totals = found.ok_or_else(|| IngestError::SinkNotFound { sink: sink.clone() })?;
        sink::check_claim(sink, claim, totals)?;
        Ok(totals)
    }

    /// Whether an attempt failed here with its commit record under way.
    pub(super) fn is_doubtful(&self, sink: &SinkId) -> bool {
        self.get(&sink.exchange).is_some_and(|exchange| {
            let state = exchange.lock();
            let held = state.sink(sink.task_attempt);
            !state.closed && held.is_some_and(Sink::is_doubtful)
        })
    }

    /// An abort of such an attempt: finished if its record is found; but that it is not found does
    /// not mean that it will never be.
    pub(super) async fn abort_doubtful(
        &self,
        sink: &SinkId,
        reason: Arc<str>,
    ) -> Result<Aborted, IngestError> {
        let commits = &self.shared.parts.commits;
        match commits
            .find_commit(&sink.exchange, sink.task_attempt)
            .await?
        {
            Some(_) => Ok(Aborted::AlreadyFinished),
            None => Err(IngestError::SinkFailed {
                sink: sink.clone(),
                reason,
            }),
        }
    }
}
