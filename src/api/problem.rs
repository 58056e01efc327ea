//! Every error that a client can see, as RFC 9457 problem+json.
//!
//! Does: own the slugs with their status and whether a repeat may help, and map each module's
//! errors to them. Does not: decide what failed. Invariant: the table of `docs/protocol.md` and
//! [`ProblemType`] say the same (a test reads the page); the maps name every variant, so that a new error
//! cannot slip through.

use std::borrow::Cow;

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::catalog::CatalogError;
use crate::exchange::ExchangeError;
use crate::id::InvalidId;
use crate::ingest::IngestError;
use crate::read::ReadError;
use crate::segment::frame::FrameError;
use crate::storage::{StorageError, StorageErrorKind};

/// Longest `detail`, in characters: a store's own words may be a whole page.
const MAX_DETAIL: usize = 1024;

macro_rules! slugs {
    ($($name:ident = $slug:literal, $status:literal, $retryable:literal, $title:literal;)*) => {
        /// The stable part of a problem's `type`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(missing_docs)] // `docs/protocol.md` says when each comes
        pub enum ProblemType { $($name),* }

        impl ProblemType {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// As it stands in `type`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $slug),* }
            }

            /// The HTTP status that it comes with.
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status),* }
            }

            /// Whether the same request, sent again to this or another daemon, may succeed.
            pub const fn retryable(self) -> bool {
                match self { $(Self::$name => $retryable),* }
            }

            /// The problem's `title`.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title),* }
            }
        }
    };
}

slugs! {
    InvalidRequest = "invalid-request", 400, false, "The request is not valid";
    InvalidFrame = "invalid-frame", 400, false, "The batch is not valid";
    ChecksumMismatch = "checksum-mismatch", 400, true, "A page was damaged on the way";
    InvalidHandle = "invalid-handle", 400, false, "The source handle is not valid";
    Unauthorized = "unauthorized", 401, false, "A valid token or client certificate is missing";
    Forbidden = "forbidden", 403, false, "The token does not allow this";
    NotFound = "not-found", 404, false, "There is no such route";
    ExchangeNotFound = "exchange-not-found", 404, false, "The exchange is not known";
    SinkNotFound = "sink-not-found", 404, false, "The attempt is not known";
    MethodNotAllowed = "method-not-allowed", 405, false, "The route has no such method";
    LengthRequired = "length-required", 411, false, "Content-Length is needed";
    PageTooLarge = "page-too-large", 413, false, "The page is too large";
    BodyTooLarge = "body-too-large", 413, false, "The body is too large";
    UnsupportedMediaType = "unsupported-media-type", 415, false, "The content type is not taken";
    ExchangeConflict = "exchange-conflict", 409, false, "The exchange was announced differently";
    BatchOutOfOrder = "batch-out-of-order", 409, false, "A batch is missing";
    CountMismatch = "count-mismatch", 409, false, "Not everything that was sent arrived";
    SinkAborted = "sink-aborted", 409, false, "The attempt was aborted";
    SinkFinished = "sink-finished", 409, false, "The attempt is finished";
    AttemptNotCommitted = "attempt-not-committed", 409, false, "A chosen attempt is not committed";
    ExchangeClosed = "exchange-closed", 410, false, "The exchange is closed";
    DataLost = "data-lost", 502, false, "Data does not exist any more";
    DataCorrupt = "data-corrupt", 502, true, "Data read back is not what was written";
    StorageUnavailable = "storage-unavailable", 503, true, "A base directory cannot be used";
    SinkFailed = "sink-failed", 503, false, "The attempt could not be written";
    Draining = "draining", 503, true, "The daemon is stopping";
    Overloaded = "overloaded", 503, true, "A bound of the daemon is reached";
    Timeout = "timeout", 408, true, "The body came too slowly";
    Internal = "internal", 500, true, "A defect in the daemon";
}

impl ProblemType {
    /// The problem's `type`.
    pub fn urn(self) -> String {
        format!("urn:stopover:problem:{}", self.as_str())
    }
}

/// What a client reads.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody<'a> {
    /// `urn:stopover:problem:<slug>`; clients decide by it, then by `retryable`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What kind of problem it is, for people.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong here, which limit it is, and the way out.
    pub detail: Cow<'a, str>,
    /// Whether the same request, sent again to this or another daemon, may succeed.
    pub retryable: bool,
    /// With `batch-out-of-order`: the number that the next batch must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<u64>,
}

/// A problem on its way to a client.
#[derive(Debug, Clone)]
pub struct Problem {
    slug: ProblemType,
    detail: String,
    expected: Option<u64>,
    /// What only the log may say.
    cause: Option<String>,
}

/// What the request log says about a failed request: travels in the response's extensions, so that
/// it is logged once, with the request's id.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The slug.
    pub slug: ProblemType,
    /// The cause, as far as it is known.
    pub cause: String,
}

impl Problem {
    /// A problem whose text a client may read.
    pub fn new(slug: ProblemType, detail: impl Into<String>) -> Self {
        Self {
            slug,
            detail: detail.into(),
            expected: None,
            cause: None,
        }
    }

    /// A malformed request.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(ProblemType::InvalidRequest, detail)
    }

    /// A defect: the client learns only that the log knows more.
    pub fn internal(cause: impl Into<String>) -> Self {
        Self {
            cause: Some(cause.into()),
            ..Self::new(
                ProblemType::Internal,
                "the daemon met a defect; its log has the cause under this answer's x-request-id",
            )
        }
    }

    /// The slug.
    pub fn slug(&self) -> ProblemType {
        self.slug
    }

    /// What the log says of it.
    pub fn failure(&self) -> Failure {
        Failure {
            slug: self.slug,
            cause: self.cause.clone().unwrap_or_else(|| self.detail.clone()),
        }
    }

    /// The problem as the client reads it.
    pub fn body(&self) -> ProblemBody<'_> {
        let detail = match self.detail.char_indices().nth(MAX_DETAIL) {
            Some((end, _)) => Cow::Owned(format!("{}…", &self.detail[..end])),
            None => Cow::Borrowed(self.detail.as_str()),
        };
        ProblemBody {
            kind: self.slug.urn(),
            title: self.slug.title(),
            status: self.slug.status(),
            detail,
            retryable: self.slug.retryable(),
            expected: self.expected,
        }
    }

    /// The problem as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(&self.body()).expect("a problem is plain data")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.slug.status()).expect("the table holds statuses");
        let mut response = (status, self.to_json()).into_response();
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.slug == ProblemType::Unauthorized {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(self.failure());
        response
    }
}

impl From<InvalidId> for Problem {
    fn from(error: InvalidId) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<FrameError> for Problem {
    fn from(error: FrameError) -> Self {
        let slug = match &error {
            FrameError::Empty
            | FrameError::Truncated { .. }
            | FrameError::PartitionOutOfRange { .. }
            | FrameError::EmptyPage { .. } => ProblemType::InvalidFrame,
            FrameError::PageTooLarge { .. } => ProblemType::PageTooLarge,
            FrameError::ChecksumMismatch { .. } => ProblemType::ChecksumMismatch,
        };
        Self::new(slug, error.to_string())
    }
}

impl From<StorageError> for Problem {
    fn from(error: StorageError) -> Self {
        let slug = match error.kind {
            StorageErrorKind::NotFound => ProblemType::DataLost,
            // Another daemon may have the permission or the base directory that this one lacks.
            StorageErrorKind::Unavailable
            | StorageErrorKind::Refused
            | StorageErrorKind::UnknownBase => ProblemType::StorageUnavailable,
            StorageErrorKind::Corrupt => ProblemType::DataCorrupt,
        };
        Self::new(slug, error.to_string())
    }
}

impl From<IngestError> for Problem {
    fn from(error: IngestError) -> Self {
        let detail = error.to_string();
        let mut expected_batch = None;
        let slug = match error {
            IngestError::SinkNotFound { .. } => ProblemType::SinkNotFound,
            IngestError::SinkAborted { .. } => ProblemType::SinkAborted,
            IngestError::SinkFinished { .. } => ProblemType::SinkFinished,
            IngestError::SinkFailed { .. } => ProblemType::SinkFailed,
            IngestError::BatchOutOfOrder { expected, .. } => {
                expected_batch = Some(expected);
                ProblemType::BatchOutOfOrder
            }
            IngestError::CountMismatch { .. } => ProblemType::CountMismatch,
            IngestError::ExchangeClosed { .. } => ProblemType::ExchangeClosed,
            IngestError::Draining => ProblemType::Draining,
            IngestError::Full { .. } => ProblemType::Overloaded,
            // No waiting would help: the body itself is too large for this daemon's memory.
            IngestError::OverCapacity(_) => ProblemType::BodyTooLarge,
            IngestError::Frame(inner) => return inner.into(),
            IngestError::Catalog(inner) => return inner.into(),
        };
        Self {
            expected: expected_batch,
            ..Self::new(slug, detail)
        }
    }
}

impl From<CatalogError> for Problem {
    fn from(error: CatalogError) -> Self {
        let detail = error.to_string();
        let slug = match error {
            CatalogError::NotCommitted { .. } => ProblemType::AttemptNotCommitted,
            CatalogError::ChosenTwice { .. } => ProblemType::InvalidRequest,
            CatalogError::Corrupt { .. } => ProblemType::DataCorrupt,
            CatalogError::Lost { .. } => ProblemType::DataLost,
            CatalogError::InvalidHandle { .. } => ProblemType::InvalidHandle,
            CatalogError::Storage(inner) => return inner.into(),
        };
        Self::new(slug, detail)
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        let detail = error.to_string();
        let slug = match error {
            ReadError::SkipBeyondEnd { .. } | ReadError::NoSuchPartition { .. } => {
                ProblemType::InvalidRequest
            }
            ReadError::Lost { .. } => ProblemType::DataLost,
            ReadError::Corrupt { .. } => ProblemType::DataCorrupt,
            ReadError::Interrupted => ProblemType::Draining,
            ReadError::Commit(inner) => return inner.into(),
            ReadError::Storage(inner) => return inner.into(),
        };
        Self::new(slug, detail)
    }
}

impl From<ExchangeError> for Problem {
    fn from(error: ExchangeError) -> Self {
        let detail = error.to_string();
        let slug = match error {
            ExchangeError::NotFound { .. } => ProblemType::ExchangeNotFound,
            ExchangeError::Closed { .. } => ProblemType::ExchangeClosed,
            ExchangeError::Conflict { .. } => ProblemType::ExchangeConflict,
            ExchangeError::TooManyPartitions { .. } | ExchangeError::NoPartitions => {
                ProblemType::InvalidRequest
            }
            ExchangeError::Unreadable { .. } => ProblemType::DataCorrupt,
            ExchangeError::Contended { .. } => ProblemType::StorageUnavailable,
            ExchangeError::Storage(inner) => return inner.into(),
        };
        Self::new(slug, detail)
    }
}

#[cfg(test)]
mod tests;
