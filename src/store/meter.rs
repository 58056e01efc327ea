//! What the base directories cost: requests, time and bytes, as metrics.
//!
//! Does: count every operation of a store by outcome, time it, count the bytes it moved. Does not:
//! count waiting for a permit or between tries (it sits below those wrappers). Invariant: labels
//! are names of base directories and constants, never keys.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::keys::{Folder, Key};
use super::{
    DeleteOutcome, ObjectMeta, Precondition, Store, StoreError, StoreErrorKind, Tail, Versioned,
};
use crate::id::BaseName;
use crate::runtime::Clock;
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
    "Operations on a base directory, each try counted; \
     outcome: ok, not_found, unavailable, refused, corrupt",
);
const DURATION: Definition = definition(
    Kind::Histogram,
    Measure::Seconds,
    "stopover_storage_request_duration",
    &["base", "operation"],
    "Time of an operation on a base directory, without waiting for its turn",
);
const WRITTEN: Definition = definition(
    Kind::Counter,
    Measure::Bytes,
    "stopover_storage_written",
    &["base"],
    "Bytes put into a base directory",
);
const READ: Definition = definition(
    Kind::Counter,
    Measure::Bytes,
    "stopover_storage_read",
    &["base"],
    "Bytes got from a base directory",
);
const HEALTHY: Definition = definition(
    Kind::Gauge,
    Measure::Count,
    "stopover_storage_healthy",
    &["base"],
    "1 if new segments go to the base directory, 0 while it is left out",
);
const PUT_FAILURES: Definition = definition(
    Kind::Counter,
    Measure::Count,
    "stopover_storage_put_failures",
    &["base"],
    "Puts that failed on the base directory and went on elsewhere or later",
);
const IGNORED_KEYS: Definition = definition(
    Kind::Counter,
    Measure::Count,
    "stopover_storage_ignored_keys",
    &["base"],
    "Listed objects that are nothing of Stopover's",
);

/// Every metric of storage, in the order of `docs/metrics.md`.
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
            // 1 ms to 65 s: a read of a warm file to the last try on a throttled store.
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
    /// Puts them into a registry.
    pub fn register(&self, registry: &mut Registry) {
        REQUESTS.register(registry, self.requests.clone());
        DURATION.register(registry, self.durations.clone());
        WRITTEN.register(registry, self.written.clone());
        READ.register(registry, self.read.clone());
        HEALTHY.register(registry, self.healthy.clone());
        PUT_FAILURES.register(registry, self.put_failures.clone());
        IGNORED_KEYS.register(registry, self.ignored_keys.clone());
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

    /// How many operations of this kind ended with this outcome (`ok`, `not_found`, `unavailable`,
    /// `refused`, `corrupt`).
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

fn outcome<T>(result: &Result<T, StoreError>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(error) => match error.kind {
            StoreErrorKind::NotFound => "not_found",
            StoreErrorKind::Unavailable => "unavailable",
            StoreErrorKind::Refused => "refused",
            StoreErrorKind::Corrupt => "corrupt",
        },
    }
}

/// Wraps a store with measurement.
#[derive(Debug)]
pub struct Meter {
    inner: Arc<dyn Store>,
    base: String,
    metrics: StorageMetrics,
    clock: Clock,
}

impl Meter {
    /// Wraps the store of a base directory.
    pub fn new(
        inner: Arc<dyn Store>,
        base: &BaseName,
        metrics: StorageMetrics,
        clock: Clock,
    ) -> Self {
        Self {
            inner,
            base: base.to_string(),
            metrics,
            clock,
        }
    }

    async fn measured<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let start = self.clock.now();
        let result = work.await;
        let elapsed = self.clock.now() - start;
        let base = self.base.clone();
        let labels = OperationLabels {
            base: base.clone(),
            operation,
        };
        self.metrics
            .durations
            .get_or_create(&labels)
            .observe(elapsed.as_secs_f64());
        let labels = RequestLabels {
            base,
            operation,
            outcome: outcome(&result),
        };
        self.metrics.requests.get_or_create(&labels).inc();
        result
    }

    fn count_bytes(&self, family: &Family<BaseLabels, Counter>, bytes: usize) {
        family
            .get_or_create(&BaseLabels {
                base: self.base.clone(),
            })
            .inc_by(bytes as u64);
    }
}

#[async_trait]
impl Store for Meter {
    async fn put(&self, key: &Key, content: Vec<Bytes>) -> Result<(), StoreError> {
        let size = content.iter().map(Bytes::len).sum();
        self.measured("put", self.inner.put(key, content)).await?;
        self.count_bytes(&self.metrics.written, size);
        Ok(())
    }

    async fn put_if(
        &self,
        key: &Key,
        content: Bytes,
        expected: &Precondition,
    ) -> Result<bool, StoreError> {
        let size = content.len();
        let put = self.inner.put_if(key, content, expected);
        let written = self.measured("put", put).await?;
        if written {
            self.count_bytes(&self.metrics.written, size);
        }
        Ok(written)
    }

    async fn get_versioned(&self, key: &Key) -> Result<Versioned, StoreError> {
        let found = self.measured("get", self.inner.get_versioned(key)).await?;
        self.count_bytes(&self.metrics.read, found.bytes.len());
        Ok(found)
    }

    async fn get_tail(&self, key: &Key, max: u64) -> Result<Tail, StoreError> {
        let tail = self.measured("get", self.inner.get_tail(key, max)).await?;
        self.count_bytes(&self.metrics.read, tail.bytes.len());
        Ok(tail)
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        let bytes = self
            .measured("get", self.inner.get_range(key, range))
            .await?;
        self.count_bytes(&self.metrics.read, bytes.len());
        Ok(bytes)
    }

    async fn list(&self, folder: &Folder) -> Result<Vec<ObjectMeta>, StoreError> {
        self.measured("list", self.inner.list(folder)).await
    }

    async fn list_folders(&self, folder: &Folder) -> Result<Vec<String>, StoreError> {
        self.measured("list", self.inner.list_folders(folder)).await
    }

    async fn delete(&self, keys: Vec<Key>) -> Result<u64, StoreError> {
        self.measured("delete", self.inner.delete(keys)).await
    }

    async fn delete_if(
        &self,
        key: &Key,
        version: Option<&str>,
    ) -> Result<DeleteOutcome, StoreError> {
        self.measured("delete", self.inner.delete_if(key, version))
            .await
    }

    async fn remove_stale_temporaries(&self, folder: &Folder) -> Result<u64, StoreError> {
        self.measured("sweep", self.inner.remove_stale_temporaries(folder))
            .await
    }

    fn needs_keep_object(&self) -> bool {
        self.inner.needs_keep_object()
    }
}
