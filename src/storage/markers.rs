//! ObservedMarkers: what says that an exchange is open, and the claim that ends it.
//!
//! Does: write and read markers, and turn them into tombstones. Does not: decide when an exchange
//! ends (`lifecycle`). Invariant: what cannot be known because a base directory cannot be asked is
//! an error or a changed version, never an answer that would let a live exchange be taken for a
//! dead one; and a marker is written, or made a tombstone, only if it still is what its writer saw,
//! so that of a renewal and a claim that race one succeeds, however long either was stopped between
//! its look and its write.
//!
//! A marker is two lines: what its owner says, and a number that no other writing has. A tombstone
//! is one line. An exchange is open as long as any base directory has a marker of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{join, join_all};

use super::health::Base;
use super::{Marker, Storage, StorageError, StoreErrorKind, placement};
use crate::id::{BaseName, ExchangeId};
use crate::runtime::Runtime;
use crate::store::keys::{self, Key};
use crate::store::{DeleteOutcome, Precondition, Versioned};

/// How a tombstone begins; no marker's content does.
const ENDED: &[u8] = b"{\"ended\":";

/// How often a late writer tries to end an exchange that others end at the same time.
const CLAIM_TRIES: u32 = 5;

/// After its first failure it comes back within this, after the n-th within n times as long.
const CLAIM_SPREAD: Duration = Duration::from_millis(200);

/// What was seen of an exchange in each base directory.
#[derive(Debug, Clone)]
pub struct ObservedMarkers {
    /// By base directory, in the order in which the exchange prefers them.
    seen: Vec<Seen>,
    /// Drawn for each look.
    number: u64,
}

#[derive(Debug, Clone)]
struct Seen {
    index: usize,
    base: String,
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    Absent,
    Open { written: Bytes, version: String },
    Ended { version: String },
    Unknown(StorageError),
}

impl State {
    fn of(found: Versioned) -> Self {
        let Versioned { bytes, version } = found;
        if bytes.starts_with(ENDED) {
            return Self::Ended { version };
        }
        Self::Open {
            written: bytes,
            version,
        }
    }
}

/// What the owner says in a marker: its first line.
fn content(written: &Bytes) -> Bytes {
    let end = written.iter().position(|byte| *byte == b'\n');
    written.slice(..end.unwrap_or(written.len()))
}

/// A marker that was written before anybody had looked.
#[derive(Debug)]
pub struct WrittenMarker {
    bytes: Bytes,
    base: BaseName,
}

impl ObservedMarkers {
    /// The marker; `None` if no base directory has one. An error if one that might have it cannot
    /// be asked and none of the others has it. The version speaks for all; while one cannot be
    /// asked it is different at each look, for a renewal may lie just there.
    pub fn marker(&self) -> Result<Option<Marker>, StorageError> {
        let (mut bytes, mut failure) = (None, None);
        let mut versions = Vec::new();
        for seen in &self.seen {
            match &seen.state {
                State::Absent => {}
                State::Open { written, version } => {
                    bytes = bytes.or(Some(written));
                    versions.push(format!("{}={version}", seen.base));
                }
                State::Ended { version } => versions.push(format!("{}={version}", seen.base)),
                State::Unknown(error) => {
                    failure = failure.or(Some(error));
                    versions.push(format!("{}=?{:016x}", seen.base, self.number));
                }
            }
        }
        match (bytes, failure) {
            (Some(written), _) => Ok(Some(Marker {
                bytes: content(written),
                version: versions.join(","),
            })),
            (None, Some(error)) => Err(error.clone()),
            (None, None) => Ok(None),
        }
    }

    /// Whether its end was claimed: there is a tombstone and no marker.
    pub fn is_claimed(&self) -> bool {
        let ended = |seen: &Seen| matches!(seen.state, State::Ended { .. });
        matches!(self.marker(), Ok(None)) && self.seen.iter().any(ended)
    }
}

impl Storage {
    /// Asks every base directory what it has of an exchange's marker.
    ///
    /// All are asked: while the home was out of order a renewal went elsewhere, and the old marker
    /// is still at home.
    pub async fn observe_markers(&self, exchange: &ExchangeId) -> ObservedMarkers {
        let key = keys::marker(exchange);
        let asked = self.homes(exchange).into_iter().map(|index| {
            let (base, key) = (Arc::clone(&self.inner.bases[index]), key.clone());
            async move {
                let state = match base.patient_if_healthy().get_versioned(&key).await {
                    Ok(found) => State::of(found),
                    Err(error) if error.kind == StoreErrorKind::NotFound => State::Absent,
                    Err(error) => State::Unknown(base.error("get", key.as_str(), error)),
                };
                let base = base.name.to_string();
                Seen { index, base, state }
            }
        });
        let seen = join_all(asked).await;
        let number = self.inner.runtime.random.next_u64();
        ObservedMarkers { seen, number }
    }

    /// The marker of an exchange, see [`ObservedMarkers::marker`].
    pub async fn get_marker(&self, exchange: &ExchangeId) -> Result<Option<Marker>, StorageError> {
        self.observe_markers(exchange).await.marker()
    }

    /// Whether an exchange has a marker: usually one request, to its home. An error if none was
    /// found and one that might have it cannot be asked.
    pub async fn has_marker(&self, exchange: &ExchangeId) -> Result<bool, StorageError> {
        let key = keys::marker(exchange);
        let mut failure = None;
        for index in self.homes(exchange) {
            let base = &self.inner.bases[index];
            match base.store.get_versioned(&key).await {
                Ok(found) if matches!(State::of(found.clone()), State::Open { .. }) => {
                    return Ok(true);
                }
                Ok(_) => {}
                Err(error) if error.kind == StoreErrorKind::NotFound => {}
                Err(error) => failure = failure.or(Some(base.error("get", key.as_str(), error))),
            }
        }
        failure.map_or(Ok(false), Err)
    }

    /// Writes (or writes again) the marker of an exchange, a line without a line end, to its home:
    /// the first base directory that works in an order that depends on the exchange id alone.
    /// `false` if it is not any more what `seen` says, or if its end was claimed: then nothing was
    /// written.
    pub async fn put_marker(
        &self,
        exchange: &ExchangeId,
        content: &Bytes,
        seen: &ObservedMarkers,
    ) -> Result<bool, StorageError> {
        let written = self.written(content);
        let put = self.put_written(exchange, &written, seen).await?;
        Ok(put.is_some())
    }

    /// The same for an exchange of which nothing is known, which hardly ever has a marker: writes
    /// one where it has none, and looks at all base directories meanwhile instead of before, which
    /// saves a round trip. Answers what there is besides, and what was written, for
    /// [`Storage::withdraw_marker`]: it is for the caller to say whether it may stay. `None` if
    /// there was something: then nothing was written.
    pub async fn create_marker(
        &self,
        exchange: &ExchangeId,
        content: &Bytes,
    ) -> Result<Option<(ObservedMarkers, WrittenMarker)>, StorageError> {
        let written = self.written(content);
        let absent = |index: usize| Seen {
            index,
            base: self.inner.bases[index].name.to_string(),
            state: State::Absent,
        };
        let nothing = ObservedMarkers {
            seen: self.homes(exchange).into_iter().map(absent).collect(),
            number: 0,
        };
        let put = self.put_written(exchange, &written, &nothing);
        let (mut found, put) = join(self.observe_markers(exchange), put).await;
        let Some(base) = put? else {
            return Ok(None);
        };
        for Seen { state, .. } in &mut found.seen {
            if matches!(state, State::Open { written: found, .. } if *found == written) {
                *state = State::Absent;
            }
        }
        let bytes = written;
        Ok(Some((found, WrittenMarker { bytes, base })))
    }

    /// Takes back what [`Storage::create_marker`] has written. What cannot be taken back stays
    /// for the sweeper: it announces an exchange that nobody renews.
    pub async fn withdraw_marker(&self, exchange: &ExchangeId, marker: WrittenMarker) {
        let WrittenMarker { bytes, base: taken } = marker;
        let homes = self.homes(exchange).into_iter();
        // A put that failed before another one succeeded may have taken place.
        let touched = homes.filter(|index| {
            let base = &self.inner.bases[*index];
            base.name == taken || !base.is_healthy()
        });
        let touched = touched.map(|index| (index, bytes.clone())).collect();
        self.take_back(&keys::marker(exchange), touched).await;
    }

    /// A marker with this content, unlike any that was ever written.
    fn written(&self, content: &Bytes) -> Bytes {
        let number = self.inner.runtime.random.next_u64();
        let written = format!("\n{{\"written\":\"{number:016x}\"}}\n");
        [content, written.as_bytes()].concat().into()
    }

    /// Where it was put, if anywhere.
    async fn put_written(
        &self,
        exchange: &ExchangeId,
        written: &Bytes,
        seen: &ObservedMarkers,
    ) -> Result<Option<BaseName>, StorageError> {
        let key = keys::marker(exchange);
        // A tombstone is never overwritten, and where nobody could look nothing can be expected.
        let expected: Vec<(usize, Precondition)> =
            seen.seen.iter().filter_map(expectation).collect();
        let homes: Vec<usize> = expected.iter().map(|(index, _)| *index).collect();
        if homes.is_empty() {
            return Ok(None);
        }
        let order = |healthy: &[bool]| placement::healthy_first(homes.clone(), healthy);
        let put = |base: Arc<Base>| {
            let (key, written) = (key.clone(), written.clone());
            let index = self.inner.bases.iter().position(|b| Arc::ptr_eq(b, &base));
            let expected = expected.iter().find(|(i, _)| Some(*i) == index);
            let expected = expected.map_or(Precondition::Absent, |(_, expected)| expected.clone());
            async move { base.store.put_if(&key, written, &expected).await }.boxed()
        };
        let (base, put) = self.put_anywhere(key.as_str(), order, put).await?;
        Ok(put.then_some(base))
    }

    /// Claims the end of an exchange: puts a tombstone into every base directory, if it still is
    /// what `seen` says in all of them; `false` if it is not, because somebody renewed it or claims
    /// it, too. A claim that is interrupted changes nothing while a marker is left anywhere; one
    /// that fails takes back the tombstones that it put where there was nothing.
    pub async fn claim(
        &self,
        exchange: &ExchangeId,
        seen: &ObservedMarkers,
    ) -> Result<bool, StorageError> {
        let key = keys::marker(exchange);
        let mut steps = Vec::with_capacity(seen.seen.len());
        for Seen { index, state, .. } in &seen.seen {
            let expected = match state {
                State::Absent => Precondition::Absent,
                State::Open { version, .. } | State::Ended { version } => {
                    Precondition::Version(version.clone())
                }
                State::Unknown(error) => return Err(error.clone()),
            };
            steps.push((matches!(state, State::Open { .. }), *index, expected));
        }
        // Where a marker lies, last: a claim that stops before it has not ended anything.
        steps.sort_by_key(|(open, ..)| *open);
        let mut fresh = Vec::new();
        for (_, index, expected) in steps {
            let base = &self.inner.bases[index];
            let number = self.inner.runtime.random.next_u64();
            let tombstone = Bytes::from(format!("{{\"ended\":\"{number:016x}\"}}\n"));
            if expected == Precondition::Absent {
                // Noted before the put: one that fails may have taken place.
                fresh.push((index, tombstone.clone()));
            }
            let claimed = base.store.put_if(&key, tombstone, &expected).await;
            let claimed = claimed.map_err(|error| base.error("put", key.as_str(), error));
            if !matches!(claimed, Ok(true)) {
                self.take_back(&key, fresh).await;
                return claimed;
            }
        }
        Ok(true)
    }

    /// Removes what was written too soon, where it still is that; what cannot be removed now stays
    /// for the sweeper.
    async fn take_back(&self, key: &Key, written: Vec<(usize, Bytes)>) {
        for (index, written) in written {
            let base = &self.inner.bases[index];
            let store = base.patient_if_healthy();
            let taken = match store.get_versioned(key).await {
                Ok(found) if found.bytes == written => {
                    store.delete_if(key, Some(&found.version)).await.map(drop)
                }
                Ok(_) => Ok(()),
                Err(error) if error.kind == StoreErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = taken {
                tracing::debug!(%error, base = %base.name, key = key.as_str(),
                    "what could not be taken back stays for the sweeper");
            }
        }
    }

    /// Removes the segments that are left of an exchange which nobody announces: claims its end
    /// first, so that an announcement which comes in between stays. Where a close has left none,
    /// nothing is claimed: that would cost requests, and for a moment there would be a tombstone.
    ///
    /// Answers how many objects went; `None` if it is announced, or others kept ending it at the
    /// same time, each of whom removes what it finds.
    pub async fn remove_unannounced(
        &self,
        exchange: &ExchangeId,
    ) -> Result<Option<u64>, StorageError> {
        for tries in 1..=CLAIM_TRIES {
            let seen = self.observe_markers(exchange).await;
            if seen.marker()?.is_some() {
                return Ok(None);
            }
            if self.list_segments(exchange).await?.is_empty() {
                return Ok(Some(0));
            }
            if self.claim(exchange, &seen).await? {
                return self.remove_claimed(exchange).await.map(Some);
            }
            // Whoever claims at the same moment does so in the same order and fails as well, unless
            // they come back at different times.
            let Runtime { clock, random, .. } = &self.inner.runtime;
            let spread = u64::from(tries) * CLAIM_SPREAD.as_millis() as u64;
            clock
                .sleep(Duration::from_millis(random.next_u64() % spread))
                .await;
        }
        Ok(None)
    }

    pub(super) async fn remove_tombstones(
        &self,
        exchange: &ExchangeId,
    ) -> Result<(), StorageError> {
        let key = keys::marker(exchange);
        let seen = self.observe_markers(exchange).await;
        for Seen { index, state, .. } in seen.seen {
            let base = &self.inner.bases[index];
            match state {
                State::Ended { version } => {
                    let taken = base.store.delete_if(&key, Some(&version)).await;
                    let taken = taken.map_err(|error| base.error("delete", key.as_str(), error))?;
                    if taken == DeleteOutcome::Changed {
                        tracing::info!(%exchange, base = %base.name,
                            "somebody else ends it, too, and removes the tombstone");
                    }
                }
                State::Unknown(error) => return Err(error),
                State::Absent | State::Open { .. } => {}
            }
        }
        Ok(())
    }

    fn homes(&self, exchange: &ExchangeId) -> Vec<usize> {
        placement::rendezvous(exchange, self.inner.bases.iter().map(|base| &base.name))
    }
}

/// What a renewal expects where it may be written.
fn expectation(seen: &Seen) -> Option<(usize, Precondition)> {
    match &seen.state {
        State::Absent => Some((seen.index, Precondition::Absent)),
        State::Open { version, .. } => Some((seen.index, Precondition::Version(version.clone()))),
        State::Ended { .. } | State::Unknown(_) => None,
    }
}
