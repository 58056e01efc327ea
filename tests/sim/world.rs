//! One world, from its seed to its report.
//!
//! Four phases: exchanges are written and read under faults; without faults, every daemon must
//! return everything; exchanges end under faults; without faults, nothing may be left. Invariant: a
//! world depends only on its seed and its mutant.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::chaos;
use crate::cluster::{Cluster, sleep_millis};
use crate::coordinator::Coordinator;
use crate::final_checks::{check_live_exchange, check_nothing_is_left};
use crate::history::History;
use crate::mutants::Mutant;
use crate::plan::{LEASE, Plan};
use crate::simulation::{Report, Simulation, note};

/// No world takes longer than this, by its own clock, unless a task waits for ever.
const MAX_WORLD_TIME: Duration = Duration::from_secs(3600);

/// Runs the world of a seed.
pub fn run(seed: u64, mutant: Option<Mutant>, print: bool) -> Report {
    run_planned(seed, Plan::of(seed), mutant, print)
}

/// Runs the world of a seed with another plan.
pub fn run_planned(seed: u64, plan: Plan, mutant: Option<Mutant>, print: bool) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let report = runtime.block_on(async {
        let simulation = Simulation::new(seed, History::new(LEASE), mutant, print);
        let cluster = Cluster::new(&simulation, plan);
        note!(simulation, "{:?}", cluster.plan);
        tokio::select! {
            biased;
            () = simulation.stopped.cancelled() => {}
            () = run_phases(&cluster) => {}
            () = tokio::time::sleep(MAX_WORLD_TIME) => {
                simulation.violate("promise 7: the world does not end");
            }
        }
        simulation.report()
    });
    drop(runtime);
    report
}

async fn run_phases(cluster: &Cluster) {
    for host in cluster.hosts.iter() {
        let host = Arc::clone(host);
        cluster.simulation.spawn(host.supervise());
    }
    if let Some(stranger) = cluster.stranger.clone() {
        // Before all base directories are listed, its own list is as good as that of the others:
        // nobody could say which of them is wrong.
        let sites = Arc::clone(&cluster.sites);
        cluster.simulation.spawn(async move {
            let names: Vec<_> = sites.iter().map(|site| site.name.to_string()).collect();
            while !sites.iter().all(|site| site.disk.lock().lists_all(&names)) {
                sleep_millis(1000).await;
            }
            stranger.supervise().await;
        });
    }
    let plans = &cluster.plan.exchanges;
    let coordinators: Vec<_> = plans.iter().map(|x| Coordinator::new(cluster, x)).collect();
    let roles = |role: Role| coordinators.iter().map(move |c| (c.clone(), role));
    run_phase(cluster, 1, roles(Role::Run)).await;
    settle(cluster).await;
    for coordinator in &coordinators {
        check_live_exchange(cluster, &coordinator.plan.name, &coordinator.chosen()).await;
    }
    note!(cluster.simulation, "exchanges end");
    cluster.resume_faults();
    run_phase(cluster, 2, roles(Role::End).chain(roles(Role::WriteLate))).await;
    settle(cluster).await;
    check_nothing_is_left(cluster).await;
}

#[derive(Clone, Copy)]
enum Role {
    Run,
    End,
    WriteLate,
}

/// Runs coordinators in their roles under faults until all are done.
async fn run_phase(
    cluster: &Cluster,
    number: u64,
    roles: impl Iterator<Item = (Coordinator, Role)>,
) {
    let done = CancellationToken::new();
    let chaos = chaos::run(cluster.clone(), number, done.clone());
    let chaos = cluster.simulation.spawn(chaos);
    let running: Vec<_> = roles
        .map(|(coordinator, role)| {
            cluster.simulation.spawn(async move {
                match role {
                    Role::Run => coordinator.run().await,
                    Role::WriteLate => coordinator.late_writers().await,
                    Role::End if coordinator.plan.is_abandoned() => coordinator.abandon(),
                    Role::End => coordinator.close().await,
                }
            })
        })
        .collect();
    for one in running {
        let _ = one.await;
    }
    done.cancel();
    let _ = chaos.await;
}

/// Stops the faults and waits until late effects have occurred, and until whoever waits for a store
/// that hung before has given up: a sweep, which lists, waits longest (seed 7200).
pub async fn settle(cluster: &Cluster) {
    cluster.recover().await;
    let longest_wait = cluster.plan.limits.deadline.list();
    tokio::time::sleep(longest_wait.max(Duration::from_secs(40))).await;
    cluster.recover().await;
    note!(cluster.simulation, "no more faults");
}
