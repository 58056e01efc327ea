//! One look at every exchange, and the end of one that nobody renews.
//!
//! Does: list, look, ask the watch, claim, remove. Does not: decide when to look (`sweep`, and the
//! command `gc`) or how long to wait (`watch`). Invariant: an exchange is removed only after its
//! end was claimed, which fails if it was renewed since the look that led to it; any number of
//! daemons may do this at once.

use std::time::Duration;

use futures::stream::{self, StreamExt as _};

use super::watch::{Look, Sight, Verdict, Watch};
use crate::id::ExchangeId;
use crate::runtime::Runtime;
use crate::storage::{ObservedMarkers, Storage, StorageError};

/// Exchanges looked at at a time.
const LOOKS: usize = 16;

/// What came of the look at one exchange.
#[derive(Debug)]
pub struct Finding {
    /// Which.
    pub exchange: ExchangeId,
    /// What was seen, or why nothing could be.
    pub outcome: Result<Seen, StorageError>,
}

/// What was seen of an exchange.
#[derive(Debug)]
pub struct Seen {
    /// What it is.
    pub sight: Sight,
    /// What follows.
    pub verdict: Verdict,
    markers: ObservedMarkers,
}

/// Watches all exchanges of some base directories.
#[derive(Debug)]
pub struct Collector {
    storage: Storage,
    runtime: Runtime,
    watch: Watch,
}

impl Collector {
    /// Takes exchanges for dead that nobody renewed for `lease`; `interval` is how often it will be
    /// asked to look.
    pub fn new(storage: Storage, runtime: Runtime, lease: Duration, interval: Duration) -> Self {
        let watch = Watch::new(lease, interval);
        Self {
            storage,
            runtime,
            watch,
        }
    }

    /// Looks at every exchange once.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn look(&mut self) -> Result<Vec<Finding>, StorageError> {
        let ids = self.storage.list_exchanges().await?;
        self.watch.keep_only(&ids);
        let writable = self.writable().await;
        let (storage, clock) = (&self.storage, &self.runtime.clock);
        let looks = stream::iter(ids)
            .map(async |id| {
                let asked = clock.now();
                let markers = storage.observe_markers(&id).await;
                let answered = clock.now();
                let look = Look {
                    asked,
                    answered,
                    writable,
                };
                (id, markers, look)
            })
            .buffered(LOOKS);
        let looks: Vec<_> = looks.collect().await;
        let judged = looks
            .into_iter()
            .map(|(id, markers, look)| self.judge(id, markers, look));
        Ok(judged.collect())
    }

    /// Whether a renewal could be written now. Once some exchange is suspected, it is not only
    /// asked what failed lately, but tried: a full disk is readable, and an idle daemon does not
    /// know.
    async fn writable(&self) -> bool {
        let status = match self.watch.suspects() {
            true => self.storage.probe().await,
            false => self.storage.status(),
        };
        status.iter().all(|base| base.healthy)
    }

    fn judge(&mut self, exchange: ExchangeId, markers: ObservedMarkers, look: Look) -> Finding {
        let sight = match markers.marker() {
            Ok(Some(marker)) => Ok(Sight::Announced(marker.version)),
            Ok(None) if markers.is_claimed() => Ok(Sight::Ended),
            Ok(None) => Ok(Sight::Orphaned),
            Err(error) => Err(error),
        };
        let outcome = match sight {
            Ok(sight) => {
                let verdict = self.watch.see(&exchange, sight.clone(), look);
                Ok(Seen {
                    sight,
                    verdict,
                    markers,
                })
            }
            Err(error) => {
                self.watch.lose(&exchange);
                Err(error)
            }
        };
        Finding { exchange, outcome }
    }

    /// Ends an exchange that is over: `None` if it was renewed after all. `ended` is called once
    /// nobody can renew it any more. Answers how many objects went.
    ///
    /// # Errors
    /// The store; the next look goes on.
    pub async fn end(
        &mut self,
        exchange: &ExchangeId,
        seen: &Seen,
        ended: impl FnOnce(),
    ) -> Result<Option<u64>, StorageError> {
        if seen.verdict != Verdict::Over {
            return Ok(None);
        }
        if !self.storage.claim(exchange, &seen.markers).await? {
            self.watch.lose(exchange);
            return Ok(None);
        }
        ended();
        let removed = self.storage.remove_claimed(exchange).await?;
        self.watch.lose(exchange);
        Ok(Some(removed))
    }
}
