//! Measures the operations of one store.
//!
//! Does: count each operation by outcome, time it, count the bytes that it transferred, note
//! whether its credentials could be renewed, and record a span. Does not: define metrics
//! (`metrics`). Invariant: waiting for a permit or between retries is not measured; those wrappers
//! are outside of this one.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::keys::{Folder, Key};
use super::metrics::StorageMetrics;
use super::{
    DeleteOutcome, ObjectMeta, Observed, Precondition, Result, Store, StoreErrorKind, Tail,
    Versioned,
};
use crate::id::BaseName;
use crate::runtime::Clock;
use crate::telemetry::traces::Span;

fn outcome<T>(result: &Result<T>) -> &'static str {
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

/// The name of an operation's span.
fn span_name(operation: &str) -> &'static str {
    match operation {
        "put" => "PUT",
        "get" => "GET",
        "list" => "LIST",
        "delete" => "DELETE",
        _ => "SWEEP",
    }
}

/// Wraps a store with metrics and spans.
#[derive(Debug)]
pub struct Meter {
    inner: Arc<dyn Store>,
    base: BaseName,
    /// Whether the store belongs to a cloud, which charges for each request.
    charged: bool,
    metrics: StorageMetrics,
    clock: Clock,
}

impl Meter {
    /// Wraps the store of a base directory.
    pub fn new(
        inner: Arc<dyn Store>,
        base: BaseName,
        charged: bool,
        metrics: StorageMetrics,
        clock: Clock,
    ) -> Self {
        Self {
            inner,
            base,
            charged,
            metrics,
            clock,
        }
    }

    async fn measured<T>(
        &self,
        operation: &'static str,
        object: &str,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let span = Span::client(span_name(operation));
        span.set("stopover.base", &self.base);
        span.set("stopover.object", object);
        let start = self.clock.now();
        let result = span.run(work).await;
        let now = self.clock.now();
        let elapsed = now - start;
        let outcome = outcome(&result);
        span.set("stopover.outcome", outcome);
        // Some callers expect that the object may be missing.
        if let Err(error) = &result
            && error.kind != StoreErrorKind::NotFound
        {
            span.fail(error);
        }
        self.metrics
            .observe(&self.base, operation, outcome, elapsed, now);
        let observed = self.inner.observed();
        self.metrics
            .set_stale(&self.base, observed.stale_credentials);
        if self.charged && outcome != "unavailable" {
            self.metrics.charge(&self.base, operation);
        }
        result
    }
}

#[warn(clippy::missing_trait_methods)] // a default would hide what the inner store says
#[async_trait]
impl Store for Meter {
    async fn put(&self, key: &Key, content: Vec<Bytes>) -> Result<()> {
        let size = content.iter().map(Bytes::len).sum();
        self.measured("put", key.as_str(), self.inner.put(key, content))
            .await?;
        self.metrics.count_written(&self.base, size);
        Ok(())
    }

    async fn put_if(&self, key: &Key, content: Bytes, expected: &Precondition) -> Result<bool> {
        let size = content.len();
        let put = self.inner.put_if(key, content, expected);
        let written = self.measured("put", key.as_str(), put).await?;
        if written {
            self.metrics.count_written(&self.base, size);
        }
        Ok(written)
    }

    async fn get_versioned(&self, key: &Key) -> Result<Versioned> {
        let found = self
            .measured("get", key.as_str(), self.inner.get_versioned(key))
            .await?;
        self.metrics.count_read(&self.base, found.bytes.len());
        Ok(found)
    }

    async fn get_tail(&self, key: &Key, max: u64) -> Result<Tail> {
        let tail = self
            .measured("get", key.as_str(), self.inner.get_tail(key, max))
            .await?;
        self.metrics.count_read(&self.base, tail.bytes.len());
        Ok(tail)
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        let bytes = self
            .measured("get", key.as_str(), self.inner.get_range(key, range))
            .await?;
        self.metrics.count_read(&self.base, bytes.len());
        Ok(bytes)
    }

    async fn list(&self, folder: &Folder) -> Result<Vec<ObjectMeta>> {
        self.measured("list", folder.as_str(), self.inner.list(folder))
            .await
    }

    async fn list_after(
        &self,
        folder: &Folder,
        after: Option<&Key>,
        max: usize,
    ) -> Result<Vec<ObjectMeta>> {
        let listed = self.inner.list_after(folder, after, max);
        self.measured("list", folder.as_str(), listed).await
    }

    async fn first_keys(&self, max: usize) -> Result<Vec<Key>> {
        self.measured("list", "", self.inner.first_keys(max)).await
    }

    async fn list_folders(&self, folder: &Folder) -> Result<Vec<String>> {
        self.measured("list", folder.as_str(), self.inner.list_folders(folder))
            .await
    }

    async fn delete(&self, keys: Vec<Key>) -> Result<u64> {
        let first = keys.first().map_or("", Key::as_str).to_owned();
        self.measured("delete", &first, self.inner.delete(keys))
            .await
    }

    async fn delete_if(&self, key: &Key, version: Option<&str>) -> Result<DeleteOutcome> {
        self.measured("delete", key.as_str(), self.inner.delete_if(key, version))
            .await
    }

    async fn remove_stale_temporaries(&self, folder: &Folder) -> Result<u64> {
        self.measured(
            "sweep",
            folder.as_str(),
            self.inner.remove_stale_temporaries(folder),
        )
        .await
    }

    async fn can_write_when_full(&self) -> bool {
        self.inner.can_write_when_full().await
    }

    fn needs_keep_object(&self) -> bool {
        self.inner.needs_keep_object()
    }

    fn distrust_conditions(&self) {
        self.inner.distrust_conditions();
    }

    fn observed(&self) -> Observed {
        self.inner.observed()
    }
}
