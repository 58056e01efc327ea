//! Answers from the commit records in the footers of an exchange's segments.
//!
//! Does: list segments, read their footers concurrently, and look up or plan what is requested.
//! Does not: decide what a plan contains (`plan`), or cache anything itself (`cache`). Invariant: a
//! segment is reported as lost only if it is missing from two lists.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use super::error::CatalogError;
use super::handle::{Handle, HandleError, SealError, Seals};
use super::load::{FooterLoader, LoadedFooters};
use super::plan::{self, KnownSegment};
use super::prefetch_schedule::PrefetchSchedule;
use crate::cache::footers::FooterCache;
use crate::cache::hot::HotSegments;
use crate::id::{DaemonId, ExchangeId, SegmentAddress, SegmentId, TaskAttempt};
use crate::memory::{MemoryPool, Reservation};
use crate::runtime::TaskGroup;
use crate::segment::footer::Totals;
use crate::storage::{ListedSegment, PAGE, PartialList, Storage};
use crate::telemetry::metrics::Metrics;

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
    /// The segment that holds the commit record.
    pub segment: SegmentId,
}

/// A segment of an exchange, for display.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentSummary {
    pub address: SegmentAddress,
    /// Bytes of the object.
    pub size: u64,
    /// When it was sealed, by the clock of the daemon that wrote it, in milliseconds since 1970.
    pub sealed_millis: u64,
}

/// The content of an exchange, for display.
#[derive(Debug, Clone, Default)]
pub struct ExchangeSummary {
    /// Committed attempts, by task, then attempt.
    pub committed: Vec<CommittedAttempt>,
    /// Segments, by id.
    pub segments: Vec<SegmentSummary>,
}

/// Narrows the read of a partition.
#[derive(Debug, Clone, Copy, Default)]
pub struct Selection {
    /// Only this task.
    pub task: Option<u32>,
    /// This attempt instead of the newest.
    pub attempt: Option<u32>,
    /// How many tasks must have such an attempt.
    pub tasks: Option<u32>,
}

impl Selection {
    /// Checks the number of tasks of which an attempt was found.
    fn check_count(&self, exchange: &ExchangeId, found: usize) -> Result<(), CatalogError> {
        let exchange = exchange.clone();
        match self.tasks.map(|tasks| tasks as usize) {
            Some(expected) if expected != found => Err(CatalogError::TaskCount {
                exchange,
                expected,
                found,
            }),
            None if found == 0 => Err(CatalogError::NothingCommitted { exchange }),
            _ => Ok(()),
        }
    }
}

/// The commit records of all exchanges. Cheap to clone.
#[derive(Clone)]
pub struct Catalog {
    pub(super) storage: Storage,
    pub(super) footers: FooterCache,
    pub(super) loader: FooterLoader,
    pub(super) prefetches: PrefetchSchedule,
    hot: HotSegments,
    metrics: Arc<Metrics>,
    tasks: TaskGroup,
}

impl Catalog {
    /// A catalog of the base directories. `hot` has the segments that this daemon wrote recently;
    /// footers are cached in `pool`, the read pool. Long computations run in `tasks`.
    pub fn new(
        storage: Storage,
        hot: HotSegments,
        max_footer_size: u64,
        metrics: Arc<Metrics>,
        pool: MemoryPool,
        tasks: TaskGroup,
    ) -> Self {
        let counted = Arc::clone(&metrics);
        let (cache, cached_hot) = (pool.clone(), hot.clone());
        let footers = FooterCache::new(
            storage.clone(),
            cached_hot,
            max_footer_size,
            counted,
            cache,
            tasks.clone(),
        );
        Self {
            storage,
            loader: FooterLoader::new(footers.clone(), pool),
            prefetches: PrefetchSchedule::default(),
            footers,
            hot,
            metrics,
            tasks,
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
            Err(HandleError::Seal(SealError::UnknownKey { base, .. })) => {
                self.storage.refresh_identity(Some(base)).await;
            }
            Err(HandleError::Seal(SealError::Unidentified { .. })) => {
                self.storage.refresh_identity(None).await;
            }
            _ => return opened,
        }
        Handle::open(text, &self.seals())
    }

    /// Changes the size above which footers are refused.
    pub fn set_max_footer_size(&self, most: u64) {
        self.footers.set_max_footer_size(most);
    }

    /// Bytes of cached footers.
    pub fn footer_bytes(&self) -> u64 {
        self.footers.bytes()
    }

    /// Removes the cached footers and hot segments of a closed exchange.
    pub fn forget(&self, exchange: &ExchangeId) {
        self.hot.forget(exchange);
        self.prefetches.forget(exchange);
        self.footers.forget(exchange);
    }

    /// The exchanges that have a cached footer or a hot segment.
    pub fn cached_exchanges(&self) -> HashSet<ExchangeId> {
        let mut cached = self.hot.exchanges();
        cached.extend(self.footers.exchanges());
        cached
    }

    /// The committed attempts and the segments of an exchange, with their reservation: it holds
    /// [`COMMIT_MEMORY`] bytes for each attempt, also for an answer that is made of them.
    ///
    /// [`COMMIT_MEMORY`]: super::load::COMMIT_MEMORY
    ///
    /// # Errors
    /// [`CatalogError`] if a base directory or a footer cannot be read, or if a segment that was
    /// listed or that this daemon has in memory has vanished.
    pub async fn summary(
        &self,
        exchange: &ExchangeId,
    ) -> Result<(ExchangeSummary, Reservation), CatalogError> {
        let (listed, known) = self.load_all(exchange).await?;
        if let Some(failure) = listed.failure {
            return Err(failure.into());
        }
        let committed = plan::committed(&known.segments)
            .into_iter()
            .map(|(attempt, (segment, record))| CommittedAttempt {
                attempt,
                totals: record.totals,
                segment,
            })
            .collect();
        let sealed: BTreeMap<_, _> = known
            .segments
            .iter()
            .map(|found| (found.address.segment, found.footer.sealed_millis))
            .collect();
        let segments = listed.segments.into_iter();
        let segments = segments.map(|listed| SegmentSummary {
            // Every listed segment has a loaded footer here: otherwise an error was returned above.
            sealed_millis: sealed.get(&listed.address.segment).copied().unwrap_or(0),
            address: listed.address,
            size: listed.size,
        });
        let segments = segments.collect();
        let summary = ExchangeSummary {
            committed,
            segments,
        };
        Ok((summary, known.memory))
    }

    /// Plans with these segments. If there are many, no other task waits for it.
    pub(super) async fn compute<T>(
        &self,
        segments: Vec<KnownSegment>,
        work: impl FnOnce(Vec<KnownSegment>) -> T,
    ) -> T {
        let steps = plan::planning_steps(&segments);
        self.tasks.compute(steps, || work(segments)).await
    }

    /// The totals of an attempt if it is committed.
    ///
    /// # Errors
    /// If a base directory or a footer cannot be read, and the others do not show it.
    pub async fn find_commit(
        &self,
        exchange: &ExchangeId,
        attempt: TaskAttempt,
    ) -> Result<Option<Totals>, CatalogError> {
        let listed = self.storage.list_segments_in_set(exchange).await;
        let found = self.find_in(exchange, attempt, &listed.segments).await?;
        if found.is_some() || (listed.complete && !self.storage.has_others(exchange)) {
            return Ok(found);
        }
        let listed = self.storage.list_segments_anywhere(exchange).await;
        match self.find_in(exchange, attempt, &listed.segments).await? {
            Some(found) => Ok(Some(found)),
            None => listed.failure.map_or(Ok(None), |error| Err(error.into())),
        }
    }

    async fn find_in(
        &self,
        exchange: &ExchangeId,
        attempt: TaskAttempt,
        listed: &[ListedSegment],
    ) -> Result<Option<Totals>, CatalogError> {
        let loaded = self.loader.load(exchange, listed).await?;
        let committed = plan::committed(&loaded.segments);
        Ok(committed.get(&attempt).map(|(_, record)| record.totals))
    }

    /// Plans the source handles for the chosen attempts, by partition; an ordered exchange gets one
    /// handle a partition. `target_size` is in page bytes. Each handle is made when it is requested
    /// from the iterator, which holds the exchange's footers. The reservation is for its other
    /// memory, and is dropped after it. If all chosen attempts are in memory, there is no request
    /// to a base directory.
    ///
    /// # Errors
    /// As [`Catalog::find_commit`], or if the chosen attempts cannot be planned ([`plan::plan`]).
    pub async fn plan_handles(
        &self,
        exchange: &ExchangeId,
        ordered: bool,
        chosen: &[TaskAttempt],
        target_size: u64,
    ) -> Result<
        (
            impl Iterator<Item = PlannedHandle> + Send + use<>,
            Reservation,
        ),
        CatalogError,
    > {
        self.plan_rest(exchange, ordered, chosen, target_size, &BTreeSet::new())
            .await
    }

    /// As [`Catalog::plan_handles`], after the daemons with the runs `asked` have planned what they
    /// have in memory: the footers of what they wrote are read only if an attempt is not found
    /// without them.
    ///
    /// # Errors
    /// As [`Catalog::plan_handles`].
    pub async fn plan_rest(
        &self,
        exchange: &ExchangeId,
        ordered: bool,
        chosen: &[TaskAttempt],
        target_size: u64,
        asked: &BTreeSet<DaemonId>,
    ) -> Result<
        (
            impl Iterator<Item = PlannedHandle> + Send + use<>,
            Reservation,
        ),
        CatalogError,
    > {
        let target = (!ordered).then_some(target_size);
        let plan = |known| plan::plan(exchange, known, chosen, target);
        let mut known = self.plan_known(exchange, chosen, target).await;
        if known.is_none() && self.footers.ids(exchange).len() >= PAGE {
            // What this finds wrong is found, and reported, by the plan that lists all.
            let _ = self.fetch_new(exchange, asked).await;
            known = self.plan_known(exchange, chosen, target).await;
        }
        let (plan, memory) = match known {
            Some(planned) => planned,
            None => self.planned(exchange, asked, plan).await?,
        };
        self.footers.end_round(exchange);
        Ok((self.sealed(plan), memory))
    }

    /// The handles of a plan, each sealed when it is requested.
    pub(super) fn sealed(
        &self,
        plan: plan::Plan,
    ) -> impl Iterator<Item = PlannedHandle> + Send + use<> {
        let seals = self.seals();
        plan.map(move |handle| PlannedHandle::sealed(&handle, &seals))
    }

    /// One handle for a partition: the newest committed attempt of each selected task.
    ///
    /// The caller names no attempts, so missing data could remain undetected. Therefore it is an
    /// error if a segment that was listed or that this daemon has in memory has vanished, if there
    /// is no such attempt at all, or if their number is not the one that the caller expects.
    ///
    /// # Errors
    /// As [`Catalog::plan_handles`], and the errors described above.
    pub async fn partition_handle(
        &self,
        exchange: &ExchangeId,
        partition: u32,
        selection: Selection,
    ) -> Result<Handle, CatalogError> {
        let Selection { task, attempt, .. } = selection;
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
            selection.check_count(exchange, newest.len())?;
            let chosen: Vec<TaskAttempt> = newest.into_values().collect();
            plan::plan_partition(exchange, &known, &chosen, partition)
        };
        let counted = selection.tasks.is_some();
        let mut planned = self.plan_found(exchange, counted, &plan).await;
        if planned.as_ref().is_err_and(CatalogError::is_loss) {
            planned = self.plan_found(exchange, counted, &plan).await;
        }
        Ok(self.checked(planned)?.0)
    }

    /// Plans attempts that the caller does not name. All base directories must answer, unless the
    /// number of tasks is `counted`: then what is missing is noticed.
    async fn plan_found<T>(
        &self,
        exchange: &ExchangeId,
        counted: bool,
        plan: impl Fn(Vec<KnownSegment>) -> Result<T, CatalogError>,
    ) -> Result<(T, Reservation), CatalogError> {
        let (listed, LoadedFooters { segments, memory }) = self.load_all(exchange).await?;
        match (self.compute(segments, plan).await, listed.failure) {
            (Ok(_), Some(failure)) if !counted => Err(failure.into()),
            (Err(error), Some(failure)) if error.is_missing() => Err(failure.into()),
            (planned, _) => Ok((planned?, memory)),
        }
    }

    pub(super) fn checked<T>(&self, planned: Result<T, CatalogError>) -> Result<T, CatalogError> {
        if planned.as_ref().is_err_and(CatalogError::is_damage) {
            self.metrics.integrity_failures.inc();
        }
        planned
    }

    /// The segments of an exchange, listed and with their footers.
    ///
    /// # Errors
    /// [`CatalogError::Vanished`] for a segment that this daemon had in memory before and that is
    /// not listed, or that was removed after it was listed.
    async fn load_all(
        &self,
        exchange: &ExchangeId,
    ) -> Result<(PartialList, LoadedFooters), CatalogError> {
        let mut expected: BTreeSet<SegmentId> = self.hot.ids(exchange).into_iter().collect();
        expected.extend(self.footers.ids(exchange));
        let listed = self.storage.list_segments_anywhere(exchange).await;
        expected.extend(listed.segments.iter().map(|found| found.address.segment));
        let known = self.loader.load(exchange, &listed.segments).await?;
        for found in &known.segments {
            expected.remove(&found.address.segment);
        }
        match (expected.pop_first(), &listed.failure) {
            (None, _) => Ok((listed, known)),
            (Some(_), Some(failure)) => Err(failure.clone().into()),
            (Some(segment), None) => Err(CatalogError::Vanished {
                exchange: exchange.clone(),
                segment,
            }),
        }
    }
}
