//! Reading one partition of an exchange, for curl.

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use utoipa::IntoParams;

use crate::api::extract::{PartitionParams, PartitionPath, QueryParameters, StrictQuery, Values};
use crate::api::page_framing::{RAW_MEDIA_TYPE, READ_MEDIA_TYPE};
use crate::api::problem::{Problem, ProblemResponse, ProblemType};
use crate::api::state::SharedState;
use crate::api::stream_body::{OnFailure, StreamBody};
use crate::id::{MAX_ATTEMPT, MAX_TASKS};
use crate::read::{PageFormat, ReadError, Selection};

/// Restricts a partition read.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PartitionQuery {
    /// Only this task.
    task: Option<u32>,
    /// This attempt instead of the newest one.
    attempt: Option<u32>,
    /// How many tasks must have such an attempt; another number is an error.
    tasks: Option<u32>,
}

impl QueryParameters for PartitionQuery {
    const NAMES: &'static [&'static str] = &["task", "attempt", "tasks"];

    fn from_values(values: &Values<'_>) -> Result<Self, Problem> {
        Ok(Self {
            task: values.number("task", MAX_TASKS - 1)?,
            attempt: values.number("attempt", MAX_ATTEMPT)?,
            tasks: values.number("tasks", MAX_TASKS)?,
        })
    }
}

/// Records if `Accept` names their media type, otherwise raw bytes.
fn format(headers: &HeaderMap) -> PageFormat {
    let names_records = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|item| item.split(';').next())
        .any(|media_type| media_type.trim().eq_ignore_ascii_case(READ_MEDIA_TYPE));
    if names_records {
        PageFormat::Records
    } else {
        PageFormat::Raw
    }
}

/// Streams one partition: the newest finished attempt of each task, in order of task.
#[utoipa::path(
    get,
    path = "/v1/exchanges/{exchange}/partitions/{partition}",
    tag = "reading",
    params(PartitionParams, PartitionQuery),
    responses(
        (status = 200, description = "Page bytes, or records if Accept names them", content(
            (Vec<u8> = "application/octet-stream"),
            (Vec<u8> = "application/vnd.stopover.read"),
        )),
        ProblemResponse,
    )
)]
pub(crate) async fn read_partition(
    State(state): State<SharedState>,
    path: PartitionPath,
    StrictQuery(query): StrictQuery<PartitionQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (exchange, partition) = (path.exchange, path.partition);
    let exchanges = &state.parts.exchanges;
    let partitions = exchanges.lookup_uncached(&exchange).await?.partitions;
    if partition >= partitions {
        let error = ReadError::NoSuchPartition {
            partition,
            partitions,
        };
        return Err(error.into());
    }
    let selection = Selection {
        task: query.task,
        attempt: query.attempt,
        tasks: query.tasks,
    };
    let format = format(&headers);
    let permit = state.read_slot(&exchange).await;
    let reader = &state.parts.reader;
    let read = reader
        .read_partition(&exchange, partition, selection, format)
        .await;
    // Closing an exchange removes its marker first. The marker still exists after the segments were
    // listed, so the list was complete, and what is missing was lost.
    exchanges.lookup_uncached(&exchange).await?;
    let mut read = read?;
    let memory = state.body_limits.handles.reserve("", read.memory_size);
    let memory = memory
        .await
        .map_err(|error| Problem::new(ProblemType::Overloaded, error.to_string()))?;
    // A failure before the first page is an ordinary problem instead of a truncated response.
    let first = read.stream.try_next().await?;
    let stream = stream::iter(first.map(Ok)).chain(read.stream).boxed();
    let (media_type, on_failure) = match format {
        PageFormat::Raw => (RAW_MEDIA_TYPE, OnFailure::Truncate),
        PageFormat::Records => (READ_MEDIA_TYPE, OnFailure::ErrorRecord),
    };
    let body = StreamBody::new(
        stream,
        read.length,
        on_failure,
        (permit, memory),
        state.stall_policy.clone(),
        &state.parts.runtime,
    );
    let head = [(CONTENT_TYPE, media_type), (VARY, "accept")];
    let mut response = (head, Body::new(body)).into_response();
    if let Some(length) = read.length {
        let length = HeaderValue::from(length);
        response.headers_mut().insert(CONTENT_LENGTH, length);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_sent_if_accept_names_them_and_raw_bytes_otherwise() {
        for (accept, expected) in [
            (None, PageFormat::Raw),
            (Some("*/*"), PageFormat::Raw),
            (Some("application/octet-stream"), PageFormat::Raw),
            (Some("application/vnd.stopover.read"), PageFormat::Records),
            (
                Some("text/plain, Application/vnd.stopover.read;q=0.5"),
                PageFormat::Records,
            ),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(ACCEPT, HeaderValue::from_static(accept));
            }
            assert_eq!(format(&headers), expected, "{accept:?}");
        }
    }
}
