//! All base directories of a daemon together.
//!
//! Does: open them, bring them up, probe them, report their health. Does not: read or write objects
//! (`segments`, `markers`, `exchanges`, `listing`).

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use futures::stream::{FuturesUnordered, Stream, StreamExt as _};
use tokio::sync::Notify;

use super::attachment::{Attachment, Identification, InitOptions};
use super::base::{BaseDirectory, BaseStatus};
use super::error::Result;
use super::fleet::Fleet;
use super::foreign::ForeignFolders;
use super::identity::Identity;
use super::known_sets::KnownSets;
use super::membership::{MemberState, Membership};
use super::roster::Roster;
use super::uncertain::UncertainMarkers;
use crate::config::{BaseDirectoryConfig, Scheme};
use crate::id::BaseName;
use crate::runtime::Runtime;
use crate::store::deadline::Deadline;
use crate::store::keys::Key;
use crate::store::limit::Limit;
use crate::store::meter::Meter;
use crate::store::metrics::StorageMetrics;
use crate::store::open::{OpenError, open_all};
use crate::store::retry::RetryPolicy;
use crate::store::swap::Swap;
use crate::store::{Store, StoreLimits};

/// Timeout of a write of one block: a file system that needs longer has another fault than being
/// full.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// All base directories of a daemon. Cheap to clone.
///
/// # Examples
/// ```
/// use bytes::Bytes;
/// use stopover::config::BaseDirectoryConfig;
/// use stopover::id::{DaemonId, SegmentId};
/// use stopover::runtime::Runtime;
/// use stopover::storage::Storage;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config = BaseDirectoryConfig {
///     uri: "memory://example".into(),
///     ..BaseDirectoryConfig::default()
/// };
/// let storage = Storage::open(&[config], &Runtime::system())?;
/// let id = SegmentId { daemon: DaemonId(1), sequence: 0 };
/// let address = storage.put_segment(&"query-1".parse()?, id, vec![Bytes::from("bytes")]).await?;
/// assert_eq!(storage.get_range(&address, 1..3).await?, "yt".as_bytes());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Storage {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub bases: Vec<Arc<BaseDirectory>>,
    /// The clients of their stores, below all wrappers.
    clients: Vec<Arc<Swap>>,
    /// Where each is, if it was opened from a configuration.
    locations: Vec<String>,
    pub fleet: Arc<Fleet>,
    /// How a put that failed in every base directory is retried.
    pub put_retry: RetryPolicy,
    /// Position in the rotation for the next segment.
    pub turn: AtomicUsize,
    pub metrics: StorageMetrics,
    pub foreign: ForeignFolders,
    /// The sets of exchanges.
    pub sets: KnownSets,
    /// Where markers may appear late.
    pub uncertain: UncertainMarkers,
    /// Notified when the health of a base directory changes.
    pub health_changed: Arc<Notify>,
    pub runtime: Runtime,
}

/// Name, URI for people, and store of a base directory.
type Named = (BaseName, String, Arc<dyn Store>);

impl Storage {
    /// Opens all configured base directories without accessing them. Their metrics are
    /// [`Storage::metrics`].
    ///
    /// # Errors
    /// If one is misconfigured, two are the same, or there is none.
    pub fn open(configs: &[BaseDirectoryConfig], runtime: &Runtime) -> Result<Self> {
        Self::open_with(configs, Identification::Create, runtime)
    }

    /// As [`Storage::open`], for a command that must not make base directories of empty places.
    ///
    /// # Errors
    /// As [`Storage::open`].
    pub fn open_with(
        configs: &[BaseDirectoryConfig],
        identification: Identification,
        runtime: &Runtime,
    ) -> Result<Self> {
        let opened = open_all(configs, runtime)?;
        let locations = opened.iter().map(|base| base.opened.location.clone());
        let locations = locations.collect();
        let validity = opened
            .iter()
            .map(|base| (base.name.clone(), base.opened.validity));
        let validity: Vec<_> = validity.collect();
        let stores = opened.into_iter().map(|base| {
            let store = (base.name, base.uri.to_string(), base.opened.store);
            (store, base.opened.limits, base.require_init)
        });
        let storage = Self::with_limits(stores, locations, identification, runtime);
        for (base, validity) in validity {
            storage.inner.metrics.set_credentials(&base, validity);
        }
        Ok(storage)
    }

    /// Replaces the clients of some base directories by those of `configs`, which have other
    /// credentials for the same locations. Operations in progress end with the old ones.
    ///
    /// # Errors
    /// One is misconfigured, or is another location: then all keep their clients.
    pub fn renew_clients(&self, configs: &[BaseDirectoryConfig], which: &[usize]) -> Result<()> {
        let opened = open_all(configs, &self.inner.runtime)?;
        for index in which {
            let new = &opened[*index];
            if self.inner.locations.get(*index) != Some(&new.opened.location) {
                let reason = "its new options name another location: restart the daemon";
                let error = OpenError::new(new.name.as_str(), new.uri.to_string(), reason);
                return Err(error.into());
            }
        }
        for index in which {
            let new = &opened[*index];
            let store = Arc::clone(&new.opened.store);
            self.inner.clients[*index].replace(store);
            let metrics = &self.inner.metrics;
            metrics.set_credentials(&new.name, new.opened.validity);
        }
        Ok(())
    }

    /// Storage over given stores (name, URI for people, store), for tests and simulation.
    pub fn from_stores(
        stores: Vec<(BaseName, String, Arc<dyn Store>)>,
        limits: StoreLimits,
        runtime: &Runtime,
    ) -> Self {
        let stores = stores.into_iter().map(|store| (store, limits, false));
        Self::with_limits(stores, Vec::new(), Identification::Create, runtime)
    }

    /// As [`Storage::from_stores`], for base directories with `require_init`.
    pub fn from_initialized_stores(
        stores: Vec<(BaseName, String, Arc<dyn Store>)>,
        limits: StoreLimits,
        runtime: &Runtime,
    ) -> Self {
        let stores = stores.into_iter().map(|store| (store, limits, true));
        Self::with_limits(stores, Vec::new(), Identification::Create, runtime)
    }

    fn with_limits(
        stores: impl Iterator<Item = (Named, StoreLimits, bool)>,
        locations: Vec<String>,
        identification: Identification,
        runtime: &Runtime,
    ) -> Self {
        let (metrics, roster) = (StorageMetrics::default(), Arc::new(Roster::default()));
        let health_changed = Arc::default();
        // A put may end up anywhere, so all base directories share the longest policy: one remote
        // base directory makes puts to local ones retry for 60 s too.
        let mut put_retry = RetryPolicy::LOCAL;
        let (mut attached, mut clients) = (Vec::new(), Vec::new());
        for ((name, uri, store), limits, require_init) in stores {
            if limits.retry.max_elapsed > put_retry.max_elapsed || attached.is_empty() {
                put_retry = limits.retry;
            }
            let clock = runtime.clock.clone();
            let client = Arc::new(Swap::new(store));
            clients.push(Arc::clone(&client));
            let deadline = Deadline::new(client, limits.deadline, clock.clone());
            let scheme = Scheme::of(&uri);
            let charged = matches!(scheme, Some(Scheme::S3 | Scheme::Gs | Scheme::Az));
            let base = name.clone();
            let meter = Meter::new(Arc::new(deadline), base, charged, metrics.clone(), clock);
            let raw = Limit::new(Arc::new(meter), limits, runtime.tasks.clone());
            let creation = (identification, require_init);
            let attachment = Attachment::new(name, Arc::new(raw), &roster, creation, runtime);
            attached.push((attachment, uri, limits));
        }
        let attachments = attached.iter().map(|(attachment, ..)| attachment.clone());
        let fleet = Fleet::new(attachments.collect(), roster);
        let bases = attached.into_iter().map(|(attachment, uri, limits)| {
            let (metrics, changed) = (&metrics, &health_changed);
            BaseDirectory::new(attachment, uri, &fleet, limits, metrics, changed, runtime)
        });
        let bases = bases.collect();
        Self {
            inner: Arc::new(Inner {
                bases,
                clients,
                locations,
                fleet,
                put_retry,
                // Daemons that start together should not all begin with the same base directory.
                turn: AtomicUsize::new(usize::try_from(runtime.random.next_u64()).unwrap_or(0)),
                metrics,
                foreign: ForeignFolders::default(),
                sets: KnownSets::default(),
                uncertain: UncertainMarkers::default(),
                health_changed,
                runtime: runtime.clone(),
            }),
        }
    }

    /// Metrics of the base directories, to be registered once.
    pub fn metrics(&self) -> &StorageMetrics {
        &self.inner.metrics
    }

    /// Brings up all base directories at once, for at most `within`. Those that have not answered
    /// by then are out of order until their background probes succeed.
    pub async fn start(&self, within: Duration) -> Vec<BaseStatus> {
        join_all(self.inner.bases.iter().map(|base| base.start(within))).await;
        self.status()
    }

    /// Probes all base directories concurrently and updates their health.
    pub async fn probe(&self) -> Vec<BaseStatus> {
        self.probes().collect::<()>().await;
        self.status()
    }

    /// Likewise, with an item for each probe when it ends.
    pub fn probes(&self) -> impl Stream<Item = ()> {
        let probes = self.inner.bases.iter().map(BaseDirectory::probe);
        probes.collect::<FuturesUnordered<_>>()
    }

    /// Whether a marker could be written to every base directory now, as far as is known. One that
    /// is unhealthy because it is full may still accept markers.
    pub async fn can_write_markers(&self) -> bool {
        let unhealthy = self.inner.bases.iter().filter(|base| !base.is_healthy());
        let writable = unhealthy.map(async |base| {
            let asked = base.no_retry.can_write_when_full();
            let answered = self.inner.runtime.clock.within(WRITE_LIMIT, asked).await;
            answered.unwrap_or(false)
        });
        join_all(writable)
            .await
            .into_iter()
            .all(|writable| writable)
    }

    /// The identities that were read, each with the name of its base directory.
    pub fn identities(&self) -> Vec<(BaseName, Option<Arc<Identity>>)> {
        let bases = self.inner.bases.iter();
        bases
            .map(|base| (base.name.clone(), base.attachment.identity()))
            .collect()
    }

    /// Reads the identity of a base directory again, for new keys, or all identities that were not
    /// read yet; at most every few seconds, since any client can send a handle with an unknown key.
    pub async fn refresh_identity(&self, name: Option<&BaseName>) {
        let bases = self.inner.bases.iter().filter(|base| match name {
            Some(name) => base.name == *name,
            None => base.attachment.id().is_none(),
        });
        join_all(bases.map(|base| base.attachment.refresh())).await;
    }

    /// Creates identities where they are missing, or rotates keys, at the request of an operator.
    /// With a name only that base directory. Returns what was done with each.
    ///
    /// # Errors
    /// One is not what the operator has confirmed.
    pub async fn init(
        &self,
        only: Option<&BaseName>,
        options: InitOptions,
    ) -> Result<Vec<(BaseName, &'static str)>> {
        let mut done = Vec::new();
        let bases = self.inner.bases.iter();
        for base in bases.filter(|base| only.is_none_or(|name| base.name == *name)) {
            let result = base.attachment.init(options).await;
            let result = result.map_err(|error| base.error("put", "its identity", error))?;
            done.push((base.name.clone(), result));
        }
        Ok(done)
    }

    /// Reads an object that describes the first base directory or the fleet, for people.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn get_administrative(&self, key: &Key) -> Result<Bytes> {
        let base = &self.inner.bases[0];
        let found = base.store.get_versioned(key).await;
        let found = found.map_err(|error| base.error("get", key.as_str(), error))?;
        Ok(found.bytes)
    }

    /// The base directories of the fleet, as last read; `None` before the first time.
    pub fn members(&self) -> Option<Arc<Membership>> {
        self.inner.fleet.members()
    }

    /// Sets how long this daemon tries to write the marker of an exchange that it announces. The
    /// time is entered in the fleet's list of members, so that no daemon mistakes an exchange that
    /// is being announced for an orphan.
    pub fn set_announcement(&self, announcement: Duration) {
        self.inner.fleet.set_announcement(announcement);
    }

    /// For how long this daemon may write such a marker: not longer than the fleet's list says.
    pub fn announcement(&self) -> Duration {
        self.inner.fleet.announcement()
    }

    /// For how long any daemon of the fleet may do so, as far as this one knows.
    pub fn longest_announcement(&self) -> Duration {
        self.inner.fleet.longest_announcement()
    }

    /// Sets what the fleet does with a base directory; returns the new list.
    ///
    /// # Errors
    /// There is none of this name, or the list cannot be written where it must be.
    pub async fn set_member(&self, name: &BaseName, state: MemberState) -> Result<Arc<Membership>> {
        self.inner.fleet.set_state(name, state).await
    }

    /// Checks, with a read of each base directory, that this daemon has all that the fleet uses:
    /// only then may it conclude that an exchange has ended. Restores missing identities.
    ///
    /// # Errors
    /// This daemon lacks one, or one cannot be read.
    pub async fn check_members(&self) -> Result<()> {
        self.inner.fleet.check_complete().await
    }

    /// Why this daemon collects nothing, if the last check found a reason.
    pub fn collection_obstacle(&self) -> Option<String> {
        self.inner.fleet.collection_obstacle()
    }

    /// The last known health of all base directories, without accessing them.
    pub fn status(&self) -> Vec<BaseStatus> {
        self.inner.bases.iter().map(|base| base.status()).collect()
    }
}
