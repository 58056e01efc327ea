//! Announcing an exchange and renewing its lease: both write its marker.
//!
//! Does: decide whether the marker may be written, and write it on the condition that it still is
//! what the decision was based on. Does not: end leases (`gc`). Invariant: an announcement never
//! brings back an exchange that was closed or collected.

use bytes::Bytes;

use super::ExchangeError;
use super::exchanges::Exchanges;
use super::marker::{self, ExchangeSpec};
use super::status::Status;
use crate::id::ExchangeId;
use crate::storage::{Marker, Markers};

/// Tries to write a marker before giving up. Clients announce an exchange one call after another,
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

/// What was stored before an announcement that may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    SameMarker,
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
            if let Some(before) = self.try_announce(exchange, &spec, mode).await? {
                return Ok(Announced {
                    created: before == Before::Nothing,
                    lease_seconds: self.shared.lease.as_secs(),
                });
            }
        }
        Err(ExchangeError::Contended {
            exchange: exchange.clone(),
        })
    }

    /// Writes the marker once; `None` if another writer changed it meanwhile.
    async fn try_announce(
        &self,
        exchange: &ExchangeId,
        spec: &ExchangeSpec,
        mode: Announce,
    ) -> Result<Option<Before>, ExchangeError> {
        let storage = &self.shared.deps.storage;
        let closed = || ExchangeError::Closed {
            exchange: exchange.clone(),
        };
        let status = self.shared.status.get(exchange);
        if matches!(status, Some(Status::Closed)) {
            return Err(closed());
        }
        let content = marker::encode(exchange, spec).into();
        let created = match status.is_none() && mode == Announce::CreateOrRenew {
            true => self.try_create(exchange, spec, &content).await?,
            false => None,
        };
        let before = match created {
            Some(before) => before,
            None => {
                let markers = storage.markers(exchange).await;
                let before =
                    self.check_announce(exchange, spec, mode, status.is_some(), &markers)?;
                if !storage.put_marker(exchange, &content, &markers).await? {
                    return Ok(None);
                }
                before
            }
        };
        if !self.confirm_open(exchange, spec.clone()) {
            // Closed while the marker was being written: it must not stay.
            storage.remove_exchange(exchange).await?;
            return Err(closed());
        }
        Ok(Some(before))
    }

    /// Creates the marker of an exchange that is most likely new, in one round trip; `None` if it
    /// is not new.
    async fn try_create(
        &self,
        exchange: &ExchangeId,
        spec: &ExchangeSpec,
        content: &Bytes,
    ) -> Result<Option<Before>, ExchangeError> {
        let storage = &self.shared.deps.storage;
        let Some((others, written)) = storage.put_first_marker(exchange, content).await? else {
            return Ok(None);
        };
        let mode = Announce::CreateOrRenew;
        let before = self.check_announce(exchange, spec, mode, false, &others);
        // If another base directory could not be read, the marker stays, as after any put whose
        // answer was lost: the client retries, perhaps through another daemon, and may already have
        // succeeded there.
        let refused = |error: &ExchangeError| !matches!(error, ExchangeError::Storage(_));
        if before.as_ref().is_err_and(refused) {
            storage.take_back_marker(exchange, written).await;
        }
        before.map(Some)
    }

    /// Whether an exchange with these markers may be announced. `known`: whether this daemon had
    /// seen it open before it read the markers.
    fn check_announce(
        &self,
        exchange: &ExchangeId,
        spec: &ExchangeSpec,
        mode: Announce,
        known: bool,
        markers: &Markers,
    ) -> Result<Before, ExchangeError> {
        if let Some(marker) = markers.marker()? {
            check_same(exchange, &marker, spec)?;
            return Ok(Before::SameMarker);
        }
        let exchange = exchange.clone();
        // Closed or collected through another daemon: an announcement now would bring it back
        // empty.
        if known || markers.ended() {
            self.shared.status.report_closed(&exchange);
            return Err(ExchangeError::Closed { exchange });
        }
        match mode {
            Announce::Renew => Err(ExchangeError::NotFound { exchange }),
            Announce::CreateOrRenew => Ok(Before::Nothing),
        }
    }
}

fn check_same(
    exchange: &ExchangeId,
    marker: &Marker,
    now: &ExchangeSpec,
) -> Result<(), ExchangeError> {
    let before = marker::decode(exchange, &marker.bytes)?;
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
