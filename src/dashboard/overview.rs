//! The overview: which daemon, what needs attention, traffic, base directories, memory, errors.

use std::fmt::Write as _;

use super::advice::advice;
use super::findings::findings;
use super::history::Counter;
use super::html::{self, Column, Context, Frame, duration, escape, instant, latency, table, terms};
use super::plot::{Line, Unit, figure};
use super::view::{BaseView, PoolView, QueryView, View};
use crate::human::size;
use crate::storage::{BaseStatus, OperationLatency};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::recent::Recent;

/// Renders the page.
pub fn render(view: &View, context: Context<'_>) -> String {
    let mut body = String::with_capacity(16 << 10);
    let state = state(view);
    let _ = write!(body, "<h1>{state}</h1>");
    body.push_str(&identity(view));
    attention(&mut body, view);
    traffic(&mut body, view);
    bases(&mut body, &view.bases);
    pools(&mut body, &view.pools);
    queries(&mut body, &view.queries);
    recent(&mut body, &view.recent);
    totals(&mut body, &view.metrics);
    let frame = Frame {
        title: state,
        path: "/",
        context,
    };
    html::document(frame, &body)
}

fn state(view: &View) -> &'static str {
    match (view.draining, view.starting) {
        (true, _) => "Stopping",
        (_, true) => "Starting",
        _ => "Serving",
    }
}

fn identity(view: &View) -> String {
    let or_none = |text: String| match text.is_empty() {
        true => "none".to_owned(),
        false => escape(&text),
    };
    let metrics = &view.metrics;
    terms(&[
        ("Version", escape(view.version)),
        ("Up", duration(view.uptime)),
        ("Host", or_none(view.host.clone())),
        (
            "Listens on",
            or_none(view.listen.map(|at| at.to_string()).unwrap_or_default()),
        ),
        ("Zone", or_none(view.zone.clone().unwrap_or_default())),
        ("Advertised as", or_none(view.advertise.join(", "))),
        ("Run", escape(&view.run)),
        ("Open tasks", metrics.sinks_open.get().max(0).to_string()),
        (
            "Exchanges here",
            format!(
                "<a href=\"/exchanges\">{}</a>",
                metrics.exchanges_with_sinks.get().max(0)
            ),
        ),
        (
            "Uploads in progress",
            metrics.uploads_in_flight.get().max(0).to_string(),
        ),
    ])
}

fn attention(body: &mut String, view: &View) {
    body.push_str("<h2>What needs attention</h2>");
    let found = findings(view);
    if found.is_empty() {
        body.push_str("<p class=\"ok\">Nothing.</p>");
        return;
    }
    body.push_str("<ul class=\"attention\">");
    for finding in found {
        let (what, remedy) = (escape(&finding.what), escape(&finding.remedy));
        let _ = write!(body, "<li><strong>{what}</strong><p>{remedy}</p></li>");
    }
    body.push_str("</ul>");
}

fn traffic(body: &mut String, view: &View) {
    let line = |name, series| Line { name, series };
    let history = &view.history;
    body.push_str("<h2>The last hour</h2><div class=\"plots\">");
    let throughput = [
        line("written", history.rates(Counter::BytesWritten)),
        line("served", history.rates(Counter::BytesRead)),
    ];
    body.push_str(&figure("Page bytes", &throughput, Unit::BytesPerSecond));
    let work = [
        line("tasks finished", history.rates(Counter::SinksFinished)),
        line("reads", history.rates(Counter::Reads)),
    ];
    body.push_str(&figure("Tasks and reads", &work, Unit::PerSecond));
    let (writing, reading) = history.shares();
    let memory = [line("writing", writing), line("reading", reading)];
    body.push_str(&figure("Memory in use", &memory, Unit::Share));
    body.push_str("</div>");
}

fn bases(body: &mut String, bases: &[BaseView]) {
    body.push_str("<h2>Base directories</h2>");
    let rows: Vec<_> = bases
        .iter()
        .map(|base| {
            let name = escape(base.status.name.as_str());
            [
                format!("<a href=\"/base-directories/{name}\">{name}</a>"),
                base_state(&base.status),
                quantiles(&base.latencies, "put"),
                quantiles(&base.latencies, "get"),
                size(base.stored),
            ]
        })
        .collect();
    let columns = [
        Column::Text("name"),
        Column::Text("state"),
        Column::Number("PUT"),
        Column::Number("GET"),
        Column::Number("stored"),
    ];
    let caption = "Latencies: median and 99th percentile of the last 10 to 15 minutes. Stored: by \
                   this daemon, for open exchanges.";
    body.push_str(&table(caption, columns, &rows));
}

fn quantiles(latencies: &[OperationLatency], operation: &str) -> String {
    let found = latencies.iter().find(|found| found.operation == operation);
    found.map_or_else(
        || "–".to_owned(),
        |found| format!("{} / {}", latency(found.median), latency(found.p99)),
    )
}

/// The state of a base directory as HTML.
pub(super) fn base_state(base: &BaseStatus) -> String {
    let failure = match (&base.unreadable, &base.error) {
        (Some(error), _) => Some(("cannot be read", error)),
        (None, Some(error)) if base.full => Some(("full", error)),
        (None, Some(error)) => Some(("unhealthy, tried last", error)),
        (None, None) => None,
    };
    match failure {
        None => "<span class=\"ok\">works</span>".to_owned(),
        Some((what, why)) => format!("<span class=\"bad\">{what}: {}</span>", escape(why)),
    }
}

fn pools(body: &mut String, pools: &[PoolView]) {
    body.push_str("<h2>Memory</h2>");
    let rows: Vec<_> = pools
        .iter()
        .map(|pool| {
            let PoolView {
                name,
                used,
                waiting,
                capacity,
                ..
            } = pool;
            let (name, used_text) = (escape(name), size(*used));
            [
                name.clone(),
                format!(
                    "<meter aria-label=\"{name}: {used_text} used\" max=\"{capacity}\" \
                     value=\"{used}\"></meter>"
                ),
                used_text,
                size(*capacity),
                size(*waiting),
            ]
        })
        .collect();
    let columns = [
        Column::Text("for"),
        Column::Text("share"),
        Column::Number("used"),
        Column::Number("of"),
        Column::Number("waiting"),
    ];
    body.push_str(&table("Pools of memory", columns, &rows));
}

fn queries(body: &mut String, queries: &[QueryView]) {
    if queries.is_empty() {
        return;
    }
    body.push_str("<h2>Who holds and waits</h2>");
    let rows: Vec<_> = queries
        .iter()
        .map(|query| {
            [
                escape(&query.name),
                size(query.writing),
                size(query.writing_waited),
                size(query.reading),
                size(query.reading_waited),
            ]
        })
        .collect();
    let columns = [
        Column::Text("query"),
        Column::Number("writing"),
        Column::Number("waits to write"),
        Column::Number("reading"),
        Column::Number("waits to read"),
    ];
    body.push_str(&table("Queries that use the most memory", columns, &rows));
}

fn recent(body: &mut String, recent: &[Recent]) {
    body.push_str("<h2>Recent warnings and errors</h2>");
    if recent.is_empty() {
        body.push_str("<p>None since the start.</p>");
        return;
    }
    let rows: Vec<_> = recent
        .iter()
        .map(|problem| {
            let class = if problem.is_error {
                "kind bad"
            } else {
                "kind dim"
            };
            let kind = if problem.is_error { "error" } else { "warning" };
            [
                instant(problem.last_millis),
                format!("<span class=\"{class}\">{kind}</span>"),
                format!(
                    "{}<br><span class=\"dim\">{}</span>",
                    escape(&problem.message),
                    escape(&problem.details)
                ),
                escape(advice(&problem.message)),
                problem.count.to_string(),
            ]
        })
        .collect();
    let columns = [
        Column::Text("last"),
        Column::Text("kind"),
        Column::Text("message"),
        Column::Text("what to do"),
        Column::Number("times"),
    ];
    body.push_str(&table("The newest of each message", columns, &rows));
}

fn totals(body: &mut String, metrics: &Metrics) {
    let fetched = metrics.cache_miss_bytes.get();
    let rows = [
        ("tasks finished", metrics.sinks_finished.get().to_string()),
        ("tasks aborted", metrics.sinks_aborted.get().to_string()),
        ("tasks failed", metrics.sinks_failed.get().to_string()),
        ("pages accepted", metrics.pages_written.get().to_string()),
        ("page bytes accepted", size(metrics.bytes_written.get())),
        (
            "segments written",
            metrics.segments_written.get().to_string(),
        ),
        (
            "segment bytes written",
            size(metrics.segment_bytes_written.get()),
        ),
        ("reads", metrics.reads.get().to_string()),
        ("pages served", metrics.pages_read.get().to_string()),
        ("page bytes served", size(metrics.bytes_read.get())),
        ("of which from memory", size(metrics.cache_hit_bytes.get())),
        ("of which fetched", size(fetched)),
        (
            "integrity failures",
            metrics.integrity_failures.get().to_string(),
        ),
        (
            "exchanges closed",
            metrics.exchanges_closed.get().to_string(),
        ),
        (
            "exchanges collected",
            metrics.exchanges_collected.get().to_string(),
        ),
    ];
    body.push_str("<h2>Totals since the start</h2>");
    body.push_str(&terms(&rows));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::dashboard::history::Sample;

    fn view(error: &str) -> View {
        let status = BaseStatus {
            name: "main".parse().unwrap(),
            uri: "s3://bucket/prefix".into(),
            healthy: false,
            full: false,
            error: Some(error.into()),
            ignores_preconditions: false,
            retention: None,
            unreadable: None,
        };
        View {
            version: "1.2.3",
            uptime: Duration::from_secs(3 * 3600 + 61),
            bases: vec![BaseView {
                status,
                latencies: vec![OperationLatency {
                    operation: "put",
                    count: 7,
                    median: Duration::from_millis(12),
                    p99: Duration::from_millis(180),
                }],
                stored: 5 << 30,
            }],
            obstacles: vec![error.into()],
            host: error.into(),
            listen: Some(([10, 0, 0, 12], 7077).into()),
            zone: Some(error.into()),
            pools: vec![PoolView {
                name: "writing",
                used: 3 << 20,
                waiting: 512,
                capacity: 1 << 30,
                limited: 0,
            }],
            queries: vec![QueryView {
                name: error.into(),
                ..QueryView::default()
            }],
            recent: vec![Recent {
                is_error: true,
                message: error.into(),
                details: error.into(),
                count: 3,
                first_millis: 0,
                last_millis: 0,
            }],
            ..View::default()
        }
    }

    #[test]
    fn what_comes_from_outside_cannot_become_markup() {
        let page = render(
            &view("<script>alert('x')</script> & \"more\""),
            Context::default(),
        );
        assert!(!page.contains("<script"));
        let escaped = "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;more";
        assert!(page.matches(escaped).count() >= 7, "{page}");
    }

    #[test]
    fn the_overview_answers_what_one_asks_and_ends_with_the_totals() {
        let view = view("no such bucket");
        view.history.record(Sample::default());
        view.history.record(Sample {
            at: Duration::from_secs(10),
            bytes_written: 10 << 20,
            ..Sample::default()
        });
        let page = render(&view, Context::default());
        for answer in [
            "1.2.3",
            "<dt>Host</dt><dd>no such bucket</dd>",
            "<dt>Listens on</dt><dd>10.0.0.12:7077</dd>",
            "3h 1m",
            "Base directory main is out of order: no such bucket",
            "512 B wait for memory for writing",
            "written 1.0 MiB/s",
            "12 ms / 180 ms",
            "5.0 GiB",
            "<a href=\"/base-directories/main\">",
            "<a href=\"/exchanges\">",
        ] {
            assert!(page.contains(answer), "{answer} in {page}");
        }
        let headings: Vec<_> = page.split("<h2>").skip(1).collect();
        assert!(
            headings.last().unwrap().starts_with("Totals"),
            "{headings:?}"
        );
    }
}
