//! Exchanges for people: list and show.

use std::fmt::Display;
use std::io::{self, Write};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::{Serialize, Serializer};
use utoipa::{IntoParams, ToSchema};

use crate::api::extract::{
    ExchangeParams, ExchangePath, NoQuery, QueryParameters, StrictQuery, Values,
};
use crate::api::problem::{Problem, ProblemResponse, ProblemType};
use crate::api::state::SharedState;
use crate::exchange::{ExchangeOverview, ListFilter, overview_of};
use crate::id::SegmentId;
use crate::memory::{Reservation, ReservedBytes};

/// Exchanges in a response, unless the request has a limit.
const DEFAULT_LIMIT: usize = 1_000;
/// Exchanges in an answer at most.
const MAX_LIMIT: usize = 10_000;
/// How long a request waits for the lists of others.
const PATIENCE: Duration = Duration::from_secs(5);
/// The party of all lists: none goes before another.
const LISTS: &str = "lists";

/// Restricts a list of exchanges.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// Only the exchanges of this query.
    query: Option<String>,
    /// Only exchanges whose id is greater than this one: the `next` of the previous response.
    after: Option<String>,
    /// How many exchanges at most, 1 to 10000; 1000 by default.
    limit: Option<usize>,
}

impl QueryParameters for ListQuery {
    const NAMES: &'static [&'static str] = &["query", "after", "limit"];

    fn from_values(values: &Values<'_>) -> Result<Self, Problem> {
        let limit = values.number("limit", MAX_LIMIT)?;
        if limit == Some(0) {
            return Err(Problem::invalid(
                "limit is 0: give the number of exchanges, from 1",
            ));
        }
        Ok(Self {
            query: values.id("query")?,
            after: values.id("after")?,
            limit,
        })
    }
}

/// What one base directory holds of an exchange.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BaseShare {
    /// Name of the base directory.
    base: String,
    /// Whether it has the marker.
    marker: bool,
    /// Number of segments.
    segments: u64,
    /// Bytes of these segments, footers included.
    bytes: u64,
}

/// An exchange. The properties in its marker are absent if it has none or it cannot be decoded.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ListedExchange {
    exchange: String,
    query: String,
    /// `open`, `claimed` (being removed) or `orphaned` (segments without a marker, which the
    /// sweeper removes).
    state: &'static str,
    /// Number of output partitions.
    #[serde(skip_serializing_if = "Option::is_none")]
    partitions: Option<u32>,
    /// Whether the pages of a partition are read in the order of their sink.
    #[serde(skip_serializing_if = "Option::is_none")]
    ordered: Option<bool>,
    /// Time since its query started, which the id of a Trino query contains; absent for other ids.
    #[serde(skip_serializing_if = "Option::is_none")]
    age_seconds: Option<u64>,
    /// Its lease.
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_seconds: Option<u64>,
    /// The remaining lease, as last published by the sweeper of the fleet; absent before that.
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_left_seconds: Option<u64>,
    /// Bytes of all its segments.
    bytes: u64,
    /// The base directories that hold anything of it.
    base_directories: Vec<BaseShare>,
}

impl ListedExchange {
    fn new(overview: ExchangeOverview, wall_millis: u64) -> Self {
        let seconds = |time: Duration| time.as_secs();
        Self {
            exchange: overview.exchange.to_string(),
            query: overview.exchange.query().to_owned(),
            state: overview.state.name(),
            partitions: overview.spec.as_ref().map(|spec| spec.partitions),
            ordered: overview.spec.as_ref().map(|spec| spec.ordered),
            age_seconds: overview.age(wall_millis).map(seconds),
            lease_seconds: overview.lease.map(seconds),
            lease_left_seconds: overview.lease_left().map(seconds),
            bytes: overview.bytes(),
            base_directories: overview
                .bases
                .into_iter()
                .map(|(base, share)| BaseShare {
                    base,
                    marker: share.marker,
                    segments: share.segments,
                    bytes: share.bytes,
                })
                .collect(),
        }
    }
}

/// Exchanges that have objects in a base directory, by id.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExchangeList {
    exchanges: Vec<ListedExchange>,
    /// Where there are more: the `after` of the next request.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A committed attempt.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Committed {
    task: u32,
    attempt: u32,
    pages: u64,
    /// Page bytes, without frame headers.
    bytes: u64,
    /// The segment that holds its commit record.
    #[serde(serialize_with = "as_text")]
    #[schema(value_type = String)]
    segment: SegmentId,
}

fn as_text<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// A segment.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Segment {
    segment: String,
    /// The run of the daemon that wrote it, as its `Stopover-Run`.
    daemon: String,
    /// Name of the base directory that holds it.
    base: String,
    /// Bytes of the object.
    size: u64,
    /// When it was sealed, by that daemon's clock, in milliseconds since 1970.
    sealed_millis: u64,
}

/// An exchange with its committed attempts and its segments.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExchangeContent {
    #[serde(flatten)]
    exchange: ListedExchange,
    committed: Vec<Committed>,
    segments: Vec<Segment>,
}

/// Lists the exchanges found in the base directories.
#[utoipa::path(
    get,
    path = "/v1/exchanges",
    tag = "exchanges",
    params(ListQuery),
    responses(
        (status = 200, body = ExchangeList),
        ProblemResponse,
    )
)]
pub(crate) async fn list(
    State(state): State<SharedState>,
    StrictQuery(query): StrictQuery<ListQuery>,
) -> Result<Response, Problem> {
    let filter = ListFilter {
        query: query.query,
        after: query.after.map(|id| id.parse()).transpose()?,
        limit: query.limit.unwrap_or(DEFAULT_LIMIT),
    };
    let clock = &state.parts.runtime.clock;
    let turn = clock.within(PATIENCE, state.slots.lists.acquire(LISTS, 1));
    let Some(_turn) = turn.await else {
        let detail = "exchanges are listed for one request at a time, and others are before this \
                      one: retry later";
        return Err(Problem::new(ProblemType::Overloaded, detail));
    };
    let found = state.parts.exchanges.list(&filter).await?;
    let last = found.exchanges.last().filter(|_| found.more);
    let next = last.map(|last| last.exchange.to_string());
    let now = state.parts.runtime.clock.wall_millis();
    let exchanges = found
        .exchanges
        .into_iter()
        .map(|overview| ListedExchange::new(overview, now))
        .collect();
    // Of what is made here there is one at a time; of answers, one for each client that is slow.
    let json = to_json(&ExchangeList { exchanges, next });
    let memory = state.parts.read_memory.reserve(LISTS, json.len() as u64);
    let Some(Ok(memory)) = clock.within(PATIENCE, memory).await else {
        let detail = "the memory for reading has no room for this list: ask for fewer exchanges \
                      (limit), or retry later";
        return Err(Problem::new(ProblemType::Overloaded, detail));
    };
    Ok(json_response(json, memory))
}

/// Shows one exchange with its committed attempts and its segments.
#[utoipa::path(
    get,
    path = "/v1/exchanges/{exchange}",
    tag = "exchanges",
    params(ExchangeParams),
    responses(
        (status = 200, body = ExchangeContent),
        ProblemResponse,
    )
)]
pub(crate) async fn show(
    State(state): State<SharedState>,
    ExchangePath(exchange): ExchangePath,
    _: NoQuery,
) -> Result<Response, Problem> {
    let (parts, now) = (&state.parts, state.parts.runtime.clock.wall_millis());
    parts.exchanges.lookup_uncached(&exchange).await?;
    let overview = overview_of(&parts.storage, &exchange).await;
    let content = parts.commits.summary(&exchange).await;
    // The marker still exists after the segments were listed, so the list was complete, and what is
    // missing was lost.
    parts.exchanges.lookup_uncached(&exchange).await?;
    let (overview, (content, memory)) = (overview?, content?);
    let committed = content.committed.into_iter().map(|done| Committed {
        task: done.attempt.task,
        attempt: done.attempt.attempt,
        pages: done.totals.pages,
        bytes: done.totals.bytes,
        segment: done.segment,
    });
    let segments = content.segments.iter().map(|found| Segment {
        segment: found.address.segment.to_string(),
        daemon: found.address.segment.daemon.to_string(),
        base: found.address.base.to_string(),
        size: found.size,
        sealed_millis: found.sealed_millis,
    });
    let answer = ExchangeContent {
        exchange: ListedExchange::new(overview, now),
        committed: committed.collect(),
        segments: segments.collect(),
    };
    Ok(json_response(to_json(&answer), memory))
}

/// An answer in JSON, which holds what it needs of `memory` until it has been sent.
fn json_response(json: Vec<u8>, mut memory: Reservation) -> Response {
    memory.shrink_to(json.len() as u64);
    let body: Bytes = ReservedBytes::into_bytes(json.into(), memory);
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}

/// An answer as JSON, in a buffer of exactly its size.
fn to_json(answer: &impl Serialize) -> Vec<u8> {
    let mut size = ByteCount(0);
    serde_json::to_writer(&mut size, answer).expect("an answer is plain data");
    let mut json = Vec::with_capacity(size.0);
    serde_json::to_writer(&mut json, answer).expect("an answer is plain data");
    json
}

/// Counts what is written.
struct ByteCount(usize);

impl Write for ByteCount {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryPool;

    /// Story: the answers of clients that did not read them were in memory that nothing counted.
    #[tokio::test]
    async fn an_answer_holds_its_memory_until_it_is_dropped() {
        let pool = MemoryPool::new("read", 1000);
        let answer = ExchangeList {
            exchanges: Vec::new(),
            next: Some("q".into()),
        };
        let memory = pool.reserve(LISTS, 500).await.unwrap();
        let response = json_response(to_json(&answer), memory);
        let body = axum::body::to_bytes(response.into_body(), 1000).await;
        let body = body.unwrap();
        assert_eq!(body, r#"{"exchanges":[],"next":"q"}"#);
        assert_eq!(pool.used(), body.len() as u64);
        drop(body);
        assert_eq!(pool.used(), 0);
    }
}
