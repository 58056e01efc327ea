//! The attempts that the coordinator chose so far, so that planning begins while tasks finish.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::api::extract::{ExchangeParams, ExchangePath, JsonBody, NoQuery, StrictJson, list};
use crate::api::problem::{Problem, ProblemResponse};
use crate::api::state::SharedState;
use crate::id::{DaemonId, TaskAttempt};

/// Attempts that have finished and were chosen since the last such request.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChosenRequest {
    /// Pairs of task and attempt, at most 1048576.
    #[serde(deserialize_with = "list")]
    #[schema(value_type = Vec<(u32, u32)>)]
    attempts: Vec<TaskAttempt>,
    /// Runs of the daemons that the client will ask for what they have in memory: what they wrote
    /// is not read in advance. At most 4096.
    #[serde(default, deserialize_with = "list")]
    #[schema(value_type = Vec<String>)]
    asked_daemons: Vec<DaemonId>,
}

impl JsonBody for ChosenRequest {
    /// Bounded by the setting alone, as the request for handles.
    const MAX_SIZE: u64 = u64::MAX;
}

/// Reports to the daemon that will plan an exchange which attempts were chosen so far.
///
/// Optional: the daemon prefetches what the plan will need. It answers at once.
#[utoipa::path(
    post,
    path = "/v1/exchanges/{exchange}/chosen",
    tag = "reading",
    params(ExchangeParams),
    request_body = ChosenRequest,
    responses(
        (status = 204, description = "The daemon may read in advance"),
        ProblemResponse,
    )
)]
pub(crate) async fn chosen(
    State(state): State<SharedState>,
    ExchangePath(exchange): ExchangePath,
    _: NoQuery,
    StrictJson(request, memory): StrictJson<ChosenRequest>,
) -> Result<StatusCode, Problem> {
    let asked = request.asked_daemons.into_iter().collect();
    // Only for exchanges that are known here, as at the daemon that announced them: this route does
    // no I/O itself.
    if state.parts.exchanges.lookup_known(&exchange)?.is_some()
        && let Some(prefetch) =
            state
                .parts
                .commits
                .record_chosen(&exchange, request.attempts, asked)
    {
        state.parts.runtime.tasks.spawn_until_stopped(async move {
            if let Err(error) = prefetch.run().await {
                tracing::debug!(%exchange, %error, "cannot prefetch footers; a plan will");
            }
            drop(memory);
        });
    }
    Ok(StatusCode::NO_CONTENT)
}
