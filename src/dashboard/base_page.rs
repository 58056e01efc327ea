//! The page of one base directory.

use super::html::{self, Column, Context, Frame, escape, latency, table, terms};
use super::overview::base_state;
use super::view::BaseView;
use crate::human::size;

/// Renders the page.
pub fn render(base: &BaseView, context: Context<'_>) -> String {
    let status = &base.status;
    let name = escape(status.name.as_str());
    let conditions = match status.ignores_preconditions {
        true => {
            "<span class=\"bad\">it ignores the conditions of writes: other daemons may \
                 overwrite what this one wrote</span>"
        }
        false => "kept, as far as seen",
    };
    let retention = status.retention.map_or_else(
        || "nothing, as far as seen".to_owned(),
        |retention| format!("it {}", escape(retention.warning())),
    );
    let properties = terms(&[
        ("URI", escape(&status.uri)),
        ("State", base_state(status)),
        ("Stored by this daemon", size(base.stored)),
        ("Conditions of writes", conditions.to_owned()),
        ("Keeps after a delete", retention),
    ]);
    let rows: Vec<_> = base
        .latencies
        .iter()
        .map(|found| {
            [
                found.operation.to_uppercase(),
                found.count.to_string(),
                latency(found.median),
                latency(found.p99),
            ]
        })
        .collect();
    let columns = [
        Column::Text("operation"),
        Column::Number("count"),
        Column::Number("median"),
        Column::Number("99th percentile"),
    ];
    let latencies = match rows.is_empty() {
        true => "<p>No operation ended in the last 10 to 15 minutes.</p>".to_owned(),
        false => table("The last 10 to 15 minutes", columns, &rows),
    };
    let body = format!("<h1>Base directory {name}</h1>{properties}<h2>Latency</h2>{latencies}");
    let path = format!("/base-directories/{name}");
    let frame = Frame {
        title: status.name.as_str(),
        path: &path,
        context,
    };
    html::document(frame, &body)
}
