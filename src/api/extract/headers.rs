//! The headers that describe a request body.

use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};

use super::number::decimal;
use crate::api::problem::{Problem, ProblemType};

/// The media type without its parameters, in lower case; `None` without a `Content-Type`. A body
/// with a `Content-Encoding` is refused: its bytes would be misinterpreted.
pub(super) fn media_type(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
    if encodings.any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        let detail = "the body has a Content-Encoding; send it without one";
        return Err(Problem::new(ProblemType::UnsupportedMediaType, detail));
    }
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let Some(first) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Problem::invalid("Content-Type is given more than once"));
    }
    let text = first
        .to_str()
        .map_err(|_| Problem::invalid("Content-Type is not text"))?;
    let essence = text.split(';').next().unwrap_or_default();
    Ok(Some(essence.trim().to_ascii_lowercase()))
}

/// The problem of a body whose media type the route does not accept.
pub(super) fn unsupported(given: Option<&str>, accepted: &str) -> Problem {
    let given = given.map_or("has no Content-Type".to_owned(), |it| format!("is {it}"));
    Problem::new(
        ProblemType::UnsupportedMediaType,
        format!("the body {given}; this route accepts {accepted}"),
    )
}

/// Whether the client says that the sink is foreign.
pub(super) fn is_foreign(headers: &HeaderMap) -> Result<bool, Problem> {
    match headers.get("stopover-foreign").map(HeaderValue::as_bytes) {
        None => Ok(false),
        Some(b"1") => Ok(true),
        Some(_) => Err(Problem::invalid(
            "Stopover-Foreign is 1 for a foreign sink, and absent for any other",
        )),
    }
}

/// The `Content-Length`, if it is given.
pub(super) fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get(CONTENT_LENGTH) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    decimal("Content-Length", text, u64::MAX).map(Some)
}
