//! What is taken out of a request, one extractor a file; each refuses with a problem that says why.
//!
//! Does: turn untrusted text and bytes into checked values. Does not: know routes or what the
//! values are for. Invariant: what an extractor gives has been checked completely.

mod control_body;
mod exchange_path;
mod json;
mod number;
mod page_body;
mod partition_path;
mod query;
mod sink_path;
mod text;

pub use exchange_path::ExchangePath;
pub use json::{OptionalJson, StrictJson};
pub use page_body::{PageContent, PageHead, read_exactly};
pub use partition_path::PartitionPath;
pub use query::{NoQuery, QueryParameters, StrictQuery, Values};
pub use sink_path::SinkPath;
pub use text::TextBody;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;

use super::problem::Problem;

/// The path's parameters, percent-decoded but not yet checked.
async fn path_parameters(parts: &mut Parts) -> Result<RawPathParams, Problem> {
    RawPathParams::from_request_parts(parts, &())
        .await
        .map_err(|rejection| Problem::invalid(rejection.body_text()))
}

fn parameter<'a>(parameters: &'a RawPathParams, name: &str) -> Result<&'a str, Problem> {
    parameters
        .iter()
        .find_map(|(key, value)| (key == name).then_some(value))
        .ok_or_else(|| Problem::internal(format!("the route has no parameter {name}")))
}

/// The media type of a request without its parameters, in lower case; `None` if there is no header.
fn media_type(headers: &HeaderMap) -> Result<Option<String>, Problem> {
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

#[cfg(test)]
mod tests;
