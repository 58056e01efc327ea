//! The dashboard: a page with the current state of the daemon.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::IntoResponse;

use crate::api::state::{ApiState, SharedState};
use crate::dashboard::page::render;
use crate::dashboard::view::{BaseView, Counters, PoolView, QueryView, View};
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
    let metrics = &parts.metrics;
    let gauge = |value: i64| u64::try_from(value).unwrap_or(0);
    View {
        version: env!("CARGO_PKG_VERSION"),
        uptime: parts.runtime.clock.now() - state.started,
        draining: parts.ingest.is_draining(),
        bases: parts
            .storage
            .status()
            .into_iter()
            .map(|base| BaseView {
                name: base.name.to_string(),
                uri: base.uri,
                healthy: base.healthy,
                error: base.error,
            })
            .collect(),
        pools: vec![
            pool("writing", &parts.write_memory),
            pool("reading", &parts.read_memory),
            pool("requests", &state.body_limits.control_bodies),
        ],
        queries: queries(&parts.write_memory, &parts.read_memory),
        counters: Counters {
            exchanges_open: gauge(metrics.exchanges_open.get()),
            sinks_open: gauge(metrics.sinks_open.get()),
            uploads_in_flight: gauge(metrics.uploads_in_flight.get()),
            sinks_finished: metrics.sinks_finished.get(),
            sinks_aborted: metrics.sinks_aborted.get(),
            sinks_failed: metrics.sinks_failed.get(),
            pages_written: metrics.pages_written.get(),
            bytes_written: metrics.bytes_written.get(),
            segments_written: metrics.segments_written.get(),
            segment_bytes_written: metrics.segment_bytes_written.get(),
            reads: metrics.reads.get(),
            pages_read: metrics.pages_read.get(),
            bytes_read: metrics.bytes_read.get(),
            cache_hit_bytes: metrics.cache_hit_bytes.get(),
            cache_miss_bytes: metrics.cache_miss_bytes.get(),
            integrity_failures: metrics.integrity_failures.get(),
        },
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
pub async fn page(State(state): State<SharedState>) -> impl IntoResponse {
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
