//! Sinks: declare, withdraw, add pages, finish, abort.
//!
//! Invariant: a request is refused before its body is read where possible, and a body is read only
//! under a reservation for all of it. A handler that is dropped at an await, because its client has
//! disconnected, has changed nothing: `append` does not wait, and a finish continues without its
//! handler.

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::extract::{
    JsonBody, NoQuery, OptionalJson, PageContent, PageHead, QueryParameters, SinkParams, SinkPath,
    StrictQuery, Values, read_exactly,
};
use crate::api::problem::{Problem, ProblemResponse, ProblemType};
use crate::api::state::SharedState;
use crate::id::MAX_PARTITIONS;
use crate::ingest::{Aborted, ClientTotals};
use crate::segment::frame::{BatchVerifier, FRAME_HEADER_LEN, write_frame_header};
use crate::telemetry::traces::SpanRef;

/// Query of a page request.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PagesQuery {
    /// Number of the batch within the sink, from 0; optional for a raw page.
    batch: Option<u32>,
    /// Output partition of a raw page.
    partition: Option<u32>,
}

impl QueryParameters for PagesQuery {
    const NAMES: &'static [&'static str] = &["batch", "partition"];

    fn from_values(values: &Values<'_>) -> Result<Self, Problem> {
        Ok(Self {
            batch: values.number("batch", u32::MAX)?,
            partition: values.number("partition", MAX_PARTITIONS - 1)?,
        })
    }
}

/// The batch was accepted.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BatchAccepted {
    /// Number of the batch.
    batch: u32,
    /// The number that the next batch must have.
    next: u64,
    /// Whether the batch had been accepted before; then nothing changed.
    repeated: bool,
}

/// What the client has sent.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FinishClaim {
    batches: u64,
    pages: u64,
    /// Page bytes, without frame headers.
    bytes: u64,
    /// CRC-32C over the `crc` fields of all pages in the order in which they were sent.
    checksum: Option<u32>,
}

impl JsonBody for FinishClaim {
    const MAX_SIZE: u64 = 4 << 10;
}

impl From<FinishClaim> for ClientTotals {
    fn from(claim: FinishClaim) -> Self {
        Self {
            batches: claim.batches,
            pages: claim.pages,
            bytes: claim.bytes,
            checksum: claim.checksum,
        }
    }
}

/// How an attempt was settled.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SinkOutcome {
    /// Every page is durable.
    Finished,
    /// No page will be visible.
    Aborted,
}

/// The attempt is committed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FinishResponse {
    /// `finished`
    state: SinkOutcome,
    batches: u64,
    pages: u64,
    /// Page bytes, without frame headers.
    bytes: u64,
}

/// The attempt is settled.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AbortResponse {
    /// `finished` if the attempt had finished before: then nothing changed.
    state: SinkOutcome,
}

/// A batch has a number and no partition, a raw page has a partition.
fn check_query(query: &PagesQuery, content: PageContent) -> Result<(), Problem> {
    let wrong = match (content, query.batch, query.partition) {
        (PageContent::Batch, None, _) => "a batch needs its number: add ?batch=N, from 0",
        (PageContent::Batch, _, Some(_)) => {
            "partition applies only to a raw page (application/octet-stream): each frame of a \
             batch names its own"
        }
        (PageContent::RawPage, _, None) => {
            "a raw page needs its output partition: add ?partition=P"
        }
        _ => return Ok(()),
    };
    Err(Problem::invalid(wrong))
}

/// Declares that an attempt will be written at this daemon, before its first page.
///
/// Optional; it creates no sink. The daemon checks in advance whether the exchange is open, and
/// uses declarations to decide which other sinks a group commit waits for.
#[utoipa::path(
    put,
    path = "/v1/exchanges/{exchange}/sinks/{task}/{attempt}",
    tag = "sinks",
    params(SinkParams),
    responses(
        (status = 204, description = "The daemon accepts its pages now"),
        ProblemResponse,
    )
)]
pub(crate) async fn declare(
    State(state): State<SharedState>,
    SinkPath(sink): SinkPath,
    _: NoQuery,
) -> Result<StatusCode, Problem> {
    let exchanges = &state.parts.exchanges;
    exchanges.lookup(&sink.exchange).await?;
    state.parts.ingest.declare_sink(&sink)?;
    exchanges.poll_marker(&sink.exchange);
    Ok(StatusCode::NO_CONTENT)
}

/// Withdraws the declaration of an attempt that will not be written at this daemon.
///
/// A group commit then no longer waits for it. A sink that has pages is not affected.
#[utoipa::path(
    delete,
    path = "/v1/exchanges/{exchange}/sinks/{task}/{attempt}",
    tag = "sinks",
    params(SinkParams),
    responses(
        (status = 204, description = "The daemon expects no pages of it"),
        ProblemResponse,
    )
)]
pub(crate) async fn withdraw(
    State(state): State<SharedState>,
    SinkPath(sink): SinkPath,
    _: NoQuery,
) -> StatusCode {
    state.parts.ingest.withdraw_sink(&sink);
    StatusCode::NO_CONTENT
}

/// Adds a batch of page frames, or one raw page.
#[utoipa::path(
    post,
    path = "/v1/exchanges/{exchange}/sinks/{task}/{attempt}/pages",
    tag = "sinks",
    params(SinkParams, PagesQuery),
    request_body(content(
        (Vec<u8> = "application/vnd.stopover.pages"),
        (Vec<u8> = "application/octet-stream"),
    )),
    responses(
        (status = 200, body = BatchAccepted),
        ProblemResponse,
    )
)]
pub(crate) async fn add_pages(
    State(state): State<SharedState>,
    SinkPath(sink): SinkPath,
    StrictQuery(query): StrictQuery<PagesQuery>,
    head: PageHead,
    body: Body,
) -> Result<Json<BatchAccepted>, Problem> {
    check_query(&query, head.content)?;
    let raw_partition = query.partition;
    let parts = &state.parts;
    let partitions = parts.exchanges.lookup(&sink.exchange).await?.partitions;
    parts.exchanges.poll_marker(&sink.exchange);
    if let Some(partition) = raw_partition.filter(|partition| *partition >= partitions) {
        let detail = format!("partition {partition} does not exist: the exchange has {partitions}");
        return Err(Problem::new(ProblemType::InvalidFrame, detail));
    }
    let admission = parts.ingest.admit(&sink, query.batch)?;

    let room = raw_partition.map_or(0, |_| FRAME_HEADER_LEN);
    // Acquired before the memory: the requests that a query may have at a time include those that
    // wait for memory.
    let _slot = state.write_slot(&sink.exchange).await;
    let length = (room + head.length) as u64;
    let mut admission = match head.foreign {
        true => admission.reserve_foreign(length)?,
        false => admission.reserve(length).await?,
    };
    let limits = &state.body_limits;
    let mut check = BatchVerifier::new(partitions, limits.max_page_size);
    let verify = |received: &[u8]| {
        // A raw page has no frame header until the whole body has arrived.
        if room == 0 {
            check.update(received);
            admission.reserve_overhead(&check)?;
        }
        Ok(())
    };
    let (sizes, pool) = ((room, head.length), &parts.write_memory);
    let mut buffer = read_exactly(body, sizes, limits, pool, verify).await?;
    if let Some(partition) = raw_partition {
        write_frame_header(&mut buffer, partition);
    }
    let appended = admission.append(check, Bytes::from(buffer))?;
    let span = SpanRef::current();
    span.set_number("stopover.batch", appended.batch.into());
    span.set_number("stopover.bytes", length);
    Ok(Json(BatchAccepted {
        batch: appended.batch,
        next: appended.next,
        repeated: appended.repeated,
    }))
}

/// Commits an attempt: makes it durable and visible.
#[utoipa::path(
    post,
    path = "/v1/exchanges/{exchange}/sinks/{task}/{attempt}/finish",
    tag = "sinks",
    params(SinkParams),
    request_body(content = Option<FinishClaim>, description = "If absent, counts are not checked"),
    responses(
        (status = 200, description = "Every page is durable", body = FinishResponse),
        ProblemResponse,
    )
)]
pub(crate) async fn finish(
    State(state): State<SharedState>,
    SinkPath(sink): SinkPath,
    _: NoQuery,
    OptionalJson(claim): OptionalJson<FinishClaim>,
) -> Result<Json<FinishResponse>, Problem> {
    state.parts.exchanges.lookup(&sink.exchange).await?;
    let claim = claim.map(|(claim, _)| ClientTotals::from(claim));
    let totals = state.parts.ingest.finish(&sink, claim).await?;
    Ok(Json(FinishResponse {
        state: SinkOutcome::Finished,
        batches: totals.batches,
        pages: totals.pages,
        bytes: totals.bytes,
    }))
}

/// Aborts an attempt, unless it has finished.
#[utoipa::path(
    post,
    path = "/v1/exchanges/{exchange}/sinks/{task}/{attempt}/abort",
    tag = "sinks",
    params(SinkParams),
    responses(
        (status = 200, body = AbortResponse),
        ProblemResponse,
    )
)]
pub(crate) async fn abort(
    State(state): State<SharedState>,
    SinkPath(sink): SinkPath,
    _: NoQuery,
) -> Result<Json<AbortResponse>, Problem> {
    state.parts.exchanges.lookup(&sink.exchange).await?;
    let state = match state.parts.ingest.abort(&sink).await? {
        Aborted::Aborted => SinkOutcome::Aborted,
        Aborted::AlreadyFinished => SinkOutcome::Finished,
    };
    Ok(Json(AbortResponse { state }))
}
