//! Exchanges: announce, close.

use axum::Json;
use axum::extract::State;
use axum::http::header::{IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::authorization::caller::Caller;
use crate::api::descriptor::DESCRIPTOR;
use crate::api::extract::{ExchangeParams, ExchangePath, JsonBody, NoQuery, StrictJson};
use crate::api::problem::{Problem, ProblemResponse};
use crate::api::state::SharedState;
use crate::exchange::{Announce, ExchangeError, ExchangeSpec};
use crate::storage::Cleared;

/// The properties of a new exchange.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Announcement {
    /// Number of output partitions, at least one.
    partitions: u32,
    /// Whether the pages of a partition are read in the order of their sink.
    ordered: bool,
}

impl JsonBody for Announcement {
    const MAX_SIZE: u64 = 4 << 10;
}

/// An open exchange.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AnnounceResponse {
    exchange: String,
    partitions: u32,
    ordered: bool,
    /// Duration of the lease; repeat the call at least every third of it.
    lease_seconds: u64,
    /// What was announced, sealed and opaque: the value of the header `Stopover-Exchange` of each
    /// later request for the exchange.
    descriptor: String,
}

/// Whether the call may create the exchange: `If-Match: *` requires that it exists, and
/// `If-None-Match: *` that it does not. With a descriptor, the latter is the second request of an
/// announcement.
fn which(headers: &HeaderMap) -> Result<Announce, Problem> {
    let given = |name: &HeaderName| {
        let mut values = headers.get_all(name).iter();
        match (values.next().map(|value| value.as_bytes()), values.next()) {
            (None, _) => Ok(false),
            (Some(b"*"), None) => Ok(true),
            _ => Err(Problem::invalid(format!("{name} accepts only *, once"))),
        }
    };
    match (given(&IF_MATCH)?, given(&IF_NONE_MATCH)?) {
        (false, false) => Ok(Announce::CreateOrRenew),
        (true, false) => Ok(Announce::Renew),
        (false, true) if headers.contains_key(DESCRIPTOR) => Ok(Announce::Confirm),
        (false, true) => Ok(Announce::New),
        (true, true) => Err(Problem::invalid(
            "If-Match renews an exchange and If-None-Match creates one: send one of them",
        )),
    }
}

/// The descriptor as the client sends it with later requests.
fn descriptor_header(text: &str) -> (HeaderName, HeaderValue) {
    let value = HeaderValue::from_str(text).expect("base64url is visible ASCII");
    (DESCRIPTOR, value)
}

/// Announces an exchange or renews its lease.
#[utoipa::path(
    put,
    path = "/v1/exchanges/{exchange}",
    tag = "exchanges",
    params(
        ExchangeParams,
        ("If-Match" = Option<String>, Header,
            description = "`*`: renew only; 404 or 410 if the exchange is not open"),
        ("If-None-Match" = Option<String>, Header,
            description = "`*`: the client has just drawn the id: announce it at once, and write \
                the marker behind the answer. With `Stopover-Exchange`: answer once that is \
                written"),
        ("Stopover-Exchange" = Option<String>, Header,
            description = "The descriptor of the exchange, if it was announced before. Every \
                request for an exchange may carry it: then the daemon need not read what the \
                exchange is"),
    ),
    request_body = Announcement,
    responses(
        (status = 201, description = "Announced", body = AnnounceResponse),
        (status = 200, description = "The lease is renewed", body = AnnounceResponse),
        ProblemResponse,
    )
)]
pub(crate) async fn announce(
    State(state): State<SharedState>,
    ExchangePath(exchange): ExchangePath,
    _: NoQuery,
    headers: HeaderMap,
    StrictJson(announcement, _): StrictJson<Announcement>,
) -> Result<impl IntoResponse + use<>, Problem> {
    let spec = ExchangeSpec {
        partitions: announcement.partitions,
        ordered: announcement.ordered,
    };
    let which = which(&headers)?;
    let exchanges = &state.parts.exchanges;
    let announced = exchanges.announce(&exchange, spec, which).await;
    if which == Announce::Renew && announced.as_ref().is_err_and(is_lost) {
        state.parts.metrics.renewals_refused.inc();
    }
    let announced = announced?;
    let lease = announced.descriptor.lease;
    let now = state.parts.runtime.clock.now();
    state.leases.renewed(&exchange, lease, now);
    let status = if announced.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let body = AnnounceResponse {
        exchange: exchange.to_string(),
        partitions: announcement.partitions,
        ordered: announcement.ordered,
        lease_seconds: announced.descriptor.lease.as_secs(),
        descriptor: exchanges.seal(&announced.descriptor)?,
    };
    let header = descriptor_header(&body.descriptor);
    Ok((status, [header], Json(body)))
}

/// Whether an exchange was closed, collected, or never there.
fn is_lost(error: &ExchangeError) -> bool {
    matches!(
        error,
        ExchangeError::Closed { .. } | ExchangeError::NotFound { .. }
    )
}

/// What a base directory has kept of a closed exchange.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CloseResponse {
    /// Why a base directory still has objects of the exchange.
    reason: String,
}

/// Closes an exchange: removes its objects from every base directory.
#[utoipa::path(
    delete,
    path = "/v1/exchanges/{exchange}",
    tag = "exchanges",
    params(ExchangeParams),
    responses(
        (status = 204, description = "The exchange no longer has any objects"),
        (status = 202, description = "The exchange is closed. A base directory did not answer; the \
            daemon removes what is left once it does", body = CloseResponse),
        ProblemResponse,
    )
)]
pub(crate) async fn close(
    State(state): State<SharedState>,
    ExchangePath(exchange): ExchangePath,
    caller: Caller,
    _: NoQuery,
) -> Result<Response, Problem> {
    let Cleared { segments, left } = state.parts.closing.close(&exchange).await?;
    let Some(error) = left else {
        tracing::info!(%exchange, client = %caller, segments, "exchange closed");
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    tracing::warn!(%exchange, client = %caller, segments, %error,
        "exchange closed; what is left is removed once the base directory answers");
    let body = CloseResponse {
        reason: error.to_string(),
    };
    Ok((StatusCode::ACCEPTED, Json(body)).into_response())
}
