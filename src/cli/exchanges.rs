//! `stopover exchanges`: lists the exchanges that a daemon finds in its base directories.
//!
//! Does: request all pages of the list, sort it, print a table or JSON, once or repeatedly. Does
//! not: read base directories. Invariant: a printed list is complete.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::daemon_client::{DaemonArgs, DaemonClient};
use super::exchange_view::ListedView;
use super::progress::Progress;
use super::table::{Table, seconds};
use super::{EXIT_USAGE, print};
use crate::config::units;
use crate::human::{count, size};
use crate::id::ExchangeId;
use crate::telemetry::logs::{printable, printable_json};

/// The screen is cleared from its upper left corner.
const CLEAR: &str = "\u{1b}[H\u{1b}[J";

/// Each list costs requests to the base directories.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// Arguments of `exchanges`.
#[derive(Args)]
pub(super) struct ExchangesArgs {
    /// Only the exchanges of this query
    #[arg(long, value_name = "QUERY")]
    query: Option<String>,
    /// Order: by id, the largest first, the oldest query first, or the least lease left first
    #[arg(long, value_enum, default_value = "id")]
    sort: Sort,
    /// List again and again, at this interval
    #[arg(long, value_name = "INTERVAL", num_args = 0..=1, default_missing_value = "5s")]
    watch: Option<String>,
    /// Print JSON; with --watch, a line for each list
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum Sort {
    Id,
    Size,
    Age,
    Lease,
}

#[derive(Debug, Serialize, Deserialize)]
struct Page {
    exchanges: Vec<ListedView>,
    #[serde(skip_serializing)]
    next: Option<String>,
}

/// Lists them.
///
/// # Errors
/// The exit code; the reason has been printed to stderr.
pub(super) fn exchanges(args: ExchangesArgs) -> Result<ExitCode, ExitCode> {
    let usage = |text: String| {
        eprintln!("stopover: {}", printable(&text));
        ExitCode::from(EXIT_USAGE)
    };
    if let Some(query) = &args.query {
        let valid = query.parse::<ExchangeId>();
        valid.map_err(|error| usage(format!("--query: {}", error.rule)))?;
    }
    let interval = match args
        .watch
        .as_deref()
        .map(|given| (given, units::parse_duration(given)))
    {
        None => None,
        Some((_, Ok(interval))) => Some(interval.max(SHORTEST_INTERVAL)),
        Some((given, Err(why))) => return Err(usage(format!("--watch {given}: {why}"))),
    };
    let daemon = args.daemon.client()?;
    let list = || {
        let mut listed = fetch(&daemon, args.query.as_deref())?;
        sort(&mut listed, args.sort);
        Ok(listed)
    };
    match interval {
        Some(interval) => watch(list, interval, args.json),
        None => {
            let listing = Progress::spinner("listing exchanges");
            let listed = list()?;
            drop(listing);
            print(&match args.json {
                true => printable_json(&format!("{:#}\n", json!({ "exchanges": listed }))),
                false => printable(&as_text(&listed)),
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints lists until stdout is closed. If the daemon does not answer, the request is retried.
fn watch(list: impl Fn() -> Result<Vec<ListedView>, ExitCode>, interval: Duration, as_json: bool) {
    let clears = std::io::stdout().is_terminal() && !as_json;
    loop {
        let text = match list() {
            Err(_) => String::new(),
            Ok(listed) if as_json => {
                printable_json(&format!("{}\n", json!({ "exchanges": listed })))
            }
            Ok(listed) if clears => format!("{CLEAR}{}", printable(&as_text(&listed))),
            Ok(listed) => format!("{}\n", printable(&as_text(&listed))),
        };
        if !print(&text) {
            return;
        }
        std::thread::sleep(interval);
    }
}

/// All parts of the list.
fn fetch(daemon: &DaemonClient, query: Option<&str>) -> Result<Vec<ListedView>, ExitCode> {
    let mut all = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let mut parameters = Vec::new();
        parameters.extend(query.map(|query| format!("query={query}")));
        parameters.extend(after.map(|after| format!("after={after}")));
        let path = match parameters.is_empty() {
            true => "/v1/exchanges".to_owned(),
            false => format!("/v1/exchanges?{}", parameters.join("&")),
        };
        let page: Page = daemon.json("GET", &path)?;
        all.extend(page.exchanges);
        after = page.next;
        if after.is_none() {
            return Ok(all);
        }
    }
}

fn sort(listed: &mut [ListedView], by: Sort) {
    match by {
        Sort::Id => {}
        Sort::Size => listed.sort_by_key(|exchange| Reverse(exchange.bytes)),
        Sort::Age => listed.sort_by_key(|exchange| Reverse(exchange.age_seconds)),
        Sort::Lease => {
            listed.sort_by_key(|exchange| exchange.lease_left_seconds.unwrap_or(u64::MAX));
        }
    }
}

fn as_text(listed: &[ListedView]) -> String {
    let headings = [
        "state",
        ">size",
        ">age",
        ">lease left",
        "base directories",
        "exchange",
    ];
    let mut table = Table::new(&headings);
    let mut bases: BTreeMap<&str, u64> = BTreeMap::new();
    for exchange in listed {
        let names = exchange.base_directories.iter().map(|share| {
            *bases.entry(&share.base).or_default() += share.bytes;
            share.base.as_str()
        });
        let names: Vec<_> = names.collect();
        table.add([
            exchange.state.clone(),
            size(exchange.bytes),
            seconds(exchange.age_seconds),
            seconds(exchange.lease_left_seconds),
            names.join(","),
            exchange.exchange.clone(),
        ]);
    }
    let mut text = table.render();
    let total: u64 = listed.iter().map(|exchange| exchange.bytes).sum();
    let _ = write!(text, "{}, {}", count(listed.len(), "exchange"), size(total));
    for (base, bytes) in bases {
        let _ = write!(text, "; {base} {}", size(bytes));
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed() -> Vec<ListedView> {
        let page: Page = serde_json::from_str(
            r#"{"exchanges": [
                {"exchange": "a", "query": "a", "state": "open", "bytes": 1024,
                 "age_seconds": 5, "lease_seconds": 900, "lease_left_seconds": 840,
                 "base_directories": [{"base": "main", "marker": true, "segments": 1,
                                       "bytes": 1024}]},
                {"exchange": "b", "query": "b", "state": "orphaned", "bytes": 3072,
                 "base_directories": [{"base": "other", "marker": false, "segments": 2,
                                       "bytes": 3072}]}], "later": 1}"#,
        )
        .unwrap();
        page.exchanges
    }

    #[test]
    fn the_table_has_a_line_for_each_exchange_and_a_sum_for_each_base_directory() {
        let text = as_text(&listed());
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[1],
            "open      1.0 KiB   5s         14m  main              a"
        );
        assert!(lines[2].starts_with("orphaned  3.0 KiB    -"), "{text}");
        assert_eq!(
            lines[3],
            "2 exchanges, 4.0 KiB; main 1.0 KiB; other 3.0 KiB"
        );
    }

    #[test]
    fn the_largest_the_oldest_or_the_one_with_the_least_lease_comes_first() {
        let first = |by| {
            let mut all = listed();
            sort(&mut all, by);
            all[0].exchange.clone()
        };
        assert_eq!(first(Sort::Size), "b");
        assert_eq!(first(Sort::Age), "a");
        assert_eq!(first(Sort::Lease), "a");
    }
}
