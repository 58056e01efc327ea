//! Plans from footers that this daemon has in memory.
//!
//! Does: determine which chosen attempts these footers cover, and plan those. Does not: request
//! anything from a base directory, or wait for memory. Invariant: an attempt is planned only if its
//! commit record is stored, with every segment that it names; so an attempt whose PUT failed or is
//! ambiguous is unknown.

use super::error::CatalogError;
use super::load::LoadedFooters;
use super::lookup::{Catalog, PlannedHandle};
use super::plan::{self, Plan};
use crate::id::{DaemonId, ExchangeId, SegmentAddress, TaskAttempt};
use crate::memory::Reservation;
use crate::segment::footer::Footer;

/// The part of a plan that a daemon could make from memory.
pub struct MemoryPlan<H> {
    /// The chosen attempts that are not in memory; they may be committed or not.
    pub unknown: Vec<TaskAttempt>,
    /// As from [`Catalog::plan_handles`], for the other attempts.
    pub handles: H,
    /// The reservation for both; `None` if no attempt is in memory.
    pub memory: Option<Reservation>,
}

impl Catalog {
    /// Caches the footer of a segment that this daemon has stored, if memory is free: it is needed
    /// for planning when the segment itself has been evicted.
    pub(crate) fn remember(&self, address: &SegmentAddress, footer: &Footer) {
        self.footers.remember(address, footer);
    }

    /// Plans those of the chosen attempts that this daemon, `own`, committed and still has in
    /// memory, without waiting. Of an ordered exchange, whose partitions have one handle each, it
    /// plans all or none.
    ///
    /// # Errors
    /// A task was chosen twice, or the segments do not hold what their commit records count.
    pub async fn plan_from_memory(
        &self,
        exchange: &ExchangeId,
        own: DaemonId,
        ordered: bool,
        chosen: &[TaskAttempt],
        target_size: u64,
    ) -> Result<MemoryPlan<impl Iterator<Item = PlannedHandle> + Send + use<>>, CatalogError> {
        let target = (!ordered).then_some(target_size);
        let known = |address: &SegmentAddress| address.segment.daemon == own;
        let planned = match self.known_segments(exchange, known).await {
            Some(LoadedFooters { segments, memory }) => {
                let work = |segments: Vec<_>| {
                    let (attempts, unknown) = plan::split_known(&segments, chosen);
                    if ordered && !unknown.is_empty() {
                        return Ok(None);
                    }
                    let plan = plan::plan(exchange, segments, &attempts, target)?;
                    Ok::<_, CatalogError>(Some((plan, unknown)))
                };
                let planned = self.compute(segments, work).await?;
                if planned.is_some() {
                    self.footers.end_round(exchange);
                }
                planned.map(|(plan, unknown)| (plan, unknown, memory))
            }
            None => None,
        };
        let (plan, unknown, memory) = match planned {
            Some((plan, unknown, memory)) => (Some(plan), unknown, Some(memory)),
            None => (None, chosen.to_vec(), None),
        };
        let handles = plan.map(|plan| self.sealed(plan)).into_iter().flatten();
        Ok(MemoryPlan {
            unknown,
            handles,
            memory,
        })
    }

    /// The plan of all chosen attempts, if all are in memory. Errors are left to the plan that
    /// reads the base directories, which detects and reports them.
    pub(super) async fn plan_known(
        &self,
        exchange: &ExchangeId,
        chosen: &[TaskAttempt],
        target_size: Option<u64>,
    ) -> Option<(Plan, Reservation)> {
        let known = self.known_segments(exchange, |_| true).await?;
        let LoadedFooters { segments, memory } = known;
        let work = |segments: Vec<_>| {
            let (attempts, unknown) = plan::split_known(&segments, chosen);
            if attempts.is_empty() || !unknown.is_empty() {
                return None;
            }
            plan::plan(exchange, segments, &attempts, target_size).ok()
        };
        let plan = self.compute(segments, work).await?;
        Some((plan, memory))
    }

    /// Whether all these attempts are known from memory.
    pub(super) async fn knows(&self, exchange: &ExchangeId, attempts: &[TaskAttempt]) -> bool {
        let known = self.known_segments(exchange, |_| true).await;
        known.is_some_and(|known| plan::split_known(&known.segments, attempts).1.is_empty())
    }

    /// The segments in memory that are wanted; `None` if memory for planning is short.
    async fn known_segments(
        &self,
        exchange: &ExchangeId,
        wanted: impl Fn(&SegmentAddress) -> bool,
    ) -> Option<LoadedFooters> {
        let mut addresses = self.footers.in_memory(exchange);
        addresses.retain(wanted);
        self.loader.load_in_memory(exchange, &addresses).await
    }
}
