//! Puts that any base directory may accept.
//!
//! Does: try the base directories in order, in rounds, until one succeeds. Does not: choose the
//! order (`placement`). Invariant: it returns `Ok` only after one base directory confirmed the
//! whole put, and an error only if all of them refused it, or failed until the policy's time after
//! the first failure was up.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::base::BaseDirectory;
use super::error::{Result, StorageError, StorageFailure};
use super::facade::Storage;
use crate::id::BaseName;
use crate::store::{StoreError, StoreErrorKind};

/// Which base directories may get an object, of those that are tried.
#[derive(Debug, Clone, Copy)]
pub(super) enum Targets {
    Active,
    /// A marker stays in its set, of which no member may be active any more.
    ActiveOrDraining,
}

impl Storage {
    /// Puts an object into the first base directory that accepts it. `order` is called for each
    /// round with the health of all base directories, since each failure changes it.
    ///
    /// # Errors
    /// `all`, with the failure of each base directory.
    pub(super) async fn put_anywhere<T>(
        &self,
        object: &str,
        targets: Targets,
        order: impl Fn(&[bool]) -> Vec<usize>,
        put: impl Fn(Arc<BaseDirectory>) -> BoxFuture<'static, Result<T, StoreError>>,
    ) -> Result<(BaseName, T)> {
        self.inner.fleet.settle_once().await;
        let (clock, policy) = (&self.inner.runtime.clock, self.inner.put_retry);
        // From the first failure: on a slow store the first try may take longer than the retries
        // may.
        let mut deadline = None;
        let mut round = 0;
        loop {
            let healthy: Vec<bool> = self.inner.bases.iter().map(|b| b.is_healthy()).collect();
            let mut failures = Vec::new();
            for index in order(&healthy) {
                let base = &self.inner.bases[index];
                let draining = matches!(targets, Targets::ActiveOrDraining);
                if !base.is_active() && (!draining || base.is_abandoned()) {
                    continue;
                }
                match put(Arc::clone(base)).await {
                    Ok(result) => return Ok((base.name.clone(), result)),
                    Err(error) => {
                        base.failed(&error);
                        self.inner.metrics.count_put_failure(&base.name);
                        failures.push((index, error));
                    }
                }
            }
            if failures.is_empty() {
                return Err(self.none_active(object));
            }
            round += 1;
            let deadline = *deadline.get_or_insert_with(|| clock.now() + policy.max_elapsed);
            let asked = failures.iter().map(|(_, error)| error.retry_after);
            let random = self.inner.runtime.random.next_u64();
            let wait = policy.wait(round, random, asked.min().flatten());
            let refused = |(_, error): &(_, StoreError)| error.kind == StoreErrorKind::Refused;
            if failures.iter().all(refused) || clock.now() + wait > deadline {
                return Err(self.all_failed(object, failures));
            }
            clock.sleep(wait).await;
        }
    }

    fn none_active(&self, object: &str) -> StorageError {
        let reason = "none of the base directories here is an active member of the fleet; \
             `stopover members` shows and changes that";
        StorageError {
            base: "all".into(),
            operation: "put",
            object: object.into(),
            source: StorageFailure::Incomplete(reason.into()),
        }
    }

    fn all_failed(&self, object: &str, mut failures: Vec<(usize, StoreError)>) -> StorageError {
        failures.sort_by_key(|(index, _)| *index);
        let failures = failures
            .into_iter()
            .map(|(index, error)| self.inner.bases[index].error("put", object, error));
        StorageError {
            base: "all".into(),
            operation: "put",
            object: object.into(),
            source: StorageFailure::Several(failures.collect()),
        }
    }
}
