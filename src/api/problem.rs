//! Every error that a client can receive, as RFC 9457 problem+json.
//!
//! Does: define the problem types, and map the errors of each module to them. Does not: decide what
//! failed. Invariant: [`ProblemType`] equals the table in `docs/protocol.md` (a test reads the
//! page); the maps name every variant, so that a new error does not compile until it is mapped.

use std::borrow::Cow;

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

use crate::catalog::CatalogError;
use crate::catalog::handle::{HandleError, SealError};
use crate::exchange::{DescriptorError, ExchangeError, MarkerFailure};
use crate::id::InvalidId;
use crate::ingest::IngestError;
use crate::read::ReadError;
use crate::segment::frame::FrameError;
use crate::storage::{Remedy, StorageError, StorageFailure, StoreErrorKind};

/// Longest `detail`, in characters: the message of a store may be a whole HTML page.
const MAX_DETAIL: usize = 1024;

macro_rules! problem_types {
    ($($name:ident = $slug:literal, $status:literal, $remedy:ident, $title:literal;)*) => {
        /// The type of a problem; `docs/protocol.md` describes when each one occurs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(missing_docs)]
        pub enum ProblemType { $($name),* }

        impl ProblemType {
            /// All types.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The last component of the problem's `type`, its slug.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $slug),* }
            }

            /// The HTTP status of the response.
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status),* }
            }

            /// What the client should do.
            pub const fn remedy(self) -> Remedy {
                use Remedy::{Bug, DataLost, FixCallOrConfiguration as Fix, Retry};
                match self { $(Self::$name => $remedy),* }
            }

            /// The problem's `title`.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title),* }
            }
        }
    };
}

problem_types! {
    InvalidRequest = "invalid-request", 400, Fix, "Invalid request";
    InvalidFrame = "invalid-frame", 400, Fix, "Invalid batch";
    ChecksumMismatch = "checksum-mismatch", 400, Retry, "A page was damaged in transit";
    InvalidHandle = "invalid-handle", 400, Fix, "Invalid source handle";
    UnsupportedProtocol = "unsupported-protocol", 400, Fix, "No version in common";
    Unauthorized = "unauthorized", 401, Fix, "A valid token or client certificate is required";
    Forbidden = "forbidden", 403, Fix, "This is not permitted";
    NotFound = "not-found", 404, Fix, "No such route";
    ExchangeNotFound = "exchange-not-found", 404, Fix, "Unknown exchange";
    SinkNotFound = "sink-not-found", 404, DataLost, "Unknown attempt";
    MethodNotAllowed = "method-not-allowed", 405, Fix, "Method not allowed";
    LengthRequired = "length-required", 411, Fix, "Content-Length required";
    PageTooLarge = "page-too-large", 413, Fix, "Page too large";
    BodyTooLarge = "body-too-large", 413, Fix, "Body too large";
    UnsupportedMediaType = "unsupported-media-type", 415, Fix, "Unsupported content type";
    ExchangeConflict = "exchange-conflict", 409, Fix, "Announced with other properties";
    BatchOutOfOrder = "batch-out-of-order", 409, Fix, "Batch out of order";
    CountMismatch = "count-mismatch", 409, DataLost, "The counts differ from what arrived";
    SinkAborted = "sink-aborted", 409, Fix, "The attempt was aborted";
    SinkFinished = "sink-finished", 409, Fix, "The attempt is finished";
    AttemptNotCommitted = "attempt-not-committed", 409, Fix, "A chosen attempt is not committed";
    ExchangeClosed = "exchange-closed", 410, Fix, "The exchange is closed";
    DataLost = "data-lost", 502, DataLost, "Stored data is missing";
    DataCorrupt = "data-corrupt", 502, Retry, "Stored data is corrupt";
    StorageUnavailable = "storage-unavailable", 503, Retry, "A base directory is unavailable";
    UnknownBaseDirectory = "unknown-base-directory", 503, Retry, "A base directory is unknown";
    SinkFailed = "sink-failed", 503, DataLost, "The attempt could not be written";
    Starting = "starting", 503, Retry, "The daemon is starting";
    Draining = "draining", 503, Retry, "The daemon is stopping";
    Overloaded = "overloaded", 503, Retry, "A limit of the daemon is reached";
    Timeout = "timeout", 408, Retry, "The body arrived too slowly";
    InvalidConfiguration = "invalid-configuration", 422, Fix, "The configuration is not accepted";
    TooMuchStored = "too-much-stored", 507, Fix, "The query stores too much";
    Internal = "internal", 500, Bug, "Internal error";
}

impl ProblemType {
    /// Whether the same request, sent again to this or another daemon, may succeed. After a bug it
    /// may: another daemon can be in another state.
    pub const fn retryable(self) -> bool {
        matches!(self.remedy(), Remedy::Retry | Remedy::Bug)
    }

    /// The problem's `type`.
    pub fn urn(self) -> String {
        format!("urn:stopover:problem:{}", self.as_str())
    }
}

/// The JSON document.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody<'a> {
    /// `urn:stopover:problem:<slug>`; clients decide by it, then by `retryable`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The meaning of `type`, for people.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What failed, the limit if there is one, and what to do.
    pub detail: Cow<'a, str>,
    /// Whether the same request, sent again to this or another daemon, may succeed.
    pub retryable: bool,
    /// With `batch-out-of-order`: the number that the next batch must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<u64>,
}

/// A problem; `type` says which one
#[derive(IntoResponses)]
#[response(status = "default", content_type = "application/problem+json")]
pub struct ProblemResponse(pub ProblemBody<'static>);

/// An error as the response to a request. It travels in the response's extensions too, so that it
/// is logged once, together with the request's id.
#[derive(Debug, Clone)]
pub struct Problem {
    problem_type: ProblemType,
    detail: String,
    expected: Option<u64>,
    /// For the log only; `None` if `detail` is complete.
    cause: Option<String>,
}

impl Problem {
    /// A problem with a text for the client.
    pub fn new(problem_type: ProblemType, detail: impl Into<String>) -> Self {
        Self {
            problem_type,
            detail: detail.into(),
            expected: None,
            cause: None,
        }
    }

    /// An invalid request.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(ProblemType::InvalidRequest, detail)
    }

    /// A bug. The cause is not sent to the client.
    pub fn internal(cause: impl Into<String>) -> Self {
        Self {
            cause: Some(cause.into()),
            ..Self::new(
                ProblemType::Internal,
                "internal error; the daemon's log has the cause under this response's x-request-id",
            )
        }
    }

    /// Which problem it is.
    pub fn problem_type(&self) -> ProblemType {
        self.problem_type
    }

    /// The text for the log.
    pub fn cause(&self) -> &str {
        self.cause.as_deref().unwrap_or(&self.detail)
    }

    /// The JSON document for the client.
    pub fn body(&self) -> ProblemBody<'_> {
        let detail = match self.detail.char_indices().nth(MAX_DETAIL) {
            Some((end, _)) => Cow::Owned(format!("{}…", &self.detail[..end])),
            None => Cow::Borrowed(self.detail.as_str()),
        };
        ProblemBody {
            kind: self.problem_type.urn(),
            title: self.problem_type.title(),
            status: self.problem_type.status(),
            detail,
            retryable: self.problem_type.retryable(),
            expected: self.expected,
        }
    }

    /// The JSON text for the client.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(&self.body()).expect("a problem is plain data")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.problem_type.status());
        let status = status.expect("every problem type has a valid status");
        let mut response = (status, self.to_json()).into_response();
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.problem_type == ProblemType::Unauthorized {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.problem_type == ProblemType::Starting {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response.extensions_mut().insert(self);
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
        if let StorageFailure::UnknownBase { .. } = error.source {
            return Self::new(ProblemType::UnknownBaseDirectory, error.to_string());
        }
        let problem_type = match error.kind() {
            StoreErrorKind::NotFound => ProblemType::DataLost,
            // For two kinds the remedy of the problem differs from that of the error, because a
            // client can retry through another daemon: it may have the permission or the base
            // directory that this one lacks, or read intact bytes.
            StoreErrorKind::Unavailable | StoreErrorKind::Refused => {
                ProblemType::StorageUnavailable
            }
            StoreErrorKind::Corrupt => ProblemType::DataCorrupt,
        };
        Self::new(problem_type, error.to_string())
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
            IngestError::TooMuchStored(_) => ProblemType::TooMuchStored,
            IngestError::CountMismatch { .. } => ProblemType::CountMismatch,
            IngestError::ExchangeClosed { .. } => ProblemType::ExchangeClosed,
            IngestError::Draining => ProblemType::Draining,
            IngestError::Full { .. }
            | IngestError::MemoryShort { .. }
            | IngestError::ForeignShareFull { .. } => ProblemType::Overloaded,
            // Waiting would not help: the batch exceeds what one query may ever use.
            IngestError::OverCapacity(_)
            | IngestError::TooManyRuns { .. }
            | IngestError::IndexTooLarge { .. } => ProblemType::BodyTooLarge,
            IngestError::Frame(inner) => return inner.into(),
            IngestError::Exchange(inner) => return inner.into(),
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
            CatalogError::NotCommitted { .. }
            | CatalogError::NothingCommitted { .. }
            | CatalogError::TaskCount { .. } => ProblemType::AttemptNotCommitted,
            CatalogError::ChosenTwice { .. } | CatalogError::TooManyRanges { .. } => {
                ProblemType::InvalidRequest
            }
            CatalogError::PlanTooLarge { .. } => ProblemType::Overloaded,
            CatalogError::Footer(_) | CatalogError::CountMismatch { .. } => {
                ProblemType::DataCorrupt
            }
            CatalogError::Lost { .. } | CatalogError::Vanished { .. } => ProblemType::DataLost,
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
            ReadError::InvalidHandle(inner) => handle_problem(&inner),
            ReadError::Lost { .. } => ProblemType::DataLost,
            ReadError::Corrupt { .. } => ProblemType::DataCorrupt,
            ReadError::Interrupted => ProblemType::Draining,
            ReadError::Catalog(inner) => return inner.into(),
            ReadError::Storage(inner) => return inner.into(),
        };
        Self::new(slug, detail)
    }
}

fn handle_problem(error: &HandleError) -> ProblemType {
    match error {
        HandleError::UnknownVersion { .. } | HandleError::Malformed(_) => {
            ProblemType::InvalidHandle
        }
        HandleError::Seal(error) => seal_problem(error, ProblemType::InvalidHandle),
    }
}

/// `invalid`: the problem of a text that no daemon of the fleet has sealed.
fn seal_problem(error: &SealError, invalid: ProblemType) -> ProblemType {
    match error {
        SealError::NotBase64(_) | SealError::TooShort | SealError::WrongSeal => invalid,
        SealError::UnknownBase { .. } | SealError::UnknownKey { .. } => {
            ProblemType::UnknownBaseDirectory
        }
        SealError::Unidentified { .. } => ProblemType::StorageUnavailable,
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
            ExchangeError::TooManyAnnounced { .. } | ExchangeError::TooManyMarkers { .. } => {
                ProblemType::Overloaded
            }
            ExchangeError::NotAnnounced { failure, .. } => match &*failure {
                MarkerFailure::Storage(_) | MarkerFailure::Late { .. } => {
                    ProblemType::StorageUnavailable
                }
                MarkerFailure::Conflict => ProblemType::ExchangeConflict,
                MarkerFailure::Damaged => ProblemType::DataCorrupt,
            },
            ExchangeError::OtherDescriptor { .. } => ProblemType::InvalidRequest,
            ExchangeError::Descriptor(inner) => match &inner {
                DescriptorError::TooLong
                | DescriptorError::UnknownVersion { .. }
                | DescriptorError::NoBase
                | DescriptorError::Malformed(_) => ProblemType::InvalidRequest,
                DescriptorError::Seal(error) => seal_problem(error, ProblemType::InvalidRequest),
            },
            ExchangeError::Storage(inner) => return inner.into(),
        };
        Self::new(slug, detail)
    }
}

#[cfg(test)]
mod tests;
