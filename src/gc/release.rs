//! Releasing what this daemon holds of exchanges that were closed through another daemon.
//!
//! Does: check those that the digest does not show as open, and drop what is held of the closed
//! ones; tell `exchange` what the digest says. Does not: read the digest (`sweeper_lease`).
//! Invariant: nothing is dropped before the base directories have confirmed that its exchange is
//! closed; without a digest, the number of checks at a time is bounded.

use std::time::Duration;

use super::close::Closing;
use crate::id::ExchangeId;
use crate::storage::DigestExchanges;

/// How many exchanges that no digest covers are checked at a time.
const MAX_UNLISTED: usize = 64;

/// Releases closed exchanges at one daemon.
pub(super) struct Releaser {
    closing: Closing,
    /// Exchanges with sinks are checked once they had no request for this long.
    idle: Duration,
    /// The last of the exchanges without a digest that was checked.
    last: Option<ExchangeId>,
}

impl Releaser {
    pub(super) fn new(closing: Closing, idle: Duration) -> Self {
        let last = None;
        Self {
            closing,
            idle,
            last,
        }
    }

    /// Checks the exchanges that are held here and seem to be closed.
    pub(super) async fn release_closed(&mut self, digest: Option<&DigestExchanges>) {
        if let Some(digest) = digest {
            self.closing.exchanges.record_digest(digest);
        }
        let mut held = self.closing.cached_exchanges();
        held.extend(self.closing.ingest.idle_exchanges(self.idle));
        let (mut suspects, mut unlisted) = (Vec::new(), Vec::new());
        for exchange in held {
            match digest.filter(|digest| digest.covers(&exchange)) {
                Some(digest) if digest.lacks_marker(&exchange) => suspects.push(exchange),
                Some(_) => {}
                None => unlisted.push(exchange),
            }
        }
        suspects.extend(self.next_unlisted(unlisted));
        self.closing.check_open(suspects).await;
    }

    /// The first exchanges after those that were checked last, round-robin. `unlisted` is sorted.
    fn next_unlisted(&mut self, mut unlisted: Vec<ExchangeId>) -> Vec<ExchangeId> {
        let checked = unlisted.partition_point(|id| Some(id) <= self.last.as_ref());
        unlisted.rotate_left(checked);
        unlisted.truncate(MAX_UNLISTED);
        self.last = unlisted.last().cloned();
        unlisted
    }
}
