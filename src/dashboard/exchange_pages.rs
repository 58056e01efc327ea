//! The pages of exchanges: all that this daemon has sinks of, and one of them.

use std::fmt::Write as _;

use super::html::{self, Column, Context, Frame, duration, escape, table, terms};
use super::view::{ExchangeView, LeaseLeft, SinkView};
use crate::human::size;

/// Renders the list. `total` is the number of exchanges, of which these are the latest.
pub fn render_list(exchanges: &[ExchangeView], total: usize, context: Context<'_>) -> String {
    let mut body = String::from("<h1>Exchanges</h1>");
    if exchanges.is_empty() {
        body.push_str("<p>This daemon has had sinks of no exchange that is open.</p>");
    } else {
        let rows: Vec<_> = exchanges.iter().map(row).collect();
        let columns = [
            Column::Text("exchange"),
            Column::Text("query"),
            Column::Number("age"),
            Column::Number("size here"),
            Column::Number("tasks open"),
            Column::Number("finished"),
            Column::Number("given up"),
            Column::Number("lease left"),
        ];
        let caption = format!(
            "{} of {total}, the latest request first. Age, size and tasks are those at this \
             daemon: others may hold more. A lease that others renew is shown as the last sweep \
             saw it.",
            exchanges.len()
        );
        body.push_str(&table(&caption, columns, &rows));
    }
    let frame = Frame {
        title: "Exchanges",
        path: "/exchanges",
        context,
    };
    html::document(frame, &body)
}

fn row(exchange: &ExchangeView) -> [String; 8] {
    let name = escape(&exchange.exchange);
    [
        format!("<a href=\"/exchanges/{name}\">{name}</a>"),
        escape(&exchange.query),
        duration(exchange.age),
        size(exchange.size()),
        exchange.open.to_string(),
        exchange.finished.to_string(),
        exchange.given_up.to_string(),
        lease(exchange.lease_left),
    ]
}

fn lease(left: LeaseLeft) -> String {
    match left {
        LeaseLeft::Unknown => "not known yet".to_owned(),
        LeaseLeft::Exactly(left) => duration(left),
        LeaseLeft::AtLeast(left) => format!("at least {}", duration(left)),
    }
}

/// Renders the page of one exchange with some of its sinks.
pub fn render_one(exchange: &ExchangeView, sinks: &[SinkView], context: Context<'_>) -> String {
    let name = escape(&exchange.exchange);
    let mut body = format!("<h1>Exchange {name}</h1>");
    body.push_str("<p>What this daemon holds; others may hold more.</p>");
    body.push_str(&terms(&[
        ("Query", escape(&exchange.query)),
        ("Age here", duration(exchange.age)),
        ("Last request", format!("{} ago", duration(exchange.idle))),
        ("Lease left", lease(exchange.lease_left)),
        ("Tasks open", exchange.open.to_string()),
        ("Tasks finished", exchange.finished.to_string()),
        ("Tasks given up", exchange.given_up.to_string()),
        ("Not stored yet", size(exchange.held)),
    ]));
    body.push_str("<h2>Stored by this daemon</h2>");
    let stored: Vec<_> = exchange
        .stored
        .iter()
        .map(|(base, bytes)| {
            let base = escape(base);
            let link = format!("<a href=\"/base-directories/{base}\">{base}</a>");
            [link, size(*bytes)]
        })
        .collect();
    let columns = [Column::Text("base directory"), Column::Number("bytes")];
    body.push_str(&match stored.is_empty() {
        true => "<p>Nothing.</p>".to_owned(),
        false => table("Segments, footers included", columns, &stored),
    });
    body.push_str("<h2>Tasks</h2>");
    let rows: Vec<_> = sinks.iter().map(sink_row).collect();
    let columns = [
        Column::Text("task and attempt"),
        Column::Text("state"),
        Column::Number("pages"),
        Column::Number("bytes"),
    ];
    let all = exchange.open + exchange.finished + exchange.given_up;
    let caption = format!("{} of {all}, those that did not finish first", sinks.len());
    body.push_str(&table(&caption, columns, &rows));
    let _ = write!(
        body,
        "<p>All daemons together: <a href=\"/v1/exchanges/{name}\">as JSON</a>, read from the \
         base directories.</p>"
    );
    let path = format!("/exchanges/{name}");
    let frame = Frame {
        title: &exchange.exchange,
        path: &path,
        context,
    };
    html::document(frame, &body)
}

fn sink_row(sink: &SinkView) -> [String; 4] {
    let state = match (sink.state, &sink.failure) {
        (state, Some(why)) => format!("<span class=\"bad\">{state}: {}</span>", escape(why)),
        (state, None) => state.to_owned(),
    };
    [
        format!("{}.{}", sink.task, sink.attempt),
        state,
        sink.pages.to_string(),
        size(sink.bytes),
    ]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const EVIL: &str = "<i>'\"&";

    fn exchange() -> ExchangeView {
        ExchangeView {
            exchange: EVIL.into(),
            query: EVIL.into(),
            age: Duration::from_secs(90),
            open: 2,
            finished: 7,
            held: 1 << 20,
            stored: vec![(EVIL.into(), 3 << 20)],
            lease_left: LeaseLeft::AtLeast(Duration::from_secs(600)),
            ..ExchangeView::default()
        }
    }

    #[test]
    fn the_list_shows_age_size_tasks_and_lease_and_leads_to_each_exchange() {
        let html = render_list(&[exchange()], 12, Context::default());
        for part in [
            "1 of 12",
            "1m 30s",
            "4.0 MiB",
            "<span>2</span>",
            "<span>7</span>",
            "at least 10m",
        ] {
            assert!(html.contains(part), "{part} in {html}");
        }
        assert!(html.contains("<a href=\"/exchanges/&lt;i&gt;"));
        assert!(!html.contains("<i>"));
        assert!(render_list(&[], 0, Context::default()).contains("no exchange"));
    }

    #[test]
    fn the_page_of_an_exchange_shows_its_tasks_and_why_one_failed() {
        let sink = SinkView {
            task: 3,
            attempt: 1,
            state: "failed",
            failure: Some(EVIL.into()),
            ..SinkView::default()
        };
        let html = render_one(&exchange(), &[sink], Context::default());
        for part in ["3.1", "failed: &lt;i&gt;", "1 of 9", "0s ago", "Lease left"] {
            assert!(html.contains(part), "{part} in {html}");
        }
        assert!(!html.contains("<i>"));
    }
}
