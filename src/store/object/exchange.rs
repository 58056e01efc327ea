//! Requests to the services that give out credentials.
//!
//! Does: send one and turn a refusal into an error in the words of the stores' clients, so that all
//! failures are read alike. Does not: know a service (`role`, `pod`). Invariant: an error names
//! what was asked for and never shows the request.

use std::time::Duration;

use object_store::client::{HttpClient, HttpError, HttpRequest, HttpRequestBody};
use object_store::signer::{HeaderValue, Method};

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// An answer with status 2xx.
pub(super) struct Answer {
    pub body: String,
    /// When the service says it was sent, since 1970.
    pub date: Option<Duration>,
}

/// No answer came.
#[derive(Debug, thiserror::Error)]
#[error("{action} failed")]
struct Unanswered {
    action: String,
    #[source]
    source: HttpError,
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
    store: &'static str,
    action: &str,
) -> object_store::Result<Answer> {
    let unanswered = |source| {
        let action = action.to_owned();
        failed(store, Unanswered { action, source })
    };
    let answer = http.execute(request).await.map_err(unanswered)?;
    let status = answer.status();
    let date = answer.headers().get("date").and_then(since_1970);
    let body = answer.into_body().bytes().await.map_err(unanswered)?;
    let body = String::from_utf8_lossy(&body).into_owned();
    if status.is_success() {
        return Ok(Answer { body, date });
    }
    let text = format!("{action}: Server returned non-2xx status code: {status}: {body}");
    Err(match status.as_u16() {
        408 | 429 => failed(store, text),
        400..500 => object_store::Error::Unauthenticated {
            path: action.to_owned(),
            source: text.into(),
        },
        _ => failed(store, text),
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
