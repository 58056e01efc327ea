//! Source handles for the chosen attempts, streamed as lines.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::extract::{ExchangePath, NoQuery, StrictJson};
use crate::api::page_framing::NDJSON_MEDIA_TYPE;
use crate::api::problem::{Problem, ProblemBody};
use crate::api::state::SharedState;
use crate::api::stream_body::{OnFailure, StreamBody};
use crate::catalog::PlannedHandle;
use crate::id::TaskAttempt;

/// Bytes of lines that are written at a time.
const PIECE: usize = 64 << 10;

/// Which attempts are read, and how large handles are about to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HandlesWanted {
    /// Pairs of task and attempt, each task at most once.
    attempts: Vec<(u32, u32)>,
    /// Page bytes that a handle should hold about.
    target_size: u64,
}

/// A line: a handle.
#[derive(Debug, Serialize, ToSchema)]
pub struct HandleLine {
    /// The handle, for `/v1/read`.
    handle: String,
    /// Its output partition.
    partition: u32,
    /// Its page bytes.
    bytes: u64,
    /// Its pages.
    pages: u64,
}

/// The last line; an answer without it is incomplete.
#[derive(Debug, Serialize, ToSchema)]
pub struct EndLine {
    /// `true`
    end: bool,
    /// Lines before this one.
    handles: usize,
}

/// Plans the source handles of the chosen attempts.
#[utoipa::path(
    post,
    path = "/v1/exchanges/{exchange}/handles",
    tag = "reading",
    params(("exchange" = String, Path, description = "1 to 160 characters of A-Z a-z 0-9 _ -")),
    request_body = HandlesWanted,
    responses(
        (status = 200, description = "One handle a line, then the end line", content(
            (HandleLine = "application/x-ndjson"),
        )),
        (status = "default", body = ProblemBody<'static>,
            content_type = "application/problem+json"),
    )
)]
pub async fn plan(
    State(state): State<SharedState>,
    ExchangePath(exchange): ExchangePath,
    _: NoQuery,
    StrictJson(wanted, _held): StrictJson<HandlesWanted>,
) -> Result<Response, Problem> {
    if wanted.target_size == 0 {
        return Err(Problem::invalid("target_size is at least 1 byte"));
    }
    let chosen = wanted
        .attempts
        .iter()
        .map(|&(task, attempt)| TaskAttempt::new(task, attempt))
        .collect::<Result<Vec<_>, _>>()?;
    let ordered = state.parts.exchanges.lookup(&exchange).await?.ordered;
    let planned = state
        .parts
        .commits
        .plan_handles(&exchange, ordered, &chosen, wanted.target_size)
        .await?;
    let pieces = futures::stream::iter(Pieces::new(planned).map(Ok));
    // A plan holds the footers of its exchange for as long as the client takes.
    let body = StreamBody::new(
        pieces.boxed(),
        None,
        OnFailure::Cut,
        None,
        state.stall_policy.clone(),
        &state.parts.runtime,
    );
    Ok(([(CONTENT_TYPE, NDJSON_MEDIA_TYPE)], Body::new(body)).into_response())
}

/// The lines in pieces; a handle is made when its line is about to be written, and then let go.
struct Pieces<H> {
    handles: H,
    written: usize,
    ended: bool,
}

impl<H> Pieces<H> {
    fn new(handles: H) -> Self {
        Self {
            handles,
            written: 0,
            ended: false,
        }
    }
}

impl<H: Iterator<Item = PlannedHandle>> Iterator for Pieces<H> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let mut piece = Vec::new();
        while piece.len() < PIECE {
            let Some(handle) = self.handles.next() else {
                self.ended = true;
                let end = EndLine {
                    end: true,
                    handles: self.written,
                };
                append_line(&mut piece, &end);
                break;
            };
            self.written += 1;
            let line = HandleLine {
                handle: handle.text,
                partition: handle.partition,
                bytes: handle.bytes,
                pages: handle.pages,
            };
            append_line(&mut piece, &line);
        }
        Some(piece.into())
    }
}

fn append_line(piece: &mut Vec<u8>, line: &impl Serialize) {
    serde_json::to_writer(&mut *piece, line).expect("a line is plain data");
    piece.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(count: u32, text: &str) -> (usize, Vec<serde_json::Value>) {
        let handle = |partition| PlannedHandle {
            text: text.to_owned(),
            partition,
            bytes: 7,
            pages: 1,
        };
        let pieces: Vec<Bytes> = Pieces::new((0..count).map(handle)).collect();
        assert!(pieces.iter().all(|p| p.len() < PIECE + text.len() + 200));
        let lines = pieces.concat();
        let lines = String::from_utf8(lines).unwrap();
        let parsed = lines.lines().map(|l| serde_json::from_str(l).unwrap());
        (pieces.len(), parsed.collect())
    }

    #[test]
    fn no_handles_are_an_end_line_alone() {
        let (_, lines) = lines(0, "");
        assert_eq!(lines, [serde_json::json!({"end": true, "handles": 0})]);
    }

    #[test]
    fn many_handles_come_in_order_in_bounded_pieces_and_are_counted() {
        let (pieces, lines) = lines(1000, &"h".repeat(1000));
        assert!(pieces > 10);
        assert_eq!(lines.len(), 1001);
        assert_eq!(lines[999]["partition"], 999);
        assert_eq!(lines[1000]["handles"], 1000);
    }
}
