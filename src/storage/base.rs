//! One base directory: its store with all wrappers, and its health.
//!
//! Does: wrap the store, bring it up, record failures and recoveries, log each change once, probe
//! a base directory that fails in the background until it works. Does not: decide where anything
//! is put (`placement`). Invariant: the background probe ends with the daemon.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use super::attached_store::AttachedStore;
use super::attachment::Attachment;
use super::error::{Result, StorageError};
use super::fleet::Fleet;
use super::health::{Failed, Health};
use super::membership::MemberState;
use super::probe::{self, Extent, Findings};
use super::roster::Role;
use crate::id::BaseName;
use crate::runtime::Runtime;
use crate::store::keys::{self, Folder, Key};
use crate::store::metrics::StorageMetrics;
use crate::store::retry::{Retry, RetryPolicy};
use crate::store::{
    BACKGROUND_LIMIT, ObjectMeta, Retention, Store, StoreError, StoreErrorKind, StoreLimits,
    if_found,
};

/// Waits between background probes.
const PROBES: RetryPolicy = RetryPolicy {
    max_elapsed: Duration::MAX,
    first_wait: Duration::from_secs(1),
    longest_wait: Duration::from_secs(30),
    longest_asked_wait: Duration::from_secs(30),
};

/// Timeout of the one read that tests a base directory whose probe failed.
const READ_LIMIT: Duration = Duration::from_secs(10);

/// One base directory.
#[derive(Debug)]
pub(super) struct BaseDirectory {
    pub name: BaseName,
    pub uri: String,
    /// Retries reads, lists, deletes and contended puts.
    pub store: Arc<dyn Store>,
    /// The same without retries, for callers that have an alternative.
    pub no_retry: Arc<dyn Store>,
    pub attachment: Arc<Attachment>,
    fleet: Arc<Fleet>,
    /// The same with contended puts repeated only: a probe is to notice everything else.
    probed: Arc<dyn Store>,
    ignores_preconditions: AtomicBool,
    warned_of_retention: AtomicBool,
    /// A full probe has succeeded.
    passed_full_probe: AtomicBool,
    health: Health,
    /// Notified when the health changes; shared by all base directories.
    changed: Arc<Notify>,
    metrics: StorageMetrics,
    runtime: Runtime,
}

/// Health of one base directory, for `readyz` and the dashboard.
#[derive(Debug, Clone)]
pub struct BaseStatus {
    /// Its name.
    pub name: BaseName,
    /// Its URI, without credentials.
    pub uri: String,
    /// Whether it is preferred for new segments.
    pub healthy: bool,
    /// It is unhealthy because it is full.
    pub full: bool,
    /// The last failure, if it is unhealthy.
    pub error: Option<String>,
    /// The last probe found that it applies writes whose precondition fails.
    pub ignores_preconditions: bool,
    /// Why it retains deleted objects, if its responses showed that it does.
    pub retention: Option<Retention>,
    /// The last known reason why it cannot be read.
    pub unreadable: Option<String>,
}

impl BaseDirectory {
    pub(super) fn new(
        attachment: Arc<Attachment>,
        uri: String,
        fleet: &Arc<Fleet>,
        limits: StoreLimits,
        metrics: &StorageMetrics,
        changed: &Arc<Notify>,
        runtime: &Runtime,
    ) -> Arc<Self> {
        let no_retry: Arc<dyn Store> = Arc::new(AttachedStore(Arc::clone(&attachment)));
        let contended = RetryPolicy {
            max_elapsed: Duration::ZERO,
            ..limits.retry
        };
        let raw = Arc::clone(&attachment.raw);
        let probed = Retry::new(raw, contended, runtime.clone());
        let retry = Retry::new(Arc::clone(&no_retry), limits.retry, runtime.clone());
        let name = attachment.name.clone();
        metrics.add_base(&name);
        Arc::new(Self {
            name,
            uri,
            store: Arc::new(retry),
            no_retry,
            attachment,
            fleet: Arc::clone(fleet),
            probed: Arc::new(probed),
            ignores_preconditions: AtomicBool::new(false),
            warned_of_retention: AtomicBool::new(false),
            passed_full_probe: AtomicBool::new(false),
            health: Health::default(),
            changed: Arc::clone(changed),
            metrics: metrics.clone(),
            runtime: runtime.clone(),
        })
    }

    /// Whether new objects may be put there.
    pub(super) fn is_active(&self) -> bool {
        self.attachment.role() == Role::Member(MemberState::Active)
    }

    /// Whether it is lost for ever: nothing is expected of it.
    pub(super) fn is_abandoned(&self) -> bool {
        self.attachment.role() == Role::Member(MemberState::Abandoned)
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.health.is_healthy()
    }

    /// Whether reads did not fail last.
    pub(super) fn is_readable(&self) -> bool {
        self.health.unreadable().is_none()
    }

    /// Whether neither puts nor reads failed last.
    pub(super) fn works(&self) -> bool {
        self.health.works()
    }

    /// The store with retries if the base directory works; without if it is known to fail, for
    /// which a minute of retries would be wasted.
    pub(super) fn retrying_if_healthy(&self) -> &Arc<dyn Store> {
        match self.health.works() {
            true => &self.store,
            false => &self.no_retry,
        }
    }

    pub(super) fn status(&self) -> BaseStatus {
        let error = self.health.failure();
        BaseStatus {
            name: self.name.clone(),
            uri: self.uri.clone(),
            healthy: error.is_none(),
            full: self.health.is_full(),
            error,
            ignores_preconditions: self.ignores_preconditions.load(Ordering::Relaxed),
            retention: self.attachment.raw.observed().retention,
            unreadable: self.health.unreadable(),
        }
    }

    /// The error of an operation on this base directory.
    pub(super) fn error(
        &self,
        operation: &'static str,
        object: impl Into<String>,
        error: StoreError,
    ) -> StorageError {
        StorageError {
            base: self.name.to_string(),
            operation,
            object: object.into(),
            source: error.into(),
        }
    }

    /// All objects below a folder.
    ///
    /// # Errors
    /// If it cannot be listed.
    pub(super) async fn list(&self, folder: &Folder) -> Result<Vec<ObjectMeta>> {
        let listed = self.retrying_if_healthy().list(folder).await;
        listed.map_err(|error| self.error("list", folder.as_str(), error))
    }

    /// A part of a folder, as [`Store::list_after`].
    ///
    /// # Errors
    /// If it cannot be listed.
    pub(super) async fn list_after(
        &self,
        folder: &Folder,
        after: Option<&Key>,
        max: usize,
    ) -> Result<Vec<ObjectMeta>> {
        let listed = self.retrying_if_healthy().list_after(folder, after, max);
        let listed = listed.await;
        listed.map_err(|error| self.error("list", folder.as_str(), error))
    }

    /// Records a successful put or probe.
    pub(super) fn recovered(&self) {
        if self.health.succeed() {
            self.metrics.set_healthy(&self.name, true, false);
            tracing::info!(base = %self.name, "base directory is healthy again");
            self.changed.notify_one();
        }
    }

    /// Records a failed put or probe: new segments avoid the base directory until a probe succeeds.
    pub(super) fn failed(self: &Arc<Self>, error: &StoreError) {
        let failed = self.health.fail(error.to_string(), error.full);
        self.metrics.set_healthy(&self.name, false, error.full);
        if failed.is_new && error.full {
            tracing::warn!(base = %self.name, uri = %self.uri, %error,
                "base directory full; it gets no new segments until it has room");
        } else if failed.is_new {
            tracing::warn!(base = %self.name, uri = %self.uri, %error,
                "base directory unhealthy; tried last for new segments");
        }
        self.after_failure(failed);
    }

    /// Records whether a small object could be read, or found missing. Exchanges can be opened only
    /// while it could (`opening`).
    pub(super) fn observed_read<T>(self: &Arc<Self>, outcome: &Result<T, StoreError>) {
        match outcome {
            Err(error) if error.kind != StoreErrorKind::NotFound => {
                let failed = self.health.fail_read(error.to_string());
                if failed.is_new {
                    tracing::warn!(base = %self.name, uri = %self.uri, %error,
                        "base directory cannot be read");
                }
                self.after_failure(failed);
            }
            _ => {
                if self.health.succeed_read() {
                    tracing::info!(base = %self.name, "base directory can be read again");
                    self.changed.notify_one();
                }
            }
        }
    }

    fn after_failure(self: &Arc<Self>, failed: Failed) {
        if failed.is_new {
            self.changed.notify_one();
        }
        if failed.start_probing {
            let base = Arc::downgrade(self);
            let probing = probe_until_it_works(base, self.runtime.clone());
            self.runtime.tasks.spawn_until_stopped(probing);
        }
    }

    /// Probes once and updates the health. One that is reached for the first time joins the fleet.
    pub(super) async fn probe(self: &Arc<Self>) {
        let identified = self.attachment.id().is_some();
        let extent = match self.passed_full_probe.load(Ordering::Relaxed) {
            true => Extent::Health,
            false => Extent::Full,
        };
        let probed = async {
            self.attachment.probe().await?;
            let findings = probe::probe(&*self.probed, &self.runtime, extent).await?;
            self.attachment.learned_conditions().await;
            Ok(findings)
        };
        match probe::within_limit(probed, &self.runtime).await {
            Ok(findings) => {
                self.warn_of(findings);
                if !self.passed_full_probe.swap(true, Ordering::Relaxed) {
                    self.warn_of_background();
                }
                self.recovered();
                self.observed_read(&Ok(()));
                if !identified {
                    self.fleet.settle().await;
                }
            }
            Err(error) => {
                self.failed(&error);
                self.observed_read(&self.read_once().await);
            }
        }
    }

    /// Warns once of what a probe found about a store that works all the same.
    fn warn_of(&self, found: Findings) {
        let ignores = found.ignores_preconditions;
        if !self.ignores_preconditions.swap(ignores, Ordering::Relaxed) && ignores {
            tracing::warn!(base = %self.name, "store does not implement conditional writes: an \
                exchange whose lease is renewed during its collection may be lost");
        }
        self.warn_of_retention(found.retention);
    }

    /// Warns also of what the store finds out in the background after its first delete, which was
    /// that of a probe.
    fn warn_of_background(self: &Arc<Self>) {
        let (base, clock) = (Arc::downgrade(self), self.runtime.clock.clone());
        self.runtime.tasks.spawn_until_stopped(async move {
            clock.sleep(2 * BACKGROUND_LIMIT).await;
            if let Some(base) = base.upgrade() {
                base.warn_of_retention(base.attachment.raw.observed().retention);
            }
        });
    }

    fn warn_of_retention(&self, retention: Option<Retention>) {
        if let Some(retention) = retention
            && !self.warned_of_retention.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(base = %self.name, "the base directory {}", retention.warning());
        }
    }

    /// Probes in the background because a list failed, unless the base directory is probed already:
    /// an idle daemon has no other way to detect that a base directory can no longer be read.
    pub(super) fn probe_after_failure(self: &Arc<Self>) {
        if self.health.works() {
            let base = Arc::clone(self);
            let probing = async move { base.probe().await };
            self.runtime.tasks.spawn_until_stopped(probing);
        }
    }

    /// Reads an object that does not exist: a full disk can be read although its probe fails.
    async fn read_once(&self) -> Result<(), StoreError> {
        let key = keys::probe(self.runtime.random.next_u64());
        let reading = self.no_retry.get_versioned(&key);
        match self.runtime.clock.within(READ_LIMIT, reading).await {
            Some(found) => if_found(found).map(drop),
            None => Err(StoreError::new(
                StoreErrorKind::Unavailable,
                format!("a read did not complete within {} s", READ_LIMIT.as_secs()),
            )),
        }
    }

    /// Opens the base directory when the daemon starts. If it has not completed after `within`, the
    /// base directory is out of order, and its background probe opens it later.
    pub(super) async fn start(self: &Arc<Self>, within: Duration) {
        let probed = self.runtime.clock.within(within, self.probe()).await;
        if probed.is_none() {
            let error = StoreError::new(
                StoreErrorKind::Unavailable,
                format!("it did not answer within server.start_timeout ({within:?})"),
            );
            self.failed(&error);
            self.observed_read(&Err::<(), _>(error));
        }
    }
}

async fn probe_until_it_works(base: Weak<BaseDirectory>, runtime: Runtime) {
    let mut number = 0;
    loop {
        number += 1;
        let wait = PROBES.wait(number, runtime.random.next_u64(), None);
        runtime.clock.sleep(wait).await;
        let Some(base) = base.upgrade() else { return };
        if base.health.stop_probing_if_it_works() {
            return;
        }
        base.probe().await;
        if base.health.stop_probing_if_it_works() {
            return;
        }
    }
}
