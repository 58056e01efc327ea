//! HTML for all pages: the frame, tables, figures, and how text and numbers are written.
//!
//! Pure. Invariant: what came from outside becomes text, never markup; the document loads nothing
//! and runs no script; its style is named in the policy by its hash.

use std::fmt::Write as _;
use std::sync::LazyLock;
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

const STYLE: &str = include_str!("style.css");

/// What a page may do: show its own style and the empty icon.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = BASE64_STANDARD.encode(digest::digest(&digest::SHA256, STYLE.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{hash}'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'"
    )
});

/// The value of `Content-Security-Policy` for every page.
pub fn policy() -> &'static str {
    &POLICY
}

/// The pages that every page links to.
const NAVIGATION: [(&str, &str); 3] = [
    ("/", "Overview"),
    ("/exchanges", "Exchanges"),
    ("/metrics", "Metrics"),
];

/// What the frame of a page shows.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Plain text.
    pub title: &'a str,
    /// The path of the page.
    pub path: &'a str,
    pub context: Context<'a>,
}

/// What is not of the page itself: where it was made, when, and when it loads itself again.
#[derive(Debug, Clone, Copy, Default)]
pub struct Context<'a> {
    /// The name of the daemon's machine or pod, plain text; with it, tabs of several daemons have
    /// different titles.
    pub host: &'a str,
    /// Milliseconds since 1970.
    pub now_millis: u64,
    /// Seconds until the page loads itself again.
    pub reload: Option<u32>,
}

/// How often a page loads itself again if its reader asks for it.
const RELOAD_SECONDS: u32 = 10;

/// The whole document around the HTML of a page.
pub fn document(frame: Frame<'_>, body: &str) -> String {
    let mut html = String::with_capacity(STYLE.len() + body.len() + 2048);
    let (title, host) = (escape(frame.title), escape(frame.context.host));
    html.push_str("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">");
    html.push_str("<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">");
    if let Some(seconds) = frame.context.reload {
        let _ = write!(html, "<meta http-equiv=\"refresh\" content=\"{seconds}\">");
    }
    let _ = write!(
        html,
        "<link rel=\"icon\" href=\"data:,\"><title>{title} · {host} · Stopover</title>\
         <style>{STYLE}</style></head><body>\
         <a class=\"skip\" href=\"#content\">Skip to the content</a>\
         <header><div><strong>Stopover</strong><nav aria-label=\"Pages\"><ul>"
    );
    for (path, name) in NAVIGATION {
        let current = if path == frame.path {
            " aria-current=\"page\""
        } else {
            ""
        };
        let _ = write!(html, "<li><a href=\"{path}\"{current}>{name}</a></li>");
    }
    let _ = write!(
        html,
        "</ul></nav></div></header><main id=\"content\" tabindex=\"-1\">{body}</main><footer>{}",
        instant(frame.context.now_millis)
    );
    let path = escape(frame.path);
    let (query, reload) = match frame.context.reload {
        None => (
            format!("?reload={RELOAD_SECONDS}"),
            format!("Reload every {RELOAD_SECONDS} seconds"),
        ),
        Some(_) => (String::new(), "Stop reloading".to_owned()),
    };
    let _ = writeln!(
        html,
        " · <a href=\"{path}{query}\">{reload}</a></footer></body></html>"
    );
    html
}

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub enum Column {
    Text(&'static str),
    /// Aligned to the right.
    Number(&'static str),
}

/// A table; its rows are cells of HTML, of which the first heads the row. On a narrow screen each
/// row is a card, and each cell is labelled; the roles keep it a table for assistive technology.
pub fn table<const N: usize>(caption: &str, columns: [Column; N], rows: &[[String; N]]) -> String {
    let mut html = format!(
        "<table role=\"table\"><caption>{}</caption>",
        escape(caption)
    );
    html.push_str("<thead role=\"rowgroup\"><tr role=\"row\">");
    for column in columns {
        let (class, name) = parts(column);
        let _ = write!(
            html,
            "<th scope=\"col\" role=\"columnheader\"{class}>{name}</th>"
        );
    }
    html.push_str("</tr></thead><tbody role=\"rowgroup\">");
    for row in rows {
        html.push_str("<tr role=\"row\">");
        for (index, (cell, column)) in row.iter().zip(columns).enumerate() {
            let (class, name) = parts(column);
            let (tag, role) = match index {
                0 => ("th scope=\"row\"", "rowheader"),
                _ => ("td", "cell"),
            };
            let end = &tag[..2];
            let _ = write!(
                html,
                "<{tag} role=\"{role}\"{class} data-label=\"{name}\"><span>{cell}</span></{end}>"
            );
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table>");
    html
}

fn parts(column: Column) -> (&'static str, &'static str) {
    match column {
        Column::Text(name) => ("", name),
        Column::Number(name) => (" class=\"n\"", name),
    }
}

/// Terms with their values, which are HTML.
pub fn terms(terms: &[(&str, String)]) -> String {
    let terms = terms
        .iter()
        .map(|(term, value)| format!("<div><dt>{}</dt><dd>{value}</dd></div>", escape(term)));
    format!("<dl>{}</dl>", terms.collect::<String>())
}

/// A time span to the second, or to the two largest units.
pub fn duration(span: Duration) -> String {
    let seconds = span.as_secs();
    let text = humantime::format_duration(Duration::from_secs(seconds)).to_string();
    let largest: Vec<&str> = text.split(' ').take(2).collect();
    largest.join(" ")
}

/// A short time, in milliseconds or seconds.
pub fn latency(span: Duration) -> String {
    let millis = span.as_secs_f64() * 1e3;
    match millis {
        ..10.0 => format!("{millis:.1} ms"),
        ..1000.0 => format!("{millis:.0} ms"),
        _ => format!("{:.1} s", millis / 1e3),
    }
}

/// A wall time with its zone.
pub fn instant(millis: u64) -> String {
    let at = std::time::SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
    let text = humantime::format_rfc3339_seconds(at).to_string();
    format!(
        "<time datetime=\"{text}\">{}</time>",
        text.replace(['T', 'Z'], " ").trim_end()
    )
    .replace("</time>", " UTC</time>")
}

/// Text that is safe between tags and in quoted attributes.
pub fn escape(text: &str) -> String {
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

    #[test]
    fn sizes_and_times_are_written_for_people() {
        assert_eq!(
            duration(Duration::from_millis(3 * 3_600_000 + 61_500)),
            "3h 1m"
        );
        assert_eq!(duration(Duration::ZERO), "0s");
        assert_eq!(latency(Duration::from_micros(1500)), "1.5 ms");
        assert_eq!(latency(Duration::from_millis(250)), "250 ms");
        assert_eq!(latency(Duration::from_millis(2500)), "2.5 s");
        let at = instant(1_700_000_000_000);
        assert!(at.contains(">2023-11-14 22:13:20 UTC<"), "{at}");
    }

    #[test]
    fn a_document_has_one_main_part_a_way_to_it_and_nothing_from_elsewhere() {
        let frame = Frame {
            title: "<b>",
            path: "/exchanges",
            context: Context {
                host: "worker-<1>",
                ..Context::default()
            },
        };
        let html = document(frame, "<h1>x</h1>");
        assert!(html.contains("<title>&lt;b&gt; · worker-&lt;1&gt; · Stopover</title>"));
        assert!(html.contains("href=\"#content\"") && html.contains("<main id=\"content\""));
        assert!(html.contains("<a href=\"/exchanges\" aria-current=\"page\">"));
        assert!(!html.contains("http-equiv") && html.contains("/exchanges?reload=10"));
        for outside in [
            "src=", "http://", "https://", "@import", "url(", "<script", "style=\"",
        ] {
            assert!(!html.contains(outside), "{outside}");
        }
    }

    #[test]
    fn the_policy_names_the_style_and_permits_nothing_else() {
        let policy = policy();
        assert!(
            policy.starts_with("default-src 'none'; style-src 'sha256-"),
            "{policy}"
        );
        assert!(
            !policy.contains("unsafe") && !policy.contains("script-src"),
            "{policy}"
        );
    }

    #[test]
    fn a_cell_names_its_column_and_the_first_heads_the_row() {
        let columns = [Column::Text("name"), Column::Number("bytes")];
        let html = table("All", columns, &[["a".into(), "1".into()]]);
        assert!(html.contains("<th scope=\"row\" role=\"rowheader\" data-label=\"name\">"));
        assert!(html.contains("<td role=\"cell\" class=\"n\" data-label=\"bytes\"><span>1</span>"));
        assert!(html.contains("<caption>All</caption>"));
    }
}
