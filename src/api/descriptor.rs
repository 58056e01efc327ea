//! The header that describes an exchange.
//!
//! Does: let the daemon learn what the exchange of a request is from the header
//! `Stopover-Exchange`, before the request is handled. Does not: find out whether the exchange is
//! open. Invariant: a descriptor of another exchange than the one in the path, or of another fleet,
//! is refused.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use super::state::SharedState;
use crate::id::ExchangeId;

pub(super) const DESCRIPTOR: HeaderName = HeaderName::from_static("stopover-exchange");

/// What all paths of one exchange begin with.
const EXCHANGES: &str = "/v1/exchanges/";

/// Wraps all routes.
pub(super) async fn record_descriptor(
    State(state): State<SharedState>,
    request: Request,
    next: Next,
) -> Response {
    match record_from_headers(&state, request.uri().path(), request.headers()).await {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

async fn record_from_headers(
    state: &SharedState,
    path: &str,
    headers: &HeaderMap,
) -> Result<(), Problem> {
    let (Some(value), Some(rest)) = (headers.get(DESCRIPTOR), path.strip_prefix(EXCHANGES)) else {
        return Ok(());
    };
    let not_text = |_| Problem::invalid("Stopover-Exchange is not text");
    let text = value.to_str().map_err(not_text)?;
    let name = rest.split('/').next().unwrap_or_default();
    let exchange: ExchangeId = name.parse()?;
    Ok(state
        .parts
        .exchanges
        .accept_descriptor(&exchange, text)
        .await?)
}
