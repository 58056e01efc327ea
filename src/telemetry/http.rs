//! Metrics of HTTP requests: count, duration and concurrency.
//!
//! Does: record what the HTTP layer reports. Does not: use HTTP types. Invariant: labels come from
//! bounded sets: route patterns, known methods, status classes.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::catalog;
use super::series::create_series;

type Labels<V, const N: usize> = [(&'static str, V); N];
type RouteLabels<const N: usize> = (Labels<String, 1>, Labels<&'static str, N>);

/// Metrics of requests; clones share their values.
#[derive(Debug, Clone)]
pub struct HttpMetrics {
    requests: Family<RouteLabels<2>, Counter>,
    durations: Family<RouteLabels<1>, Histogram>,
    in_flight: Gauge,
}

impl Default for HttpMetrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            // 1 ms to 524 s: from a health check to a batch that waits minutes for memory.
            durations: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.001, 2.0, 20))
            }),
            in_flight: Gauge::default(),
        }
    }
}

impl HttpMetrics {
    /// Records the start of a request.
    pub fn started(&self) {
        self.in_flight.inc();
    }

    /// Records the end of a request. `status_class` is 1 to 5, or `None` if the client disconnected
    /// before there was a response.
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
            None => "client_gone",
        };
        let route = [("route", route.to_owned())];
        let method = ("method", method);
        let labels = (route.clone(), [method, ("status", status)]);
        self.requests.get_or_create(&labels).inc();
        let duration_of_route = self.durations.get_or_create(&(route, [method]));
        duration_of_route.observe(duration.as_secs_f64());
    }

    /// Creates the series of routes (pattern and method) with the usual outcomes.
    pub fn add_routes(&self, routes: impl Iterator<Item = (&'static str, &'static str)>) {
        for (route, method) in routes {
            let route = [("route", route.to_owned())];
            let outcomes = ["2xx", "4xx", "5xx", "client_gone"];
            let series =
                outcomes.map(|status| (route.clone(), [("method", method), ("status", status)]));
            create_series(&self.requests, series);
        }
    }

    /// The number of requests that started and have not ended.
    pub fn in_flight(&self) -> i64 {
        self.in_flight.get()
    }

    /// Registers them.
    pub fn register(&self, registry: &mut Registry) {
        catalog::HTTP_REQUESTS.register(registry, self.requests.clone());
        catalog::HTTP_DURATION.register(registry, self.durations.clone());
        catalog::HTTP_IN_FLIGHT.register(registry, self.in_flight.clone());
    }
}
