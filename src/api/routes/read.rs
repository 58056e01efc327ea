//! Reading by handle.

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use utoipa::IntoParams;

use crate::api::extract::{QueryParameters, StrictQuery, TextBody, Values};
use crate::api::page_framing::READ_MEDIA_TYPE;
use crate::api::problem::{Problem, ProblemResponse};
use crate::api::state::SharedState;
use crate::api::stream_body::{OnFailure, StreamBody};
use crate::telemetry::traces::SpanRef;

/// Query of a read by handle.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ReadQuery {
    /// Number of pages of this handle that the client already has.
    #[param(default = 0)]
    skip: Option<u64>,
}

impl QueryParameters for ReadQuery {
    const NAMES: &'static [&'static str] = &["skip"];

    fn from_values(values: &Values<'_>) -> Result<Self, Problem> {
        Ok(Self {
            skip: values.number("skip", u64::MAX)?,
        })
    }
}

/// Streams the pages of a source handle.
#[utoipa::path(
    post,
    path = "/v1/read",
    tag = "reading",
    params(ReadQuery),
    request_body(content = String, content_type = "text/plain", description = "One handle"),
    responses(
        (status = 200, description = "Block records, page frames, an end record",
            body = Vec<u8>, content_type = "application/vnd.stopover.read"),
        ProblemResponse,
    )
)]
pub(crate) async fn read_handle(
    State(state): State<SharedState>,
    StrictQuery(query): StrictQuery<ReadQuery>,
    TextBody(handle, mut reservation): TextBody,
) -> Result<Response, Problem> {
    let reader = &state.parts.reader;
    let request = reader.decode(&handle, query.skip.unwrap_or(0)).await?;
    drop(handle);
    // The ranges of the handle are held as long as the stream, and so is their reservation.
    reservation.shrink_to(request.memory_size());
    let span = SpanRef::current();
    span.set("stopover.exchange", request.exchange());
    span.set_number("stopover.partition", request.partition().into());
    let permit = state.read_slot(request.exchange()).await;
    let stream = reader.read(request);
    let body = StreamBody::new(
        stream,
        None,
        OnFailure::ErrorRecord,
        (permit, reservation),
        state.stall_policy.clone(),
        &state.parts.runtime,
    );
    Ok(([(CONTENT_TYPE, READ_MEDIA_TYPE)], Body::new(body)).into_response())
}
