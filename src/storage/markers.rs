//! Markers: the objects whose existence means that an exchange is open.
//!
//! Does: observe the markers of an exchange in all base directories, write and withdraw them. Does
//! not: end an exchange (`claim`) or decide when it ends (`gc`). Invariant: if a base directory
//! does not respond, the result is an error or a changed version, never one by which a live
//! exchange appears expired. A marker is written only if it is still what its writer observed: of a
//! concurrent renewal and claim one succeeds, however long either paused between its observation
//! and its write.
//!
//! An exchange is open while any base directory has a marker of it.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{join, join_all};
use futures::stream::{FuturesUnordered, StreamExt as _};

use super::base::BaseDirectory;
use super::base_set::BaseSet;
use super::error::{Result, StorageError};
use super::facade::Storage;
use super::failover::Targets;
use super::listing::ListedExchange;
use super::placement;
use super::stored_marker;
use crate::id::{BaseId, BaseName, ExchangeId};
use crate::store::keys::{self, Key};
use crate::store::{Precondition, Versioned, if_found};

/// The marker of an exchange, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// What was announced.
    pub bytes: Bytes,
    /// Changes with each write of the marker, and so with each renewal.
    pub version: String,
}

/// The markers of an exchange in all base directories, at one time.
#[derive(Debug, Clone)]
pub struct ObservedMarkers {
    /// In the order in which the exchange prefers the base directories.
    pub(super) markers: Vec<ObservedMarker>,
    /// Drawn for each observation.
    number: u64,
}

/// The marker in one base directory.
#[derive(Debug, Clone)]
pub(super) struct ObservedMarker {
    /// Of the base directory.
    pub index: usize,
    pub base: String,
    pub state: StoredMarker,
}

#[derive(Debug, Clone)]
pub(super) enum StoredMarker {
    Absent,
    Open {
        written: Bytes,
        version: String,
        entity_tag: String,
    },
    Tombstone {
        version: String,
        entity_tag: String,
    },
    /// The base directory did not respond.
    Unknown(StorageError),
}

impl StoredMarker {
    fn of(found: Versioned) -> Self {
        let Versioned {
            bytes,
            version,
            entity_tag,
        } = found;
        if stored_marker::is_tombstone(&bytes) {
            return Self::Tombstone {
                version,
                entity_tag,
            };
        }
        Self::Open {
            written: bytes,
            version,
            entity_tag,
        }
    }

    /// The precondition that the object is still what was observed.
    ///
    /// # Errors
    /// If nothing could be observed.
    pub(super) fn precondition(&self) -> Result<Precondition> {
        match self {
            Self::Absent => Ok(Precondition::Absent),
            Self::Open { version, .. } | Self::Tombstone { version, .. } => {
                Ok(Precondition::Version(version.clone()))
            }
            Self::Unknown(error) => Err(error.clone()),
        }
    }
}

/// A marker that was written before the base directories were observed.
#[derive(Debug)]
pub struct WrittenMarker {
    bytes: Bytes,
    base: BaseName,
}

impl ObservedMarkers {
    /// The marker; `None` if no base directory has one. The version covers all base directories;
    /// while one does not respond it is different in each observation, since that one may have been
    /// renewed.
    ///
    /// # Errors
    /// If no base directory has a marker and one that did not respond may have it.
    pub fn marker(&self) -> Result<Option<Marker>> {
        let (mut bytes, mut failure) = (None, None);
        let mut versions = Vec::new();
        for ObservedMarker { base, state, .. } in &self.markers {
            match state {
                StoredMarker::Absent => {}
                StoredMarker::Open {
                    written, version, ..
                } => {
                    bytes = bytes.or(Some(written));
                    versions.push(format!("{base}={version}"));
                }
                StoredMarker::Tombstone { version, .. } => {
                    versions.push(format!("{base}={version}"))
                }
                StoredMarker::Unknown(error) => {
                    failure = failure.or(Some(error));
                    versions.push(format!("{base}=?{:016x}", self.number));
                }
            }
        }
        match (bytes, failure) {
            (Some(written), _) => Ok(Some(Marker {
                bytes: stored_marker::content(written),
                version: versions.join(","),
            })),
            (None, Some(error)) => Err(error.clone()),
            (None, None) => Ok(None),
        }
    }

    /// Whether the exchange was claimed: there is a tombstone and no marker.
    pub fn is_claimed(&self) -> bool {
        matches!(self.marker(), Ok(None)) && self.has_tombstone()
    }

    /// Whether the markers are still what was listed. A base directory that did not respond counts
    /// as unchanged: the claim will fail for it. A marker that was listed and not observed counts
    /// as changed: a claim would not cover it.
    pub fn are_as_listed(&self, listed: &ListedExchange) -> bool {
        let is_observed = |index| self.markers.iter().any(|m| m.index == index);
        let same = self.markers.iter().all(|observed| {
            let listed = listed
                .markers
                .iter()
                .find(|listed| listed.index == observed.index);
            let listed = listed.map(|listed| &listed.entity_tag);
            match &observed.state {
                StoredMarker::Absent => listed.is_none(),
                StoredMarker::Open { entity_tag, .. }
                | StoredMarker::Tombstone { entity_tag, .. } => listed == Some(entity_tag),
                StoredMarker::Unknown(_) => true,
            }
        });
        same && listed.markers.iter().all(|m| is_observed(m.index))
    }

    /// The names of the base directories that have a marker.
    pub fn marker_bases(&self) -> impl Iterator<Item = &str> {
        let open = self
            .markers
            .iter()
            .filter(|observed| matches!(observed.state, StoredMarker::Open { .. }));
        open.map(|observed| observed.base.as_str())
    }

    /// The contents of the markers; usually there is one.
    pub fn contents(&self) -> impl Iterator<Item = Bytes> {
        self.markers
            .iter()
            .filter_map(|observed| match &observed.state {
                StoredMarker::Open { written, .. } => Some(stored_marker::content(written)),
                _ => None,
            })
    }

    pub(super) fn has_tombstone(&self) -> bool {
        let mut states = self.markers.iter().map(|observed| &observed.state);
        states.any(|state| matches!(state, StoredMarker::Tombstone { .. }))
    }
}

impl Storage {
    /// Reads the marker of an exchange in every member of its set.
    ///
    /// In every one, because a renewal goes to another member while the preferred base directory
    /// fails, which then still has the older marker.
    pub async fn observe_markers(&self, exchange: &ExchangeId) -> ObservedMarkers {
        let key = keys::marker(exchange);
        let BaseSet {
            members, lacking, ..
        } = self.set_of(exchange);
        let reads = members.into_iter();
        let reads = reads.map(|index| self.observe_in(index, key.clone()));
        let mut markers = join_all(reads).await;
        markers.extend(lacking.map(|id| ObservedMarker {
            // No base directory has it.
            index: self.inner.bases.len(),
            base: id.to_string(),
            state: StoredMarker::Unknown(self.lacking(exchange, id)),
        }));
        let number = self.inner.runtime.random.next_u64();
        ObservedMarkers { markers, number }
    }

    async fn observe_in(&self, index: usize, key: Key) -> ObservedMarker {
        let base = &self.inner.bases[index];
        let found = base.retrying_if_healthy().get_versioned(&key).await;
        base.observed_read(&found);
        let state = match if_found(found) {
            Ok(found) => found.map_or(StoredMarker::Absent, StoredMarker::of),
            Err(error) => StoredMarker::Unknown(base.error("get", key.as_str(), error)),
        };
        let base = base.name.to_string();
        ObservedMarker { index, base, state }
    }

    /// What was announced, from the first base directory that has the marker; the others are not
    /// waited for.
    ///
    /// # Errors
    /// If none was found and one that did not respond may have it.
    pub async fn find_marker(&self, exchange: &ExchangeId) -> Result<Option<Bytes>> {
        let (key, set) = (keys::marker(exchange), self.set_of(exchange));
        let mut failure = set.lacking.map(|id| self.lacking(exchange, id));
        let reads = set.members.into_iter();
        let mut reads: FuturesUnordered<_> = reads
            .map(|index| self.observe_in(index, key.clone()))
            .collect();
        while let Some(observed) = reads.next().await {
            match observed.state {
                StoredMarker::Open { written, .. } => {
                    return Ok(Some(stored_marker::content(&written)));
                }
                StoredMarker::Absent | StoredMarker::Tombstone { .. } => {}
                StoredMarker::Unknown(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(None), Err)
    }

    /// What was announced, if the base directory that the exchange prefers has the marker.
    ///
    /// # Errors
    /// If it did not respond.
    pub async fn find_preferred_marker(&self, exchange: &ExchangeId) -> Result<Option<Bytes>> {
        let Some(&index) = self.set_of(exchange).members.first() else {
            return Ok(None);
        };
        match self.observe_in(index, keys::marker(exchange)).await.state {
            StoredMarker::Open { written, .. } => Ok(Some(stored_marker::content(&written))),
            StoredMarker::Absent | StoredMarker::Tombstone { .. } => Ok(None),
            StoredMarker::Unknown(error) => Err(error),
        }
    }

    /// The marker of an exchange.
    ///
    /// # Errors
    /// Those of [`ObservedMarkers::marker`].
    pub async fn get_marker(&self, exchange: &ExchangeId) -> Result<Option<Marker>> {
        self.observe_markers(exchange).await.marker()
    }

    /// Whether an exchange has a marker; usually one request, to the preferred base directory. Only
    /// members of the set are read.
    ///
    /// # Errors
    /// If none was found and one that did not respond may have it.
    pub async fn has_marker(&self, exchange: &ExchangeId) -> Result<bool> {
        let key = keys::marker(exchange);
        let set = self.set_of(exchange);
        let mut failure = set.lacking.map(|id| self.lacking(exchange, id));
        for index in set.members {
            let base = &self.inner.bases[index];
            match if_found(base.retrying_if_healthy().get_versioned(&key).await) {
                Ok(Some(found)) if !stored_marker::is_tombstone(&found.bytes) => return Ok(true),
                Ok(_) => {}
                Err(error) => failure = failure.or(Some(base.error("get", key.as_str(), error))),
            }
        }
        failure.map_or(Ok(false), Err)
    }

    /// Writes the marker of an exchange, or renews it. `content` is one line without a line end. It
    /// goes to the first healthy base directory in the exchange's order of preference, of its set.
    /// Returns whether it was written: not if the marker is no longer what was observed, or is a
    /// tombstone.
    ///
    /// # Errors
    /// If no base directory accepted it.
    pub async fn put_marker(
        &self,
        exchange: &ExchangeId,
        content: &Bytes,
        observed: &ObservedMarkers,
    ) -> Result<bool> {
        let written = self.new_marker(content);
        // The set may have become known since all base directories were observed.
        let members = self.set_of(exchange).members;
        let inside = observed.markers.iter();
        let inside = inside.filter(|marker| members.contains(&marker.index));
        let observed = ObservedMarkers {
            markers: inside.cloned().collect(),
            number: observed.number,
        };
        let put = self.put_observed(exchange, &written, &observed).await?;
        Ok(put.is_some())
    }

    /// Writes the marker of an exchange that probably has none, and observes all base directories
    /// meanwhile instead of before, which saves a round trip. Returns what was observed besides,
    /// and what was written: the caller decides whether it may stay or [`Storage::withdraw_marker`]
    /// must remove it. `None` if there was a marker: then nothing was written. `number` is that of
    /// the announcement. It is written to a member of the set, while all base directories are
    /// observed.
    ///
    /// # Errors
    /// If no base directory accepted it.
    pub async fn create_marker(
        &self,
        exchange: &ExchangeId,
        content: &Bytes,
        number: u64,
        set: &[BaseId],
    ) -> Result<Option<(ObservedMarkers, WrittenMarker)>> {
        let members = self.indexes_of(set, &keys::marker(exchange))?;
        let bytes = stored_marker::marker(content, number);
        let absent = |index: usize| ObservedMarker {
            index,
            base: self.inner.bases[index].name.to_string(),
            state: StoredMarker::Absent,
        };
        let nothing = ObservedMarkers {
            markers: members.into_iter().map(absent).collect(),
            number: 0,
        };
        let put = self.put_observed(exchange, &bytes, &nothing);
        let (mut observed, put) = join(self.observe_markers(exchange), put).await;
        let Some(base) = put? else {
            return Ok(None);
        };
        for ObservedMarker { state, .. } in &mut observed.markers {
            if matches!(state, StoredMarker::Open { written, .. } if *written == bytes) {
                *state = StoredMarker::Absent;
            }
        }
        Ok(Some((observed, WrittenMarker { bytes, base })))
    }

    /// Writes the marker that an announcement describes, where there is none: always the same
    /// bytes, into the first of these base directories that accepts them, the healthy ones first.
    /// Returns whether the marker is stored; not if a different object has its key.
    ///
    /// # Errors
    /// If none of them accepted it, or this daemon has none of them.
    pub async fn place_marker(
        &self,
        exchange: &ExchangeId,
        content: &Bytes,
        number: u64,
        set: &[BaseId],
    ) -> Result<bool> {
        let (key, written) = (
            keys::marker(exchange),
            stored_marker::marker(content, number),
        );
        let indexes = self.indexes_of(set, &key)?;
        let order = |healthy: &[bool]| placement::healthy_first(indexes.clone(), healthy);
        let put = |base: Arc<BaseDirectory>| {
            let (key, written) = (key.clone(), written.clone());
            let index = self.index_of(&base);
            let (inner, exchange) = (Arc::clone(&self.inner), exchange.clone());
            async move {
                let new = Precondition::Absent;
                let put = base.store.put_if(&key, written.clone(), &new).await;
                if inner.uncertain.attempted(&exchange, index, &new, put)? {
                    return Ok(true);
                }
                // Put before, by a request without an answer or by another daemon.
                let found = if_found(base.store.get_versioned(&key).await)?;
                Ok(found.is_some_and(|found| found.bytes == written))
            }
            .boxed()
        };
        let (_, put) = self
            .put_anywhere(key.as_str(), self.targets(&indexes), order, put)
            .await?;
        Ok(put)
    }

    /// Removes what [`Storage::create_marker`] has written, unless it was renewed since. What
    /// cannot be removed now is left to the sweeper: nothing renews it.
    pub async fn withdraw_marker(&self, exchange: &ExchangeId, marker: WrittenMarker) {
        // A put that failed before another one succeeded may have been applied.
        let may_have_it = |index: &usize| {
            let base = &self.inner.bases[*index];
            base.name == marker.base || !base.is_healthy()
        };
        let indexes = self.preferred(exchange).into_iter().filter(may_have_it);
        let written = indexes.map(|index| (index, marker.bytes.clone())).collect();
        self.withdraw(&keys::marker(exchange), written).await;
    }

    /// Removes objects that were written too early, where they are still what was written.
    pub(super) async fn withdraw(&self, key: &Key, written: Vec<(usize, Bytes)>) {
        for (index, written) in written {
            let base = &self.inner.bases[index];
            let store = base.retrying_if_healthy();
            let removed = match if_found(store.get_versioned(key).await) {
                Ok(Some(found)) if found.bytes == written => {
                    store.delete_if(key, Some(&found.version)).await.map(drop)
                }
                other => other.map(drop),
            };
            if let Err(error) = removed {
                tracing::debug!(%error, base = %base.name, %key,
                    "cannot withdraw a marker or tombstone; leaving it to the sweeper");
            }
        }
    }

    /// A marker with this content, different from all that were ever written.
    fn new_marker(&self, content: &Bytes) -> Bytes {
        stored_marker::marker(content, self.inner.runtime.random.next_u64())
    }

    /// Puts a marker where the observation permits it; returns where it was put, if anywhere.
    async fn put_observed(
        &self,
        exchange: &ExchangeId,
        written: &Bytes,
        observed: &ObservedMarkers,
    ) -> Result<Option<BaseName>> {
        let key = keys::marker(exchange);
        let expected: Vec<(usize, Precondition)> =
            observed.markers.iter().filter_map(renewable).collect();
        let indexes: Vec<usize> = expected.iter().map(|(index, _)| *index).collect();
        if indexes.is_empty() {
            return Ok(None);
        }
        let order = |healthy: &[bool]| placement::healthy_first(indexes.clone(), healthy);
        let put = |base: Arc<BaseDirectory>| {
            let (key, written) = (key.clone(), written.clone());
            let index = self.index_of(&base);
            let expected = expected.iter().find(|(i, _)| Some(*i) == index);
            let expected = expected.map_or(Precondition::Absent, |(_, expected)| expected.clone());
            let (inner, exchange) = (Arc::clone(&self.inner), exchange.clone());
            async move {
                let put = base.store.put_if(&key, written, &expected).await;
                inner.uncertain.attempted(&exchange, index, &expected, put)
            }
            .boxed()
        };
        let (base, put) = self
            .put_anywhere(key.as_str(), self.targets(&indexes), order, put)
            .await?;
        Ok(put.then_some(base))
    }

    /// Where a marker may be put, if it may be put into these base directories only.
    fn targets(&self, indexes: &[usize]) -> Targets {
        let mut bases = indexes.iter().map(|index| &self.inner.bases[*index]);
        match bases.any(|base| base.is_active()) {
            true => Targets::Active,
            false => Targets::ActiveOrDraining,
        }
    }
}

/// The precondition under which a marker may be written in a base directory; `None` where it must
/// not be: over a tombstone, or where nothing could be observed.
fn renewable(observed: &ObservedMarker) -> Option<(usize, Precondition)> {
    match &observed.state {
        StoredMarker::Tombstone { .. } => None,
        state => Some((observed.index, state.precondition().ok()?)),
    }
}
