//! Markers that were announced and not seen yet.
//!
//! Does: write the marker of a new exchange behind its announcement, find out whether one that
//! another daemon writes is there, and let requests wait for either. Does not: decide whether an
//! exchange may be announced (`announce`). Invariant: whoever writes a marker writes the same
//! bytes, only where there is nothing; one of an exchange that was closed meanwhile does not stay.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::descriptor::Descriptor;
use super::error::{ExchangeError, MarkerFailure};
use super::exchanges::Exchanges;
use super::marker;
use super::status::{LateMarker, MarkerState, Pursuit, Status};
use crate::id::ExchangeId;

/// Pauses between two reads of a marker that another daemon writes: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

impl Exchanges {
    /// Waits until the marker of an exchange is durable. At once if it was seen, or if nothing is
    /// known of the exchange.
    ///
    /// # Errors
    /// The exchange is closed, or its marker could not be written or read in time.
    pub async fn wait_for_marker(&self, exchange: &ExchangeId) -> Result<(), ExchangeError> {
        loop {
            let awaited = match self.shared.status.get(exchange) {
                None => return Ok(()),
                Some(Status::Closed) => return Err(ExchangeError::closed(exchange)),
                Some(Status::Open { marker, .. }) => match marker {
                    MarkerState::Seen { .. } => return Ok(()),
                    MarkerState::Failed(failure) => {
                        return Err(ExchangeError::not_announced(exchange, failure));
                    }
                    MarkerState::Awaited(awaited) => awaited,
                },
            };
            self.seek_marker(exchange);
            let settled = awaited.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            if self.shared.status.awaited(exchange).is_some() {
                settled.await;
            }
        }
    }

    /// Finds out in the background whether a marker that was not seen yet is there.
    pub fn seek_marker(&self, exchange: &ExchangeId) {
        let status = &self.shared.status;
        if let Some((descriptor, awaited)) = status.awaited(exchange)
            && status.pursue(exchange, Pursuit::Seeks, awaited.until)
        {
            let exchanges = self.clone();
            let seeking = async move { exchanges.seek(&descriptor).await };
            self.shared.deps.runtime.tasks.spawn_until_stopped(seeking);
        }
    }

    /// Writes the marker of an exchange in the background, unless it was seen or is being written.
    pub(super) fn write_marker(&self, descriptor: &Arc<Descriptor>) {
        let (exchange, until) = (&descriptor.exchange, self.deadline(descriptor));
        if self.shared.status.pursue(exchange, Pursuit::Writes, until) {
            let (exchanges, descriptor) = (self.clone(), Arc::clone(descriptor));
            let writing = async move { exchanges.put_awaited(&descriptor).await };
            self.shared.deps.runtime.tasks.spawn_until_stopped(writing);
        }
    }

    /// When the absence of a marker that this daemon hears of now means that there is none.
    pub(super) fn deadline(&self, descriptor: &Descriptor) -> Instant {
        self.shared.deps.runtime.clock.now() + descriptor.announcement
    }

    async fn put_awaited(&self, descriptor: &Arc<Descriptor>) {
        let exchange = &descriptor.exchange;
        let Some((_, awaited)) = self.shared.status.awaited(exchange) else {
            return;
        };
        let (clock, storage) = (&self.shared.deps.runtime.clock, &self.shared.deps.storage);
        let content = marker::encode(descriptor).into();
        let place = storage.place_marker(exchange, &content, descriptor.number, &descriptor.set);
        let left = awaited.until.saturating_duration_since(clock.now());
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
    }

    /// The marker is durable. If its exchange was closed while it was being written, it goes again.
    async fn written(&self, descriptor: &Arc<Descriptor>) {
        if self.confirm_open(descriptor) {
            return;
        }
        let exchange = &descriptor.exchange;
        if let Err(error) = self.shared.deps.storage.remove_exchange(exchange).await {
            tracing::warn!(%exchange, %error,
                "cannot remove the marker of an exchange that was closed while it was announced; \
                 a sweep will");
        }
    }

    async fn seek(&self, descriptor: &Arc<Descriptor>) {
        let exchange = &descriptor.exchange;
        let clock = &self.shared.deps.runtime.clock;
        let (mut pause, longest) = PAUSES;
        let mut everywhere = false;
        while let Some((_, awaited)) = self.shared.status.awaited(exchange) {
            let asked = clock.now();
            let over = asked >= awaited.until;
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
            let left = awaited.until.saturating_duration_since(clock.now());
            clock.sleep(pause.min(left)).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// Removes, once its time is over, the marker of an exchange that was closed before it was
    /// seen: another daemon may still have been writing it. One that was announced since stays.
    pub(crate) fn remove_late_marker(&self, closed: LateMarker) {
        let exchanges = self.clone();
        let work = async move {
            let LateMarker { descriptor, until } = closed;
            let (exchange, deps) = (&descriptor.exchange, &exchanges.shared.deps);
            let left = until.saturating_duration_since(deps.runtime.clock.now());
            deps.runtime.clock.sleep(left).await;
            let removed = match exchanges.stored(exchange).await {
                Ok(Some(found)) if found.number == descriptor.number => {
                    exchanges.remove(exchange).await.map(drop)
                }
                other => other.map(drop),
            };
            if let Err(error) = removed {
                tracing::warn!(%exchange, %error,
                    "cannot check whether the marker of a closed exchange was written late; a \
                     sweep will");
            }
        };
        self.shared.deps.runtime.tasks.spawn_until_stopped(work);
    }
}
