//! Exchanges: announce, look at, close.

use axum::Json;
use axum::extract::State;
use axum::http::header::IF_MATCH;
use axum::http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::extract::{ExchangePath, NoQuery, StrictJson};
use crate::api::problem::{Problem, ProblemBody};
use crate::api::state::SharedState;
use crate::exchange::{Announce, ExchangeSpec};
use crate::id::ExchangeId;

/// What an exchange is announced with.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Announcement {
    /// Output partitions, at least one.
    partitions: u32,
    /// Whether pages of a partition keep the order of their sink.
    ordered: bool,
}

/// An announced exchange.
#[derive(Debug, Serialize, ToSchema)]
pub struct Announced {
    /// Its id.
    exchange: String,
    /// Output partitions.
    partitions: u32,
    /// Whether pages of a partition keep the order of their sink.
    ordered: bool,
    /// Repeat the call at least every third of this.
    lease_seconds: u64,
}

/// An exchange in a list. What cannot be read of it is left out.
#[derive(Debug, Serialize, ToSchema)]
pub struct ListedExchange {
    /// Its id.
    exchange: String,
    /// The query that it belongs to.
    query: String,
    /// Output partitions.
    #[serde(skip_serializing_if = "Option::is_none")]
    partitions: Option<u32>,
    /// Whether pages of a partition keep the order of their sink.
    #[serde(skip_serializing_if = "Option::is_none")]
    ordered: Option<bool>,
}

impl ListedExchange {
    fn new(exchange: &ExchangeId, spec: Option<ExchangeSpec>) -> Self {
        Self {
            exchange: exchange.to_string(),
            query: exchange.query().to_owned(),
            partitions: spec.as_ref().map(|spec| spec.partitions),
            ordered: spec.map(|spec| spec.ordered),
        }
    }
}

/// All exchanges.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExchangeList {
    /// Those that left anything in the base directories.
    exchanges: Vec<ListedExchange>,
}

/// A finished attempt.
#[derive(Debug, Serialize, ToSchema)]
pub struct Committed {
    /// Task partition.
    task: u32,
    /// Attempt.
    attempt: u32,
    /// Its pages.
    pages: u64,
    /// Its page bytes.
    bytes: u64,
}

/// A segment.
#[derive(Debug, Serialize, ToSchema)]
pub struct Segment {
    /// Its id.
    segment: String,
    /// Name of the base directory that holds it.
    base: String,
    /// Bytes of the object.
    size: u64,
}

/// An exchange with what it holds.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExchangeContent {
    /// What it is.
    #[serde(flatten)]
    exchange: ListedExchange,
    /// Its finished attempts.
    committed: Vec<Committed>,
    /// Its segments.
    segments: Vec<Segment>,
}

/// Whether the call may bring the exchange into being: `If-Match: *` says that it exists.
fn which(headers: &HeaderMap) -> Result<Announce, Problem> {
    let mut values = headers.get_all(IF_MATCH).iter();
    match (values.next().map(|value| value.as_bytes()), values.next()) {
        (None, _) => Ok(Announce::CreateOrRenew),
        (Some(b"*"), None) => Ok(Announce::Renew),
        _ => Err(Problem::invalid(
            "If-Match can only be *, once: renew the lease, but announce nothing new",
        )),
    }
}

/// Announces an exchange or renews its lease.
#[utoipa::path(
    put,
    path = "/v1/exchanges/{exchange}",
    tag = "exchanges",
    params(
        ("exchange" = String, Path, description = "1 to 160 characters of A-Z a-z 0-9 _ -"),
        ("If-Match" = Option<String>, Header,
            description = "`*`: only renew; 404 or 410 if the exchange is not open"),
    ),
    request_body = Announcement,
    responses(
        (status = 201, description = "Announced", body = Announced),
        (status = 200, description = "Announced before; the lease is renewed", body = Announced),
        (status = "default", body = ProblemBody<'static>,
            content_type = "application/problem+json"),
    )
)]
pub async fn announce(
    State(state): State<SharedState>,
    ExchangePath(exchange): ExchangePath,
    _: NoQuery,
    headers: HeaderMap,
    StrictJson(wanted, _): StrictJson<Announcement>,
) -> Result<(StatusCode, Json<Announced>), Problem> {
    let Announcement {
        partitions,
        ordered,
    } = wanted;
    let spec = ExchangeSpec {
        partitions,
        ordered,
    };
    let which = which(&headers)?;
    let exchanges = &state.parts.exchanges;
    let announced = exchanges.announce(&exchange, spec, which).await?;
    let status = if announced.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let body = Announced {
        exchange: exchange.to_string(),
        partitions,
        ordered,
        lease_seconds: announced.lease_seconds,
    };
    Ok((status, Json(body)))
}

/// Lists the exchanges found in the base directories.
#[utoipa::path(
    get,
    path = "/v1/exchanges",
    tag = "exchanges",
    responses(
        (status = 200, body = ExchangeList),
        (status = "default", body = ProblemBody<'static>,
            content_type = "application/problem+json"),
    )
)]
pub async fn list(
    State(state): State<SharedState>,
    _: NoQuery,
) -> Result<Json<ExchangeList>, Problem> {
    let found = state.parts.exchanges.list().await?;
    let exchanges = found
        .into_iter()
        .map(|(exchange, spec)| ListedExchange::new(&exchange, spec))
        .collect();
    Ok(Json(ExchangeList { exchanges }))
}

/// One exchange with its committed attempts and its segments.
#[utoipa::path(
    get,
    path = "/v1/exchanges/{exchange}",
    tag = "exchanges",
    params(("exchange" = String, Path, description = "1 to 160 characters of A-Z a-z 0-9 _ -")),
    responses(
        (status = 200, body = ExchangeContent),
        (status = "default", body = ProblemBody<'static>,
            content_type = "application/problem+json"),
    )
)]
pub async fn show(
    State(state): State<SharedState>,
    ExchangePath(exchange): ExchangePath,
    _: NoQuery,
) -> Result<Json<ExchangeContent>, Problem> {
    let spec = state.parts.exchanges.lookup_uncached(&exchange).await?;
    let content = state.parts.commits.content(&exchange).await?;
    let committed = content.committed.iter().map(|done| Committed {
        task: done.attempt.task,
        attempt: done.attempt.attempt,
        pages: done.totals.pages,
        bytes: done.totals.bytes,
    });
    let segments = content.segments.iter().map(|(at, size)| Segment {
        segment: at.segment.to_string(),
        base: at.base.to_string(),
        size: *size,
    });
    Ok(Json(ExchangeContent {
        exchange: ListedExchange::new(&exchange, Some(spec)),
        committed: committed.collect(),
        segments: segments.collect(),
    }))
}

/// Closes an exchange: removes everything that it left in every base directory.
#[utoipa::path(
    delete,
    path = "/v1/exchanges/{exchange}",
    tag = "exchanges",
    params(("exchange" = String, Path, description = "1 to 160 characters of A-Z a-z 0-9 _ -")),
    responses(
        (status = 204, description = "Nothing is left, or there was nothing"),
        (status = "default", body = ProblemBody<'static>,
            content_type = "application/problem+json"),
    )
)]
pub async fn close(
    State(state): State<SharedState>,
    ExchangePath(exchange): ExchangePath,
    _: NoQuery,
) -> Result<StatusCode, Problem> {
    state.parts.closing.close(&exchange).await?;
    Ok(StatusCode::NO_CONTENT)
}
