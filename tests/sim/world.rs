//! One world from its seed to its verdict.
//!
//! Four acts: exchanges are written and read while things go wrong; all is well and every daemon is
//! asked for everything; exchanges end while things go wrong again; all is well and nothing may be
//! left. Invariant: a world depends on its seed and its mutant alone.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::attempt::{Ended, Writer};
use crate::chance::Chance;
use crate::chaos;
use crate::cluster::{Cluster, sleep_millis};
use crate::coordinator::Coordinator;
use crate::history::History;
use crate::host::Host;
use crate::mutants::Mutant;
use crate::plan::{LEASE, Plan};
use crate::simulation::{Report, Simulation, note};

/// No world takes longer than this, by its own clock, unless somebody waits for ever.
const LONGEST: Duration = Duration::from_secs(3600);

/// Runs the world of a seed.
pub fn run(seed: u64, mutant: Option<Mutant>, print: bool) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let report = runtime.block_on(async {
        let simulation = Simulation::new(seed, History::new(LEASE), mutant, print);
        let cluster = Cluster::new(&simulation, Plan::of(seed));
        note!(simulation, "{:?}", cluster.plan);
        tokio::select! {
            biased;
            () = simulation.over.cancelled() => {}
            () = play(&cluster) => {}
            () = tokio::time::sleep(LONGEST) => simulation.violate("promise 7: it comes to no end"),
        }
        simulation.report()
    });
    drop(runtime);
    report
}

async fn play(cluster: &Cluster) {
    for host in cluster.hosts.iter() {
        let host = Arc::clone(host);
        cluster.simulation.spawn(host.supervise());
    }
    let plans = &cluster.plan.exchanges;
    let coordinators: Vec<_> = plans.iter().map(|x| Coordinator::new(cluster, x)).collect();
    let ways = |way: Way| coordinators.iter().map(move |c| (c.clone(), way));
    act(cluster, 1, ways(Way::Run)).await;
    calm(cluster).await;
    for coordinator in &coordinators {
        judge(cluster, coordinator).await;
    }
    note!(cluster.simulation, "the end begins");
    cluster.foul_weather();
    act(cluster, 2, ways(Way::End).chain(ways(Way::Late))).await;
    calm(cluster).await;
    nothing_is_left(cluster, &coordinators).await;
}

#[derive(Clone, Copy)]
enum Way {
    Run,
    End,
    Late,
}

/// Lets coordinators go their ways while things happen, until all have arrived.
async fn act(cluster: &Cluster, number: u64, ways: impl Iterator<Item = (Coordinator, Way)>) {
    let over = CancellationToken::new();
    let chaos = chaos::reign(cluster.clone(), number, over.clone());
    let chaos = cluster.simulation.spawn(chaos);
    let going: Vec<_> = ways
        .map(|(coordinator, way)| {
            cluster.simulation.spawn(async move {
                match way {
                    Way::Run => coordinator.run().await,
                    Way::Late => coordinator.late_writers().await,
                    Way::End if coordinator.plan.abandoned => coordinator.abandon(),
                    Way::End => coordinator.close().await,
                }
            })
        })
        .collect();
    for one in going {
        let _ = one.await;
    }
    over.cancel();
    let _ = chaos.await;
}

/// All is well, and what was late has arrived.
async fn calm(cluster: &Cluster) {
    cluster.heal().await;
    sleep_millis(40_000).await;
    cluster.heal().await;
    note!(cluster.simulation, "calm");
}

/// Every daemon must give everything that was acknowledged, and take new work.
async fn judge(cluster: &Cluster, coordinator: &Coordinator) {
    let name = coordinator.plan.name.as_str();
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
        let reader = coordinator.reader(&chance, Some(host));
        let chosen = coordinator.chosen();
        let mut outcome = reader.consume(&chosen).await;
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
async fn nothing_is_left(cluster: &Cluster, coordinators: &[Coordinator]) {
    tokio::time::sleep(Coordinator::grace()).await;
    for site in cluster.sites.iter() {
        let left = site.disk.lock().leftovers();
        if !left.is_empty() {
            let name = &site.name;
            cluster
                .simulation
                .violate(format_args!("promise 6: {left:?} stay in {name}"));
        }
    }
    for host in cluster.hosts.iter() {
        let life = host.serves().await;
        let (daemon, metrics) = (&life.daemon, &life.daemon.metrics);
        let held = [
            ("sinks_open", metrics.sinks_open.get()),
            ("exchanges_open", metrics.exchanges_open.get()),
            ("uploads_in_flight", metrics.uploads_in_flight.get()),
            ("write pool", daemon.write_pool.used() as i64),
            ("waiting to write", daemon.write_pool.waiting() as i64),
            ("waiting to read", daemon.read_pool.waiting() as i64),
            (
                "read pool without its cache",
                daemon.read_pool.used() as i64 - daemon.reader.cached_bytes() as i64,
            ),
            ("undecided sinks", daemon.ingest.undecided() as i64),
            ("runs that are dead and not gone", host.undead() as i64),
        ];
        let held: Vec<_> = held.iter().filter(|(_, value)| *value != 0).collect();
        if !held.is_empty() {
            let run = life.nest.incarnation;
            cluster
                .simulation
                .violate(format_args!("promise 7: {run:x} holds {held:?}"));
        }
        for coordinator in coordinators {
            let name = coordinator.plan.name.as_str();
            if cluster.client.show(host, name).await.is_ok() {
                cluster
                    .simulation
                    .violate(format_args!("promise 6: {name} is open again"));
            }
        }
    }
}
