//! Which attempts are finished, where their blocks lie, and the handles that say so.
//!
//! Does: list an exchange's segments, read their footers, take the commit records, plan handles;
//! keep what was written lately in memory. Does not: write anything. Invariant: what it answers
//! follows from the base directories alone, so any daemon answers the same.

pub mod handle;
pub mod plan;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use futures::stream::{self, StreamExt as _, TryStreamExt as _};

use self::handle::Handle;
use self::plan::{KnownSegment, Plan};
use crate::cache::footers::Footers;
use crate::cache::hot::HotSegments;

use crate::id::{ExchangeId, SegmentAddress, TaskAttempt};
use crate::memory::MemoryPool;

pub use crate::segment::footer::Totals;
use crate::storage::{ListedSegment, Storage, StorageError, StoreErrorKind};
use crate::telemetry::metrics::Metrics;

/// Why commits could not be answered.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CatalogError {
    /// A chosen attempt has no commit record.
    #[error("{attempt} of exchange {exchange} was chosen but is not committed")]
    NotCommitted {
        /// Which attempt.
        attempt: TaskAttempt,
        /// Of which exchange.
        exchange: ExchangeId,
    },
    /// Two attempts of one task were chosen.
    #[error("task {task} was chosen twice")]
    ChosenTwice {
        /// Which task.
        task: u32,
    },
    /// A footer is not what it should be.
    #[error("{segment}: {reason}")]
    Corrupt {
        /// Which segment.
        segment: SegmentAddress,
        /// What is wrong.
        reason: Arc<str>,
    },
    /// A segment that a commit record names is not there.
    #[error("{segment} is named by a commit record but does not exist")]
    Lost {
        /// Which segment.
        segment: SegmentAddress,
    },
    /// A handle that cannot be decoded.
    #[error("the handle is not valid: {reason}")]
    InvalidHandle {
        /// What is wrong.
        reason: String,
    },
    /// The store did not answer.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl CatalogError {
    /// Whether what lies in a base directory is not what was written there.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Corrupt { .. } => true,
            Self::Storage(error) => error.kind() == StoreErrorKind::Corrupt,
            _ => false,
        }
    }
}

/// A source handle ready to be given out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedHandle {
    /// The handle, base64url.
    pub text: String,
    /// Output partition.
    pub partition: u32,
    /// Page bytes.
    pub bytes: u64,
    /// Pages.
    pub pages: u64,
}

/// The source handles of a plan, one after another.
#[derive(Debug)]
pub struct PlannedHandles(Plan);

impl Iterator for PlannedHandles {
    type Item = PlannedHandle;

    fn next(&mut self) -> Option<PlannedHandle> {
        let handle = self.0.next()?;
        Some(PlannedHandle {
            partition: handle.partition,
            bytes: handle.bytes,
            pages: handle.pages(),
            text: handle.encode(),
        })
    }
}

/// A finished attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedAttempt {
    /// Which.
    pub attempt: TaskAttempt,
    /// What it holds.
    pub totals: Totals,
}

/// What an exchange holds, for people.
#[derive(Debug, Clone, Default)]
pub struct ExchangeContent {
    /// Finished attempts, by task then attempt.
    pub committed: Vec<CommittedAttempt>,
    /// Segments and their sizes.
    pub segments: Vec<(SegmentAddress, u64)>,
}

/// Answers from the commit records in the segments' footers. Cheap to clone.
#[derive(Clone)]
pub struct Catalog {
    storage: Storage,
    footers: Footers,
    hot: HotSegments,
    metrics: Arc<Metrics>,
}

impl Catalog {
    /// An index over what the base directories hold; `hot` is what this daemon wrote lately, and
    /// footers are held from `pool`, that for reading.
    pub fn new(
        storage: Storage,
        hot: HotSegments,
        max_footer_size: u64,
        metrics: Arc<Metrics>,
        pool: MemoryPool,
    ) -> Self {
        let counted = Arc::clone(&metrics);
        let footers = Footers::new(storage.clone(), hot.clone(), max_footer_size, counted, pool);
        Self {
            storage,
            footers,
            hot,
            metrics,
        }
    }

    /// The segments that this daemon wrote lately.
    pub fn hot(&self) -> &HotSegments {
        &self.hot
    }

    /// Bytes of footers that are kept.
    pub fn footer_bytes(&self) -> u64 {
        self.footers.bytes()
    }

    /// Forgets a closed exchange.
    pub fn forget(&self, exchange: &ExchangeId) {
        self.hot.forget(exchange);
        self.footers.forget(exchange);
    }

    /// The exchanges of which copies are kept here.
    pub fn kept(&self) -> HashSet<ExchangeId> {
        let mut kept = self.hot.exchanges();
        kept.extend(self.footers.exchanges());
        kept
    }

    /// What an exchange holds.
    pub async fn content(&self, exchange: &ExchangeId) -> Result<ExchangeContent, CatalogError> {
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
        Ok(ExchangeContent {
            committed,
            segments,
        })
    }

    /// What an attempt holds, if it is committed.
    pub async fn find(
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
    /// handle a partition. `target_size` is in page bytes. Each handle is made when it is asked
    /// for; as long as that may be, the exchange's footers are held.
    pub async fn plan_handles(
        &self,
        exchange: &ExchangeId,
        ordered: bool,
        chosen: &[TaskAttempt],
        target_size: u64,
    ) -> Result<PlannedHandles, CatalogError> {
        let target = (!ordered).then_some(target_size);
        let plan = |known| plan::plan(exchange, known, chosen, target);
        self.planned(exchange, plan).await.map(PlannedHandles)
    }

    /// One handle for a partition: the newest finished attempt of each task, or of the one that
    /// `select` names.
    pub async fn partition_handle(
        &self,
        exchange: &ExchangeId,
        partition: u32,
        task: Option<u32>,
        attempt: Option<u32>,
    ) -> Result<Handle, CatalogError> {
        let plan = |known: Vec<_>| plan_newest(exchange, &known, partition, task, attempt);
        self.planned(exchange, plan).await
    }

    /// Plans from what is listed; once more from a new list where a segment is missed. Base
    /// directories are not listed at one moment: a commit record may be in the list of one and an
    /// earlier segment, stored just before it, not yet in the list of another.
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
            self.metrics.corruptions.inc();
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
        let fetches = listed.iter().cloned().map(|found| {
            let footers = self.footers.clone();
            async move {
                let footer = footers.get(&found).await?;
                Ok::<_, CatalogError>(footer.map(|footer| KnownSegment {
                    address: found.address,
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

/// Plans one partition: the newest finished attempt of each task among those asked for.
fn plan_newest(
    exchange: &ExchangeId,
    known: &[KnownSegment],
    partition: u32,
    task: Option<u32>,
    attempt: Option<u32>,
) -> Result<Handle, CatalogError> {
    let mut newest = BTreeMap::new();
    for found in plan::committed(known).into_keys() {
        let fits =
            task.is_none_or(|t| t == found.task) && attempt.is_none_or(|a| a == found.attempt);
        if fits {
            newest.insert(found.task, found);
        }
    }
    if let (Some(task), Some(attempt), true) = (task, attempt, newest.is_empty()) {
        let attempt = TaskAttempt { task, attempt };
        return Err(CatalogError::NotCommitted {
            attempt,
            exchange: exchange.clone(),
        });
    }
    let chosen: Vec<TaskAttempt> = newest.into_values().collect();
    plan::plan_partition(exchange, known, &chosen, partition)
}

/// Footers fetched at a time: as many as a base directory behind a network takes. To plan a large
/// exchange is mostly to wait for them.
const FOOTER_CONCURRENCY: usize = 64;
