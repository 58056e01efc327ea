//! Errors of stores.
//!
//! Does: describe the failure, its cause, and how the caller should react. Does not: name the base
//! directory or the operation (`storage` adds both). Invariant: no error contains a credential,
//! neither in its text nor in its cause.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What happened, as far as callers distinguish it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// The object does not exist.
    NotFound,
    /// The store failed or did not answer. The operation may still have been applied.
    Unavailable,
    /// The store rejected the operation (permission, configuration); it was not applied.
    Refused,
    /// The stored object is not what it should be, for example shorter than the requested range.
    Corrupt,
}

impl StoreErrorKind {
    /// What the caller should do.
    pub fn remedy(self) -> Remedy {
        match self {
            Self::NotFound | Self::Corrupt => Remedy::DataLost,
            Self::Unavailable => Remedy::Retry,
            Self::Refused => Remedy::FixCallOrConfiguration,
        }
    }
}

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Repeat the operation later, here or through another daemon.
    Retry,
    /// Correct the call or the configuration; repeating the operation does not help.
    FixCallOrConfiguration,
    /// Produce the data again: what was stored is missing or damaged.
    DataLost,
    /// Report it: no call and no configuration should lead here.
    Bug,
}

/// Result of an operation on one base directory.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// The error that caused another one; shared, so that errors can be cloned.
pub type Cause = Arc<dyn Error + Send + Sync>;

/// Why an operation of a store failed.
#[derive(Debug, Clone)]
pub struct StoreError {
    /// What happened.
    pub kind: StoreErrorKind,
    /// What failed or what was found, for people.
    pub message: String,
    /// The underlying error, if there is one.
    pub source: Option<Cause>,
    /// The remedy for the operator, if known.
    pub hint: Option<&'static str>,
    /// A put that may have collided with another client's delete of a neighbouring object: some
    /// servers answer 409 or 403 then, and the same put succeeds a moment later.
    pub contended: bool,
    /// The operation made no progress, or not enough, for as long as it may.
    pub timed_out: bool,
    /// The operation takes no effect from now on: it never reached the store, or the store has said
    /// what became of it. Any other failed write may be applied seconds later.
    pub settled: bool,
    /// The credentials have expired. A refresh may already be in progress.
    pub credentials_expired: bool,
    /// How long the store asked to wait before the next attempt.
    pub retry_after: Option<Duration>,
    /// There was no space for the write.
    pub full: bool,
}

impl StoreError {
    /// An error without a cause.
    pub fn new(kind: StoreErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
            hint: None,
            contended: false,
            timed_out: false,
            settled: false,
            credentials_expired: false,
            retry_after: None,
            full: false,
        }
    }

    /// The task of an operation ended without a result.
    pub fn interrupted(cause: impl Error + Send + Sync + 'static) -> Self {
        Self::new(StoreErrorKind::Unavailable, "the operation was interrupted").caused_by(cause)
    }

    /// The same error with its cause.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(cause));
        self
    }
}

/// What an operation on one object returned; `None` if there is no such object.
///
/// # Errors
/// All others.
pub fn if_found<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Err(error) if error.kind == StoreErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// One line: message, cause, hint.
impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        match self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let source = self.source.as_ref()?;
        Some(source)
    }
}
