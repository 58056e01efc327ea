//! Removing what a closed exchange has left.
//!
//! Does: remove it at once where that is possible, and the rest once the base directories answer
//! again. Does not: decide that an exchange is closed. Invariant: no request is sent for the rest
//! while a base directory that must answer is known not to.

use std::time::Duration;

use futures::stream::{self, StreamExt as _};

use super::exchanges::Exchanges;
use crate::id::ExchangeId;
use crate::storage::{Cleared, StorageError, StoreErrorKind};

/// How often the rest is tried.
const INTERVAL: Duration = Duration::from_secs(5);

/// Exchanges that are cleared at a time.
const CONCURRENCY: usize = 8;

impl Exchanges {
    /// Removes every object of a closed exchange from every base directory. What cannot be reached
    /// now is removed in the background.
    ///
    /// # Errors
    /// None of the base directories that must answer for it did, or one refuses.
    pub(crate) async fn remove(&self, exchange: &ExchangeId) -> Result<Cleared, StorageError> {
        let cleared = self.shared.deps.storage.clear_exchange(exchange).await;
        let waits = match &cleared {
            Ok(cleared) => cleared.left.is_some(),
            Err(error) => error.kind() == StoreErrorKind::Unavailable,
        };
        match waits {
            true => self.complete_later(exchange),
            false => self.shared.unfinished.remove(exchange),
        }
        cleared
    }

    fn complete_later(&self, exchange: &ExchangeId) {
        if self.shared.unfinished.add(exchange) {
            let exchanges = self.clone();
            let work = async move { exchanges.complete_closes().await };
            self.shared.deps.runtime.tasks.spawn_until_stopped(work);
        }
    }

    async fn complete_closes(&self) {
        loop {
            self.shared.deps.runtime.clock.sleep(INTERVAL).await;
            let unfinished = self.shared.unfinished.all();
            if unfinished.is_empty() {
                return;
            }
            let storage = &self.shared.deps.storage;
            let ready = unfinished.into_iter().filter(|id| storage.can_clear(id));
            let closes = ready.map(|exchange| async move { self.complete(&exchange).await });
            let closes = stream::iter(closes).buffer_unordered(CONCURRENCY);
            closes.collect::<()>().await;
        }
    }

    async fn complete(&self, exchange: &ExchangeId) {
        match self.shared.deps.storage.clear_exchange(exchange).await {
            Ok(Cleared { left: Some(_), .. }) => return,
            Ok(Cleared { segments, .. }) => {
                tracing::info!(%exchange, segments, "the rest of a closed exchange was removed");
            }
            Err(error) if error.kind() == StoreErrorKind::Unavailable => return,
            Err(error) => tracing::warn!(%exchange, %error,
                "cannot remove the rest of a closed exchange; a sweep will"),
        }
        self.shared.unfinished.remove(exchange);
    }
}
