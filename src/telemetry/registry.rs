//! The registry: everything that `/metrics` returns.
//!
//! Does: collect the metrics of all modules and encode them as OpenMetrics text. Does not:
//! interpret them. Invariant: encoding never blocks code that updates a metric.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::encoding::text;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::catalog;
use super::logs::queue::LINES_LOST;
use super::metrics::Metrics;
use super::process::ProcessCollector;
use crate::runtime::Clock;

/// All metrics of a daemon. Cheap to clone.
#[derive(Debug, Clone)]
pub struct MetricsRegistry(Arc<Mutex<Registry>>);

impl MetricsRegistry {
    /// A registry with the metrics of the daemon, the process, the build and this run of it.
    pub fn new(metrics: &Metrics, run: String, clock: Clock) -> Self {
        let mut registry = Registry::default();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let build = Info::new(vec![("version", version), ("run", run)]);
        catalog::BUILD.register(&mut registry, build);
        metrics.register(&mut registry);
        catalog::LOG_LINES_LOST.register(&mut registry, LINES_LOST.clone());
        registry.register_collector(Box::new(ProcessCollector { clock }));
        Self(Arc::new(Mutex::new(registry)))
    }

    /// Registers further metrics or collectors.
    pub fn extend(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.0.lock());
    }

    /// All metrics as OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut out = String::new();
        match text::encode(&mut out, &self.0.lock()) {
            Ok(()) => out,
            // Writing to a string cannot fail, but a collector can.
            Err(error) => {
                tracing::error!(%error, "metrics could not be encoded");
                String::from("# EOF\n")
            }
        }
    }
}
