//! Liveness and readiness.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::state::SharedState;
use crate::storage::BaseStatus;

/// The state of one base directory.
#[derive(Debug, Serialize, ToSchema)]
pub struct BaseDirectory {
    name: String,
    /// URI without credentials.
    uri: String,
    /// Whether its last put or probe succeeded.
    healthy: bool,
    /// The last error, if it is unhealthy.
    error: Option<String>,
}

/// Whether clients may send requests to this daemon.
#[derive(Debug, Serialize, ToSchema)]
pub struct Readiness {
    ready: bool,
    /// Whether the daemon is stopping.
    draining: bool,
    base_directories: Vec<BaseDirectory>,
}

impl Readiness {
    /// Ready if one base directory is healthy: new segments are placed there.
    fn new(draining: bool, bases: Vec<BaseStatus>) -> Self {
        Self {
            ready: !draining && bases.iter().any(|base| base.healthy),
            draining,
            base_directories: bases
                .into_iter()
                .map(|base| BaseDirectory {
                    name: base.name.to_string(),
                    uri: base.uri,
                    healthy: base.healthy,
                    error: base.error,
                })
                .collect(),
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
pub async fn alive() -> &'static str {
    "alive\n"
}

/// Reports whether the daemon is ready, and the state of its base directories.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operations",
    security(()),
    responses(
        (status = 200, description = "At least one base directory is healthy", body = Readiness),
        (status = 503, description = "Stopping, or no base directory is healthy", body = Readiness),
    )
)]
pub async fn ready(State(state): State<SharedState>) -> (StatusCode, Json<Readiness>) {
    let draining = state.parts.ingest.is_draining();
    let readiness = Readiness::new(draining, state.parts.storage.status());
    let status = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(readiness))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(healthy: bool) -> BaseStatus {
        BaseStatus {
            name: "main".parse().unwrap(),
            uri: "memory://main".into(),
            healthy,
            error: (!healthy).then(|| "no such bucket".into()),
            ignores_preconditions: false,
        }
    }

    #[test]
    fn one_healthy_base_directory_suffices_and_the_others_show_their_error() {
        let readiness = Readiness::new(false, vec![base(true), base(false)]);
        assert!(readiness.ready);
        let error = readiness.base_directories[1].error.as_deref();
        assert_eq!(error, Some("no such bucket"));
    }

    #[test]
    fn a_daemon_that_stops_or_has_no_healthy_base_directory_is_not_ready() {
        assert!(!Readiness::new(false, vec![base(false)]).ready);
        assert!(!Readiness::new(false, vec![]).ready);
        assert!(!Readiness::new(true, vec![base(true)]).ready);
    }
}
