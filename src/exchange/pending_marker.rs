//! Markers that were announced and have not been observed yet.
//!
//! Does: write the marker of a new exchange in the background, check whether a marker that another
//! daemon writes exists, and let requests wait for either. Does not: decide whether an exchange may
//! be announced (`announce`). Invariant: every daemon writes the same bytes, and only if the object
//! is missing; the marker of an exchange that was closed meanwhile is removed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::bounds::MAX_MARKER_TASKS;
use super::descriptor::Descriptor;
use super::error::{ExchangeError, MarkerFailure};
use super::exchanges::Exchanges;
use super::marker;
use super::status::{LateMarker, MarkerState, MarkerTask, Status};
use crate::id::ExchangeId;

/// Pauses between two reads of a marker that another daemon writes: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

impl Exchanges {
    /// Waits until the marker of an exchange is durable. Returns at once if it was observed.
    ///
    /// # Errors
    /// The exchange is closed or not known, or its marker could not be written or read in time.
    pub async fn wait_for_marker(&self, exchange: &ExchangeId) -> Result<(), ExchangeError> {
        loop {
            let pending = match self.shared.status.get(exchange) {
                // Forgotten: the status cache is bounded.
                None => return self.lookup_uncached(exchange).await.map(drop),
                Some(Status::Closed) => return Err(ExchangeError::closed(exchange)),
                Some(Status::Open { marker, .. }) => match marker {
                    MarkerState::Observed { .. } => return Ok(()),
                    MarkerState::Failed(failure) => {
                        return Err(ExchangeError::not_announced(exchange, failure));
                    }
                    MarkerState::Pending(pending) => pending,
                },
            };
            let polled = self.poll_marker(exchange);
            let settled = pending.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            if self.shared.status.pending(exchange).is_none() {
                continue;
            }
            match polled {
                true => settled.await,
                // Tries again to have it polled.
                false => {
                    let clock = &self.shared.deps.runtime.clock;
                    let _ = clock.within(PAUSES.1, settled).await;
                }
            }
        }
    }

    /// Checks in the background whether a marker that was not observed yet exists. `false` if too
    /// many are being checked.
    pub fn poll_marker(&self, exchange: &ExchangeId) -> bool {
        let status = &self.shared.status;
        let Some((descriptor, pending)) = status.pending(exchange) else {
            return true;
        };
        if pending.task != MarkerTask::None {
            return true;
        }
        let Some(slot) = self.shared.marker_tasks.polls.try_acquire() else {
            return false;
        };
        if status.start_task(exchange, MarkerTask::Poll, pending.until) {
            let exchanges = self.clone();
            let polling = async move {
                exchanges.poll_until_found(&descriptor).await;
                drop(slot);
            };
            self.shared.deps.runtime.tasks.spawn_until_stopped(polling);
        }
        true
    }

    /// A permit to write a marker in the background.
    ///
    /// # Errors
    /// Too many are being written.
    pub(super) fn marker_write_slot(&self) -> Result<OwnedSemaphorePermit, ExchangeError> {
        let slot = self.shared.marker_tasks.writes.try_acquire();
        let limit = MAX_MARKER_TASKS;
        slot.ok_or(ExchangeError::TooManyMarkers { limit })
    }

    /// Writes the marker of an exchange in the background, unless it was observed or is being
    /// written.
    pub(super) fn write_marker(&self, descriptor: &Arc<Descriptor>, slot: OwnedSemaphorePermit) {
        let (exchange, until) = (&descriptor.exchange, self.deadline(descriptor));
        if self
            .shared
            .status
            .start_task(exchange, MarkerTask::Write, until)
        {
            let (exchanges, descriptor) = (self.clone(), Arc::clone(descriptor));
            let writing = async move {
                exchanges.put_pending_marker(&descriptor).await;
                drop(slot);
            };
            self.shared.deps.runtime.tasks.spawn_until_stopped(writing);
        }
    }

    /// The time from which a missing marker of an exchange that this daemon first sees now means
    /// that the exchange does not exist.
    pub(super) fn deadline(&self, descriptor: &Descriptor) -> Instant {
        self.shared.deps.runtime.clock.now() + descriptor.announcement
    }

    async fn put_pending_marker(&self, descriptor: &Arc<Descriptor>) {
        let exchange = &descriptor.exchange;
        let Some((_, pending)) = self.shared.status.pending(exchange) else {
            return;
        };
        let (clock, storage) = (&self.shared.deps.runtime.clock, &self.shared.deps.storage);
        let content = marker::encode(descriptor).into();
        let place = storage.place_marker(exchange, &content, descriptor.number, &descriptor.set);
        let left = pending.until.saturating_duration_since(clock.now());
        let failure = match clock.within(left, place).await {
            Some(Ok(true)) => {
                self.written(descriptor).await;
                return;
            }
            Some(Ok(false)) => match self.stored(exchange).await {
                Ok(Some(found)) if found.spec == descriptor.spec => {
                    self.confirm_open(&found);
                    return;
                }
                Ok(Some(_)) => MarkerFailure::Conflict,
                // Its tombstone, or a close meanwhile.
                Ok(None) => {
                    self.shared.status.report_closed(exchange);
                    return;
                }
                Err(ExchangeError::Storage(error)) => error.into(),
                Err(_) => MarkerFailure::Damaged,
            },
            Some(Err(error)) => error.into(),
            None => MarkerFailure::Late {
                limit: descriptor.announcement,
            },
        };
        tracing::warn!(%exchange, error = %failure, "cannot write the marker of an exchange");
        self.shared.status.marker_failed(exchange, failure);
        self.shared.announced_here.remove(exchange);
    }

    /// Called when the marker is durable. If its exchange was closed meanwhile, removes it again.
    async fn written(&self, descriptor: &Arc<Descriptor>) {
        if self.confirm_open(descriptor) {
            return;
        }
        let exchange = &descriptor.exchange;
        if let Err(error) = self.remove(exchange).await {
            tracing::warn!(%exchange, %error,
                "cannot remove the marker of an exchange that was closed while it was announced; \
                 a sweep will");
        }
    }

    async fn poll_until_found(&self, descriptor: &Arc<Descriptor>) {
        let exchange = &descriptor.exchange;
        let clock = &self.shared.deps.runtime.clock;
        let (mut pause, longest) = PAUSES;
        let mut everywhere = false;
        while let Some((_, pending)) = self.shared.status.pending(exchange) {
            let asked = clock.now();
            let over = asked >= pending.until;
            // Nearly always it is written to the preferred base directory.
            let found = match everywhere || over {
                true => self.stored(exchange).await,
                false => self.stored_where_preferred(exchange).await,
            };
            everywhere = !everywhere;
            match found {
                Ok(Some(found)) => {
                    self.confirm_open(&found);
                    return;
                }
                Ok(None) if over => {
                    self.shared.status.report_closed(exchange);
                    return;
                }
                Err(error) if over => {
                    let failure = match error {
                        ExchangeError::Storage(error) => error.into(),
                        _ => MarkerFailure::Damaged,
                    };
                    self.shared.status.marker_failed(exchange, failure);
                    return;
                }
                Ok(None) | Err(_) => {}
            }
            let left = pending.until.saturating_duration_since(clock.now());
            clock.sleep(pause.min(left)).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// Removes, after its deadline, the marker of an exchange that was closed before the marker was
    /// observed: another daemon may still have been writing it. A marker of a later announcement is
    /// retained. If too many are waited for, the sweeper removes it after a lease.
    pub(crate) fn remove_late_marker(&self, closed: LateMarker) {
        let Some(slot) = self.shared.marker_tasks.removals.try_acquire() else {
            tracing::debug!(exchange = %closed.descriptor.exchange,
                "not waiting for a late marker; a sweep removes it");
            return;
        };
        let exchanges = self.clone();
        let work = async move {
            let LateMarker { descriptor, until } = closed;
            let (exchange, deps) = (&descriptor.exchange, &exchanges.shared.deps);
            let left = until.saturating_duration_since(deps.runtime.clock.now());
            deps.runtime.clock.sleep(left).await;
            let removed = match exchanges.stored(exchange).await {
                Ok(Some(found)) if found.number == descriptor.number => {
                    let removed = exchanges.remove(exchange).await;
                    removed.map(drop).map_err(ExchangeError::from)
                }
                other => other.map(drop),
            };
            if let Err(error) = removed {
                tracing::warn!(%exchange, %error,
                    "cannot check whether the marker of a closed exchange was written late; a \
                     sweep will");
            }
            drop(slot);
        };
        self.shared.deps.runtime.tasks.spawn_until_stopped(work);
    }
}

#[cfg(test)]
mod tests;
