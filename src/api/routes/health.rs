//! Whether the daemon lives, and whether it can be used.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::state::SharedState;
use crate::storage::BaseStatus;

/// One base directory.
#[derive(Debug, Serialize, ToSchema)]
pub struct BaseDirectory {
    /// Its name.
    name: String,
    /// Its URI, without credentials.
    uri: String,
    /// Whether new segments go there.
    healthy: bool,
    /// Why not.
    error: Option<String>,
}

/// Whether work may be sent here.
#[derive(Debug, Serialize, ToSchema)]
pub struct Readiness {
    /// Whether it may.
    ready: bool,
    /// Whether the daemon is stopping.
    draining: bool,
    /// The base directories as last seen.
    base_directories: Vec<BaseDirectory>,
}

impl Readiness {
    /// Ready as long as one base directory works: the others are left out for new segments.
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

/// Answers while the process serves.
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

/// Whether the daemon is ready, and the base directories that are not.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operations",
    security(()),
    responses(
        (status = 200, description = "At least one base directory works", body = Readiness),
        (status = 503, description = "Stopping, or no base directory works", body = Readiness),
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
        }
    }

    #[test]
    fn one_working_base_directory_suffices_and_the_others_say_why_they_do_not() {
        let readiness = Readiness::new(false, vec![base(true), base(false)]);
        assert!(readiness.ready);
        let error = readiness.base_directories[1].error.as_deref();
        assert_eq!(error, Some("no such bucket"));
    }

    #[test]
    fn a_daemon_without_a_working_base_directory_or_one_that_stops_is_not_ready() {
        assert!(!Readiness::new(false, vec![base(false)]).ready);
        assert!(!Readiness::new(false, vec![]).ready);
        assert!(!Readiness::new(true, vec![base(true)]).ready);
    }
}
