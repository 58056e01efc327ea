//! Answers from the commit records in the footers of an exchange's segments.
//!
//! Does: list segments, read their footers concurrently, and look up or plan what is requested.
//! Does not: decide what a plan contains (`plan`), or cache anything itself (`cache`). Invariant: a
//! segment is reported as lost only if it is missing from two lists.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use futures::stream::{self, StreamExt as _, TryStreamExt as _};

use super::error::CatalogError;
use super::handle::{Handle, HandleError, Seals};
use super::plan::{self, KnownSegment};
use crate::cache::footers::FooterCache;
use crate::cache::hot::HotSegments;
use crate::id::{ExchangeId, SegmentAddress, TaskAttempt};
use crate::memory::MemoryPool;
use crate::segment::footer::Totals;
use crate::storage::{ListedSegment, Storage};
use crate::telemetry::metrics::Metrics;

/// Footers fetched at a time: as many requests as one remote base directory accepts, since planning
/// a large exchange is mostly waiting for them.
const FOOTER_CONCURRENCY: usize = 64;

/// An encoded source handle and what it covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedHandle {
    /// The handle in base64url.
    pub text: String,
    /// Output partition.
    pub partition: u32,
    /// Page bytes, without frame headers.
    pub bytes: u64,
    /// Number of pages.
    pub pages: u64,
}

impl PlannedHandle {
    /// # Panics
    /// If a base directory of the handle is not identified: its segments could not be listed then.
    fn sealed(handle: &Handle, seals: &Seals) -> Self {
        let text = handle.seal(seals);
        Self {
            partition: handle.partition,
            bytes: handle.bytes,
            pages: handle.pages(),
            text: text.expect("segments are listed only in identified base directories"),
        }
    }
}

/// An attempt that has a commit record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedAttempt {
    pub attempt: TaskAttempt,
    /// From its commit record.
    pub totals: Totals,
}

/// The content of an exchange, for display.
#[derive(Debug, Clone, Default)]
pub struct ExchangeSummary {
    /// Committed attempts, by task, then attempt.
    pub committed: Vec<CommittedAttempt>,
    /// Segments with their sizes in bytes.
    pub segments: Vec<(SegmentAddress, u64)>,
}

/// The commit records of all exchanges. Cheap to clone.
#[derive(Clone)]
pub struct Catalog {
    storage: Storage,
    footers: FooterCache,
    hot: HotSegments,
    metrics: Arc<Metrics>,
}

impl Catalog {
    /// A catalog of the base directories. `hot` has the segments that this daemon wrote recently;
    /// footers are cached in `pool`, the read pool.
    pub fn new(
        storage: Storage,
        hot: HotSegments,
        max_footer_size: u64,
        metrics: Arc<Metrics>,
        pool: MemoryPool,
    ) -> Self {
        let counted = Arc::clone(&metrics);
        let footers =
            FooterCache::new(storage.clone(), hot.clone(), max_footer_size, counted, pool);
        Self {
            storage,
            footers,
            hot,
            metrics,
        }
    }

    fn seals(&self) -> Seals {
        Seals::new(self.storage.identities())
    }

    /// Opens the text of a source handle. If it was sealed with a key that is new here, the
    /// identity of its base directory is read again first; so are those that were not read yet.
    ///
    /// # Errors
    /// [`HandleError`] if no daemon of the fleet sealed it, or this one lacks what it needs.
    pub async fn open_handle(&self, text: &str) -> Result<Handle, HandleError> {
        let opened = Handle::open(text, &self.seals());
        match &opened {
            Err(HandleError::UnknownKey { base, .. }) => {
                self.storage.refresh_identity(Some(base)).await;
            }
            Err(HandleError::Unidentified { .. }) => self.storage.refresh_identity(None).await,
            _ => return opened,
        }
        Handle::open(text, &self.seals())
    }

    /// Bytes of cached footers.
    pub fn footer_bytes(&self) -> u64 {
        self.footers.bytes()
    }

    /// Removes the cached footers and hot segments of a closed exchange.
    pub fn forget(&self, exchange: &ExchangeId) {
        self.hot.forget(exchange);
        self.footers.forget(exchange);
    }

    /// The exchanges that have a cached footer or a hot segment.
    pub fn cached_exchanges(&self) -> HashSet<ExchangeId> {
        let mut cached = self.hot.exchanges();
        cached.extend(self.footers.exchanges());
        cached
    }

    /// The committed attempts and the segments of an exchange.
    ///
    /// # Errors
    /// [`CatalogError`] if a base directory or a footer cannot be read.
    pub async fn summary(&self, exchange: &ExchangeId) -> Result<ExchangeSummary, CatalogError> {
        let listed = self.storage.list_segments(exchange).await?;
        let known = self.footers_of(&listed).await?;
        let committed = plan::committed(&known)
            .into_iter()
            .map(|(attempt, (_, record))| CommittedAttempt {
                attempt,
                totals: record.totals,
            })
            .collect();
        let segments = listed.into_iter().map(|l| (l.address, l.size)).collect();
        Ok(ExchangeSummary {
            committed,
            segments,
        })
    }

    /// The totals of an attempt if it is committed.
    ///
    /// # Errors
    /// As [`Catalog::summary`].
    pub async fn find_commit(
        &self,
        exchange: &ExchangeId,
        attempt: TaskAttempt,
    ) -> Result<Option<Totals>, CatalogError> {
        let known = self.load(exchange).await?;
        Ok(plan::committed(&known)
            .get(&attempt)
            .map(|(_, record)| record.totals))
    }

    /// Plans the source handles for the chosen attempts, by partition; an ordered exchange gets one
    /// handle a partition. `target_size` is in page bytes. Each handle is made when it is requested
    /// from the iterator, which holds the exchange's footers.
    ///
    /// # Errors
    /// As [`Catalog::summary`], or if the chosen attempts cannot be planned ([`plan::plan`]).
    pub async fn plan_handles(
        &self,
        exchange: &ExchangeId,
        ordered: bool,
        chosen: &[TaskAttempt],
        target_size: u64,
    ) -> Result<impl Iterator<Item = PlannedHandle> + Send + use<>, CatalogError> {
        let target = (!ordered).then_some(target_size);
        let plan = |known| plan::plan(exchange, known, chosen, target);
        let plan = self.planned(exchange, plan).await?;
        let seals = self.seals();
        Ok(plan.map(move |handle| PlannedHandle::sealed(&handle, &seals)))
    }

    /// One handle for a partition: the newest committed attempt of each task. With `task` only that
    /// task is read, with `attempt` only attempts of that number.
    ///
    /// # Errors
    /// As [`Catalog::plan_handles`]; [`CatalogError::NotCommitted`] if both are given and there is
    /// no such attempt.
    pub async fn partition_handle(
        &self,
        exchange: &ExchangeId,
        partition: u32,
        task: Option<u32>,
        attempt: Option<u32>,
    ) -> Result<Handle, CatalogError> {
        let plan = |known: Vec<KnownSegment>| {
            let mut newest = BTreeMap::new();
            // In ascending order, so the last attempt of a task replaces its earlier ones.
            for found in plan::committed(&known).into_keys() {
                if task.is_none_or(|t| t == found.task)
                    && attempt.is_none_or(|a| a == found.attempt)
                {
                    newest.insert(found.task, found);
                }
            }
            if let (Some(task), Some(attempt), true) = (task, attempt, newest.is_empty()) {
                return Err(CatalogError::NotCommitted {
                    attempt: TaskAttempt { task, attempt },
                    exchange: exchange.clone(),
                });
            }
            let chosen: Vec<TaskAttempt> = newest.into_values().collect();
            plan::plan_partition(exchange, &known, &chosen, partition)
        };
        self.planned(exchange, plan).await
    }

    /// Plans from a list of segments, and once more from a new list if one is missing. Base
    /// directories are not listed at the same instant: the list of one may have a commit record,
    /// while the earlier list of another lacks a segment that was stored just before it.
    async fn planned<T>(
        &self,
        exchange: &ExchangeId,
        plan: impl Fn(Vec<KnownSegment>) -> Result<T, CatalogError>,
    ) -> Result<T, CatalogError> {
        let mut planned = plan(self.load(exchange).await?);
        if matches!(planned, Err(CatalogError::Lost { .. })) {
            planned = plan(self.load(exchange).await?);
        }
        if planned.as_ref().is_err_and(CatalogError::is_damage) {
            self.metrics.integrity_failures.inc();
        }
        planned
    }

    async fn load(&self, exchange: &ExchangeId) -> Result<Vec<KnownSegment>, CatalogError> {
        let listed = self.storage.list_segments(exchange).await?;
        self.footers_of(&listed).await
    }

    async fn footers_of(
        &self,
        listed: &[ListedSegment],
    ) -> Result<Vec<KnownSegment>, CatalogError> {
        let fetches = listed.iter().cloned().map(|listed| {
            let footers = self.footers.clone();
            async move {
                let footer = footers.get(&listed).await?;
                Ok::<_, CatalogError>(footer.map(|footer| KnownSegment {
                    address: listed.address,
                    footer,
                }))
            }
        });
        let known: Vec<Option<KnownSegment>> = stream::iter(fetches)
            .buffered(FOOTER_CONCURRENCY)
            .try_collect()
            .await?;
        Ok(known.into_iter().flatten().collect())
    }
}
