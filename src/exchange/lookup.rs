//! Whether an exchange is open, and with which properties.
//!
//! Does: answer from the status cache or the base directories, and record what was learned. Does
//! not: release what is held of an exchange that turns out to be closed: it reports it
//! ([`Exchanges::found_closed`]). Invariant: an error or "unknown" is never answered as "closed".

use std::time::Duration;

use futures::stream::{self, StreamExt as _, TryStreamExt as _};

use super::error::ExchangeError;
use super::exchanges::Exchanges;
use super::marker::{self, ExchangeSpec};
use super::status::Status;
use crate::id::ExchangeId;
use crate::storage::StorageError;

/// How long an open exchange is assumed to stay open. It is checked after each upload anyway.
const OPEN_CACHE_TTL: Duration = Duration::from_secs(30);
/// Markers read at a time by [`Exchanges::list`].
const MARKER_CONCURRENCY: usize = 16;

impl Exchanges {
    /// The properties of an open exchange; reads the base directories unless this daemon confirmed
    /// them recently.
    ///
    /// # Errors
    /// The exchange is not open, its marker cannot be decoded, or the store failed.
    pub async fn lookup(&self, exchange: &ExchangeId) -> Result<ExchangeSpec, ExchangeError> {
        let now = self.shared.deps.runtime.clock.now();
        if let Some(Status::Open { spec, confirmed }) = self.shared.status.get(exchange)
            && now.duration_since(confirmed) < OPEN_CACHE_TTL
        {
            return Ok(spec);
        }
        self.lookup_uncached(exchange).await
    }

    /// The properties of an exchange if this daemon knows it to be open; does no I/O.
    ///
    /// # Errors
    /// This daemon knows it to be closed.
    pub fn lookup_known(
        &self,
        exchange: &ExchangeId,
    ) -> Result<Option<ExchangeSpec>, ExchangeError> {
        match self.shared.status.get(exchange) {
            Some(Status::Open { spec, .. }) => Ok(Some(spec)),
            Some(Status::Closed) => Err(ExchangeError::closed(exchange)),
            None => Ok(None),
        }
    }

    /// Like [`Exchanges::lookup`], but always reads the base directories: for answers in which an
    /// exchange that another daemon has closed would look like an empty one.
    ///
    /// # Errors
    /// As [`Exchanges::lookup`].
    pub async fn lookup_uncached(
        &self,
        exchange: &ExchangeId,
    ) -> Result<ExchangeSpec, ExchangeError> {
        let before = self.shared.status.get(exchange);
        if matches!(before, Some(Status::Closed)) {
            return Err(ExchangeError::closed(exchange));
        }
        match self.stored(exchange).await? {
            Some(spec) if self.confirm_open(exchange, spec.clone()) => Ok(spec),
            Some(_) => Err(ExchangeError::closed(exchange)),
            None if before.is_some() => {
                self.shared.status.report_closed(exchange);
                Err(ExchangeError::closed(exchange))
            }
            None => Err(self.not_found(exchange)),
        }
    }

    pub(super) fn not_found(&self, exchange: &ExchangeId) -> ExchangeError {
        let bases = self.shared.deps.storage.identities().into_iter();
        let places = bases.map(|(name, identity)| match identity {
            Some(identity) => format!("{name} {}", identity.id),
            None => name.to_string(),
        });
        ExchangeError::NotFound {
            exchange: exchange.clone(),
            places: places.collect::<Vec<_>>().join(", "),
        }
    }

    /// Whether an exchange is open; reads the base directories unless it is known to be closed.
    /// `Ok(false)` only if it is certainly closed.
    ///
    /// # Errors
    /// The store failed, and with it the question.
    pub async fn is_open(&self, exchange: &ExchangeId) -> Result<bool, StorageError> {
        if self.is_known_closed(exchange) {
            return Ok(false);
        }
        let open = self.shared.deps.storage.has_marker(exchange).await?;
        if !open {
            self.shared.status.report_closed(exchange);
        }
        Ok(open)
    }

    /// Whether this daemon has closed an exchange or found it closed; does no I/O.
    pub fn is_known_closed(&self, exchange: &ExchangeId) -> bool {
        self.shared.status.is_closed(exchange)
    }

    /// All exchanges of which any object exists, with their properties if their marker can be
    /// decoded.
    ///
    /// # Errors
    /// [`ExchangeError::Storage`].
    pub async fn list(&self) -> Result<Vec<(ExchangeId, Option<ExchangeSpec>)>, ExchangeError> {
        let ids = self.shared.deps.storage.list_exchanges().await?;
        stream::iter(ids)
            .map(async |id| match self.stored(&id).await {
                Ok(spec) => Ok((id, spec)),
                Err(ExchangeError::Unreadable { .. }) => Ok((id, None)),
                Err(error) => Err(error),
            })
            .buffered(MARKER_CONCURRENCY)
            .try_collect()
            .await
    }

    async fn stored(&self, exchange: &ExchangeId) -> Result<Option<ExchangeSpec>, ExchangeError> {
        let Some(found) = self.shared.deps.storage.get_marker(exchange).await? else {
            return Ok(None);
        };
        let decoded = marker::decode(exchange, &found.bytes);
        let announced = decoded.map_err(|source| ExchangeError::unreadable(exchange, source))?;
        Ok(Some(announced.spec))
    }

    /// Records that an exchange is open now; `false` if it was closed meanwhile.
    pub(super) fn confirm_open(&self, exchange: &ExchangeId, spec: ExchangeSpec) -> bool {
        let now = self.shared.deps.runtime.clock.now();
        self.shared.status.confirm_open(exchange, spec, now)
    }
}
