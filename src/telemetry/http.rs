//! Requests, as metrics: how many by route, method and status, how long, how many now.
//!
//! Does: count what the HTTP layer reports. Does not: know HTTP types. Invariant: labels come from
//! bounded sets: route patterns, the usual methods, classes of status.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::catalog;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnswerLabels {
    route: String,
    method: &'static str,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
    method: &'static str,
}

/// Metrics of requests; clones share their values.
#[derive(Debug, Clone)]
pub struct HttpMetrics {
    requests: Family<AnswerLabels, Counter>,
    durations: Family<RouteLabels, Histogram>,
    in_flight: Gauge,
}

impl Default for HttpMetrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            // 1 ms to 524 s: a health check to a batch that waits minutes for memory.
            durations: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.001, 2.0, 20))
            }),
            in_flight: Gauge::default(),
        }
    }
}

impl HttpMetrics {
    /// A request began.
    pub fn started(&self) {
        self.in_flight.inc();
    }

    /// A request ended: `status_class` is 1 to 5, or `None` if the client left before the head.
    pub fn finished(
        &self,
        route: &str,
        method: &'static str,
        status_class: Option<u16>,
        duration: Duration,
    ) {
        self.in_flight.dec();
        let status = match status_class {
            Some(1) => "1xx",
            Some(2) => "2xx",
            Some(3) => "3xx",
            Some(4) => "4xx",
            Some(_) => "5xx",
            None => "left",
        };
        let route = route.to_owned();
        self.requests
            .get_or_create(&AnswerLabels {
                route: route.clone(),
                method,
                status,
            })
            .inc();
        self.durations
            .get_or_create(&RouteLabels { route, method })
            .observe(duration.as_secs_f64());
    }

    /// The number of requests that started and have not ended.
    pub fn in_flight(&self) -> i64 {
        self.in_flight.get()
    }

    /// Puts them into a registry.
    pub fn register(&self, registry: &mut Registry) {
        catalog::HTTP_REQUESTS.register(registry, self.requests.clone());
        catalog::HTTP_DURATION.register(registry, self.durations.clone());
        catalog::HTTP_IN_FLIGHT.register(registry, self.in_flight.clone());
    }
}
