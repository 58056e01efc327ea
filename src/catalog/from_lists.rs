//! Plans of named attempts from what the base directories list.
//!
//! Does: list no more base directories, and read no more footers, than are needed to find all
//! attempts. Does not: decide what a plan contains (`plan`). Invariant: an attempt is reported as
//! missing only if all base directories that may hold it have answered.

use std::collections::BTreeSet;

use super::error::CatalogError;
use super::load::LoadedFooters;
use super::lookup::Catalog;
use super::plan::KnownSegment;
use crate::id::{DaemonId, ExchangeId};
use crate::memory::Reservation;
use crate::storage::{ListedSegment, PartialList, StorageError};

/// What was planned from the segments that some base directories list.
struct Planned<T> {
    result: Result<(T, Reservation), CatalogError>,
    /// Why a base directory did not answer, rather one of the set.
    failure: Option<StorageError>,
    /// Whether all base directories that may hold segments have answered.
    complete: bool,
}

impl<T> Planned<T> {
    fn is_err_and(&self, is: impl FnOnce(&CatalogError) -> bool) -> bool {
        self.result.as_ref().is_err_and(is)
    }

    /// What is missing while a base directory does not answer is the failure of that.
    fn into_result(self) -> Result<(T, Reservation), CatalogError> {
        match (self.result, self.failure) {
            (Err(error), Some(failure)) if error.is_missing() => Err(failure.into()),
            (result, _) => result,
        }
    }
}

impl Catalog {
    /// Plans named attempts from what the set lists, and if one is missing there, from what all
    /// base directories list; once more if a segment is missing. Base directories are not listed at
    /// the same instant: the list of one may have a commit record, while the earlier list of
    /// another lacks a segment that was stored just before it.
    pub(super) async fn planned<T>(
        &self,
        exchange: &ExchangeId,
        asked: &BTreeSet<DaemonId>,
        plan: impl Fn(Vec<KnownSegment>) -> Result<T, CatalogError>,
    ) -> Result<(T, Reservation), CatalogError> {
        let planned = async {
            let mut found = self.plan_in_set(exchange, asked, &plan).await?;
            if found.is_err_and(CatalogError::is_missing)
                && (!found.complete || self.storage.has_others(exchange))
            {
                found = self.plan_anywhere(exchange, &plan).await?;
            }
            if found.is_err_and(CatalogError::is_loss) {
                found = self.plan_anywhere(exchange, &plan).await?;
            }
            found.into_result()
        };
        self.checked(planned.await)
    }

    /// From the working members of the exchange's set: enough for a plan that names its attempts,
    /// once all of them are found.
    async fn plan_in_set<T>(
        &self,
        exchange: &ExchangeId,
        asked: &BTreeSet<DaemonId>,
        plan: impl Fn(Vec<KnownSegment>) -> Result<T, CatalogError>,
    ) -> Result<Planned<T>, CatalogError> {
        let listed = self.storage.list_segments_in_set(exchange).await;
        if !asked.is_empty() {
            let others = listed.segments.iter();
            let others = others.filter(|found| !asked.contains(&found.address.segment.daemon));
            let others: Vec<_> = others.cloned().collect();
            let found = self.plan_listed(exchange, &listed, &others, &plan).await?;
            if !found.is_err_and(CatalogError::is_missing) {
                return Ok(found);
            }
        }
        self.plan_listed(exchange, &listed, &listed.segments, plan)
            .await
    }

    /// From all base directories.
    async fn plan_anywhere<T>(
        &self,
        exchange: &ExchangeId,
        plan: impl Fn(Vec<KnownSegment>) -> Result<T, CatalogError>,
    ) -> Result<Planned<T>, CatalogError> {
        let listed = self.storage.list_segments_anywhere(exchange).await;
        self.plan_listed(exchange, &listed, &listed.segments, plan)
            .await
    }

    async fn plan_listed<T>(
        &self,
        exchange: &ExchangeId,
        listed: &PartialList,
        segments: &[ListedSegment],
        plan: impl Fn(Vec<KnownSegment>) -> Result<T, CatalogError>,
    ) -> Result<Planned<T>, CatalogError> {
        let loaded = self.loader.load(exchange, segments).await?;
        let LoadedFooters { segments, memory } = loaded;
        let planned = self.compute(segments, plan).await;
        Ok(Planned {
            result: planned.map(|plan| (plan, memory)),
            failure: listed.failure.clone(),
            complete: listed.complete,
        })
    }
}
