//! What must be true once no more faults occur.
//!
//! Does: read everything that was acknowledged from every daemon and write a new attempt there;
//! search base directories and memory for leftovers of ended exchanges. Invariant: no request may
//! fail here, not even for a moment.

use std::sync::Arc;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::history::AttemptId;
use crate::host::Host;
use crate::reader::Reader;
use crate::rng::Rng;
use crate::writer::{AttemptOutcome, Writer};

/// Every daemon must return everything that was acknowledged, and accept a new attempt.
pub async fn check_live_exchange(cluster: &Cluster, name: &str, chosen: &[AttemptId]) {
    if !cluster.is_live(name) {
        return;
    }
    cluster.simulation.count("a live exchange checked");
    let rng = Rng::new(cluster.simulation.seed, &format!("final checks {name}"));
    for host in cluster.hosts.iter() {
        let (must, partitions) = {
            let mut history = cluster.simulation.history.lock();
            let exchange = history.exchange(name);
            (exchange.committed(), exchange.partitions)
        };
        let reader = Reader {
            cluster,
            exchange: name,
            rng: &rng,
            only: Some(host),
        };
        let mut outcome = reader.consume(chosen).await;
        for partition in 0..partitions {
            outcome = outcome.and(reader.partition(host, partition, &must).await);
        }
        outcome = outcome.and(reader.inspect().await);
        if let Err(error) = outcome {
            cluster.simulation.violate(format_args!(
                "promise 1: host {} answers {error:?}",
                host.index
            ));
        }
        check_new_attempt(cluster, name, host).await;
    }
}

/// Liveness: without faults, an attempt that is not aborted on purpose finishes.
async fn check_new_attempt(cluster: &Cluster, name: &str, host: &Arc<Host>) {
    let id = (500 + host.index as u32, 0);
    let writer = Writer::at(cluster, name, id, host);
    if writer.run().await != AttemptOutcome::Finished {
        let index = host.index;
        cluster.simulation.violate(format_args!(
            "promise 7: host {index} accepts no new attempt"
        ));
    }
}

/// No base directory contains anything, no daemon holds anything, and no exchange is open again.
pub async fn check_nothing_is_left(cluster: &Cluster) {
    tokio::time::sleep(cluster.grace()).await;
    let mut left = cluster.leftovers();
    if !left.is_empty() {
        // The sweeper may be writing its digest, whose temporary file is gone a moment later.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let later = cluster.leftovers();
        left.retain(|key| later.contains(key));
    }
    if !left.is_empty() {
        cluster
            .simulation
            .violate(format_args!("promise 6: {left:?} are left"));
    }
    let names: Vec<String> = {
        let history = cluster.simulation.history.lock();
        history.exchanges.keys().cloned().collect()
    };
    for host in cluster.hosts.iter() {
        let run = host.wait_until_serving().await;
        let (daemon, metrics) = (&run.daemon, &run.daemon.metrics);
        let cached = daemon.reader.cached_bytes() + daemon.catalog.footer_bytes();
        let held = [
            ("sinks_open", metrics.sinks_open.get()),
            ("exchanges_with_sinks", metrics.exchanges_with_sinks.get()),
            ("uploads_in_flight", metrics.uploads_in_flight.get()),
            ("write pool", daemon.write_pool.used() as i64),
            ("waiting to write", daemon.write_pool.waiting() as i64),
            ("waiting to read", daemon.read_pool.waiting() as i64),
            (
                "read pool without its caches",
                daemon.read_pool.used() as i64 - cached as i64,
            ),
            ("undecided sinks", daemon.ingest.unsettled_sinks() as i64),
            (
                "dead runs whose memory is not freed",
                host.leaked_runs() as i64,
            ),
        ];
        let held: Vec<_> = held.iter().filter(|(_, value)| *value != 0).collect();
        if !held.is_empty() {
            let run = run.process.incarnation;
            cluster
                .simulation
                .violate(format_args!("promise 7: {run:x} holds {held:?}"));
        }
        for name in &names {
            if cluster.client.show(host, name).await.is_ok() {
                cluster
                    .simulation
                    .violate(format_args!("promise 6: {name} is open again"));
            }
        }
    }
}
