//! Announcing an exchange and renewing its lease: both write its marker.
//!
//! Does: decide whether the marker may be written, and write it on the condition that it still is
//! what the decision was based on. Does not: end leases (`gc`). Invariant: an announcement never
//! brings back an exchange that was closed or collected.

use std::time::Duration;

use bytes::Bytes;

use super::error::ExchangeError;
use super::exchanges::Exchanges;
use super::marker::{self, Announcement, ExchangeSpec};
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
    /// The exchange's own lease: that of the daemon which created it.
    pub lease: Duration,
}

/// An announcement that may be written.
struct Checked {
    /// The content of the marker: a renewal copies what is there.
    content: Bytes,
    announced: Announced,
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
            if let Some(announced) = self.try_announce(exchange, &spec, mode).await? {
                return Ok(announced);
            }
        }
        let exchange = exchange.clone();
        Err(ExchangeError::Contended { exchange })
    }

    /// Writes the marker once; `None` if another writer changed the marker meanwhile.
    async fn try_announce(
        &self,
        exchange: &ExchangeId,
        spec: &ExchangeSpec,
        mode: Announce,
    ) -> Result<Option<Announced>, ExchangeError> {
        let storage = &self.shared.deps.storage;
        let status = self.shared.status.get(exchange);
        if matches!(status, Some(Status::Closed)) {
            return Err(ExchangeError::closed(exchange));
        }
        let mut announced = None;
        if status.is_none() && mode == Announce::CreateOrRenew {
            announced = self.try_create(exchange, spec).await?;
        }
        if announced.is_none() {
            let (known, markers) = (status.is_some(), storage.observe_markers(exchange).await);
            let checked = self.check_announce(exchange, spec, mode, known, &markers)?;
            if !storage
                .put_marker(exchange, &checked.content, &markers)
                .await?
            {
                return Ok(None);
            }
            announced = Some(checked.announced);
        }
        if !self.confirm_open(exchange, spec.clone()) {
            // Closed while the marker was being written: it must not stay.
            storage.remove_exchange(exchange).await?;
            return Err(ExchangeError::closed(exchange));
        }
        Ok(announced)
    }

    /// The marker of an exchange that this daemon creates.
    fn new_content(&self, exchange: &ExchangeId, spec: &ExchangeSpec) -> Bytes {
        let announcement = Announcement {
            spec: spec.clone(),
            lease: self.shared.lease,
        };
        marker::encode(exchange, &announcement).into()
    }

    /// Creates the marker of an exchange that is most likely new, in one round trip; `None` if this
    /// base directory has one.
    async fn try_create(
        &self,
        exchange: &ExchangeId,
        spec: &ExchangeSpec,
    ) -> Result<Option<Announced>, ExchangeError> {
        let storage = &self.shared.deps.storage;
        let content = self.new_content(exchange, spec);
        let Some((others, written)) = storage.create_marker(exchange, &content).await? else {
            return Ok(None);
        };
        let mode = Announce::CreateOrRenew;
        let checked = self.check_announce(exchange, spec, mode, false, &others);
        // If another base directory could not be read, the marker stays, as after any put whose
        // answer was lost: the client retries, perhaps through another daemon, and may already have
        // succeeded there.
        let refused = |error: &ExchangeError| !matches!(error, ExchangeError::Storage(_));
        if checked.as_ref().is_err_and(refused) {
            storage.withdraw_marker(exchange, written).await;
        }
        checked.map(|checked| Some(checked.announced))
    }

    /// Checks that an exchange with these markers may be announced.
    /// `known`: whether this daemon had seen it open before it read the markers.
    fn check_announce(
        &self,
        exchange: &ExchangeId,
        spec: &ExchangeSpec,
        mode: Announce,
        known: bool,
        markers: &ObservedMarkers,
    ) -> Result<Checked, ExchangeError> {
        if let Some(marker) = markers.marker()? {
            let lease = check_same(exchange, &marker, spec)?;
            return Ok(Checked {
                content: marker.bytes,
                announced: Announced {
                    created: false,
                    lease,
                },
            });
        }
        // Closed or collected through another daemon: an announcement now would bring it back
        // empty.
        if known || markers.is_claimed() {
            self.shared.status.report_closed(exchange);
            return Err(ExchangeError::closed(exchange));
        }
        match mode {
            Announce::Renew => Err(self.not_found(exchange)),
            Announce::CreateOrRenew => Ok(Checked {
                content: self.new_content(exchange, spec),
                announced: Announced {
                    created: true,
                    lease: self.shared.lease,
                },
            }),
        }
    }
}

/// Checks that an exchange has these properties; returns its lease.
fn check_same(
    exchange: &ExchangeId,
    marker: &Marker,
    now: &ExchangeSpec,
) -> Result<Duration, ExchangeError> {
    let before = marker::decode(exchange, &marker.bytes);
    let before = before.map_err(|source| ExchangeError::unreadable(exchange, source))?;
    let Announcement {
        spec: before,
        lease,
    } = before;
    if before == *now {
        return Ok(lease);
    }
    Err(ExchangeError::Conflict {
        exchange: exchange.clone(),
        before,
        now: now.clone(),
    })
}
