//! Exchanges from announcement to close, leases, collection, and the daemon's own end.
//!
//! Does: keep the announcements in the base directories, remember lately closed exchanges, collect
//! what nobody renews. Does not: know segments. Invariant: an exchange that this daemon knows as
//! closed is never open again at it, whatever arrives late.

mod announcement;

use std::collections::{BTreeSet, HashSet};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use lru::LruCache;
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use crate::config::LeaseConfig;
use crate::id::ExchangeId;
use crate::runtime::Runtime;
use crate::storage::{Marker, ObservedMarkers, Storage, StorageError, StoreError, StoreErrorKind};
use crate::telemetry::metrics::Metrics;

/// What is announced of an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExchangeSpec {
    /// Output partitions.
    pub partitions: u32,
    /// Whether pages of a partition keep the order of their sink.
    pub ordered: bool,
}

/// Why an exchange cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ExchangeError {
    /// Never announced, as far as can be known.
    #[error("exchange {0} is not known: announce it with PUT, or it was closed before")]
    NotFound(ExchangeId),
    /// Closed.
    #[error("exchange {0} is closed")]
    Closed(ExchangeId),
    /// Announced before with other properties.
    #[error(
        "exchange {exchange} was announced with {} partitions, ordered={}; now {} partitions, \
         ordered={} are asked for: use another id",
        before.partitions, before.ordered, now.partitions, now.ordered
    )]
    Conflict {
        /// Which.
        exchange: ExchangeId,
        /// What it is.
        before: ExchangeSpec,
        /// What was asked.
        now: ExchangeSpec,
    },
    /// Others announce it all the time.
    #[error("exchange {0} is being announced by others again and again: try again")]
    Contended(ExchangeId),
    /// A bound was reached.
    #[error("{partitions} partitions are more than limits.max_partitions, {limit}")]
    TooManyPartitions {
        /// What was asked.
        partitions: u32,
        /// The bound.
        limit: u32,
    },
    /// An exchange of no partitions.
    #[error("an exchange has at least one partition")]
    NoPartitions,
    /// A marker that cannot be read.
    #[error("the announcement of exchange {exchange} cannot be read: {reason}")]
    Unreadable {
        /// Which.
        exchange: ExchangeId,
        /// Why.
        reason: String,
    },
    /// The store did not answer.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// What an announcement is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announce {
    /// It may be new.
    Either,
    /// It must be open: what has ended is not brought back.
    Renewal,
}

/// What there was of an exchange before it was announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    /// The same announcement.
    Same,
}

/// Answer to an announcement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// Whether it is new.
    pub created: bool,
    /// Its lease, in seconds.
    pub lease_seconds: u64,
}

/// What lifecycle needs of the rest of the daemon.
#[derive(Clone)]
pub struct ExchangesDeps {
    /// Time and background work.
    pub runtime: Runtime,
    /// Where announcements lie.
    pub storage: Storage,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// Asks the shared state whether an exchange is open.
#[async_trait::async_trait]
pub trait Gate: Send + Sync {
    /// `Ok(false)` only if it is certainly closed.
    async fn is_open(&self, exchange: &ExchangeId) -> Result<bool, StorageError>;

    /// Whether this daemon itself has closed it or seen it closed; asks nobody.
    fn is_known_closed(&self, exchange: &ExchangeId) -> bool;
}

/// Drops what a part of the daemon holds of a closed exchange.
pub trait Forget: Send + Sync {
    /// The exchanges of which it keeps copies, be they closed or not.
    fn kept(&self) -> HashSet<ExchangeId>;

    /// Forgets it.
    fn forget(&self, exchange: &ExchangeId);
}

/// The exchanges that the daemons share. Cheap to clone.
#[derive(Clone)]
pub struct Exchanges {
    shared: Arc<Shared>,
}

struct Shared {
    parts: ExchangesDeps,
    lease: LeaseConfig,
    max_partitions: u32,
    known: Mutex<LruCache<ExchangeId, Known>>,
    forgetters: RwLock<Vec<Arc<dyn Forget>>>,
    draining: AtomicBool,
}

#[derive(Debug, Clone)]
enum Known {
    Open { spec: ExchangeSpec, seen: Instant },
    Closed,
}

impl Exchanges {
    /// Exchanges as the base directories know them.
    pub fn new(parts: ExchangesDeps, lease: &LeaseConfig, max_partitions: u32) -> Self {
        let kept = NonZeroUsize::new(KNOWN_EXCHANGES).expect("not zero");
        let shared = Shared {
            parts,
            lease: lease.clone(),
            max_partitions,
            known: Mutex::new(LruCache::new(kept)),
            forgetters: RwLock::default(),
            draining: AtomicBool::new(false),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// What the writing side asks. It does not keep these exchanges: they keep, through
    /// [`Forget`], the writing side, and a daemon that is dropped must go.
    pub fn gate(&self) -> Arc<dyn Gate> {
        Arc::new(Door(Arc::downgrade(&self.shared)))
    }

    /// What it was built from.
    pub(crate) fn parts(&self) -> &ExchangesDeps {
        &self.shared.parts
    }

    /// The lease that this daemon grants.
    pub(crate) fn lease(&self) -> &LeaseConfig {
        &self.shared.lease
    }

    /// Registers a part of the daemon that holds something of exchanges.
    pub fn add_forgetter(&self, forgetter: Arc<dyn Forget>) {
        self.shared.forgetters.write().push(forgetter);
    }

    /// Announces an exchange or renews its lease.
    ///
    /// # Errors
    /// A closed exchange, other properties than before, a bound, or the store.
    pub async fn announce(
        &self,
        exchange: &ExchangeId,
        spec: ExchangeSpec,
        which: Announce,
    ) -> Result<Announced, ExchangeError> {
        let limit = self.shared.max_partitions;
        if spec.partitions == 0 {
            return Err(ExchangeError::NoPartitions);
        }
        if spec.partitions > limit {
            return Err(ExchangeError::TooManyPartitions {
                partitions: spec.partitions,
                limit,
            });
        }
        for _ in 0..ANNOUNCEMENTS {
            if let Some(announced) = self.try_announce(exchange, &spec, which).await? {
                return Ok(announced);
            }
        }
        Err(ExchangeError::Contended(exchange.clone()))
    }

    /// `None` if the announcement was written by somebody else meanwhile.
    async fn try_announce(
        &self,
        exchange: &ExchangeId,
        spec: &ExchangeSpec,
        which: Announce,
    ) -> Result<Option<Announced>, ExchangeError> {
        let storage = &self.shared.parts.storage;
        let known = self.shared.known.lock().get(exchange).cloned();
        if matches!(known, Some(Known::Closed)) {
            return Err(ExchangeError::Closed(exchange.clone()));
        }
        let content = announcement::encode(exchange, spec).into();
        let first = match known.is_none() && which == Announce::Either {
            true => self.announce_first(exchange, spec, &content).await?,
            false => None,
        };
        let before = match first {
            Some(before) => before,
            None => {
                let seen = storage.observe_markers(exchange).await;
                let known = known.is_some();
                let before = self.may_announce(exchange, spec, which, known, &seen)?;
                if !storage.put_marker(exchange, &content, &seen).await? {
                    return Ok(None);
                }
                before
            }
        };
        if !self.remember_open(exchange, spec.clone()) {
            // Closed while the marker was being written: it must not stay.
            storage.remove_exchange(exchange).await?;
            return Err(ExchangeError::Closed(exchange.clone()));
        }
        let lease_seconds = self.shared.lease.duration.as_secs();
        Ok(Some(Announced {
            created: before == Before::Nothing,
            lease_seconds,
        }))
    }

    /// Announces what is most likely new, in one round trip; `None` if it is not new.
    async fn announce_first(
        &self,
        exchange: &ExchangeId,
        spec: &ExchangeSpec,
        content: &Bytes,
    ) -> Result<Option<Before>, ExchangeError> {
        let storage = &self.shared.parts.storage;
        let Some((besides, written)) = storage.create_marker(exchange, content).await? else {
            return Ok(None);
        };
        let before = self.may_announce(exchange, spec, Announce::Either, false, &besides);
        // Where a base directory could not be asked it stays, as after any put whose answer was
        // lost: the client asks again, perhaps elsewhere, and may have been heard by now.
        let refused = |error: &ExchangeError| !matches!(error, ExchangeError::Storage(_));
        if before.as_ref().is_err_and(refused) {
            storage.withdraw_marker(exchange, written).await;
        }
        before.map(Some)
    }

    /// Whether what was seen of an exchange allows to announce it so; `known`: whether this daemon
    /// knew it before anybody looked.
    fn may_announce(
        &self,
        exchange: &ExchangeId,
        spec: &ExchangeSpec,
        which: Announce,
        known: bool,
        seen: &ObservedMarkers,
    ) -> Result<Before, ExchangeError> {
        if let Some(before) = seen.marker()? {
            self.check_same(exchange, &before, spec)?;
            return Ok(Before::Same);
        }
        // Closed or collected through another daemon: announcing it again must not bring back an
        // empty one.
        if known || seen.is_claimed() {
            self.forget(exchange);
            return Err(ExchangeError::Closed(exchange.clone()));
        }
        match which {
            Announce::Renewal => Err(ExchangeError::NotFound(exchange.clone())),
            Announce::Either => Ok(Before::Nothing),
        }
    }

    fn check_same(
        &self,
        exchange: &ExchangeId,
        before: &Marker,
        now: &ExchangeSpec,
    ) -> Result<(), ExchangeError> {
        let before = parse(exchange, before)?;
        if before == *now {
            return Ok(());
        }
        let (exchange, now) = (exchange.clone(), now.clone());
        Err(ExchangeError::Conflict {
            exchange,
            before,
            now,
        })
    }

    /// What an open exchange is; asks the store when this daemon has not seen it lately.
    ///
    /// # Errors
    /// An exchange that is not open, or the store.
    pub async fn lookup(&self, exchange: &ExchangeId) -> Result<ExchangeSpec, ExchangeError> {
        let known = self.shared.known.lock().get(exchange).cloned();
        let now = self.shared.parts.runtime.clock.now();
        match &known {
            Some(Known::Open { spec, seen }) if now.duration_since(*seen) < TRUSTED => {
                Ok(spec.clone())
            }
            _ => self.lookup_now(exchange).await,
        }
    }

    /// The same, but always asks the store: for answers in which an exchange that another daemon
    /// has closed would look like an empty one.
    ///
    /// # Errors
    /// An exchange that is not open, or the store.
    pub async fn lookup_now(&self, exchange: &ExchangeId) -> Result<ExchangeSpec, ExchangeError> {
        let known = self.shared.known.lock().get(exchange).cloned();
        if matches!(known, Some(Known::Closed)) {
            return Err(ExchangeError::Closed(exchange.clone()));
        }
        match self.stored(exchange).await? {
            Some(spec) if self.remember_open(exchange, spec.clone()) => Ok(spec),
            Some(_) => Err(ExchangeError::Closed(exchange.clone())),
            None if known.is_some() => {
                self.forget(exchange);
                Err(ExchangeError::Closed(exchange.clone()))
            }
            None => Err(ExchangeError::NotFound(exchange.clone())),
        }
    }

    /// Removes an exchange everywhere; `Ok` also when there was nothing.
    ///
    /// # Errors
    /// The store: what is left goes at the next call, or by the sweeper.
    pub async fn close(&self, exchange: &ExchangeId) -> Result<(), ExchangeError> {
        self.forget(exchange);
        let removed = self.shared.parts.storage.remove_exchange(exchange).await?;
        if removed > 0 {
            self.shared.parts.metrics.exchanges_closed.inc();
        }
        Ok(())
    }

    /// Takes note that an exchange is closed and drops all that this daemon holds of it.
    pub(crate) fn forget(&self, exchange: &ExchangeId) {
        self.shared
            .known
            .lock()
            .put(exchange.clone(), Known::Closed);
        let forgetters = self.shared.forgetters.read().clone();
        forgetters
            .iter()
            .for_each(|forgetter| forgetter.forget(exchange));
    }

    /// The exchanges of which any part of this daemon keeps copies; sorted, so that they are gone
    /// through in the same order on every run.
    pub(crate) fn kept(&self) -> BTreeSet<ExchangeId> {
        let forgetters = self.shared.forgetters.read().clone();
        forgetters.iter().flat_map(|keeper| keeper.kept()).collect()
    }

    /// All exchanges that left anything, with what they are where that can be read.
    ///
    /// # Errors
    /// The store.
    pub async fn list(&self) -> Result<Vec<(ExchangeId, Option<ExchangeSpec>)>, ExchangeError> {
        let ids = self.shared.parts.storage.list_exchanges().await?;
        let markers = ids.into_iter().map(|id| {
            let exchanges = self.clone();
            async move {
                match exchanges.stored(&id).await {
                    Ok(spec) => Ok((id, spec)),
                    Err(ExchangeError::Unreadable { .. }) => Ok((id, None)),
                    Err(error) => Err(error),
                }
            }
        });
        stream::iter(markers)
            .buffered(MARKER_CONCURRENCY)
            .try_collect()
            .await
    }

    /// Whether the daemon is stopping.
    pub fn draining(&self) -> bool {
        self.shared.draining.load(Ordering::Acquire)
    }

    /// The daemon is stopping from now on.
    pub fn drain(&self) {
        self.shared.draining.store(true, Ordering::Release);
    }

    async fn stored(&self, exchange: &ExchangeId) -> Result<Option<ExchangeSpec>, ExchangeError> {
        let Some(marker) = self.shared.parts.storage.get_marker(exchange).await? else {
            return Ok(None);
        };
        parse(exchange, &marker).map(Some)
    }

    /// `false` if it was closed meanwhile.
    fn remember_open(&self, exchange: &ExchangeId, spec: ExchangeSpec) -> bool {
        let mut known = self.shared.known.lock();
        if matches!(known.get(exchange), Some(Known::Closed)) {
            return false;
        }
        let seen = self.shared.parts.runtime.clock.now();
        known.put(exchange.clone(), Known::Open { spec, seen });
        true
    }
}

fn parse(exchange: &ExchangeId, marker: &Marker) -> Result<ExchangeSpec, ExchangeError> {
    announcement::decode(exchange, &marker.bytes).map_err(|reason| ExchangeError::Unreadable {
        exchange: exchange.clone(),
        reason,
    })
}

#[async_trait::async_trait]
impl Gate for Exchanges {
    async fn is_open(&self, exchange: &ExchangeId) -> Result<bool, StorageError> {
        if self.is_known_closed(exchange) {
            return Ok(false);
        }
        let open = self.shared.parts.storage.has_marker(exchange).await?;
        if !open {
            self.forget(exchange);
        }
        Ok(open)
    }

    fn is_known_closed(&self, exchange: &ExchangeId) -> bool {
        matches!(self.shared.known.lock().get(exchange), Some(Known::Closed))
    }
}

/// The exchanges as [`Exchanges::gate`] lends them.
struct Door(Weak<Shared>);

#[async_trait::async_trait]
impl Gate for Door {
    async fn is_open(&self, exchange: &ExchangeId) -> Result<bool, StorageError> {
        let Some(shared) = self.0.upgrade() else {
            return Err(StorageError {
                base: "all".into(),
                operation: "get",
                object: format!("the announcement of exchange {exchange}"),
                source: StoreError::new(StoreErrorKind::Unavailable, "the daemon has ended").into(),
            });
        };
        Exchanges { shared }.is_open(exchange).await
    }

    fn is_known_closed(&self, exchange: &ExchangeId) -> bool {
        self.0
            .upgrade()
            .is_some_and(|shared| Exchanges { shared }.is_known_closed(exchange))
    }
}

/// Exchanges remembered, open and closed, so that a late writer is told 410 and not 404.
const KNOWN_EXCHANGES: usize = 100_000;
/// How often an announcement is begun again that another one came before: clients announce an
/// exchange one call after another, so that even a second is rare.
const ANNOUNCEMENTS: u32 = 8;
/// For how long an open exchange is believed to be open without asking. Each uploaded segment asks.
const TRUSTED: Duration = Duration::from_secs(30);
/// Announcements read at a time.
const MARKER_CONCURRENCY: usize = 16;
