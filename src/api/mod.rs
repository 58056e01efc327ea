//! The HTTP API, version 1: the whole route table.
//!
//! Does: turn requests into calls of `ingest`, `commit`, `read`, `lifecycle` and `storage`, and
//! their answers into responses. Does not: keep state of its own; HTTP types stop here. Invariant:
//! a handler that is dropped because its client left leaves nothing half done: whatever changes
//! state either happens between two awaits or goes on without the handler.

pub mod authorization;
mod extract;
pub mod limits;
mod observe;
mod openapi;
mod page_framing;
pub mod problem;
mod routes;

pub mod state;
mod stream_body;

use axum::{Router, middleware};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use routes::{dashboard, exchanges, fallback, handles, health, metrics, partitions, read, sinks};
use state::SharedState;

/// The routes with their descriptions; `/openapi.json` is made from these.
fn described() -> OpenApiRouter<SharedState> {
    OpenApiRouter::with_openapi(openapi::head())
        .routes(routes!(exchanges::list))
        .routes(routes!(
            exchanges::announce,
            exchanges::show,
            exchanges::close
        ))
        .routes(routes!(sinks::expect))
        .routes(routes!(sinks::add_pages))
        .routes(routes!(sinks::finish))
        .routes(routes!(sinks::abort))
        .routes(routes!(handles::plan))
        .routes(routes!(read::read))
        .routes(routes!(partitions::read))
        .routes(routes!(health::alive))
        .routes(routes!(health::ready))
        .routes(routes!(metrics::metrics))
        .routes(routes!(openapi::document))
        .routes(routes!(dashboard::page))
}

/// The whole service.
pub fn router(state: SharedState) -> Router {
    let (routes, _) = described().split_for_parts();
    let observe_state = observe::ObserveState {
        requests: state.parts.requests.clone(),
        runtime: state.parts.runtime.clone(),
        keep_alive: state.keep_alive,
    };
    let credentials = state.parts.credentials.clone();
    routes
        .fallback(fallback::not_found)
        .method_not_allowed_fallback(fallback::method_not_allowed)
        .layer(middleware::from_fn_with_state(
            credentials,
            authorization::require_access,
        ))
        .layer(middleware::from_fn_with_state(
            observe_state,
            observe::observe,
        ))
        .with_state(state)
}
