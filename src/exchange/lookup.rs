//! Whether an exchange is open, and with which properties.
//!
//! Does: answer from the status cache or the base directories, and record what was learned. Does
//! not: release what is held of an exchange that turns out to be closed: it reports it
//! ([`Exchanges::found_closed`]). Invariant: an error or "unknown" is never answered as "closed",
//! nor is a marker that may not have been written yet.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::descriptor::{Descriptor, DescriptorError, ExchangeSpec};
use super::error::ExchangeError;
use super::exchanges::Exchanges;
use super::marker;
use super::status::{MarkerState, Status};
use crate::id::ExchangeId;
use crate::storage::StorageError;
use crate::storage::seals::{SealError, Seals};

/// How long an open exchange is assumed to stay open. It is checked after each upload anyway.
const OPEN_CACHE_TTL: Duration = Duration::from_secs(30);

impl Exchanges {
    /// The properties of an open exchange; reads the base directories unless this daemon confirmed
    /// recently that it is open, or learned of it from its descriptor.
    ///
    /// # Errors
    /// The exchange is not open, its marker cannot be decoded, or the store failed.
    pub async fn lookup(&self, exchange: &ExchangeId) -> Result<ExchangeSpec, ExchangeError> {
        let now = self.shared.deps.runtime.clock.now();
        if let Some(Status::Open { descriptor, marker }) = self.shared.status.get(exchange) {
            let suffices = match marker {
                MarkerState::Observed { confirmed } => {
                    now.duration_since(confirmed) < OPEN_CACHE_TTL
                }
                MarkerState::Pending(_) => true,
                MarkerState::Failed(_) => false,
            };
            if suffices {
                return Ok(descriptor.spec.clone());
            }
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
            Some(Status::Open { descriptor, .. }) => Ok(Some(descriptor.spec.clone())),
            Some(Status::Closed) => Err(ExchangeError::closed(exchange)),
            None => Ok(None),
        }
    }

    /// Like [`Exchanges::lookup`], but always reads the base directories: for responses in which an
    /// exchange that another daemon has closed would appear to be empty.
    ///
    /// # Errors
    /// As [`Exchanges::lookup`]. An exchange whose marker was not written yet is not found: nothing
    /// of it was acknowledged.
    pub async fn lookup_uncached(
        &self,
        exchange: &ExchangeId,
    ) -> Result<ExchangeSpec, ExchangeError> {
        let before = self.shared.status.get(exchange);
        if matches!(before, Some(Status::Closed)) {
            return Err(ExchangeError::closed(exchange));
        }
        let known = before.is_some() && self.may_be_missing(exchange).is_none();
        match self.stored(exchange).await? {
            Some(found) if self.confirm_open(&found) => Ok(found.spec.clone()),
            Some(_) => Err(ExchangeError::closed(exchange)),
            None if known => {
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
    /// A base directory that may have the marker cannot be read.
    pub async fn is_open(&self, exchange: &ExchangeId) -> Result<bool, StorageError> {
        if self.is_known_closed(exchange) {
            return Ok(false);
        }
        let pending = self.may_be_missing(exchange);
        let open = self.shared.deps.storage.has_marker(exchange).await?;
        if open || pending.is_some() {
            return Ok(true);
        }
        self.shared.status.report_closed(exchange);
        Ok(false)
    }

    /// The descriptor of an exchange whose marker may legitimately be missing now.
    fn may_be_missing(&self, exchange: &ExchangeId) -> Option<Arc<Descriptor>> {
        let (descriptor, pending) = self.shared.status.pending(exchange)?;
        let now = self.shared.deps.runtime.clock.now();
        (now < pending.until).then_some(descriptor)
    }

    /// Whether this daemon has closed an exchange or found it closed; does no I/O.
    pub fn is_known_closed(&self, exchange: &ExchangeId) -> bool {
        self.shared.status.is_closed(exchange)
    }

    pub(super) async fn stored(
        &self,
        exchange: &ExchangeId,
    ) -> Result<Option<Arc<Descriptor>>, ExchangeError> {
        let found = self.shared.deps.storage.find_marker(exchange).await?;
        self.decoded(exchange, found)
    }

    /// As [`Exchanges::stored`], with one request: `None` if it is not in the base directory that
    /// the exchange prefers.
    pub(super) async fn stored_where_preferred(
        &self,
        exchange: &ExchangeId,
    ) -> Result<Option<Arc<Descriptor>>, ExchangeError> {
        let found = self.shared.deps.storage.find_preferred_marker(exchange);
        self.decoded(exchange, found.await?)
    }

    fn decoded(
        &self,
        exchange: &ExchangeId,
        found: Option<Bytes>,
    ) -> Result<Option<Arc<Descriptor>>, ExchangeError> {
        let Some(found) = found else {
            return Ok(None);
        };
        let decoded = marker::decode(exchange, &found);
        let announced = decoded.map_err(|source| ExchangeError::unreadable(exchange, source))?;
        self.shared
            .deps
            .storage
            .remember_set(exchange, &announced.set);
        Ok(Some(Arc::new(announced)))
    }

    /// Records that an exchange is open now; `false` if it was closed meanwhile.
    pub(super) fn confirm_open(&self, descriptor: &Arc<Descriptor>) -> bool {
        let now = self.shared.deps.runtime.clock.now();
        self.shared.status.confirm_open(Arc::clone(descriptor), now)
    }

    /// The text of a descriptor, for the client to send with each request for its exchange.
    ///
    /// # Errors
    /// This daemon has no key of any base directory of the set.
    pub fn seal(&self, descriptor: &Descriptor) -> Result<String, ExchangeError> {
        Ok(descriptor.seal(&self.seals())?)
    }

    /// Learns what an exchange is from the descriptor that a client sends: without a request to a
    /// base directory, unless it was sealed with a key that is new here.
    ///
    /// # Errors
    /// No daemon of the fleet sealed it, it is another exchange's, or this daemon lacks the base
    /// directory.
    pub async fn accept_descriptor(
        &self,
        exchange: &ExchangeId,
        text: &str,
    ) -> Result<(), ExchangeError> {
        let descriptor = self.open(text).await?;
        if descriptor.exchange != *exchange {
            return Err(ExchangeError::OtherDescriptor {
                exchange: exchange.clone(),
                described: descriptor.exchange,
            });
        }
        self.shared
            .deps
            .storage
            .remember_set(exchange, &descriptor.set);
        let until = self.deadline(&descriptor);
        self.shared
            .status
            .record_pending(Arc::new(descriptor), until);
        Ok(())
    }

    async fn open(&self, text: &str) -> Result<Descriptor, DescriptorError> {
        let opened = Descriptor::open(text, &self.seals());
        let storage = &self.shared.deps.storage;
        match &opened {
            Err(DescriptorError::Seal(SealError::UnknownKey { base, .. })) => {
                storage.refresh_identity(Some(base)).await;
            }
            Err(DescriptorError::Seal(SealError::Unidentified { .. })) => {
                storage.refresh_identity(None).await;
            }
            _ => return opened,
        }
        Descriptor::open(text, &self.seals())
    }

    fn seals(&self) -> Seals {
        Seals::new(self.shared.deps.storage.identities())
    }
}
