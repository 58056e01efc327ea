//! Metrics for Prometheus.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

use crate::api::state::SharedState;

const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of the daemon.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operations",
    responses((status = 200, description = "OpenMetrics text",
        body = String, content_type = "application/openmetrics-text"))
)]
pub(crate) async fn metrics(State(state): State<SharedState>) -> impl IntoResponse {
    state.parts.ingest.record_ages();
    ([(CONTENT_TYPE, MEDIA_TYPE)], state.parts.registry.encode())
}
