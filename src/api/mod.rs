//! The HTTP API, version 1: the whole route table.
//!
//! Does: turn requests into calls of the modules below, and their results into responses. Does not:
//! hold state of exchanges; HTTP types do not leave `api` and `http`. Invariant: a handler may be
//! dropped at any await, because its client has disconnected. So every state change happens between
//! two awaits, or continues in a background task.

pub mod authorization;
mod descriptor;
mod extract;
mod leases;
pub mod limits;
mod observe;
mod openapi;
mod operations;
mod page_framing;
pub mod problem;
mod protocol;
mod routes;
pub mod startup;
pub mod state;
mod stream_body;
mod trace;

use axum::routing::get;
use axum::{Extension, Router, middleware};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use authorization::{AccessState, permissions};
use routes::{
    chosen, daemon, dashboard, exchange_list, exchanges, fallback, handles, health, metrics,
    partitions, read, reload, sinks,
};
use state::SharedState;

use crate::http::credentials::Credentials;

/// The routes with their OpenAPI descriptions.
fn described() -> OpenApiRouter<SharedState> {
    OpenApiRouter::with_openapi(openapi::head())
        .routes(routes!(exchange_list::list))
        .routes(routes!(
            exchanges::announce,
            exchange_list::show,
            exchanges::close
        ))
        .routes(routes!(sinks::declare, sinks::withdraw))
        .routes(routes!(sinks::add_pages))
        .routes(routes!(sinks::finish))
        .routes(routes!(sinks::abort))
        .routes(routes!(chosen::chosen))
        .routes(routes!(handles::plan))
        .routes(routes!(read::read_handle))
        .routes(routes!(partitions::read_partition))
        .routes(routes!(reload::reload))
        .routes(routes!(daemon::describe))
        .routes(routes!(health::alive))
        .routes(routes!(health::ready))
        .routes(routes!(metrics::metrics))
        .routes(routes!(openapi::document))
        .routes(routes!(dashboard::overview_page))
        .routes(routes!(dashboard::exchanges_page))
        .routes(routes!(dashboard::exchange_page))
        .routes(routes!(dashboard::base_directory_page))
}

/// The routes with all layers.
pub fn router(state: SharedState) -> Router {
    let (routes, document) = described().split_for_parts();
    let known = permissions::TABLE.iter();
    let known = known.map(|(method, route, _)| (*route, *method));
    state.parts.requests.add_routes(known);
    let access = AccessState::new(&state.parts.credentials, &state.parts.runtime);
    let routes = routes.layer(Extension(openapi::OpenApiText::new(&document)));
    layered(routes, state, access)
}

/// The routes of `server.admin_listen`: what shows the daemon and changes nothing.
pub fn admin_router(state: SharedState, credentials: &Credentials) -> Router {
    let access = AccessState::admin(credentials, &state.parts.runtime);
    let routes = Router::new()
        .route("/", get(dashboard::overview_page))
        .route("/exchanges", get(dashboard::exchanges_page))
        .route("/exchanges/{exchange}", get(dashboard::exchange_page))
        .route(
            "/base-directories/{base}",
            get(dashboard::base_directory_page),
        )
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::metrics))
        .route("/v1/daemon", get(daemon::describe))
        .route("/v1/exchanges", get(exchange_list::list))
        .route("/v1/exchanges/{exchange}", get(exchange_list::show));
    layered(routes, state, access)
}

/// Records the samples for the plots of the dashboard, until it is dropped.
pub async fn sample_history(state: SharedState) {
    dashboard::sample(state).await;
}

fn layered(routes: Router<SharedState>, state: SharedState, access: AccessState) -> Router {
    let observe_state = observe::ObserveState {
        requests: state.parts.requests.clone(),
        runtime: state.parts.runtime.clone(),
        limits: state.limits.clone(),
    };
    let startup = state.parts.startup.clone();
    let run = state.parts.ingest.daemon();
    let traces = state.parts.traces.clone();
    routes
        .fallback(fallback::not_found)
        .method_not_allowed_fallback(fallback::method_not_allowed)
        .layer(middleware::from_fn_with_state(
            state.clone(),
            descriptor::record_descriptor,
        ))
        .layer(middleware::from_fn_with_state(
            startup,
            startup::require_started,
        ))
        .layer(middleware::from_fn_with_state(traces, trace::trace))
        .layer(middleware::from_fn_with_state(
            access,
            authorization::require_access,
        ))
        .layer(middleware::from_fn_with_state(run, protocol::negotiate))
        .layer(middleware::from_fn_with_state(
            observe_state,
            observe::observe,
        ))
        .with_state(state)
}
