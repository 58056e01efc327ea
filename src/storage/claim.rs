//! Claims: ending an exchange by replacing its markers by tombstones.
//!
//! Does: claim an exchange, remove tombstones, remove orphans. Does not: decide which exchange has
//! expired (`gc`). Invariant: a claim succeeds only if the exchange was not renewed in any base
//! directory since it was observed.

use std::time::Duration;

use super::error::Result;
use super::facade::Storage;
use super::markers::{ObservedMarker, ObservedMarkers, StoredMarker};
use super::stored_marker;
use crate::id::ExchangeId;
use crate::runtime::Runtime;
use crate::store::keys;
use crate::store::{DeleteOutcome, Precondition};

/// How many times a late writer tries to claim an exchange that others claim at the same time: for
/// some 40 seconds.
const MAX_CLAIMS: u32 = 28;

/// From this try on, after about ten seconds, a late writer replaces the tombstones of other
/// daemons, which are probably dead.
const REPLACE_TOMBSTONES_FROM: u32 = 14;

/// Upper bound of the random wait after the first failed try; it grows linearly.
const CLAIM_WAIT_MILLIS: u64 = 200;

impl Storage {
    /// Puts a tombstone into every base directory, if the exchange still is what was observed in
    /// all of them; returns whether it was. An interrupted claim changes nothing while a marker
    /// remains anywhere; a failed one withdraws the tombstones that it put where there was nothing.
    ///
    /// # Errors
    /// If a base directory did not respond when it was observed, or rejects the tombstone.
    pub async fn claim(&self, exchange: &ExchangeId, observed: &ObservedMarkers) -> Result<bool> {
        let key = keys::marker(exchange);
        let mut steps = Vec::with_capacity(observed.markers.len());
        for ObservedMarker { index, state, .. } in &observed.markers {
            let open = matches!(state, StoredMarker::Open { .. });
            steps.push((open, *index, state.precondition()?));
        }
        // Markers last: a claim that stops before them has not ended the exchange.
        steps.sort_by_key(|(open, ..)| *open);
        let mut created = Vec::new();
        for (_, index, expected) in steps {
            let base = &self.inner.bases[index];
            let tombstone = stored_marker::tombstone(self.inner.runtime.random.next_u64());
            if expected == Precondition::Absent {
                // Recorded before the put: a failed one may have been applied.
                created.push((index, tombstone.clone()));
            }
            let claimed = base.store.put_if(&key, tombstone, &expected).await;
            let claimed = claimed.map_err(|error| base.error("put", key.as_str(), error));
            if !matches!(claimed, Ok(true)) {
                self.withdraw(&key, created).await;
                return claimed;
            }
        }
        Ok(true)
    }

    /// Removes the segments of an exchange that has no marker. It is claimed first, so that an
    /// announcement in between is preserved. Nothing is claimed if there are no segments: that
    /// would cost requests, and leave a tombstone for a moment.
    ///
    /// Returns how many objects were removed; `None` if the exchange has a marker, or others claim
    /// it at the same time, each of which removes what it finds.
    ///
    /// # Errors
    /// If a base directory does not respond.
    pub async fn remove_unannounced(&self, exchange: &ExchangeId) -> Result<Option<u64>> {
        self.check_members().await?;
        for attempt in 1..=MAX_CLAIMS {
            let observed = self.observe_markers(exchange).await;
            if observed.marker()?.is_some() {
                return Ok(None);
            }
            if self.list_segments(exchange).await?.is_empty() {
                return Ok(Some(0));
            }
            // If another daemon has put a tombstone, replacing it would make both claims fail. That
            // daemon may have listed before this daemon's segment was stored, so wait until it is
            // done, and list the segments again. Of several daemons that find neither marker nor
            // tombstone, one puts the first tombstone and is not disturbed.
            let may_claim = !observed.has_tombstone() || attempt >= REPLACE_TOMBSTONES_FROM;
            if may_claim && self.claim(exchange, &observed).await? {
                return self.remove_claimed(exchange).await.map(Some);
            }
            let Runtime { clock, random, .. } = &self.inner.runtime;
            let longest = u64::from(attempt) * CLAIM_WAIT_MILLIS;
            let wait = Duration::from_millis(random.next_u64() % longest);
            clock.sleep(wait).await;
        }
        Ok(None)
    }

    pub(super) async fn remove_tombstones(&self, exchange: &ExchangeId) -> Result<()> {
        let key = keys::marker(exchange);
        let observed = self.observe_markers(exchange).await;
        for ObservedMarker { index, state, .. } in observed.markers {
            let base = &self.inner.bases[index];
            match state {
                StoredMarker::Tombstone { version, .. } => {
                    let removed = base.store.delete_if(&key, Some(&version)).await;
                    let removed =
                        removed.map_err(|error| base.error("delete", key.as_str(), error))?;
                    if removed == DeleteOutcome::Changed {
                        tracing::info!(%exchange, base = %base.name,
                            "another daemon has claimed the exchange and removes its tombstone");
                    }
                }
                StoredMarker::Unknown(error) => return Err(error),
                StoredMarker::Absent | StoredMarker::Open { .. } => {}
            }
        }
        Ok(())
    }
}
