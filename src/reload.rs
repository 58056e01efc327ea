//! Applies changes of the configuration while the daemon runs.
//!
//! Does: read the configuration again, compare it with what is in effect, apply what can change,
//! and report what needs a restart; read the files of tokens and certificates again. Does not:
//! decide which settings can change (`config::keys`). Invariant: a configuration with a problem
//! changes nothing, and no secret is logged or sent in a response.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::catalog::Catalog;
use crate::config::{
    BaseFiles, Change, Changes, ConfigErrors, Environment, LimitsConfig, Live, Loaded,
    cloud_variables,
};
use crate::exchange::Exchanges;
use crate::fair::FairSemaphore;
use crate::http::credentials::{Credentials, warnings_of};
use crate::http::stall::StallPolicy;
use crate::ingest::Ingest;
use crate::memory::MemoryPool;
use crate::runtime::Runtime;
use crate::storage::{Storage, StorageError};
use crate::store::open::check_bases;
use crate::telemetry::logs::{LogControl, LogError};

/// What settings act on.
pub struct Adjustable {
    pub log: LogControl,
    pub limits: Live<LimitsConfig>,
    pub exchanges: Exchanges,
    pub catalog: Catalog,
    pub ingest: Ingest,
    pub storage: Storage,
    pub write_memory: MemoryPool,
    pub read_memory: MemoryPool,
    pub read_slots: FairSemaphore,
    pub write_slots: FairSemaphore,
    pub stall_policy: StallPolicy,
    /// Of every address.
    pub credentials: Vec<Credentials>,
    pub runtime: Runtime,
}

/// Reloads the configuration of a daemon. Cheap to clone.
#[derive(Clone)]
pub struct Reloader(Arc<Inner>);

struct Inner {
    adjustable: Adjustable,
    in_effect: Mutex<(Loaded, BaseFiles)>,
}

/// What a reload did.
#[derive(Debug, Clone, Default)]
pub struct ReloadReport {
    pub changes: Changes,
    /// For the operator: settings that were adapted, variables that were ignored.
    pub notices: Vec<String>,
}

/// Why nothing was applied.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    #[error(transparent)]
    Configuration(#[from] ConfigErrors),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Log(#[from] LogError),
}

impl Reloader {
    /// For a daemon that was started with this configuration.
    pub fn new(adjustable: Adjustable, in_effect: Loaded) -> Self {
        let files = BaseFiles::read(&in_effect.config);
        let in_effect = Mutex::new((in_effect, files));
        Self(Arc::new(Inner {
            adjustable,
            in_effect,
        }))
    }

    /// Reads everything again, and logs the result. Blocks on file I/O.
    ///
    /// # Errors
    /// The configuration has problems; nothing changes.
    pub fn reload(&self) -> Result<ReloadReport, ReloadError> {
        self.reload_credentials(true);
        let reloaded = self.apply_changes();
        match &reloaded {
            Ok(report) => report.log(),
            Err(error) => tracing::error!(%error, "the configuration was not reloaded; the daemon \
                goes on with what is in effect"),
        }
        reloaded
    }

    /// Reads files of tokens and certificates that have changed, or all of them. Blocks on file
    /// I/O.
    pub fn reload_credentials(&self, forced: bool) {
        for credentials in &self.0.adjustable.credentials {
            credentials.reload(forced);
        }
    }

    /// What was insecure about the credentials of every address when they were last loaded, each
    /// once.
    pub fn credential_warnings(&self) -> Vec<String> {
        warnings_of(&self.0.adjustable.credentials)
    }

    fn apply_changes(&self) -> Result<ReloadReport, ReloadError> {
        let mut in_effect = self.0.in_effect.lock();
        let (before, files_before) = &*in_effect;
        let mut draft = before.again_in(&Environment::of_process());
        check_bases(&mut draft, &cloud_variables(), &self.0.adjustable.runtime);
        let now = draft.finish()?;
        let files = BaseFiles::read(&now.config);
        let mut changes = Changes::between(before, &now);
        changes.add_files(files_before, &files);
        let after = changes.with_live_changes(before, &now);
        self.0.adjustable.apply(&after, &changes)?;
        *in_effect = (after, files);
        Ok(ReloadReport {
            changes,
            notices: now.notices,
        })
    }
}

impl Adjustable {
    /// Applies all that can change; fallible changes first.
    fn apply(&self, after: &Loaded, changes: &Changes) -> Result<(), ReloadError> {
        let config = &after.config;
        if !changes.credentials.is_empty() {
            let bases = &config.base_directories;
            self.storage.renew_clients(bases, &changes.credentials)?;
            // One that was out of order for its credentials need not wait for its next probe.
            let storage = self.storage.clone();
            let probe = async move { drop(storage.probe().await) };
            self.runtime.tasks.spawn_until_stopped(probe);
        }
        self.log.set_filter(&config.log.filter)?;
        let (limits, query) = (&config.limits, &config.query);
        self.limits.set(limits.clone());
        self.exchanges.set_max_partitions(limits.max_partitions);
        self.exchanges
            .set_max_announced(limits.max_announced_exchanges);
        self.catalog.set_max_footer_size(limits.max_footer_size);
        self.ingest.set_max_stored(query.max_stored_size);
        self.write_memory.set_query_limit(query.max_write_memory);
        self.read_memory.set_query_limit(query.max_read_memory);
        let reads = limits.max_concurrent_reads as u64;
        self.read_slots
            .set_bounds(reads, query.max_concurrent_reads);
        let writes = FairSemaphore::UNBOUNDED;
        self.write_slots
            .set_bounds(writes, query.max_concurrent_writes);
        self.stall_policy.set_timeout(limits.response_stall_timeout);
        Ok(())
    }
}

impl ReloadReport {
    fn log(&self) {
        let listed = |changes: &[Change]| {
            let each = changes.iter();
            let each = each.map(|Change { key, from, to }| format!("{key}: {from} -> {to}"));
            each.collect::<Vec<_>>().join("; ")
        };
        for notice in &self.notices {
            tracing::warn!("{notice}");
        }
        let Changes { live, restart, .. } = &self.changes;
        if live.is_empty() && restart.is_empty() {
            tracing::info!("configuration reloaded: no setting was edited");
        }
        if !live.is_empty() {
            let applied = listed(live);
            tracing::info!(%applied, "configuration reloaded: changes were applied");
        }
        if !restart.is_empty() {
            let edited = listed(restart);
            tracing::warn!(%edited, "settings were edited that a running daemon cannot \
                change: restart the daemon to apply them");
        }
    }
}
