//! One world from its seed to its verdict.
//!
//! Four acts: exchanges are written and read while things go wrong; all is well and every daemon is
//! asked for everything; exchanges end while things go wrong again; all is well and nothing may be
//! left. Invariant: a world depends on its seed and its mutant alone.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::chaos;
use crate::cluster::{Cluster, sleep_millis};
use crate::coordinator::Coordinator;
use crate::history::History;
use crate::mutants::Mutant;
use crate::plan::{LEASE, Plan};
use crate::simulation::{Report, Simulation, note};
use crate::verdict::{judge, nothing_is_left};

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
        judge(cluster, &coordinator.plan.name, &coordinator.chosen()).await;
    }
    note!(cluster.simulation, "the end begins");
    cluster.foul_weather();
    act(cluster, 2, ways(Way::End).chain(ways(Way::Late))).await;
    calm(cluster).await;
    nothing_is_left(cluster).await;
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
pub async fn calm(cluster: &Cluster) {
    cluster.heal().await;
    sleep_millis(40_000).await;
    cluster.heal().await;
    note!(cluster.simulation, "calm");
}
