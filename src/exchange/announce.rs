//! Announcing an exchange and renewing its lease: both write its marker.
//!
//! Does: decide whether the marker may be written, and write it on the condition that it is still
//! what the decision was based on; in the background if the client states that the exchange is new
//! (`pending_marker`). Does not: end leases (`gc`). Invariant: an announcement never reopens an
//! exchange that was closed or collected.

use std::sync::Arc;

use bytes::Bytes;

use super::descriptor::{Descriptor, ExchangeSpec};
use super::error::ExchangeError;
use super::exchanges::Exchanges;
use super::marker;
use super::status::{MarkerState, MarkerTask, PendingMarker, Status};
use crate::id::ExchangeId;
use crate::storage::{Marker, ObservedMarkers};

/// How many times writing a marker is tried. Clients announce an exchange one call after another,
/// so that even a second try is rare.
const MAX_ANNOUNCE_TRIES: u32 = 8;

/// What an announcement may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announce {
    /// Create only, answered at once: the client has created the id and announces it for the first
    /// time. The marker is written in the background.
    New,
    /// The rest of that: answered once the marker is durable.
    Confirm,
    CreateOrRenew,
    /// Renew only: an exchange that is not open stays so.
    Renew,
}

/// The result of an announcement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// Whether the exchange is new.
    pub created: bool,
    /// What was announced: with the lease of the daemon which created the exchange.
    pub descriptor: Arc<Descriptor>,
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
        let (partitions, limit) = (spec.partitions, self.max_partitions());
        if partitions == 0 {
            return Err(ExchangeError::NoPartitions);
        }
        if partitions > limit {
            return Err(ExchangeError::TooManyPartitions { partitions, limit });
        }
        let counted = self.count_announced(exchange, mode)?;
        let announced = self.announce_within(exchange, spec, mode).await;
        if counted && announced.is_err() {
            self.shared.announced_here.remove(exchange);
        }
        announced
    }

    /// Counts an exchange that this daemon may create; `true` if it was not counted before.
    fn count_announced(
        &self,
        exchange: &ExchangeId,
        mode: Announce,
    ) -> Result<bool, ExchangeError> {
        let (here, now) = (
            &self.shared.announced_here,
            self.shared.deps.runtime.clock.now(),
        );
        let lease = self.shared.terms.lease;
        match (mode, self.shared.status.get(exchange)) {
            (Announce::Renew, _) | (_, Some(Status::Open { .. })) => {
                here.renewed(exchange, lease, now);
                Ok(false)
            }
            (_, Some(Status::Closed)) => Ok(false),
            (_, None) => here.admit(exchange, lease, now),
        }
    }

    async fn announce_within(
        &self,
        exchange: &ExchangeId,
        spec: ExchangeSpec,
        mode: Announce,
    ) -> Result<Announced, ExchangeError> {
        if mode == Announce::New {
            return self.announce_new(exchange, spec).await;
        }
        if let Some(announced) = self.await_announced(exchange, &spec, mode).await? {
            return Ok(announced);
        }
        for _ in 0..MAX_ANNOUNCE_TRIES {
            if let Some(announced) = self.try_announce(exchange, &spec, mode).await? {
                return Ok(announced);
            }
        }
        let exchange = exchange.clone();
        Err(ExchangeError::Contended { exchange })
    }

    /// Announces an exchange that is new according to the client. If this daemon knows it already,
    /// this is a repetition: the response is the same.
    async fn announce_new(
        &self,
        exchange: &ExchangeId,
        spec: ExchangeSpec,
    ) -> Result<Announced, ExchangeError> {
        let slot = self.marker_write_slot()?;
        let new = self.describe(exchange, &spec).await?;
        if self.shared.status.get(exchange).is_none() {
            let storage = &self.shared.deps.storage;
            storage.remember_set(exchange, &new.set);
        }
        let status = self
            .shared
            .status
            .record_pending(Arc::clone(&new), self.deadline(&new));
        let Status::Open { descriptor, .. } = status else {
            return Err(ExchangeError::closed(exchange));
        };
        check_spec(exchange, &descriptor.spec, &spec)?;
        let created = descriptor.number == new.number;
        if created {
            self.write_marker(&descriptor, slot);
        }
        Ok(Announced {
            created,
            descriptor,
        })
    }

    /// The rest of an announcement that was answered before its marker was written: waits for the
    /// marker. `None` if this is none.
    async fn await_announced(
        &self,
        exchange: &ExchangeId,
        spec: &ExchangeSpec,
        mode: Announce,
    ) -> Result<Option<Announced>, ExchangeError> {
        let (descriptor, marker) = match self.shared.status.get(exchange) {
            Some(Status::Open { descriptor, marker }) => (descriptor, marker),
            Some(Status::Closed) => return Err(ExchangeError::closed(exchange)),
            None => return Ok(None),
        };
        // A renewal reads the marker itself, which may be readable again.
        let skips = match &marker {
            MarkerState::Observed { .. } => mode != Announce::Confirm,
            MarkerState::Failed(_) => mode == Announce::Renew,
            MarkerState::Pending(_) => false,
        };
        if skips {
            return Ok(None);
        }
        check_spec(exchange, &descriptor.spec, spec)?;
        let is_written = |pending: &PendingMarker| pending.task == MarkerTask::Write;
        let is_written = matches!(&marker, MarkerState::Pending(marker) if is_written(marker));
        if mode != Announce::Renew && !is_written {
            self.write_marker(&descriptor, self.marker_write_slot()?);
        }
        self.wait_for_marker(exchange).await?;
        if mode == Announce::Renew {
            return Ok(None);
        }
        Ok(Some(Announced {
            created: false,
            descriptor,
        }))
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
            // A renewal needs no new set, which there may not be while all base directories drain.
            let (new, refused) = match mode {
                Announce::Renew => (None, None),
                Announce::New | Announce::Confirm | Announce::CreateOrRenew => {
                    match self.describe(exchange, spec).await {
                        Ok(new) => (Some(new), None),
                        Err(error) => (None, Some(error)),
                    }
                }
            };
            let (known, markers) = (status.is_some(), storage.observe_markers(exchange).await);
            let checked = self.check_announce(exchange, spec, new.as_ref(), known, &markers);
            let checked = match (checked, refused) {
                (Err(ExchangeError::NotFound { .. }), Some(error)) => return Err(error),
                (checked, _) => checked?,
            };
            // The marker stays in the set that it names.
            storage.remember_set(exchange, &checked.announced.descriptor.set);
            if !storage
                .put_marker(exchange, &checked.content, &markers)
                .await?
            {
                return Ok(None);
            }
            announced = Some(checked.announced);
        }
        if let Some(Announced { descriptor, .. }) = &announced
            && {
                storage.remember_set(exchange, &descriptor.set);
                !self.confirm_open(descriptor)
            }
        {
            // Closed while the marker was being written: it must not stay.
            self.remove(exchange).await?;
            return Err(ExchangeError::closed(exchange));
        }
        Ok(announced)
    }

    /// Describes an exchange that this daemon creates.
    async fn describe(
        &self,
        exchange: &ExchangeId,
        spec: &ExchangeSpec,
    ) -> Result<Arc<Descriptor>, ExchangeError> {
        let deps = &self.shared.deps;
        Ok(Arc::new(Descriptor {
            exchange: exchange.clone(),
            spec: spec.clone(),
            lease: self.shared.terms.lease,
            number: deps.runtime.random.next_u64(),
            set: deps.storage.in_order(exchange).await?,
            announcement: deps.storage.announcement(),
        }))
    }

    /// Creates the marker of an exchange that is most likely new, in one round trip; `None` if this
    /// base directory has one.
    async fn try_create(
        &self,
        exchange: &ExchangeId,
        spec: &ExchangeSpec,
    ) -> Result<Option<Announced>, ExchangeError> {
        let storage = &self.shared.deps.storage;
        let new = self.describe(exchange, spec).await?;
        let content = marker::encode(&new).into();
        let created = storage.create_marker(exchange, &content, new.number, &new.set);
        let Some((others, written)) = created.await? else {
            return Ok(None);
        };
        let checked = self.check_announce(exchange, spec, Some(&new), false, &others);
        // If another base directory could not be read, the marker stays, as after any put whose
        // answer was lost: the client retries, perhaps through another daemon, and may already have
        // succeeded there.
        let refused = |error: &ExchangeError| !matches!(error, ExchangeError::Storage(_));
        if checked.as_ref().is_err_and(refused) {
            storage.withdraw_marker(exchange, written).await;
        }
        checked.map(|checked| Some(checked.announced))
    }

    /// Checks that an exchange with these markers may be announced, as `new` if it is.
    /// `known`: whether this daemon had seen it open before it read the markers.
    fn check_announce(
        &self,
        exchange: &ExchangeId,
        spec: &ExchangeSpec,
        new: Option<&Arc<Descriptor>>,
        known: bool,
        markers: &ObservedMarkers,
    ) -> Result<Checked, ExchangeError> {
        if let Some(marker) = markers.marker()? {
            let descriptor = check_same(exchange, &marker, spec)?;
            return Ok(Checked {
                content: marker.bytes,
                announced: Announced {
                    created: false,
                    descriptor: Arc::new(descriptor),
                },
            });
        }
        // Closed or collected through another daemon: an announcement now would reopen it empty.
        if known || markers.is_claimed() {
            self.shared.status.report_closed(exchange);
            return Err(ExchangeError::closed(exchange));
        }
        let Some(new) = new else {
            return Err(self.not_found(exchange));
        };
        Ok(Checked {
            content: marker::encode(new).into(),
            announced: Announced {
                created: true,
                descriptor: Arc::clone(new),
            },
        })
    }
}

/// Checks that an exchange has these properties; returns what was announced.
fn check_same(
    exchange: &ExchangeId,
    marker: &Marker,
    now: &ExchangeSpec,
) -> Result<Descriptor, ExchangeError> {
    let before = marker::decode(exchange, &marker.bytes);
    let before = before.map_err(|source| ExchangeError::unreadable(exchange, source))?;
    check_spec(exchange, &before.spec, now)?;
    Ok(before)
}

fn check_spec(
    exchange: &ExchangeId,
    before: &ExchangeSpec,
    now: &ExchangeSpec,
) -> Result<(), ExchangeError> {
    if before == now {
        return Ok(());
    }
    Err(ExchangeError::Conflict {
        exchange: exchange.clone(),
        before: before.clone(),
        now: now.clone(),
    })
}
