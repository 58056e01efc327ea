//! Inspecting every exchange once, and collecting those that have expired.
//!
//! Does: list, track leases, read the marker of each exchange once for its lease, claim, remove.
//! Does not: decide when to inspect (`sweep` and `one_shot` do) or when a lease has expired
//! (`lease_tracker`). Invariant: an exchange is removed only after its markers were read, found to
//! be what the last list showed, and claimed, which fails if one was renewed since; any number of
//! daemons may do this at once.
//!
//! Its observations can be handed over to another collector, which continues with them.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use futures::stream::{self, StreamExt as _};

use super::handover::{Inherited, digest_markers};
use super::lease_tracker::{LeaseState, LeaseTracker, Poll, Verdict};
use super::orphan_observation_time;
use crate::exchange::{lease_of, set_of};
use crate::id::ExchangeId;
use crate::runtime::Runtime;
use crate::storage::{
    DigestEntry, DigestExchanges, ListedExchange, ObservedMarkers, Storage, StorageError,
    exchange_hash,
};

/// Exchanges whose markers are read at a time.
const READ_CONCURRENCY: usize = 16;

/// For how long an exchange must not be renewed before it is collected.
#[derive(Debug, Clone, Copy)]
pub enum Lease {
    /// For its own lease, from its marker; at least `otherwise` if it has no marker, or one that
    /// cannot be decoded.
    OfExchange { otherwise: Duration },
    /// For this long.
    Fixed(Duration),
}

/// One exchange as it was inspected.
#[derive(Debug)]
pub struct Inspection {
    pub exchange: ExchangeId,
    /// What the lists showed of it.
    pub listed: ListedExchange,
    /// Its own lease, if it has a marker that can be decoded.
    pub lease: Option<Duration>,
    /// An error if its marker could not be read.
    pub outcome: Result<Observation, StorageError>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    pub marker: LeaseState,
    pub verdict: Verdict,
}

/// What became of an exchange that was to be collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collected {
    /// This many objects were removed.
    Removed(u64),
    /// It has not expired, or it has changed since it was listed.
    Retained,
    /// It has no marker, and its folder holds nothing that Stopover wrote.
    Foreign,
}

/// Tracks the leases of all exchanges in some base directories.
#[derive(Debug)]
pub struct Collector {
    storage: Storage,
    runtime: Runtime,
    lease: Lease,
    leases: LeaseTracker,
    /// The leases of the exchanges whose markers were read; `None` if one cannot be decoded.
    own: HashMap<ExchangeId, Option<Duration>>,
    /// What other collectors have observed, until the next inspection.
    inherited: Inherited,
    /// The result of the last inspection; before the first one, what other daemons published.
    digest: DigestExchanges,
}

impl Collector {
    /// A collector; the caller inspects the exchanges every `interval`.
    pub fn new(storage: Storage, runtime: Runtime, lease: Lease, interval: Duration) -> Self {
        Self {
            storage,
            runtime,
            lease,
            leases: LeaseTracker::new(interval),
            own: HashMap::new(),
            inherited: Inherited::default(),
            digest: DigestExchanges::default(),
        }
    }

    /// Continues what another collector has observed.
    pub fn inherit(&mut self, digest: &DigestExchanges) {
        self.inherited.add(digest);
        if self.digest == DigestExchanges::default() {
            self.digest = digest.clone();
        }
    }

    /// The exchanges cannot be inspected: the time until the next inspection does not count.
    pub(super) fn interrupt(&mut self) {
        self.leases.interrupt();
    }

    /// What another collector needs to continue, and which exchanges are open.
    pub fn digest(&self) -> &DigestExchanges {
        &self.digest
    }

    /// Inspects every exchange once: by lists, and by reading the markers that are new.
    ///
    /// # Errors
    /// The exchanges cannot be listed. An error with one exchange is in its [`Inspection`].
    pub async fn inspect_all(&mut self) -> Result<Vec<Inspection>, StorageError> {
        let writable = self.writable().await;
        let asked = self.runtime.clock.now();
        let survey = self.storage.survey().await;
        let poll = Poll {
            asked,
            answered: self.runtime.clock.now(),
            writable,
        };
        let survey = survey.inspect_err(|_| self.leases.interrupt())?;
        self.leases.retain(|id| survey.contains_key(id));
        self.own.retain(|id, _| survey.contains_key(id));
        self.inherit_leases(&survey);
        let mut unread = self.read_leases(&survey).await;
        let mut inspections = Vec::with_capacity(survey.len());
        for (exchange, listed) in survey {
            let outcome = match unread.remove(&exchange) {
                Some(error) => {
                    self.leases.reset(&exchange);
                    Err(error)
                }
                None => Ok(self.observe(&exchange, &listed, poll)),
            };
            inspections.push(Inspection {
                lease: self.own_lease(&exchange),
                exchange,
                listed,
                outcome,
            });
        }
        self.inherited = Inherited::default();
        let entries = inspections.iter().map(|inspection| {
            let hash = exchange_hash(&inspection.exchange);
            (hash, self.entry(inspection))
        });
        self.digest = DigestExchanges::complete(entries.collect());
        Ok(inspections)
    }

    fn entry(&self, inspection: &Inspection) -> DigestEntry {
        let unrenewed = match inspection.outcome.as_ref().map(|seen| seen.verdict) {
            Ok(Verdict::Unrenewed(unrenewed)) => unrenewed,
            Ok(Verdict::Expired) => self.lease_of(&inspection.exchange),
            Ok(Verdict::Fresh) | Err(_) => Duration::ZERO,
        };
        DigestEntry {
            markers: digest_markers(&lease_state(&inspection.listed)),
            lease: inspection.lease,
            unrenewed,
        }
    }

    /// Uses the leases of exchanges that other daemons have inspected: their markers need not be
    /// read again.
    fn inherit_leases(&mut self, survey: &BTreeMap<ExchangeId, ListedExchange>) {
        for (exchange, listed) in survey {
            if let Some(lease) = self.inherited.lease(exchange)
                && listed.has_marker()
            {
                self.own.entry(exchange.clone()).or_insert(Some(lease));
            }
        }
    }

    /// Reads the markers of exchanges whose lease is unknown. Returns those that it could not read.
    async fn read_leases(
        &mut self,
        survey: &BTreeMap<ExchangeId, ListedExchange>,
    ) -> BTreeMap<ExchangeId, StorageError> {
        let mut new = Vec::new();
        for (exchange, listed) in survey {
            if listed.has_marker() && !self.own.contains_key(exchange) {
                new.push((exchange.clone(), listed.clone()));
            }
        }
        let storage = &self.storage;
        let reads = stream::iter(new)
            .map(async |(exchange, listed)| {
                let contents = storage.read_listed(&exchange, &listed).await;
                (exchange, contents)
            })
            .buffered(READ_CONCURRENCY);
        let reads: Vec<_> = reads.collect().await;
        let mut unread = BTreeMap::new();
        for (exchange, contents) in reads {
            match contents {
                Ok(contents) if contents.is_empty() => {}
                Ok(contents) => {
                    for content in &contents {
                        if let Ok(set) = set_of(&exchange, content) {
                            storage.remember_set(&exchange, &set);
                        }
                    }
                    let lease = longest_lease(&exchange, contents);
                    self.own.insert(exchange, lease);
                }
                Err(error) => drop(unread.insert(exchange, error)),
            }
        }
        unread
    }

    fn own_lease(&self, exchange: &ExchangeId) -> Option<Duration> {
        self.own.get(exchange).copied().flatten()
    }

    /// For how long an exchange must not be renewed before it is collected.
    pub fn lease_of(&self, exchange: &ExchangeId) -> Duration {
        match self.lease {
            Lease::OfExchange { otherwise } => self.own_lease(exchange).unwrap_or_else(|| {
                let announcement = self.storage.longest_announcement();
                otherwise.max(orphan_observation_time(announcement))
            }),
            Lease::Fixed(lease) => lease,
        }
    }

    /// Whether a renewal could be written now. Once a lease is half over, the base directories are
    /// probed, since the last known status may be outdated: a full disk is readable, and an idle
    /// daemon has not detected that it is full.
    async fn writable(&self) -> bool {
        if self.leases.any_half_expired() {
            self.storage.probe().await;
        }
        self.storage.can_write_markers().await
    }

    fn observe(
        &mut self,
        exchange: &ExchangeId,
        listed: &ListedExchange,
        poll: Poll,
    ) -> Observation {
        let (marker, lease) = (lease_state(listed), self.lease_of(exchange));
        let inherited = self.inherited.get(exchange, &marker);
        let verdict = match inherited.filter(|_| !self.leases.is_tracked(exchange)) {
            Some(entry) => {
                let watched = (lease, entry.unrenewed);
                self.leases.resume(exchange, marker.clone(), poll, watched)
            }
            None => self.leases.observe(exchange, marker.clone(), poll, lease),
        };
        Observation { marker, verdict }
    }

    /// Collects an expired exchange. `claimed` is called between the claim, after which no renewal
    /// can succeed, and the removal.
    ///
    /// # Errors
    /// The store failed; the next inspection shows what is left.
    pub async fn collect(
        &mut self,
        exchange: &ExchangeId,
        listed: &ListedExchange,
        observation: &Observation,
        claimed: impl FnOnce(),
    ) -> Result<Collected, StorageError> {
        if observation.verdict != Verdict::Expired {
            return Ok(Collected::Retained);
        }
        let observed = self.storage.observe_markers(exchange).await;
        // Observation starts again from zero, whatever the result.
        self.leases.reset(exchange);
        if !observed.are_as_listed(listed) || self.has_longer_lease(exchange, &observed) {
            return Ok(Collected::Retained);
        }
        let unannounced = observation.marker == LeaseState::Missing;
        if unannounced && self.storage.list_segments(exchange).await?.is_empty() {
            return Ok(Collected::Foreign);
        }
        if !self.storage.claim(exchange, &observed).await? {
            return Ok(Collected::Retained);
        }
        claimed();
        let removed = self.storage.remove_claimed(exchange).await?;
        Ok(Collected::Removed(removed))
    }

    /// Whether an exchange turns out to have a longer lease than it was judged by: another one of
    /// the same id was announced since its marker was read.
    fn has_longer_lease(&mut self, exchange: &ExchangeId, observed: &ObservedMarkers) -> bool {
        let lease = longest_lease(exchange, observed.contents());
        let longer = lease > self.own_lease(exchange);
        if longer {
            self.own.insert(exchange.clone(), lease);
        }
        longer
    }
}

fn lease_state(listed: &ListedExchange) -> LeaseState {
    match listed.version() {
        Some(version) if listed.has_marker() => LeaseState::Open(version),
        Some(version) => LeaseState::Tombstone(version),
        None => LeaseState::Missing,
    }
}

/// The longest lease of the markers of an exchange; usually there is one. `None` if none can be
/// decoded.
fn longest_lease(
    exchange: &ExchangeId,
    contents: impl IntoIterator<Item = bytes::Bytes>,
) -> Option<Duration> {
    let leases = contents.into_iter().filter_map(|content| {
        let lease = lease_of(exchange, &content);
        lease
            .inspect_err(|error| {
                tracing::warn!(%exchange, %error, "cannot decode the marker of an exchange; \
                    it will be collected after the lease of this daemon");
            })
            .ok()
    });
    leases.max()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::exchange::{Announce, ExchangeSpec, Exchanges, ExchangesDeps, Terms};
    use crate::id::{BaseName, DaemonId, SegmentId};
    use crate::storage::Result as StorageResult;
    use crate::store::local::{LocalStore, WriteMode};
    use crate::store::tests::faulty::FaultyStore;
    use crate::store::{Store, StoreLimits};

    const LEASE: Duration = Duration::from_secs(900);
    const SPEC: ExchangeSpec = ExchangeSpec {
        partitions: 2,
        ordered: false,
    };

    /// Exchanges over two base directories, and their stores.
    fn exchanges() -> (Exchanges, Storage, Runtime, Vec<Arc<FaultyStore>>) {
        let stores = vec![FaultyStore::new(), FaultyStore::new()];
        let bases = ["a", "b"].iter().zip(&stores).map(|(name, store)| {
            let store: Arc<dyn Store> = Arc::<FaultyStore>::clone(store);
            (name.parse().unwrap(), format!("faulty://{name}"), store)
        });
        let (storage, exchanges, runtime) = over(bases.collect(), StoreLimits::REMOTE);
        (exchanges, storage, runtime, stores)
    }

    fn over(
        bases: Vec<(BaseName, String, Arc<dyn Store>)>,
        limits: StoreLimits,
    ) -> (Storage, Exchanges, Runtime) {
        let runtime = Runtime::seeded(3);
        let storage = Storage::from_stores(bases, limits, &runtime);
        let deps = ExchangesDeps {
            runtime: runtime.clone(),
            storage: storage.clone(),
        };
        let terms = Terms {
            lease: LEASE,
            announcement: LEASE,
            max_partitions: 100,
            max_announced: 1000,
        };
        let exchanges = Exchanges::new(deps, terms);
        (storage, exchanges, runtime)
    }

    async fn put(storage: &Storage, exchange: &ExchangeId, sequence: u64) -> StorageResult<()> {
        let daemon = DaemonId(1);
        let id = SegmentId { daemon, sequence };
        let content = vec![Bytes::from_static(b"segment")];
        storage.put_segment(exchange, id, content).await.map(drop)
    }

    /// Requests since the last call: lists, reads, writes and deletes.
    fn requests(stores: &[Arc<FaultyStore>], before: &mut [usize; 4]) -> [usize; 4] {
        let kinds = ["list", "get", "put", "delete"];
        let now = kinds.map(|kind| stores.iter().map(|store| store.count(kind)).sum());
        let since = std::array::from_fn(|n| now[n] - before[n]);
        *before = now;
        since
    }

    /// Story: every daemon read the marker of every exchange in every base directory, each minute:
    /// 6,700 GET/s of a fleet of 200 daemons with 1,000 exchanges in two base directories.
    #[tokio::test(start_paused = true)]
    async fn a_sweep_over_unchanged_exchanges_costs_only_lists() {
        let (exchanges, storage, runtime, stores) = exchanges();
        let ids: Vec<ExchangeId> = (0..50).map(|n| format!("q-{n}").parse().unwrap()).collect();
        for (sequence, id) in (0..).zip(&ids) {
            exchanges
                .announce(id, SPEC, Announce::CreateOrRenew)
                .await
                .unwrap();
            put(&storage, id, sequence).await.unwrap();
        }
        let otherwise = Duration::from_secs(1);
        let interval = Duration::from_secs(60);
        let own = Lease::OfExchange { otherwise };
        let mut collector = Collector::new(storage.clone(), runtime, own, interval);
        let mut before = [0; 4];
        requests(&stores, &mut before);
        for sweep in 0..6 {
            tokio::time::sleep(interval).await;
            let inspections = collector.inspect_all().await.unwrap();
            assert_eq!(inspections.len(), 50);
            assert!(inspections.iter().all(|i| i.lease == Some(LEASE)));
            // Two lists of each base directory: of the markers, and of the folders of segments.
            let markers = if sweep == 0 { 50 } else { 0 };
            assert_eq!(
                requests(&stores, &mut before),
                [4, markers, 0, 0],
                "{sweep}"
            );
        }
        exchanges
            .announce(&ids[7], SPEC, Announce::Renew)
            .await
            .unwrap();
        requests(&stores, &mut before);
        let inspections = collector.inspect_all().await.unwrap();
        let fresh = |i: &&Inspection| i.outcome.as_ref().unwrap().verdict == Verdict::Fresh;
        let fresh: Vec<_> = inspections.iter().filter(fresh).collect();
        assert_eq!(
            fresh.iter().map(|i| &i.exchange).collect::<Vec<_>>(),
            [&ids[7]]
        );
        assert_eq!(requests(&stores, &mut before), [4, 0, 0, 0]);
    }

    /// Story: a coordinator died and left a full disk. No renewal was possible there, so no time
    /// counted towards expiry; and a claim had to write. So the disk stayed full for ever.
    #[tokio::test]
    async fn on_a_full_disk_leases_are_renewed_and_expired_exchanges_collected() {
        let folder = tempfile::tempdir().unwrap();
        let local = LocalStore::new(folder.path().into(), WriteMode::Cached, 7);
        let store: Arc<dyn Store> = Arc::new(local.clone());
        let bases = vec![("full".parse().unwrap(), "file:///full".into(), store)];
        let (storage, exchanges, runtime) = over(bases, StoreLimits::LOCAL);
        let [live, dead]: [ExchangeId; 2] = ["live", "dead"].map(|id| id.parse().unwrap());
        for (sequence, id) in (0..).zip([&live, &dead]) {
            exchanges
                .announce(id, SPEC, Announce::CreateOrRenew)
                .await
                .unwrap();
            put(&storage, id, sequence).await.unwrap();
        }
        local.fill(true);
        put(&storage, &live, 3).await.unwrap_err();
        assert!(!storage.status()[0].healthy);
        let interval = Duration::from_millis(20);
        let watch = Lease::Fixed(Duration::from_millis(200));
        let mut collector = Collector::new(storage.clone(), runtime, watch, interval);
        let mut removed = None;
        for _ in 0..100 {
            tokio::time::sleep(interval).await;
            exchanges
                .announce(&live, SPEC, Announce::Renew)
                .await
                .unwrap();
            for inspection in collector.inspect_all().await.unwrap() {
                let Inspection {
                    exchange,
                    listed,
                    outcome,
                    ..
                } = inspection;
                let observation = outcome.unwrap();
                let collected = collector.collect(&exchange, &listed, &observation, || {});
                if let Collected::Removed(segments) = collected.await.unwrap() {
                    assert_eq!((&exchange, segments), (&dead, 1));
                    removed = Some(exchange);
                }
            }
        }
        assert_eq!(removed, Some(dead));
        assert_eq!(storage.list_exchanges().await.unwrap(), [live]);
        assert!(!storage.status()[0].healthy, "segments find no space");
    }

    #[tokio::test(start_paused = true)]
    async fn an_exchange_renewed_after_it_was_listed_is_not_claimed() {
        let (exchanges, storage, runtime, _) = exchanges();
        let id: ExchangeId = "q".parse().unwrap();
        exchanges
            .announce(&id, SPEC, Announce::CreateOrRenew)
            .await
            .unwrap();
        let interval = Duration::from_secs(60);
        let own = Lease::OfExchange { otherwise: LEASE };
        let mut collector = Collector::new(storage.clone(), runtime, own, interval);
        let expired = loop {
            tokio::time::sleep(interval).await;
            let inspection = collector.inspect_all().await.unwrap().remove(0);
            let observation = inspection.outcome.unwrap();
            if observation.verdict == Verdict::Expired {
                break (inspection.listed, observation);
            }
        };
        exchanges
            .announce(&id, SPEC, Announce::Renew)
            .await
            .unwrap();
        let (listed, observation) = expired;
        let claimed = || panic!("it was renewed");
        let collected = collector.collect(&id, &listed, &observation, claimed).await;
        assert_eq!(collected.unwrap(), Collected::Retained);
        assert!(storage.has_marker(&id).await.unwrap());
    }
}
