//! The catalog, the registry and docs/metrics.md agree.

use std::time::Duration;

use super::catalog::{CATALOG, Kind};
use super::credentials::{Credential, CredentialMetrics};
use super::http::HttpMetrics;
use super::metrics::Metrics;
use super::pools::{PoolCollector, SlotCollector};
use super::registry::MetricsRegistry;
use crate::fair::FairSemaphore;
use crate::memory::MemoryPool;
use crate::runtime::Clock;

/// What a daemon exports, with a value in every family.
fn everything() -> String {
    let http = HttpMetrics::default();
    http.started();
    http.finished("/healthz", "GET", Some(2), Duration::from_millis(3));
    let credentials = CredentialMetrics::default();
    credentials.reloaded(Credential::Tokens, false);
    credentials.handshake_failed();
    credentials.set_validity(Credential::Tls, 1_000, 2_000);
    let metrics = Metrics::default();
    drop(metrics.exchanges_by_age.get_or_create(&[("age", "1m")]));
    let registry = MetricsRegistry::new(&metrics, "c0ffee".into(), Clock::default());
    let pools = vec![("write", MemoryPool::new("write", 100))];
    registry.extend(|r| {
        r.register_collector(Box::new(PoolCollector::new(pools)));
        let slots = vec![("read", FairSemaphore::new(1, None))];
        r.register_collector(Box::new(SlotCollector::new(slots)));
        http.register(r);
        credentials.register(r);
    });
    registry.encode()
}

#[test]
fn what_is_printed_is_the_catalog_and_nothing_else() {
    let text = everything();
    let mut printed: Vec<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .map(str::to_owned)
        .collect();
    let mut expected: Vec<String> = CATALOG
        .iter()
        .map(|d| {
            let name = d.full_name();
            let name = name.trim_end_matches("_total");
            let name = match d.kind {
                Kind::Info => name.trim_end_matches("_info"),
                _ => name,
            };
            format!("{name} {}", format!("{:?}", d.kind).to_lowercase())
        })
        .collect();
    printed.sort();
    expected.sort();
    assert_eq!(printed, expected);
}

#[test]
fn every_metric_of_the_catalog_has_its_row_in_the_page_of_metrics() {
    let page = include_str!("../../docs/metrics.md");
    let missing: Vec<_> = CATALOG
        .iter()
        .map(|definition| definition.row())
        .filter(|row| !page.lines().any(|line| line == row))
        .collect();
    assert!(
        missing.is_empty(),
        "docs/metrics.md lacks these rows, write them into its tables:\n{}",
        missing.join("\n")
    );
}

#[test]
fn the_page_of_metrics_names_no_metric_that_does_not_exist() {
    let page = include_str!("../../docs/metrics.md");
    let stray: Vec<_> = page
        .lines()
        .filter(|line| line.starts_with("| `") && !line.starts_with("| `stopover_storage_"))
        .filter(|line| !CATALOG.iter().any(|d| d.row() == *line))
        .collect();
    assert!(stray.is_empty(), "rows of no metric: {stray:#?}");
}

#[test]
fn values_arrive_with_their_labels_units_and_totals() {
    let metrics = Metrics::default();
    metrics.bytes_written.inc_by(7);
    metrics.sinks_open.set(3);
    let http = HttpMetrics::default();
    http.started();
    http.started();
    http.finished("/readyz", "GET", Some(5), Duration::from_millis(3));
    let registry = MetricsRegistry::new(&metrics, "c0ffee".into(), Clock::default());
    let pool = MemoryPool::new("read", 100);
    let held = pool.try_reserve("q", 40).unwrap();
    let pools = PoolCollector::new(vec![("read", pool)]);
    registry.extend(|r| {
        r.register_collector(Box::new(pools));
        http.register(r);
    });
    let text = registry.encode();
    drop(held);
    for line in [
        "stopover_pages_written_bytes_total 7",
        "stopover_sinks_open 3",
        "stopover_http_requests_in_flight 1",
        "stopover_http_requests_total{route=\"/readyz\",method=\"GET\",status=\"5xx\"} 1",
        "stopover_http_request_duration_seconds_count{route=\"/readyz\",method=\"GET\"} 1",
        "stopover_memory_used_bytes{pool=\"read\"} 40",
        concat!(
            "stopover_build_info{version=\"",
            env!("CARGO_PKG_VERSION"),
            "\",run=\"c0ffee\"} 1"
        ),
        "# EOF",
    ] {
        assert!(
            text.lines().any(|l| l == line),
            "{line} is missing in\n{text}"
        );
    }
}
