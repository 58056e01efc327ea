//! A daemon dies at every one of its storage calls: before the call, during it, and after it took
//! effect but before its answer.
//!
//! Each scenario runs once to count its calls, then once for each call and moment. Afterwards
//! another daemon and a new run of the dead one must agree with the history, accept new attempts,
//! and leave nothing when the exchange ends. To add a scenario: a function, and its line in
//! `SCENARIOS`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, join, join_all};
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, sleep_millis};
use crate::crash_point::{CrashPoint, When};
use crate::final_checks::{check_live_exchange, check_nothing_is_left};
use crate::history::{AttemptId, History, Pages};
use crate::mutants::Mutant;
use crate::plan::{LEASE, Plan};
use crate::simulation::{Report, Simulation};
use crate::world::settle;
use crate::writer::Writer;

const X: &str = "x0";

/// Requests to the daemon that will die.
type Script = for<'a> fn(&'a Cluster) -> BoxFuture<'a, ()>;

struct Scenario {
    name: &'static str,
    sites: usize,
    script: Script,
    /// Whether it also runs in real folders, where calls are slow on a busy machine.
    in_folders: bool,
}

const SCENARIOS: &[Scenario] = &[
    scenario("one sink", 1, one_sink, false),
    scenario("several segments of a sink", 1, several_segments, true),
    scenario(
        "group commit over two base directories",
        2,
        group_commit,
        false,
    ),
    scenario("finish and abort at once", 1, finish_and_abort, false),
    scenario("an empty sink", 2, empty_sink, false),
    scenario("announce and renew", 1, announce_and_renew, true),
    scenario("close", 2, close, true),
    scenario("close during writes", 2, close_during_writes, false),
    scenario("small sinks at their home", 2, small_sinks_at_home, false),
    scenario("read", 2, read, false),
    scenario("collection", 2, collection, false),
];

const fn scenario(name: &'static str, sites: usize, script: Script, in_folders: bool) -> Scenario {
    Scenario {
        name,
        sites,
        script,
        in_folders,
    }
}

fn write(cluster: &Cluster, host: usize, task: u32, batches: Vec<Pages>) -> BoxFuture<'_, ()> {
    async move {
        let host = &cluster.hosts[host];
        let writer = Writer::with(cluster, X, (task, 0), host, batches);
        writer.run().await;
    }
    .boxed()
}

fn pages(task: u32, length: usize) -> Pages {
    (0..2)
        .map(|partition| (partition, vec![b'a' + task as u8; length]))
        .collect()
}

fn one_sink(cluster: &Cluster) -> BoxFuture<'_, ()> {
    write(cluster, 0, 0, vec![pages(0, 100)])
}

fn several_segments(cluster: &Cluster) -> BoxFuture<'_, ()> {
    write(cluster, 0, 0, (0..4).map(|_| pages(0, 1200)).collect())
}

fn group_commit(cluster: &Cluster) -> BoxFuture<'_, ()> {
    let writers = (0..4).map(|task| write(cluster, 0, task, vec![pages(task, 500); 2]));
    join_all(writers).map(drop).boxed()
}

fn empty_sink(cluster: &Cluster) -> BoxFuture<'_, ()> {
    write(cluster, 0, 0, Vec::new())
}

/// What the home does not acknowledge is written at the daemon of the sinks' own node.
fn small_sinks_at_home(cluster: &Cluster) -> BoxFuture<'_, ()> {
    let (home, own) = (&cluster.hosts[0], &cluster.hosts[1]);
    let writers = (0..3).map(move |task| {
        let batch = vec![pages(task, 100)];
        Writer::with(cluster, X, (task, 0), own, batch)
            .at_home(home)
            .run()
    });
    join_all(writers).map(drop).boxed()
}

fn finish_and_abort(cluster: &Cluster) -> BoxFuture<'_, ()> {
    async move {
        for task in 0..3 {
            let abort_later = async {
                sleep_millis(15 + 10 * u64::from(task)).await;
                abort(cluster, (task, 0)).await;
            };
            join(write(cluster, 0, task, vec![pages(task, 100)]), abort_later).await;
        }
    }
    .boxed()
}

async fn abort(cluster: &Cluster, id: AttemptId) {
    let simulation = &cluster.simulation;
    let aborted = cluster.client.abort(&cluster.hosts[0], X, id).await;
    let mut history = simulation.history.lock();
    let checked = match (aborted.result, aborted.run) {
        (Ok(true), Some(by)) => history.aborted(X, id, by),
        (Ok(false), _) => history.observed(X, id),
        _ => Ok(()),
    };
    drop(history);
    simulation.check(checked);
}

fn announce_and_renew(cluster: &Cluster) -> BoxFuture<'_, ()> {
    async move {
        for _ in 0..3 {
            renew(cluster, 0).await;
            sleep_millis(500).await;
        }
        one_sink(cluster).await;
    }
    .boxed()
}

async fn renew(cluster: &Cluster, host: usize) {
    let host = &cluster.hosts[host];
    let answered = cluster
        .client
        .announce(host, X, (2, false), true)
        .await
        .result;
    match answered {
        Ok(_) => cluster.simulation.history.lock().contacted(X),
        Err(error) => {
            cluster.check_error(X, &error, &["exchange-not-found", "exchange-closed"]);
        }
    }
}

fn close(cluster: &Cluster) -> BoxFuture<'_, ()> {
    async move {
        several_segments(cluster).await;
        close_at(cluster, 0).await;
    }
    .boxed()
}

async fn close_at(cluster: &Cluster, host: usize) {
    cluster.simulation.history.lock().exchange(X).closing = true;
    let _ = cluster.client.close(&cluster.hosts[host], X).await;
}

fn close_during_writes(cluster: &Cluster) -> BoxFuture<'_, ()> {
    async move {
        let close_later = async {
            sleep_millis(30).await;
            close_at(cluster, 1).await;
        };
        join(group_commit(cluster), close_later).await;
        sleep_millis(3000).await;
    }
    .boxed()
}

/// Reads what the other daemon wrote, so that all bytes come from the base directories.
fn read(cluster: &Cluster) -> BoxFuture<'_, ()> {
    async move {
        let batches = (0..3).map(|_| pages(0, 1200)).collect();
        write(cluster, 1, 0, batches).await;
        let (client, host) = (&cluster.client, &cluster.hosts[0]);
        let handles = client.handles(host, X, &[(0, 0)], 1 << 20).await;
        for handle in handles.unwrap_or_default() {
            let behaviour = crate::net::ReadBehaviour::default();
            let _ = client.read(host, &handle, 0, behaviour).await;
        }
    }
    .boxed()
}

/// Renewals stop: both daemons collect the exchange, and one of them dies meanwhile.
fn collection(cluster: &Cluster) -> BoxFuture<'_, ()> {
    async move {
        several_segments(cluster).await;
        cluster.simulation.history.lock().exchange(X).closing = true;
        // Both believe that they sweep.
        for site in cluster.sites.iter() {
            site.private_digests.store(true, Ordering::Relaxed);
        }
        tokio::time::sleep(LEASE * 2).await;
    }
    .boxed()
}

/// Runs a scenario; returns the number of storage calls and the report.
fn run(
    scenario: &Scenario,
    kind: Kind,
    mutant: Option<Mutant>,
    at: usize,
    when: When,
) -> (usize, Report) {
    let folder = (kind == Kind::Folders).then(|| tempfile::tempdir().unwrap());
    let crash_point = CrashPoint::new(at, when, folder.as_ref().map(tempfile::TempDir::path));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let report = runtime.block_on(async {
        let simulation = Simulation::new(at as u64, History::new(LEASE), mutant, false);
        let mut plan = Plan::quiet(2, scenario.sites);
        plan.sites.fill(kind == Kind::SimulatedFiles);
        // Rare, since every sweep makes storage calls, but frequent enough to observe an expiry.
        plan.config.lease.sweep_interval = Duration::from_secs(10);
        let cluster = Cluster::with_crash_point(&simulation, plan, Some(Arc::clone(&crash_point)));
        tokio::select! {
            biased;
            () = simulation.stopped.cancelled() => {}
            () = play(&cluster, scenario, &crash_point) => {}
        }
        simulation.report()
    });
    (crash_point.calls(), report)
}

async fn play(cluster: &Cluster, scenario: &Scenario, crash_point: &CrashPoint) {
    let simulation = &cluster.simulation;
    simulation.history.lock().add_exchange(X, 2, false);
    for host in cluster.hosts.iter() {
        simulation.spawn(Arc::clone(host).supervise());
        host.wait_until_serving().await;
    }
    let announced = cluster
        .client
        .announce(&cluster.hosts[1], X, (2, false), false)
        .await;
    assert!(announced.result.is_ok(), "{:?}", announced.result);
    simulation.history.lock().exchange(X).announced = true;
    let done = CancellationToken::new();
    simulation.spawn(keep_alive(cluster.clone(), done.clone()));
    crash_point.arm(true);
    (scenario.script)(cluster).await;
    crash_point.arm(false);
    settle(cluster).await;
    let chosen: Vec<AttemptId> = {
        let mut history = simulation.history.lock();
        history.exchange(X).committed().into_iter().collect()
    };
    check_live_exchange(cluster, X, &chosen).await;
    done.cancel();
    if cluster.is_live(X) {
        close_at(cluster, 1).await;
    }
    check_nothing_is_left(cluster).await;
}

/// Renews at the daemon that does not die, until the exchange is closed.
async fn keep_alive(cluster: Cluster, done: CancellationToken) {
    while !done.is_cancelled() && !cluster.simulation.history.lock().exchange(X).closing {
        renew(&cluster, 1).await;
        tokio::time::sleep(Duration::from_secs(8)).await;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    SimulatedObjects,
    SimulatedFiles,
    /// `LocalStore` in real folders.
    Folders,
}

/// Kills the daemon at every call of every scenario.
fn crash_at_every_call(kind: Kind) {
    let mut runs = 0;
    let scenarios = SCENARIOS
        .iter()
        .filter(|one| one.in_folders || kind != Kind::Folders);
    for scenario in scenarios {
        let (calls, report) = run(scenario, kind, None, usize::MAX, When::Before);
        assert_eq!(report.violation, None, "{} without a crash", scenario.name);
        assert!(calls > 0, "{} makes no storage call", scenario.name);
        for at in 0..calls {
            for when in [When::Before, When::During, When::After] {
                let (_, report) = run(scenario, kind, None, at, when);
                runs += 1;
                let Some(violation) = report.violation else {
                    continue;
                };
                report.lines.iter().for_each(|line| println!("{line}"));
                panic!(
                    "{}, {when:?} call {at} on {kind:?}: {violation}",
                    scenario.name
                );
            }
        }
        println!("{kind:?}, {}: {calls} calls", scenario.name);
    }
    println!("{kind:?}: {runs} crashes");
}

#[test]
fn a_daemon_that_dies_at_any_call_to_an_object_store_breaks_no_promise() {
    crash_at_every_call(Kind::SimulatedObjects);
}

#[test]
fn a_daemon_that_dies_at_any_call_to_a_simulated_file_system_breaks_no_promise() {
    crash_at_every_call(Kind::SimulatedFiles);
}

#[test]
fn a_daemon_that_dies_at_any_call_to_real_folders_breaks_no_promise() {
    crash_at_every_call(Kind::Folders);
}

#[test]
fn crashes_expose_a_store_that_acknowledges_too_early() {
    for mutant in [
        Mutant::StoreAcknowledgesEarly,
        Mutant::RecordBeforeItsSegments,
    ] {
        let broken = SCENARIOS.iter().any(|scenario| {
            (0..15).any(|at| {
                let (_, report) = run(
                    scenario,
                    Kind::SimulatedObjects,
                    Some(mutant),
                    at,
                    When::After,
                );
                report.violation.is_some()
            })
        });
        assert!(broken, "{mutant:?} was not detected");
    }
}
