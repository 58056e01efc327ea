//! Which attempts are finished, where their blocks lie, and the handles that say so.

use std::sync::Arc;

use crate::id::{ExchangeId, SegmentAddress, TaskAttempt};

use crate::storage::StorageError;

/// Why commits could not be answered.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
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

/// What an attempt holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Batches.
    pub batches: u64,
    /// Pages.
    pub pages: u64,
    /// Page bytes.
    pub bytes: u64,
    /// CRC-32C over the frames' `crc` fields.
    pub checksum: u32,
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
pub struct CommitIndex {
    _private: (),
}

#[allow(unused_variables, clippy::unused_async)]
impl CommitIndex {
    /// What an exchange holds.
    pub async fn content(&self, exchange: &ExchangeId) -> Result<ExchangeContent, CommitError> {
        unimplemented!()
    }

    /// Plans the source handles for the chosen attempts, by partition; an ordered exchange gets one
    /// handle a partition.
    pub async fn plan_handles(
        &self,
        exchange: &ExchangeId,
        ordered: bool,
        chosen: &[TaskAttempt],
        target_size: u64,
    ) -> Result<Vec<PlannedHandle>, CommitError> {
        unimplemented!()
    }
}
