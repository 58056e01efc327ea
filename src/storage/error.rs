//! Errors of storage.
//!
//! Does: add the base directory, the operation and the object to what a store or the configuration
//! reported. Does not: decide what is retried. Invariant: the cause is kept, and the text is one
//! line that an operator can act on.

use crate::store::open::OpenError;
use crate::store::{Remedy, StoreError, StoreErrorKind};

/// A failed operation on base directories.
#[derive(Debug, Clone, thiserror::Error)]
#[error("base directory {base}: {operation} of {object} failed: {source}")]
pub struct StorageError {
    /// Name of the base directory; several names, or `all`, if more than one failed.
    pub base: String,
    /// `put`, `get`, `list`, `delete`, `probe` or `open`.
    pub operation: &'static str,
    /// The object, folder or option, for people.
    pub object: String,
    /// The cause.
    pub source: StorageFailure,
}

/// Why an operation on base directories failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StorageFailure {
    /// One store failed.
    #[error(transparent)]
    Store(Box<StoreError>),
    /// The operation failed in several base directories.
    #[error("{}", reasons(.0))]
    Several(Vec<StorageError>),
    /// A segment address names a base directory that this daemon does not have.
    #[error(
        "no base directory of that name is configured here (there are: {configured}); every daemon \
         needs the same base directories under the same names"
    )]
    UnknownBase {
        /// The names that there are.
        configured: String,
    },
    /// The fleet uses a base directory that this daemon does not have.
    #[error("{0}")]
    Incomplete(String),
    /// The base directory cannot be opened as configured.
    #[error("{}", .0.reason)]
    Open(#[source] Box<OpenError>),
}

/// Result of an operation on the base directories.
pub type Result<T, E = StorageError> = std::result::Result<T, E>;

impl StorageError {
    /// What happened. Several failures are `Refused` only if all of them are: otherwise a retry may
    /// help.
    pub fn kind(&self) -> StoreErrorKind {
        match &self.source {
            StorageFailure::Store(error) => error.kind,
            StorageFailure::Several(failures) => kind_of_all(failures),
            StorageFailure::UnknownBase { .. }
            | StorageFailure::Incomplete(_)
            | StorageFailure::Open(_) => StoreErrorKind::Refused,
        }
    }

    /// What the caller should do.
    pub fn remedy(&self) -> Remedy {
        self.kind().remedy()
    }
}

fn kind_of_all(failures: &[StorageError]) -> StoreErrorKind {
    let mut kinds = failures.iter().map(StorageError::kind);
    match kinds.all(|kind| kind == StoreErrorKind::Refused) {
        true => StoreErrorKind::Refused,
        false => StoreErrorKind::Unavailable,
    }
}

fn reasons(failures: &[StorageError]) -> String {
    let reasons = failures
        .iter()
        .map(|failure| format!("{}: {}", failure.base, failure.source));
    reasons.collect::<Vec<_>>().join("; ")
}

impl From<StoreError> for StorageFailure {
    fn from(error: StoreError) -> Self {
        Self::Store(Box::new(error))
    }
}

impl From<OpenError> for StorageError {
    fn from(error: OpenError) -> Self {
        Self {
            base: error.base.clone(),
            operation: "open",
            object: error.object.clone(),
            source: StorageFailure::Open(Box::new(error)),
        }
    }
}
