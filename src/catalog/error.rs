//! Why the catalog cannot answer.

use crate::cache::footers::FooterError;
use crate::human::count;
use crate::id::{ExchangeId, SegmentAddress, SegmentId, TaskAttempt};
use crate::storage::{StorageError, StoreErrorKind};

/// Why the catalog cannot answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CatalogError {
    #[error("{attempt} of exchange {exchange} was chosen but is not committed")]
    NotCommitted {
        attempt: TaskAttempt,
        exchange: ExchangeId,
    },
    /// A read that names no attempts would be empty.
    #[error("no attempt of exchange {exchange} that this read selects is committed")]
    NothingCommitted { exchange: ExchangeId },
    #[error(
        "exchange {exchange} has {} with a committed attempt, and tasks={expected}",
        count(*found, "task")
    )]
    TaskCount {
        exchange: ExchangeId,
        expected: usize,
        found: usize,
    },
    #[error(
        "partition {partition} of exchange {exchange} is in more than {limit} places: raise \
         segment.target_size, so that there are fewer segments, or read it by source handles"
    )]
    TooManyRanges {
        exchange: ExchangeId,
        partition: u32,
        limit: usize,
    },
    #[error(
        "the segments of exchange {exchange} have indexes of at least {}, but one query may hold \
         {limit} bytes of read memory: raise memory.budget or query.max_read_memory",
        count(*needed, "byte")
    )]
    PlanTooLarge {
        exchange: ExchangeId,
        needed: u64,
        limit: u64,
    },
    #[error("two attempts of task {task} were chosen")]
    ChosenTwice { task: u32 },
    #[error(transparent)]
    Footer(FooterError),
    /// The blocks of an attempt are not those that its commit record counts.
    #[error(
        "{segment}: the commit record of {attempt} counts {} and {}, but its blocks hold {} and {}",
        count(recorded.0, "page"), count(recorded.1, "byte"),
        count(found.0, "page"), count(found.1, "byte")
    )]
    CountMismatch {
        /// The segment that holds the commit record.
        segment: SegmentAddress,
        attempt: TaskAttempt,
        /// Pages and page bytes of the commit record.
        recorded: (u64, u64),
        /// Pages and page bytes of the blocks.
        found: (u64, u64),
    },
    #[error("{segment} is missing, although a commit record refers to it")]
    Lost { segment: SegmentAddress },
    /// This daemon has seen the segment, and no base directory lists it any more.
    #[error(
        "segment {segment} of exchange {exchange} no longer exists: the exchange was closed, or \
         data was lost"
    )]
    Vanished {
        exchange: ExchangeId,
        segment: SegmentId,
    },
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<FooterError> for CatalogError {
    fn from(error: FooterError) -> Self {
        match error {
            FooterError::Storage(error) => Self::Storage(error),
            damage => Self::Footer(damage),
        }
    }
}

impl CatalogError {
    /// Whether something was not found that another base directory may hold.
    pub(crate) fn is_missing(&self) -> bool {
        self.is_loss()
            || matches!(
                self,
                Self::NotCommitted { .. } | Self::NothingCommitted { .. } | Self::TaskCount { .. }
            )
    }

    /// Whether a stored segment is missing.
    pub(crate) fn is_loss(&self) -> bool {
        matches!(self, Self::Lost { .. } | Self::Vanished { .. })
    }

    /// Whether a base directory returned something else than what was written.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Footer(_) | Self::CountMismatch { .. } => true,
            Self::Storage(error) => error.kind() == StoreErrorKind::Corrupt,
            Self::NotCommitted { .. }
            | Self::NothingCommitted { .. }
            | Self::TaskCount { .. }
            | Self::TooManyRanges { .. }
            | Self::PlanTooLarge { .. }
            | Self::ChosenTwice { .. }
            | Self::Lost { .. }
            | Self::Vanished { .. } => false,
        }
    }
}
