//! The dashboard: a page with the current state of the daemon.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::IntoResponse;

use crate::api::state::{ApiState, SharedState};
use crate::dashboard::page::render;
use crate::dashboard::view::{PoolView, QueryView, View};
use crate::memory::MemoryPool;

fn pool(name: &'static str, pool: &MemoryPool) -> PoolView {
    PoolView {
        name,
        used: pool.used(),
        waiting: pool.waiting(),
        capacity: pool.capacity(),
    }
}

/// How many queries the page shows.
const SHOWN: usize = 20;

/// The queries that hold and wait for the most memory.
fn queries(write: &MemoryPool, read: &MemoryPool) -> Vec<QueryView> {
    let mut queries: BTreeMap<String, QueryView> = BTreeMap::new();
    for (name, held, waited) in write.queries() {
        let query = queries.entry(name.to_string()).or_default();
        (query.writing, query.writing_waited) = (held, waited);
    }
    for (name, held, waited) in read.queries() {
        let query = queries.entry(name.to_string()).or_default();
        (query.reading, query.reading_waited) = (held, waited);
    }
    let mut queries: Vec<QueryView> = queries
        .into_iter()
        .map(|(name, query)| QueryView { name, ..query })
        .collect();
    queries.sort_by_key(|q| Reverse(q.writing + q.writing_waited + q.reading + q.reading_waited));
    queries.truncate(SHOWN);
    queries
}

fn view(state: &ApiState) -> View {
    let parts = &state.parts;
    View {
        version: env!("CARGO_PKG_VERSION"),
        uptime: parts.runtime.clock.now() - state.started,
        starting: parts.startup.is_running(),
        obstacles: parts.storage.opening_obstacles(),
        draining: parts.ingest.is_draining(),
        bases: parts.storage.status(),
        pools: vec![
            pool("writing", &parts.write_memory),
            pool("reading", &parts.read_memory),
            pool("requests", &state.body_limits.control_bodies),
        ],
        queries: queries(&parts.write_memory, &parts.read_memory),
        metrics: Arc::clone(&parts.metrics),
    }
}

/// The dashboard.
#[utoipa::path(
    get,
    path = "/",
    tag = "operations",
    responses((status = 200, description = "A page with the current state of the daemon",
        body = String, content_type = "text/html"))
)]
pub(crate) async fn page(State(state): State<SharedState>) -> impl IntoResponse {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
        ),
    ];
    (headers, render(&view(&state)))
}
