//! Metrics of the base directories.
//!
//! Does: define, register and count them. Does not: measure operations (`meter`). Invariant: labels
//! are names of base directories and constants, never keys.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::id::BaseName;
use crate::telemetry::catalog::{Definition, Kind, Measure, Stability};

const fn definition(
    kind: Kind,
    measure: Measure,
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Definition {
    Definition {
        name,
        kind,
        measure,
        labels,
        stability: Stability::Stable,
        help,
    }
}

const REQUESTS: Definition = definition(
    Kind::Counter,
    Measure::Count,
    "stopover_storage_requests",
    &["base", "operation", "outcome"],
    "Operations on a base directory, each attempt counted; \
     outcome: ok, not_found, unavailable, refused, corrupt",
);
const DURATION: Definition = definition(
    Kind::Histogram,
    Measure::Seconds,
    "stopover_storage_request_duration",
    &["base", "operation"],
    "Duration of an operation on a base directory, without the wait for a slot",
);
const WRITTEN: Definition = definition(
    Kind::Counter,
    Measure::Bytes,
    "stopover_storage_written",
    &["base"],
    "Bytes written to a base directory",
);
const READ: Definition = definition(
    Kind::Counter,
    Measure::Bytes,
    "stopover_storage_read",
    &["base"],
    "Bytes read from a base directory",
);
const HEALTHY: Definition = definition(
    Kind::Gauge,
    Measure::Count,
    "stopover_storage_healthy",
    &["base"],
    "1 if the base directory is healthy, 0 while new segments avoid it",
);
const PUT_FAILURES: Definition = definition(
    Kind::Counter,
    Measure::Count,
    "stopover_storage_put_failures",
    &["base"],
    "Puts that failed on the base directory and were retried elsewhere or later",
);
const IGNORED_KEYS: Definition = definition(
    Kind::Counter,
    Measure::Count,
    "stopover_storage_ignored_keys",
    &["base"],
    "Listed objects that Stopover did not write",
);

/// All metrics of base directories, in the order of `docs/metrics.md`.
pub const CATALOG: &[Definition] = &[
    REQUESTS,
    DURATION,
    WRITTEN,
    READ,
    HEALTHY,
    PUT_FAILURES,
    IGNORED_KEYS,
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    base: String,
    operation: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    base: String,
    operation: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BaseLabels {
    base: String,
}

/// Metrics of all base directories; clones share their values.
#[derive(Debug, Clone)]
pub struct StorageMetrics {
    requests: Family<RequestLabels, Counter>,
    durations: Family<OperationLabels, Histogram>,
    written: Family<BaseLabels, Counter>,
    read: Family<BaseLabels, Counter>,
    healthy: Family<BaseLabels, Gauge>,
    put_failures: Family<BaseLabels, Counter>,
    ignored_keys: Family<BaseLabels, Counter>,
}

impl Default for StorageMetrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            // 1 ms to 65 s: from a cached file to a request that times out.
            durations: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.001, 2.0, 17))
            }),
            written: Family::default(),
            read: Family::default(),
            healthy: Family::default(),
            put_failures: Family::default(),
            ignored_keys: Family::default(),
        }
    }
}

impl StorageMetrics {
    /// Registers all of them.
    pub fn register(&self, registry: &mut Registry) {
        REQUESTS.register(registry, self.requests.clone());
        DURATION.register(registry, self.durations.clone());
        WRITTEN.register(registry, self.written.clone());
        READ.register(registry, self.read.clone());
        HEALTHY.register(registry, self.healthy.clone());
        PUT_FAILURES.register(registry, self.put_failures.clone());
        IGNORED_KEYS.register(registry, self.ignored_keys.clone());
    }

    pub(super) fn observe(
        &self,
        base: &BaseName,
        operation: &'static str,
        outcome: &'static str,
        elapsed: Duration,
    ) {
        let base = base.to_string();
        let labels = OperationLabels {
            base: base.clone(),
            operation,
        };
        let duration = self.durations.get_or_create(&labels);
        duration.observe(elapsed.as_secs_f64());
        let labels = RequestLabels {
            base,
            operation,
            outcome,
        };
        self.requests.get_or_create(&labels).inc();
    }

    pub(super) fn count_written(&self, base: &BaseName, bytes: usize) {
        self.written
            .get_or_create(&labels(base))
            .inc_by(bytes as u64);
    }

    pub(super) fn count_read(&self, base: &BaseName, bytes: usize) {
        self.read.get_or_create(&labels(base)).inc_by(bytes as u64);
    }

    pub(crate) fn set_healthy(&self, base: &BaseName, healthy: bool) {
        self.healthy
            .get_or_create(&labels(base))
            .set(healthy.into());
    }

    pub(crate) fn count_put_failure(&self, base: &BaseName) {
        self.put_failures.get_or_create(&labels(base)).inc();
    }

    pub(crate) fn count_ignored_key(&self, base: &BaseName) {
        self.ignored_keys.get_or_create(&labels(base)).inc();
    }

    /// Number of operations (`put`, `get`, `list`, `delete`, `sweep`) with this outcome (`ok`,
    /// `not_found`, `unavailable`, `refused`, `corrupt`).
    pub fn requests(&self, base: &BaseName, operation: &'static str, outcome: &'static str) -> u64 {
        let base = base.to_string();
        self.requests
            .get_or_create(&RequestLabels {
                base,
                operation,
                outcome,
            })
            .get()
    }
}

fn labels(base: &BaseName) -> BaseLabels {
    BaseLabels {
        base: base.to_string(),
    }
}
