//! The status page as HTML: one document without scripts or external resources.

use std::fmt::Write;
use std::time::Duration;

use bytesize::ByteSize;

use super::view::{PoolView, QueryView, View};
use crate::storage::BaseStatus;
use crate::telemetry::metrics::Metrics;

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;\
color:#1c2430;background:#fbfbfa}\
h1{font-size:1.5rem;margin:0}h2{font-size:1.05rem;margin:2rem 0 .5rem}\
table{border-collapse:collapse;width:100%}\
th,td{text-align:left;padding:.3rem .8rem .3rem 0;border-bottom:1px solid #e3e3df;\
vertical-align:top}\
td.n{text-align:right;font-variant-numeric:tabular-nums}\
.ok{color:#176b3a}.bad{color:#a3231f}.dim{color:#697080}\
meter{width:12rem;height:.9rem}\
@media(prefers-color-scheme:dark){body{color:#e4e6ea;background:#16181c}\
th,td{border-color:#30343b}.ok{color:#6fcf97}.bad{color:#ff8a80}.dim{color:#9aa1ad}}";

/// Renders the page.
pub fn render(view: &View) -> String {
    let mut html = String::with_capacity(8 << 10);
    let _ = write!(
        html,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta http-equiv=\"refresh\" content=\"5\"><title>Stopover</title>\
         <style>{STYLE}</style></head><body><h1>Stopover</h1>\
         <p class=\"dim\">version {} · up {} · {}</p>",
        escape(view.version),
        humantime::format_duration(Duration::from_secs(view.uptime.as_secs())),
        state(view),
    );
    for obstacle in &view.obstacles {
        let obstacle = escape(obstacle);
        let _ = write!(
            html,
            "<p class=\"bad\">No new exchange can be opened: {obstacle}</p>"
        );
    }
    bases(&mut html, &view.bases);
    pools(&mut html, &view.pools);
    queries(&mut html, &view.queries);
    counters(&mut html, &view.metrics);
    html.push_str("<p class=\"dim\">This page reloads every five seconds. ");
    html.push_str("All metrics are at <a href=\"/metrics\">/metrics</a>, the API is described at ");
    html.push_str("<a href=\"/openapi.json\">/openapi.json</a>.</p></body></html>\n");
    html
}

fn state(view: &View) -> &'static str {
    match (view.draining, view.starting) {
        (true, _) => "<strong class=\"bad\">stopping</strong>",
        (_, true) => "<strong class=\"bad\">starting</strong>",
        _ => "serving",
    }
}

fn bases(html: &mut String, bases: &[BaseStatus]) {
    html.push_str("<h2>Base directories</h2><table><tr><th>name<th>URI<th>state</tr>");
    for base in bases {
        let failure = match (&base.unreadable, &base.error) {
            (Some(error), _) => Some(("cannot be read", error)),
            (None, Some(error)) if base.full => Some(("full", error)),
            (None, Some(error)) => Some(("unhealthy, tried last", error)),
            (None, None) => None,
        };
        let state = match failure {
            None => "<span class=\"ok\">works</span>".to_owned(),
            Some((what, why)) => format!("<span class=\"bad\">{what}: {}</span>", escape(why)),
        };
        let (name, uri) = (escape(base.name.as_str()), escape(&base.uri));
        let _ = write!(html, "<tr><td>{name}<td>{uri}<td>{state}</tr>");
    }
    html.push_str("</table>");
}

fn pools(html: &mut String, pools: &[PoolView]) {
    html.push_str("<h2>Memory</h2><table><tr><th>pool<th><th>used<th>of<th>waiting</tr>");
    for pool in pools {
        let _ = write!(
            html,
            "<tr><td>{}<td><meter max=\"{}\" value=\"{}\"></meter>\
             <td class=\"n\">{}<td class=\"n\">{}<td class=\"n\">{}</tr>",
            escape(pool.name),
            pool.capacity,
            pool.used,
            bytes(pool.used),
            bytes(pool.capacity),
            bytes(pool.waiting),
        );
    }
    html.push_str("</table>");
}

fn queries(html: &mut String, queries: &[QueryView]) {
    if queries.is_empty() {
        return;
    }
    html.push_str("<h2>Queries that use the most memory</h2><table><tr><th>query<th>writing");
    html.push_str("<th>waiting<th>reading<th>waiting</tr>");
    for query in queries {
        let _ = write!(
            html,
            "<tr><td>{}<td class=\"n\">{}<td class=\"n\">{}<td class=\"n\">{}\
             <td class=\"n\">{}</tr>",
            escape(&query.name),
            bytes(query.writing),
            bytes(query.writing_waited),
            bytes(query.reading),
            bytes(query.reading_waited),
        );
    }
    html.push_str("</table>");
}

fn counters(html: &mut String, metrics: &Metrics) {
    let now = [
        ("exchanges with sinks here", &metrics.exchanges_with_sinks),
        ("sinks open", &metrics.sinks_open),
        ("uploads in progress", &metrics.uploads_in_flight),
    ];
    let now = now.map(|(name, gauge)| (name, gauge.get().max(0).to_string()));
    let since = [
        ("sinks finished", metrics.sinks_finished.get().to_string()),
        ("sinks aborted", metrics.sinks_aborted.get().to_string()),
        ("sinks failed", metrics.sinks_failed.get().to_string()),
        ("pages accepted", metrics.pages_written.get().to_string()),
        ("page bytes accepted", bytes(metrics.bytes_written.get())),
        (
            "segments written",
            metrics.segments_written.get().to_string(),
        ),
        (
            "segment bytes written",
            bytes(metrics.segment_bytes_written.get()),
        ),
        ("reads", metrics.reads.get().to_string()),
        ("pages served", metrics.pages_read.get().to_string()),
        ("page bytes served", bytes(metrics.bytes_read.get())),
        ("of which from memory", bytes(metrics.cache_hit_bytes.get())),
        ("of which fetched", bytes(metrics.cache_miss_bytes.get())),
        (
            "integrity failures",
            metrics.integrity_failures.get().to_string(),
        ),
    ];
    figures(html, "Now", &now);
    figures(html, "Since start", &since);
}

fn figures(html: &mut String, title: &str, rows: &[(&str, String)]) {
    let _ = write!(html, "<h2>{title}</h2><table>");
    for (name, value) in rows {
        let _ = write!(html, "<tr><td>{name}<td class=\"n\">{value}</tr>");
    }
    html.push_str("</table>");
}

fn bytes(count: u64) -> String {
    ByteSize(count).display().iec().to_string()
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(error: &str) -> View {
        View {
            version: "1.2.3",
            uptime: Duration::from_secs(3 * 3600 + 61),
            bases: vec![BaseStatus {
                name: "main".parse().unwrap(),
                uri: "s3://bucket/prefix".into(),
                healthy: false,
                full: false,
                error: Some(error.into()),
                ignores_preconditions: false,
                retention: None,
                unreadable: None,
            }],
            obstacles: vec![error.into()],
            pools: vec![PoolView {
                name: "writing",
                used: 3 << 20,
                waiting: 512,
                capacity: 1 << 30,
            }],
            ..View::default()
        }
    }

    #[test]
    fn what_a_store_says_cannot_become_markup() {
        let page = render(&view("<script>alert('x')</script> & \"more\""));
        assert!(!page.contains("<script"));
        assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;more"));
    }

    #[test]
    fn the_page_loads_nothing_from_elsewhere() {
        let page = render(&view("x"));
        for outside in ["src=", "http://", "https://", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
    }

    #[test]
    fn sizes_and_times_are_written_for_people() {
        let page = render(&view("x"));
        assert!(page.contains("up 3h 1m 1s"));
        assert!(page.contains("3.0 MiB") && page.contains("1.0 GiB") && page.contains("512 B"));
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
    }
}
