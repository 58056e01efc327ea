//! Announcing an exchange and renewing its lease: both write its marker.
//!
//! Does: decide whether the marker may be written, and write it on the condition that it still is
//! what the decision was based on. Does not: end leases (`gc`). Invariant: an announcement never
//! brings back an exchange that was closed or collected.

use bytes::Bytes;

use super::error::ExchangeError;
use super::exchanges::Exchanges;
use super::marker::{self, ExchangeSpec};
use super::status::Status;
use crate::id::ExchangeId;
use crate::storage::{Marker, ObservedMarkers};

/// How many times writing a marker is tried. Clients announce an exchange one call after another,
/// so that even a second try is rare.
const MAX_ANNOUNCE_TRIES: u32 = 8;

/// What an announcement may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announce {
    CreateOrRenew,
    /// Renew only: an exchange that is not open stays so.
    Renew,
}

/// The result of an announcement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// Whether the exchange is new.
    pub created: bool,
    pub lease_seconds: u64,
}

impl Exchanges {
    /// Announces an exchange or renews its lease.
    ///
    /// # Errors
    /// The exchange is closed, has other properties or too many partitions, or the store failed.
    pub async fn announce(
        &self,
        exchange: &ExchangeId,
        spec: ExchangeSpec,
        mode: Announce,
    ) -> Result<Announced, ExchangeError> {
        let (partitions, limit) = (spec.partitions, self.shared.max_partitions);
        if partitions == 0 {
            return Err(ExchangeError::NoPartitions);
        }
        if partitions > limit {
            return Err(ExchangeError::TooManyPartitions { partitions, limit });
        }
        for _ in 0..MAX_ANNOUNCE_TRIES {
            if let Some(created) = self.try_announce(exchange, &spec, mode).await? {
                let lease_seconds = self.shared.lease.as_secs();
                return Ok(Announced {
                    created,
                    lease_seconds,
                });
            }
        }
        let exchange = exchange.clone();
        Err(ExchangeError::Contended { exchange })
    }

    /// Writes the marker once and returns whether the exchange is new; `None` if another writer
    /// changed the marker meanwhile.
    async fn try_announce(
        &self,
        exchange: &ExchangeId,
        spec: &ExchangeSpec,
        mode: Announce,
    ) -> Result<Option<bool>, ExchangeError> {
        let storage = &self.shared.deps.storage;
        let status = self.shared.status.get(exchange);
        if matches!(status, Some(Status::Closed)) {
            return Err(ExchangeError::closed(exchange));
        }
        let content = marker::encode(exchange, spec).into();
        let mut created = None;
        if status.is_none() && mode == Announce::CreateOrRenew {
            created = self.try_create(exchange, spec, &content).await?;
        }
        if created.is_none() {
            let (known, markers) = (status.is_some(), storage.observe_markers(exchange).await);
            created = Some(self.check_announce(exchange, spec, mode, known, &markers)?);
            if !storage.put_marker(exchange, &content, &markers).await? {
                return Ok(None);
            }
        }
        if !self.confirm_open(exchange, spec.clone()) {
            // Closed while the marker was being written: it must not stay.
            storage.remove_exchange(exchange).await?;
            return Err(ExchangeError::closed(exchange));
        }
        Ok(created)
    }

    /// Creates the marker of an exchange that is most likely new, in one round trip; `None` if this
    /// base directory has one.
    async fn try_create(
        &self,
        exchange: &ExchangeId,
        spec: &ExchangeSpec,
        content: &Bytes,
    ) -> Result<Option<bool>, ExchangeError> {
        let storage = &self.shared.deps.storage;
        let Some((others, written)) = storage.create_marker(exchange, content).await? else {
            return Ok(None);
        };
        let mode = Announce::CreateOrRenew;
        let created = self.check_announce(exchange, spec, mode, false, &others);
        // If another base directory could not be read, the marker stays, as after any put whose
        // answer was lost: the client retries, perhaps through another daemon, and may already have
        // succeeded there.
        let refused = |error: &ExchangeError| !matches!(error, ExchangeError::Storage(_));
        if created.as_ref().is_err_and(refused) {
            storage.withdraw_marker(exchange, written).await;
        }
        created.map(Some)
    }

    /// Checks that an exchange with these markers may be announced; returns whether it is new.
    /// `known`: whether this daemon had seen it open before it read the markers.
    fn check_announce(
        &self,
        exchange: &ExchangeId,
        spec: &ExchangeSpec,
        mode: Announce,
        known: bool,
        markers: &ObservedMarkers,
    ) -> Result<bool, ExchangeError> {
        if let Some(marker) = markers.marker()? {
            check_same(exchange, &marker, spec)?;
            return Ok(false);
        }
        // Closed or collected through another daemon: an announcement now would bring it back
        // empty.
        if known || markers.is_claimed() {
            self.shared.status.report_closed(exchange);
            return Err(ExchangeError::closed(exchange));
        }
        match mode {
            Announce::Renew => Err(ExchangeError::not_found(exchange)),
            Announce::CreateOrRenew => Ok(true),
        }
    }
}

fn check_same(
    exchange: &ExchangeId,
    marker: &Marker,
    now: &ExchangeSpec,
) -> Result<(), ExchangeError> {
    let before = marker::decode(exchange, &marker.bytes);
    let before = before.map_err(|source| ExchangeError::unreadable(exchange, source))?;
    if before == *now {
        return Ok(());
    }
    Err(ExchangeError::Conflict {
        exchange: exchange.clone(),
        before,
        now: now.clone(),
    })
}
