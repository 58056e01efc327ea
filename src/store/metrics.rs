//! Metrics of the base directories.
//!
//! Does: define, register and count them. Does not: measure operations (`meter`). Invariant: labels
//! are names of base directories and constants, never keys.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use super::latency::{Latencies, OperationLatency};
use crate::certificate::Validity;
use crate::id::BaseName;
use crate::telemetry::catalog::{Definition, Kind, Measure, Stability, catalog};
use crate::telemetry::series::create_series;

catalog! {
    REQUESTS: Counter Count Stable "stopover_storage_requests" ["base", "operation", "outcome"]
        "Operations on a base directory, each attempt counted; \
         outcome: ok, not_found, unavailable, refused, corrupt";
    DURATION: Histogram Seconds Stable "stopover_storage_request_duration" ["base", "operation"]
        "Duration of an operation on a base directory, without the wait for a slot";
    WRITTEN: Counter Bytes Stable "stopover_storage_written" ["base"]
        "Bytes written to a base directory";
    READ: Counter Bytes Stable "stopover_storage_read" ["base"] "Bytes read from a base directory";
    DELETED: Counter Bytes Stable "stopover_storage_deleted" ["base"]
        "Bytes of segments that this daemon deleted from a base directory";
    STORED: Gauge Bytes Stable "stopover_storage_stored" ["base"]
        "Bytes of segments that this daemon stored for exchanges that it has not found closed yet";
    DOLLARS: Counter Count Stable "stopover_storage_request_dollars" ["base", "operation"]
        "Estimated price of the operations; 0 where the store is no cloud's";
    HEALTHY: Gauge Count Stable "stopover_storage_healthy" ["base"]
        "1 if the base directory is healthy, 0 while new segments avoid it";
    FULL: Gauge Count Stable "stopover_storage_full" ["base"]
        "1 while the base directory gets no new segments because it is full, else 0";
    CREDENTIALS_NOT_BEFORE: Gauge Seconds Stable "stopover_storage_credentials_not_before" ["base"]
        "Since when a client certificate or a shared access signature is valid, in seconds since \
         1970";
    CREDENTIALS_NOT_AFTER: Gauge Seconds Stable "stopover_storage_credentials_not_after" ["base"]
        "When a client certificate or a shared access signature expires, in seconds since 1970";
    CREDENTIALS_STALE: Gauge Count Stable "stopover_storage_credentials_stale" ["base"]
        "1 while credentials of a role, a web identity or a pod cannot be renewed, else 0";
    PUT_FAILURES: Counter Count Stable "stopover_storage_put_failures" ["base"]
        "Puts that failed on the base directory and were retried elsewhere or later";
    IGNORED_KEYS: Counter Count Stable "stopover_storage_ignored_keys" ["base"]
        "Listed objects that Stopover did not write";
}

/// The values of the label `operation`.
const OPERATIONS: [&str; 5] = ["put", "get", "list", "delete", "sweep"];
/// Dollars for one request. The list price of Amazon S3 Standard (us-east-1) and of Google Cloud
/// Storage Standard (a region): $0.005 for 1,000 PUT or LIST, $0.0004 for 1,000 GET, nothing for
/// DELETE (aws.amazon.com/s3/pricing, cloud.google.com/storage/pricing, as of 2026-11).
pub const PUT_OR_LIST_PRICE: f64 = 0.005 / 1e3;
/// Of one GET.
pub const GET_PRICE: f64 = 0.0004 / 1e3;
/// The values of the label `outcome`.
const OUTCOMES: [&str; 5] = ["ok", "not_found", "unavailable", "refused", "corrupt"];

type Labels<V, const N: usize> = [(&'static str, V); N];
type BaseLabels = Labels<String, 1>;
type OperationLabels = (BaseLabels, Labels<&'static str, 1>);
type RequestLabels = (BaseLabels, Labels<&'static str, 2>);

/// Metrics of all base directories; clones share their values.
#[derive(Debug, Clone)]
pub struct StorageMetrics {
    requests: Family<RequestLabels, Counter>,
    durations: Family<OperationLabels, Histogram>,
    written: Family<BaseLabels, Counter>,
    read: Family<BaseLabels, Counter>,
    deleted: Family<BaseLabels, Counter>,
    stored: Family<BaseLabels, Gauge>,
    dollars: Family<OperationLabels, Counter<f64, AtomicU64>>,
    healthy: Family<BaseLabels, Gauge>,
    full: Family<BaseLabels, Gauge>,
    /// A base directory has a series only if the end of its credentials is known.
    credentials_not_before: Family<BaseLabels, Gauge>,
    credentials_not_after: Family<BaseLabels, Gauge>,
    credentials_stale: Family<BaseLabels, Gauge>,
    put_failures: Family<BaseLabels, Counter>,
    ignored_keys: Family<BaseLabels, Counter>,
    /// For the page: quantiles cannot be read from `durations`.
    latencies: Latencies,
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
            deleted: Family::default(),
            stored: Family::default(),
            dollars: Family::default(),
            healthy: Family::default(),
            full: Family::default(),
            credentials_not_before: Family::default(),
            credentials_not_after: Family::default(),
            credentials_stale: Family::default(),
            put_failures: Family::default(),
            ignored_keys: Family::default(),
            latencies: Latencies::default(),
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
        DELETED.register(registry, self.deleted.clone());
        STORED.register(registry, self.stored.clone());
        DOLLARS.register(registry, self.dollars.clone());
        HEALTHY.register(registry, self.healthy.clone());
        FULL.register(registry, self.full.clone());
        CREDENTIALS_NOT_BEFORE.register(registry, self.credentials_not_before.clone());
        CREDENTIALS_NOT_AFTER.register(registry, self.credentials_not_after.clone());
        CREDENTIALS_STALE.register(registry, self.credentials_stale.clone());
        PUT_FAILURES.register(registry, self.put_failures.clone());
        IGNORED_KEYS.register(registry, self.ignored_keys.clone());
    }

    pub(super) fn observe(
        &self,
        base: &BaseName,
        operation: &'static str,
        outcome: &'static str,
        elapsed: Duration,
        now: Instant,
    ) {
        self.latencies.record(base, operation, elapsed, now);
        let duration = (labels(base), [("operation", operation)]);
        let duration = self.durations.get_or_create(&duration);
        duration.observe(elapsed.as_secs_f64());
        self.requests
            .get_or_create(&request_labels(base, operation, outcome))
            .inc();
    }

    /// Counts what a cloud charges for an operation that it answered.
    pub(super) fn charge(&self, base: &BaseName, operation: &'static str) {
        let price = match operation {
            "put" | "list" => PUT_OR_LIST_PRICE,
            "get" => GET_PRICE,
            _ => return,
        };
        let dollars = (labels(base), [("operation", operation)]);
        self.dollars.get_or_create(&dollars).inc_by(price);
    }

    pub(super) fn count_written(&self, base: &BaseName, bytes: usize) {
        self.written
            .get_or_create(&labels(base))
            .inc_by(bytes as u64);
    }

    pub(super) fn count_read(&self, base: &BaseName, bytes: usize) {
        self.read.get_or_create(&labels(base)).inc_by(bytes as u64);
    }

    /// Creates all series of a base directory, so that they are exported before anything happens.
    pub(crate) fn add_base(&self, base: &BaseName) {
        let base = labels(base);
        let requests = OPERATIONS.iter().flat_map(|operation| {
            OUTCOMES.iter().map(|outcome| {
                let labels = [("operation", *operation), ("outcome", *outcome)];
                (base.clone(), labels)
            })
        });
        create_series(&self.requests, requests);
        let operations = OPERATIONS.map(|operation| (base.clone(), [("operation", operation)]));
        create_series(&self.dollars, operations);
        create_series(&self.stored, [base.clone()]);
        for family in [
            &self.written,
            &self.read,
            &self.deleted,
            &self.put_failures,
            &self.ignored_keys,
        ] {
            create_series(family, [base.clone()]);
        }
        self.healthy.get_or_create(&base).set(1);
        self.full.get_or_create(&base).set(0);
        self.credentials_stale.get_or_create(&base).set(0);
    }

    pub(crate) fn set_healthy(&self, base: &BaseName, healthy: bool, full: bool) {
        let base = labels(base);
        self.healthy.get_or_create(&base).set(healthy.into());
        self.full.get_or_create(&base).set(full.into());
    }

    /// Records when the credentials of a base directory are valid.
    pub(crate) fn set_credentials(&self, base: &BaseName, validity: Option<Validity>) {
        let base = labels(base);
        let times = validity.map(|validity| (validity.not_before, validity.not_after));
        for (family, millis) in [
            (&self.credentials_not_before, times.map(|times| times.0)),
            (&self.credentials_not_after, times.map(|times| times.1)),
        ] {
            match millis {
                Some(millis) => {
                    let seconds = i64::try_from(millis / 1000).unwrap_or(i64::MAX);
                    family.get_or_create(&base).set(seconds);
                }
                None => drop(family.remove(&base)),
            }
        }
    }

    pub(super) fn set_stale(&self, base: &BaseName, stale: bool) {
        let stale = i64::from(stale);
        self.credentials_stale
            .get_or_create(&labels(base))
            .set(stale);
    }

    pub(crate) fn count_deleted(&self, base: &BaseName, bytes: u64) {
        self.deleted.get_or_create(&labels(base)).inc_by(bytes);
    }

    /// Adds to what is stored for open exchanges, or removes from it.
    pub(crate) fn add_stored(&self, base: &BaseName, bytes: i64) {
        self.stored.get_or_create(&labels(base)).inc_by(bytes);
    }

    pub(crate) fn count_put_failure(&self, base: &BaseName) {
        self.put_failures.get_or_create(&labels(base)).inc();
    }

    pub(crate) fn count_ignored_key(&self, base: &BaseName) {
        self.ignored_keys.get_or_create(&labels(base)).inc();
    }

    /// How long operations on a base directory took in the last minutes.
    pub fn latencies(&self, base: &BaseName, now: Instant) -> Vec<OperationLatency> {
        self.latencies.of(base, now)
    }

    /// Bytes that are stored for open exchanges.
    pub fn stored(&self, base: &BaseName) -> u64 {
        let stored = self.stored.get_or_create(&labels(base)).get();
        u64::try_from(stored).unwrap_or(0)
    }

    /// Number of operations (`put`, `get`, `list`, `delete`, `sweep`) with this outcome (`ok`,
    /// `not_found`, `unavailable`, `refused`, `corrupt`).
    pub fn requests(&self, base: &BaseName, operation: &'static str, outcome: &'static str) -> u64 {
        self.requests
            .get_or_create(&request_labels(base, operation, outcome))
            .get()
    }
}

fn labels(base: &BaseName) -> BaseLabels {
    [("base", base.to_string())]
}

fn request_labels(
    base: &BaseName,
    operation: &'static str,
    outcome: &'static str,
) -> RequestLabels {
    (
        labels(base),
        [("operation", operation), ("outcome", outcome)],
    )
}
