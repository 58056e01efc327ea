//! Collects exchanges that nobody renews, and what late writers left.
//!
//! Does: look at every exchange now and then, and end those that were silent for a whole lease of
//! this daemon's own watch; drop copies of exchanges that ended elsewhere; remove the objects of
//! probes whose daemon died. Does not: trust any wall clock, its own or the store's. Invariant: an
//! exchange is collected only after this daemon itself has watched it for the whole time; any
//! number of daemons may sweep at once.

use std::collections::HashMap;

use tokio::time::Instant;

use super::collect::Collector;
use super::lease_tracker::Verdict;
use crate::exchange::Exchanges;
use crate::id::ExchangeId;
use crate::ingest::Ingest;
use crate::storage::{ProbeObject, StorageError};

/// Sweeps for as long as the daemon runs.
pub async fn run(exchanges: Exchanges, ingest: Ingest) {
    let (parts, lease) = (exchanges.parts(), exchanges.lease());
    let (runtime, interval) = (parts.runtime.clone(), lease.sweep_interval);
    let storage = parts.storage.clone();
    let mut collector = Collector::new(storage, runtime.clone(), lease.duration, interval);
    let mut probes = HashMap::new();
    loop {
        // A quarter more or less, so that many daemons do not list at the same moment.
        let jitter = runtime.random.next_u64() % 512;
        runtime
            .clock
            .sleep(interval.mul_f64(0.75 + jitter as f64 / 1024.0))
            .await;
        forget_closed(&exchanges, ingest.idle(interval)).await;
        let swept = sweep_once(&exchanges, &mut collector).await;
        let swept = swept.and(sweep_probes(&exchanges, &mut probes).await);
        if let Err(error) = swept {
            tracing::warn!(%error, "sweeping was not complete; it is tried again");
        }
    }
}

/// Exchanges that were closed through another daemon are noticed here.
pub(super) async fn forget_closed(
    exchanges: &Exchanges,
    suspects: impl IntoIterator<Item = ExchangeId>,
) {
    use crate::exchange::Gate as _;
    for id in suspects {
        if let Err(error) = exchanges.is_open(&id).await {
            tracing::warn!(%error, exchange = %id, "whether it is still open is not known");
        }
    }
}

async fn sweep_once(exchanges: &Exchanges, collector: &mut Collector) -> Result<(), StorageError> {
    let parts = exchanges.parts();
    // Taken before the list: what is kept now and not listed then has nothing left anywhere.
    let mut kept = exchanges.kept();
    let findings = collector.inspect_all().await?;
    for finding in &findings {
        kept.remove(&finding.exchange);
    }
    forget_closed(exchanges, kept).await;
    let mut failed = None;
    for finding in findings {
        let id = &finding.exchange;
        // One exchange that cannot be looked at or removed does not keep the others.
        let ended = match &finding.outcome {
            Ok(seen) if seen.verdict == Verdict::Expired => {
                tracing::info!(exchange = %id, sight = ?seen.sight,
                    lease_seconds = exchanges.lease().duration.as_secs(),
                    "collecting an exchange: nobody renewed it for a whole lease");
                collector.collect(id, seen, || exchanges.forget(id)).await
            }
            Ok(_) => continue,
            Err(error) => Err(error.clone()),
        };
        match ended {
            Ok(Some(_)) => drop(parts.metrics.exchanges_collected.inc()),
            Ok(None) => {
                tracing::info!(exchange = %id, "it was renewed at the last moment: it lives")
            }
            Err(error) => failed = Some(error),
        }
    }
    parts.storage.remove_stale_temporaries().await?;
    failed.map_or(Ok(()), Err)
}

/// A probe lives for seconds. What is there for a whole lease belongs to a daemon that died in the
/// midst of one, or could not delete it; a probe that loses its object all the same is repeated.
async fn sweep_probes(
    exchanges: &Exchanges,
    since: &mut HashMap<ProbeObject, Instant>,
) -> Result<(), StorageError> {
    let parts = exchanges.parts();
    let probes = parts.storage.list_probes().await?;
    let (now, lease) = (parts.runtime.clock.now(), exchanges.lease().duration);
    since.retain(|probe, _| probes.binary_search(probe).is_ok());
    for probe in probes {
        let first = *since.entry(probe.clone()).or_insert(now);
        if now.saturating_duration_since(first) >= lease {
            parts.storage.remove_probe(&probe).await?;
        }
    }
    Ok(())
}
