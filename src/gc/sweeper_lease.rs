//! Which daemon of the fleet sweeps: the one that holds the sweeper's lease.
//!
//! Does: read the digest of the sweeper; detect that the sweeper has stopped; write the digest of
//! this daemon in its place. Does not: sweep (`sweep`). Invariant: only this daemon's own clock is
//! used. The lease is free once the digest was unchanged in several polls for longer than its
//! writer needs; two daemons that both believe that they hold it do no harm, since each exchange is
//! removed by a claim.
//!
//! The digest is in the first base directory that can be written, in an order that is the same for
//! all daemons. A daemon reads them in that order until it finds a digest that changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::runtime::Runtime;
use crate::storage::{
    Digest, DigestExchanges, DigestPlace, Storage, StorageError, StorageFailure, StoreErrorKind,
    StoredDigest,
};
use crate::telemetry::metrics::Metrics;

/// The lease is free after this many intervals without a write by its holder: a sweep in which a
/// base directory does not answer takes two.
const FREE_AFTER: f64 = 2.5;

/// A holder with a longer interval than this many of one's own is not waited for.
const MAX_INTERVALS: u32 = 10;

/// One daemon's view of the sweeper's lease.
pub(super) struct SweeperLease {
    runtime: Runtime,
    storage: Storage,
    metrics: Arc<Metrics>,
    /// Names this daemon in a digest.
    me: u64,
    interval: Duration,
    /// Where this daemon has written a digest last.
    written: Option<DigestPlace>,
    watched: BTreeMap<DigestPlace, PolledDigest>,
    /// What was refused, so that it is reported once.
    refused: BTreeSet<(DigestPlace, String)>,
}

/// A digest that is read again and again.
struct PolledDigest {
    version: String,
    /// The time between the polls that showed this version.
    unchanged: Duration,
    last: Instant,
}

/// What a poll of the places showed.
#[derive(Debug, Default)]
pub(super) struct Polled {
    /// The digest of the daemon that sweeps, and where it is.
    current: Option<(DigestPlace, StoredDigest, Digest)>,
    /// Whether that is this daemon.
    pub mine: bool,
    /// The places before that one, or all: none of them has a digest that changes.
    free: Vec<(DigestPlace, Option<StoredDigest>)>,
}

impl Polled {
    /// The digest of the daemon that sweeps.
    pub(super) fn digest(&self) -> Option<&Digest> {
        self.current.as_ref().map(|(.., digest)| digest)
    }

    /// What was observed by daemons that swept before.
    pub(super) fn left_behind(&self) -> impl Iterator<Item = &Digest> {
        let free = self.free.iter().filter_map(|(_, stored)| stored.as_ref());
        free.filter_map(|stored| stored.digest.as_ref().ok())
    }
}

/// What became of a digest that was to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Published {
    Yes,
    /// Another daemon has written one: this one holds the lease no more.
    Lost,
    /// No base directory accepts it.
    Nowhere,
}

impl SweeperLease {
    /// The caller polls every `interval`.
    pub(super) fn new(
        runtime: Runtime,
        storage: Storage,
        metrics: Arc<Metrics>,
        interval: Duration,
    ) -> Self {
        Self {
            me: runtime.random.next_u64(),
            runtime,
            storage,
            metrics,
            interval,
            written: None,
            watched: BTreeMap::new(),
            refused: BTreeSet::new(),
        }
    }

    /// Reads the digest: one request while a daemon sweeps and the first base directory works.
    pub(super) async fn poll(&mut self) -> Polled {
        let mut polled = Polled::default();
        for place in self.storage.digest_places() {
            match self.storage.read_digest(place).await {
                Ok(Some(stored)) => match stored.digest.clone() {
                    Ok(digest) => {
                        polled.mine = digest.holder == Some(self.me);
                        if polled.mine || !self.is_free(place, &stored, &digest) {
                            polled.current = Some((place, stored, digest));
                            return polled;
                        }
                        polled.free.push((place, Some(stored)));
                    }
                    Err(error) => {
                        self.refuse(place, &error.to_string());
                        let unchanged = self.is_free(place, &stored, &Digest::default());
                        // A foreign object is left alone, and another base directory is used.
                        if unchanged && !error.is_foreign() {
                            polled.free.push((place, Some(stored)));
                        }
                    }
                },
                Ok(None) => polled.free.push((place, None)),
                Err(error) => self.unreadable(place, &error),
            }
        }
        polled
    }

    /// Whether the writer of a digest holds the lease no more.
    fn is_free(&mut self, place: DigestPlace, stored: &StoredDigest, digest: &Digest) -> bool {
        let (now, interval) = (self.runtime.clock.now(), self.interval);
        let known = self.watched.get_mut(&place);
        let Some(watched) = known.filter(|watched| watched.version == stored.version) else {
            let watched = PolledDigest {
                version: stored.version.clone(),
                unchanged: Duration::ZERO,
                last: now,
            };
            self.watched.insert(place, watched);
            return digest.holder.is_none() && stored.digest.is_ok();
        };
        // A daemon that was stopped for a while has not watched meanwhile.
        let gap = now.saturating_duration_since(watched.last);
        watched.unchanged += gap.min(interval + interval / 4);
        watched.last = now;
        let theirs = digest.interval.min(interval * MAX_INTERVALS);
        let long = interval.max(theirs).mul_f64(FREE_AFTER);
        watched.unchanged >= long || (digest.holder.is_none() && stored.digest.is_ok())
    }

    fn unreadable(&mut self, place: DigestPlace, error: &StorageError) {
        match &error.source {
            StorageFailure::Store(source) if source.kind == StoreErrorKind::Corrupt => {
                self.refuse(place, &error.to_string());
            }
            _ => tracing::debug!(%error, "cannot read the digest of the sweeper"),
        }
    }

    fn refuse(&mut self, place: DigestPlace, why: &str) {
        self.metrics.digests_refused.inc();
        if self.refused.insert((place, why.to_owned())) {
            tracing::warn!(base = %self.storage.name_of(place), why,
                "the digest of the sweeper (v2/sweeper) is refused; if no daemon replaces it, \
                 remove it");
        }
    }

    /// Writes the digest of this daemon: to a free place, over its own, or to a later place. After
    /// a success the version that was polled is outdated.
    pub(super) async fn publish(
        &mut self,
        polled: &Polled,
        exchanges: &DigestExchanges,
        sweeps: bool,
    ) -> Published {
        let digest = Digest {
            holder: sweeps.then_some(self.me),
            number: 0,
            interval: self.interval,
            members: self.storage.members().map_or(0, |list| list.generation),
            exchanges: exchanges.clone(),
        };
        let mine = polled.current.as_ref().filter(|_| polled.mine);
        let mine = mine.map(|(place, stored, _)| (*place, Some(stored)));
        let free = polled.free.iter();
        let free = free.map(|(place, stored)| (*place, stored.as_ref()));
        for (place, read) in free.chain(mine) {
            match self.storage.write_digest(place, &digest, read).await {
                Ok(true) => {
                    self.written_to(place).await;
                    return Published::Yes;
                }
                Ok(false) => return Published::Lost,
                Err(error) => tracing::debug!(%error, "cannot write the digest of the sweeper"),
            }
        }
        if let Some((mine, _)) = mine {
            let places = self.storage.digest_places().into_iter();
            for place in places.skip_while(|place| *place != mine).skip(1) {
                if self.publish_unpolled(place, &digest).await {
                    self.written_to(place).await;
                    return Published::Yes;
                }
            }
        }
        Published::Nowhere
    }

    /// Writes it to a place that other daemons read only if they find no digest in an earlier one.
    async fn publish_unpolled(&self, place: DigestPlace, digest: &Digest) -> bool {
        let written = async {
            let found = self.storage.read_digest(place).await?;
            let others = found.as_ref().map(|stored| &stored.digest);
            if matches!(others, Some(Err(error)) if error.is_foreign()) {
                return Ok(false);
            }
            let written = self.storage.write_digest(place, digest, found.as_ref());
            written.await
        };
        written.await.unwrap_or_else(|error: StorageError| {
            tracing::debug!(%error, "cannot write the digest here either");
            false
        })
    }

    /// Removes the digest of this daemon from where it was before.
    async fn written_to(&mut self, place: DigestPlace) {
        let Some(before) = self
            .written
            .replace(place)
            .filter(|before| *before != place)
        else {
            return;
        };
        let removed = async {
            if let Some(stored) = self.storage.read_digest(before).await?
                && let Ok(digest) = &stored.digest
                && digest.holder == Some(self.me)
            {
                self.storage.remove_digest(before, &stored).await?;
            }
            Ok::<_, StorageError>(())
        };
        if let Err(error) = removed.await {
            tracing::debug!(%error, "cannot remove an outdated digest");
        }
    }
}
