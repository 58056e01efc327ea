//! Source handles for the chosen attempts, streamed as lines of JSON.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::extract::{ExchangeParams, ExchangePath, JsonBody, NoQuery, StrictJson, list};
use crate::api::page_framing::NDJSON_MEDIA_TYPE;
use crate::api::problem::{Problem, ProblemResponse, ProblemType};
use crate::api::state::{ApiDeps, SharedState};
use crate::api::stream_body::{OnFailure, StreamBody};
use crate::catalog::{MemoryPlan, PlannedHandle, handle};
use crate::id::{DaemonId, ExchangeId, TaskAttempt};
use crate::telemetry::traces::SpanRef;

/// Bytes of lines in one body frame, at least.
const FRAME_SIZE: usize = 64 << 10;

/// The attempts to read, and the approximate size of handles.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HandlesRequest {
    /// Pairs of task and attempt, each task at most once.
    #[serde(deserialize_with = "list")]
    #[schema(value_type = Vec<(u32, u32)>)]
    attempts: Vec<TaskAttempt>,
    /// Approximate page bytes of a handle.
    target_size: u64,
    /// The newest version of handles that all daemons of the client read; any, if it is absent.
    handle_version: Option<u32>,
    /// Plan only those attempts that this daemon committed itself and still has in memory, at once
    /// and without a request to a base directory.
    #[serde(default)]
    from_memory: bool,
    /// Runs of the daemons that the client has asked for what they have in memory: what they wrote
    /// is read only if an attempt is not found without it. At most 4096.
    #[serde(default, deserialize_with = "list")]
    #[schema(value_type = Vec<String>)]
    asked_daemons: Vec<DaemonId>,
}

impl JsonBody for HandlesRequest {
    /// Bounded by the setting alone: there may be a million attempts.
    const MAX_SIZE: u64 = u64::MAX;
}

/// A line with a handle.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HandleLine {
    /// The handle, for `/v1/read`.
    handle: String,
    partition: u32,
    /// Page bytes, without frame headers.
    bytes: u64,
    pages: u64,
}

/// The last line; a response without it is incomplete.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EndLine {
    /// `true`
    end: bool,
    /// Number of handles before this line.
    handles: usize,
}

/// Plans the source handles of the chosen attempts.
#[utoipa::path(
    post,
    path = "/v1/exchanges/{exchange}/handles",
    tag = "reading",
    params(ExchangeParams),
    request_body = HandlesRequest,
    responses(
        (status = 200, description = "With `from_memory`, first a line `{\"unknown\": [[task, \
            attempt], …]}` with the attempts that are not planned; one handle per line; then an \
            end or error line", content(
            (HandleLine = "application/x-ndjson"),
        )),
        ProblemResponse,
    )
)]
pub(crate) async fn plan(
    State(state): State<SharedState>,
    ExchangePath(exchange): ExchangePath,
    _: NoQuery,
    StrictJson(wanted, body_memory): StrictJson<HandlesRequest>,
) -> Result<Response, Problem> {
    if wanted.target_size == 0 {
        return Err(Problem::invalid("target_size must be at least 1"));
    }
    check_version(wanted.handle_version)?;
    let chosen = wanted.attempts;
    if wanted.from_memory {
        let planned = plan_from_memory(&state, &exchange, &chosen, wanted.target_size).await?;
        let frames = unknown_line(planned.unknown).chain(BodyFrames::new(planned.handles));
        return Ok(streamed(&state, frames, (planned.memory, body_memory)));
    }
    SpanRef::current().set_number("stopover.attempts", chosen.len() as u64);
    let ordered = state.parts.exchanges.lookup(&exchange).await?.ordered;
    let asked = wanted.asked_daemons.into_iter().collect();
    let commits = &state.parts.commits;
    let planned = commits.plan_rest(&exchange, ordered, &chosen, wanted.target_size, &asked);
    // The plan holds the footers of the exchange until the last line has been sent.
    let (handles, memory) = planned.await?;
    Ok(streamed(&state, BodyFrames::new(handles), memory))
}

/// Plans the attempts that this daemon has in memory: none, unless the exchange is known to be
/// open.
async fn plan_from_memory(
    state: &SharedState,
    exchange: &ExchangeId,
    chosen: &[TaskAttempt],
    target_size: u64,
) -> Result<MemoryPlan<impl Iterator<Item = PlannedHandle> + Send + use<>>, Problem> {
    let ApiDeps {
        commits,
        exchanges,
        ingest,
        ..
    } = &state.parts;
    let spec = exchanges.lookup_known(exchange)?;
    let ordered = spec.is_some_and(|spec| spec.ordered);
    let own = ingest.daemon();
    let planned = commits.plan_from_memory(exchange, own, ordered, chosen, target_size);
    Ok(planned.await?)
}

/// The response with these frames. `memory` is released after the last one.
fn streamed(
    state: &SharedState,
    frames: impl Iterator<Item = Bytes> + Send + 'static,
    memory: impl Send + 'static,
) -> Response {
    let body = StreamBody::new(
        futures::stream::iter(frames.map(Ok)).boxed(),
        None,
        OnFailure::ErrorLine,
        memory,
        state.stall_policy.clone(),
        &state.parts.runtime,
    );
    ([(CONTENT_TYPE, NDJSON_MEDIA_TYPE)], Body::new(body)).into_response()
}

/// The line that names the attempts which are not planned, as body frames.
fn unknown_line(unknown: Vec<TaskAttempt>) -> impl Iterator<Item = Bytes> {
    let mut pairs = unknown.into_iter().enumerate();
    let frames = std::iter::from_fn(move || {
        let mut frame = String::new();
        for (index, TaskAttempt { task, attempt }) in pairs.by_ref() {
            let comma = if index > 0 { "," } else { "" };
            frame.push_str(&format!("{comma}[{task},{attempt}]"));
            if frame.len() >= FRAME_SIZE {
                break;
            }
        }
        (!frame.is_empty()).then(|| Bytes::from(frame))
    });
    let start = std::iter::once(Bytes::from_static(b"{\"unknown\":["));
    let end = std::iter::once(Bytes::from_static(b"]}\n"));
    start.chain(frames).chain(end)
}

/// Whether handles may be returned to a client that accepts versions up to `newest`.
fn check_version(newest: Option<u32>) -> Result<(), Problem> {
    let written = u32::from(handle::VERSION);
    match newest {
        Some(newest) if newest < written => {
            let detail = format!(
                "this daemon writes source handles of version {written}, the client accepts \
                 {newest}: some daemon cannot read version {written}; upgrade all daemons"
            );
            Err(Problem::new(ProblemType::UnsupportedProtocol, detail))
        }
        _ => Ok(()),
    }
}

/// The lines, as body frames; a handle exists only until its line has been rendered.
struct BodyFrames<H> {
    handles: H,
    written: usize,
    ended: bool,
}

impl<H> BodyFrames<H> {
    fn new(handles: H) -> Self {
        Self {
            handles,
            written: 0,
            ended: false,
        }
    }
}

impl<H: Iterator<Item = PlannedHandle>> Iterator for BodyFrames<H> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let mut frame = Vec::new();
        while frame.len() < FRAME_SIZE {
            let Some(handle) = self.handles.next() else {
                self.ended = true;
                let end = EndLine {
                    end: true,
                    handles: self.written,
                };
                append_line(&mut frame, &end);
                break;
            };
            self.written += 1;
            let line = HandleLine {
                handle: handle.text,
                partition: handle.partition,
                bytes: handle.bytes,
                pages: handle.pages,
            };
            append_line(&mut frame, &line);
        }
        Some(frame.into())
    }
}

fn append_line(frame: &mut Vec<u8>, line: &impl Serialize) {
    serde_json::to_writer(&mut *frame, line).expect("a line is plain data");
    frame.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_attempts_are_one_line_of_json_in_bounded_frames() {
        for count in [0, 1, 100_000] {
            let attempt = |task| TaskAttempt::new(task, task % 3).unwrap();
            let unknown: Vec<_> = (0..count).map(attempt).collect();
            let frames: Vec<Bytes> = unknown_line(unknown).collect();
            assert!(frames.iter().all(|frame| frame.len() < FRAME_SIZE + 20));
            let line = String::from_utf8(frames.concat()).unwrap();
            assert!(line.ends_with('\n') && line.lines().count() == 1);
            let pairs: Vec<(u32, u32)> = (0..count).map(|task| (task, task % 3)).collect();
            let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(parsed, serde_json::json!({ "unknown": pairs }));
        }
    }

    fn lines(count: u32, text: &str) -> (usize, Vec<serde_json::Value>) {
        let handle = |partition| PlannedHandle {
            text: text.to_owned(),
            partition,
            bytes: 7,
            pages: 1,
        };
        let frames: Vec<Bytes> = BodyFrames::new((0..count).map(handle)).collect();
        assert!(
            frames
                .iter()
                .all(|p| p.len() < FRAME_SIZE + text.len() + 200)
        );
        let lines = frames.concat();
        let lines = String::from_utf8(lines).unwrap();
        let parsed = lines.lines().map(|l| serde_json::from_str(l).unwrap());
        (frames.len(), parsed.collect())
    }

    #[test]
    fn without_handles_there_is_only_an_end_line() {
        let (_, lines) = lines(0, "");
        assert_eq!(lines, [serde_json::json!({"end": true, "handles": 0})]);
    }

    #[test]
    fn many_handles_are_in_order_in_bounded_frames_and_counted() {
        let (frames, lines) = lines(1000, &"h".repeat(1000));
        assert!(frames > 10);
        assert_eq!(lines.len(), 1001);
        assert_eq!(lines[999]["partition"], 999);
        assert_eq!(lines[1000]["handles"], 1000);
    }
}
