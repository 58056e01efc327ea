//! Liveness and readiness.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::authorization::caller::Caller;
use crate::api::state::SharedState;
use crate::storage::BaseStatus;

/// The state of one base directory.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BaseDirectory {
    name: String,
    /// URI without credentials.
    uri: String,
    /// Whether its last put or probe succeeded: new segments are placed there.
    healthy: bool,
    /// Whether it is unhealthy because there is no space for segments.
    full: bool,
    /// Whether its last read succeeded.
    readable: bool,
    /// The last error, if it is unhealthy or unreadable.
    error: Option<String>,
}

/// Whether clients may send requests to this daemon, and open exchanges through it. Clients without
/// a token, where tokens are configured, get `ready` only.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Readiness {
    ready: bool,
    /// Whether the daemon is starting.
    #[serde(skip_serializing_if = "Option::is_none")]
    starting: Option<bool>,
    /// Whether the daemon is stopping.
    #[serde(skip_serializing_if = "Option::is_none")]
    draining: Option<bool>,
    /// What prevents new exchanges from being opened; empty if nothing does.
    #[serde(skip_serializing_if = "Option::is_none")]
    obstacles: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base_directories: Option<Vec<BaseDirectory>>,
    /// Why this daemon collects no expired exchanges, if so: it lacks a base directory that the
    /// fleet uses.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_collecting: Option<String>,
}

impl From<BaseStatus> for BaseDirectory {
    fn from(base: BaseStatus) -> Self {
        Self {
            name: base.name.to_string(),
            uri: base.uri,
            healthy: base.healthy,
            full: base.full,
            readable: base.unreadable.is_none(),
            error: base.error.or(base.unreadable),
        }
    }
}

/// Responds while the process accepts requests.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "operations",
    security(()),
    responses((status = 200, description = "Alive", body = String, content_type = "text/plain"))
)]
pub(crate) async fn alive() -> &'static str {
    "alive\n"
}

/// Reports whether the daemon serves and new exchanges can be opened; to authorized clients also
/// the state of its base directories and what prevents new exchanges.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operations",
    security(()),
    responses(
        (status = 200, description = "Requests are served and exchanges can be opened",
            body = Readiness),
        (status = 503, description = "Starting, stopping, or no exchange can be opened",
            body = Readiness),
    )
)]
pub(crate) async fn ready(
    State(state): State<SharedState>,
    caller: Option<Caller>,
) -> (StatusCode, Json<Readiness>) {
    let parts = &state.parts;
    let (starting, draining) = (parts.startup.is_running(), parts.ingest.is_draining());
    let obstacles = parts.storage.opening_obstacles();
    let ready = !starting && !draining && obstacles.is_empty();
    let status = match ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let bases = parts.storage.status().into_iter().map(Into::into);
    let readiness = match caller {
        None => Readiness {
            ready,
            ..Readiness::default()
        },
        Some(_) => Readiness {
            ready,
            starting: Some(starting),
            draining: Some(draining),
            obstacles: Some(obstacles),
            base_directories: Some(bases.collect()),
            not_collecting: parts.storage.collection_obstacle(),
        },
    };
    (status, Json(readiness))
}
