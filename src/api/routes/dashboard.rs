//! The web pages: the overview, exchanges, base directories.
//!
//! Does: gather their content from memory. Does not: send requests to a base directory, so that a
//! page is answered while a store hangs. Invariant: the size of a page is bounded, whatever the
//! state.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use axum::response::IntoResponse;
use utoipa::IntoParams;

use crate::api::extract::{
    BaseParams, BasePath, ExchangeParams, ExchangePath, QueryParameters, StrictQuery, Values,
};
use crate::api::problem::{Problem, ProblemResponse, ProblemType};
use crate::api::state::{ApiState, SharedState};
use crate::dashboard::html::Context;
use crate::dashboard::view::{
    BaseView, ExchangeView, LeaseLeft, PoolView, QueryView, SinkView, View,
};
use crate::dashboard::{base_page, exchange_pages, history, html, overview};
use crate::ingest::ExchangeOverview;
use crate::memory::MemoryPool;
use crate::storage::BaseStatus;
use crate::telemetry::VERSION;

/// How many queries the overview shows.
const QUERIES: usize = 20;
/// How many exchanges the list shows.
const EXCHANGES: usize = 200;
/// How many sinks the page of an exchange shows.
const SINKS: usize = 500;

/// Query of a page.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageQuery {
    /// Seconds after which the page loads itself again.
    reload: Option<u32>,
}

impl QueryParameters for PageQuery {
    const NAMES: &'static [&'static str] = &["reload"];

    fn from_values(values: &Values<'_>) -> Result<Self, Problem> {
        let reload = values.number("reload", 3600)?;
        Ok(Self {
            reload: reload.filter(|seconds| *seconds > 0),
        })
    }
}

impl PageQuery {
    fn context<'a>(&self, state: &'a ApiState) -> Context<'a> {
        Context {
            host: &state.location.host,
            now_millis: state.parts.runtime.clock.wall_millis(),
            reload: self.reload,
        }
    }
}

/// A page with its security headers.
fn page(html: String) -> impl IntoResponse {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, html::policy()),
        (REFERRER_POLICY, "no-referrer"),
    ];
    (headers, html)
}

fn pool(name: &'static str, pool: &MemoryPool) -> PoolView {
    PoolView {
        name,
        used: pool.used(),
        waiting: pool.waiting(),
        capacity: pool.capacity(),
        limited: pool.shortage().limited.len(),
    }
}

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
    queries.truncate(QUERIES);
    queries
}

fn base(state: &ApiState, status: BaseStatus) -> BaseView {
    let metrics = state.parts.storage.metrics();
    BaseView {
        latencies: metrics.latencies(&status.name, state.parts.runtime.clock.now()),
        stored: metrics.stored(&status.name),
        status,
    }
}

fn view(state: &ApiState) -> View {
    let parts = &state.parts;
    let bases = parts.storage.status().into_iter();
    View {
        version: VERSION,
        run: parts.ingest.daemon().to_string(),
        host: state.location.host.clone(),
        listen: state.listen.get().copied(),
        advertise: state.location.advertise.clone(),
        zone: state.location.zone.clone(),
        uptime: parts.runtime.clock.now() - state.started,
        starting: parts.startup.is_running(),
        obstacles: parts.storage.opening_obstacles(),
        not_collecting: parts.storage.collection_obstacle(),
        credential_warnings: state.credential_warnings(),
        draining: parts.ingest.is_draining(),
        bases: bases.map(|status| base(state, status)).collect(),
        pools: vec![
            pool("writing", &parts.write_memory),
            pool("reading", &parts.read_memory),
            pool("requests", &state.body_limits.control_bodies),
        ],
        queries: queries(&parts.write_memory, &parts.read_memory),
        recent: parts.recent.newest_first(),
        history: state.history.clone(),
        metrics: Arc::clone(&parts.metrics),
    }
}

/// Records samples for the plots at regular intervals.
pub(crate) async fn sample(state: SharedState) {
    loop {
        state.history.record(current_sample(&state));
        state.parts.runtime.clock.sleep(history::INTERVAL).await;
    }
}

fn current_sample(state: &ApiState) -> history::Sample {
    let (parts, metrics) = (&state.parts, &state.parts.metrics);
    let share = |pool: &MemoryPool| pool.used() as f64 / pool.capacity().max(1) as f64;
    history::Sample {
        at: parts.runtime.clock.now() - state.started,
        bytes_written: metrics.bytes_written.get(),
        bytes_read: metrics.bytes_read.get(),
        sinks_finished: metrics.sinks_finished.get(),
        reads: metrics.reads.get(),
        write_share: share(&parts.write_memory),
        read_share: share(&parts.read_memory),
    }
}

/// The overview.
#[utoipa::path(
    get,
    path = "/",
    tag = "operations",
    params(PageQuery),
    responses(
        (status = 200, description = "A page with the current state of the daemon",
            body = String, content_type = "text/html"),
        ProblemResponse,
    )
)]
pub(crate) async fn overview_page(
    State(state): State<SharedState>,
    StrictQuery(query): StrictQuery<PageQuery>,
) -> impl IntoResponse {
    page(overview::render(&view(&state), query.context(&state)))
}

fn exchange_view(state: &ApiState, overview: ExchangeOverview) -> ExchangeView {
    let now = state.parts.runtime.clock.now();
    let stored = overview.stored.iter();
    let renewed = state.leases.left(&overview.exchange, now);
    let told = || {
        state
            .parts
            .exchanges
            .lease_left_at_least(&overview.exchange)
    };
    let lease_left = renewed.map(LeaseLeft::Exactly);
    let lease_left = lease_left.or_else(|| told().map(LeaseLeft::AtLeast));
    ExchangeView {
        exchange: overview.exchange.to_string(),
        query: overview.exchange.query().to_owned(),
        age: overview.age,
        idle: overview.idle,
        open: overview.open,
        finished: overview.finished,
        given_up: overview.given_up,
        held: overview.held,
        lease_left: lease_left.unwrap_or_default(),
        stored: stored
            .map(|(base, bytes)| (base.to_string(), *bytes))
            .collect(),
    }
}

/// The exchanges of which this daemon holds something, as a page.
#[utoipa::path(
    get,
    path = "/exchanges",
    tag = "operations",
    params(PageQuery),
    responses(
        (status = 200, description = "A page with the exchanges of this daemon",
            body = String, content_type = "text/html"),
        ProblemResponse,
    )
)]
pub(crate) async fn exchanges_page(
    State(state): State<SharedState>,
    StrictQuery(query): StrictQuery<PageQuery>,
) -> impl IntoResponse {
    let all = state.parts.ingest.exchange_overviews();
    let total = all.len();
    let shown = all.into_iter().take(EXCHANGES);
    let shown: Vec<ExchangeView> = shown.map(|one| exchange_view(&state, one)).collect();
    let context = query.context(&state);
    page(exchange_pages::render_list(&shown, total, context))
}

/// One exchange of which this daemon holds something, as a page.
#[utoipa::path(
    get,
    path = "/exchanges/{exchange}",
    tag = "operations",
    params(ExchangeParams, PageQuery),
    responses(
        (status = 200, description = "A page with what this daemon holds of the exchange",
            body = String, content_type = "text/html"),
        ProblemResponse,
    )
)]
pub(crate) async fn exchange_page(
    State(state): State<SharedState>,
    ExchangePath(exchange): ExchangePath,
    StrictQuery(query): StrictQuery<PageQuery>,
) -> Result<impl IntoResponse, Problem> {
    let found = state.parts.ingest.exchange_overview(&exchange, SINKS);
    let (overview, sinks) = found.ok_or_else(|| {
        let detail = format!(
            "this daemon holds nothing of exchange {exchange}: GET /v1/exchanges/{exchange} reads \
             the base directories"
        );
        Problem::new(ProblemType::ExchangeNotFound, detail)
    })?;
    let sinks = sinks.into_iter().map(|sink| SinkView {
        task: sink.attempt.task,
        attempt: sink.attempt.attempt,
        state: sink.state,
        failure: sink.failure,
        pages: sink.pages,
        bytes: sink.bytes,
    });
    let sinks: Vec<SinkView> = sinks.collect();
    let exchange = exchange_view(&state, overview);
    let context = query.context(&state);
    Ok(page(exchange_pages::render_one(&exchange, &sinks, context)))
}

/// One base directory, as a page.
#[utoipa::path(
    get,
    path = "/base-directories/{base}",
    tag = "operations",
    params(BaseParams, PageQuery),
    responses(
        (status = 200, description = "A page with the state of the base directory",
            body = String, content_type = "text/html"),
        ProblemResponse,
    )
)]
pub(crate) async fn base_directory_page(
    State(state): State<SharedState>,
    BasePath(name): BasePath,
    StrictQuery(query): StrictQuery<PageQuery>,
) -> Result<impl IntoResponse, Problem> {
    let mut bases = state.parts.storage.status().into_iter();
    let found = bases.find(|base| base.name == name);
    let found = found.ok_or_else(|| {
        let detail = "no base directory of this daemon has this name: the overview lists them";
        Problem::new(ProblemType::NotFound, detail)
    })?;
    let context = query.context(&state);
    Ok(page(base_page::render(&base(&state, found), context)))
}
