//! Collects exchanges that nobody renews, and what late writers left.
//!
//! Does: look at every exchange now and then; close those whose announcement has not been written again for
//! a whole lease, as measured here by the monotonic clock, and those that lost their announcement. Does not:
//! trust any wall clock, its own or the store's. Invariant: an exchange is collected only after this daemon
//! itself has watched it for the whole time; any number of daemons may sweep at once.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Exchanges;
use crate::id::ExchangeId;
use crate::ingest::Ingest;
use crate::storage::StorageError;

/// What was last seen of an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Sight {
    /// Its announcement, at this version.
    Announced(String),
    /// Objects without an announcement.
    Orphaned,
}

/// Watches exchanges over time. Pure but for the clock it is given.
#[derive(Debug, Default)]
struct Watch {
    since: HashMap<ExchangeId, (Sight, Instant)>,
}

impl Watch {
    /// Notes what is seen now; `true` if it has been so for `lease`.
    fn expired(&mut self, id: &ExchangeId, sight: Sight, now: Instant, lease: Duration) -> bool {
        match self.since.get(id) {
            Some((before, since)) if *before == sight => now.duration_since(*since) >= lease,
            _ => {
                self.since.insert(id.clone(), (sight, now));
                false
            }
        }
    }

    fn keep_only(&mut self, ids: &[ExchangeId]) {
        self.since.retain(|id, _| ids.binary_search(id).is_ok());
    }
}

/// Sweeps for as long as the daemon runs.
pub async fn sweep(exchanges: Exchanges, ingest: Ingest) {
    let mut watch = Watch::default();
    let runtime = exchanges.shared.parts.runtime.clone();
    let interval = exchanges.shared.lease.sweep_interval;
    loop {
        // A quarter more or less, so that many daemons do not list at the same moment.
        let jitter = runtime.random.next_u64() % 512;
        runtime
            .clock
            .sleep(interval.mul_f64(0.75 + jitter as f64 / 1024.0))
            .await;
        forget_closed(&exchanges, &ingest, interval).await;
        if let Err(error) = sweep_once(&exchanges, &mut watch).await {
            tracing::warn!(%error, "sweeping was not complete; it is tried again");
        }
    }
}

/// Exchanges that were closed through another daemon are noticed here.
async fn forget_closed(exchanges: &Exchanges, ingest: &Ingest, idle: Duration) {
    use crate::ingest::Gate as _;
    for id in ingest.idle(idle) {
        if let Err(error) = exchanges.is_open(&id).await {
            tracing::warn!(%error, exchange = %id, "whether it is still open is not known");
        }
    }
}

async fn sweep_once(exchanges: &Exchanges, watch: &mut Watch) -> Result<(), StorageError> {
    let parts = &exchanges.shared.parts;
    let ids = parts.storage.list_exchanges().await?;
    watch.keep_only(&ids);
    let mut failed = None;
    for id in ids {
        // One exchange that cannot be looked at or removed does not keep the others.
        if let Err(error) = sweep_exchange(exchanges, watch, &id).await {
            failed = Some(error);
        }
    }
    parts.storage.remove_stale_temporaries().await?;
    failed.map_or(Ok(()), Err)
}

async fn sweep_exchange(
    exchanges: &Exchanges,
    watch: &mut Watch,
    id: &ExchangeId,
) -> Result<(), StorageError> {
    let parts = &exchanges.shared.parts;
    let sight = match parts.storage.get_marker(id).await? {
        Some(marker) => Sight::Announced(marker.version),
        None => Sight::Orphaned,
    };
    let (now, lease) = (parts.runtime.clock.now(), exchanges.shared.lease.duration);
    if watch.expired(id, sight.clone(), now, lease) {
        tracing::info!(exchange = %id, ?sight, lease_seconds = lease.as_secs(),
            "collecting an exchange: nobody renewed it for a whole lease");
        exchanges.forget(id);
        parts.storage.remove_exchange(id).await?;
        parts.metrics.exchanges_collected.inc();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_exchange_expires_only_after_a_whole_lease_without_renewal() {
        let (mut watch, id) = (Watch::default(), "q".parse::<ExchangeId>().unwrap());
        let start = Instant::now();
        let lease = Duration::from_secs(900);
        let mut look = |version: &str, seconds| {
            let now = start + Duration::from_secs(seconds);
            watch.expired(&id, Sight::Announced(version.into()), now, lease)
        };
        assert!(!look("a", 0));
        assert!(!look("a", 899));
        assert!(!look("b", 901), "renewed");
        assert!(!look("b", 1700));
        assert!(look("b", 1801));
    }

    #[tokio::test]
    async fn what_was_renewed_in_between_is_watched_from_the_start_again() {
        let (mut watch, id) = (Watch::default(), "q".parse::<ExchangeId>().unwrap());
        let (start, lease) = (Instant::now(), Duration::from_secs(10));
        assert!(!watch.expired(&id, Sight::Orphaned, start, lease));
        watch.keep_only(&[]);
        assert!(!watch.expired(&id, Sight::Orphaned, start + lease, lease));
    }
}
