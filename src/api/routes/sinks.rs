//! Sinks: expect, pages in, finish, abort.
//!
//! Invariant: whatever can be refused is refused before a byte of the body is read, and a body is
//! read only under a reservation for all of it. If the client leaves, the handler is dropped at an
//! await and has changed nothing: `append` does not wait, and a finish goes on without its handler.

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::extract::{
    NoQuery, OptionalJson, PageContent, PageHead, QueryParameters, SinkPath, StrictQuery, Values,
    read_exactly,
};
use crate::api::problem::{Problem, ProblemBody, ProblemType};
use crate::api::state::SharedState;
use crate::id::PARTITION_MARKERS;
use crate::ingest::{Aborted, Appended, Claim};
use crate::segment::frame::{BatchCheck, FRAME_HEADER, seal_frame};

/// Query of a page request.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PagesQuery {
    /// Number of the batch within the sink, from 0; may be left out with a raw page.
    batch: Option<u32>,
    /// Output partition of a raw page.
    partition: Option<u32>,
}

impl QueryParameters for PagesQuery {
    const NAMES: &'static [&'static str] = &["batch", "partition"];

    fn from_values(values: &Values<'_>) -> Result<Self, Problem> {
        Ok(Self {
            batch: values.number_u32("batch", u32::MAX)?,
            partition: values.number_u32("partition", PARTITION_MARKERS - 1)?,
        })
    }
}

/// Answer to a batch.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchTaken {
    /// Its number.
    batch: u32,
    /// The number that the next batch must have.
    next: u64,
    /// Whether it had been taken before; then nothing changed.
    repeated: bool,
}

impl From<Appended> for BatchTaken {
    fn from(appended: Appended) -> Self {
        Self {
            batch: appended.batch,
            next: appended.next,
            repeated: appended.repeated,
        }
    }
}

/// What the client says it sent.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FinishClaim {
    /// Batches.
    batches: u64,
    /// Pages.
    pages: u64,
    /// Page bytes, without frames.
    bytes: u64,
    /// CRC-32C over the `crc` fields of all pages in the order in which they were sent.
    checksum: Option<u32>,
}

impl From<FinishClaim> for Claim {
    fn from(claim: FinishClaim) -> Self {
        Self {
            batches: claim.batches,
            pages: claim.pages,
            bytes: claim.bytes,
            checksum: claim.checksum,
        }
    }
}

/// What an attempt ended as.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SinkState {
    /// Every page is durable.
    Finished,
    /// Nothing of it will be seen.
    Aborted,
}

/// Answer to a finish.
#[derive(Debug, Serialize, ToSchema)]
pub struct SinkFinished {
    /// `finished`
    state: SinkState,
    /// Batches.
    batches: u64,
    /// Pages.
    pages: u64,
    /// Page bytes, without frames.
    bytes: u64,
}

/// Answer to an abort.
#[derive(Debug, Serialize, ToSchema)]
pub struct SinkEnded {
    /// `finished` when the attempt had finished before: then nothing changed.
    state: SinkState,
}

/// What the body turns into, as the query and the content type say together.
enum Wanted {
    Batch { number: u32 },
    RawPage { number: Option<u32>, partition: u32 },
}

fn wanted(query: &PagesQuery, head: PageHead) -> Result<Wanted, Problem> {
    match (head.content, query.batch, query.partition) {
        (PageContent::Batch, Some(number), None) => Ok(Wanted::Batch { number }),
        (PageContent::Batch, None, _) => Err(Problem::invalid(
            "a batch needs its number: ?batch=N, from 0",
        )),
        (PageContent::Batch, Some(_), Some(_)) => Err(Problem::invalid(
            "partition goes with one raw page (application/octet-stream): the frames of a batch \
             say theirs",
        )),
        (PageContent::RawPage, number, Some(partition)) => {
            Ok(Wanted::RawPage { number, partition })
        }
        (PageContent::RawPage, _, None) => Err(Problem::invalid(
            "a raw page needs its output partition: ?partition=P",
        )),
    }
}

/// Says that an attempt will be written at this daemon, some time before its first page.
///
/// Nothing has to follow, and nothing depends on it: the daemon finds out early whether the
/// exchange is open, and whom a finish can wait for.
#[utoipa::path(
    put,
    path = "/v1/exchanges/{exchange}/sinks/{task}/{attempt}",
    tag = "sinks",
    params(
        ("exchange" = String, Path, description = "1 to 160 characters of A-Z a-z 0-9 _ -"),
        ("task" = u32, Path, description = "Task partition, below 1048576"),
        ("attempt" = u32, Path, description = "Attempt, at most 127"),
    ),
    responses(
        (status = 204, description = "Its pages would be taken now"),
        (status = "default", body = ProblemBody<'static>,
            content_type = "application/problem+json"),
    )
)]
pub async fn expect(
    State(state): State<SharedState>,
    SinkPath(sink): SinkPath,
    _: NoQuery,
) -> Result<StatusCode, Problem> {
    state.parts.exchanges.lookup(&sink.exchange).await?;
    state.parts.ingest.declare_sink(&sink)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes a batch of page frames, or one raw page.
#[utoipa::path(
    post,
    path = "/v1/exchanges/{exchange}/sinks/{task}/{attempt}/pages",
    tag = "sinks",
    params(
        ("exchange" = String, Path, description = "1 to 160 characters of A-Z a-z 0-9 _ -"),
        ("task" = u32, Path, description = "Task partition, below 1048576"),
        ("attempt" = u32, Path, description = "Attempt, at most 127"),
        PagesQuery,
    ),
    request_body(content(
        (Vec<u8> = "application/vnd.stopover.pages"),
        (Vec<u8> = "application/octet-stream"),
    )),
    responses(
        (status = 200, body = BatchTaken),
        (status = "default", body = ProblemBody<'static>,
            content_type = "application/problem+json"),
    )
)]
pub async fn add_pages(
    State(state): State<SharedState>,
    SinkPath(sink): SinkPath,
    StrictQuery(query): StrictQuery<PagesQuery>,
    head: PageHead,
    body: Body,
) -> Result<Json<BatchTaken>, Problem> {
    let wanted = wanted(&query, head)?;
    let parts = &state.parts;
    let partitions = parts.exchanges.lookup(&sink.exchange).await?.partitions;
    if let Wanted::RawPage { partition, .. } = wanted
        && partition >= partitions
    {
        let detail = format!("partition {partition} does not exist: the exchange has {partitions}");
        return Err(Problem::new(ProblemType::InvalidFrame, detail));
    }
    let number = match wanted {
        Wanted::Batch { number } => Some(number),
        Wanted::RawPage { number, .. } => number,
    };
    let admission = parts.ingest.admit(&sink, number)?;

    let room = match wanted {
        Wanted::Batch { .. } => 0,
        Wanted::RawPage { .. } => FRAME_HEADER,
    };
    // Acquired before the memory: the requests that a query may have at a time include those that
    // wait for memory.
    let _slot = state.write_slot(&sink.exchange).await;
    let admission = admission.reserve((room + head.length) as u64).await?;
    let limits = &state.body_limits;
    let mut check = BatchCheck::new(partitions, limits.max_page_size);
    let verify = |received: &[u8]| {
        // A raw page has no frame header until the whole body has arrived.
        if room == 0 {
            check.read(received);
        }
    };
    let mut buffer = read_exactly(body, room, head.length, limits, verify).await?;
    if let Wanted::RawPage { partition, .. } = wanted {
        seal_frame(&mut buffer, partition);
    }
    let appended = admission.append(check, Bytes::from(buffer))?;
    Ok(Json(appended.into()))
}

/// Makes an attempt durable and decides it.
#[utoipa::path(
    post,
    path = "/v1/exchanges/{exchange}/sinks/{task}/{attempt}/finish",
    tag = "sinks",
    params(
        ("exchange" = String, Path, description = "1 to 160 characters of A-Z a-z 0-9 _ -"),
        ("task" = u32, Path, description = "Task partition, below 1048576"),
        ("attempt" = u32, Path, description = "Attempt, at most 127"),
    ),
    request_body(content = Option<FinishClaim>, description = "Left out, counts are not checked"),
    responses(
        (status = 200, description = "Every page is durable", body = SinkFinished),
        (status = "default", body = ProblemBody<'static>,
            content_type = "application/problem+json"),
    )
)]
pub async fn finish(
    State(state): State<SharedState>,
    SinkPath(sink): SinkPath,
    _: NoQuery,
    OptionalJson(claim): OptionalJson<FinishClaim>,
) -> Result<Json<SinkFinished>, Problem> {
    state.parts.exchanges.lookup(&sink.exchange).await?;
    let claim = claim.map(|(claim, _)| Claim::from(claim));
    let totals = state.parts.ingest.finish(&sink, claim).await?;
    Ok(Json(SinkFinished {
        state: SinkState::Finished,
        batches: totals.batches,
        pages: totals.pages,
        bytes: totals.bytes,
    }))
}

/// Drops an attempt, unless it finished.
#[utoipa::path(
    post,
    path = "/v1/exchanges/{exchange}/sinks/{task}/{attempt}/abort",
    tag = "sinks",
    params(
        ("exchange" = String, Path, description = "1 to 160 characters of A-Z a-z 0-9 _ -"),
        ("task" = u32, Path, description = "Task partition, below 1048576"),
        ("attempt" = u32, Path, description = "Attempt, at most 127"),
    ),
    responses(
        (status = 200, body = SinkEnded),
        (status = "default", body = ProblemBody<'static>,
            content_type = "application/problem+json"),
    )
)]
pub async fn abort(
    State(state): State<SharedState>,
    SinkPath(sink): SinkPath,
    _: NoQuery,
) -> Result<Json<SinkEnded>, Problem> {
    state.parts.exchanges.lookup(&sink.exchange).await?;
    let state = match state.parts.ingest.abort(&sink).await? {
        Aborted::Aborted => SinkState::Aborted,
        Aborted::AlreadyFinished => SinkState::Finished,
    };
    Ok(Json(SinkEnded { state }))
}
