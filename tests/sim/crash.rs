//! A daemon that dies at every one of its storage calls: before it, with it under way, and after it
//! took place but before its answer.
//!
//! Each scenario runs once to count its calls, then once for each call and moment. Afterwards
//! another daemon and a new run of the dead one must agree with the history, take new work, and
//! leave nothing when the exchange ends. To add a scenario: a function, and its line in
//! `SCENARIOS`.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, join, join_all};
use tokio_util::sync::CancellationToken;

use crate::attempt::Writer;
use crate::cluster::{Cluster, sleep_millis};
use crate::history::{History, Pages, Which};
use crate::mutants::Mutant;
use crate::plan::{LEASE, Plan};
use crate::simulation::{Report, Simulation};
use crate::tap::{Tap, When};
use crate::verdict::{judge, nothing_is_left};
use crate::world::calm;

const X: &str = "x0";

/// What the daemon that is to die is asked to do.
type Script = for<'a> fn(&'a Cluster) -> BoxFuture<'a, ()>;

struct Scenario {
    name: &'static str,
    sites: usize,
    script: Script,
    /// Also in real folders, whose calls are slow where the machine is busy.
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
    scenario(
        "close while others write",
        2,
        close_while_others_write,
        false,
    ),
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

fn finish_and_abort(cluster: &Cluster) -> BoxFuture<'_, ()> {
    async move {
        for task in 0..3 {
            let aborting = async {
                sleep_millis(15 + 10 * u64::from(task)).await;
                abort(cluster, (task, 0)).await;
            };
            join(write(cluster, 0, task, vec![pages(task, 100)]), aborting).await;
        }
    }
    .boxed()
}

async fn abort(cluster: &Cluster, which: Which) {
    let simulation = &cluster.simulation;
    let aborted = cluster.client.abort(&cluster.hosts[0], X, which).await;
    let mut history = simulation.history.lock();
    let checked = match (aborted.answer, aborted.by) {
        (Ok(true), Some(by)) => history.aborted(X, which, by),
        (Ok(false), _) => history.seen(X, which),
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
        .answer;
    match answered {
        Ok(_) => cluster.simulation.history.lock().heard(X),
        Err(trouble) => {
            cluster.judge(X, &trouble, &["exchange-not-found", "exchange-closed"]);
        }
    }
}

fn close(cluster: &Cluster) -> BoxFuture<'_, ()> {
    async move {
        several_segments(cluster).await;
        close_through(cluster, 0).await;
    }
    .boxed()
}

async fn close_through(cluster: &Cluster, host: usize) {
    cluster.simulation.history.lock().exchange(X).closing = true;
    let _ = cluster.client.close(&cluster.hosts[host], X).await;
}

fn close_while_others_write(cluster: &Cluster) -> BoxFuture<'_, ()> {
    async move {
        let closing = async {
            sleep_millis(30).await;
            close_through(cluster, 1).await;
        };
        join(group_commit(cluster), closing).await;
        sleep_millis(3000).await;
    }
    .boxed()
}

/// What the other daemon wrote, so that all of it comes from the base directories.
fn read(cluster: &Cluster) -> BoxFuture<'_, ()> {
    async move {
        let batches = (0..3).map(|_| pages(0, 1200)).collect();
        write(cluster, 1, 0, batches).await;
        let (client, host) = (&cluster.client, &cluster.hosts[0]);
        let handles = client.handles(host, X, &[(0, 0)], 1 << 20).await;
        for handle in handles.unwrap_or_default() {
            let taking = crate::net::Taking::default();
            let _ = client.read(host, &handle, 0, taking).await;
        }
    }
    .boxed()
}

/// Nobody renews any more: both daemons collect, and one of them dies of it.
fn collection(cluster: &Cluster) -> BoxFuture<'_, ()> {
    async move {
        several_segments(cluster).await;
        cluster.simulation.history.lock().exchange(X).closing = true;
        tokio::time::sleep(LEASE * 2).await;
    }
    .boxed()
}

/// Runs a scenario; how many storage calls there were, and what came of it.
fn run(
    scenario: &Scenario,
    kind: Kind,
    mutant: Option<Mutant>,
    at: usize,
    when: When,
) -> (usize, Report) {
    let folder = (kind == Kind::Folders).then(|| tempfile::tempdir().unwrap());
    let tap = Tap::new(at, when, folder.as_ref().map(tempfile::TempDir::path));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let report = runtime.block_on(async {
        let simulation = Simulation::new(at as u64, History::new(LEASE), mutant, false);
        let mut plan = Plan::quiet(2, scenario.sites);
        plan.sites.fill(kind == Kind::SimulatedFiles);
        // Seldom, as every look is storage calls, and often enough for the lease to run out.
        plan.config.lease.sweep_interval = Duration::from_secs(10);
        let cluster = Cluster::tapped(&simulation, plan, Some(Arc::clone(&tap)));
        tokio::select! {
            biased;
            () = simulation.over.cancelled() => {}
            () = play(&cluster, scenario, &tap) => {}
        }
        simulation.report()
    });
    (tap.calls(), report)
}

async fn play(cluster: &Cluster, scenario: &Scenario, tap: &Tap) {
    let simulation = &cluster.simulation;
    simulation.history.lock().begin_exchange(X, 2, false);
    for host in cluster.hosts.iter() {
        simulation.spawn(Arc::clone(host).supervise());
        host.serves().await;
    }
    let announced = cluster
        .client
        .announce(&cluster.hosts[1], X, (2, false), false)
        .await;
    assert!(announced.answer.is_ok(), "{:?}", announced.answer);
    simulation.history.lock().exchange(X).announced = true;
    let over = CancellationToken::new();
    simulation.spawn(keep_alive(cluster.clone(), over.clone()));
    tap.arm(true);
    (scenario.script)(cluster).await;
    tap.arm(false);
    calm(cluster).await;
    let chosen: Vec<Which> = {
        let mut history = simulation.history.lock();
        history.exchange(X).committed().into_iter().collect()
    };
    judge(cluster, X, &chosen).await;
    over.cancel();
    if cluster.lives(X) {
        close_through(cluster, 1).await;
    }
    nothing_is_left(cluster).await;
}

/// Renews through the daemon that does not die, as long as somebody wants the exchange.
async fn keep_alive(cluster: Cluster, over: CancellationToken) {
    while !over.is_cancelled() && !cluster.simulation.history.lock().exchange(X).closing {
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

/// Dies at every call of every scenario.
fn die_everywhere(kind: Kind) {
    let mut runs = 0;
    let scenarios = SCENARIOS
        .iter()
        .filter(|one| one.in_folders || kind != Kind::Folders);
    for scenario in scenarios {
        let (calls, report) = run(scenario, kind, None, usize::MAX, When::Before);
        assert_eq!(report.violation, None, "{} without a crash", scenario.name);
        assert!(calls > 0, "{} makes no storage call", scenario.name);
        for at in 0..calls {
            for when in [When::Before, When::UnderWay, When::After] {
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
    println!("{kind:?}: {runs} deaths");
}

#[test]
fn a_daemon_that_dies_at_any_call_to_an_object_store_breaks_no_promise() {
    die_everywhere(Kind::SimulatedObjects);
}

#[test]
fn a_daemon_that_dies_at_any_call_to_a_simulated_file_system_breaks_no_promise() {
    die_everywhere(Kind::SimulatedFiles);
}

#[test]
fn a_daemon_that_dies_at_any_call_to_real_folders_breaks_no_promise() {
    die_everywhere(Kind::Folders);
}

#[test]
fn a_death_shows_what_a_store_acknowledged_before_it_held_it() {
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
        assert!(broken, "{mutant:?} was not found");
    }
}
