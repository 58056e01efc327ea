//! Requests to the services that give out credentials.
//!
//! Does: send one and turn a refusal into an error in the words of the stores' clients, so that all
//! failures are read alike, which says which service failed and how. Does not: know what a service
//! is asked for (`role`, `pod`) or what to do about a failure (`issuer_advice`). Invariant: an
//! error names what was asked for and never shows the request.

use std::time::Duration;

use object_store::client::{HttpClient, HttpError, HttpRequest, HttpRequestBody};
use object_store::signer::{HeaderValue, Method};

use super::causes::cause;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// An answer with status 2xx.
pub(super) struct Answer {
    pub body: String,
    /// When the service says it was sent, since 1970.
    pub date: Option<Duration>,
}

/// A service that gives out credentials, by what is shown to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Issuer {
    /// STS, which lets other credentials assume a role.
    Role,
    /// STS, which lets the token of a pod assume a role.
    WebIdentity,
    /// The agent on a node of EKS, for the token of a pod.
    PodAgent,
    /// Microsoft's login service, for the token of a pod.
    Federation,
    /// Microsoft's login service, for the secret of an application.
    ClientSecret,
    /// Google's token service, for what a key has signed.
    Google,
}

impl Issuer {
    /// The store, as its client calls it.
    pub(super) fn store(self) -> &'static str {
        match self {
            Self::Role | Self::WebIdentity | Self::PodAgent => "S3",
            Self::Federation | Self::ClientSecret => "MicrosoftAzure",
            Self::Google => "GCS",
        }
    }
}

/// How a service that gives out credentials failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IssuerFault {
    /// No answer came.
    Unreachable,
    /// It does not accept what was shown to it, or the request.
    Refused,
    /// It failed itself, or wants to be asked later.
    Failed,
    /// It answered with success and without credentials.
    NoCredentials,
}

impl IssuerFault {
    /// What an answer with this status, which is not one of success, and this text says. STS
    /// answers 400 also where it wants to be asked later.
    pub(super) fn of(status: u16, text: &str) -> Self {
        match status {
            408 | 429 => Self::Failed,
            400..500 if !wants_to_be_asked_later(text) => Self::Refused,
            _ => Self::Failed,
        }
    }
}

/// Error codes with which STS and the agents of AWS ask to be asked later, as AWS's tools retry
/// them.
const LATER: [&str; 9] = [
    "IDPCommunicationError",
    "InternalFailure",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "ServiceUnavailable",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
];

fn wants_to_be_asked_later(text: &str) -> bool {
    let mut codes = LATER.iter().map(|code| format!("<Code>{code}</Code>"));
    codes.any(|code| text.contains(&code))
}

/// The failure of a service that gives out credentials.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct IssuerError {
    issuer: Issuer,
    fault: IssuerFault,
    text: String,
    #[source]
    source: Option<HttpError>,
}

/// Which service failed and how, if that is why an operation failed.
pub(super) fn issuer_failure(error: &object_store::Error) -> Option<(Issuer, IssuerFault)> {
    let failure = cause::<IssuerError>(error)?;
    Some((failure.issuer, failure.fault))
}

/// The error of an answer to `action` that has no credentials.
pub(super) fn no_credentials(issuer: Issuer, action: &str) -> object_store::Error {
    let failure = IssuerError {
        issuer,
        fault: IssuerFault::NoCredentials,
        text: format!("{action}: the answer has no credentials"),
        source: None,
    };
    failed(issuer.store(), failure)
}

/// A failure of what is done for a store's client.
pub(super) fn failed(store: &'static str, source: impl Into<Cause>) -> object_store::Error {
    let source = source.into();
    object_store::Error::Generic { store, source }
}

/// A POST of a form.
///
/// # Errors
/// If the URL is none.
pub(super) fn form_request(url: &str, form: String) -> Result<HttpRequest, Cause> {
    let mut request = HttpRequest::new(HttpRequestBody::from(form));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = url.parse()?;
    let content_type = HeaderValue::from_static("application/x-www-form-urlencoded");
    request.headers_mut().insert("content-type", content_type);
    Ok(request)
}

/// The answer to a request that asks for `action`.
///
/// # Errors
/// If none comes, or if it has another status than 2xx.
pub(super) async fn answer_to(
    http: &HttpClient,
    request: HttpRequest,
    issuer: Issuer,
    action: &str,
) -> object_store::Result<Answer> {
    let unanswered = |source| {
        let failure = IssuerError {
            issuer,
            fault: IssuerFault::Unreachable,
            text: format!("{action} failed"),
            source: Some(source),
        };
        failed(issuer.store(), failure)
    };
    let answer = http.execute(request).await.map_err(unanswered)?;
    let status = answer.status();
    let date = answer.headers().get("date").and_then(since_1970);
    let body = answer.into_body().bytes().await.map_err(unanswered)?;
    let body = String::from_utf8_lossy(&body).into_owned();
    if status.is_success() {
        return Ok(Answer { body, date });
    }
    let fault = IssuerFault::of(status.as_u16(), &body);
    let failure = IssuerError {
        issuer,
        fault,
        text: format!("{action}: Server returned non-2xx status code: {status}: {body}"),
        source: None,
    };
    Err(match fault {
        IssuerFault::Refused => object_store::Error::Unauthenticated {
            path: action.to_owned(),
            source: failure.into(),
        },
        _ => failed(issuer.store(), failure),
    })
}

/// The longest that credentials are kept, whatever a service says.
pub(super) const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// How long credentials are valid that end at `expiration`, by the clock of the service that gave
/// them at `now`, so that a wrong clock here does no harm. `None` if either is not known.
pub(super) fn lifetime(expiration: Option<&str>, now: Option<Duration>) -> Option<Duration> {
    let end = humantime::parse_rfc3339_weak(expiration?).ok()?;
    let end = end.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(end.saturating_sub(now?).min(LONGEST))
}

fn since_1970(date: &HeaderValue) -> Option<Duration> {
    let date = httpdate::parse_http_date(date.to_str().ok()?).ok()?;
    date.duration_since(std::time::UNIX_EPOCH).ok()
}
