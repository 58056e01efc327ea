//! What must be true when all is well again.
//!
//! Does: ask every daemon for everything that was acknowledged, and for new work; look for what an
//! ended exchange left, in base directories and in memory. Invariant: here nothing may go wrong,
//! not even for a moment.

use std::sync::Arc;

use crate::attempt::{Ended, Writer};
use crate::chance::Chance;
use crate::cluster::Cluster;
use crate::coordinator::Coordinator;
use crate::history::Which;
use crate::host::Host;
use crate::reader::Reader;

/// Every daemon must give everything that was acknowledged, and take new work.
pub async fn judge(cluster: &Cluster, name: &str, chosen: &[Which]) {
    if !cluster.lives(name) {
        return;
    }
    cluster.simulation.count("a live exchange judged");
    let chance = Chance::new(cluster.simulation.seed, &format!("judge {name}"));
    for host in cluster.hosts.iter() {
        let (must, partitions) = {
            let mut history = cluster.simulation.history.lock();
            let exchange = history.exchange(name);
            (exchange.committed(), exchange.partitions)
        };
        let reader = Reader {
            cluster,
            exchange: name,
            chance: &chance,
            only: Some(host),
        };
        let mut outcome = reader.consume(chosen).await;
        for partition in 0..partitions {
            outcome = outcome.and(reader.partition(host, partition, &must).await);
        }
        outcome = outcome.and(reader.look().await);
        if let Err(trouble) = outcome {
            cluster.simulation.violate(format_args!(
                "promise 1: host {} answers {trouble:?}",
                host.index
            ));
        }
        write_once_more(cluster, name, host).await;
    }
}

/// Liveness: where all is well, an attempt that is not aborted on purpose finishes.
async fn write_once_more(cluster: &Cluster, name: &str, host: &Arc<Host>) {
    let which = (500 + host.index as u32, 0);
    let writer = Writer::at(cluster, name, which, host);
    if writer.run().await != Ended::Finished {
        let index = host.index;
        cluster
            .simulation
            .violate(format_args!("promise 7: host {index} takes no new attempt"));
    }
}

/// Nothing in any base directory, nothing held by any daemon, and nothing comes back.
pub async fn nothing_is_left(cluster: &Cluster) {
    tokio::time::sleep(Coordinator::grace()).await;
    let left = cluster.leftovers();
    if !left.is_empty() {
        cluster
            .simulation
            .violate(format_args!("promise 6: {left:?} stay"));
    }
    let names: Vec<String> = {
        let history = cluster.simulation.history.lock();
        history.exchanges.keys().cloned().collect()
    };
    for host in cluster.hosts.iter() {
        let life = host.serves().await;
        let (daemon, metrics) = (&life.daemon, &life.daemon.metrics);
        let kept = daemon.reader.cached_bytes() + daemon.catalog.footer_bytes();
        let held = [
            ("sinks_open", metrics.sinks_open.get()),
            ("exchanges_open", metrics.exchanges_open.get()),
            ("uploads_in_flight", metrics.uploads_in_flight.get()),
            ("write pool", daemon.write_pool.used() as i64),
            ("waiting to write", daemon.write_pool.waiting() as i64),
            ("waiting to read", daemon.read_pool.waiting() as i64),
            (
                "read pool without its caches",
                daemon.read_pool.used() as i64 - kept as i64,
            ),
            ("undecided sinks", daemon.ingest.unsettled_sinks() as i64),
            ("runs that are dead and not gone", host.undead() as i64),
        ];
        let held: Vec<_> = held.iter().filter(|(_, value)| *value != 0).collect();
        if !held.is_empty() {
            let run = life.nest.incarnation;
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
